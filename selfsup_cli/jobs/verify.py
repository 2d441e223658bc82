"""`selfsup runs verify`: whether what lies in a run is what was written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from selfsup_cli.engine.checkpoints import Checkpoints
from selfsup_cli.errors import InputError
from selfsup_cli.runs import manifest
from selfsup_cli.runs.lock import held_by
from selfsup_cli.runs.run import Run


@dataclass(frozen=True)
class Verdict:
    """Of one run: its `problems`, one sentence each, or `busy`, who is writing it now."""

    name: str
    path: Path
    problems: list[str] = field(default_factory=list)
    busy: str | None = None

    def __str__(self) -> str:
        if self.busy:
            return f"{self.name}: not looked at, it is being written by {self.busy}"
        return f"{self.name}: {'; '.join(self.problems) or 'sound'}"


class DamagedError(InputError):
    """Some runs are damaged. `problems` says what in which, `data` holds all verdicts."""

    def __init__(self, verdicts: Sequence[Verdict]) -> None:
        damaged = [one for one in verdicts if one.problems]
        self.problems = [f"{one.path}: {problem}" for one in damaged for problem in one.problems]
        self.data = {"runs": list(verdicts)}
        super().__init__(
            f"{len(damaged)} of {len(verdicts)} runs are damaged",
            kind="damaged",
            hint="the same command again mends a run that is not complete as far as it can; of a "
            "complete one, restore the files from a copy, or make it anew under another name",
        )


def verify(path: Path) -> Verdict:
    """Check a run by its manifest, or, while it is not complete, by its records and checkpoints.

    Reads every file. Raises nothing for a damaged run. One that is being written is left alone, as
    its files come and go.
    """
    name = path.absolute().name
    if (busy := held_by(path / "run.lock")) is not None:
        return Verdict(name, path, busy=busy)
    try:
        run = Run.open(path)
        problems = run.problems()
        if not run.complete:
            problems += _of_checkpoints(Checkpoints(path / "checkpoints"))
        run.report()
    except InputError as error:
        said = str(error)
        return Verdict(name, path, [*_others(path, said), said])
    except OSError as error:
        return Verdict(name, path, [f"cannot read {error.filename or path}: {error.strerror}"])
    return Verdict(name, path, problems)


def _of_checkpoints(checkpoints: Checkpoints) -> list[str]:
    names = {step: checkpoints.path(step).name for step in checkpoints.steps()}
    found = [
        f"checkpoints/{name}: {problem}"
        for step, name in names.items()
        if (problem := checkpoints.problem(step)) is not None
    ]
    bare = {path.name for path in checkpoints.folder.glob("step-*")} - set(names.values())
    return found + [f"checkpoints/{name}: its manifest is missing" for name in sorted(bare)]


def _others(path: Path, said: str) -> list[str]:
    """What else is wrong with a run whose records cannot be read."""
    if not (path / manifest.NAME).is_file():
        return _of_checkpoints(Checkpoints(path / "checkpoints"))
    return [one for one in manifest.problems(path) if one.split(" ", 1)[0] not in said]
