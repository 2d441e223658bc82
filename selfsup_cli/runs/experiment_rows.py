"""The table of an experiment laid out as text, once for the terminal, HTML and Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from selfsup_cli.runs.experiment_table import ExperimentTable, Heading, TableCell
from selfsup_cli.runs.report import Measurement
from selfsup_cli.runs.tables import Cell, Notes, interval, number
from selfsup_cli.runs.text import plain

NONE = "–"


@dataclass(frozen=True)
class Block:
    """One column of an experiment with all its rows. `notes` holds marks and why numbers miss."""

    title: str
    head: tuple[str, ...]
    right: tuple[bool, ...]
    rows: tuple[tuple[Cell, ...], ...]
    notes: tuple[tuple[str, str], ...]


BRACKETS = "Differences in brackets are between numbers of different protocols."


def brackets(table: ExperimentTable, measurements: Sequence[Measurement]) -> str:
    """What brackets mean, if there are any in the table."""
    compared = [
        measurements[cell.measurement].published
        for row in table.rows
        for cell in row.cells
        if cell.measurement is not None and cell.of is None
    ]
    return BRACKETS if any(one is not None and not one.comparable for one in compared) else ""


def blocks(table: ExperimentTable, measurements: Sequence[Measurement]) -> list[Block]:
    """Each column with ours, its interval, the thesis' number and the difference, row by row."""
    return [
        _block(table, place, heading, measurements) for place, heading in enumerate(table.columns)
    ]


def _block(
    table: ExperimentTable, place: int, heading: Heading, measurements: Sequence[Measurement]
) -> Block:
    marks: Notes[str] = Notes()
    found = [row.cells[place] for row in table.rows]
    ours = [None if one.measurement is None else measurements[one.measurement] for one in found]
    has_thesis = any(one.printed is not None for one in found)
    rows = []
    for row, cell, measured in zip(table.rows, found, ours, strict=True):
        cells = [Cell(plain(row.label)), _ours(cell, measured, marks, own=row.own)]
        cells.append(Cell("" if measured is None else interval(measured)))
        cells.append(Cell("") if measured is None else Cell(str(measured.n), measured.n))
        if has_thesis:
            cells += [_printed(cell, heading), _difference(cell, measured)]
        rows.append(tuple(cells))
    head = ["", "ours", "interval", "n", *(("thesis", "difference") if has_thesis else ())]
    return Block(
        title=_title(heading, [one for one in ours if one is not None]),
        head=tuple(head),
        right=tuple(name != "" for name in head),
        rows=tuple(rows),
        notes=marks.marked(),
    )


def _title(heading: Heading, measured: Sequence[Measurement]) -> str:
    said = [plain(heading.head)]
    if heading.unit:
        said.append(f"in {plain(heading.unit)}")
    chances = {one.chance for one in measured}
    if len(chances) == 1 and (chance := chances.pop()) is not None:
        said.append(f"chance {number(chance, heading.unit)}")
    if heading.better == "lower":
        said.append("lower is better")
    return " · ".join(said)


def _ours(cell: TableCell, measured: Measurement | None, marks: Notes[str], *, own: bool) -> Cell:
    if measured is not None:
        return Cell(number(measured.value, measured.unit), measured.value)
    if cell.gap is None or not own:
        return Cell("")
    return Cell(f"{NONE} [{marks.mark(plain(cell.gap))}]")


def _printed(cell: TableCell, heading: Heading) -> Cell:
    if cell.printed is None:
        return Cell("")
    text = number(cell.printed, heading.unit)
    return Cell(text if cell.of is None else f"{plain(cell.of)} {text}", cell.printed)


def _difference(cell: TableCell, measured: Measurement | None) -> Cell:
    if cell.printed is None or measured is None or cell.of is not None:
        return Cell("")
    difference = measured.value - cell.printed
    text = f"{'+' if difference > 0 else ''}{number(difference, measured.unit)}"
    comparable = measured.published is not None and measured.published.comparable
    return Cell(text if comparable else f"({text})", difference)
