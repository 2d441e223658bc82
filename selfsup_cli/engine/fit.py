"""The training loop: one for everything that trains."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from selfsup_cli.config.blocks import Optim, Train
from selfsup_cli.data.loader import Loader, digest
from selfsup_cli.engine import processes, schedule
from selfsup_cli.engine.checkpoints import Checkpoints, Saver, save_tensors
from selfsup_cli.engine.devices import Hardware
from selfsup_cli.engine.events import Events
from selfsup_cli.engine.progress import Progress, clock
from selfsup_cli.engine.signals import StopFlag
from selfsup_cli.engine.statistics import WarmStatistics
from selfsup_cli.engine.trainable import (
    Batch,
    NotFiniteError,
    Trainable,
    Update,
    load_unwrapped,
    unwrapped_state,
    without_sync,
    wrap_networks,
)
from selfsup_cli.errors import InputError, MachineError, TrainingError
from selfsup_cli.randomness import derive
from selfsup_cli.runs.run import Run

log = logging.getLogger("selfsup")

Check = Callable[[int, int], dict[str, float]]
"""Called as `check(epoch, step)` at the end of an epoch; what it returns is logged."""


@dataclass
class Position:
    """Where a run stands: updates done, the epoch, the batches of it that are done."""

    step: int = 0
    epoch: int = 0
    batch: int = 0
    order: int = 0


@dataclass
class Outcome:
    """What a call of `fit` did."""

    step: int
    resumed_from: int
    seconds: float
    waiting: float
    metrics: dict[str, float]
    bad_samples: int


@dataclass
class Fit:
    """Trains `model` on `loader` until `train` says it is enough, writing into `run`.

    `run=None` trains without leaving anything behind (probes in tests, small heads). `check` is
    called at the end of every `check_every`-th epoch and of the last one, `watch` after every
    update with the number of updates and the seconds that all of them took. Raises NotFiniteError
    (a loss is NaN or infinite; what is needed to look into it lies in the run's `debug/`),
    TrainingError (more than `max_bad` of the samples, which are `many`, are bad) and Stopped (a
    signal, after saving).
    """

    model: Trainable
    loader: Loader
    train: Train
    optim: Optim
    hardware: Hardware
    progress: Progress
    run: Run | None = None
    stop: StopFlag | None = None
    check: Check | None = None
    check_every: int = 0
    watch: Callable[[int, float], None] | None = None
    max_bad: float = 1.0
    samples: int = 0
    many: str = "videos"

    def __call__(self) -> Outcome:
        self._prepare()
        resumed = self.at.step
        self._began = self._saved = time.monotonic()
        self._first = resumed
        with self._saver or nullcontext():
            while self.at.step < self.total and self.at.epoch < self.epochs:
                self._epoch()
        return Outcome(
            step=self.at.step,
            resumed_from=resumed,
            seconds=time.monotonic() - self._began,
            waiting=self._waited,
            metrics=self._last,
            bad_samples=len(self._bad),
        )

    @property
    def total(self) -> int:
        """Updates in the whole training, schedule and all."""
        total = self.train.epochs * len(self.loader)
        return min(total, self.train.max_steps or total)

    @property
    def epochs(self) -> int:
        """Epochs that are begun."""
        return -(-self.total // len(self.loader))

    def _prepare(self) -> None:
        self.at = Position()
        self.seconds = 0.0
        self._waited = 0.0
        self._last: dict[str, float] = {}
        self._bad: set[str] = set()
        self._distributed = dist.is_available() and dist.is_initialized()
        self._rank = dist.get_rank() if self._distributed else 0
        self.model.to(self.hardware.device)
        optimizers = self.model.optimizers()
        periods = self.model.periods(len(self.loader), self.total)
        self._turns = {step for period in periods.values() for step in period} - {0, self.total}
        self.update = Update(
            optimizers,
            schedule.factor(self.optim, self.total, len(self.loader)),
            self.hardware,
            seed=self.train.seed,
            rank=self._rank,
            clip_grad=self.optim.clip_grad,
            parts=self.train.accumulate,
            scaler=self.hardware.scaler(),
            constant=self.model.constant,
            later={
                name: schedule.within(self.optim, first, end, len(self.loader))
                for name, (first, end) in periods.items()
            },
            periods=periods,
        )
        wrap_networks(self.model, self.hardware, distributed=self._distributed)
        if self.train.compile:
            for name in self.model.networks:
                getattr(self.model, name).compile()
        self._events: Events | None = None
        self._saver: Saver | None = None
        if self.run is not None:
            self._checkpoints = Checkpoints(self.run.path / "checkpoints", self.train.keep)
            if self._rank == 0:
                self._checkpoints.sweep()
            state = self._checkpoints.latest()
            if state is not None:
                self._restore(state)
            if self._rank == 0:
                self._checkpoints.discard_after(self.at.step)
                mark = None if state is None else state.get("metrics")
                self.run.truncate_metrics(self.at.step, mark)
                self._saver = Saver(self._checkpoints)
                self._events = Events(self.run.path / "events", self.at.step, self.total)
        # A compiled network would be compiled again for every new momentum.
        self._warm = None if self.train.compile else WarmStatistics(self.model)

    def _restore(self, state: dict[str, Any]) -> None:
        load_unwrapped(self.model, state["model"])
        self.model.remember(state.get("memory", {}))
        for name, optimizer in self.update.optimizers.items():
            optimizer.load_state_dict(state["optimizers"][name])
        if self.update.scaler is not None and state["scaler"] is not None:
            self.update.scaler.load_state_dict(state["scaler"])
        before, now = state.get("processes", 1), processes.members()
        if before != now:
            log.warning(
                "this run was begun with %d process%s and goes on with %d: what is drawn on the "
                "device (augmentation, dropout) and the statistics of batch norm differ from here "
                "on from those of a run that was not interrupted",
                before,
                "" if before == 1 else "es",
                now,
            )
        self.at = Position(**state["at"])
        self.seconds = float(state.get("seconds", 0.0))
        self._bad = set(state["bad"])
        log.info("going on from step %d", self.at.step)

    def state(self) -> dict[str, Any]:
        """Everything that decides how training goes on; all randomness is a function of `at`."""
        scaler = self.update.scaler
        return {
            "model": unwrapped_state(self.model),
            "memory": self.model.memory(),
            "optimizers": {
                name: optimizer.state_dict() for name, optimizer in self.update.optimizers.items()
            },
            "scaler": None if scaler is None else scaler.state_dict(),
            "at": vars(self.at).copy(),
            "processes": processes.members(),
            "bad": sorted(self._bad),
            "seconds": self.seconds,
        }

    def save(self) -> None:
        """Begin to write a checkpoint of this moment, unless it lies there already."""
        self._saved = time.monotonic()
        if self.run is None or self._saver is None:
            return
        self._saver.wait()
        # Before the large file: flushing a small one would wait until that is on the disk.
        self.run.set_status("running", step=self.at.step)
        self._saver.save(self.at.step, {**self.state(), "metrics": self.run.metrics_mark()})

    def _epoch(self) -> None:
        self.model.train()
        batches = self.loader.epoch(self.at.epoch, self.at.batch)
        while self.at.batch < len(self.loader) and self.at.step < self.total:
            waiting = time.monotonic()
            batch = next(batches)
            self._waited += time.monotonic() - waiting
            self._count_bad(batch.pop("bad", []))
            row = self._step(batch)
            # Of the updates alone, data and all: neither of checks nor of saving.
            self.seconds += time.monotonic() - waiting
            self.at.step += 1
            self.at.batch += 1
            self._log(row)
            if self.watch is not None:
                self.watch(self.at.step, self.seconds)
            ends = self.at.batch == len(self.loader) or self.at.step == self.total
            if ends:
                self._end_of_epoch()
            self._save_or_stop()
            if ends:
                return

    def _end_of_epoch(self) -> None:
        epoch = self.at.epoch + 1
        last = self.at.step == self.total
        if self.at.batch == len(self.loader):
            self.at.epoch, self.at.batch = epoch, 0
        due = self.check_every > 0 and epoch % self.check_every == 0
        if self.check is not None and (due or last):
            self.model.eval()
            found = self.check(epoch, self.at.step)
            self.model.train()
            if self.run is not None and self._rank == 0 and found:
                self._write(found, seldom=True)
        self.progress.update(self._line(), force=True)

    def _save_or_stop(self) -> None:
        asked = self._agree(bool(self.stop))
        every = self.train.checkpoint_steps
        by_step = every is not None and self.at.step % every == 0
        by_time = time.monotonic() - self._saved > self.train.checkpoint_minutes * 60
        last = self.at.step == self.total
        turns = self.at.step in self._turns
        if asked or by_step or by_time or turns or last:
            self.save()
        if asked and self.stop is not None and not last:
            if self._saver is not None:
                self._saver.wait()
            # Whoever ends first takes the others with it: none may before the save is done.
            processes.wait_for_all()
            raise self.stop.stopped(f"step {self.at.step} of {self.total}")

    def _agree(self, asked: bool) -> bool:
        if not self._distributed:
            return asked
        mine = float(self.stop.signum) if asked and self.stop is not None else 0.0
        flag = torch.tensor(mine, device=self.hardware.device)
        dist.all_reduce(flag, op=dist.ReduceOp.MAX)
        agreed = int(flag.item())
        # The same signal for all, so that all end with the same status. One that arrives during
        # the exchange is nobody's yet: it must stay noted for the next step.
        if agreed and self.stop is not None:
            self.stop.signum = agreed
        return bool(agreed)

    def _step(self, batch: dict[str, Any]) -> dict[str, float]:
        index = batch.pop("index")
        batch.pop("id", None)
        self.at.order = digest(self.at.order, index)
        moved: Batch = {
            name: value.to(self.hardware.device, non_blocking=True) for name, value in batch.items()
        }
        # Dropout and its like draw from the global generator: make that addressable as well.
        # (torch.manual_seed would also visit every device that is not in use, at a cost.)
        seed = derive(self.train.seed, self.at.step, self._rank, "global")
        torch.default_generator.manual_seed(seed)
        if self.hardware.device.type == "cuda":
            torch.cuda.manual_seed(seed)
        self.update.begin(self.at.step)
        rows = []
        try:
            for part, piece in enumerate(_split(moved, self.train.accumulate)):
                self.update.part = part
                if self._warm is not None:
                    self._warm()
                if part < self.train.accumulate - 1:
                    with without_sync(self.model, self.model.networks):
                        rows.append(self.model.step(piece, self.update))
                else:
                    rows.append(self.model.step(piece, self.update))
            self.update.end()
        except NotFiniteError:
            self._keep_evidence(moved, index)
            raise
        except torch.OutOfMemoryError as error:
            raise MachineError(
                f"the device ran out of memory in step {self.at.step + 1} "
                f"(peak {self.hardware.peak_memory_mb():.0f} MB)",
                kind="memory",
                hint=f"pass the batch in parts: --accumulate {self.train.accumulate * 2}",
            ) from error
        return self._mean(rows)

    def _mean(self, rows: list[dict[str, Tensor]]) -> dict[str, float]:
        names = list(rows[0])
        if len(rows) == 1 and not self._distributed:
            return dict(zip(names, torch.stack([rows[0][n] for n in names]).tolist(), strict=True))
        table = torch.stack([torch.stack([row[n].detach().float() for n in names]) for row in rows])
        mean = table.mean(0)
        if self._distributed:
            dist.all_reduce(mean)
            mean /= dist.get_world_size()
        return dict(zip(names, mean.tolist(), strict=True))

    def _keep_evidence(self, batch: Batch, index: Tensor) -> None:
        if self.run is None:
            return
        folder = self.run.path / "debug"
        folder.mkdir(exist_ok=True)
        name = f"nonfinite-step-{self.at.step + 1}-rank-{self._rank}.pt"
        evidence = {"batch": batch, "index": index, "state": self.state()}
        save_tensors(folder / name, evidence)

    def _count_bad(self, bad: list[tuple[str, str]]) -> None:
        for identifier, reason in bad:
            if identifier in self._bad:
                continue
            self._bad.add(identifier)
            log.warning("left out, another takes its place: %s: %s", identifier, reason)
            if self.run is not None and self._rank == 0:
                self.run.record_bad(identifier, reason)
        if self.samples and len(self._bad) > self.max_bad * self.samples:
            raise TrainingError(
                f"{len(self._bad)} of {self.samples} {self.many} cannot be read, more than the "
                f"share of {self.max_bad:g} that is tolerated (first: {sorted(self._bad)[0]})",
                kind="bad-samples",
                hint="mend the files, list them with --quarantine, or raise --max-bad",
            )

    def _log(self, row: dict[str, float]) -> None:
        self._last = row
        if self.run is not None and self._rank == 0:
            rates = {
                "lr" if name == "main" else f"lr_{name}": lr for name, lr in self.update.lr.items()
            }
            self._write({**row, **rates}, order=f"{self.at.order:08x}")
        if self.progress.due:
            self.progress.update(self._line())

    def _write(self, row: dict[str, float], *, seldom: bool = False, **marks: str) -> None:
        assert self.run is not None  # noqa: S101 (both callers have checked)
        epoch = self.at.epoch + self.at.batch / len(self.loader)
        self.run.log(self.at.step, epoch=round(epoch, 6), **row, **marks)
        if self._events is not None:
            self._events.write(self.at.step, row, always=seldom)

    def _line(self) -> str:
        spent = max(time.monotonic() - self._began, 1e-9)
        rate = (self.at.step - self._first) / spent
        left = clock((self.total - self.at.step) / rate) if rate > 0 else "?"
        values = " ".join(f"{name}={value:.4g}" for name, value in self._last.items())
        stage = f"{self.model.stage}: " if self.model.stage else ""
        return (
            f"{stage}step={self.at.step}/{self.total} epoch={self.at.epoch}/{self.train.epochs} "
            f"{values} lr={next(iter(self.update.lr.values()), 0):.3g} it/s={rate:.3g} eta={left} "
            f"data_wait={100 * self._waited / spent:.0f}% "
            f"mem={self.hardware.peak_memory_mb():.0f}MB"
        )


def _split(batch: Batch, parts: int) -> list[Batch]:
    """Cut every tensor of a batch into `parts` runs of equal length (the videos stay whole)."""
    if parts == 1:
        return [batch]
    pieces: list[Batch] = [{} for _ in range(parts)]
    for name, value in batch.items():
        if len(value) % parts:
            raise InputError(
                f"a batch of {len(value)} {name}s cannot be cut into {parts} equal parts; "
                "choose --accumulate so that it divides --batch-size",
                kind="accumulate",
            )
        for piece, chunk in zip(pieces, value.chunk(parts), strict=True):
            piece[name] = chunk
    return pieces
