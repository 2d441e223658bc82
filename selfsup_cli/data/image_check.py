"""Is an image file sound, and is anything about it unusual? (The only use of Pillow on files.)"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image, UnidentifiedImageError

from selfsup_cli.errors import BadMediaError

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
MAX_PIXELS = 64_000_000

_FORMATS = {"JPEG": (".jpg", ".jpeg"), "PNG": (".png",), "WEBP": (".webp",), "BMP": (".bmp",)}
_ORIENTATION = 0x0112
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
    """Decode an image; raises `BadMediaError` if it is unreadable, damaged or too large."""
    try:
        if path.stat().st_size == 0:
            raise BadMediaError(str(path), "the file is empty")
        # What Pillow warns of is beyond our limit anyway.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with _opened(path) as image:
                image.verify()
            with _opened(path) as image:
                image.load()
                return _described(path, image)
    except (BadMediaError, MemoryError):
        raise
    except FileNotFoundError as error:
        raise BadMediaError(str(path), "the file does not exist") from error
    except PermissionError as error:
        raise BadMediaError(str(path), "permission to read the file is denied") from error
    except Image.DecompressionBombError as error:
        raise BadMediaError(str(path), "its pixels are too many") from error
    except UnidentifiedImageError as error:
        raise BadMediaError(str(path), "not a readable JPEG, PNG, WebP or BMP file") from error
    except Exception as error:  # Pillow's readers raise many types on damaged files
        raise BadMediaError(str(path), _reason(error)) from error


def _reason(error: Exception) -> str:
    said = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
    return f"it is damaged ({said})"


def _opened(path: Path) -> Any:
    image = Image.open(path, formats=tuple(_FORMATS))
    if image.width * image.height > MAX_PIXELS:
        image.close()
        raise BadMediaError(str(path), f"{image.width}×{image.height} pixels are too many")
    return image


def _described(path: Path, image: Any) -> Picture:
    turned = int(image.getexif().get(_ORIENTATION, 1))
    width, height = image.size if turned < 5 else image.size[::-1]
    found = []
    if path.suffix.lower() not in _FORMATS[image.format]:
        found.append(f"{image.format} under another name")
    if image.mode.startswith("I;16"):
        found.append(_MODES["I"])
    elif image.mode == "P":
        transparent = "transparency" in image.info
        found.append("a palette, with transparency" if transparent else "a palette")
    elif image.mode in _MODES:
        found.append(_MODES[image.mode])
    if turned in range(2, 9):
        found.append("to be turned upright (EXIF)")
    if image.info.get("progressive"):
        found.append("progressive")
    if getattr(image, "n_frames", 1) > 1:
        found.append("animated")
    if min(image.size) < _SMALLEST:
        found.append(f"smaller than {_SMALLEST} pixels")
    if max(image.size) > _LONGEST * min(image.size):
        found.append(f"longer than {_LONGEST}:1")
    return Picture(width, height, image.format, tuple(found))
