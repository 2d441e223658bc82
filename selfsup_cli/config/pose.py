"""Presets of `selfsup transfer pose`: where the joints of a person are in space."""

from __future__ import annotations

from typing import Annotated, Literal

from annotated_types import Ge, Le, MinLen
from pydantic import model_validator

from selfsup_cli.config.blocks import Machine, Numerics, Optim, Preset
from selfsup_cli.config.fields import Model, field
from selfsup_cli.config.multiview import MultiviewData
from selfsup_cli.config.transfer import Seed, each_once


class PoseStart(Model):
    """What training starts from, and what of it stays as it is."""

    init: str = field(
        "latest",
        "Run, run directory or backbone.safetensors whose weights to start from; latest is the "
        "newest finished pretraining that fits, random no training at all.",
        flag="--init",
        names="starts",
    )
    freeze: str | None = field(
        None,
        "Layers that stay as they are: none, conv, or all up to and including a layer; by default "
        "of learned weights all but the last one (layer4 of a ResNet), of random ones none.",
        flag="--freeze",
        names="freezes",
    )


class PoseNetwork(Model):
    """The network, where training starts from random weights."""

    arch: str = field(
        "resnet18",
        "Network: resnet18, resnet34, resnet50 (torchvision), any of timm's as timm/NAME, or "
        "another one for images.",
        flag="--arch",
        names="image-archs",
    )
    width: float = field(
        1.0,
        "Multiplier of the number of channels of a network of the thesis.",
        flag="--width",
        gt=0,
        le=4,
    )
    final_relu: bool = field(
        False,
        "End the last residual block of a ResNet, or of one of timm's networks, with its ReLU; "
        "without it, it is the network that pretrain multiview trains.",
        flag="--final-relu",
    )


class PoseData(MultiviewData):
    """Where images and the joints in them come from."""

    side: Annotated[int, Ge(32), Le(512)] | None = field(  # type: ignore[assignment]
        None,
        "Height and width of the crops around the subject; by default as the network was trained "
        "(128, where it starts from random weights).",
        flag="--side",
        unit="pixels",
    )


class PoseImages(Model):
    """Which images are learned from and tested on, and how they come to the network."""

    background: Literal["remove", "keep"] = field(
        "remove",
        "What becomes of the scene behind the subject, in training and in testing.",
        flag="--background",
    )
    every: int = field(
        1, "Every so many frames of a recording are learned from.", flag="--every", ge=1, le=10_000
    )
    still: float = field(
        0.25,
        "Frames are not learned from where the picture changes less than this share of what it "
        "changes in the median frame of the training part; 0 keeps all.",
        ge=0,
        le=1,
    )
    test_every: int = field(
        64, "Every so many frames are tested on.", flag="--test-every", ge=1, le=10_000
    )
    flip: bool = field(True, "Mirror half of the images, and left and right of their poses.")


class PoseNumerics(Numerics):
    """How long and in which numerics to train."""

    epochs: int = field(
        1000, "Passes over the training images; max_steps may end it before.", flag="--epochs", ge=1
    )
    max_steps: int | None = field(
        200_000, "Stop after this many updates, schedule included.", flag="--max-steps", ge=1
    )
    batch_size: int = field(
        16, "Images in one update, over all devices.", flag="--batch-size", ge=1
    )


class TransferPose(Preset):
    """Estimate 3D poses: where 17 joints of the person in an image are in space."""

    task: Literal["pose"] = field("pose", "The task.")
    start: PoseStart = field(PoseStart(), "What training starts from.")
    network: PoseNetwork = field(
        PoseNetwork(), "The 2D-CNN, where training starts from random weights."
    )
    data: PoseData = field(PoseData(), "Where images and the joints in them come from.")
    subjects: list[Annotated[str, MinLen(1)]] = field(
        [],
        "Learn from the poses of these subjects only (S1 in table 6.1); of all training subjects "
        "by default.",
        flag="--subjects",
    )
    images: PoseImages = field(
        PoseImages(), "Which images are used, and how they come to the network."
    )
    seeds: list[Seed] = field(
        [0],
        "Seeds of everything that is random; of several, each is trained, and mean and standard "
        "deviation are reported.",
        flag="--seed",
        min_length=1,
    )
    fraction: float = field(
        1.0, "Share of the training images to learn from.", flag="--fraction", gt=0, le=1
    )
    optim: Optim = field(
        Optim(lr=1e-4, weight_decay=1e-4, betas=(0.9, 0.999)), "Optimiser and schedule."
    )
    train: PoseNumerics = field(PoseNumerics(), "How long and in which numerics to train.")
    check_epochs: int = field(
        5,
        "Epochs between looks at some of the test part; 0 looks at the end only.",
        flag="--check-every",
        ge=0,
    )
    machine: Machine = field(Machine(), "Where and how wide the job runs.")

    @property
    def name(self) -> str:
        """The task's name."""
        return self.task

    @property
    def splits(self) -> list[int]:
        """Folds; poses have none."""
        return []

    @model_validator(mode="after")
    def _subjects_apart(self) -> TransferPose:
        each_once(self, "seeds")
        if len(set(self.subjects)) < len(self.subjects):
            raise ValueError("subjects: one of them stands there twice")
        both = sorted(set(self.subjects) & set(self.data.test_subjects))
        if both:
            raise ValueError(
                f"subjects: {', '.join(both)} cannot be learned from and tested on at once"
            )
        return self
