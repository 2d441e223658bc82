"""Recognising transformations of time (thesis, chapter 5).

A clip of 16 frames is taken from a video in one of four ways: at a constant *speed*, in *random*
order, forwards and then backwards (*periodic*), or with uneven steps (*warp*). All of them hold
similar frames, so only their evolution in time tells them apart. A 3D-CNN φ recognises which one
it sees (φ^m, the question `motion`), and for clips of constant speed, which speed (φ^s, the
question `speed`). Its loss (Eq. 5.1) is the cross-entropy of the motion type over all clips plus
that of the speed over the clips that have one, each a mean, with equal weight.
"""

from __future__ import annotations

import numpy as np
import torch

from selfsup_cli.config.temporal import TimeTransformations
from selfsup_cli.config.video import PretrainVideo
from selfsup_cli.data.loader import ClipPlan
from selfsup_cli.methods.pretext import UNASKED, VideoPretext
from selfsup_cli.transforms import time as temporal

# Transformation


class Plan:
    """The clips of a video of n frames: one of each kind, at one speed κ ~ U{0 … κ_max(n)}.

    Labels: `motion` is the position of the kind in `settings.kinds`; `speed` is κ where the speed
    loss applies (speed clips; periodic ones too with `speed_on_periodic`), else UNASKED.
    """

    def __init__(self, settings: TimeTransformations) -> None:
        self.settings = settings

    def __call__(self, n: int, g: torch.Generator) -> ClipPlan:
        drawn = temporal.draw(n, self.settings, g)
        kinds: list[str] = list(self.settings.kinds)
        judged = {"speed", "periodic"} if self.settings.speed_on_periodic else {"speed"}
        labels = {
            "motion": np.array([kinds.index(clip.kind) for clip in drawn]),
            "speed": np.array([c.speed if c.kind in judged else UNASKED for c in drawn]),
        }
        asked = questions(self.settings)
        return ClipPlan(
            np.stack([clip.frames for clip in drawn]), {name: labels[name] for name in asked}
        )


# Networks


def questions(settings: TimeTransformations) -> dict[str, list[str]]:
    """φ^m tells the kinds apart, if there are several; φ^s the speeds, if that loss is on."""
    asked: dict[str, list[str]] = {}
    if len(settings.kinds) > 1:
        asked["motion"] = list(settings.kinds)
    if settings.speed_loss:
        asked["speed"] = [f"×{2**kappa}" for kappa in range(settings.speeds)]
    return asked


# Losses and step: `pretext.losses` over these questions is Eq. 5.1.


class Temporal(VideoPretext):
    """The method as the engine sees it."""

    def __init__(self, preset: PretrainVideo, classes: tuple[str, ...] | None = None) -> None:
        self.time: TimeTransformations = preset.time  # type: ignore[attr-defined]
        super().__init__(preset, questions(self.time), list(self.time.kinds))

    @property
    def plan(self) -> Plan:
        return Plan(self.time)


METHOD = Temporal
