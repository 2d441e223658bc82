"""How a step weights its mini-batches (thesis, chapter 8), for all jobs that learn from labels."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from annotated_types import Ge, Le, Lt

from selfsup_cli.config.blocks import Optim
from selfsup_cli.config.fields import Model, field

WEIGHED = ("bilevel", "microbatches")
"""The optimisers whose steps consist of mini-batches that pass through the network one by one."""


class WeighedOptim(Optim):
    """Optimiser and schedule; the schedule multiplies the learning rate."""

    name: Literal["adamw", "adam", "bilevel", "microbatches", "sgd"] = field(  # type: ignore[assignment]
        "adamw",
        "Optimiser; adam and sgd add weight decay to the gradient. bilevel is SGD that weights "
        "mini-batches by their agreement with another one (chapter 8), microbatches the same with "
        "equal weights, its control.",
        flag="--optimizer",
    )


class Weighing(Model):
    """The mini-batches of a step, and how they are weighted (--optimizer bilevel, microbatches)."""

    count: int = field(
        8,
        "Mini-batches into which a batch is divided; the first one validates, the others are "
        "followed.",
        flag="--mini-batches",
        ge=2,
        le=32,
    )
    matched: bool = field(
        True,
        "Mini-batches of the same labels; without it they are drawn whatever their labels (table "
        "8.1 c).",
        flag="--matched",
    )
    solver: Literal["diagonal", "exact"] = field(
        "diagonal", "Weights by equation 8.10, or by all of the linear system 8.8."
    )
    lam: float = field(1.0, "λ̂ of that equation.", gt=0)
    mu: float = field(0.01, "μ̂ of that equation.", ge=0)
    normalize: bool = field(True, "Divide weights by the sum of their absolute values.")
    per_layer: bool = field(False, "Weights of its own for each layer.")
    skip_disagreeing: bool = field(
        False, "Stand still where no weight is positive, instead of a step uphill."
    )
    masks: Literal["independent", "equal"] = field(
        "independent", "Dropout of the mini-batches: drawn for each, or the same in all of them."
    )
    validation: Annotated[float, Ge(0), Le(0.5)] = field(
        0.0,
        "Share of the training samples that only ever validate; 0 takes the first mini-batch from "
        "all of them.",
        flag="--validation",
    )


class Regularization(Model):
    """What else is done against learning labels by heart (thesis, table 8.3)."""

    smoothing: Annotated[float, Ge(0), Lt(1)] = field(
        0.0, "Share of a label's probability that all classes share.", flag="--label-smoothing"
    )
    mixup: float = field(
        0.0,
        "α of the distribution by which pairs of images are mixed; 0 mixes none.",
        flag="--mixup",
        ge=0,
        le=32,
    )
    dropout: Annotated[float, Ge(0), Lt(1)] = field(
        0.0, "Share of the values that are dropped before a fresh last layer.", flag="--dropout"
    )
    inside: Annotated[float, Ge(0), Lt(1)] = field(
        0.0, "Share of the values dropped between the convolutions of a preact_resnet18's blocks."
    )


class Suspects(Model):
    """Which labels are wrong? What training shows of each sample is kept and ranked."""

    on: bool = field(False, "Write suspects.csv, and show the most suspicious.", flag="--suspects")
    ranking: Literal["agreement", "loss", "both"] = field(
        "both",
        "By how little the gradient of a sample agrees with those of others, by its loss, or by "
        "both ranks.",
    )
    shown: int = field(40, "How many the contact sheet shows.", ge=1, le=200)
    folds: Annotated[int, Ge(0), Le(20)] = field(
        0,
        "Parts for the comparison with confident learning, which needs a network trained anew "
        "without each part (extra 'noise'); 0 leaves it out.",
        flag="--suspect-folds",
    )
    at: list[Annotated[float, Ge(0.001), Le(1)]] = field(
        [0.01, 0.1], "Shares of the samples among which precision is told.", max_length=8
    )


class LabelNoise(Model):
    """Wrong labels on purpose, in the training part alone."""

    share: Annotated[float, Ge(0), Lt(1)] = field(
        0.0,
        "Share of the images of each class that get another label (uniform, pairs).",
        flag="--label-noise",
    )
    kind: Literal["stated", "predicted", "confusion", "pairs", "uniform"] = field(
        "uniform",
        "Which: those of a CSV file, what a trained network takes images for with its dropout left "
        "on, by a confusion matrix (a CSV file), that of the next class, or any other one.",
        flag="--noise-kind",
    )
    file: str | None = field(
        None,
        "CSV file of a confusion matrix (class, and a column for each class), or of labels (path, "
        "label).",
        flag="--noise-file",
    )
    network: str | None = field(
        None,
        "Run or model.safetensors of the network that predicts labels.",
        flag="--noise-from",
        names="runs",
    )
    seed: int = field(123, "Seed from which it is drawn.", flag="--noise-seed", ge=0)

    @property
    def on(self) -> bool:
        """Whether any label is changed."""
        return self.share > 0 or self.kind not in ("uniform", "pairs")


def check_noise(noise: LabelNoise, field_name: str) -> None:
    """Raise ValueError for a kind of noise that lacks what it needs, or has what it does not."""
    kind = noise.kind
    if kind in ("confusion", "stated") and noise.file is None:
        raise ValueError(f"{field_name}.file: {kind} labels are read from a CSV file; name it")
    if kind == "predicted" and noise.network is None:
        raise ValueError(f"{field_name}.network: predicted labels need a network; name its run")
    if kind not in ("uniform", "pairs") and noise.share:
        raise ValueError(f"{field_name}.share: {kind} labels have no share of their own")
    if kind == "pairs" and not noise.share:
        raise ValueError(
            f"{field_name}.share: say how many labels become that of the next class, with "
            "--label-noise"
        )
    for name, wanted in (("file", ("confusion", "stated")), ("network", ("predicted",))):
        if getattr(noise, name) is not None and kind not in wanted:
            ways = " or ".join(wanted)
            raise ValueError(f"{field_name}.{name}: that is for --noise-kind {ways}, not {kind}")


def check_weighing(preset: Any) -> None:
    """Raise ValueError where the mini-batches of a preset cannot be had."""
    if preset.optim.name not in WEIGHED:
        return
    count, batch, numerics = preset.weighing.count, preset.train.batch_size, preset.train
    if count > batch or batch % count:
        raise ValueError(
            f"weighing.count: a batch of {batch} cannot be divided into {count} mini-batches of "
            f"equal size; use --batch-size {max(batch // count, 1) * count}"
        )
    if count % preset.machine.devices:
        raise ValueError(
            f"weighing.count: {count} mini-batches cannot be shared equally by "
            f"{preset.machine.devices} devices"
        )
    if numerics.accumulate > 1:
        raise ValueError(
            "train.accumulate: mini-batches pass through the network one by one already; leave it "
            "out, and use more --mini-batches for less memory"
        )
    if numerics.compile:
        raise ValueError("train.compile: networks are not compiled for --optimizer bilevel")
    if numerics.precision == "fp16":
        raise ValueError(
            "train.precision: mini-batches are weighted by their gradients, which fp16 scales and "
            "may overflow; use bf16 or 32"
        )
