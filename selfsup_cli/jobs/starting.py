"""What a transfer starts from: the weights of a run or file, or none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from selfsup_cli.config.pose import TransferPose
from selfsup_cli.config.registry import IMAGENET_ARCHS, PADDED, TIMM
from selfsup_cli.config.transfer import TransferVideo
from selfsup_cli.config.transfer_images import TransferImages
from selfsup_cli.config.transfers import Transfer
from selfsup_cli.errors import InputError
from selfsup_cli.jobs.subject import LEARNED, RANDOM, is_weights, other_kind, require_kind
from selfsup_cli.models import Backbone, build, load_backbone
from selfsup_cli.models.absorb import absorbed
from selfsup_cli.randomness import derive
from selfsup_cli.runs.atomic import file_sha256
from selfsup_cli.runs.run import Run, RunSummary, find_run, runs_dir

if TYPE_CHECKING:
    from selfsup_cli.config.registry import Kind

SUPERVISED = "supervised"
_LABELLED = "pretrain/bilevel"  # the job of transfer/classify from random weights

_THESIS_INPUT = ((128, 171), 112)
_STL_SHORTER, _STL_CROP = 96, 64
_POSE_SIDE = 128


@dataclass
class Start:
    """The `backbone` to begin with, whose it is (`subject`), and where it came from."""

    backbone: Backbone
    subject: str
    run: str
    parents: list[dict[str, Any]]


def load_start(preset: Transfer, name: str | None, seed: int) -> Start:
    """Find what `--init` names. Raises InputError if there is none, or if it is not finished.

    A run `name` that goes on starts from what it began with, though a newer one may be there now.
    """
    start = _found(preset, name, seed)
    if isinstance(preset, TransferImages) and preset.start.absorb_bn:
        start.backbone = absorbed(start.backbone)
    return start


def _found(preset: Transfer, name: str | None, seed: int) -> Start:
    init = preset.start.init
    if init == "random":
        if isinstance(preset, TransferPose):
            backbone = _random_pose(preset, seed)
        elif isinstance(preset, TransferImages):
            backbone = _random_image(preset, seed)
        else:
            backbone = _random(preset, seed)
        return Start(backbone, RANDOM, init, [])
    kind: Kind = "image" if isinstance(preset, TransferImages | TransferPose) else "video"
    if init in ("latest", SUPERVISED):
        init = _begun_with(name) or init
    path = Path(init)
    if is_weights(path):
        backbone, origin = load_backbone(path), path.stem
    else:
        run = _find(init, kind)
        path, origin = run.path / "backbone.safetensors", run.name
        backbone = load_backbone(path)
    require_kind(backbone, kind, f"{preset.name}: {origin}")
    by_labels = backbone.trained_on.get("method") == "supervised" or (
        kind == "image" and _only_by_labels(backbone.trained_on)
    )
    parents = [{"run": origin, "arch": backbone.arch, "sha256": file_sha256(path)}]
    return Start(backbone, SUPERVISED if by_labels else LEARNED, origin, parents)


def _find(init: str, kind: Kind) -> Run:
    if init not in ("latest", SUPERVISED):
        return find_run(init, runs_dir(), needs=lambda one: _unfit(one, kind))
    by_labels = init == SUPERVISED
    try:
        return find_run(
            "latest",
            runs_dir(),
            needs=lambda one: _unfit(one, kind) or _other_signal(one, kind, by_labels=by_labels),
        )
    except InputError as error:
        if by_labels:
            hint = {
                "video": "make one: selfsup pretrain supervised --data …",
                "image": "make one: selfsup transfer classify --init random --data …",
            }
            raise InputError(
                f"--init supervised: {error}", kind=error.kind, hint=hint[kind]
            ) from error
        raise


def _unfit(summary: RunSummary, kind: Kind) -> str | None:
    if summary.backbone is None:
        return "it has no backbone to start from"
    return other_kind(summary.arch, kind)


def _other_signal(summary: RunSummary, kind: Kind, *, by_labels: bool) -> str | None:
    """Why a run learned from something else than labels, or than what needs none."""
    if kind == "image" and by_labels:
        if not summary.job.startswith("transfer/") and summary.job != _LABELLED:
            return "it did not learn from labels"
        backbone = load_backbone(summary.path / "backbone.safetensors")
        alone = _only_by_labels(backbone.trained_on)
        return None if alone else "it did not start all of its layers from random weights"
    if not summary.job.startswith("pretrain/"):
        return "it is no pretraining"
    if summary.job == _LABELLED:
        return "it learned from labels"
    if (summary.job == "pretrain/supervised") != by_labels:
        return "it learned from labels" if not by_labels else "it did not learn from labels"
    return None


def _only_by_labels(trained_on: Mapping[str, Any]) -> bool:
    """Whether a network learned from labels, of all of its layers, and from nothing before."""
    learned = str(trained_on.get("method")).startswith("transfer/")
    return learned and trained_on.get("from") == "random" and not trained_on.get("frozen")


def _begun_with(name: str | None) -> str | None:
    """The parent of the run called `name`, if that has begun and its parent is still there."""
    if name is None or not (runs_dir() / name / "run.json").is_file():
        return None
    parents = Run.open(runs_dir() / name).info.parents
    if not parents or not (runs_dir() / str(parents[0].get("run")) / "run.json").is_file():
        return None
    return str(parents[0]["run"])


def _random_image(preset: TransferImages, seed: int) -> Backbone:
    network, (wanted, side) = preset.network, preset.built_for
    sizes: dict[str, Any] = {}
    if wanted or side:
        crop = wanted or min(_STL_CROP, side or _STL_CROP)
        shorter = side or max(_STL_SHORTER, crop)
        sizes = {"crop": crop, "resize": (shorter, shorter)}
    return build(
        network.arch,
        width=network.width,
        padding=network.padding if network.arch in PADDED else None,
        seed=derive(seed, "backbone"),
        **sizes,
    )


def _random_pose(preset: TransferPose, seed: int) -> Backbone:
    network, side = preset.network, preset.data.side or _POSE_SIDE
    return build(
        network.arch,
        width=network.width,
        # Only these can do without; all others have their own last layer.
        signed=not network.final_relu
        and (network.arch in IMAGENET_ARCHS or network.arch.startswith(TIMM)),
        crop=side,
        resize=(side, side),
        seed=derive(seed, "backbone"),
    )


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
