"""Experiments on generators: what there is at which scale, who judges, numbers made of others."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import pytest

from selfsup_cli.config import experiment_files
from selfsup_cli.config.experiment import Experiment
from selfsup_cli.config.presets import dump
from selfsup_cli.errors import InputError
from selfsup_cli.jobs import reproduce as job
from selfsup_cli.jobs.repeats import mean_of
from selfsup_cli.jobs.reproduce_combined import at, lines, spread
from selfsup_cli.jobs.reproduce_plan import Given, Plan, Stage, plan
from selfsup_cli.jobs.reproduce_stages import State, looks_done, state
from selfsup_cli.jobs.reproduce_table import gather, other_metric
from selfsup_cli.runs import published
from selfsup_cli.runs.experiment_rows import blocks
from selfsup_cli.runs.experiment_table import ExperimentTable, Heading, TableCell, TableRow
from selfsup_cli.runs.report import Curve, Measurement, Report, now
from selfsup_cli.runs.run import Run, runs_dir

TIME = "training time, s"
METRIC = "FD-alexnet"


def planned(name: str, scale: Any = "smoke", **given: Any) -> Plan:
    return plan(experiment_files.load(name), scale, Given(**given))


def measured(values: list[float], **more: Any) -> Measurement:
    """As `score` says it of several trainings."""
    about: dict[str, Any] = {
        "task": "score", "name": "Fréchet distance", "subject": "run", "dataset": "scenes",
        "split": "test", "metric": METRIC, "unit": "", "n": 100,
        "protocol": {"runs": len(values), "values": values, "checkpoints": [5, 10], "seed": 0},
    }  # fmt: skip
    return Measurement(**{**about, **more}, value=fmean(values))


def report(m: Measurement, curves: list[Curve] | None = None) -> Report:
    return Report(
        job="score", run="r", command="", created=now(), measurements=[m], curves=curves or []
    )


def curve(points: list[tuple[float, float]], run: str = "seed0", over: str = TIME) -> Curve:
    return Curve(name=f"{METRIC}, {run}", x_label=over, y_label="", points=points)


# -- what stands beside what


def shown(metric: str) -> tuple[str, ...]:
    """The row of a number of ours by `metric` beside a printed FID of 28.6."""
    ours = measured([4.0], metric=metric)
    printed = next(one for one in published.ROWS if one.metric == "FID")
    of = other_metric(ours, printed)
    table = ExperimentTable(
        title="t",
        scale="smoke",
        columns=[Heading(key="c", head="c", unit="")],
        rows=[TableRow(key="r", label="r", cells=[TableCell(measurement=0, printed=28.6, of=of)])],
        differs=[],
    )
    ((row,),) = [one.rows for one in blocks(table, [ours])]
    return tuple(cell.text for cell in row)


def test_no_difference_is_shown_between_fid_and_another_distance() -> None:
    assert shown(METRIC)[-2:] == ("FID 28.6", "")
    assert shown("FID")[-2:] == ("28.6", "(-24.6)")


def test_intervals_of_counts_do_not_go_below_none() -> None:
    rows = [
        measured([value], metric="modes", name="modes covered") for value in (0.0, 0.0, 2.0, 0.0)
    ]
    found = mean_of(rows)
    assert found.interval is not None
    assert found.interval.low == 0
    assert found.interval.high > found.value
    other = mean_of([one.model_copy(update={"metric": "bits"}) for one in rows]).interval
    assert other is not None
    assert other.low < 0


# -- what there is at which scale


def test_images_are_judged_by_ours_but_at_the_scale_of_the_thesis() -> None:
    small, paper = planned("table-7.1", "small"), planned("table-7.1", "paper", inception="w.pth")
    stage = small.stages[small.cells["g", "score"]]
    assert stage.needs == (small.cells["g", "pretrain"], small.cells["standard", "judge"])
    found: Any = stage.resolved.preset
    assert (found.subject.run, found.judges.features) == (stage.needs[0], [stage.needs[1]])
    assert found.judges.inception is None
    stage = paper.stages[paper.cells["g-stl", "score"]]
    assert stage.needs == (paper.cells["g-stl", "pretrain"],)
    found = stage.resolved.preset
    assert (found.judges.features, found.judges.inception) == ([], "w.pth")
    assert "--inception w.pth" in stage.command()
    assert not any(one.stage in ("judge", "ring") for one in paper.stages.values())
    assert [column.key for column in small.experiment.columns] == ["distance", "modes", "good"]
    assert [column.key for column in paper.experiment.columns] == ["distance", "score"]
    assert not any("stl" in row.key for row in small.experiment.rows)
    assert all("STL-10" not in one.says for one in small.experiment.findings)
    assert not any("dots" in one.says for one in paper.experiment.findings)


def test_rows_at_the_scale_of_the_thesis_are_its_presets() -> None:
    laid = planned("figure-7.6", "paper")
    for method in ("standard", "gan-gp", "sngan", "dfgan"):
        for setting in ("a", "b", "c", "d", "e", "f", "deep"):
            stage = laid.stages[laid.cells[f"{method}-{setting}", "pretrain"]]
            assert stage.command() == (
                f"selfsup pretrain dfgan --preset dfgan/table-7.4/{setting}-{method} --seeds 0,1,2 "
                f"--run figure-7.6.paper.{method}-{setting}.pretrain"
            )
    celeba: Any = planned("table-7.3", "paper").stages
    found = celeba["table-7.3.paper.lsgan-df-celeba.pretrain"].resolved.preset
    assert (found.data.source, found.network.size, found.filtering.weight) == ("celeba", 64, 10)


def test_fid_without_its_network_is_refused_before_anything_runs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SELFSUP_DATA", str(tmp_path))
    with pytest.raises(job.MissingDataError) as caught:
        job.reproduce("table-7.1", scale="paper", rows=["!*-stl"])
    network, data = sorted(caught.value.problems, reverse=True)[:2]
    assert "weights-inception-2015-12-05-6726825d.pth" in network + data
    assert len(caught.value.problems) == 2
    assert not any("stl10" in one for one in caught.value.problems)
    with pytest.raises(job.MissingDataError, match="stl10"):
        job.reproduce("table-7.1", scale="paper")
    with pytest.raises(job.MissingDataError, match=r"--inception w\.pth: there is no such file"):
        job.reproduce("figure-7.3", scale="paper", given=Given(inception="w.pth"))
    with pytest.raises(InputError, match=r"at the scale smoke no stage of table-7\.3 mea"):
        planned("table-7.3", inception="w.pth")
    script = job.script("table-7.1", scale="paper", rows=["g"], given=Given(inception="w.pth"))
    assert script.splitlines()[-1].endswith("--scale paper --inception w.pth")


# -- stages that are folders, and what stands in the way of a score


def test_samples_are_a_folder_that_is_done_when_it_says_so() -> None:
    laid = planned("figure-7.7")
    stage = laid.stages[laid.cells["noise", "sample"]]
    assert stage.path.parent == runs_dir()
    words = stage.arguments()
    assert words[words.index("--out") + 1] == str(stage.path)
    assert "--run" not in words
    assert not state(stage, laid.stages).begun
    stage.path.mkdir(parents=True)
    facts = stage.path / "samples.json"
    for text in ("", "[]", '{"files": ["noise.png"]}'):
        facts.write_text(text)
        assert (state(stage, laid.stages).done, looks_done(stage)) == (False, False)
    facts.write_text('{"complete": true}')
    assert (state(stage, laid.stages).done, looks_done(stage)) == (True, True)


def make_run(stage: Stage, weights: str | None = None, parents: Any = ()) -> Run:
    run = Run.create_or_continue(
        runs_dir(), stage.run, preset=dump(stage.resolved.preset), identity=stage.identity,
        command=["selfsup"], job=stage.job, seed=0, dataset=None, parents=[*parents],
    )  # fmt: skip
    with run:
        run.write_report(report(measured([1.0])).model_copy(update={"weights": weights}))
        run.finish()
    return run


def test_a_score_is_of_the_generator_not_of_the_discriminator() -> None:
    laid = planned("figure-7.3")
    stage = laid.stages[laid.cells["dfgan", "score"]]
    subject, judge = (laid.stages[need] for need in stage.needs)
    trained = make_run(subject, weights="g" * 64)
    sidecar = trained.path / "backbone.safetensors.json"
    sidecar.write_text(json.dumps({"weights": {"sha256": "d" * 64}}))
    make_run(judge, weights="j" * 64)
    origins = [{"run": subject.run, "sha256": "g" * 64}, {"run": judge.run, "sha256": "j" * 64}]
    make_run(stage, parents=origins)
    assert state(stage, laid.stages).done
    other = planned("figure-7.3")
    sibling = other.stages[other.cells["halves", "score"]]
    make_run(other.stages[sibling.needs[0]], weights="h" * 64)
    make_run(sibling, parents=[{"run": sibling.needs[0], "sha256": "x" * 64}])
    problem = state(sibling, other.stages).problem
    assert problem is not None
    assert "started from other weights" in problem


# -- numbers that are made of others


def of_rows(text: str) -> Experiment:
    from selfsup_cli.config.document import parse

    return Experiment.model_validate_json(json.dumps(parse(text).data))


SPREAD = of_rows("""\
version: 1
experiment: mine
title: A test
columns:
  - key: fd
    head: Distance
    stage: score
    measured: {task: score, name: Fréchet distance}
    better: lower
    along: training time, s
stages:
  - {name: pretrain, job: pretrain/dfgan}
  - {name: score, job: score, needs: [pretrain]}
rows:
  - {key: a, label: A}
  - {key: b, label: B, set: {pretrain: {filtering.noise: none}}}
  - {key: c, label: C, set: {pretrain: {filtering.noise: gaussian}}}
  - {key: all, label: Spread, spread_of: [a, b, c]}
scales:
  smoke:
    about: little
    cost: {hours: 1, machine: mine}
    differs: [small]
    stages: [{name: score, set: {judges.features: [random]}}]
""")


def test_spread_in_each_training_by_itself() -> None:
    row, column = SPREAD.row("all"), SPREAD.columns[0]
    values = {"a": [1.0, 5.0], "b": [4.0, 4.0], "c": [2.0, 7.5]}
    numbers = {(key, "fd"): measured(found) for key, found in values.items()}
    found = spread(SPREAD, row, column, numbers)
    assert isinstance(found, Measurement)
    assert found.value == pytest.approx((3 + 3.5) / 2)
    assert found.interval is not None
    half = 12.7062 * stdev([3, 3.5]) / 2**0.5
    assert found.interval.high == pytest.approx(3.25 + half, rel=1e-4)
    assert found.protocol["values"] == [3.0, 3.5]
    assert found.protocol["spread_of"] == ["A", "B", "C"]
    assert "checkpoints" not in found.protocol
    # One training of each has no interval, and a row that is missing leaves a gap.
    alone = {key: m.model_copy(update={"protocol": {"seed": 0}}) for key, m in numbers.items()}
    found = spread(SPREAD, row, column, alone)
    assert isinstance(found, Measurement)
    assert found.value == pytest.approx(4.75 - 3)
    assert found.interval is None
    del numbers["b", "fd"]
    assert "not there: b" in str(spread(SPREAD, row, column, numbers))


def test_a_curve_between_its_points_and_beyond() -> None:
    points = [(1.0, 10.0), (3.0, 6.0), (4.0, 8.0)]
    assert [at(points, x) for x in (0, 1, 2, 3.5, 4, 9)] == [10, 10, 8, 7, 8, 8]


@pytest.fixture
def states() -> Callable[[Plan, dict[str, Report]], dict[str, State]]:
    def made(laid: Plan, reports: dict[str, Report]) -> dict[str, State]:
        found = dict.fromkeys(laid.stages, State(False))
        for row, one in reports.items():
            found[laid.cells[row, "score"]] = State(True, report=one)
        return found

    return made


def test_numbers_at_the_time_that_all_rows_reach(
    states: Callable[[Plan, dict[str, Report]], dict[str, State]],
) -> None:
    laid = plan(SPREAD, "smoke")
    slow = [curve([(2, 9), (8, 3)]), curve([(2, 7), (8, 1)], "seed1")]
    quick = [curve([(1, 8), (4, 4)]), curve([(1, 8), (5, 2)], "seed1")]
    by_step = curve([(10, 0), (20, 0)], over="step")
    found = states(
        laid,
        {
            "a": report(measured([3.0, 1.0]), [by_step, *slow]),
            "b": report(measured([4.0, 2.0]), quick),
            "c": report(measured([4.0, 2.0])),
        },
    )
    gathered = gather(laid, found, {})
    a, b = gathered.numbers["a", "fd"], gathered.numbers["b", "fd"]
    assert a.protocol["values"] == [7.0, 5.0]
    assert b.protocol["values"] == [4.0, 3.5]
    assert a.protocol["read_at"] == "4 (training time, s)"
    assert (a.subject, a.name, a.metric) == ("A", "Distance", METRIC)
    cells = {row.key: row.cells[0] for row in gathered.table.rows}
    assert cells["c"].gap == f"its run has no curves of {METRIC} over {TIME}"
    assert gathered.table.columns[0].head == f"Distance, {METRIC}"
    drawn = {one.name: one.points for one in lines(laid, found)}
    assert drawn == {"A": [(2, 8), (8, 2)], "B": [(1, 8), (4.5, 3)]}
    assert gathered.curves == lines(laid, found)
