"""Held-out accuracy of a pretext task on images."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from selfsup_cli.data.framing import Plan
from selfsup_cli.data.image_dataset import ImageDataset
from selfsup_cli.data.loader import EpochLoader
from selfsup_cli.data.source import ImageSource
from selfsup_cli.engine.devices import Hardware
from selfsup_cli.errors import InputError, TrainingError
from selfsup_cli.evaluation.monitor import PretextAccuracy, question
from selfsup_cli.randomness import derive, generator

log = logging.getLogger("selfsup")

Judged = tuple[Mapping[str, Tensor], Mapping[str, Tensor], Mapping[str, Tensor]]
Judge = Callable[[Tensor, torch.Generator], Judged]
"""Canvases uint8 [B, 3, S, S] → the logits [K·B, answers] of each question, the right answers
int64 [K·B] and scalars of how well the transforming networks do. All images of the first kind come
first, then all of the second."""


def image_accuracy(
    judge: Judge,
    source: ImageSource,
    plan: Plan,
    *,
    questions: Mapping[str, Sequence[str]],
    hardware: Hardware,
    seed: int,
    images: int = 512,
    batch: int = 64,
    workers: int = 0,
) -> tuple[PretextAccuracy, dict[str, float]]:
    """Let the network, in evaluation mode, recognise transformations of held-out images.

    `plan` cuts the canvas out of an image. At most `images` images, chosen by `seed`, always the
    same and transformed alike, so that checks at different times compare. Besides, the scalars of
    `judge`, averaged over the batches; there may be no `questions`. Raises InputError if none of
    the images can be read.
    """
    order = sorted(range(len(source)), key=lambda i: derive(seed, source.ids[i], "monitor"))
    chosen = source.subset(np.array(sorted(order[:images]), dtype=np.int64))
    # Equal parts, so that hardly an image is left over.
    size = len(chosen) // -(-len(chosen) // batch)
    dataset = ImageDataset(chosen, derive(seed, "monitor"), plan=plan)
    loader = EpochLoader(
        dataset, len(chosen), batch_size=size, seed=seed, workers=workers, shuffle=False
    )
    answers: dict[str, list[Tensor]] = {name: [] for name in questions}
    truths: dict[str, list[Tensor]] = {name: [] for name in questions}
    owners: list[np.ndarray] = []
    scalars: list[Mapping[str, Tensor]] = []
    unreadable: set[str] = set()
    try:
        for number, found in enumerate(loader.epoch(0)):
            for identifier, reason in found["bad"]:
                log.warning("monitor leaves out %s: %s", identifier, reason)
                unreadable.add(identifier)
            g = generator(seed, number, "monitor", device=str(hardware.device))
            with torch.no_grad(), hardware.autocast():
                logits, labels, values = judge(found["image"].to(hardware.device), g)
            for name, value in logits.items():
                answers[name].append(value.argmax(1).cpu())
                truths[name].append(labels[name].cpu())
            kinds = len(next(iter(labels.values()), ())) // size
            owners.append(np.tile(found["index"].numpy(), kinds))
            scalars.append(values)
    except TrainingError as error:
        raise InputError(
            f"no held-out image of {source.name} could be read", kind="bad-media"
        ) from error
    owner = np.concatenate(owners)
    asked = {
        name: question(
            name,
            possible,
            torch.cat(answers[name]).numpy(),
            torch.cat(truths[name]).numpy(),
            owner,
            "images",
        )
        for name, possible in questions.items()
    }
    means = {
        name: float(torch.stack([value[name].float() for value in scalars]).mean())
        for name in scalars[0]
    }
    return PretextAccuracy(asked, len(unreadable)), means
