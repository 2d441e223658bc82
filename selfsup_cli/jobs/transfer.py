"""`selfsup transfer TASK`: train on a task from what was learned, and say how well it does."""

from __future__ import annotations

import logging
import math
import shlex
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import product
from typing import Any

import numpy as np

from selfsup_cli.config.blocks import Train
from selfsup_cli.config.pose import TransferPose
from selfsup_cli.config.presets import Resolved, identity
from selfsup_cli.config.transfer_images import Classifying, TransferImages
from selfsup_cli.config.transfers import Transfer
from selfsup_cli.config.weighing import WEIGHED
from selfsup_cli.data.loader import Batches, EpochLoader
from selfsup_cli.data.matched import MatchedSampler
from selfsup_cli.engine import processes, signals
from selfsup_cli.engine.devices import Hardware, choose, loader_workers, tune_allocator
from selfsup_cli.engine.fit import Fit
from selfsup_cli.engine.fit import Outcome as Fitted
from selfsup_cli.engine.progress import Progress
from selfsup_cli.errors import InputError
from selfsup_cli.evaluation.task import Task
from selfsup_cli.evaluation.tasks import create, task_of
from selfsup_cli.jobs import (
    common,
    folds,
    images,
    labels,
    on_labels,
    posed,
    repeats,
    transferred,
)
from selfsup_cli.jobs.common import Outcome, Part, Videos
from selfsup_cli.jobs.few_labels import few
from selfsup_cli.jobs.fitted import tells_fit
from selfsup_cli.jobs.images import Images
from selfsup_cli.jobs.starting import Start, load_start
from selfsup_cli.runs.run import Run, new_name, runs_dir

log = logging.getLogger("selfsup")

# Weight decay that is coupled is hardly ever more.
_COUPLED = 0.02


def transfer(
    resolved: Resolved,
    *,
    run: str | None = None,
    command: Sequence[str] = (),
    dry_run: bool = False,
    quiet: bool = False,
) -> Outcome:
    """Train on a task as the preset says. The same call with the same `run` goes on.

    Several seeds or splits are trained one after the other, each in a run of its own, and
    reported together. With `machine.devices > 1` PyTorch's elastic launcher starts that many
    processes. Raises InputError, MachineError, TrainingError and Stopped.
    """
    preset = _preset(resolved)
    several = len(preset.seeds) * max(len(preset.splits), 1) > 1
    if dry_run:
        return _rehearse(resolved, run)
    if (done := common.finished(run, resolved)) is not None:
        return done
    if several:
        return _repeat(resolved, run, command, quiet=quiet)
    if preset.machine.devices > 1 and not processes.launched():
        name = run or _new_name(resolved)
        processes.launch(preset.machine.devices, _share, resolved, name, list(command), quiet)
        return common.finished(name, resolved) or Outcome(runs_dir() / name)
    return _train(resolved, run, command, quiet=quiet)


def _share(resolved: Resolved, run: str, command: list[str], quiet: bool) -> None:
    """One process of several."""
    _train(resolved, run, command, quiet=quiet)


def _repeat(
    resolved: Resolved, name: str | None, command: Sequence[str], *, quiet: bool
) -> Outcome:
    """Train each seed on each split in a run of its own, and report mean and spread."""
    preset = _preset(resolved)
    if processes.launched():
        raise InputError(
            "several seeds or splits are trained one after the other: start them with --devices, "
            "not with a launcher",
            kind="usage",
        )
    name = name or _new_name(resolved)
    outcomes = []
    with Progress(quiet=quiet) as progress:
        _check_splits(preset, progress)
    with signals.catching():
        splits: list[int | None] = [*preset.splits] or [getattr(preset.data, "split", None)]
        for split, seed in product(splits, preset.seeds):
            ending = (f"-split{split}" if preset.splits else "") + f"-seed{seed}"
            own: dict[str, Any] = {"seeds": [seed]}
            if not isinstance(preset, TransferPose):
                data = preset.data.model_copy(update={"split": split})
                own |= {"splits": [], "data": data}
            one = preset.model_copy(update=own)
            outcomes.append(
                transfer(
                    replace(resolved, preset=one), run=name + ending, command=command, quiet=quiet
                )
            )
        return repeats.together(resolved, name, command, outcomes)


def _train(resolved: Resolved, name: str | None, command: Sequence[str], *, quiet: bool) -> Outcome:
    preset = _preset(resolved)
    seed = preset.seeds[0]
    if preset.optim.name in WEIGHED and preset.optim.weight_decay > _COUPLED:
        log.warning(
            "weight decay of %g is added to the gradient here, and looks like that of adamw; use "
            "--weight-decay 5e-4, and --lr 0.01 for SGD's rate",
            preset.optim.weight_decay,
        )
    hardware = choose(
        preset.machine.device, preset.train.precision, deterministic=preset.train.deterministic
    )
    tune_allocator()
    with (
        processes.group(hardware.device.type),
        signals.catching() as stop,
        Progress(quiet=quiet or processes.rank() > 0) as progress,
    ):
        start = load_start(preset, name, seed)
        train, heldout = _material(preset, start, hardware, progress, name)
        task = create(preset, start.backbone, train.source, seed)
        on_labels.look(task, train)
        run = processes.first_rank_decides(
            lambda: common.started_run(
                resolved,
                name,
                arch=start.backbone.arch,
                data=train.source.name,
                seed=seed,
                command=command,
                dataset=common.describe_both(train, heldout),
                parents=start.parents,
            )
        )
        if run.complete:  # a requeued job that gave it no name finds it here
            return Outcome(run.path, run.report())
        with common.ending(run):
            common.list_bad(run, train, heldout)
            if processes.rank() == 0:
                labels.write_noise(run, train.source)
            run.set_status("running")

            def telling(what: str, kept: str) -> Callable[[int, int], None]:
                told = progress.counting(what)

                def counted(done: int, total: int) -> None:
                    if stop:
                        raise stop.stopped(kept)
                    told(done, total)

                return counted

            task.prepare(
                train.source,
                heldout.source,
                hardware,
                workers=_workers(preset),
                telling=partial(telling, kept="what was prepared"),
            )
            if isinstance(preset, TransferImages) and preset.start.rescale:
                task.rescale(train.source, hardware)
            fit = _fit(task, run, train, heldout, hardware, progress)
            fit.stop = stop
            began = time.monotonic()
            fitted = fit()
            cost = {"seconds": time.monotonic() - began, "steps": float(fitted.step)}
            if processes.rank() > 0:
                return Outcome(run.path)
            counted = telling(f"test {task.many}", "the trained network")
            found = task.ask(heldout.source, hardware, workers=_workers(preset), told=counted)
            trained = None
            if tells_fit(preset):
                counted = telling(f"training {task.many}", "the trained network")
                trained = task.ask(train.source, hardware, workers=_workers(preset), told=counted)
            confident = None
            if isinstance(preset, Classifying) and preset.suspects.folds:
                assert isinstance(train, Images)  # noqa: S101 (it is about images)
                confident = folds.judged(run, preset, train, seed, hardware, progress, stop)
            seen = on_labels.Seen(trained, len(fit.loader), confident)
            return _conclude(run, task, start, train, heldout, found, seen, fitted, cost)


def _preset(resolved: Resolved) -> Transfer:
    assert isinstance(resolved.preset, Transfer)  # noqa: S101 (there are two kinds)
    return resolved.preset


def _new_name(resolved: Resolved) -> str:
    preset = _preset(resolved)
    return new_name(preset.name, None, preset.data.source or "data", identity(preset))


def _workers(preset: Transfer) -> int:
    return loader_workers(preset.machine.workers, preset.machine.devices)


def _material(
    preset: Transfer, start: Start, hardware: Hardware, progress: Progress, run: str | None
) -> tuple[Part, Part]:
    """What to train on, as much as `--fraction` says, and what to test on."""
    train, test = processes.first_rank_decides(lambda: _open(preset, start, progress))
    if preset.fraction < 1:
        chosen = few(train.source, preset.fraction, preset.seeds[0])
        if isinstance(train, Images):
            train = Images(train.source.subset(chosen), train.left_out)
        elif isinstance(train, posed.Posed):
            train = posed.Posed(train.source.subset(chosen), train.left_out)
        else:
            assert isinstance(train, Videos)  # noqa: S101 (there are two kinds)
            train = Videos(train.source.subset(chosen), train.left_out)
    if not isinstance(preset, Classifying):
        return train, test
    assert isinstance(train, Images)  # noqa: S101 (it is about images)
    if preset.suspects.folds:
        folds.check(preset, train.source)
    assert isinstance(test, Images)  # noqa: S101
    both = train, test
    return processes.first_rank_decides(
        lambda: labels.with_noise(preset, *both, hardware, progress, run)
    )


def _open(preset: Transfer, start: Start, progress: Progress) -> tuple[Part, Part]:
    """Both parts; of several splits, those of the first."""
    if isinstance(preset, TransferPose):
        return posed.open_parts(preset, start, progress)
    task = task_of(preset)
    _check_splits(preset, progress)
    split = {"split": preset.splits[0]} if preset.splits else {}
    if isinstance(preset, TransferImages):
        data = preset.data.model_copy(update=split)
        return images.open_parts(
            data, preset.machine, progress, labels=task.labelled, opener=task.opener
        )
    needed = task.min_frames(preset, start.backbone.input.frames)
    videos = preset.data.model_copy(update=split)
    return common.open_parts(
        videos, preset.machine, progress, labels=task.labelled, min_frames=needed
    )


def _check_splits(preset: Transfer, progress: Progress) -> None:
    """Raise InputError if one of `--splits` cannot be opened, before any of them is trained."""
    if isinstance(preset, TransferPose):
        return
    task = task_of(preset)
    labels = task.labelled
    if isinstance(preset, TransferImages):
        if not preset.splits:
            return
        undivided = preset.data.model_copy(update={"split": None})
        machine = preset.machine
        whole, _ = images.open_parts(
            undivided, machine, progress, labels=labels, opener=task.opener
        )
        for split in preset.splits:
            images.open_fold(
                undivided,
                split,
                whole.source,
                "--splits",
                labels=labels,
                machine=machine,
                progress=progress,
                opener=task.opener,
            )
        return
    for split in preset.splits:
        data = preset.data.model_copy(update={"split": split})
        common.open_parts(data, preset.machine, progress, labels=labels)


def _fit(
    task: Task,
    run: Run | None,
    part: Part,
    heldout: Part,
    hardware: Hardware,
    progress: Progress,
) -> Fit:
    preset = task.preset
    train = Train(**preset.train.model_dump(), seed=task.seed)

    def check(epoch: int, step: int) -> dict[str, float]:
        if processes.rank() > 0:
            return {}
        found = task.ask(heldout.source, hardware, workers=_workers(preset), quick=True)
        name, share = task.grade(found)
        if math.isnan(share):  # so few images may hold nothing that counts
            return {}
        told = name.replace("_", " ")
        progress.update(f"epoch {epoch}: {told} {100 * share:.1f}% (quick)", force=True)
        if not tells_fit(preset):
            return {name: share}
        own = task.ask(part.source, hardware, workers=_workers(preset), quick=True)
        return {name: share, name.replace("test", "train"): task.grade(own)[1]}

    return Fit(
        task,
        EpochLoader(
            task.samples(part.source),
            len(part.source),
            batch_size=train.batch_size,
            seed=task.seed,
            workers=_workers(preset),
            rank=processes.rank(),
            world=processes.world(),
            pin=hardware.device.type == "cuda",
            join=task.join,
            sampler=_sampler(task, part, train.batch_size),
        ),
        train,
        preset.optim,
        hardware,
        progress,
        run=run,
        check=check if preset.check_epochs else None,
        check_every=preset.check_epochs,
        max_bad=preset.data.max_bad,
        samples=len(part.source),
        many=task.many,
    )


def _sampler(task: Task, part: Part, batch_size: int) -> Batches | None:
    """Batches of mini-batches with the same labels, where they are weighted; else None."""
    how = task.weighing
    if how is None:
        return None
    sampler = MatchedSampler(
        task.matched(part.source, how.count)
        if how.matched
        else np.zeros(len(part.source), np.int64),
        batch_size,
        how.count,
        task.seed,
        processes.rank(),
        processes.world(),
        validation=how.validation,
    )
    if how.matched and sampler.few and processes.rank() == 0:
        log.warning(
            "%d labels have fewer training %s than there are mini-batches (%d), the rarest %d: "
            "where one comes up, mini-batches share some of them, but the first one shares none "
            "with the others unless there is a single one",
            len(sampler.few),
            task.many,
            how.count,
            min(sampler.few.values()),
        )
    return sampler


def _conclude(
    run: Run,
    task: Task,
    start: Start,
    train: Part,
    heldout: Part,
    found: Any,
    seen: on_labels.Seen,
    fitted: Fitted,
    cost: dict[str, float],
) -> Outcome:
    """Keep network and predictions, draw the pictures, write the report."""
    weights = transferred.keep(run, task, start, train, fitted.step)
    transferred.write_predictions(run.path / "predictions.csv", found)
    rows = transferred.measure(task, start, train, heldout, found, weights)
    pictures = transferred.draw(run, task, found, train.source.name)
    more, drawn, said = on_labels.leave(run, task, train, rows, seen)
    report = transferred.reported(
        run,
        task,
        [*rows, *more],
        [*pictures, *drawn],
        notes=[*said, *transferred.notes(task, start, train, heldout)],
        weights=weights,
        cost=cost,
        command=shlex.join(run.info.command),
        data=common.describe_both(train, heldout),
        left_out=[*train.left_out, *heldout.left_out],
    )
    run.write_report(report)
    run.finish(step=fitted.step)
    return Outcome(run.path, report)


def _rehearse(resolved: Resolved, name: str | None) -> Outcome:
    """What would be done. Raises what `transfer` would raise before its first step."""
    preset = _preset(resolved)
    hardware = choose(preset.machine.device, preset.train.precision)
    with Progress() as progress:
        start = load_start(preset, name, preset.seeds[0])
        train, heldout = _material(preset, start, hardware, progress, name)
    task = create(preset, start.backbone, train.source, preset.seeds[0])
    fit = _fit(task, None, train, heldout, hardware, progress)
    trained = sum(p.numel() for p in task.parameters() if p.requires_grad)
    everything = sum(p.numel() for p in task.parameters())
    frozen = ", ".join(task.plain.frozen) or "none"
    runs = len(preset.seeds) * max(len(preset.splits), 1)
    where = runs_dir() / (name or _new_name(resolved))
    text = (
        f"from: {start.run} ({start.backbone.arch}, {start.subject})\n"
        f"data: {len(train.source)} training and {len(heldout.source)} test {task.many} of "
        f"{train.source.name} ({heldout.source.split_rule}); "
        f"{len(train.left_out) + len(heldout.left_out)} left out\n"
        f"task: {task.name}, {len(task.classes)} answers; {task.plain.describe()['head']}\n"
        f"network: {trained:,} of {everything:,} parameters are trained; frozen: {frozen}\n"
        f"training: {fit.total} updates of {preset.train.batch_size} {task.many}"
        f"{f', {runs} times' if runs > 1 else ''}\n"
        f"machine: {preset.machine.devices} × {hardware.device}, precision {hardware.precision}\n"
        f"run: {where}{' (exists: it would go on)' if where.exists() else ''}"
    )
    facts = {
        "from": start.run,
        "subject": start.subject,
        task.many: len(train.source),
        f"test_{task.many}": len(heldout.source),
        "answers": list(task.classes),
        "parameters": everything,
        "trained_parameters": trained,
        "frozen": list(task.plain.frozen),
        "updates": fit.total,
        "runs": runs,
        "run": str(where),
    }
    return Outcome(text=text, data=facts)
