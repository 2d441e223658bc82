"""One file per method, each reading like its chapter: transformation, networks, losses, step."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, overload

if TYPE_CHECKING:
    from selfsup_cli.config.image_pretrain import PretrainImages
    from selfsup_cli.config.video import PretrainVideo
    from selfsup_cli.methods.image_pretext import ImagePretext
    from selfsup_cli.methods.pretext import VideoPretext


@overload
def create(preset: PretrainVideo, classes: tuple[str, ...] | None = None) -> VideoPretext: ...
@overload
def create(preset: PretrainImages, classes: tuple[str, ...] | None = None) -> ImagePretext: ...
def create(
    preset: PretrainVideo | PretrainImages, classes: tuple[str, ...] | None = None
) -> VideoPretext | ImagePretext:
    """The method that a preset names, ready to be trained.

    `classes` are those of the data, for a method that learns from labels.
    """
    method: VideoPretext | ImagePretext = _method(preset)(preset, classes)
    return method


def uses_labels(preset: PretrainVideo | PretrainImages) -> bool:
    """Whether the method learns from labels (a control; no other reads them)."""
    return bool(getattr(_method(preset), "uses_labels", False))


def _method(preset: PretrainVideo | PretrainImages) -> Any:
    return import_module(f"selfsup_cli.methods.{preset.name.replace('-', '_')}").METHOD
