"""Rules by which intervals decide whether what the thesis found holds of our numbers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Literal

from annotated_types import Gt

from selfsup_cli.config.fields import Model, field


class Better(Model):
    """Rows that are better than others, one by one."""

    pairs: list[tuple[str, str]] = field([], "Pairs of rows, the better one first.")
    rows: list[str] = field([], "Rows of which each is better …")
    than: list[str] = field([], "… than each of these.")
    columns: list[str] = field(..., "In which columns.", min_length=1)
    share: Literal["all", "most"] = field(
        "all", "Of how many of these comparisons it is said: of all, or of more than half."
    )

    def compared(self) -> list[tuple[str, str]]:
        """All pairs, the row that is said to be better first."""
        return [*self.pairs, *((one, other) for one in self.rows for other in self.than)]


class NoBetter(Model):
    """Rows that are no better than others: of the same worth at most."""

    pairs: list[tuple[str, str]] = field(
        ..., "Pairs of rows, first the one that is no better.", min_length=1
    )
    columns: list[str] = field(..., "In which columns.", min_length=1)
    within: Annotated[float, Gt(0)] = field(
        2.0,
        "How far above the other's number the whole interval may reach and still count as no "
        "better.",
    )

    def compared(self) -> list[tuple[str, str]]:
        """All pairs."""
        return self.pairs


class Chance(Model):
    """Rows at chance, or above it."""

    rows: list[str] = field(..., "Which rows.", min_length=1)
    columns: list[str] = field(..., "In which columns.", min_length=1)
    within: Annotated[float, Gt(0)] = field(
        5.0, "How far from chance the whole interval may reach and still count as at chance."
    )


class GainsMore(Model):
    """A change that gains more in one place than in another.

    How far four numbers lie apart is known less well than each of them: the half widths of their
    intervals are added as those of independent numbers, which is wide for numbers of the same test
    part.
    """

    pair: tuple[str, str] = field(..., "Where it gains more: the row with it, the one without.")
    than: tuple[str, str] = field(..., "Where it gains less, likewise.")
    columns: list[str] = field(..., "In which columns.", min_length=1)


Rule = Better | NoBetter | Chance | GainsMore
RULES = ("better", "no_better", "at_chance", "above_chance", "gains_more")


def rows_of(rule: Rule) -> Iterable[str]:
    """All rows that a rule is about."""
    if isinstance(rule, Chance):
        return rule.rows
    if isinstance(rule, GainsMore):
        return (*rule.pair, *rule.than)
    return (row for pair in rule.compared() for row in pair)
