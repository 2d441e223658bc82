"""One file per method, each reading like its chapter: transformation, networks, losses, step."""

from __future__ import annotations

from importlib import import_module

from selfsup_cli.config.video import PretrainVideo
from selfsup_cli.methods.pretext import VideoPretext


def create(preset: PretrainVideo, classes: tuple[str, ...] | None = None) -> VideoPretext:
    """The method that a preset names, ready to be trained.

    `classes` are those of the data, for a method that learns from labels.
    """
    module = import_module(f"selfsup_cli.methods.{preset.name.replace('-', '_')}")
    method: VideoPretext = module.METHOD(preset, classes)
    return method


def uses_labels(preset: PretrainVideo) -> bool:
    """Whether the method learns from labels (a control; no other reads them)."""
    module = import_module(f"selfsup_cli.methods.{preset.name.replace('-', '_')}")
    return bool(module.METHOD.uses_labels)
