"""Which pretraining a preset asks for."""

from __future__ import annotations

from typing import Any

from selfsup_cli.config.artifacts import PretrainArtifacts
from selfsup_cli.config.gan import PretrainGan
from selfsup_cli.config.image_pretrain import PretrainImages
from selfsup_cli.config.multiview import PretrainMultiview
from selfsup_cli.config.presets import Resolved
from selfsup_cli.config.video import PretrainVideo
from selfsup_cli.jobs.pretraining import Work


def work_of(resolved: Resolved) -> Work[Any]:
    """What a preset asks for."""
    if isinstance(resolved.preset, PretrainArtifacts):
        from selfsup_cli.jobs.pretraining_artifacts import ArtifactWork

        return ArtifactWork(resolved.preset)
    if isinstance(resolved.preset, PretrainGan):
        from selfsup_cli.jobs.pretraining_gan import GanWork

        return GanWork(resolved.preset)
    if isinstance(resolved.preset, PretrainMultiview):
        from selfsup_cli.jobs.pretraining_multiview import MultiviewWork

        return MultiviewWork(resolved.preset)
    from selfsup_cli.jobs.pretraining_pretext import ImageWork, VideoWork

    if isinstance(resolved.preset, PretrainImages):
        return ImageWork(resolved.preset)
    assert isinstance(resolved.preset, PretrainVideo)  # noqa: S101 (there are two kinds)
    return VideoWork(resolved.preset)
