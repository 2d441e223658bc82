"""Real images beside tile-shuffled ones, neither with a seam to see (thesis, figure 4.1).

An image is cut into tiles, the tiles are put in another order, and a band across every border
between them is painted over. The thesis trained a network to paint; here the band is filled with
the solution of Laplace's equation, which knows nothing but the pixels along its edges, or with
grey. The same band of the real image is painted over in the same way, so that it is not the paint
that tells them apart. Where tiles do not fit together the smooth paint runs more steeply, though:
`seam_statistics` are what can be told by that alone. Grey gives next to nothing away.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from selfsup_cli.data.framing import Sizing
from selfsup_cli.data.source import ImageSource, LeftOut
from selfsup_cli.randomness import generator
from selfsup_cli.transforms.images import center_crop, random_orders, shuffle_tiles, tile_seams

CLASSES = ("real", "shuffled")
VERSION = 1
"""Part of the fingerprint: raise it with any change of the pixels."""

Paint = Literal["laplace", "grey"]

_GREY = 128
_TOLERANCE = 0.05  # grey levels
_EVERY = 8


# Painting


def harmonic_fill(images: Tensor, hole: Tensor, tolerance: float = _TOLERANCE) -> Tensor:
    """`images` float [B, C, H, W] with the pixels of `hole` (bool [H, W]) painted over, float32.

    Each painted pixel is the mean of its neighbours above, below, left and right, as far as there
    are any, to within `tolerance`: the discrete Laplace equation, whose solution has no extremes of
    its own. Solved by conjugate gradients, all images at once. Raises ValueError where the hole
    leaves nothing.
    """
    if bool(hole.all()):
        raise ValueError("the hole leaves nothing to paint from")
    images = images.float()
    inside = hole.to(images)
    degrees = _neighbours(torch.ones_like(inside)[None, None])
    known = images * (1 - inside)

    def laplacian(x: Tensor) -> Tensor:
        return (degrees * x - _neighbours(x)) * inside

    # A x = b inside of the hole; x is zero outside of it, and so is all that is added to it.
    x = torch.zeros_like(images)
    residual = _neighbours(known) * inside
    direction = residual
    square = _dot(residual, residual)
    for step in range(1, 4 * sum(hole.shape)):
        moved = laplacian(direction)
        length = square / _dot(direction, moved).clamp_min(1e-20)
        x = x + length * direction
        residual = residual - length * moved
        if step % _EVERY == 0 and float(residual.abs().max()) < tolerance:
            break
        former, square = square, _dot(residual, residual)
        direction = residual + square / former.clamp_min(1e-20) * direction
    return known + x


def _neighbours(x: Tensor) -> Tensor:
    """The sum of the four neighbours of each pixel, [B, C, H, W]; there are none past the edge."""
    out = torch.zeros_like(x)
    out[..., 1:, :] += x[..., :-1, :]
    out[..., :-1, :] += x[..., 1:, :]
    out[..., :, 1:] += x[..., :, :-1]
    out[..., :, :-1] += x[..., :, 1:]
    return out


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum((-2, -1), keepdim=True)


def band_of(side: int, tiles: int, share: float) -> int:
    """Pixels painted across each border between tiles: a share of a tile's side, at least 2."""
    return max(2, round(share * (side // tiles)))


def painted(side: int, tiles: int, band: int) -> Tensor:
    """bool [side, side]: what is painted over.

    `band` pixels across each border between tiles. Where tiles do not fill the side, the pixels
    left over below and to the right are painted too, or the border to them would show.
    """
    mask = tile_seams(side, side, tiles, band)
    filled = side // tiles * tiles
    if filled < side:
        mask[filled - band // 2 :] = True
        mask[:, filled - band // 2 :] = True
    return mask


# Pairs


@dataclass(frozen=True)
class Tampering:
    """What is done to images: `tiles`² tiles shuffled, `band` pixels painted, drawn by `seed`."""

    tiles: int
    band: int
    seed: int
    paint: Paint = "laplace"

    def __call__(self, image: Tensor, identifier: str, shuffled: bool) -> Tensor:
        """uint8 [3, S, S] → uint8 [3, S, S], painted over, its tiles shuffled before or not."""
        pixels = self.shuffled(image, identifier) if shuffled else image
        mask = painted(image.shape[-1], self.tiles, self.band)
        if self.paint == "grey":
            return pixels.masked_fill(mask, _GREY)
        filled = harmonic_fill(pixels[None], mask)[0]
        return filled.round_().clamp_(0, 255).to(torch.uint8)

    def shuffled(self, image: Tensor, identifier: str) -> Tensor:
        """The image with its tiles in another order, a function of (`seed`, the id)."""
        g = generator(self.seed, identifier, "tiles")
        return shuffle_tiles(image[None], random_orders(1, self.tiles, g))[0]


@dataclass
class Pairs:
    """A source of two images for each of another: position 2 i is real, 2 i + 1 shuffled.

    Both are the middle `side` pixels of the image, scaled as is asked for, and painted over alike.
    """

    source: ImageSource
    side: int
    tampering: Tampering
    ids: Sequence[str] = field(init=False)
    sizes: np.ndarray = field(init=False)
    labels: np.ndarray | None = field(init=False)
    classes: tuple[str, ...] | None = CLASSES
    attributes: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        source = self.source
        self.name = source.name
        self.split = source.split
        self.split_rule = source.split_rule
        self.left_out: Sequence[LeftOut] = source.left_out
        self.notes = source.notes
        self.ids = [f"{name}/{which}" for name in source.ids for which in CLASSES]
        self.sizes = np.full((2 * len(source), 2), self.side, dtype=np.int64)
        self.labels = self.truth()
        about = f"tiles {VERSION} {self.side} {self.tampering} {source.fingerprint}"
        self.fingerprint = hashlib.sha256(about.encode()).hexdigest()

    def __len__(self) -> int:
        return 2 * len(self.source)

    def read(self, i: int, size: Sizing = None) -> Tensor:
        image = center_crop(self.source.read(i // 2, size)[None], self.side)[0]
        return self.tampering(image, self.source.ids[i // 2], bool(i % 2))

    def subset(self, indices: np.ndarray) -> ImageSource:
        raise TypeError("pairs are taken from a subset of their source")

    def truth(self) -> np.ndarray:
        """0 for real images, 1 for shuffled ones, int64 [2 N]."""
        return np.tile(np.arange(2, dtype=np.int64), len(self.source))

    def names(self) -> list[str]:
        """The id of the image that each was made of, twice in a row."""
        return [name for name in self.source.ids for _ in CLASSES]


# What paint gives away


def seam_statistics(image: Tensor, mask: Tensor) -> Tensor:
    """What can be told of an image (uint8 [3, S, S]) at the `mask` alone, float32 [12].

    The logarithm of the mean absolute difference of neighbouring pixels, along both axes, between
    pixels that are both painted, and between one that is and one that is not; for each of the three
    colours. Tiles that do not fit together are painted with steeper slopes than those that do.
    """
    found = []
    pixels = image.float()
    for axis in (-1, -2):
        steps = pixels.diff(dim=axis).abs()
        first = mask.narrow(axis, 0, mask.shape[axis] - 1)
        second = mask.narrow(axis, 1, mask.shape[axis] - 1)
        found += [steps[:, between].mean(1) for between in (first & second, first ^ second)]
    return torch.log1p(torch.cat(found))
