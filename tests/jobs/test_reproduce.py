"""`reproduce`: what is run, when nothing has to be, the table, and what intervals carry."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from selfsup_cli.config import experiment_files
from selfsup_cli.config.experiment import SCALES, Experiment, ScaleName
from selfsup_cli.config.presets import dump
from selfsup_cli.errors import InputError
from selfsup_cli.jobs import reproduce as job
from selfsup_cli.jobs.reproduce_findings import findings, judge
from selfsup_cli.jobs.reproduce_plan import Given, Plan, Stage, plan
from selfsup_cli.jobs.reproduce_stages import Failure, state
from selfsup_cli.jobs.reproduce_table import gather, thesis_numbers
from selfsup_cli.runs import published
from selfsup_cli.runs.report import Interval, Measurement, Published, Report, accuracy, now
from selfsup_cli.runs.run import Run, runs_dir

ROOT = Path(__file__).resolve().parents[2]
TABLES = (
    "3.1",
    "3.2",
    "3.3",
    "3.4",
    "3.5",
    "4.4",
    "5.1",
    "5.2",
    "5.3",
    "5.4",
    "6.1",
    "6.2",
    "7.1",
    "7.3",
    "8.1",
    "8.2",
    "8.3",
    "8.4",
)
NAMES = experiment_files.names({})
OF_POINTS = "figure-7.1"

TINY = """\
version: 1
experiment: tiny
title: A test
printed: thesis table 5.1
columns:
  - key: top
    head: Top
    stage: probe
    measured: {task: probe, metric: top-1 accuracy, subject: learned}
    printed: {task: frozen, metric: top-1 accuracy, dataset: ucf101}
stages:
  - {name: pretrain, job: pretrain/temporal}
  - {name: probe, job: probe, needs: [pretrain]}
rows:
  - key: a
    label: A
    printed: {method: Ours, transformations: speed}
    set: {pretrain: {time.kinds: [speed]}}
  - {key: b, label: B, printed: {method: Action Labels}}
  - {key: c, label: C}
findings:
  - says: a is better
    better: {pairs: [[a, b]], columns: [top]}
scales:
  smoke:
    about: little
    cost: {hours: 1, machine: "measured: mine"}
    differs: [it is small]
    stages:
      - {name: pretrain, preset: temporal/c3d-motion, set: {train.max_steps: 2}}
      - {name: probe, preset: probe/temporal-motion}
    own_data: {}
"""


@pytest.fixture
def tiny(tmp_path: Path) -> str:
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY, encoding="utf-8")
    return str(path)


def planned(name: str, scale: ScaleName = "smoke", **given: Any) -> Plan:
    return plan(experiment_files.load(name), scale, Given(**given))


def make_run(stage: Stage, hits: int = 50, weights: str = "0" * 64, **more: Any) -> Run:
    """The run of a stage as if its command had been run."""
    parents = [{"run": one, "sha256": more.get("started_from", "0" * 64)} for one in stage.needs]
    if "part" in more:
        parents = [{**one, "part": more["part"]} for one in parents]
    run = Run.create_or_continue(
        runs_dir(), stage.run, preset=dump(stage.resolved.preset), identity=stage.identity,
        command=["selfsup", *stage.arguments()], job=stage.job, seed=0, dataset=None,
        parents=parents,
    )  # fmt: skip
    number = accuracy(
        "linear probe", hits, 100, task="probe", subject="learned", dataset="motion", split="test",
        protocol={"clips": 1}, chance=12.5,
    )  # fmt: skip
    with run:
        run.set_status("running")
        run.write_report(
            Report(
                job=stage.job, run=run.name, command="", created=now(), measurements=[number],
                weights=weights, cost={"seconds": 2.0},
            )
        )  # fmt: skip
        if more.get("finish", True):
            run.finish()
    return run


# -- the plan


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("name", NAMES)
def test_every_stage_of_every_experiment_resolves(
    name: str, scale: ScaleName, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SELFSUP_DATA", raising=False)
    laid = planned(name, scale)
    seen: set[str] = set()
    for stage in laid.of_rows(lambda _: True):
        assert stage.identity
        assert seen.issuperset(set(stage.needs) - {"random"})
        seen.add(stage.run)
    assert seen == set(laid.stages)
    assert {run for run in laid.cells.values() if run != "random"} <= seen


@pytest.mark.parametrize("scale", ["smoke", "small"])
@pytest.mark.parametrize("name", [name for name in NAMES if name != OF_POINTS])
def test_videos_of_ones_own_take_every_place(name: str, scale: ScaleName, tmp_path: Path) -> None:
    laid = planned(name, scale, data=str(tmp_path))
    for stage in laid.stages.values():
        data: Any = stage.resolved.preset
        # Filters are looked at without any data, and points are no images.
        if stage.job != "visualize/filters" and stage.stage != "ring":
            assert data.data.source == str(tmp_path)
        assert "motion" not in " ".join(stage.settings)
        tag = "".join(c if c.isalnum() else "_" for c in tmp_path.name).strip("_")
        assert f".{scale}-{tag}" in stage.run
    assert all("built-in" not in text for text in laid.differs)
    assert laid.differs


def test_table_5_1_at_paper_scale_is_its_presets() -> None:
    laid = planned("table-5.1", "paper")
    rows = {row.key for row in laid.experiment.rows} - {"random", "labels"}
    for key in rows:
        stage = laid.stages[laid.cells[key, "pretrain"]]
        assert stage.command() == (
            f"selfsup pretrain temporal --preset temporal/table-5.1/{key} "
            f"--run table-5.1.paper.{key}.pretrain"
        )
        for name, data, epochs, freeze in (
            ("frozen", "ucf101", 50, "conv"),
            ("finetuned", "hmdb51", 50, "none"),
        ):
            preset: Any = laid.stages[laid.cells[key, name]].resolved.preset
            assert (preset.data.source, preset.splits, preset.train.epochs) == (
                data, [1, 2, 3], epochs,
            )  # fmt: skip
            assert (preset.start.freeze, preset.optim.lr) == (freeze, 5e-5)
    assert len(laid.stages) == 2 + 3 + 15 * 3


def test_the_recipes_of_table_5_2_at_paper_scale() -> None:
    laid = planned("table-5.2", "paper")
    for key, arch, data, epochs, tuned in (
        ("c3d", "c3d", "ucf101", 100, 75),
        ("c3d-kinetics", "c3d", "kinetics", 15, 75),
        ("r3d", "r3d", "ucf101", 200, 150),
        ("r3d-kinetics", "r3d", "kinetics", 15, 150),
        ("r2plus1d", "r2plus1d", "ucf101", 200, 150),
    ):
        first: Any = laid.stages[laid.cells[key, "pretrain"]].resolved.preset
        assert (first.network.arch, first.data.source, first.train.epochs) == (arch, data, epochs)
        for dataset in ("ucf101", "hmdb51"):
            stage = laid.stages[laid.cells[key, dataset]]
            then: Any = stage.resolved.preset
            assert then.data.source == dataset
            assert (then.splits, then.train.epochs) == ([1, 2, 3], tuned)
            assert then.start.init == laid.cells[key, "pretrain"]
            assert then.start.freeze == "none"


def test_rows_that_ask_for_the_same_share_its_run(tiny: str) -> None:
    laid = planned(tiny)
    assert laid.cells["c", "probe"] == laid.cells["b", "probe"] == "tiny.smoke.b.probe"
    assert list(laid.stages) == [
        f"tiny.smoke.{row}.{stage}" for row in "ab" for stage in ("pretrain", "probe")
    ]


def test_a_borrowed_stage_is_the_run_of_the_lender() -> None:
    lender, borrower = planned("table-5.3", "small"), planned("figure-5.4", "small")
    picture = borrower.stages[borrower.cells["videos", "pixels"]]
    assert picture.needs == (
        lender.cells["temporal", "pretrain"], lender.cells["labels", "labels"], "random",
    )  # fmt: skip
    for run in picture.needs[:2]:
        assert borrower.stages[run].command() == lender.stages[run].command()
    assert set(borrower.stages) == {picture.run, *picture.needs[:2]}


def test_experiments_that_borrow_from_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "paper").mkdir()
    text = TINY.replace("experiment: tiny", "experiment: ring").replace(
        "  - {name: pretrain, job: pretrain/temporal}",
        "  - {name: pretrain, borrow: {experiment: ring, row: a, stage: pretrain}}",
    )
    (tmp_path / "paper" / "ring.yaml").write_text(text, encoding="utf-8")
    monkeypatch.setenv("SELFSUP_PRESET_PATH", str(tmp_path))
    with pytest.raises(InputError, match="borrow from each other: ring ← ring"):
        planned("ring")


def test_settings_that_say_nothing_new_are_left_out_of_the_command(tiny: str) -> None:
    laid = planned(tiny)
    assert laid.stages["tiny.smoke.a.pretrain"].command() == (
        "selfsup pretrain temporal --preset temporal/c3d-motion --max-steps 2 "
        "--transformations speed --run tiny.smoke.a.pretrain"
    )
    assert laid.stages["tiny.smoke.b.probe"].command() == (
        "selfsup probe --preset probe/temporal-motion --from tiny.smoke.b.pretrain "
        "--run tiny.smoke.b.probe"
    )


def test_data_root_holds_the_datasets() -> None:
    laid = planned("table-5.2", "paper", root="/data sets")
    roots = {stage.settings["data.root"] for stage in laid.stages.values()}
    assert roots == {f"/data sets/{name}" for name in ("ucf101", "hmdb51", "kinetics")}
    assert (
        "--data-root '/data sets/kinetics'"
        in laid.stages["table-5.2.paper.c3d-kinetics.pretrain"].command()
    )


def test_data_is_not_for_the_paper_scale(tiny: str) -> None:
    with pytest.raises(InputError, match="data of your own is for smoke and small"):
        planned("table-5.1", "paper", data="motion")
    with pytest.raises(InputError, match="there is no such file or folder"):
        planned("table-5.1", "small", data="/nowhere/at all")
    with pytest.raises(InputError, match=r"unknown scale of tiny 'paper'.*known are: smoke"):
        planned(tiny, "paper")


# -- the thesis' numbers


@pytest.mark.parametrize("number", TABLES)
def test_every_printed_number_stands_in_the_table_once(number: str) -> None:
    laid = planned(f"table-{number}", "paper")
    states = {run: state(stage, laid.stages) for run, stage in laid.stages.items()}
    table = gather(laid, states, {}).table
    found = []
    for place, column in enumerate(laid.experiment.columns):
        for row in table.rows:
            value = row.cells[place].printed
            if value is not None:
                assert column.printed is not None
                found.append((column.printed.task, column.printed.metric, value))
    rows = published.table(number)
    if not laid.experiment.others:
        assert len(found) == len(rows)
    expected = sorted((one.task, one.metric, one.value) for one in rows)
    assert sorted(found) == expected


def test_printed_numbers_stand_at_their_rows() -> None:
    """Some of each table, as the thesis prints them."""
    for name, key, values in (
        ("table-3.1", "real-images", [74.99, None]),
        ("table-3.1", "theta-0.7", [81.06, None]),
        ("table-3.2", "finetuned", [80.1]),
        ("table-3.3", "ours", [69.8, 52.5, 38.1]),
        ("table-3.3", "labels", [79.9, 56.8, 48.0]),
        ("table-3.4", "ours", [19.5, 33.3, 37.9, 38.9, 34.9]),
        ("table-3.5", "random", [15.7, 20.3, 19.8, 19.1, 17.5]),
        ("table-4.4", "random", [53.3, 43.4, 19.8]),
        ("table-4.4", "ours", [74.5, 56.8, 44.4]),
        ("table-5.1", "labels", [60.7, 28.8]),
        ("table-5.1", "speed-warp-no-speed-loss", [43.5, 32.6]),
        ("table-5.1", "speed-random-periodic-warp", [60.6, 38.0]),
        ("table-5.2", "r3d-kinetics", [79.3, 49.8]),
        ("table-5.2", "r2plus1d", [81.6, 46.4]),
        ("table-5.2", "rotnet3d", [60.6, 27.3]),
        ("table-5.3", "temporal", [42.4, 1.61, 76.9]),
        ("table-5.3", "labels", [36.7, 1.85, 66.6]),
        ("table-5.4", "temporal", [26.1, 48.5, 59.1, 69.6, 82.8]),
        ("table-6.1", "random-background", [167.8, 147.1, 124.5]),
        ("table-6.1", "concat", [180.0, 162.5, 130.5]),
        ("table-6.1", "multi-view", [104.9, 91.7, 78.4]),
        ("table-6.1", "random-frozen", [None, None, None]),
        ("table-6.2", "ours", [79.5, 73.4, 59.7, 104.9, 91.7, 78.4]),
        ("table-6.2", "with-background", [64.9, 62.3, 53.5, 101.4, 93.7, 82.4]),
        ("table-7.1", "standard", [46.1, 6.12]),
        ("table-7.1", "g", [26.5, 7.49]),
        ("table-7.1", "f-stl", [63.9, 8.81]),
        ("table-7.3", "mmgan", [450, 1]),
        ("table-7.3", "svm-gan-df", [28.7, 7.31]),
        ("table-7.3", "sngan-df-celeba", [10.5, None]),
        ("figure-7.6", "gan-gp-deep", [36, None]),
        ("table-8.1", "inception-baseline", [96.13, 87.78, 8.35, 45.43, 73.08, None]),
        ("table-8.1", "inception-per-layer", [90.38, 85.25, 5.13, None, None, None]),
        ("table-8.1", "cifarnet-unmatched", [72.69, 68.19, 4.5, 16.13, 23.93, None]),
        ("table-8.2", "bilevel", [34.8, 33.6, 1.2]),
        ("table-8.3", "bilevel-mixup", [89.0, 61.6]),
        ("table-8.4", "bilevel", [52.69, 58.2, None]),
        ("still-videos", "labels", [18.5, 56.5]),
        ("still-videos", "temporal", [1.0, 58.1]),
    ):
        laid = planned(name, "paper")
        states = {run: state(stage, laid.stages) for run, stage in laid.stages.items()}
        table = gather(laid, states, {}).table
        row = next(one for one in table.rows if one.key == key)
        assert [cell.printed for cell in row.cells] == values


# -- what is done already


def test_with_nothing_to_do_the_table_is_made_of_the_runs(tiny: str) -> None:
    laid = planned(tiny)
    for stage in laid.stages.values():
        make_run(stage, hits=80 if stage.row == "a" else 40)
    outcome = job.reproduce(tiny, command=["selfsup", "reproduce", tiny])
    report = outcome.report
    assert report is not None
    assert outcome.run_dir == runs_dir() / "tiny.smoke"
    assert [(m.subject, m.value) for m in report.measurements] == [("A", 80), ("B", 40), ("C", 40)]
    assert report.findings[0].verdict == "good"
    assert "supported, in 1 of 1 comparison" in report.findings[0].text
    assert "the printed numbers lie so in 0 of 1" in report.findings[0].text
    number = report.measurements[0].published
    assert number == Published(
        value=49.3,
        where="thesis table 5.1, C3D, trained on ucf101, speed",
        comparable=False,
        differs=["it is small", "measured on ucf101 in the thesis, on motion here"],
    )
    assert report.measurements[2].published is None
    assert report.cost == {"seconds": 8.0}
    run = Run.open(runs_dir() / "tiny.smoke")
    assert run.complete
    assert run.problems() == []
    # Again, and as it was.
    again = job.reproduce(tiny)
    assert again.report == report
    # Another form of the same experiment is not passed off as this one.
    Path(tiny).write_text(TINY.replace("hours: 1", "hours: 2"), encoding="utf-8")
    assert job.reproduce(tiny).report == report
    Path(tiny).write_text(TINY.replace("a is better", "a is best"), encoding="utf-8")
    with pytest.raises(InputError, match=r"earlier form of tiny; remove it"):
        job.reproduce(tiny)


def test_what_another_process_has_made_meanwhile_is_no_failure(
    tiny: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def in_use(left: list[Stage], *_: Any, **__: Any) -> dict[str, Failure]:
        for stage in left:
            make_run(stage)
        return {stage.run: Failure("is being written by process 1", 2) for stage in left}

    monkeypatch.setattr(job, "run_stages", in_use)
    outcome = job.reproduce(tiny)
    assert outcome.report is not None
    assert len(outcome.report.measurements) == 3
    assert Run.open(runs_dir() / "tiny.smoke").complete


def test_the_tables_run_shows_itself_in_every_form(tiny: str) -> None:
    laid = planned(tiny)
    for stage in laid.stages.values():
        make_run(stage, hits=80)
    job.reproduce(tiny)
    folder = runs_dir() / "tiny.smoke"
    markdown = (folder / "report.md").read_text(encoding="utf-8")
    assert "| A | 80.0 | 71.1 … 86.7 | 100 | 49.3 | (+30.7) |" in markdown
    assert "Differences in brackets are between numbers of different protocols." in markdown
    html = (folder / "report.html").read_text(encoding="utf-8")
    assert "<li>it is small</li>" in html
    assert "selfsup reproduce ./preset.yaml --scale smoke" in html
    assert experiment_files.load(str(folder / "preset.yaml")) == experiment_files.load(tiny)


def test_what_stands_in_the_way(tiny: str) -> None:
    laid = planned(tiny)
    pretrain, probe = (laid.stages[f"tiny.smoke.a.{name}"] for name in ("pretrain", "probe"))
    assert not state(pretrain, laid.stages).begun
    make_run(pretrain, finish=False)
    assert (state(pretrain, laid.stages).begun, state(pretrain, laid.stages).done) == (True, False)
    make_run(pretrain)
    assert state(pretrain, laid.stages).done
    make_run(probe)
    assert state(probe, laid.stages).done

    # The weights it started from are others now.
    other = planned(tiny).stages
    stale = make_run(laid.stages["tiny.smoke.b.pretrain"], weights="1" * 64)
    assert stale.complete
    make_run(laid.stages["tiny.smoke.b.probe"])
    problem = state(other["tiny.smoke.b.probe"], other).problem
    assert problem is not None
    assert "started from other weights than run tiny.smoke.b.pretrain has now; remove " in problem

    # Of a run whose report is about more than its backbone, the backbone counts.
    sidecar = stale.path / "backbone.safetensors.json"
    sidecar.write_text(json.dumps({"weights": {"sha256": "0" * 64}}), encoding="utf-8")
    assert state(other["tiny.smoke.b.probe"], other).done

    # It was made with other settings.
    text = TINY.replace("train.max_steps: 2", "train.max_steps: 3")
    Path(tiny).write_text(text, encoding="utf-8")
    changed = planned(tiny)
    problem = state(changed.stages[pretrain.run], changed.stages).problem
    assert problem is not None
    assert "was made differently" in problem
    assert "train.max_steps: 2 → 3" in problem


def test_a_part_of_a_run_has_a_hash_of_its_own() -> None:
    """Of its first stage only the autoencoder goes into the next one."""
    laid = planned("table-3.1")
    first = laid.stages[laid.cells["baseline", "replicas"]]
    other = laid.stages[laid.cells["theta-0.7", "pretrain"]]
    assert other.needs == (first.run,)
    assert other.resolved.preset.model_dump()["autoencoder"]["source"] == first.run
    make_run(first, weights="1" * 64)
    make_run(other, part="autoencoder")
    assert state(other, laid.stages).done


def test_data_of_ones_own_goes_only_where_there_is_data(tmp_path: Path) -> None:
    laid = plan(experiment_files.load("figure-3.7"), "smoke", Given(data=str(tmp_path)))
    filters, units = (laid.stages[laid.cells["units", name]] for name in ("filters", "activations"))
    assert "data.source" not in filters.settings
    assert units.settings["data.source"] == str(tmp_path)


def test_a_damaged_run_stands_in_the_way(tiny: str) -> None:
    laid = planned(tiny)
    stage = laid.stages["tiny.smoke.a.pretrain"]
    run = make_run(stage)
    (run.path / "report.json").write_text("{}", encoding="utf-8")
    problem = state(stage, laid.stages).problem
    assert problem is not None
    assert "does not match its checksum" in problem


def test_gaps_say_why(tiny: str) -> None:
    laid = planned(tiny)
    for stage in laid.stages.values():
        if stage.row == "a":
            make_run(stage)
    states = {run: state(stage, laid.stages) for run, stage in laid.stages.items()}
    cells = {row.key: row.cells[0] for row in gather(laid, states, {}).table.rows}
    assert cells["a"].measurement == 0
    assert (cells["b"].measurement, cells["b"].gap, cells["b"].printed) == (
        None, "not run yet", 60.7,
    )  # fmt: skip


def test_a_number_that_a_report_does_not_have(tiny: str) -> None:
    text = TINY.replace("subject: learned", "subject: nobody")
    Path(tiny).write_text(text, encoding="utf-8")
    laid = planned(tiny)
    for stage in laid.stages.values():
        make_run(stage)
    states = {run: state(stage, laid.stages) for run, stage in laid.stages.items()}
    gap = gather(laid, states, {}).table.rows[0].cells[0].gap
    assert gap is not None
    assert "reports no numbers with task probe, metric top-1 accuracy, subject nobody" in gap


def test_nothing_to_do_never_imports_torch(tiny: str) -> None:
    laid = planned(tiny)
    for stage in laid.stages.values():
        make_run(stage)
    text = (
        "import sys; from selfsup_cli.__main__ import main\n"
        f"assert main(['reproduce', {tiny!r}]) == 0\n"
        f"assert main(['reproduce', {tiny!r}]) == 0\n"
        "assert main(['reproduce', '--list']) == 0\n"
        f"assert main(['reproduce', {tiny!r}, '--list']) == 0\n"
        f"assert main(['reproduce', {tiny!r}, '--print-commands']) == 0\n"
        "heavy = {'torch', 'torchvision', 'av', 'h5py', 'numpy'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run(
        [sys.executable, "-c", text], env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_rows_that_there_are_not(tiny: str) -> None:
    with pytest.raises(InputError, match=r"no row of tiny is called 'x\*'; its rows are: a, b, c"):
        job.reproduce(tiny, rows=["x*"])


def test_missing_datasets_are_named_all_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SELFSUP_DATA", str(tmp_path))
    with pytest.raises(job.MissingDataError) as caught:
        job.reproduce("table-5.1", scale="paper")
    assert len(caught.value.problems) == 2
    for name, said in zip(("hmdb51", "ucf101"), sorted(caught.value.problems), strict=True):
        assert f"needs {name}" in said
        assert str(tmp_path / name) in said
        assert "expected in it: CLASS/" in said
    assert caught.value.hint == "selfsup reproduce table-5.1 --scale smoke needs no data"
    # Rows that ask for less.
    with pytest.raises(job.MissingDataError, match="kinetics"):
        job.reproduce("table-5.4", scale="paper")


# -- findings


def number(low: float, value: float, high: float, **more: Any) -> Measurement:
    return Measurement(
        task="t", name="n", subject=more.pop("subject", "row"), dataset=more.pop("data", "ucf101"),
        split="1", metric="m", unit="%", value=value, n=100, protocol={"a": 1},
        interval=Interval(low=low, high=high, method="by hand"), **more,
    )  # fmt: skip


def experiment(rule: str, better: str = "higher", more: str = "") -> Experiment:
    from selfsup_cli.config.document import parse

    text = TINY[: TINY.index("findings:")].replace("head: Top", f"head: Top\n    better: {better}")
    text += f"findings:\n  - says: so it is\n    {rule}\n{more}"
    text += TINY[TINY.index("scales:") :]
    return Experiment.model_validate_json(json.dumps(parse(text).data))


HIGH, MIDDLE, LOW = number(70, 75, 80), number(58, 65, 72), number(50, 55, 60)
PAIR = "better: {pairs: [[a, b]], columns: [top]}"
ALL = "better: {rows: [a], than: [b, c], columns: [top]}"
MOST = "better: {rows: [a], than: [b, c], columns: [top], share: most}"


@pytest.mark.parametrize(
    ("rule", "a", "b", "c", "answer", "why"),
    [
        (PAIR, HIGH, LOW, None, "supported", "in 1 of 1 comparison"),
        (PAIR, LOW, HIGH, None, "contradicted", "A 55.0 % (50.0 … 60.0), B 75.0 % (70.0 … 80.0)"),
        (PAIR, HIGH, MIDDLE, None, "cannot tell", "in 1 the intervals overlap"),
        (PAIR, HIGH, None, None, "cannot tell", "1 not measured"),
        (ALL, HIGH, LOW, LOW, "supported", "in 2 of 2 comparisons"),
        (ALL, HIGH, LOW, MIDDLE, "cannot tell", "shown in 1 of 2 comparisons, in 1 the intervals"),
        (ALL, HIGH, LOW, None, "cannot tell", "shown in 1 of 2 comparisons, 1 not measured"),
        # "In every case" falls with one case.
        (ALL, LOW, HIGH, LOW, "contradicted", "in 1 of 2 comparisons"),
        (ALL, LOW, HIGH, None, "contradicted", "in 1 of 2 comparisons"),
        # "Most of the time" takes more than half, either way.
        (MOST, HIGH, LOW, MIDDLE, "cannot tell", "shown in 1 of 2"),
        (MOST, HIGH, LOW, LOW, "supported", "in 2 of 2"),
        (MOST, LOW, HIGH, LOW, "cannot tell", "the opposite in 1"),
        (MOST, LOW, HIGH, HIGH, "contradicted", "in 2 of 2"),
    ],
)
def test_better(
    rule: str,
    a: Measurement | None,
    b: Measurement | None,
    c: Measurement | None,
    answer: str,
    why: str,
) -> None:
    found = experiment(rule)
    numbers = {(k, "top"): m for k, m in (("a", a), ("b", b), ("c", c)) if m is not None}
    given, said = judge(found, found.findings[0], numbers)
    assert given == answer
    assert why in said


def test_where_lower_is_better() -> None:
    found = experiment(PAIR, better="lower")
    assert judge(found, found.findings[0], {("a", "top"): LOW, ("b", "top"): HIGH})[0] == (
        "supported"
    )
    assert judge(found, found.findings[0], {("a", "top"): HIGH, ("b", "top"): LOW})[0] == (
        "contradicted"
    )


def test_numbers_without_intervals_show_nothing() -> None:
    found = experiment(PAIR)
    bare = [one.model_copy(update={"interval": None}) for one in (HIGH, LOW)]
    numbers = {("a", "top"): bare[0], ("b", "top"): bare[1]}
    assert judge(found, found.findings[0], numbers)[0] == "cannot tell"


AT = "at_chance: {rows: [a], columns: [top], within: 5}"
ABOVE = "above_chance: {rows: [a], columns: [top], within: 5}"


@pytest.mark.parametrize(
    ("m", "at", "above"),
    [
        # chance 20: narrow around it, wide around it, above it, just above it, below it
        (number(17, 20.5, 24, chance=20), "supported", "contradicted"),
        (number(12, 20.5, 29, chance=20), "cannot tell", "cannot tell"),
        (number(40, 50, 60, chance=20), "contradicted", "supported"),
        (number(20.1, 22, 24, chance=20), "contradicted", "supported"),
        (number(5, 8, 12, chance=20), "cannot tell", "contradicted"),
        (number(17, 20, 24), "cannot tell", "cannot tell"),
        (None, "cannot tell", "cannot tell"),
    ],
)
def test_chance(m: Measurement | None, at: str, above: str) -> None:
    numbers = {} if m is None else {("a", "top"): m}
    for rule, answer in ((AT, at), (ABOVE, above)):
        found = experiment(rule)
        assert judge(found, found.findings[0], numbers)[0] == answer


def test_where_it_cannot_show_nothing_is_said_of_it() -> None:
    found = experiment(ABOVE, more="    not_on: {motion: nobody can see it there}\n")
    here = {("a", "top"): number(10, 12, 14, chance=20, data="motion")}
    elsewhere = {("a", "top"): number(10, 12, 14, chance=20)}
    assert judge(found, found.findings[0], here) == ("cannot tell", "nobody can see it there")
    assert judge(found, found.findings[0], elsewhere)[0] == "contradicted"


def test_the_thesis_own_numbers_are_held_to_the_same_sentence() -> None:
    """The speed loss helps in all 14 of its pairs; random is the weakest partner in 5 of 8."""
    laid = planned("table-5.1", "paper")
    states = {run: state(stage, laid.stages) for run, stage in laid.stages.items()}
    printed = gather(laid, states, {}).printed
    said = [one.text for one in findings(laid.experiment, {}, printed)]
    assert said[0].endswith("the printed numbers lie so in 14 of 14")
    assert said[1].endswith("the printed numbers lie so in 36 of 42")
    assert said[2].endswith("the printed numbers lie so in 5 of 8")
    assert all("cannot tell" in one for one in said)


@pytest.mark.parametrize(
    ("name", "count", "some"),
    [
        ("figure-4.1", 2, {("labels", "conv5"): 78.0, ("ours", "conv5"): 85.0}),
        ("table-4.1", 7, {("patch-32", "conv5"): 61.2, ("baseline", "conv5"): 76.2}),
        ("table-4.2", 40, {("random", "conv5"): 47.9, ("rot-warp-lci", "conv4"): 73.1}),
        ("table-4.3", 40, {("rot", "conv5"): 62.1, ("lci", "conv1"): 71.3}),
        ("table-4.5", 20, {("ours", "conv4"): 43.1, ("ours-ten-crops", "conv4"): 46.6}),
        ("table-4.6", 20, {("labels", "conv5"): 38.7, ("ours", "conv1"): 24.1}),
        ("table-4.7", 1, {("ours", "top-1"): 91.8}),
        ("table-5.1", 32, {("speed", "ucf101"): 49.3}),
        ("table-5.2", 14, {}),
        ("table-5.3", 12, {}),
        ("table-5.4", 5, {("temporal", "top-1"): 26.1}),
    ],
)
def test_built_in_rows_stand_beside_the_numbers_of_their_page(
    name: str, count: int, some: dict[tuple[str, str], float]
) -> None:
    found = thesis_numbers(experiment_files.load(name))
    assert len(found) == count
    assert {cell: found[cell].value for cell in some} == some


NO_BETTER = "no_better: {pairs: [[a, b]], columns: [top], within: 2}"


@pytest.mark.parametrize(
    ("a", "b", "better", "answer"),
    [
        (LOW, HIGH, "higher", "supported"),
        (number(49, 50, 51.5), number(48.9, 50, 51), "higher", "supported"),
        (number(49, 50, 52.5), number(48.9, 50, 51), "higher", "cannot tell"),
        (MIDDLE, MIDDLE, "higher", "cannot tell"),  # wide intervals show nothing
        (HIGH, LOW, "higher", "contradicted"),
        (HIGH, LOW, "lower", "supported"),
        (LOW, HIGH, "lower", "contradicted"),
        (HIGH, None, "higher", "cannot tell"),
    ],
)
def test_no_better(a: Measurement, b: Measurement | None, better: str, answer: str) -> None:
    found = experiment(NO_BETTER, better)
    numbers = {(k, "top"): m for k, m in (("a", a), ("b", b)) if m is not None}
    assert judge(found, found.findings[0], numbers)[0] == answer
