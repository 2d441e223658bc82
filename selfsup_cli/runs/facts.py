"""What the pages say of a run besides its report."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from selfsup_cli.runs.metrics import read_rows
from selfsup_cli.runs.record import Attempt, RunInfo
from selfsup_cli.runs.report import Report


@dataclass(frozen=True)
class Facts:
    """Facts of a run. A report can be shown without any of them.

    `folder` is where the report's pictures are read from; `preset` is the text of `preset.yaml`;
    `bad` holds path and reason of the files in `quarantine.jsonl`.
    """

    folder: Path | None = None
    preset: str | None = None
    info: RunInfo | None = None
    attempts: Sequence[Attempt] = ()
    bad: Sequence[tuple[str, str]] = ()

    @classmethod
    def of(cls, folder: Path, info: RunInfo, attempts: Sequence[Attempt]) -> Facts:
        """The facts of the run in `folder`; what cannot be read is left out."""
        try:
            preset = (folder / "preset.yaml").read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            preset = None
        bad = [
            (str(row.get("path")), str(row.get("reason")))
            for row in read_rows(folder / "quarantine.jsonl")
        ]
        return cls(folder, preset, info, tuple(attempts), tuple(bad))

    def command(self, report: Report) -> str:
        """The command line, quoted for a shell; empty if the job was called from Python."""
        return shlex.join(self.info.command) if self.info else report.command

    def attempts_of(self, report: Report) -> list[str]:
        """A line for each attempt up to the one that wrote the report.

        How that one ended is not said: it is not known while the report is written, and the page
        must come out the same whenever it is made.
        """
        own = [one for one in self.attempts if one.start <= report.created]
        return [
            f"{one.start} on {one.host} (process {one.pid})"
            + (", wrote this report" if number == len(own) else _ended(one))
            for number, one in enumerate(own, 1)
        ]


def _ended(attempt: Attempt) -> str:
    step = "" if attempt.step is None else f" at step {attempt.step}"
    end = "" if attempt.end is None else f", ended {attempt.end}"
    return f"{end}{step}{f': {attempt.reason}' if attempt.reason else ''}"
