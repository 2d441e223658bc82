"""Presets of `selfsup retrieve` on images: leave-one-out nearest neighbours (figures 4.6, 4.7)."""

from __future__ import annotations

from typing import Annotated, Literal

from annotated_types import Ge

from selfsup_cli.config.blocks import Machine, Preset
from selfsup_cli.config.evaluation import Subject
from selfsup_cli.config.fields import Model, field
from selfsup_cli.config.images import ImageData


class ComparedSubject(Subject):
    """What is looked at, and what is looked at beside it."""

    against: list[str] = field(
        [],
        "Runs or backbone.safetensors to measure and draw beside it, such as a supervised network.",
        flag="--against",
        names="runs",
    )


class ImageNeighbours(Model):
    """Nearest neighbours among images (thesis, section 4.4, figures 4.6 and 4.7)."""

    layer: str | None = field(
        None,
        "Layer to compare; by default the one whose average is the embedding (conv5, layer4).",
        flag="--layer",
        names="image-layers",
    )
    grid: int = field(
        4,
        "A layer larger than this many cells along height and width is averaged to that many; "
        "smaller ones stay as they are.",
        ge=1,
        le=64,
    )
    crops: Literal["five", "center"] = field(
        "five",
        "What stands for an image: the features of its centre and corners one after the other, or "
        "of its centre.",
        flag="--crops",
    )
    gallery: Literal["test", "train"] = field(
        "test",
        "Where neighbours of the test images are searched: among the test images, each left out of "
        "its own neighbours (leave-one-out), or among the training images.",
        flag="--gallery",
    )
    standardize: bool = field(True, "Standardise every feature with the gallery's statistics.")
    ks: list[Annotated[int, Ge(1)]] = field(
        [1, 5, 10, 20, 50], "Numbers of neighbours that vote and are counted.", min_length=1
    )
    sheet: int = field(6, "Queries drawn in the picture of neighbours.", ge=0, le=64)
    shown: int = field(5, "Neighbours drawn for each.", ge=1, le=20)
    seed: int = field(0, "Seed of the choice of queries drawn.", flag="--seed", ge=0)


class RetrieveImages(Preset):
    """Nearest neighbours of images, and how often they share the class."""

    task: Literal["retrieve-images"] = field("retrieve-images", "The task.")
    subject: ComparedSubject = field(ComparedSubject(), "What is looked at.")
    data: ImageData = field(ImageData(), "Where the images come from.")
    neighbours: ImageNeighbours = field(ImageNeighbours(), "How neighbours are found and counted.")
    machine: Machine = field(Machine(), "Where and how wide the job runs.")
