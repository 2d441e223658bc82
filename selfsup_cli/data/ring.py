"""Points of Gaussians on a circle (`ring`): a distribution whose modes can be counted.

Every point is a pure function of (seed, part of the data, index).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from selfsup_cli.config.gan import RING, Ring
from selfsup_cli.data.loader import EpochSampler
from selfsup_cli.data.source import LeftOut, Split
from selfsup_cli.randomness import generator

if TYPE_CHECKING:
    from torch import Tensor

VERSION = 1  # part of the fingerprint: raise it with any change of what is drawn

GOOD = 10.0
"""Within how many standard deviations of a mode a point counts as one of it."""
COVERED = 0.01
"""The share of all points from which on a mode is covered."""


@dataclass(frozen=True)
class Points:
    """A part of the ring as a source: `points` float32 `[N, 2]`, no labels."""

    settings: Ring
    split: Split

    name = RING
    labels = None
    classes = None
    attributes = None
    left_out: Sequence[LeftOut] = ()
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        if self.split == "all":
            return self.settings.points + self.settings.test_points
        return self.settings.points if self.split == "train" else self.settings.test_points

    @property
    def split_rule(self) -> str:
        """Who divided train from test."""
        return f"test points drawn apart (seed {self.settings.seed})"

    @property
    def fingerprint(self) -> str:
        """SHA-256 over what the points are drawn from."""
        text = f"{RING}/{VERSION}/{self.split}/{self.settings.model_dump_json()}"
        return hashlib.sha256(text.encode()).hexdigest()

    @cached_property
    def points(self) -> Tensor:
        """All of them; as many of each mode, in random order."""
        import torch

        if self.split == "all":
            parts = [Points(self.settings, "train").points, Points(self.settings, "test").points]
            return torch.cat(parts)
        ring, count = self.settings, len(self)
        g = generator(ring.seed, RING, self.split)
        modes = torch.randperm(count, generator=g) % ring.modes
        return centres(ring)[modes] + ring.sigma * torch.randn(count, 2, generator=g)


def centres(ring: Ring) -> Tensor:
    """Where the Gaussians lie, float32 `[modes, 2]`, from the right counter-clockwise."""
    import torch

    angles = torch.arange(ring.modes) * (2 * math.pi / ring.modes)
    return ring.radius * torch.stack([angles.cos(), angles.sin()], 1)


@dataclass(frozen=True)
class Coverage:
    """What of the ring points cover: how many are good, and how many each mode has of those."""

    count: int
    good: int
    by_mode: tuple[int, ...]

    @property
    def covered(self) -> int:
        """Modes with at least a hundredth of all points."""
        return sum(one >= COVERED * self.count for one in self.by_mode)


def coverage(points: Tensor, ring: Ring) -> Coverage:
    """Of points `[N, 2]`: good is what lies within ten standard deviations of a centre."""
    import torch

    distances, modes = torch.cdist(points.cpu().double(), centres(ring).double()).min(1)
    good = distances <= GOOD * ring.sigma
    by_mode = torch.bincount(modes[good], minlength=ring.modes)
    return Coverage(len(points), int(good.sum()), tuple(by_mode.tolist()))


class PointLoader:
    """Batches of points in the order that an `EpochLoader` gives images in; a `Loader`."""

    def __init__(
        self, source: Points, *, batch_size: int, seed: int, rank: int = 0, world: int = 1
    ) -> None:
        self.source = source
        self.sampler = EpochSampler(len(source), batch_size, seed, rank, world)

    def __len__(self) -> int:
        """Batches in an epoch."""
        return len(self.sampler)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[dict[str, Any]]:
        """The batches `start`, `start + 1`, … of `epoch`: `point` float32 `[B, 2]`, `index`."""
        sampler = self.sampler
        share = sampler.batch_size // sampler.world
        order = sampler.order(epoch)
        points = self.source.points
        for batch in range(start, len(self)):
            first = batch * sampler.batch_size + sampler.rank * share
            index = order[first : first + share]
            yield {"point": points[index], "index": index, "bad": []}
