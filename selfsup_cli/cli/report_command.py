"""`selfsup report RUN…`: a report again, as a page, or several side by side."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from selfsup_cli.cli import console, document, work
from selfsup_cli.cli.groups import Action, command
from selfsup_cli.config.registry import unknown
from selfsup_cli.errors import InputError

if TYPE_CHECKING:
    from selfsup_cli.runs.run import Run, RunSummary

FORMS = ("text", "html", "md", "json")
ENDINGS = {".html": "html", ".htm": "html", ".md": "md", ".json": "json", ".txt": "text"}
ABOUT = """Show the report of a run, make its pages, or put several runs side by side.

Of one run, html and md are written into the run, and their path is printed; all else goes to
stdout. Of several runs the settings that differ stand on top, and numbers stand side by side only
if they were measured by the same protocol; what differs is said."""


def load() -> Any:
    """The command."""
    return command(_parse, "report", ABOUT)


def _parse(
    runs: Annotated[
        list[str],
        typer.Argument(metavar="RUN", help="Runs: a name, a path, or latest.", show_default=False),
    ],
    form: Annotated[
        str | None,
        typer.Option(
            "--format",
            metavar="|".join(FORMS),
            help="How it is written. [default: what the ending of --out says, or text]",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        str | None,
        typer.Option(
            "--out", metavar="FILE", help="Write to FILE; - is stdout.", show_default=False
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the result as one JSON document.")
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Only results, warnings and errors.")
    ] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show all curves.")] = False,
) -> Action:
    if form is not None and form not in FORMS:
        raise unknown("format", form, FORMS)
    path = None if out in (None, "-") else Path(str(out))
    wanted = form or ENDINGS.get("" if path is None else path.suffix.lower(), "text")
    verbosity = -1 if quiet else int(verbose)
    request = _Request(runs, wanted, path, out == "-", as_json, verbosity)
    return lambda: _answer(request)


@dataclass(frozen=True)
class _Request:
    """What was asked: the report of `runs` as `form`, into `path`, to stdout, or where it goes."""

    runs: list[str]
    form: str
    path: Path | None
    to_stdout: bool
    as_json: bool
    verbosity: int


def _answer(request: _Request) -> None:
    work.listen(request.verbosity)
    runs = [_found(reference) for reference in request.runs]
    for run in runs:
        if not run.complete and request.verbosity >= 0:
            console.warn(f"run {run.name} is not finished ({run.status.state})")
    if len(runs) == 1:
        _one(request, runs[0])
    else:
        _several(request, runs)


def _found(reference: str) -> Run:
    from selfsup_cli.runs.run import find_run, runs_dir

    return find_run(reference, runs_dir(), needs=_unfit, finished=False)


def _unfit(summary: RunSummary) -> str | None:
    return None if (summary.path / "report.json").is_file() else "it has no report yet"


def _one(request: _Request, run: Run) -> None:
    from selfsup_cli.runs import pages

    report = pages.report_of(run)
    file = None
    if request.form in pages.PAGES and request.path is None and not request.to_stdout:
        file = pages.keep(run, request.form)
        text = str(file)
    elif request.form == "text":
        from selfsup_cli.cli import report as shown

        text = shown.show(report, folder=run.path, verbose=request.verbosity > 0)
        if request.path is None:
            text += f"\n{console.plain(run.path)}"
    else:
        folder = None if request.path is None else request.path.absolute().parent
        text = pages.page(run, request.form, folder)
    _give(request, text, file, run=run.path, report=report)


def _several(request: _Request, runs: list[Run]) -> None:
    from selfsup_cli.runs import pages

    comparison = pages.comparison_of(runs)
    if request.form == "html" and request.path is None and not request.to_stdout:
        raise InputError(
            "the page of several runs belongs to none of them: say where it goes with --out FILE",
            kind="usage",
        )
    if request.form == "text":
        from selfsup_cli.cli import report as shown

        text = shown.show_comparison(comparison)
    else:
        text = pages.comparison_page(comparison, request.form)
    _give(request, text, None, data=comparison.plain())


def _give(
    request: _Request,
    text: str,
    file: Path | None,
    *,
    run: Path | None = None,
    report: Any = None,
    data: dict[str, Any] | None = None,
) -> None:
    """Put `text` where it goes; if it went to a file, the file's path is the result."""
    if request.path is not None:
        from selfsup_cli.runs import pages

        pages.export(text.rstrip("\n") + "\n", request.path)
        file, text = request.path, console.plain(request.path)
    if request.as_json:
        document.success({**(data or {}), "file": file}, run=run, report=report)
    else:
        console.emit(text.rstrip("\n"))
