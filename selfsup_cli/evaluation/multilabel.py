"""Linear probes where an image has several attributes: one sigmoid each, and average precision."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from selfsup_cli.config.evaluation import LinearHeads
from selfsup_cli.data.source import UNKNOWN
from selfsup_cli.engine.devices import Hardware
from selfsup_cli.engine.signals import StopFlag
from selfsup_cli.errors import InputError
from selfsup_cli.evaluation.classify import Marks, of_attributes, precisions
from selfsup_cli.evaluation.labelled import Labelled
from selfsup_cli.evaluation.probe import Fitted, Grid, Heads, described, fit_layer
from selfsup_cli.runs.report import Measurement, ProtocolValue

__all__ = ["AttributeHeads", "AttributeResult", "attribute_measurement", "probe_attributes"]


class AttributeHeads(Heads):
    """One linear classifier for each attribute, each as if it were trained alone."""

    def losses(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Logits [B, H, A] and attributes uint8 [B, A] → the loss of each head [H].

        Binary cross-entropy, averaged over the images of which an attribute is known and summed
        over the attributes: an attribute learns at the rate that the preset gives, however many
        others there are.
        """
        known = (labels != UNKNOWN).to(logits.dtype)[:, None]
        truth = (labels == 1).to(logits.dtype)[:, None].expand_as(logits)
        each = F.binary_cross_entropy_with_logits(logits, truth, reduction="none") * known
        return (each.sum(0) / known.sum(0).clamp(min=1)).sum(1)

    def answers(self, logits: Tensor) -> Tensor:
        """Logits [B, H, A] → the probability of each attribute [B, H, A]."""
        return logits.sigmoid()


@dataclass(frozen=True)
class AttributeResult:
    """What a layer's probe achieved on the attributes of the test images.

    `scores` float32 [N, A] are the probabilities given to them, `labels` uint8 [N, A] the truth;
    `validation` is the mean average precision (0 … 1) on training images held out.
    """

    fitted: Fitted
    attributes: tuple[str, ...]
    scores: np.ndarray
    labels: np.ndarray
    training: float
    standardized: bool

    @property
    def marks(self) -> Marks:
        """Scores beside the truth."""
        return Marks((), self.labels, self.scores, self.attributes)

    @property
    def layer(self) -> str:
        return self.fitted.layer

    @property
    def validation(self) -> float | None:
        return self.fitted.validation


def probe_attributes(
    train: Labelled,
    test: Labelled,
    layer: str,
    settings: LinearHeads,
    hardware: Hardware,
    *,
    among: np.ndarray | None = None,
    stop: StopFlag | None = None,
) -> AttributeResult:
    """Choose on a part of the training images, train on all of them (or those `among`), test.

    Raises InputError if no attribute can be told from the training or be tested on the test images,
    Stopped if `stop` is set.
    """
    everything = np.arange(len(train.labels)) if among is None else among
    for what, labels in (("training", train.labels[everything]), ("test", test.labels)):
        if not told_apart(labels).any():
            raise InputError(
                f"there is no attribute that some of the {what} images have and others do not",
                kind="labels",
            )
    fitted = fit_layer(
        train,
        layer,
        settings,
        hardware,
        many="images",
        among=among,
        make=AttributeHeads,
        choose=_choose,
        stop=stop,
    )
    on_training = fitted.answers(train, everything).numpy()
    return AttributeResult(
        fitted=fitted,
        attributes=train.classes,
        scores=fitted.answers(test).numpy(),
        labels=test.labels,
        training=mean_precision(on_training, train.labels[everything]),
        standardized=settings.normalize,
    )


def told_apart(labels: np.ndarray) -> np.ndarray:
    """Which attributes of uint8 [N, A] some of the images have and others have not: bool [A]."""
    several: np.ndarray = (labels == 1).any(0) & (labels == 0).any(0)
    return several


def mean_precision(scores: np.ndarray, labels: np.ndarray) -> float:
    """Mean (0 … 1) of the average precisions of `scores` [N, A] for `labels` uint8 [N, A].

    Of attributes that can be told apart; 0 where there are none.
    """
    names = tuple(str(a) for a in range(labels.shape[1]))
    found = precisions(Marks((), labels, scores, names))
    return float(np.mean(list(found.values()))) if found else 0.0


def _choose(
    probabilities: Tensor, labels: np.ndarray, grid: Grid
) -> tuple[tuple[float, float], float]:
    """The head with the best mean average precision; of equals, the first in the grid."""
    found = [mean_precision(probabilities[:, h].numpy(), labels) for h in range(len(grid))]
    best = max(range(len(grid)), key=lambda h: found[h])
    return grid[best], found[best]


def attribute_measurement(
    result: AttributeResult,
    *,
    subject: str,
    dataset: str,
    split: str,
    protocol: Mapping[str, ProtocolValue],
) -> Measurement:
    """Mean average precision over attributes, with an interval over images and its protocol.

    Attributes that all of the test images have, or none, are left out and named.
    """
    facts: dict[str, ProtocolValue] = {
        **protocol,
        **described(result.fitted, result.standardized, "probability", "images"),
        "training_precision": round(100 * result.training, 2),
    }
    if result.validation is not None:
        facts["validation_precision"] = round(100 * result.validation, 2)
    unknown = float((result.labels == UNKNOWN).mean())
    if unknown:
        facts["unknown"] = f"{100 * unknown:.1f} % of the labels, left out"
    about = {
        "task": "probe",
        "subject": subject,
        "dataset": dataset,
        "split": split,
        "layer": result.layer,
    }
    row = of_attributes(result.marks, about, facts)
    return row.model_copy(update={"name": "linear probe"})
