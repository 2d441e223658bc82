"""Which run a reference means, and what is said when none does."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import children
import pytest

from selfsup_cli.errors import InputError
from selfsup_cli.runs.report import Finding, Report, now
from selfsup_cli.runs.run import Run, RunSummary, find_run, list_runs, runs_dir, summarize


def make(
    runs: Path, name: str, *, end: str | None = "complete", arch: str = "c3d", weights: bool = True
) -> Path:
    run = Run.create_or_continue(
        runs, name, preset="", identity={"network": {"arch": arch}}, command=["selfsup"],
        job="pretrain/temporal", seed=0, dataset={"name": "motion", "fingerprint": "f"}, parents=[],
    )  # fmt: skip
    with run:
        if weights:
            (run.path / "backbone.safetensors").write_bytes(b"w")
        if end == "complete":
            finding = Finding(text=f"{name} learned", verdict="good")
            run.write_report(
                Report(job="pretrain", run=name, command="", created=now(), findings=[finding])
            )
            run.finish(step=10)
        elif end is not None:
            run.set_status(end, step=4, reason="why")  # type: ignore[arg-type]
    return run.path


def has_weights(summary: RunSummary) -> str | None:
    return None if summary.backbone else "it has no backbone"


def test_runs_lie_where_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SELFSUP_RUNS", "/somewhere/else")
    assert runs_dir() == Path("/somewhere/else")
    monkeypatch.setenv("SELFSUP_RUNS", "")
    assert runs_dir() == Path("runs")
    monkeypatch.delenv("SELFSUP_RUNS")
    assert runs_dir() == Path("runs")


def test_summaries_say_what_a_run_is(tmp_path: Path) -> None:
    path = make(tmp_path, "one", arch="r3d")
    found = summarize(path)
    assert (found.name, found.path, found.job) == ("one", path, "pretrain/temporal")
    assert (found.arch, found.data, found.state, found.step) == ("r3d", "motion", "complete", 10)
    assert found.headline == "one learned"
    assert found.backbone == path / "backbone.safetensors"
    stopped = summarize(make(tmp_path, "two", end="preempted", weights=False))
    assert (stopped.state, stopped.headline, stopped.backbone) == ("preempted", "why", None)


def test_the_newest_comes_first_and_strangers_do_not_count(tmp_path: Path) -> None:
    assert list_runs(tmp_path / "none") == []
    for name in ("c", "a", "b"):
        make(tmp_path, name)
    (tmp_path / "notes").mkdir()
    (tmp_path / "file").write_text("x")
    make(tmp_path, "hurt")
    (tmp_path / "hurt" / "status.json").write_text("{")
    found = list_runs(tmp_path)
    assert [one.name for one in found] == ["b", "a", "c", "hurt"]
    assert found[-1].state == "damaged"
    assert "status.json" in (found[-1].headline or "")
    with pytest.raises(InputError, match="cannot read"):
        list_runs(tmp_path / "file")


def test_killed_and_running_are_told_apart(tmp_path: Path) -> None:
    ready = os.pipe()

    def child() -> None:
        run = Run.create_or_continue(
            tmp_path, "x", preset="", identity={}, command=[], job="probe", seed=0, dataset=None,
            parents=[],
        )  # fmt: skip
        run.set_status("running", step=3)
        os.write(ready[1], b".")
        signal.pause()

    pid = children.fork(child)
    os.read(ready[0], 1)
    assert summarize(tmp_path / "x").state == "running"
    children.kill(pid)
    assert summarize(tmp_path / "x").state == "killed"
    with pytest.raises(InputError, match=r"run x is not finished \(killed at step 3\)") as caught:
        find_run("x", tmp_path)
    assert caught.value.hint == "go on with it: selfsup runs resume x"
    assert find_run("x", tmp_path, finished=False).name == "x"
    for fd in ready:
        os.close(fd)


def test_latest_is_the_one_completed_last_that_fits(tmp_path: Path) -> None:
    first = make(tmp_path, "first")
    make(tmp_path, "second", end="preempted")
    make(tmp_path, "third", weights=False)
    make(tmp_path, "fourth", end="failed")
    assert find_run("latest", tmp_path).name == "third"
    assert find_run("latest", tmp_path, needs=has_weights).path == first
    make(tmp_path, "second")  # goes on, and ends after the third
    assert find_run("latest", tmp_path, needs=has_weights).name == "second"


def test_latest_says_why_none_fits(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there are no runs in"):
        find_run("latest", tmp_path)
    for i in range(12):
        make(tmp_path, f"r{i:02}", weights=False)
    make(tmp_path, "stopped", end="preempted")
    make(tmp_path, "broken")
    (tmp_path / "broken" / "run.json").write_text("")
    with pytest.raises(InputError) as caught:
        find_run("latest", tmp_path, needs=has_weights)
    lines = str(caught.value).splitlines()
    assert lines[1] == "  stopped: preempted at step 4"
    assert lines[2] == "  r11: it has no backbone"
    assert lines[-1] == "  … and 4 more"
    assert len(lines) == 1 + 10 + 1


@pytest.mark.parametrize("below", ["", "/", "/backbone.safetensors", "/report.json", "/pictures"])
def test_paths_of_a_run_or_into_one(tmp_path: Path, below: str) -> None:
    path = make(tmp_path / "elsewhere", "one")
    (path / "pictures").mkdir()
    assert find_run(f"{path}{below}", tmp_path / "runs").path.resolve() == path


def test_relative_paths_and_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make(tmp_path / "runs", "one")
    monkeypatch.chdir(tmp_path)
    assert find_run("one", Path("runs")).path.resolve() == path
    assert find_run("runs/one", Path("runs")).path.resolve() == path
    monkeypatch.chdir(path)
    assert find_run(".", Path("nothing")).name == "one"
    assert find_run("backbone.safetensors", Path("nothing")).path.resolve() == path


def told(reference: str, runs: Path, **options: Any) -> str:
    with pytest.raises(InputError) as caught:
        find_run(reference, runs, **options)
    return str(caught.value)


def test_what_is_no_run_is_told(tmp_path: Path) -> None:
    make(tmp_path, "temporal-c3d-motion")
    (tmp_path / "folder").mkdir()
    assert "(did you mean 'temporal-c3d-motion'?)" in told("temporal-c3d-moton", tmp_path)
    assert "for the 1 in" in told("temporal-c3d-moton", tmp_path)
    assert "there is no run at nowhere/x" in told("nowhere/x", tmp_path)
    assert "neither a run nor part of one" in told(str(tmp_path / "folder"), tmp_path)
    assert "File name too long" in told("n" * 300, tmp_path)
    assert "there is no run" in told("a\0b", tmp_path)
    assert "there is no run ''" in told("", tmp_path)
    assert "does not fit: too small" in told(
        "temporal-c3d-motion", tmp_path, needs=lambda summary: "too small"
    )
    (tmp_path / "temporal-c3d-motion" / "run.json").write_text("{}")
    assert "is damaged" in told("temporal-c3d-motion", tmp_path)


def test_a_damaged_report_does_not_hide_the_other_runs(tmp_path: Path) -> None:
    make(tmp_path, "good")
    (make(tmp_path, "bad") / "report.json").write_text("{")
    assert {one.name: one.state for one in list_runs(tmp_path)} == {
        "good": "complete",
        "bad": "damaged",
    }
    assert find_run("latest", tmp_path).name == "good"
