"""What the engine adds to a training step, and what it saves of one on the CPU."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import measure
import torch
from torch import nn
from toy import OPTIM, Classifier, Timed, bare, open_run

from selfsup_cli.config.blocks import Train
from selfsup_cli.engine.devices import choose, tune_allocator
from selfsup_cli.engine.fit import Fit
from selfsup_cli.engine.progress import Progress
from selfsup_cli.engine.signals import StopFlag
from selfsup_cli.errors import Stopped
from selfsup_cli.models.backbone import Backbone
from selfsup_cli.models.building import build as build_backbone

STEPS, WARM, ROUNDS = 1500, 200, 9
C3D_CLIPS, C3D_STEPS, C3D_ROUNDS = 2, 1, 5
ADDED, C3D = "≤ 50 µs", "≥ 1.1"
ENGINE = "µs added to a step: log, progress, schedule, checks"
LIMITS = {
    ENGINE: "every step, not every fiftieth, is seeded for itself, has its data order digested, "
    "its loss checked and written as a row of its own; each of these is one to six µs in a loop of "
    "its own and several times that between the kernels of a network, whose code evicts theirs",
}


def rows() -> list[measure.Row]:
    """Microseconds of CPU that `Fit` adds to a step; CPU time of a bare C3D step over ours."""
    torch.set_num_threads(1)
    spent: dict[str, list[float]] = {"bare": [], "ours": []}
    for number in range(-1, ROUNDS):
        for name, loop in (("bare", _bare), ("ours", _ours)):
            seconds = loop()
            if number >= 0:
                spent[name].append(seconds)
    added = statistics.median(spent["ours"]) - statistics.median(spent["bare"])
    spent = {"bare": [], "ours": []}
    for _ in range(C3D_ROUNDS):
        for name, found in spent.items():
            found.append(_in_process(name))
    c3d = statistics.median(spent["bare"]) / statistics.median(spent["ours"])
    return [
        (ENGINE, "bare loop", added * 1e6, ADDED),
        ("CPU time of a C3D step, 16×112×112", "bare loop, stock allocator", c3d, C3D),
    ]


def _perceptron() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))


def _bare() -> float:
    loader = Timed(torch.ones(32, 64), STEPS)
    bare(_perceptron(), loader)
    return _per_step(loader, WARM)


def _ours() -> float:
    """The first steps of a long training, into a run directory."""
    stop = StopFlag()

    loader = Timed(torch.ones(32, 64), STEPS)

    def end(epoch: int, step: int) -> dict[str, float]:
        stop.signum = 10
        return {}

    with tempfile.TemporaryDirectory() as folder, suppress(Stopped):
        _fit(_perceptron(), loader, folder, epochs=100, check=end, check_every=1, stop=stop)
    return _per_step(loader, WARM)


def _fit(net: nn.Module, loader: Timed, folder: str, *, epochs: int, **more: object) -> None:
    run = open_run(folder)
    try:
        train = Train(epochs=epochs, batch_size=len(loader.x))
        model = Classifier(net)
        with Path(os.devnull).open("w") as nowhere, Progress(stream=nowhere) as progress:
            Fit(model, loader, train, OPTIM, choose("cpu"), progress, run=run, **more)()  # type: ignore[arg-type]
    finally:
        run.close()


def _per_step(loader: Timed, warm: int) -> float:
    times = loader.times[warm:]
    return (times[-1] - times[0]) / (len(times) - 1)


def _in_process(name: str) -> float:
    """Seconds of CPU for a C3D step in a fresh process: allocators are set up once."""
    command = [sys.executable, __file__, "--c3d", name]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(done.stdout)


def _c3d(name: str) -> float:
    loader = Timed(torch.randn(C3D_CLIPS, 3, 16, 112, 112), C3D_STEPS + 2)
    backbone: Backbone = build_backbone("c3d", seed=0)
    net = nn.Sequential(backbone, nn.Linear(backbone.out_features, 4))
    if name == "bare":
        backbone.arrange = lambda x: x  # type: ignore[method-assign]
        bare(net, loader)
    else:
        tune_allocator()
        with tempfile.TemporaryDirectory() as folder:
            _fit(net, loader, folder, epochs=1)
    return _per_step(loader, 1)


if __name__ == "__main__":
    if "--c3d" in sys.argv:
        print(_c3d(sys.argv[-1]))
    else:
        measure.main(rows, LIMITS)
