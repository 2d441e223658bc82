"""Every way to fail has its exit status, its line on stderr and its document on stdout."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from selfsup_cli import errors
from selfsup_cli.cli import document, failure


class OutOfMemoryError(RuntimeError):
    """Called like torch's."""


def raising(error: BaseException) -> Callable[..., Any]:
    def behave(**settings: Any) -> Any:
        raise error

    return behave


@pytest.mark.parametrize(
    ("error", "status", "kind", "said"),
    [
        (
            errors.InputError("no such layer", kind="unknown-layer"),
            2,
            "unknown-layer",
            "no such layer",
        ),
        (OSError(errno.ENAMETOOLONG, "Too long", "x" * 300), 2, "path", "x…: Too long"),
        (errors.MachineError("the disk is full"), 3, "MachineError", "the disk is full"),
        (errors.TrainingError("the loss is NaN"), 4, "TrainingError", "the loss is NaN"),
        (errors.Stopped("stopped by SIGUSR1", 75), 75, "stopped", "stopped by SIGUSR1"),
        (errors.Stopped("stopped by SIGINT", 130), 130, "stopped", "stopped by SIGINT"),
        (errors.Stopped("stopped by SIGTERM", 143), 143, "stopped", "stopped by SIGTERM"),
        (KeyboardInterrupt(), 130, "interrupted", "interrupted"),
        (MemoryError("4 GB"), 3, "memory", "out of memory: 4 GB"),
        (OutOfMemoryError("CUDA out of memory\nblocks"), 3, "memory", "CUDA out of memory"),
        (OSError(errno.ENOSPC, "No space left", "runs/x"), 3, "system", "runs/x: No space left"),
        (PermissionError(errno.EACCES, "denied", "/data"), 3, "system", "/data: denied"),
        (ModuleNotFoundError("no", name="av"), 3, "missing-package", "'av' is not installed"),
        (BrokenPipeError(errno.EPIPE, "a worker went"), 1, "bug", "BrokenPipeError"),
        (ZeroDivisionError("division by zero"), 1, "bug", "ZeroDivisionError: division by zero"),
        (FileNotFoundError(errno.ENOENT, "missing", "x"), 1, "bug", "FileNotFoundError"),
    ],
)
def test_each_failure(
    selfsup: Callable[..., Any], jobs: Any, error: BaseException, status: int, kind: str, said: str
) -> None:
    jobs.behave = raising(error)
    told = selfsup("pretrain", "temporal", "--data", "motion", "-q", "--json")
    assert told.status == status
    lines = [line for line in told.err.splitlines() if not line.startswith("selfsup: hint: ")]
    assert len(lines) == 1
    assert lines[0].startswith("selfsup: error: ")
    assert said in lines[0]
    found = json.loads(told.out)
    assert found["schema"] == "selfsup.result/1"
    assert found["ok"] is False
    assert found["error"]["code"] == status
    assert found["error"]["kind"] == kind
    assert said in found["error"]["message"]
    assert set(found["error"]) == {"code", "kind", "message", "hint", "problems"}
    text = selfsup("pretrain", "temporal", "--data", "motion", "-q")
    assert (text.status, text.out) == (status, "")


def test_a_bug_leaves_its_traceback_behind_and_shows_none(
    selfsup: Callable[..., Any], jobs: Any, tmp_path: Path
) -> None:
    error = ZeroDivisionError("division by zero")
    jobs.behave = raising(error)
    told = selfsup("probe", "--data", "motion")
    crash = Path(os.environ["XDG_STATE_HOME"]) / "selfsup" / "crash.txt"
    assert "Traceback" not in told.err
    assert str(crash) in told.err
    text = crash.read_text()
    assert "ZeroDivisionError: division by zero" in text
    assert "selfsup probe --data motion" in text

    error.run_dir = tmp_path / "run"  # type: ignore[attr-defined]
    told = selfsup("probe", "--data", "motion", "--json")
    assert "ZeroDivisionError" in (tmp_path / "run" / "crash.txt").read_text()
    assert json.loads(told.out)["run"] == str(tmp_path / "run")


def test_a_bug_is_told_where_no_traceback_can_be_kept(
    selfsup: Callable[..., Any], jobs: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs.behave = raising(ZeroDivisionError("division by zero"))
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    told = selfsup("probe", "--data", "motion")
    assert told.status == 1
    assert "SELFSUP_DEBUG=1" in told.err


def test_debug_shows_the_traceback_of_every_failure(
    selfsup: Callable[..., Any], jobs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SELFSUP_DEBUG", "1")
    jobs.behave = raising(errors.MachineError("the disk is full"))
    told = selfsup("probe", "--data", "motion")
    assert told.status == 3
    assert "Traceback" in told.err
    assert told.err.rstrip().endswith("selfsup: error: the disk is full")


def test_a_message_keeps_its_list_and_loses_what_a_name_smuggles_in(
    selfsup: Callable[..., Any], jobs: Any
) -> None:
    message = "run x differs:\n  lr: 1 → 2\n  name: \x1b[31mred\x1b[0m\nselfsup: error: forged"
    jobs.behave = raising(errors.InputError(message, hint="undo\nthat"))
    told = selfsup("probe", "--data", "motion", "-q")
    assert told.err.splitlines() == [
        "selfsup: error: run x differs:",
        "  lr: 1 → 2",
        "  name: red selfsup: error: forged",
        "selfsup: hint: undo that",
    ]


def test_all_problems_of_a_preset_are_told_at_once(
    selfsup: Callable[..., Any], jobs: Any, tmp_path: Path
) -> None:
    preset = tmp_path / "mine.yaml"
    preset.write_text(
        "version: 1\nmethod: temporal\nextends: temporal/base\n"
        "data:\n  sourc: motion\noptim:\n  lr: -1\n  name: adamww\n"
    )
    told = selfsup("pretrain", "temporal", "--preset", str(preset), "--epochs", "none", "--json")
    assert told.status == 2
    assert jobs.calls == []
    lines = told.err.splitlines()
    assert all(line.startswith("selfsup: error: ") for line in lines)
    for line, word in ((5, "source"), (7, "optim.lr"), (8, "'adamw'")):
        assert any(f"{preset}:{line}: " in told_line and word in told_line for told_line in lines)
    assert any("--epochs" in line for line in lines)
    problems = json.loads(told.out)["error"]["problems"]
    assert len(problems) == len(lines)
    assert {"file": str(preset), "line": 7, "path": "optim.lr"}.items() <= next(
        problem.items() for problem in problems if problem["path"] == "optim.lr"
    )


def test_more_problems_than_fit_are_counted(selfsup: Callable[..., Any]) -> None:
    wrong = [word for i in range(30) for word in ("--set", f"nothing{i}=1")]
    told = selfsup("pretrain", "temporal", *wrong)
    lines = told.err.splitlines()
    assert len(lines) == 20
    assert lines[-1] == "selfsup: error: … and 11 more"


@pytest.mark.parametrize("hint", [None, "do this"])
@pytest.mark.parametrize("problems", [1, 2, 3, 20])
def test_a_failure_is_told_in_twenty_lines(
    capsys: pytest.CaptureFixture[str], problems: int, hint: str | None
) -> None:
    """Also where a message lists what belongs to it on lines of their own."""
    listed = [f"problem {i}\n  " + "\n  ".join("abcdefgh") for i in range(problems)]
    error = errors.InputError("it differs:\n  " + "\n  ".join(map(str, range(30))), hint=hint)
    if problems > 1:
        error.problems = listed  # type: ignore[attr-defined]
    failure.tell(error, as_json=False, arguments=[])
    lines = capsys.readouterr().err.splitlines()
    last = lines.pop() if hint else None
    assert last == (hint and f"selfsup: hint: {hint}")
    if problems == 1:
        assert lines[-1] == f"  … and {13 if hint else 12} more lines"
    elif problems == 2:
        assert lines[-1] == "  h"
    else:
        assert lines[-1] == f"selfsup: error: … and {problems - 2} more"
    assert len(lines) == (20 - bool(hint) if problems < 2 else 18 + (problems > 2))


def test_what_json_lacks_becomes_null() -> None:
    data = {"a": float("nan"), "b": [float("inf"), 1.5], "c": Path("x"), "d": (True, None)}
    assert document.as_json(data) == {"a": None, "b": [None, 1.5], "c": "x", "d": [True, None]}
