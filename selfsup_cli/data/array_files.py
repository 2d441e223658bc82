"""`.npz` and HDF5 files that are looked at before they are believed; nothing is unpickled."""

from __future__ import annotations

import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import h5py
import numpy as np
from h5py import h5d
from numpy.lib import format as npy

from selfsup_cli.data import hdf5
from selfsup_cli.data.pixels import FlatPixels, LoadedPixels, Pixels, require_memory
from selfsup_cli.errors import BadMediaError

_MAX_SMALL = 1 << 28
_PIECE = 1 << 22
_LOCAL = struct.Struct("<4s22xHH")
# Deflate makes nothing smaller than that.
_MOST_DEFLATED = 1100


class ArrayFile(Protocol):
    """Arrays by their keys."""

    keys: tuple[str, ...]

    def form(self, key: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
        """Shape and type of an array. Raises `BadMediaError` if it is none."""
        ...

    def pixels(self, key: str) -> Pixels:
        """An array of images (uint8), to be read one by one."""
        ...

    def values(self, key: str) -> np.ndarray:
        """All of a small array of numbers or text."""
        ...

    def verify(self, key: str) -> None:
        """Raise `BadMediaError` if an array does not match its checksum, where it has one."""
        ...


@contextmanager
def opened(path: Path) -> Iterator[ArrayFile]:
    """Open an array file; whatever turns out to be wrong with it is a `BadMediaError`."""
    try:
        if path.suffix.lower() == ".npz":
            with zipfile.ZipFile(path) as archive:
                yield NpzFile(path, archive)
        else:
            with hdf5.reading(path) as file:
                yield Hdf5File(path, file)
    except (BadMediaError, MemoryError):
        raise
    except hdf5.StructureError as error:
        raise BadMediaError(str(path), str(error)) from None
    except (OSError, ValueError, KeyError, EOFError, RuntimeError, struct.error) as error:
        raise BadMediaError(str(path), _reason(error)) from None
    except (zipfile.BadZipFile, zlib.error, NotImplementedError) as error:
        raise BadMediaError(str(path), _reason(error)) from None


def _reason(error: Exception) -> str:
    said = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
    return f"it is damaged or no array file ({said})"


class NpzFile:
    """An `.npz` file: a ZIP archive of `.npy` members, stored or deflated."""

    def __init__(self, path: Path, archive: zipfile.ZipFile) -> None:
        self._path = path
        self._archive = archive
        self._members = {
            info.filename.removesuffix(".npy"): info
            for info in archive.infolist()
            if info.filename.endswith(".npy")
        }
        self.keys = tuple(self._members)

    def form(self, key: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
        """See `ArrayFile.form`."""
        shape, _, dtype, _ = self._header(key)
        return shape, dtype

    def pixels(self, key: str) -> Pixels:
        """Read from the disk one by one if stored as they are, else unpacked into memory."""
        shape, fortran, _, start = self._header(key)
        info = self._members[key]
        if info.compress_type == zipfile.ZIP_STORED and not fortran:
            return FlatPixels(self._path, self._begin(info) + start, shape[0], shape[1:])
        require_memory(self._path, int(np.prod(shape)))
        return LoadedPixels(self._load(key))

    def values(self, key: str) -> np.ndarray:
        """See `ArrayFile.values`."""
        if self._members[key].file_size > _MAX_SMALL:
            raise BadMediaError("", f"{key} is too large")
        return self._load(key)

    def verify(self, key: str) -> None:
        """See `ArrayFile.verify`."""
        with self._archive.open(self._members[key]) as member:
            while member.read(_PIECE):
                pass

    def _header(self, key: str) -> tuple[tuple[int, ...], bool, np.dtype[Any], int]:
        """Shape, order, type of an array, and where in its member the values begin."""
        info = self._members[key]
        if info.flag_bits & 1 or info.compress_type not in (
            zipfile.ZIP_STORED,
            zipfile.ZIP_DEFLATED,
        ):
            raise BadMediaError("", f"{key} is encrypted or compressed in an unusual way")
        with self._archive.open(info) as member:
            version = npy.read_magic(member)
            if version not in ((1, 0), (2, 0)):
                raise BadMediaError("", f"{key} has an unknown version of the .npy format")
            read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
            shape, fortran, dtype = read(member)
            start = member.tell()
        if dtype.hasobject:
            raise BadMediaError("", f"{key} holds Python objects, which are not unpickled")
        bytes_ = int(np.prod(np.array(shape, object), initial=1)) * dtype.itemsize
        if start + bytes_ != info.file_size or bytes_ > _MOST_DEFLATED * max(
            info.compress_size, 64
        ):
            raise BadMediaError("", f"{key} is not as long as it says")
        return tuple(shape), bool(fortran), dtype, start

    def _begin(self, info: zipfile.ZipInfo) -> int:
        """Where in the file a stored member begins."""
        with self._path.open("rb") as file:
            file.seek(info.header_offset)
            mark, name, extra = _LOCAL.unpack(file.read(_LOCAL.size))
        begin = info.header_offset + _LOCAL.size + name + extra
        if mark != b"PK\3\4" or begin + info.file_size > self._path.stat().st_size:
            raise BadMediaError("", "it is truncated")
        return int(begin)

    def _load(self, key: str) -> np.ndarray:
        shape, fortran, dtype, start = self._header(key)
        values = np.empty(shape, dtype, order="F" if fortran else "C")
        with self._archive.open(self._members[key]) as member:
            member.read(start)
            flat = values.reshape(-1, order="A").view(np.uint8)
            for at in range(0, len(flat), _PIECE):
                piece = member.read(min(_PIECE, len(flat) - at))
                flat[at : at + len(piece)] = np.frombuffer(piece, np.uint8)
            member.read(1)  # where it compares the checksum
        return np.ascontiguousarray(values)


class Hdf5File:
    """An HDF5 file: datasets at its top."""

    def __init__(self, path: Path, file: h5py.File) -> None:
        self._path = path
        self._file = file
        self._size = path.stat().st_size
        self.keys = tuple(file.keys())

    def form(self, key: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
        """See `ArrayFile.form`."""
        dataset = self._dataset(key)
        return tuple(dataset.shape or ()), dataset.dtype

    def pixels(self, key: str) -> Pixels:
        """Read from the disk one by one if they lie there in one piece, else kept in memory."""
        dataset = self._dataset(key)
        offset = dataset.id.get_offset()
        if dataset.id.get_create_plist().get_layout() == h5d.CONTIGUOUS and offset is not None:
            hdf5.plain(self._file, key, self._size, contiguous=True)
            return FlatPixels(self._path, offset, dataset.shape[0], dataset.shape[1:])
        require_memory(self._path, dataset.size)
        return LoadedPixels(dataset[()])

    def values(self, key: str) -> np.ndarray:
        """See `ArrayFile.values`."""
        dataset = self._dataset(key)
        if dataset.size * dataset.dtype.itemsize > _MAX_SMALL:
            raise BadMediaError("", f"{key} is too large")
        if h5py.check_string_dtype(dataset.dtype) is not None:
            return np.array(dataset.asstr()[()]).astype(str)
        if dataset.dtype.hasobject:
            raise BadMediaError("", f"{key} holds neither numbers nor text")
        return np.asarray(dataset[()])

    def verify(self, key: str) -> None:
        """See `ArrayFile.verify`; chunks are verified whenever they are read."""

    def _dataset(self, key: str) -> h5py.Dataset:
        return hdf5.plain(self._file, key, self._size)
