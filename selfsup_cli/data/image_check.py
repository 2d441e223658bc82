"""Is an image file sound, and is anything about it unusual?"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from selfsup_cli.data import image
from selfsup_cli.data.listing import IMAGE_SUFFIXES

SUFFIXES = IMAGE_SUFFIXES

_NAMES = {"JPEG": (".jpg", ".jpeg"), "PNG": (".png",), "WEBP": (".webp",), "BMP": (".bmp",)}
_SMALLEST = 32
_LONGEST = 4
_MODES = {
    "1": "black and white only",
    "L": "grey",
    "LA": "grey, with transparency",
    "La": "grey, with transparency",
    "I": "16 bits a value",
    "F": "floating-point values",
    "RGBA": "with transparency",
    "RGBa": "with transparency",
    "CMYK": "CMYK colours",
    "YCbCr": "YCbCr colours",
    "LAB": "Lab colours",
}


@dataclass(frozen=True)
class Picture:
    """A sound image: its size as it is to be shown, its format, and what is unusual about it."""

    width: int
    height: int
    format: str
    unusual: tuple[str, ...]


def examine(path: Path) -> Picture:
    """Decode an image as a job would.

    Raises `BadMediaError` if it is unreadable, damaged or too large.
    """
    return described(image.read_bytes(path), str(path))


def described(data: bytes, name: str) -> Picture:
    """The same of the bytes of an image; `name` says by its suffix what it claims to be."""
    image.decode(data, None, name)
    header = image.measure(data, name)
    height, width = header.upright
    return Picture(width, height, header.format, tuple(_unusual(data, name, header)))


def _unusual(data: bytes, name: str, header: image.Header) -> Iterator[str]:
    suffix = Path(name).suffix.lower()
    if suffix and suffix not in _NAMES[header.format]:
        yield f"{header.format} under another name"
    # What Pillow warns of is beyond our limit anyway.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with Image.open(io.BytesIO(data), formats=tuple(_NAMES)) as opened:
            yield from _of_pixels(opened)
            if header.orientation != 1:
                yield "to be turned upright (EXIF)"
            if opened.info.get("progressive"):
                yield "progressive"
            if getattr(opened, "n_frames", 1) > 1:
                yield "animated"
    if min(header.height, header.width) < _SMALLEST:
        yield f"smaller than {_SMALLEST} pixels"
    if max(header.height, header.width) > _LONGEST * min(header.height, header.width):
        yield f"longer than {_LONGEST}:1"


def _of_pixels(opened: Any) -> Iterator[str]:
    if opened.mode.startswith("I;16"):
        yield _MODES["I"]
    elif opened.mode == "P":
        transparent = "transparency" in opened.info
        yield "a palette, with transparency" if transparent else "a palette"
    elif opened.mode in _MODES:
        yield _MODES[opened.mode]
