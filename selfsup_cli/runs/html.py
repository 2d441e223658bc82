"""`report.html`: a report as one file that opens anywhere, without scripts, without the network."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from selfsup_cli.runs import html_parts, svg
from selfsup_cli.runs.curves import panels
from selfsup_cli.runs.experiment_rows import blocks, brackets
from selfsup_cli.runs.facts import Facts
from selfsup_cli.runs.html_parts import (
    cell,
    definitions,
    exact,
    findings,
    grid,
    how,
    measured,
    panel_box,
    scrolled,
)
from selfsup_cli.runs.markup import Html, el, join
from selfsup_cli.runs.pictures import Embedded, embed
from selfsup_cli.runs.report import Curve, Measurement, Report
from selfsup_cli.runs.tables import (
    ClassTable,
    Said,
    Table,
    class_heading,
    class_tables,
    data_parts,
    duration,
    facts,
    tables,
)

# The whole page, pictures and all.
MOST_BYTES = 5_000_000
MOST_LISTED = 200
# Drawn anew from the numbers, so that one can ask a point for its value.
DRAWN = "pictures/curves.png"


def page(report: Report, about: Facts | None = None) -> str:
    """The page of `report`, at most 5 MB; the same bytes whenever it is made of the same run.

    With `about` the pictures are read from the run's folder, and the preset, the environment and
    the attempts are shown too.
    """
    about = about or Facts()
    sections = {
        "table": ("Beside the thesis", _experiment(report)),
        "found": ("What was found", findings(report.findings)),
        "numbers": ("Numbers", _numbers(report.measurements)),
        "classes": (class_heading(report.measurements), _classes(report.measurements)),
        "curves": ("Curves", _curves(report.curves)),
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
    version = about.info.versions.get("selfsup") if about.info else None
    foot = f"Made by selfsup{f' {version}' if version else ''} from report.json ({report.schema_})."
    kicker = f"selfsup {report.job.replace('/', ' ')}"
    return html_parts.page(title, kicker, report.run, _summary(report, about), sections, foot)


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


# -- numbers


def _experiment(report: Report) -> Html:
    if report.table is None:
        return Html()
    shown = []
    for block in blocks(report.table, report.measurements):
        rows = [
            [one.text if one.exact is None else exact(one.text, one.exact) for one in row]
            for row in block.rows
        ]
        shown.append(grid(block.title, ("row", *block.head[1:]), rows))
        if block.notes:
            shown.append(el("p", [el("span", f"[{mark}] {text} ") for mark, text in block.notes]))
    if said := brackets(report.table, report.measurements):
        shown.append(el("p", said, class_="grey"))
    if report.table.differs:
        shown.append(el("p", "What of the thesis' protocol is not followed:"))
        shown.append(el("ul", [el("li", text) for text in report.table.differs]))
    return join(shown)


def _numbers(measurements: Sequence[Measurement]) -> Html:
    found = tables(measurements)
    return join([_table(table, f"t{number}") for number, table in enumerate(found, 1)])


def _table(table: Table, key: str) -> Html:
    end = svg.reach(table.measurements)
    # The interval stands beside the value, in one cell.
    columns = [column for column in table.columns if column.kind != "interval"]
    right = ["num" if column.number and column.kind != "value" else None for column in columns]
    head = []
    for column, side in zip(columns, right, strict=True):
        head.append(el("th", column.head, scope="col", class_=side))
        if column.kind == "value" and end is not None:
            head.append(el("th", f"0 … {end} %, chance dashed", scope="col", class_="spreadcell"))
    rows = []
    for index, measurement in enumerate(table.measurements):
        cells = []
        for column, side in zip(columns, right, strict=True):
            if column.kind == "value":
                cells.append(el("td", measured(measurement), class_="value"))
                if end is not None:
                    cells.append(el("td", svg.spread(measurement, end), class_="spreadcell"))
            elif column is columns[0]:
                cells.append(el("th", cell(column, index, key), scope="row"))
            else:
                cells.append(el("td", cell(column, index, key), class_=side))
        rows.append(el("tr", cells))
    groups = groupby(zip(table.measurements, rows, strict=True), key=lambda one: _whose(one[0]))
    bodies = [el("tbody", [row for _, row in own]) for _, own in groups]
    title = table.title or table.measurements[0].task
    return join(scrolled(title, el("thead", el("tr", head)), *bodies), how(table, key))


def _whose(m: Measurement) -> tuple[str, str | None]:
    return m.subject, m.control


def _classes(measurements: Sequence[Measurement]) -> Html:
    found = class_tables(measurements)
    return join([_class_table(table, is_open=not index) for index, table in enumerate(found)])


def _class_table(table: ClassTable, *, is_open: bool) -> Html:
    head = ("class", *(f"{name}, %" for name in table.columns))
    rows = [
        [name, *(exact(one.text, one.exact) if one.text else "" for one in cells)]
        for name, cells in table.rows
    ]
    name = f"{table.layer or table.title} ({len(rows)} classes)"
    return el("details", el("summary", name), grid(table.title, head, rows), open=is_open)


# -- curves and pictures


def _curves(given: Sequence[Curve]) -> Html:
    given = [curve for curve in given if curve.points]
    if not given:
        return Html()
    boxes = [panel_box(label, own) for label, own in panels(given).items()]
    said = "Beside each name stands its last value."
    if any(len(curve.points) > svg.DENSE for curve in given):
        said += " Of long curves the thin line is every value, the thick one their running mean."
    drawn = [el("p", said, class_="grey"), el("div", boxes, class_="panels")] if boxes else []
    rows = []
    for curve in given:
        ys = [y for _, y in curve.points]
        ends = [exact(f"{y:.4g}", y) for y in (ys[0], ys[-1], min(ys), max(ys))]
        rows.append([curve.name, len(ys), *ends])
    head = ("curve", "points", "first", "last", "lowest", "highest")
    table = grid("Curves as numbers", head, rows)
    return join(drawn, el("details", el("summary", "The curves as numbers"), table))


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
    note = f"{file}; {picture.note}" if picture.note else file
    return el("figure", image, el("figcaption", caption, " ", el("code", note)))


# -- what it was made of


def _left_out(report: Report, about: Facts) -> Html:
    not_used = [(one.id, one.reason) for one in report.left_out]
    return join(
        _reasons("Not used", not_used, report.left_out_total),
        _reasons("Not readable, and replaced by others on the way", about.bad, len(about.bad)),
    )


def _reasons(title: str, rows: Sequence[tuple[str, str]], total: int) -> Html | None:
    if not total:
        return None
    shown = rows[:MOST_LISTED]
    listed = f", of which {len(shown)} are listed" if len(shown) < total else ""
    return grid(f"{title}: {total}{listed}", ("file or clip", "why"), shown, class_="wide")


def _data(report: Report) -> Html:
    found, rest = data_parts(report.data)
    keys = list(dict.fromkeys(key for part in found.values() for key in part))
    rows = [
        [name, *(dict(facts(part, full=False)).get(key.replace("_", " "), "") for key in keys)]
        for name, part in found.items()
    ]
    head = ("part", *(key.replace("_", " ") for key in keys))
    if report.weights:
        rest = {**rest, "weights": report.weights}
    said = facts(rest, full=True)
    cost = dict(report.cost)
    if "seconds" in cost:
        said.append(("took", duration(cost.pop("seconds"))))
    said += facts(cost, full=True)
    return join(grid("Data", head, rows) if rows else None, definitions(said))


def _repeat(report: Report, about: Facts) -> Html:
    command = about.command(report)
    preset = f"{report.job.replace('/', ' ')} --preset preset.yaml"
    if report.table is not None:
        preset = f"reproduce ./preset.yaml --scale {report.table.scale}"
    shown: list[Html] = []
    if command:
        shown += [el("p", "The command:"), el("pre", command)]
        again = "It goes on with this run, or shows it"
        again += "." if report.table is not None else "; give another name with --run to repeat it."
        shown.append(el("p", again, class_="grey"))
    if about.preset is not None:
        shown += [
            el("p", "All settings, as they were resolved, are the preset of this run. Saved as "
               "preset.yaml, it repeats the run:"),
            el("pre", f"selfsup {preset}"),
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
