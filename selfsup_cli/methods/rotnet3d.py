"""A control of chapter 5: by how many quarter turns is a clip rotated?

After Jing, Yang, Liu and Tian (2018): all frames of a clip are turned by 0°, 90°, 180° or 270°, and
a 3D-CNN tells by which angle. Appearance alone answers it: objects have an upright.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from selfsup_cli.config.controls import ClipSampling
from selfsup_cli.config.video import PretrainVideo
from selfsup_cli.data.loader import ClipPlan
from selfsup_cli.errors import InputError
from selfsup_cli.methods.pretext import VideoPretext
from selfsup_cli.transforms.clips import quarter_turns
from selfsup_cli.transforms.time import random_clip

TURNS = ("0°", "90°", "180°", "270°")


class Plan:
    """A random clip of the video four times, once for each number of quarter turns."""

    def __init__(self, settings: ClipSampling) -> None:
        self.settings = settings

    def __call__(self, n: int, g: torch.Generator) -> ClipPlan:
        clip = random_clip(n, self.settings.frames, self.settings.max_skip, g)
        return ClipPlan(np.stack([clip] * len(TURNS)), {"turn": np.arange(len(TURNS))})


class Rotnet3d(VideoPretext):
    """The method as the engine sees it. Frames are scaled to a square, so that all turns fit."""

    def __init__(self, preset: PretrainVideo, classes: tuple[str, ...] | None = None) -> None:
        self.clip: ClipSampling = preset.clip  # type: ignore[attr-defined]
        if preset.augment.resize[0] != preset.augment.resize[1]:
            raise InputError(
                f"rotnet3d turns whole frames: augment.resize must be a square, "
                f"not {preset.augment.resize[0]}×{preset.augment.resize[1]}",
                kind="preset",
            )
        super().__init__(preset, {"turn": TURNS}, TURNS)

    @property
    def plan(self) -> Plan:
        return Plan(self.clip)

    def transform(self, clips: Tensor, labels: Mapping[str, Tensor]) -> Tensor:
        return quarter_turns(clips, labels["turn"])


METHOD = Rotnet3d
