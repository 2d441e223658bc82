"""Preset of `selfsup export embeddings` for images."""

from __future__ import annotations

from typing import Literal

from selfsup_cli.config.blocks import Machine, Preset
from selfsup_cli.config.export import Exported
from selfsup_cli.config.fields import Model, field
from selfsup_cli.config.images import ImageData


class ImageTable(Model):
    """Which features are written, and of which images."""

    part: Literal["all", "train", "test"] = field(
        "all", "Part of the data: all of it, or one part of its split.", flag="--part"
    )
    layer: str | None = field(
        None,
        "Layer, averaged over height and width; by default the embedding.",
        flag="--layer",
        names="layers",
    )
    crops: Literal["center", "five", "ten"] = field(
        "center",
        "Crops averaged for each image: the middle, it and the corners, or these and their mirror "
        "images.",
        flag="--crops",
    )


class TabledImages(ImageData):
    """Where the images come from."""

    part: Literal["auto", "train", "unlabeled", "train+unlabeled"] = field(
        "auto", "What of stl10 is meant by its training part: the labelled, the other, or both."
    )


class ExportImageEmbeddings(Preset):
    """A table of features, one row for each image."""

    task: Literal["image-embeddings"] = field("image-embeddings", "The task.")
    subject: Exported = field(Exported(), "What gives the features.")
    data: TabledImages = field(TabledImages(), "Where the images come from.")
    table: ImageTable = field(ImageTable(), "Which features are written, and of which images.")
    machine: Machine = field(Machine(), "Where and how wide the job runs.")
