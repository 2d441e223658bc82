"""Images without files, and networks without weight, for the tests of this folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from selfsup_cli.data.framing import Sizing, framed, region_of
from selfsup_cli.data.source import LeftOut
from selfsup_cli.errors import BadMediaError
from selfsup_cli.models import Backbone, build


@dataclass
class ToyImages:
    """Images of noise of the given sizes around a grey that belongs to the class.

    `broken` names images that cannot be read; `reads` counts, in this process, what was read.
    """

    shapes: Sequence[tuple[int, int]]
    classes: tuple[str, ...] | None = ("dark", "bright")
    attributes: tuple[str, ...] | None = None
    broken: tuple[str, ...] = ()
    salt: str = "toy"
    name: str = "toy"
    split: str = "test"
    split_rule: str = "as made"
    left_out: tuple[LeftOut, ...] = ()
    notes: tuple[str, ...] = ()
    reads: list[int] = field(default_factory=list)
    labels: Any = None

    def __post_init__(self) -> None:
        self.ids = [f"{self.salt}/{i:03d}.png" for i in range(len(self.shapes))]
        self.sizes = np.array(self.shapes, dtype=np.int64)
        self.fingerprint = f"{self.salt}{self.shapes}"

    def __len__(self) -> int:
        return len(self.shapes)

    def whole(self, i: int) -> torch.Tensor:
        rng = np.random.default_rng(i)
        return torch.from_numpy(rng.integers(0, 256, (3, *self.shapes[i]), dtype=np.uint8))

    def read(self, i: int, size: Sizing = None) -> torch.Tensor:
        self.reads.append(i)
        if self.ids[i] in self.broken:
            raise BadMediaError(self.ids[i], "no image")
        image = self.whole(i)
        return framed(image, region_of(size, *image.shape[1:]))

    def subset(self, indices: np.ndarray) -> ToyImages:
        raise NotImplementedError


def small_network(seed: int = 0, crop: int = 32, resize: int = 40) -> Backbone:
    """AlexNet of an eighth of the width."""
    return build("alexnet", width=0.125, crop=crop, resize=(resize, resize), seed=seed)
