"""`selfsup report`: a report again, as a page, or several side by side."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from selfsup_cli.runs.report import Curve, Finding, Report, accuracy, now
from selfsup_cli.runs.run import Run


def a_run(name: str, hits: int = 450, *, epochs: int = 60, complete: bool = True) -> Path:
    run = Run.create_or_continue(
        Path(os.environ["SELFSUP_RUNS"]),
        name,
        preset=f"epochs: {epochs}\n",
        identity={"probe": {"epochs": epochs}},
        command=["selfsup", "probe", "--run", name],
        job="probe",
        seed=0,
        dataset=None,
        parents=[],
    )
    measured = accuracy(
        "linear probe", hits, 1000, task="probe", subject="learned", dataset="motion",
        split="test", layer="conv4", chance=12.5, protocol={"epochs": epochs, "crop": 112},
    )  # fmt: skip
    with run:
        run.set_status("running")
        run.write_report(
            Report(
                job="probe", run=name, command="selfsup probe", created=now(),
                findings=[Finding(text=f"{name} has learned.", verdict="good")],
                measurements=[measured],
                curves=[
                    Curve(name=curve, x_label="step", y_label="y", points=[(0, 1), (1, 2)])
                    for curve in ("loss", "loss_speed")
                ],
            )
        )  # fmt: skip
        if complete:
            run.finish()
    return run.path


def whole(path: Path) -> bool:
    return Run.open(path).problems() == []


def test_a_report_is_shown_again(selfsup: Callable[..., Any]) -> None:
    path = a_run("first")
    told = selfsup("report", "first")
    assert (told.status, told.err) == (0, "")
    lines = told.out.splitlines()
    assert lines[0] == "ok        first has learned."
    assert lines[-1] == str(path)
    assert "45.0 %" in told.out
    assert "curve     loss 1" in told.out
    assert "loss_speed" not in told.out
    assert "loss_speed" in selfsup("report", "first", "-v").out
    assert selfsup("report", "latest").out == told.out
    assert selfsup("report", str(path / "report.json")).out == told.out


@pytest.mark.parametrize(
    ("form", "name", "start"),
    [("html", "report.html", "<!doctype html>"), ("md", "report.md", "# first")],
)
def test_pages_are_in_the_run(
    selfsup: Callable[..., Any], tmp_path: Path, form: str, name: str, start: str
) -> None:
    path = a_run("first")
    (path / name).unlink()
    told = selfsup("report", "first", "--format", form)
    assert (told.status, told.out) == (0, f"{path / name}\n")
    assert whole(path)
    elsewhere = tmp_path / f"page.{form}"
    told = selfsup("report", "first", "--out", str(elsewhere))
    assert (told.status, told.out) == (0, f"{elsewhere}\n")
    assert elsewhere.read_text().startswith(start)
    assert selfsup("report", "first", "--format", form, "--out", "-").out.startswith(start)


def test_json_is_the_report_itself_or_one_document(
    selfsup: Callable[..., Any], tmp_path: Path
) -> None:
    path = a_run("first")
    stored = json.loads((path / "report.json").read_text())
    assert json.loads(selfsup("report", "first", "--format", "json").out) == stored
    document = json.loads(selfsup("report", "first", "--format", "html", "--json").out)
    assert (document["ok"], document["run"], document["report"]) == (True, str(path), stored)
    assert document["data"]["file"] == str(path / "report.html")
    out = tmp_path / "r.txt"
    document = json.loads(selfsup("report", "first", "--out", str(out), "--json").out)
    assert document["data"]["file"] == str(out)
    assert "first has learned." in out.read_text()


def test_runs_side_by_side(selfsup: Callable[..., Any]) -> None:
    a_run("first", 450)
    a_run("second", 600)
    a_run("short", 300, epochs=5)
    told = selfsup("report", "first", "second", "short")
    assert told.status == 0
    lines = [line.split() for line in told.out.splitlines()]
    assert lines[:2] == [
        ["set", "differently", "first", "second", "short"],
        ["probe.epochs", "60", "60", "5"],
    ]
    [both] = [line for line in told.out.splitlines() if "45.0 %" in line]
    assert "60.0 %" in both
    assert "second higher" in both
    assert "30.0 %" not in both
    [alone] = [line for line in told.out.splitlines() if "30.0 %" in line]
    assert "45.0" not in alone
    assert "beware    short measured otherwise: epochs 60 here, 5 there" in told.out
    assert "beware    first and second measured otherwise: epochs 5 here, 60 there" in told.out
    assert told.out.index("probe.epochs") < told.out.index("45.0 %")
    for name in ("first", "second", "short"):
        assert f"{name} has learned." in told.out


def test_a_comparison_as_a_page(selfsup: Callable[..., Any], tmp_path: Path) -> None:
    paths = [a_run("first", 450), a_run("second", 600)]
    told = selfsup("report", "first", "second", "--format", "html")
    assert (told.status, told.out) == (2, "")
    assert "--out FILE" in told.err
    out = tmp_path / "both.html"
    assert selfsup("report", "first", "second", "--out", str(out)).out == f"{out}\n"
    assert "<h1>first and second</h1>" in out.read_text()
    assert selfsup("report", "first", "second", "--format", "md").out.startswith("# first and")
    found = json.loads(selfsup("report", "first", "second", "--json").out)["data"]
    assert found["schema"] == "selfsup.comparison/1"
    [table] = found["tables"]
    assert [*table["rows"][0]["measurements"]] == ["first", "second"]
    assert all(map(whole, paths))


def test_an_unfinished_run_is_shown_with_a_warning(selfsup: Callable[..., Any]) -> None:
    a_run("first", complete=False)
    told = selfsup("report", "first")
    assert told.status == 0
    assert "warning: run first is not finished (running)" in told.err
    assert selfsup("report", "first", "-q").err == ""


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("frist",), "(did you mean 'first'?)"),
        (("bare",), "it has no report yet"),
        (("first", "first"), "is named twice"),
        (("first", "--format", "htm"), "(did you mean 'html'?)"),
        (("first", "--out", "no/such/folder.md"), "there is no folder"),
        (("first", "--out", "{runs}/first/report.html"), "lies in the run first"),
        ((), "RUN"),
    ],
)
def test_mistakes(selfsup: Callable[..., Any], arguments: tuple[str, ...], said: str) -> None:
    path = a_run("first")
    a_run("bare", complete=False)
    (path.parent / "bare" / "report.json").unlink()
    before = (path / "report.html").read_bytes()
    told = selfsup("report", *(one.replace("{runs}", str(path.parent)) for one in arguments))
    assert (told.status, told.out) == (2, "")
    assert said in told.err
    assert len(told.err.splitlines()) <= 3
    assert (path / "report.html").read_bytes() == before
    assert whole(path)


def test_nothing_heavy_is_needed() -> None:
    a_run("first")
    code = (
        "import sys; from selfsup_cli.__main__ import main; status = main(['report', 'first', "
        "'--format', 'html', '--out', '-']); heavy = [n for n in ('torch', 'numpy', 'PIL', 'av') "
        "if n in sys.modules]; sys.stderr.write(repr((status, heavy)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600)
    assert done.stderr == "(0, [])"
    assert done.stdout.startswith("<!doctype html>")
