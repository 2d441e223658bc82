"""Boxes over images: where objects are, and where a network found some."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image, ImageDraw
from torch import Tensor

from selfsup_cli.runs import atomic
from selfsup_cli.visualization.drawing import (
    GREY,
    MARGIN,
    PAPER,
    font,
    plain,
    save,
    write,
)
from selfsup_cli.visualization.sheets import HIT, MISS

TRUTH = "#1f5fa8"
_WIDE, _HIGH, _BETWEEN = 300, 230, 16
_COLUMNS = 4
_DASH = 7


@dataclass(frozen=True)
class Drawn:
    """A box of an image: its corners in shares (0 … 1) of width and height, and what it is."""

    corners: tuple[float, float, float, float]
    label: str
    score: float | None = None
    right: bool = False
    """Of what was found: whether there is such an object that nothing surer has found."""


@dataclass(frozen=True)
class Boxed:
    """An image uint8 [3, H, W], the objects in it, and what was found."""

    image: Tensor
    name: str
    truth: Sequence[Drawn]
    found: Sequence[Drawn]


def sheet(path: Path, images: Sequence[Boxed], *, title: str, note: str = "") -> None:
    """Write a PNG of images with their boxes: dashed what is there, solid what was found."""
    columns = min(_COLUMNS, max(len(images), 2))
    rows = -(-len(images) // columns)
    width = 2 * MARGIN + columns * (_WIDE + _BETWEEN) - _BETWEEN
    height = 112 + rows * (_HIGH + 34) + (26 if note else 6)
    picture = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(picture)
    write(draw, (MARGIN, 22), title, 21, bold=True, room=width - 2 * MARGIN)
    x = MARGIN
    for colour, dashed, said in (
        (TRUTH, True, "an object"),
        (HIT, False, "found, rightly"),
        (MISS, False, "found, wrongly"),
    ):
        _rectangle(draw, (x, 62, x + 26, 78), colour, dashed=dashed)
        write(draw, (x + 34, 63), said, 13, GREY)
        x += 60 + round(font(13, False).getlength(said))
    for number, one in enumerate(images):
        row, column = divmod(number, columns)
        _boxed(picture, draw, one, MARGIN + column * (_WIDE + _BETWEEN), 96 + row * (_HIGH + 34))
    if note:
        write(draw, (MARGIN, height - 28), note, 12, GREY, room=width - 2 * MARGIN)
    save(picture, path)


def annotated(path: Path, image: Tensor, found: Sequence[Drawn]) -> None:
    """Write an image uint8 [3, H, W] with what was found in it as a PNG."""
    pixels: np.ndarray = image.permute(1, 2, 0).contiguous().numpy()
    picture = Image.fromarray(pixels)
    _over(ImageDraw.Draw(picture), found, (0, 0, picture.width, picture.height), 13)
    save(picture, path)


def _boxed(picture: Image.Image, draw: ImageDraw.ImageDraw, one: Boxed, x: int, y: int) -> None:
    pixels: np.ndarray = one.image.permute(1, 2, 0).contiguous().numpy()
    scale = min(_WIDE / pixels.shape[1], _HIGH / pixels.shape[0])
    wide, high = (max(1, round(side * scale)) for side in (pixels.shape[1], pixels.shape[0]))
    shown = Image.fromarray(pixels).resize((wide, high), Image.Resampling.LANCZOS)
    x += (_WIDE - wide) // 2
    top = y + _HIGH - high
    picture.paste(shown, (x, top))
    for box in one.truth:
        _rectangle(draw, _scaled(box, x, top, wide, high), TRUTH, dashed=True)
    _over(draw, one.found, (x, top, wide, high), 11)
    write(draw, (x, y + _HIGH + 6), one.name, 11, GREY, room=wide)


def _over(
    draw: ImageDraw.ImageDraw,
    found: Sequence[Drawn],
    place: tuple[int, int, int, int],
    size: int,
) -> None:
    """Draw what was found over an image at (x, y) of that width and height."""
    x, y, wide, high = place
    # The surest last, so that it lies on top.
    for box in sorted(found, key=lambda box: box.score or 0):
        colour, at = HIT if box.right else MISS, _scaled(box, x, y, wide, high)
        _rectangle(draw, at, colour, dashed=False)
        said = plain(f"{box.label} {box.score:.2f}" if box.score is not None else box.label)
        length = min(round(font(size, True).getlength(said)) + 6, wide)
        left = min(max(at[0], x), x + wide - length)
        above = max(at[1] - size - 4, y)
        draw.rectangle((left, above, left + length, above + size + 4), colour)
        write(draw, (left + 3, above + 1), said, size, PAPER, bold=True, room=length - 4)


def _scaled(box: Drawn, x: int, y: int, wide: int, high: int) -> tuple[int, int, int, int]:
    left, top, right, bottom = box.corners
    return (
        x + round(left * wide),
        y + round(top * high),
        x + max(round(right * wide) - 1, round(left * wide)),
        y + max(round(bottom * high) - 1, round(top * high)),
    )


def _rectangle(
    draw: ImageDraw.ImageDraw, at: tuple[int, int, int, int], colour: str, *, dashed: bool
) -> None:
    """A frame of two pixels on a white one, so that it is seen on any ground."""
    left, top, right, bottom = at
    draw.rectangle((left - 1, top - 1, right + 1, bottom + 1), None, PAPER)
    if not dashed:
        draw.rectangle(at, None, colour, 2)
        return
    draw.rectangle(at, None, PAPER, 2)
    for start in range(left, right + 1, 2 * _DASH):
        for edge in (top, bottom - 1):
            draw.rectangle((start, edge, min(start + _DASH, right), edge + 1), colour)
    for start in range(top, bottom + 1, 2 * _DASH):
        for edge in (left, right - 1):
            draw.rectangle((edge, start, edge + 1, min(start + _DASH, bottom)), colour)


def recall_curves(
    path: Path, curves: Mapping[str, tuple[np.ndarray, np.ndarray]], *, title: str
) -> None:
    """Draw precision over recall (0 … 1, of each class) as a PNG; of many classes without names."""
    figure = Figure(figsize=(5.2, 4.2), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    named = len(curves) <= 10
    for name, (recall, precision) in curves.items():
        x = np.concatenate([[0.0], 100 * recall])
        y = np.concatenate([100 * precision[:1], 100 * precision])
        axes.plot(x, y, linewidth=1.4, label=name.replace("$", r"\$") if named else None)
    axes.set_xlim(0, 100)
    axes.set_ylim(0, 103)
    axes.set_xlabel("recall (%)")
    axes.set_ylabel("precision (%)")
    axes.set_title(title, fontsize=11, parse_math=False)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    if named and curves:
        axes.legend(frameon=False, fontsize=8)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    atomic.write_bytes(path, buffer.getvalue())
