"""A comparison of runs as one HTML file, made of the same parts as a report's page."""

from __future__ import annotations

from collections.abc import Sequence

from selfsup_cli.runs import svg
from selfsup_cli.runs.comparison import DESCRIBED, REST, ComparedTable, Comparison
from selfsup_cli.runs.html_parts import cell, findings, grid, how, measured, panel_box, scrolled
from selfsup_cli.runs.html_parts import page as framed
from selfsup_cli.runs.markup import Html, el, join
from selfsup_cli.runs.tables import Said, shortened


def page(comparison: Comparison) -> str:
    """The page of a comparison: what was set differently first, then the numbers."""
    sections = {
        "settings": ("What was set differently", _settings(comparison)),
        "numbers": ("Numbers", _numbers(comparison)),
        "curves": ("Curves", _curves(comparison)),
        "findings": ("What each run found", _findings(comparison)),
        "repeat": ("Repeat them", _commands(comparison)),
    }
    title = comparison.title
    said: Said = [
        (side.label, f"{side.report.job.replace('/', ' ')}, {side.report.created[:10]}")
        for side in comparison.sides
    ]
    foot = "Made by selfsup from the report.json of each run."
    return framed(title, "selfsup report: runs side by side", title, said, sections, foot)


def _settings(comparison: Comparison) -> Html:
    shown = []
    if comparison.settings:
        shown.append(_differing("Settings of the presets", comparison, comparison.settings))
    else:
        shown.append(el("p", "The presets agree in everything that decides what is computed."))
    if comparison.background:
        shown.append(_differing("Data, origin and versions", comparison, comparison.background))
    return join(shown)


def _differing(
    title: str, comparison: Comparison, rows: Sequence[tuple[str, tuple[str, ...]]]
) -> Html:
    lines = [(path, *map(shortened, values)) for path, values in rows]
    return grid(title, ("setting", *comparison.labels), lines, class_="wide")


def _numbers(comparison: Comparison) -> Html:
    if not comparison.tables:
        return el("p", "These runs measured nothing.")
    said = None
    if any(len(one.runs) < len(comparison.sides) for one in comparison.tables):
        said = el(
            "p",
            "Numbers stand side by side only where the same thing was measured on the same data, "
            "by the same protocol. All others stand in tables of their own.",
            class_="grey",
        )
    found = [_table(comparison, one, f"t{n}") for n, one in enumerate(comparison.tables, 1)]
    return join(said, found)


def _table(comparison: Comparison, one: ComparedTable, key: str) -> Html:
    end = svg.reach([m for row in one.rows for m in row])
    described = [column for column in one.table.columns if column.kind in DESCRIBED]
    rest = [column for column in one.table.columns if column.kind in REST]
    head = [el("th", column.head, scope="col") for column in described]
    head += [el("th", comparison.labels[index], scope="col") for index in one.runs]
    if end is not None:
        said = f"0 … {end} %" + (", one below the other" if len(one.runs) > 1 else "")
        head.append(el("th", said, scope="col", class_="spreadcell"))
    if any(one.told):
        head.append(el("th", "told apart", scope="col"))
    head += [el("th", c.head, scope="col", class_="num" if c.number else None) for c in rest]
    if one.several_marks:
        head.append(el("th", "otherwise", scope="col"))
    rows = []
    for index, row in enumerate(one.rows):
        cells = [
            el("td" if place else "th", column.cells[index].text, scope=None if place else "row")
            for place, column in enumerate(described)
        ]
        cells += [el("td", measured(m), class_="value stacked") for m in row]
        if end is not None:
            cells.append(el("td", [svg.spread(m, end) for m in row], class_="spreadcell"))
        if any(one.told):
            cells.append(el("td", one.told[index]))
        cells += [el("td", cell(c, index, key), class_="num" if c.number else None) for c in rest]
        if one.several_marks:
            cells.append(el("td", one.marks[index]))
        rows.append(el("tr", cells))
    title = f"{comparison.heading(one)} · {one.title}"
    return join(
        scrolled(title, el("thead", el("tr", head)), el("tbody", rows)),
        _notes(one),
        how(one.table, key),
    )


def _notes(one: ComparedTable) -> Html | None:
    """What must be known before numbers of this table are compared."""
    notes = [el("li", note) for note in one.notes()]
    return el("ul", notes, class_="apart") if notes else None


def _curves(comparison: Comparison) -> Html:
    boxes = [panel_box(name, lines) for name, lines in comparison.curves.items()]
    if not boxes:
        return Html()
    said = (
        "Drawn over each other whatever was set differently. Beside each run stands its last value."
    )
    return join(el("p", said, class_="grey"), el("div", boxes, class_="panels"))


def _findings(comparison: Comparison) -> Html:
    return join(
        [
            [el("h3", side.label), findings(side.report.findings)]
            for side in comparison.sides
            if side.report.findings
        ]
    )


def _commands(comparison: Comparison) -> Html:
    return join(
        [
            [el("h3", side.label), el("pre", side.about.command(side.report))]
            for side in comparison.sides
            if side.about.command(side.report)
        ]
    )
