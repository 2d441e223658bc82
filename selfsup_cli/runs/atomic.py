"""Files that are whole or absent.

Everything is written to a temporary name in the same folder, flushed to the disk, renamed over the
target, and the folder is flushed too. The temporary name of a target is fixed (`.NAME.tmp`), so a
killed writer leaves at most one of them, and `sweep` knows what to remove. A writer holds a lock on
its temporary, so two processes that write one target wait for each other and `sweep` leaves live
temporaries alone.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import io
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from selfsup_cli.errors import InputError, MachineError, SelfsupError

# The path itself is at fault, not the machine.
_WRONG_PATH = {errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP}
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL}
_NO_FOLDER_SYNC = {errno.EINVAL, errno.EOPNOTSUPP, errno.EBADF}

Bytes = bytes | bytearray | memoryview


class Recorder(io.RawIOBase):
    """A binary file, written front to back, that hashes and counts what passes through.

    It has no file descriptor and no `seek`, so that no library can write past the hash. The first
    `OSError` is kept in `error`, because some libraries report a full disk as something else.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._hash = hashlib.sha256()
        self.bytes = 0
        self.error: OSError | None = None

    @property
    def sha256(self) -> str:
        """Hex digest of everything written so far."""
        return self._hash.hexdigest()

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.bytes

    def write(self, data: Any, /) -> int:
        """Write all of `data` (anything that exposes its bytes); raises OSError."""
        view = memoryview(data).cast("B")
        done = 0
        try:
            while done < len(view):
                done += os.write(self._fd, view[done : done + (1 << 24)])
        except OSError as error:
            self.error = self.error or error
            raise
        self._hash.update(view)
        self.bytes += len(view)
        return len(view)


def temporary(path: Path) -> Path:
    """The name under which `path` is written before it is renamed."""
    return path.with_name(f".{path.name}.tmp")


def cannot_write(path: Path, error: OSError) -> SelfsupError:
    """The error to raise for an `OSError` met while writing `path`: what, where, how much room."""
    reason = error.strerror or str(error)
    if error.errno in _WRONG_PATH:
        return InputError(f"cannot write {path}: {reason}; choose another place", kind="path")
    hint = "choose another place"
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        hint = "make room (or raise the quota) and run the same command again"
    elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        hint = "ask for permission to write there, or choose another place"
    return MachineError(f"cannot write {path}: {reason}{_room(path)}; {hint}", kind="disk")


def _room(path: Path) -> str:
    for folder in path.absolute().parents:
        with suppress(OSError):
            return f" ({shutil.disk_usage(folder).free:,} bytes free in {folder})"
    return ""


@contextmanager
def writing(path: Path | str) -> Iterator[Recorder]:
    """Give a `Recorder` whose content becomes `path` when the block ends without an error.

    Until then, and for ever if the block fails, the old file stays as it was. Raises MachineError
    (disk full, quota, permission) or InputError (a path that cannot be a file).
    """
    path = Path(path)
    part = temporary(path)
    try:
        fd = _open_locked(part)
    except OSError as error:
        raise cannot_write(path, error) from error
    try:
        recorder = Recorder(fd)
        try:
            os.ftruncate(fd, 0)
        except OSError as error:
            raise cannot_write(path, error) from error
        try:
            yield recorder
        except Exception as error:
            if recorder.error is None:
                raise
            raise cannot_write(path, recorder.error) from error
        if recorder.error is not None:
            raise cannot_write(path, recorder.error)
        try:
            os.fsync(fd)
            part.replace(path)
        except OSError as error:
            raise cannot_write(path, error) from error
    except BaseException:
        with suppress(OSError):
            part.unlink()
        raise
    else:
        try:
            sync_folder(path.parent)
        except OSError as error:
            raise cannot_write(path, error) from error
    finally:
        os.close(fd)


def _open_locked(part: Path) -> int:
    """Open `part` with its lock held."""
    while True:
        fd = os.open(part, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
        try:
            try:
                fcntl.lockf(fd, fcntl.LOCK_EX)
            except OSError as error:
                if error.errno not in _NO_LOCKS:
                    raise
            with suppress(FileNotFoundError):
                # Whoever held the lock before may have renamed the file away from under us.
                if os.path.samestat(os.fstat(fd), os.lstat(part)):
                    return fd
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)


def sync_folder(folder: Path) -> None:
    """Flush the entries of `folder` to the disk, where the file system can."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno not in _NO_FOLDER_SYNC:
            raise
    finally:
        os.close(fd)


def write_bytes(path: Path | str, data: Bytes | Iterable[Bytes]) -> str:
    """Write `data` (one piece or several) as `path`; gives its SHA-256 in hex."""
    pieces = (data,) if isinstance(data, Bytes) else data
    with writing(path) as file:
        for piece in pieces:
            file.write(piece)
    return file.sha256


def write_text(path: Path | str, text: str) -> str:
    """Write `text` in UTF-8 as `path`; gives its SHA-256 in hex."""
    return write_bytes(path, text.encode())


def write_json(path: Path | str, value: Any) -> str:
    """Write `value` as indented JSON; gives its SHA-256 in hex. ValueError for NaN and infinity."""
    return write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def file_sha256(path: Path | str) -> str:
    """SHA-256 of a file, in hex."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sweep(folder: Path | str) -> list[Path]:
    """Remove what killed writers left in `folder` and below; gives the removed paths.

    A temporary file that another process is writing is left alone. Temporary folders (`.NAME.tmp`)
    go with all they hold.
    """
    removed = []
    for place, folders, files in os.walk(folder):
        for name in [name for name in folders if _is_temporary(name)]:
            folders.remove(name)
            shutil.rmtree(Path(place, name), ignore_errors=True)
            removed.append(Path(place, name))
        removed += [
            Path(place, name)
            for name in files
            if _is_temporary(name) and _remove_if_idle(Path(place, name))
        ]
    return removed


def _is_temporary(name: str) -> bool:
    return name.startswith(".") and name.endswith(".tmp") and len(name) > len("..tmp")


def _remove_if_idle(part: Path) -> bool:
    try:
        fd = os.open(part, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        try:
            fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                return False
        part.unlink(missing_ok=True)
        return True
    except OSError:
        return False
    finally:
        os.close(fd)
