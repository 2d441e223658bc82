"""A number that the thesis printed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

Fact = str | int | bool
OURS = "Ours"
RANDOM = "Random"


@dataclass(frozen=True)
class Row:
    """One printed number: which method, trained on what, measured how.

    `conditions` are the facts of the protocol that a comparison has to share. `dataset` is where
    it was measured, by its registered name. `printed` is how it stands there, where that says more
    than the value: a deviation, a bound.
    """

    table: str
    method: str
    task: str
    dataset: str
    metric: str
    value: float
    unit: str = "%"
    network: str = "C3D"
    trained_on: str = "ucf101"
    conditions: Mapping[str, Fact] = field(default_factory=dict)
    printed: str = ""

    @property
    def where(self) -> str:
        """Where it is printed, as said in reports."""
        signal = self.conditions.get("transformations")
        parts = [self.table, self.method if self.method != OURS else "", self.network]
        parts += [f"trained on {self.trained_on}"] if self.trained_on else []
        parts += [str(signal)] if signal else []
        if self.conditions.get("speed_loss") is False:
            parts.append("no speed loss")
        parts += [f"printed as {self.printed}"] if self.printed else []
        return ", ".join(part for part in parts if part)
