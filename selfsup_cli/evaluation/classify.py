"""Classification of images: one class of each, or any number of attributes (thesis, section 4.4).

Classes are told apart by cross-entropy, attributes each by itself by the cross-entropy of a
sigmoid; where an attribute is neither there nor not there it does not count. At test time the
probabilities of the crops of an image are averaged.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from selfsup_cli.config.transfer_images import Classifying
from selfsup_cli.data.source import UNKNOWN, ImageSource
from selfsup_cli.engine.devices import Hardware
from selfsup_cli.engine.trainable import Batch, Update
from selfsup_cli.errors import InputError
from selfsup_cli.evaluation.action import of_classes
from selfsup_cli.evaluation.average_precision import (
    average_precision,
    mean_interval,
    random_precision,
)
from selfsup_cli.evaluation.clip_task import Answers
from selfsup_cli.evaluation.image_task import ImageTask, ask
from selfsup_cli.evaluation.steps import Passed
from selfsup_cli.evaluation.task import Told
from selfsup_cli.models import Backbone
from selfsup_cli.randomness import generator
from selfsup_cli.runs.report import Measurement, ProtocolValue
from selfsup_cli.transforms.mixup import mixed_cross_entropy, mixup


@dataclass(frozen=True)
class Marks:
    """What a network answered of attributes: `truth` uint8 [N, A] (0, 1, or `UNKNOWN`), and
    `scores` [N, A], the probability that each is there."""

    ids: Any
    truth: np.ndarray
    scores: np.ndarray
    attributes: tuple[str, ...]


class Classify(ImageTask):
    """The task as the engine sees it."""

    name = "classify"

    def __init__(
        self, preset: Classifying, backbone: Backbone, answers: ClassifyAnswers, seed: int
    ) -> None:
        super().__init__(preset, backbone, answers.names, seed)
        self.several = answers.several
        how = preset.regularize
        if self.several and (how.mixup or how.smoothing):
            raise InputError(
                "regularize: images that have attributes are neither mixed nor are their labels "
                "smoothed; leave out --mixup and --label-smoothing",
                kind="labels",
            )

    @classmethod
    def answers(cls, preset: Classifying, source: ImageSource) -> ClassifyAnswers:
        """What the network is to answer, from the labels of the training images."""
        return answers_of(source, preset.labels)

    @property
    def facts(self) -> dict[str, Any]:
        return {**super().facts, "labels": "attributes" if self.several else "class"}

    def passed(self, batch: Batch, update: Update, g: torch.Generator) -> Passed:
        images = self.augmented(batch["image"], g)
        target, how = batch["label"], self.preset.regularize
        if self.several:
            with update.autocast():
                logits = self.network(images)
            loss, right = attribute_loss(logits, target)
            return Passed(loss, {"acc": right})
        samples = batch.get("sample")
        if how.mixup:
            # Drawn alike for all mini-batches of a step: mixed labels match as labels do.
            mixing = generator(update.seed, update.step, update.part, "mixup")
            mixed = mixup(images, target, how.mixup, mixing)
            images = mixed.images
        with update.autocast():
            logits = self.network(images)
        if how.mixup:
            loss = mixed_cross_entropy(logits, mixed, how.smoothing)
            if mixed.share < 0.5:  # a mixed image is taken for the one that it is made of most
                target = mixed.others
                samples = None if samples is None else samples[mixed.order.to(samples.device)]
        else:
            loss = F.cross_entropy(logits, target, label_smoothing=how.smoothing)
        right = (logits.argmax(1) == target).float().mean()
        return Passed(loss, {"acc": right}, samples, logits, target)

    def ask(
        self,
        source: ImageSource,
        hardware: Hardware,
        *,
        workers: int,
        quick: bool = False,
        told: Told | None = None,
    ) -> Answers | Marks:
        source, views = self.asked(source, quick=quick)
        outputs = probabilities(several=self.several)
        found = ask(self.plain, source, views, outputs, hardware, workers=workers, told=told)
        assert source.labels is not None  # noqa: S101 (`answers` has refused such a source)
        if self.several:
            return Marks(source.ids, source.labels, found, self.classes)
        positions = np.arange(len(source), dtype=np.int64)
        return Answers(source.ids, positions, source.labels, found, self.classes)

    def grade(self, found: Answers | Marks) -> tuple[str, float]:
        if isinstance(found, Marks):
            each = precisions(found)
            return "test_mean_precision", float(np.mean(list(each.values()))) if each else 0.0
        return "test_accuracy", float((found.predictions == found.truth).mean())

    def measurements(
        self,
        found: Answers | Marks,
        about: Mapping[str, Any],
        protocol: dict[str, ProtocolValue],
    ) -> list[Measurement]:
        about = {**about, "task": self.name}
        if isinstance(found, Marks):
            return [of_attributes(found, about, protocol)]
        several_views = f"mean of the softmax over {self.views.told()}"
        if len(self.views) > 1:
            protocol = {**protocol, "test": several_views}
        return of_classes(found, about, protocol)


@dataclass(frozen=True)
class ClassifyAnswers:
    """The names of classes, or of attributes where images have `several`."""

    names: tuple[str, ...]
    several: bool

    def __len__(self) -> int:
        return len(self.names)


def answers_of(source: ImageSource, wanted: str = "auto") -> ClassifyAnswers:
    """What images are labelled with. Raises InputError for other labels than those `wanted`."""
    if source.attributes is not None:
        if wanted == "class":
            raise InputError(
                f"labels: images of {source.name} have {len(source.attributes)} attributes, of "
                "which several may be there, not one class each; use --labels attributes, whose "
                "metric is mean average precision",
                kind="labels",
            )
        return ClassifyAnswers(source.attributes, several=True)
    if source.classes is None or len(source.classes) < 2:
        raise InputError(
            f"classify: {source.name} needs labels of at least two classes; see docs/data.md for "
            "the layouts that carry them",
            kind="unlabelled",
        )
    if wanted == "attributes":
        raise InputError(
            f"labels: each image of {source.name} has one of {len(source.classes)} classes, and no "
            "attributes; use --labels class, whose metric is accuracy",
            kind="labels",
        )
    return ClassifyAnswers(source.classes, several=False)


def probabilities(*, several: bool) -> Any:
    """What makes probabilities [B, C] of logits [B, C]."""
    return torch.sigmoid if several else lambda logits: logits.softmax(1)


def attribute_loss(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Mean cross-entropy of the attributes that are known, and the share that is right.

    `logits` [B, A]; `target` uint8 [B, A]: 0, 1, or `UNKNOWN`. Both are 0 where nothing is known.
    """
    known = (target != UNKNOWN).float()
    truth = (target == 1).float()
    count = known.sum().clamp(min=1)
    each = F.binary_cross_entropy_with_logits(logits, truth, weight=known, reduction="sum")
    right = ((logits > 0) == (target == 1)).float() * known
    return each / count, right.sum() / count


def precisions(found: Marks) -> dict[str, float]:
    """Average precision (0 … 1) of each attribute that some known images have and some have not."""
    out = {}
    for a, name in enumerate(found.attributes):
        known = found.truth[:, a] != UNKNOWN
        truth = found.truth[known, a] == 1
        if truth.any() and not truth.all():
            out[name] = float(average_precision(truth, found.scores[known, a])[0])
    return out


def chances(found: Marks) -> dict[str, float]:
    """What a random order gets on average (0 … 1), of the attributes that `precisions` has."""
    out = {}
    for a, name in enumerate(found.attributes):
        truth = found.truth[found.truth[:, a] != UNKNOWN, a] == 1
        if truth.any() and not truth.all():
            out[name] = random_precision(int(truth.sum()), len(truth))
    return out


def of_attributes(
    found: Marks, about: Mapping[str, Any], protocol: dict[str, ProtocolValue]
) -> Measurement:
    """Mean average precision, with that of each attribute in its protocol.

    Raises InputError if there is no attribute of which it could be told.
    """
    each = precisions(found)
    if not each:
        raise InputError(
            f"{about['dataset']}: no attribute is there in some test images and not in others, so "
            "there is nothing to measure",
            kind="labels",
        )
    columns = [found.attributes.index(name) for name in each]
    truth = np.where(found.truth == UNKNOWN, -1, found.truth.astype(np.int8))
    truths = [truth[:, a] for a in columns]
    interval = mean_interval(truths, [found.scores[:, a] for a in columns])
    missing: list[bool | int | float | str] = [
        name for name in found.attributes if name not in each
    ]
    return Measurement(
        **about,
        name="mAP",
        metric="mean average precision",
        unit="%",
        value=100 * float(np.mean(list(each.values()))),
        interval=None if interval is None else interval.scaled(100, 0, 100),
        n=len(found.truth),
        chance=100 * float(np.mean(list(chances(found).values()))),
        chance_is="what a random order gets on average",
        protocol={
            **protocol,
            "attributes": len(each),
            **({"not_measured": missing} if missing else {}),
            "per_attribute": [f"{name}: {100 * one:.1f} %" for name, one in each.items()],
        },
    )


TASK = Classify
