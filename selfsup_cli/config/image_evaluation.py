"""Preset of `selfsup probe` on images."""

from __future__ import annotations

from typing import Annotated, Literal

from annotated_types import Ge, Le
from pydantic import model_validator

from selfsup_cli.config.blocks import Machine, Preset
from selfsup_cli.config.evaluation import LinearHeads, Subject
from selfsup_cli.config.fields import Model, field
from selfsup_cli.config.images import ImageData


class Views(Model):
    """Which crops stand for an image."""

    train: int = field(
        4,
        "Random crops of each training image, half of them mirrored; 0 takes the centre alone.",
        flag="--train-views",
        ge=0,
        le=256,
    )
    test: Literal["center", "ten"] = field(
        "center",
        "Crops of each test image: its centre, or ten (centre, corners and their mirror images), "
        "over which the answers are averaged.",
        flag="--test-views",
    )
    seed: int = field(0, "Seed of the random crops.", ge=0)
    unpadded: Annotated[int, Ge(35), Le(512)] | None = field(
        None,
        "Crop for an alexnet whose first convolution and poolings do not pad, instead of the "
        "network and crop that were trained (227 on ImageNet and Places in the thesis).",
        flag="--unpadded",
        unit="pixels",
    )


class ImageProbe(LinearHeads):
    """The linear classifiers."""

    layers: list[str] = field(
        [],
        "Layers to classify from; all named layers if none is given.",
        flag="--layer",
        names="image-layers",
    )
    pooling: Literal["thesis", "grid", "none"] = field(
        "thesis",
        "How layers are averaged: thesis (small windows for alexnet on 64 pixels, else at most "
        "9,600 features), grid (probe.grid cells), or none.",
        flag="--pooling",
    )
    grid: Annotated[int, Ge(1), Le(64)] = field(
        2, "Cells along height and width of the pooling grid."
    )


class ProbeImages(Preset):
    """Linear classifiers on frozen layers, on images."""

    task: Literal["probe-images"] = field("probe-images", "The task.")
    subject: Subject = field(Subject(), "What is looked at.")
    data: ImageData = field(ImageData(), "Where the labelled images come from.")
    folds: list[Annotated[int, Ge(1), Le(99)]] = field(
        [],
        "Train on each of these folds of the dataset by itself (stl10 has 1 to 10), and report "
        "mean and standard deviation over them.",
        flag="--folds",
    )
    views: Views = field(Views(), "Which crops stand for an image.")
    probe: ImageProbe = field(ImageProbe(), "The linear classifiers.")
    machine: Machine = field(Machine(), "Where and how wide the job runs.")

    @model_validator(mode="after")
    def _folds(self) -> ProbeImages:
        if len(set(self.folds)) != len(self.folds):
            raise ValueError("folds: each fold is given once")
        if self.folds and self.data.split is not None:
            raise ValueError("folds: they are what data.split (--fold) chooses one of")
        return self
