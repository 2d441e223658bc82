"""The index: what was found of each file, kept so that no file is looked through twice.

One SQLite file per root folder and kind of file, under `$SELFSUP_CACHE/index/`. A row stands for a
file at an absolute path with a size and a time of change; if either differs, the file is looked at
again. Rows carry a checksum, and a file that is not a sound index is built anew. It is a cache:
deleting it costs time and nothing else.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import sqlite3
import time
from array import array
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from selfsup_cli.data.frame_table import VideoInfo
from selfsup_cli.data.ids import PackedIds
from selfsup_cli.data.prober import Finding, Info, Task, findings, probe_video
from selfsup_cli.errors import MachineError

_LOG = logging.getLogger("selfsup")
_COMMIT_SECONDS = 2.0
_MACHINE = {
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_NOMEM,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_CANTOPEN,
}

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Kind:
    """Which files an index is of: how one is looked at, and what is kept of it.

    `probe` gives of a path something with a `row` of values for `columns` (SQL), and `load` undoes
    that. The first `numbers` of the values are whole numbers, the first of them greater than 0,
    that belong to what tells files apart. `suffix` is the kind's in the names of its indexes.
    """

    title: str
    suffix: str
    version: int
    columns: tuple[str, ...]
    numbers: int
    probe: Callable[[Path], Info]
    load: Callable[[tuple[Any, ...]], Any]

    @property
    def schema(self) -> str:
        return (
            "CREATE TABLE IF NOT EXISTS files (path BLOB PRIMARY KEY, size INTEGER NOT NULL, "
            "mtime_ns INTEGER NOT NULL, sample BLOB NOT NULL, error TEXT, "
            f"{', '.join(self.columns)}, checksum BLOB NOT NULL) WITHOUT ROWID"
        )


FRAMES = Kind(
    title="frame index",
    suffix="",
    version=1,
    columns=(
        *("frames INTEGER", "width INTEGER", "height INTEGER", "fps REAL", "codec TEXT"),
        *("orientation INTEGER", "frame_table BLOB"),
    ),
    numbers=1,
    probe=probe_video,
    load=VideoInfo.from_row,
)
_VALUES = 5  # columns before those of the kind


@dataclass(frozen=True)
class Indexed:
    """What is known of `N` files, in the order in which they were asked for.

    `numbers` (int64 `[N,K]`) are 0 for files that cannot be read, which `errors` names by their
    place. `missing` are the places of files that do not exist. `digests` (uint8 `[N,16]`) stand
    for name, size, those numbers and a sample of the content.
    """

    numbers: np.ndarray
    digests: np.ndarray
    errors: dict[int, str]
    missing: list[int]

    @property
    def num_frames(self) -> np.ndarray:
        """Of videos, how many frames each has (int64 `[N]`)."""
        return self.numbers[:, 0]


def cache_root() -> Path:
    """`$SELFSUP_CACHE`, or `selfsup` in the user's cache folder."""
    if root := os.environ.get("SELFSUP_CACHE"):
        return Path(root)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "selfsup"


def index_path(root: Path, kind: Kind = FRAMES) -> Path:
    """The index of the files of a kind under `root`."""
    name = "".join(c if c.isalnum() or c in "-_" else "_" for c in root.name)[:40]
    digest = hashlib.sha256(os.fsencode(root)).hexdigest()[:16]
    return cache_root() / "index" / f"{name}-{digest}{kind.suffix}.sqlite"


def build(
    root: Path,
    ids: PackedIds,
    *,
    workers: int,
    progress: Progress | None,
    kind: Kind = FRAMES,
) -> Indexed:
    """Look up the files `root/id`, and look through those that the index does not know.

    `root` is absolute. `workers` processes look through files (0: this one does). What has been
    found is kept even if the process is killed. Raises `MachineError` if the index cannot be
    written; an index that is damaged is built anew.
    """
    path = index_path(root, kind)
    for attempt in range(2):
        try:
            with _writing(path, kind) as connection:
                return _build(connection, root, ids, workers, progress, kind)
        # A damaged name of a column is no text, and the complaint about it is not SQLite's.
        except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
            _raise_if_machine(path, error, kind)
            if attempt:
                raise
            _LOG.warning("the %s %s is damaged (%s); building it anew", kind.title, path, error)
            for old in (path, path.with_name(path.name + "-journal")):
                old.unlink(missing_ok=True)
    raise AssertionError


def _build(
    connection: sqlite3.Connection,
    root: Path,
    ids: PackedIds,
    workers: int,
    progress: Progress | None,
    kind: Kind,
) -> Indexed:
    total = len(ids)
    found = Indexed(
        np.zeros((total, kind.numbers), np.int64),
        np.zeros((total, 16), np.uint8),
        errors={},
        missing=[],
    )
    unknown = array("q")
    for place, name in enumerate(ids):
        file = f"{root}/{name}"
        try:
            stat = os.stat(file)  # noqa: PTH116 (half a million Path objects take their time)
        except (FileNotFoundError, NotADirectoryError):
            found.missing.append(place)
            continue
        except OSError as error:
            found.errors[place] = error.strerror or str(error)
            continue
        row = _row(connection, file)
        if row is None or (row[1], row[2]) != (stat.st_size, stat.st_mtime_ns):
            unknown.append(place)
        else:
            _take(found, place, name, row)

    done = total - len(unknown)
    if progress is not None:
        progress(done, total)
    tasks = (Task(place, os.fsencode(f"{root}/{ids[place]}")) for place in unknown)
    committed = time.monotonic()
    try:
        for finding in findings(tasks, len(unknown), workers, kind.probe):
            if finding.lasting:
                row = _sealed(finding, kind)
                marks = ",".join("?" * len(row))
                connection.execute(f"INSERT OR REPLACE INTO files VALUES ({marks})", row)  # noqa: S608
                _take(found, finding.place, ids[finding.place], row)
            else:
                found.errors[finding.place] = finding.error or "it cannot be read"
            done += 1
            if time.monotonic() - committed > _COMMIT_SECONDS:
                connection.commit()
                committed = time.monotonic()
            if progress is not None:
                progress(done, total)
    finally:
        connection.commit()
    return found


def _take(found: Indexed, place: int, name: str, row: tuple[Any, ...]) -> None:
    _, size, _, sample, error, *values = row
    if error is not None:
        found.errors[place] = error
        return
    numbers = values[: found.numbers.shape[1]]
    found.numbers[place] = numbers
    told = f"{name}\0{size}\0{'x'.join(map(str, numbers))}\0"
    digest = hashlib.blake2b(told.encode() + sample, digest_size=16)
    found.digests[place] = np.frombuffer(digest.digest(), np.uint8)


def _sealed(finding: Finding, kind: Kind) -> tuple[Any, ...]:
    values = (None,) * len(kind.columns) if finding.info is None else finding.info.row()
    row = (finding.path, finding.size, finding.mtime_ns, finding.sample, finding.error, *values)
    return (*row, _checksum(row))


def _checksum(row: tuple[Any, ...]) -> bytes:
    return hashlib.blake2b(repr(row).encode(), digest_size=8).digest()


def _row(connection: sqlite3.Connection, file: str) -> tuple[Any, ...] | None:
    """The row of a file, if there is one and it is sound."""
    key = (os.fsencode(file),)
    row = connection.execute("SELECT * FROM files WHERE path = ?", key).fetchone()
    if row is None:
        return None
    if _checksum(row[:-1]) != row[-1]:
        _LOG.warning("the index has a damaged entry for %s; looking at it again", file)
        return None
    return tuple(row)


@contextmanager
def _writing(path: Path, kind: Kind) -> Iterator[sqlite3.Connection]:
    """The index for one writer at a time; others wait."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = os.open(path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise _unwritable(path, error.strerror or str(error), kind) from error
    try:
        try:
            fcntl.lockf(lock, fcntl.LOCK_EX)
        except OSError as error:
            raise _unwritable(path, error.strerror or str(error), kind) from error
        with closing(sqlite3.connect(path, timeout=60)) as connection:
            connection.execute("PRAGMA journal_mode = TRUNCATE")
            connection.execute("PRAGMA synchronous = NORMAL")
            # Found out now, damage costs a second; found out later, what was done meanwhile.
            if (state := connection.execute("PRAGMA quick_check(1)").fetchone()[0]) != "ok":
                raise sqlite3.DatabaseError(state.replace("\n", " "))
            if connection.execute("PRAGMA user_version").fetchone()[0] != kind.version:
                connection.execute("DROP TABLE IF EXISTS files")
                connection.execute(f"PRAGMA user_version = {kind.version}")
            connection.execute(kind.schema)
            yield connection
    finally:
        os.close(lock)


def _raise_if_machine(path: Path, error: Exception, kind: Kind) -> None:
    code = getattr(error, "sqlite_errorcode", None)
    if code is not None and code & 0xFF in _MACHINE:
        raise _unwritable(path, str(error), kind) from error


def _unwritable(path: Path, why: str, kind: Kind) -> MachineError:
    return MachineError(
        f"cannot write the {kind.title} {path}: {why}",
        kind="cache",
        hint="set SELFSUP_CACHE to a folder on a local disk with free space",
    )


class IndexReader:
    """Reads single entries of an index in whatever process it finds itself in.

    Holds no open file until asked, so it travels to loader processes; a connection that came
    through a fork is left alone.
    """

    def __init__(self, root: Path, kind: Kind = FRAMES) -> None:
        self._root = root
        self._path = index_path(root, kind)
        self._load = kind.load
        self._connection: sqlite3.Connection | None = None
        self._inherited: sqlite3.Connection | None = None
        self._pid = -1

    def __getstate__(self) -> tuple[Any, ...]:
        return self._root, self._path, self._load

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self._root, self._path, self._load = state
        self._connection = self._inherited = None
        self._pid = -1

    def look_up(self, name: str) -> tuple[Any, int, int] | None:
        """The entry of `root/name` with the size and time (ns) it stands for, if it is there."""
        with suppress(sqlite3.DatabaseError, ValueError):
            if self._pid != os.getpid():
                self._inherited = self._connection  # closing it here would be another's business
                uri = f"{self._path.absolute().as_uri()}?mode=ro"
                self._connection = sqlite3.connect(
                    uri, uri=True, timeout=60, check_same_thread=False
                )
                self._pid = os.getpid()
            assert self._connection is not None  # noqa: S101 (set above)
            row = _row(self._connection, f"{self._root}/{name}")
            if row is not None and row[4] is None:
                return self._load(row[_VALUES:-1]), row[1], row[2]
        return None
