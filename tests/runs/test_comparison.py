"""Runs side by side: a row holds only what was measured alike, and what differs is said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import sample_reports as samples
from markdown_it import MarkdownIt
from page_tree import Node, parse

from selfsup_cli.errors import InputError
from selfsup_cli.runs import compared_html, compared_markdown
from selfsup_cli.runs.comparison import Comparison, Side, compare
from selfsup_cli.runs.facts import Facts
from selfsup_cli.runs.record import RunInfo
from selfsup_cli.runs.report import Curve, Measurement, Report

PROTOCOL = samples.PROTOCOL


def side(label: str, *measurements: Measurement, **more: Any) -> Side:
    facts: dict[str, Any] = {
        "job": "probe", "run": label, "command": "selfsup probe", "created": samples.CREATED,
        "measurements": list(measurements), **more,
    }  # fmt: skip
    return Side(label, Report(**facts), Facts())


def shape(comparison: Comparison) -> list[tuple[list[str], list[list[float]]]]:
    """The runs of each table and the values of its rows."""
    return [
        (
            [comparison.labels[index] for index in one.runs],
            [[round(m.value, 1) for m in row] for row in one.rows],
        )
        for one in comparison.tables
    ]


def data(fingerprint: str, pretrained_on: str = "a") -> dict[str, Any]:
    return {
        "train": {"name": "m", "fingerprint": pretrained_on},
        "test": {"name": "m", "fingerprint": fingerprint},
    }


def test_what_was_measured_alike_stands_in_one_row() -> None:
    found = compare(
        [
            side("a", samples.number(100), samples.number(200, layer="conv5")),
            side("b", samples.number(300), samples.number(400, layer="conv5")),
        ]
    )
    assert shape(found) == [(["a", "b"], [[10.0, 30.1], [20.1, 40.1]])]
    [table] = found.tables
    assert table.told == ("b higher", "b higher")
    assert table.notes() == []


def test_intervals_tell_runs_apart_or_do_not() -> None:
    found = compare(
        [side("a", samples.number(500)), side("b", samples.number(510)),
         side("c", samples.number(700))]
    )  # fmt: skip
    assert found.tables[0].told == ("c higher",)
    found = compare([side("a", samples.number(500)), side("b", samples.number(510))])
    assert found.tables[0].told == ("overlap",)
    bare = samples.number(510).model_copy(update={"interval": None})
    assert compare([side("a", bare), side("b", bare)]).tables[0].told == ("",)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"protocol": {**PROTOCOL, "epochs": 5}}, "epochs 60 here, 5 there"),
        ({"protocol": {**PROTOCOL, "crop": 64}}, "crop not stated here, 64 there"),
        (
            {"protocol": {"epochs": 5, "flip": True, "pooling": "none"}},
            "epochs 60 here, 5 there; pooling 2×2×2 here, none there",
        ),
        ({"n": 998}, "n 997 here, 998 there"),
    ],
)
def test_another_protocol_never_stands_beside(change: dict[str, Any], said: str) -> None:
    other = samples.number(300).model_copy(update=change)
    found = compare([side("a", samples.number(100)), side("b", other),
                     side("c", samples.number(200))])  # fmt: skip
    assert shape(found) == [(["a", "c"], [[10.0, 20.1]]), (["b"], [[30.1]])]
    assert found.tables[0].notes() == [f"b measured otherwise: {said}"]
    [note] = found.tables[1].notes()
    assert note.startswith("a and c measured otherwise: ")
    assert found.heading(found.tables[0]) == "a and c, measured alike"
    assert found.heading(found.tables[1]) == "b alone, measured otherwise"


def test_other_data_under_the_same_name_is_not_the_same() -> None:
    one = side("a", samples.number(100), data=data("x"))
    other = side("b", samples.number(300), data=data("y"))
    found = compare([one, other])
    assert shape(found) == [(["a"], [[10.0]]), (["b"], [[30.1]])]
    assert found.tables[0].notes() == ["b measured otherwise: data (test) x here, y there"]
    assert dict(found.background) == {"fingerprint.data (test)": ("x", "y")}
    # What a probe was trained on belongs to the measure, what a network saw before does not.
    assert len(compare([one, side("b", samples.number(3), data=data("x", "b"))]).tables) == 2
    pretrained = [
        side(name, samples.number(100), data=data("x", name), job="pretrain/temporal")
        for name in "ab"
    ]
    assert shape(compare(pretrained)) == [(["a", "b"], [[10.0, 10.0]])]


def test_what_differs_within_a_row_is_said() -> None:
    def probe(label: str, **protocol: Any) -> Side:
        chosen = {"chosen": "best of 9 on 16 training videos held out"}
        return side(label, samples.number(100, protocol={**PROTOCOL, **chosen, **protocol}))

    found = compare(
        [
            probe("a", weights="aa", seed=0, lr=0.1, training_accuracy=50.0),
            probe("b", weights="bb", seed=1, lr=0.3, training_accuracy=60.0),
        ]
    )
    [table] = found.tables
    assert table.notes() == [
        "within a row the runs differ in weights: they are what is compared",
        "within a row the runs differ in seed: 0 in a, 1 in b",
        "within a row the runs differ in lr, weight_decay: chosen in each run on held-out "
        "training videos",
    ]
    assert table.table.shared == {**PROTOCOL, "chosen": "best of 9 on 16 training videos held out"}
    given = {**PROTOCOL, "chosen": "given"}
    rates = [samples.number(100, protocol={**given, "lr": lr}) for lr in (0.1, 0.3)]
    assert len(compare([side("a", rates[0]), side("b", rates[1])]).tables) == 2


def test_what_only_some_runs_measured_has_a_table_of_its_own() -> None:
    still = samples.number(50, control="still")
    found = compare([side("a", samples.number(100)), side("b", samples.number(300), still)])
    assert shape(found) == [(["a", "b"], [[10.0, 30.1]]), (["b"], [[5.0]])]
    assert found.heading(found.tables[1]) == "b alone"
    assert compare([side("a"), side("b")]).tables == ()


def test_the_same_thing_twice_in_one_run_is_not_mixed_up() -> None:
    first, second = samples.number(100), samples.number(110)
    found = compare([side("a", first, second), side("b", samples.number(300))])
    assert shape(found) == [(["a", "b"], [[10.0, 30.1]]), (["a"], [[11.0]])]
    assert found.tables[1].notes() == ["a and b measured otherwise: the same a second time"]


def test_the_thesis_stands_beside_only_if_it_does_for_all() -> None:
    near = samples.number(100, published=samples.COMPARABLE)
    far = samples.number(100, published=samples.OTHER)
    kinds = [
        column.kind
        for column in compare([side("a", near), side("b", near)]).tables[0].table.columns
    ]
    assert "thesis" in kinds
    kinds = [
        column.kind for column in compare([side("a", near), side("b", far)]).tables[0].table.columns
    ]
    assert "thesis" not in kinds


def test_one_run_is_no_comparison() -> None:
    with pytest.raises(InputError, match="two runs or more"):
        compare([side("a")])
    with pytest.raises(InputError, match="run a is named twice"):
        compare([side("a"), side("a")])


def of_runs(tmp_path: Path) -> Comparison:
    """Two runs with different settings, one of them measured otherwise in one row."""
    second = samples.everything(
        measurements=[
            samples.number(700),
            samples.number(120, control="still", protocol={**PROTOCOL, "epochs": 7}),
        ]
    )
    sides = []
    for name, report, epochs in (("first", samples.everything(), 60), ("second", second, 5)):
        identity = {"probe": {"epochs": epochs}, "data": {"source": samples.EVIL}}
        run = samples.finished(tmp_path, report, name, identity=identity)
        sides.append(Side(name, report, run.facts()))
    return compare(sides)


def test_settings_that_differ_stand_on_top(tmp_path: Path) -> None:
    found = of_runs(tmp_path)
    assert found.settings == (("probe.epochs", ("60", "5")),)
    page = compared_html.page(found)
    root = parse(page)
    [first, *_] = root.all("section")
    assert first.attributes["id"] == "settings"
    assert [cell.text for cell in first.all("tbody")[0].all("tr")[0].all()] == [
        "probe.epochs", "60", "5",
    ]  # fmt: skip
    text = compared_markdown.page(found)
    assert text.index("| probe.epochs | 60 | 5 |") < text.index("## Numbers")


def test_settings_of_another_kind_of_job_are_left_out() -> None:
    sides = []
    for name, identity in (("a", {"probe": {"grid": 2}, "seed": 1}), ("b", {"ks": [1], "seed": 2})):
        info = RunInfo(
            job="x", created="", command=[], seed=0, arch=None, data=None, identity=identity,
            dataset=None, parents=[],
        )  # fmt: skip
        sides.append(Side(name, side(name).report, Facts(info=info)))
    assert compare(sides).settings == (("seed", ("1", "2")),)


def test_pages_have_the_numbers_of_the_json_and_nothing_harmful(tmp_path: Path) -> None:
    found = of_runs(tmp_path)
    said = json.loads(json.dumps(found.plain(), allow_nan=False))
    assert said["schema"] == "selfsup.comparison/1"
    wanted = [
        [m["value"] for m in row["measurements"].values()]
        for table in said["tables"]
        for row in table["rows"]
    ]
    assert len(wanted) > 5
    page = compared_html.page(found)
    assert "<script" not in page
    assert samples.EVIL not in page
    root = parse(page)
    [numbers] = root.all("section", id="numbers")
    rows = [row for body in numbers.all("tbody") for row in body.all("tr")]
    assert [values(row) for row in rows] == wanted
    assert "measured otherwise: epochs 5 here, 7 there" in numbers.text
    assert {str(a.attributes["href"])[0] for a in root.all("a")} == {"#"}
    [curves] = root.all("section", id="curves")
    assert [node.text for node in curves.all("h3")] == [
        "loss, over step",
        f"{samples.EVIL}, over step",
    ]
    shown = parse(
        MarkdownIt("commonmark", {"xhtmlOut": False})
        .enable("table")
        .render(compared_markdown.page(found))
    )
    tables = [table for table in shown.all("table") if "n" in [c.text for c in table.all("th")]]
    lines = [row for table in tables for row in table.all("tr")[1:]]
    for line, values_ in zip(lines, wanted, strict=True):
        for value in values_:
            assert f"{value:.1f}" in line.text or f"{value:.4g}" in line.text
    assert samples.EVIL_LINK in shown.text


def test_the_page_says_why_numbers_stand_apart_and_cuts_hashes() -> None:
    first, second = "ab" * 32, "cd" * 32
    sides = [
        side(name, samples.number(100), data=data(print_))
        for name, print_ in (("a", first), ("b", second))
    ]
    apart = parse(compared_html.page(compare(sides)))
    [settings], [numbers] = (apart.all("section", id=name) for name in ("settings", "numbers"))
    assert "side by side only where the same thing was measured" in numbers.text
    assert first not in settings.text
    assert f"{first[:12]}…" in settings.text
    alike = parse(
        compared_html.page(compare([sides[0], side("b", samples.number(200), data=data(first))]))
    )
    assert "side by side only" not in alike.all("section", id="numbers")[0].text


def values(row: Node) -> list[float]:
    cells = [cell for cell in row.all("td") if "value" in str(cell.attributes.get("class"))]
    return [float(str(cell.all("data")[0].attributes["value"])) for cell in cells]


def test_curves_of_runs_are_drawn_over_each_other() -> None:
    def line(name: str, *ys: float) -> Curve:
        return Curve(name=name, x_label="epoch", y_label="y", points=list(enumerate(ys)))

    found = compare(
        [side("a", curves=[line("loss", 2, 1), line("acc", 0, 1)]),
         side("b", curves=[line("loss", 3, 2), line("lr", 1, 0)])]
    )  # fmt: skip
    assert {name: [c.name for c in lines] for name, lines in found.curves.items()} == {
        "loss, over epoch": ["a", "b"]
    }
