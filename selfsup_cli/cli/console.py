"""The two streams: what may be written to them, in which colours, and when a reader is gone.

stdout carries the result and nothing else; progress, messages and errors go to stderr. Colour is
decided for each stream by itself, and no text that came from a user is ever read as markup.
"""

from __future__ import annotations

import contextlib
import os
import select
import sys
from typing import TYPE_CHECKING, TextIO

from selfsup_cli.runs.text import plain as plain

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.console import Console

_WIDTH_OF_A_FILE = 1_000_000


def prepare_streams() -> None:
    """Make both streams safe to write to, whatever the caller closed and whatever the locale is."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            # Otherwise the first file that a job opens would take this place, and receive its
            # messages. The lowest free number is the one just found closed.
            os.open(os.devnull, os.O_RDWR)
    if sys.stdout is None:
        sys.stdout = os.fdopen(1, "w", encoding="utf-8")
    if sys.stderr is None:
        sys.stderr = os.fdopen(2, "w", encoding="utf-8")
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")


def reader_is_gone() -> bool:
    """Whether stdout or stderr is a pipe that nobody reads any more."""
    for descriptor in (1, 2):
        poll = select.poll()
        try:
            poll.register(descriptor, 0)
            if any(event & select.POLLERR for _, event in poll.poll(0)):
                return True
        except OSError:
            continue
    return False


def silence() -> None:
    """Point stdout and stderr nowhere, so that Python's own flush at exit cannot fail."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for descriptor in (1, 2):
        os.dup2(nowhere, descriptor)
    os.close(nowhere)


def coloured(stream: TextIO, environ: Mapping[str, str] | None = None) -> bool:
    """Whether `stream` gets colours: NO_COLOR, then FORCE_COLOR, then a terminal that has them."""
    environ = os.environ if environ is None else environ
    if environ.get("NO_COLOR"):
        return False
    if environ.get("FORCE_COLOR", "0") not in ("", "0"):
        return True
    return stream.isatty() and environ.get("TERM") != "dumb"


def console(stream: TextIO | None = None) -> Console:
    """A rich console on `stream` (default stdout) that takes all text as it is.

    Off a terminal nothing is wrapped, cut or animated, and without colour not a single escape
    sequence is written.
    """
    from rich.console import Console

    stream = sys.stdout if stream is None else stream
    terminal = stream.isatty()
    colour = coloured(stream)
    return Console(
        file=stream,
        force_terminal=True if colour and not terminal else None,
        force_interactive=terminal,
        color_system=("auto" if terminal else "standard") if colour else None,
        width=None if terminal else _WIDTH_OF_A_FILE,
        markup=False,
        highlight=False,
        emoji=False,
        soft_wrap=not terminal,
    )


def emit(text: str) -> None:
    """Write `text` and a line break to stdout at once, so that a full disk is noticed here."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def say(text: str) -> None:
    """Write one line to stderr; a stderr that cannot be written to never stops the work."""
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.write(text + "\n")
        sys.stderr.flush()


def warn(text: str) -> None:
    """Write a warning to stderr."""
    say(f"selfsup: warning: {plain(text)}")
