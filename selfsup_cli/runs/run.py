"""Runs by name: where they lie, what they are called, and which one a reference means."""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from selfsup_cli.config.registry import nearest
from selfsup_cli.errors import InputError
from selfsup_cli.runs import record
from selfsup_cli.runs.folder import Run
from selfsup_cli.runs.lock import held_by

__all__ = [
    "Run",
    "RunSummary",
    "find_run",
    "list_runs",
    "located",
    "new_name",
    "runs_dir",
    "summarize",
]


def runs_dir() -> Path:
    """Where runs lie: `$SELFSUP_RUNS`, or `runs` in the current folder."""
    return Path(os.environ.get("SELFSUP_RUNS") or "runs")


def new_name(
    job: str, arch: str | None, data: str | None, identity: Mapping[str, Any] | None = None
) -> str:
    """A fresh name, `<job>-<arch>-<data>-<YYYYmmdd-HHMMSS>-<4 hex>` in local time.

    `job` is the method of a pretraining. Of a path, the last part is taken. Under SLURM the name
    ends in `job<id>` or `job<array id>_<task>` instead of a time, and four digits that stand for
    `identity`, the preset's: a job that is requeued keeps its id, and so finds its runs.
    """
    parts = [job, arch or "", Path(data or "").name.removesuffix(".csv")]
    words = [re.sub(r"[^A-Za-z0-9_]+", "_", part).strip("_")[:40] for part in parts]
    ending, digits = f"{datetime.now():%Y%m%d-%H%M%S}", secrets.token_hex(2)
    if (slurm := _slurm_job()) is not None:
        text = json.dumps(record.plain(identity or {}), sort_keys=True)
        ending, digits = slurm, hashlib.sha256(text.encode()).hexdigest()[:4]
    return "-".join([*filter(None, words), ending, digits])


def _slurm_job() -> str | None:
    array, task, job = (
        os.environ.get(f"SLURM_{name}", "") for name in ("ARRAY_JOB_ID", "ARRAY_TASK_ID", "JOB_ID")
    )
    if array.isdigit() and task.isdigit():
        return f"job{array}_{task}"
    return f"job{job}" if job.isdigit() else None


@dataclass(frozen=True)
class RunSummary:
    """One line of `selfsup runs list`.

    `state` is that of `status.json`, or `killed` for a run that nobody is working on although its
    last attempt did not end, or `damaged`. `headline` is the report's first finding, or the reason
    of the state.
    """

    name: str
    path: Path
    job: str
    arch: str | None
    data: str | None
    state: str
    step: int | None
    created: str
    updated: str
    headline: str | None
    backbone: Path | None


def summarize(path: Path) -> RunSummary:
    """The summary of the run at `path`. A damaged run is summarised as that, not raised."""
    try:
        run = Run.open(path)
        report = run.report()
    except InputError as error:
        name = path.absolute().name
        return RunSummary(
            name, path, "?", None, None, "damaged", None, "", "", " ".join(str(error).split()), None
        )
    state: str = run.status.state
    if run.attempts and run.attempts[-1].end is None and held_by(path / "run.lock") is None:
        state = "killed"
    return RunSummary(
        name=run.name,
        path=path,
        job=run.info.job,
        arch=run.info.arch,
        data=run.info.data,
        state=state,
        step=run.status.step,
        created=run.info.created,
        updated=run.status.updated,
        headline=report.findings[0].text if report and report.findings else run.status.reason,
        backbone=run.backbone,
    )


def list_runs(folder: Path) -> list[RunSummary]:
    """All runs in `folder`, the newest first. A folder that is missing holds none."""
    try:
        paths = [path for path in folder.iterdir() if (path / "run.json").is_file()]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise InputError(f"cannot read {folder}: {error.strerror}", kind="runs") from error
    summaries = [summarize(path) for path in paths]
    return sorted(summaries, key=lambda one: (one.created, one.name), reverse=True)


def find_run(
    reference: str,
    folder: Path,
    *,
    needs: Callable[[RunSummary], str | None] = lambda summary: None,
    finished: bool = True,
) -> Run:
    """The run that `reference` means, open for reading.

    `reference` is the name of a run in `folder`, the path of a run or of anything inside one, or
    `latest`: of the complete runs that fit, the one that was completed last. `needs` gives the
    reason why a run does not fit, or None. `finished=False` takes unfinished runs by name too.

    Raises InputError: no run of that name (the nearest is offered), an unfinished run, a run that
    does not fit, or, for `latest`, none that does (with the reason for each).
    """
    if reference == "latest":
        return _latest(folder, needs)
    try:
        summary = summarize(located(reference, folder))
    except OSError as error:
        raise InputError(f"cannot read {reference}: {error.strerror}", kind="no-run") from error
    if summary.state == "damaged":
        raise InputError(f"run {summary.name} is damaged: {summary.headline}", kind="run")
    if finished and (unfinished := _unfinished(summary)):
        raise InputError(
            f"run {summary.name} is not finished ({unfinished})",
            kind="run-unfinished",
            hint=f"go on with it: selfsup runs resume {summary.name}",
        )
    if reason := needs(summary):
        raise InputError(f"run {summary.name} does not fit: {reason}", kind="run-unfit")
    return Run.open(summary.path)


def _latest(folder: Path, needs: Callable[[RunSummary], str | None]) -> Run:
    rejected = []
    for summary in sorted(list_runs(folder), key=lambda one: one.updated, reverse=True):
        damaged = "damaged" if summary.state == "damaged" else None
        reason = damaged or _unfinished(summary) or needs(summary)
        if reason is None:
            return Run.open(summary.path)
        rejected.append(f"{summary.name}: {reason}")
    if not rejected:
        raise InputError(
            f"there are no runs in {folder} yet; make one with `selfsup pretrain`, "
            "or say where it lies with --from PATH",
            kind="no-run",
        )
    raise InputError(f"no run in {folder} fits:{record.listed(rejected, 10)}", kind="no-run")


def _unfinished(summary: RunSummary) -> str | None:
    if summary.state == "complete":
        return None
    return summary.state if summary.step is None else f"{summary.state} at step {summary.step}"


def located(reference: str, folder: Path) -> Path:
    """Where the run lies that a name or path means, in whatever state. Raises InputError."""
    try:
        if reference and (folder / reference / "run.json").is_file():
            return folder / reference
        path = Path(reference)
        if reference and path.exists():
            for place in (path, *path.absolute().parents):
                if (place / "run.json").is_file():
                    return place
            raise InputError(f"{reference} is neither a run nor part of one", kind="no-run")
    except OSError as error:
        short = reference if len(reference) <= 200 else f"{reference[:199]}…"
        raise InputError(f"cannot read {short}: {error.strerror}", kind="no-run") from error
    if os.sep in reference:
        raise InputError(f"there is no run at {reference}", kind="no-run")
    names = [summary.name for summary in list_runs(folder)]
    known = f"; see `selfsup runs list` for the {len(names)} in {folder}" if names else ""
    raise InputError(
        f"there is no run '{reference}' in {folder}{nearest(reference, names)}{known}",
        kind="no-run",
    )
