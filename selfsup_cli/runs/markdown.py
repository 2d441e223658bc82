"""`report.md`: a report in GitHub's Markdown, to paste into an issue or a paper's appendix."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

from selfsup_cli.runs.curves import spark
from selfsup_cli.runs.experiment_rows import blocks as experiment_blocks
from selfsup_cli.runs.experiment_rows import brackets
from selfsup_cli.runs.facts import Facts
from selfsup_cli.runs.report import Curve, Finding, Report
from selfsup_cli.runs.tables import (
    VERDICTS,
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
from selfsup_cli.runs.text import plain

SPARK_WIDTH = 24
# What Markdown would read as its own, also within a word.
_SPECIAL = re.compile(r"([\\`*_\[\]|~])")
# What it would read as the beginning of a list, a heading or a rule.
_LEADING = re.compile(r"^(\s*\d*)([.)+#-])(?=[\s#-]|$)")


def page(report: Report, about: Facts | None = None, *, pictures: str | None = "") -> str:
    """The report as Markdown, the same bytes whenever it is made of the same run.

    `pictures` is put before the pictures' paths (empty where the page lies in the run); with None
    they are named and not linked.
    """
    about = about or Facts()
    blocks = [
        f"# {escaped(report.run)}: {escaped(report.job.replace('/', ' '))}",
        _summary(report),
        *_experiment(report),
        findings(report.findings),
    ]
    if report.measurements:
        blocks.append("## Numbers")
        for table in tables(report.measurements):
            blocks += _table(table)
    if found := class_tables(report.measurements):
        blocks.append(f"## {class_heading(report.measurements)}")
        blocks += [folded(f"{_class_name(one)}", _class_table(one)) for one in found]
    if any(curve.points for curve in report.curves):
        blocks += ["## Curves", curves(report.curves)]
    if report.pictures:
        blocks += ["## Pictures", *(_picture(p.file, p.caption, pictures) for p in report.pictures)]
    blocks += _left_out(report, about)
    blocks += _data(report)
    blocks += _repeat(report, about)
    return "\n\n".join(filter(None, blocks)) + "\n"


def escaped(text: object) -> str:
    """`text` as text: nothing in it is read as Markdown or HTML."""
    said = escape(plain(text).strip(), quote=False)
    return _LEADING.sub(r"\1\\\2", _SPECIAL.sub(r"\\\1", said))


def grid(head: Sequence[str], rows: Iterable[Sequence[str]], right: Sequence[bool]) -> str:
    """A table of cells that are escaped already."""
    lines = [head, ["--:" if is_right else ":--" for is_right in right], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def code(text: str) -> str:
    """A block of code that ends where it should, whatever is in it."""
    text = plain(text, lines=True)
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", text)), default=0))
    return f"{fence}\n{text}\n{fence}"


def folded(summary: str, *blocks: str) -> str:
    """Blocks that are hidden until they are asked for."""
    inside = "\n\n".join(blocks)
    return f"<details><summary>{escape(plain(summary))}</summary>\n\n{inside}\n\n</details>"


def findings(given: Sequence[Finding]) -> str:
    """What the numbers say, each with its verdict."""
    return "\n".join(f"- **{VERDICTS[one.verdict][0]}**: {escaped(one.text)}" for one in given)


def said_inline(given: dict[str, Any]) -> str:
    """Facts one after another."""
    return ", ".join(f"{escaped(name)} {escaped(said)}" for name, said in facts(given, full=True))


def curves(given: Sequence[Curve]) -> str:
    """Every curve on a line: first value, shape, last value."""
    rows = [
        (
            escaped(curve.name),
            f"{curve.points[0][1]:.4g}",
            spark(curve, SPARK_WIDTH),
            f"{curve.points[-1][1]:.4g}",
            escaped(f"{curve.x_label} {curve.points[0][0]:.4g} … {curve.points[-1][0]:.4g}"),
        )
        for curve in given
        if curve.points
    ]
    head = ("curve", "first", "shape", "last", "over")
    return grid(head, rows, (False, True, False, True, False))


def _summary(report: Report) -> str:
    said = f"Made {report.created[:16].replace('T', ' ')} UTC"
    if "seconds" in report.cost:
        said += f" in {duration(report.cost['seconds'])}"
    return said + "."


def _experiment(report: Report) -> list[str]:
    if report.table is None:
        return []
    shown = ["## Beside the thesis"]
    for block in experiment_blocks(report.table, report.measurements):
        # The marks of what misses are ours: brackets that refer to nothing are just brackets.
        rows = [[escaped(row[0].text), *(cell.text for cell in row[1:])] for row in block.rows]
        shown += [f"**{escaped(block.title)}**", grid(block.head, rows, block.right)]
        shown.append("\n".join(f"- [{mark}]: {escaped(text)}" for mark, text in block.notes))
    if said := brackets(report.table, report.measurements):
        shown.append(said)
    if report.table.differs:
        shown.append("What of the thesis' protocol is not followed:")
        shown.append("\n".join(f"- {escaped(text)}" for text in report.table.differs))
    return [*shown, "## What was found"]


def _table(table: Table) -> list[str]:
    head = [escaped(column.head) for column in table.columns]
    columns = [
        # The marks of these are ours: brackets that refer to nothing are just brackets.
        [
            cell.text if column.kind in ("how", "thesis") else escaped(cell.text)
            for cell in column.cells
        ]
        for column in table.columns
    ]
    rows = zip(*columns, strict=True)
    title = table.title or table.measurements[0].task
    right = [column.number for column in table.columns]
    return [f"**{escaped(title)}**", grid(head, rows, right), how(table)]


def how(table: Table) -> str:
    """How the numbers of a table were measured, and what is printed beside them."""
    notes = []
    if table.intervals:
        notes.append(f"- interval: {escaped('; '.join(table.intervals))}")
    if table.chances:
        notes.append(f"- chance: {escaped('; '.join(table.chances))}")
    if table.shared:
        notes.append(f"- protocol: {said_inline(table.shared)}")
    for mark, rest in table.protocols:
        notes.append(f"- [{mark}]: {said_inline(rest) if rest else 'nothing else'}")
    for mark, note in table.published:
        notes.append(f"- thesis [{mark}]: {escaped(note)}")
    return "\n".join(notes)


def _class_name(table: ClassTable) -> str:
    return f"{table.layer}: {table.title}" if table.layer else table.title


def _class_table(table: ClassTable) -> str:
    head = ["class", *(f"{escaped(name)}, %" for name in table.columns)]
    rows = [[escaped(name), *(cell.text for cell in cells)] for name, cells in table.rows]
    return grid(head, rows, [False] + [True] * len(table.columns))


def _picture(file: str, caption: str, before: str | None) -> str:
    if before is None:
        return f"{escaped(caption)} ({escaped(file)} in the run)"
    address = re.sub(r"[^\w./@+~-]", lambda m: "".join(f"%{b:02X}" for b in m[0].encode()),
                     f"{before}{plain(file)}")  # fmt: skip
    return f"![{escaped(caption)}]({address})\n\n{escaped(caption)}"


def _left_out(report: Report, about: Facts) -> list[str]:
    blocks = []
    if report.left_out_total:
        rows = [(escaped(one.id), escaped(one.reason)) for one in report.left_out]
        listed = f", {len(rows)} of them listed" if len(rows) < report.left_out_total else ""
        blocks += [
            f"{report.left_out_total} of the files or clips were not used{listed}:",
            grid(("file", "why"), rows, (False, False)),
        ]
    if about.bad:
        blocks.append(
            "While the job ran others took the place of files that could not be read: "
            f"{len(about.bad)} (quarantine.jsonl)."
        )
    return ["## Left out", *blocks] if blocks else []


def _data(report: Report) -> list[str]:
    found, rest = data_parts(report.data)
    said: Said = [
        (name, ", ".join(f"{k} {v}" for k, v in facts(part))) for name, part in found.items()
    ]
    said += facts({**rest, **({"weights": report.weights} if report.weights else {})}, full=True)
    said += [(f"cost, {name}", text) for name, text in facts(dict(report.cost))]
    lines = "\n".join(f"- {escaped(name)}: {escaped(text)}" for name, text in said)
    return ["## Data and cost", lines] if lines else []


def _repeat(report: Report, about: Facts) -> list[str]:
    blocks = []
    if command := about.command(report):
        blocks += ["## Repeat it", code(command)]
    if about.preset is not None:
        blocks.append(folded("preset.yaml", code(about.preset.rstrip("\n"))))
    if about.info is not None:
        said = {**about.info.machine, **about.info.versions}
        if about.info.code and "commit" in about.info.code:
            said["code"] = str(about.info.code["commit"])
        lines = "\n".join(f"- {escaped(name)} {escaped(text)}" for name, text in said.items())
        blocks.append(folded("versions and machine", lines))
    return blocks
