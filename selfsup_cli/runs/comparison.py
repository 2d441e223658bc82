"""Several runs side by side: what was set differently, and the numbers that may be compared.

Numbers stand in one row only if they measure the same thing, on the same data, by the same
protocol. Where two runs measured the same thing in different ways, each number stands in a table of
its own, with a note of what differs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from selfsup_cli.errors import InputError
from selfsup_cli.runs import tables
from selfsup_cli.runs.curves import telling
from selfsup_cli.runs.facts import Facts
from selfsup_cli.runs.record import NOT_SET, across
from selfsup_cli.runs.report import Curve, Measurement, Report, above
from selfsup_cli.runs.tables import Notes, Table, interval, value, word
from selfsup_cli.runs.text import plain

SCHEMA = "selfsup.comparison/1"
# The columns of a report's table that describe a row, and those that go with its numbers.
DESCRIBED = ("measured", "data", "metric", "layer", "features")
REST = ("n", "chance", "thesis", "how")

# What may differ within a row, because it is not how the number was measured. It is said all the
# same.
_WEIGHTS = "weights: they are what is compared"
_SEED = "seed: "
_CHOSEN = "lr, weight_decay: chosen in each run on held-out training videos"


@dataclass(frozen=True)
class Side:
    """One of the runs: its `label`, unlike that of any other, its report and its facts."""

    label: str
    report: Report
    about: Facts


@dataclass(frozen=True)
class ComparedTable:
    """Numbers of the `runs` (places in the comparison), one row for each thing measured.

    `table` describes the rows (its values are those of the first run); `rows` holds the
    measurements, one for each run; `told` says which run is higher, if the intervals tell.
    `free` names what differs between the runs within rows. `apart` holds under each mark how other
    runs measured a row otherwise; `marks` has the marks of each row.
    """

    runs: tuple[int, ...]
    table: Table
    rows: tuple[tuple[Measurement, ...], ...]
    told: tuple[str, ...]
    free: tuple[str, ...]
    apart: tuple[tuple[str, str], ...]
    marks: tuple[str, ...]

    @property
    def several_marks(self) -> bool:
        """Whether the rows are not all measured otherwise by the same runs in the same way."""
        return len(set(self.marks)) > 1

    @property
    def title(self) -> str:
        """What all rows share."""
        return self.table.title or self.rows[0][0].task

    def columns(self, labels: Sequence[str]) -> list[tuple[str, list[str], bool]]:
        """Head, cells and whether they are numbers, of the columns of a table of plain text."""
        described = [column for column in self.table.columns if column.kind in DESCRIBED]
        rest = [column for column in self.table.columns if column.kind in REST]
        out = [(column.head, [cell.text for cell in column.cells], False) for column in described]
        for place, label in enumerate(labels):
            cells = [f"{value(row[place])} ({interval(row[place])})" for row in self.rows]
            out.append((label, [cell.removesuffix(" ()") for cell in cells], True))
        if any(self.told):
            out.append(("told apart", list(self.told), False))
        out += [(c.head, [cell.text for cell in c.cells], c.number) for c in rest]
        if self.several_marks:
            out.append(("otherwise", list(self.marks), False))
        return out

    def notes(self) -> list[str]:
        """What must be known before numbers of this table are compared, a sentence each."""
        apart = [f"[{mark}] {note}" if self.several_marks else note for mark, note in self.apart]
        return apart + [f"within a row the runs differ in {note}" for note in self.free]


@dataclass(frozen=True)
class Comparison:
    """Runs side by side.

    `settings` and `background` hold the path and one value for each run of what differs: settings
    decide what is computed; the background is data, parents, code and versions.
    """

    sides: tuple[Side, ...]
    settings: tuple[tuple[str, tuple[str, ...]], ...]
    background: tuple[tuple[str, tuple[str, ...]], ...]
    tables: tuple[ComparedTable, ...]
    curves: dict[str, list[Curve]]

    @property
    def labels(self) -> tuple[str, ...]:
        """What the runs are called."""
        return tuple(side.label for side in self.sides)

    @property
    def title(self) -> str:
        """All runs in a row: `a, b and c`."""
        return _together(self.labels)

    def heading(self, compared: ComparedTable) -> str:
        """Which runs a table is about, and that they are alike in what matters."""
        names = [self.labels[index] for index in compared.runs]
        if len(names) == 1:
            return f"{names[0]} alone" + (", measured otherwise" if compared.apart else "")
        return f"{_together(names)}, measured alike"

    def plain(self) -> dict[str, Any]:
        """As JSON data: every number with the run that it comes from."""
        return {
            "schema": SCHEMA,
            "runs": list(self.labels),
            "settings": [{"path": path, "values": list(v)} for path, v in self.settings],
            "background": [{"path": path, "values": list(v)} for path, v in self.background],
            "tables": [
                {
                    "runs": [self.labels[index] for index in one.runs],
                    "differ": list(one.free),
                    "rows": [
                        {
                            "measurements": {
                                self.labels[index]: m.model_dump(mode="json")
                                for index, m in zip(one.runs, row, strict=True)
                            },
                            "told_apart": told or None,
                            "otherwise": [note for mark, note in one.apart if mark in marks],
                        }
                        for row, told, marks in zip(one.rows, one.told, one.marks, strict=True)
                    ],
                }
                for one in self.tables
            ],
        }


@dataclass(frozen=True)
class _Entry:
    """A number of one run; `core` is how it was measured, without what may differ."""

    run: int
    measurement: Measurement
    core: dict[str, Any]


def compare(sides: Sequence[Side]) -> Comparison:
    """Put two runs or more side by side. Raises InputError for fewer, or if one comes twice."""
    labels = [side.label for side in sides]
    if len(sides) < 2 or len(set(labels)) < len(labels):
        twice = next((label for label in labels if labels.count(label) > 1), None)
        raise InputError(
            f"run {twice} is named twice" if twice else "a comparison needs two runs or more",
            kind="usage",
        )
    return Comparison(
        sides=tuple(sides),
        settings=_common_settings(_across([_settings(side) for side in sides])),
        background=_across([_background(side) for side in sides]),
        tables=tuple(_compared(sides)),
        curves=_curves(sides),
    )


def _together(names: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), *names[-1:])))


def _across(facts: Sequence[Mapping[str, Any]]) -> tuple[tuple[str, tuple[str, ...]], ...]:
    return tuple(
        (plain(path), tuple(plain(shown).strip('"') for shown in values))
        for path, values in across(facts)
    )


def _common_settings(
    rows: tuple[tuple[str, tuple[str, ...]], ...],
) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Without the settings that are the same wherever they exist: those of another kind of job."""
    return tuple(row for row in rows if len({*row[1]} - {NOT_SET}) > 1)


def _settings(side: Side) -> dict[str, Any]:
    info = side.about.info
    return {"job": side.report.job, **(info.identity if info else {})}


def _background(side: Side) -> dict[str, Any]:
    info = side.about.info
    facts: dict[str, Any] = {"fingerprint": _fingerprints(side.report, everything=True)}
    if info is not None:
        facts |= {
            "from": _together([str(one.get("run")) for one in info.parents]) or None,
            "weights": _together([str(one.get("sha256")) for one in info.parents]) or None,
            "code": (info.code or {}).get("commit"),
            "versions": info.versions,
        }
    return facts


# -- numbers


def _compared(sides: Sequence[Side]) -> list[ComparedTable]:
    things: dict[tuple[Any, ...], list[list[_Entry]]] = {}
    for run, side in enumerate(sides):
        for m in side.report.measurements:
            entry = _Entry(run, m, _core(m, side.report))
            _place(things.setdefault(_thing(m), []), entry)
    groups: dict[tuple[int, ...], list[tuple[list[_Entry], list[list[_Entry]]]]] = {}
    for alike in things.values():
        for row in alike:
            runs = tuple(entry.run for entry in row)
            groups.setdefault(runs, []).append((row, [one for one in alike if one is not row]))
    order = sorted(groups, key=lambda runs: (-len(runs), runs))
    found = []
    for runs in order:
        of_tables = tables.tabled(groups[runs], lambda one: one[0][0].measurement)
        found += [_table(sides, runs, rows) for rows in of_tables]
    return found


def _place(alike: list[list[_Entry]], entry: _Entry) -> None:
    """Put a number into the row of those that were measured like it, or begin a row."""
    for row in alike:
        if row[0].core == entry.core and all(other.run != entry.run for other in row):
            row.append(entry)
            return
    alike.append([entry])


def _thing(m: Measurement) -> tuple[Any, ...]:
    """What was measured, whatever the protocol."""
    return (m.task, m.name, m.subject, m.control, m.dataset, m.split, m.layer, m.metric, m.unit)


def _core(m: Measurement, report: Report) -> dict[str, Any]:
    """What has to be the same for two numbers to stand in one row."""
    said = {key: item for key, item in tables.protocol(m).items() if key not in _free(m)}
    return {**said, "n": m.n, **_fingerprints(report)}


def _free(m: Measurement) -> set[str]:
    free = {"weights", "seed"}
    if str(m.protocol.get("chosen", "")).startswith("best of"):
        free |= {"lr", "weight_decay"}
    return free


def _fingerprints(report: Report, *, everything: bool = False) -> dict[str, Any]:
    """Fingerprints of the data that a number rests on, by part.

    What a network was pretrained on is not among them: it is compared, not part of the measure.
    """
    found, rest = tables.data_parts(report.data)
    if report.job.startswith("pretrain/") and not everything:
        found = {name: part for name, part in found.items() if name != "train"}
    if not found:
        found = {"": rest} if rest else {}
    return {
        f"data ({name})" if name else "data": part.get("fingerprint")
        for name, part in found.items()
    }


def _table(
    sides: Sequence[Side],
    runs: tuple[int, ...],
    rows: Sequence[tuple[list[_Entry], list[list[_Entry]]]],
) -> ComparedTable:
    notes: Notes[str] = Notes()
    found = [[_difference(sides, row, other) for other in others] for row, others in rows]
    marks = ["".join(f"[{notes.mark(text)}]" for text in own) for own in found]
    common = [_common([entry.measurement for entry in row]) for row, _ in rows]
    numbers = [tuple(entry.measurement for entry in row) for row, _ in rows]
    labels = [sides[run].label for run in runs]
    return ComparedTable(
        runs=runs,
        table=tables.table(common),
        rows=tuple(numbers),
        told=tuple(_told(labels, row) for row in numbers),
        free=_differing(labels, numbers),
        apart=notes.marked(),
        marks=tuple(marks),
    )


def _common(row: Sequence[Measurement]) -> Measurement:
    """The first of a row, with what all of it says alike of the protocol and of the thesis."""
    first = row[0]
    shared, _ = tables.split_protocols([tables.protocol(m) for m in row])
    alike = all(m.published == first.published for m in row)
    return first.model_copy(
        update={"protocol": shared, "published": first.published if alike else None}
    )


def _difference(sides: Sequence[Side], mine: Sequence[_Entry], other: Sequence[_Entry]) -> str:
    """How the runs of `other` measured the same otherwise than those of `mine`."""
    a, b = mine[0], other[0]
    differs = "; ".join(
        f"{plain(key.replace('_', ' '))} {_said(a, key)} here, {_said(b, key)} there"
        for key in {**a.core, **b.core}
        if _said(a, key) != _said(b, key)
    )
    who = _together([sides[entry.run].label for entry in other])
    return f"{who} measured otherwise: {differs or 'the same a second time'}"


def _said(entry: _Entry, key: str) -> str:
    return word(entry.core[key]) if key in entry.core else "not stated"


def _told(labels: Sequence[str], row: Sequence[Measurement]) -> str:
    """Which run is higher than all others by more than both intervals."""
    if len(row) < 2 or any(m.interval is None for m in row):
        return ""
    best = max(range(len(row)), key=lambda index: row[index].value)
    if all(above(row[best], m) for index, m in enumerate(row) if index != best):
        return f"{labels[best]} higher"
    return "overlap"


def _differing(labels: Sequence[str], rows: Sequence[Sequence[Measurement]]) -> tuple[str, ...]:
    """What differs between the runs of a row although it stands in one."""
    found: dict[str, None] = {}
    for row in rows:
        for key in ("weights", "seed", "lr", "weight_decay"):
            values = [m.protocol.get(key) for m in row]
            if all(value == values[0] for value in values):
                continue
            if key == "weights":
                found[_WEIGHTS] = None
            elif key == "seed":
                said = ", ".join(
                    f"{word(value)} in {label}" for label, value in zip(labels, values, strict=True)
                )
                found[f"{_SEED}{said}"] = None
            else:
                found[_CHOSEN] = None
    return tuple(found)


# -- curves


def _curves(sides: Sequence[Side]) -> dict[str, list[Curve]]:
    """The telling curves that two runs or more have, one line for each run."""
    found: dict[str, list[Curve]] = {}
    for side in sides:
        for curve in telling(side.report.curves):
            line = curve.model_copy(update={"name": side.label})
            found.setdefault(f"{curve.name}, over {curve.x_label}", []).append(line)
    return {name: lines for name, lines in found.items() if len(lines) > 1}
