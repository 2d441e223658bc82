"""A pack on its way: frames that only grow, and a journal of the videos that they make up.

`OUT.h5.part` will become the pack; `OUT.h5.journal` says of each video how long its frames are and
what they hash to. Nothing has to reach the disk in any order: whoever goes on takes of the journal
what the frames bear out, and makes the rest again.
"""

from __future__ import annotations

import base64
import errno
import fcntl
import hashlib
import json
import logging
import os
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from selfsup_cli.data.pack_layout import START
from selfsup_cli.errors import InputError
from selfsup_cli.runs import atomic
from selfsup_cli.runs.metrics import JsonLines, read_rows

_LOG = logging.getLogger("selfsup")
_PIECE = 1 << 22
_FRAME = np.dtype([("bytes", "<u4"), ("crc32", "<u4")])


@dataclass(frozen=True)
class Written:
    """A video of a pack: its frames as stored, or why there are none.

    `frames` has a size and a CRC-32 for each. `error` is (sum, count, largest) over the values of
    the frames that were compared with what they had been.
    """

    frames: np.ndarray
    digest: bytes
    error: tuple[int, int, int, int] = (0, 0, 0, 0)
    bad: str | None = None


def as_frames(stored: Sequence[bytes]) -> np.ndarray:
    """Size and CRC-32 of each stored frame."""
    rows = [(len(data), zlib.crc32(data)) for data in stored]
    return np.array(rows, _FRAME)


class Part:
    """The frames written so far. Use as a context manager, which holds the lock on them.

    `videos` are the videos that are done, in order. `plan` (plain values) says what is being
    packed and how. Raises `InputError` if another plan has been begun there, or if another process
    is at it; `MachineError` if it cannot be written.
    """

    def __init__(self, target: Path, plan: dict[str, Any]) -> None:
        self.path = target.with_name(f"{target.name}.part")
        self.videos: list[Written] = []
        self._plan = plan
        self._journal = JsonLines(target.with_name(f"{target.name}.journal"))
        self._end = START
        self._start_of_video = START
        self._hash = hashlib.sha256()
        self._frames: list[np.ndarray] = []
        self._error = [0, 0, 0, 0]
        try:
            self._fd = os.open(
                self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666
            )
        except OSError as error:
            raise atomic.cannot_write(self.path, error) from error

    def __enter__(self) -> Part:
        try:
            self._lock()
        except BaseException:
            os.close(self._fd)
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._journal.close()
        os.close(self._fd)

    def _lock(self) -> None:
        try:
            fcntl.lockf(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EACCES):
                raise InputError(
                    f"{self.path} is being written by another process", kind="pack-in-use"
                ) from error

    def go_on(self, progress: Callable[[int, int], None] | None = None) -> None:
        """Take over what an earlier process has done and what is still as it was written."""
        rows = read_rows(self._journal.path)
        first = _opened(next(rows, None))
        if first is None:
            self._journal.keep(lambda _: False)
            self._cut(START)
            self._journal.append(_sealed({"plan": self._plan}))
            return
        if first.get("plan") != self._plan:
            before, now = first.get("plan"), self._plan
            differs = [key for key in now if not isinstance(before, dict) or before.get(key) != now[key]]
            raise InputError(
                f"{self.path} was begun with other data or settings ({', '.join(differs)}): name "
                f"another file, or remove it and {self._journal.path.name} to begin anew",
                kind="other-pack",
            )
        length = os.fstat(self._fd).st_size
        total = max(length - START, 1)
        for row in rows:
            video = _video(_opened(row), len(self.videos))
            if video is None or not self._holds(video, length):
                _LOG.warning(
                    "%s: damaged from video %d on; made again from there",
                    self.path,
                    len(self.videos) + 1,
                )
                break
            self.videos.append(video)
            self._end += int(video.frames["bytes"].sum(dtype=np.int64))
            if progress is not None:
                progress(self._end - START, total)
        self._start_of_video = self._end
        self._cut(self._end)
        count = iter(range(len(self.videos) + 1))
        self._journal.keep(lambda _: next(count, None) is not None)

    def _holds(self, video: Written, length: int) -> bool:
        """Whether the next bytes are those of `video`."""
        stop = self._end + int(video.frames["bytes"].sum(dtype=np.int64))
        if stop > length:
            return False
        digest = hashlib.sha256()
        for at in range(self._end, stop, _PIECE):
            digest.update(os.pread(self._fd, min(_PIECE, stop - at), at))
        return digest.digest() == video.digest

    def add(self, stored: bytes, frames: np.ndarray, error: Sequence[int]) -> None:
        """Append some frames, end to end, of the video that is due."""
        self._write(stored, self._end)
        self._end += len(stored)
        self._hash.update(stored)
        self._frames.append(frames)
        *sums, largest = error
        self._error = [a + b for a, b in zip(self._error, sums, strict=False)]
        self._error.append(max(largest, 0))

    def close_video(self) -> None:
        raise NotImplementedError
