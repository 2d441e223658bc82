"""A comparison of runs as one HTML file, made of the same parts as a report's page."""

from __future__ import annotations

from collections.abc import Sequence

from selfsup_cli.runs import svg
from selfsup_cli.runs.comparison import ComparedTable, Comparison
from selfsup_cli.runs.html import (
    document,
    findings,
    how,
    measured,
    panel_box,
    scrolled,
)
from selfsup_cli.runs.markup import Html, el, join
from selfsup_cli.runs.tables import Cell, Column

DESCRIBED = ("measured", "data", "metric", "layer", "features")


def page(comparison: Comparison) -> str:
    """The page of a comparison: what was set differently first, then the numbers."""
    labels = comparison.labels
    title = f"{', '.join(labels[:-1])} and {labels[-1]}"
    sections = {
        "found": ("What was set differently", _settings(comparison)),
        "numbers": ("Numbers", _numbers(comparison)),
        "curves": ("Curves", _curves(comparison)),
        "findings": ("What each run found", _findings(comparison)),
        "repeat": ("Repeat them", _commands(comparison)),
    }
    shown = {key: section for key, section in sections.items() if section[1]}
    links = [el("li", el("a", name, href=f"#{key}")) for key, (name, _) in shown.items()]
    head = el(
        "header",
        el("p", "selfsup report: runs side by side", class_="kicker"),
        el("h1", title),
        el("nav", el("ul", links), aria_label="On this page"),
    )
    body = [
        el("section", el("h2", name, id=f"{key}-title"), content, id=key,
           aria_labelledby=f"{key}-title")
        for key, (name, content) in shown.items()
    ]  # fmt: skip
    return document(title, [head, *body], skip="Skip to the differences")


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
    head = [el("th", name, scope="col") for name in ("setting", *comparison.labels)]
    body = [
        el("tr", el("th", path, scope="row"), [el("td", value, class_="long") for value in values])
        for path, values in rows
    ]
    return scrolled(title, el("thead", el("tr", head)), el("tbody", body))


def _numbers(comparison: Comparison) -> Html:
    if not comparison.tables:
        return el("p", "These runs measured nothing.")
    return join([_table(comparison, one, f"t{n}") for n, one in enumerate(comparison.tables, 1)])


def _table(comparison: Comparison, one: ComparedTable, key: str) -> Html:
    labels = [comparison.labels[index] for index in one.runs]
    end = svg.reach([m for row in one.rows for m in row])
    described = [column for column in one.table.columns if column.kind in DESCRIBED]
    rest = [c for c in one.table.columns if c.kind in ("n", "chance", "thesis", "how")]
    head = [el("th", column.head, scope="col") for column in described]
    head += [el("th", label, scope="col") for label in labels]
    if end is not None:
        head.append(el("th", f"0 … {end} %, in this order", scope="col", class_="spreadcell"))
    if any(one.told):
        head.append(el("th", "told apart", scope="col"))
    head += [el("th", c.head, scope="col", class_="num" if c.number else None) for c in rest]
    if one.apart:
        head.append(el("th", "otherwise", scope="col"))
    rows = []
    for index, row in enumerate(one.rows):
        cells = [_described(column, column.cells[index], first=column is described[0])
                 for column in described]  # fmt: skip
        cells += [el("td", measured(m), class_="value") for m in row]
        if end is not None:
            cells.append(el("td", [svg.spread(m, end) for m in row], class_="spreadcell"))
        if any(one.told):
            cells.append(el("td", one.told[index]))
        cells += [
            el("td", how.cell(c, c.cells[index], key), class_="num" if c.number else None)
            for c in rest
        ]
        if one.apart:
            cells.append(el("td", one.marks[index]))
        rows.append(el("tr", cells))
    title = f"{comparison.heading(one)} · {one.table.title or one.rows[0][0].task}"
    notes = [el("li", f"[{mark}] {note}") for mark, note in one.apart]
    free = [el("li", f"may differ within a row — {note}") for note in one.free]
    return join(
        scrolled(title, el("thead", el("tr", head)), el("tbody", rows)),
        el("ul", notes, free, class_="apart") if notes or free else None,
        how(one.table, key),
    )


def _described(column: Column, cell: Cell, *, first: bool) -> Html:
    return el("th", cell.text, scope="row") if first else el("td", cell.text)


def _curves(comparison: Comparison) -> Html:
    boxes = [panel_box(name, lines) for name, lines in comparison.curves.items()]
    if not boxes:
        return Html()
    said = "Drawn over each other whatever was set differently. Beside each run stands its last value."
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
