"""Image files → pixels. The only module that knows the decoders (simplejpeg, Pillow).

`decode` gives an image as a person sees it: upright (EXIF), in RGB, transparent parts white, 16
bits reduced to 8. What is cut short or damaged anywhere is refused as a whole: half an image is no
image. `measure` reads the header only. Colour profiles are not applied.
"""

from __future__ import annotations

import io
import os
import stat
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg
import torch
from PIL import Image, UnidentifiedImageError

from selfsup_cli.data.framing import (
    MAX_PIXELS,
    Region,
    Sizing,
    UnscalableError,
    framed,
    region_of,
)
from selfsup_cli.errors import BadMediaError

MAX_BYTES = 1 << 30

# Without waiting for whoever writes into it, should it be a pipe.
_READING = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
_UNREADABLE = "not a readable JPEG, PNG, WebP or BMP file"
_MANY = "its pixels are too many"
_PNG = b"\x89PNG\r\n\x1a\n"
_ORIENTATION = 0x0112
# How stored rows are turned upright, by EXIF orientation: transposed, mirrored, upside down.
_TURNS = {
    2: (False, True, False),
    3: (False, True, True),
    4: (False, False, True),
    5: (True, False, False),
    6: (True, True, False),
    7: (True, True, True),
    8: (True, False, True),
}
# All pixels are there by then: padding at the very end, as some cameras write it.
_HARMLESS = "extraneous bytes before marker 0xd9"
# Images this many times as large as they are needed are decoded to half, a quarter or an eighth.
_AMPLE = 2.0


@dataclass(frozen=True)
class Header:
    """What the header of an image says: its format, stored size, and EXIF orientation (1 to 8).

    `colors` are those that the quick decoder of JPEGs sees in it, nothing where it cannot say.
    """

    format: str
    height: int
    width: int
    orientation: int
    colors: str = ""

    @property
    def upright(self) -> tuple[int, int]:
        """Height and width as it is to be shown."""
        turned = self.orientation in _TURNS and _TURNS[self.orientation][0]
        return (self.width, self.height) if turned else (self.height, self.width)


def read_bytes(path: Path, most: int = -1) -> bytes:
    """All of a file, or its first `most` bytes.

    Raises `BadMediaError` if it is empty, too large, or cannot be read.
    """
    try:
        descriptor = os.open(path, _READING)
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise BadMediaError(str(path), "it is no file")
            if status.st_size == 0:
                raise BadMediaError(str(path), "the file is empty")
            if status.st_size > MAX_BYTES:
                raise BadMediaError(str(path), "the file is too large for an image")
            with os.fdopen(descriptor, "rb", closefd=False) as file:
                return file.read(most)
        finally:
            os.close(descriptor)
    except FileNotFoundError as error:
        raise BadMediaError(str(path), "the file does not exist") from error
    except PermissionError as error:
        raise BadMediaError(str(path), "permission to read the file is denied") from error
    except OSError as error:
        raise BadMediaError(str(path), error.strerror or str(error)) from error


def measure(data: bytes, name: str = "") -> Header:
    """Read the header of an image file; raises `BadMediaError`, about `name`, if it has none."""
    with _told(name):
        return _header(data)


def decode(data: bytes, sizing: Sizing = None, name: str = "") -> torch.Tensor:
    """An image file as uint8 `[3,H,W]`, RGB, upright.

    `sizing` says which part of it is wanted in which size (see `framing.region_of`). Raises
    `BadMediaError`, about `name`, unless all of it can be decoded.
    """
    with _told(name):
        header = _header(data)
        region = region_of(sizing, *header.upright)
        if header.format == "JPEG":
            return framed(*_jpeg(data, header, region))
        if header.format == "PNG":
            _check_chunks(data)
        return framed(_upright(_pillow(data, header.format), header.orientation), region)


def decode_values(data: bytes, name: str = "") -> np.ndarray:
    """The values that a PNG or BMP file stores: numbers `[H,W]`, or uint8 colours `[H,W,3]`.

    Of a palette, the numbers are its entries; transparency is left out. Raises `BadMediaError`,
    about `name`, for what cannot be decoded whole, and for formats that change values.
    """
    with _told(name):
        header = _header(data)
        if header.format not in ("PNG", "BMP"):
            raise BadMediaError("", f"a {header.format} does not keep values as they are")
        if header.format == "PNG":
            _check_chunks(data)
        with _quiet(), Image.open(io.BytesIO(data), formats=(header.format,)) as file:
            file.load()
            image: Image.Image = file.getchannel(0) if file.mode in ("LA", "PA") else file
            grey = image.mode in ("1", "L", "P") or image.mode.startswith("I")
            values = np.array(image if grey else image.convert("RGB"))
        return values.astype(np.uint8) if values.dtype == np.bool_ else values


@contextmanager
def _told(name: str) -> Iterator[None]:
    """Turn whatever a decoder raises into one `BadMediaError`, except a shortage of ours.

    Without its cause: an OSError there would stand for a failure of the moment.
    """
    try:
        yield
    except BadMediaError as error:
        raise BadMediaError(name, error.reason) from None
    except (MemoryError, NameError, AttributeError, ImportError):
        raise
    except UnscalableError as error:
        raise BadMediaError(name, str(error)) from None
    except Image.DecompressionBombError:
        raise BadMediaError(name, _MANY) from None
    except UnidentifiedImageError:
        raise BadMediaError(name, _UNREADABLE) from None
    except Exception as error:  # decoders raise many types on damaged files
        said = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        short = "truncated" in said or "Premature end" in said
        told = "it is truncated" if short else f"it is damaged ({said})"
        raise BadMediaError(name, told) from None


def _header(data: bytes) -> Header:
    if data[:3] == b"\xff\xd8\xff":
        header = _jpeg_header(data)
    elif data[:8] == _PNG:
        header = _png_header(data)
    elif data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        header = _pillow_header(data, "WEBP")
    elif data[:2] == b"BM":
        header = _pillow_header(data, "BMP")
    else:
        raise BadMediaError("", _UNREADABLE)
    if header.height * header.width > MAX_PIXELS:
        raise BadMediaError("", f"{header.width}×{header.height} pixels are too many")
    return header


def _upright(image: torch.Tensor, orientation: int) -> torch.Tensor:
    transposed, mirrored, inverted = _TURNS.get(orientation, (False, False, False))
    if transposed:
        image = image.transpose(1, 2)
    dims = [dim for dim, flipped in ((2, mirrored), (1, inverted)) if flipped]
    return image.flip(dims) if dims else image


# -- JPEG


def _jpeg_header(data: bytes) -> Header:
    try:
        height, width, colors, _ = simplejpeg.decode_jpeg_header(data)
    except ValueError:
        # Of rare kinds that the quick decoder does not know.
        return _pillow_header(data, "JPEG")
    return Header("JPEG", height, width, _jpeg_orientation(data), colors)


def _jpeg_orientation(data: bytes) -> int:
    """The EXIF orientation of a JPEG file; 1 if it says none."""
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:
            at += 1
            continue
        if marker in (0xD9, 0xDA):
            break
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        if marker == 0xE1 and data[at + 4 : at + 10] == b"Exif\0\0":
            return _orientation(data[at + 4 : end])
        at = end
    return 1


def _orientation(exif: bytes) -> int:
    if not exif:
        return 1
    found = Image.Exif()
    try:
        with _quiet():
            found.load(exif)
            value = found.get(_ORIENTATION)
    except Exception:  # what is said of a picture may be damaged where the picture is not
        return 1
    return value if isinstance(value, int) and value in _TURNS else 1


def _jpeg(data: bytes, header: Header, region: Region) -> tuple[torch.Tensor, Region]:
    """The pixels of a JPEG, upright, and where in them the region lies."""
    if header.colors not in ("YCbCr", "RGB", "Gray"):
        if header.colors:
            _quickly(data, "CMYK", 0, 0)  # Pillow would not mind if it were cut short
        return _upright(_pillow(data, "JPEG"), header.orientation), region
    height, width = header.upright
    # The fewest rows and columns with which the region still is ample.
    rows = -int(-height * region.size[0] * _AMPLE // region.height)
    columns = -int(-width * region.size[1] * _AMPLE // region.width)
    if (header.height, header.width) != header.upright:
        rows, columns = columns, rows
    image = _upright(
        torch.from_numpy(_quickly(data, "RGB", rows, columns)).permute(2, 0, 1),
        header.orientation,
    )
    return image, _moved(region, (height, width), (image.shape[1], image.shape[2]))


def _quickly(data: bytes, colors: str, rows: int, columns: int) -> np.ndarray:
    """Decode in full, or to the smallest half, quarter or eighth of at least so many pixels."""
    settings = {"min_height": rows, "min_width": columns, "min_factor": 2 if rows else 1}
    try:
        return np.asarray(simplejpeg.decode_jpeg(data, colors, **settings))
    except ValueError as error:
        if _HARMLESS not in str(error):
            raise
        return np.asarray(simplejpeg.decode_jpeg(data, colors, strict=False, **settings))


def _moved(region: Region, size: tuple[int, int], scaled: tuple[int, int]) -> Region:
    """`region` of an image of `size` in the same image `scaled`, rounded outwards."""
    if scaled == size:
        return region
    (height, width), (rows, columns) = size, scaled
    top, left = region.top * rows // height, region.left * columns // width
    bottom = -(-(region.top + region.height) * rows // height)
    right = -(-(region.left + region.width) * columns // width)
    return Region(top, left, bottom - top, right - left, region.size, region.cubic)


# -- all else


@contextmanager
def _quiet() -> Iterator[None]:
    """What Pillow warns of is beyond our limits, or of no consequence."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _pillow_header(data: bytes, kind: str) -> Header:
    with _quiet(), Image.open(io.BytesIO(data), formats=(kind,)) as image:
        width, height = image.size
        exif = image.info.get("exif", b"")
    orientation = _jpeg_orientation(data) if kind == "JPEG" else _orientation(exif)
    return Header(kind, height, width, orientation)


def _png_header(data: bytes) -> Header:
    if data[12:16] != b"IHDR" or len(data) < 24:
        raise BadMediaError("", _UNREADABLE)
    width, height = (int.from_bytes(data[at : at + 4], "big") for at in (16, 20))
    if not width or not height:
        raise BadMediaError("", _UNREADABLE)
    # Pillow would decode all of it to look for what may stand at its end.
    return Header("PNG", height, width, _orientation(_chunk(data, b"eXIf")))


def _chunk(data: bytes, kind: bytes) -> bytes:
    """The first chunk of a kind in a PNG; nothing if it has none."""
    at = len(_PNG)
    while at + 8 <= len(data):
        body = at + 8 + int.from_bytes(data[at : at + 4], "big")
        if data[at + 4 : at + 8] == kind:
            return data[at + 8 : body]
        at = body + 4
    return b""


def _check_chunks(data: bytes) -> None:
    """Raise `BadMediaError` unless all chunks of a PNG are there and match their checksums."""
    at = len(_PNG)
    while at + 12 <= len(data):
        body = at + 8 + int.from_bytes(data[at : at + 4], "big")
        if zlib.crc32(data[at + 4 : body]) != int.from_bytes(data[body : body + 4], "big"):
            cut = body + 4 > len(data)
            raise BadMediaError(
                "", "it is truncated" if cut else "it is damaged (a checksum does not match)"
            )
        if data[at + 4 : at + 8] == b"IEND":
            return
        at = body + 4
    raise BadMediaError("", "it is truncated")


def _pillow(data: bytes, kind: str) -> torch.Tensor:
    """The stored pixels of an image file as uint8 `[3,H,W]`."""
    with Image.open(io.BytesIO(data), formats=(kind,)) as image:
        if image.width * image.height > MAX_PIXELS:
            raise BadMediaError("", _MANY)
        image.load()
        return torch.from_numpy(_rgb(image)).permute(2, 0, 1)


def _rgb(image: Any) -> np.ndarray:
    """The pixels of a loaded Pillow image as uint8 `[H,W,3]`."""
    if image.mode.startswith("I"):
        # Pillow would cut off what is above 255.
        levels = np.clip(np.asarray(image).astype(np.int64), 0, 65535)
        grey = ((levels * 255 + 32767) // 65535).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=2)
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, image)
    return np.array(image.convert("RGB"))
