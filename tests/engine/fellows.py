"""What processes do that tests of `engine.processes` start. Imported by them, too."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.utils.data import Dataset

from selfsup_cli.config.blocks import Optim, Train
from selfsup_cli.data.loader import EpochLoader
from selfsup_cli.engine import processes, schedule, signals
from selfsup_cli.engine.devices import choose
from selfsup_cli.engine.fit import Fit
from selfsup_cli.engine.progress import Progress
from selfsup_cli.engine.signals import StopFlag
from selfsup_cli.engine.trainable import Batch, Trainable, Update
from selfsup_cli.errors import InputError, Stopped
from selfsup_cli.jobs import common
from selfsup_cli.runs.run import Run

SAMPLES, BATCH, EPOCHS = 24, 8, 4
STEPS = SAMPLES // BATCH * EPOCHS


class Points(Dataset[dict[str, Any]]):
    """Inputs and targets, a function of the position alone."""

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Any]:
        _, position = key
        g = torch.Generator().manual_seed(position)
        x = torch.randn(1, 3, 4, 4, generator=g)
        return {"x": x, "y": x.mean((1, 2, 3))[:, None], "index": torch.tensor(position), "bad": []}


class Plain(Trainable):
    """A small network without batch norm, dropout or anything else that is random."""

    networks = ("net",)

    def __init__(
        self, dies_at: int | None = None, how: str = "", grave: Path | None = None
    ) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(7)
            self.net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 1))
        self.dies_at = dies_at
        self.how = how
        self.grave = grave

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        return {"main": schedule.build_optimizer(self.net, Optim(lr=0.01, weight_decay=0.1))}

    def step(self, batch: Batch, update: Update) -> dict[str, Tensor]:
        loss = (self.net(batch["x"]) - batch["y"]).square().mean()
        if update.step == self.dies_at and processes.rank() == 1:
            if self.grave is not None:
                self.grave.write_text("")  # its time says when this process failed
            if self.how == "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            if self.how == "wrong":
                raise InputError("the second process found something wrong", kind="test")
            loss = loss * float("nan")
        update(loss)
        return {"loss": loss}


def open_run(path: Path) -> Run:
    return Run.create_or_continue(
        path.parent, path.name, preset="x: 1\n", identity={"x": 1}, command=["test"],
        job="test", seed=0, dataset=None, parents=[],
    )  # fmt: skip


def fit(run: Run, model: Plain, stop: StopFlag | None = None) -> None:
    """Train in whatever group this process is."""
    Fit(
        model,
        EpochLoader(
            Points(), SAMPLES, batch_size=BATCH, seed=3,
            rank=processes.rank(), world=processes.world(),
        ),
        Train(epochs=EPOCHS, batch_size=BATCH, checkpoint_steps=1),
        Optim(lr=0.01, weight_decay=0.1),
        choose("cpu", "32"),
        Progress(quiet=True),
        run=run,
        stop=stop,
    )()  # fmt: skip


def train(path: Path, *, stop_after: int | None = None) -> None:
    """Train into the run at `path`; the last process alone is asked to stop."""
    stop = StopFlag()
    model = Plain()
    step = model.step

    def stopping(batch: Batch, update: Update) -> dict[str, Tensor]:
        if update.step + 1 == stop_after and processes.rank() == processes.world() - 1:
            stop.signum = signal.SIGUSR2
        return step(batch, update)

    model.step = stopping  # type: ignore[method-assign]
    with processes.first_rank_decides(lambda: open_run(path)) as run:
        fit(run, model, stop)


def train_and_go_on(folder: Path) -> None:
    """In two processes: a whole training, the rest of `half`, and the first part of `begun`."""
    torch.set_num_threads(1)
    with processes.group("cpu"):
        train(folder / "two")
        train(folder / "half")
        try:
            train(folder / "begun", stop_after=5)
        except Stopped as error:
            text = f"{error.exit_status} {error}"
            (folder / f"stopped-{processes.rank()}").write_text(text)


def fail(folder: Path, how: str) -> None:
    """In two processes: the second one fails in step 2."""
    torch.set_num_threads(1)
    with processes.group("cpu"):
        run = processes.first_rank_decides(lambda: open_run(folder / how))
        with common.ending(run):
            fit(run, Plain(2, how, folder / f"{how}-died"))


def stand_still(folder: Path) -> None:
    """In two processes: wait to be stopped."""
    with signals.catching() as stop, processes.group("cpu"):
        dist.barrier()
        (folder / f"ready-{processes.rank()}").write_text("")
        while not stop:
            signal.pause()
        raise stop.stopped("nothing at all")
