"""Child processes for fault tests: what they do is counted, never timed."""

from __future__ import annotations

import os
import signal
import traceback
from collections.abc import Callable


def fork(work: Callable[[], None]) -> int:
    """Run `work` in a fork of this process; gives its pid. It ends with 0, or 9 on an error."""
    pid = os.fork()
    if pid:
        return pid
    code = 9
    try:
        work()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def end(pid: int) -> int:
    """Wait for `pid`; gives its exit status, or minus the signal that killed it."""
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status)


def kill(pid: int) -> None:
    """SIGKILL, and wait until the child is gone."""
    os.kill(pid, signal.SIGKILL)
    assert end(pid) == -signal.SIGKILL


def run(work: Callable[[], None]) -> int:
    """`fork` and `end`."""
    return end(fork(work))
