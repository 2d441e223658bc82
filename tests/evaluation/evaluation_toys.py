"""A source without files, and a backbone without weight, for the tests of this folder."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch

from selfsup_cli.data.source import LeftOut
from selfsup_cli.engine.devices import Hardware
from selfsup_cli.errors import BadMediaError
from selfsup_cli.models import Backbone, build

CPU = Hardware(torch.device("cpu"), None)


@dataclass
class ToySource:
    """Videos of noise around a grey that belongs to the class, with the frame's number in a corner.

    `broken` names videos that cannot be read; `reads` counts, in this process, what was read.
    """

    lengths: list[int]
    classes: tuple[str, ...] | None = ("dark", "bright")
    broken: tuple[str, ...] = ()
    salt: str = "toy"
    name: str = "toy"
    split: str = "test"
    split_rule: str = "as made"
    left_out: tuple[LeftOut, ...] = ()
    reads: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.ids = [f"{self.salt}/{i:03d}.avi" for i in range(len(self.lengths))]
        self.num_frames = np.array(self.lengths, dtype=np.int64)
        count = len(self.classes or ("",))
        self.labels = np.arange(len(self.lengths)) % count if self.classes else None
        self.fingerprint = f"{self.salt}{self.lengths}"

    def __len__(self) -> int:
        return len(self.lengths)

    def read(self, i: int, frames: np.ndarray, size: tuple[int, int] | None) -> torch.Tensor:
        self.reads.append(i)
        if self.ids[i] in self.broken:
            raise BadMediaError(self.ids[i], "no video stream")
        assert size is not None
        assert frames.min() >= 0
        assert frames.max() < self.lengths[i]
        rng = np.random.default_rng(i)
        grey = 60 + 100 * int(i % 2)
        out = np.empty((3, len(frames), *size), np.uint8)
        texture = rng.integers(0, 40, size, dtype=np.uint8)
        for t, frame in enumerate(frames):
            out[:, t] = grey + np.roll(texture, int(frame), axis=1)
            out[:, t, 10:, 10:] = frame
        return torch.from_numpy(out)

    def subset(self, indices: np.ndarray) -> ToySource:
        raise NotImplementedError


def small_backbone(seed: int = 0) -> Backbone:
    """C3D of an eighth of the width on clips of 8 × 16 × 16."""
    return build("c3d", width=0.125, frames=8, crop=16, resize=(16, 20), seed=seed)
