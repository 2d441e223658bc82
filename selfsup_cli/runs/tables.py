"""The numbers of a report as tables: laid out once, drawn by the terminal, HTML and Markdown.

A table holds the numbers of one task. What all its rows share stands in its title, what all their
protocols share is said once, and the rest of each protocol stands in a note that the row refers to
by a letter. All texts are harmless to show (`plain`), but not escaped for any format.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from string import ascii_uppercase
from typing import Any, Generic, NamedTuple, TypeVar

from selfsup_cli.runs.report import Measurement, ProtocolValue
from selfsup_cli.runs.text import plain

LONGEST_LIST = 6
# What came out along the way is no part of how a number was measured: columns of their own.
FOUND = {"training_accuracy": "training", "validation_accuracy": "validation"}
PER_CLASS = ("per_class", "per_attribute")

# A hash is told apart by its beginning; report.json has all of it.
_HASH = re.compile("[0-9a-f]{40,}")
_CLASS = re.compile(r"(.*): (\d+(?:\.\d+)?) %", re.DOTALL)

Said = list[tuple[str, str]]
NoteT = TypeVar("NoteT")
ItemT = TypeVar("ItemT")


class Cell(NamedTuple):
    """What stands in a cell, and the exact number where it is one."""

    text: str
    exact: float | int | None = None


@dataclass(frozen=True)
class Column:
    """A column. `kind` says what it holds, whatever its head is."""

    kind: str
    head: str
    cells: tuple[Cell, ...]
    number: bool = False
    wraps: bool = False


@dataclass(frozen=True)
class Table:
    """Numbers with the same task, one row for each of `measurements`.

    `intervals` names how the intervals were computed, `chances` which answers get chance. `shared`
    is said by every protocol; `protocols` holds under each mark what a row's protocol says besides
    (empty if they are all alike); `published` holds under each mark where a printed number stands
    and what differs.
    """

    title: str
    columns: tuple[Column, ...]
    measurements: tuple[Measurement, ...]
    intervals: tuple[str, ...]
    chances: tuple[str, ...]
    shared: dict[str, Any]
    protocols: tuple[tuple[str, dict[str, Any]], ...]
    published: tuple[tuple[str, str], ...]


class Notes(Generic[NoteT]):
    """What many rows refer to, each note under a short mark: A … Z, A1 …, or else 1, 2, 3 …"""

    def __init__(self, alphabet: str = "") -> None:
        self.alphabet = alphabet
        self.notes: list[NoteT] = []

    def mark(self, note: NoteT) -> str:
        """The mark of `note`, a new one if no note is equal to it."""
        if note not in self.notes:
            self.notes.append(note)
        number, size = self.notes.index(note), len(self.alphabet)
        if not size:
            return str(number + 1)
        return self.alphabet[number % size] + str(number // size or "")

    def marked(self) -> tuple[tuple[str, NoteT], ...]:
        """Each mark and its note, in order of appearance."""
        return tuple((self.mark(note), note) for note in self.notes)


@dataclass(frozen=True)
class _Layout:
    """How a column comes about, and whether it moves into the title where it never varies."""

    kind: str
    head: str
    cell: Callable[[Measurement], Cell]
    common: bool = False
    number: bool = False
    wraps: bool = False


def tables(measurements: Iterable[Measurement]) -> list[Table]:
    """One table or more for each task, in order of appearance, rows in the order of the report."""
    return [table(own) for own in tabled(measurements, lambda m: m)]


def tabled(
    items: Iterable[ItemT], measurement: Callable[[ItemT], Measurement]
) -> list[list[ItemT]]:
    """`items` by the table they belong into: that of a task, or of its metrics.

    Numbers of several layers are read down their column, so there each metric has its own.
    """
    tasks: dict[str, list[ItemT]] = {}
    for item in items:
        tasks.setdefault(measurement(item).task, []).append(item)
    found: list[list[ItemT]] = []
    for own in tasks.values():
        by_metric: dict[str, list[ItemT]] = {}
        for item in own:
            by_metric.setdefault(measurement(item).metric, []).append(item)
        several_layers = len({measurement(item).layer for item in own}) > 1
        found += by_metric.values() if several_layers else [own]
    return found


def table(measurements: Sequence[Measurement]) -> Table:
    """All of `measurements` (at least one) in one table."""
    shared, own = split_protocols([protocol(m) for m in measurements])
    letters: Notes[dict[str, Any]] = Notes(ascii_uppercase)
    digits: Notes[str] = Notes()
    marks = {id(m): letters.mark(rest) for m, rest in zip(measurements, own, strict=True)}
    several = len(letters.notes) > 1

    def beside(m: Measurement) -> Cell:
        if m.published is None:
            return Cell("")
        mark = digits.mark(_published(m))
        return Cell(f"{number(m.published.value, m.unit)} [{mark}]", m.published.value)

    layouts = (
        _Layout("measured", "measured", lambda m: Cell(plain(m.name)), common=True, wraps=True),
        _Layout("data", "data", lambda m: Cell(where(m)), common=True, wraps=True),
        _Layout("metric", "metric", lambda m: Cell(plain(m.metric)), common=True),
        _Layout("layer", "layer", lambda m: Cell(plain(m.layer or ""))),
        _Layout("features", "features", lambda m: Cell(features(m)), wraps=True),
        _Layout("value", "value", lambda m: Cell(value(m), m.value), number=True),
        _Layout("interval", "interval", lambda m: Cell(interval(m)), number=True),
        _Layout("n", "n", lambda m: Cell(str(m.n), m.n), number=True),
        _Layout("chance", "chance", lambda m: _maybe(m.chance, m.unit), number=True),
        *(
            _Layout("found", head, lambda m, key=key: _found(m, key), number=True)  # type: ignore[misc]
            for key, head in FOUND.items()
        ),
        _Layout("thesis", "thesis", beside, number=True),
        _Layout("how", "how", lambda m: Cell(f"[{marks[id(m)]}]" if several else "")),
    )
    title, columns = [], []
    for layout in layouts:
        cells = tuple(layout.cell(m) for m in measurements)
        if layout.common and len({cell.text for cell in cells}) == 1:
            title.append(cells[0].text)
        elif any(cell.text for cell in cells):
            columns.append(Column(layout.kind, layout.head, cells, layout.number, layout.wraps))
    return Table(
        title=" · ".join(title),
        columns=tuple(columns),
        measurements=tuple(measurements),
        intervals=_methods(measurements),
        chances=_chances(measurements),
        shared=shared,
        protocols=letters.marked() if several else (),
        published=digits.marked(),
    )


def protocol(m: Measurement) -> dict[str, ProtocolValue]:
    """How `m` was measured, without what came out along the way."""
    return {
        key: said
        for key, said in m.protocol.items()
        if not (key in FOUND and _is_number(said)) and not (key in PER_CLASS and classes(m))
    }


def split_protocols(
    protocols: Sequence[dict[str, Any]],
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """What all protocols say alike, and what each says besides. One alone is all shared."""
    shared = {
        key: said
        for key, said in protocols[0].items()
        if all(key in other and other[key] == said for other in protocols)
    }
    return shared, [{k: v for k, v in one.items() if k not in shared} for one in protocols]


# -- classes


@dataclass(frozen=True)
class ClassTable:
    """Accuracies by class: a row for each class, a column for each of `columns`, in %."""

    title: str
    layer: str | None
    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Cell, ...]], ...]


def classes(m: Measurement) -> dict[str, float]:
    """The number of each class or attribute in %, where the protocol has them: `name: 12.5 %`."""
    listed = next((m.protocol[key] for key in PER_CLASS if key in m.protocol), None)
    if not isinstance(listed, list):
        return {}
    found = [_CLASS.fullmatch(item) if isinstance(item, str) else None for item in listed]
    return {one[1]: float(one[2]) for one in found if one is not None} if all(found) else {}


def class_heading(measurements: Iterable[Measurement]) -> str:
    """What `class_tables` tells apart: classes, attributes or both."""
    kinds = {
        key.removeprefix("per_") for m in measurements for key in PER_CLASS if key in m.protocol
    }
    return f"Results by {' or '.join(sorted(kinds, reverse=True)) or 'class'}"


def class_tables(measurements: Iterable[Measurement]) -> list[ClassTable]:
    """Results by class or attribute, one table for each layer.

    Columns are the features and their controls.
    """
    groups: dict[tuple[str, str, str | None], list[tuple[str, dict[str, float]]]] = {}
    for m in measurements:
        if shares := classes(m):
            key = (plain(m.name), where(m), m.layer)
            groups.setdefault(key, []).append((features(m), shares))
    found = []
    for (name, data, layer), columns in groups.items():
        names = dict.fromkeys(name for _, shares in columns for name in shares)
        rows = tuple(
            (plain(one), tuple(_maybe(shares.get(one), "%") for _, shares in columns))
            for one in names
        )
        heads = tuple(head for head, _ in columns)
        found.append(ClassTable(f"{name} · {data}", layer and plain(layer), heads, rows))
    return found


# -- words

# What a verdict is called, and a sign for it that does not need colour.
VERDICTS = {
    "good": ("ok", "✓"),
    "bad": ("bad", "✗"),
    "unclear": ("unclear", "?"),
    "note": ("note", "i"),
}


def where(m: Measurement) -> str:
    """Dataset and split."""
    return plain(f"{m.dataset}, {m.split}")


def features(m: Measurement) -> str:
    """Whose features, and what was done to the input."""
    return plain(", ".join(part for part in (m.subject, m.control) if part))


def value(m: Measurement) -> str:
    """The number with its unit."""
    return f"{number(m.value, m.unit)} {plain(m.unit)}".rstrip()


def interval(m: Measurement) -> str:
    """Both ends of the interval; empty if there is none."""
    if m.interval is None:
        return ""
    return f"{number(m.interval.low, m.unit)} … {number(m.interval.high, m.unit)}"


def method(m: Measurement) -> str:
    """Level and method of the interval; empty if there is none."""
    return "" if m.interval is None else f"{m.interval.level:.0%} {plain(m.interval.method)}"


def number(value: float | None, unit: str) -> str:
    """A number as it is shown: percentages with one decimal, all else with four digits."""
    if value is None:
        return ""
    return f"{value:.1f}" if unit == "%" else f"{value:.4g}"


def facts(given: dict[str, Any], *, full: bool = False) -> Said:
    """`{"epochs": 60, "flip": True}` as (epochs, 60), (flip, yes); nested blocks by dotted names.

    `full` keeps long lists and hashes whole.
    """
    said: Said = []

    def collect(prefix: str, value: Any) -> None:
        if isinstance(value, dict):
            for key, item in value.items():
                collect(f"{prefix}.{key}" if prefix else str(key), item)
        else:
            said.append((plain(prefix.replace("_", " ")), word(value, full=full)))

    collect("", given)
    return said


def shortened(text: str) -> str:
    """`text` with every hash in it cut to its beginning."""
    return _HASH.sub(lambda found: f"{found[0][:12]}…", text)


def data_parts(data: dict[str, Any]) -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
    """What a report says of its data: the parts (train, test …), and what it says besides."""
    found = {name: part for name, part in data.items() if isinstance(part, dict) and "name" in part}
    return found, {name: item for name, item in data.items() if name not in found}


def sentence(given: dict[str, Any]) -> str:
    """Facts on one line, `epochs 60, flip yes`; long lists and hashes are cut."""
    return ", ".join(f"{name} {said}" for name, said in facts(given))


def duration(seconds: float) -> str:
    """`5400` as `1 h 30 min`: the two largest units."""
    if seconds < 60:
        return f"{seconds:.3g} s"
    left = round(seconds)
    units = []
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        count, left = divmod(left, length)
        units.append((count, unit))
    first = next(index for index, (count, _) in enumerate(units) if count)
    return " ".join(f"{count} {unit}" for count, unit in units[first : first + 2] if count)


def word(value: Any, *, full: bool = False) -> str:
    """One value as a person writes it."""
    match value:
        case None:
            return "none"
        case bool():
            return "yes" if value else "no"
        case float():
            return f"{value:.6g}"
        case list() | tuple() if len(value) > LONGEST_LIST and not full:
            return f"({len(value)} values, see report.json)"
        case list() | tuple():
            return "/".join(word(item, full=full) for item in value)
        case str() if _HASH.fullmatch(value) and not full:
            return f"{value[:12]}…"
        case _:
            return plain(value)


def _published(m: Measurement) -> str:
    assert m.published is not None  # noqa: S101 (asked by the caller)
    differs = "; ".join(plain(item) for item in m.published.differs)
    verdict = "comparable" if m.published.comparable else f"not comparable: {differs}"
    return f"{plain(m.published.where)}; {verdict}"


def _methods(measurements: Sequence[Measurement]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(filter(None, map(method, measurements))))


def _chances(measurements: Sequence[Measurement]) -> tuple[str, ...]:
    """What chance is; where it is not one thing, of which rows it is what."""
    found: dict[str, list[Measurement]] = {}
    for m in measurements:
        if m.chance is not None and m.chance_is is not None:
            found.setdefault(plain(m.chance_is), []).append(m)
    if len(found) < 2:
        return tuple(found)
    metrics = len({m.metric for m in measurements}) > 1
    most = max(found, key=lambda what: len(found[what]))
    said = []
    for what, own in found.items():
        names = dict.fromkeys(plain(m.metric if metrics else m.name) for m in own)
        rows = "all others" if what == most and len(names) > 2 else ", ".join(names)
        said.append(f"of {rows}: {what}")
    return tuple(said)


def _maybe(value: float | None, unit: str) -> Cell:
    return Cell(number(value, unit), value)


def _found(m: Measurement, key: str) -> Cell:
    value = m.protocol.get(key)
    return _maybe(float(value), "%") if _is_number(value) else Cell("")  # type: ignore[arg-type]


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
