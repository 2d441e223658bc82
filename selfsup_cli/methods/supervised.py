"""A control of chapter 5: the same network trained on the action labels ("Action Labels").

What unsupervised features are measured against in tables 5.1 and 5.3. The only method that reads
labels.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch

from selfsup_cli.config.controls import ClipSampling
from selfsup_cli.config.video import PretrainVideo
from selfsup_cli.data.loader import ClipPlan
from selfsup_cli.errors import InputError
from selfsup_cli.methods.pretext import VideoPretext
from selfsup_cli.transforms.time import random_clip


class Plan:
    """One random clip of the video; its label comes with the video."""

    def __init__(self, settings: ClipSampling) -> None:
        self.settings = settings

    def __call__(self, n: int, g: torch.Generator) -> ClipPlan:
        clip = random_clip(n, self.settings.frames, self.settings.max_skip, g)
        return ClipPlan(np.stack([clip]))


class Supervised(VideoPretext):
    """The method as the engine sees it."""

    uses_labels: ClassVar[bool] = True

    def __init__(self, preset: PretrainVideo, classes: tuple[str, ...] | None = None) -> None:
        self.clip: ClipSampling = preset.clip  # type: ignore[attr-defined]
        if classes is None or len(classes) < 2:
            raise InputError(
                "supervised pretraining needs labels of at least two classes; see docs/data.md for "
                "the layouts that carry them",
                kind="unlabelled",
            )
        super().__init__(preset, {"label": classes}, ["clip"])

    @property
    def plan(self) -> Plan:
        return Plan(self.clip)


METHOD = Supervised
