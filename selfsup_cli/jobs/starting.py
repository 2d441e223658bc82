"""What a transfer starts from: the weights of a run or file, or none."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selfsup_cli.config.transfer import TransferVideo
from selfsup_cli.errors import InputError
from selfsup_cli.jobs.subject import LEARNED, RANDOM, is_weights, other_kind, require_kind
from selfsup_cli.models import Backbone, build, load_backbone
from selfsup_cli.randomness import derive
from selfsup_cli.runs.atomic import file_sha256
from selfsup_cli.runs.run import Run, RunSummary, find_run, runs_dir

SUPERVISED = "supervised"

_THESIS_INPUT = ((128, 171), 112)


@dataclass
class Start:
    """The `backbone` to begin with, whose it is (`subject`), and where it came from."""

    backbone: Backbone
    subject: str
    run: str
    parents: list[dict[str, Any]]


def load_start(preset: TransferVideo, name: str | None, seed: int) -> Start:
    """Find what `--init` names. Raises InputError if there is none, or if it is not finished.

    A run `name` that goes on starts from what it began with, though a newer one may be there now.
    """
    init = preset.start.init
    if init == "random":
        return Start(_random(preset, seed), RANDOM, init, [])
    if init in ("latest", SUPERVISED):
        init = _begun_with(name) or init
    path = Path(init)
    if is_weights(path):
        backbone, origin = load_backbone(path), path.stem
    else:
        run = _find(init)
        path, origin = run.path / "backbone.safetensors", run.name
        backbone = load_backbone(path)
    require_kind(backbone, "video", f"{preset.name}: {origin}")
    by_labels = backbone.trained_on.get("method") == "supervised"
    parents = [{"run": origin, "arch": backbone.arch, "sha256": file_sha256(path)}]
    return Start(backbone, SUPERVISED if by_labels else LEARNED, origin, parents)


def _find(init: str) -> Run:
    if init not in ("latest", SUPERVISED):
        return find_run(init, runs_dir(), needs=_unfit)
    try:
        return find_run(
            "latest",
            runs_dir(),
            needs=lambda one: _unfit(one) or _other_kind(one, by_labels=init == SUPERVISED),
        )
    except InputError as error:
        if init == SUPERVISED:
            raise InputError(
                f"--init supervised: {error}", kind=error.kind,
                hint="make one: selfsup pretrain supervised --data …",
            ) from error  # fmt: skip
        raise


def _unfit(summary: RunSummary) -> str | None:
    if summary.backbone is None:
        return "it has no backbone to start from"
    return other_kind(summary.arch, "video")


def _other_kind(summary: RunSummary, *, by_labels: bool) -> str | None:
    if not summary.job.startswith("pretrain/"):
        return "it is no pretraining"
    if (summary.job == "pretrain/supervised") != by_labels:
        return "it learned from labels" if not by_labels else "it did not learn from labels"
    return None


def _begun_with(name: str | None) -> str | None:
    """The parent of the run called `name`, if that has begun and its parent is still there."""
    if name is None or not (runs_dir() / name / "run.json").is_file():
        return None
    parents = Run.open(runs_dir() / name).info.parents
    if not parents or not (runs_dir() / str(parents[0].get("run")) / "run.json").is_file():
        return None
    return str(parents[0]["run"])


def _random(preset: TransferVideo, seed: int) -> Backbone:
    resize, crop = preset.augment.resize, preset.augment.crop
    factor = sum(preset.augment.scale) / 2
    size = resize or _THESIS_INPUT[0]
    return build(
        preset.network.arch,
        width=preset.network.width,
        shortcut=preset.network.shortcut,
        crop=crop or (_THESIS_INPUT[1] if resize is None else min(resize) * 7 // 8),
        resize=(round(size[0] * factor), round(size[1] * factor)),
        seed=derive(seed, "backbone"),
    )
