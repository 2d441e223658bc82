"""What the benchmarks share: interleaved rounds, goals, and the table that is printed.

A shared machine changes its speed by factors within minutes, so contenders take turns (A, B, A, B)
and only ratios of their medians are stated.
"""

from __future__ import annotations

import json
import math
import re
import statistics
import sys
import time
from collections.abc import Callable, Mapping

Row = tuple[str, str, float, str]
"""What was measured, against what, the figure (NaN: the peer is not installed), and the goal."""

ABSENT = math.nan


def interleaved(
    contenders: Mapping[str, Callable[[], object]],
    rounds: int = 5,
    clock: Callable[[], float] = time.process_time,
) -> dict[str, float]:
    """Median seconds of each contender over `rounds` in turn, after one round that warms up."""
    spent: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(-1, rounds):
        for name, run in contenders.items():
            start = clock()
            run()
            if number >= 0:
                spent[name].append(clock() - start)
    return {name: statistics.median(values) for name, values in spent.items()}


def met(figure: float, goal: str) -> bool | None:
    """Whether `figure` reaches `goal` (`≥ 1.4`, `≤ 50 µs`, `= 0`); None where neither is stated."""
    found = re.match(r"([≥≤=]) ([0-9.]+)", goal)
    if found is None or math.isnan(figure):
        return None
    wanted = float(found[2])
    return {"≥": figure >= wanted, "≤": figure <= wanted, "=": figure == wanted}[found[1]]


def shown(figure: float) -> str:
    """Three digits; `–` for what could not be measured."""
    return "–" if math.isnan(figure) else f"{figure:.3g}" if abs(figure) < 100 else f"{figure:.0f}"


def verdict(figure: float, goal: str) -> str:
    """`yes`, `no`, or `–` where there is nothing to judge."""
    return {True: "yes", False: "no", None: "–"}[met(figure, goal)]


def limit(limits: Mapping[str, str], name: str, against: str) -> str:
    """What limits a row: filed under its name, or under `name, against`; else nothing."""
    return limits.get(f"{name}, {against}") or limits.get(name, "")


def main(rows: Callable[[], list[Row]], limits: Mapping[str, str]) -> None:
    """Run one benchmark alone; with `--json` print its rows and limits for `run.py`."""
    found = rows()
    if "--json" in sys.argv:
        print(json.dumps({"rows": found, "limits": dict(limits)}))
        return
    for name, against, figure, goal in found:
        print(f"{name:<52} {against:<34} {shown(figure):>7}  {goal:<10} {verdict(figure, goal)}")
        if met(figure, goal) is False and (reason := limit(limits, name, against)):
            print(f"    {reason}")
