"""A CSV file that lists videos: `path`, `label`, and optionally `split`."""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from selfsup_cli.config.blocks import VideoData
from selfsup_cli.data.ids import PackedIds
from selfsup_cli.data.listing import Listing, check_classes, held_out_rule, hold_out, unlabelled
from selfsup_cli.data.source import Split
from selfsup_cli.data.tables import table_rows
from selfsup_cli.errors import InputError

_PARTS = {"train": 0, "test": 1, "val": 2, "valid": 2, "validation": 2}


class _Columns:
    """The columns of a manifest, read row by row into compact arrays."""

    def __init__(self, path: Path, labels: bool) -> None:
        self._path = path
        self._labels = labels
        self.codes = array("q")
        self.code_of: dict[str, int] = {}
        self.parts = array("b")
        self.lines = array("q")

    def paths(self) -> Iterator[str]:
        """The paths, relative to the manifest; the other columns fill up on the way."""
        for where, row in table_rows(self._path, ("path",), self._labels):
            if self._labels:
                self.codes.append(self.code_of.setdefault(row["label"], len(self.code_of)))
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


def manifest(path: Path, data: VideoData, split: Split, labels: bool) -> Listing:
    """The videos that the CSV file `path` lists; their paths are relative to its folder.

    Without `labels` the column of that name is not read. With a column `split` (train, test, val)
    that is the division, `val` standing for `test` where no row has `test`.
    """
    if data.split != 1:
        raise InputError(
            f"split {data.split} does not exist: {path} has no numbered splits",
            kind="unknown-split",
        )
    columns = _Columns(path, labels)
    ids = PackedIds(columns.paths())
    if not len(ids):
        raise InputError(f"{path} lists no videos", kind="empty-csv")
    stated = PackedIds(f"{path}:{line}" for line in columns.lines)
    listing = Listing(path.stem, path.parent, ids, "all rows", stated=stated)
    if labels:
        classes = tuple(sorted(columns.code_of))
        if len(classes) < 2:
            raise unlabelled(path, f"all its rows have the label '{classes[0]}'")
        number = np.array([classes.index(name) for name in columns.code_of], np.int64)
        codes = np.frombuffer(columns.codes, np.int64)
        listing = replace(listing, labels=number[codes], classes=classes)
    if not columns.parts:
        listing = listing.take(hold_out(ids, split, data))
        return listing if split == "all" else replace(listing, split_rule=held_out_rule(data))
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
