"""Squares cut out of pictures, whatever of them lies outside."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import interpolate

from selfsup_cli.data.geometry import Box


def whole(box: Box) -> Box:
    """`box` with corners on the borders of pixels, at least 2 pixels wide."""
    return Box(round(box.left), round(box.top), max(2, round(box.side)))


def cut(picture: NDArray[np.uint8], box: Box, side: int) -> NDArray[np.uint8]:
    """The part `box` (whole pixels) of `picture`, uint8 `[3,H,W]`, scaled to `[3,side,side]`.

    Bilinear, antialiased. What lies outside of the picture repeats its edge.
    """
    part = _part(picture, box)
    if part.shape[1] == side:
        return part
    scaled = interpolate(
        torch.from_numpy(part)[None], (side, side), mode="bilinear", antialias=True
    )
    return scaled[0].numpy()


def inside(height: int, width: int, box: Box, side: int) -> NDArray[np.bool_]:
    """Which pixels of the crop `[side,side]` lie in the picture, and not beyond its edge."""
    centres = (np.arange(side) + 0.5) * (box.side / side)
    rows, columns = box.top + centres, box.left + centres
    within_rows = (rows >= 0) & (rows < height)
    within_columns = (columns >= 0) & (columns < width)
    return np.asarray(within_rows[:, None] & within_columns[None])


def _part(picture: NDArray[np.uint8], box: Box) -> NDArray[np.uint8]:
    left, top, size = int(box.left), int(box.top), int(box.side)
    _, height, width = picture.shape
    if left >= 0 and top >= 0 and left + size <= width and top + size <= height:
        return np.ascontiguousarray(picture[:, top : top + size, left : left + size])
    rows = np.clip(np.arange(top, top + size), 0, height - 1)
    columns = np.clip(np.arange(left, left + size), 0, width - 1)
    return np.ascontiguousarray(picture[:, rows[:, None], columns[None]])
