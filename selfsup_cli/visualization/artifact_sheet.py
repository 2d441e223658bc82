"""Images, what is dropped of their codes, and what comes out of that (figures 3.3 and 3.6).

Names of files come from users and are drawn as plain text, whatever they hold.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw
from torch import Tensor

from selfsup_cli.visualization.drawing import GREY, MARGIN, PAPER, lines, save, write
from selfsup_cli.visualization.enlarged import framed, picture, scale_of

_SPACE, _NAME = 10, 24
_WANTED = 144
# Of what covers a dropped cell, and of the mark on what is taken for damaged; RGB in [-1, 1].
_COVER, _HOT = (0.6, 0.6, 0.6), (1.0, -0.3, -0.7)


@dataclass(frozen=True)
class Row:
    """An image's name and its cells: a heading, and an image [3, S, S], float in [-1, 1]."""

    name: str
    cells: Sequence[tuple[str, Tensor]]


def sheet(path: Path, rows: Sequence[Row], *, title: str, note: str = "") -> None:
    """Write a PNG with a row for each image; all have the same headings and scale."""
    side = rows[0].cells[0][1].shape[-1]
    scale = scale_of(side, _WANTED)
    cell = round(side * scale)
    heads = [head for head, _ in rows[0].cells]
    width = max(2 * MARGIN + len(heads) * (cell + _SPACE) - _SPACE, 480)
    notes = lines(note, 12, width - 2 * MARGIN)
    row = cell + _NAME
    page = Image.new("RGB", (width, 96 + len(rows) * row + 18 * len(notes) + 16), PAPER)
    draw = ImageDraw.Draw(page)
    write(draw, (MARGIN, 22), title, 21, bold=True, room=width - 2 * MARGIN)
    columns = [MARGIN + k * (cell + _SPACE) for k in range(len(heads))]
    for x, head in zip(columns, heads, strict=True):
        write(draw, (x, 64), head, 13, bold=True, room=cell)
    y = 88
    for one in rows:
        for x, (_, image) in zip(columns, one.cells, strict=True):
            framed(page, draw, picture(image.float(), scale), x, y)
        write(draw, (MARGIN, y + cell + 4), one.name, 11, GREY, room=width - 2 * MARGIN)
        y += row
    for number, said in enumerate(notes):
        write(draw, (MARGIN, y + 4 + 18 * number), said, 12, GREY)
    save(page, path)


def covered(image: Tensor, kept: Tensor) -> Tensor:
    """An image [3, S, S], float in [-1, 1], with the cells covered that are not `kept`, bool
    [1, M, N]."""
    pixels = F.interpolate(kept[None].float(), image.shape[1:], mode="nearest")[0]
    return torch.where(pixels > 0, image.float(), _colour(image, _COVER))


def inset(image: Tensor, kept: Tensor, share: float = 0.3) -> Tensor:
    """An image [3, S, S], float in [-1, 1], with a small picture of `kept`, bool [1, M, N], in its
    lower left corner: dropped cells grey, kept ones white, `share` of the side."""
    side = max(kept.shape[1], round(share * image.shape[1]) // kept.shape[1] * kept.shape[1])
    small = F.interpolate(kept[None].float(), (side, side), mode="nearest")[0]
    out = image.clone()
    out[:, -side - 1 :, : side + 1] = -1
    out[:, -side:, :side] = torch.where(small > 0, 1.0, 0.1)
    return out


def heated(image: Tensor, damaged: Tensor) -> Tensor:
    """A pale image with what is taken for damaged in colour: `damaged` [1, M, N] is how likely
    each of its cells is to be, 0 … 1."""
    likely = F.interpolate(damaged[None].float(), image.shape[1:], mode="nearest")[0]
    pale = 0.5 * image.float().mean(0, keepdim=True).expand(3, -1, -1) + 0.3
    return torch.lerp(pale, _colour(image, _HOT), 0.75 * likely)


def _colour(image: Tensor, rgb: tuple[float, float, float]) -> Tensor:
    found = image.new_tensor(rgb, dtype=torch.float32)[:, None, None]
    return found.expand(3, *image.shape[1:])
