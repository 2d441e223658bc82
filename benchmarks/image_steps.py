"""A step of `pretrain transformations`, all three networks, against the same in a bare loop."""

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
from toy import Timed, open_run

from selfsup_cli.config.blocks import Optim, Train
from selfsup_cli.config.image_pretrain import ImageFraming, ImageNetwork
from selfsup_cli.config.transformations import Inpainting, PretrainTransformations
from selfsup_cli.engine.devices import choose, tune_allocator
from selfsup_cli.engine.fit import Fit
from selfsup_cli.engine.progress import Progress
from selfsup_cli.methods.transformations import (
    Transformations,
    autoencode_loss,
    border_loss,
    discriminator_loss,
)

IMAGES, STEPS, WARM, ROUNDS = 64, 3, 1, 3
PRESET = PretrainTransformations(
    version=1,
    network=ImageNetwork(arch="alexnet", width=0.25),
    framing=ImageFraming(shorter=96, canvas=80, crop=64),
    lci=Inpainting(width=0.25),
    optim=Optim(betas=(0.5, 0.99)),
    train=Train(epochs=1, batch_size=IMAGES),
)
STEP = f"CPU time of a step of transformations, {IMAGES} images, alexnet × 0.25, crop 64"
LIMITS = {
    STEP: "three quarters are convolutions, their gradients and matrix products, by the same "
    "library in both; what is left to save are the allocator's part, which is small where tensors "
    "are, and the gradients of D that F's loss does not need",
}


class Canvases(Timed):
    """The same canvases again and again."""

    def epoch(self, epoch: int, start: int = 0) -> Iterator[dict[str, Any]]:
        for batch in super().epoch(epoch, start):
            yield {"image": batch["x"], "index": batch["index"], "bad": []}


def rows() -> list[measure.Row]:
    """CPU time of bare steps over that of ours."""
    spent: dict[str, list[float]] = {"bare": [], "bare, tuned": [], "ours": []}
    for _ in range(ROUNDS):
        for name, found in spent.items():
            found.append(_in_process(name))
    bare, tuned, ours = (statistics.median(found) for found in spent.values())
    return [
        (STEP, "bare loop, stock allocator", bare / ours, "≥ 1.2"),
        (STEP, "bare loop, our allocator", tuned / ours, "≥ 0.95"),
    ]


def _in_process(name: str) -> float:
    """Seconds of CPU for a step in a fresh process: allocators are set up once."""
    command = [sys.executable, __file__, "--steps", name]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return float(done.stdout.splitlines()[-1])


def _steps(name: str) -> float:
    torch.set_num_threads(1)
    if name != "bare":
        tune_allocator()
    side = PRESET.framing.canvas
    pixels = torch.rand(IMAGES, 3, side, side, generator=torch.Generator().manual_seed(0))
    loader = Canvases((255 * pixels).to(torch.uint8), STEPS + WARM)
    method = Transformations(PRESET)
    if name == "ours":
        with tempfile.TemporaryDirectory() as folder:
            _fit(method, loader, folder)
    else:
        _bare(method, loader)
    times = loader.times[WARM:]
    return (times[-1] - times[0]) / (len(times) - 1)


def _fit(method: Transformations, loader: Canvases, folder: str) -> None:
    run = open_run(folder)
    try:
        with Path(os.devnull).open("w") as nowhere, Progress(stream=nowhere) as progress:
            Fit(method, loader, PRESET.train, PRESET.optim, choose("cpu"), progress, run=run)()
    finally:
        run.close()


def _bare(method: Transformations, loader: Canvases) -> None:
    """The game as one writes it down: one backward pass for F and C, one for D."""
    optimizers = method.optimizers()
    inpainter, judge, lci = method.inpainter, method.discriminator, PRESET.lci
    assert inpainter is not None
    assert judge is not None
    g = torch.Generator().manual_seed(0)
    method.train()
    for batch in loader.epoch(0):
        examples = method.examples(batch["image"], g)
        painted = examples.inpainted
        assert painted is not None
        # F's gradient is turned around where its loss enters by a minus.
        crops = examples.crops
        crops.register_hook(torch.neg)
        loss = F.cross_entropy(method.recogniser(crops)["transformation"], examples.labels)
        loss = (
            loss
            + lci.border_weight * border_loss(painted, lci.border)
            + lci.autoencode_weight * autoencode_loss(painted)
            - judge(painted.inpainted_patches).mean()
        )
        optimizers["main"].zero_grad()
        optimizers["inpainter"].zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizers["main"].step()
        optimizers["inpainter"].step()
        real, fake = judge(painted.original), judge(painted.inpainted_patches.detach())
        optimizers["discriminator"].zero_grad()
        discriminator_loss(real, fake).backward()  # type: ignore[no-untyped-call]
        optimizers["discriminator"].step()


if __name__ == "__main__":
    if "--steps" in sys.argv:
        print(_steps(sys.argv[-1]))
    else:
        measure.main(rows, LIMITS)
