"""Experiments on several views: who shares what, what a change gains, and the thesis' numbers."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from selfsup_cli.config import experiment_files
from selfsup_cli.config.experiment import Experiment, Finding, Measured
from selfsup_cli.config.experiment_rules import GainsMore
from selfsup_cli.errors import InputError
from selfsup_cli.jobs import reproduce as job
from selfsup_cli.jobs.reproduce_findings import findings, judge
from selfsup_cli.jobs.reproduce_plan import Given, Plan, plan
from selfsup_cli.jobs.reproduce_table import select, thesis_numbers
from selfsup_cli.runs import published
from selfsup_cli.runs.published_views import FROZEN
from selfsup_cli.runs.report import Interval, Measurement, Report, now

SAME = ("no-background", "both", "mult", "multi-view")


def planned(name: str, scale: Any = "smoke", **given: Any) -> Plan:
    return plan(experiment_files.load(name), scale, Given(**given))


def error(value: float, half: float = 2.0, **more: Any) -> Measurement:
    about: dict[str, Any] = {
        "task": "pose", "name": "MPJPE", "subject": "learned", "dataset": "figures",
        "split": "test", "metric": "MPJPE", "unit": "mm", "n": 100, "protocol": {"seed": 0},
        "interval": Interval(low=value - half, high=value + half, level=0.95, method="bootstrap"),
    }  # fmt: skip
    return Measurement(**{**about, **more}, value=value)


# -- what is run


@pytest.mark.parametrize("scale", ["smoke", "small", "paper"])
def test_one_network_for_all_rows_that_are_the_same_and_for_all_figures(scale: Any) -> None:
    table = planned("table-6.1", scale)
    trained = {table.cells[row, "pretrain"] for row in SAME}
    assert len(trained) == 1
    assert len({table.cells[row, "pose"] for row in SAME}) == 1
    assert len(table.stages) == 8 + 11
    for figure in ("figure-6.3", "figure-6.4", "figure-6.5", "figure-6.6"):
        laid = planned(figure, scale)
        assert trained <= set(laid.stages)
        # Of the table, and the pose of its baseline where that is shown.
        own = [run for run in laid.stages if not run.startswith("table-6.1")]
        assert len(own) == 1
    queries = [planned(f"figure-6.{k}", scale).stages for k in (5, 6)]
    assert set(queries[0]) == set(queries[1])


def test_rows_of_table_6_1_at_the_scale_of_the_thesis_are_its_presets() -> None:
    laid = planned("table-6.1", "paper")
    for row, letter in (
        ("background", "c"), ("both", "d"), ("flip", "e"), ("sync", "f"), ("concat", "h"),
        ("add", "i"), ("diff", "j"), ("single-view", "l"),
    ):  # fmt: skip
        stage = laid.stages[laid.cells[row, "pretrain"]]
        assert stage.command() == (
            f"selfsup pretrain multiview --preset multiview/table-6.1/{letter} --data human36m "
            f"--run {stage.run}"
        )
    for row, background, freeze in (
        ("random-background", "keep", None),
        ("random", "remove", None),
        ("random-frozen", "remove", "layer3"),
        ("background", "keep", None),
        ("no-background", "remove", None),
    ):
        preset: Any = laid.stages[laid.cells[row, "pose"]].resolved.preset
        assert (preset.images.background, preset.start.freeze) == (background, freeze)
        assert (preset.subjects, preset.images.test_every, preset.data.side) == (["S1"], 64, 224)
        assert (preset.start.init == "random") == row.startswith("random")


def test_commands_about_pairs_are_two_words() -> None:
    probe = planned("figure-6.4").stages["figure-6.4.smoke.gap-8.probe"]
    assert probe.command() == (
        "selfsup probe sync --preset probe-sync/base "
        "--from table-6.1.smoke.no-background.pretrain --run figure-6.4.smoke.gap-8.probe"
    )


def test_weights_of_imagenet_are_asked_for_before_anything_runs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "human36m").mkdir()
    monkeypatch.setenv("SELFSUP_DATA", str(tmp_path))
    with pytest.raises(job.MissingDataError, match=r"name a file .* with --imagenet"):
        job.reproduce("table-6.2", scale="paper")
    with pytest.raises(job.MissingDataError, match=r"--imagenet w\.safetensors: there is no such"):
        job.reproduce("table-6.2", scale="paper", given=Given(imagenet="w.safetensors"))
    with pytest.raises(InputError, match=r"--imagenet: at the scale smoke no stage of table-6\.2"):
        planned("table-6.2", imagenet="w.safetensors")
    laid = planned("table-6.2", "paper", imagenet="w.safetensors")
    for row in ("imagenet", "with-background"):
        stage = laid.stages[laid.cells[row, "mixed" if row[0] == "w" else "pretrain"]]
        preset: Any = stage.resolved.preset
        assert (preset.network.arch, preset.network.init) == ("resnet50", "imagenet")
        assert preset.network.weights == "w.safetensors"
    script = job.script("table-6.2", scale="paper", given=Given(imagenet="w.safetensors"))
    assert script.splitlines()[-1].endswith("--scale paper --imagenet w.safetensors")


def test_human36m_must_lie_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SELFSUP_DATA", str(tmp_path))
    with pytest.raises(job.MissingDataError, match="human36m is looked for in"):
        job.reproduce("table-6.1", scale="paper")


# -- what is said of the numbers


@pytest.fixture(scope="module")
def table() -> Experiment:
    return experiment_files.load("table-6.1")


def finding(table: Experiment, says: str) -> Finding:
    return next(one for one in table.findings if says in one.says)


def test_lower_errors_are_better(table: Experiment) -> None:
    both = finding(table, "both signals")
    keys = [(row, column) for row in ("both", "flip", "sync") for column in
            ("mpjpe", "nmpjpe", "pmpjpe")]  # fmt: skip
    good = {key: error(100 if key[0] == "both" else 110) for key in keys}
    assert judge(table, both, good)[0] == "supported"
    assert judge(table, both, {**good, ("sync", "mpjpe"): error(90)})[0] == "contradicted"
    assert judge(table, both, {**good, ("sync", "mpjpe"): error(103)})[0] == "cannot tell"


def test_as_good_within_5_mm_in_both_directions(table: Experiment) -> None:
    equal = finding(table, "worth the same")
    columns = ("mpjpe", "nmpjpe", "pmpjpe")

    def told(product: Measurement, difference: Measurement) -> str:
        cells = {("mult", one): product for one in columns}
        return judge(table, equal, cells | {("diff", one): difference for one in columns})[0]

    assert told(error(105), error(107)) == "supported"
    assert told(error(105), error(107, half=8)) == "cannot tell"
    assert told(error(105), error(115)) == "contradicted"
    assert told(error(115), error(105)) == "contradicted"


def test_a_change_that_gains_more_in_one_place_than_in_another(table: Experiment) -> None:
    more = finding(table, "gains far more")
    assert isinstance(more.gains_more, GainsMore)
    names = ("no-background", "background", "random", "random-background")

    def told(values: tuple[float, ...], half: float = 2.0) -> tuple[str, str]:
        cells = {
            (row, column): error(value, half)
            for row, value in zip(names, values, strict=True)
            for column in ("mpjpe", "nmpjpe", "pmpjpe")
        }
        return judge(table, more, cells)

    # Gains of 30 and 2; four half widths of 2 leave 4 open, of 14 leave 28.
    assert told((100, 130, 165, 167))[0] == "supported"
    assert told((100, 130, 165, 167), half=13.9)[0] == "supported"
    answer, why = told((100, 130, 165, 167), half=14.1)
    assert (answer, why) == (
        "cannot tell",
        "shown in 0 of 3 comparisons, in 3 the intervals overlap",
    )
    answer, why = told((130, 100, 165, 167))
    assert answer == "contradicted"
    assert "-30.0 against 2.0, the difference known to ± 4.0" in why
    assert judge(table, more, {})[0] == "cannot tell"
    # As printed: gains of 33.5, 36.4 and 22.4 against 2.3, 1.7 and 10.
    printed = {cell: one.value for cell, one in thesis_numbers(table).items()}
    first = findings(table, {}, printed)[0]
    assert first.text.endswith("3 not measured; the printed numbers lie so in 3 of 3")


def test_the_thesis_says_of_its_own_numbers_what_the_findings_say(table: Experiment) -> None:
    printed = {cell: one.value for cell, one in thesis_numbers(table).items()}
    for one, said in zip(table.findings, findings(table, {}, printed), strict=True):
        if "a control of ours" not in one.where:
            (told,) = [part for part in said.text.split("; ") if part.startswith("the printed")]
            lies, total = told.removeprefix("the printed numbers lie so in ").split(" of ")
            assert lies == total, said.text


def test_a_number_is_known_by_its_protocol_too() -> None:
    rows = [
        error(value, name="told", metric="accuracy", protocol={"who": who, "gap": 8})
        for who, value in (("all unseen", 60.0), ("all seen", 70.0))
    ]
    report = Report(job="probe-sync", run="r", command="", created=now(), measurements=rows)
    measured = Measured(task="pose", name="told", protocol={"who": "all seen"})
    assert select(report, measured).value == 70
    with pytest.raises(InputError, match=r"reports no numbers with .*who nobody"):
        select(report, measured.model_copy(update={"protocol": {"who": "nobody"}}))
    with pytest.raises(InputError, match="reports 2 numbers"):
        select(report, Measured(task="pose", name="told"))


# -- the thesis' numbers beside those of a transfer


def beside(trained: dict[str, Any], **more: Any) -> Measurement:
    from selfsup_cli.jobs.thesis import beside_pose

    backbone: Any = SimpleNamespace(
        arch="resnet18", trained_on=trained, input=SimpleNamespace(crop=224)
    )
    protocol = {
        "labelled_subjects": "S1", "background": "removed", "test_frames": "one in 64",
    }  # fmt: skip
    split = "official, subjects S9, S11 held out; poses of S1 learned from"
    about = {"dataset": "human36m", "split": split, "protocol": protocol}
    row = error(100, **{**about, **more})
    return beside_pose(
        row, backbone, frozen=row.subject == "learned", subjects=["S1"], updates=200_000
    )


BASELINE: dict[str, Any] = {
    "method": "multiview", "data": "human36m", "questions": ["sync", "flip"], "fusion": "mult",
    "background": "remove", "views": "multi", "init": "random", "steps": 200_000,
}  # fmt: skip


@pytest.mark.parametrize(
    ("change", "value"),
    [
        ({}, 104.9),
        ({"questions": ["flip"]}, 129.9),
        ({"questions": ["sync"]}, 113.7),
        ({"fusion": "concat"}, 180.0),
        ({"fusion": "add"}, 169.4),
        ({"fusion": "diff"}, 108.2),
        ({"views": "single"}, 158.3),
    ],
)
def test_the_row_of_the_pretraining_stands_beside(change: dict[str, Any], value: float) -> None:
    found = beside({**BASELINE, **change}).published
    assert found is not None
    assert (found.value, found.differs, found.comparable) == (value, [], True)
    assert found.where.startswith("thesis table 6.1, ResNet-18, trained on human36m")


def test_what_differs_stands_beside_as_well() -> None:
    found = beside({**BASELINE, "steps": 5000, "fusion": "add", "questions": ["sync"]}).published
    assert found is not None
    assert found.differs == [
        "ablation: multi-view SSL in the thesis, fusion add + only sync here",
        "pretraining updates: 200000 in the thesis, 5000 here",
    ]
    kept = {"labelled_subjects": "S1", "background": "kept", "test_frames": "one in 64"}
    found = beside({**BASELINE, "background": "keep"}, protocol=kept).published
    assert found is not None
    assert (found.value, found.differs) == (138.4, [])
    found = beside({}, subject="random weights", protocol=kept).published
    assert found is not None
    assert (found.value, found.differs) == (167.8, [])
    # Actions and joints, other data and other methods have none.
    assert beside(BASELINE, name="MPJPE walking").published is None
    assert beside(BASELINE, dataset="figures").published is None
    assert beside({**BASELINE, "method": "artifacts"}).published is None


def test_poses_of_all_subjects_are_those_of_table_6_2() -> None:
    facts: dict[str, Any] = {
        "network": "resnet50", "trained_on": "human36m", "crop": 224, "frozen": FROZEN,
        "init": "imagenet", "ablation": "background mixed", "background": "kept",
        "labelled_subjects": "all of the training part", "updates": 200_000,
        "pretraining_updates": 200_000, "test_frames": "one in 64",
        "split": "official, subjects S9, S11 held out",
    }  # fmt: skip
    found = published.published("pose", "MPJPE", "human36m", **facts)
    assert found is not None
    assert (found.value, found.comparable) == (64.9, True)
