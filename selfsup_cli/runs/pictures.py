"""A run's pictures inside a page: as they are if there is room, smaller if there is not."""

from __future__ import annotations

import base64
import io
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

# Of a run that came from elsewhere, nothing larger is even read.
MOST_BYTES = 64 << 20
MOST_PIXELS = 64_000_000
_SCALES = (1.0, 0.75, 0.5, 0.35, 0.25, 0.15)
_PNG, _JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"


@dataclass(frozen=True)
class Embedded:
    """A picture to show: the file's `data`, its size in pixels where known; or why it is not shown.

    `note` says what was done to make it fit.
    """

    data: bytes = b""
    kind: str = ""
    size: tuple[int, int] | None = None
    note: str = ""
    missing: str = ""

    @property
    def uri(self) -> str:
        """The picture as a `data:` address."""
        return f"data:{self.kind};base64,{base64.b64encode(self.data).decode('ascii')}"

    @property
    def length(self) -> int:
        """How many characters `uri` takes, about."""
        return (len(self.data) + 2) // 3 * 4 + 40 * bool(self.data)


def embed(folder: Path | None, files: Sequence[str], room: int) -> list[Embedded]:
    """The pictures `files`, relative to `folder`, in at most `room` characters altogether.

    Where there is no room for all as they are, those above an equal share are made smaller. What is
    missing, outside of the folder, or no PNG or JPEG, is told of in `missing`.
    """
    found = [_read(folder, file) for file in files]
    if sum(one.length for one in found) <= room:
        return found
    share = room / len(found)
    smaller = found
    for scale in _SCALES:
        smaller = [one if one.length <= share else _shrunk(one, scale) for one in found]
        if sum(one.length for one in smaller) <= room:
            return smaller
    return [
        one if one.length <= share else _nothing("it is too large for this page") for one in smaller
    ]


def _read(folder: Path | None, file: str) -> Embedded:
    if folder is None:
        return _nothing("the run is not at hand")
    path = folder / file
    try:
        if not path.resolve().is_relative_to(folder.resolve()) or not path.is_file():
            return _nothing("it is not in the run")
        if path.stat().st_size > MOST_BYTES:
            return _nothing("it is too large")
        data = path.read_bytes()
    except (OSError, ValueError) as error:
        return _nothing(f"it cannot be read ({type(error).__name__})")
    if data.startswith(_PNG) and len(data) >= 24:
        return Embedded(data, "image/png", struct.unpack(">II", data[16:24]))
    if data.startswith(_JPEG):
        return Embedded(data, "image/jpeg")
    return _nothing("it is neither a PNG nor a JPEG")


def _shrunk(picture: Embedded, scale: float) -> Embedded:
    # Only a page that has no room otherwise needs Pillow.
    from PIL import Image

    if not picture.data:
        return picture
    try:
        with Image.open(io.BytesIO(picture.data), formats=("PNG", "JPEG")) as image:
            if image.width * image.height > MOST_PIXELS:
                return _nothing("it is too large")
            size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
            pixels = Image.new("RGB", image.size, "white")
            whole = image.convert("RGBA")
            pixels.paste(whole, mask=whole.getchannel("A"))
            was = f"{image.width} × {image.height}"
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return _nothing("it is damaged")
    buffer = io.BytesIO()
    pixels.resize(size, Image.Resampling.LANCZOS).save(buffer, "JPEG", quality=85, optimize=True)
    note = f"made smaller for this page; the file has {was} pixels"
    return Embedded(buffer.getvalue(), "image/jpeg", size, note)


def _nothing(why: str) -> Embedded:
    return Embedded(missing=why)
