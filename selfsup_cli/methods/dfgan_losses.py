"""Objectives of generative adversarial training with filtered distributions (chapter 7).

The discriminator's outputs are logits `[B]` without a sigmoid; every loss is a scalar in float32
that is to be minimised. Each of the distributions that D sees, the clean and the noisy one, counts
the same, as in (7.4): ½ each where there are both, 1 where there is one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Feeding = Literal["clean", "noisy", "both", "alternate"]
Discriminator = Callable[[Tensor], Tensor]
Elementwise = Callable[[Tensor], Tensor]

_EPS = 1e-5


# What the discriminator sees


@dataclass(frozen=True)
class Scores:
    """D's logits on images as they are and on images with noise; None where it saw none."""

    clean: Tensor | None
    noisy: Tensor | None

    def parts(self) -> list[Tensor]:
        """The distributions there are, the clean one first."""
        return [part for part in (self.clean, self.noisy) if part is not None]


def noise_count(images: int, feeding: Feeding) -> int:
    """How many of a batch of so many images get noise."""
    return {"clean": 0, "alternate": images // 2}.get(feeding, images)


def filtered(
    images: Tensor, noise: Tensor | None, feeding: Feeding, *, standardize: bool = False
) -> Tensor:
    """One batch for D, all real or all fake, from images `[m, …]` and noise `[noise_count, …]`.

    "clean": the images (the standard GAN). "noisy": images plus noise (rows a–c of table 7.1).
    "both": the images, then the same with noise, `[2m, …]` (section 7.2.2). "alternate": the first
    images as they are, the last m // 2 with noise (row i). Nothing is clipped. Clean and noisy
    images share one batch, real and fake ones never do, so that batch norm sees either by itself
    (section 7.2.3); the same noise is to be passed for both. Where D has no batch norm,
    `standardize` normalises the noisy ones by themselves.

    Raises ValueError for noise that is not of the images' number and shape.
    """
    count = noise_count(len(images), feeding)
    if count == 0:
        return images
    clean = {"noisy": 0, "alternate": len(images) - count}.get(feeding, len(images))
    if noise is None or noise.shape != images[:count].shape:
        got = "none" if noise is None else tuple(noise.shape)
        raise ValueError(f"{feeding} wants noise {tuple(images[:count].shape)}, not {got}")
    noisy = images[len(images) - count :] + noise
    if standardize:
        noisy = standardized(noisy)
    return torch.cat([images[:clean], noisy]) if clean else noisy


def against(noise: Tensor) -> Tensor:
    """The same noise, whose gradient has the other sign: who makes it climbs where D descends."""
    return noise.detach().mul(2).sub(noise)


def standardized(images: Tensor) -> Tensor:
    """`[B, C, …]` with mean 0 and variance 1 per channel, over the batch and all places.

    The "separate normalization" of section 7.2.3 for discriminators without batch norm; the thesis
    gives no formula.
    """
    over = [0, *range(2, images.ndim)]
    mean = images.mean(over, keepdim=True)
    variance = images.var(over, correction=0, keepdim=True)
    return (images - mean) * torch.rsqrt(variance + _EPS)


def split(logits: Tensor, feeding: Feeding) -> Scores:
    """The logits of a batch that `filtered` made, apart."""
    if feeding == "clean":
        return Scores(logits, None)
    if feeding == "noisy":
        return Scores(None, logits)
    noisy = len(logits) // 2
    return Scores(logits[: len(logits) - noisy], logits[len(logits) - noisy :])


# Objectives


@dataclass(frozen=True)
class Objective:
    """What D minimises on real and on fake images, and G on fake ones, for each logit.

    A logit above `threshold` says "real"; a critic that only compares has none.
    """

    name: str
    real: Elementwise
    fake: Elementwise
    generator: Elementwise
    threshold: float | None = 0.0


def _half_square_from(target: float) -> Elementwise:
    return lambda logits: 0.5 * (logits - target).square()


MINIMAX = Objective(
    "minimax",
    real=lambda logits: F.softplus(-logits),
    fake=F.softplus,
    generator=lambda logits: -F.softplus(logits),
)
"""(7.1): −ln σ(D(x)) and −ln(1 − σ(D(x̃))); G minimises ln(1 − σ(D(x̃))), which saturates."""

NON_SATURATING = Objective(
    "non-saturating",
    real=lambda logits: F.softplus(-logits),
    fake=F.softplus,
    generator=lambda logits: F.softplus(-logits),
)
"""As minimax, but G minimises −ln σ(D(x̃)) (Algorithm 1, DCGAN [25])."""

LEAST_SQUARES = Objective(
    "least-squares",
    real=_half_square_from(1),
    fake=_half_square_from(0),
    generator=_half_square_from(1),
    threshold=0.5,
)
"""LSGAN [37]: half the squared distance to 1 for real, to 0 for fake, to 1 for G."""

HINGE = Objective(
    "hinge",
    real=lambda logits: F.relu(1 - logits),
    fake=lambda logits: F.relu(1 + logits),
    generator=torch.neg,
)
"""SVM-GAN [140]: margins of 1 for D, the plain logit for G."""

WASSERSTEIN = Objective(
    "wasserstein", real=torch.neg, fake=lambda logits: logits, generator=torch.neg, threshold=None
)
"""WGAN [35]: the difference of means; with `gradient_penalty`, WGAN-GP [36]."""

OBJECTIVES: Mapping[str, Objective] = {
    objective.name: objective
    for objective in (MINIMAX, NON_SATURATING, LEAST_SQUARES, HINGE, WASSERSTEIN)
}


def discriminator_loss(objective: Objective, real: Scores, fake: Scores) -> Tensor:
    """L_D: the mean over the distributions of the losses on real and on fake images.

    Section 5.3's ½CE(x→1) + ½CE(x+ε→1) + ½CE(x̃→0) + ½CE(x̃+ε→0), for the first two objectives.
    """
    return _mean(objective.real, real) + _mean(objective.fake, fake)


def generator_loss(objective: Objective, fake: Scores) -> Tensor:
    """L_G: the mean over the distributions of the generator's loss on fake images."""
    return _mean(objective.generator, fake)


def noise_loss(
    objective: Objective,
    real: Scores,
    fake: Scores,
    magnitude: Tensor,
    weight: float,
    *,
    whole: bool = False,
) -> Tensor:
    """L_N = −(the noisy half of L_D) + λΓ, which N descends while D descends L_D (Algorithm 1).

    `weight` is λ and `magnitude` is Γ of (7.8). The clean half does not depend on the noise but
    through the statistics of D's batch norm; `whole` takes all of −L_D, as the text of section
    7.3.2 reads. The gradient is for N's parameters only; the noise for real and fake images is the
    same. Raises ValueError where D saw nothing noisy.
    """
    if real.noisy is None or fake.noisy is None:
        raise ValueError("there is no noise to learn where D sees clean images only")
    if whole:
        return weight * magnitude - discriminator_loss(objective, real, fake)
    noisy = objective.real(real.noisy.float()).mean() + objective.fake(fake.noisy.float()).mean()
    return weight * magnitude - noisy / len(real.parts())


def accuracies(objective: Objective, real: Scores, fake: Scores) -> dict[str, Tensor]:
    """Shares in [0, 1] of real and fake images that D tells apart, by "clean" and "noisy".

    An objective without a threshold is measured by that of real images against fake ones ordered
    the right way, a tie counting a half.
    """
    found: dict[str, Tensor] = {}
    for name in ("clean", "noisy"):
        ours, theirs = getattr(real, name), getattr(fake, name)
        if ours is None or theirs is None:
            continue
        if objective.threshold is None:
            apart = ours[:, None] - theirs[None, :]
            found[name] = (apart > 0).float().mean() + 0.5 * (apart == 0).float().mean()
        else:
            right = (ours > objective.threshold).float().mean()
            found[name] = (right + (theirs <= objective.threshold).float().mean()) / 2
    return found


def _mean(loss: Elementwise, scores: Scores) -> Tensor:
    parts = [loss(part.float()).mean() for part in scores.parts()]
    return torch.stack(parts).mean()


# Regularisers of the discriminator that the thesis compares with


def gradient_penalty(
    discriminator: Discriminator, real: Tensor, fake: Tensor, g: torch.Generator
) -> Tensor:
    """Mean of (|∇D(x̂)| − 1)² on random mixtures x̂ = u·x + (1 − u)·x̃ (WGAN-GP [36], weight 10).

    Real and fake are `[B, …]` of one shape, detached here; u is drawn from `g` for each image. D
    must judge each image by itself: no batch norm.
    """
    u = torch.rand(len(real), *[1] * (real.ndim - 1), generator=g, device=real.device)
    # In mixed precision fake images have fewer bits than real ones.
    mixed = torch.lerp(fake.detach().float(), real.detach().float(), u).requires_grad_()
    squares = squared_gradients(discriminator(mixed), mixed)
    # The root of a gradient that is exactly zero would have none of its own.
    return ((squares + 1e-12).sqrt() - 1).square().mean()


def gradient_regularizer(
    real_logits: Tensor, real: Tensor, fake_logits: Tensor, fake: Tensor
) -> Tensor:
    """E_x[(1 − σ(D))²·|∇D|²] + E_x̃[σ(D)²·|∇D|²], to be weighed by γ/2 ("GAN+GP", [42]).

    The logits must have been computed from `real` and `fake`, inputs that require gradients.
    """
    on_real = torch.sigmoid(-real_logits.float()).square() * squared_gradients(real_logits, real)
    on_fake = torch.sigmoid(fake_logits.float()).square() * squared_gradients(fake_logits, fake)
    return on_real.mean() + on_fake.mean()


def squared_gradients(logits: Tensor, inputs: Tensor) -> Tensor:
    """|∇D|² at each input, `[B]`, float32; can itself be differentiated.

    With batch norm in D, the gradient at one image holds what it does to the others' logits too.
    """
    (gradient,) = torch.autograd.grad(logits.sum(), inputs, create_graph=True)
    return gradient.float().flatten(1).square().sum(1)
