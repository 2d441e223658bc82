"""Images as they are, or each pixel as a square: nothing is smoothed that was not smooth."""

from __future__ import annotations

import torch
from PIL import Image, ImageDraw
from torch import Tensor

from selfsup_cli.visualization.drawing import RULE

WANTED = 128


def scale_of(side: int, wanted: int = WANTED) -> float:
    """By how much images of `side` pixels are enlarged to about `wanted`: a whole number, or for
    those larger than 5/4 of it a share below 1."""
    if side > 1.25 * wanted:
        return wanted / side
    return max(1, round(wanted / side))


def picture(image: Tensor, scale: float = 1) -> Image.Image:
    """An image [3, H, W], uint8 or float in [-1, 1], `scale` times as large."""
    if image.is_floating_point():
        image = ((image.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    drawn = Image.fromarray(image.cpu().permute(1, 2, 0).contiguous().numpy())
    if scale == 1:
        return drawn
    size = (max(1, round(drawn.width * scale)), max(1, round(drawn.height * scale)))
    method = Image.Resampling.NEAREST if scale > 1 else Image.Resampling.LANCZOS
    return drawn.resize(size, method)


def framed(
    sheet: Image.Image, draw: ImageDraw.ImageDraw, image: Image.Image, x: int, y: int
) -> None:
    """Put an image on a sheet, with a thin line around it, so that white ones have an end."""
    draw.rectangle((x - 1, y - 1, x + image.width, y + image.height), outline=RULE)
    sheet.paste(image, (x, y))
