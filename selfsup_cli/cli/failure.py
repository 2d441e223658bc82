"""What the user reads, and the shell receives, when something goes wrong.

| status | meaning |
|---|---|
| 0 | done |
| 1 | our bug; the traceback is in crash.txt |
| 2 | the input is wrong |
| 3 | the machine is short |
| 4 | training failed |
| 75 | stopped by a signal after saving: run the same command again |
| 130, 143 | interrupted by SIGINT, SIGTERM |
| 141 | the reader of the output went away |
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from selfsup_cli.cli import console
from selfsup_cli.config.registry import nearest
from selfsup_cli.errors import SelfsupError
from selfsup_cli.version import __version__

if TYPE_CHECKING:
    from collections.abc import Sequence

BUG, INPUT, MACHINE, INTERRUPTED, READER_GONE = 1, 2, 3, 130, 141
MOST_LINES = 20

_SHORTAGES = {
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EFBIG,
    errno.ENOMEM,
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.EMFILE,
    errno.ENFILE,
    errno.EIO,
}


@dataclass(frozen=True)
class Failure:
    """A failure in the words of the user: one message, or several problems found at once.

    A problem is anything whose text is a sentence; one that is a dataclass goes into `--json` with
    its fields. `data` is what was found out in spite of it.
    """

    status: int
    kind: str
    message: str
    hint: str | None = None
    problems: Sequence[Any] = ()
    run: Path | None = None
    data: Any = None


def describe(error: BaseException) -> Failure:
    """The failure that `error` stands for; what nothing here recognises is a bug of ours."""
    run = getattr(error, "run_dir", None)
    if isinstance(error, SelfsupError):
        problems = tuple(getattr(error, "problems", ()))
        data = getattr(error, "data", None)
        return Failure(error.exit_status, error.kind, str(error), error.hint, problems, run, data)
    if isinstance(error, typer.TyperException):
        return _usage(error)
    if isinstance(error, KeyboardInterrupt):
        return Failure(INTERRUPTED, "interrupted", "interrupted", run=run)
    if isinstance(error, BrokenPipeError) and console.reader_is_gone():
        return Failure(READER_GONE, "reader-gone", "the reader of the output went away", run=run)
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        hint = "a smaller batch size takes less"
        return Failure(MACHINE, "memory", f"out of memory: {_first_line(error)}", hint, run=run)
    if isinstance(error, OSError) and error.errno in _SHORTAGES:
        where = error.filename or "cannot write the output"
        return Failure(MACHINE, "system", f"{where}: {error.strerror}", run=run)
    if isinstance(error, OSError) and error.errno in (errno.ENAMETOOLONG, errno.ELOOP):
        name = str(error.filename)
        name = name if len(name) <= 200 else f"{name[:199]}…"
        return Failure(INPUT, "path", f"{name}: {error.strerror}", run=run)
    if isinstance(error, ModuleNotFoundError) and not (error.name or "").startswith("selfsup_cli"):
        message = f"the Python package '{error.name}' is not installed"
        return Failure(MACHINE, "missing-package", message, f"pip install {error.name}", run=run)
    return Failure(BUG, "bug", f"{type(error).__name__}: {_first_line(error)}", run=run)


def tell(error: BaseException, *, as_json: bool, arguments: Sequence[str]) -> int:
    """Show `error` on stderr (and, with `--json`, on stdout); returns the exit status."""
    failure = describe(error)
    if failure.status == READER_GONE:
        console.silence()
        return failure.status
    if failure.status == BUG:
        failure = _saved(failure, error, arguments)
    if os.environ.get("SELFSUP_DEBUG", "0") not in ("", "0"):
        console.say(_traceback(error).rstrip())
    most = MOST_LINES - bool(failure.hint)
    for line in _lines(failure.problems or (failure.message,), most):
        console.say(line)
    if failure.hint:
        console.say(f"selfsup: hint: {console.plain(failure.hint)}")
    if as_json:
        from selfsup_cli.cli import document

        try:
            error_document = {
                "code": failure.status,
                "kind": failure.kind,
                "message": failure.message,
                "hint": failure.hint,
            }
            document.failure(error_document, failure.problems, run=failure.run, data=failure.data)
        except (OSError, SelfsupError):
            # stdout is what failed, or it has failed too; stderr has the message already.
            console.silence()
    return failure.status


def _lines(problems: Sequence[Any], most: int) -> list[str]:
    """What is said of `problems` in at most that many lines; those left out are counted."""
    lines: list[str] = []
    for number, problem in enumerate(problems):
        # A message may list what belongs to it on indented lines; any other break is a user's.
        first, *more = re.split(r"\n(?=  )", str(problem))
        block = [f"selfsup: error: {console.plain(first)}", *map(console.plain, more)]
        rest = len(problems) - number - 1
        room = most - len(lines) - bool(rest)
        if len(block) > room and lines:
            return [*lines, f"selfsup: error: … and {rest + 1} more"]
        if len(block) > room:
            block[room - 1 :] = [f"  … and {len(block) - room + 1} more lines"]
        lines += block
    return lines


def _usage(error: typer.TyperException) -> Failure:
    """A mistake in the command line, found by Typer, in the same form as our own messages."""
    context: Any = getattr(error, "ctx", None)
    hint = f"see '{context.command_path if context else 'selfsup'} --help'"
    option = getattr(error, "option_name", None)
    if context and option is not None and hasattr(error, "possibilities"):
        parameters = context.command.get_params(context)
        known = [flag for p in parameters for flag in (*p.opts, *p.secondary_opts)]
        message = f"unknown option '{option[:60]}'{nearest(option[:60], known)}"
        hint = getattr(context.command, "hint_for_options", None) or hint
    else:
        message = " ".join(error.format_message().rstrip(".").split())
        message = message[:1].lower() + message[1:]
        message = message if len(message) <= 300 else message[:299] + "…"
    return Failure(INPUT, "usage", message, hint)


def _saved(failure: Failure, error: BaseException, arguments: Sequence[str]) -> Failure:
    """`failure` with the place where the traceback of `error` was put, if there was any."""
    import platform
    from datetime import UTC, datetime

    lines = [
        f"selfsup {__version__}, Python {platform.python_version()}, {platform.platform()}",
        f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC",
        f"command: selfsup {' '.join(arguments)}",
        "",
        _traceback(error),
    ]
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    folders = [Path(state) / "selfsup"] if failure.run is None else [failure.run]
    for folder in folders:
        with contextlib.suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            path = folder / "crash.txt"
            path.write_text("\n".join(lines), encoding="utf-8", errors="backslashreplace")
            message = f"this is a bug in selfsup ({failure.message}); the traceback is in {path}"
            return Failure(BUG, "bug", message, "please report it with that file", run=failure.run)
    message = f"this is a bug in selfsup ({failure.message})"
    return Failure(BUG, "bug", message, "SELFSUP_DEBUG=1 shows the traceback", run=failure.run)


def _traceback(error: BaseException) -> str:
    import traceback

    return "".join(traceback.format_exception(error))


def _first_line(error: BaseException) -> str:
    """What `error` says, cut to what fits on a line."""
    text = str(error).strip().split("\n", 1)[0]
    return text if len(text) <= 300 else text[:299] + "…"


def close(status: int) -> int:
    """Flush stdout; returns `status`, or what a failing flush makes of it."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        console.silence()
        return READER_GONE
    except OSError as error:
        console.silence()
        if status == 0:
            console.say(f"selfsup: error: cannot write to stdout: {error.strerror}")
            return MACHINE
    return status
