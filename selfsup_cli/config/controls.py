"""Presets of the controls that chapter 5 compares against."""

from __future__ import annotations

from typing import Literal

from selfsup_cli.config.fields import Model, field
from selfsup_cli.config.video import PretrainVideo


class ClipSampling(Model):
    """Which clip is taken from a video."""

    frames: int = field(16, "Frames of a clip.", unit="frames", ge=8, le=64)
    max_skip: int = field(
        4,
        "Largest step between frames; a video of n frames is read at min(n // frames, this).",
        ge=1,
        le=16,
    )


class _Control(PretrainVideo):
    clip: ClipSampling = field(ClipSampling(), "Which clip is taken from a video.")

    @property
    def frames(self) -> int:
        return self.clip.frames


class PretrainShuffleLearn(_Control):
    """Learn by telling frames in order from shuffled ones (Misra et al., ECCV 2016)."""

    method: Literal["shuffle-learn"] = field("shuffle-learn", "The method.")

    @property
    def name(self) -> str:
        return self.method


class PretrainRotnet3d(_Control):
    """Learn by recognising quarter turns of a clip (Jing et al., 2018)."""

    method: Literal["rotnet3d"] = field("rotnet3d", "The method.")

    @property
    def name(self) -> str:
        return self.method


class PretrainSupervised(_Control):
    """Learn from the labels: the network that unsupervised features are measured against."""

    method: Literal["supervised"] = field("supervised", "The method.")

    @property
    def name(self) -> str:
        return self.method
