"""Presets of `selfsup transfer detect`."""

from __future__ import annotations

from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le, Lt
from pydantic import model_validator

from selfsup_cli.config.blocks import Data, Fraction, Optim
from selfsup_cli.config.fields import Model, field
from selfsup_cli.config.images import Rendered
from selfsup_cli.config.transfer_images import ImageNumerics, TransferImages

Side = Annotated[int, Ge(32), Le(4096)]


class BoxedData(Data):
    """Where the images and the boxes in them come from."""

    source: str | None = field(
        None,
        "scenes, voc2007 or voc2012, a folder in the form of PASCAL VOC (JPEGImages, Annotations) "
        "or of COCO (annotations/instances_*.json), a JSON file of COCO, or a folder of images "
        "with an XML file beside each.",
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
    scenes: Rendered = field(Rendered(), "The built-in images of `scenes`.")


class Proposals(Model):
    """Regions that may hold an object, for Fast R-CNN."""

    file: str | None = field(
        None,
        "File of proposals (.h5, .npz or .json); without one, selective search makes them, and "
        "keeps them in the cache.",
        flag="--proposals",
    )
    mode: Literal["fast", "quality"] = field(
        "fast", "How many ways selective search cuts an image into segments."
    )
    side: Side = field(
        500, "Longer side to which images are scaled for selective search.", unit="pixels"
    )
    most: int = field(2000, "Proposals kept of an image; of more, the largest.", ge=10, le=20_000)


class DetectorNetwork(Model):
    """What is put on the transferred network."""

    kind: Literal["fast", "faster"] = field(
        "fast",
        "Fast R-CNN, which classifies proposals, or Faster R-CNN, which makes its own.",
        flag="--detector",
    )
    head: Literal["fresh", "own"] = field(
        "fresh",
        "What a region goes through: fully connected layers with fresh weights, or what the "
        "network itself has above its convolutions (alexnet's fc1 and fc2, a ResNet's layer4).",
        flag="--head",
    )
    layer: str | None = field(
        None,
        "Layer that regions are pooled from; by default the last convolutions, or with `head: own` "
        "those below the network's own last layers.",
        flag="--layer",
        names="image-layers",
    )
    pooling: Literal["max", "align"] = field(
        "max", "Maxima of a region's cells (RoI pooling), or bilinear means (RoIAlign)."
    )
    cells: Annotated[int, Ge(1), Le(32)] = field(
        6, "Cells along each side of a region, where fresh layers see them."
    )
    hidden: list[Annotated[int, Ge(1), Le(65536)]] = field(
        [4096, 4096], "Units of the fresh layers (times the width of the network)."
    )
    dropout: Annotated[float, Ge(0), Lt(1)] = field(
        0.5, "Share of their values that is dropped in training."
    )
    batch_norm: Literal["fixed", "batch"] = field(
        "fixed",
        "Statistics of the network's batch norm: those of pretraining (with random weights, those "
        "of some training images, taken before training), or those of each batch.",
    )
    anchors: list[Annotated[int, Ge(8), Le(1024)]] = field(
        [],
        "Sides of Faster R-CNN's anchors; by default 2 to 32 strides of the layer.",
        unit="pixels",
        max_length=16,
    )


class RegionSampling(Model):
    """Which regions of an image are learned from."""

    count: int = field(64, "Regions of each image in an update.", ge=1, le=4096)
    foreground: Fraction = field(0.25, "Largest share of them that may hold an object.")
    overlap: Annotated[float, Gt(0), Le(1)] = field(
        0.5, "Intersection over union from which on a region holds an object."
    )
    background_from: Fraction = field(
        0.1, "The same from which on others are taken for background, of Fast R-CNN."
    )

    @model_validator(mode="after")
    def _ordered(self) -> RegionSampling:
        if self.background_from >= self.overlap:
            raise ValueError(
                f"background_from: {self.background_from:g} is not below overlap, {self.overlap:g}"
            )
        return self


class DetectImages(Model):
    """In which sizes images come to the network."""

    shorter: list[Side] = field(
        [480, 576, 688, 864, 1200],
        "Shorter sides of training images, of which each takes one at random.",
        flag="--shorter",
        unit="pixels",
        min_length=1,
        max_length=16,
    )
    longest: Side = field(
        2000, "Longer sides are not scaled beyond this in training.", unit="pixels"
    )
    test_shorter: Side = field(
        600, "Shorter side of test images.", flag="--test-shorter", unit="pixels"
    )
    test_longest: Side = field(
        1000, "Longer sides are not scaled beyond this in testing.", unit="pixels"
    )
    flip: bool = field(True, "Mirror half of the training images.")
    crop: Annotated[int, Ge(16), Le(1024)] | None = field(
        None,
        "Size for which a network with random weights is built: it matters to timm's networks of a "
        "fixed size, which see images scaled to fit into it, and to fully connected layers.",
        flag="--crop",
        unit="pixels",
    )


class DetectTest(Model):
    """Which of the boxes found in a test image count."""

    score: Fraction = field(0.01, "Lowest score of a box that counts.")
    nms: Annotated[float, Gt(0), Le(1)] = field(
        0.3, "Intersection over union above which the less sure of two boxes of a class goes."
    )
    most: int = field(100, "Boxes of an image, the surest of all classes.", ge=1, le=1000)


class TransferDetect(TransferImages):
    """Find objects in images: Fast or Faster R-CNN on a transferred network."""

    task: Literal["detect"] = field("detect", "The task.")
    data: BoxedData = field(BoxedData(), "Where the images and the boxes in them come from.")
    proposals: Proposals = field(Proposals(), "Regions that may hold an object.")
    detector: DetectorNetwork = field(DetectorNetwork(), "What is put on the network.")
    regions: RegionSampling = field(RegionSampling(), "Which regions are learned from.")
    images: DetectImages = field(DetectImages(), "In which sizes images come to the network.")
    test: DetectTest = field(DetectTest(), "Which of the boxes found in a test image count.")
    optim: Optim = field(Optim(name="sgd", lr=1e-3, weight_decay=5e-4), "Optimiser and schedule.")
    train: ImageNumerics = field(
        ImageNumerics(batch_size=2), "How long and in which numerics to train."
    )

    @property
    def name(self) -> str:
        return self.task

    @property
    def built_for(self) -> tuple[int | None, int | None]:
        return self.images.crop, None

    @model_validator(mode="after")
    def _fits(self) -> TransferDetect:
        if self.detector.kind == "faster" and self.proposals.file is not None:
            raise ValueError(
                "proposals.file: Faster R-CNN makes its own proposals; use --detector fast with it"
            )
        if self.detector.head == "own" and self.detector.layer is not None:
            raise ValueError(
                "detector.layer: with head own, it is fixed which layers lie above; leave it out, "
                "or use --head fresh"
            )
        return self
