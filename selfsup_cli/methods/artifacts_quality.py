"""How well damage, repair and discriminator of chapter 3 do their parts on held-out images."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from selfsup_cli.config.artifacts import PretrainArtifacts
from selfsup_cli.methods.artifacts_losses import CORRUPT, REAL
from selfsup_cli.methods.image_pretext import Examples, Quality
from selfsup_cli.models.alexnet_artifacts import Verdicts
from selfsup_cli.runs.report import Finding, Verdict
from selfsup_cli.transforms.damage import upsample

# Shares of right answers from which on one side of the game has won.
_OUTRIGHT, _LOST = 0.99, 0.55
# Of the way from chance to perfect, what counts as knowing where the damage is.
_FINDS = 0.1
# Mean squared errors below which replicas are good, and above which they lack detail.
_REPLICATES, _BLURS = 0.01, 0.03
# Values in [-1, 1] span 2.
_PEAK = 4.0


@dataclass(frozen=True, kw_only=True)
class Damaged(Examples):
    """Examples, and how they were made of B images.

    `kept` bool `[B, 1, M, N]` is Ω. Float `[B, 3, S, S]` in [-1, 1] are `replicas`, D(E(x)),
    `repaired`, D̂(φ̂), and `unrepaired`, D(φ̂). `verdicts` are the discriminator's on `crops`, and
    `others` its on the intact images that it is not trained on: on images as they are where it is
    trained on replicas, and the other way round; both are there where it was asked.
    """

    kept: Tensor
    replicas: Tensor
    repaired: Tensor
    unrepaired: Tensor
    verdicts: Verdicts | None = None
    others: Verdicts | None = None


def average_precision(scores: Tensor, found: Tensor) -> Tensor:
    """Mean precision at each of what is to be found (bool `[N]`), by falling `scores` `[N]`."""
    hits = found[scores.argsort(descending=True)].double()
    precision = hits.cumsum(0) / torch.arange(1, len(hits) + 1, device=hits.device)
    return (precision * hits).sum() / hits.sum().clamp(min=1)


def share(logits: Tensor, label: int) -> Tensor:
    """How much of logits `[B, 2]` says `label`."""
    return (logits.argmax(1) == label).float().mean()


def measured(examples: Damaged) -> dict[str, Tensor]:
    """Scalars: `autoencoder_error`, the mean squared error of replicas, and where the discriminator
    was asked

    - `discriminator_accuracy`, the mean of its accuracies on damaged and on real images;
    - `mask_precision`, with a mask head: the average precision with which it finds dropped cells;
    - `repaired_error` and `kept_error`, mean squared errors of repaired images inside and outside
      of what was dropped;
    - `others_real`, the share of the other intact images that it takes for real.
    """
    images, repaired = examples.canvases, examples.repaired.float()
    found = {"autoencoder_error": (examples.replicas.float() - images).square().mean()}
    if examples.verdicts is None or examples.others is None:
        return found
    corrupt, real = examples.verdicts.split(len(images))
    right = share(corrupt.classes, CORRUPT) + share(real.classes, REAL)
    found["discriminator_accuracy"] = right / 2
    if corrupt.masks is not None:
        found["mask_precision"] = average_precision(
            -corrupt.masks.float().flatten(), ~examples.kept.flatten()
        )
    squares = (repaired - images).square().mean(1, keepdim=True)
    kept = upsample(examples.kept, (images.shape[2], images.shape[3]))
    for name, chosen in (("repaired_error", ~kept), ("kept_error", kept)):
        found[name] = (squares * chosen).sum() / chosen.sum().clamp(min=1)
    found["others_real"] = share(examples.others.classes, REAL)
    return found


def described(quality: Mapping[str, float], preset: PretrainArtifacts) -> list[Quality]:
    """What `measured` gave, each number with a sentence about it."""
    out = []
    for name, value in quality.items():
        verdict, said = _SAID[name](value, preset)
        out.append(Quality(name, value, Finding(text=said, verdict=verdict)))
    return out


def _autoencoder(value: float, preset: PretrainArtifacts) -> tuple[Verdict, str]:
    said = f"the autoencoder replicates images with a mean squared error of {_error(value)}"
    most = preset.autoencoder.max_error
    if value > most:
        return "bad", f"{said}, more than the {most:g} up to which it serves"
    if value > _BLURS:
        return "unclear", (
            f"{said}: replicas are blurred, and so is what the discriminator learns; train it "
            "longer (--autoencoder-epochs)"
        )
    return ("good" if value <= _REPLICATES else "note"), said


def _discriminator(value: float, preset: PretrainArtifacts) -> tuple[Verdict, str]:
    said = f"the discriminator tells damaged images from real ones in {value:.1%} of the cases"
    if value >= _OUTRIGHT:
        return "bad", (
            f"{said}: it wins outright, and has little to learn from the repair network any more; "
            "look at the sheet for traces that it may go by, or damage less (--drop-rate)"
        )
    if value <= _LOST:
        return "bad", (
            f"{said}: it loses to the repair network; damage more (--drop-rate), or train longer "
            "(--epochs)"
        )
    return "good", f"{said}: neither side has won"


def _mask(value: float, preset: PretrainArtifacts) -> tuple[Verdict, str]:
    chance = preset.drop_rate
    said = (
        f"it finds the dropped cells with an average precision of {value:.1%} (chance {chance:.0%})"
    )
    if value - chance > _FINDS * (1 - chance):
        return "good", said
    return "unclear", f"{said}: it does not know so far where the damage is"


def _repaired(value: float, preset: PretrainArtifacts) -> tuple[Verdict, str]:
    return "note", f"what was dropped differs from the image, once repaired, by {_error(value)}"


def _kept(value: float, preset: PretrainArtifacts) -> tuple[Verdict, str]:
    return "note", f"what was kept differs from it by {_error(value)}"


def _others(value: float, preset: PretrainArtifacts) -> tuple[Verdict, str]:
    if preset.real == "replicas":
        return "note", f"it takes {value:.1%} of the images for real as they are, not replicated"
    said = f"it takes {value:.1%} of replicas of undamaged images for real"
    if value >= 0.5:
        return "good", said
    return "bad", (
        f"{said}: what it is shown as real gives itself away by not having gone through the "
        "autoencoder; use --set real=replicas"
    )


_SAID = {
    "autoencoder_error": _autoencoder,
    "discriminator_accuracy": _discriminator,
    "mask_precision": _mask,
    "repaired_error": _repaired,
    "kept_error": _kept,
    "others_real": _others,
}


def _error(squared: float) -> str:
    """A mean squared error of values in [-1, 1], with its ratio to the range in decibel."""
    if squared <= 0:
        return "0"
    return f"{squared:.4f} (PSNR {10 * math.log10(_PEAK / squared):.1f} dB)"
