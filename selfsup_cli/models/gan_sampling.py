"""What a generator gives: latents by number, truncated or not, and how batch norm is done."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor, nn

from selfsup_cli.errors import InputError
from selfsup_cli.models.gan import batch_statistics
from selfsup_cli.models.gan_files import AnyGenerator, Noise
from selfsup_cli.models.gan_noise import LearnedNoise
from selfsup_cli.randomness import generator

BATCH = 100
"""Samples that are normalised together (section 7.3)."""
RECALIBRATION = 50
"""Batches over which running averages are made anew."""

BatchNorm = Literal["batch", "running", "recalibrated"]

_BLOCK = 100


@dataclass(frozen=True)
class Latents:
    """z from N(0, I) by number: the i-th is the same however many are asked for at a time.

    `truncation` t maps each number from N(0, 1) to the same quantile of N(0, 1) cut off at ±t, so
    that a sample keeps its look as t falls.
    """

    seed: int
    length: int
    truncation: float | None = None
    purpose: str = "latents"

    def rows(self, start: int, stop: int) -> Tensor:
        """Numbers [start, stop), float32 `[stop − start, length]`, on the CPU."""
        found = [
            torch.randn(_BLOCK, self.length, generator=generator(self.seed, block, self.purpose))
            for block in range(start // _BLOCK, max(stop - 1, start) // _BLOCK + 1)
        ]
        first = start // _BLOCK * _BLOCK
        z = torch.cat(found)[start - first : stop - first]
        return z if self.truncation is None else truncated(z, self.truncation)


def truncated(z: Tensor, limit: float) -> Tensor:
    """Numbers from N(0, 1) at the same quantiles of N(0, 1) cut off at ±`limit` > 0."""
    inside = math.erf(limit / math.sqrt(2))
    share = torch.erf(z.double() / math.sqrt(2)) * inside
    return (math.sqrt(2) * torch.erfinv(share)).clamp(-limit, limit).to(z.dtype)


def slerp(a: Tensor, b: Tensor, steps: int) -> Tensor:
    """From each of `a` `[R, L]` to that of `b` on the sphere: `[R, steps, L]`, both ends included.

    Lengths go evenly from one to the other; where the two point the same or opposite ways, it is a
    straight line.
    """
    t = torch.linspace(0, 1, steps, dtype=torch.float64)[None, :, None]
    first, last = a.double()[:, None], b.double()[:, None]
    lengths = [side.norm(dim=2, keepdim=True).clamp(min=1e-12) for side in (first, last)]
    one, other = first / lengths[0], last / lengths[1]
    angle = (one * other).sum(2, keepdim=True).clamp(-1, 1).acos()
    sine = angle.sin()
    flat = sine < 1e-6
    safe = torch.where(flat, torch.ones_like(sine), sine)
    weights = ((1 - t) * angle).sin() / safe, (t * angle).sin() / safe
    on_sphere = (weights[0] * one + weights[1] * other) * ((1 - t) * lengths[0] + t * lengths[1])
    return torch.where(flat, (1 - t) * first + t * last, on_sphere).to(a.dtype)


class Sampler:
    """Samples of one generator, on a device, always in full batches.

    `batch_norm`: "batch" normalises by each batch of `batch` samples as in training (the thesis),
    "running" by the averages that training kept, "recalibrated" by averages made anew over
    `RECALIBRATION` batches: what an average of weights has no others of. With "batch", what a
    latent gives depends on the others of its batch; the surplus of the last one is drawn and
    dropped, so that sample i is the same however many are asked for.

    Raises InputError for "batch" with batches of one, and for "running" where no averages were
    kept.
    """

    def __init__(
        self,
        network: AnyGenerator,
        *,
        batch_norm: BatchNorm = "batch",
        batch: int = BATCH,
        device: torch.device | str = "cpu",
    ) -> None:
        self.batch = batch
        self.device = torch.device(device)
        norms = _norms(network)
        self.batch_norm: BatchNorm | None = batch_norm if norms else None
        self._given = network.to(self.device).eval()
        if self.batch_norm == "batch" and batch < 2:
            raise InputError(
                "a batch of one has no statistics to normalise by: give --batch-size 2 or more, "
                "or --batch-norm recalibrated",
                kind="batch-of-one",
            )
        if self.batch_norm == "running" and any(_untouched(norm) for norm in norms):
            raise InputError(
                "these weights have no running averages of batch norm (a moving average of weights "
                "keeps none): use --batch-norm batch, as in training, or recalibrated",
                kind="no-averages",
            )

    @cached_property
    def network(self) -> AnyGenerator:
        """The generator as it draws: with averages made anew, where that was asked for."""
        return self._recalibrated() if self.batch_norm == "recalibrated" else self._given

    @property
    def told(self) -> str:
        """How batch norm is done, in a phrase."""
        match self.batch_norm:
            case "batch":
                return f"by each batch of {self.batch}, as in training"
            case "running":
                return "by the running averages of training"
            case "recalibrated":
                return f"by averages over {RECALIBRATION} batches of {self.batch}, made anew"
        return "the generator has none"

    def __call__(self, z: Tensor) -> Tensor:
        """Images or points of latents `[n, latent]`, float, on the device.

        With "batch" a batch that is not full is filled up with other latents.
        """
        out = []
        for part in torch.split(z, self.batch):
            missing = self.batch - len(part) if self.batch_norm == "batch" else 0
            others = Latents(0, self.network.latent, purpose="filling").rows(0, missing)
            out.append(self._run(torch.cat([part, others]))[: len(part)])
        return torch.cat(out)

    def batches(self, latents: Latents, start: int, stop: int) -> Iterator[Tensor]:
        """Samples [start, stop) by number, in order, float, a batch or less at a time.

        What is normalised together is always [k·batch, (k+1)·batch), whatever is asked for.
        """
        for k in range(start // self.batch, -(-stop // self.batch)):
            first = k * self.batch
            images = self._run(latents.rows(first, first + self.batch))
            yield images[max(start - first, 0) : min(stop - first, self.batch)]

    @torch.no_grad()
    def _run(self, z: Tensor) -> Tensor:
        by_batch = self.batch_norm == "batch"
        with batch_statistics(self.network) if by_batch else nullcontext():
            out: Tensor = self.network(z.to(self.device))
        return out

    @torch.no_grad()
    def _recalibrated(self) -> AnyGenerator:
        network = copy.deepcopy(self._given)
        latents = Latents(0, network.latent, purpose="recalibration")
        norms = _norms(network)
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # plain averages
            norm.train()
        for k in range(RECALIBRATION):
            network(latents.rows(k * self.batch, (k + 1) * self.batch).to(self.device))
        return network.eval()


@torch.no_grad()
def noise_of(noise: Noise, count: int, seed: int, device: torch.device | str) -> Tensor:
    """`[count, …]` of noise, normalised by its own batch as in training."""
    noise = noise.to(device)
    learned = isinstance(noise, LearnedNoise)
    drawn = max(count, BATCH) if learned else count
    g = generator(seed, "noise", device=str(device))
    with batch_statistics(noise) if learned else nullcontext():
        out: Tensor = noise(drawn, g)
    return out[:count]


def _norms(network: nn.Module) -> list[nn.BatchNorm2d]:
    return [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]


def _untouched(norm: nn.BatchNorm2d) -> bool:
    return norm.num_batches_tracked is None or int(norm.num_batches_tracked) == 0
