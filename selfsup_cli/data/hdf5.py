"""HDF5 files that are looked at before they are believed.

Such a file may keep its data in other files, assemble it from elsewhere, ask for filters that are
plugins (which are code), or claim more data than there is. What we write does none of this.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from h5py import h5d, h5pl, h5z

_FILTERS = {h5z.FILTER_SHUFFLE, h5z.FILTER_DEFLATE, h5z.FILTER_LZF, h5z.FILTER_FLETCHER32}

# Type and shape of a dataset; None in the shape stands for any length.
Form = tuple[np.dtype[Any], tuple[int | None, ...]]


class StructureError(Exception):
    """An HDF5 file is not as we write them."""


@contextmanager
def reading(path: Path) -> Iterator[h5py.File]:
    """Open `path` to be read, without locks (our files never change) and without plugins.

    Raises whatever h5py raises, which is of many types for damaged files.
    """
    # No plugin is ever needed for the filters that we accept.
    while h5pl.size():
        h5pl.remove(0)
    with h5py.File(path, "r", locking=False) as file:
        yield file


def check_structure(
    file: h5py.File, expected: Mapping[str, Form], size: int, *, contiguous: bool = False
) -> None:
    """Refuse, before anything is read, a file (of `size` bytes) that is not as we write them.

    Exactly the expected names, as hard links to datasets of the expected type and shape; no data
    outside the file or assembled from elsewhere, no more of it than the file can hold, no filter
    but the known ones. With `contiguous`, every dataset lies in one piece within the file. Raises
    StructureError.
    """
    names = list(file.keys())
    if sorted(names) != sorted(expected):
        raise StructureError(f"holds {sorted(names)} instead of {sorted(expected)}")
    for name, (dtype, shape) in expected.items():
        dataset = plain(file, name, size, contiguous=contiguous)
        if dataset.dtype != dtype or not _fits(dataset.shape, shape):
            wanted = [("any" if length is None else length) for length in shape]
            raise StructureError(
                f"{name} is {dataset.dtype}{list(dataset.shape or ())} instead of {dtype}{wanted}"
            )


def plain(file: h5py.File, name: str, size: int, *, contiguous: bool = False) -> h5py.Dataset:
    """The dataset `name` of a file of `size` bytes, as a hard link; see `check_structure`."""
    if not isinstance(file.get(name, getlink=True), h5py.HardLink):
        raise StructureError(f"{name} is a link")
    dataset = file[name]
    if not isinstance(dataset, h5py.Dataset):
        raise StructureError(f"{name} is not a dataset")
    if dataset.external is not None or dataset.is_virtual:
        raise StructureError(f"{name} keeps its data elsewhere")
    # A chunk may be compressed; what lies in one piece may not.
    if (dataset.size or 0) * dataset.dtype.itemsize > (1 if contiguous else 64) * size:
        raise StructureError(f"{name} claims more data than the file can hold")
    creation = dataset.id.get_create_plist()
    filters = {creation.get_filter(i)[0] for i in range(creation.get_nfilters())}
    if not filters <= _FILTERS:
        raise StructureError(f"{name} uses unknown filters {sorted(filters - _FILTERS)}")
    if contiguous and dataset.size:
        offset = dataset.id.get_offset()
        if creation.get_layout() != h5d.CONTIGUOUS or offset is None:
            raise StructureError(f"{name} does not lie in one piece")
        if offset + dataset.size * dataset.dtype.itemsize > size:
            raise StructureError(f"{name} goes on beyond the end of the file")
    return dataset


def _fits(shape: tuple[int, ...] | None, wanted: tuple[int | None, ...]) -> bool:
    if shape is None or len(shape) != len(wanted):
        return False
    return all(want in (None, length) for length, want in zip(shape, wanted, strict=True))
