"""Preset of `selfsup pretrain temporal` (thesis, chapter 5)."""

from __future__ import annotations

from typing import Annotated, Literal

from annotated_types import Gt, Le
from pydantic import model_validator

from selfsup_cli.config.blocks import Machine, Optim, Preset, Size, Train, VideoData
from selfsup_cli.config.fields import Model, field

Transformation = Literal["speed", "random", "periodic", "warp"]


class VideoNetwork(Model):
    """The 3D-CNN."""

    arch: str = field(
        "c3d",
        "Network: c3d, r3d, r2plus1d (of the thesis), r3d_18, mc3_18, r2plus1d_18 (torchvision).",
        flag="--arch",
        names="archs",
    )
    width: float = field(1.0, "Multiplier of the number of channels.", flag="--width", gt=0, le=4)
    shortcut: Literal["standard", "projected"] = field(
        "standard",
        "r3d and r2plus1d: identity shortcuts where shapes agree, or (as the author's code did) "
        "a projection in every block.",
    )


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


class ClipAugmentation(Model):
    """What is done to the pixels of a clip."""

    resize: Size = field((128, 171), "Height and width to which frames are scaled.", unit="pixels")
    scale: tuple[Annotated[float, Gt(0), Le(1)], Annotated[float, Gt(0), Le(1)]] = field(
        (1.0, 1.0), "Range of a random further scaling, drawn per clip, aspect ratio kept."
    )
    crop: int = field(
        112, "Side of the random square crop.", flag="--crop", unit="pixels", ge=16, le=512
    )
    flip: bool = field(True, "Mirror half of the videos; the clips of one video share the coin.")
    color: Literal["none", "clip", "frame"] = field(
        "none", "Random brightness, saturation and greyscale: off, per clip, or per frame."
    )

    @model_validator(mode="after")
    def _fits(self) -> ClipAugmentation:
        if self.scale[0] > self.scale[1]:
            raise ValueError("scale: the lower bound is above the upper one")
        if self.crop > min(self.resize) * self.scale[0] + 1e-6:
            raise ValueError(
                f"crop: {self.crop} does not fit into frames of {self.resize[0]}×{self.resize[1]} "
                f"scaled by {self.scale[0]:g}"
            )
        return self


class Monitor(Model):
    """Held-out checks while training: is it learning?"""

    every_epochs: int = field(
        5, "Epochs between checks; 0 checks at the end only.", flag="--monitor-every", ge=0
    )
    videos: int = field(256, "Held-out videos for the pretext accuracy.", ge=1)
    draws: int = field(2, "Clips drawn from each of them per transformation.", ge=1)
    knn_videos: int = field(
        512, "Videos for the k-NN check where the data has labels; 0 skips it.", ge=0
    )
    knn_k: int = field(5, "Neighbours that vote.", ge=1)


class PretrainTemporal(Preset):
    """Learn by recognising transformations of time (Jenni, Meishvili & Favaro, ECCV 2020)."""

    method: Literal["temporal"] = field("temporal", "The method.")
    data: VideoData = field(VideoData(), "Where the videos come from.")
    network: VideoNetwork = field(VideoNetwork(), "The 3D-CNN.")
    time: TimeTransformations = field(TimeTransformations(), "The transformations of time.")
    augment: ClipAugmentation = field(ClipAugmentation(), "What is done to the pixels.")
    optim: Optim = field(Optim(), "Optimiser and schedule.")
    train: Train = field(Train(), "How long and in which numerics to train.")
    monitor: Monitor = field(Monitor(), "Held-out checks while training.")
    machine: Machine = field(Machine(), "Where and how wide the job runs.")
