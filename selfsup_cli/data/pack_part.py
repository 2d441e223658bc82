"""A pack on its way: frames that only grow, and a journal of the videos that they make up.

`OUT.h5.part` will become the pack; `OUT.h5.journal` says of each video how long its frames are and
what they hash to. Nothing has to reach the disk in any order: whoever goes on takes of the journal
what the frames bear out, and makes the rest again.
"""

from __future__ import annotations

import base64
import binascii
import errno
import fcntl
import hashlib
import logging
import os
import zlib
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from selfsup_cli.data.pack_layout import START
from selfsup_cli.errors import InputError
from selfsup_cli.runs import atomic, seal
from selfsup_cli.runs.metrics import JsonLines, read_rows

_LOG = logging.getLogger("selfsup")
_PIECE = 1 << 22
_FRAME = np.dtype([("bytes", "<u4"), ("crc32", "<u4")])
_JOURNAL_BEGINS = b'{"plan": '


@dataclass(frozen=True)
class Compared:
    """What was lost: by how much `values` grey levels of `frames` frames are off.

    `total` is the sum over them, `largest` that of one.
    """

    frames: int = 0
    values: int = 0
    total: int = 0
    largest: int = 0

    def __add__(self, other: Compared) -> Compared:
        return Compared(
            self.frames + other.frames,
            self.values + other.values,
            self.total + other.total,
            max(self.largest, other.largest),
        )


NOTHING = Compared()


@dataclass(frozen=True)
class Written:
    """A video that is done: size and CRC-32 of each of its frames, and the SHA-256 of them all.

    One without frames was left out, for the reason `bad`.
    """

    frames: np.ndarray
    digest: bytes
    compared: Compared
    bad: str | None = None

    @property
    def bytes(self) -> int:
        """Length of its frames, end to end."""
        return int(self.frames["bytes"].sum(dtype=np.int64))


def measured(stored: Sequence[bytes]) -> np.ndarray:
    """Size and CRC-32 of each stored frame, a structured array `[T]`."""
    return np.array([(len(data), zlib.crc32(data)) for data in stored], _FRAME)


class Part:
    """The frames written so far, and whoever holds this open holds the lock on them.

    `videos` are the videos that are done, in order. `plan` (plain values) says what is being
    packed and how. Raises `InputError` if something else has been begun there or another process
    is at it, `MachineError` if it cannot be written.
    """

    def __init__(self, target: Path, plan: dict[str, Any]) -> None:
        self.path = target.with_name(f"{target.name}.part")
        self.videos: list[Written] = []
        self._plan = plan
        self._journal = JsonLines(target.with_name(f"{target.name}.journal"))
        self._end = START
        self._open_video()
        try:
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            self._fd = os.open(self.path, flags, 0o666)
        except OSError as error:
            raise atomic.cannot_write(self.path, error) from error
        try:
            self._lock()
        except BaseException:
            os.close(self._fd)
            raise

    def __enter__(self) -> Part:
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

    # -- going on

    def go_on(self, progress: Callable[[int], None] | None = None) -> None:
        """Take over what an earlier process has done and what is still as it was written.

        `progress` gets the number of videos that have been taken over so far.
        """
        length = os.fstat(self._fd).st_size
        rows = read_rows(self._journal.path)
        begun = _opened(next(rows, None))
        if begun is None:
            rows.close()  # type: ignore[attr-defined]
            self._begin(length)
            return
        if begun.get("plan") != self._plan:
            raise self._other_plan(begun.get("plan"))
        whole = True
        for row in rows:
            video = _video(_opened(row), len(self.videos))
            whole = video is not None and self._holds(video, length)
            if video is None or not whole:
                break
            self.videos.append(video)
            self._end += video.bytes
            if progress is not None:
                progress(len(self.videos))
        rows.close()  # type: ignore[attr-defined]
        if not whole:
            _LOG.warning(
                "%s: damaged from video %d on, which are packed again",
                self.path,
                len(self.videos) + 1,
            )
        kept = iter(range(len(self.videos) + 1))
        self._journal.keep(lambda _: next(kept, None) is not None)
        self._open_video()
        self._cut()

    def _begin(self, length: int) -> None:
        """Begin anew, unless that would destroy what is not ours."""
        journal = self._journal.path
        start = b""
        if journal.is_file():
            with journal.open("rb") as file:
                start = file.read(len(_JOURNAL_BEGINS))
        if (start and start != _JOURNAL_BEGINS) or (length and not self._may_be_ours()):
            raise InputError(
                f"{self.path} or {journal.name} is in the way, and neither was begun by "
                "`selfsup data pack`: name another file",
                kind="not-ours",
            )
        if start or length:
            _LOG.warning("%s: its journal is damaged; all is packed again", self.path)
        self._journal.keep(lambda _: False)
        self._cut()
        self._journal.append(seal.sealed({"plan": self._plan}))

    def _may_be_ours(self) -> bool:
        head = os.pread(self._fd, START, 0)
        return not any(head) or head.startswith(b"\x89HDF\r\n\x1a\n")

    def _other_plan(self, before: Any) -> InputError:
        before = before if isinstance(before, dict) else {}
        differs = [key for key, value in self._plan.items() if before.get(key) != value]
        return InputError(
            f"{self.path} was begun with other data or settings ({', '.join(differs)}): name "
            f"another file, or remove it and {self._journal.path.name} to begin anew",
            kind="other-pack",
        )

    def _holds(self, video: Written, length: int) -> bool:
        """Whether the next bytes are those of `video`."""
        stop = self._end + video.bytes
        if stop > length:
            return False
        digest = hashlib.sha256()
        for at in range(self._end, stop, _PIECE):
            digest.update(os.pread(self._fd, min(_PIECE, stop - at), at))
        return digest.digest() == video.digest

    # -- writing

    def _open_video(self) -> None:
        self._begun_at = self._end
        self._hash = hashlib.sha256()
        self._frames: list[np.ndarray] = []

    def add(self, stored: bytes, frames: np.ndarray) -> None:
        """Append frames, end to end, to the video that is due; `frames` is what `measured` says."""
        self._write(stored, self._end)
        self._end += len(stored)
        self._hash.update(stored)
        self._frames.append(frames)

    def close_video(self, compared: Compared) -> None:
        """The video that was due is complete."""
        frames = np.concatenate(self._frames)
        self._note(Written(frames, self._hash.digest(), compared))

    def leave_out(self, reason: str) -> None:
        """The video that was due cannot be read; what there is of it goes."""
        self._end = self._begun_at
        self._cut()
        self._note(Written(np.empty(0, _FRAME), hashlib.sha256().digest(), NOTHING, reason))

    def _note(self, video: Written) -> None:
        self._journal.append(_row(video, len(self.videos)))
        self.videos.append(video)
        self._open_video()

    def publish(self, target: Path, frames_end: int, head: bytes, tail: bytes) -> None:
        """Put what belongs around the frames in its place, and give the file its name."""
        self._cut(frames_end)
        self._write(tail, frames_end)
        self._write(head, 0)
        try:
            os.fsync(self._fd)
            if target.exists():
                raise InputError(f"{target} has appeared meanwhile", kind="exists")
            self.path.replace(target)
            atomic.sync_folder(target.parent)
        except OSError as error:
            raise atomic.cannot_write(target, error) from error
        self.forget()

    def forget(self) -> None:
        """Remove the journal."""
        self._journal.close()
        self._journal.path.unlink(missing_ok=True)

    def _write(self, data: bytes, at: int) -> None:
        view = memoryview(data)
        try:
            while view:
                done = os.pwrite(self._fd, view[: 1 << 24], at)
                view, at = view[done:], at + done
        except OSError as error:
            raise atomic.cannot_write(self.path, error) from error

    def _cut(self, length: int | None = None) -> None:
        try:
            os.ftruncate(self._fd, self._end if length is None else length)
        except OSError as error:
            raise atomic.cannot_write(self.path, error) from error


# -- the rows of the journal


def _row(video: Written, place: int) -> dict[str, Any]:
    if video.bad is not None:
        return seal.sealed({"video": place, "bad": video.bad})
    return seal.sealed(
        {
            "video": place,
            "frames": base64.b64encode(video.frames.tobytes()).decode(),
            "sha256": video.digest.hex(),
            "compared": astuple(video.compared),
        }
    )


def _video(row: dict[str, Any] | None, place: int) -> Written | None:
    """The video at `place`, if that is what the row is about."""
    try:
        if row is None or row["video"] != place:
            return None
        if "bad" in row:
            empty = np.empty(0, _FRAME)
            return Written(empty, hashlib.sha256().digest(), NOTHING, str(row["bad"]))
        frames = np.frombuffer(base64.b64decode(row["frames"], validate=True), _FRAME)
        compared = Compared(*map(int, row["compared"]))
        return Written(frames, bytes.fromhex(row["sha256"]), compared)
    except (KeyError, TypeError, ValueError, binascii.Error):
        return None


def _opened(row: dict[str, Any] | None) -> dict[str, Any] | None:
    """The row as it was before it was sealed, or None if it is not that any more."""
    try:
        return seal.opened(row)
    except ValueError:
        return None
