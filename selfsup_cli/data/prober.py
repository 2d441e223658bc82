"""Looks through many files at once."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from selfsup_cli.data import processes
from selfsup_cli.data.processes import CRASHED
from selfsup_cli.errors import BadMediaError, MachineError

_LOG = logging.getLogger("selfsup")
_SAMPLE_BYTES = 16384


class Info(Protocol):
    """What is kept of one file."""

    def row(self) -> tuple[Any, ...]: ...


@dataclass(frozen=True)
class Task:
    """One file to look at; `path` as the system spells it."""

    place: int
    path: bytes


@dataclass(frozen=True)
class Finding:
    """What was found of a file: `info`, or the `error` that keeps it from being read.

    `sample` is a digest of parts of its content. `lasting` is false for errors of the moment (the
    network, permissions), which must not be remembered.
    """

    place: int
    path: bytes
    size: int
    mtime_ns: int
    sample: bytes
    info: Info | None = None
    error: str | None = None
    lasting: bool = True


def probe_video(path: Path) -> Info:
    """Index one video file (see `video.probe`)."""
    from selfsup_cli.data import video

    return video.probe(path)


def findings(
    tasks: Iterator[Task],
    count: int,
    workers: int,
    probe: Callable[[Path], Info] = probe_video,
) -> Iterator[Finding]:
    """Look at all files of `tasks` (`count` of them) in `workers` processes (0: in this one).

    `probe` gives what is to be kept of a path, or raises `BadMediaError`.
    """
    yield from processes.each(partial(look_at, probe), _crashed, tasks, count, workers)


def look_at(probe: Callable[[Path], Info], task: Task) -> Finding:
    """Look at one file."""
    path = Path(os.fsdecode(task.path))
    size = mtime_ns = -1
    sample = b""
    try:
        stat = path.stat()
        size, mtime_ns = stat.st_size, stat.st_mtime_ns
        sample = _sample(path, size)
        info = probe(path)
    except BadMediaError as error:
        lasting = not isinstance(error.__cause__, OSError)
        return Finding(
            task.place, task.path, size, mtime_ns, sample, error=error.reason, lasting=lasting
        )
    except OSError as error:
        reason = error.strerror or str(error)
        return Finding(task.place, task.path, size, mtime_ns, sample, error=reason, lasting=False)
    except MemoryError as error:
        raise MachineError(f"not enough memory to look through {path}") from error
    return Finding(task.place, task.path, size, mtime_ns, sample, info)


def _sample(path: Path, size: int) -> bytes:
    """A digest of the beginning, the middle and the end of a file."""
    digest = hashlib.blake2b(digest_size=16)
    with path.open("rb", buffering=0) as file:
        for start in sorted({0, max(0, size // 2), max(0, size - _SAMPLE_BYTES)}):
            file.seek(start)
            digest.update(file.read(_SAMPLE_BYTES))
    return digest.digest()


def _crashed(task: Task) -> Finding:
    path = Path(os.fsdecode(task.path))
    _LOG.warning("%s: %s", path, CRASHED)
    try:
        stat = path.stat()
        sample = _sample(path, stat.st_size)
    except OSError:
        return Finding(task.place, task.path, -1, -1, b"", error=CRASHED, lasting=False)
    return Finding(task.place, task.path, stat.st_size, stat.st_mtime_ns, sample, error=CRASHED)
