"""What is known of many encoded images that lie in one file."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from selfsup_cli.data import image, index
from selfsup_cli.data.ids import PackedIds
from selfsup_cli.data.image_store import Known, digests_of
from selfsup_cli.data.source import Progress
from selfsup_cli.errors import BadMediaError, InputError


@dataclass(frozen=True)
class Record:
    """One image in such a file: its name in there, where its bytes begin, and what goes with it."""

    name: str
    offset: int
    data: bytes
    label: str = ""


@dataclass(frozen=True)
class Records:
    """All images of a file, in their order.

    `offsets` and `lengths` (int64 `[N]`) say where their bytes lie, `sizes` (int64 `[N,2]`) their
    upright heights and widths, 0 for those that cannot be read; `reasons` says why. `digests`
    (uint8 `[N,16]`) are those of their bytes, `labels` is what goes with them, or empty texts.
    """

    names: PackedIds
    offsets: np.ndarray
    lengths: np.ndarray
    sizes: np.ndarray
    digests: np.ndarray
    labels: PackedIds
    reasons: PackedIds

    def row(self) -> tuple[Any, ...]:
        """How many there are, and all of it as bytes."""
        columns: dict[str, np.ndarray] = {
            "offsets": self.offsets,
            "lengths": self.lengths,
            "sizes": self.sizes,
            "digests": self.digests,
        }
        for key in ("names", "labels", "reasons"):
            texts: PackedIds = getattr(self, key)
            columns[key] = np.frombuffer(texts.text, np.uint8)
            columns[f"{key}_ends"] = texts.ends
        buffer = io.BytesIO()
        np.savez(buffer, allow_pickle=False, **columns)
        return len(self.names), buffer.getvalue()

    @classmethod
    def from_row(cls, row: tuple[Any, ...]) -> Records:
        """Undo `row`; raises ValueError if it cannot be that."""
        with np.load(io.BytesIO(row[1]), allow_pickle=False) as columns:

            def texts(key: str) -> PackedIds:
                return PackedIds.of(columns[key].tobytes(), columns[f"{key}_ends"])

            return cls(
                names=texts("names"),
                offsets=columns["offsets"],
                lengths=columns["lengths"],
                sizes=columns["sizes"],
                digests=columns["digests"],
                labels=texts("labels"),
                reasons=texts("reasons"),
            )


def noted(records: Iterable[Record]) -> Records:
    """Look at the header of each image, and take the digest of its bytes."""
    names, labels, reasons = [], [], []
    numbers: list[tuple[int, int, int, int]] = []
    digests = bytearray()
    for record in records:
        try:
            height, width = image.measure(record.data).upright
            reason = ""
        except BadMediaError as error:
            height = width = 0
            reason = error.reason
        names.append(record.name)
        labels.append(record.label)
        reasons.append(reason)
        numbers.append((record.offset, len(record.data), height, width))
        digests += hashlib.blake2b(record.data, digest_size=16).digest()
    table = np.array(numbers, np.int64).reshape(-1, 4)
    return Records(
        PackedIds(names),
        table[:, 0],
        table[:, 1],
        table[:, 2:],
        np.frombuffer(bytes(digests), np.uint8).reshape(-1, 16),
        PackedIds(labels),
        PackedIds(reasons),
    )


@dataclass(frozen=True)
class Indexed:
    """A file of records as it was indexed: its size in bytes and when it was changed last."""

    path: Path
    records: Records
    size: int
    mtime_ns: int


def indexed(
    root: Path,
    names: PackedIds,
    probe: Callable[[Path], Records],
    what: str,
    *,
    workers: int,
    progress: Progress | None,
) -> list[Indexed]:
    """What `probe` finds in the files `root/name`, found once and kept.

    `what` is such a file called. Raises `InputError` for one that is missing or damaged: how many
    images it held cannot be known then.
    """
    kind = index.Kind(
        title=f"{what} index",
        suffix=f"-{what}",
        version=1,
        columns=("images INTEGER", "records BLOB"),
        numbers=1,
        probe=probe,
        load=Records.from_row,
    )
    found = index.build(root, names, workers=workers, progress=progress, kind=kind)
    for place in found.missing:
        raise InputError(f"there is no {what} {root / names[place]}", kind="missing-data")
    for place, reason in sorted(found.errors.items()):
        raise InputError(
            f"the {what} {root / names[place]} cannot be used: {reason}; how many images it held "
            "cannot be known, so copy it again, or leave it out",
            kind="records",
        )
    reader = index.IndexReader(root, kind)
    entries = []
    for name in names:
        entry = reader.look_up(name)
        if entry is None:
            raise InputError(f"the {what} {root / name} changes while it is read", kind="records")
        entries.append(Indexed(root / name, *entry))
    return entries


def known_of(ids: PackedIds, tables: Iterable[Records]) -> Known:
    """What is known of the images of all `tables`, one after the other; `ids` are their names."""
    tables = list(tables)
    sizes = np.concatenate([table.sizes for table in tables])
    reasons = (reason for table in tables for reason in table.reasons)
    return Known(
        np.arange(len(ids)),
        sizes,
        digests_of(ids, sizes, np.concatenate([table.digests for table in tables])),
        {place: reason for place, reason in enumerate(reasons) if reason},
    )
