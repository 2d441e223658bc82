"""Extracted features on disk: immutable HDF5 shards, published by an index that is written last.

A cache lies in `$SELFSUP_CACHE/features/<key>/`, where the key is the SHA-256 of everything that
decides its content: weights, layers, pooling, dataset, clips, preprocessing, schema. Shards are
built in memory and written whole, so a killed extraction leaves no torn shard and goes on at the
next one. What does not match its checksum or its layout is not used but made again.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from selfsup_cli.data import hdf5
from selfsup_cli.errors import InputError, MachineError
from selfsup_cli.runs import atomic
from selfsup_cli.runs.seal import opened, parsed, sealed

log = logging.getLogger("selfsup")

SCHEMA = "selfsup.features/1"
SHARD_BYTES = 64 << 20
_CHUNK_BYTES = 1 << 20
# Rows are stored beside the layers under this name: the position of their video in the source.
VIDEO = "video"


def cache_root() -> Path:
    """`$SELFSUP_CACHE`, or `selfsup` in the user's cache folder."""
    if root := os.environ.get("SELFSUP_CACHE"):
        return Path(root)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "selfsup"


def key_of(about: Mapping[str, Any]) -> str:
    """SHA-256 (hex) of a description of plain values, whatever the order of its keys."""
    text = json.dumps(
        {"schema": SCHEMA, **about}, sort_keys=True, separators=(",", ":"), allow_nan=False
    )
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class Span:
    """The part of the videos that one shard holds: videos [first, last), rows [start, stop)."""

    first: int
    last: int
    start: int
    stop: int


def plan_shards(rows: np.ndarray, row_bytes: int, shard_bytes: int = SHARD_BYTES) -> list[Span]:
    """Cut videos with `rows` int64 [N] rows each into shards of about `shard_bytes`.

    A video is never cut; a shard holds at least one.
    """
    ends = np.concatenate([[0], np.cumsum(rows)])
    per_shard = max(1, shard_bytes // max(row_bytes, 1))
    spans = []
    first = 0
    while first < len(rows):
        last = int(np.searchsorted(ends, ends[first] + per_shard, side="right")) - 1
        last = min(max(last, first + 1), len(rows))
        spans.append(Span(first, last, int(ends[first]), int(ends[last])))
        first = last
    return spans


def build_shard(arrays: Mapping[str, np.ndarray]) -> bytes:
    """The bytes of an HDF5 file with `arrays` (2-D float32 or 1-D int64), checksummed in chunks.

    Built in memory: HDF5 must not be near a full disk, where it takes the interpreter down.
    """
    with h5py.File("shard.h5", "w", driver="core", backing_store=False) as file:
        for name, array in arrays.items():
            row_bytes = max(array.itemsize * int(np.prod(array.shape[1:])), 1)
            rows = max(1, min(len(array), _CHUNK_BYTES // row_bytes))
            file.create_dataset(
                name,
                data=array,
                chunks=(rows, *array.shape[1:]),
                fletcher32=True,
                track_times=False,
            )
        file.flush()
        image: bytes = file.id.get_file_image()
    return image


@dataclass
class FeatureCache:
    """The cache of one extraction.

    `about` says what decides the content; `dims` gives each layer's number of features; `rows`
    int64 [N] the rows of each video. Row r of shard s is row `spans[s].start + r` overall.
    """

    folder: Path
    about: dict[str, Any]
    dims: dict[str, int]
    rows: np.ndarray
    shard_bytes: int = SHARD_BYTES
    spans: list[Span] = field(init=False)
    _index: dict[int, dict[str, Any]] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        row_bytes = 4 * sum(self.dims.values()) + 8
        self.spans = plan_shards(self.rows, row_bytes, self.shard_bytes)

    @property
    def key(self) -> str:
        """The name of the cache: what decides its content, hashed."""
        return key_of(self.about)

    def path(self, shard: int) -> Path:
        """Where a shard lies."""
        return self.folder / f"shard-{shard:05d}.h5"

    @contextmanager
    def locked(self, waiting: Callable[[], None] | None = None) -> Iterator[None]:
        """Hold the cache against other jobs; `waiting` is called every second until it is free.

        Raises MachineError where the folder cannot be made or written.
        """
        name = self.folder / "lock"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            fd = os.open(name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise atomic.cannot_write(name, error) from error
        try:
            said = False
            while not _try_lock(fd):
                if not said:
                    log.info("another job extracts the same features; waiting for it")
                    said = True
                if waiting is not None:
                    waiting()
                time.sleep(1)
            yield
        finally:
            os.close(fd)

    def missing(self, mine: Sequence[int] | None = None) -> list[int]:
        """Verify what is there, and say which shards have to be made. Call with the lock held.

        `mine` are the shards that this process looks after (default: all).
        """
        atomic.sweep(self.folder)
        mine = range(len(self.spans)) if mine is None else mine
        listed = self._read_index()
        self._index = {shard: listed[shard] for shard in mine if shard in listed}
        missing = []
        for shard in mine:
            problem = self._problem(shard)
            if problem is None:
                continue
            missing.append(shard)
            if self._index.pop(shard, None) is not None:
                log.warning("feature cache %s: %s; made again", self.path(shard), problem)
        return missing

    def write(self, shard: int, video: np.ndarray, layers: Mapping[str, np.ndarray]) -> None:
        """Store a shard and publish it. `video` int64 [n], each layer float32 [n, D]."""
        image = build_shard({VIDEO: video, **layers})
        digest = atomic.write_bytes(self.path(shard), image)
        span = self.spans[shard]
        self._index[shard] = {
            "file": self.path(shard).name,
            "videos": [span.first, span.last],
            "rows": span.stop - span.start,
            "bytes": len(image),
            "sha256": digest,
        }
        with self._publishing():
            self._publish()

    def _publish(self) -> None:
        """Add this process' shards to what others have published."""
        entries = {**self._read_index(quiet=True), **self._index}
        index = {
            "schema": SCHEMA,
            "key": self.key,
            "about": self.about,
            "layers": self.dims,
            "videos": len(self.rows),
            "shards_in_all": len(self.spans),
            "shards": {str(number): entries[number] for number in sorted(entries)},
        }
        atomic.write_json(self.folder / "index.json", sealed(index))

    def read(self, shard: int, name: str, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Rows [start, stop) of a layer (float32 [n, D]) or of `VIDEO` (int64 [n]) in a shard.

        Raises InputError if the shard was damaged after the cache was opened.
        """
        path = self.path(shard)
        try:
            with self._open(shard) as file:
                return np.asarray(file[name][start:stop])
        except Exception as error:  # h5py raises many types on damaged files
            raise InputError(
                f"the feature cache {path} cannot be read ({error}); run the same command again "
                "and it is made anew",
                kind="cache",
            ) from error

    def require_room(self, shards: list[int]) -> None:
        """Raise MachineError unless the disk can take these shards."""
        row_bytes = 4 * sum(self.dims.values()) + 8
        needed = sum(self.spans[s].stop - self.spans[s].start for s in shards) * row_bytes
        free = shutil.disk_usage(self.folder).free
        if needed * 1.02 > free:
            raise MachineError(
                f"the features take {needed / 2**20:,.0f} MB, but {self.folder} has "
                f"{free / 2**20:,.0f} MB free",
                kind="disk",
                hint="set SELFSUP_CACHE to a larger disk, name fewer layers (--layer), or take "
                "fewer clips (--train-clips, --test-clips)",
            )

    def _expected(self, shard: int) -> dict[str, hdf5.Form]:
        rows = self.spans[shard].stop - self.spans[shard].start
        layers = {name: (np.dtype("<f4"), (rows, dim)) for name, dim in self.dims.items()}
        return {VIDEO: (np.dtype("<i8"), (rows,)), **layers}

    @contextmanager
    def _open(self, shard: int) -> Iterator[h5py.File]:
        path = self.path(shard)
        with hdf5.reading(path) as file:
            hdf5.check_structure(file, self._expected(shard), path.stat().st_size)
            yield file

    def _problem(self, shard: int) -> str | None:
        entry = self._index.get(shard)
        if entry is None:
            return "is missing"
        path = self.path(shard)
        try:
            if path.stat().st_size != entry["bytes"]:
                return f"has {path.stat().st_size} bytes instead of {entry['bytes']}"
            if atomic.file_sha256(path) != entry["sha256"]:
                return "does not match its checksum"
            with self._open(shard):
                pass
        except FileNotFoundError:
            return "is gone"
        except Exception as error:  # see `read`
            return f"cannot be read ({error})"
        return None

    @contextmanager
    def _publishing(self) -> Iterator[None]:
        """One process of a job after the other changes the index."""
        name = self.folder / "index.lock"
        try:
            fd = os.open(name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise atomic.cannot_write(name, error) from error
        try:
            with suppress(OSError):  # see _try_lock
                fcntl.lockf(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)

    def _read_index(self, *, quiet: bool = False) -> dict[int, dict[str, Any]]:
        path = self.folder / "index.json"
        try:
            index = opened(parsed(path.read_bytes()))
            same = (index["schema"], index["key"], index["about"], index["layers"]) == (
                SCHEMA,
                self.key,
                json.loads(json.dumps(self.about)),
                self.dims,
            )
            if same and index["shards_in_all"] == len(self.spans):
                return {int(number): dict(entry) for number, entry in index["shards"].items()}
            problem = "the index does not match"
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            problem = f"no readable index ({error})"
        if not quiet:
            log.warning("feature cache %s: %s; made again", self.folder, problem)
        return {}


def _try_lock(fd: int) -> bool:
    try:
        fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        # Where the file system has no locks, shards are still whole: two jobs only do double work.
        return error.errno not in (errno.EAGAIN, errno.EACCES)
    return True
