"""Several processes: the same numbers as one, going on, stopping together, dying together."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import fellows
import numpy as np
import pytest

from selfsup_cli.engine import processes
from selfsup_cli.engine.checkpoints import Checkpoints, read_tensors
from selfsup_cli.engine.trainable import NotFiniteError
from selfsup_cli.errors import InputError, MachineError, SelfsupError, Stopped
from selfsup_cli.runs.run import Run


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of one process, of two, and of one after the other."""
    folder = tmp_path_factory.mktemp("runs")
    fellows.train(folder / "one")
    with pytest.raises(Stopped):
        fellows.train(folder / "half", stop_after=5)
    processes.launch(2, fellows.train_and_go_on, folder)
    fellows.train(folder / "begun")
    return folder


def losses(run: Path) -> list[float]:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(1, fellows.STEPS + 1))
    return [row["loss"] for row in rows]


def weights(run: Path) -> dict[str, np.ndarray]:
    state = read_tensors(Checkpoints(run / "checkpoints").path(fellows.STEPS) / "state.pt")
    return {name: value.numpy() for name, value in state["model"].items()}


@pytest.mark.parametrize("name", ["two", "half", "begun"])
def test_two_processes_compute_what_one_does(folder: Path, name: str) -> None:
    """All the way, from a checkpoint of one process on, and until one goes on alone."""
    np.testing.assert_allclose(losses(folder / name), losses(folder / "one"), rtol=1e-4)
    expected = weights(folder / "one")
    found = weights(folder / name)
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        np.testing.assert_allclose(found[key], value, rtol=1e-4, atol=1e-6)


def test_all_stop_when_one_is_asked(folder: Path) -> None:
    said = [(folder / f"stopped-{rank}").read_text() for rank in (0, 1)]
    assert said[0] == said[1]
    assert said[0].startswith("75 stopped by SIGUSR2 after saving step 5 of 12")


@pytest.mark.parametrize(
    ("how", "kind", "message", "state"),
    [
        ("killed", MachineError, "process 1 of 2 was killed or crashed .exit status -9", "failed"),
        ("wrong", InputError, "^the second process found something wrong$", "failed"),
        ("nan", NotFiniteError, "became nan in step 3", "diverged"),
    ],
)
def test_when_one_fails_all_end_and_it_is_told_why(
    tmp_path: Path, how: str, kind: type[SelfsupError], message: str, state: str
) -> None:
    with pytest.raises(kind, match=message):
        processes.launch(2, fellows.fail, tmp_path, how)
    died = (tmp_path / f"{how}-died").stat().st_mtime
    assert time.time() - died < 60
    run = Run.open(tmp_path / how)
    assert run.status.state == state
    assert Checkpoints(run.path / "checkpoints").problem(2) is None
    assert (run.path / "debug").exists() is (how == "nan")


def test_a_signal_to_the_launcher_reaches_all(tmp_path: Path) -> None:
    """As soon as both processes wait for it; the handlers are put back afterwards."""

    def ask() -> None:
        while len(list(tmp_path.glob("ready-*"))) < 2:
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGUSR1)

    asking = threading.Thread(target=ask)
    asking.start()
    with pytest.raises(Stopped, match="stopped by SIGUSR1 after saving nothing at all") as caught:
        processes.launch(2, fellows.stand_still, tmp_path)
    asking.join()
    assert caught.value.exit_status == 75


@pytest.mark.parametrize(
    "error",
    [
        InputError("x", kind="k", hint="h"),
        MachineError("x"),
        NotFiniteError("x", kind="n"),
        Stopped("x", 130),
    ],
)
def test_errors_travel(error: SelfsupError) -> None:
    found: Any = processes._rebuild(json.loads(json.dumps(processes._describe(error))))
    assert type(found) is type(error)
    assert (str(found), found.kind, found.hint) == (str(error), error.kind, error.hint)
    assert found.exit_status == error.exit_status
