"""Methods that transform images in ways of which it is known what gives them away."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from selfsup_cli.data.framing import Crop, region_of
from selfsup_cli.errors import BadMediaError
from selfsup_cli.randomness import generator

Transform = Callable[[Tensor], Tensor]


def clouds(index: int, side: int) -> Tensor:
    """Smooth noise with grain, without a direction: uint8 [3, side, side]."""
    g = generator(0, index, "clouds")
    coarse = torch.randn(1, 3, 16, 16, generator=g)
    wide = torch.nn.functional.interpolate(coarse, (2 * side, 2 * side), mode="bicubic")[0]
    # Anywhere in it, so that no pixel is at a place of its own.
    top, left = torch.randint(8, side - 8, (2,), generator=g).tolist()
    smooth = wide[:, top : top + side, left : left + side]
    return (128 + 40 * smooth + 6 * torch.randn(3, side, side, generator=g)).clamp(0, 255).byte()


def compressed(index: int, side: int) -> Tensor:
    """The same as a JPEG of low quality leaves it, its blocks beginning at the upper left."""
    buffer = io.BytesIO()
    pixels = clouds(index, side).permute(1, 2, 0).numpy()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=12, subsampling=0)
    with Image.open(buffer) as image:
        return torch.from_numpy(np.array(image)).permute(2, 0, 1)


@dataclass
class Pictures:
    """A source of images that are drawn when they are read; those `broken` cannot be."""

    count: int
    side: int
    draw: Callable[[int, int], Tensor] = clouds
    first: int = 0
    broken: frozenset[int] = frozenset()
    name: str = "pictures"
    split: str = "train"
    split_rule: str = "drawn"
    fingerprint: str = "0" * 64
    labels: None = None
    classes: None = None
    attributes: None = None
    left_out: tuple[()] = ()
    notes: tuple[str, ...] = ()
    ids: Sequence[str] = field(init=False)
    sizes: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        self.ids = [f"{self.first + i:05d}" for i in range(self.count)]
        self.sizes = np.full((self.count, 2), self.side)

    def __len__(self) -> int:
        return self.count

    def read(self, i: int, size: Any = None) -> Tensor:
        if i in self.broken:
            raise BadMediaError(self.ids[i], "broken on purpose")
        region = region_of(size, self.side, self.side)
        image = self.draw(self.first + i, self.side)
        rows = slice(region.top, region.top + region.height)
        return image[:, rows, region.left : region.left + region.width]

    def subset(self, indices: np.ndarray) -> Pictures:
        raise NotImplementedError


@dataclass(frozen=True)
class Fed:
    crops: Tensor


class Method:
    """Crops of `side` at `offset` of canvases, transformed in the ways given; the network's answers
    are those of `answer`, a function of the crops."""

    def __init__(
        self,
        ways: Mapping[str, Transform],
        *,
        canvas: int = 32,
        side: int = 32,
        offset: int = 0,
        answer: Callable[[Tensor, int], Tensor] | None = None,
    ) -> None:
        self.ways = ways
        self.kinds = tuple(ways)
        self.training = True
        self.side, self.offset = side, offset
        self.plan = Crop((canvas, canvas))
        self.answer = answer or (lambda crops, kinds: torch.zeros(len(crops), kinds))

    def train(self, mode: bool = True) -> Any:
        self.training = mode
        return self

    def examples(self, images: Tensor, g: torch.Generator) -> Fed:
        assert not self.training
        seen = slice(self.offset, self.offset + self.side)
        crops = images[:, :, seen, seen].float() / 127.5 - 1
        return Fed(torch.cat([way(crops) for way in self.ways.values()]))

    def judge(
        self, images: Tensor, g: torch.Generator
    ) -> tuple[Fed, dict[str, Tensor], dict[str, Tensor]]:
        fed = self.examples(images, g)
        return fed, {"transformation": self.answer(fed.crops, len(self.kinds))}, {}


def identity(crops: Tensor) -> Tensor:
    return crops


def mirror(crops: Tensor) -> Tensor:
    return crops.flip(-1)


def half_turn(crops: Tensor) -> Tensor:
    return crops.flip(-1, -2)


def checkerboard(crops: Tensor) -> Tensor:
    """Two grey levels of a checkerboard: nothing that a person sees."""
    side = torch.arange(crops.shape[-1])
    return crops + (2 / 127.5) * (1 - 2.0 * ((side[:, None] + side) % 2))


def darker_edge(crops: Tensor) -> Tensor:
    out = crops.clone()
    out[..., 0, :] -= 0.4
    return out
