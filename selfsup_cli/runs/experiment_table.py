"""The table of an experiment, as a report holds it: rows and columns of the thesis, filled by us.

Its numbers are the report's measurements, which it refers to by their place; what is not there yet
says why.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Heading(_Model):
    """A column: its key, what stands over it, and which of two numbers is the better one."""

    key: str
    head: str
    unit: str = ""
    better: Literal["higher", "lower"] = "higher"


class TableCell(_Model):
    """One place of the table.

    `measurement` is the place of our number in the report; `printed` the thesis' number, in the
    unit of the column; `gap` says why there is no number of ours where one belongs. `of` names the
    metric of the printed number where ours is another one: their difference means nothing.
    """

    measurement: int | None = Field(default=None, ge=0)
    printed: float | None = None
    gap: str | None = None
    of: str | None = None


class TableRow(_Model):
    """A row, with one cell for each column. `own` is False for what others did."""

    key: str
    label: str
    cells: list[TableCell]
    own: bool = True


class ExperimentTable(_Model):
    """Rows by columns. `differs` says what of the thesis' protocol is not followed."""

    title: str
    scale: str
    columns: list[Heading]
    rows: list[TableRow]
    differs: list[str] = []

    @property
    def highest(self) -> int:
        """The highest place that it refers to; -1 if it refers to none."""
        cells = (cell for row in self.rows for cell in row.cells)
        return max(
            (-1 if one.measurement is None else one.measurement for one in cells), default=-1
        )

    @model_validator(mode="after")
    def _square(self) -> ExperimentTable:
        for row in self.rows:
            if len(row.cells) != len(self.columns):
                raise ValueError(
                    f"row {row.key} has {len(row.cells)} cells for {len(self.columns)} columns"
                )
        return self
