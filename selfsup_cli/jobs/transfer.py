"""`selfsup transfer TASK`: train on a task from what was learned, and say how well it does."""

from __future__ import annotations

import shlex
import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import product

import numpy as np

from selfsup_cli.config.blocks import Train
from selfsup_cli.config.presets import Resolved, identity
from selfsup_cli.config.transfer import TransferVideo
from selfsup_cli.data.loader import ClipDataset, EpochLoader
from selfsup_cli.data.source import ClipSource
from selfsup_cli.engine import processes, signals
from selfsup_cli.engine.devices import Hardware, choose, loader_workers, tune_allocator
from selfsup_cli.engine.fit import Fit
from selfsup_cli.engine.fit import Outcome as Fitted
from selfsup_cli.engine.progress import Progress
from selfsup_cli.errors import InputError
from selfsup_cli.evaluation.clip_task import Answers, ClipTask
from selfsup_cli.evaluation.tasks import task_of
from selfsup_cli.jobs import common, findings, repeats, transferred
from selfsup_cli.jobs.common import Outcome, Videos
from selfsup_cli.jobs.starting import Start, load_start
from selfsup_cli.randomness import derive
from selfsup_cli.runs.run import Run, new_name, runs_dir


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
    with signals.catching():
        for split, seed in product(preset.splits or [preset.data.split], preset.seeds):
            ending = (f"-split{split}" if preset.splits else "") + f"-seed{seed}"
            data = preset.data.model_copy(update={"split": split})
            one = preset.model_copy(update={"seeds": [seed], "splits": [], "data": data})
            outcomes.append(
                transfer(
                    replace(resolved, preset=one), run=name + ending, command=command, quiet=quiet
                )
            )
        return repeats.together(resolved, name, command, outcomes)


def _train(resolved: Resolved, name: str | None, command: Sequence[str], *, quiet: bool) -> Outcome:
    preset = _preset(resolved)
    seed = preset.seeds[0]
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
        videos, heldout = _material(preset, start, progress)
        task = task_of(preset)(preset, start.backbone, _answers(preset, videos.source), seed)
        run = processes.first_rank_decides(
            lambda: common.started_run(
                resolved,
                name,
                arch=start.backbone.arch,
                data=videos.source.name,
                seed=seed,
                command=command,
                dataset=common.describe_both(videos, heldout),
                parents=start.parents,
            )
        )
        if run.complete:  # a requeued job that gave it no name finds it here
            return Outcome(run.path, run.report())
        with common.ending(run):
            common.list_bad(run, videos, heldout)
            fit = _fit(task, start, run, videos, heldout, hardware, progress)
            fit.stop = stop
            began = time.monotonic()
            run.set_status("running")
            fitted = fit()
            cost = {"seconds": time.monotonic() - began, "steps": float(fitted.step)}
            if processes.rank() > 0:
                return Outcome(run.path)
            told = progress.counting("test videos")

            def counted(done: int, total: int) -> None:
                if stop:
                    raise stop.stopped("the trained network")
                told(done, total)

            found = task.ask(heldout.source, hardware, workers=_workers(preset), told=counted)
            return _conclude(run, task, start, videos, heldout, found, fitted, cost)


def _preset(resolved: Resolved) -> TransferVideo:
    assert isinstance(resolved.preset, TransferVideo)  # noqa: S101 (all tasks so far)
    return resolved.preset


def _new_name(resolved: Resolved) -> str:
    preset = _preset(resolved)
    return new_name(preset.name, None, preset.data.source or "data", identity(preset))


def _workers(preset: TransferVideo) -> int:
    return loader_workers(preset.machine.workers, preset.machine.devices)


def _material(preset: TransferVideo, start: Start, progress: Progress) -> tuple[Videos, Videos]:
    """The videos to train on, as many as `--fraction` says, and those to test on."""
    task = task_of(preset)
    needed = task.min_frames(preset, start.backbone.input.frames)
    train, test = processes.first_rank_decides(
        lambda: common.open_parts(
            preset.data, preset.machine, progress, labels=task.labelled, min_frames=needed
        )
    )
    if preset.fraction < 1:
        chosen = few(train.source, preset.fraction, preset.seeds[0])
        train = Videos(train.source.subset(chosen), train.left_out)
    return train, test


def few(source: ClipSource, fraction: float, seed: int) -> np.ndarray:
    """Positions (ascending int64) of a share of the videos, the same share of every class.

    Chosen by a seeded hash of the ids, so that a larger share holds a smaller one. Raises
    InputError if a class would be left without any.
    """
    order = sorted(range(len(source)), key=lambda i: derive(seed, source.ids[i], "fraction"))
    if source.labels is None or source.classes is None:
        count = round(fraction * len(source))
        if count == 0:
            raise InputError(
                f"fraction {fraction:g} of {len(source)} videos of {source.name} is none",
                kind="fraction",
            )
        return np.array(sorted(order[:count]), dtype=np.int64)
    kept: list[int] = []
    for c, name in enumerate(source.classes):
        own = [i for i in order if source.labels[i] == c]
        count = round(fraction * len(own))
        if own and count == 0:
            raise InputError(
                f"fraction {fraction:g} leaves the class {name} of {source.name}, which has "
                f"{len(own)} training videos, without any; use --fraction {1 / len(own):.2g} or "
                "more",
                kind="fraction",
            )
        kept += own[:count]
    return np.array(sorted(kept), dtype=np.int64)


def _answers(preset: TransferVideo, source: ClipSource) -> tuple[str, ...]:
    return task_of(preset).answers(preset, source)


def _fit(
    task: ClipTask,
    start: Start,
    run: Run | None,
    videos: Videos,
    heldout: Videos,
    hardware: Hardware,
    progress: Progress,
) -> Fit:
    preset = task.preset
    train = Train(**preset.train.model_dump(), seed=task.seed)
    dataset = ClipDataset(videos.source, task.plan, task.augment.resize, task.seed)

    def check(epoch: int, step: int) -> dict[str, float]:
        if processes.rank() > 0:
            return {}
        found = task.ask(heldout.source, hardware, workers=_workers(preset), quick=True)
        right = float((found.predictions == found.truth).mean())
        progress.update(f"epoch {epoch}: test accuracy {100 * right:.1f}% (quick)", force=True)
        return {"test_accuracy": right}

    return Fit(
        task,
        EpochLoader(
            dataset,
            len(videos.source),
            batch_size=train.batch_size,
            seed=task.seed,
            workers=_workers(preset),
            rank=processes.rank(),
            world=processes.world(),
            pin=hardware.device.type == "cuda",
        ),
        train,
        preset.optim,
        hardware,
        progress,
        run=run,
        check=check if preset.check_epochs else None,
        check_every=preset.check_epochs,
        max_bad=preset.data.max_bad,
        samples=len(videos.source),
    )


def _conclude(
    run: Run,
    task: ClipTask,
    start: Start,
    videos: Videos,
    heldout: Videos,
    found: Answers,
    fitted: Fitted,
    cost: dict[str, float],
) -> Outcome:
    """Keep network and predictions, draw the pictures, write the report."""
    weights = transferred.keep(run, task, start, videos, fitted.step)
    transferred.write_predictions(run.path / "predictions.csv", found)
    rows = transferred.measure(task, start, videos, heldout, found, weights)
    pictures = transferred.draw(run, task, found, videos.source.name)
    report = transferred.reported(
        run,
        task,
        rows,
        pictures,
        notes=[
            *findings.seen_before(start.backbone.trained_on, heldout.source),
            *findings.shared_recordings(videos.source, heldout.source),
        ],
        weights=weights,
        cost=cost,
        command=shlex.join(run.info.command),
        data=common.describe_both(videos, heldout),
        left_out=[*videos.left_out, *heldout.left_out],
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
        videos, heldout = _material(preset, start, progress)
    task = task_of(preset)(preset, start.backbone, _answers(preset, videos.source), preset.seeds[0])
    fit = _fit(task, start, None, videos, heldout, hardware, progress)
    trained = sum(p.numel() for p in task.parameters() if p.requires_grad)
    everything = sum(p.numel() for p in task.parameters())
    frozen = ", ".join(task.plain.frozen) or "none"
    runs = len(preset.seeds) * max(len(preset.splits), 1)
    where = runs_dir() / (name or _new_name(resolved))
    text = (
        f"from: {start.run} ({start.backbone.arch}, {start.subject})\n"
        f"data: {len(videos.source)} training and {len(heldout.source)} test videos of "
        f"{videos.source.name} ({heldout.source.split_rule}); "
        f"{len(videos.left_out) + len(heldout.left_out)} left out\n"
        f"task: {task.name}, {len(task.classes)} answers; {task.plain.describe()['head']}\n"
        f"network: {trained:,} of {everything:,} parameters are trained; frozen: {frozen}\n"
        f"training: {fit.total} updates of {preset.train.batch_size} videos"
        f"{f', {runs} times' if runs > 1 else ''}\n"
        f"machine: {preset.machine.devices} × {hardware.device}, precision {hardware.precision}\n"
        f"run: {where}{' (exists: it would go on)' if where.exists() else ''}"
    )
    facts = {
        "from": start.run,
        "subject": start.subject,
        "videos": len(videos.source),
        "test_videos": len(heldout.source),
        "answers": list(task.classes),
        "parameters": everything,
        "trained_parameters": trained,
        "frozen": list(task.plain.frozen),
        "updates": fit.total,
        "runs": runs,
        "run": str(where),
    }
    return Outcome(text=text, data=facts)
