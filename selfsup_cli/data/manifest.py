"""A CSV file that lists files: `path`, `label`, and optionally `split`."""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from selfsup_cli.config.blocks import Data
from selfsup_cli.data.ids import PackedIds
from selfsup_cli.data.listing import (
    IMAGES,
    VIDEOS,
    Listing,
    Medium,
    check_classes,
    held_out,
    only_split,
    unlabelled,
)
from selfsup_cli.data.source import UNKNOWN, Split
from selfsup_cli.data.tables import header_of, table_rows
from selfsup_cli.errors import InputError

_PARTS = {"train": 0, "test": 1, "val": 2, "valid": 2, "validation": 2}
_HAS = {"1": 1, "0": 0, "-1": 0, "": UNKNOWN}


class _Columns:
    """The columns of a manifest, read row by row into compact arrays."""

    def __init__(self, path: Path, labels: bool, attributes: tuple[str, ...]) -> None:
        self._path = path
        self._labels = labels and not attributes
        self.attributes = attributes
        self.has = array("B")
        self.codes = array("q")
        self.code_of: dict[str, int] = {}
        self.parts = array("b")
        self.lines = array("q")

    def paths(self) -> Iterator[str]:
        """The paths, relative to the manifest; the other columns fill up on the way."""
        for where, row in table_rows(self._path, ("path",), self._labels):
            if self._labels:
                self.codes.append(self.code_of.setdefault(row["label"], len(self.code_of)))
            for name in self.attributes:
                if row[name] not in _HAS:
                    raise InputError(
                        f"{where}: {name} is '{row[name]}'; without a column label, every other "
                        "column is an attribute: 1, 0 (or -1), or empty where it is not known",
                        kind="csv",
                    )
                self.has.append(_HAS[row[name]])
            if "split" in row:
                part = _PARTS.get(row["split"].lower())
                if part is None:
                    raise InputError(
                        f"{where}: split '{row['split']}' is none of {', '.join(_PARTS)}",
                        kind="csv",
                    )
                self.parts.append(part)
            self.lines.append(int(where.rpartition(":")[2]))
            path = os.path.normpath(row["path"])
            if path.startswith(os.sep):
                path = os.path.relpath(path, self._path.parent)
            yield Path(path).as_posix()


def manifest(
    path: Path, data: Data, split: Split, labels: bool, medium: Medium = VIDEOS
) -> Listing:
    """The files that the CSV file `path` lists; their paths are relative to its folder.

    Without `labels` the column of that name is not read. Images may have attributes instead of a
    label: one column for each, with 1, 0 (or -1) or nothing. With a column `split` (train, test,
    val) that is the division, `val` standing for `test` where no row has `test`.
    """
    only_split(path, data)
    columns = _Columns(path, labels, _attributes(path) if labels and medium is IMAGES else ())
    ids = PackedIds(columns.paths())
    if not len(ids):
        raise InputError(f"{path} lists no {medium.many}", kind="empty-csv")
    stated = PackedIds(f"{path}:{line}" for line in columns.lines)
    listing = Listing(path.stem, path.parent, ids, "all rows", stated=stated)
    if columns.attributes:
        has = np.frombuffer(columns.has, np.uint8).reshape(len(ids), -1)
        listing = replace(listing, labels=has, attributes=columns.attributes)
    elif labels:
        classes = tuple(sorted(columns.code_of))
        if len(classes) < 2:
            raise unlabelled(path, f"all its rows have the label '{classes[0]}'", medium)
        number = np.array([classes.index(name) for name in columns.code_of], np.int64)
        codes = np.frombuffer(columns.codes, np.int64)
        listing = replace(listing, labels=number[codes], classes=classes)
    if not columns.parts:
        return held_out(listing, split, data)
    parts = np.frombuffer(columns.parts, np.int8)
    test = _PARTS["test"] if (parts == _PARTS["test"]).any() else _PARTS["val"]
    if listing.labels is not None and listing.classes is not None:
        by_part = [
            {listing.classes[code] for code in np.unique(listing.labels[parts == part])}
            for part in (_PARTS["train"], test)
        ]
        check_classes(path, *by_part)
    if split == "all":
        return listing
    places = np.flatnonzero(parts == (test if split == "test" else _PARTS["train"]))
    if not len(places):
        raise InputError(f"no row of {path} has the split {split}", kind="empty-split")
    return replace(listing.take(places), split_rule="CSV column split")


def _attributes(path: Path) -> tuple[str, ...]:
    """The columns of a CSV file that has attributes and no label."""
    header = header_of(path)
    if "label" in header:
        return ()
    return tuple(name for name in header if name not in ("path", "split"))
