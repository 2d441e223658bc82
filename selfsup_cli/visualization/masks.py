"""Masks drawn over images: what is there beside what was found, and what the colours mean."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from torch import Tensor

from selfsup_cli.visualization.drawing import (
    GREY,
    INK,
    MARGIN,
    PAPER,
    RULE,
    font,
    plain,
    save,
    write,
)

VOID = 255
OPACITY = 0.6
"""How much of a pixel is the colour of its class."""

_SPACE = 10
_LINE = 24

Color = tuple[int, int, int]


@dataclass(frozen=True)
class Legend:
    """The classes and the colour of each."""

    classes: Sequence[str]
    colors: Sequence[Color]


@dataclass(frozen=True)
class Shown:
    """A row of a sheet: an image uint8 [3, H, W] and masks of its classes uint8 [h, w] over it."""

    name: str
    image: Tensor
    masks: Sequence[np.ndarray]
    said: str = ""


def overlay(image: Tensor, mask: np.ndarray, colors: Sequence[Color]) -> Image.Image:
    """An image uint8 [3, H, W] under the colours of its classes [h, w]; 255 is left unpainted.

    Where two classes meet, the colour is full: outlines show on any image.
    """
    height, width = image.shape[1:]
    pixels = image.permute(1, 2, 0).cpu().numpy().astype(np.float32)
    own = np.array(Image.fromarray(mask).resize((width, height), Image.Resampling.NEAREST))
    palette = np.zeros((256, 3), np.float32)
    palette[: len(colors)] = np.array(colors, np.float32)
    share = np.where(own == VOID, 0.0, OPACITY).astype(np.float32)
    share[_edges(own) & (own != VOID)] = 1.0
    mixed = pixels * (1 - share[..., None]) + palette[own] * share[..., None]
    return Image.fromarray(mixed.round().astype(np.uint8))


def mask_sheet(
    path: Path,
    rows: Sequence[Shown],
    columns: Sequence[str],
    legend: Legend,
    *,
    title: str,
    note: str = "",
    height: int = 190,
) -> None:
    """Write a PNG: of each row the image, then its masks over it; `columns` say what they are."""
    wide = [
        max(1, min(2 * height, round(row.image.shape[2] * height / row.image.shape[1])))
        for row in rows
    ]
    each = max([*wide, height // 2])
    width = max(2 * MARGIN + len(columns) * (each + _SPACE) - _SPACE, 480)
    key = _key(legend, width - 2 * MARGIN)
    top = 96 + _LINE * (1 + max((line for _, line, _ in key), default=0))
    sheet = Image.new("RGB", (width, top + len(rows) * (height + 34) + 12), PAPER)
    draw = ImageDraw.Draw(sheet)
    write(draw, (MARGIN, 20), title, 20, bold=True, room=width - 2 * MARGIN)
    write(draw, (MARGIN, 48), note, 12, GREY, room=width - 2 * MARGIN)
    _draw_key(draw, legend, key, 70)
    for column, said in enumerate(columns):
        write(draw, (MARGIN + column * (each + _SPACE), top - 20), said, 13, GREY, room=each)
    for number, (row, own) in enumerate(zip(rows, wide, strict=True)):
        y = top + number * (height + 34)
        plain_ = Image.fromarray(row.image.permute(1, 2, 0).contiguous().cpu().numpy())
        pictures = [plain_, *(overlay(row.image, mask, legend.colors) for mask in row.masks)]
        for column, picture in enumerate(pictures):
            x = MARGIN + column * (each + _SPACE)
            sheet.paste(picture.resize((own, height), Image.Resampling.LANCZOS), (x, y))
        said = f"{row.name}  {row.said}" if row.said else row.name
        write(draw, (MARGIN, y + height + 5), said, 12, GREY, room=width - 2 * MARGIN)
    save(sheet, path)


def annotated_mask(
    path: Path, image: Tensor, mask: np.ndarray, legend: Legend, *, name: str, most: int = 900
) -> None:
    """Write a PNG: an image uint8 [3, H, W] under its classes [h, w], and a key of those in it."""
    picture = overlay(image, mask, legend.colors)
    scale = min(1.0, most / max(picture.size))
    if scale < 1:
        size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
        picture = picture.resize(size, Image.Resampling.LANCZOS)
    there = [c for c in np.unique(mask).tolist() if c < len(legend.classes)]
    own = Legend([legend.classes[c] for c in there], [legend.colors[c] for c in there])
    width = max(picture.width + 2 * MARGIN, 320)
    key = _key(own, width - 2 * MARGIN)
    top = 44
    below = _LINE * (1 + max((line for _, line, _ in key), default=0))
    sheet = Image.new("RGB", (width, top + picture.height + 14 + below + 8), PAPER)
    draw = ImageDraw.Draw(sheet)
    write(draw, (MARGIN, 16), name, 13, GREY, room=width - 2 * MARGIN)
    sheet.paste(picture, (MARGIN, top))
    _draw_key(draw, own, key, top + picture.height + 14)
    save(sheet, path)


def _edges(mask: np.ndarray) -> np.ndarray:
    """bool [H, W]: pixels whose right or lower neighbour is of another class."""
    edge = np.zeros(mask.shape, bool)
    edge[:, :-1] |= mask[:, :-1] != mask[:, 1:]
    edge[:-1] |= mask[:-1] != mask[1:]
    return edge


def _key(legend: Legend, room: int) -> list[tuple[int, int, str]]:
    """Where in the key each class stands: x, line, and its name."""
    face = font(12, False)
    found: list[tuple[int, int, str]] = []
    x, line = 0, 0
    for name in legend.classes:
        said = plain(name)[:40]
        wide = 30 + round(face.getlength(said))
        if x and x + wide > room:
            x, line = 0, line + 1
        found.append((x, line, said))
        x += wide
    return found


def _draw_key(
    draw: ImageDraw.ImageDraw, legend: Legend, key: Sequence[tuple[int, int, str]], top: int
) -> None:
    for (x, line, said), color in zip(key, legend.colors, strict=False):
        at, y = MARGIN + x, top + line * _LINE
        draw.rectangle((at, y, at + 13, y + 13), fill=tuple(color), outline=RULE)
        write(draw, (at + 18, y), said, 12, INK)
