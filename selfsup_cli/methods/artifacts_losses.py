"""The losses of learning to spot artifacts (thesis, sections 3.3.2 and 3.3.3).

The discriminator C judges replicas D(φ) and damaged images x̂ = D̂(φ̂) in one batch; what it says
of the former is called `real` here, of the latter `corrupt`. Every loss is a mean over what it
covers: the sums of the thesis would only weigh them by the size of images and batches.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from selfsup_cli.models.alexnet_artifacts import Verdicts

CORRUPT, REAL = 0, 1
"""What the two logits of the discriminator stand for."""

MASK_WEIGHT = 0.1
"""Weight of finding the damage beside recognising it (the author's code; none in the thesis)."""

ERROR_WEIGHT = 30.0
"""Weight of mean squared errors of pixels in [-1, 1] (the author's code)."""


def autoencoder_loss(replicas: Tensor, images: Tensor, *, weight: float = ERROR_WEIGHT) -> Tensor:
    """`weight` times the mean of |D(E(x)) − x|² over all values (equation 3.3)."""
    return weight * F.mse_loss(replicas.float(), images.float())


def class_loss(real: Tensor, corrupt: Tensor) -> Tensor:
    """Cross-entropy of the logits `[R, 2]` and `[C, 2]`, a mean over all R + C: what C minimises of
    equation 3.4."""
    logits = torch.cat([real, corrupt]).float()
    return F.cross_entropy(logits, torch.cat([_labels(real, REAL), _labels(corrupt, CORRUPT)]))


def mask_loss(real: Tensor, corrupt: Tensor, kept: Tensor) -> Tensor:
    """Binary cross-entropy of the logits `[R, 1, M, N]` and `[C, 1, M, N]` of cells being intact.

    Real images are intact everywhere, corrupt ones as Ω (`kept`, bool `[C, 1, M, N]`) says. The
    unnumbered equation after 3.4 lacks the minus and passes C through σ although it has been, and
    it leaves the real images out; this is what the author's code does.
    """
    truth = torch.cat([torch.ones_like(real), kept.to(real.device, real.dtype)])
    logits = torch.cat([real, corrupt])
    return F.binary_cross_entropy_with_logits(logits.float(), truth.float())


def discriminator_loss(
    real: Verdicts, corrupt: Verdicts, kept: Tensor, *, mask_weight: float = MASK_WEIGHT
) -> Tensor:
    """What C minimises: `class_loss` and, if it has a mask head, `mask_weight` times `mask_loss`.

    To be differentiated with respect to C alone.
    """
    loss = class_loss(real.classes, corrupt.classes)
    if real.masks is None or corrupt.masks is None:
        return loss
    return loss + mask_weight * mask_loss(real.masks, corrupt.masks, kept)


def deceiving_loss(corrupt: Tensor) -> Tensor:
    """Cross-entropy of the logits `[C, 2]` of corrupt images with the label real.

    Equation 3.4 has R minimise log(1 − C(x̂)), whose gradient vanishes where C is sure.
    """
    return F.cross_entropy(corrupt.float(), _labels(corrupt, REAL))


def kept_error(repaired: Tensor, images: Tensor, kept_pixels: Tensor) -> Tensor:
    """Mean of (x̂ − x)² over all values of pixels that were kept, 0 where there is none.

    Images are `[B, 3, H, W]`, `kept_pixels` is bool `[B, 1, H, W]`: Ω, upsampled.
    """
    squares = (repaired.float() - images.float()).square() * kept_pixels
    return squares.sum() / (kept_pixels.sum() * images.shape[1]).clamp(min=1)


def repair_loss(
    corrupt: Tensor,
    repaired: Tensor,
    images: Tensor,
    kept_pixels: Tensor,
    *,
    kept_weight: float = ERROR_WEIGHT,
) -> Tensor:
    """What R minimises: `deceiving_loss`, and `kept_weight` times `kept_error` from the images
    themselves, lest what is repaired spreads to what was kept.

    To be differentiated with respect to R alone. All of it is about images that R has just painted,
    none of those that come from a history.
    """
    error = kept_error(repaired, images, kept_pixels)
    return deceiving_loss(corrupt) + kept_weight * error


def repair_loss_as_released(
    real: Verdicts,
    corrupt: Verdicts,
    kept: Tensor,
    repaired: Tensor,
    images: Tensor,
    kept_pixels: Tensor,
    *,
    mask_weight: float = MASK_WEIGHT,
    kept_weight: float = ERROR_WEIGHT,
) -> Tensor:
    """What R minimises in the author's code: C's own loss in addition, collected by mistake.

    Every label counts once as it is and once flipped, so that on corrupt images R drives C to ½
    instead of to real, and it helps C to find the damage.
    """
    flipped = class_loss(corrupt.classes, real.classes)
    own = discriminator_loss(real, corrupt, kept, mask_weight=mask_weight)
    return own + flipped + kept_weight * kept_error(repaired, images, kept_pixels)


def _labels(logits: Tensor, label: int) -> Tensor:
    return torch.full((len(logits),), label, device=logits.device)
