"""Blocks that several jobs share: data, machine, optimiser, and what a preset says of itself."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from annotated_types import Ge, Gt, Le
from pydantic import BeforeValidator, WithJsonSchema, model_validator

from selfsup_cli.config.fields import Model, field

Size = tuple[Annotated[int, Ge(8), Le(1024)], Annotated[int, Ge(8), Le(1024)]]
Fraction = Annotated[float, Ge(0.0), Le(1.0)]


class Paper(Model):
    """Which published result a preset reproduces."""

    title: str = field(..., "Authors, title, venue and year.")
    reference: str = field("", "Where it is printed: thesis table or section.")
    differs: list[str] = field([], "What of the published protocol this preset does not follow.")


class Expectation(Model):
    """A number that this preset should reach, with the spread at which it still counts."""

    metric: str = field(..., "What is measured, in the unit of the report.")
    value: float = field(..., "The published or measured number.")
    tolerance: float = field(..., "Largest difference that still counts as reached.", ge=0)
    protocol: str = field("", "How it is measured: dataset, split, layer, clips.")


class Cost(Model):
    """What running the preset takes."""

    hours: float = field(..., "Wall-clock time.", unit="h", ge=0)
    machine: str = field(..., "On which machine this was measured or estimated.")
    disk_mb: float = field(0.0, "Disk taken by the run.", unit="MB", ge=0)


class Motion(Model):
    """Built-in videos of moving objects (`--data motion`); the class is the law of motion."""

    videos: int = field(512, "Videos in the training part.", ge=8, le=1_000_000)
    test_videos: int = field(256, "Videos in the test part.", ge=8, le=1_000_000)
    length: int = field(160, "Frames in each video.", unit="frames", ge=16, le=2000)
    side: int = field(40, "Height and width of the frames.", unit="pixels", ge=16, le=512)
    seed: int = field(0, "Seed from which the videos are rendered.", ge=0)


class Data(Model):
    """What the data of every job has in common, whatever it consists of."""

    source: str | None = field(None, "What to read.", flag="--data,--dataset", names="datasets")
    root: str | None = field(
        None,
        "Folder of a registered dataset, instead of $SELFSUP_DATA/NAME.",
        flag="--data-root",
    )
    split: int | None = field(None, "Which official split to use.", flag="--split", ge=1, le=99)
    test_share: float = field(
        0.2,
        "Share held out for testing where the data has no split of its own.",
        flag="--test-share",
        gt=0,
        lt=1,
    )
    split_seed: int = field(0, "Seed of that held-out share.", ge=0)
    max_bad: Fraction = field(
        0.01,
        "Share of unreadable files above which the job fails.",
        flag="--max-bad",
        identity=False,
    )
    quarantine: str | None = field(
        None,
        "File (quarantine.jsonl) that lists unreadable files to leave out.",
        flag="--quarantine",
    )


class VideoData(Data):
    """Where the videos come from."""

    source: str | None = field(
        None,
        "A registered dataset (ucf101, hmdb51, kinetics, motion), a folder of videos, "
        "a CSV file of path,label[,split], or a pack (.h5).",
        flag="--data,--dataset",
        names="datasets",
    )
    split: int = field(
        1, "Which official train/test split of the dataset to use.", flag="--split", ge=1, le=99
    )
    test_share: float = field(
        0.2,
        "Share of the videos held out for testing where the data has no split of its own.",
        flag="--test-share",
        gt=0,
        lt=1,
    )
    motion: Motion = field(Motion(), "The built-in videos of `motion`.")


class Machine(Model):
    """Where and how wide a job runs. Nothing here changes what it computes."""

    device: str = field(
        "auto",
        "Device: auto, cpu, cuda or cuda:N.",
        flag="--device",
        form="auto, cpu, cuda or cuda:N",
        pattern=r"^(auto|cpu|cuda(:[0-9]{1,2})?)$",
        identity=False,
    )
    devices: int = field(
        1,
        "Processes to train with, one device each.",
        flag="--devices",
        identity=False,
        ge=1,
        le=1024,
    )
    workers: Annotated[int, Ge(0), Le(256)] | Literal["auto"] = field(
        "auto",
        "Loader processes per device; 0 loads in the main process.",
        flag="--workers",
        identity=False,
    )


class Optim(Model):
    """Optimiser and schedule; the schedule multiplies the learning rate."""

    name: Literal["adamw", "adam", "sgd"] = field(
        "adamw",
        "Optimiser; adam and sgd add weight decay to the gradient.",
        flag="--optimizer",
    )
    lr: float = field(3e-4, "Learning rate at the start of the schedule.", flag="--lr", gt=0)
    weight_decay: float = field(
        1 / 3,
        "Weight decay; of adamw decoupled in PyTorch's convention: each step subtracts lr × this × "
        "w. "
        "TensorFlow's AdamW subtracts its own value undivided, so 1e-4 there is 1e-4 / lr here.",
        flag="--weight-decay",
        ge=0,
    )
    betas: tuple[Annotated[float, Ge(0), Le(1)], Annotated[float, Ge(0), Le(1)]] = field(
        (0.9, 0.99), "Decay of the running means of adamw and adam."
    )
    eps: float = field(1e-8, "What adamw and adam add to the root of the second mean.", gt=0)
    momentum: float = field(0.9, "Momentum of SGD.", ge=0, lt=1)
    nesterov: bool = field(True, "Whether that is Nesterov's.")
    decay_all: bool = field(False, "Decay biases and normalisation parameters too.")
    schedule: Literal["cosine", "linear", "staircase", "constant"] = field(
        "cosine",
        "How the learning rate falls; staircase multiplies it by `each_epoch` after every epoch.",
        flag="--schedule",
    )
    each_epoch: float = field(0.95, "That factor.", gt=0, le=1)
    final_factor: float = field(
        1e-3, "Share of the learning rate left where it has fallen.", ge=0, le=1
    )
    falling: float = field(
        1.0, "Share of the updates over which it falls; after that it stays.", gt=0, le=1
    )
    warmup_steps: int = field(0, "Steps over which the learning rate rises from 0.", ge=0)
    clip_grad: float | None = field(
        None, "Largest norm of the gradient; larger ones are scaled down.", flag="--clip-grad", gt=0
    )


def _as_text(value: Any) -> Any:
    return str(value) if type(value) is int else value


# `precision: 32` reads as a number in YAML, and is what everybody writes.
Precision = Annotated[
    Literal["auto", "32", "bf16", "fp16"],
    BeforeValidator(_as_text),
    WithJsonSchema({"enum": ["auto", "32", 32, "bf16", "fp16"]}),
]


class Numerics(Model):
    """How long and in which numerics to train."""

    epochs: int = field(100, "Passes over the training data.", flag="--epochs", ge=1)
    max_steps: int | None = field(
        None, "Stop after this many updates, schedule included.", flag="--max-steps", ge=1
    )
    batch_size: int = field(
        28, "Videos in one update, over all devices.", flag="--batch-size", ge=1
    )
    accumulate: int = field(
        1, "Parts in which a batch passes through the network.", flag="--accumulate", ge=1
    )
    precision: Precision = field(
        "auto",
        "Arithmetic: auto takes bf16 only where the device has it in hardware.",
        flag="--precision",
    )
    compile: bool = field(False, "Compile the networks with torch.compile.", flag="--compile")
    deterministic: bool = field(
        False,
        "Only deterministic kernels, so that GPU runs repeat bit for bit.",
        flag="--deterministic",
    )
    checkpoint_steps: int | None = field(
        None,
        "Save every so many updates, besides the ends of the time below.",
        flag="--checkpoint-steps",
        identity=False,
        ge=1,
    )
    checkpoint_minutes: Annotated[float, Gt(0)] = field(
        10.0, "Save after this much time.", unit="min", identity=False
    )
    keep: int = field(2, "Checkpoints kept.", identity=False, ge=1)

    @model_validator(mode="after")
    def _divisible(self) -> Self:
        if self.accumulate > self.batch_size:
            raise ValueError(
                f"accumulate: a batch of {self.batch_size} does not have {self.accumulate} parts"
            )
        return self


class Train(Numerics):
    """The same of a job that trains once."""

    seed: int = field(0, "Seed of everything that is random.", flag="--seed", ge=0)


def _counted(value: Any) -> Any:
    # A literal 1 would take `true` and 1.0 too.
    if type(value) is not int:
        raise ValueError("must be 1")
    return value


class Preset(Model):
    """What every preset says of itself."""

    version: Annotated[Literal[1], BeforeValidator(_counted)] = field(
        1, "Version of the preset format."
    )
    description: str = field("", "One line for `selfsup presets list`.", identity=False)
    paper: Paper | None = field(None, "Which published result it reproduces.", identity=False)
    expect: list[Expectation] = field([], "Numbers it should reach.", identity=False)
    cost: Cost | None = field(None, "What running it takes.", identity=False)
