"""Whether our numbers support what the thesis found, contradict it, or cannot tell.

Nothing but intervals decides. One number is better than another if their 95 % intervals do not
overlap; it is at chance if its interval holds chance and reaches no farther than a stated distance
from it, and no better than another if its interval reaches no farther above that, so that a wide
interval shows nothing. A change gains more in one place than in another if what it gains differs by
more than the intervals of all four numbers leave open, taken as independent. That nothing is shown
never counts as a result.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from selfsup_cli.config.experiment import Experiment, Finding
from selfsup_cli.config.experiment_rules import Chance, GainsMore, NoBetter, Rule
from selfsup_cli.runs import report as reports
from selfsup_cli.runs.report import Measurement, Verdict, separated
from selfsup_cli.runs.tables import interval, value

Answer = Literal["supported", "contradicted", "cannot tell"]
Told = Literal["yes", "no", "open", "missing"]
VERDICTS: dict[Answer, Verdict] = {
    "supported": "good",
    "contradicted": "bad",
    "cannot tell": "unclear",
}
LISTED = 3

Numbers = Mapping[tuple[str, str], Measurement]
Printed = Mapping[tuple[str, str], float]


@dataclass(frozen=True)
class Judged:
    """One comparison: what the intervals say to it, and both sides in words."""

    told: Told
    said: str = ""


def findings(experiment: Experiment, numbers: Numbers, printed: Printed) -> list[reports.Finding]:
    """Every finding of the experiment as a sentence with its verdict.

    `numbers` are ours and `printed` the thesis', by row and column, as far as there are any.
    """
    out = []
    for finding in experiment.findings:
        answer, why = judge(experiment, finding, numbers)
        where = f" ({finding.where})" if finding.where else ""
        text = f"{finding.says}{where}: {answer}, {why}"
        if said := _as_printed(experiment, finding, printed):
            text += f"; {said}"
        out.append(reports.Finding(text=text, verdict=VERDICTS[answer]))
    return out


def judge(experiment: Experiment, finding: Finding, numbers: Numbers) -> tuple[Answer, str]:
    """What the intervals say to one finding, and why."""
    data = {numbers[cell].dataset for cell in _cells(finding) if cell in numbers}
    if data and data <= finding.not_on.keys():
        return "cannot tell", "; ".join(dict.fromkeys(finding.not_on[one] for one in sorted(data)))
    judged = [
        one for rule in finding.rules() for one in _judged(experiment, finding, rule, numbers)
    ]
    count = Counter(one.told for one in judged)
    total, share = len(judged), finding.better.share if finding.better is not None else "all"
    enough = total if share == "all" else total // 2 + 1
    against = 1 if share == "all" else total // 2 + 1
    what = "number" if finding.at_chance or finding.above_chance else "comparison"
    if count["yes"] >= enough:
        return "supported", f"in {count['yes']} of {_counted(total, what)}"
    if count["no"] >= against:
        examples = [one.said for one in judged if one.told == "no"]
        return "contradicted", f"in {count['no']} of {_counted(total, what)}: {_listed(examples)}"
    parts = [f"shown in {count['yes']} of {_counted(total, what)}"]
    if count["no"]:
        parts.append(f"the opposite in {count['no']}")
    if count["open"]:
        why = "the intervals overlap" if what == "comparison" else "the interval is too wide"
        parts.append(f"in {count['open']} {why}")
    if count["missing"]:
        parts.append(f"{count['missing']} not measured")
    return "cannot tell", ", ".join(parts)


def _judged(
    experiment: Experiment, finding: Finding, rule: Rule, numbers: Numbers
) -> Iterator[Judged]:
    if isinstance(rule, Chance):
        for cell in _product(rule.rows, rule.columns):
            yield _beside_chance(rule, numbers.get(cell), above=finding.at_chance is None)
        return
    lower = {one.key for one in experiment.columns if one.better == "lower"}
    labels = {row.key: row.label for row in experiment.rows}
    if isinstance(rule, GainsMore):
        for column in rule.columns:
            cells = [numbers.get((row, column)) for row in (*rule.pair, *rule.than)]
            yield _gains_more(cells, lower=column in lower)
        return
    for column in rule.columns:
        for better, worse in rule.compared():
            ours = numbers.get((better, column)), numbers.get((worse, column))
            names = labels[better], labels[worse]
            if isinstance(rule, NoBetter):
                yield _no_better(*ours, names, rule.within, lower=column in lower)
            else:
                yield _compared(*ours, names, lower=column in lower)


def _compared(
    a: Measurement | None, b: Measurement | None, names: tuple[str, str], *, lower: bool
) -> Judged:
    if a is None or b is None:
        return Judged("missing")
    if not separated(a, b):
        return Judged("open")
    said = f"{names[0]} {_said(a)}, {names[1]} {_said(b)}"
    return Judged("yes" if (a.value > b.value) != lower else "no", said)


def _no_better(
    a: Measurement | None,
    b: Measurement | None,
    names: tuple[str, str],
    within: float,
    *,
    lower: bool,
) -> Judged:
    if a is None or b is None:
        return Judged("missing")
    if a.interval is None or b.interval is None:
        return Judged("open")
    said = f"{names[0]} {_said(a)}, {names[1]} {_said(b)}"
    above = b.value - a.interval.low if lower else a.interval.high - b.value
    if above <= within:
        return Judged("yes", said)
    return Judged("no" if separated(a, b) and (a.value > b.value) != lower else "open", said)


def _gains_more(cells: list[Measurement | None], *, lower: bool) -> Judged:
    """Whether what the second of four numbers lacks to the first is more than what the fourth lacks
    to the third."""
    found = [one for one in cells if one is not None]
    if len(found) < len(cells):
        return Judged("missing")
    gains = [(a.value - b.value) * (-1 if lower else 1) for a, b in (found[:2], found[2:])]
    halves = [_half(one) for one in found]
    if any(half is None for half in halves):
        return Judged("open")
    off = math.hypot(*(half for half in halves if half is not None))
    more = gains[0] - gains[1]
    said = f"{gains[0]:.1f} against {gains[1]:.1f}, the difference known to ± {off:.1f}"
    if abs(more) <= off:
        return Judged("open", said)
    return Judged("yes" if more > 0 else "no", said)


def _half(m: Measurement) -> float | None:
    """The longer side of an interval."""
    return None if m.interval is None else max(m.interval.high - m.value, m.value - m.interval.low)


def _beside_chance(rule: Chance, m: Measurement | None, *, above: bool) -> Judged:
    if m is None:
        return Judged("missing")
    if m.interval is None or m.chance is None:
        return Judged("open")
    low, high, chance = m.interval.low, m.interval.high, m.chance
    said = f"{m.subject} {_said(m)}, chance {chance:.1f}"
    inside = low <= chance <= high and max(high - chance, chance - low) <= rule.within
    if low > chance:
        return Judged("yes" if above else "no", said)
    if inside or high < chance:
        if above:
            return Judged("no", said)
        return Judged("yes" if inside else "open", said)
    return Judged("open")


def _as_printed(experiment: Experiment, finding: Finding, printed: Printed) -> str:
    """In how many of the comparisons the thesis' own numbers lie as the sentence says."""
    lower = {one.key for one in experiment.columns if one.better == "lower"}
    lies = []
    if (more := finding.gains_more) is not None:
        for column in more.columns:
            values = [printed.get((row, column)) for row in (*more.pair, *more.than)]
            a, b, c, d = values
            if a is not None and b is not None and c is not None and d is not None:
                lies.append((b - a > d - c) if column in lower else (a - b > c - d))
        return _lie(lies)
    rule = finding.better or finding.no_better
    if rule is None:
        return ""
    within = 0.0 if finding.no_better is None else finding.no_better.within
    for column in rule.columns:
        for better, worse in rule.compared():
            a, b = printed.get((better, column)), printed.get((worse, column))
            if a is None or b is None:
                continue
            gain = b - a if column in lower else a - b
            lies.append(gain <= within if finding.no_better is not None else gain > 0)
    return _lie(lies)


def _lie(lies: list[bool]) -> str:
    return f"the printed numbers lie so in {sum(lies)} of {len(lies)}" if lies else ""


def _cells(finding: Finding) -> Iterator[tuple[str, str]]:
    for rule in finding.rules():
        yield from _product(sorted(finding.rows()), rule.columns)


def _product(rows: Iterable[str], columns: list[str]) -> Iterator[tuple[str, str]]:
    return ((row, column) for row in rows for column in columns)


def _said(m: Measurement) -> str:
    spread = interval(m)
    return f"{value(m)} ({spread})" if spread else value(m)


def _counted(total: int, what: str) -> str:
    return f"{total} {what}{'' if total == 1 else 's'}"


def _listed(examples: list[str]) -> str:
    more = f"; and {len(examples) - LISTED} more" if len(examples) > LISTED else ""
    return "; ".join(examples[:LISTED]) + more
