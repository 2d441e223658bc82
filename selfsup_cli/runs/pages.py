"""Reports that were written before, shown again: in another form, elsewhere, or side by side."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path

from selfsup_cli.errors import InputError
from selfsup_cli.runs import atomic, compared_html, compared_markdown, html, manifest, markdown
from selfsup_cli.runs.comparison import Comparison, Side, compare
from selfsup_cli.runs.folder import Run
from selfsup_cli.runs.report import Report

PAGES = {"html": "report.html", "md": "report.md"}


def report_of(run: Run) -> Report:
    """The report of a run. Raises InputError if it has none yet, or if it is damaged."""
    report = run.report()
    if report is None:
        raise InputError(
            f"run {run.name} has no report yet ({run.status.state})",
            kind="no-report",
            hint=f"go on with it: selfsup runs resume {run.name}",
        )
    return report


def page(run: Run, form: str, out: Path | None = None) -> str:
    """The report of `run` as `html`, `md` or `json`.

    `out` is the folder in which a Markdown page will lie, so that it finds the run's pictures; None
    where it lies in no folder.
    """
    report = report_of(run)
    if form == "json":
        return report.to_json() + "\n"
    if form == "html":
        return html.page(report, run.facts())
    return markdown.page(report, run.facts(), pictures=_way(out, run.path))


def comparison_of(runs: Sequence[Run]) -> Comparison:
    """Runs side by side. Those of the same name are told apart by their paths."""
    names = [run.name for run in runs]
    labels = [run.name if names.count(run.name) == 1 else str(run.path.resolve()) for run in runs]
    return compare(
        [Side(label, report_of(run), run.facts()) for label, run in zip(labels, runs, strict=True)]
    )


def comparison_page(comparison: Comparison, form: str) -> str:
    """A comparison as `html`, `md` or `json`."""
    if form == "json":
        return json.dumps(comparison.plain(), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    return compared_html.page(comparison) if form == "html" else compared_markdown.page(comparison)


def keep(run: Run, form: str) -> Path:
    """See to it that the page of a run lies in the run; gives its path.

    A complete run does not change: a page that its manifest lists is only written if it is missing
    or damaged, and comes out as it was. Raises InputError if it would come out otherwise, as with
    another version of this package, and MachineError if it cannot be written.
    """
    path = run.path / PAGES[form]
    data = page(run, form, run.path).encode()
    if path.is_file() and path.read_bytes() == data:
        return path
    listed = manifest.checksum(run.path, PAGES[form]) if run.complete else None
    if listed is not None and hashlib.sha256(data).hexdigest() != listed:
        raise InputError(
            f"{path} is part of a complete run and would come out otherwise now, as this is "
            "another version of selfsup or a picture has changed",
            kind="report-final",
            hint="write a page of your own with --out FILE",
        )
    atomic.write_bytes(path, data)
    return path


def export(text: str, out: Path) -> None:
    """Write a page to `out`. Raises InputError if it cannot be there or belongs to a run."""
    folder = out.absolute().parent
    if not folder.is_dir():
        raise InputError(f"--out {out}: there is no folder {folder}", kind="usage")
    if out.is_dir():
        raise InputError(f"--out {out} is a folder; name a file in it", kind="usage")
    for place in (folder, *folder.parents):
        if (place / "run.json").is_file():
            raise InputError(
                f"--out {out} lies in the run {place.name}, which keeps its own pages; "
                "leave --out away, or write elsewhere",
                kind="usage",
            )
    atomic.write_text(out, text)


def _way(out: Path | None, run: Path) -> str | None:
    """What to put before the paths of a run's pictures in a page that lies in `out`."""
    if out is None:
        return None
    way = os.path.relpath(run.resolve(), out.resolve())
    return "" if way == os.curdir else f"{Path(way).as_posix()}/"
