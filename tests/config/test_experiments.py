"""Experiments: the built-in ones are whole, and a mistake in one is told by line."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from selfsup_cli.config import experiment_files
from selfsup_cli.config.experiment import SCALES, Experiment
from selfsup_cli.config.finding import builtin_root
from selfsup_cli.config.problems import PresetError
from selfsup_cli.errors import InputError
from selfsup_cli.jobs.reproduce_plan import plan

ROOT = Path(__file__).resolve().parents[2]

GOOD = """\
version: 1
experiment: mine
title: A test
columns:
  - key: top
    head: Top
    stage: probe
    measured: {task: probe, metric: top-1 accuracy}
stages:
  - {name: pretrain, job: pretrain/temporal}
  - {name: probe, job: probe, needs: [pretrain]}
rows:
  - {key: a, label: A}
  - {key: b, label: B, use: {pretrain: random}}
scales:
  smoke:
    about: little
    cost: {hours: 1, machine: mine}
    stages: [{name: pretrain, preset: temporal/c3d-motion}]
findings:
  - says: a is better
    better: {pairs: [[a, b]], columns: [top]}
"""


def load(tmp_path: Path, text: str = GOOD) -> Experiment:
    path = tmp_path / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    return experiment_files.load(str(path))


def problems(tmp_path: Path, text: str) -> list[str]:
    with pytest.raises(PresetError) as caught:
        load(tmp_path, text)
    return [str(one).removeprefix(f"{tmp_path}/") for one in caught.value.problems]


def test_the_built_in_experiments() -> None:
    names = ["figure-3.6", "figure-3.7", "figure-3.8", "figure-3.9"]
    names += ["figure-4.1", "figure-4.6", "figure-4.7", "figure-5.4", "figure-5.5"]
    names += [f"figure-6.{k}" for k in range(3, 7)]
    names += ["figure-7.1", "figure-7.3", "figure-7.6", "figure-7.7", "figure-7.8", "still-videos"]
    names = [*names[:-1], *(f"figure-8.{k}" for k in range(2, 6)), names[-1]]
    names += [f"table-3.{k}" for k in range(1, 6)]
    names += [f"table-4.{k}" for k in range(1, 8)]
    names += ["table-5.1", "table-5.2", "table-5.3", "table-5.4"]
    names += ["table-6.1", "table-6.2", "table-7.1", "table-7.3"]
    names += [f"table-8.{k}" for k in range(1, 5)]
    assert experiment_files.names({}) == names
    for name in names:
        found = experiment_files.load(name)
        assert found.experiment == name
        assert all(found.scale(scale) is not None for scale in SCALES)
        for scale in SCALES:
            at = found.scale(scale)
            assert at is not None
            # What is not the thesis' way is said, at every scale.
            assert at.differs
            assert at.about
            # The ring of figure 7.1 consists of points, which nobody has of their own.
            assert (at.own_data is not None) == (scale != "paper" and name != "figure-7.1")


def test_short_names(tmp_path: Path) -> None:
    assert experiment_files.load("5.1") == experiment_files.load("table-5.1")
    env = {"SELFSUP_PRESET_PATH": str(tmp_path)}
    (tmp_path / "paper").mkdir()
    (tmp_path / "paper" / "mine.yaml").write_text(GOOD, encoding="utf-8")
    assert experiment_files.load("mine", env).title == "A test"
    assert experiment_files.names(env)[0] == "mine"
    with pytest.raises(
        InputError, match=r"unknown experiment 'table-51' \(did you mean 'table-5.1"
    ):
        experiment_files.load("table-51", {})


def test_a_sound_experiment(tmp_path: Path) -> None:
    found = load(tmp_path)
    assert found.stage("probe").needs == ["pretrain"]
    assert found.row("b").use == {"pretrain": "random"}
    assert found.scale("paper") is None


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("title: A test", "titel: A test", "mine.yaml:3: titel: unknown key 'titel' (did you mean"),
        (
            "job: probe,",
            "job: prob,",
            "mine.yaml:9: stages: 'probe' is a job 'prob', which is none",
        ),
        ("needs: [pretrain]", "needs: [pretran]", "stages: 'probe' needs 'pretran', which is none"),
        ("stage: probe", "stage: prob", "mine.yaml:4: columns: 'top' is of the stage 'prob'"),
        ("use: {pretrain:", "use: {pretran:", "rows: 'b' uses something for 'pretran'"),
        ("use: {pretrain: random}", "use: {pretrain: none}", "rows: 'b' uses for pretrain 'none'"),
        ("label: A}", "label: A, set: {nothing: {}}}", "rows: 'a' sets something of 'nothing'"),
        ("label: A}", "label: A, measured: {metrik: x}}", "rows: 'a' measures by 'metrik'"),
        ("[{name: pretrain,", "[{name: nobody,", "scales: smoke speaks of the stage 'nobody'"),
        ("[[a, b]]", "[[a, c]]", "findings: 'a is better' is about the row 'c'"),
        ("columns: [top]", "columns: [tip]", "findings: 'a is better' is about the column 'tip'"),
        ("key: b", "key: a", "rows: 'a' is there twice"),
        ("key: b", "key: b/c", "rows.1.key: must be letters, digits, dots"),
        ("better: {pairs: [[a, b]],", "better: {", "findings.0.better: names no rows to compare"),
        ("job: pretrain/temporal", "needs: []", "stages: 'pretrain' needs either a job or someth"),
        (
            "job: pretrain/temporal}",
            "job: pretrain/temporal, needs: [probe]}",
            "stages: 'pretrain' needs itself: pretrain ← probe ← pretrain",
        ),
        ("about: little", "about: 3", "scales.smoke.about: must be text; got 3"),
        ("{hours: 1,", "{", "mine.yaml:18: scales.smoke.cost.hours: is missing"),
        ("label: A}", "label: A, set: 3}", "rows.0.set: must be a block of settings for each st"),
        ("version: 1", "version: 2", "newer than this selfsup"),
        (", metric: top-1 accuracy}", "}", "columns.0.measured: a number is known by its metric"),
        ("label: B,", "label: B, spread_of: [c],", "rows: 'b' is the spread of 'c', which is none"),
        ("preset: temporal/c3d-motion}", "needs: [x]}", "'pretrain' needs 'x', which is none of"),
        ("label: B,", "label: B, scales: [huge],", "rows.1.scales.0: must be"),
    ],
)
def test_mistakes_are_told_by_line(tmp_path: Path, old: str, new: str, said: str) -> None:
    assert GOOD.count(old) >= 1
    found = problems(tmp_path, GOOD.replace(old, new, 1))
    assert any(said in one for one in found), found


def test_a_finding_has_one_rule(tmp_path: Path) -> None:
    more = GOOD + "    at_chance: {rows: [a], columns: [top]}\n"
    assert "a finding has one rule" in problems(tmp_path, more)[0]


def test_files_that_are_no_experiments(tmp_path: Path) -> None:
    assert "no experiment" in problems(tmp_path, "3\n")[0]
    assert "mine.yaml:2: " in problems(tmp_path, "a: 1\na: 2\n")[0]
    with pytest.raises(PresetError, match="no such file"):
        experiment_files.load(str(tmp_path / "absent.yaml"))


def test_experiments_are_no_presets(tmp_path: Path) -> None:
    from selfsup_cli.config.presets import list_presets

    assert (builtin_root() / "paper" / "table-5.1.yaml").is_file()
    assert not [one for one in list_presets({}) if "paper" in one.name]


def test_table_5_1_pairs(tmp_path: Path) -> None:
    """What is compared follows from the rows, written down by another rule here."""
    found = experiment_files.load("table-5.1")
    kinds: dict[str, tuple[frozenset[str], bool]] = {}
    for row in found.rows:
        settings: dict[str, Any] = row.set.get("pretrain", {})
        if settings:
            loss = settings["time.speed_loss"]
            kinds[row.key] = (frozenset(settings["time.kinds"]), loss)
    assert len(kinds) == 15
    keys = {value: key for key, value in kinds.items()}
    loss = {(keys[k, True], keys[k, False]) for k, on in keys if not on}
    more = {
        (keys[a, on], keys[b, on])
        for a, on in keys
        for b, also in keys
        if on == also and b < a and len(a) == len(b) + 1
    }
    partners = {
        (keys[frozenset({"speed", kind}), on], keys[frozenset({"speed", "random"}), on])
        for kind in ("periodic", "warp")
        for on in (True, False)
    }
    said = [one.better for one in found.findings]
    for rule, expected in zip(said[:3], (loss, more, partners), strict=True):
        assert rule is not None
        assert set(rule.pairs) == expected
        assert len(rule.pairs) == len(expected)
        assert rule.columns == ["ucf101", "hmdb51"]


def test_the_page_says_what_the_files_say(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "reproduce.md").read_text(encoding="utf-8")
    lines = [line for line in page.splitlines() if line.startswith("| `")]
    assert {line.split("`")[1] for line in lines} == set(experiment_files.names({}))
    for line in lines:
        found = experiment_files.load(line.split("`")[1])
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        stages = len(plan(found, "smoke").stages)
        hours = []
        for scale in SCALES:
            at = found.scale(scale)
            assert at is not None
            hours.append(f"{at.cost.hours:g} h")
        assert cells[2:] == [f"{stages} stages, {hours[0]}", *hours[1:]]
    (example,) = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    laid = plan(load(tmp_path, example), "small")
    assert len(laid.stages) == 4
    assert all(stage.identity for stage in laid.stages.values())


def test_what_is_only_there_at_some_scales(tmp_path: Path) -> None:
    text = GOOD.replace("{key: b,", "{key: b, scales: [paper],")
    text += "  - says: a is above chance\n    above_chance: {rows: [a, b], columns: [top]}\n"
    found = load(tmp_path, text)
    assert found.at_scale("paper") == found
    small = found.at_scale("smoke")
    assert [row.key for row in small.rows] == ["a"]
    (left,) = small.findings
    assert left.above_chance is not None
    assert left.above_chance.rows == ["a"]
    text = GOOD.replace("    stage: probe\n", "    stage: probe\n    scales: [paper]\n", 1)
    none = load(tmp_path, text).at_scale("smoke")
    assert (none.columns, none.findings) == ([], [])
