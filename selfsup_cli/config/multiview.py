"""Presets of `selfsup pretrain multiview`, and the views it learns from (thesis, chapter 6)."""

from __future__ import annotations

from typing import Annotated, Literal

from annotated_types import MinLen
from pydantic import model_validator

from selfsup_cli.config.blocks import Fraction, Machine, Optim, Preset, Train
from selfsup_cli.config.fields import Model, field
from selfsup_cli.config.figures import Figures

FIGURES = "figures"
"""The built-in data: bodies rendered from four cameras."""

RATE = 50
"""Frames per second in which the thesis counts gaps in time."""

Name = Annotated[str, MinLen(1)]


class ViewSource(Model):
    """Where synchronised views come from, and which subjects are learned from and held out."""

    source: str | None = field(
        None,
        "The built-in figures, a registered dataset (human36m, mpi_inf_3dhp), a folder "
        "SUBJECT/SEQUENCE/CAMERA of videos or images, or an HDF5 file of crops (.h5).",
        flag="--data,--dataset",
        names="view-datasets",
    )
    root: str | None = field(
        None,
        "Folder of a registered dataset, instead of $SELFSUP_DATA/NAME.",
        flag="--data-root",
    )
    cameras: list[Name] = field([], "Only these cameras, by name; all if none is named.")
    train_subjects: list[Name] = field(
        [],
        "Subjects to learn from; without one those of the dataset, or all that are not held out.",
        flag="--train-subjects",
    )
    test_subjects: list[Name] = field(
        [],
        "Subjects held out; without one those of the dataset, or a share of them. Data of a single "
        "subject holds out the end of each recording.",
        flag="--test-subjects",
    )
    test_share: float = field(
        0.2,
        "Share of the subjects, or of the frames of a single one, held out where the data has no "
        "split of its own.",
        flag="--test-share",
        gt=0,
        lt=1,
    )
    max_bad: Fraction = field(
        0.01,
        "Share of unreadable samples above which the job fails.",
        flag="--max-bad",
        identity=False,
    )
    figures: Figures = field(Figures(), "The built-in figures.")

    @model_validator(mode="after")
    def _apart(self) -> ViewSource:
        both = sorted(set(self.train_subjects) & set(self.test_subjects))
        if both:
            raise ValueError(
                f"test_subjects: {', '.join(both)} cannot be held out and learned from at once"
            )
        return self


class MultiviewData(ViewSource):
    """The same, and how large its crops are."""

    side: int = field(
        128,
        "Height and width of the crops around the subject.",
        flag="--side",
        unit="pixels",
        ge=32,
        le=512,
    )


class SiameseNetwork(Model):
    """The network that sees both images of a pair, and what compares them."""

    arch: str = field(
        "resnet18",
        "Backbone: resnet18, resnet34, resnet50 (torchvision), or any of timm's as timm/NAME.",
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
    init: Literal["random", "imagenet"] = field(
        "random",
        "Weights to begin with: random ones, or those of ImageNet from the file --weights.",
        flag="--init",
    )
    weights: str | None = field(
        None,
        "File (.safetensors) of torchvision's or timm's weights of the network, for --init "
        "imagenet.",
        flag="--weights",
    )
    final_relu: bool = field(
        False,
        "End the last residual block with its ReLU, as published. Without it features have signs, "
        "which products of them need: of values that are never negative they say nothing.",
        flag="--final-relu",
    )
    fusion: Literal["mult", "add", "diff", "concat"] = field(
        "mult",
        "How the features of two images become one: product, sum, difference, or one after the "
        "other.",
        flag="--fusion",
    )
    fusion_relu: bool = field(True, "A ReLU after that.")


class Jitter(Model):
    """Random changes of each image by itself; the thesis has none but for single views."""

    rotate: float = field(0.0, "Largest angle, either way.", unit="degrees", ge=0, le=180)
    scale: float = field(0.0, "Largest change of size: 0.2 is from 1/1.2 to 1.2 times.", ge=0, le=1)
    shift: float = field(0.0, "Largest shift along each axis, as a share of the side.", ge=0, le=1)

    @property
    def on(self) -> bool:
        """Whether anything is changed."""
        return bool(self.rotate or self.scale or self.shift)


class Pairs(Model):
    """Which images make pairs, and what is done to them (sections 6.2.1 and 6.2.2)."""

    signals: Literal["both", "sync", "flip"] = field(
        "both",
        "What is recognised: whether two views are synchronised, whether one of them is mirrored, "
        "or both.",
        flag="--signals",
    )
    min_gap: int = field(
        4,
        f"Images of unsynchronised pairs are more than so many frames apart, at {RATE} a second.",
        flag="--min-gap",
        unit="frames",
        ge=0,
    )
    max_gap: int = field(
        128, "And fewer than so many.", flag="--max-gap", unit="frames", ge=2, le=10_000
    )
    still: float = field(
        0.25,
        "Two frames make no pair where on the way from one to the other the picture changes less "
        "than this share of what it changes from frame to frame in the mean of the training part; "
        "0 pairs all.",
        ge=0,
        le=1,
    )
    every: int = field(
        1,
        "One of so many successive frames is the first of a pair in an epoch, drawn anew in each.",
        flag="--every",
        ge=1,
        le=10_000,
    )
    background: Literal["remove", "substitute", "mixed", "keep"] = field(
        "remove",
        "What becomes of the scene behind the subject: removed, substituted by that of a random "
        "view, either (half of the images each way), or kept.",
        flag="--background",
    )
    flip: bool = field(True, "Mirror both images of half of the pairs, before anything else.")
    views: Literal["multi", "single"] = field(
        "multi",
        "Pairs of two cameras, or as a control of one camera, changed at random (row l of table "
        "6.1).",
        flag="--views",
    )
    jitter: Jitter = field(Jitter(), "Random changes of each image by itself.")

    @model_validator(mode="after")
    def _consistent(self) -> Pairs:
        if self.max_gap < self.min_gap + 2:
            raise ValueError(
                f"max_gap: no gap is more than {self.min_gap} and fewer than {self.max_gap} frames"
            )
        return self


class MultiviewTrain(Train):
    """How long and in which numerics to train."""

    epochs: int = field(
        1000, "Passes over the training frames; max_steps may end it before.", flag="--epochs", ge=1
    )
    max_steps: int | None = field(
        200_000, "Stop after this many updates, schedule included.", flag="--max-steps", ge=1
    )
    batch_size: int = field(
        16,
        "Anchors in one update, over all devices; each gives a pair of every kind, and takes four "
        "images.",
        flag="--batch-size",
        ge=1,
    )


class MultiviewMonitor(Model):
    """Held-out checks while training: is it learning?"""

    every_epochs: int = field(
        1, "Epochs between checks; 0 checks at the end only.", flag="--monitor-every", ge=0
    )
    anchors: int = field(
        512, "Held-out anchors, and as many seen ones, each with its pairs.", ge=16
    )


class PretrainMultiview(Preset):
    """Recognise synchronised and mirrored views of one subject by several cameras."""

    method: Literal["multiview"] = field("multiview", "The method.")
    data: MultiviewData = field(MultiviewData(), "Where the views come from.")
    network: SiameseNetwork = field(SiameseNetwork(), "The network.")
    pairs: Pairs = field(Pairs(), "Which images make pairs, and what is done to them.")
    optim: Optim = field(
        Optim(lr=1e-4, weight_decay=1e-4, betas=(0.9, 0.999)), "Optimiser and schedule."
    )
    train: MultiviewTrain = field(MultiviewTrain(), "How long and in which numerics to train.")
    monitor: MultiviewMonitor = field(MultiviewMonitor(), "Held-out checks while training.")
    machine: Machine = field(Machine(), "Where and how wide the job runs.")

    @property
    def name(self) -> str:
        """The method's name."""
        return self.method

    @property
    def training(self) -> MultiviewTrain:
        """How long it all takes."""
        return self.train

    @property
    def beforehand(self) -> int:
        """Epochs of something else before it."""
        return 0

    @model_validator(mode="after")
    def _enough_for_batch_norm(self) -> PretrainMultiview:
        share = self.train.batch_size // self.machine.devices // self.train.accumulate
        if share == 0:
            raise ValueError(
                f"train.batch_size: {self.train.batch_size} anchors cannot be shared by "
                f"{self.machine.devices} devices in {self.train.accumulate} parts"
            )
        return self
