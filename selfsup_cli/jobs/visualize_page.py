"""Where a picture of a look inside goes: into a run with its report, or into a file by itself."""

from __future__ import annotations

import shlex
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from selfsup_cli.config.presets import Resolved
from selfsup_cli.data.source import LeftOut
from selfsup_cli.errors import InputError
from selfsup_cli.jobs import common
from selfsup_cli.jobs.common import Outcome
from selfsup_cli.jobs.visualize_images import checked
from selfsup_cli.runs import report as reports
from selfsup_cli.runs.report import Finding, Measurement, Picture, Report
from selfsup_cli.runs.run import Run


@dataclass
class Page:
    """A picture and what is told with it: of a `run`, or in the file `out` where there is none."""

    run: Run | None
    out: Path | None
    data: dict[str, Any]
    weights: str | None
    began: float = field(default_factory=time.monotonic)

    def picture(self, name: str) -> Path:
        """Where the picture called `name` in a run is to be written."""
        if self.run is None:
            assert self.out is not None  # noqa: S101 (one of the two)
            return self.out
        return self.run.picture(name)

    def file(self, name: str) -> Path | None:
        """Where a table of that name goes, in a run only."""
        return None if self.run is None else self.run.path / name

    @property
    def outcome(self) -> Outcome | None:
        """What there is already, where the run was complete before."""
        if self.run is None or not self.run.complete:
            return None
        return Outcome(self.run.path, self.run.report())

    def conclude(
        self,
        name: str,
        caption: str,
        findings: Sequence[Finding],
        *,
        measurements: Sequence[Measurement] = (),
        facts: Mapping[str, Any] | None = None,
        left_out: Sequence[LeftOut] = (),
    ) -> Outcome:
        """Write the report of a run and finish it, or tell where the file is."""
        told = {**(facts or {}), "findings": [one.text for one in findings]}
        if self.run is None:
            text = "\n".join([*(one.text for one in findings), str(self.out)])
            numbers = [one.model_dump(mode="json") for one in measurements]
            return Outcome(
                text=text, data={"picture": str(self.out), "measurements": numbers, **told}
            )
        run = self.run
        run.write_report(
            Report(
                job=run.info.job.replace("/", "-"),
                run=run.name,
                command=shlex.join(run.info.command),
                created=reports.now(),
                findings=list(findings),
                measurements=list(measurements),
                pictures=[Picture(file=f"pictures/{name}", caption=caption)],
                data=self.data,
                weights=self.weights,
                cost={"seconds": round(time.monotonic() - self.began, 1)},
                **reports.left_out(left_out),
            )
        )
        run.finish()
        return Outcome(run.path, run.report(), data=dict(facts or {}))


def chosen(run: str | None, out: Path | None) -> None:
    """Raise InputError unless a picture can go where it is asked to: into a run, or into a file."""
    if run is not None and out is not None:
        raise InputError(
            "--run and --out: a picture goes into a run, with its report, or by itself into a "
            "file; give one of them",
            kind="usage",
        )
    if out is not None:
        checked(out)


@contextmanager
def page(
    resolved: Resolved,
    *,
    run: str | None,
    out: Path | None,
    command: Sequence[str],
    arch: str,
    data: str,
    seed: int,
    dataset: dict[str, Any] | None,
    parents: list[dict[str, Any]],
) -> Iterator[Page]:
    """A new run for a picture, or one that is gone on with; with `out` none.

    What ends the work is written into the run's status.
    """
    weights = next((str(one["sha256"]) for one in parents if "sha256" in one), None)
    if out is not None:
        yield Page(None, out, dataset or {}, weights)
        return
    record = common.started_run(
        resolved,
        run,
        arch=arch,
        data=data,
        seed=seed,
        command=command,
        dataset=dataset or {},
        parents=parents,
    )
    found = Page(record, None, dataset or {}, weights)
    if record.complete:  # a requeued job that gave it no name finds it here
        yield found
        return
    with common.ending(record):
        record.set_status("running")
        yield found
