"""`selfsup runs list|show|resume|verify`."""

from __future__ import annotations

import contextlib
import os
import shlex
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from selfsup_cli.cli import console, document, work
from selfsup_cli.cli.groups import HOUSE, Action, NamedGroup
from selfsup_cli.errors import InputError

if TYPE_CHECKING:
    from selfsup_cli.runs.run import Run, RunSummary

Json = Annotated[bool, typer.Option("--json", help="Print the result as one JSON document.")]
Reference = Annotated[
    str,
    typer.Argument(metavar="RUN", help="A run's name, its path, or the path of a file in it."),
]

app = typer.Typer(name="runs", cls=NamedGroup, help="List, show, resume and verify runs.", **HOUSE)


def load() -> Any:
    """The group of commands."""
    return typer.main.get_command(app)


@app.callback()
def _group() -> None:
    pass


@app.command("list")
def _list(as_json: Json = False) -> Action:
    """List the runs in $SELFSUP_RUNS (default: runs), the newest first."""
    return lambda: _show_list(as_json)


@app.command("show")
def _show(run: Reference, as_json: Json = False) -> Action:
    """Show a run: how far it is, its attempts, its preset and its report."""
    return lambda: _show_run(run, as_json)


@app.command("resume")
def _resume(
    context: typer.Context,
    run: Reference,
    as_json: Json = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Only results, warnings and errors.")
    ] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Say also what was decided and why.")
    ] = False,
) -> Action:
    """Go on with a run where it stopped, with its own preset."""
    call = work.Call(
        job="",
        options={},
        preset=None,
        sets=(),
        as_json=as_json,
        verbosity=-1 if quiet else int(verbose),
        arguments=context.obj["arguments"],
    )
    return lambda: _go_on(run, call)


@app.command("verify")
def _verify(
    runs: Annotated[
        list[str] | None,
        typer.Argument(metavar="RUN", help="Runs: names or paths. [default: all]"),
    ] = None,
    as_json: Json = False,
) -> Action:
    """Check that runs are what was written: manifests, records and checkpoints.

    The exit status is 2 if something is damaged."""
    return lambda: _verify_runs(runs or [], as_json)


def _show_list(as_json: bool) -> None:
    from selfsup_cli.runs.run import list_runs, runs_dir

    work.listen(0)
    folder = runs_dir()
    runs = list_runs(folder)
    if as_json:
        document.success({"folder": folder, "runs": [asdict(one) for one in runs]})
    elif not runs:
        console.say(f"there are no runs in {console.plain(folder)} yet")
    else:
        from selfsup_cli.cli import report

        head = ("name", "job", "state", "step", "age", "headline")
        rows = [[console.plain(cell) for cell in _row(one)] for one in runs]
        console.emit(report.table(head, rows, right=("step", "age"), wraps=("headline",)))


def _row(one: RunSummary) -> tuple[str, ...]:
    step = "" if one.step is None else str(one.step)
    return (one.name, one.job, one.state, step, _age(one.updated), one.headline or "")


def _age(moment: str) -> str:
    """How long ago an ISO moment was, in its largest unit."""
    try:
        seconds = (datetime.now(UTC) - datetime.fromisoformat(moment)).total_seconds()
    except (ValueError, TypeError):
        return "?"
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{int(seconds // length)} {unit}"
    return f"{max(0, int(seconds))} s"


def _show_run(reference: str, as_json: bool) -> None:
    from selfsup_cli.runs.run import find_run, runs_dir, summarize

    work.listen(0)
    run = find_run(reference, runs_dir(), finished=False)
    report_ = run.report()
    preset = _preset_text(run)
    summary = summarize(run.path)
    if as_json:
        data = {
            "summary": asdict(summary),
            "status": run.status.plain(),
            "info": run.info.plain(),
            "preset": preset,
        }
        document.success(data, run=run.path, report=report_)
        return
    step = "" if summary.step is None else f" at step {summary.step}"
    lines = [
        f"run       {run.path}",
        f"job       {', '.join(filter(None, (run.info.job, summary.arch, summary.data)))}",
        f"state     {summary.state}{step}{_because(run.status.reason, ': ')}",
        f"created   {run.info.created}, seed {run.info.seed}",
        f"command   {' '.join(run.info.command)}",
    ]
    for number, attempt in enumerate(run.attempts, 1):
        step = "" if attempt.step is None else f", step {attempt.step}"
        lines.append(
            f"attempt {number} {attempt.start} … {attempt.end or 'no end'} on {attempt.host} "
            f"(process {attempt.pid}){step}{_because(attempt.reason, ', ')}"
        )
    text = "\n".join(console.plain(line) for line in lines)
    text += "\n\n" + console.plain(preset, lines=True).rstrip("\n")
    if report_ is not None:
        from selfsup_cli.cli import report

        text += "\n\n" + report.show(report_, folder=run.path)
    console.emit(f"{text}\n{console.plain(run.path)}")


def _verify_runs(references: list[str], as_json: bool) -> None:
    from selfsup_cli.runs.run import list_runs, located, runs_dir

    work.listen(0)
    folder = runs_dir()
    if references:
        paths = [located(reference, folder) for reference in references]
    else:
        paths = [one.path for one in list_runs(folder)]
    if not paths:
        console.say(f"there are no runs in {console.plain(folder)} yet")
    # What a library prints while it is imported is no part of the result.
    with contextlib.redirect_stdout(sys.stderr):
        from selfsup_cli.jobs.verify import DamagedError, verify

        verdicts = [verify(path) for path in dict.fromkeys(paths)]
    damaged = any(one.problems for one in verdicts)
    lines = [console.plain(one) for one in verdicts if not one.problems]
    if not as_json and lines:
        console.emit("\n".join(lines))
    elif as_json and not damaged:
        document.success({"runs": verdicts})
    if damaged:
        raise DamagedError(verdicts)


def _because(reason: str | None, joint: str) -> str:
    return f"{joint}{reason}" if reason else ""


def _preset_text(run: Run) -> str:
    try:
        return run.preset()
    except UnicodeDecodeError as error:
        raise InputError(
            f"run {run.name} is damaged: its preset.yaml cannot be read ({error})", kind="run"
        ) from error


def _go_on(reference: str, call: work.Call) -> None:
    from selfsup_cli.config.presets import resolve
    from selfsup_cli.runs.run import find_run, runs_dir

    work.listen(call.verbosity)
    run = find_run(reference, runs_dir(), finished=False)
    _preset_text(run)  # raises if it is damaged
    if run.info.job == "reproduce":
        raise InputError(
            f"run {run.name} is the table of an experiment, whose stages are runs of their own",
            kind="run-unfit",
            hint=f"go on with it: {shlex.join(run.info.command)}",
        )
    found = resolve(run.info.job, preset=str(run.path.absolute() / "preset.yaml"))
    # A run given by its path goes on where it lies.
    os.environ["SELFSUP_RUNS"] = str(run.path.absolute().parent)
    work.announce(found, call.verbosity)
    job = work.module_of(run.info.job)
    outcome = work.perform(
        job, job, found, run=run.name, command=run.info.command, quiet=call.verbosity < 0
    )
    work.show(outcome, call)
