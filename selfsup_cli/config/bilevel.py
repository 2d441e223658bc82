"""Presets of `selfsup pretrain bilevel`: learning from labels of which some are wrong."""

from __future__ import annotations

from typing import Literal

from selfsup_cli.config.fields import field
from selfsup_cli.config.image_pretrain import ImageNetwork
from selfsup_cli.config.transfer_images import Classifying, ClassifyStart
from selfsup_cli.config.weighing import Suspects, WeighedOptim


class PretrainBilevel(Classifying):
    """Train a classifier from scratch on few or wrong labels: the job of 'selfsup transfer
    classify --init random', with mini-batches that are weighted by their agreement."""

    method: Literal["bilevel"] = field("bilevel", "The method.")
    network: ImageNetwork = field(
        ImageNetwork(arch="inception_small"),
        "The 2D-CNN, where training starts from random weights.",
    )
    start: ClassifyStart = field(ClassifyStart(init="random"), "What training starts from.")
    optim: WeighedOptim = field(
        WeighedOptim(
            name="bilevel", lr=0.1, weight_decay=5e-4, nesterov=False, schedule="staircase"
        ),
        "Optimiser and schedule.",
    )
    suspects: Suspects = field(Suspects(on=True), "Which labels are wrong?")

    @property
    def name(self) -> str:
        return self.method

    @property
    def task(self) -> str:
        """The task that is trained."""
        return "classify"

    @property
    def about_labels(self) -> bool:
        return True
