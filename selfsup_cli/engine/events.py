"""TensorBoard event files, written beside `metrics.jsonl`."""

from __future__ import annotations

import os
import shutil
import socket
import time
from pathlib import Path

from tensorboard.compat.proto import event_pb2, summary_pb2
from tensorboard.summary.writer.record_writer import RecordWriter

from selfsup_cli.runs.atomic import cannot_write

# TensorBoard draws no more of a curve.
POINTS = 1000
_FLUSH_S = 10.0


class Events:
    """Writes scalars into `folder`; going on from `step` hides what a lost attempt wrote later.

    Of the rows of a training of `total` steps it keeps about `POINTS`, evenly spaced. It writes in
    the calling thread: the queue and the thread of PyTorch's own writer take several milliseconds
    of every row from a loop that holds the interpreter. Raises MachineError when the disk is full.
    """

    def __init__(self, folder: Path, step: int, total: int) -> None:
        if step == 0:
            shutil.rmtree(folder, ignore_errors=True)
        name = f"events.out.tfevents.{time.time():.6f}.{socket.gethostname()}.{os.getpid()}"
        self._path = folder / name
        self._every = -(-total // POINTS)
        self._flushed = time.time()
        try:
            folder.mkdir(exist_ok=True)
            self._file = RecordWriter(self._path.open("wb"))
        except OSError as error:
            raise cannot_write(self._path, error) from error
        self._add(event_pb2.Event(file_version="brain.Event:2"))
        if step:
            start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
            self._add(event_pb2.Event(step=step + 1, session_log=start))

    def write(self, step: int, row: dict[str, float], *, always: bool = False) -> None:
        """Add the entries of `row` as scalars; those of a row that comes seldom `always`."""
        if not always and step % self._every:
            return
        values = [summary_pb2.Summary.Value(tag=n, simple_value=v) for n, v in row.items()]
        self._add(event_pb2.Event(step=step, summary=summary_pb2.Summary(value=values)))

    def close(self) -> None:
        """Flush and close the file."""
        self._file.close()

    def _add(self, event: event_pb2.Event) -> None:
        event.wall_time = time.time()
        try:
            self._file.write(event.SerializeToString())
            if event.wall_time - self._flushed > _FLUSH_S:
                self._flushed = event.wall_time
                self._file.flush()
        except OSError as error:
            raise cannot_write(self._path, error) from error
