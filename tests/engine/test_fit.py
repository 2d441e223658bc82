"""The training loop on a toy: what it computes, how it stops, how it goes on."""

from __future__ import annotations

import json
import math
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from selfsup_cli.config.blocks import Optim, Train
from selfsup_cli.data.loader import EpochLoader
from selfsup_cli.engine import schedule
from selfsup_cli.engine.checkpoints import Checkpoints
from selfsup_cli.engine.devices import choose
from selfsup_cli.engine.fit import Fit
from selfsup_cli.engine.progress import Progress
from selfsup_cli.engine.signals import StopFlag
from selfsup_cli.engine.trainable import Batch, NotFiniteError, Trainable, Update
from selfsup_cli.errors import InputError, Stopped, TrainingError
from selfsup_cli.runs.run import Run


class Points(Dataset[dict[str, Any]]):
    """Inputs and targets of a linear law, with noise that depends on (epoch, position) alone."""

    def __init__(self, bad: frozenset[int] = frozenset()) -> None:
        self.bad = bad

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Any]:
        epoch, position = key
        g = torch.Generator().manual_seed(1000 * epoch + position)
        x = torch.randn(1, 3, generator=g)
        bad = [(f"sample-{position}", "made bad")] if position in self.bad else []
        return {"x": x, "y": x.sum(1, keepdim=True), "index": torch.tensor(position), "bad": bad}


class Line(Trainable):
    """Regression with dropout, so that global randomness matters too."""

    networks = ("net",)

    def __init__(self, poison: int | None = None, dropout: float = 0.2) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(7)
            self.net = nn.Sequential(nn.Linear(3, 8), nn.Dropout(dropout), nn.Linear(8, 1))
        self.poison = poison
        self.seen: list[float] = []

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        return {"main": schedule.build_optimizer(self.net, Optim(lr=0.01, weight_decay=0.1))}

    def step(self, batch: Batch, update: Update) -> dict[str, Tensor]:
        noise = torch.randn(batch["x"].shape, generator=update.generator("noise"))
        loss = (self.net(batch["x"] + 0.01 * noise) - batch["y"]).square().mean()
        if self.poison == update.step:
            loss = loss * math.nan
        update(loss)
        return {"loss": loss}


def loader(workers: int = 0, **bad: frozenset[int]) -> EpochLoader:
    return EpochLoader(Points(**bad), 40, batch_size=8, seed=3, workers=workers)


def open_run(path: Path) -> Run:
    return Run.create_or_continue(
        path.parent,
        path.name,
        preset="x: 1\n",
        identity={"x": 1},
        command=["test"],
        job="test",
        seed=0,
        dataset=None,
        parents=[],
    )


def fit(run: Run | None, model: Line, *, workers: int = 0, **changes: Any) -> Fit:
    train = Train(epochs=4, batch_size=8, checkpoint_steps=1, **changes.pop("train", {}))
    return Fit(
        model,
        loader(workers),
        train,
        Optim(lr=0.01),
        choose("cpu"),
        Progress(quiet=True),
        run=run,
        **changes,
    )


def weights(model: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


class KilledError(Exception):
    pass


class KillAt(Line):
    """Ends without any clean-up, as a killed process does, before the update of a step."""

    def __init__(self, step: int) -> None:
        super().__init__()
        self.at = step

    def step(self, batch: Batch, update: Update) -> dict[str, Tensor]:
        if update.step == self.at:
            raise KilledError
        return super().step(batch, update)


@pytest.mark.parametrize("workers", [0, 2])
def test_killed_and_resumed_training_is_bit_identical(tmp_path: Path, workers: int) -> None:
    whole_run = open_run(tmp_path / "whole")
    whole = Line()
    fit(whole_run, whole)()
    run_path = tmp_path / "killed"
    for step in (0, 1, 6, 7, 19):
        run = open_run(run_path)
        with pytest.raises(KilledError):
            fit(run, KillAt(step), workers=workers)()
        run.close()
    run = open_run(run_path)
    last = Line()
    outcome = fit(run, last, workers=workers)()
    assert outcome.resumed_from == 19
    assert torch.equal(weights(last), weights(whole))
    assert (run.path / "metrics.jsonl").read_bytes() == (
        whole_run.path / "metrics.jsonl"
    ).read_bytes()
    run.close()
    whole_run.close()


def test_time_of_updates_goes_on_and_leaves_checks_out(tmp_path: Path) -> None:
    run, seen = open_run(tmp_path / "run"), list[tuple[int, float]]()

    def watch(step: int, seconds: float) -> None:
        seen.append((step, seconds))

    def check(epoch: int, step: int) -> dict[str, float]:
        time.sleep(0.2)
        return {}

    with pytest.raises(KilledError):
        fit(run, KillAt(11), watch=watch, check=check, check_every=1)()
    fit(run, Line(), watch=watch)()
    assert [step for step, _ in seen] == list(range(1, 21))
    seconds = [spent for _, spent in seen]
    assert seconds == sorted(seconds)
    assert 0 < seconds[10] - seconds[4] < 0.2
    assert seconds[11] > seconds[10]
    run.close()


def test_resuming_without_the_position_is_noticed(tmp_path: Path) -> None:
    """Negative control: a resume that forgets where it was gives other weights."""
    whole = Line()
    fit(None, whole)()
    run = open_run(tmp_path / "run")
    with pytest.raises(KilledError):
        fit(run, KillAt(6))()
    folder = Checkpoints(run.path / "checkpoints")
    state = folder.latest()
    assert state is not None
    state["at"]["batch"] = 0
    folder.save(7, {**state, "at": {**state["at"], "step": 7}})
    last = Line()
    fit(run, last)()
    assert not torch.equal(weights(last), weights(whole))
    run.close()


def test_accumulated_parts_equal_the_whole_batch() -> None:
    whole, parts = Line(dropout=0.0), Line(dropout=0.0)
    plain = {"epochs": 1}
    for model, accumulate in ((whole, 1), (parts, 4)):
        model.step = _without_noise(model)  # type: ignore[method-assign]
        train = Train(batch_size=8, accumulate=accumulate, **plain)
        Fit(model, loader(), train, Optim(lr=0.01), choose("cpu"), Progress(quiet=True))()
    assert torch.allclose(weights(whole), weights(parts), atol=1e-6)


def _without_noise(model: Line) -> Callable[[Batch, Update], dict[str, Tensor]]:
    def step(batch: Batch, update: Update) -> dict[str, Tensor]:
        loss = (model.net(batch["x"]) - batch["y"]).square().mean()
        update(loss)
        return {"loss": loss}

    return step


def test_loss_that_is_not_finite_stops_before_the_update(tmp_path: Path) -> None:
    run = open_run(tmp_path / "run")
    model = Line(poison=5)
    with pytest.raises(NotFiniteError, match=r"step 6"):
        fit(run, model)()
    state = Checkpoints(run.path / "checkpoints").latest()
    assert state is not None
    assert state["at"]["step"] == 5
    saved = torch.cat(
        [state["model"][f"net.{n}"].flatten() for n, _ in model.net.named_parameters()]
    )
    assert torch.equal(saved, weights(model))
    evidence = list((run.path / "debug").glob("nonfinite-step-6-*.pt"))
    assert len(evidence) == 1
    run.close()


def test_a_signal_saves_and_says_the_same_command_goes_on(tmp_path: Path) -> None:
    run = open_run(tmp_path / "run")
    flag = StopFlag()

    class Signalled(Line):
        def step(self, batch: Batch, update: Update) -> dict[str, Tensor]:
            if update.step == 2:
                flag.signum = signal.SIGUSR1
            return super().step(batch, update)

    with pytest.raises(Stopped) as stopped:
        fit(run, Signalled(), stop=flag)()
    assert stopped.value.exit_status == 75
    assert Checkpoints(run.path / "checkpoints").steps()[-1] == 3
    run.close()


def test_a_signal_that_comes_during_the_exchange_is_not_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flag = StopFlag()
    training = fit(None, Line(), stop=flag)
    monkeypatch.setattr(training, "_distributed", True, raising=False)

    def exchange(mine: Tensor, op: object) -> None:
        flag.signum = signal.SIGUSR2  # after this process has said that it knows of none

    monkeypatch.setattr("torch.distributed.all_reduce", exchange)
    assert not training._agree(bool(flag))
    assert flag.signum == signal.SIGUSR2
    assert training._agree(bool(flag))


def test_bad_samples_are_recorded_once_and_too_many_fail(tmp_path: Path) -> None:
    run = open_run(tmp_path / "run")
    train = Train(epochs=2, batch_size=8)
    few = Fit(
        Line(),
        loader(bad=frozenset({3})),
        train,
        Optim(),
        choose("cpu"),
        Progress(quiet=True),
        run=run,
        max_bad=0.1,
        samples=40,
    )
    assert few().bad_samples == 1
    lines = (run.path / "quarantine.jsonl").read_text().splitlines()
    assert [json.loads(line)["path"] for line in lines] == ["sample-3"]
    run.close()
    many = Fit(
        Line(),
        loader(bad=frozenset(range(10))),
        train,
        Optim(),
        choose("cpu"),
        Progress(quiet=True),
        max_bad=0.1,
        samples=40,
    )
    with pytest.raises(TrainingError, match="cannot be read"):
        many()


def test_checks_come_with_their_epochs_and_at_the_end(tmp_path: Path) -> None:
    called: list[tuple[int, int]] = []

    def check(epoch: int, step: int) -> dict[str, float]:
        called.append((epoch, step))
        return {"heldout": 0.5}

    run = open_run(tmp_path / "run")
    fit(run, Line(), check=check, check_every=3)()
    assert called == [(3, 15), (4, 20)]
    rows = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if "heldout" in row] == [15, 20]
    run.close()


def test_max_steps_ends_training_and_its_schedule() -> None:
    model = Line()
    done = fit(None, model, train={"max_steps": 7})
    assert done().step == 7
    assert done.update.lr["main"] == pytest.approx(0.01 * schedule.factor(Optim(), 7)(6), rel=1e-9)


def test_a_batch_that_cannot_be_cut_into_parts_is_refused() -> None:
    with pytest.raises(InputError, match="equal parts"):
        fit(None, Line(), train={"accumulate": 3})()


def test_damaged_newest_checkpoint_gives_way_to_the_one_before(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = Checkpoints(tmp_path, keep=2)
    for step in (1, 2, 3):
        folder.save(step, {"value": torch.tensor(step)})
    assert folder.steps() == [2, 3]
    path = folder.path(3) / "state.pt"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with caplog.at_level("WARNING", logger="selfsup"):
        state = folder.latest()
    assert state is not None
    assert int(state["value"]) == 2
    assert "checkpoint 3 is damaged" in caplog.text


def test_cosine_follows_its_closed_form() -> None:
    at = schedule.factor(Optim(final_factor=0.001), 200)
    for step in (0, 1, 50, 199, 200, 500):
        t = min(step / 200, 1)
        assert at(step) == pytest.approx(0.999 * 0.5 * (1 + math.cos(math.pi * t)) + 0.001)


def test_weight_decay_spares_biases_and_norms() -> None:
    net = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
    before = [p.detach().clone() for p in net.parameters()]
    optimizer = schedule.build_optimizer(net, Optim(lr=3e-4, weight_decay=1 / 3))
    for p in net.parameters():
        p.grad = torch.zeros_like(p)
    optimizer.step()
    weight, *rest = zip(before, net.parameters(), strict=True)
    # One step without gradient takes 1e-4 of the weight, as TensorFlow's AdamW with 1e-4 does.
    assert torch.allclose(weight[1], weight[0] * (1 - 1e-4), rtol=1e-6)
    assert all(torch.equal(a, b) for a, b in rest)
