"""`selfsup runs`: what there is, how far it is, and going on with it."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from selfsup_cli import errors
from selfsup_cli.cli.runs import _age
from selfsup_cli.config.presets import dump, identity, resolve
from selfsup_cli.runs.lock import RunLock
from selfsup_cli.runs.report import Finding, Report, now
from selfsup_cli.runs.run import Run

COMMAND = ["selfsup", "pretrain", "temporal", "--data", "motion", "--lr", "0.25", "--run", "first"]


def a_run(folder: Path, name: str = "first", *, complete: bool = False) -> Path:
    found = resolve("pretrain/temporal", options={"data.source": "motion", "optim.lr": "0.25"})
    run = Run.create_or_continue(
        folder,
        name,
        preset=dump(found.preset),
        identity=identity(found.preset),
        command=COMMAND,
        job="pretrain/temporal",
        seed=0,
        dataset={"name": "motion"},
        parents=[],
    )
    with run:
        run.set_status("running", step=7)
        run.set_status("preempted", step=7, reason="stopped by SIGTERM")
        if complete:
            finding = Finding(text="It is \x1b[31mlearning\x1b[0m.", verdict="good")
            run.write_report(
                Report(
                    job="pretrain/temporal", run=name, command=" ".join(COMMAND), created=now(),
                    findings=[finding],
                )
            )  # fmt: skip
            run.finish(step=9)
    return run.path


@pytest.fixture
def folder() -> Path:
    """Where runs lie in the tests."""
    return Path(os.environ["SELFSUP_RUNS"])


def test_no_runs(selfsup: Callable[..., Any], folder: Path) -> None:
    told = selfsup("runs", "list")
    assert (told.status, told.out) == (0, "")
    assert f"no runs in {folder}" in told.err
    assert json.loads(selfsup("runs", "list", "--json").out)["data"]["runs"] == []


def test_list(selfsup: Callable[..., Any], folder: Path) -> None:
    a_run(folder, "first", complete=True)
    a_run(folder, "second")
    (folder / "torn").mkdir()
    (folder / "torn" / "run.json").write_text("{")
    told = selfsup("runs", "list")
    head, *rows = told.out.splitlines()
    assert head.split() == ["name", "job", "state", "step", "age", "headline"]
    assert [row.split()[0] for row in rows] == ["second", "first", "torn"]
    assert re.match(r"second +pretrain/temporal +preempted +7 +\d+ s +stopped by SIGTERM$", rows[0])
    assert re.match(r"first +pretrain/temporal +complete +9 +\d+ s +It is learning\.$", rows[1])
    assert "damaged" in rows[2]
    data = json.loads(selfsup("runs", "list", "--json").out)["data"]
    assert [one["state"] for one in data["runs"]] == ["preempted", "complete", "damaged"]


def test_show(selfsup: Callable[..., Any], folder: Path) -> None:
    path = a_run(folder, complete=True)
    told = selfsup("runs", "show", "first")
    assert told.status == 0
    assert told.out.splitlines()[-1] == str(path)
    for said in ("complete at step 9", " ".join(COMMAND), "lr: 0.25", "It is learning."):
        assert said in told.out
    assert len(re.findall(r"^attempt \d", told.out, re.MULTILINE)) == 1
    assert "\x1b" not in told.out
    found = json.loads(selfsup("runs", "show", str(path), "--json").out)
    assert found["run"] == str(path)
    assert found["report"]["findings"][0]["verdict"] == "good"
    assert found["data"]["status"]["attempts"][0]["step"] == 9
    assert found["data"]["info"]["command"] == COMMAND
    assert selfsup("runs", "show", "latest").status == 0


def test_show_of_what_is_not_there(selfsup: Callable[..., Any], folder: Path) -> None:
    a_run(folder)
    told = selfsup("runs", "show", "frist")
    assert told.status == 2
    assert "(did you mean 'first'?)" in told.err
    (folder / "first" / "preset.yaml").unlink()
    told = selfsup("runs", "show", "first")
    assert told.status == 2
    assert "its preset.yaml cannot be read" in told.err


def test_resume_goes_on_with_the_same_preset_and_command(
    selfsup: Callable[..., Any], folder: Path, jobs: Any
) -> None:
    path = a_run(folder)
    outcome = jobs.behave()
    outcome.run_dir = path
    jobs.behave = lambda **settings: outcome
    told = selfsup("runs", "resume", "first")
    assert told.status == 0, told.err
    assert told.out == f"{path}\n"
    [(name, found, settings)] = jobs.calls
    assert (name, found.job) == ("pretrain", "pretrain/temporal")
    assert settings == {"run": "first", "command": COMMAND, "quiet": False}
    assert found.preset.optim.lr == 0.25
    Run.open(path).require_identity(identity(found.preset))


def test_resume_of_a_run_that_lies_elsewhere(
    selfsup: Callable[..., Any], tmp_path: Path, jobs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = a_run(tmp_path / "elsewhere")
    monkeypatch.chdir(path.parent)
    seen = []
    outcome = jobs.behave()

    def behave(**settings: Any) -> Any:
        seen.append((os.environ["SELFSUP_RUNS"], settings["run"]))
        return outcome

    jobs.behave = behave
    assert selfsup("runs", "resume", "./first", "-q").status == 0
    assert selfsup("runs", "resume", str(path / "status.json")).status == 0
    assert seen == [(str(path.parent), "first")] * 2


def test_resume_ends_as_its_job_ends(selfsup: Callable[..., Any], folder: Path, jobs: Any) -> None:
    a_run(folder)

    def behave(**settings: Any) -> Any:
        raise errors.Stopped("stopped by SIGUSR2 after saving step 9", 75)

    jobs.behave = behave
    told = selfsup("runs", "resume", "first", "--json")
    assert told.status == 75
    assert json.loads(told.out)["error"]["kind"] == "stopped"


def test_verify(selfsup: Callable[..., Any], folder: Path) -> None:
    told = selfsup("runs", "verify")
    assert (told.status, told.out) == (0, "")
    a_run(folder, "first", complete=True)
    a_run(folder, "second")
    told = selfsup("runs", "verify")
    assert (told.status, told.out) == (0, "second: sound\nfirst: sound\n")
    data = json.loads(selfsup("runs", "verify", "first", "--json").out)["data"]
    assert [(one["name"], one["problems"], one["busy"]) for one in data["runs"]] == [
        ("first", [], None)
    ]

    (folder / "first" / "report.html").write_text("")
    (folder / "second" / "checkpoints" / "step-00000007").mkdir(parents=True)
    preset = folder / "second" / "preset.yaml"
    preset.write_bytes(preset.read_bytes() + b" ")
    told = selfsup("runs", "verify")
    assert (told.status, told.out) == (2, "")
    assert [line.removeprefix("selfsup: error: ") for line in told.err.splitlines()[:3]] == [
        f"{folder}/second: its preset.yaml does not match its checksum",
        f"{folder}/second: checkpoints/step-00000007: its manifest is missing",
        f"{folder}/first: report.html has 0 bytes instead of "
        + told.err.splitlines()[2].rpartition(" ")[2],
    ]
    document = json.loads(selfsup("runs", "verify", "--json").out)
    assert document["ok"] is False
    assert len(document["error"]["problems"]) == 3
    assert selfsup("runs", "verify", "third").status == 2
    assert "no run 'third'" in selfsup("runs", "verify", "third").err


def test_verify_of_records_that_cannot_be_read(selfsup: Callable[..., Any], folder: Path) -> None:
    path = a_run(folder, "first", complete=True)
    for name in ("status.json", "run.json"):
        whole = (path / name).read_bytes()
        (path / name).write_text("{")
        told = selfsup("runs", "verify", "first")
        assert told.status == 2
        assert f"{name} is damaged" in told.err
        assert len(told.err.splitlines()) == 2, told.err  # and the hint
        (path / name).write_bytes(whole)


def test_verify_leaves_a_run_at_work_alone(selfsup: Callable[..., Any], folder: Path) -> None:
    a_run(folder)
    lock = RunLock(folder / "first" / "run.lock")
    told = selfsup("runs", "verify")
    assert (told.status, "not looked at, it is being written by process" in told.out) == (0, True)
    lock.release()


@pytest.mark.parametrize(
    ("moment", "age"),
    [
        ("2000-01-01T00:00:00+00:00", r"\d{4,} d"),
        ("2999-01-01T00:00:00+00:00", "0 s"),
        ("", r"\?"),
        ("2000-01-01T00:00:00", r"\?"),
    ],
)
def test_ages(moment: str, age: str) -> None:
    assert re.fullmatch(age, _age(moment))
