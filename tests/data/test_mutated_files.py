"""Mutated files of every kind that is read: refused, counted or made again; never a crash."""

from __future__ import annotations

import ctypes
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mutants import MUTANTS, Kind, mutated, read_mutants
from mutated_kinds import KINDS

from selfsup_cli.errors import InputError


@pytest.mark.parametrize("name", KINDS)
def test_mutants_are_refused_counted_or_made_again(name: str, tmp_path: Path) -> None:
    outcome = read_mutants(name, KINDS[name], tmp_path, seed=0)
    assert outcome.wrong == []
    assert outcome.ends.total() == MUTANTS
    noticed = outcome.ends["refused"] + outcome.ends["made again"]
    # With a checksum, what passes is damage to what means nothing: spaces, unused pages.
    assert noticed >= (0.8 * MUTANTS if KINDS[name].exact else 0.2 * MUTANTS), outcome.ends


DEEP = b"[" * 100_000 + b"\n"
FOUND: dict[str, Callable[[bytes], bytes]] = {
    "UCF101 list": lambda data: data + b"a/\0.avi 1\n",
    "UCF101 classes": lambda data: b"9" * 5000 + b" a\n" + data,
    "CSV manifest": lambda data: data + b"a/\0.avi,run,train\n",
    "Kinetics annotations": lambda data: data.replace(b",3,", b",1e999,"),
    "quarantine": lambda data: data + DEEP,
    "preset": lambda data: data + DEEP,
    "sidecar": lambda data: DEEP,
    "manifest of a checkpoint": lambda data: DEEP,
    "manifest.json of a complete run": lambda data: DEEP,
    "run.json of a complete run": lambda data: DEEP,
    "report.json of a complete run": lambda data: DEEP,
    "metrics.jsonl of an unfinished run": lambda data: data + DEEP,
    "quarantine.jsonl of an unfinished run": lambda data: data + DEEP,
}


@pytest.mark.parametrize("name", FOUND)
def test_what_once_was_no_clear_answer(name: str, tmp_path: Path) -> None:
    path = KINDS[name].make(tmp_path)
    KINDS[name].read(path)
    path.write_bytes(FOUND[name](path.read_bytes()))
    with pytest.raises(InputError) as caught:
        KINDS[name].read(path)
    assert str(caught.value).count("\n") < 20


def test_a_frame_index_with_a_column_that_is_no_text(tmp_path: Path) -> None:
    path = KINDS["frame index"].make(tmp_path)
    whole = KINDS["frame index"].read(path)
    data = path.read_bytes()
    assert data.count(b"frames INTEGER") == 1
    path.write_bytes(data.replace(b"frames INTEGER", b"fr\xf0mes INTEGER"))
    assert KINDS["frame index"].read(path) == whole


@given(data=st.binary(max_size=400), seed=st.integers(0, 2**32))
def test_a_mutant_is_another_file_and_always_the_same(data: bytes, seed: int) -> None:
    first, again = (mutated(data, random.Random(seed)) for _ in range(2))
    assert first == again != data


# Negative controls: what must not happen is noticed when it does.


def _made(folder: Path) -> Path:
    path = folder / "file"
    path.write_bytes(bytes(100))
    return path


def _whole(path: Path) -> bool:
    return path.read_bytes() == bytes(100)


def _crashes(path: Path) -> None:
    if not _whole(path):
        ctypes.string_at(0)


def _hangs(path: Path) -> None:
    while not _whole(path):
        time.sleep(0.1)


def _errs(path: Path) -> None:
    if not _whole(path):
        raise IndexError("tuple index out of range")


def _talks(path: Path) -> None:
    if not _whole(path):
        raise InputError("\n".join("line" for _ in range(21)))


def _believes(path: Path) -> bytes:
    return path.read_bytes()


def _leaves(path: Path) -> bool:
    damaged = path.with_name("damaged")
    if not _whole(path):
        damaged.touch()
        raise InputError("no")
    return damaged.exists()


@pytest.mark.parametrize(
    ("read", "said"),
    [
        (_crashes, "mutant 0, seed 0: exit -11"),
        (_hangs, "mutant 0, seed 0: exit 1\nTimeout"),
        (_errs, "IndexError: tuple index out of range"),
        (_talks, "21 lines"),
        (_believes, "read something else"),
        (_leaves, "damage stays"),
    ],
)
def test_what_must_not_happen_is_noticed(tmp_path: Path, read: Any, said: str) -> None:
    kind = Kind(_made, read, exact=True)
    outcome = read_mutants("control", kind, tmp_path, seed=0, count=3, seconds=1)
    assert any(said in wrong for wrong in outcome.wrong), outcome.wrong
