"""Numbers of an experiment that are made of others: read off curves, and how far rows lie apart."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from statistics import fmean, stdev

from selfsup_cli.config.experiment import Column, Experiment, Row
from selfsup_cli.jobs.reproduce_plan import Plan
from selfsup_cli.jobs.reproduce_stages import State
from selfsup_cli.runs.report import Curve, Measurement, ProtocolValue, Report
from selfsup_cli.runs.statistics import Interval, clustered_mean

Numbers = Mapping[tuple[str, str], Measurement]

# What a protocol says of the checkpoints and trainings that a number is the mean of.
_OF_MEANS = ("checkpoints", "values", "standard_deviation", "deviation_over_checkpoints", "runs")


def spread(experiment: Experiment, row: Row, column: Column, numbers: Numbers) -> Measurement | str:
    """The largest less the smallest number of the rows `row.spread_of`, or why there is none.

    Where each of them is the mean over the same number of trainings, it is taken in the first
    training of all of them, in the second, and so on: its mean, with Student's t interval.
    """
    found = {key: numbers.get((key, column.key)) for key in row.spread_of}
    parts = [one for one in found.values() if one is not None]
    if len(parts) < len(found):
        missing = ", ".join(key for key, one in found.items() if one is None)
        return f"the spread needs the numbers of all its rows; not there: {missing}"
    trainings = [_trainings(one) for one in parts]
    together = len({len(values) for values in trainings}) == 1 and bool(trainings[0])
    columns = list(zip(*trainings, strict=True)) if together else [[one.value for one in parts]]
    values = [max(values) - min(values) for values in columns]
    labels = {one.key: one.label for one in experiment.rows}
    return _mean(
        parts[0],
        values,
        row.label,
        column.head,
        {"spread_of": [labels[key] for key in row.spread_of]},
    )


def end(plan: Plan, column: Column, states: Mapping[str, State]) -> float | None:
    """The farthest place that the curves of a column reach in every row that has any."""
    ends = [
        curve.points[-1][0]
        for _, report in _reports(plan, column, states)
        for curve in _curves_of(report, column)
    ]
    return min(ends, default=None)


def read_off(m: Measurement, column: Column, report: Report | None, place: float | None) -> (
    Measurement | str
):  # fmt: skip
    """`m` as the curves of its report have it at a place, or why there is none."""
    found = [] if report is None else _curves_of(report, column, m.metric)
    if place is None or not found:
        return f"its run has no curves of {m.metric} over {column.along}"
    values = [at(curve.points, place) for curve in found]
    return _mean(m, values, m.subject, column.head, {"read_at": f"{place:.4g} ({column.along})"})


def at(points: Sequence[tuple[float, float]], x: float) -> float:
    """The value of a curve at `x`, on straight lines between its points; beyond its ends theirs."""
    for (x0, y0), (x1, y1) in pairwise(points):
        if x0 <= x <= x1:
            return y0 if x1 == x0 else y0 + (y1 - y0) * (x - x0) / (x1 - x0)
    return points[0][1] if x < points[0][0] else points[-1][1]


def lines(plan: Plan, states: Mapping[str, State]) -> list[Curve]:
    """For every column that is read off curves one of each row: the mean over its trainings."""
    drawn = []
    for column in plan.experiment.columns:
        if column.along is None:
            continue
        for row, report in _reports(plan, column, states):
            found = _curves_of(report, column)
            if not found or len({len(curve.points) for curve in found}) > 1:
                continue
            points = [
                (fmean(x for x, _ in one), fmean(y for _, y in one))
                for one in zip(*(curve.points for curve in found), strict=True)
            ]
            head = f"{column.head}, {found[0].name.partition(', ')[0]}"
            drawn.append(Curve(name=row.label, x_label=column.along, y_label=head, points=points))
    return drawn


def over_rows(experiment: Experiment, numbers: Numbers) -> list[Curve]:
    """For every column the lines that its rows give points to, as far as there are numbers."""
    drawn = []
    for column in experiment.columns:
        lines: dict[str, list[tuple[float, Measurement]]] = {}
        for row in experiment.rows:
            number = numbers.get((row.key, column.key))
            if row.line is not None and row.at is not None and number is not None:
                lines.setdefault(row.line, []).append((row.at, number))
        drawn += [
            Curve.measured(points, name=name, x_label=experiment.axis, y_label=column.head)
            for name, points in lines.items()
        ]
    return drawn


def _reports(
    plan: Plan, column: Column, states: Mapping[str, State]
) -> Iterator[tuple[Row, Report]]:
    for row in plan.experiment.rows:
        run = plan.cells.get((row.key, row.use.get(column.stage, column.stage)))
        state = None if run is None else states.get(run)
        if state is not None and state.report is not None:
            yield row, state.report


def _curves_of(report: Report, column: Column, metric: str | None = None) -> list[Curve]:
    """The curves of the number that a column is about, one for each training."""
    wanted = metric or column.measured.metric
    if wanted is None:
        named = (one.metric for one in report.measurements if one.name == column.measured.name)
        wanted = next(named, None)
    return [
        curve
        for curve in report.curves
        if curve.x_label == column.along
        and curve.points
        and curve.name.partition(", ")[0] == wanted
    ]


def _trainings(m: Measurement) -> list[float]:
    """The number of each training that `m` is the mean of; nothing where it is of one."""
    values = m.protocol.get("values")
    if "runs" not in m.protocol or not isinstance(values, list):
        return []
    return [float(value) for value in values]


def _mean(
    m: Measurement,
    values: Sequence[float],
    subject: str,
    name: str,
    about: Mapping[str, ProtocolValue],
) -> Measurement:
    mean, interval = clustered_mean(values)
    if interval is not None:
        low = max(0.0, interval.low) if min(values) >= 0 else interval.low
        high = min(100.0, interval.high) if m.unit == "%" else interval.high
        interval = Interval(low=low, high=high, method=f"Student t over {len(values)} trainings")
    protocol: dict[str, ProtocolValue] = {
        key: said for key, said in m.protocol.items() if key not in _OF_MEANS
    }
    if len(values) > 1:
        protocol |= {
            "runs": len(values),
            "values": [float(f"{value:.6g}") for value in values],
            "standard_deviation": float(f"{stdev(values):.6g}"),
        }
    update = {
        "name": name,
        "subject": subject,
        "value": mean,
        "interval": interval,
        "chance": None,
        "chance_is": None,
        "published": None,
        "protocol": {**protocol, **about},
    }
    return Measurement.model_validate({**m.model_dump(), **update})
