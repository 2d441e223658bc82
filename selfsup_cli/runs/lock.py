"""One lock per run, held as long as the process that writes it lives.

`fcntl.lockf` belongs to the process: the kernel frees it however the process ends, and a forked
loader worker that survives its parent does not keep it. It does not exclude a second opening in the
same process, hence the table below; and closing any descriptor of the file would free it, hence
nothing here opens a lock file that this process holds.
"""

from __future__ import annotations

import errno
import fcntl
import os
import platform
import time
from contextlib import suppress
from pathlib import Path

from selfsup_cli.errors import InputError, MachineError
from selfsup_cli.runs.atomic import cannot_write

# A glance of `held_by` lasts microseconds; a job that meets one tries again.
_PATIENCE_S = 1.0
_BUSY = {errno.EAGAIN, errno.EACCES}

_held: dict[tuple[int, int], int] = {}


class RunLock:
    """The lock of one run. Raises InputError, naming host and process, if another job has it."""

    def __init__(self, path: Path) -> None:
        """Take the lock file `path`, making it if need be; its text becomes `HOST PID`."""
        self._fd = -1
        with suppress(FileNotFoundError):
            if _held.get(_key(path.stat())) == os.getpid():
                raise _in_use(path, f"process {os.getpid()} on {platform.node()} (this one)")
        try:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise cannot_write(path, error) from error
        try:
            _take(fd, path)
            os.ftruncate(fd, 0)
            os.pwrite(fd, f"{platform.node()} {os.getpid()}\n".encode(), 0)
        except OSError as error:
            os.close(fd)
            raise cannot_write(path, error) from error
        except BaseException:
            os.close(fd)
            raise
        self._fd = fd
        self._pid = os.getpid()
        self._key = _key(os.fstat(fd))
        _held[self._key] = self._pid

    @property
    def held(self) -> bool:
        """Whether this process holds the lock. A fork of it does not."""
        return self._fd >= 0 and os.getpid() == self._pid

    def release(self) -> None:
        """Free the lock. Harmless when it is free already, and in a fork."""
        if self._fd < 0:
            return
        if os.getpid() == self._pid:
            _held.pop(self._key, None)
        os.close(self._fd)
        self._fd = -1


def held_by(path: Path) -> str | None:
    """Who holds the lock file `path`, as `process PID on HOST`, or None if nobody does."""
    try:
        if _held.get(_key(path.stat())) == os.getpid():
            return _owner(path.parent.name, f"{platform.node()} {os.getpid()}")
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.lockf(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in _BUSY:
            return None
        return _owner(path.parent.name, os.pread(fd, 300, 0).decode(errors="replace"))
    finally:
        os.close(fd)
    return None


def _take(fd: int, path: Path) -> None:
    until = time.monotonic() + _PATIENCE_S
    while True:
        try:
            fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except OSError as error:
            if error.errno not in _BUSY:
                raise MachineError(
                    f"cannot lock {path}: {error.strerror}",
                    kind="lock",
                    hint="keep runs on a file system that has locks (set SELFSUP_RUNS)",
                ) from error
        if time.monotonic() > until:
            text = os.pread(fd, 300, 0).decode(errors="replace")
            raise _in_use(path, _owner(path.parent.name, text))
        time.sleep(0.02)


def _owner(run: str, text: str) -> str:
    host, _, pid = text.strip().partition(" ")
    return f"process {pid} on {host}" if pid.isdigit() else f"another process (see {run}/run.lock)"


def _in_use(path: Path, owner: str) -> InputError:
    return InputError(
        f"run {path.parent.name} is being written by {owner}; wait until it ends, "
        "or give this one another name with --run",
        kind="run-in-use",
    )


def _key(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino
