"""Several trainings of the same kind, reported together: mean, spread, and each one's own."""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Sequence
from statistics import fmean, stdev

from selfsup_cli.config.presets import Resolved
from selfsup_cli.jobs import common
from selfsup_cli.jobs.common import Outcome
from selfsup_cli.runs import atomic
from selfsup_cli.runs import report as reports
from selfsup_cli.runs.report import Finding, Measurement, Picture, ProtocolValue, Report
from selfsup_cli.runs.run import Run
from selfsup_cli.runs.statistics import Interval, clustered_mean

# What is told of each run apart, and so is not part of what they have in common.
# What cannot be below zero, whatever a symmetric interval says.
_COUNTS = ("modes",)
_OWN = ("seed", "weights", "per_class", "per_attribute", "start")


def together(
    resolved: Resolved, name: str, command: Sequence[str], outcomes: Sequence[Outcome]
) -> Outcome:
    """The run `name`, whose report has mean and standard deviation over finished runs."""
    runs = [Run.open(one.run_dir) for one in outcomes if one.run_dir is not None]
    found = [run.report() for run in runs]
    all_reports = [one for one in found if one is not None]
    parents = [
        {"run": run.name, "arch": run.info.arch, "sha256": report.weights}
        for run, report in zip(runs, all_reports, strict=True)
    ]
    prints = "".join(str((run.info.dataset or {}).get("fingerprint")) for run in runs)
    data = runs[0].info.dataset or {}
    fingerprint = hashlib.sha256(prints.encode()).hexdigest()
    record = common.started_run(
        resolved,
        name,
        arch=str(runs[0].info.arch),
        data=str(runs[0].info.data),
        seed=runs[0].info.seed,
        command=command,
        dataset={"name": data.get("name"), "fingerprint": fingerprint},
        parents=parents,
    )
    with common.ending(record):
        record.set_status("running")
        rows = [
            mean_of([report.measurements[k] for report in all_reports])
            for k in range(len(all_reports[0].measurements))
        ]
        report = Report(
            job=resolved.job,
            run=record.name,
            command=shlex.join(record.info.command),
            created=reports.now(),
            findings=[_spread(rows[0], [one.measurements[0].value for one in all_reports], runs)],
            measurements=rows,
            pictures=_pictures(record, runs[0], all_reports[0]),
            data={one.run: one.data for one in all_reports},
            cost=_summed([one.cost for one in all_reports]),
            left_out=all_reports[0].left_out,
            left_out_total=all_reports[0].left_out_total,
        )
        record.write_report(report)
        record.finish()
    return Outcome(record.path, report)


def _pictures(record: Run, first: Run, report: Report) -> list[Picture]:
    """Those of the first run, as an example."""
    shown = []
    for one in report.pictures:
        source = first.path / one.file
        if source.is_file():
            name = source.name
            atomic.write_bytes(record.picture(name), source.read_bytes())
            shown.append(Picture(file=f"pictures/{name}", caption=f"{first.name}: {one.caption}"))
    return shown


def mean_of(rows: Sequence[Measurement]) -> Measurement:
    """Mean of the same number of several runs, with Student's t interval over the runs.

    The interval says how much the mean would differ for other seeds or splits; `protocol` holds
    the standard deviation and the single values.
    """
    values = [row.value for row in rows]
    first = rows[0]
    common_protocol: dict[str, ProtocolValue] = {
        key: value
        for key, value in first.protocol.items()
        if key not in _OWN and all(row.protocol.get(key) == value for row in rows)
    }
    mean, interval = clustered_mean(values)
    if interval is not None:
        ends = (interval.low, interval.high)
        if first.unit == "%":
            ends = (max(0.0, ends[0]), min(100.0, ends[1]))
        elif first.metric in _COUNTS:
            ends = (max(0.0, ends[0]), ends[1])
        interval = Interval(
            low=ends[0], high=ends[1], method=f"Student t over {len(values)} trainings"
        )
    splits = list(dict.fromkeys(row.split for row in rows))
    update = {
        "value": mean,
        "interval": interval,
        "n": len(values),
        "split": splits[0] if len(splits) == 1 else f"mean of {', '.join(splits)}",
        "published": first.published if len(splits) == 1 else _of_all_splits(first, splits),
        "protocol": {
            **common_protocol,
            "runs": len(values),
            "standard_deviation": round(stdev(values), 3) if len(values) > 1 else 0.0,
            "values": [round(value, 3) for value in values],
        },
    }
    return Measurement.model_validate({**first.model_dump(), **update})


def _of_all_splits(row: Measurement, splits: Sequence[str]) -> reports.Published | None:
    """The thesis' number, whose mean over three splits or ten folds differs no more."""
    number, said = row.published, {3: "split: mean of the three ", 10: "split: mean of the ten "}
    if number is None or len(splits) not in said:
        return number
    differs = [text for text in number.differs if not text.startswith(said[len(splits)])]
    return number.model_copy(update={"differs": differs, "comparable": not differs})


def _spread(row: Measurement, values: Sequence[float], runs: Sequence[Run]) -> Finding:
    unit = row.unit or ""
    text = (
        f"{row.task}, {row.metric}: {fmean(values):.1f} {unit}, standard deviation "
        f"{stdev(values):.1f}, over {len(values)} trainings "
        f"({', '.join(f'{value:.1f}' for value in values)}): {', '.join(run.name for run in runs)}"
    )
    return Finding(text=text, verdict="note")


def _summed(costs: Sequence[dict[str, float]]) -> dict[str, float]:
    names = list(dict.fromkeys(name for cost in costs for name in cost))
    return {name: round(sum(cost.get(name, 0.0) for cost in costs), 1) for name in names}
