"""`--dry-run`: what a job would do, found out without doing it. Nothing is written."""

from __future__ import annotations

import shutil
from pathlib import Path

from selfsup_cli.config.presets import Resolved, identity
from selfsup_cli.engine.devices import choose, loader_workers
from selfsup_cli.engine.progress import Progress
from selfsup_cli.errors import InputError
from selfsup_cli.jobs.common import Outcome
from selfsup_cli.jobs.works import work_of
from selfsup_cli.runs.run import Run, new_name, runs_dir


def rehearse(resolved: Resolved, run: str | None) -> Outcome:
    """Check everything that `pretrain` would check and say what it would do.

    Raises what `pretrain` would raise before its first step.
    """
    work = work_of(resolved)
    preset = work.preset
    hardware = choose(preset.machine.device, preset.train.precision)
    with Progress() as progress:
        train, heldout = work.open(progress)
    work.begin(run)
    method = work.create(train)
    parameters = sum(p.numel() for p in method.parameters())
    state = sum(v.numel() * v.element_size() for v in method.state_dict().values())
    moments = {"adamw": 2, "adam": 2, "sgd": 1}[preset.optim.name]
    checkpoint = state + moments * 4 * parameters
    batches = len(train.source) // work.per_update
    if batches == 0:
        raise InputError(
            f"{len(train.source)} training {work.many} do not fill one batch of "
            f"{preset.train.batch_size}; use --batch-size {len(train.source)} or less",
            kind="batch-size",
        )
    steps = min(batches * preset.training.epochs, preset.train.max_steps or 2**63)
    method.periods(batches, steps)
    first = batches * preset.beforehand
    folder = runs_dir()
    free = _free(folder)
    needed = int(1.2 * checkpoint * (preset.train.keep + 1))
    where = folder / (
        run or new_name(preset.name, preset.network.arch, train.source.name, identity(preset))
    )
    if (where / "run.json").is_file():
        Run.open(where).require_identity(identity(preset))
    workers = loader_workers(preset.machine.workers, preset.machine.devices)
    inputs = work.per_update * work.inputs_each()
    lines = [
        f"data: {work.found(train)}; held out: {work.found(heldout)} ({train.source.split_rule})",
        f"network: {preset.network.arch}, {parameters:,} parameters with its head",
        f"training: {batches} batches of {work.per_update} {work.many} "
        f"({inputs} {work.inputs}) in an "
        f"epoch, {steps} updates in all{f', the first {first} of the autoencoder' * bool(first)}",
        f"machine: {preset.machine.devices} × {hardware.device}, precision {hardware.precision}, "
        f"{workers} loader processes",
        f"disk: a checkpoint takes {checkpoint / 2**20:.1f} MB, {preset.train.keep} are kept; "
        f"{free / 2**30:.1f} GB are free",
        f"run: {where}{' (exists: it would go on)' if where.exists() else ''}",
    ]
    if needed > free:
        lines.append(f"warning: that is less than the {needed / 2**30:.1f} GB the checkpoints need")
    facts = {
        work.many: len(train.source),
        f"heldout_{work.many}": len(heldout.source),
        "left_out": len(train.left_out) + len(heldout.left_out),
        "parameters": parameters,
        "batches_per_epoch": batches,
        "updates": steps,
        "checkpoint_bytes": checkpoint,
        "free_bytes": free,
        "run": str(where),
    }
    return Outcome(text="\n".join(lines), data=facts)


def _free(folder: Path) -> int:
    for place in (folder.absolute(), *folder.absolute().parents):
        if place.is_dir():
            return shutil.disk_usage(place).free
    return 0
