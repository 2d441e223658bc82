"""What an evaluation looks at: the backbone of a run or file, and its random counterpart."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from selfsup_cli.config.evaluation import Subject as Settings
from selfsup_cli.config.registry import find_arch
from selfsup_cli.errors import InputError
from selfsup_cli.models import Backbone, build, load_backbone
from selfsup_cli.randomness import derive
from selfsup_cli.runs.atomic import file_sha256
from selfsup_cli.runs.run import RunSummary, find_run, runs_dir

if TYPE_CHECKING:
    from selfsup_cli.config.registry import Kind

LEARNED = "learned"
RANDOM = "random weights"


@dataclass
class Subject:
    """`learned` as it was found, its `weights` (SHA-256), where it came from, and `random`."""

    learned: Backbone
    random: Backbone | None
    weights: str
    run: str
    parents: list[dict[str, Any]]

    def networks(self) -> list[tuple[str, Backbone]]:
        """Name and network of all that is measured."""
        both: list[tuple[str, Backbone]] = [(LEARNED, self.learned)]
        return both if self.random is None else [*both, (RANDOM, self.random)]


def load_subject(settings: Settings, kind: Kind | None) -> Subject:
    """Find what `--from` names: a weights file, a run, or the newest finished run that fits.

    With `kind`, its network must take images, or videos. Raises InputError if there is none, if it
    is unfinished, or if its weights are damaged.
    """
    path = Path(settings.run)
    if is_weights(path):
        backbone, name = load_backbone(path), path.stem
    else:
        run = find_run(settings.run, runs_dir(), needs=lambda summary: _unfit(summary, kind))
        path, name = run.path / "backbone.safetensors", run.name
        backbone = load_backbone(path)
    if kind is not None:
        require_kind(backbone, kind, name)
    weights = file_sha256(path)
    random = None
    if settings.baseline == "random":
        random = build(**backbone.spec, seed=derive(settings.baseline_seed, "random weights"))
    parents = [{"run": name, "arch": backbone.arch, "sha256": weights}]
    return Subject(backbone, random, weights, name, parents)


def is_weights(path: Path) -> bool:
    """Whether a weights file is meant, and not a run or a file in one."""
    if path.suffix == ".safetensors":
        return True
    # A name that is too long for a file is none.
    return os.path.isfile(path) and not any(  # noqa: PTH113
        (folder / "run.json").is_file() for folder in path.absolute().parents
    )


def require_kind(backbone: Backbone, kind: Kind, name: str) -> None:
    """Raise InputError unless the network, found under `name`, takes images or videos as asked."""
    if backbone.input.kind != kind:
        raise InputError(
            f"{name} holds {backbone.arch}, which takes {backbone.input.kind}s, not {kind}s",
            kind="run-unfit",
        )


def other_kind(arch: str | None, kind: Kind) -> str | None:
    """Why a run's network is of no use where `kind` is needed; None if it is."""
    found = find_arch(arch or "")
    if found is None or found.kind != kind:
        return f"its network {arch} does not take {kind}s"
    return None


def _unfit(summary: RunSummary, kind: Kind | None) -> str | None:
    if summary.backbone is None:
        return "it has no backbone to look at"
    return None if kind is None else other_kind(summary.arch, kind)
