"""What can go wrong, by whose hand, and the exit status that says so."""

from __future__ import annotations


class SelfsupError(Exception):
    """A failure that is told to the user as one sentence, without a traceback.

    `kind` is a short machine-readable word for `--json`; `hint` says what to do next.
    """

    exit_status = 1

    def __init__(self, message: str, *, kind: str | None = None, hint: str | None = None) -> None:
        super().__init__(message)
        self.kind = kind or type(self).__name__
        self.hint = hint


class InputError(SelfsupError):
    """What the user gave is wrong: an option, a preset, data, a checkpoint, a run."""

    exit_status = 2


class MachineError(SelfsupError):
    """The machine is short of memory, disk, permission or an optional package."""

    exit_status = 3


class TrainingError(SelfsupError):
    """Training failed: the loss is not finite, or too many samples are bad."""

    exit_status = 4


class Stopped(SelfsupError):  # noqa: N818 (it is no error)
    """A signal ended the job after a clean save; `exit_status` depends on the signal."""

    def __init__(self, message: str, exit_status: int) -> None:
        super().__init__(message, kind="stopped")
        self.exit_status = exit_status


class BadMediaError(Exception):
    """One image or video cannot be read. Jobs count it and go on; it never ends a job by itself."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = reason

    def __reduce__(self) -> tuple[type[BadMediaError], tuple[str, str]]:
        return (BadMediaError, (self.path, self.reason))
