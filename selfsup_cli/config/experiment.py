"""An experiment as data: a table or figure of the thesis, row by row, from stages of our commands.

A stage is one command with a preset: a pretraining, a transfer, a probe. Rows say how their stages
differ, columns which number of which stage stands in them, scales with which presets and on which
data it all runs, findings what the thesis saw in its numbers. Nothing of it is known to the code.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from typing import Annotated, Any, Literal, get_args

from pydantic import StringConstraints, model_validator

from selfsup_cli.config.blocks import Cost
from selfsup_cli.config.experiment_rules import (
    RULES,
    Better,
    Chance,
    GainsMore,
    NoBetter,
    Rule,
    rows_of,
)
from selfsup_cli.config.fields import Model, field
from selfsup_cli.config.jobs import JOBS

ScaleName = Literal["smoke", "small", "paper"]
SCALES: tuple[ScaleName, ...] = get_args(ScaleName)
RANDOM = "random"
"""What may stand for a stage to start from: weights that were never trained."""

# It becomes part of the name of a run.
Key = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9.+-]*$", max_length=60)]
_KEY = "letters, digits, dots, dashes and plus signs"
Settings = dict[str, Any]
_SETTINGS = "a block of lines `field.path: value`"


def _key(about: str) -> Any:
    return field(..., about, form=_KEY)


class Measured(Model):
    """Which number of a stage's report is meant; what is not said may be anything."""

    task: str = field(..., "Task of the measurement.")
    metric: str | None = field(
        None, "Metric of the measurement; without one, its name says which number is meant."
    )
    name: str | None = field(None, "Name of the measurement.")
    layer: str | None = field(None, "Layer that was measured.")
    subject: str | None = field(None, "Whose features: learned, random weights …")
    control: str | None = field(None, "What was destroyed in the input; nothing by default.")
    protocol: Settings = field(
        {}, "Facts of its protocol: `who: all unseen`.", form="a block of lines `fact: value`"
    )

    @model_validator(mode="after")
    def _one_number(self) -> Measured:
        if self.metric is None and self.name is None:
            raise ValueError("a number is known by its metric or its name: give one of them")
        return self


class Printed(Model):
    """Under which task, metric and dataset the thesis' numbers of a column are kept."""

    task: str = field(..., "Task of the printed numbers.")
    metric: str = field(..., "Their metric.")
    dataset: str | None = field(
        None,
        "Where they were measured, by its registered name; without one, what the rows say.",
    )
    layer: str | None = field(None, "Of which layer they are, where they are printed for several.")


class Column(Model):
    """One number of every row."""

    key: Key = _key("Name by which findings refer to the column.")
    head: str = field(..., "Heading.")
    stage: str = field(..., "Stage in whose report the number stands.")
    measured: Measured = field(..., "Which number of that report.")
    printed: Printed | None = field(None, "Where the thesis' numbers are kept.")
    better: Literal["higher", "lower"] = field("higher", "Which of two numbers is the better one.")
    along: str | None = field(
        None,
        "Read the number off the report's curves of it over this, at the farthest place that all "
        "rows reach, and draw them: `training time, s`.",
    )
    scales: list[ScaleName] = field(
        list(SCALES), "Scales at which the column is there.", min_length=1
    )


class Row(Model):
    """One way of doing it."""

    key: Key = _key("Name of the row: for --rows, findings, and the names of its runs.")
    label: str = field(..., "What stands at the head of the row.")
    printed: Settings | None = field(
        None,
        "What picks the row of the thesis: method, network, trained_on and conditions.",
        form=_SETTINGS,
    )
    measured: Settings = field(
        {},
        "What else of a report is meant than the columns say: `subject: random weights`.",
        form=_SETTINGS,
    )
    use: dict[str, str] = field(
        {},
        "Other stages in the place of stages, or `random` for weights that were never trained.",
        form="a block of lines `stage: stage`",
    )
    fill: Settings = field(
        {},
        "What stands for {name} in the presets and settings of all scales; {row} is the key.",
        form="a block of lines `name: value`",
    )
    set: dict[str, Settings] = field(
        {}, "Settings of its stages, at every scale.", form="a block of settings for each stage"
    )
    spread_of: list[str] = field(
        [],
        "Nothing is run for it: its numbers are how far those of these rows lie apart, the largest "
        "less the smallest, in each training by itself.",
    )
    line: str | None = field(
        None, "Line of the experiment's curves to which the row gives a point: `SGD`."
    )
    at: float | None = field(None, "Where on the axis of the curves that point is.")
    scales: list[ScaleName] = field(list(SCALES), "Scales at which the row is there.", min_length=1)

    @model_validator(mode="after")
    def _a_point(self) -> Row:
        if (self.line is None) != (self.at is None):
            raise ValueError("a point of a curve needs both `line` and `at`")
        return self


class Borrowed(Model):
    """A stage of another experiment, run at the same scale."""

    experiment: str = field(..., "The other experiment.")
    row: str = field(..., "Its row.")
    stage: str = field(..., "Its stage.")


class Stage(Model):
    """One command."""

    name: Key = _key("Name of the stage.")
    job: str | None = field(None, f"What is run: {', '.join(JOBS)}; nothing for a borrowed stage.")
    borrow: Borrowed | None = field(None, "The stage of another experiment that this is.")
    needs: list[str] = field([], "Stages from whose results it starts, or `random`.")
    set: Settings = field({}, "Settings, at every scale.", form=_SETTINGS)


class StageAt(Model):
    """What a stage is at one scale."""

    name: str = field(..., "Name of the stage.")
    preset: str | None = field(None, "Its preset; by default the one that its command would take.")
    needs: list[str] | None = field(
        None, "Stages from whose results it starts at this scale, where they are others."
    )
    set: Settings = field({}, "Settings over it.", form=_SETTINGS)


class OwnData(Model):
    """The same on videos of the user's own (--data)."""

    differs: list[str] = field([], "What of the published protocol is not followed then.")
    stages: list[StageAt] = field(
        [], "Stages that are otherwise then; those that are not named are as they were."
    )


class Scale(Model):
    """How large an experiment is run."""

    about: str = field(..., "On what, in one line.")
    cost: Cost = field(..., "What it takes.")
    differs: list[str] = field([], "What of the published protocol is not followed at this scale.")
    stages: list[StageAt] = field([], "Presets and settings of the stages.")
    own_data: OwnData | None = field(
        None, "The same on videos of the user's own; nothing where it is not meant for that."
    )


class Scales(Model):
    """The scales; an experiment need not have all."""

    smoke: Scale | None = field(None, "On a CPU, in minutes, without any data.")
    small: Scale | None = field(None, "On one GPU, in about an hour.")
    paper: Scale | None = field(None, "As in the thesis.")


class Finding(Model):
    """What the thesis found, as a sentence and as a rule that intervals can decide."""

    says: str = field(..., "The sentence.")
    where: str = field("", "Where the thesis says so.")
    better: Better | None = field(None, "Rule: rows are better than others.")
    no_better: NoBetter | None = field(None, "Rule: rows are no better than others.")
    at_chance: Chance | None = field(None, "Rule: rows are at chance.")
    above_chance: Chance | None = field(None, "Rule: rows are above chance.")
    gains_more: GainsMore | None = field(
        None, "Rule: a change gains more in one place than in another."
    )
    not_on: dict[str, str] = field(
        {},
        "Datasets on which it cannot show, each with the reason.",
        form="a block of lines `dataset: reason`",
    )

    @model_validator(mode="after")
    def _one_rule(self) -> Finding:
        if len([*self.rules()]) != 1:
            raise ValueError(f"a finding has one rule: {', '.join(RULES[:-1])} or {RULES[-1]}")
        if self.better is not None and not self.better.compared():
            raise ValueError("better: names no rows to compare")
        return self

    def rules(self) -> Iterator[Rule]:
        """The rule."""
        yield from filter(None, (getattr(self, name) for name in RULES))

    def among(self, rows: Collection[str], columns: Collection[str]) -> Finding | None:
        """What of it is about these rows and columns; None if nothing is."""
        (rule,) = self.rules()
        heads = [key for key in rule.columns if key in columns]
        update: dict[str, Any] = {"columns": heads}
        if isinstance(rule, Chance):
            left = update["rows"] = [key for key in rule.rows if key in rows]
        elif isinstance(rule, GainsMore):
            left = [*rule.pair, *rule.than] if {*rule.pair, *rule.than} <= {*rows} else []
        else:
            left = update["pairs"] = [pair for pair in rule.pairs if {*pair} <= {*rows}]
            if isinstance(rule, Better):
                update["rows"] = [key for key in rule.rows if key in rows]
                update["than"] = [key for key in rule.than if key in rows]
                left = left or (update["rows"] if update["than"] else [])
        if not heads or not left:
            return None
        kind = next(name for name in RULES if getattr(self, name) is not None)
        return self.model_copy(update={kind: rule.model_copy(update=update)})

    def rows(self) -> set[str]:
        """All rows that it is about."""
        return {row for rule in self.rules() for row in rows_of(rule)}


class Shown(Model):
    """A picture for the report, out of one of the stages."""

    row: str = field(..., "Row.")
    stage: str = field(..., "Stage.")
    file: str | None = field(
        None, "Path in the stage's run; nothing for a stage that is a picture."
    )
    caption: str = field(..., "What it shows.")


class Experiment(Model):
    """A table or figure, and how to make it again."""

    version: Literal[1] = field(1, "Version of the format.")
    experiment: Key = _key("Its name.")
    title: str = field(..., "What it is about, in one line.")
    printed: str | None = field(
        None, "Where the thesis prints its numbers, as they are kept: `thesis table 5.1`."
    )
    axis: str = field(
        "rows", "What the curves are drawn over that rows give points to: `wrong labels, %`."
    )
    others: bool = field(False, "Show also what the thesis prints for the methods of others.")
    about: str = field("", "What a reader has to know.")
    columns: list[Column] = field([], "The numbers of a row.")
    rows: list[Row] = field(..., "The rows.", min_length=1)
    stages: list[Stage] = field(..., "What is run for each row.", min_length=1)
    scales: Scales = field(..., "How large it is run.")
    findings: list[Finding] = field([], "What the thesis found.")
    pictures: list[Shown] = field([], "Pictures for the report.")

    @model_validator(mode="after")
    def _hangs_together(self) -> Experiment:
        stages, rows = [one.name for one in self.stages], [one.key for one in self.rows]
        columns = [one.key for one in self.columns]
        for name, keys in (("stages", stages), ("rows", rows), ("columns", columns)):
            for key in {key for key in keys if keys.count(key) > 1}:
                raise ValueError(f"{name}: '{key}' is there twice")
        if not self.columns and not self.pictures:
            raise ValueError("columns: there is neither a column nor a picture to show")
        for block, what, name, known in self._references(stages, rows, columns):
            if name not in known:
                listed = ", ".join(known)
                raise ValueError(f"{block}: {what} '{name}', which is none of {listed}")
        for one in self.stages:
            if (one.job is None) == (one.borrow is None):
                raise ValueError(f"stages: '{one.name}' needs either a job or something to borrow")
            self._check_order(one.name, ())
        return self

    def _references(
        self, stages: list[str], rows: list[str], columns: list[str]
    ) -> Iterator[tuple[str, str, str, Iterable[str]]]:
        """Field, what is wrong otherwise, the name, and the names it must be one of."""
        starts = [*stages, RANDOM]
        for stage in self.stages:
            if stage.job is not None:
                yield "stages", f"'{stage.name}' is a job", stage.job, JOBS
            for need in self._needs(stage.name):
                yield "stages", f"'{stage.name}' needs", need, starts
        for column in self.columns:
            yield "columns", f"'{column.key}' is of the stage", column.stage, stages
        for row in self.rows:
            for name, instead in row.use.items():
                yield "rows", f"'{row.key}' uses something for", name, stages
                yield "rows", f"'{row.key}' uses for {name}", instead, starts
            for name in row.set:
                yield "rows", f"'{row.key}' sets something of", name, stages
            for name in row.measured:
                yield "rows", f"'{row.key}' measures by", name, Measured.model_fields
            before = self.rows[: rows.index(row.key)]
            for name in row.spread_of:
                above = [one.key for one in before if not one.spread_of]
                yield "rows", f"'{row.key}' is the spread of", name, above
        for scale in SCALES:
            at: Scale | None = getattr(self.scales, scale)
            own = None if at is None else at.own_data
            for one in (*(at.stages if at else ()), *(own.stages if own else ())):
                yield "scales", f"{scale} speaks of the stage", one.name, stages
        for finding in self.findings:
            for row_ in sorted(finding.rows()):
                yield "findings", f"'{finding.says}' is about the row", row_, rows
            for rule in finding.rules():
                for name in rule.columns:
                    yield "findings", f"'{finding.says}' is about the column", name, columns
        for shown in self.pictures:
            yield "pictures", "one is of the row", shown.row, rows
            yield "pictures", "one is of the stage", shown.stage, stages

    def _check_order(self, name: str, above: tuple[str, ...]) -> None:
        if name in above:
            raise ValueError(f"stages: '{name}' needs itself: {' ← '.join((*above, name))}")
        for need in self._needs(name):
            if need != RANDOM:
                self._check_order(need, (*above, name))

    def _needs(self, name: str) -> list[str]:
        """What a stage needs at any scale."""
        found = list(self.stage(name).needs)
        for scale in SCALES:
            at: Scale | None = getattr(self.scales, scale)
            own = None if at is None else at.own_data
            for one in (*(at.stages if at else ()), *(own.stages if own else ())):
                found += (one.needs or []) if one.name == name else []
        return list(dict.fromkeys(found))

    def at_scale(self, name: ScaleName) -> Experiment:
        """What of it there is at a scale: rows, columns, and what is said and shown of them."""
        rows = [row for row in self.rows if name in row.scales]
        columns = [column for column in self.columns if name in column.scales]
        if len(rows) == len(self.rows) and len(columns) == len(self.columns):
            return self
        keys, heads = {row.key for row in rows}, {column.key for column in columns}
        findings = [one.among(keys, heads) for one in self.findings]
        return self.model_copy(
            update={
                "rows": rows,
                "columns": columns,
                "findings": [one for one in findings if one is not None],
                "pictures": [one for one in self.pictures if one.row in keys],
            }
        )

    def stage(self, name: str) -> Stage:
        """The stage of that name."""
        return next(one for one in self.stages if one.name == name)

    def row(self, key: str) -> Row:
        """The row of that key."""
        return next(one for one in self.rows if one.key == key)

    def scale(self, name: ScaleName) -> Scale | None:
        """How it is run at that scale; None if it is not."""
        found: Scale | None = getattr(self.scales, name)
        return found
