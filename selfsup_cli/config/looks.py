"""Presets of the pictures of what a network has learned: filters, patches, Grad-CAM, neighbours."""

from __future__ import annotations

from typing import Annotated, Literal

from annotated_types import Ge, Le

from selfsup_cli.config.blocks import Machine, Preset
from selfsup_cli.config.fields import Model, field
from selfsup_cli.config.image_pictures import ShownImages
from selfsup_cli.config.images import ImageData
from selfsup_cli.config.pictures import OneMachine
from selfsup_cli.config.retrieval_images import ComparedSubject


class LookedAt(Model):
    """The network that is looked at."""

    run: str = field(
        "latest",
        "Run, run directory or backbone.safetensors to look at; latest is the newest finished one "
        "that fits.",
        flag="--from",
        names="runs",
    )


class VisualizeFilters(Preset):
    """The first convolution's filters, each as a small picture, beside random weights (figure 3.7).

    Of a network for videos, each filter over time.
    """

    task: Literal["filters"] = field("filters", "The task.")
    subject: ComparedSubject = field(ComparedSubject(), "What is looked at.")


class ShownUnits(Model):
    """Of which units patches are shown."""

    layers: list[str] = field(
        [],
        "Layers whose units are shown; all that have a place in the image if none is given.",
        flag="--layer",
        names="image-layers",
    )
    units: list[Annotated[int, Ge(0)]] = field(
        [],
        "Units (channels, from 0 on) shown of each layer; chosen by the seed if none is given.",
        flag="--units",
    )
    count: int = field(5, "Units of each layer where none is named.", flag="--count", ge=1, le=1024)
    patches: int = field(
        8, "Patches of each unit, the most active first.", flag="--patches", ge=1, le=64
    )
    seed: int = field(0, "Seed of the choice of units and images.", flag="--seed", ge=0)


class SearchedImages(Model):
    """Where patches are searched."""

    over: Literal["all", "train", "test"] = field(
        "all", "Which part of the data is searched.", flag="--over"
    )
    images: Annotated[int, Ge(1)] | None = field(
        None, "Search this many, chosen by the seed; all if not given.", flag="--images"
    )
    crop: Annotated[int, Ge(16), Le(512)] | None = field(
        None,
        "Side of the central square that is searched; by default what the network was built for. "
        "In a larger one more of a deep layer's cells see less than all of it.",
        flag="--crop",
        unit="pixels",
    )
    batch_size: int = field(
        64,
        "Images that go through the network together.",
        flag="--batch-size",
        ge=1,
        identity=False,
    )


class VisualizeActivations(Preset):
    """The patches that make units of each layer most active, found in one pass (figure 3.7)."""

    task: Literal["activations"] = field("activations", "The task.")
    subject: LookedAt = field(LookedAt(), "What is looked at.")
    shown: ShownUnits = field(ShownUnits(), "Of which units patches are shown.")
    data: ImageData = field(ImageData(), "Where the images come from.")
    search: SearchedImages = field(SearchedImages(), "Where patches are searched.")
    machine: OneMachine = field(OneMachine(), "Where the job runs.")


class Answered(Model):
    """Whose answers are looked at."""

    run: str = field(
        "latest",
        "Run of 'selfsup transfer classify' or of a pretraining on images; latest is the newest "
        "finished one of either.",
        flag="--from",
        names="runs",
    )


class Explained(Model):
    """Which answer is explained, and where."""

    layer: str | None = field(
        None,
        "Layer whose cells are weighed; by default the one whose average is the embedding (conv5, "
        "layer4).",
        flag="--layer",
        names="image-layers",
    )
    answer: str | None = field(
        None,
        "Class whose evidence is shown; by default the class that is answered and, where it is "
        "another, the true one.",
        flag="--class",
    )


class VisualizeGradcam(Preset):
    """Where in images the evidence for an answer lies: Grad-CAM (figure 3.9)."""

    task: Literal["gradcam"] = field("gradcam", "The task.")
    subject: Answered = field(Answered(), "Whose answers are looked at.")
    cam: Explained = field(Explained(), "Which answer is explained, and where.")
    data: ImageData = field(
        ImageData(), "Where the images come from; without a source, those of a pretraining."
    )
    shown: ShownImages = field(ShownImages(), "Which images are shown.")
    machine: OneMachine = field(OneMachine(), "Where the job runs.")


class ShownNeighbours(Model):
    """Which queries and neighbours are shown, and how these are found."""

    layer: str | None = field(
        None,
        "Layer to compare; by default the one whose average is the embedding (conv5, layer4).",
        flag="--layer",
        names="image-layers",
    )
    count: int = field(6, "Queries shown, chosen by the seed.", flag="--count", ge=1, le=64)
    neighbours: int = field(6, "Neighbours shown of each.", flag="--neighbours", ge=1, le=20)
    gallery: Literal["test", "train"] = field(
        "test",
        "Where neighbours of test images are searched: among the other test images, or among the "
        "training images.",
        flag="--gallery",
    )
    crops: Literal["five", "center"] = field(
        "center",
        "What stands for an image: the features of its centre, or of its centre and corners one "
        "after the other.",
        flag="--crops",
    )
    grid: int = field(
        4,
        "A layer larger than this many cells along height and width is averaged to that many.",
        ge=1,
        le=64,
    )
    standardize: bool = field(True, "Standardise every feature with the gallery's statistics.")
    seed: int = field(0, "Seed of the choice of queries.", flag="--seed", ge=0)


class VisualizeNeighbours(Preset):
    """Images and their nearest neighbours, learned features beside random ones (figure 3.8)."""

    task: Literal["neighbours"] = field("neighbours", "The task.")
    subject: ComparedSubject = field(ComparedSubject(), "What is looked at.")
    neighbours: ShownNeighbours = field(ShownNeighbours(), "Which neighbours are shown.")
    data: ImageData = field(ImageData(), "Where the images come from.")
    machine: Machine = field(Machine(), "Where and how wide the job runs.")
