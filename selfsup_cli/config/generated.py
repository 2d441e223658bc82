"""Presets of what looks at a generator: `selfsup sample dfgan`, and `selfsup score`."""

from __future__ import annotations

from typing import Annotated, Literal

from annotated_types import Ge

from selfsup_cli.config.blocks import Preset
from selfsup_cli.config.fields import Model, field
from selfsup_cli.config.images import ImageData
from selfsup_cli.config.pictures import OneMachine

Shown = Literal[
    "grid", "images", "checkpoints", "animation", "interpolations", "neighbours", "noise"
]


class Weights(Model):
    """Which run's generator, and which weights of it."""

    run: str | None = field(
        None,
        "Run of 'selfsup pretrain dfgan', or a generator.safetensors; by default the newest "
        "finished run.",
        flag="--from",
        names="runs",
    )
    weights: Literal["auto", "average", "raw"] = field(
        "auto",
        "The moving average of the weights, or those of the last update themselves; auto is the "
        "average where the run kept one.",
        flag="--weights",
    )


class Chosen(Weights):
    """The same at one moment of the training."""

    checkpoint: int | None = field(
        None,
        "Step whose generator is taken, of those that the run kept; by default the last one.",
        flag="--checkpoint",
        unit="step",
        ge=0,
    )


class Drawn(Model):
    """How samples are drawn."""

    count: int = field(64, "Samples.", flag="--n,--count", ge=1, le=1_000_000)
    seed: int = field(0, "Seed of the latents.", flag="--seed", ge=0)
    truncation: float | None = field(
        None,
        "Cut the latents' normal distribution off at plus and minus this: more typical samples, "
        "and less varied ones.",
        flag="--truncation",
        gt=0,
        le=10,
    )
    batch_norm: Literal["batch", "running", "recalibrated"] = field(
        "batch",
        "What the generator's batch norm goes by: batch (each batch itself, as in training and in "
        "the thesis), running (averages from the training, which an average of weights has none "
        "of), recalibrated (averages made anew: a sample depends on its latents alone).",
        flag="--batch-norm",
    )
    batch: int = field(
        100, "Samples that are normalised together.", flag="--batch-size", ge=1, le=10_000
    )


class Looks(Model):
    """What is drawn besides."""

    kinds: list[Shown] = field(
        ["grid", "images"],
        "What is made: grid (one picture of up to 256), images (each by itself), checkpoints and "
        "animation (the same latents at each step that was kept, as a picture, as a GIF), "
        "interpolations (between latents, on the sphere), neighbours (the nearest real images, "
        "and whether the training data was learned by heart), noise (patterns, and real images "
        "with them: figure 7.7).",
        flag="--show",
        min_length=1,
    )
    format: Literal["auto", "png", "npz", "h5"] = field(
        "auto",
        "How images are kept: a PNG each, or all in one .npz or .h5; auto makes PNGs of up to "
        "1,000 and an .h5 of more.",
        flag="--format",
    )
    rows: int = field(
        8,
        "Rows of the pictures besides the grid: interpolations, samples beside their neighbours, "
        "noise patterns.",
        flag="--rows",
        ge=1,
        le=64,
    )
    moments: int = field(
        10,
        "Most steps of the training in a picture, evenly spaced with the first and the last; the "
        "animation has all.",
        ge=2,
        le=100,
    )
    steps: int = field(9, "Samples from one end of an interpolation to the other.", ge=2, le=64)
    frame_seconds: float = field(0.3, "Time each step is seen in the animation.", gt=0, le=10)


class Nearest(Model):
    """How near samples come to images of the training data."""

    by: list[str] = field(
        ["pixels"],
        "How near is measured: pixels, or the embedding of a run or backbone.safetensors.",
        flag="--near",
        names="starts",
        min_length=1,
    )
    shown: int = field(5, "Neighbours drawn for each sample.", ge=1, le=20)
    checked: int = field(
        256,
        "Samples, and as many real images that were held out, whose distance to the nearest "
        "training image is measured.",
        ge=8,
        le=10_000,
    )


class SampleDfgan(Preset):
    """Samples of a GAN: grids, single images or thousands in a file, and what tells about them."""

    task: Literal["sample-dfgan"] = field("sample-dfgan", "The task.")
    subject: Chosen = field(Chosen(), "Which generator.")
    samples: Drawn = field(Drawn(), "How samples are drawn.")
    show: Looks = field(Looks(), "What is made of them.")
    near: Nearest = field(Nearest(), "How neighbours are found.")
    data: ImageData = field(
        ImageData(),
        "Where real images come from, for neighbours and noise; without a source, those of the "
        "run.",
    )
    machine: OneMachine = field(OneMachine(), "Where the job runs.")


class Scored(Weights):
    """What is scored."""

    images: str | None = field(
        None,
        "Score these images instead of a generator's: a folder, arrays (.npz, .h5), a dataset.",
        flag="--images",
        names="image-datasets",
    )
    checkpoints: int = field(
        5,
        "Score so many generators of the run, the newest that it kept, and give mean and standard "
        "deviation (the thesis takes five).",
        flag="--checkpoints",
        ge=1,
        le=1000,
    )


class ScoredSamples(Drawn):
    """How samples are drawn."""

    count: int = field(
        10_000,
        "Samples of each generator, or of the images given.",
        flag="--n,--count",
        ge=2,
        le=1_000_000,
    )


class Reference(Model):
    """What samples are compared with."""

    part: Literal["test", "train", "all"] = field(
        "test",
        "Which part of the data; the thesis takes the test part.",
        flag="--against",
    )
    images: int | None = field(
        None, "Most of these images, chosen by the seed; by default all.", flag="--real", ge=2
    )
    seed: int = field(0, "Seed of that choice.", ge=0)


class Judges(Model):
    """The networks whose features are compared. At least one has to be named."""

    inception: str | None = field(
        None,
        "File with the weights of the Inception network of 2015 "
        "(weights-inception-2015-12-05-6726825d.pth of torch-fidelity): FID, Inception Score, KID.",
        flag="--inception",
    )
    features: list[str] = field(
        [],
        "Runs or backbone.safetensors whose embedding is compared instead (FD-NETWORK); latest is "
        "the newest finished one, random a network with random weights.",
        flag="--features",
        names="starts",
    )
    arch: str = field(
        "resnet18", "The network of random weights.", flag="--arch", names="image-archs"
    )
    seed: int = field(0, "Seed of the random weights.", ge=0)


class Measures(Model):
    """The sizes of what is measured."""

    splits: int = field(
        1, "Parts for the Inception Score; the thesis has one, others ten.", ge=1, le=1000
    )
    subsets: int = field(100, "Random subsets for the kernel distance.", ge=1, le=10_000)
    subset_size: int = field(
        1000, "Images in each of them; fewer where there are not so many.", ge=2, le=100_000
    )
    neighbours: Annotated[int, Ge(1)] = field(
        3, "Which neighbour's distance is a ball's radius for precision and recall.", le=100
    )


class Score(Preset):
    """How near samples come to real images: FID, KID, Inception Score, precision and recall."""

    task: Literal["score"] = field("score", "The task.")
    subject: Scored = field(Scored(), "What is scored.")
    samples: ScoredSamples = field(ScoredSamples(), "How samples are drawn.")
    data: ImageData = field(
        ImageData(), "Where the real images come from; without a source, those of the run."
    )
    reference: Reference = field(Reference(), "What samples are compared with.")
    judges: Judges = field(Judges(), "The networks whose features are compared.")
    measures: Measures = field(Measures(), "The sizes of what is measured.")
    machine: OneMachine = field(OneMachine(), "Where the job runs.")
