"""Work on many files at once, in processes that may die of one of them."""

from __future__ import annotations

import itertools
import logging
import multiprocessing
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

_LOG = logging.getLogger("selfsup")
_AHEAD = 3

CRASHED = "the decoder crashes on it"

Task = TypeVar("Task")
Result = TypeVar("Result")


def each(
    work: Callable[[Task], Result],
    died: Callable[[Task], Result],
    tasks: Iterator[Task],
    count: int,
    workers: int,
    *,
    batch: int = 8,
) -> Iterator[Result]:
    """`work(task)` of all `tasks` (`count` of them), in their order, in `workers` processes.

    With no workers this process does it. A task that kills its process gives `died(task)`
    instead. `work` goes to each process once; tasks go in batches, no more than a few ahead of the
    result that is due.
    """
    workers = min(workers, -(-count // batch))
    pool = _started(work, workers)
    if pool is None:
        yield from map(work, tasks)
    else:
        batches = iter(lambda: list(itertools.islice(tasks, batch)), [])
        yield from _in_processes(pool, work, died, batches, workers)


def _in_processes(
    pool: ProcessPoolExecutor,
    work: Callable[[Task], Result],
    died: Callable[[Task], Result],
    batches: Iterator[list[Task]],
    workers: int,
) -> Iterator[Result]:
    running: deque[tuple[list[Task], Future[list[Result]]]] = deque()
    try:
        while True:
            while len(running) < _AHEAD * workers and (some := next(batches, None)):
                running.append((some, _submitted(pool, some)))
            if not running:
                return
            some, future = running.popleft()
            if not isinstance(future.exception(), BrokenProcessPool):
                yield from future.result()
                continue
            # Whichever of the tasks that were running is to blame, all of them are lost.
            pool.shutdown(wait=False)
            running.appendleft((some, future))
            while running:
                some, future = running.popleft()
                if isinstance(future.exception(), BrokenProcessPool):
                    yield from _one_by_one(work, died, some)
                else:
                    yield from future.result()
            pool = _pool(work, workers)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _submitted(pool: ProcessPoolExecutor, tasks: list[Task]) -> Future[list[Any]]:
    try:
        return pool.submit(_work_on, tasks)
    except BrokenProcessPool as error:
        future: Future[list[Any]] = Future()
        future.set_exception(error)
        return future


def _one_by_one(
    work: Callable[[Task], Result], died: Callable[[Task], Result], tasks: list[Task]
) -> Iterator[Result]:
    """Work on tasks of which one has killed its process, so that it alone is to blame."""
    pool = _pool(work, 1)
    try:
        for task in tasks:
            try:
                results = pool.submit(_work_on, [task]).result()
            except BrokenProcessPool:
                pool.shutdown(wait=False)
                pool = _pool(work, 1)
                results = [died(task)]
            yield from results
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _pool(work: Callable[[Any], Any], workers: int) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(
        workers,
        # Forking a process that runs threads or holds a GPU is not safe.
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_begin,
        initargs=(os.getpid(), work),
    )


_work: Callable[[Any], Any]


def _begin(parent: int, work: Callable[[Any], Any]) -> None:
    """Leave interrupts to the parent, and do not outlive it."""
    global _work  # noqa: PLW0603 (what this process is for)
    _work = work
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _work_on(tasks: list[Any]) -> list[Any]:
    return [_work(task) for task in tasks]


def _started(work: Callable[[Any], Any], workers: int) -> ProcessPoolExecutor | None:
    """A pool that works, or None where none can (a script without a main guard, no memory)."""
    if workers < 1:
        return None
    try:
        pool = _pool(work, workers)
        pool.submit(os.getpid).result()
    except (BrokenProcessPool, OSError) as error:
        _LOG.warning("cannot start processes (%s); the work goes on without", error)
        return None
    return pool
