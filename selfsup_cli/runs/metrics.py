"""JSON lines that survive a kill: one write per row, a torn last row is dropped."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypedDict

from selfsup_cli.runs.atomic import cannot_write, write_bytes
from selfsup_cli.runs.seal import parsed

Row = dict[str, Any]


class Mark(TypedDict):
    """How long a file was at some moment, and the SHA-256 (hex) of what it held."""

    bytes: int
    sha256: str


_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode


class JsonLines:
    """An append-only file of JSON objects, one per line.

    A row reaches the kernel in one write before `append` returns, so a killed process loses no row
    that it has written; `sync` makes rows survive a power cut as well. The file appears with the
    first row. Raises MachineError when a row cannot be written; nothing of that row then stays.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd = -1
        self._hash = hashlib.sha256()

    def append(self, row: Row) -> None:
        """Add `row`. What JSON lacks (NaN, infinity) becomes null and is named in `nonfinite`."""
        data = (_encode(plain_row(row)) + "\n").encode()
        try:
            if self._fd < 0:
                self._open()
            size = os.fstat(self._fd).st_size
            try:
                done = 0
                while done < len(data):
                    done += os.write(self._fd, data[done:])
            except BaseException:
                os.ftruncate(self._fd, size)
                raise
            self._hash.update(data)
        except OSError as error:
            raise cannot_write(self.path, error) from error

    def sync(self) -> None:
        """Flush the rows to the disk."""
        if self._fd >= 0:
            try:
                os.fsync(self._fd)
            except OSError as error:
                raise cannot_write(self.path, error) from error

    def mark(self) -> Mark:
        """Length and checksum of the rows so far."""
        try:
            if self._fd < 0:
                self._open()
            return {"bytes": os.fstat(self._fd).st_size, "sha256": self._hash.hexdigest()}
        except OSError as error:
            raise cannot_write(self.path, error) from error

    def begins_with(self, mark: Mark) -> bool:
        """Whether the file still holds what it did at the moment of `mark`."""
        try:
            with self.path.open("rb") as file:
                found = hashlib.sha256(file.read(mark["bytes"]))
                return file.tell() == mark["bytes"] and found.hexdigest() == mark["sha256"]
        except FileNotFoundError:
            return mark["bytes"] == 0

    def damaged(self) -> int:
        """How many lines are no rows, but for one at the end that a killed writer left torn."""
        if not self.path.is_file():
            return 0
        with self.path.open("rb") as lines:
            return sum(_parse(line) is None for line in lines if line.endswith(b"\n"))

    def keep(self, wanted: Callable[[Row], bool]) -> int:
        """Drop every row for which `wanted(row)` is false; gives the number of dropped rows."""
        self.close()
        if not self.path.is_file():
            return 0
        with self.path.open("rb") as lines:
            dropped = sum(not _is_kept(line, wanted) for line in lines)
            if dropped:
                lines.seek(0)
                write_bytes(self.path, (line for line in lines if _is_kept(line, wanted)))
        return dropped

    def close(self) -> None:
        """Close the file; the next `append` opens it again."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _open(self) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        self._fd = os.open(self.path, flags, 0o666)
        size = os.fstat(self._fd).st_size
        end = size
        while end > 0:
            start = max(0, end - 65536)
            found = os.pread(self._fd, end - start, start).rfind(b"\n")
            if found >= 0:
                end = start + found + 1
                break
            end = start
        if end < size:
            os.ftruncate(self._fd, end)
        self._hash = hashlib.sha256()
        for start in range(0, end, 1 << 20):
            self._hash.update(os.pread(self._fd, min(1 << 20, end - start), start))


def read_rows(path: Path) -> Iterator[Row]:
    """The whole rows of a JSON lines file; torn and damaged lines are passed over."""
    if not path.is_file():
        return
    with path.open("rb") as file:
        for line in file:
            row = _parse(line)
            if row is not None:
                yield row


def plain_row(row: Row) -> Row:
    """`row` with every number that is not finite replaced by None and named in `nonfinite`."""
    odd = {
        key: str(value)
        for key, value in row.items()
        if isinstance(value, float) and not math.isfinite(value)
    }
    if not odd:
        return row
    return {**{key: None if key in odd else value for key, value in row.items()}, "nonfinite": odd}


def _is_kept(line: bytes, wanted: Callable[[Row], bool]) -> bool:
    row = _parse(line)
    return row is not None and wanted(row)


def _parse(line: bytes) -> Row | None:
    if not line.endswith(b"\n"):
        return None
    try:
        row = parsed(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) else None
