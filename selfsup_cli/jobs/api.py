"""The commands as Python functions: the same jobs, presets, runs and reports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from selfsup_cli.config.presets import Resolved, resolve
from selfsup_cli.config.registry import METHODS, TASKS, unknown
from selfsup_cli.jobs import kinds
from selfsup_cli.jobs.common import Outcome
from selfsup_cli.models import Backbone
from selfsup_cli.models import load_backbone as load_weights
from selfsup_cli.runs.run import find_run, runs_dir

Settings = Mapping[str, Any]


def pretrain(
    method: str,
    *,
    data: str | Path | None = None,
    arch: str | None = None,
    preset: str | None = None,
    run: str | None = None,
    settings: Settings | None = None,
    quiet: bool = False,
) -> Outcome:
    """`selfsup pretrain METHOD`. Gives the run directory and its report.

    `settings` maps dotted preset fields to values, as `--set` does: `{"optim.lr": 5e-4}`. The same
    call with the same `run` goes on where it stopped. Raises the errors of `selfsup_cli.errors`,
    each a sentence: InputError, MachineError, TrainingError, Stopped. In a script, call it under
    `if __name__ == "__main__"`: videos are indexed in processes of their own.
    """
    if method not in METHODS:
        raise unknown("method", method, list(METHODS))
    options = {"data.source": _text(data), "network.arch": arch, **(settings or {})}
    return _do(
        "pretrain", resolve(f"pretrain/{method}", preset=preset, options=options), run, quiet
    )


def probe(
    subject: str | Path = "latest",
    *,
    data: str | Path | None = None,
    layers: Sequence[str] | None = None,
    preset: str | None = None,
    run: str | None = None,
    settings: Settings | None = None,
    quiet: bool = False,
) -> Outcome:
    """`selfsup probe`: linear classifiers on the frozen layers of `subject`, a run or a file.

    On videos or images, as the command finds out (see `jobs.kinds`).
    """
    options = {
        "subject.run": _text(subject),
        "data.source": _text(data),
        "probe.layers": None if layers is None else list(layers),
        **(settings or {}),
    }
    return _do_either("probe", preset, options, run, quiet)


def retrieve(
    subject: str | Path = "latest",
    *,
    data: str | Path | None = None,
    layer: str | None = None,
    preset: str | None = None,
    run: str | None = None,
    settings: Settings | None = None,
    quiet: bool = False,
) -> Outcome:
    """`selfsup retrieve`: nearest neighbours by the features of `subject`, a run or a file.

    Among videos or images, as the command finds out (see `jobs.kinds`).
    """
    options = {
        "subject.run": _text(subject),
        "data.source": _text(data),
        "neighbours.layer": layer,
        **(settings or {}),
    }
    return _do_either("retrieve", preset, options, run, quiet)


def transfer(
    task: str,
    *,
    init: str | Path | None = None,
    data: str | Path | None = None,
    preset: str | None = None,
    run: str | None = None,
    settings: Settings | None = None,
    quiet: bool = False,
) -> Outcome:
    """`selfsup transfer TASK`: train on action, sync, order or classify from `init`.

    `init` is a run, a weights file, "latest", "supervised" or "random". Raises as `pretrain` does.
    """
    if task not in TASKS:
        raise unknown("task", task, list(TASKS))
    options = {"data.source": _text(data), "start.init": _text(init), **(settings or {})}
    return _do("transfer", resolve(f"transfer/{task}", preset=preset, options=options), run, quiet)


def load_backbone(subject: str | Path = "latest") -> Backbone:
    """The network of a finished run, or of a `backbone.safetensors`, on the CPU in training mode.

    An `nn.Module` with named layers: `.layers` lists them, `.features(x, ["conv4"])` gives their
    activations, `.embed(x)` a pooled vector, `.input` says what it eats. Raises InputError.
    """
    path = Path(subject)
    if path.suffix == ".safetensors":
        return load_weights(path)
    run = find_run(
        str(subject),
        runs_dir(),
        needs=lambda one: None if one.backbone else "it has no backbone",
    )
    return load_weights(run.path / "backbone.safetensors")


def _do_either(
    job: str, preset: str | None, options: Settings, run: str | None, quiet: bool
) -> Outcome:
    found = kinds.meant(job, preset=preset, options=options).job
    resolved = resolve(found, preset=preset, options=options)
    return _do(found.replace("-", "_"), resolved, run, quiet)


def _do(job: str, resolved: Resolved, run: str | None, quiet: bool) -> Outcome:
    command = [f"selfsup_cli.{job}"]
    outcome: Outcome = getattr(import_module(f"selfsup_cli.jobs.{job}"), job)(
        resolved, run=run, command=command, quiet=quiet
    )
    return outcome


def _text(value: str | Path | None) -> str | None:
    return None if value is None else str(value)
