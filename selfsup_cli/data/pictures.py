"""The pictures of one camera, wherever they lie: a video, a folder of images, an array."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import h5py
import numpy as np
from numpy.typing import NDArray

from selfsup_cli.data import hdf5, image, video
from selfsup_cli.data.frame_table import VideoInfo
from selfsup_cli.errors import BadMediaError

_AT_ONCE = 16


class Pictures(Protocol):
    """Pictures in their order. They travel to processes, and hold no open file until asked.

    `digest` (hex) tells other pictures from these. All are of `height`×`width` pixels.
    """

    @property
    def frames(self) -> int: ...

    @property
    def height(self) -> int: ...

    @property
    def width(self) -> int: ...

    @property
    def digest(self) -> str: ...

    @property
    def where(self) -> str:
        """The file or folder, for messages."""
        ...

    def read(self, frames: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Some of them, uint8 `[N,3,H,W]`. Raises `BadMediaError`."""
        ...

    def stream(self, start: int = 0) -> Iterator[NDArray[np.uint8]]:
        """All from `start` on, in order, a few at a time: uint8 `[n,3,H,W]`."""
        ...


@dataclass(frozen=True)
class VideoPictures:
    """The frames of a video file that has been indexed."""

    path: Path
    info: VideoInfo
    digest: str

    @property
    def frames(self) -> int:
        return self.info.frames

    @property
    def height(self) -> int:
        return self.info.height

    @property
    def width(self) -> int:
        return self.info.width

    @property
    def where(self) -> str:
        return str(self.path)

    def read(self, frames: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Decode no more than what these frames need."""
        clip = video.decode(self.path, self.info, frames)
        return np.ascontiguousarray(clip.permute(1, 0, 2, 3).numpy())

    def stream(self, start: int = 0) -> Iterator[NDArray[np.uint8]]:
        """Decode the file once."""
        for clip in video.stream(self.path, self.info, start, _AT_ONCE):
            yield np.ascontiguousarray(clip.permute(1, 0, 2, 3).numpy())


@dataclass(frozen=True)
class ImagePictures:
    """Image files of one size, by their names under a folder."""

    folder: Path
    names: tuple[str, ...]
    height: int
    width: int
    digest: str

    @classmethod
    def of(cls, folder: Path, names: tuple[str, ...]) -> ImagePictures:
        """Look at the first of them and at how long all are. Raises `BadMediaError`."""
        first = folder / names[0]
        height, width = image.measure(image.read_bytes(first), str(first)).upright
        digest = hashlib.sha256()
        for name in names:
            try:
                status = (folder / name).stat()
            except OSError as error:
                raise BadMediaError(str(folder / name), error.strerror or str(error)) from error
            digest.update(f"{name}\0{status.st_size}\0{status.st_mtime_ns}\0".encode())
        return cls(folder, names, height, width, digest.hexdigest())

    @property
    def frames(self) -> int:
        return len(self.names)

    @property
    def where(self) -> str:
        return str(self.folder)

    def read(self, frames: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Decode these files."""
        return np.stack([self._one(int(n)) for n in frames])

    def stream(self, start: int = 0) -> Iterator[NDArray[np.uint8]]:
        """Decode all files."""
        for first in range(start, len(self.names), _AT_ONCE):
            yield self.read(np.arange(first, min(first + _AT_ONCE, len(self.names))))

    def _one(self, n: int) -> NDArray[np.uint8]:
        path = self.folder / self.names[n]
        found: NDArray[np.uint8] = image.decode(image.read_bytes(path), None, str(path)).numpy()
        if found.shape[1:] != (self.height, self.width):
            raise BadMediaError(
                str(path),
                f"it is {found.shape[2]}×{found.shape[1]} pixels, while others of its camera are "
                f"{self.width}×{self.height}",
            )
        return found


@dataclass(frozen=True)
class ArrayPictures:
    """A dataset uint8 `[T,H,W,3]` of an HDF5 file whose structure has been checked."""

    path: Path
    name: str
    shape: tuple[int, int, int, int]
    digest: str

    @property
    def frames(self) -> int:
        return self.shape[0]

    @property
    def height(self) -> int:
        return self.shape[1]

    @property
    def width(self) -> int:
        return self.shape[2]

    @property
    def where(self) -> str:
        return f"{self.path}:/{self.name}"

    def read(self, frames: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Read these frames."""
        unique, inverse = np.unique(frames, return_inverse=True)
        with self._opened() as data:
            return self._planes(np.stack([data[n] for n in unique.tolist()]))[inverse]

    def stream(self, start: int = 0) -> Iterator[NDArray[np.uint8]]:
        """Read all frames."""
        for first in range(start, self.frames, _AT_ONCE):
            with self._opened() as data:
                yield self._planes(data[first : first + _AT_ONCE])

    def _planes(self, images: NDArray[Any]) -> NDArray[np.uint8]:
        return np.ascontiguousarray(images.transpose(0, 3, 1, 2))

    def _opened(self) -> _Dataset:
        return _Dataset(self)


class _Dataset:
    """A dataset for as long as a block lasts; what h5py raises becomes `BadMediaError`."""

    def __init__(self, pictures: ArrayPictures) -> None:
        self._pictures = pictures
        self._reading = hdf5.reading(pictures.path)

    def __enter__(self) -> h5py.Dataset:
        pictures = self._pictures
        try:
            data = self._reading.__enter__()[pictures.name]
        except Exception as error:  # h5py raises many types on damaged files
            raise BadMediaError(pictures.where, str(error).splitlines()[0]) from error
        if data.shape != pictures.shape:
            raise BadMediaError(pictures.where, "it has changed since it was looked at")
        return data

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        self._reading.__exit__(None, None, None)
        if isinstance(error, OSError | RuntimeError):
            raise BadMediaError(self._pictures.where, str(error).splitlines()[0]) from error
