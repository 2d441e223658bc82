"""The shortcut detector: do local cues alone solve the pretext task?

An ideal transformation cannot be told from a local patch (thesis, section 4.3). Small probes that
are shown nothing but a local cue are trained on the pretext task for a bounded number of steps and
judged on held-out images: what they recognise, a network can recognise without having learned what
an image looks like as a whole.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selfsup_cli.config.shortcuts import LocalProbes
from selfsup_cli.data.framing import Plan
from selfsup_cli.data.source import ImageSource
from selfsup_cli.engine.devices import Hardware
from selfsup_cli.engine.progress import Progress
from selfsup_cli.engine.signals import StopFlag
from selfsup_cli.errors import BadMediaError, InputError
from selfsup_cli.evaluation.cues import LocalProbe, local_probes
from selfsup_cli.evaluation.shortcut_scores import NETWORK, ShortcutReport, scores_of
from selfsup_cli.randomness import derive, generator, lent

log = logging.getLogger("selfsup")

_BATCH, _LEAST = 32, 4
# Pixels of crops in a batch: what takes a tenth of a second on two cores.
_PIXELS = 800_000
_FINAL_FACTOR = 0.01


class Fed(Protocol):
    """What the network is fed: `crops` float `[K·B, 3, C, C]`, one kind after the other."""

    @property
    def crops(self) -> Tensor: ...


class Pretext(Protocol):
    """A method that recognises in which of the ways `kinds` an image was transformed."""

    @property
    def kinds(self) -> Sequence[str]: ...
    @property
    def training(self) -> bool: ...
    @property
    def plan(self) -> Plan: ...
    def train(self, mode: bool = True) -> Any: ...
    def examples(self, images: Tensor, g: torch.Generator) -> Fed: ...
    def judge(
        self, images: Tensor, g: torch.Generator
    ) -> tuple[Fed, Mapping[str, Tensor], Mapping[str, Tensor]]: ...


def detect(
    method: Pretext,
    train: ImageSource,
    heldout: ImageSource,
    hardware: Hardware,
    settings: LocalProbes,
    progress: Progress,
    stop: StopFlag | None = None,
) -> ShortcutReport:
    """Train the probes on images of `train`, judge them and the network on those of `heldout`.

    A function of the method's weights, the images and `settings` alone; the method is left as it
    was. Images that cannot be read are left out and counted. Raises InputError where none can be
    read, Stopped when asked to stop.
    """
    was_training = method.training
    method.train(False)
    try:
        return _detect(method, train, heldout, hardware, settings, progress, stop or StopFlag())
    finally:
        method.train(was_training)


def _detect(
    method: Pretext,
    train: ImageSource,
    heldout: ImageSource,
    hardware: Hardware,
    settings: LocalProbes,
    progress: Progress,
    stop: StopFlag,
) -> ShortcutReport:
    learned, missed = _read(train, method.plan, settings.images, settings.seed, progress, stop)
    judged, missing = _read(heldout, method.plan, settings.heldout, settings.seed, progress, stop)
    feed = _Feed(method, hardware)
    first = feed(learned[:1].repeat(2, 1, 1, 1), settings.seed, "size")
    kinds, side = len(method.kinds), first.shape[-1]
    batch = max(_LEAST, min(_BATCH, _PIXELS // (kinds * side**2)))
    with lent(generator(settings.seed, "shortcut probes")):
        probes = local_probes(kinds, side, settings)
    for probe in probes:
        probe.to(hardware.device)
    _train(probes, feed, learned, batch, settings, progress, stop)
    logits = _judge(probes, feed, judged, batch, settings.seed, stop)
    scores = [
        score
        for name, found in logits.items()
        for score in scores_of(name, found, tuple(method.kinds))
    ]
    return ShortcutReport(
        kinds=tuple(method.kinds),
        cues=tuple(probe.title for probe in probes),
        remedies={probe.title: probe.remedy for probe in probes},
        scores=tuple(scores),
        margin=settings.margin,
        protocol={
            "probes": "small convolutional networks on local cues, linear on the JPEG grid",
            "steps": settings.steps,
            "batch": batch,
            "training_images": len(learned),
            "crop": side,
            "optimiser": "AdamW, cosine",
            "seed": settings.seed,
        },
        unreadable=missed + missing,
    )


def _read(
    source: ImageSource,
    plan: Plan,
    count: int,
    seed: int,
    progress: Progress,
    stop: StopFlag,
) -> tuple[Tensor, int]:
    """Up to `count` images as canvases uint8 `[n, 3, S, S]`, and how many could not be read."""
    order = sorted(range(len(source)), key=lambda i: derive(seed, source.ids[i], "shortcuts"))
    counter = progress.counting(f"images for shortcuts ({source.split})")
    found: list[Tensor] = []
    bad = 0
    for index in order:
        if len(found) == count:
            break
        if stop:
            raise stop.stopped("what was learned so far")
        g = generator(seed, source.ids[index], "shortcut framing")

        def framing(height: int, width: int, g: torch.Generator = g) -> Any:
            return plan(height, width, g)

        try:
            found.append(source.read(index, framing))
        except BadMediaError as error:
            log.warning("%s cannot be read and is left out: %s", source.ids[index], error.reason)
            bad += 1
        counter(len(found), min(count, len(source)))
    if not found:
        raise InputError(f"no image of {source.name} could be read", kind="bad-media")
    return torch.stack(found), bad


class _Feed:
    """Crops as the network is fed them, of canvases on the CPU."""

    def __init__(self, method: Pretext, hardware: Hardware) -> None:
        self.method = method
        self.hardware = hardware

    def generator(self, seed: int, *address: int | str) -> torch.Generator:
        return generator(seed, "shortcuts", *address, device=str(self.hardware.device))

    @torch.no_grad()
    def __call__(self, canvases: Tensor, seed: int, *address: int | str) -> Tensor:
        """Crops float32 `[K·B, 3, C, C]`, one kind after the other."""
        images = canvases.to(self.hardware.device)
        with self.hardware.autocast():
            crops = self.method.examples(images, self.generator(seed, *address)).crops
        return crops.detach().float()

    @torch.no_grad()
    def judge(self, canvases: Tensor, seed: int, *address: int | str) -> tuple[Tensor, Tensor]:
        """The same, and the logits of the network on them."""
        images = canvases.to(self.hardware.device)
        with self.hardware.autocast():
            fed, logits, _ = self.method.judge(images, self.generator(seed, *address))
        return fed.crops.detach().float(), next(iter(logits.values())).float()


def _train(
    probes: Sequence[LocalProbe],
    feed: _Feed,
    canvases: Tensor,
    batch: int,
    settings: LocalProbes,
    progress: Progress,
    stop: StopFlag,
) -> None:
    groups = [{"params": list(probe.parameters()), "lr": probe.lr} for probe in probes]
    optimizer = torch.optim.AdamW(groups, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, settings.steps)
    counter = progress.counting("shortcuts: steps")
    seed = settings.seed
    for step in range(settings.steps):
        if stop:
            raise stop.stopped("what was learned so far")
        drawn = torch.randint(
            len(canvases), (batch,), generator=generator(seed, step, "shortcut batch")
        )
        crops = feed(canvases[drawn], seed, step)
        labels = torch.arange(len(crops) // batch, device=crops.device).repeat_interleave(batch)
        g = feed.generator(seed, step, "cues")
        losses = []
        for probe in probes:
            seen = probe.see(crops, g)
            losses.append(F.cross_entropy(probe(seen), labels.repeat(probe.views)))
        optimizer.zero_grad(set_to_none=True)
        torch.stack(losses).sum().backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_([p for group in groups for p in group["params"]], 5.0)  # type: ignore[attr-defined]
        optimizer.step()
        schedule.step()
        counter(step + 1, settings.steps)


@torch.no_grad()
def _judge(
    probes: Sequence[LocalProbe],
    feed: _Feed,
    canvases: Tensor,
    batch: int,
    seed: int,
    stop: StopFlag,
) -> dict[str, np.ndarray]:
    """Logarithms of probabilities `[views, K, n, K]` of each probe and of the network."""
    parts: dict[str, list[Tensor]] = {}
    for probe in probes:
        probe.eval()

    def keep(name: str, views: int, images: int, logits: Tensor) -> None:
        kinds = logits.shape[1]
        answers = logits.double().log_softmax(1).view(views, kinds, images, kinds)
        parts.setdefault(name, []).append(answers.cpu())

    # Batch norm of the inpainter needs more than one image at a time.
    for number, part in enumerate(_even(canvases, batch)):
        if stop:
            raise stop.stopped("what was learned so far")
        crops, logits = feed.judge(part, seed, number, "held out")
        g = feed.generator(seed, number, "held-out cues")
        for probe in probes:
            keep(probe.title, probe.views, len(part), probe(probe.see(crops, g)))
        keep(NETWORK, 1, len(part), logits)
    return {name: torch.cat(found, 2).numpy() for name, found in parts.items()}


def _even(canvases: Tensor, batch: int) -> Sequence[Tensor]:
    """Parts of about the same size, none larger than `batch`."""
    return torch.tensor_split(canvases, -(-len(canvases) // batch))
