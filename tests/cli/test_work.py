"""From a command line to a job, and from its outcome to the two streams."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from selfsup_cli.config.temporal import PretrainTemporal
from selfsup_cli.runs.report import Finding, Report, accuracy, now


def a_report() -> Report:
    return Report(
        job="probe",
        run="first",
        command="selfsup probe",
        created=now(),
        findings=[Finding(text="Learned features beat random weights.", verdict="good")],
        measurements=[
            accuracy(
                "linear probe", 9, 10, task="probe", subject="learned", dataset="motion",
                split="test", protocol={"epochs": 60},
            )
        ],
    )  # fmt: skip


def test_jobs_get_what_was_typed(selfsup: Callable[..., Any], jobs: Any, tmp_path: Path) -> None:
    selfsup("pretrain", "temporal", "--data", "motion", "--run", "first")
    selfsup("probe", "--data", "motion", "-q", "--from", "first")
    selfsup("retrieve", "--data", "motion", "--dry-run")
    selfsup("visualize", "pretext", "--data", "motion", "--out", "a.png", "--count", "3")
    selfsup("visualize", "pretext", "temporal", "--data", "motion")
    told = {name: settings for name, _, settings in jobs.calls[:4]}
    assert [(name, found.job) for name, found, _ in jobs.calls] == [
        ("pretrain", "pretrain/temporal"),
        ("probe", "probe"),
        ("retrieve", "retrieve"),
        ("visualize", "pretrain/temporal"),
        ("visualize", "pretrain/temporal"),
    ]
    assert told["pretrain"] == {
        "run": "first",
        "dry_run": False,
        "quiet": False,
        "command": ["selfsup", "pretrain", "temporal", "--data", "motion", "--run", "first"],
    }
    assert told["probe"]["quiet"] is True
    assert told["probe"]["run"] is None
    assert jobs.calls[1][1].preset.subject.run == "first"
    assert told["retrieve"]["dry_run"] is True
    assert told["visualize"] == {"out": Path("a.png"), "count": 3, "quiet": False}
    assert jobs.calls[4][2]["out"] is None


def test_the_last_line_of_stdout_is_the_run_directory(
    selfsup: Callable[..., Any], jobs: Any, tmp_path: Path
) -> None:
    outcome = jobs.behave()
    outcome.run_dir, outcome.report, outcome.text = tmp_path / "first", a_report(), "one\ntwo\n"
    jobs.behave = lambda **settings: outcome
    told = selfsup("probe", "--data", "motion")
    assert told.status == 0
    lines = told.out.splitlines()
    assert lines[-1] == str(tmp_path / "first")
    assert lines[-3:-1] == ["one", "two"]
    assert "Learned features beat random weights." in told.out


def test_json_is_exactly_one_document(
    selfsup: Callable[..., Any], jobs: Any, tmp_path: Path
) -> None:
    outcome = jobs.behave()
    outcome.run_dir, outcome.report = tmp_path / "é", a_report()
    outcome.data, outcome.text = {"loss": float("nan"), "steps": 3}, "not in the document"

    def behave(**settings: Any) -> Any:
        sys.stdout.write("a library prints\n")
        return outcome

    jobs.behave = behave
    told = selfsup("probe", "--data", "motion", "--json")
    found = json.loads(told.out, parse_constant=pytest.fail)
    assert told.out.isascii()
    assert found["schema"] == "selfsup.result/1"
    assert found["ok"] is True
    assert found["run"] == str(tmp_path / "é")
    assert found["data"] == {"loss": None, "steps": 3}
    assert Report.model_validate_json(json.dumps(found["report"])) == outcome.report
    assert "a library prints" in told.err


def test_what_is_about_to_happen_is_said_before_the_job_is_called(
    selfsup: Callable[..., Any], jobs: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    before: list[str] = []
    outcome = jobs.behave()

    def behave(**settings: Any) -> Any:
        before.append(capsys.readouterr().err)
        logging.getLogger("selfsup").info("message")
        logging.getLogger("selfsup").debug("decision")
        logging.getLogger("selfsup").warning("odd \x1b[31mname")
        return outcome

    jobs.behave = behave
    told = selfsup("pretrain", "temporal", "--data", "motion", "--arch", "r3d")
    assert before[0].startswith("selfsup ")
    assert all(word in before[0] for word in ("temporal", "r3d", "motion"))
    assert told.err == "message\nselfsup: warning: odd name\n"
    told = selfsup("probe", "--data", "motion", "-q")
    assert (before[1], told.err) == ("", "selfsup: warning: odd name\n")
    told = selfsup("retrieve", "--data", "motion", "-v")
    assert "data.source: --data" in before[2]
    assert "decision\n" in told.err


def test_a_rehearsal_shows_the_preset_it_resolved(
    selfsup: Callable[..., Any], jobs: Any, tmp_path: Path
) -> None:
    outcome = jobs.behave()
    outcome.text, outcome.data = "data: 512 videos", {"videos": 512}
    jobs.behave = lambda **settings: outcome
    line = ("pretrain", "temporal", "--data", "motion", "--lr", "0.25", "--dry-run")
    told = selfsup(*line)
    preset, _, rest = told.out.partition("\n\n")
    assert rest == "data: 512 videos\n"
    (tmp_path / "again.yaml").write_text(preset)
    told = selfsup("pretrain", "temporal", "--preset", str(tmp_path / "again.yaml"))
    assert told.status == 0
    assert jobs.calls[1][1].preset == jobs.calls[0][1].preset
    assert jobs.calls[0][1].preset.optim.lr == 0.25
    data = json.loads(selfsup(*line, "--json").out)["data"]
    assert data["videos"] == 512
    assert PretrainTemporal.model_validate_json(json.dumps(data["preset"])).optim.lr == 0.25


def test_of_several_processes_the_first_alone_speaks(
    selfsup: Callable[..., Any], jobs: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcome = jobs.behave()
    outcome.run_dir = tmp_path
    jobs.behave = lambda **settings: outcome
    monkeypatch.setenv("RANK", "1")
    assert selfsup("probe", "--data", "motion").out == ""
    monkeypatch.setenv("RANK", "0")
    assert selfsup("probe", "--data", "motion").out == f"{tmp_path}\n"


def test_colours_only_where_they_are_wanted(
    selfsup: Callable[..., Any], jobs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcome = jobs.behave()
    outcome.report = a_report()
    jobs.behave = lambda **settings: outcome
    plain = selfsup("probe", "--data", "motion").out
    assert "\x1b" not in plain
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert "\x1b[" in selfsup("probe", "--data", "motion").out
    monkeypatch.setenv("NO_COLOR", "1")
    assert selfsup("probe", "--data", "motion").out == plain
