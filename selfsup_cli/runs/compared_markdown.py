"""A comparison of runs as Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from selfsup_cli.runs.comparison import ComparedTable, Comparison
from selfsup_cli.runs.markdown import code, escaped, findings, grid, how


def page(comparison: Comparison) -> str:
    """The comparison: what was set differently first, then the numbers, then how to repeat them."""
    blocks = [f"# {escaped(comparison.title)}", "## What was set differently"]
    if comparison.settings:
        blocks.append(_differing(comparison, comparison.settings))
    else:
        blocks.append("The presets agree in everything that decides what is computed.")
    if comparison.background:
        blocks += ["Data, origin and versions:", _differing(comparison, comparison.background)]
    blocks.append("## Numbers")
    for one in comparison.tables:
        blocks += _table(comparison, one)
    blocks.append("## What each run found")
    for side in comparison.sides:
        blocks += [f"**{escaped(side.label)}**", findings(side.report.findings)]
        blocks.append(code(side.about.command(side.report)))
    return "\n\n".join(filter(None, blocks)) + "\n"


def _differing(comparison: Comparison, rows: Sequence[tuple[str, tuple[str, ...]]]) -> str:
    head = ["setting", *map(escaped, comparison.labels)]
    lines = [[escaped(path), *map(escaped, values)] for path, values in rows]
    return grid(head, lines, [False] * len(head))


def _table(comparison: Comparison, one: ComparedTable) -> list[str]:
    columns = one.columns([comparison.labels[index] for index in one.runs])
    head = [escaped(head) for head, _, _ in columns]
    rows = zip(*([escaped(text) for text in cells] for _, cells, _ in columns), strict=True)
    title = f"{comparison.heading(one)} · {one.title}"
    notes = "\n".join(f"- {escaped(note)}" for note in one.notes())
    return [
        f"**{escaped(title)}**",
        grid(head, rows, [is_number for _, _, is_number in columns]),
        notes,
        how(one.table),
    ]
