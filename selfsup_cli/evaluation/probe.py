"""Linear probes: how well a frozen layer's features tell classes apart (thesis, section 4.4).

On each layer a linear classifier is trained, with SGD and Nesterov momentum, on features that are
standardised one by one (batch norm without affine) unless the preset says otherwise. A grid of
learning rates and weight decays is trained at once on a part of the training videos, the rest of
them chooses, and the chosen one is trained again on all training videos. At test time the softmax
outputs of a video's clips are averaged. The learning rate falls along a cosine.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from statistics import fmean
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selfsup_cli.config.blocks import Optim, Train
from selfsup_cli.config.evaluation import LinearHeads
from selfsup_cli.engine.devices import Hardware
from selfsup_cli.engine.fit import Fit
from selfsup_cli.engine.progress import Progress
from selfsup_cli.engine.signals import StopFlag
from selfsup_cli.engine.trainable import Batch, Trainable, Update
from selfsup_cli.errors import InputError
from selfsup_cli.evaluation.features import Features, Standard, standard
from selfsup_cli.evaluation.labelled import Labelled, RowLoader, hold_out
from selfsup_cli.randomness import generator
from selfsup_cli.runs.report import Interval, Measurement, ProtocolValue, accuracy

__all__ = [
    "Fitted",
    "Heads",
    "Labelled",
    "ProbeResult",
    "described",
    "fit_layer",
    "measurements",
    "probe_layer",
]

FINAL_FACTOR = 1e-3
MOMENTUM = 0.9

# Heads


class Heads(Trainable):
    """Linear classifiers on the same features, one for each (learning rate, weight decay).

    With SGD and momentum, scaling a loss scales its updates: head h has the learning rate
    lr_h = lr_max · r_h when its loss is weighted by r_h. So all heads share one parameter, one
    product and one optimiser, and come out as if each had been trained alone.
    """

    mean: Tensor
    scale: Tensor
    share: Tensor
    decay: Tensor

    def __init__(
        self,
        standard: Standard,
        classes: int,
        settings: Sequence[tuple[float, float]],
        seed: int,
    ) -> None:
        super().__init__()
        features = len(standard.mean)
        self.settings = list(settings)
        g = generator(seed, "probe", "weights")
        start = 1e-3 * torch.randn(classes, features, generator=g)
        self.weight = nn.Parameter(start.repeat(len(settings), 1))
        self.bias = nn.Parameter(torch.zeros(len(settings) * classes))
        self.register_buffer("mean", standard.mean)
        self.register_buffer("scale", standard.scale)
        lrs, decays = (torch.tensor(column) for column in zip(*settings, strict=True))
        self.top_lr = float(lrs.max())
        self.register_buffer("share", lrs / lrs.max())
        self.register_buffer("decay", decays)

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        parameters = [self.weight, self.bias]
        return {
            "main": torch.optim.SGD(
                parameters, lr=self.top_lr, momentum=MOMENTUM, nesterov=True, fused=True
            )
        }

    def forward(self, features: Tensor) -> Tensor:
        """Features [B, D] → logits of all heads [B, H, C]."""
        logits = F.linear((features - self.mean) * self.scale, self.weight, self.bias)
        return logits.reshape(len(features), len(self.settings), -1)

    def step(self, batch: Batch, update: Update) -> dict[str, Tensor]:
        losses = self.losses(self.forward(batch["feature"]), batch["label"])
        squares = self.weight.square().reshape(len(self.settings), -1).sum(1)
        # ½·wd·‖w‖² has the gradient of coupled weight decay; the bias is spared.
        update((self.share * (losses + 0.5 * self.decay * squares)).sum())
        return {"loss": losses.detach().min()}

    def losses(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Logits [B, H, C] and classes int64 [B] → the loss of each head [H]."""
        repeated = labels.repeat_interleave(len(self.settings))
        each = F.cross_entropy(logits.flatten(0, 1), repeated, reduction="none")
        return each.reshape(logits.shape[:2]).mean(0)

    def answers(self, logits: Tensor) -> Tensor:
        """Logits [B, H, C] → probabilities [B, H, C]."""
        return logits.softmax(2)


# Protocol


@dataclass(frozen=True)
class ProbeResult:
    """What a layer's probe achieved on the test videos.

    `predictions` int64 [N] are the classes given to the test videos, `labels` the true ones;
    `validation` is the accuracy (0 … 1) on training videos held out, by which learning rate, decay
    and layer are chosen; None if there were too few to hold any out. `standardized` says whether
    features were.
    """

    layer: str
    classes: tuple[str, ...]
    lr: float
    weight_decay: float
    chosen: str
    validation: float | None
    training: float
    predictions: np.ndarray
    labels: np.ndarray
    standardized: bool = True

    @property
    def hits(self) -> int:
        """Test videos whose class is right."""
        return int((self.predictions == self.labels).sum())

    def per_class(self) -> dict[str, float]:
        """Accuracy (0 … 1) on the test videos of each class that has any."""
        right = self.predictions == self.labels
        return {
            name: float(right[self.labels == c].mean())
            for c, name in enumerate(self.classes)
            if bool((self.labels == c).any())
        }


Grid = Sequence[tuple[float, float]]
Choose = Callable[[Tensor, np.ndarray, Grid], tuple[tuple[float, float], float]]
"""From answers [V, H, C] of the heads of a grid and the true labels: the best, and how good."""


@dataclass(frozen=True)
class Fitted:
    """The classifier of a layer, chosen and trained; `validation` as in `ProbeResult`."""

    heads: Heads
    layer: str
    lr: float
    weight_decay: float
    chosen: str
    validation: float | None

    def answers(self, data: Labelled, positions: np.ndarray | None = None) -> Tensor:
        """Its answers, averaged over the clips or views of each: float32 [V, C].

        For those at `positions` (int64, ascending; default: all).
        """
        everything = np.arange(len(data.labels)) if positions is None else positions
        return _probabilities(self.heads, data, self.layer, everything)[:, 0]


def fit_layer(
    train: Labelled,
    layer: str,
    settings: LinearHeads,
    hardware: Hardware,
    *,
    many: str = "videos",
    among: np.ndarray | None = None,
    make: type[Heads] = Heads,
    choose: Choose | None = None,
    stop: StopFlag | None = None,
) -> Fitted:
    """Choose a classifier on a part of what is trained on, and train it on all of it.

    That is `among` (int64, ascending; default: all). Raises Stopped if `stop` is set.
    """
    grid = list(product(settings.lrs, settings.weight_decays))
    kept, held = hold_out(train, settings.validation_share, settings.seed, among)
    validation: float | None = None
    if len(held) == 0:
        best, chosen = grid[len(grid) // 2], f"middle of the grid: too few {many} to choose on"
    else:
        heads = _train(train, layer, kept, grid, settings, hardware, stop, make)
        found = _probabilities(heads, train, layer, held)
        best, validation = (choose or _choose)(found, train.labels[held], grid)
        chosen = f"best of {len(grid)} on {len(held)} training {many} held out"
    if len(grid) == 1:
        chosen = "given"
    everything = np.arange(len(train.labels)) if among is None else among
    heads = _train(train, layer, everything, [best], settings, hardware, stop, make)
    return Fitted(heads, layer, *best, chosen, validation)


def probe_layer(
    train: Labelled,
    test: Labelled,
    layer: str,
    settings: LinearHeads,
    hardware: Hardware,
    *,
    many: str = "videos",
    among: np.ndarray | None = None,
    stop: StopFlag | None = None,
) -> ProbeResult:
    """Choose on a part of the training videos, train on all of them (or those `among`), test.

    Raises InputError if fewer than two classes have training videos, Stopped if `stop` is set.
    """
    everything = np.arange(len(train.labels)) if among is None else among
    truth = train.labels[everything]
    if len(np.unique(truth)) < 2:
        raise InputError(f"a probe needs training {many} of at least two classes", kind="labels")
    fitted = fit_layer(train, layer, settings, hardware, many=many, among=among, stop=stop)
    answered = fitted.answers(train, everything).argmax(1).numpy()
    return ProbeResult(
        layer=layer,
        classes=train.classes,
        lr=fitted.lr,
        weight_decay=fitted.weight_decay,
        chosen=fitted.chosen,
        validation=fitted.validation,
        training=float((answered == truth).mean()),
        predictions=fitted.answers(test).argmax(1).numpy(),
        labels=test.labels,
        standardized=settings.normalize,
    )


def _train(
    data: Labelled,
    layer: str,
    videos: np.ndarray,
    grid: Grid,
    settings: LinearHeads,
    hardware: Hardware,
    stop: StopFlag | None,
    make: type[Heads] = Heads,
) -> Heads:
    rows = data.rows_of(videos)
    statistics = (
        standard(_selected(data.features, layer, rows))
        if settings.normalize
        else Standard.none(data.features.dims[layer])
    )
    heads = make(statistics, len(data.classes), grid, settings.seed)
    loader = RowLoader(data, layer, rows, settings.batch_size, settings.seed)
    Fit(
        model=heads,
        loader=loader,
        train=Train(epochs=settings.epochs, batch_size=loader.batch_size, seed=settings.seed),
        optim=Optim(name="sgd", schedule="cosine", final_factor=FINAL_FACTOR),
        hardware=Hardware(hardware.device, None),
        progress=Progress(quiet=True),
        stop=stop,
    )()
    return heads


def _selected(features: Features, layer: str, rows: np.ndarray) -> Iterator[Tensor]:
    for first, block in features.blocks(layer):
        low, high = np.searchsorted(rows, [first, first + len(block)])
        yield block[torch.from_numpy(rows[low:high] - first)]


@torch.no_grad()
def _probabilities(heads: Heads, data: Labelled, layer: str, videos: np.ndarray) -> Tensor:
    """Answers of each head, averaged over the clips of each video: float32 [V, H, C]."""
    heads.eval()
    device = heads.weight.device
    rows = data.rows_of(videos)
    position = torch.from_numpy(np.searchsorted(videos, data.features.video[rows]))
    total = torch.zeros(len(videos), len(heads.settings), len(data.classes))
    count = torch.zeros(len(videos))
    done = 0
    for block in _selected(data.features, layer, rows):
        if len(block) == 0:
            continue
        owner = position[done : done + len(block)]
        total.index_add_(0, owner, heads.answers(heads(block.to(device))).cpu())
        count.index_add_(0, owner, torch.ones(len(owner)))
        done += len(block)
    return total / count[:, None, None]


def _choose(
    probabilities: Tensor, labels: np.ndarray, grid: Grid
) -> tuple[tuple[float, float], float]:
    """The head with the lowest loss among those as accurate as the best, within a standard error.

    On few held-out videos accuracies differ by chance; the loss then tells the better one.
    """
    truth = torch.from_numpy(labels)
    accuracies = (probabilities.argmax(2) == truth[:, None]).float().mean(0)
    given = probabilities.gather(2, truth[:, None, None].expand(-1, len(grid), 1))[..., 0]
    loss = -given.clamp_min(1e-12).log().mean(0)
    top = float(accuracies.max())
    enough = top - math.sqrt(top * (1 - top) / len(labels)) - 1e-6
    best = min(
        (h for h in range(len(grid)) if float(accuracies[h]) >= enough),
        key=lambda h: (float(loss[h]), -float(accuracies[h])),
    )
    return grid[best], float(accuracies[best])


# Report


Medium = Literal["videos", "images"]
OF: dict[Medium, str] = {"videos": "the clips of a video", "images": "the views of an image"}


def described(
    result: ProbeResult | Fitted, standardized: bool, output: str, medium: Medium
) -> dict[str, ProtocolValue]:
    """The classifier's own part of a protocol; `output` is what is averaged at test time."""
    return {
        "classifier": "linear on standardised features (batch norm without affine)"
        if standardized
        else "linear on features as they are",
        "optimiser": f"SGD, Nesterov {MOMENTUM}, cosine to {FINAL_FACTOR:g} of the rate",
        "lr": result.lr,
        "weight_decay": result.weight_decay,
        "chosen": result.chosen,
        "final_training": f"all training {medium}",
        "test": f"mean of the {output} over {OF[medium]}",
    }


def measurements(
    result: ProbeResult,
    *,
    subject: str,
    dataset: str,
    split: str,
    protocol: Mapping[str, ProtocolValue],
    control: str | None = None,
    medium: Medium = "videos",
) -> list[Measurement]:
    """Top-1 and class-balanced accuracy over the test part, with chance and the protocol.

    Chance of top-1 is what the best constant answer gets. `protocol` is what the caller knows:
    clips, pooling, weights' hash; the classifier's own part is added here.
    """
    n = len(result.labels)
    counts = np.bincount(result.labels, minlength=len(result.classes))
    facts: dict[str, ProtocolValue] = {
        **protocol,
        **described(result, result.standardized, "softmax", medium),
        "training_accuracy": round(100 * result.training, 2),
    }
    if result.validation is not None:
        facts["validation_accuracy"] = round(100 * result.validation, 2)
    top1 = accuracy(
        "linear probe",
        result.hits,
        n,
        task="probe",
        subject=subject,
        control=control,
        dataset=dataset,
        split=split,
        layer=result.layer,
        chance=100 * float(counts.max()) / n,
        chance_is="what the best constant answer gets",
        protocol=facts,
    )
    shares = result.per_class()
    present = counts[counts > 0]
    balanced = top1.model_copy(
        update={
            "metric": "class-balanced accuracy",
            "value": 100 * fmean(shares.values()),
            "interval": balanced_interval(list(shares.values()), present.tolist()),
            "chance": 100 / len(present),
            "chance_is": f"what any constant answer gets, one of {len(present)} classes",
            "protocol": {
                **facts,
                "per_class": [f"{name}: {100 * share:.1f} %" for name, share in shares.items()],
            },
        }
    )
    return [top1, Measurement.model_validate(balanced.model_dump())]


def balanced_interval(shares: Sequence[float], counts: Sequence[int]) -> Interval:
    """95 % interval, in %, for the mean over classes of the share of right answers.

    The classes are strata: the variance of the mean is Σ p(1 − p)/n over the squared number of
    classes. Half a success and half a failure more per class (Jeffreys) keep it from vanishing
    where a class is all right or all wrong.
    """
    softened = [(s * n + 0.5) / (n + 1) for s, n in zip(shares, counts, strict=True)]
    variance = sum(p * (1 - p) / n for p, n in zip(softened, counts, strict=True))
    half = 1.959964 * math.sqrt(variance) / len(counts)
    mean = fmean(shares)
    return Interval(
        low=100 * max(0.0, mean - half),
        high=100 * min(1.0, mean + half),
        method=f"normal, stratified by {len(counts)} classes",
    )
