"""What every task of `selfsup transfer` has, whatever it is trained on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from selfsup_cli.config.transfer_images import Transfer
from selfsup_cli.data.loader import SourceDataset
from selfsup_cli.engine.devices import Hardware
from selfsup_cli.engine.schedule import build_optimizer
from selfsup_cli.engine.trainable import Trainable
from selfsup_cli.models.classifier import Classifier
from selfsup_cli.runs.report import Measurement, ProtocolValue

Told = Callable[[int, int], None]


class Task(Trainable):
    """A network that is trained on a task: what it is fed, what it is asked, what is reported.

    `classes` are what its outputs stand for, `many` is what it is trained on ("videos", "images"),
    `labelled` says whether it needs their labels. Sources are those of `many`.
    """

    networks = ("network",)
    name: str
    many: str
    labelled: bool = False
    preset: Transfer
    classes: tuple[str, ...]
    seed: int

    @property
    def plain(self) -> Classifier:
        """The network itself, also where it is wrapped for several processes."""
        network: Any = self.network
        plain: Classifier = getattr(network, "module", network)
        return plain

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        return {"main": build_optimizer(self.plain, self.preset.optim)}

    def samples(self, source: Any) -> SourceDataset:
        """What the loader takes from the training part `source`."""
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
