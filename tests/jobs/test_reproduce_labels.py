"""Experiments on wrong labels: who lends runs to whom, and who tells wrong labels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from selfsup_cli.config import experiment_files
from selfsup_cli.config.experiment import SCALES, ScaleName
from selfsup_cli.config.finding import builtin_root
from selfsup_cli.config.problems import PresetError
from selfsup_cli.jobs.reproduce_combined import over_rows
from selfsup_cli.jobs.reproduce_plan import Given, Plan, plan
from selfsup_cli.jobs.reproduce_table import thesis_numbers
from selfsup_cli.runs.report import Measurement
from selfsup_cli.runs.statistics import Interval


def planned(name: str, scale: ScaleName = "smoke", **given: Any) -> Plan:
    return plan(experiment_files.load(name), scale, Given(**given))


def preset(laid: Plan, row: str, stage: str) -> Any:
    return laid.stages[laid.cells[row, stage]].resolved.preset


@pytest.mark.parametrize("scale", SCALES)
def test_baselines_of_figure_8_2_are_those_of_table_8_1(scale: ScaleName) -> None:
    figure, table = planned("figure-8.2", scale), planned("table-8.1", scale)
    for row in ("inception-sgd", "inception-baseline"):
        assert figure.cells[row, f"{row}-noisy"] == table.cells[row, "noisy"]
    # Nothing but the setting of the series is otherwise.
    base = preset(table, "inception-baseline", "noisy").model_dump()
    other = preset(figure, "inception-mu-1", "noisy").model_dump()
    assert other["weighing"].pop("mu") == 1.0
    assert base["weighing"].pop("mu") == 0.01
    if scale == "smoke":
        assert base.pop("seeds") == [0, 1, 2, 3, 4]
        assert other.pop("seeds") == [0]
    # What a preset says of itself may differ.
    for told in (base, other):
        for key in ("description", "paper", "cost", "extends"):
            told.pop(key, None)
    assert base == other


@pytest.mark.parametrize("scale", SCALES)
def test_wrong_labels_of_table_8_4_are_those_of_its_first_row(scale: ScaleName) -> None:
    laid = planned("table-8.4", scale)
    teacher = laid.cells["sgd", "teacher"]
    assert teacher == laid.cells["bilevel", "teacher"]
    # What learns 1,024 images to the end predicts too few wrong labels: there it stops early.
    assert (teacher == laid.cells["sgd", "clean"]) is (scale != "smoke")
    assert len(laid.stages) == (5 if scale == "smoke" else 4)
    for row in ("sgd", "bilevel"):
        stage = laid.stages[laid.cells[row, "noisy"]]
        found: Any = stage.resolved.preset
        assert stage.needs == ("random", teacher)
        assert (found.start.init, found.data.noise.network) == ("random", teacher)
        assert (found.data.noise.kind, found.optim.name) == ("predicted", row)
        assert f"--noise-from {teacher}" in stage.command()


def test_half_the_labels_are_wrong_where_it_says_so() -> None:
    laid = planned("table-8.1", "paper")
    for (row, stage), run in laid.cells.items():
        found: Any = laid.stages[run].resolved.preset
        assert found.data.noise.share == {"clean": 0.0, "noisy": 0.5}[stage], row
        assert (found.train.epochs, found.train.batch_size) == (200, 128)
    levels = planned("figure-8.4", "paper")
    for row in ("sgd-0", "bilevel-0.7"):
        for stage, data in (("cifar10", "cifar10"), ("cifar100", "cifar100")):
            found = preset(levels, row, stage)
            kind, _, level = row.partition("-")
            assert (found.optim.name, found.data.noise.share) == (kind, float(level))
            assert (found.data.source, found.train.epochs, found.train.batch_size) == (
                data,
                100,
                64,
            )


def test_the_cell_that_is_printed_twice_is_left_out() -> None:
    found = thesis_numbers(experiment_files.load("table-8.1"))
    assert (found["cifarnet-per-layer", "noisy-train"].value) == 81.60
    assert ("inception-per-layer", "noisy-train") not in found
    assert ("inception-per-layer", "noisy-test") not in found
    assert "81.60" in experiment_files.load("table-8.1").about


def test_images_of_ones_own_are_learned_by_heart() -> None:
    """As few as `bilevel/small` has, for as long, without augmentation."""
    laid = planned("table-8.1", "smoke", data="/")
    found = preset(laid, "inception-sgd", "noisy")
    assert (found.fraction, found.train.epochs, found.train.batch_size) == (0.25, 60, 64)
    assert (found.augment.flip, found.augment.light, found.regularize.dropout) == (False, False, 0)


def test_levels_of_noise_are_points_of_two_lines() -> None:
    found = experiment_files.load("figure-8.4")
    number = Measurement(
        task="classify", name="top-1", subject="s", dataset="cifar10", split="test", metric="m",
        unit="%", value=0.0, n=1, protocol={"a": 1},
    )  # fmt: skip
    values = {"sgd-0": 88.0, "sgd-0.7": 30.0, "sgd-0.5": 47.0, "bilevel-0.5": 73.0}
    numbers = {(row, "test"): number.model_copy(update={"value": v}) for row, v in values.items()}
    sgd, bilevel = over_rows(found, numbers)
    assert (sgd.name, sgd.x_label, sgd.y_label) == ("SGD", "wrong labels, %", "Test")
    assert sgd.points == [(0.0, 88.0), (50.0, 47.0), (70.0, 30.0)]
    assert bilevel.points == [(50.0, 73.0)]
    assert sgd.intervals is None
    sure = numbers["sgd-0.5", "test"].model_copy(
        update={"interval": Interval(low=40.0, high=54.0, method="95% Wilson")}
    )
    sgd, _ = over_rows(found, numbers | {("sgd-0.5", "test"): sure})
    assert sgd.intervals == [None, (40.0, 54.0), None]


def test_a_point_has_a_place(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    text = (builtin_root() / "paper" / "figure-8.5.yaml").read_text(encoding="utf-8")
    path.write_text(text.replace("    at: 10.0\n", "", 1), encoding="utf-8")
    with pytest.raises(PresetError, match="needs both `line` and `at`"):
        experiment_files.load(str(path))
