"""How a job says on stderr that it moves: a live line on a terminal, plain lines elsewhere."""

from __future__ import annotations

import os
import sys
import time
from types import TracebackType
from typing import TextIO

from rich.console import Console
from rich.live import Live
from rich.text import Text

HEARTBEAT_S = 30.0


def clock(seconds: float) -> str:
    """`75` → `1m15s`."""
    seconds = int(seconds)
    if seconds < 60:
        return f"{seconds}s"
    if seconds < 3600:
        return f"{seconds // 60}m{seconds % 60:02d}s"
    return f"{seconds // 3600}h{seconds % 3600 // 60:02d}m"


class Progress:
    """One line that lives. Use as a context manager; `say` prints a line that stays."""

    def __init__(self, *, quiet: bool = False, stream: TextIO | None = None) -> None:
        self.stream = stream or sys.stderr
        self.quiet = quiet
        live = (
            self.stream.isatty() and not os.environ.get("CI") and os.environ.get("TERM") != "dumb"
        )
        self._live: Live | None = None
        if live and not quiet:
            console = Console(file=self.stream, markup=False, highlight=False, emoji=False)
            self._live = Live(console=console, refresh_per_second=4, transient=True)
        self._spoken = 0.0

    def __enter__(self) -> Progress:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._live is not None:
            self._live.stop()

    @property
    def due(self) -> bool:
        """Whether `update` would show anything now; callers may skip composing the text."""
        if self.quiet:
            return False
        wait = 0.25 if self._live is not None else HEARTBEAT_S
        return time.monotonic() - self._spoken >= wait

    def update(self, text: str, *, force: bool = False) -> None:
        """Replace the live line, or print a plain line when the last one is 30 s old."""
        if self.quiet or not (force or self.due):
            return
        self._spoken = time.monotonic()
        if self._live is not None:
            self._live.update(Text(text))
        else:
            print(text, file=self.stream, flush=True)

    def say(self, text: str) -> None:
        """Print a line that stays (a warning, the end of an epoch)."""
        if self.quiet:
            return
        if self._live is not None:
            self._live.console.print(Text(text))
        else:
            print(text, file=self.stream, flush=True)
        self._spoken = time.monotonic()

    def counting(self, what: str) -> _Counter:
        """A callback `(done, total)` that reports how far `what` has come."""
        return _Counter(self, what)


class _Counter:
    def __init__(self, progress: Progress, what: str) -> None:
        self.progress = progress
        self.what = what
        self.start = time.monotonic()

    def __call__(self, done: int, total: int) -> None:
        if not self.progress.due:
            return
        rate = done / max(time.monotonic() - self.start, 1e-9)
        left = clock((total - done) / rate) if rate > 0 else "?"
        self.progress.update(f"{self.what} {done}/{total} · {rate:.1f}/s · {left} left")
