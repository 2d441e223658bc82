"""How a pack lies in its file.

A pack is an HDF5 file of flat, contiguous datasets. `data` holds the frames end to end and begins
at byte `START`, so that frames can be written before anybody knows how many there will be; the
header goes into the room before it and the tables behind it when all is done. Behind the tables
stand 56 bytes that HDF5 does not read: a mark, where `data` ends, and the SHA-256 of everything but
the frames, which is verified before anything of it is believed. (HDF5 itself never writes to the
disk: it does not survive one that is full.)

| dataset | type | holds |
|---|---|---|
| `data` | u1 [bytes] | frames, end to end |
| `offsets` | i8 [F+1] | where in `data` each of F frames begins, and where the last one ends |
| `checksums` | u4 [F] | CRC-32 of each frame, verified whenever it is read |
| `frames` | i8 [N] | frames of each of N videos, 0 for those that were left out |
| `digests` | u1 [N,32] | SHA-256 over the stored frames of each video |
| `names`, `name_ends` | u1, i8 [N] | ids of the videos as one UTF-8 text, and where each ends |
| `labels` | i8 [N] or [0] | index of each video's class |
| `order` | i8 [M] | lists of videos that make up the parts of each split |
| `about` | u1 | JSON: what it was made from and how (see `About`) |

A pack of images is the same with images for videos, each of a single frame: an image file. Besides,
it has `sizes`, i8 [N,2], their upright heights and widths; and `labels` is i8 [N·A] where images
have A attributes.
"""

from __future__ import annotations

import hashlib
import io
import os
import stat
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from h5py import h5d, h5p, h5s, h5t
from pydantic import ValidationError

from selfsup_cli.data import hdf5
from selfsup_cli.data.ids import PackedIds
from selfsup_cli.data.pack_about import About, Coding, ImageCoding
from selfsup_cli.errors import InputError

START = 1 << 16
DATA = "data"
_MARK = b"selfsup.pack/1\n\0"
_TRAILER = struct.Struct("<16sQ32s")
_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_LEAST = 1 << 16
_PIECE = 1 << 22

_FORMS: dict[str, hdf5.Form] = {
    DATA: (np.dtype("u1"), (None,)),
    "offsets": (np.dtype("<i8"), (None,)),
    "checksums": (np.dtype("<u4"), (None,)),
    "frames": (np.dtype("<i8"), (None,)),
    "digests": (np.dtype("u1"), (None, 32)),
    "names": (np.dtype("u1"), (None,)),
    "name_ends": (np.dtype("<i8"), (None,)),
    "labels": (np.dtype("<i8"), (None,)),
    "order": (np.dtype("<i8"), (None,)),
    "about": (np.dtype("u1"), (None,)),
}

_IMAGE_FORMS = _FORMS | {"sizes": (np.dtype("<i8"), (None, 2))}


@dataclass(frozen=True)
class Tables:
    """All of a pack but its frames; see the table above."""

    about: About
    ids: PackedIds
    frames: np.ndarray
    digests: np.ndarray
    labels: np.ndarray
    order: np.ndarray
    sizes: np.ndarray | None = None


@dataclass(frozen=True)
class Stamp:
    """What tells whether a file is still the one that was looked at."""

    bytes: int
    mtime_ns: int
    inode: int

    @classmethod
    def of(cls, fd: int) -> Stamp:
        status = os.fstat(fd)
        return cls(status.st_size, status.st_mtime_ns, status.st_ino)


@dataclass(frozen=True)
class Places:
    """Where in the file the frames end and the tables of frames and videos begin, in bytes."""

    data_end: int
    offsets: int
    checksums: int
    digests: int
    stamp: Stamp


# -- writing


class _Overlay(io.RawIOBase):
    """What HDF5 writes before and behind the frames, kept in memory."""

    def __init__(self, frames_end: int) -> None:
        self.head = bytearray()
        self.tail = bytearray()
        self._frames_end = frames_end
        self._position = self._length = 0

    def seekable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._length}[whence]
        self._position = base + offset
        return self._position

    def tell(self) -> int:
        return self._position

    def truncate(self, size: int | None = None, /) -> int:
        self._length = self._position if size is None else size
        return self._length

    def write(self, data: Any, /) -> int:
        data = bytes(data)
        behind = self._position >= self._frames_end
        start = self._position - (self._frames_end if behind else 0)
        if not behind and start + len(data) > START:
            raise ValueError("HDF5 writes where the frames are")
        buffer = self.tail if behind else self.head
        buffer.extend(bytes(max(0, start + len(data) - len(buffer))))
        buffer[start : start + len(data)] = data
        self._position += len(data)
        self._length = max(self._length, self._position)
        return len(data)

    def finished(self) -> tuple[bytes, bytes]:
        self.head.extend(bytes(START - len(self.head)))
        self.tail.extend(bytes(self._length - self._frames_end - len(self.tail)))
        return bytes(self.head), bytes(self.tail)


def around(tables: Tables, sizes: np.ndarray, checksums: np.ndarray) -> tuple[int, bytes, bytes]:
    """What stands around frames of `sizes` (int64 `[F]`) bytes with `checksums` (uint32 `[F]`).

    Gives where the frames must end (with zeros behind the last one, if there are few), the bytes
    before `START` and those behind that end.
    """
    offsets = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])
    length = max(int(offsets[-1]), _LEAST)
    overlay = _Overlay(START + length)
    columns: dict[str, Any] = {
        "offsets": offsets,
        "checksums": checksums,
        "frames": tables.frames,
        "digests": tables.digests,
        "names": np.frombuffer(tables.ids.text, np.uint8),
        "name_ends": tables.ids.ends,
        "labels": tables.labels,
        "order": tables.order,
        "about": np.frombuffer(tables.about.model_dump_json(by_alias=True).encode(), np.uint8),
    }
    forms = _FORMS
    if tables.sizes is not None:
        columns["sizes"], forms = tables.sizes, _IMAGE_FORMS
    with h5py.File(
        overlay, "w", alignment_threshold=_LEAST, alignment_interval=START, locking=False
    ) as file:
        data = h5d.create(
            file.id,
            DATA.encode(),
            h5t.STD_U8LE,
            h5s.create_simple((length,)),
            _reserved(),
        )
        if data.get_offset() != START:
            raise AssertionError(f"HDF5 puts the frames at {data.get_offset()}")
        if tables.about.loss is not None:
            # For those who look into the file with other tools.
            file[DATA].attrs["mean_error_grey_levels"] = tables.about.loss.mean
            file[DATA].attrs["largest_error_grey_levels"] = tables.about.loss.largest
        for name, (dtype, _) in forms.items():
            if name != DATA:
                column = np.asarray(columns[name]).astype(dtype, copy=False)
                file.create_dataset(name, data=column, track_times=False)
    head, tail = overlay.finished()
    seal = hashlib.sha256(head + tail).digest()
    return START + length, head, tail + _TRAILER.pack(_MARK, START + length, seal)


def _reserved() -> Any:
    """Contiguous, and given its room at once without anything being written to it."""
    settings = h5p.create(h5p.DATASET_CREATE)
    settings.set_layout(h5d.CONTIGUOUS)
    settings.set_alloc_time(h5d.ALLOC_TIME_EARLY)
    settings.set_fill_time(h5d.FILL_TIME_NEVER)
    settings.set_obj_track_times(False)
    return settings


# -- reading


def read(path: Path) -> tuple[Tables, Places]:
    """Read and check all of a pack but its frames. Raises `InputError` unless it is sound."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        kind = "missing-folder" if isinstance(error, FileNotFoundError) else "pack"
        raise InputError(f"the pack {path} cannot be read: {error.strerror}", kind=kind) from error
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise InputError(f"{path} is no file", kind="pack")
        stamp = Stamp.of(fd)
        data_end = _verified(fd, path, stamp.bytes)
        try:
            with hdf5.reading(path) as file:
                forms = _IMAGE_FORMS if "sizes" in file else _FORMS
                hdf5.check_structure(file, forms, stamp.bytes, contiguous=True)
                tables = _tables(file)
                places = Places(
                    data_end,
                    file["offsets"].id.get_offset(),
                    file["checksums"].id.get_offset(),
                    file["digests"].id.get_offset(),
                    stamp,
                )
                if file[DATA].id.get_offset() != START or file[DATA].size != data_end - START:
                    raise hdf5.StructureError("its frames are not where they belong")
        except Exception as error:  # h5py raises many types on files that are not as they should be
            raise _refused(path, str(error).splitlines()[0]) from error
        if Stamp.of(fd) != stamp:
            raise InputError(f"{path} changes while it is read", kind="pack")
    finally:
        os.close(fd)
    return tables, places


def _verified(fd: int, path: Path, size: int) -> int:
    """Where the frames end, after everything else has been found to be as it was written."""
    if os.pread(fd, len(_SIGNATURE), 0) != _SIGNATURE:
        raise InputError(f"{path} is no pack: it is not an HDF5 file", kind="pack")
    mark, data_end, seal = _TRAILER.unpack(
        os.pread(fd, _TRAILER.size, max(0, size - _TRAILER.size)).ljust(_TRAILER.size)
    )
    if mark != _MARK or not START + _LEAST <= data_end <= size - _TRAILER.size:
        raise InputError(
            f"{path} is no finished pack: it is cut short, changed since, or HDF5 of another kind; "
            "packs are made by `selfsup data pack`",
            kind="pack",
        )
    digest = hashlib.sha256()
    for piece in _pieces(fd, ((0, START), (data_end, size - _TRAILER.size))):
        digest.update(piece)
    if digest.digest() != seal:
        raise _refused(path, "its tables do not match their checksum")
    return int(data_end)


def _pieces(fd: int, ranges: tuple[tuple[int, int], ...]) -> Iterator[bytes]:
    for start, stop in ranges:
        while start < stop:
            piece = os.pread(fd, min(_PIECE, stop - start), start)
            if not piece:
                return
            yield piece
            start += len(piece)


def _refused(path: Path, why: str) -> InputError:
    return InputError(
        f"the pack {path} is damaged or not ours: {why}; make it anew with `selfsup data pack`",
        kind="pack",
    )


def _tables(file: h5py.File) -> Tables:
    """The tables of a file whose structure has been checked; `StructureError` if they disagree."""
    try:
        about = About.model_validate_json(file["about"][()].tobytes())
    except ValidationError as error:
        raise hdf5.StructureError(f"it cannot be understood: {error.errors()[0]['msg']}") from error
    found: Mapping[str, np.ndarray] = {
        name: file[name][()]
        for name in ("frames", "digests", "labels", "order", "sizes")
        if name in file
    }
    frames, order = found["frames"], found["order"]
    videos, total = len(frames), len(file["checksums"])
    try:
        ids = PackedIds.of(file["names"][()].tobytes(), file["name_ends"][()])
    except ValueError as error:
        raise hdf5.StructureError(f"its names are damaged: {error}") from error
    listed = [place for parts in about.splits.values() for place in (*parts.train, *parts.test)]
    agree = (
        videos > 0
        and len(ids) == len(found["digests"]) == videos
        and len(file["offsets"]) == total + 1
        and int(frames.min()) >= 0
        # Summed as numbers without a limit: of int64, two large ones make a small one.
        and sum(frames.tolist()) == total
        and _labels_agree(about, found["labels"], videos)
        and _within(order, videos)
        and all(place <= len(order) for place in listed)
        and all(p.train[0] <= p.train[1] and p.test[0] <= p.test[1] for p in about.splits.values())
        and _coding_agrees(about.coding, found, videos)
    )
    if not agree:
        raise hdf5.StructureError("its tables contradict each other")
    return Tables(about=about, ids=ids, **found)


def _labels_agree(about: About, labels: np.ndarray, videos: int) -> bool:
    if about.attributes is not None:
        several = len(about.attributes)
        return about.classes is None and several * videos == len(labels) and _within(labels, 256)
    if about.classes is None:
        return not len(labels)
    return len(labels) == videos and _within(labels, len(about.classes))


def _coding_agrees(
    coding: Coding | ImageCoding, found: Mapping[str, np.ndarray], videos: int
) -> bool:
    sizes = found.get("sizes")
    if isinstance(coding, Coding):
        return sizes is None and (coding.quality is None) == (coding.encoding == "raw")
    return (
        sizes is not None
        and len(sizes) == videos
        and bool((found["frames"] <= 1).all())
        and bool((sizes[found["frames"] > 0] > 0).all())
        and (coding.quality is None) == (coding.shorter is None)
    )


def _within(places: np.ndarray, end: int) -> bool:
    return not len(places) or bool(places.min() >= 0 and places.max() < end)
