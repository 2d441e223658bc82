"""Every number of a report is shown with its interval, its count and its protocol."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from selfsup_cli.cli import report as shown
from selfsup_cli.runs.report import (
    Curve,
    Finding,
    LeftOut,
    Measurement,
    Picture,
    Published,
    Report,
    accuracy,
    now,
)

PROTOCOL = {"pooling": "2×2×2", "epochs": 60, "flip": True}


def number(
    hits: int, subject: str = "learned", layer: str = "conv4", **more: object
) -> Measurement:
    about = {"dataset": "motion", "split": "test", "protocol": PROTOCOL, "chance": 12.5, **more}
    return accuracy("linear probe", hits, 1000, task="probe", subject=subject, layer=layer, **about)  # type: ignore[arg-type]


def a_report(*measurements: Measurement, **more: object) -> Report:
    facts = {"job": "probe", "run": "first", "command": "selfsup probe", "created": now(), **more}
    return Report(measurements=list(measurements), **facts)  # type: ignore[arg-type]


def row(text: str, *words: str) -> str:
    [found] = [line for line in text.splitlines() if all(word in line for word in words)]
    return found


def test_each_number_stands_with_interval_count_and_chance() -> None:
    first, second = number(450), number(150, "random weights")
    text = shown.show(a_report(first, second))
    for measured, value in ((first, "45.0 %"), (second, "15.0 %")):
        line = row(text, f"{measured.subject}  ", value)
        assert measured.interval is not None
        assert f"{measured.interval.low:.1f} … {measured.interval.high:.1f}" in line
        assert re.search(r"\b1000\b", line)
        assert "12.5" in line
    assert "linear probe · motion, test · top-1 accuracy" in text
    assert "95% Wilson" in text


def test_one_protocol_is_said_once_and_differences_are_lettered() -> None:
    text = shown.show(a_report(number(450), number(150, "random weights")))
    assert "pooling 2×2×2, epochs 60, flip yes" in text
    assert "[A]" not in text
    other = number(150, "random weights", protocol={**PROTOCOL, "lr": 0.3})
    third = number(140, layer="conv5", protocol={"pooling": "2×2×2", "epochs": 5, "flip": True})
    text = shown.show(a_report(number(450), other, third))
    notes = dict(re.findall(r"^ +\[([A-C])\] (.*)$", text, re.MULTILINE))
    assert set(notes) == {"A", "B", "C"}
    assert "pooling 2×2×2, flip yes" in text
    for words, note in (
        (("conv4", "learned"), "epochs 60"),
        (("random weights",), "epochs 60, lr 0.3"),
        (("conv5",), "epochs 5"),
    ):
        [mark] = re.findall(r"\[([A-C])\]$", row(text, *words))
        assert notes[mark] == note


def test_protocols_without_anything_in_common() -> None:
    one, other = number(450, protocol={"a": 1}), number(150, "random weights", protocol={"b": 2})
    text = shown.show(a_report(one, other))
    assert {"protocol  [A] a 1", "          [B] b 2"} <= {*text.splitlines()}


def test_the_thesis_stands_beside_and_says_whether_it_compares() -> None:
    near = Published(value=60.6, where="thesis table 5.1", comparable=True)
    far = Published(
        value=50.2, where="thesis table 5.2", comparable=False, differs=["epochs: 5 here"]
    )
    text = shown.show(a_report(number(450, published=near), number(150, "x", published=far)))
    assert row(text, "45.0 %", "60.6 [1]")
    assert row(text, "15.0 %", "50.2 [2]")
    assert row(text, "[1] thesis table 5.1; comparable")
    assert row(text, "[2] thesis table 5.2; not comparable: epochs: 5 here")


def test_controls_layers_and_several_data_are_told_apart() -> None:
    text = shown.show(
        a_report(number(450), number(120, control="still"), number(9, dataset="ucf101"))
    )
    assert row(text, "learned, still", "12.0 %", "motion, test")
    assert row(text, "ucf101, test", "0.9 %")


def test_what_is_not_known_is_left_blank_or_out() -> None:
    bare = Measurement(
        task="speed", name="clips per second", subject="learned", dataset="motion", split="test",
        metric="rate", unit="", value=1234.5678, n=1, protocol={"device": "cpu"},
    )  # fmt: skip
    text = shown.show(a_report(bare))
    assert row(text, "learned", "1235")
    assert not {"interval", "chance", "thesis", "layer"} & set(text.split())


def test_findings_pictures_curves_and_files_left_out() -> None:
    report = a_report(
        findings=[
            Finding(text="It [learns].", verdict="good"),
            Finding(text="It does not.", verdict="bad"),
            Finding(text="Perhaps.", verdict="unclear"),
            Finding(text="By the way.", verdict="note"),
        ],
        curves=[
            Curve(
                name="loss", x_label="step", y_label="loss", points=[(0, 4.0), (9, 2.0), (10, 1.0)]
            ),
            Curve(name="flat", x_label="step", y_label="", points=[(0, 1.0)]),
            Curve(name="none", x_label="step", y_label="", points=[]),
        ],
        pictures=[Picture(file="pictures/a.png", caption="Curves")],
        left_out=[LeftOut(id=f"{i}\x1b[31m.mp4", reason="is cut off") for i in range(12)],
        left_out_total=40,
        data={
            "ids": [*range(7)],
            "kinds": ["a", "b"],
            "sizes": {"train": 512, "test": 256},
            "classes": None,
        },
        cost={"seconds": 12.25},
        weights="0123456789abcdef" * 4,
    )
    lines = [line.rstrip() for line in shown.show(report).splitlines()]
    assert lines[:4] == [
        "ok        It [learns].",
        "bad       It does not.",
        "unclear   Perhaps.",
        "note      By the way.",
    ]
    assert "curve     loss 4 █▃▁ 1, over step 0 … 10" in lines
    assert not [line for line in lines if "flat" in line or "none " in line]
    assert "picture   pictures/a.png  Curves" in lines
    facts = (
        "ids (7 values, see report.json), kinds a/b, sizes.train 512, sizes.test 256, classes none"
    )
    assert f"data      {facts}" in lines
    assert "cost      seconds 12.25" in lines
    assert "weights   0123456789ab…" in lines
    assert "left out  40 of the files or clips:" in lines
    assert "          0.mp4: is cut off" in lines
    assert "          … and 30 more (report.json)" in lines


def test_of_the_curves_a_handful_is_shown_unless_asked_for_all() -> None:
    names = [
        "loss", "loss_motion", "acc_motion", "acc_speed", "lr", "heldout_motion",
        "heldout_motion_warp", "heldout_speed", "heldout_speed_x2", "embedding_rank",
        "knn_accuracy", "knn_accuracy_before",
    ]  # fmt: skip
    curves = [
        Curve(name=name, x_label="epoch", y_label="y", points=[(0, 1.0), (1, 2.0)])
        for name in names
    ]
    text = shown.show(a_report(curves=curves))
    few = ["loss", "acc_motion", "acc_speed", "heldout_motion", "heldout_speed", "knn_accuracy"]
    assert re.findall(r"^curve +(\S+)", text, re.MULTILINE) == few
    assert "… and 6 more (-v, report.html)" in text
    text = shown.show(a_report(curves=curves), verbose=True)
    assert re.findall(r"^curve +(\S+)", text, re.MULTILINE) == names
    assert "more" not in text
    only = shown.show(a_report(curves=curves[4:5]))
    assert re.findall(r"^curve +(\S+)", only, re.MULTILINE) == ["lr"]


def test_what_came_out_along_the_way_is_no_part_of_the_protocol() -> None:
    def probe(training: float, layer: str) -> Measurement:
        found = {"training_accuracy": training, "per_class": ["a: 1.0 %", "b: 2.0 %"]}
        return number(450, layer=layer, protocol={**PROTOCOL, **found})

    text = shown.show(a_report(probe(98.4375, "conv4"), probe(50.0, "conv5")))
    assert row(text, "conv4", "45.0 %").split()[-1] == "98.4"
    assert row(text, "conv5", "45.0 %").split()[-1] == "50.0"
    assert "per class" not in text
    assert "[A]" not in text
    # What is not what it seems is shown as it is.
    odd = number(450, protocol={"training_accuracy": "high", "per_class": ["a: good"]})
    assert "training accuracy high, per class a: good" in shown.show(a_report(odd))


def test_tasks_have_tables_of_their_own() -> None:
    other = number(30, protocol={"k": 5}).model_copy(update={"task": "monitor"})
    text = shown.show(a_report(number(450), other))
    assert text.count("linear probe · motion, test · top-1 accuracy") == 2
    assert "protocol  k 5" in text.splitlines()


def test_parts_of_the_data_have_lines_of_their_own_and_pages_are_named(tmp_path: Path) -> None:
    (tmp_path / "report.html").touch()
    data = {"train": {"name": "motion", "videos": 64}, "fingerprint": "ab" * 32}
    lines = shown.show(a_report(data=data), folder=tmp_path).splitlines()
    assert "data      train: name motion, videos 64" in lines
    assert "data      fingerprint abababababab…" in lines
    assert "page      report.html" in lines


def test_on_a_narrow_terminal_no_column_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    other = number(150, "random weights", protocol={"lr": 0.3})
    text = shown.show(a_report(number(450), other))
    head = next(line for line in text.splitlines() if "layer" in line)
    assert head.split() == ["layer", "features", "value", "interval", "n", "chance", "how"]
    assert "45.0 %" in text
    assert "[B]" in text
