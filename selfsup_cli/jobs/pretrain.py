"""`selfsup pretrain METHOD`: learn from data without labels, and say whether it is learning."""

from __future__ import annotations

import shlex
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from selfsup_cli.config.bilevel import PretrainBilevel
from selfsup_cli.config.presets import Resolved, identity
from selfsup_cli.engine import processes, signals
from selfsup_cli.engine.devices import choose, tune_allocator
from selfsup_cli.engine.fit import Fit
from selfsup_cli.engine.fit import Outcome as Fitted
from selfsup_cli.engine.progress import Progress
from selfsup_cli.errors import InputError
from selfsup_cli.evaluation.shortcut_scores import ShortcutReport
from selfsup_cli.jobs import common, repeats, shortcuts
from selfsup_cli.jobs.common import AnyPart, Outcome
from selfsup_cli.jobs.pretraining import Checks, Work
from selfsup_cli.jobs.rehearse import rehearse
from selfsup_cli.jobs.training_curves import training_curves
from selfsup_cli.jobs.works import work_of
from selfsup_cli.runs import report as reports
from selfsup_cli.runs.report import Picture, Report
from selfsup_cli.runs.run import Run, new_name, runs_dir
from selfsup_cli.visualization import curves


def pretrain(
    resolved: Resolved,
    *,
    run: str | None = None,
    command: Sequence[str] = (),
    dry_run: bool = False,
    quiet: bool = False,
) -> Outcome:
    """Pretrain as the preset says. The same call with the same `run` goes on where it stopped.

    With `machine.devices > 1` PyTorch's elastic launcher starts that many processes. Several seeds
    are trained one after the other, each in a run of its own, and reported together. Raises
    InputError, MachineError, TrainingError and Stopped, each a sentence for the user.
    """
    if isinstance(resolved.preset, PretrainBilevel):
        from selfsup_cli.jobs.transfer import transfer  # which draws its curves as is done here

        return transfer(resolved, run=run, command=command, dry_run=dry_run, quiet=quiet)
    work = work_of(resolved)
    preset = work.preset
    if dry_run:
        return rehearse(resolved, run)
    if (done := common.finished(run, resolved)) is not None:
        return done
    if work.seeds:
        return _repeat(resolved, work.seeds, run or _new_name(resolved), command, quiet=quiet)
    devices = preset.machine.devices
    if devices > 1 and not processes.launched():
        name = run or _new_name(resolved)
        processes.launch(devices, _share, resolved, name, list(command), quiet)
        return common.finished(name, resolved) or Outcome(runs_dir() / name)
    return _train(resolved, run, command, quiet=quiet)


def _new_name(resolved: Resolved) -> str:
    preset = work_of(resolved).preset
    data = Path(preset.data.source or "data").name
    return new_name(preset.name, preset.network.arch, data, identity(preset))


def _repeat(
    resolved: Resolved, seeds: Sequence[int], name: str, command: Sequence[str], *, quiet: bool
) -> Outcome:
    """Train for each seed in a run of its own, and report mean and spread."""
    if processes.launched():
        raise InputError(
            "several seeds are trained one after the other: start them with --devices, not with a "
            "launcher",
            kind="usage",
        )
    preset = work_of(resolved).preset
    outcomes = []
    with signals.catching():
        for seed in seeds:
            train = preset.train.model_copy(update={"seed": seed, "seeds": []})
            one = replace(resolved, preset=preset.model_copy(update={"train": train}))
            outcomes.append(pretrain(one, run=f"{name}-seed{seed}", command=command, quiet=quiet))
        return repeats.together(resolved, name, command, outcomes)


def _share(resolved: Resolved, run: str, command: list[str], quiet: bool) -> None:
    """One process of several."""
    _train(resolved, run, command, quiet=quiet)


def _train(resolved: Resolved, name: str | None, command: Sequence[str], *, quiet: bool) -> Outcome:
    work = work_of(resolved)
    preset = work.preset
    hardware = choose(
        preset.machine.device, preset.train.precision, deterministic=preset.train.deterministic
    )
    tune_allocator()
    with (
        processes.group(hardware.device.type),
        signals.catching() as stop,
        Progress(quiet=quiet or processes.rank() > 0) as progress,
    ):
        # The first process indexes what is not indexed yet; the others find it in the cache.
        train, heldout = processes.first_rank_decides(lambda: work.open(progress))
        parents = work.begin(name)
        method = work.create(train)
        run = processes.first_rank_decides(
            lambda: _start(resolved, name, command, work, train, parents)
        )
        if run.complete:  # a requeued job that gave it no name finds it here
            return Outcome(run.path, run.report())
        with common.ending(run):
            common.list_bad(run, train, heldout)
            monitor = work.monitor(heldout, hardware, progress)
            fit = Fit(
                method,
                work.loader(train, hardware),
                preset.training,
                preset.optim,
                hardware,
                progress,
                run=run,
                stop=stop,
                check=monitor,
                check_every=preset.monitor.every_epochs,
                watch=work.watch(run, train),
                max_bad=preset.data.max_bad,
                samples=len(train.source),
                many=work.many,
            )
            began = time.monotonic()
            run.set_status("running")
            fitted = fit()
            cost = {"seconds": time.monotonic() - began, "steps": fitted.step}
            if processes.rank() > 0:
                return Outcome(run.path)
            looked = work.shortcuts(train, heldout, hardware, progress, stop)
            return _conclude(run, work, monitor, train, heldout, fitted, cost, looked)


def _start(
    resolved: Resolved,
    name: str | None,
    command: Sequence[str],
    work: Work[AnyPart],
    part: AnyPart,
    parents: list[dict[str, Any]],
) -> Run:
    return common.started_run(
        resolved,
        name,
        arch=work.preset.network.arch,
        data=part.source.name,
        seed=work.preset.train.seed,
        command=command,
        dataset=common.describe(part.source),
        parents=parents,
    )


def _conclude(
    run: Run,
    work: Work[AnyPart],
    monitor: Checks,
    train: AnyPart,
    heldout: AnyPart,
    fitted: Fitted,
    cost: dict[str, float],
    looked: ShortcutReport | None,
) -> Outcome:
    """Keep what was learned, draw the curves and what else there is to see, write the report."""
    preset = work.preset
    epochs = fitted.step / (len(train.source) // work.per_update) - preset.beforehand
    weights = work.keep(
        run,
        train,
        {
            "method": preset.name,
            "data": train.source.name,
            "split": train.source.split_rule,
            "fingerprint": train.source.fingerprint,
            **work.about(),
            "epochs": int(epochs) if epochs.is_integer() else round(epochs, 2),
            "steps": fitted.step,
            "run": run.name,
        },
    )
    last = monitor.concluded()
    drawn = training_curves(run.metrics(), last.chances())
    curves.draw(run.picture("curves.png"), drawn)
    findings, measurements = last.findings(), monitor.measurements()
    pictures = [
        Picture(file="pictures/curves.png", caption="Training and held-out curves."),
        *work.pictures(train, run),
    ]
    if looked is not None:
        source = heldout.source
        findings += looked.findings()
        measurements += looked.measurements(dataset=source.name, split=source.split_rule)
        shortcuts.draw(looked, run.picture("shortcuts.png"), f"Shortcuts: {source.name}")
        pictures.append(Picture(file="pictures/shortcuts.png", caption=shortcuts.CAPTION))
    report = Report(
        job=f"pretrain/{preset.name}",
        run=run.name,
        command=shlex.join(run.info.command),
        created=reports.now(),
        findings=findings,
        measurements=measurements,
        curves=drawn,
        pictures=pictures,
        data={"train": common.describe(train.source), "heldout": common.describe(heldout.source)},
        weights=weights,
        cost={name: round(value, 1) for name, value in cost.items()},
        **reports.left_out([*train.left_out, *heldout.left_out]),
    )
    run.write_report(report)
    run.finish(step=fitted.step)
    return Outcome(run.path, report)
