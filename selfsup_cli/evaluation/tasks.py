"""The table of tasks."""

from __future__ import annotations

from importlib import import_module

from selfsup_cli.config.transfer import TransferVideo
from selfsup_cli.evaluation.clip_task import ClipTask


def task_of(preset: TransferVideo) -> type[ClipTask]:
    """The task that a preset names: the class in the module of its name."""
    module = import_module(f"selfsup_cli.evaluation.{preset.name}")
    task: type[ClipTask] = module.TASK
    return task
