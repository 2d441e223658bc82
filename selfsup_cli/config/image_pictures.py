"""Presets of the pictures of images: transformations with what they do, and means of data sets."""

from __future__ import annotations

from typing import Literal

from selfsup_cli.config.blocks import Preset
from selfsup_cli.config.fields import Model, field
from selfsup_cli.config.images import ImageData
from selfsup_cli.config.pictures import OneMachine


class Transformer(Model):
    """Whose transformations are shown."""

    run: str | None = field(
        None,
        "Run of 'selfsup pretrain transformations'; by default the newest finished one, and where "
        "there is none, only what needs no inpainter is shown.",
        flag="--from",
        names="runs",
    )


class ShownImages(Model):
    """Which images are shown."""

    count: int = field(6, "Images shown, chosen by the seed.", flag="--count", ge=1, le=64)
    seed: int = field(
        0, "Seed of the choice of images and of what is done to them.", flag="--seed", ge=0
    )


class SampleTransformations(Preset):
    """What inpainting and warping do to images: patches before and after, control points."""

    task: Literal["sample-transformations"] = field("sample-transformations", "The task.")
    subject: Transformer = field(Transformer(), "Whose transformations are shown.")
    data: ImageData = field(
        ImageData(), "Where the images come from; without a source, those of the run."
    )
    shown: ShownImages = field(ShownImages(), "Which images are shown.")
    machine: OneMachine = field(OneMachine(), "Where the job runs.")


class Averaged(Model):
    """What is averaged."""

    images: int = field(
        8000, "Images of the training part, chosen by the seed.", flag="--images", ge=2
    )
    side: int = field(
        96,
        "Side of the central square, once the shorter side has been scaled to it.",
        flag="--side",
        unit="pixels",
        ge=32,
        le=512,
    )
    patch: int = field(
        24, "Side of the patches shown enlarged; at most a quarter of the image.", unit="pixels",
        ge=8,
    )  # fmt: skip
    seed: int = field(0, "Seed of the choice of images.", flag="--seed", ge=0)


class MeanImage(Preset):
    """The mean of a data set, and patches of it in all four turns (figure 4.5)."""

    task: Literal["mean-image"] = field("mean-image", "The task.")
    data: ImageData = field(ImageData(), "Where the images come from.")
    mean: Averaged = field(Averaged(), "What is averaged.")
    machine: OneMachine = field(OneMachine(), "Where the job runs.")
