"""Pixels of images moved as they are: crops, mirror images, quarter turns, tiles (chapter 4).

All of it is batched, on the device where the images are, waits for nothing there, and treats each
image by itself. Images are `[B, C, H, W]` of any type, if nothing else is said. What is random is
drawn beforehand, from the generator that is passed in and from nowhere else, and passed in too.
"""

from __future__ import annotations

import torch
from torch import Tensor

CROPS = ("centre", "top left", "top right", "bottom left", "bottom right")
"""Which crops `five_crops` gives, in order."""


def to_unit(images: Tensor) -> Tensor:
    """uint8, 0–255 → float32 in [-1, 1]."""
    if images.dtype != torch.uint8:
        raise ValueError(f"images must be uint8, not {images.dtype}")
    return images.to(torch.float32).mul_(2 / 255).sub_(1)


def to_bytes(images: Tensor) -> Tensor:
    """Float in [-1, 1], clamped to it, → uint8: what `to_unit` gave comes back as it was."""
    return images.add(1).mul_(127.5).round_().clamp_(0, 255).to(torch.uint8)


def coins(count: int, share: float, g: torch.Generator) -> Tensor:
    """bool `[count]`, each True with probability `share` whatever the others are."""
    return torch.rand(count, generator=g, device=g.device) < share


# Crops


def center_crop(images: Tensor, size: int) -> Tensor:
    """The central square; an odd margin leaves its extra pixel below and to the right.

    Raises ValueError for images smaller than `size`, as all crops do.
    """
    top, left = (slack // 2 for slack in _slack(images, size))
    return images[..., top : top + size, left : left + size]


def five_crops(images: Tensor, size: int) -> Tensor:
    """`[B, 5, C, size, size]`: the centre and the corners, in the order of `CROPS`."""
    h, w = _slack(images, size)
    corners = [(0, 0), (0, w), (h, 0), (h, w)]
    found = [images[..., y : y + size, x : x + size] for y, x in corners]
    return torch.stack([center_crop(images, size), *found], 1)


def ten_crops(images: Tensor, size: int) -> Tensor:
    """`[B, 10, C, size, size]`: `five_crops`, then their mirror images."""
    five = five_crops(images, size)
    return torch.cat([five, five.flip(-1)], 1)


def random_corners(
    count: int, outer: tuple[int, int], inner: int, g: torch.Generator, *, margin: int = 0
) -> Tensor:
    """Where squares of `inner` pixels begin in images of `outer` (height, width).

    int64 `[count, 2]` (row, column), each place as likely, `margin` pixels of the image or more on
    every side. Raises ValueError where nothing fits, naming the smallest image that does.
    """
    least = inner + 2 * margin
    if min(outer) < least:
        raise ValueError(
            f"{inner}×{inner} pixels with {margin} around them need images of {least}×{least}, "
            f"not {outer[0]}×{outer[1]}"
        )
    drawn = torch.rand(count, 2, generator=g, device=g.device, dtype=torch.float64)
    places = [drawn[:, axis] * (outer[axis] - least + 1) for axis in (0, 1)]
    return torch.stack(places, 1).to(torch.int64) + margin


def crop(images: Tensor, corners: Tensor, size: int) -> Tensor:
    """A square of each image, `[B, C, size, size]`, that begins at its corner (int64 `[B, 2]`)."""
    _slack(images, size)
    index = square(corners.to(images.device), size, images.shape[3])
    index = index[:, None].expand(-1, images.shape[1], -1)
    return images.flatten(2).gather(2, index).view(*images.shape[:2], size, size)


def square(corners: Tensor, size: int, width: int) -> Tensor:
    """Places int64 `[B, size²]` of the pixels of squares in images of `width` read row by row."""
    side = torch.arange(size, device=corners.device)
    rows, columns = corners[:, 0, None] + side, corners[:, 1, None] + side
    return (rows[:, :, None] * width + columns[:, None, :]).flatten(1)


def _slack(images: Tensor, size: int) -> tuple[int, int]:
    h, w = images.shape[-2:]
    if min(h, w) < size:
        raise ValueError(f"a crop of {size} does not fit into images of {h}×{w}")
    return h - size, w - size


# Mirror images and quarter turns


def mirror(images: Tensor, chosen: Tensor | None = None) -> Tensor:
    """Left and right exchanged, in all images or in those `chosen` (bool `[B]`)."""
    return _where(chosen, images.flip(-1), images)


def flip(images: Tensor, chosen: Tensor | None = None) -> Tensor:
    """Top and bottom exchanged, in all images or in those `chosen` (bool `[B]`)."""
    return _where(chosen, images.flip(-2), images)


def _where(chosen: Tensor | None, these: Tensor, others: Tensor) -> Tensor:
    if chosen is None:
        return these
    return torch.where(chosen.to(these.device)[:, None, None, None], these, others)


def quarter_turns(images: Tensor, turns: Tensor) -> Tensor:
    """Each image turned counter-clockwise by its number of quarter turns (int64 `[B]`).

    Raises ValueError for images that are not square.
    """
    turns = turns.to(images.device) % 4
    out = images
    for k in (1, 2, 3):
        out = _where(turns == k, turn(images, k), out)
    return out


def turn(images: Tensor, quarters: int) -> Tensor:
    """All images turned counter-clockwise by that many quarter turns; only square ones by one."""
    h, w = images.shape[-2:]
    if quarters % 2 and h != w:
        raise ValueError(f"images of {h}×{w} are not square: a quarter turn changes their shape")
    return torch.rot90(images, quarters, (-2, -1))


# Tiles (figure 4.1)


def random_orders(count: int, tiles: int, g: torch.Generator) -> Tensor:
    """Orders of `tiles`² tiles other than the one in which they lie: int64 `[count, tiles²]`.

    With a single tile there is no other.
    """
    n = tiles**2
    order = torch.rand(count, n, generator=g, device=g.device, dtype=torch.float64).argsort(1)
    as_it_is = (order == torch.arange(n, device=g.device)).all(1, keepdim=True)
    return torch.where(as_it_is, order.roll(1, 1), order)


def shuffle_tiles(images: Tensor, order: Tensor) -> Tensor:
    """Tile k of the result, counted row by row, is tile `order[:, k]` of the image.

    `order` is int64 `[B, tiles²]`; `order.argsort(1)` undoes it. Pixels that are left over where
    the sides are no multiples of `tiles` stay, below and to the right. Raises ValueError for images
    smaller than a tile for each pixel.
    """
    b, c, h, w = images.shape
    n = round(order.shape[1] ** 0.5)
    high, wide = h // n, w // n
    if n * n != order.shape[1] or not (high and wide):
        raise ValueError(f"images of {h}×{w} cannot be cut into {order.shape[1]} tiles")
    inside = images[..., : n * high, : n * wide].reshape(b, c, n, high, n, wide)
    tiles = inside.permute(0, 2, 4, 1, 3, 5).reshape(b, n * n, -1)
    index = order.to(images.device)[:, :, None].expand(-1, -1, tiles.shape[2])
    tiles = tiles.gather(1, index).reshape(b, n, n, c, high, wide)
    shuffled = tiles.permute(0, 3, 1, 4, 2, 5).reshape(b, c, n * high, n * wide)
    if shuffled.shape == images.shape:
        return shuffled
    out = images.clone()
    out[..., : n * high, : n * wide] = shuffled
    return out


def tile_seams(height: int, width: int, tiles: int, band: int) -> Tensor:
    """bool `[height, width]`: True for `band` pixels across each border between tiles.

    An odd band has its extra pixel below the border or right of it. Those are the pixels that are
    painted over in figure 4.1.
    """
    seams = torch.zeros(height, width, dtype=torch.bool)
    for k in range(1, tiles):
        row, column = k * (height // tiles), k * (width // tiles)
        seams[max(row - band // 2, 0) : row + (band + 1) // 2] = True
        seams[:, max(column - band // 2, 0) : column + (band + 1) // 2] = True
    return seams
