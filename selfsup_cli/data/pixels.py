"""Arrays of images that are read one by one, from wherever they lie."""

from __future__ import annotations

import os
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np

from selfsup_cli.data.framing import framed, region_of
from selfsup_cli.errors import BadMediaError, MachineError

if TYPE_CHECKING:
    import torch

    from selfsup_cli.data.framing import Sizing

# How the axes of a stored image follow each other: rows (H), columns (W), colours (C).
Axes = Literal["HWC", "CHW", "CWH", "HW"]
_TO_CHW = {"HWC": (2, 0, 1), "CHW": (0, 1, 2), "CWH": (0, 2, 1)}


class Pixels(Protocol):
    """Images of one shape, uint8 `[N,*shape]`."""

    count: int
    shape: tuple[int, ...]

    def get(self, place: int) -> np.ndarray:
        """The image at `place`, uint8 `[*shape]`. Raises OSError and ValueError."""
        ...


class FlatPixels:
    """Images that lie one behind the other in a file, each `stride` bytes after the last one.

    They are read and not mapped: no slower, and a disk that fails or a file that is cut short is
    an error then, and not the end of the process. The file is opened where it is first asked for.
    """

    def __init__(
        self, path: Path, offset: int, count: int, shape: tuple[int, ...], stride: int | None = None
    ) -> None:
        self.count = count
        self.shape = shape
        self._bytes = int(np.prod(shape))
        self._stride = self._bytes if stride is None else stride
        self._path = path
        self._offset = offset
        self._descriptor: int | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_descriptor": None}

    def get(self, place: int) -> np.ndarray:
        """See `Pixels.get`."""
        if self._descriptor is None:
            self._descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
            weakref.finalize(self, os.close, self._descriptor)
        data = os.pread(self._descriptor, self._bytes, self._offset + place * self._stride)
        if len(data) < self._bytes:
            raise ValueError("the file is cut short")
        return np.frombuffer(bytearray(data), np.uint8).reshape(self.shape)


class LoadedPixels:
    """Images in memory, uint8 `[N,*shape]`."""

    def __init__(self, values: np.ndarray) -> None:
        self.count = len(values)
        self.shape = tuple(values.shape[1:])
        self._values = values

    def get(self, place: int) -> np.ndarray:
        """See `Pixels.get`."""
        return np.array(self._values[place])


def require_memory(path: Path, bytes_: int) -> None:
    """Raise `MachineError` if an array of so many bytes would take most of the memory there is."""
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if bytes_ > free // 2:
        raise MachineError(
            f"the compressed arrays of {path} take {bytes_ / 2**30:.1f} GiB of memory, and "
            f"{free / 2**30:.1f} GiB are free",
            kind="memory",
            hint="store them uncompressed (np.savez; HDF5 without chunks), to be read from disk",
        )


class PixelStore:
    """Images of arrays, one array behind the other; a `Store`."""

    def __init__(self, arrays: Sequence[Pixels], axes: Sequence[Axes]) -> None:
        self._arrays = tuple(arrays)
        self._axes = tuple(axes)
        self._ends = np.cumsum([array.count for array in arrays])

    def read(self, row: int, name: str, size: Sizing) -> torch.Tensor:
        """See `ImageSource.read`."""
        try:
            image = self.pixels(row)
            return framed(image, region_of(size, int(image.shape[1]), int(image.shape[2])))
        except (OSError, ValueError) as error:
            raise BadMediaError(name, f"it cannot be read ({error})") from error

    def pixels(self, row: int) -> torch.Tensor:
        """The image at place `row` of all, uint8 `[3,H,W]`."""
        import torch

        which = int(np.searchsorted(self._ends, row, side="right"))
        first = int(self._ends[which - 1]) if which else 0
        image = torch.from_numpy(self._arrays[which].get(row - first))
        axes = self._axes[which]
        if axes == "HW":
            return image.expand(3, -1, -1)
        image = image.permute(_TO_CHW[axes])
        return image.expand(3, -1, -1) if image.shape[0] == 1 else image


def size_of(shape: tuple[int, ...], axes: Axes) -> tuple[int, int]:
    """Height and width of an image of `shape`."""
    return shape[axes.index("H")], shape[axes.index("W")]


def axes_of(shape: tuple[int, ...]) -> Axes | None:
    """How the axes of an image of `shape` must be meant; None if it can be no image."""
    if len(shape) == 2:
        return "HW"
    if len(shape) != 3:
        return None
    if shape[2] in (1, 3):
        return "HWC"
    return "CHW" if shape[0] in (1, 3) else None
