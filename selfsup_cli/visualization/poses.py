"""Poses drawn over images, and in space."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw

from selfsup_cli.config.joints import BONES, JOINTS, ROOT
from selfsup_cli.runs import atomic
from selfsup_cli.visualization.drawing import GREY, INK, MARGIN, PAPER, RULE, plain, save, write

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

_SIDE = 190
_SPACE = 8
_LINE = 20
_REACH = 1150.0
_FINE = 3
_COLORS = {"right": (222, 118, 30), "left": (38, 104, 190), "middle": (64, 70, 78)}
_TURN = np.radians(55.0)
_TILT = np.radians(12.0)


@dataclass(frozen=True)
class Column:
    """An image uint8 [3, S, S] and poses: `seen` and `guessed` [17, 2] in its pixels, true and
    found; `truth`, `found` and `fitted` [17, 3] in mm from the root. None for what is not known."""

    title: str
    said: str
    image: Tensor
    seen: NDArray[np.float32] | None
    guessed: NDArray[np.float64] | None
    truth: NDArray[np.float64] | None
    found: NDArray[np.float64]
    fitted: NDArray[np.float64] | None = None


def placed(pose: NDArray[np.float64], scale: float | None, side: int) -> NDArray[np.float64] | None:
    """Where joints [17, 3] (mm from the root) are in a crop of `side` pixels in the middle of which
    the root is, a millimetre being `scale` of its side: [17, 2], as if they were all as far away as
    the root."""
    if scale is None:
        return None
    pixels: NDArray[np.float64] = side * (0.5 + scale * pose[:, :2])
    return pixels


def sheet(path: Path, columns: Sequence[Column], *, title: str, note: str = "") -> None:
    """Write a PNG: of each column the image, the image under the pose found, the true pose in
    space, and the one found."""
    labels = ["image", "found, over it"]
    if any(one.truth is not None for one in columns):
        labels.append("true, from the side")
    labels.append("found, from the side")
    left = MARGIN + 96
    top = MARGIN + 2 * _LINE + (16 if note else 0)
    wide = left + len(columns) * (_SIDE + _SPACE) + MARGIN
    high = top + len(labels) * (_SIDE + _SPACE) + 2 * _LINE + MARGIN
    paper = Image.new("RGB", (wide, high), PAPER)
    draw = ImageDraw.Draw(paper)
    write(draw, (MARGIN, MARGIN), title, 17, bold=True, room=wide - 2 * MARGIN)
    if note:
        write(draw, (MARGIN, MARGIN + 24), note, 12, GREY, room=wide - 2 * MARGIN)
    for row, label in enumerate(labels):
        middle = top + row * (_SIDE + _SPACE) + _SIDE // 2
        _label(draw, label, middle)
    for number, column in enumerate(columns):
        x = left + number * (_SIDE + _SPACE)
        panels = [picture(column.image), over(column.image, column.seen, column.guessed)]
        if "true, from the side" in labels:
            panels.append(in_space(column.truth))
        panels.append(in_space(column.found))
        for row, panel in enumerate(panels):
            paper.paste(panel, (x, top + row * (_SIDE + _SPACE)))
        below = top + len(labels) * (_SIDE + _SPACE)
        write(draw, (x, below), column.title, 12, room=_SIDE)
        write(draw, (x, below + 17), column.said, 12, GREY, room=_SIDE)
    save(paper, path)


def _label(draw: ImageDraw.ImageDraw, label: str, middle: int) -> None:
    words = label.split(", ")
    for line, word in enumerate(words):
        write(draw, (MARGIN, middle - 8 * len(words) + 16 * line), word, 12, GREY, room=90)


def picture(image: Tensor) -> Image.Image:
    """An image uint8 [3, S, S] at the size of a panel."""
    pixels = image.permute(1, 2, 0).cpu().numpy()
    return Image.fromarray(pixels).resize((_SIDE, _SIDE), Image.Resampling.BICUBIC)


def over(
    image: Tensor,
    seen: NDArray[np.floating] | None,
    guessed: NDArray[np.floating] | None,
) -> Image.Image:
    """The image, with the true joints as thin white lines and those found in colour."""
    side = image.shape[-1]
    large = picture(image).resize((_SIDE * _FINE,) * 2, Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(large)
    factor = _SIDE * _FINE / side
    if seen is not None:
        _bones(draw, np.asarray(seen, np.float64) * factor, 1.0, plain_color=(255, 255, 255))
    if guessed is not None:
        _bones(draw, np.asarray(guessed, np.float64) * factor, 2.2)
    return large.resize((_SIDE, _SIDE), Image.Resampling.LANCZOS)


def in_space(pose: NDArray[np.float64] | None) -> Image.Image:
    """A pose [17, 3] (x right, y down, z away) from a place to the left and a little above."""
    long = _SIDE * _FINE
    paper = Image.new("RGB", (long, long), "#f6f8fa")
    draw = ImageDraw.Draw(paper)
    if pose is None:
        return paper.resize((_SIDE, _SIDE), Image.Resampling.LANCZOS)
    floor = float(np.nanmax(pose[:, 1])) + 60 if np.isfinite(pose[:, 1]).any() else 900.0
    for at in np.linspace(-900, 900, 5):
        for line in ([[at, floor, -900], [at, floor, 900]], [[-900, floor, at], [900, floor, at]]):
            ends = _turned(np.array(line)) * (long / 2 / _REACH) + long / 2
            draw.line([tuple(end[:2]) for end in ends], fill=RULE, width=_FINE)
    points = _turned(pose) * (long / 2 / _REACH)
    points[:, :2] += long / 2
    order = sorted(BONES, key=lambda bone: -_depth(points, bone))
    _bones(draw, points[:, :2], 3.0, order=order)
    return paper.resize((_SIDE, _SIDE), Image.Resampling.LANCZOS)


def _depth(points: NDArray[np.float64], bone: tuple[int, int]) -> float:
    depth = float(points[list(bone), 2].mean())
    return depth if np.isfinite(depth) else 0.0


def _turned(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Points [N, 3] as somebody sees them who has walked around the root and looks down on it."""
    x, y, z = points.T
    c, s = np.cos(_TURN), np.sin(_TURN)
    across, away = c * x - s * z, s * x + c * z
    c, s = np.cos(_TILT), np.sin(_TILT)
    return np.stack([across, c * y - s * away, s * y + c * away], 1)


def _bones(
    draw: ImageDraw.ImageDraw,
    points: NDArray[np.float64],
    width: float,
    *,
    plain_color: tuple[int, int, int] | None = None,
    order: Sequence[tuple[int, int]] = BONES,
) -> None:
    """Lines between joints [17, 2] where both are known."""
    thick = max(1, round(width * _FINE))
    for start, end in order:
        both = points[[start, end]]
        if not np.isfinite(both).all():
            continue
        color = plain_color or _COLORS[_side_of(end)]
        draw.line([tuple(one) for one in both], fill=color, width=thick, joint="curve")
        for x, y in both:
            half = thick / 2
            draw.ellipse((x - half, y - half, x + half, y + half), fill=color)


def _side_of(joint: int) -> str:
    first = JOINTS[joint].split(" ")[0]
    return first if first in _COLORS else "middle"


def joints(path: Path, means: Mapping[str, NDArray[np.float64]], *, title: str) -> None:
    """Write a PNG of the mean error (mm) of each joint by each metric."""
    from matplotlib.figure import Figure

    shown = [joint for joint in range(len(JOINTS)) if joint != ROOT]
    figure = Figure(figsize=(7.6, 4.6), dpi=110)
    axes = figure.add_subplot()
    rows = np.arange(len(shown))
    for number, (metric, values) in enumerate(means.items()):
        axes.plot(
            values[shown], rows, "o", label=metric, color=("#1f6feb", "#9a6700", "#1a7f37")[number]
        )
    axes.set_yticks(rows, [JOINTS[joint] for joint in shown])
    axes.invert_yaxis()
    axes.set_xlim(left=0)
    axes.set_xlabel("mean error, mm")
    axes.set_title(plain(title), loc="left", fontsize=11, color=INK)
    axes.grid(axis="x", color=RULE)
    axes.set_axisbelow(True)
    axes.legend(frameon=False)
    figure.tight_layout()
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    atomic.write_bytes(path, buffer.getvalue())
