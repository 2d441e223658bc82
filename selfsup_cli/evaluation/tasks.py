"""The table of tasks."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from selfsup_cli.config.transfers import Transfer
from selfsup_cli.evaluation.task import Task
from selfsup_cli.models import Backbone


def task_of(preset: Transfer) -> Any:
    """The task that a preset names: the class, a `Task`, in the module of its name."""
    name = getattr(preset, "task", preset.name)
    return import_module(f"selfsup_cli.evaluation.{name}").TASK


def create(preset: Transfer, backbone: Backbone, source: Any, seed: int) -> Task:
    """The task on the training part `source`. Raises InputError for labels that do not suit it."""
    kind = task_of(preset)
    task: Task = kind(preset, backbone, kind.answers(preset, source), seed)
    if task.weighing is not None:
        task.networks = ()  # their gradients are shared out before they are averaged
    return task
