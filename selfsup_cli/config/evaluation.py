"""Presets of the jobs that look at what was learned: `selfsup probe` and `selfsup retrieve`."""

from __future__ import annotations

from typing import Annotated, Literal

from annotated_types import Ge, Gt

from selfsup_cli.config.blocks import Machine, Preset, VideoData
from selfsup_cli.config.fields import Model, field

Control = Literal["shuffled", "reversed"]


class Subject(Model):
    """What is looked at."""

    run: str = field(
        "latest",
        "Run, run directory or backbone.safetensors to look at; latest is the newest finished "
        "one that fits.",
        flag="--from",
        names="runs",
    )
    baseline: Literal["random", "none"] = field(
        "random",
        "Also measure the same network with random weights.",
        flag="--baseline",
    )
    baseline_seed: int = field(0, "Seed of the random weights.", ge=0)


class Clips(Model):
    """Which clips stand for a video."""

    train: int = field(4, "Clips of each training video.", flag="--train-clips", ge=1, le=64)
    test: int = field(
        32,
        "Clips of each test video, evenly spaced; the predictions of all are averaged.",
        flag="--test-clips",
        ge=1,
        le=64,
    )
    max_skip: int = field(
        4,
        "Largest step between frames; a video of n frames is read at min(n // frames, this), "
        "so 4 is the thesis' speed 2.",
        ge=1,
        le=16,
    )


class LinearHeads(Model):
    """Linear classifiers, whatever they see."""

    layers: list[str] = field(
        [],
        "Layers to classify from; all named layers if none is given.",
        flag="--layer",
        names="layers",
    )
    normalize: bool = field(
        True, "Standardise each feature with training statistics (BN without affine)."
    )
    lrs: list[Annotated[float, Gt(0)]] = field(
        [0.003, 0.03, 0.3], "Learning rates tried.", min_length=1
    )
    weight_decays: list[Annotated[float, Ge(0)]] = field(
        [0.0, 5e-4, 5e-3], "Weight decays tried (coupled, on the weights).", min_length=1
    )
    epochs: int = field(60, "Passes over the training features.", flag="--epochs", ge=1)
    batch_size: int = field(64, "Features in one update.", flag="--batch-size", ge=1)
    validation_share: float = field(
        0.2,
        "Share of the training data on which learning rate and decay are chosen.",
        gt=0,
        lt=0.9,
    )
    seed: int = field(0, "Seed of initialisation, order and the share above.", flag="--seed", ge=0)


class LinearProbe(LinearHeads):
    """The linear classifiers."""

    grid: Annotated[int, Ge(1)] = field(
        2,
        "Features of a layer are averaged to at most this many cells along time, height and width.",
    )
    still: bool = field(
        True,
        "Also probe still videos (one frame repeated): what the features say without motion.",
        flag="--still",
    )


class Probe(Preset):
    """Linear classifiers on frozen layers."""

    task: Literal["probe"] = field("probe", "The task.")
    subject: Subject = field(Subject(), "What is looked at.")
    data: VideoData = field(VideoData(), "Where the labelled videos come from.")
    clips: Clips = field(Clips(), "Which clips stand for a video.")
    probe: LinearProbe = field(LinearProbe(), "The linear classifiers.")
    machine: Machine = field(Machine(), "Where and how wide the job runs.")


class Neighbours(Model):
    """Nearest-neighbour retrieval (thesis, section 5.3, table 5.4)."""

    layer: str | None = field(
        None,
        "Layer to compare, averaged over time and space; by default the embedding.",
        flag="--layer",
        names="layers",
    )
    ks: list[Annotated[int, Ge(1)]] = field(
        [1, 5, 10, 20, 50],
        "Hit if any of the first k neighbours has the query's class.",
        min_length=1,
    )
    clips: int = field(10, "Temporal crops averaged for each video.", flag="--clips", ge=1, le=64)
    max_skip: int = field(
        4, "Largest step between frames (see `clips.max_skip` of probe).", ge=1, le=16
    )
    standardize: bool = field(True, "Standardise with the statistics of the gallery.")
    controls: list[Control] = field(
        ["shuffled", "reversed"], "Queries with the order of time destroyed or turned round."
    )
    sheet: int = field(8, "Queries drawn in the picture of neighbours.", ge=0, le=64)
    seed: int = field(
        0, "Seed of the shuffling and of the choice of queries drawn.", flag="--seed", ge=0
    )


class Retrieve(Preset):
    """Nearest neighbours, and how often they share the class."""

    task: Literal["retrieve"] = field("retrieve", "The task.")
    subject: Subject = field(Subject(), "What is looked at.")
    data: VideoData = field(VideoData(), "Where the videos come from.")
    neighbours: Neighbours = field(Neighbours(), "How neighbours are found and counted.")
    machine: Machine = field(Machine(), "Where and how wide the job runs.")
