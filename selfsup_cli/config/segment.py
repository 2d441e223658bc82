"""Presets of `selfsup transfer segment`: a class for every pixel."""

from __future__ import annotations

from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le, Lt
from pydantic import model_validator

from selfsup_cli.config.blocks import Data
from selfsup_cli.config.fields import Model, field
from selfsup_cli.config.images import Rendered
from selfsup_cli.config.registry import TIMM
from selfsup_cli.config.transfer_images import TransferImages
from selfsup_cli.config.weighing import WeighedOptim, Weighing, check_weighing

Side = Annotated[int, Ge(16), Le(2048)]


class MaskData(Data):
    """Where images and their masks come from."""

    source: str | None = field(
        None,
        "scenes, voc2007, voc2012, or a folder: in PASCAL VOC's form (JPEGImages and "
        "SegmentationClass), images and masks (or labels), or train, trainannot, val and valannot.",
        flag="--data,--dataset",
        names="image-datasets",
    )
    test_share: float = field(
        0.2,
        "Share of the images held out for testing where the data has no split of its own.",
        flag="--test-share",
        gt=0,
        lt=1,
    )
    void: list[Annotated[int, Ge(0), Le(255)]] = field(
        [],
        "Labels of masks that do not count, besides 255 and what classes.txt calls void.",
        flag="--void",
    )
    scenes: Rendered = field(Rendered(), "The built-in images of `scenes`.")


class SegmentHead(Model):
    """What makes classes of pixels out of features (Long et al., 2015)."""

    finest: Literal["32s", "16s", "8s"] = field(
        "8s",
        "Finest features that are looked at: the last layer, pooled to a stride of 32 pixels, or "
        "also earlier ones of stride 16, or of 16 and 8.",
        flag="--fcn",
    )
    hidden: list[Annotated[int, Ge(1), Le(65536)]] = field(
        [],
        "Units of hidden layers on top of the last layer (times the width of the network), each "
        "followed by ReLU and dropout.",
    )
    kernel: int = field(6, "Side of the first of them.", unit="cells", ge=1, le=15)
    dropout: Annotated[float, Ge(0), Lt(1)] = field(
        0.5, "Share of their values that are dropped in training."
    )


class SegmentAugmentation(Model):
    """How images and masks come to the network, and what is done to those it is trained on."""

    shorter: Side | None = field(
        None,
        "Scale the shorter side of images to this, for training and for testing; by default they "
        "keep their size.",
        flag="--shorter",
        unit="pixels",
    )
    scale: tuple[Annotated[float, Gt(0), Le(4)], Annotated[float, Gt(0), Le(4)]] = field(
        (0.5, 2.0), "Range of a random further scaling of a training image and its mask."
    )
    crop: Annotated[int, Ge(16), Le(1024)] = field(
        320,
        "Side of the square that is cut out of them at random; what is missing of it does not "
        "count.",
        flag="--crop",
        unit="pixels",
    )
    flip: bool = field(True, "Mirror half of them.")
    color: bool = field(False, "Random brightness, saturation and greyscale.")

    @model_validator(mode="after")
    def _ordered(self) -> SegmentAugmentation:
        low, high = self.scale
        if low > high:
            raise ValueError(f"scale: the range ends ({high:g}) before it begins ({low:g})")
        return self


class TransferSegment(TransferImages):
    """Segment images: say of every pixel which class it is of."""

    task: Literal["segment"] = field("segment", "The task.")
    data: MaskData = field(MaskData(), "Where images and their masks come from.")
    optim: WeighedOptim = field(WeighedOptim(betas=(0.5, 0.99)), "Optimiser and schedule.")
    weighing: Weighing = field(
        Weighing(), "The mini-batches of a step (--optimizer bilevel, microbatches)."
    )
    head: SegmentHead = field(SegmentHead(), "What makes classes of pixels out of features.")
    augment: SegmentAugmentation = field(
        SegmentAugmentation(),
        "How images and masks come to the network, and what is done to training images.",
    )

    @model_validator(mode="after")
    def _divisible(self) -> TransferSegment:
        check_weighing(self)
        return self

    @property
    def name(self) -> str:
        return self.task

    @property
    def built_for(self) -> tuple[int | None, int | None]:
        # Some of timm's take images of one size alone; of all others the layers that are used take
        # any, and those that are not are the smaller, the smaller the crop.
        if self.network.arch.startswith(TIMM):
            return self.augment.crop, None
        return None, None
