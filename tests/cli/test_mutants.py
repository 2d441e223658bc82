"""Hundreds of generated mistakes: exit status 2, one to twenty lines, no traceback, no torch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from mistakes import Generator, Mistake

HERE = Path(__file__).parent
SEED = int(os.environ.get("FAULT_SEED", "0"))
EACH, LATE = 90, 60
MOST_CHARACTERS = 1000

Ran = dict[str, Any]


class Process:
    """Runs command lines, one after the other (see mistake_process.py)."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(HERE / "mistake_process.py"), *arguments],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=folder,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip

    def __call__(self, mistake: Mistake) -> Ran:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        request = {"arguments": mistake.arguments, "env": mistake.env}
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer, f"the process died of {mistake}"
        found: Ran = json.loads(answer)
        return found

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


@pytest.fixture
def process(tmp_path: Path) -> Iterator[Callable[..., Process]]:
    started: list[Process] = []

    def start(*arguments: str) -> Process:
        (tmp_path / "here").mkdir(exist_ok=True)
        started.append(Process(tmp_path / "here", *arguments))
        return started[-1]

    yield start
    for one in started:
        one.close()


@pytest.fixture(scope="module")
def generator(tmp_path_factory: pytest.TempPathFactory) -> Generator:
    return Generator(tmp_path_factory.mktemp("mistakes"), SEED)


@pytest.fixture(scope="module")
def early(generator: Generator) -> list[Mistake]:
    """Mistakes that are found before anything is imported that takes time."""
    return list(generator.early(EACH))


def wrong_with(ran: Ran) -> str | None:
    """Why a mistake was not answered as it should be."""
    lines = ran["err"].splitlines()
    checks = {
        f"exit status {ran['status']}": ran["status"] != 2,
        "something on stdout": ran["out"] != "",
        f"{len(lines)} lines": not 1 <= len(lines) <= 20,
        "no word of an error": not any(line.startswith("selfsup: error: ") for line in lines),
        "a traceback": "Traceback" in ran["err"],
        "a bug": "bug in selfsup" in ran["err"],
        "a long line": any(len(line) > MOST_CHARACTERS for line in lines),
        "letters that steer a terminal": any(
            not letter.isprintable() for letter in ran["err"] if letter != "\n"
        ),
        f"imported {ran['imported']}": ran["imported"] != [],
    }
    return next((what for what, is_so in checks.items() if is_so), None)


def all_answered(run: Callable[[Mistake], Ran], mistakes: list[Mistake]) -> None:
    wrong = []
    for mistake in mistakes:
        ran = run(mistake)
        if (what := wrong_with(ran)) is not None:
            wrong.append(f"{what}: {mistake}\n{ran['err'][-1000:]}")
    assert wrong == [], f"{len(wrong)} of {len(mistakes)}, seed {SEED}\n" + "\n\n".join(wrong[:5])


def test_five_hundred_mistakes(
    process: Callable[..., Process], early: list[Mistake], generator: Generator
) -> None:
    """In presets of all jobs, in values, options, variables, words; none needs torch."""
    by_rule = Counter(mistake.rule for mistake in early)
    assert len(early) >= 500
    assert min(by_rule.values()) >= 30, by_rule
    # The judge has let something pass of every rule that can come out right.
    assert all(generator.let_pass[rule] for rule in by_rule), generator.let_pass
    all_answered(process("guarded"), early)


def test_mistakes_as_documents(process: Callable[..., Process], early: list[Mistake]) -> None:
    """With --json, where there is such an option, stdout is one document that says the same."""
    run = process("guarded")
    documents = 0
    for mistake in early[::12]:
        if mistake.rule in ("command", "flag", "argument", "value of a flag"):
            continue
        ran = run(Mistake(mistake.rule, [*mistake.arguments, "--json"], mistake.env))
        if ran["out"] == "" and "--json" in ran["err"]:
            continue
        document = json.loads(ran["out"])
        assert (document["ok"], document["error"]["code"]) == (False, 2), mistake
        assert wrong_with({**ran, "out": ""}) is None, mistake
        documents += 1
    assert documents >= 20


def test_mistakes_that_only_the_job_can_find(
    process: Callable[..., Process], generator: Generator
) -> None:
    """Runs, weights, data and lists that are not there."""
    mistakes = list(generator.late(LATE))
    all_answered(process(), mistakes)
    runs = Path(os.environ["SELFSUP_RUNS"])
    assert not runs.exists() or list(runs.iterdir()) == []


def test_it_is_so_in_processes_of_their_own(tmp_path: Path, early: list[Mistake]) -> None:
    def run(mistake: Mistake) -> Ran:
        ended = subprocess.run(
            [sys.executable, "-X", "importtime", "-m", "selfsup_cli", *mistake.arguments],
            env={**os.environ, **mistake.env, "PYTHONPATH": str(HERE.parents[1])},
            cwd=tmp_path, capture_output=True, text=True, errors="surrogateescape",
        )  # fmt: skip
        lines = ended.stderr.splitlines(keepends=True)
        names = [
            line.rpartition("|")[2].strip() for line in lines if line.startswith("import time")
        ]
        said = "".join(line for line in lines if not line.startswith("import time"))
        imported = [name for name in names if name in ("torch", "av", "h5py", "torchvision")]
        assert "selfsup_cli" in names
        return {
            "status": ended.returncode, "out": ended.stdout, "err": said, "imported": imported,
        }  # fmt: skip

    possible = [one for one in early if not any("\0" in word for word in one.arguments)]
    all_answered(run, possible[:: len(possible) // 20])


@pytest.mark.parametrize(
    ("changed", "what"),
    [
        ({"status": 0}, "exit status 0"),
        ({"status": 1}, "exit status 1"),
        ({"out": "x"}, "something on stdout"),
        ({"err": ""}, "0 lines"),
        ({"err": "selfsup: error: x\n" * 21}, "21 lines"),
        ({"err": "what?\n"}, "no word of an error"),
        ({"err": "Traceback\nselfsup: error: x\n"}, "a traceback"),
        ({"err": f"selfsup: error: {'x' * 2000}\n"}, "a long line"),
        ({"err": "selfsup: error: \x1b[2J\n"}, "letters that steer a terminal"),
        ({"imported": ["torch"]}, "imported ['torch']"),
    ],
)
def test_what_is_looked_at(changed: Ran, what: str) -> None:
    """Negative controls."""
    good: Ran = {"status": 2, "out": "", "err": "selfsup: error: x\n", "imported": []}
    assert wrong_with(good) is None
    assert wrong_with({**good, **changed}) == what
