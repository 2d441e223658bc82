"""A step of either stage of `pretrain artifacts` against the same in a bare loop."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import measure
import torch
import torch.nn.functional as F
from torch import Tensor
from toy import Timed, open_run

from selfsup_cli.config.artifacts import (
    ArtifactFraming,
    ArtifactNetwork,
    PretrainArtifacts,
    Replication,
)
from selfsup_cli.config.image_pretrain import ImageTrain
from selfsup_cli.engine.devices import choose, tune_allocator
from selfsup_cli.engine.fit import Fit
from selfsup_cli.engine.progress import Progress
from selfsup_cli.methods.artifacts import Artifacts
from selfsup_cli.transforms.damage import damage, draw_kept

IMAGES, STEPS, WARM, ROUNDS = 32, 4, 1, 3
FIRST, SECOND = "autoencoder", "damage and repair"
FACTS = f"{IMAGES} images of 64 pixels, alexnet_lrn × 0.25, autoencoder of 16 channels"
STEP = {stage: f"CPU time of a step of artifacts, {stage}, {FACTS}" for stage in (FIRST, SECOND)}
LIMITS = dict.fromkeys(
    STEP.values(),
    "nearly all of it is convolutions and their gradients, by the same library in both; the "
    "allocator's part, which is all that there is to save, is less than a sixth",
)


def preset(stage: str) -> PretrainArtifacts:
    """One epoch of that stage, and, where it is the first, one of the second."""
    return PretrainArtifacts(
        version=1,
        network=ArtifactNetwork(width=0.25),
        framing=ArtifactFraming(crop=64),
        autoencoder=Replication(
            source="another run" if stage == SECOND else None, epochs=1, base=16, max_error=9.0
        ),
        train=ImageTrain(epochs=1, batch_size=IMAGES),
    )


class Images(Timed):
    """The same images again and again."""

    def epoch(self, epoch: int, start: int = 0) -> Iterator[dict[str, Any]]:
        for batch in super().epoch(epoch, start):
            yield {"image": batch["x"], "index": batch["index"], "bad": []}


def rows() -> list[measure.Row]:
    """CPU time of bare steps over that of ours."""
    found = []
    for stage in (FIRST, SECOND):
        spent: dict[str, list[float]] = {"bare": [], "bare, tuned": [], "ours": []}
        for _ in range(ROUNDS):
            for name, seconds in spent.items():
                seconds.append(_in_process(stage, name))
        bare, tuned, ours = (statistics.median(seconds) for seconds in spent.values())
        found += [
            (STEP[stage], "bare loop, stock allocator", bare / ours, "≥ 1.2"),
            (STEP[stage], "bare loop, our allocator", tuned / ours, "≥ 0.95"),
        ]
    return found


def _in_process(stage: str, name: str) -> float:
    """Seconds of CPU for a step in a fresh process: allocators are set up once."""
    command = [sys.executable, __file__, "--steps", stage, name]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return float(done.stdout.splitlines()[-1])


def _steps(stage: str, name: str) -> float:
    torch.set_num_threads(1)
    if name != "bare":
        tune_allocator()
    pixels = torch.rand(IMAGES, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    loader = Images((255 * pixels).to(torch.uint8), STEPS + WARM)
    method = Artifacts(preset(stage))
    if name == "ours":
        with tempfile.TemporaryDirectory() as folder:
            _fit(method, loader, folder)
    elif stage == FIRST:
        _replicate(method, loader)
    else:
        _play(method, loader)
    # Those of the first stage are followed by as many of the second.
    times = loader.times[WARM : STEPS + WARM]
    return (times[-1] - times[0]) / (len(times) - 1)


def _fit(method: Artifacts, loader: Images, folder: str) -> None:
    run = open_run(folder)
    own = method.preset
    try:
        with Path(os.devnull).open("w") as nowhere, Progress(stream=nowhere) as progress:
            Fit(method, loader, own.training, own.optim, choose("cpu"), progress, run=run)()
    finally:
        run.close()


def _replicate(method: Artifacts, loader: Images) -> None:
    """The autoencoder as one writes it down."""
    optimizer = method.optimizers()["autoencoder"]
    method.train()
    for batch in loader.epoch(0):
        images = method.augmented(batch["image"], torch.Generator().manual_seed(0))
        loss = 30 * F.mse_loss(method.replicator(images), images)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()


def _play(method: Artifacts, loader: Images) -> None:
    """Damage and repair as one writes it down: both losses of one pass, each to its own network."""
    optimizers = method.optimizers()
    discriminator, repair = (list(net.parameters()) for net in (method.recogniser, method.repair))
    autoencoder = method.replicator.freeze()
    g = torch.Generator().manual_seed(0)
    method.train()
    for batch in loader.epoch(0):
        images = method.augmented(batch["image"], g)
        with torch.no_grad():
            codes = autoencoder.encoder(images)
            replicas = autoencoder.decoder(codes)
            kept = draw_kept(IMAGES, (4, 4), 0.7, g)
            hurt = damage(codes, kept)
        repaired = method.repair(hurt, kept, autoencoder.decoder)
        said = method.recogniser(torch.cat([replicas, repaired]))
        loss, loss_repair = _losses(said.classes, said.masks, kept, repaired, images)
        for name in ("main", "repair"):
            optimizers[name].zero_grad()
        loss.backward(inputs=discriminator, retain_graph=True)  # type: ignore[no-untyped-call]
        loss_repair.backward(inputs=repair)  # type: ignore[no-untyped-call]
        for name in ("main", "repair"):
            optimizers[name].step()


def _losses(
    classes: Tensor, masks: Tensor, kept: Tensor, repaired: Tensor, images: Tensor
) -> tuple[Tensor, Tensor]:
    half = len(classes) // 2
    real, corrupt = torch.ones(half).long(), torch.zeros(half).long()
    truth = torch.cat([torch.ones_like(kept), kept]).float()
    located = F.binary_cross_entropy_with_logits(masks, truth)
    loss = F.cross_entropy(classes, torch.cat([real, corrupt])) + 0.1 * located
    pixels = F.interpolate(kept.float(), (64, 64))
    error = ((repaired - images).square() * pixels).sum() / (3 * pixels.sum())
    return loss, F.cross_entropy(classes[half:], real) + 30 * error


if __name__ == "__main__":
    if "--steps" in sys.argv:
        print(_steps(*sys.argv[-2:]))
    else:
        measure.main(rows, LIMITS)
