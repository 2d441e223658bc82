"""Tables of features on disk, written front to back and in pieces: HDF5, Parquet, CSV."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from h5py import h5d, h5p, h5s, h5t

from selfsup_cli.data.source import UNKNOWN
from selfsup_cli.runs import atomic
from selfsup_cli.runs.atomic import Recorder

ABOUT = "selfsup"
"""Name of the dataset (HDF5) or metadata (Parquet) that says as JSON what the table is."""


@dataclass(frozen=True)
class Table:
    """Rows of features: `ids`, `labels` (int64 `[N]` into `classes`, or None), and `blocks`.

    With `attributes` instead of classes, `labels` are uint8 `[N, A]`: 1, 0, or `UNKNOWN`.
    `blocks` gives the features once, in order, in pieces float32 `[n, D]`. `about` says what the
    table is.
    """

    ids: Sequence[str]
    labels: np.ndarray | None
    classes: tuple[str, ...] | None
    dim: int
    blocks: Iterator[np.ndarray]
    about: Mapping[str, Any]
    attributes: tuple[str, ...] | None = None

    @property
    def marks(self) -> np.ndarray | None:
        """Which attributes each row has, uint8 `[N, A]`; None without attributes."""
        return None if self.attributes is None else self.labels

    def columns(self) -> list[str]:
        """The names of the attributes as columns, apart from those that tables have anyway."""
        return [f"attribute_{name}" for name in self.attributes or ()]

    def names(self, start: int, stop: int) -> list[str] | None:
        """The classes of some rows, or None without labels."""
        if self.labels is None or self.classes is None or self.attributes is not None:
            return None
        return [self.classes[int(label)] for label in self.labels[start:stop]]

    def pieces(self) -> Iterator[tuple[int, int, np.ndarray]]:
        """`blocks` with the rows [start, stop) that each is. ValueError unless they are all."""
        start = 0
        for block in self.blocks:
            if len(block):
                yield start, start + len(block), block
            start += len(block)
        if start != len(self.ids):
            raise ValueError(f"{start} rows of features for {len(self.ids)} ids")


def write(path: Path, table: Table) -> str:
    """Write the table as its ending says (see `WRITERS`), atomically; gives its SHA-256 in hex."""
    with atomic.writing(path) as file:
        WRITERS[path.suffix.lower()](table, file)
    return file.sha256


def _csv(table: Table, file: Recorder) -> None:
    """`id[,label],f0,f1,…`; nine digits, which are enough for the same float32.

    Attributes are columns `attribute_NAME`: 1, 0, or nothing where it is not known.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    label = [] if table.names(0, 0) is None else ["label"]
    marks = table.marks
    writer.writerow(["id", *label, *table.columns(), *(f"f{k}" for k in range(table.dim))])
    for start, stop, block in table.pieces():
        names = table.names(start, stop)
        for row, values in enumerate(block.tolist()):
            name: list[Any] = [] if names is None else [names[row]]
            if marks is not None:
                own = marks[start + row].tolist()
                name = ["" if has == UNKNOWN else has for has in own]
            writer.writerow([table.ids[start + row], *name, *(f"{one:.9g}" for one in values)])
        file.write(text.getvalue().encode())
        text.seek(0)
        text.truncate()
    file.write(text.getvalue().encode())


def _parquet(table: Table, file: Recorder) -> None:
    """Columns `id`, `label` (the name of the class) and `features`, lists of one length.

    Attributes are columns `attribute_NAME`: true, false, or null where it is not known.
    """
    import pyarrow
    import pyarrow.parquet

    columns = [("id", pyarrow.string())]
    if table.names(0, 0) is not None:
        columns.append(("label", pyarrow.string()))
    columns += [(name, pyarrow.bool_()) for name in table.columns()]
    columns.append(("features", pyarrow.list_(pyarrow.float32(), table.dim)))
    schema = pyarrow.schema(columns).with_metadata({ABOUT: json.dumps(table.about)})
    with pyarrow.parquet.ParquetWriter(pyarrow.PythonFile(file, mode="w"), schema) as writer:
        for start, stop, block in table.pieces():
            flat = pyarrow.array(np.ascontiguousarray(block).reshape(-1))
            arrays = [
                pyarrow.array(table.ids[start:stop], pyarrow.string()),
                pyarrow.FixedSizeListArray.from_arrays(flat, table.dim),
            ]
            if (names := table.names(start, stop)) is not None:
                arrays.insert(1, pyarrow.array(names, pyarrow.string()))
            if (marks := table.marks) is not None:
                own = marks[start:stop]
                arrays[1:1] = [
                    pyarrow.array(own[:, a] == 1, mask=own[:, a] == UNKNOWN)
                    for a in range(own.shape[1])
                ]
            writer.write_table(pyarrow.Table.from_arrays(arrays, schema=schema))


def _hdf5(table: Table, file: Recorder) -> None:
    """Datasets `id`, `features`, `ABOUT`, and with labels `label` (int64) and `classes`.

    With attributes `label` is uint8 `[N, A]` (1, 0, or 255 where it is not known), of `attributes`.

    HDF5 itself neither survives a full disk nor writes front to back: it lays out the file in
    memory, with room for the features, and these are put there as they come.
    """
    layout = _Layout()
    with h5py.File(layout, "w", locking=False) as out:
        shape = (len(table.ids), table.dim)
        features = h5d.create(
            out.id, b"features", h5t.IEEE_F32LE, h5s.create_simple(shape), _reserved()
        )
        start = features.get_offset()
        columns = {"id": _texts(table.ids), ABOUT: _texts([json.dumps(table.about)])[0]}
        if table.marks is not None:
            columns["label"] = table.marks
            columns["attributes"] = _texts(table.attributes or ())
        elif table.labels is not None and table.classes is not None:
            columns["label"] = table.labels.astype("<i8", copy=False)
            columns["classes"] = _texts(table.classes)
        for name, column in columns.items():
            out.create_dataset(name, data=column, track_times=False)
    head, tail = layout.around(start, 4 * len(table.ids) * table.dim)
    file.write(head)
    for _, _, block in table.pieces():
        file.write(np.ascontiguousarray(block, "<f4"))
    file.write(tail)


def _texts(texts: Sequence[str]) -> np.ndarray:
    """Texts in UTF-8 and of one length, as HDF5 writes them without looking back at the file."""
    encoded = [text.encode() for text in texts]
    length = max(1, *map(len, encoded))
    return np.array(encoded, h5py.string_dtype("utf-8", length))


def _reserved() -> Any:
    """In one piece, and given its room at once without anything being written to it."""
    settings = h5p.create(h5p.DATASET_CREATE)
    settings.set_layout(h5d.CONTIGUOUS)
    settings.set_alloc_time(h5d.ALLOC_TIME_EARLY)
    settings.set_fill_time(h5d.FILL_TIME_NEVER)
    settings.set_obj_track_times(False)
    return settings


class _Layout(io.RawIOBase):
    """What HDF5 writes, kept in memory in the order in which it was written."""

    def __init__(self) -> None:
        self._written: list[tuple[int, bytes]] = []
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
        self._written.append((self._position, bytes(data)))
        self._position += len(self._written[-1][1])
        self._length = max(self._length, self._position)
        return len(self._written[-1][1])

    def around(self, start: int, size: int) -> tuple[bytes, bytes]:
        """What stands before byte `start`, and what stands `size` bytes behind it."""
        head, tail = bytearray(start), bytearray(self._length - start - size)
        for position, data in self._written:
            behind = position >= start + size
            part, at = (tail, position - start - size) if behind else (head, position)
            if at + len(data) > len(part):
                raise ValueError("HDF5 writes where the features are")
            part[at : at + len(data)] = data
        return bytes(head), bytes(tail)


WRITERS: dict[str, Callable[[Table, Recorder], None]] = {
    ".h5": _hdf5,
    ".hdf5": _hdf5,
    ".parquet": _parquet,
    ".csv": _csv,
}
