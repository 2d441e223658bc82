"""What of a video makes networks active, side by side: as a strip of frames and as an animation."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, features
from torch import Tensor

from selfsup_cli.errors import MachineError
from selfsup_cli.runs import atomic
from selfsup_cli.visualization.drawing import (
    GAP,
    GREY,
    MARGIN,
    PAPER,
    RULE,
    images,
    lines,
    save,
    write,
)

_GUTTER = 178
_BRIGHTEST = 99.5
_FRAME_MS = 120


@dataclass(frozen=True)
class Look:
    """What makes a network active: float [3, T, H, W], never negative; its name, and a detail."""

    name: str
    note: str
    pixels: Tensor


@dataclass(frozen=True)
class Seen:
    """A clip as networks see it, [3, T, H, W], uint8 or float in [−1, 1], and what each looks at.

    `numbers` are the indices of the frames in their video.
    """

    frames: Tensor
    numbers: Sequence[int]
    looks: Sequence[Look]


@dataclass(frozen=True)
class Video:
    """A video, its class if it has one, and its clips: one for each kind of input."""

    name: str
    label: str | None
    seen: Sequence[Seen]


def strip(
    path: Path,
    videos: Sequence[Video],
    *,
    title: str,
    subtitle: str = "",
    note: str = "",
    columns: int = 8,
    side: int = 84,
) -> None:
    """Write a PNG: of each video at most `columns` frames, and below them what each network sees.

    The number above a frame is its index in the video. The brightness of a row is relative to its
    own clip, in all frames alike: see `brightness`.
    """
    count = max((min(columns, len(seen.numbers)) for video in videos for seen in video.seen),
                default=columns)  # fmt: skip
    width = 2 * MARGIN + _GUTTER + max(count, 4) * (side + GAP) - GAP
    room = width - 2 * MARGIN
    notes = lines(note, 12, room)
    rows = sum((1 + len(seen.looks)) * (side + GAP) + 20 for v in videos for seen in v.seen)
    top = 94 if subtitle else 70
    height = top + rows + 14 * len(videos) + 26 + 18 * len(notes) + 14
    sheet = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(sheet)
    _head(draw, title, subtitle, room)
    y = top
    left = MARGIN + _GUTTER
    for video in videos:
        for number, seen in enumerate(video.seen):
            chosen = spread(len(seen.numbers), columns)
            for k, t in enumerate(chosen):
                x = left + k * (side + GAP) + side // 2
                write(draw, (x, y), str(seen.numbers[t]), 11, GREY, anchor="ma")
            y += 17
            _say(draw, y + side // 2, *_about(video, number), bold=True)
            _row(sheet, [images(seen.frames[:, chosen], side)], left, y)
            y += side + GAP
            for look in seen.looks:
                _say(draw, y + side // 2, look.name, look.note)
                _row(sheet, [heat(brightness(look.pixels)[chosen], side)], left, y)
                y += side + GAP
            y += 3
        y += 14
    _scale(sheet, draw, y)
    for number, said in enumerate(notes):
        write(draw, (MARGIN, y + 26 + 18 * number), said, 12, GREY, room=room)
    save(sheet, path)


def animation(
    path: Path,
    videos: Sequence[Video],
    *,
    title: str,
    subtitle: str = "",
    note: str = "",
    side: int = 120,
) -> None:
    """Write a WebP or GIF, by the suffix of `path`, that plays all clips at once, over and over.

    A row for each video, a column for its input and for each network. Raises MachineError where the
    imaging library was built without WebP.
    """
    if path.suffix.lower() == ".webp" and not features.check("webp"):
        raise MachineError(
            f"cannot write {path}: the Pillow that is installed has no WebP; name a .gif"
        )
    heads = _heads(videos[0]) if videos else []
    width = 2 * MARGIN + _GUTTER + max(len(heads), 3) * (side + GAP) - GAP
    room = width - 2 * MARGIN
    notes = lines(note, 12, room)
    top, row = 94 + 44, side + GAP
    height = top + len(videos) * row + 12 + 18 * len(notes) + 14
    ground = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(ground)
    _head(draw, title, subtitle, room)
    left = MARGIN + _GUTTER
    for column, (name, detail) in enumerate(heads):
        x = left + column * row
        write(draw, (x, top - 40), name, 12, bold=True, room=side - 6)
        write(draw, (x, top - 22), detail, 11, GREY, room=side - 6)
    for number, said in enumerate(notes):
        at = (MARGIN, height - 14 - 18 * (len(notes) - number))
        write(draw, at, said, 12, GREY, room=room)
    cells = [_cells(video, side) for video in videos]
    length = max((len(cell) for row_ in cells for cell in row_), default=1)
    shown = []
    for tick in range(length):
        frame = ground.copy()
        draw = ImageDraw.Draw(frame)
        for number, video in enumerate(videos):
            y = top + number * row
            _row(frame, [[cell[tick * len(cell) // length]] for cell in cells[number]], left, y)
            seen = video.seen[0]
            index = seen.numbers[tick * len(seen.numbers) // length]
            _say(draw, y + side // 2, *_about(video, 0), f"frame {index}", bold=True)
        shown.append(frame)
    _save_animation(path, shown)


def brightness(pixels: Tensor) -> np.ndarray:
    """How bright pixels `[3, T, H, W]` are drawn, float [T, H, W] in 0 … 1.

    The largest of the three colours, relative to the value that 99.5 % of the clip stay below.
    """
    strongest = pixels.float().amax(0).cpu().numpy()
    top = float(np.percentile(strongest, _BRIGHTEST)) or float(strongest.max())
    return np.clip(strongest / top, 0, 1) if top > 0 else np.zeros_like(strongest)


def heat(values: np.ndarray, side: int) -> list[Image.Image]:
    """Values [T, H, W] in 0 … 1 as square pictures, from black over red to pale yellow."""
    grey = (values * 255).round().astype(np.uint8)
    scaled = [Image.fromarray(one).resize((side, side), Image.Resampling.LANCZOS) for one in grey]
    return [Image.fromarray(_colours()[np.asarray(one)]) for one in scaled]


def spread(length: int, count: int) -> list[int]:
    """At most `count` of `length` frames, evenly spaced: the middle of each equal part."""
    count = min(count, length)
    return [(2 * k + 1) * length // (2 * count) for k in range(count)]


def _about(video: Video, number: int) -> tuple[str, str]:
    """What is said of the row of an input: of the first one which video it is."""
    if number == 0:
        return (video.name, "") if video.label is None else (video.label, video.name)
    return "the same video", _size(video.seen[number])


def _heads(video: Video) -> list[tuple[str, str]]:
    """Name and detail of each column of an animation."""
    heads = []
    for seen in video.seen:
        heads.append(("input", _size(seen) if len(video.seen) > 1 else ""))
        heads += [(look.name, look.note) for look in seen.looks]
    return heads


def _size(seen: Seen) -> str:
    return f"{len(seen.numbers)} frames, {seen.frames.shape[-1]} pixels"


def _head(draw: ImageDraw.ImageDraw, title: str, subtitle: str, room: int) -> None:
    write(draw, (MARGIN, 22), title, 21, bold=True, room=room)
    write(draw, (MARGIN, 54), subtitle, 13, GREY, room=room)


def _say(
    draw: ImageDraw.ImageDraw, middle: int, name: str, *notes: str, bold: bool = False
) -> None:
    """A name and the notes below it, in the gutter, centred on the height `middle`."""
    notes = tuple(note for note in notes if note)
    y = middle - 10 - 8 * len(notes)
    write(draw, (MARGIN, y), name, 14, bold=bold, room=_GUTTER - 14)
    for number, note in enumerate(notes):
        write(draw, (MARGIN, y + 20 + 16 * number), note, 11, GREY, room=_GUTTER - 14)


def _row(sheet: Image.Image, groups: Sequence[Sequence[Image.Image]], left: int, y: int) -> None:
    x = left
    for group in groups:
        for image in group:
            sheet.paste(image, (x, y))
            x += image.width + GAP


def _scale(sheet: Image.Image, draw: ImageDraw.ImageDraw, y: int) -> None:
    """What the colours mean."""
    wide, high = 140, 12
    ramp = np.broadcast_to(np.linspace(0, 255, wide).astype(np.uint8), (high, wide))
    write(draw, (MARGIN, y), "no influence", 12, GREY)
    sheet.paste(Image.fromarray(_colours()[ramp]), (MARGIN + 84, y + 2))
    draw.rectangle((MARGIN + 83, y + 1, MARGIN + 84 + wide, y + 2 + high), outline=RULE)
    write(draw, (MARGIN + 84 + wide + 8, y), "most in the clip", 12, GREY)


def _cells(video: Video, side: int) -> list[list[Image.Image]]:
    """All pictures of a video, one list for each column."""
    cells = []
    for seen in video.seen:
        cells.append(images(seen.frames, side))
        cells += [heat(brightness(look.pixels), side) for look in seen.looks]
    return cells


def _save_animation(path: Path, shown: Sequence[Image.Image]) -> None:
    buffer = io.BytesIO()
    play: dict[str, Any] = {
        "save_all": True,
        "append_images": shown[1:],
        "duration": _FRAME_MS,
        "loop": 0,
    }
    if path.suffix.lower() == ".gif":
        shown[0].save(buffer, "GIF", **play)
    else:
        shown[0].save(buffer, "WEBP", quality=88, **play)
    atomic.write_bytes(path, buffer.getvalue())


@cache
def _colours() -> np.ndarray:
    """uint8 [256, 3]: Matplotlib's inferno, whose lightness rises evenly, in grey print too."""
    ramp: np.ndarray = matplotlib.colormaps["inferno"](np.arange(256), bytes=True)
    return ramp[:, :3]
