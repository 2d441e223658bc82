"""Is a GAN healthy? What its discriminator knows, what its generator is told, how samples differ.

What is judged comes in batches: D normalises each by itself, as in training.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from selfsup_cli.data.ring import Coverage
from selfsup_cli.methods.dfgan_losses import Objective, Scores, accuracies, generator_loss
from selfsup_cli.runs.report import Finding, Measurement, ProtocolValue, accuracy

# Share told apart from which on D knows (nearly) all.
_SURE = 0.98
# Mean of |∂L_G/∂D| below which G is told nothing; it is at most about 1 for all objectives.
_TOLD = 0.05
# Mean distance of samples, as a share of that of real images, below which they are all alike.
_ALIKE = 0.4
# Noise below this share of what images reach is none, above this share of its own reach all it can.
_SILENT, _LOUD = 0.02, 0.95


@dataclass(frozen=True)
class Told:
    """What D tells, as shares 0 … 1 of `n` real and `n` generated images (None: it sees none).

    `slope` is the mean of |∂L_G/∂logit| of an image, `gradient` that of |∂L_G/∂x̃|.
    """

    clean: float | None
    noisy: float | None
    n: int
    slope: float
    gradient: float


@dataclass(frozen=True)
class Noise:
    """Root mean square of the noise; `reach` is its largest value, where it has one."""

    rms: float
    reach: float | None


@dataclass(frozen=True)
class Variety:
    """Mean distances of pairs of samples and of pairs of real images, of `n` each."""

    samples: float
    reals: float
    n: int

    @property
    def share(self) -> float:
        """1 where samples differ as much as real images."""
        return self.samples / self.reals if self.reals > 0 else 1.0

    @property
    def collapsed(self) -> bool:
        """Whether samples are all alike."""
        return self.share < _ALIKE


@dataclass(frozen=True)
class Distance:
    """A Fréchet distance, by the name of its features, of `n` samples from `n` real images."""

    name: str
    value: float
    n: int


@dataclass(frozen=True)
class GanHealth:
    """What one check found; `coverage` is for points, `distance` for images."""

    told: Told
    noise: Noise | None
    variety: Variety
    distance: Distance | None = None
    coverage: Coverage | None = None
    many: str = "images"

    def metrics(self) -> dict[str, float]:
        """For `metrics.jsonl`."""
        out = {"heldout_gradient_at_fakes": self.told.gradient, "variety": self.variety.share}
        for name in ("clean", "noisy"):
            if (value := getattr(self.told, name)) is not None:
                out[f"heldout_discriminator_{name}"] = value
        if self.noise is not None:
            out["heldout_noise_rms"] = self.noise.rms
        if self.distance is not None:
            out[self.distance.name] = self.distance.value
        if self.coverage is not None:
            out["modes_covered"] = float(self.coverage.covered)
            out["good_samples"] = self.coverage.good / self.coverage.count
        return out

    def chances(self) -> dict[str, float]:
        """What a discriminator gets that knows nothing."""
        names = [name for name in ("clean", "noisy") if getattr(self.told, name) is not None]
        return {f"heldout_discriminator_{name}": 0.5 for name in names}

    def findings(self) -> list[Finding]:
        """Each in a sentence, with what to do where it goes wrong."""
        out = [self._told()]
        if self.noise is not None:
            out.append(_of_noise(self.noise))
        out.append(self._variety())
        if self.coverage is not None:
            out.append(_of_modes(self.coverage))
        if self.distance is not None:
            said = f"{self.distance.name} {self.distance.value:.4g} of {self.distance.n} samples"
            out.append(Finding(text=f"{said}; it compares with itself only", verdict="note"))
        return out

    def measurements(
        self, *, dataset: str, split: str, subject: str, protocol: dict[str, ProtocolValue]
    ) -> list[Measurement]:
        """The same as numbers for a report."""
        told, variety = self.told, self.variety
        about: dict[str, Any] = {
            "task": "monitor",
            "subject": subject,
            "dataset": dataset,
            "split": split,
            "protocol": protocol,
        }

        def number(name: str, metric: str, value: float, n: int) -> Measurement:
            return Measurement(**about, name=name, metric=metric, unit="", value=value, n=n)

        rows = []
        if (cover := self.coverage) is not None:
            rows.append(number("modes covered", "modes", float(cover.covered), cover.count))
            metric = "share of good samples"
            rows.append(accuracy("good samples", cover.good, cover.count, metric=metric, **about))
        if (apart := self.distance) is not None:
            rows.append(number("samples", apart.name, apart.value, apart.n))
        for name, value in (("clean", told.clean), ("noisy", told.noisy)):
            if value is not None:
                rows.append(
                    accuracy(
                        f"{name} {self.many} told apart",
                        round(value * 2 * told.n),
                        2 * told.n,
                        metric="discriminator accuracy",
                        chance=50.0,
                        chance_is="what knowing nothing gets",
                        **{**about, "subject": "discriminator"},
                    )
                )
        rows.append(number("gradient at samples", "gradient norm", told.gradient, told.n))
        rows.append(number("variety of samples", "share of that of data", variety.share, variety.n))
        if self.noise is not None:
            rows.append(number("noise", "root mean square", self.noise.rms, told.n))
        return rows

    def _told(self) -> Finding:
        told = self.told
        parts = {"clean": told.clean, "noisy": told.noisy}
        shares = [f"{v:.1%} of {name}" for name, v in parts.items() if v is not None]
        said = (
            f"the discriminator tells {' and '.join(shares)} {self.many} apart (chance 50%), and "
            f"the gradient at samples is {told.gradient:.3g}"
        )
        if told.slope < _TOLD:
            return Finding(
                text=f"{said}: saturated, the generator is told nothing; use --objective "
                "non-saturating, add noise (--noise learned), or fewer updates of the "
                "discriminator (--n-disc 1)",
                verdict="bad",
            )
        if all(value >= _SURE for value in parts.values() if value is not None):
            return Finding(
                text=f"{said}: it knows nearly all, which teaches little; "
                + (
                    "add noise (--noise learned)"
                    if told.noisy is None
                    else "let the noise grow (a smaller --noise-weight, or a larger "
                    "filtering.sigma)"
                )
                + ", or lower the learning rate (--lr)",
                verdict="bad",
            )
        return Finding(text=said, verdict="note")

    def _variety(self) -> Finding:
        said = f"samples differ {self.variety.share:.0%} as much as real {self.many} do"
        if not self.variety.collapsed:
            return Finding(text=f"{said}: not collapsed", verdict="good")
        return Finding(
            text=f"{said}: collapsed, or not yet begun; if it stays so, add noise (--noise learned "
            "--feeding both), lower the learning rate (--lr), or let the discriminator see whole "
            "batches (--norm-discriminator batch)",
            verdict="bad",
        )


def _of_noise(noise: Noise) -> Finding:
    said = f"noise has a root mean square of {noise.rms:.3g} (images reach 1)"
    if noise.rms < _SILENT:
        return Finding(
            text=f"{said}: hardly any is left; use a smaller --noise-weight, or begin with a "
            "larger filtering.sigma",
            verdict="bad",
        )
    if noise.reach is not None and noise.rms > _LOUD * noise.reach:
        return Finding(
            text=f"{said}, as much as it can: noisy images say nothing; use a larger "
            "--noise-weight",
            verdict="bad",
        )
    return Finding(text=said, verdict="note")


def _of_modes(found: Coverage) -> Finding:
    modes = len(found.by_mode)
    share = found.good / found.count
    said = f"{found.covered} of {modes} modes are covered, {share:.1%} of the samples are good"
    if found.covered == modes:
        return Finding(text=said, verdict="good")
    return Finding(
        text=f"{said}: modes are missing; add noise (--noise learned), or train longer "
        "(--max-steps)",
        verdict="bad",
    )


def told_apart(objective: Objective, real: Sequence[Scores], fake: Sequence[Scores]) -> Told:
    """Of the logits of batches of real and of generated images, without the gradients."""
    found = [accuracies(objective, a, b) for a, b in zip(real, fake, strict=True)]

    def mean(name: str) -> float | None:
        values = [one[name] for one in found if name in one]
        return float(torch.stack(values).mean()) if values else None

    slopes = [_slope(objective, scores) for scores in fake]
    n = sum(len(part) for scores in real for part in scores.parts()[:1])
    return Told(mean("clean"), mean("noisy"), n, sum(slopes) / len(slopes), math.nan)


def _slope(objective: Objective, fake: Scores) -> float:
    """Mean of |∂L_G/∂logit|, L_G being the loss of that image alone."""
    parts = [part.detach().float().requires_grad_() for part in fake.parts()]
    given = iter(parts)
    clean = next(given) if fake.clean is not None else None
    noisy = next(given) if fake.noisy is not None else None
    with torch.enable_grad():
        loss = generator_loss(objective, Scores(clean, noisy))
        gradients = torch.autograd.grad(loss, parts)
    return float(sum(gradient.abs().sum() for gradient in gradients))


def mean_distance(vectors: Tensor) -> float:
    """Mean Euclidean distance of two different ones of `[n, …]`; n of at least 2."""
    flat = vectors.flatten(1).float()
    count = len(flat)
    return float(torch.cdist(flat, flat).sum()) / (count * (count - 1))
