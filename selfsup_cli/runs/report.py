"""Reports: every number with the protocol it was measured under, how many samples, how sure.

`report.json` is the one source; the terminal's table and all else are drawn from it. A
`Measurement` cannot be made without protocol and count, and nothing in a report is NaN.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, Protocol, Required, TypedDict, Unpack

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from selfsup_cli.errors import InputError
from selfsup_cli.runs.experiment_table import ExperimentTable
from selfsup_cli.runs.statistics import Interval, clustered_mean, wilson

__all__ = [
    "Curve",
    "Finding",
    "Interval",
    "LeftOut",
    "Measurement",
    "Picture",
    "Published",
    "Report",
    "above",
    "accuracy",
    "at_chance",
    "clustered_accuracy",
    "clustered_mean",
    "left_out",
    "load_report",
    "now",
    "separated",
    "wilson",
]

SCHEMA: Literal["selfsup.report/1"] = "selfsup.report/1"
LISTED = 100
Verdict = Literal["good", "bad", "unclear", "note"]
ProtocolValue = bool | int | float | str | list[bool | int | float | str]


class _Model(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, serialize_by_alias=True
    )


class Published(_Model):
    """A number of the thesis, where it stands, and what of its protocol differs from ours."""

    value: float
    where: str
    comparable: bool
    differs: list[str] = []

    @model_validator(mode="after")
    def _honest(self) -> Published:
        if self.comparable and self.differs:
            raise ValueError("a published number whose protocol differs is not comparable")
        if not self.comparable and not self.differs:
            raise ValueError("a published number that is not comparable must say what differs")
        return self


class Measurement(_Model):
    """One number: what was measured, on whom, how (`protocol`), on how many samples (`n`).

    `value`, `interval` and `chance` are in `unit`; `chance_is` says which answers get chance;
    `subject` is whose features ("learned", "random weights"); `control` names what was destroyed
    in the input, if anything.
    """

    task: str = Field(min_length=1)
    name: str = Field(min_length=1)
    subject: str = Field(min_length=1)
    control: str | None = None
    dataset: str = Field(min_length=1)
    split: str = Field(min_length=1)
    layer: str | None = None
    metric: str = Field(min_length=1)
    unit: str
    value: float
    interval: Interval | None = None
    n: int = Field(ge=1)
    chance: float | None = None
    chance_is: str | None = None
    protocol: dict[str, ProtocolValue] = Field(min_length=1)
    published: Published | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Measurement:
        if self.unit == "%" and not 0 <= self.value <= 100:
            raise ValueError(f"{self.name}: {self.value:g} % is not between 0 and 100")
        slack = 1e-9 * max(1.0, abs(self.value))
        if self.interval is not None and not (
            self.interval.low - slack <= self.value <= self.interval.high + slack
        ):
            raise ValueError(
                f"{self.name}: {self.value:g} lies outside its interval "
                f"{self.interval.low:g} … {self.interval.high:g}"
            )
        return self


class Finding(_Model):
    """What the numbers say, in one sentence, and whether that is good news."""

    text: str = Field(min_length=1)
    verdict: Verdict


class Curve(_Model):
    """A line to draw, as (x, y) points in order of x; `chance` is what of y needs no learning.

    `intervals`, where they are known, are the lowest and highest y of each point.
    """

    name: str
    x_label: str
    y_label: str
    points: list[tuple[float, float]]
    chance: float | None = None
    intervals: list[tuple[float, float] | None] | None = None

    @classmethod
    def measured(cls, found: Sequence[tuple[float, Measurement]], **about: Any) -> Curve:
        """A line through measurements, each at its x, with their intervals."""
        rows = sorted(found, key=lambda one: one[0])
        bars = [
            None if row.interval is None else (row.interval.low, row.interval.high)
            for _, row in rows
        ]
        return cls(
            points=[(x, row.value) for x, row in rows],
            intervals=bars if any(bars) else None,
            **about,
        )


class Picture(_Model):
    """A picture, by its path relative to the run directory."""

    file: str
    caption: str


class LeftOut(_Model):
    """A file or clip that was not used, and why."""

    id: str
    reason: str


class Report(_Model):
    """Everything that a job found. `report.json` holds exactly this."""

    schema_: Literal["selfsup.report/1"] = Field(default=SCHEMA, alias="schema")
    job: str
    run: str
    command: str
    created: str
    findings: list[Finding] = []
    table: ExperimentTable | None = None
    measurements: list[Measurement] = []
    curves: list[Curve] = []
    pictures: list[Picture] = []
    left_out: list[LeftOut] = []
    left_out_total: int = Field(default=0, ge=0)
    data: dict[str, Any] = {}
    weights: str | None = None
    cost: dict[str, float] = {}

    @model_validator(mode="after")
    def _whole(self) -> Report:
        if self.left_out_total < len(self.left_out):
            raise ValueError(
                f"left_out_total is {self.left_out_total}, but {len(self.left_out)} are listed"
            )
        if self.table is not None and (highest := self.table.highest) >= len(self.measurements):
            raise ValueError(
                f"the table refers to measurement {highest}, but there are {len(self.measurements)}"
            )
        json.dumps(self.data, allow_nan=False)
        return self

    def to_json(self) -> str:
        """The text of `report.json`. ValueError never: a report holds finite numbers only."""
        return json.dumps(
            self.model_dump(mode="json"), indent=2, ensure_ascii=False, allow_nan=False
        )


class _HasReason(Protocol):
    @property
    def id(self) -> str: ...
    @property
    def reason(self) -> str: ...


def left_out(items: Iterable[_HasReason]) -> dict[str, Any]:
    """`left_out` and `left_out_total` for a `Report`: the first hundred are named.

    What was left out of the training and of the test part alike is one file, and counts once.
    """
    rows = sorted({(item.id, item.reason) for item in items})
    listed = [LeftOut(id=identifier, reason=reason) for identifier, reason in rows[:LISTED]]
    return {"left_out": listed, "left_out_total": len(rows)}


def load_report(path: Path) -> Report:
    """Read a `report.json`. Raises InputError if it is missing, damaged or of another version."""
    try:
        return Report.model_validate_json(path.read_bytes())
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}", kind="report") from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InputError(
            f"{path}: not a report of this version: {where + ': ' if where else ''}{first['msg']}",
            kind="report",
        ) from error


def now() -> str:
    """This moment as written into reports and runs: ISO 8601, UTC, milliseconds."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


class About(TypedDict, total=False):
    """What `accuracy` and `clustered_accuracy` say of a number; `chance` is in %."""

    task: Required[str]
    subject: Required[str]
    dataset: Required[str]
    split: Required[str]
    protocol: Required[dict[str, ProtocolValue]]
    metric: str
    control: str | None
    layer: str | None
    chance: float | None
    chance_is: str | None
    published: Published | None


def accuracy(name: str, hits: int, n: int, **about: Unpack[About]) -> Measurement:
    """`hits` right answers among `n` independent samples, in % with Wilson's 95 % interval.

    Samples that belong together (clips of one video) are not independent: use
    `clustered_accuracy` for them. Raises ValueError unless 0 ≤ hits ≤ n and n ≥ 1.
    """
    return _percent(name, hits / max(n, 1), wilson(hits, n), n, about)


def clustered_accuracy(
    name: str,
    shares: Sequence[float],
    unit: Literal["videos", "images", "stretches", "recordings"] = "videos",
    **about: Unpack[About],
) -> Measurement:
    """Mean of each video's share of right answers (0 … 1), in % with a 95 % interval over videos.

    Or over images, or stretches of time, as `unit` says. `n` counts the videos; say in `protocol`
    how many clips each has. Where all videos have the same share a t interval would have no width,
    and Wilson's over the videos stands there. Raises ValueError without videos.
    """
    mean, interval = clustered_mean(shares, unit=unit)
    if mean in (0, 1) or (interval is not None and len(set(shares)) == 1):
        interval = wilson(round(mean * len(shares)), len(shares))
    return _percent(name, mean, interval, len(shares), about)


def _percent(
    name: str, share: float, interval: Interval | None, n: int, about: About
) -> Measurement:
    about = {"metric": "top-1 accuracy", **about}
    return Measurement(
        **about,
        name=name,
        unit="%",
        value=100 * share,
        interval=None if interval is None else interval.scaled(100, 0, 100),
        n=n,
    )


def separated(a: Measurement, b: Measurement) -> bool:
    """Whether the intervals of two measurements do not overlap. False where one has none."""
    if a.interval is None or b.interval is None:
        return False
    return a.interval.low > b.interval.high or b.interval.low > a.interval.high


def above(a: Measurement, b: Measurement) -> bool:
    """Whether `a` is larger than `b` by more than both intervals."""
    return separated(a, b) and a.value > b.value


def at_chance(a: Measurement) -> bool | None:
    """Whether chance lies inside the interval of `a`; None where either is not known."""
    if a.interval is None or a.chance is None:
        return None
    return a.interval.low <= a.chance <= a.interval.high
