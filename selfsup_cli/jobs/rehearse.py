"""`--dry-run`: what a job would do, found out without doing it. Nothing is written."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np

from selfsup_cli.config.presets import Resolved, identity
from selfsup_cli.config.video import PretrainVideo
from selfsup_cli.engine.devices import choose, loader_workers
from selfsup_cli.engine.progress import Progress
from selfsup_cli.errors import InputError
from selfsup_cli.jobs import common
from selfsup_cli.jobs.common import Outcome, Videos
from selfsup_cli.methods import create, uses_labels
from selfsup_cli.runs.run import Run, new_name, runs_dir


def rehearse(resolved: Resolved, run: str | None) -> Outcome:
    """Check everything that `pretrain` would check and say what it would do.

    Raises what `pretrain` would raise before its first step.
    """
    preset = resolved.preset
    assert isinstance(preset, PretrainVideo)  # noqa: S101 (all methods so far)
    hardware = choose(preset.machine.device, preset.train.precision)
    with Progress() as progress:
        train, heldout = common.open_parts(
            preset.data,
            preset.machine,
            progress,
            labels=uses_labels(preset),
            min_frames=preset.min_frames,
        )
    method = create(preset, train.source.classes)
    parameters = sum(p.numel() for p in method.parameters())
    state = sum(v.numel() * v.element_size() for v in method.state_dict().values())
    moments = {"adamw": 2, "sgd": 1}[preset.optim.name]
    checkpoint = state + moments * 4 * parameters
    batches = len(train.source) // preset.train.batch_size
    if batches == 0:
        raise InputError(
            f"{len(train.source)} training videos do not fill one batch of "
            f"{preset.train.batch_size}; use --batch-size {len(train.source)} or less",
            kind="batch-size",
        )
    steps = min(batches * preset.train.epochs, preset.train.max_steps or 2**63)
    folder = runs_dir()
    free = _free(folder)
    needed = int(1.2 * checkpoint * (preset.train.keep + 1))
    where = folder / (
        run or new_name(preset.name, preset.network.arch, train.source.name, identity(preset))
    )
    if (where / "run.json").is_file():
        Run.open(where).require_identity(identity(preset))
    workers = loader_workers(preset.machine.workers, preset.machine.devices)
    clips = preset.train.batch_size * len(method.kinds)
    lines = [
        f"data: {_found(train)}; held out: {_found(heldout)} ({train.source.split_rule})",
        f"network: {preset.network.arch}, {parameters:,} parameters with its head",
        f"training: {batches} batches of {preset.train.batch_size} videos ({clips} clips) in an "
        f"epoch, {steps} updates in all",
        f"machine: {preset.machine.devices} × {hardware.device}, precision {hardware.precision}, "
        f"{workers} loader processes",
        f"disk: a checkpoint takes {checkpoint / 2**20:.1f} MB, {preset.train.keep} are kept; "
        f"{free / 2**30:.1f} GB are free",
        f"run: {where}{' (exists: it would go on)' if where.exists() else ''}",
    ]
    if needed > free:
        lines.append(f"warning: that is less than the {needed / 2**30:.1f} GB the checkpoints need")
    facts = {
        "videos": len(train.source),
        "heldout_videos": len(heldout.source),
        "left_out": len(train.left_out) + len(heldout.left_out),
        "parameters": parameters,
        "batches_per_epoch": batches,
        "updates": steps,
        "checkpoint_bytes": checkpoint,
        "free_bytes": free,
        "run": str(where),
    }
    return Outcome(text="\n".join(lines), data=facts)


def _found(videos: Videos) -> str:
    counts = np.asarray(videos.source.num_frames)
    left_out = f", {len(videos.left_out)} left out" if videos.left_out else ""
    return (
        f"{len(videos.source)} videos of {videos.source.name} with {counts.min()} to "
        f"{counts.max()} frames{left_out}"
    )


def _free(folder: Path) -> int:
    for place in (folder.absolute(), *folder.absolute().parents):
        if place.is_dir():
            return shutil.disk_usage(place).free
    return 0
