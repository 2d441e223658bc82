"""A control of chapter 5: are the frames of a clip in order or shuffled?

After Misra, Zitnick and Hebert (ECCV 2016), in the form in which the thesis compares against it: a
3D-CNN sees a clip of a video in order and the same frames in random order, and tells which is
which. This is the transformation *random* of `temporal` against the plain clip.
"""

from __future__ import annotations

import numpy as np
import torch

from selfsup_cli.config.controls import ClipSampling
from selfsup_cli.config.video import PretrainVideo
from selfsup_cli.data.loader import ClipPlan
from selfsup_cli.methods.pretext import VideoPretext
from selfsup_cli.transforms.time import random_clip

ORDERS = ("in order", "shuffled")


class Plan:
    """A random clip of the video twice: in order, and in an order that is not the first."""

    def __init__(self, settings: ClipSampling) -> None:
        self.settings = settings

    def __call__(self, n: int, g: torch.Generator) -> ClipPlan:
        clip = random_clip(n, self.settings.frames, self.settings.max_skip, g)
        order = torch.randperm(len(clip), generator=g).numpy()
        if bool((order == np.arange(len(clip))).all()):
            order = order[::-1]
        return ClipPlan(np.stack([clip, clip[order]]), {"order": np.array([0, 1])})


class ShuffleLearn(VideoPretext):
    """The method as the engine sees it."""

    def __init__(self, preset: PretrainVideo, classes: tuple[str, ...] | None = None) -> None:
        self.clip: ClipSampling = preset.clip  # type: ignore[attr-defined]
        super().__init__(preset, {"order": ORDERS}, ORDERS)

    @property
    def plan(self) -> Plan:
        return Plan(self.clip)


METHOD = ShuffleLearn
