"""The numbers of an experiment, out of the reports of its stages, beside those of the thesis."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from selfsup_cli.config.experiment import Column, Experiment, Measured, Row
from selfsup_cli.errors import InputError
from selfsup_cli.jobs.reproduce_combined import end, lines, over_rows, read_off, spread
from selfsup_cli.jobs.reproduce_plan import Plan
from selfsup_cli.jobs.reproduce_stages import Failure, State
from selfsup_cli.runs import published
from selfsup_cli.runs.experiment_table import ExperimentTable, Heading, TableCell, TableRow
from selfsup_cli.runs.published_gan import FID, SCORE
from selfsup_cli.runs.report import Curve, Measurement, Published, Report

UNCHECKED = "whether all else of its protocol is the same was not checked by the run"


Numbers = dict[tuple[str, str], Measurement]


@dataclass(frozen=True)
class Gathered:
    """The numbers as far as they are there: by row and column, and as a table, and the curves that
    some of them are read off.

    The table refers to `numbers` by their places.
    """

    numbers: Numbers
    printed: dict[tuple[str, str], float]
    table: ExperimentTable
    curves: list[Curve]


def gather(plan: Plan, states: Mapping[str, State], failures: Mapping[str, Failure]) -> Gathered:
    """All numbers that are there, and why the others are not. `states` are the stages', by run."""
    experiment = plan.experiment
    numbers: Numbers = {}
    thesis: dict[tuple[str, str], float] = {}
    rows = []
    ends = {one.key: end(plan, one, states) for one in experiment.columns if one.along}
    for row in experiment.rows:
        cells = []
        for column in experiment.columns:
            printed = printed_row(experiment, row, column)
            value = None if printed is None else printed.value
            if value is not None:
                thesis[row.key, column.key] = value
            run = plan.cells.get((row.key, row.use.get(column.stage, column.stage)))
            found = None if run is None else _ours(plan, row, column, run, states, failures)
            if row.spread_of:
                found = spread(experiment, row, column, numbers)
            elif isinstance(found, Measurement) and column.along and run is not None:
                found = read_off(found, column, states[run].report, ends[column.key])
            if isinstance(found, Measurement):
                place = len(numbers)
                beside = _beside(plan, found, printed)
                numbers[row.key, column.key] = found.model_copy(update={"published": beside})
                other = other_metric(found, printed)
                cells.append(TableCell(measurement=place, printed=value, of=other))
            else:
                cells.append(TableCell(printed=value, gap=found))
        rows.append(TableRow(key=row.key, label=row.label, cells=cells))
    table = ExperimentTable(
        title=experiment.title,
        scale=plan.scale,
        columns=[_heading(experiment, column, numbers) for column in experiment.columns],
        rows=[*rows, *_of_others(experiment)],
        differs=plan.differs,
    )
    curves = [*lines(plan, states), *over_rows(experiment, numbers)]
    return Gathered(numbers, thesis, table, curves)


def thesis_numbers(experiment: Experiment) -> dict[tuple[str, str], published.Row]:
    """What the thesis prints, by row and column. Raises InputError as `printed_row` does."""
    return {
        (row.key, column.key): printed
        for row in experiment.rows
        for column in experiment.columns
        if (printed := printed_row(experiment, row, column)) is not None
    }


def printed_row(experiment: Experiment, row: Row, column: Column) -> published.Row | None:
    """The number that the thesis prints for a row and column; None if it prints none.

    Raises InputError if what the experiment says fits several.
    """
    if experiment.printed is None or row.printed is None or column.printed is None:
        return None
    wanted = {**row.printed, **column.printed.model_dump(exclude_none=True)}
    fits = [
        one
        for one in published.ROWS
        if one.table == experiment.printed
        and all(fact(one, name) == value for name, value in wanted.items())
    ]
    if len(fits) > 1:
        raise InputError(
            f"{experiment.experiment}: row {row.key} and column {column.key} fit {len(fits)} "
            f"numbers of {experiment.printed}",
            kind="experiment",
        )
    return fits[0] if fits else None


def fact(row: published.Row, name: str) -> Any:
    """What a printed number says of `name`: a field of it, or a condition."""
    return row.conditions[name] if name in row.conditions else getattr(row, name, None)


def select(report: Report, measured: Measured) -> Measurement:
    """The number of a report that an experiment means. Raises InputError unless it is one."""
    named = measured.model_dump(exclude={"protocol"})
    wanted = {name: value for name, value in named.items() if value is not None}
    wanted["control"] = measured.control
    fits = [
        one
        for one in report.measurements
        if all(getattr(one, name) == value for name, value in wanted.items())
        and all(one.protocol.get(fact) == value for fact, value in measured.protocol.items())
    ]
    if len(fits) != 1:
        told = {**wanted, **measured.protocol}
        said = ", ".join(f"{name} {value}" for name, value in told.items() if value is not None)
        raise InputError(
            f"run {report.run} reports {len(fits) or 'no'} numbers with {said}", kind="experiment"
        )
    return fits[0]


def _ours(
    plan: Plan,
    row: Row,
    column: Column,
    run: str,
    states: Mapping[str, State],
    failures: Mapping[str, Failure],
) -> Measurement | str:
    """Our number for a row and column, under their names, or why there is none."""
    if run in failures:
        broken = _root(run, failures)
        return f"{broken}: {failures[broken].reason}"
    state = states[run]
    if state.report is None:
        return state.problem or "not run yet"
    try:
        found = select(state.report, column.measured.model_copy(update=row.measured))
    except InputError as error:
        return str(error)
    return found.model_copy(update={"name": column.head, "subject": row.label})


def _root(run: str, failures: Mapping[str, Failure]) -> str:
    """The stage whose failure a stage was not begun for, or itself."""
    because = failures[run].because
    return run if because is None else _root(because, failures)


def _beside(plan: Plan, m: Measurement, printed: published.Row | None) -> Published | None:
    """The thesis' number, and all that is known to differ: by the scale, and by the run itself."""
    if printed is None:
        return None
    differs = [*plan.differs]
    own = m.published
    if own is not None and own.where == printed.where:
        differs += own.differs
    elif m.dataset != printed.dataset:
        differs.append(f"measured on {printed.dataset} in the thesis, on {m.dataset} here")
    else:
        differs.append(UNCHECKED)
    return Published(
        value=printed.value, where=printed.where, comparable=not differs, differs=differs
    )


def other_metric(m: Measurement, printed: published.Row | None) -> str | None:
    """The metric of a printed number that is a score of generators by Inception's features, where
    ours is by those of another network."""
    if printed is None or printed.metric not in (FID, SCORE) or printed.metric == m.metric:
        return None
    return printed.metric


def _heading(experiment: Experiment, column: Column, numbers: Numbers) -> Heading:
    units = [m.unit for (_, key), m in numbers.items() if key == column.key]
    units += [
        printed.unit
        for row in experiment.rows
        if (printed := printed_row(experiment, row, column)) is not None
    ]
    unit = units[0] if units else ""
    head = column.head
    if column.measured.metric is None:
        # By which network it is depends on the scale, and it is not to be taken for another one.
        metrics = dict.fromkeys(m.metric for (_, key), m in numbers.items() if key == column.key)
        head = ", ".join([head, *metrics])
    return Heading(key=column.key, head=head, unit=unit, better=column.better)


def _of_others(experiment: Experiment) -> Iterator[TableRow]:
    """What the thesis prints beside the rows of the experiment."""
    if not experiment.others:
        return
    shown = {
        id(printed)
        for row in experiment.rows
        for column in experiment.columns
        if (printed := printed_row(experiment, row, column)) is not None
    }
    rows: dict[str, dict[str, float]] = {}
    for one in published.ROWS:
        if one.table != experiment.printed or id(one) in shown:
            continue
        for column in experiment.columns:
            kept = column.printed
            wanted = {} if kept is None else kept.model_dump(exclude_none=True)
            if wanted and all(fact(one, name) == value for name, value in wanted.items()):
                trained = f"trained on {one.trained_on}" if one.trained_on else ""
                label = ", ".join(filter(None, (one.method, one.network, trained)))
                rows.setdefault(label, {})[column.key] = one.value
    for label, values in rows.items():
        cells = [TableCell(printed=values.get(column.key)) for column in experiment.columns]
        yield TableRow(key=label, label=label, cells=cells, own=False)
