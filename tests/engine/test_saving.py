"""Checkpoints written behind the back of the training."""

from __future__ import annotations

import errno
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from selfsup_cli.engine import checkpoints
from selfsup_cli.engine.checkpoints import Checkpoints, Saver, snapshot
from selfsup_cli.errors import MachineError


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Writing waits until this is set."""
    event = threading.Event()
    write = checkpoints.save_tensors

    def late(path: Path, value: Any) -> str:
        assert event.wait(10)
        return write(path, value)

    monkeypatch.setattr(checkpoints, "save_tensors", late)
    return event


def test_what_is_written_is_of_the_moment_of_saving(tmp_path: Path, gate: threading.Event) -> None:
    net = nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.1)
    folder = Checkpoints(tmp_path)
    with Saver(folder) as saver:
        saver.save(1, {"model": net.state_dict(), "optimizer": optimizer.state_dict()})
        before = net.weight.detach().clone()
        net(torch.ones(1, 3)).sum().backward()
        optimizer.step()
        assert folder.steps() == []
        gate.set()
    state = folder.latest()
    assert state is not None
    assert torch.equal(state["model"]["weight"], before)
    assert not torch.equal(net.weight, before)
    assert state["optimizer"]["state"] == {}


def test_one_at_a_time_and_none_is_lost(tmp_path: Path, gate: threading.Event) -> None:
    gate.set()
    folder = Checkpoints(tmp_path, keep=9)
    with Saver(folder) as saver:
        for step in range(1, 6):
            saver.save(step, {"step": step})
            assert len(folder.steps()) >= step - 1
        saver.save(5, {"step": -1})  # is there already
    assert folder.steps() == [1, 2, 3, 4, 5]
    state = folder.latest()
    assert state == {"step": 5}


def test_a_full_disk_is_told_at_the_next_save_and_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(fd: int, data: Any) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("selfsup_cli.runs.atomic.os.write", full)
    folder = Checkpoints(tmp_path)
    saver = Saver(folder)
    saver.save(1, {"x": torch.zeros(9)})
    with pytest.raises(MachineError, match="make room"):
        saver.save(2, {"x": torch.zeros(9)})
    with pytest.raises(MachineError, match="make room"), saver:
        saver.save(2, {"x": torch.zeros(9)})
    assert list(tmp_path.iterdir()) == []


def test_what_ended_the_training_is_not_hidden_by_a_full_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(path: Path, value: Any) -> str:
        raise MachineError("cannot write it", kind="disk")

    monkeypatch.setattr(checkpoints, "save_tensors", full)

    def train() -> None:
        with Saver(Checkpoints(tmp_path)) as saver:
            saver.save(1, {})
            raise KeyError("loss")

    with pytest.raises(KeyError, match="loss"):
        train()
    assert "cannot write it" in caplog.text


def test_a_snapshot_shares_nothing_and_keeps_the_layout() -> None:
    image = torch.randn(2, 3, 4, 5).contiguous(memory_format=torch.channels_last)
    value = {"a": [image, (1, image)], "b": {"c": None}}
    copy = snapshot(value)
    assert torch.equal(copy["a"][0], image)
    assert copy["a"][0].stride() == image.stride()
    image.zero_()
    assert copy["a"][1][1].abs().sum() > 0
    assert copy["b"] == {"c": None}
    assert isinstance(copy["a"][1], tuple)
