"""Pictures of what generators draw: grids, rows side by side, animations, points in the plane."""

from __future__ import annotations

import io
import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image, ImageDraw
from torch import Tensor

from selfsup_cli.runs import atomic
from selfsup_cli.visualization.curves import COLOURS
from selfsup_cli.visualization.drawing import GREY, MARGIN, PAPER, lines, save, write
from selfsup_cli.visualization.enlarged import framed, picture, scale_of

_GAP = 2
_SPACE = 6
_CAPTION = 18
_LABEL = 12
_LEAST = 460


@dataclass(frozen=True)
class Row:
    """Images [n, 3, H, W], uint8 or float in [−1, 1], what they are, and a caption below each.

    With `apart`, the first one stands a little away from the others.
    """

    label: str
    images: Tensor
    captions: Sequence[str] = ()
    apart: bool = False


def grid(path: Path, images: Tensor, *, title: str, note: str = "", wanted: int = 64) -> None:
    """Write a PNG of images [n, 3, H, W] in rows, as many in each as there are rows."""
    drawn = _grid(images, wanted)
    width = max(drawn.width + 2 * MARGIN, _LEAST)
    notes = lines(note, 12, width - 2 * MARGIN)
    sheet, draw = _paper(width, drawn.height, title, notes)
    sheet.paste(drawn, (MARGIN, 60))
    _say(draw, notes, 60 + drawn.height + 10)
    save(sheet, path)


def rows(path: Path, shown: Sequence[Row], *, title: str, note: str = "", wanted: int = 64) -> None:
    """Write a PNG with a row for each of `shown`, its label at the left."""
    side = int(shown[0].images.shape[3])
    scale = scale_of(side, wanted)
    cells = [[picture(image, scale) for image in row.images] for row in shown]
    wide, high = cells[0][0].size
    face_room = max(len(row.label) for row in shown) * 8 + 16
    left = MARGIN + min(max(face_room, 40), 190)
    most = max(len(row) for row in cells)
    apart = 14 if any(row.apart for row in shown) else 0
    width = max(left + most * (wide + _SPACE) + apart + MARGIN - _SPACE, _LEAST)
    notes = lines(note, 12, width - 2 * MARGIN)
    heights = [high + (_CAPTION if row.captions else 0) + _SPACE for row in shown]
    sheet, draw = _paper(width, sum(heights), title, notes)
    y = 60
    for row, images, height in zip(shown, cells, heights, strict=True):
        write(draw, (MARGIN, y + high // 2 - 8), row.label, _LABEL, room=left - MARGIN - 8)
        for column, image in enumerate(images):
            x = left + column * (wide + _SPACE) + (14 if row.apart and column else 0)
            framed(sheet, draw, image, x, y)
            if row.captions and row.captions[column]:
                at = (x + wide // 2, y + high + 3)
                write(draw, at, row.captions[column], 11, GREY, anchor="ma", room=wide + _SPACE)
        y += height
    _say(draw, notes, y + 6)
    save(sheet, path)


def animation(
    path: Path, frames: Sequence[tuple[str, Tensor]], *, seconds: float, wanted: int = 64
) -> None:
    """Write a GIF whose frames are grids of images [n, 3, H, W], each with its caption.

    The last one is seen four times as long.
    """
    drawn = []
    for caption, images in frames:
        inside = _grid(images, wanted)
        frame = Image.new("RGB", (inside.width + 16, inside.height + 40), PAPER)
        write(ImageDraw.Draw(frame), (8, 8), caption, 14, bold=True, room=inside.width)
        frame.paste(inside, (8, 32))
        drawn.append(frame)
    shown = [round(1000 * seconds)] * (len(drawn) - 1) + [round(4000 * seconds)]
    buffer = io.BytesIO()
    drawn[0].save(buffer, "GIF", save_all=True, append_images=drawn[1:], duration=shown, loop=0)
    atomic.write_bytes(path, buffer.getvalue())


def points(
    path: Path,
    panels: Sequence[tuple[str, np.ndarray]],
    *,
    centres: np.ndarray | None = None,
    title: str,
    note: str = "",
) -> None:
    """Write a PNG of points [n, 2], a panel for each name; `centres` [m, 2] are crosses in all."""
    own = {k: v for k, v in matplotlib.rcParamsDefault.items() if not k.startswith("backend")}
    with matplotlib.rc_context(own):
        columns = min(len(panels), 4)
        count = math.ceil(len(panels) / columns)
        wide = 3.4 * columns + 0.4
        told = textwrap.wrap(note, round(15 * wide))
        high = 3.6 * count + 0.6 + 0.16 * len(told)
        figure = Figure(figsize=(wide, high), dpi=120)
        FigureCanvasAgg(figure)
        below = 0.16 * len(told) / high + 0.01
        figure.set_layout_engine("compressed", rect=(0, below, 1, 1 - 0.4 / high - below))
        figure.text(
            0.02, 1 - 0.1 / high, title, va="top", fontsize=12, weight="bold", parse_math=False
        )
        figure.text(0.02, 0.05 / high, "\n".join(told), fontsize=8, color=GREY, parse_math=False)
        everything = [found for _, found in panels] + ([] if centres is None else [centres])
        edge = 1.08 * max(float(np.abs(found).max(initial=0.1)) for found in everything)
        for number, (name, found) in enumerate(panels):
            axes = figure.add_subplot(count, columns, number + 1)
            axes.scatter(found[:, 0], found[:, 1], s=4, alpha=0.4, color=COLOURS[0], linewidths=0)
            if centres is not None:
                axes.scatter(
                    centres[:, 0], centres[:, 1], s=60, marker="x", color=COLOURS[1], linewidths=1.2
                )
            axes.set_title(name, fontsize=9, parse_math=False)
            axes.set(xlim=(-edge, edge), ylim=(-edge, edge), aspect="equal")
            axes.tick_params(labelsize=7)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", metadata={"Software": None})
    atomic.write_bytes(path, buffer.getvalue())


def _grid(images: Tensor, wanted: int) -> Image.Image:
    columns = math.ceil(math.sqrt(len(images)))
    cells = [picture(image, scale_of(int(images.shape[3]), wanted)) for image in images]
    wide, high = cells[0].width + _GAP, cells[0].height + _GAP
    size = (columns * wide - _GAP, math.ceil(len(cells) / columns) * high - _GAP)
    drawn = Image.new("RGB", size, PAPER)
    for number, cell in enumerate(cells):
        drawn.paste(cell, (number % columns * wide, number // columns * high))
    return drawn


def _paper(
    width: int, inside: int, title: str, notes: Sequence[str]
) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    sheet = Image.new("RGB", (width, 60 + inside + 18 * len(notes) + 26), PAPER)
    draw = ImageDraw.Draw(sheet)
    write(draw, (MARGIN, 22), title, 19, bold=True, room=width - 2 * MARGIN)
    return sheet, draw


def _say(draw: ImageDraw.ImageDraw, notes: Sequence[str], y: int) -> None:
    for number, said in enumerate(notes):
        write(draw, (MARGIN, y + 18 * number), said, 12, GREY)
