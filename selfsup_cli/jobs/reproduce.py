"""`selfsup reproduce NAME`: a table or figure of the thesis, run end to end, beside its numbers.

Torch is never imported here: the work is done by the stages, each a process of its own.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from selfsup_cli.config import experiment_files
from selfsup_cli.config.document import write
from selfsup_cli.config.experiment import SCALES, Experiment, ScaleName
from selfsup_cli.config.registry import DATASETS, nearest
from selfsup_cli.errors import InputError, SelfsupError
from selfsup_cli.jobs.reproduce_findings import findings
from selfsup_cli.jobs.reproduce_plan import Given, Plan, Stage, plan
from selfsup_cli.jobs.reproduce_stages import Failure, State, looks_done, run_stages, state
from selfsup_cli.jobs.reproduce_table import Gathered, gather, thesis_numbers
from selfsup_cli.runs import atomic
from selfsup_cli.runs import report as reports
from selfsup_cli.runs.report import Curve, Finding, Picture, Report
from selfsup_cli.runs.run import Run, runs_dir

log = logging.getLogger("selfsup")

JOB = "reproduce"
MOST_LISTED = 10
JUDGED_BY = "judges.inception"
WEIGHTS = "weights-inception-2015-12-05-6726825d.pth"
BEGINS_WITH = "network.weights"


@dataclass
class Outcome:
    """What the command has to say; as `jobs.common.Outcome`, which would import torch."""

    run_dir: Path | None = None
    report: Report | None = None
    text: str = ""
    data: dict[str, Any] = field(default_factory=dict)


class FailedStagesError(SelfsupError):
    """Some stages failed. `outcome` holds the table as far as there is one."""

    def __init__(self, outcome: Outcome, failures: dict[str, Failure]) -> None:
        first = [one for one in failures.values() if one.because is None]
        rest = len(failures) - len(first)
        self.exit_status = next((one.status for one in first if one.status > 0), 1)
        self.outcome = outcome
        self.run_dir = outcome.run_dir
        self.data = {"report": outcome.report, **outcome.data}
        broken = [(run, one) for run, one in failures.items() if one.because is None]
        self.problems = [f"{run}: {one.reason}" for run, one in broken[:MOST_LISTED]]
        if len(broken) > MOST_LISTED:
            self.problems.append(f"… and {len(broken) - MOST_LISTED} more stages failed")
        if rest:
            self.problems.append(f"{rest} stages were not begun because of these")
        super().__init__(
            f"{len(failures)} stages failed",
            kind="stages",
            hint="the same command runs again what failed, and goes on",
        )


class MissingDataError(InputError):
    """Datasets that an experiment needs are not there; `problems` has a sentence for each."""

    def __init__(self, name: str, missing: Sequence[str]) -> None:
        self.problems = list(missing)
        super().__init__(
            "; ".join(missing),
            kind="missing-data",
            hint=f"selfsup reproduce {name} --scale smoke needs no data",
        )


def reproduce(
    name: str,
    *,
    scale: ScaleName = "smoke",
    rows: Sequence[str] = (),
    given: Given | None = None,
    jobs: int = 1,
    command: Sequence[str] = (),
) -> Outcome:
    """Run every stage that is missing, and report the table with what it supports.

    `rows` are patterns of row keys: nothing else is run, but all numbers that are there are shown.
    The same call goes on where it was stopped; when all is done it shows the report at once.
    Raises InputError, FailedStagesError (after the report is written) and Stopped.
    """
    experiment = experiment_files.load(name)
    laid = plan(experiment, scale, given)
    chosen = laid.of_rows(_chooser(experiment, rows))
    prints = _print_of(laid)
    if (done := _finished(laid, prints)) is not None:
        return done
    _require_data(name, laid, chosen)
    # What is wrong in the file of an experiment is told before hours of work, not after.
    thesis_numbers(experiment)
    states = {run: state(stage, laid.stages) for run, stage in laid.stages.items()}
    left = [stage for stage in chosen if not states[stage.run].done]
    log.info("%s: %d of %d stages are done", laid.name, _done(states), len(states))
    failures = run_stages(left, laid.stages, jobs=jobs, say=log.info, relay=_relay)
    for stage in left:
        states[stage.run] = state(stage, laid.stages)
    # Two of these commands may share stages: what one found in use, the other may have made since.
    failures = {run: one for run, one in failures.items() if not states[run].done}
    outcome = _conclude(laid, prints, states, failures, command)
    if failures:
        raise FailedStagesError(outcome, failures)
    return outcome


def script(
    name: str, *, scale: ScaleName = "smoke", rows: Sequence[str] = (), given: Given | None = None
) -> str:
    """The same as a shell script of plain commands, in an order in which they can be run."""
    experiment = experiment_files.load(name)
    laid = plan(experiment, scale, given)
    cost = laid.at.cost
    lines = [
        "#!/bin/sh",
        f"# {experiment.experiment}: {experiment.title}",
        f"# scale {scale}: {laid.at.about} ({cost.hours:g} h; {cost.machine})",
        "# Each command goes on with its own run and can be repeated. One that starts from the run",
        "# of another comes after it; all others may run at the same time, on any machine that",
        "# sees the same $SELFSUP_RUNS.",
    ]
    row = None
    for stage in laid.of_rows(_chooser(experiment, rows)):
        if stage.row != row:
            row = stage.row
            lines.append(f"\n# {row}")
        lines.append(stage.command())
    again = ["selfsup", JOB, name, "--scale", scale, *_given(laid.given)]
    lines += ["\n# the table", shlex.join(again)]
    return "\n".join(lines)


def listing() -> list[dict[str, Any]]:
    """All experiments, and how many of their stages are done at each scale.

    One that cannot be read is listed with its `problem`.
    """
    found: list[dict[str, Any]] = []
    for name in experiment_files.names():
        try:
            experiment = experiment_files.load(name)
            scales = {
                scale: _progress(plan(experiment, scale))
                for scale in SCALES
                if experiment.scale(scale) is not None
            }
        except InputError as error:
            problem = str(error).splitlines()[0]
            found.append({"name": name, "title": "", "rows": [], "scales": {}, "problem": problem})
            continue
        rows = [row.key for row in experiment.rows]
        one = {"name": name, "title": experiment.title, "rows": rows, "scales": scales}
        found.append({**one, "problem": None})
    return found


def _progress(laid: Plan) -> dict[str, Any]:
    done = sum(looks_done(stage) for stage in laid.stages.values())
    cost = laid.at.cost
    return {
        "done": done, "stages": len(laid.stages), "hours": cost.hours, "machine": cost.machine,
    }  # fmt: skip


def stages(
    name: str, *, scale: ScaleName = "smoke", rows: Sequence[str] = (), given: Given | None = None
) -> list[dict[str, Any]]:
    """Every stage of an experiment with its state."""
    experiment = experiment_files.load(name)
    laid = plan(experiment, scale, given)
    found = []
    for stage in laid.of_rows(_chooser(experiment, rows)):
        one = state(stage, laid.stages)
        word = "done" if one.done else "begun" if one.begun else "not begun"
        found.append(
            {
                "run": stage.run,
                "row": stage.row,
                "stage": stage.stage,
                "state": "in the way" if one.problem else word,
                "problem": one.problem,
                "command": stage.command(),
            }
        )
    return found


def _chooser(experiment: Experiment, patterns: Sequence[str]) -> Callable[[str], bool]:
    """Whether a row is among those that the patterns name, and not those that begin with `!`.

    Raises InputError if one names none.
    """
    keys = [row.key for row in experiment.rows]
    no = [pattern.removeprefix("!") for pattern in patterns if pattern.startswith("!")]
    yes = [pattern for pattern in patterns if not pattern.startswith("!")] or ["*"]
    for pattern in (*yes, *no):
        if not any(fnmatchcase(key, pattern) for key in keys):
            raise InputError(
                f"no row of {experiment.experiment} is called '{pattern}'"
                f"{nearest(pattern, keys)}; its rows are: {', '.join(keys)}",
                kind="unknown-row",
            )

    def chosen(key: str) -> bool:
        return any(fnmatchcase(key, one) for one in yes) and not any(
            fnmatchcase(key, one) for one in no
        )

    return chosen


def _require_data(name: str, laid: Plan, chosen: Sequence[Stage]) -> None:
    """Raise MissingDataError if a dataset that is to be read is not where it must be."""
    missing: dict[str, str] = {}
    for field_, option, path in (
        (JUDGED_BY, "--inception", laid.given.inception),
        (BEGINS_WITH, "--imagenet", laid.given.imagenet),
    ):
        if path is not None and not Path(path).is_file():
            missing[field_] = f"{option} {path}: there is no such file"
    for stage in chosen:
        data: Any = getattr(stage.resolved.preset, "data", None)
        if data is None:  # filters are looked at without any
            continue
        known = DATASETS.get(data.source or "")
        if known is not None and known.layout and data.source not in missing:
            from selfsup_cli.data.roots import registered_root

            try:
                registered_root(data.source, data)
            except InputError as error:
                missing[data.source] = f"{laid.name} needs {data.source}: {error}"
        if stage.settings.get(JUDGED_BY, "") is None:
            missing[JUDGED_BY] = (
                f"{laid.name} needs the Inception network of 2015 for FID and the Inception Score, "
                f"which does not come along: get {WEIGHTS} (torch-fidelity's release v0.2.0) and "
                "name it with --inception"
            )
        if stage.settings.get(BEGINS_WITH, "") is None:
            missing[BEGINS_WITH] = (
                f"{laid.name} begins with weights of ImageNet, which do not come along: name a "
                "file (.safetensors) of torchvision's or timm's ResNet-50 with --imagenet"
            )
    if missing:
        raise MissingDataError(name, list(missing.values()))


def _print_of(laid: Plan) -> str:
    """What tells whether the experiment is still the one that a report was made of."""
    text = json.dumps(
        {
            "stages": {run: [one.identity, one.needs] for run, one in laid.stages.items()},
            "experiment": laid.experiment.model_dump(mode="json", exclude={"scales"}),
            "differs": laid.differs,
        },
        sort_keys=True,
    )
    return hashlib.sha256(text.encode()).hexdigest()


def _finished(laid: Plan, prints: str) -> Outcome | None:
    """The report of before, if all was done. Raises InputError if it is of another experiment."""
    path = runs_dir() / laid.name
    if not (path / "run.json").is_file():
        return None
    run = Run.open(path)
    if not run.complete:
        return None
    if run.info.identity.get("experiment") != laid.experiment.experiment:
        raise InputError(f"{path} is a run of another kind; move it away", kind="run-differs")
    report = run.report()
    if report is not None and report.data.get("made_of") != prints:
        raise InputError(
            f"{path} holds the report of an earlier form of {laid.experiment.experiment}; remove "
            "it, and the same command makes it of the runs as they are now",
            kind="run-differs",
        )
    log.info("all is done already")
    return Outcome(run.path, report, data=_data(laid, {}))


def _relay(line: str) -> None:
    log.info("  %s", line)


def _done(states: dict[str, State]) -> int:
    return sum(one.done for one in states.values())


def _conclude(
    laid: Plan,
    prints: str,
    states: dict[str, State],
    failures: dict[str, Failure],
    command: Sequence[str],
) -> Outcome:
    """Write the report of what there is; the run is complete when nothing is missing."""
    found = gather(laid, states, failures)
    run = Run.create_or_continue(
        runs_dir(),
        laid.name,
        preset=write(laid.experiment.model_dump(mode="json", exclude_unset=True)),
        identity={
            "experiment": laid.experiment.experiment,
            "scale": laid.scale,
            "data": laid.given.data,
        },
        command=list(command),
        job=JOB,
        seed=0,
        dataset=None,
        parents=[],
    )
    with run:
        if run.complete:  # somebody else was quicker
            return Outcome(run.path, run.report(), data=_data(laid, states))
        report = _report(run, laid, prints, found, states)
        run.write_report(report)
        done, total = _done(states), len(states)
        if done == total:
            run.finish()
        elif failures:
            run.set_status("failed", reason=f"{len(failures)} stages failed")
        else:
            run.set_status("preempted", reason=f"{done} of {total} stages are done")
    return Outcome(run.path, report, data=_data(laid, states))


def _report(run: Run, laid: Plan, prints: str, found: Gathered, states: dict[str, State]) -> Report:
    seconds = [one.report.cost.get("seconds", 0.0) for one in states.values() if one.report]
    sentences = findings(laid.experiment, found.numbers, found.printed)
    if laid.experiment.about:
        sentences.append(Finding(text=" ".join(laid.experiment.about.split()), verdict="note"))
    return Report(
        job=JOB,
        run=run.name,
        command=shlex.join(run.info.command),
        created=reports.now(),
        findings=sentences,
        table=found.table,
        measurements=list(found.numbers.values()),
        curves=found.curves,
        pictures=[*_drawn(run, found.curves), *_pictures(run, laid, states)],
        data={
            "experiment": laid.experiment.experiment,
            "scale": f"{laid.scale}: {laid.at.about}",
            "stages": f"{_done(states)} of {len(states)} done",
            "made_of": prints,
        },
        cost={"seconds": round(sum(seconds), 1)},
    )


def _drawn(run: Run, lines: list[Curve]) -> list[Picture]:
    """The curves of all rows as a picture."""
    if not lines:
        return []
    from selfsup_cli.visualization import curves

    curves.draw(run.picture("curves.png"), lines)
    over = " and ".join(dict.fromkeys(line.x_label for line in lines))
    return [Picture(file="pictures/curves.png", caption=f"The rows over: {over}.")]


def _pictures(run: Run, laid: Plan, states: dict[str, State]) -> list[Picture]:
    """Copy the pictures of the stages that are done into the run."""
    shown = []
    for one in laid.experiment.pictures:
        row = laid.experiment.row(one.row)
        stage = laid.stages[laid.cells[one.row, row.use.get(one.stage, one.stage)]]
        if not states[stage.run].done:
            continue
        source = stage.path if one.file is None else stage.path / one.file
        name = (
            f"{one.row}-{Path(one.file or source).stem if one.file else one.stage}{source.suffix}"
        )
        atomic.write_bytes(run.picture(name), source.read_bytes())
        shown.append(Picture(file=f"pictures/{name}", caption=one.caption))
    return shown


def _data(laid: Plan, states: dict[str, State]) -> dict[str, Any]:
    return {
        "experiment": laid.experiment.experiment,
        "scale": laid.scale,
        "stages": {run: stage.command() for run, stage in laid.stages.items()},
        "done": [run for run, one in states.items() if one.done] if states else list(laid.stages),
    }


def _given(given: Given) -> list[str]:
    pairs = {
        "--data": given.data,
        "--data-root": given.root,
        "--inception": given.inception,
        "--imagenet": given.imagenet,
    }
    return [word for option, value in pairs.items() if value for word in (option, value)]
