"""Preset of `selfsup pretrain temporal` (thesis, chapter 5)."""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator

from selfsup_cli.config.fields import Model, field
from selfsup_cli.config.video import PretrainVideo

Transformation = Literal["speed", "random", "periodic", "warp"]


class TimeTransformations(Model):
    """Which transformations of time are told apart, and which variant of each."""

    kinds: list[Transformation] = field(
        ["speed", "random", "periodic", "warp"],
        "Transformations to tell apart; speed is always one of them.",
        flag="--transformations",
    )
    speed_loss: bool = field(True, "Also recognise the playback speed.", flag="--speed-loss")
    frames: int = field(16, "Frames of a clip.", unit="frames", ge=8, le=64)
    speeds: int = field(4, "Playback speeds 1, 2, 4, … to choose from.", ge=1, le=6)
    periodic: Literal["thesis", "prose", "released"] = field(
        "thesis",
        "thesis: index set of section 5.2.1, the way back shifted by δ; prose: shifted by 2δ as "
        "its text reads; released: the author's code.",
    )
    periodic_start: Literal["random", "earliest"] = field(
        "random", "Start anywhere that fits, or (the thesis' ρ read literally) as early as fits."
    )
    warp: Literal["released", "thesis"] = field(
        "released",
        "released: steps of 1 … 8 frames, fewer in short videos; thesis: steps of 0 … 7, which "
        "repeat frames.",
    )
    speed_on_periodic: bool = field(
        False, "Apply the speed loss to periodic clips too, as the author's code does."
    )
    min_frames: int = field(
        16, "Videos with fewer frames are left out and counted.", unit="frames", ge=8
    )

    @model_validator(mode="after")
    def _consistent(self) -> TimeTransformations:
        if len(set(self.kinds)) != len(self.kinds):
            raise ValueError("kinds: a transformation is listed twice")
        if "speed" not in self.kinds:
            raise ValueError(
                "kinds: 'speed' must be among the transformations (it is the unchanged clip)"
            )
        if len(self.kinds) == 1 and not self.speed_loss:
            raise ValueError(
                "kinds: with speed alone there is nothing to learn unless speed_loss is true"
            )
        if self.speed_loss and self.speeds == 1:
            raise ValueError(
                "speeds: with one speed there is none to recognise unless speed_loss is false"
            )
        if self.min_frames < self.frames:
            raise ValueError("min_frames: must be at least `frames`, or clips could not be filled")
        return self


class PretrainTemporal(PretrainVideo):
    """Learn by recognising transformations of time (Jenni, Meishvili & Favaro, ECCV 2020)."""

    method: Literal["temporal"] = field("temporal", "The method.")
    time: TimeTransformations = field(TimeTransformations(), "The transformations of time.")

    @property
    def name(self) -> str:
        return self.method

    @property
    def frames(self) -> int:
        return self.time.frames

    @property
    def min_frames(self) -> int:
        return self.time.min_frames
