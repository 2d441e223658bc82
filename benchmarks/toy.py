"""A small training that the benchmarks of the engine run."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from selfsup_cli.config.blocks import Optim
from selfsup_cli.engine import schedule
from selfsup_cli.engine.trainable import Batch, Trainable, Update
from selfsup_cli.runs.run import Run

OPTIM = Optim(lr=1e-4)


class Classifier(Trainable):
    """Any network, learning to name classes."""

    networks = ("net",)

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        return {"main": schedule.build_optimizer(self.net, OPTIM)}

    def step(self, batch: Batch, update: Update) -> dict[str, Tensor]:
        loss = cross_entropy(self.net(batch["x"]), batch["y"])
        update(loss)
        return {"loss": loss.detach()}


class Timed:
    """The same batch again and again; notes the time at which each is asked for."""

    def __init__(
        self, x: Tensor, steps: int, clock: Callable[[], float] = time.process_time
    ) -> None:
        self.x = x
        self.y = torch.arange(len(x)) % 4
        self.steps = steps
        self.clock = clock
        self.times: list[float] = []

    def __len__(self) -> int:
        return self.steps

    def epoch(self, epoch: int, start: int = 0) -> Iterator[dict[str, Any]]:
        index = torch.arange(len(self.x))
        for _ in range(start, self.steps):
            self.times.append(self.clock())
            yield {"x": self.x, "y": self.y, "index": index, "bad": []}


def bare(net: nn.Module, loader: Timed) -> None:
    """The loop that everybody writes first."""
    optimizer = torch.optim.AdamW(
        net.parameters(), OPTIM.lr, OPTIM.betas, weight_decay=OPTIM.weight_decay, fused=True
    )
    net.train()
    for batch in loader.epoch(0):
        loss = cross_entropy(net(batch["x"]), batch["y"])
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()


def open_run(folder: str | Path, command: Sequence[str] = ("bench",)) -> Run:
    """A run directory to train into."""
    return Run.create_or_continue(
        Path(folder),
        "bench",
        preset="version: 1\n",
        identity={},
        command=list(command),
        job="bench",
        seed=0,
        dataset=None,
        parents=[],
    )
