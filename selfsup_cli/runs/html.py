"""`report.html`: a report as one file that opens anywhere, without scripts, without the network."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib import resources
from itertools import groupby
from typing import Any

from selfsup_cli.runs import svg
from selfsup_cli.runs.curves import panels
from selfsup_cli.runs.facts import Facts
from selfsup_cli.runs.markup import Html, el, join
from selfsup_cli.runs.pictures import Embedded, embed
from selfsup_cli.runs.report import Curve, Finding, Measurement, Report
from selfsup_cli.runs.tables import (
    VERDICTS,
    Cell,
    ClassTable,
    Column,
    Said,
    Table,
    class_tables,
    duration,
    facts,
    method,
    number,
    parts,
    tables,
)

# The whole page, pictures and all.
MOST_BYTES = 5_000_000
BAD_LISTED = 200
POLICY = (
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; "
    "form-action 'none'"
)
# Drawn anew from the numbers, so that one can ask a point for its value.
DRAWN = "pictures/curves.png"


def page(report: Report, about: Facts | None = None) -> str:
    """The page of `report`, at most 5 MB; the same bytes whenever it is made of the same run.

    With `about` the pictures are read from the run's folder, and the preset, the environment and
    the attempts are shown too.
    """
    about = about or Facts()
    sections = {
        "found": ("What was found", findings(report.findings)),
        "numbers": ("Numbers", _numbers(report.measurements)),
        "classes": ("Results by class", _classes(report.measurements)),
        "curves": ("Curves", curves(report.curves)),
        "pictures": ("Pictures", Html()),
        "left-out": ("Left out", _left_out(report, about)),
        "data": ("Data and cost", _data(report)),
        "repeat": ("Repeat it", _repeat(report, about)),
        "made-with": ("Made with", _made_with(report, about)),
    }
    title = f"{report.run}: {report.job.replace('/', ' ')}"
    room = MOST_BYTES - len(_whole(title, report, about, sections).encode()) - 20_000
    sections["pictures"] = ("Pictures", _pictures(report, about, room))
    return _whole(title, report, about, sections)


def _whole(title: str, report: Report, about: Facts, sections: dict[str, tuple[str, Html]]) -> str:
    shown = {key: section for key, section in sections.items() if section[1]}
    head = [
        el("p", f"selfsup {report.job.replace('/', ' ')}", class_="kicker"),
        el("h1", report.run),
        fact_list(_summary(report, about)),
        el(
            "nav",
            el("ul", [el("li", el("a", name, href=f"#{key}")) for key, (name, _) in shown.items()]),
            aria_label="On this page",
        ),
    ]
    body = [
        el("section", el("h2", name, id=f"{key}-title"), content, id=key,
           aria_labelledby=f"{key}-title")
        for key, (name, content) in shown.items()
    ]  # fmt: skip
    version = about.info.versions.get("selfsup") if about.info else None
    foot = f"Made by selfsup{f' {version}' if version else ''} from report.json ({report.schema_})."
    return document(title, [el("header", head), *body, el("footer", foot)])


def document(title: str, content: Sequence[Html]) -> str:
    """A whole page."""
    head = [
        el("meta", charset="utf-8"),
        el("meta", http_equiv="Content-Security-Policy", content=POLICY),
        el("meta", name="referrer", content="no-referrer"),
        el("meta", name="viewport", content="width=device-width, initial-scale=1"),
        el("meta", name="color-scheme", content="light dark"),
        el("title", title),
        el("link", rel="icon", href="data:,"),
        el("style", Html(_style())),
    ]
    skip = el("a", "Skip to the findings", href="#found", class_="skip")
    body = el("body", skip, el("main", content))
    return f"<!doctype html>\n{el('html', el('head', head), body, lang='en')}\n"


@cache
def _style() -> str:
    return resources.files("selfsup_cli.runs").joinpath("report.css").read_text(encoding="utf-8")


# -- what stands on top


def _summary(report: Report, about: Facts) -> Said:
    said: Said = []
    info = about.info
    if info is not None:
        given = {"network": info.arch, "data": info.data, "seed": info.seed}
        given["from"] = ", ".join(str(one["run"]) for one in info.parents if "run" in one) or None
        said += facts({key: item for key, item in given.items() if item is not None}, full=True)
    said.append(("made", f"{report.created[:16].replace('T', ' ')} UTC"))
    if "seconds" in report.cost:
        said.append(("took", duration(report.cost["seconds"])))
    return said


def fact_list(said: Said) -> Html:
    """Facts in a row."""
    return el("ul", [el("li", f"{name} ", el("b", text)) for name, text in said], class_="facts")


def findings(given: Sequence[Finding]) -> Html:
    """What the numbers say, each with its verdict as sign, word and colour."""
    items = []
    for one in given:
        word, sign = VERDICTS[one.verdict]
        verdict = el("span", el("i", sign, aria_hidden="true"), word,
                     class_=f"verdict {one.verdict}")  # fmt: skip
        items.append(el("li", verdict, el("span", one.text), class_="finding"))
    return el("ul", items, class_="findings") if items else Html()


# -- numbers


def _numbers(measurements: Sequence[Measurement]) -> Html:
    found = tables(measurements)
    return join([_table(table, f"t{number}") for number, table in enumerate(found, 1)])


def _table(table: Table, key: str) -> Html:
    end = svg.reach(table.measurements)
    columns = [column for column in table.columns if column.kind != "interval"]
    head = []
    for column in columns:
        head.append(el("th", column.head, scope="col", class_="num" if _is_right(column) else None))
        if column.kind == "value" and end is not None:
            head.append(el("th", f"0 … {end} %, chance dashed", scope="col", class_="spreadcell"))
    rows = []
    for index, measurement in enumerate(table.measurements):
        cells = []
        for place, column in enumerate(columns):
            cells.append(_cell(column, column.cells[index], measurement, key, first=place == 0))
            if column.kind == "value" and end is not None:
                cells.append(el("td", svg.spread(measurement, end), class_="spreadcell"))
        rows.append(el("tr", cells))
    groups = groupby(
        range(len(rows)), lambda i: (table.measurements[i].subject, table.measurements[i].control)
    )
    bodies = [el("tbody", [rows[i] for i in own]) for _, own in groups]
    title = table.title or table.measurements[0].task
    return join(scrolled(title, el("thead", el("tr", head)), *bodies), _how(table, key))


def scrolled(title: str, *content: Html, class_: str | None = None) -> Html:
    """A table under its title, in a box of its own that can be scrolled on a narrow screen."""
    table = el("table", *content, class_=class_, aria_label=title)
    box = el("div", table, class_="scroll", role="region", aria_label=title, tabindex="0")
    return join(el("h3", title), box)


def _is_right(column: Column) -> bool:
    return column.number and column.kind != "value"


def _cell(column: Column, cell: Cell, m: Measurement, key: str, *, first: bool) -> Html:
    if column.kind == "value":
        return el("td", measured(m), class_="value")
    content: object = cell.text
    if column.kind == "how":
        content = _reference(cell.text, key)
    elif column.kind == "thesis" and cell.exact is not None:
        text, _, mark = cell.text.rpartition(" ")
        content = [exact(text, cell.exact), " ", _reference(mark, key)]
    elif cell.exact is not None:
        content = exact(cell.text, cell.exact)
    if first and not column.number:
        return el("th", content, scope="row")
    return el("td", content, class_="num" if _is_right(column) else None)


def measured(m: Measurement) -> Html:
    """A number with its unit and interval."""
    shown: list[Html] = [el("b", exact(number(m.value, m.unit), m.value), f" {m.unit}".rstrip())]
    if m.interval is not None:
        low, high = (exact(number(end, m.unit), end) for end in (m.interval.low, m.interval.high))
        shown.append(el("small", low, " … ", high, title=method(m)))
    return join(shown)


def exact(text: str, value: float | None) -> Html:
    """A number as shown, with the exact one behind it."""
    return el("data", text, value=repr(value))


def _reference(mark: str, key: str) -> Html:
    name = mark.strip("[]")
    return el("a", mark, href=f"#{key}-{name}") if name else Html()


def _how(table: Table, key: str) -> Html:
    """How the numbers of a table were measured, and what is printed beside them."""
    lines: list[Html] = []
    if table.intervals:
        lines += [el("dt", "interval"), el("dd", "; ".join(table.intervals))]
    if table.shared:
        lines += [el("dt", "protocol"), el("dd", inline_facts(table.shared))]
    for mark, rest in table.protocols:
        lines += [
            el("dt", f"[{mark}]", id=f"{key}-{mark}"),
            el("dd", inline_facts(rest) if rest else "nothing else"),
        ]
    for mark, note in table.published:
        lines += [el("dt", f"thesis [{mark}]", id=f"{key}-{mark}"), el("dd", note)]
    return el("dl", lines, class_="measured")


def inline_facts(given: dict[str, Any]) -> Html:
    """Facts one after another."""
    return join(
        [
            el("span", el("span", name), f" {said}", class_="fact")
            for name, said in facts(given, full=True)
        ]
    )


def _classes(measurements: Sequence[Measurement]) -> Html:
    found = class_tables(measurements)
    return join([_class_table(table, is_open=not index) for index, table in enumerate(found)])


def _class_table(table: ClassTable, *, is_open: bool) -> Html:
    head = [el("th", "class", scope="col")]
    head += [el("th", f"{name}, %", scope="col", class_="num") for name in table.columns]
    rows = [
        el("tr", el("th", name, scope="row"), [
            el("td", exact(cell.text, cell.exact) if cell.text else "", class_="num")
            for cell in cells
        ])
        for name, cells in table.rows
    ]  # fmt: skip
    title = f"{table.layer}: {table.title}" if table.layer else table.title
    shown = scrolled(title, el("thead", el("tr", head)), el("tbody", rows))
    name = f"{table.layer or table.title} ({len(rows)} classes)"
    return el("details", el("summary", name), shown, open=is_open)


# -- curves and pictures


def curves(given: Sequence[Curve]) -> Html:
    """One panel for each meaning of y, and all curves as numbers."""
    given = [curve for curve in given if curve.points]
    if not given:
        return Html()
    found = panels(given)
    boxes = []
    for label, own in found.items():
        legend = [
            el("li", svg.sample(index), el("span", curve.name, " "),
               el("b", exact(f"{curve.points[-1][1]:.4g}", curve.points[-1][1])))
            for index, curve in enumerate(own)
        ]  # fmt: skip
        boxes.append(
            el(
                "div",
                el("h3", label),
                svg.panel(label, own),
                el("ul", legend, class_="legend"),
                class_="panelbox",
            )
        )
    dense = any(len(curve.points) > svg.DENSE for own in found.values() for curve in own)
    said = "Beside each name stands its last value."
    if dense:
        said += " Of long curves the thin line is every value, the thick one their running mean."
    drawn = [el("p", said, class_="grey"), el("div", boxes, class_="panels")] if boxes else []
    return join(drawn, _curve_table(given))


def _curve_table(given: Sequence[Curve]) -> Html:
    head = ("curve", "points", "first", "last", "lowest", "highest")
    rows = []
    for curve in given:
        ys = [y for _, y in curve.points]
        cells = [exact(f"{y:.4g}", y) for y in (ys[0], ys[-1], min(ys), max(ys))]
        rows.append(
            el("tr", el("th", curve.name, scope="row"),
               [el("td", cell, class_="num") for cell in (len(ys), *cells)])
        )  # fmt: skip
    heads = [
        el("th", name, scope="col", class_="num" if name != "curve" else None) for name in head
    ]
    table = scrolled("Curves as numbers", el("thead", el("tr", heads)), el("tbody", rows))
    return el("details", el("summary", "The curves as numbers"), table)


def _pictures(report: Report, about: Facts, room: int) -> Html:
    shown = [one for one in report.pictures if not (one.file == DRAWN and report.curves)]
    found = embed(about.folder, [one.file for one in shown], room)
    return join(
        [_figure(one.file, one.caption, picture) for one, picture in zip(shown, found, strict=True)]
    )


def _figure(file: str, caption: str, picture: Embedded) -> Html:
    if picture.missing:
        text = f"{caption} ({file} cannot be shown: {picture.missing})"
        return el("figure", el("figcaption", text))
    width, height = picture.size or (None, None)
    image = el("img", src=picture.uri, alt=caption or file, width=width, height=height)
    note = f" {file}" + (f"; {picture.note}" if picture.note else "")
    return el("figure", image, el("figcaption", caption, el("code", note)))


# -- what it was made of


def _left_out(report: Report, about: Facts) -> Html:
    shown = []
    if report.left_out_total:
        more = report.left_out_total - len(report.left_out)
        said = f"{report.left_out_total} of the files or clips were not used" + (
            f"; the first {len(report.left_out)} of them:" if more else ":"
        )
        rows = [(one.id, one.reason) for one in report.left_out]
        shown += [el("p", said), reasons("Files and clips that were left out", rows)]
    if about.bad:
        more = len(about.bad) > BAD_LISTED
        said = "While the job ran others took the place of files that could not be read"
        said += f": {len(about.bad)}" + (f", of which {BAD_LISTED} are listed." if more else ".")
        shown += [el("p", said), reasons("Files that could not be read", about.bad[:BAD_LISTED])]
    return join(shown)


def reasons(title: str, rows: Sequence[tuple[str, str]]) -> Html:
    """Names and why."""
    head = el("thead", el("tr", el("th", "file", scope="col"), el("th", "why", scope="col")))
    body = [el("tr", el("th", name, scope="row"), el("td", why)) for name, why in rows]
    return scrolled(title, head, el("tbody", body), class_="wide")


def _data(report: Report) -> Html:
    found, rest = parts(report.data)
    shown: list[Html] = []
    if found:
        keys = list(dict.fromkeys(key for part in found.values() for key in part))
        names = [
            el("th", name, scope="col") for name in ("part", *(k.replace("_", " ") for k in keys))
        ]
        rows = []
        for name, part in found.items():
            said = [
                el(
                    "td",
                    ", ".join(text for _, text in facts({"": part.get(key, "")})),
                    class_="long" if key == "split_rule" else None,
                )
                for key in keys
            ]
            rows.append(el("tr", el("th", name, scope="row"), said))
        shown.append(scrolled("Data", el("thead", el("tr", names)), el("tbody", rows)))
    rest = {**rest, **({"weights": report.weights} if report.weights else {})}
    said_of = [*facts(rest, full=True), *facts({"cost": report.cost} if report.cost else {})]
    return join(shown, definitions(said_of))


def definitions(said: Said) -> Html:
    """Facts one below another."""
    return el("dl", [[el("dt", name), el("dd", text)] for name, text in said]) if said else Html()


def _repeat(report: Report, about: Facts) -> Html:
    command = about.command(report)
    job = report.job.replace("/", " ")
    shown: list[Html] = []
    if command:
        shown += [el("p", "The command:"), el("pre", command)]
        again = "It goes on with this run, or shows it; give another name with --run to repeat it."
        shown.append(el("p", again, class_="grey"))
    if about.preset is not None:
        shown += [
            el("p", "All settings, as they were resolved, are the preset of this run. Saved as "
               "preset.yaml, it repeats the run:"),
            el("pre", f"selfsup {job} --preset preset.yaml"),
            el("details", el("summary", "preset.yaml"), el("pre", about.preset.rstrip("\n"))),
        ]  # fmt: skip
    return join(shown)


def _made_with(report: Report, about: Facts) -> Html:
    info = about.info
    if info is None:
        return Html()
    code = info.code or {}
    changed = " (with changes that are not committed)" if code.get("changed") else ""
    said: Said = []
    if "commit" in code:
        said.append(("code", f"{code['commit']}{changed}"))
    said += [(name, text) for name, text in (*info.machine.items(), *info.versions.items())]
    for parent in info.parents:
        said.append(("from", ", ".join(f"{k} {v}" for k, v in facts(parent, full=True))))
    said += [("attempt", text) for text in about.attempts_of(report)]
    return el("details", el("summary", "Versions, machine, attempts"), definitions(said))
