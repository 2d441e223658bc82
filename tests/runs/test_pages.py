"""The pages of a run: written with the report, the same whenever they are made, never changed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import sample_reports as samples

from selfsup_cli.errors import InputError
from selfsup_cli.runs import markdown, pages
from selfsup_cli.runs.run import Run


def contents(path: Path) -> dict[str, bytes]:
    return {str(p.relative_to(path)): p.read_bytes() for p in path.rglob("*") if p.is_file()}


def test_a_report_is_written_in_three_forms_and_all_are_in_the_manifest(tmp_path: Path) -> None:
    run = samples.finished(tmp_path, samples.everything())
    listed = json.loads((run.path / "manifest.json").read_text())["files"]
    for name in ("report.json", "report.html", "report.md"):
        assert listed[name]["bytes"] == (run.path / name).stat().st_size > 1000
    assert run.problems() == []
    assert list(run.path.glob(".*.tmp")) == []


def test_a_page_comes_out_the_same_whenever_it_is_made(tmp_path: Path) -> None:
    with samples.begun(tmp_path) as run:
        run.set_status("preempted", step=3, reason="stopped by SIGTERM")
    with samples.begun(tmp_path) as run:
        run.write_report(samples.everything(created="2999-01-01T00:00:00.000+00:00"))
        run.finish(step=9)
    before = contents(run.path)
    again = Run.open(run.path)
    assert again.attempts[-1].end is not None, "the status says more than when it was written"
    for form, name in pages.PAGES.items():
        assert pages.page(again, form, run.path).encode() == before[name]
        assert pages.keep(again, form) == run.path / name
    assert contents(run.path) == before
    html = before["report.html"].decode()
    assert "at step 3: stopped by SIGTERM" in html
    assert "wrote this report" in html
    assert pages.page(again, "json").encode() == before["report.json"]


@pytest.mark.parametrize("form", ["html", "md"])
def test_a_damaged_page_is_made_again_as_it_was(tmp_path: Path, form: str) -> None:
    run = samples.finished(tmp_path, samples.everything())
    path = run.path / pages.PAGES[form]
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    assert run.problems() != []
    assert pages.keep(run, form) == path
    assert path.read_bytes() == whole
    assert run.problems() == []
    path.unlink()
    pages.keep(run, form)
    assert run.problems() == []


def test_a_complete_run_keeps_the_page_that_it_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = samples.finished(tmp_path, samples.everything())
    monkeypatch.setattr(markdown, "SPARK_WIDTH", 3)
    before = contents(run.path)
    with pytest.raises(InputError, match=r"report\.md is part of a complete run") as caught:
        pages.keep(run, "md")
    assert "--out FILE" in str(caught.value.hint)
    assert contents(run.path) == before


def test_a_run_without_pages_gets_them(tmp_path: Path) -> None:
    with samples.begun(tmp_path) as run:
        run.write_report(samples.everything())
        (run.path / "report.html").unlink()
        (run.path / "report.md").write_text("old")
    run = Run.open(run.path)
    assert pages.keep(run, "html").read_text().startswith("<!doctype html>")
    assert pages.keep(run, "md").read_text().startswith("# first")


def test_a_run_without_a_report_says_so(tmp_path: Path) -> None:
    with samples.begun(tmp_path) as run:
        run.set_status("running")
    with pytest.raises(InputError, match=r"first has no report yet \(running\)"):
        pages.page(Run.open(run.path), "html")


def test_runs_of_the_same_name_are_told_apart(tmp_path: Path) -> None:
    one = samples.finished(tmp_path / "a", samples.everything())
    other = samples.finished(tmp_path / "b", samples.everything())
    assert pages.comparison_of([one, other]).labels == (str(one.path), str(other.path))
    third = samples.finished(tmp_path / "a", samples.everything(), "third")
    assert pages.comparison_of([one, third]).labels == ("first", "third")
    with pytest.raises(InputError, match="is named twice"):
        pages.comparison_of([one, Run.open(tmp_path / "a" / ".." / "a" / "first")])


def test_a_page_elsewhere_finds_the_pictures(tmp_path: Path) -> None:
    run = samples.finished(tmp_path / "runs", samples.everything())
    (tmp_path / "docs").mkdir()
    page = pages.page(run, "md", tmp_path / "docs")
    assert "](../runs/first/pictures/sheet.png)" in page
    assert "](pictures/sheet.png)" in pages.page(run, "md", run.path)
    assert "](" not in pages.page(run, "md").replace("\\](", "")


def test_a_page_is_not_put_where_it_does_not_belong(tmp_path: Path) -> None:
    run = samples.finished(tmp_path, samples.everything())
    before = contents(run.path)
    for out, said in (
        (run.path / "report.html", "lies in the run first"),
        (run.path / "pictures" / "x.md", "lies in the run first"),
        (tmp_path / "no" / "x.md", "there is no folder"),
        (tmp_path, "is a folder"),
    ):
        with pytest.raises(InputError, match=said):
            pages.export("x", out)
    assert contents(run.path) == before
    pages.export("x", tmp_path / "x.md")
    assert (tmp_path / "x.md").read_text() == "x"
