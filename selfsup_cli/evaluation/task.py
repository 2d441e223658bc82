"""What every task of `selfsup transfer` has, whatever it is trained on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from selfsup_cli.config.transfers import Transfer
from selfsup_cli.config.weighing import WEIGHED, WeighedOptim, Weighing
from selfsup_cli.data.loader import SourceDataset, collate
from selfsup_cli.data.matched import strata
from selfsup_cli.engine.devices import Hardware
from selfsup_cli.engine.schedule import build_optimizer, build_weighed
from selfsup_cli.engine.trainable import Batch, Trainable, Update
from selfsup_cli.evaluation import steps
from selfsup_cli.evaluation.looking import Looking
from selfsup_cli.evaluation.steps import Passed
from selfsup_cli.models.classifier import Classifier, OnBackbone, Trained, save_classifier
from selfsup_cli.runs.report import Measurement, ProtocolValue

Told = Callable[[int, int], None]


class Task(Trainable):
    """A network that is trained on a task: what it is fed, what it is asked, what is reported.

    `classes` are what its outputs stand for, `many` is what it is trained on ("videos", "images"),
    `labelled` says whether it needs their labels. Sources are those of `many`.
    """

    networks: tuple[str, ...] = ("network",)
    name: str
    many: str
    labelled: bool = False
    opener: Callable[..., Any] | None = None
    """What opens its images, with the arguments of `images.open_images`, where that does not."""
    preset: Transfer
    classes: tuple[str, ...]
    seed: int
    looking: Looking | None = None
    """What watches the labels that it is trained on."""

    @property
    def plain(self) -> OnBackbone:
        """The network itself, also where it is wrapped for several processes."""
        network: Any = self.network
        plain: OnBackbone = getattr(network, "module", network)
        return plain

    @property
    def layer(self) -> str | None:
        """The layer of the backbone on which all of the head is fresh; None if it is its output."""
        raise NotImplementedError

    def save(self, path: Path, trained_on: dict[str, Any]) -> str:
        """Write the network with its head, and its sidecar; gives the SHA-256 of the weights."""
        raise NotImplementedError

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        how, optim = self.weighing, self.preset.optim
        if how is None:
            return {"main": build_optimizer(self.plain, optim)}
        assert isinstance(optim, WeighedOptim)  # noqa: S101 (only that has the names asked for)
        return {"main": build_weighed(self.plain, optim, how)}

    @property
    def weighing(self) -> Weighing | None:
        """How the mini-batches of a step are weighted; None where it is taken on one batch."""
        how: Weighing | None = getattr(self.preset, "weighing", None)
        return how if self.preset.optim.name in WEIGHED else None

    def passed(self, batch: Batch, update: Update, g: torch.Generator) -> Passed:
        """One pass over `batch` in training; what is done to its pixels is drawn from `g`."""
        raise NotImplementedError

    def step(self, batch: Batch, update: Update) -> dict[str, Tensor]:
        how = self.weighing
        if how is None:
            return steps.on_a_batch(self, batch, update)
        return steps.on_mini_batches(self, batch, update, how)

    def memory(self) -> dict[str, Tensor]:
        return {} if self.looking is None else self.looking.memory()

    def remember(self, memory: Mapping[str, Tensor]) -> None:
        if self.looking is not None:
            self.looking.remember(memory)

    def samples(self, source: Any) -> SourceDataset:
        """What the loader takes from the training part `source`."""
        raise NotImplementedError

    def matched(self, source: Any, splits: int) -> np.ndarray:
        """A label int64 `[N]` for each sample of the training part, by which its `splits`
        mini-batches match."""
        labels = np.asarray(source.labels)
        return strata(labels, splits) if labels.ndim > 1 else labels

    def join(self, samples: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """A batch of samples; with their places as `sample` where somebody looks at them."""
        batch = collate(samples)
        return batch if self.looking is None else {**batch, "sample": batch["index"]}

    def prepare(
        self,
        train: Any,
        heldout: Any,
        hardware: Hardware,
        *,
        workers: int,
        telling: Callable[[str], Told],
    ) -> None:
        """Do once, before training, what takes its time; a run that goes on does it again.

        `telling(what)` gives something to be told of progress, which raises where a signal asks to
        stop. Raises MachineError where a package is lacking.
        """

    def rescale(self, source: Any, hardware: Hardware) -> None:
        """Scale the layers that start from fresh weights on some of the training part `source`.

        Asked for by `start.rescale`, before anything is trained; see `models/rescale.py`.
        """
        raise NotImplementedError

    @property
    def seen(self) -> dict[str, ProtocolValue]:
        """How media come to the network, for the protocol of a number."""
        raise NotImplementedError

    @property
    def facts(self) -> dict[str, Any]:
        """The same for whoever runs the trained network: plain values beside its weights."""
        raise NotImplementedError

    def ask(
        self,
        source: Any,
        hardware: Hardware,
        *,
        workers: int,
        quick: bool = False,
        told: Told | None = None,
    ) -> Any:
        """What the network answers of the test part `source`; with `quick` of a few of it.

        Leaves the network in evaluation mode.
        """
        raise NotImplementedError

    def grade(self, found: Any) -> tuple[str, float]:
        """A share (0 … 1) that says how good the answers are, after the name of it."""
        raise NotImplementedError

    def measurements(
        self, found: Any, about: Mapping[str, Any], protocol: dict[str, ProtocolValue]
    ) -> list[Measurement]:
        """What is reported of the answers."""
        raise NotImplementedError


class ClassifierTask(Task):
    """A task whose network gives each sample a class or attributes."""

    @property
    def plain(self) -> Classifier:
        network = super().plain
        assert isinstance(network, Classifier)  # noqa: S101 (its tasks make no other)
        return network

    @property
    def layer(self) -> str | None:
        return self.plain.backbone.embedding if self.plain.head_spec.kind == "fc" else None

    def save(self, path: Path, trained_on: dict[str, Any]) -> str:
        trained = Trained(self.plain, self.name, self.classes, self.facts, "")
        return save_classifier(path, trained, trained_on)
