"""Where the images of a job come from."""

from __future__ import annotations

from typing import Literal

from selfsup_cli.config.blocks import Data
from selfsup_cli.config.fields import Model, field


class Rendered(Model):
    """Built-in images, rendered when they are asked for."""

    images: int = field(4096, "Images in the training part.", ge=8, le=10_000_000)
    test_images: int = field(1024, "Images in the test part.", ge=8, le=10_000_000)
    side: int = field(64, "Height and width of the images.", unit="pixels", ge=32, le=512)
    seed: int = field(0, "Seed from which the images are rendered.", ge=0)


class ImageData(Data):
    """Where the images come from."""

    source: str | None = field(
        None,
        "A registered dataset (cifar10, cifar100, stl10, imagenet, places, celeba, clothing1m, "
        "voc2007, voc2012, lsun, scenes, facelike), a folder of images or of tar shards, a CSV "
        "file of path,label[,split], arrays (.npz, .h5), shards (.tar), or a pack (.h5).",
        flag="--data,--dataset",
        names="image-datasets",
    )
    split: int | None = field(
        None,
        "Which of the dataset's own folds to train on: stl10 has 1 to 10, of 1,000 labelled "
        "images each; without one, all of them.",
        flag="--split,--fold",
        ge=1,
        le=99,
    )
    part: Literal["auto", "train", "unlabeled", "train+unlabeled", "clean"] = field(
        "auto",
        "What of stl10 is trained on: auto takes the unlabelled part where no labels are asked "
        "for, and the labelled one where they are. Of clothing1m: auto takes the part of wrong "
        "labels, clean that of right ones.",
        flag="--part",
    )
    test_share: float = field(
        0.2,
        "Share of the images held out for testing where the data has no split of its own.",
        flag="--test-share",
        gt=0,
        lt=1,
    )
    scenes: Rendered = field(Rendered(), "The built-in images of `scenes`.")
    facelike: Rendered = field(Rendered(), "The built-in images of `facelike`.")
