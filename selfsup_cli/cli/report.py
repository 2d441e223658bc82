"""A report as a person reads it: findings first, then the numbers, then how each was measured.

One text for all: a table with rules and colours on a terminal, aligned plain lines elsewhere.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from string import ascii_uppercase
from typing import Any, Literal

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from selfsup_cli.cli.console import console, plain
from selfsup_cli.runs.report import Curve, Measurement, Report

VERDICTS = {
    "good": ("ok", "green"),
    "bad": ("bad", "red"),
    "unclear": ("unclear", "yellow"),
    "note": ("note", "dim"),
}
SPARKS = "▁▂▃▄▅▆▇█"
SPARK_WIDTH = 40
LEFT_OUT_LINES = 10
LABEL_WIDTH = 8
WRAPPED_WIDTH = 11
LONGEST_LIST = 6
# A hash is told apart by its beginning; report.json has all of it.
_HASH = re.compile("[0-9a-f]{40,}")


def show(report: Report) -> str:
    """`report` as text for stdout, with colours if stdout takes them."""
    terminal = console()
    with terminal.capture() as captured:
        for part in _parts(report, terminal):
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


def _parts(report: Report, terminal: Console) -> Iterable[Any]:
    for finding in report.findings:
        word, style = VERDICTS[finding.verdict]
        yield _line(word, plain(finding.text), style)
    if report.measurements:
        yield ""
        yield from _measurements(report.measurements, terminal)
    if curves := [curve for curve in report.curves if len(curve.points) > 1]:
        yield ""
        yield from map(_curve, curves)
    yield ""
    for picture in report.pictures:
        yield _line("picture", f"{plain(picture.file)}  {plain(picture.caption)}")
    for label, facts in (("data", report.data), ("cost", report.cost)):
        if facts:
            yield _line(label, _facts(facts))
    if report.weights:
        yield _line("weights", _said(report.weights))
    yield from _left_out(report)


def _line(label: str, text: str, style: str = "dim") -> Table:
    """A label and its text, which on a narrow terminal goes on under itself."""
    line = Table.grid(padding=(0, 2))
    line.add_column(width=LABEL_WIDTH, no_wrap=True)
    line.add_column(overflow="fold")
    line.add_row(Text(label, style=style), Text(text))
    return line


# -- measurements


@dataclass(frozen=True)
class _Column:
    """A column: its head, its cell, and whether it moves above the table where it never varies."""

    head: str
    cell: Callable[[Measurement], str]
    common: bool = False
    number: bool = False
    wraps: bool = False


def _measurements(measurements: Sequence[Measurement], terminal: Console) -> Iterable[Any]:
    protocols = _Notes(ascii_uppercase)
    published = _Notes("123456789")
    shared, own = _split_protocols(measurements)
    marks = {id(m): protocols.mark(_facts(rest)) for m, rest in zip(measurements, own, strict=True)}

    def beside(m: Measurement) -> str:
        if m.published is None:
            return ""
        differs = "; ".join(plain(item) for item in m.published.differs)
        verdict = "comparable" if m.published.comparable else f"not comparable: {differs}"
        note = f"{plain(m.published.where)}; {verdict}"
        return f"{_number(m.published.value, m.unit)} [{published.mark(note)}]"

    columns = (
        _Column("measured", lambda m: plain(m.name), common=True, wraps=True),
        _Column("data", lambda m: plain(f"{m.dataset}, {m.split}"), common=True, wraps=True),
        _Column("metric", lambda m: plain(m.metric), common=True),
        _Column("layer", lambda m: plain(m.layer or "")),
        _Column("features", _features, wraps=True),
        _Column("value", _value, number=True),
        _Column("interval", _interval, number=True),
        _Column("n", lambda m: str(m.n), number=True),
        _Column("chance", lambda m: _number(m.chance, m.unit), number=True),
        _Column("thesis", beside, number=True),
        _Column("how", lambda m: f"[{marks[id(m)]}]" if len(protocols.marks) > 1 else ""),
    )
    cells = [[column.cell(m) for m in measurements] for column in columns]
    title, kept = [], []
    for column, values in zip(columns, cells, strict=True):
        if column.common and len(set(values)) == 1:
            title.append(values[0])
        elif any(values):
            kept.append((column, values))
    if title:
        yield Text(" · ".join(title), style="bold")
    yield _table(
        terminal,
        [column.head for column, _ in kept],
        zip(*(values for _, values in kept), strict=True),
        right=[column.head for column, _ in kept if column.number],
        wraps=[column.head for column, _ in kept if column.wraps],
    )
    yield from _protocol(measurements, shared, protocols, published)


def _protocol(
    measurements: Sequence[Measurement],
    shared: dict[str, Any],
    protocols: _Notes,
    published: _Notes,
) -> Iterable[Any]:
    """How the numbers of the table were measured, and what stands in its column `thesis`."""
    methods = dict.fromkeys(
        f"{interval.level:.0%} {interval.method}"
        for interval in (m.interval for m in measurements)
        if interval is not None
    )
    if methods:
        yield _line("interval", "; ".join(plain(method) for method in methods))
    if shared:
        yield _line("protocol", _facts(shared))
    if len(protocols.marks) > 1:
        for number, (note, mark) in enumerate(protocols.marks.items()):
            label = "" if shared or number else "protocol"
            yield _line(label, f"[{mark}] {note or 'nothing else'}")
    elif not shared:
        yield _line("protocol", next(iter(protocols.marks)))
    for note, mark in published.marks.items():
        yield _line("thesis", f"[{mark}] {note}")


class _Notes:
    """Texts that many rows share, each under a short mark."""

    def __init__(self, alphabet: str) -> None:
        self.alphabet = alphabet
        self.marks: dict[str, str] = {}

    def mark(self, note: str) -> str:
        if note not in self.marks:
            number, size = len(self.marks), len(self.alphabet)
            self.marks[note] = self.alphabet[number % size] + str(number // size or "")
        return self.marks[note]


def _split_protocols(
    measurements: Sequence[Measurement],
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """What all protocols say alike, and what each says besides. One alone is all shared."""
    first = measurements[0].protocol
    shared = {
        key: value
        for key, value in first.items()
        if all(key in m.protocol and m.protocol[key] == value for m in measurements)
    }
    own = [{k: v for k, v in m.protocol.items() if k not in shared} for m in measurements]
    return shared, own


def _features(m: Measurement) -> str:
    """Whose features, and what was done to the input."""
    return plain(", ".join(part for part in (m.subject, m.control) if part))


def _value(m: Measurement) -> str:
    return f"{_number(m.value, m.unit)} {plain(m.unit)}".rstrip()


def _interval(m: Measurement) -> str:
    if m.interval is None:
        return ""
    return f"{_number(m.interval.low, m.unit)} … {_number(m.interval.high, m.unit)}"


def _number(value: float | None, unit: str) -> str:
    if value is None:
        return ""
    return f"{value:.1f}" if unit == "%" else f"{value:.4g}"


# -- the rest


def _curve(curve: Curve) -> Table:
    """First value, shape and last value of a curve on one line."""
    values = [y for _, y in curve.points]
    count = min(SPARK_WIDTH, len(values))
    bins = [values[i * len(values) // count : (i + 1) * len(values) // count] for i in range(count)]
    means = [sum(part) / len(part) for part in bins]
    low, span = min(means), (max(means) - min(means)) or 1.0
    spark = "".join(SPARKS[round((mean - low) / span * (len(SPARKS) - 1))] for mean in means)
    over = f"over {plain(curve.x_label)} {curve.points[0][0]:.4g} … {curve.points[-1][0]:.4g}"
    return _line("curve", f"{plain(curve.name)} {values[0]:.4g} {spark} {values[-1]:.4g}, {over}")


def _left_out(report: Report) -> Iterable[Table]:
    if not report.left_out_total:
        return
    yield _line("left out", f"{report.left_out_total} of the files or clips:")
    for item in report.left_out[:LEFT_OUT_LINES]:
        yield _line("", f"{plain(item.id)}: {plain(item.reason)}")
    more = report.left_out_total - min(len(report.left_out), LEFT_OUT_LINES)
    if more > 0:
        yield _line("", f"… and {more} more (report.json)")


def _facts(facts: dict[str, Any]) -> str:
    """`{"epochs": 60, "flip": True}` as `epochs 60, flip yes`; nested blocks by dotted names."""
    said: list[str] = []

    def collect(prefix: str, value: Any) -> None:
        if isinstance(value, dict):
            for key, item in value.items():
                collect(f"{prefix}.{key}" if prefix else str(key), item)
        else:
            said.append(f"{plain(prefix.replace('_', ' '))} {_said(value)}")

    collect("", facts)
    return ", ".join(said)


def _said(value: Any) -> str:
    match value:
        case None:
            return "none"
        case bool():
            return "yes" if value else "no"
        case float():
            return f"{value:.6g}"
        case list() | tuple() if len(value) > LONGEST_LIST:
            return f"({len(value)} values, see report.json)"
        case list() | tuple():
            return "/".join(_said(item) for item in value)
        case str() if _HASH.fullmatch(value):
            return f"{value[:12]}…"
        case _:
            return plain(value)


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
