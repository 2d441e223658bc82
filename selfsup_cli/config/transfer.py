"""Presets of `selfsup transfer TASK`: fine-tune on a task, or train on frozen layers."""

from __future__ import annotations

from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le
from pydantic import model_validator

from selfsup_cli.config.blocks import Machine, Numerics, Optim, Preset, Size, VideoData
from selfsup_cli.config.fields import Model, field
from selfsup_cli.config.video import VideoNetwork
from selfsup_cli.config.weighing import WeighedOptim, Weighing, check_weighing

Seed = Annotated[int, Ge(0)]


class Start(Model):
    """What training starts from, and what of it stays as it is."""

    init: str = field(
        "latest",
        "Run, run directory or backbone.safetensors whose weights to start from; latest is the "
        "newest finished pretraining that fits, supervised the newest one of action labels, "
        "random no training at all.",
        flag="--init",
        names="starts",
    )
    freeze: str = field(
        "none",
        "Layers that stay as they are: none, conv (all below the fully connected ones), or all up "
        "to and including a layer.",
        flag="--freeze",
        names="freezes",
    )
    reinit_head: bool = field(
        False,
        "Put fully connected layers with fresh weights on top of the convolutions, instead of only "
        "a fresh last layer; with `conv` frozen it is always so.",
        flag="--reinit-head",
    )


class Head(Model):
    """Fully connected layers with fresh weights, on top of the convolutions."""

    hidden: list[Annotated[int, Ge(1), Le(65536)]] = field(
        [2048, 2048],
        "Units of the hidden layers (times the width of the network); batch norm and ReLU follow.",
    )
    pooling: Literal["max", "none"] = field(
        "max",
        "What they see of the convolutions: maxima of 2×2×2 cells, as C3D's own, or every cell.",
    )


class TransferAugmentation(Model):
    """What is done to the pixels of training clips. Sizes are those of pretraining by default."""

    resize: Size | None = field(None, "Height and width to which frames are scaled.", unit="pixels")
    scale: tuple[Annotated[float, Gt(0), Le(1)], Annotated[float, Gt(0), Le(1)]] = field(
        (1.0, 1.0), "Range of a random further scaling, drawn per clip, aspect ratio kept."
    )
    crop: Annotated[int, Ge(16), Le(512)] | None = field(
        None,
        "Side of the random square crop; only a network with random weights has a choice.",
        flag="--crop",
        unit="pixels",
    )
    flip: bool = field(True, "Mirror half of the videos.")
    color: Literal["none", "clip", "frame"] = field(
        "none", "Random brightness, saturation and greyscale: off, per clip, or per frame."
    )


def each_once(preset: Preset, *names: str) -> None:
    """Raise ValueError for a field of numbers in which one stands twice."""
    for name in names:
        values = getattr(preset, name)
        if len(set(values)) < len(values):
            raise ValueError(f"{name}: a number stands there twice")


class TransferVideo(Preset):
    """A preset of transfer to a task on video, whatever the task."""

    start: Start = field(Start(), "What training starts from.")
    network: VideoNetwork = field(
        VideoNetwork(), "The 3D-CNN, where training starts from random weights."
    )
    data: VideoData = field(VideoData(), "Where the videos come from.")
    splits: list[Annotated[int, Ge(1), Le(99)]] = field(
        [],
        "Official splits to train on, one after the other, and to average over; data.split if "
        "none is given.",
        flag="--splits",
    )
    seeds: list[Seed] = field(
        [0],
        "Seeds of everything that is random; of several, each is trained, and mean and standard "
        "deviation are reported.",
        flag="--seed",
        min_length=1,
    )
    fraction: float = field(
        1.0,
        "Share of the training videos to learn from, the same of every class.",
        flag="--fraction",
        gt=0,
        le=1,
    )
    head: Head = field(Head(), "Fresh fully connected layers.")
    augment: TransferAugmentation = field(
        TransferAugmentation(), "What is done to the pixels of training clips."
    )
    optim: Optim = field(Optim(lr=5e-5, weight_decay=2.0), "Optimiser and schedule.")
    train: Numerics = field(Numerics(batch_size=24), "How long and in which numerics to train.")
    check_epochs: int = field(
        5,
        "Epochs between looks at the accuracy on the test part, with one clip of each video; "
        "0 looks at the end only.",
        flag="--check-every",
        ge=0,
    )
    machine: Machine = field(Machine(), "Where and how wide the job runs.")

    @property
    def name(self) -> str:
        """The task's name."""
        raise NotImplementedError

    @model_validator(mode="after")
    def _each_once(self) -> TransferVideo:
        each_once(self, "seeds", "splits")
        return self


class ActionClips(Model):
    """Which clips of a video are seen (thesis, section 5.3)."""

    max_skip: int = field(
        4,
        "Largest step between frames; a video of n frames is read at min(n // frames, this).",
        ge=1,
        le=16,
    )
    test: Annotated[int, Ge(1), Le(64)] | Literal["all"] = field(
        "all",
        "Clips of each test video, evenly spaced, whose predictions are averaged; all takes the "
        "32 to 63 starts of the author's test.",
        flag="--test-clips",
    )


class TransferAction(TransferVideo):
    """Recognise actions: fine-tune a network on labelled videos, or train on frozen layers."""

    task: Literal["action"] = field("action", "The task.")
    clips: ActionClips = field(ActionClips(), "Which clips of a video are seen.")
    optim: WeighedOptim = field(WeighedOptim(lr=5e-5, weight_decay=2.0), "Optimiser and schedule.")
    weighing: Weighing = field(
        Weighing(), "The mini-batches of a step (--optimizer bilevel, microbatches)."
    )

    @model_validator(mode="after")
    def _divisible(self) -> TransferAction:
        check_weighing(self)
        return self

    @property
    def name(self) -> str:
        return self.task


class SyncPairs(Model):
    """Which two clips of a video are compared (thesis, section 5.3)."""

    max_offset: int = field(
        6, "Largest delay of one clip behind the other.", unit="frames", ge=1, le=15
    )
    test: int = field(1, "Pairs of each delay that are taken from a test video.", ge=1, le=16)


class TransferSync(TransferVideo):
    """Synchronise: by how many frames is one of two overlapping clips behind the other?"""

    task: Literal["sync"] = field("sync", "The task.")
    pairs: SyncPairs = field(SyncPairs(), "Which two clips of a video are compared.")

    @property
    def name(self) -> str:
        return self.task


class OrderPairs(Model):
    """Which two half clips of a video are put in order (thesis, section 5.3)."""

    max_skip: int = field(
        1,
        "Largest step between frames; a video of n frames is read at min(n // frames, this).",
        ge=1,
        le=16,
    )
    max_gap: Annotated[int, Ge(0)] | None = field(
        None, "Most frames between the two halves; any number by default.", unit="frames"
    )
    test: int = field(4, "Places of a test video at which both orders are shown.", ge=1, le=32)


class TransferOrder(TransferVideo):
    """Before or after: do the two halves of a clip stand in their order of time?"""

    task: Literal["order"] = field("order", "The task.")
    pairs: OrderPairs = field(OrderPairs(), "Which two half clips are put in order.")

    @property
    def name(self) -> str:
        return self.task
