"""Preset of `selfsup probe-tiles`: real images beside tile-shuffled ones (figure 4.1)."""

from __future__ import annotations

from typing import Literal

from selfsup_cli.config.blocks import Machine, Preset
from selfsup_cli.config.evaluation import LinearHeads
from selfsup_cli.config.fields import Model, field
from selfsup_cli.config.images import ImageData
from selfsup_cli.config.retrieval_images import ComparedSubject


class Tiles(Model):
    """What is done to images."""

    grid: int = field(
        4, "Tiles along height and width, put in another order.", flag="--tiles", ge=2, le=16
    )
    band: float = field(
        0.25,
        "Width of the band across every border between tiles that is painted over, as a share of a "
        "tile's side; at least 2 pixels.",
        gt=0,
        le=0.75,
    )
    paint: Literal["laplace", "grey"] = field(
        "laplace",
        "What the band is painted with, in real and shuffled images alike: laplace runs smoothly "
        "from edge to edge, but more steeply where tiles do not fit together; grey is the same "
        "everywhere.",
        flag="--paint",
    )
    images: int = field(
        5000, "Most training images, chosen by the seed; each is used real and shuffled.",
        flag="--images", ge=4,
    )  # fmt: skip
    test_images: int = field(
        2000, "Most test images, chosen by the seed.", flag="--test-images", ge=2
    )
    sheet: int = field(5, "Images drawn in the picture.", ge=0, le=64)
    seed: int = field(0, "Seed of the orders of tiles, and of the choice of images.", ge=0)


class TileProbe(LinearHeads):
    """The linear classifiers."""

    grid: int = field(
        4,
        "A layer larger than this many cells along height and width is averaged to that many; "
        "smaller ones stay as they are.",
        ge=1,
        le=64,
    )


class ProbeTiles(Preset):
    """Tell real images from tile-shuffled ones, whose seams are painted over, by frozen layers."""

    task: Literal["probe-tiles"] = field("probe-tiles", "The task.")
    subject: ComparedSubject = field(ComparedSubject(), "What is looked at.")
    data: ImageData = field(ImageData(), "Where the images come from; labels are not used.")
    tiles: Tiles = field(Tiles(), "What is done to images.")
    probe: TileProbe = field(TileProbe(), "The linear classifiers.")
    machine: Machine = field(Machine(), "Where and how wide the job runs.")
