"""An image, and what of it looks damaged, beside each other."""

from __future__ import annotations

from pathlib import Path

from PIL import Image, ImageDraw
from torch import Tensor

from selfsup_cli.visualization.drawing import GREY, MARGIN, PAPER, save, write
from selfsup_cli.visualization.enlarged import framed, picture, scale_of
from selfsup_cli.visualization.gradcam import overlaid

_SPACE = 12
_WANTED = 300


def sheet(path: Path, image: Tensor, likely: Tensor, *, name: str, said: str) -> None:
    """Write a PNG: an image uint8 [3, H, W], and over it how `likely` each pixel is damaged, 0 … 1
    [H, W]: from blue to red, the less the more transparent."""
    scale = scale_of(image.shape[1], _WANTED)
    plain = picture(image, scale)
    width = max(2 * MARGIN + 2 * plain.width + _SPACE, 400)
    page = Image.new("RGB", (width, plain.height + 78), PAPER)
    draw = ImageDraw.Draw(page)
    write(draw, (MARGIN, 12), name, 13, GREY, room=width - 2 * MARGIN)
    framed(page, draw, plain, MARGIN, 38)
    marked = picture(overlaid(image, likely, faint=1), scale)
    framed(page, draw, marked, MARGIN + plain.width + _SPACE, 38)
    write(draw, (MARGIN, plain.height + 48), said, 14, bold=True, room=width - 2 * MARGIN)
    save(page, path)
