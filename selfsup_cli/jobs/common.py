"""What all jobs share: what they return, how they open runs, data and the thing they look at."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from selfsup_cli.config.blocks import Machine, VideoData
from selfsup_cli.config.presets import Resolved, dump, identity
from selfsup_cli.data.clips import open_source
from selfsup_cli.data.loader import killed_worker
from selfsup_cli.data.pose_images import PoseImages
from selfsup_cli.data.ring import Points
from selfsup_cli.data.source import (
    QUARANTINED,
    ClipSource,
    ImageSource,
    LeftOut,
    Split,
    check_bad_share,
)
from selfsup_cli.data.view_pairs import Anchors
from selfsup_cli.engine import processes
from selfsup_cli.engine.devices import Hardware, loader_workers
from selfsup_cli.engine.progress import Progress
from selfsup_cli.engine.trainable import NotFiniteError
from selfsup_cli.errors import InputError, SelfsupError, Stopped
from selfsup_cli.runs.record import State
from selfsup_cli.runs.report import Report
from selfsup_cli.runs.run import Run, new_name, runs_dir

log = logging.getLogger("selfsup")

_PARTS: tuple[Split, Split] = ("train", "test")


@dataclass
class Outcome:
    """What a job has to say: its run, its report, and lines or data that are neither."""

    run_dir: Path | None = None
    report: Report | None = None
    text: str = ""
    data: dict[str, Any] = field(default_factory=dict)


@dataclass
class Videos:
    """A source and what was left out of it on the way."""

    source: ClipSource
    left_out: list[LeftOut]


def open_videos(
    data: VideoData,
    split: Split,
    *,
    labels: bool,
    machine: Machine,
    progress: Progress,
    min_frames: int = 1,
) -> Videos:
    """Open a split; videos of fewer than `min_frames` frames are left out and counted.

    Raises InputError (nothing is left, data that cannot be found) and TrainingError (too many of
    its files cannot be read).
    """
    source = open_source(
        data,
        split,
        labels=labels,
        workers=max(1, loader_workers(machine.workers)),
        progress=progress.counting("indexing videos"),
    )
    check_bad_share(source, data.max_bad)
    left_out = list(source.left_out)
    long_enough = np.flatnonzero(np.asarray(source.num_frames) >= min_frames)
    if len(long_enough) < len(source):
        short = sorted(set(range(len(source))) - set(long_enough.tolist()))
        left_out += [
            LeftOut(source.ids[i], f"{source.num_frames[i]} frames, fewer than {min_frames}")
            for i in short
        ]
        if not len(long_enough):
            raise InputError(
                f"{source.name}: none of the {len(source)} videos of the {split} part has the "
                f"{min_frames} frames that are needed; the longest has "
                f"{int(np.max(source.num_frames))}",
                kind="too-short",
            )
        source = source.subset(long_enough)
    return Videos(source, left_out)


def open_parts(
    data: VideoData, machine: Machine, progress: Progress, *, labels: bool, min_frames: int = 1
) -> tuple[Videos, Videos]:
    """The training and test parts. With `labels`, raises InputError for unlabelled data."""
    train, test = (
        open_videos(
            data, split, labels=labels, machine=machine, progress=progress, min_frames=min_frames
        )
        for split in _PARTS
    )
    return train, test


def open_labelled(
    data: VideoData, machine: Machine, progress: Progress, min_frames: int = 1
) -> tuple[Videos, Videos]:
    """The training and test parts with their labels. Raises InputError for unlabelled data."""
    return open_parts(data, machine, progress, labels=True, min_frames=min_frames)


def open_both(data: VideoData, machine: Machine, progress: Progress) -> tuple[Videos, Videos]:
    """Both parts, with labels if the data has any."""
    try:
        return open_labelled(data, machine, progress)
    except InputError as error:
        if error.kind != "unlabelled":
            raise
    return open_parts(data, machine, progress, labels=False)


class AnyPart(Protocol):
    """Videos, images, points or pairs of views, and what was left out of them."""

    @property
    def source(self) -> ClipSource | ImageSource | Points | Anchors | PoseImages: ...

    @property
    def left_out(self) -> Sequence[LeftOut]: ...


class Part(Protocol):
    """Videos or images, and what was left out of them."""

    @property
    def source(self) -> ClipSource | ImageSource | PoseImages: ...

    @property
    def left_out(self) -> Sequence[LeftOut]: ...


def describe_both(train: Part, test: Part) -> dict[str, Any]:
    """What provenance keeps of two parts; the fingerprint is that of both."""
    parts = {"train": describe(train.source), "test": describe(test.source)}
    prints = "".join(str(part["fingerprint"]) for part in parts.values())
    return {
        "name": train.source.name,
        "fingerprint": hashlib.sha256(prints.encode()).hexdigest(),
        **parts,
    }


def describe(
    source: ClipSource | ImageSource | Points | Anchors | PoseImages,
) -> dict[str, Any]:
    """What provenance keeps of a source. Of a pack it says what was lost in packing."""
    storage = getattr(source, "storage", None)
    attributes = getattr(source, "attributes", None)
    changes = getattr(source, "changes", ())
    many = "points" if isinstance(source, Points) else getattr(source, "many", "images")
    return {
        "name": source.name,
        "split": source.split,
        "split_rule": source.split_rule,
        "videos" if hasattr(source, "num_frames") else many: len(source),
        "fingerprint": source.fingerprint,
        "classes": None if source.classes is None else len(source.classes),
        **({} if attributes is None else {"attributes": len(attributes)}),
        **({} if storage is None else {"storage": storage}),
        **({"changes": list(changes)} if changes else {}),
    }


def kind_of(resolved: Resolved) -> str:
    """`temporal` for `pretrain/temporal`, `probe` for `probe`."""
    return resolved.job.rpartition("/")[2]


def started_run(
    resolved: Resolved,
    name: str | None,
    *,
    arch: str,
    data: str,
    seed: int,
    command: Sequence[str],
    dataset: dict[str, Any],
    parents: list[dict[str, Any]],
) -> Run:
    """Make the run, or go on with it. Raises InputError if its preset differs, listing how."""
    run = Run.create_or_continue(
        runs_dir(),
        name or new_name(kind_of(resolved), arch, data, identity(resolved.preset)),
        preset=dump(resolved.preset),
        identity=identity(resolved.preset),
        command=list(command),
        job=resolved.job,
        seed=seed,
        dataset=dataset,
        parents=parents,
    )
    for notice in run.notices:
        log.warning(notice)
    run.log_to_file(logging.getLogger("selfsup"))
    return run


def finished(name: str | None, resolved: Resolved) -> Outcome | None:
    """The outcome of a run that is complete already, so that the same command ends at once."""
    if name is None or not (runs_dir() / name / "run.json").is_file():
        return None
    run = Run.open(runs_dir() / name)
    if not run.complete:
        return None
    run.require_identity(identity(resolved.preset))
    log.info("the run is complete already")
    return Outcome(run.path, run.report())


@contextmanager
def ending(run: Run) -> Iterator[None]:
    """Write into the run's status how a job ended, whatever way it did."""
    try:
        try:
            yield
        except Exception as error:
            # PyTorch may tell of a dead loader or fellow process at any point of the work.
            cause = killed_worker(error) or processes.lost_peer(error)
            if cause is None:
                raise
            raise cause from error
    except BaseException as error:
        state: State = "failed"
        if isinstance(error, Stopped):
            state = "preempted"
        elif isinstance(error, NotFiniteError):
            state = "diverged"
        error.run_dir = run.path  # type: ignore[attr-defined]  # where crash.txt goes
        if not run.complete:
            # On a full disk this fails as well; what failed first is what has to be told.
            with suppress(SelfsupError):
                run.set_status(state, reason=f"{type(error).__name__}: {error}"[:500])
        raise
    finally:
        run.close()


def list_bad(run: Run, *parts: AnyPart) -> None:
    """Write what cannot be read into the run's `quarantine.jsonl`, for `--quarantine`."""
    for part in parts:
        for out in part.source.left_out:
            if not out.reason.startswith(QUARANTINED):
                run.record_bad(out.id, out.reason)


def machine_facts(hardware: Hardware) -> dict[str, str | int | float]:
    """Device, precision and threads, for a report's protocol."""
    return {
        "device": hardware.device.type,
        "precision": hardware.precision,
        "torch": torch.__version__,
    }
