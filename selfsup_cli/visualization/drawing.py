"""Drawing that all pictures of frames share: paper, text as its user gave it, frames as images.

Names of files and classes come from users and are drawn as plain text, whatever they hold.
"""

from __future__ import annotations

import io
from functools import lru_cache
from pathlib import Path

import matplotlib
import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont, ImageOps
from torch import Tensor

from selfsup_cli.runs import atomic

PAPER, INK, GREY, RULE = "#ffffff", "#1b1f24", "#6a737d", "#d8dde3"
MARGIN = 24
GAP = 3


def images(frames: Tensor, height: int) -> list[Image.Image]:
    """Frames [3, T, H, W], uint8 or float in [−1, 1], as pictures of the given height."""
    if frames.is_floating_point():
        frames = ((frames.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    pixels: np.ndarray = frames.cpu().permute(1, 2, 3, 0).contiguous().numpy()
    size = (scaled_width(frames, height), height)
    method = Image.Resampling.LANCZOS
    return [ImageOps.fit(Image.fromarray(frame), size, method) for frame in pixels]


def scaled_width(frames: Tensor, height: int) -> int:
    """The width that keeps the aspect ratio; extreme ones are cut, so that the sheet stays one."""
    wanted = round(frames.shape[3] * height / frames.shape[2])
    return min(max(wanted, height // 3), 2 * height)


@lru_cache(maxsize=32)
def font(size: int, bold: bool) -> ImageFont.FreeTypeFont:
    """A font of that size in pixels."""
    # Pillow's own font has no letters beyond ASCII; the one that Matplotlib brings has most.
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(Path(matplotlib.get_data_path(), "fonts", "ttf", name), size)


def plain(text: str) -> str:
    """`text` with everything that is no visible character (line ends, controls) as `·`."""
    return "".join(c if c.isprintable() else "·" for c in text)


def fitted(text: str, room: float, font: ImageFont.FreeTypeFont) -> str:
    """`text`, or its beginning and end around an ellipsis, no wider than `room` pixels."""
    if font.getlength(text) <= room:
        return text
    low, high = 0, len(text)
    while low < high:
        kept = (low + high + 1) // 2
        if font.getlength(shortened(text, kept)) <= room:
            low = kept
        else:
            high = kept - 1
    return shortened(text, low)


def shortened(text: str, kept: int) -> str:
    """The first and the last of `text`, `kept` characters together, around an ellipsis."""
    back = kept // 2
    return text[: kept - back] + "…" + (text[-back:] if back else "")


def lines(text: str, size: int, room: float) -> list[str]:
    """`text` broken at its spaces into lines no wider than `room` pixels; none for no text."""
    face = font(size, False)
    broken: list[str] = []
    for word in text.split(" "):
        longer = f"{broken[-1]} {word}" if broken else word
        if broken and face.getlength(plain(longer)) <= room:
            broken[-1] = longer
        else:
            broken.append(word)
    return broken if text else []


def write(
    draw: ImageDraw.ImageDraw,
    at: tuple[int, int],
    text: str,
    size: int,
    colour: str = INK,
    *,
    bold: bool = False,
    room: float | None = None,
    anchor: str = "la",
) -> None:
    """Draw `text`, in at most `room` pixels, at a point that is its `anchor` (Pillow's letters)."""
    face = font(size, bold)
    text = plain(text)
    if room is not None:
        text = fitted(text, room, face)
    draw.text(at, text, colour, face, anchor)


def save(sheet: Image.Image, path: Path) -> None:
    """Write a picture as a PNG."""
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG", optimize=True)
    atomic.write_bytes(path, buffer.getvalue())
