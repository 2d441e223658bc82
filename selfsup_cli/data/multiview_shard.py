"""One file of a prepared store of views: some frames of one camera, as an HDF5 file.

It is built in memory, written once and never changed. Every dataset lies in one piece, so that
crops are read straight from the page cache.

| dataset | type | holds |
|---|---|---|
| `crops` | u1 [bytes] | crops end to end, each a JPEG or, without a quality, its three planes |
| `ends` | i8 [N] | where each of N crops ends in `crops` |
| `backs`, `back_ends` | u1, i8 [N] or [0] | likewise the scene behind crops that have no `boxes` |
| `masks` | u1 [N,ceil(S·S/8)] or [0,…] | which pixels of each crop show the subject, a bit each |
| `checks` | u4 [N] | CRC-32 over the crop, the scene behind it and the mask of each frame |
| `boxes` | f4 [N,3] or [0,3] | left, top and side of each crop in pixels of its picture |
| `poses` | f4 [N,17,3] or [0,17,3] | joints as the virtual camera of the crop sees them, in mm |
| `pixels` | f4 [N,17,2] or [0,17,2] | joints in pixels of the crop |
| `motion` | f4 [N] | mean change of the picture since the frame before, in grey levels |
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import simplejpeg
from numpy.typing import NDArray

from selfsup_cli.data import hdf5

JOINTS = 17
_TABLES = ("ends", "back_ends", "checks", "boxes", "poses", "pixels", "motion")
_STREAMS = ("crops", "backs")


@dataclass(frozen=True)
class Piece:
    """Consecutive frames of one camera on their way into a store.

    `crops` uint8 `[N,3,S,S]`; `masks` bool `[N,S,S]`; `boxes` float32 `[N,3]` (left, top, side in
    pixels of the picture); `backgrounds` uint8 `[N,3,S,S]`, only where the scene is not one image
    of which `boxes` cut them out; `poses` float32 `[N,17,3]` and `pixels` float32 `[N,17,2]` as
    `Views` gives them; `motion` float32 `[N]`.
    """

    crops: NDArray[np.uint8]
    motion: NDArray[np.float32]
    masks: NDArray[np.bool_] | None = None
    boxes: NDArray[np.float32] | None = None
    backgrounds: NDArray[np.uint8] | None = None
    poses: NDArray[np.float32] | None = None
    pixels: NDArray[np.float32] | None = None


@dataclass(frozen=True)
class Coding:
    """How crops are stored: of `side` pixels, as JPEGs of `quality` or, without one, exactly."""

    side: int
    quality: int | None

    def encode(self, crops: NDArray[np.uint8]) -> list[bytes]:
        """Each of `crops` (uint8 `[N,3,S,S]`) as bytes."""
        if self.quality is None:
            return [crop.tobytes() for crop in crops]
        images = np.ascontiguousarray(crops.transpose(0, 2, 3, 1))
        # Colour at full resolution: what stands out from the scene is told by it at its edges.
        return [simplejpeg.encode_jpeg(one, self.quality, "RGB", "444") for one in images]

    def decode(self, stored: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
        """Undo `encode`: uint8 `[N,3,S,S]`. Raises ValueError for bytes that are something else."""
        side = self.side
        if self.quality is None:
            planes = np.empty((len(stored), 3, side, side), np.uint8)
            for plane, data in zip(planes, stored, strict=True):
                plane.reshape(-1)[:] = data
            return planes
        images = np.empty((len(stored), side, side, 3), np.uint8)
        for image, data in zip(images, stored, strict=True):
            found = simplejpeg.decode_jpeg(data.data, "RGB", buffer=image)
            if found.shape != image.shape:
                raise ValueError(f"{found.shape[0]}×{found.shape[1]} pixels instead of {side}")
        return np.ascontiguousarray(images.transpose(0, 3, 1, 2))


def built(pieces: Sequence[Piece], coding: Coding) -> bytes:
    """The bytes of a file that holds `pieces`, one after the other."""
    streams: dict[str, list[bytes]] = {"crops": [], "backs": []}
    for piece in pieces:
        streams["crops"] += coding.encode(piece.crops)
        if piece.backgrounds is not None:
            streams["backs"] += coding.encode(piece.backgrounds)
    frames = len(streams["crops"])
    masks = [
        np.packbits(p.masks.reshape(len(p.masks), -1), 1) for p in pieces if p.masks is not None
    ]
    packed = np.concatenate(masks) if masks else np.zeros((0, _mask_bytes(coding.side)), np.uint8)
    columns: dict[str, NDArray[Any]] = {
        "crops": _joined(streams["crops"]),
        "ends": _ends(streams["crops"]),
        "backs": _joined(streams["backs"]),
        "back_ends": _ends(streams["backs"]),
        "masks": packed,
        "boxes": _column([p.boxes for p in pieces], (3,)),
        "poses": _column([p.poses for p in pieces], (JOINTS, 3)),
        "pixels": _column([p.pixels for p in pieces], (JOINTS, 2)),
        "motion": np.concatenate([p.motion for p in pieces]).astype("<f4"),
    }
    checks = [
        _check(
            np.frombuffer(streams["crops"][n], np.uint8),
            np.frombuffer(streams["backs"][n], np.uint8) if streams["backs"] else None,
            packed[n] if len(packed) else None,
        )
        for n in range(frames)
    ]
    columns["checks"] = np.array(checks, "<u4")
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        for name, column in columns.items():
            file.create_dataset(name, data=column, track_times=False)
    return buffer.getvalue()


def _mask_bytes(side: int) -> int:
    return -(-side * side // 8)


def _joined(parts: list[bytes]) -> NDArray[np.uint8]:
    return np.frombuffer(b"".join(parts), np.uint8)


def _ends(parts: list[bytes]) -> NDArray[np.int64]:
    return np.cumsum([len(part) for part in parts], dtype="<i8")


def _column(parts: Sequence[NDArray[Any] | None], shape: tuple[int, ...]) -> NDArray[Any]:
    known = [part for part in parts if part is not None]
    if known and len(known) < len(parts):
        raise ValueError("some pieces have what others lack")
    return np.concatenate(known).astype("<f4") if known else np.zeros((0, *shape), "<f4")


def _check(
    crop: NDArray[np.uint8], back: NDArray[np.uint8] | None, mask: NDArray[np.uint8] | None
) -> int:
    value = zlib.crc32(crop.data)
    for part in (back, mask):
        if part is not None:
            value = zlib.crc32(np.ascontiguousarray(part).data, value)
    return value


def tables_check(path: Path) -> int:
    """CRC-32 over all of a file but its crops and masks, which have checks of their own."""
    with hdf5.reading(path) as file:
        value = 0
        for name in _TABLES:
            value = zlib.crc32(np.ascontiguousarray(file[name][()]).data, value)
        return value


class Shard:
    """A file of a store that has been found to be as it was written. It holds no file open."""

    def __init__(self, path: Path, frames: int, coding: Coding, tables: int) -> None:
        """Read its tables. Raises StructureError, or whatever h5py raises for damaged files."""
        self.path = path
        self._coding = coding
        size = path.stat().st_size
        length = _mask_bytes(coding.side)
        forms: dict[str, hdf5.Form] = {
            "crops": (np.dtype("u1"), (None,)),
            "ends": (np.dtype("<i8"), (frames,)),
            "backs": (np.dtype("u1"), (None,)),
            "back_ends": (np.dtype("<i8"), (None,)),
            "masks": (np.dtype("u1"), (None, length)),
            "checks": (np.dtype("<u4"), (frames,)),
            "boxes": (np.dtype("<f4"), (None, 3)),
            "poses": (np.dtype("<f4"), (None, JOINTS, 3)),
            "pixels": (np.dtype("<f4"), (None, JOINTS, 2)),
            "motion": (np.dtype("<f4"), (frames,)),
        }
        with hdf5.reading(path) as file:
            hdf5.check_structure(file, forms, size, contiguous=True)
            found = {name: file[name][()] for name in _TABLES}
            places = {
                name: (int(file[name].id.get_offset() or 0), int(file[name].size))
                for name in (*_STREAMS, "masks")
            }
        value = 0
        for name in _TABLES:
            value = zlib.crc32(np.ascontiguousarray(found[name]).data, value)
        if value != tables:
            raise hdf5.StructureError("its tables do not match their checksum")
        for name in ("back_ends", "boxes", "poses", "pixels"):
            if len(found[name]) not in (0, frames):
                raise hdf5.StructureError(f"{name} is of {len(found[name])} frames, not {frames}")
        self.motion: NDArray[np.float32] = found["motion"]
        self.boxes: NDArray[np.float32] | None = _some(found["boxes"])
        self.poses: NDArray[np.float32] | None = _some(found["poses"])
        self.pixels: NDArray[np.float32] | None = _some(found["pixels"])
        self._checks = found["checks"]
        self._ends = {"crops": found["ends"], "backs": found["back_ends"]}
        mapped = np.memmap(path, np.uint8, "r")
        self._bytes = {name: mapped[at : at + count] for name, (at, count) in places.items()}
        masks = self._bytes["masks"].reshape(-1, length)
        if len(masks) not in (0, frames):
            raise hdf5.StructureError(f"masks are of {len(masks)} frames, not {frames}")
        self._masks = _some(masks)
        for name, ends in self._ends.items():
            rising = bool((np.diff(ends, prepend=0) > 0).all())
            if not rising or (ends[-1] if len(ends) else 0) != len(self._bytes[name]):
                raise hdf5.StructureError(f"the ends of its {name} are not where they can be")

    def crops(self, frames: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Crops, uint8 `[N,3,S,S]`, verified. Raises StructureError for damage."""
        return self._decoded("crops", frames)

    def backgrounds(self, frames: NDArray[np.int64]) -> NDArray[np.uint8] | None:
        """What is behind the crops, alike."""
        return self._decoded("backs", frames) if len(self._ends["backs"]) else None

    def masks(self, frames: NDArray[np.int64]) -> NDArray[np.bool_] | None:
        """Masks, bool `[N,S,S]`, verified. Raises StructureError for damage."""
        if self._masks is None:
            return None
        self._verify(frames)
        side = self._coding.side
        bits = np.unpackbits(self._masks[frames], axis=1, count=side * side)
        return bits.reshape(-1, side, side).astype(bool)

    def _decoded(self, stream: str, frames: NDArray[np.int64]) -> NDArray[np.uint8]:
        self._verify(frames)
        try:
            return self._coding.decode([self._stored(stream, n) for n in frames.tolist()])
        except ValueError as error:
            raise hdf5.StructureError(f"a crop cannot be decoded ({error})") from error

    def _stored(self, stream: str, frame: int) -> NDArray[np.uint8]:
        ends = self._ends[stream]
        return self._bytes[stream][ends[frame - 1] if frame else 0 : ends[frame]]

    def _verify(self, frames: NDArray[np.int64]) -> None:
        for n in frames.tolist():
            back = self._stored("backs", n) if len(self._ends["backs"]) else None
            mask = None if self._masks is None else self._masks[n]
            if _check(self._stored("crops", n), back, mask) != self._checks[n]:
                raise hdf5.StructureError(f"frame {n} of it does not match its checksum")


def _some(column: NDArray[Any]) -> NDArray[Any] | None:
    return column if len(column) else None
