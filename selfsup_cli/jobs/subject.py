"""What an evaluation looks at: the backbone of a run or file, and its random counterpart."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from selfsup_cli.config.evaluation import Subject as Settings
from selfsup_cli.config.registry import ARCHS
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


def load_subject(settings: Settings, kind: Kind) -> Subject:
    """Find what `--from` names: a weights file, a run, or the newest finished run that fits.

    Raises InputError if there is none, if it is unfinished, or if its weights are damaged.
    """
    path = Path(settings.run)
    if _is_weights(path):
        backbone, name = load_backbone(path), path.stem
    else:
        run = find_run(settings.run, runs_dir(), needs=lambda summary: _unfit(summary, kind))
        path, name = run.path / "backbone.safetensors", run.name
        backbone = load_backbone(path)
    weights = file_sha256(path)
    random = None
    if settings.baseline == "random":
        random = build(**backbone.spec, seed=derive(settings.baseline_seed, "random weights"))
    parents = [{"run": name, "arch": backbone.arch, "sha256": weights}]
    return Subject(backbone, random, weights, name, parents)


def _is_weights(path: Path) -> bool:
    """Whether a weights file is meant, and not a run or a file in one."""
    if path.suffix == ".safetensors":
        return True
    return path.is_file() and not any(
        (folder / "run.json").is_file() for folder in path.absolute().parents
    )


def _unfit(summary: RunSummary, kind: Kind) -> str | None:
    if summary.backbone is None:
        return "it has no backbone to look at"
    if summary.arch not in ARCHS or ARCHS[summary.arch].kind != kind:
        return f"its network {summary.arch} does not take {kind}s"
    return None
