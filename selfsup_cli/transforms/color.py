"""Colour of images and clips, `[B, 3, …]` in [0, 1], batched on their device.

The operations are those of the author's framework: brightness is added, contrast is about each
channel's own mean, saturation is the S of HSV.
"""

from __future__ import annotations

import torch
from torch import Tensor

_BRIGHTNESS = 32 / 255
_SATURATION = (0.5, 1.5)
_GREY = 0.2
_LUMA = (0.299, 0.587, 0.114)


def recolor(x: Tensor, u: Tensor) -> Tensor:
    """Brightness and saturation in random order, then sometimes grey (thesis, section 5.2.3).

    `u` is uniform in [0, 1), four numbers for each of what is coloured alike: `[4, B, 1, …]`, as
    many dimensions as `x` and one more. Values are clamped to [0, 1] after each operation.
    """
    brightness = (2 * u[0] - 1) * _BRIGHTNESS
    saturation = _SATURATION[0] + u[1] * (_SATURATION[1] - _SATURATION[0])
    before, greyed = u[2] < 0.5, u[3] < _GREY
    x = (x + brightness * before).clamp_(0, 1)
    x = (saturate(x, saturation) + brightness * ~before).clamp_(0, 1)
    return torch.where(greyed, grey(x), x)


def saturate(x: Tensor, factor: Tensor) -> Tensor:
    """Multiply the S of HSV by `factor`, at most up to 1; hue and value stay.

    With V the largest channel, a channel is V - V·S·h, where h depends on the hue alone: scaling S
    scales each channel's distance from V.
    """
    value = x.amax(1, keepdim=True)
    chroma = value - x.amin(1, keepdim=True)
    limit = value / chroma.clamp(min=torch.finfo(x.dtype).tiny)
    return value - (value - x) * torch.minimum(factor, limit)


def contrast(x: Tensor, factor: Tensor) -> Tensor:
    """Multiply the distance of each value from the mean of its channel by `factor`; not clamped."""
    mean = x.mean(tuple(range(2, x.ndim)), keepdim=True)
    return mean + (x - mean) * factor


def grey(x: Tensor) -> Tensor:
    """The luminance of each pixel, `[B, 1, …]`."""
    red, green, blue = (weight * x[:, c : c + 1] for c, weight in enumerate(_LUMA))
    return red + green + blue
