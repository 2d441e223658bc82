"""Images with masks for the loader: what is cut out is a function of (seed, epoch, index)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

from selfsup_cli.data.framing import Region
from selfsup_cli.data.loader import SourceDataset
from selfsup_cli.data.masked_images import MaskedImages
from selfsup_cli.data.masks import VOID
from selfsup_cli.randomness import generator

GREY = 128
"""What stands in an image where there is none."""


@dataclass(frozen=True)
class ScaledCrop:
    """At most `crop`×`crop` pixels of an image that was scaled at random, anywhere in it.

    Its shorter side is scaled to `shorter`, if that is given, and then by a factor uniform in
    `scale`.
    """

    crop: int
    shorter: int | None = None
    scale: tuple[float, float] = (1.0, 1.0)

    def __call__(self, height: int, width: int, source: torch.Generator) -> Region:
        factor, down, across = torch.rand(3, generator=source, dtype=torch.float64).tolist()
        low, high = self.scale
        scale = low + factor * (high - low)
        if self.shorter is not None:
            scale *= self.shorter / min(height, width)
        rows, columns = (min(side, max(1, round(self.crop / scale))) for side in (height, width))
        # Where there is more than the crop takes, all of it is filled.
        size = (
            self.crop if rows < height else min(self.crop, max(1, round(rows * scale))),
            self.crop if columns < width else min(self.crop, max(1, round(columns * scale))),
        )
        top, left = int(down * (height - rows + 1)), int(across * (width - columns + 1))
        return Region(top, left, rows, columns, size)


class MaskDataset(SourceDataset):
    """Squares of images as `image` uint8 `[1, 3, S, S]` and of their masks as `mask` uint8
    `[1, S, S]`, with `index` and `id`.

    What lies outside of an image is `GREY` and does not count.
    """

    MANY = "images"

    def __init__(self, source: MaskedImages, seed: int, plan: ScaledCrop) -> None:
        super().__init__(source)
        self.source = source
        self.seed = seed
        self.plan = plan

    def _sample(self, epoch: int, index: int) -> dict[str, Any]:
        g = generator(self.seed, epoch, index, "framing")

        def size(height: int, width: int) -> Region:
            return self.plan(height, width, g)

        image, mask = self.source.read_both(index, size)
        side = self.plan.crop
        room = (0, side - image.shape[2], 0, side - image.shape[1])
        return {
            "image": F.pad(image, room, value=GREY)[None],
            "mask": F.pad(mask, room, value=VOID)[None],
            "index": torch.tensor(index),
            "id": self.source.ids[index],
        }
