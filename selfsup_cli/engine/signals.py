"""Stopping in good order: signals set a flag, the loop ends its step, saves and exits."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

from selfsup_cli.errors import Stopped

# Preemption (SLURM sends USR1 or USR2 before the time limit) asks for the same command again.
STATUS = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGUSR1: 75, signal.SIGUSR2: 75}

_caught: list[tuple[int, StopFlag]] = []


@dataclass
class StopFlag:
    """Whether, and by which signal, the job was asked to stop."""

    signum: int = 0

    def __bool__(self) -> bool:
        return self.signum != 0

    def stopped(self, where: str) -> Stopped:
        """The error that ends the job after its save."""
        name = signal.Signals(self.signum or signal.SIGTERM).name
        status = STATUS[signal.Signals(self.signum or signal.SIGTERM)]
        return Stopped(f"stopped by {name} after saving {where}; the same command goes on", status)


@contextmanager
def catching() -> Iterator[StopFlag]:
    """Install the handlers for the length of a job and put the former ones back.

    Inside another `catching` of this process it is the same flag: what came before a job began to
    look counts as well.
    """
    if _caught and _caught[-1][0] == os.getpid():
        yield _caught[-1][1]
        return
    flag = StopFlag()
    owner = os.getpid()

    def handle(signum: int, frame: FrameType | None) -> None:
        if os.getpid() != owner:  # forked loader workers inherit handlers; the parent decides
            return
        if signum == signal.SIGINT and flag.signum == signal.SIGINT:
            os._exit(130)
        flag.signum = signum
        again = "; press Ctrl-C again to leave without saving" if signum == signal.SIGINT else ""
        os.write(
            2, f"selfsup: {signal.Signals(signum).name}: saving after this step{again}\n".encode()
        )

    former = {number: signal.signal(number, handle) for number in STATUS}
    _caught.append((owner, flag))
    try:
        yield flag
    finally:
        _caught.pop()
        for number, handler in former.items():
            signal.signal(number, handler)
