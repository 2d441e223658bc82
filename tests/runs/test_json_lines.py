"""Rows survive kills and full disks; torn and damaged ones are dropped."""

from __future__ import annotations

import errno
import json
import math
import os
from pathlib import Path

import children
import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfsup_cli.errors import MachineError
from selfsup_cli.runs.metrics import JsonLines, plain_row, read_rows


def rows(path: Path) -> list[dict[str, object]]:
    return list(read_rows(path))


def test_rows_come_back_in_order(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    lines = JsonLines(path)
    assert rows(path) == []
    for step in range(3):
        lines.append({"step": step, "κ": step / 3})
        assert len(rows(path)) == step + 1  # readable before the file is closed
    lines.close()
    lines.append({"step": 3})
    assert [row["step"] for row in rows(path)] == [0, 1, 2, 3]
    assert rows(path)[1]["κ"] == 1 / 3


@pytest.mark.parametrize("tail", [b'{"step": 2, "lo', b'{"step": 2}', b"\0" * 70_000])
def test_a_torn_last_row_is_dropped_before_the_next(tmp_path: Path, tail: bytes) -> None:
    path = tmp_path / "m.jsonl"
    path.write_bytes(b'{"step": 0}\n{"step": 1}\n' + tail)
    assert [row["step"] for row in rows(path)] == [0, 1]
    JsonLines(path).append({"step": 5})
    assert path.read_bytes() == b'{"step": 0}\n{"step": 1}\n{"step": 5}\n'


def test_a_file_of_one_torn_row_starts_again(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    path.write_bytes(b'{"ste')
    JsonLines(path).append({"step": 0})
    assert path.read_bytes() == b'{"step": 0}\n'


def test_keep_drops_what_is_not_wanted_and_what_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    path.write_bytes(b'{"step": 1}\n[3]\n{"st\xff": 2}\n{"step": 2}\n{"step": 3}\n{"step')
    lines = JsonLines(path)
    assert lines.keep(lambda row: row["step"] <= 2) == 4
    assert path.read_bytes() == b'{"step": 1}\n{"step": 2}\n'
    before = path.stat().st_ino
    assert lines.keep(lambda row: True) == 0
    assert path.stat().st_ino == before
    lines.append({"step": 9})
    assert [row["step"] for row in rows(path)] == [1, 2, 9]
    assert JsonLines(tmp_path / "none").keep(lambda row: True) == 0


def test_an_open_file_goes_on_after_keep(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    lines = JsonLines(path)
    for step in range(6):
        lines.append({"step": step})
    lines.keep(lambda row: row["step"] < 2)
    lines.append({"step": 2})
    assert [row["step"] for row in rows(path)] == [0, 1, 2]


def test_a_killed_process_loses_no_row_that_it_has_written(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    for kills, wanted in enumerate((1, 7, 30), start=1):
        read, write = os.pipe()

        def loop(write: int = write) -> None:
            lines = JsonLines(path)
            for step in range(1_000_000):
                lines.append({"step": step, "loss": 1 / (step + 1)})
                os.write(write, b".")

        child = children.fork(loop)
        os.close(write)
        for _ in range(wanted):
            os.read(read, 1)
        children.kill(child)
        while more := os.read(read, 65536):
            wanted += len(more)
        os.close(read)
        found = rows(path)
        assert sum(row["step"] == 0 for row in found) == kills
        last = max(i for i, row in enumerate(found) if row["step"] == 0)
        steps = [row["step"] for row in found[last:]]
        assert steps == list(range(len(steps)))
        assert wanted <= len(steps) <= wanted + 1


def test_a_full_disk_leaves_no_half_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "m.jsonl"
    lines = JsonLines(path)
    lines.append({"step": 0})
    real = os.write
    calls = 0

    def half_then_full(fd: int, data: bytes) -> int:
        nonlocal calls
        calls += 1
        if calls == 1:
            return real(fd, data[:5])
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", half_then_full)
        with pytest.raises(MachineError, match=r"m\.jsonl: No space left"):
            lines.append({"step": 1})
    lines.append({"step": 2})
    assert path.read_bytes() == b'{"step": 0}\n{"step": 2}\n'


@given(
    st.dictionaries(
        st.text(min_size=1).filter(lambda key: key != "nonfinite"),
        st.floats() | st.integers() | st.text() | st.none(),
    )
)
def test_every_row_is_json_and_says_what_was_not_finite(row: dict[str, object]) -> None:
    found = json.loads(json.dumps(plain_row(row), allow_nan=False))
    odd = found.pop("nonfinite", {})
    assert set(found) == set(row)
    for key, value in row.items():
        if isinstance(value, float) and not math.isfinite(value):
            assert found[key] is None
            assert odd.pop(key) == str(value)
        else:
            assert found[key] == value
    assert odd == {}
