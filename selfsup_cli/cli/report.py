"""A report as a person reads it: findings first, then the numbers, then how each was measured.

One text for all: a table with rules and colours on a terminal, aligned plain lines elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from selfsup_cli.cli.console import console, plain
from selfsup_cli.runs.comparison import ComparedTable, Comparison
from selfsup_cli.runs.curves import spark, telling
from selfsup_cli.runs.experiment_rows import blocks, brackets
from selfsup_cli.runs.report import Curve, Finding, Report
from selfsup_cli.runs.tables import VERDICTS, data_parts, sentence, tables, word
from selfsup_cli.runs.tables import Table as Numbers

STYLES = {"good": "green", "bad": "red", "unclear": "yellow", "note": "dim"}
PAGES = ("report.html", "report.md")
SPARK_WIDTH = 40
LEFT_OUT_LINES = 10
LABEL_WIDTH = 8
WRAPPED_WIDTH = 11


def show(report: Report, *, folder: Path | None = None, verbose: bool = False) -> str:
    """`report` as text for stdout, with colours if stdout takes them.

    Of the curves a handful is shown; `verbose` shows all. `folder` is the run's, whose pages are
    named too.
    """
    return _drawn(lambda terminal: _parts(report, terminal, folder, verbose))


def show_comparison(comparison: Comparison) -> str:
    """`comparison` as text for stdout."""
    return _drawn(lambda terminal: _compared(comparison, terminal))


def _drawn(parts: Callable[[Console], Iterable[Any]]) -> str:
    terminal = console()
    with terminal.capture() as captured:
        for part in parts(terminal):
            terminal.print(part)
    return trimmed(captured.get())


def table(
    head: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    right: Sequence[str] = (),
    wraps: Sequence[str] = (),
) -> str:
    """Rows under a head, for stdout.

    The columns named in `right` are set to the right; on a narrow terminal those named in `wraps`
    go on in the next line.
    """
    terminal = console()
    with terminal.capture() as captured:
        terminal.print(_table(terminal, head, rows, right, wraps))
    return trimmed(captured.get())


def trimmed(text: str) -> str:
    """`text` without blanks at the ends of its lines and without blank lines at its end."""
    return "\n".join(line.rstrip() for line in text.split("\n")).rstrip("\n")


def _parts(report: Report, terminal: Console, folder: Path | None, verbose: bool) -> Iterable[Any]:
    if report.table is not None:
        yield from _experiment(report, terminal)
    yield from map(_finding, report.findings)
    for numbers in tables(report.measurements if report.table is None else ()):
        yield ""
        yield from _numbers(numbers, terminal)
    yield from _curves(report.curves, verbose)
    yield ""
    for picture in report.pictures:
        yield _line("picture", f"{plain(picture.file)}  {plain(picture.caption)}")
    pages = [name for name in PAGES if folder is not None and (folder / name).is_file()]
    if pages:
        yield _line("page", "  ".join(pages))
    found, rest = data_parts(report.data)
    for name, part in found.items():
        yield _line("data", f"{plain(name)}: {sentence(part)}")
    for label, facts in (("data", rest), ("cost", report.cost)):
        if facts:
            yield _line(label, sentence(facts))
    if report.weights:
        yield _line("weights", word(report.weights))
    yield from _left_out(report)


def _experiment(report: Report, terminal: Console) -> Iterable[Any]:
    """The table of an experiment. How each number was measured is said in the pages."""
    assert report.table is not None  # noqa: S101 (asked by the caller)
    yield Text(plain(report.table.title), style="bold")
    for block in blocks(report.table, report.measurements):
        yield ""
        yield Text(block.title)
        right = [name for name, is_right in zip(block.head, block.right, strict=True) if is_right]
        texts = [[cell.text for cell in row] for row in block.rows]
        yield _table(terminal, block.head, texts, right, ())
        yield from (_line("", f"[{mark}] {text}") for mark, text in block.notes)
    yield ""
    if said := brackets(report.table, report.measurements):
        yield _line("", said)
    yield from (_line("differs", plain(text)) for text in report.table.differs)


def _finding(finding: Finding) -> Table:
    return _line(VERDICTS[finding.verdict][0], plain(finding.text), STYLES[finding.verdict])


def _line(label: str, text: str, style: str = "dim") -> Table:
    """A label and its text, which on a narrow terminal goes on under itself."""
    line = Table.grid(padding=(0, 2))
    line.add_column(width=LABEL_WIDTH, no_wrap=True)
    line.add_column(overflow="fold")
    line.add_row(Text(label, style=style), Text(text))
    return line


def _numbers(numbers: Numbers, terminal: Console) -> Iterable[Any]:
    if numbers.title:
        yield Text(numbers.title, style="bold")
    yield _table(
        terminal,
        [column.head for column in numbers.columns],
        zip(*([cell.text for cell in column.cells] for column in numbers.columns), strict=True),
        right=[column.head for column in numbers.columns if column.number],
        wraps=[column.head for column in numbers.columns if column.wraps],
    )
    yield from _how(numbers)


def _how(numbers: Numbers) -> Iterable[Any]:
    """How the numbers of the table were measured, and what stands in its column `thesis`."""
    if numbers.intervals:
        yield _line("interval", "; ".join(numbers.intervals))
    if numbers.chances:
        yield _line("chance", "; ".join(numbers.chances))
    if numbers.shared:
        yield _line("protocol", sentence(numbers.shared))
    for number, (mark, rest) in enumerate(numbers.protocols):
        label = "" if numbers.shared or number else "protocol"
        yield _line(label, f"[{mark}] {sentence(rest) or 'nothing else'}")
    for mark, note in numbers.published:
        yield _line("thesis", f"[{mark}] {note}")


def _curves(curves: Sequence[Curve], verbose: bool) -> Iterable[Any]:
    drawn = [curve for curve in curves if len(curve.points) > 1]
    shown = drawn if verbose else telling(curves)
    if shown:
        yield ""
    for curve in shown:
        (first, start), (last, end) = curve.points[0], curve.points[-1]
        yield _line(
            "curve",
            f"{plain(curve.name)} {start:.4g} {spark(curve, SPARK_WIDTH)} {end:.4g}, "
            f"over {plain(curve.x_label)} {first:.4g} … {last:.4g}",
        )
    if len(drawn) > len(shown):
        yield _line("", f"… and {len(drawn) - len(shown)} more (-v, report.html)")


def _left_out(report: Report) -> Iterable[Table]:
    if not report.left_out_total:
        return
    yield _line("left out", f"{report.left_out_total} of the files or clips:")
    for item in report.left_out[:LEFT_OUT_LINES]:
        yield _line("", f"{plain(item.id)}: {plain(item.reason)}")
    more = report.left_out_total - min(len(report.left_out), LEFT_OUT_LINES)
    if more > 0:
        yield _line("", f"… and {more} more (report.json)")


# -- several runs


def _compared(comparison: Comparison, terminal: Console) -> Iterable[Any]:
    differing = (*comparison.settings, *comparison.background)
    if not comparison.settings:
        yield Text("the presets agree in everything that decides what is computed")
    if differing:
        head = ("set differently", *comparison.labels)
        yield _table(terminal, head, ((path, *values) for path, values in differing), (), ())
    for one in comparison.tables:
        yield ""
        yield from _compared_numbers(comparison, one, terminal)
    for side in comparison.sides:
        yield ""
        yield Text(side.label, style="bold")
        yield from map(_finding, side.report.findings)


def _compared_numbers(
    comparison: Comparison, one: ComparedTable, terminal: Console
) -> Iterable[Any]:
    yield Text(f"{comparison.heading(one)} · {one.title}", style="bold")
    columns = one.columns([comparison.labels[index] for index in one.runs])
    yield _table(
        terminal,
        [head for head, _, _ in columns],
        zip(*(cells for _, cells, _ in columns), strict=True),
        right=[head for head, _, is_number in columns if is_number],
        wraps=(),
    )
    for note in one.notes():
        yield _line("beware", note, "yellow")
    yield from _how(one.table)


def _table(
    terminal: Console,
    head: Sequence[str],
    rows: Iterable[Sequence[str]],
    right: Sequence[str],
    wraps: Sequence[str],
) -> Table:
    rules = box.SIMPLE_HEAD if terminal.is_interactive else None
    drawn = Table(box=rules, pad_edge=False, collapse_padding=rules is not None)
    rows = [*rows]
    for index, name in enumerate(head):
        least = max(cell_len(text) for text in (name, *(row[index] for row in rows)))
        if name in wraps:
            least = min(least, WRAPPED_WIDTH)
        justify: Literal["right", "left"] = "right" if name in right else "left"
        drawn.add_column(
            name, justify=justify, no_wrap=name not in wraps, overflow="fold", min_width=least
        )
    for row in rows:
        drawn.add_row(*(Text(cell) for cell in row))
    # Rather let the terminal break a line than lose a column.
    least = terminal.measure(drawn, options=terminal.options.update(width=1000)).minimum
    terminal.width = max(terminal.width, least)
    return drawn
