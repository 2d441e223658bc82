"""Presets of `selfsup transfer TASK` on images."""

from __future__ import annotations

from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le, Lt
from pydantic import model_validator

from selfsup_cli.config.blocks import Data, Fraction, Machine, Numerics, Optim, Preset
from selfsup_cli.config.fields import Model, field
from selfsup_cli.config.image_pretrain import ImageNetwork
from selfsup_cli.config.images import ImageData
from selfsup_cli.config.transfer import Seed, TransferVideo, each_once
from selfsup_cli.config.weighing import (
    WEIGHED,
    LabelNoise,
    Regularization,
    Suspects,
    WeighedOptim,
    Weighing,
    check_noise,
    check_weighing,
)


class ImageStart(Model):
    """What training starts from, and what of it stays as it is."""

    init: str = field(
        "latest",
        "Run, run directory or backbone.safetensors whose weights to start from; latest is the "
        "newest finished pretraining that fits, supervised the newest transfer that started from "
        "random weights, random no training at all.",
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
    absorb_bn: bool = field(
        False,
        "Make batch norm a part of the convolutions before it, with the statistics it has: the "
        "network computes the same, and has none from then on.",
        flag="--absorb-bn",
    )
    rescale: bool = field(
        False,
        "Scale layers with fresh weights by what they give on some training images, to unit "
        "variance, and balance how fast all layers change (Krähenbühl et al.).",
        flag="--rescale",
    )


class ClassifyStart(ImageStart):
    """The same of a classifier, which may keep the network's own fully connected layers."""

    reinit_head: bool = field(
        False,
        "Put fully connected layers with fresh weights on top of the convolutions, instead of a "
        "fresh last layer on what the network gives.",
        flag="--reinit-head",
    )


class ImageHead(Model):
    """Fully connected layers with fresh weights on top of the convolutions (--reinit-head)."""

    hidden: list[Annotated[int, Ge(1), Le(65536)]] = field(
        [4096, 4096],
        "Units of the hidden layers (times the width of the network); batch norm and ReLU follow.",
    )
    batch_norm: bool = field(True, "Batch norm after each hidden layer; ReLU alone without it.")
    dropout: Annotated[float, Ge(0), Lt(1)] = field(
        0.5, "Share of the values that are dropped in training before the second layer and on."
    )
    pooling: Literal["max", "none"] = field(
        "max",
        "What they see of the convolutions: maxima of 3×3 cells at stride 2, as AlexNet's own, or "
        "every cell.",
    )


class ImageAugmentation(Model):
    """How images come to the network, and what is done to those it is trained on."""

    shorter: Annotated[int, Ge(16), Le(1024)] | None = field(
        None,
        "Scale the shorter side of images to this; by default as the network was trained (96, "
        "where it starts from random weights).",
        flag="--shorter",
        unit="pixels",
    )
    crop: Annotated[int, Ge(16), Le(512)] | None = field(
        None,
        "Side of the square that the network sees; by default as it was trained (64, where it "
        "starts from random weights).",
        flag="--crop",
        unit="pixels",
    )
    framing: Literal["random", "resized", "center"] = field(
        "random",
        "Which square of a training image: anywhere, or a random share of it scaled to the crop, "
        "or the middle.",
    )
    scale: tuple[Annotated[float, Gt(0), Le(1)], Annotated[float, Gt(0), Le(1)]] = field(
        (0.08, 1.0), "Range of that share of the area, with `framing: resized`."
    )
    pad: Annotated[int, Ge(0), Le(32)] = field(
        0,
        "Pixels of black around a training image of the size above, before the square is cut out.",
        unit="pixels",
    )
    flip: bool = field(True, "Mirror half of the images.")
    color: bool = field(False, "Random brightness, saturation and greyscale.")
    light: bool = field(
        False, "Random brightness (up to ± 63 of 255) and contrast (0.2 to 1.8 times its own)."
    )
    affine: Fraction = field(
        0.0, "Share of the images turned, moved, scaled and sheared a little at random."
    )
    cutout: Fraction = field(0.0, "Share of the images in which a random square is painted over.")
    cutout_side: tuple[Fraction, Fraction] = field(
        (0.2, 0.7), "Range of the side of that square, as a share of the crop."
    )

    @model_validator(mode="after")
    def _fits(self) -> ImageAugmentation:
        if self.crop is not None and self.shorter is not None and self.crop > self.shorter:
            raise ValueError(
                f"crop: {self.crop} does not fit into images whose shorter side is {self.shorter}"
            )
        if self.pad and self.framing != "random":
            raise ValueError("pad: only a square that is cut out at random needs room around it")
        for name in ("scale", "cutout_side"):
            low, high = getattr(self, name)
            if low > high:
                raise ValueError(f"{name}: the range ends ({high:g}) before it begins ({low:g})")
        return self


class ImageNumerics(Numerics):
    """How long and in which numerics to train."""

    batch_size: int = field(
        64, "Images in one update, over all devices.", flag="--batch-size", ge=1
    )


class ImageTest(Model):
    """Which crops of a test image are looked at."""

    crops: Literal["center", "ten", "random"] = field(
        "center",
        "The middle; or ten, it and the corners and their mirror images (table 4.7), or ten at "
        "random places, half of them mirrored (on PASCAL VOC), whose predictions are averaged.",
        flag="--test-crops",
    )


class TransferImages(Preset):
    """A preset of transfer to a task on images, whatever the task."""

    start: ImageStart = field(ImageStart(), "What training starts from.")
    network: ImageNetwork = field(
        ImageNetwork(), "The 2D-CNN, where training starts from random weights."
    )
    data: Data = field(Data(), "Where the images come from.")
    splits: list[Annotated[int, Ge(1), Le(99)]] = field(
        [],
        "Folds to train on, one after the other, and to average over (stl10 has 1 to 10); "
        "data.split if none is given.",
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
        "Share of the training images to learn from, the same of every class.",
        flag="--fraction",
        gt=0,
        le=1,
    )
    optim: Optim = field(Optim(betas=(0.5, 0.99)), "Optimiser and schedule.")
    train: ImageNumerics = field(ImageNumerics(), "How long and in which numerics to train.")
    check_epochs: int = field(
        5,
        "Epochs between looks at the test part, with one crop of each image; 0 looks at the end "
        "only.",
        flag="--check-every",
        ge=0,
    )
    machine: Machine = field(Machine(), "Where and how wide the job runs.")

    @property
    def name(self) -> str:
        """The task's name."""
        raise NotImplementedError

    @property
    def built_for(self) -> tuple[int | None, int | None]:
        """For which crop of images of which shorter side a network with random weights is built."""
        return None, None

    @model_validator(mode="after")
    def _each_once(self) -> TransferImages:
        each_once(self, "seeds", "splits")
        return self

    @model_validator(mode="after")
    def _scales_count(self) -> TransferImages:
        start = self.start
        if start.rescale and start.init == "random" and not start.absorb_bn:
            raise ValueError(
                "start.rescale: scales of layers count for nothing before the batch norm of a "
                "network with random weights; set start.absorb_bn as well"
            )
        return self


class LabelledImages(ImageData):
    """Where the images come from, and what is done to the labels of those that are trained on."""

    noise: LabelNoise = field(LabelNoise(), "Wrong labels on purpose.")
    permute_pixels: bool = field(
        False,
        "Put the pixels of each image, test images too, in an order of its own, the same in every "
        "epoch (table 8.2).",
        flag="--permute-pixels",
    )


class Classifying(TransferImages):
    """A preset of learning to classify images, in whatever job."""

    start: ClassifyStart = field(ClassifyStart(), "What training starts from.")
    data: LabelledImages = field(LabelledImages(), "Where the images come from.")
    optim: WeighedOptim = field(WeighedOptim(betas=(0.5, 0.99)), "Optimiser and schedule.")
    weighing: Weighing = field(
        Weighing(), "The mini-batches of a step (--optimizer bilevel, microbatches)."
    )
    regularize: Regularization = field(
        Regularization(), "What else is done against learning labels by heart."
    )
    suspects: Suspects = field(Suspects(), "Which labels are wrong?")
    head: ImageHead = field(ImageHead(), "Fresh fully connected layers.")
    augment: ImageAugmentation = field(
        ImageAugmentation(), "How images come to the network, and what is done to training images."
    )
    test: ImageTest = field(ImageTest(), "Which crops of a test image are looked at.")
    labels: Literal["auto", "class", "attributes"] = field(
        "auto",
        "What an image is labelled with: one class, or any number of attributes; auto takes what "
        "the data has.",
        flag="--labels",
    )

    @model_validator(mode="after")
    def _labels_can_be_learned(self) -> Classifying:
        check_weighing(self)
        check_noise(self.data.noise, "data.noise")
        if self.suspects.folds == 1:
            raise ValueError("suspects.folds: labels are judged without one of at least 2 parts")
        if self.suspects.folds and not self.suspects.on:
            raise ValueError("suspects.folds: that is for --suspects")
        if self.suspects.folds and self.machine.devices > 1:
            raise ValueError("suspects.folds: networks without a part are trained on one device")
        if self.regularize.inside and self.network.arch != "preact_resnet18":
            raise ValueError(
                "regularize.inside: only the blocks of preact_resnet18 have a place for that "
                "dropout; use --dropout"
            )
        return self

    @model_validator(mode="after")
    def _head_without_norm(self) -> Classifying:
        if self.start.rescale and self.start.reinit_head and self.head.batch_norm:
            raise ValueError(
                "start.rescale: scales of layers count for nothing before the batch norm of the "
                "fresh head; set head.batch_norm to false"
            )
        return self

    @property
    def built_for(self) -> tuple[int | None, int | None]:
        return self.augment.crop, self.augment.shorter

    @property
    def about_labels(self) -> bool:
        """Whether it is about labels: wrong ones, or how they are learned."""
        data = self.data
        changed = data.noise.on or data.permute_pixels
        return changed or self.suspects.on or self.optim.name in WEIGHED


class TransferClassify(Classifying):
    """Classify images: fine-tune a network on labelled images, or train on frozen layers."""

    task: Literal["classify"] = field("classify", "The task.")

    @property
    def name(self) -> str:
        return self.task


Transfer = TransferVideo | TransferImages
"""A preset of transfer, whatever it is trained on."""
