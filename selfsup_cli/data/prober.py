"""Looks through many video files at once, in processes that may die of one of them."""

from __future__ import annotations

import hashlib
import itertools
import logging
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

from selfsup_cli.data.frame_table import VideoInfo
from selfsup_cli.errors import BadMediaError, MachineError

_LOG = logging.getLogger("selfsup")
_BATCH = 8
_SAMPLE_BYTES = 16384

CRASHED = "the decoder crashes on it"


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
    info: VideoInfo | None = None
    error: str | None = None
    lasting: bool = True


def findings(tasks: Iterator[Task], count: int, workers: int) -> Iterator[Finding]:
    """Look at all files of `tasks` (`count` of them) in `workers` processes, in any order.

    With no workers this process does it. No more than a few batches are held at a time.
    """
    workers = min(workers, -(-count // _BATCH))
    pool = _started(workers)
    if pool is None:
        yield from map(look_at, tasks)
    else:
        yield from _in_processes(pool, workers, tasks)


def look_at(task: Task) -> Finding:
    """Look at one file."""
    from selfsup_cli.data import video

    path = Path(os.fsdecode(task.path))
    size = mtime_ns = -1
    sample = b""
    try:
        stat = path.stat()
        size, mtime_ns = stat.st_size, stat.st_mtime_ns
        sample = _sample(path, size)
        info = video.probe(path)
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


def _look_at_all(tasks: list[Task]) -> list[Finding]:
    return [look_at(task) for task in tasks]


def _in_processes(
    pool: ProcessPoolExecutor, workers: int, tasks: Iterator[Task]
) -> Iterator[Finding]:
    batches = iter(lambda: list(itertools.islice(tasks, _BATCH)), [])
    running: dict[Future[list[Finding]], list[Task]] = {}
    try:
        while True:
            suspects: list[Task] = []
            while len(running) < 3 * workers and (batch := next(batches, None)):
                try:
                    running[pool.submit(_look_at_all, batch)] = batch
                except BrokenProcessPool:
                    suspects += batch
                    break
            if not running and not suspects:
                return
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                batch = running.pop(future)
                try:
                    yield from future.result()
                except BrokenProcessPool:
                    suspects += batch
            if suspects:
                suspects += itertools.chain.from_iterable(running.values())
                running.clear()
                pool.shutdown(wait=False)
                yield from _one_by_one(suspects)
                pool = _pool(workers)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _one_by_one(tasks: list[Task]) -> Iterator[Finding]:
    """Look at files of which one has killed its process, so that it alone is to blame."""
    pool = _pool(1)
    try:
        for task in tasks:
            try:
                yield pool.submit(look_at, task).result()
            except BrokenProcessPool:
                pool.shutdown(wait=False)
                pool = _pool(1)
                _LOG.warning("%s: %s", os.fsdecode(task.path), CRASHED)
                yield _crashed(task)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _crashed(task: Task) -> Finding:
    path = Path(os.fsdecode(task.path))
    try:
        stat = path.stat()
        sample = _sample(path, stat.st_size)
    except OSError:
        return Finding(task.place, task.path, -1, -1, b"", error=CRASHED, lasting=False)
    return Finding(task.place, task.path, stat.st_size, stat.st_mtime_ns, sample, error=CRASHED)


def _pool(workers: int) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(
        workers,
        # Forking a process that runs threads or holds a GPU is not safe.
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_begin,
        initargs=(os.getpid(),),
    )


def _begin(parent: int) -> None:
    """Leave interrupts to the parent, and do not outlive it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _started(workers: int) -> ProcessPoolExecutor | None:
    """A pool that works, or None where none can (a script without a main guard, no memory)."""
    if workers < 1:
        return None
    try:
        pool = _pool(workers)
        pool.submit(os.getpid).result()
    except (BrokenProcessPool, OSError) as error:
        _LOG.warning("cannot start processes (%s); indexing goes on without", error)
        return None
    return pool
