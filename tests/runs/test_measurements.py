"""No number without protocol and count, nothing that is not finite, and the same after reading."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from selfsup_cli.errors import InputError
from selfsup_cli.runs import report as reports
from selfsup_cli.runs.report import (
    Curve,
    Finding,
    Interval,
    LeftOut,
    Measurement,
    Picture,
    Published,
    Report,
    above,
    accuracy,
    at_chance,
    clustered_accuracy,
    clustered_mean,
    load_report,
    separated,
    wilson,
)

ABOUT: dict[str, Any] = {
    "task": "probe",
    "subject": "learned",
    "dataset": "motion",
    "split": "test",
    "protocol": {"clips": 4, "normalised": True, "weights": "ab12", "lrs": [0.1, 1.0]},
}


def measured(hits: int, n: int, **about: Any) -> Measurement:
    return accuracy("linear probe", hits, n, **{**ABOUT, **about})


def whole() -> Report:
    published = Published(value=60.6, where="thesis table 5.1", comparable=False, differs=["data"])
    return Report(
        job="probe",
        run="probe-c3d-motion",
        command="selfsup probe",
        created=reports.now(),
        findings=[Finding(text="learned beats random", verdict="good")],
        measurements=[measured(70, 100, layer="conv4", chance=12.5, published=published)],
        curves=[Curve(name="loss", x_label="step", y_label="loss", points=[(0, 2.5), (1, 1.0)])],
        pictures=[Picture(file="pictures/curves.png", caption="curves")],
        left_out=[LeftOut(id="a.avi", reason="empty")],
        left_out_total=3,
        data={"videos": 100, "classes": None},
        weights="ab12",
        cost={"seconds": 1.5, "steps": 100},
    )


def test_a_report_reads_back_as_it_was_written(tmp_path: Path) -> None:
    report = whole()
    path = tmp_path / "report.json"
    path.write_text(report.to_json())
    assert load_report(path) == report
    plain = json.loads(path.read_text())
    assert plain["schema"] == "selfsup.report/1"
    assert "schema_" not in plain
    assert plain == report.model_dump(mode="json")
    assert plain["measurements"][0]["protocol"] == ABOUT["protocol"]
    assert plain["measurements"][0]["protocol"]["normalised"] is True


@pytest.mark.parametrize("missing", ["protocol", "n", "task", "subject", "dataset", "split"])
def test_no_number_without_protocol_and_count(missing: str) -> None:
    fields = measured(7, 10).model_dump()
    del fields[missing]
    with pytest.raises(ValidationError, match=missing):
        Measurement(**fields)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("protocol", {}),
        ("n", 0),
        ("value", math.nan),
        ("value", math.inf),
        ("value", 101.0),
        ("value", 1.0),  # outside its interval
        ("chance", math.nan),
        ("protocol", {"lr": math.nan}),
        ("protocol", {"lr": {"nested": 1}}),
        ("dataset", ""),
        ("surprise", 1),
    ],
)
def test_measurements_refuse_nonsense(field: str, value: object) -> None:
    fields = measured(7, 10).model_dump()
    with pytest.raises(ValidationError):
        Measurement(**{**fields, field: value})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("curves", [{"name": "l", "x_label": "", "y_label": "", "points": [(0, math.nan)]}]),
        ("data", {"mean": math.nan}),
        ("cost", {"seconds": math.inf}),
        ("left_out_total", 0),
        ("findings", [{"text": "x", "verdict": "splendid"}]),
        ("schema", "selfsup.report/2"),
    ],
)
def test_reports_refuse_nonsense(field: str, value: object) -> None:
    plain = whole().model_dump()
    with pytest.raises(ValueError, match=r".+"):
        Report.model_validate({**plain, field: value})


def test_what_differs_from_the_thesis_is_said() -> None:
    with pytest.raises(ValidationError, match="must say what differs"):
        Published(value=1, where="x", comparable=False)
    with pytest.raises(ValidationError, match="not comparable"):
        Published(value=1, where="x", comparable=True, differs=["data"])


@given(st.integers(1, 2000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_accuracy_is_in_percent_with_wilsons_interval(count: tuple[int, int]) -> None:
    hits, n = count
    found = measured(hits, n)
    assert found.interval is not None
    assert found.value == pytest.approx(100 * hits / n)
    assert (found.unit, found.n) == ("%", n)
    assert found.interval.low == pytest.approx(100 * wilson(hits, n).low)
    assert found.interval.high == pytest.approx(100 * wilson(hits, n).high)
    assert found.interval.method == "Wilson"
    assert found.metric == "top-1 accuracy"


def test_accuracy_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="not a share"):
        measured(0, 0)


@given(st.lists(st.integers(0, 4).map(lambda k: k / 4), min_size=1, max_size=50))
def test_clustered_accuracy_is_a_mean_over_videos(shares: list[float]) -> None:
    found = clustered_accuracy("pretext", shares, **ABOUT, metric="accuracy")
    mean, interval = clustered_mean(shares)
    assert found.value == pytest.approx(100 * mean)
    assert found.n == len(shares)
    if mean in (0, 1) or (len(shares) > 1 and len(set(shares)) == 1):
        assert found.interval is not None
        assert found.interval.method == "Wilson"
        assert found.interval.high > found.interval.low
    elif interval is None:
        assert found.interval is None
    else:
        assert found.interval is not None
        assert found.interval.low == pytest.approx(max(0, 100 * interval.low))
        assert found.interval.high == pytest.approx(min(100, 100 * interval.high))


def test_verdicts_ask_for_more_than_both_intervals() -> None:
    low, middle, high = measured(10, 100), measured(17, 100), measured(60, 100)
    assert separated(low, high)
    assert separated(high, low)
    assert not separated(low, middle)
    assert above(high, low)
    assert not above(low, high)
    assert not above(middle, low)
    unsure = low.model_copy(update={"interval": None})
    assert not separated(unsure, high)
    touching = [
        low.model_copy(update={"interval": Interval(low=a, high=b, method="x")})
        for a, b in ((0, 10), (10, 20))
    ]
    assert not separated(*touching)


def test_chance_is_inside_the_interval_or_not() -> None:
    assert at_chance(measured(12, 100, chance=12.5)) is True
    assert at_chance(measured(60, 100, chance=12.5)) is False
    assert at_chance(measured(60, 100)) is None


def test_left_out_counts_all_and_names_a_hundred() -> None:
    @dataclass(frozen=True)
    class Item:
        id: str
        reason: str

    fields = reports.left_out([Item(f"{i:03}.avi", "empty") for i in reversed(range(250))])
    assert fields["left_out_total"] == 250
    assert len(fields["left_out"]) == 100
    assert fields["left_out"][0] == LeftOut(id="000.avi", reason="empty")
    Report.model_validate({**whole().model_dump(), **fields})


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "not a report"),
        ('{"schema": "selfsup.report/1"', "not a report"),
        ('{"schema": "selfsup.report/9", "job": "x"}', "schema"),
        ("[]", "not a report"),
        (None, "No such file"),
    ],
)
def test_damaged_reports_are_named(tmp_path: Path, text: str | None, told: str) -> None:
    path = tmp_path / "report.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(InputError, match=told) as caught:
        load_report(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
