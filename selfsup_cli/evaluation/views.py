"""Which views stand for an image in an evaluation, and how they are read."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from selfsup_cli.data.source import ImageSource
from selfsup_cli.errors import BadMediaError
from selfsup_cli.evaluation.reading import Unreadable, read_items
from selfsup_cli.models import InputSpec
from selfsup_cli.randomness import generator
from selfsup_cli.transforms.images import (
    center_crop,
    coins,
    crop,
    five_crops,
    mirror,
    random_corners,
    ten_crops,
)

Crops = Literal["center", "five", "ten", "random"]

_FIXED = {"center": 1, "five": 5, "ten": 10}


@dataclass(frozen=True)
class ImageViews:
    """Which crops of an image are looked at.

    All are cut out of the image with its shorter side scaled to that of the network's
    `input.resize`, and are `input.crop` pixels wide and high. `center` is the middle one, `five`
    are it and the corners, `ten` these and their mirror images. `random` are `count` of them, each
    place as likely and half of them mirrored: a function of (`seed`, the image's id, the view).
    """

    crops: Crops = "center"
    count: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        if self.count < 1 or (self.count != 1 and self.crops != "random"):
            raise ValueError(f"{self.count} times the crops {self.crops}")

    def __len__(self) -> int:
        """Views of each image."""
        return _FIXED.get(self.crops, self.count)

    def __call__(self, image: Tensor, size: int, identifier: str) -> Tensor:
        """uint8 [3, H, W] → its views, uint8 [K, 3, size, size], on the same device."""
        if self.crops == "center":
            return center_crop(image[None], size)
        if self.crops != "random":
            return (five_crops if self.crops == "five" else ten_crops)(image[None], size)[0]
        corners, mirrored = [], []
        for view in range(self.count):
            g = generator(self.seed, identifier, view, "view")
            height, width = image.shape[1:]
            corners.append(random_corners(1, (height, width), size, g))
            mirrored.append(coins(1, 0.5, g))
        same = image.expand(self.count, -1, -1, -1)
        return mirror(crop(same, torch.cat(corners), size), torch.cat(mirrored))

    def count_each(self, source: ImageSource) -> np.ndarray:
        """The number of views int64 [N] of each image of `source`."""
        return np.full(len(source), len(self), dtype=np.int64)

    def describe(self) -> dict[str, str | int]:
        """Plain values for a report and for the key of the cache."""
        if self.crops == "random":
            return {
                "crops": "random, half of them mirrored",
                "views": self.count,
                "seed": self.seed,
            }
        return {"crops": self.crops, "views": len(self)}

    def told(self) -> str:
        """The same in a phrase: `single centre crop`, `ten crops`."""
        match self.crops:
            case "center":
                return "single centre crop"
            case "random":
                plural = "s, half of them" if self.count > 1 else ", half of the images"
                return f"{self.count} random crop{plural} mirrored"
            case _:
                return f"{self.crops} crops"


def shorter_side(spec: InputSpec) -> int:
    """What the shorter side of an image is scaled to before `input.crop` is cut out of it."""
    return max(min(spec.resize), spec.crop)


@dataclass(frozen=True)
class Viewed:
    """An image as it was read, uint8 [3, H, W], and which views of `size` pixels it gives."""

    position: int
    image: Tensor
    views: ImageViews
    size: int
    identifier: str

    def inputs(self, device: torch.device) -> Iterator[Tensor]:
        """The views, uint8 [3, size, size] each."""
        image = self.image.to(device, non_blocking=True)
        return iter(self.views(image, self.size, self.identifier))


class _Images(Dataset[Viewed | Unreadable]):
    def __init__(self, source: ImageSource, views: ImageViews, spec: InputSpec) -> None:
        self.source = source
        self.views = views
        self.size = spec.crop
        self.shorter = shorter_side(spec)

    def __getitem__(self, position: int) -> Viewed | Unreadable:
        try:
            image = self.source.read(position, self.shorter)
        except BadMediaError as error:
            return Unreadable(position, error.reason)
        return Viewed(position, image, self.views, self.size, self.source.ids[position])


def read_images(
    source: ImageSource,
    images: Sequence[int],
    views: ImageViews,
    spec: InputSpec,
    workers: int,
    bad: Callable[[str, str], None] | None = None,
) -> Iterator[Viewed]:
    """Decode `images` once each, in that order, in `workers` processes, for a network of `spec`.

    A file that cannot be read raises InputError, or is told to `bad` (see `reading.read_items`).
    """
    return read_items(_Images(source, views, spec), source, images, workers, bad)
