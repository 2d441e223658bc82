"""What there is to run for an experiment: every stage of every row, as the command it is.

A stage is known by what it is asked to do and by what it starts from. Rows that ask for the same
share it, and so its run, which bears the name of the first of them: `table-5.1.smoke.speed.frozen`.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from selfsup_cli.config import experiment_files
from selfsup_cli.config.experiment import (
    RANDOM,
    SCALES,
    Borrowed,
    Experiment,
    Row,
    Scale,
    ScaleName,
    Settings,
    StageAt,
)
from selfsup_cli.config.gan import RING
from selfsup_cli.config.jobs import JOBS
from selfsup_cli.config.options import Option, options_of
from selfsup_cli.config.presets import Resolved, identity, resolve
from selfsup_cli.config.registry import DATASETS, PAIRS, unknown
from selfsup_cli.errors import InputError
from selfsup_cli.runs.run import runs_dir

SOURCE, ROOT = "data.source", "data.root"
SAMPLES = "sample/dfgan"
INCEPTION, IMAGENET = "inception", "imagenet"
# Settings of data that is rendered; data of the user's own has none of them.
_RENDERED = ("data.motion.", "data.scenes.", "data.facelike.", "data.figures.")
# Commands of jobs that are not called by their names with a slash.
_OF_VIEWS = {"probe-sync": "probe/sync", "retrieve-sync": "retrieve/sync"}


@dataclass(frozen=True)
class Given:
    """What the user named instead of what the experiment says: data, and where it lies."""

    data: str | None = None
    root: str | None = None
    inception: str | None = None
    imagenet: str | None = None

    @property
    def tag(self) -> str:
        """What it adds to the names of runs."""
        if self.data is None:
            return ""
        word = re.sub(r"\.(csv|h5)$", "", Path(self.data).name)
        return f"-{re.sub(r'[^A-Za-z0-9_]+', '_', word).strip('_')[:40] or 'data'}"


@dataclass(frozen=True)
class Stage:
    """A stage as it is run. `needs` are the names of the runs it starts from, or `random`.

    `run` is the name of its run. A picture is a file in the folder of runs, under that name and a
    few digits that stand for what it was made with; samples are a folder there.
    """

    run: str
    row: str
    stage: str
    job: str
    preset: str | None
    settings: Mapping[str, Any]
    needs: tuple[str, ...]

    @property
    def is_picture(self) -> bool:
        """Whether it ends in a picture instead of a run."""
        return self.job.startswith("visualize/")

    @property
    def is_sample(self) -> bool:
        """Whether it ends in a folder of samples instead of a run."""
        return self.job == SAMPLES

    @property
    def path(self) -> Path:
        """The folder of its run or of its samples, or the file of its picture."""
        if not self.is_picture and not self.is_sample:
            return runs_dir() / self.run
        made_with = json.dumps(self.identity, sort_keys=True).encode()
        name = f"{self.run}-{hashlib.sha256(made_with).hexdigest()[:8]}"
        return runs_dir() / (f"{name}.png" if self.is_picture else name)

    @cached_property
    def resolved(self) -> Resolved:
        """Its preset with all settings. Raises PresetError."""
        given = {name: value for name, value in self._settings().items() if value is not None}
        return resolve(self.job, preset=self.preset, options=given, sets=self._nulls())

    @cached_property
    def identity(self) -> dict[str, Any]:
        """What its run must have been made with."""
        return identity(self.resolved.preset)

    def arguments(self) -> list[str]:
        """Its command line, after `selfsup`. What its preset says already is not repeated."""
        words = command_of(self.job).split("/")
        if self.preset is not None:
            words += ["--preset", self.preset]
        options = {option.path: option for option in options_of(JOBS[self.job])}
        said = resolve(self.job, preset=self.preset).preset.model_dump(mode="json")
        for path, value in self._settings().items():
            if _at(said, path) != value:
                words += _argument(path, value, options.get(path))
        out = self.is_picture or self.is_sample
        return [*words, *(("--out", str(self.path)) if out else ("--run", self.run))]

    def command(self) -> str:
        """The same as a line for a shell."""
        return shlex.join(["selfsup", *self.arguments()])

    def _settings(self) -> dict[str, Any]:
        if not self.needs:
            return dict(self.settings)
        first, *others = starting_options(self.job)
        starts: Settings = {first.path: list(self.needs) if first.is_list else self.needs[0]}
        if others and not first.is_list and self.needs[1:]:
            second = list(self.needs[1:])
            starts[others[0].path] = second if others[0].is_list else second[0]
        return {**starts, **self.settings}

    def _nulls(self) -> list[str]:
        return [f"{name}=null" for name, value in self._settings().items() if value is None]


@dataclass
class Plan:
    """All stages of an experiment at one scale, each after those it needs.

    `cells` maps row and stage to the name of a run; a row that starts from random weights has no
    run for the stage that would have trained them. `above` are the experiments that borrow from
    this one, and it last.
    """

    experiment: Experiment
    scale: ScaleName
    given: Given
    stages: dict[str, Stage] = field(default_factory=dict)
    cells: dict[tuple[str, str], str] = field(default_factory=dict)
    above: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Name of the run that holds the report."""
        return f"{self.experiment.experiment}.{self.scale}{self.given.tag}"

    @property
    def at(self) -> Scale:
        """How it is run at this scale."""
        found = self.experiment.scale(self.scale)
        assert found is not None  # noqa: S101 (asked when the plan was made)
        return found

    @property
    def differs(self) -> list[str]:
        """What of the published protocol is not followed."""
        own = self.at.own_data
        return list(self.at.differs if self.given.data is None or own is None else own.differs)

    def of_rows(self, wanted: Callable[[str], bool]) -> list[Stage]:
        """The stages that rows need, in order, whatever else shares them."""
        names: dict[str, None] = {}

        def add(run: str) -> None:
            for need in self.stages[run].needs:
                if need in self.stages:
                    add(need)
            names.setdefault(run)

        for (row, _), run in self.cells.items():
            if wanted(row):
                add(run)
        return [self.stages[name] for name in names]


def plan(experiment: Experiment, scale: ScaleName, given: Given | None = None) -> Plan:
    """Lay out an experiment. Nothing is read but experiments; presets are, when asked for.

    Raises InputError if the experiment is not run at that scale, or not on data of the user's.
    """
    return _plan(experiment, scale, given or Given(), ())


def _plan(experiment: Experiment, scale: ScaleName, given: Given, above: tuple[str, ...]) -> Plan:
    """The plan; `above` are the experiments that borrow from this one."""
    if experiment.experiment in above:
        chain = " ← ".join((*above, experiment.experiment))
        raise InputError(f"experiments borrow from each other: {chain}", kind="experiment")
    if experiment.scale(scale) is None:
        known: list[str] = [one for one in SCALES if experiment.scale(one) is not None]
        raise unknown(f"scale of {experiment.experiment}", scale, known)
    at = experiment.at_scale(scale)
    made = Plan(at, scale, given, above=(*above, experiment.experiment))
    _check(given, made)
    shared: dict[str, str] = {}
    for row in at.rows:
        for name in _asked_for(at, row):
            _lay(made, row, name, shared)
    return made


def starting_options(job: str) -> list[Option]:
    """The options by which a job is told from which run, or which runs, it starts: first the one
    that it is about, then those to look at beside it."""
    found = [option for option in options_of(JOBS[job]) if option.names in ("runs", "starts")]
    if not found:
        raise InputError(f"{job} does not start from a run", kind="experiment")
    return found


def command_of(job: str) -> str:
    """The words of the command that does a job, with slashes: on images it is that on videos."""
    if job in _OF_VIEWS:
        return _OF_VIEWS[job]
    return next((command for command, other in PAIRS.items() if other == job), job)


def _check(given: Given, made: Plan) -> None:
    if given.data is not None and made.at.own_data is None:
        known = [
            one for one in SCALES if (at := made.experiment.scale(one)) is not None and at.own_data
        ]
        raise InputError(
            f"--data: at the scale {made.scale} {made.experiment.experiment} is run on the "
            f"datasets it names; data of your own is for {' and '.join(known) or 'no scale'}",
            kind="usage",
            hint="--data-root names the folder that holds the datasets",
        )
    asks = [value for one in made.at.stages for value in one.set.values()]
    for name, path, does in (
        (INCEPTION, given.inception, "measures by the Inception network"),
        (IMAGENET, given.imagenet, "begins with weights of ImageNet"),
    ):
        if path is not None and len(made.above) == 1 and f"{{{name}}}" not in asks:
            raise InputError(
                f"--{name}: at the scale {made.scale} no stage of {made.experiment.experiment} "
                f"{does}; leave it out",
                kind="usage",
            )
    if given.data is not None and os.sep in given.data and not Path(given.data).exists():
        raise InputError(f"--data {given.data}: there is no such file or folder", kind="usage")


def _asked_for(experiment: Experiment, row: Row) -> Iterator[str]:
    """The stages whose results of a row are shown."""
    if row.spread_of:
        return
    for column in experiment.columns:
        yield row.use.get(column.stage, column.stage)
    for shown in experiment.pictures:
        if shown.row == row.key:
            yield row.use.get(shown.stage, shown.stage)


def _lay(made: Plan, row: Row, name: str, shared: dict[str, str]) -> str:
    """Add the stage `name` of `row` and what it needs; gives the name of its run, or `random`."""
    if name == RANDOM:
        return RANDOM
    if (row.key, name) in made.cells:
        return made.cells[row.key, name]
    stage = made.experiment.stage(name)
    if stage.borrow is not None:
        run = _borrow(made, stage.borrow)
    else:
        others = [one.needs for one in _blocks(made, name) if one.needs is not None]
        wanted = others[-1] if others else stage.needs
        needs = tuple(_lay(made, row, row.use.get(one, one), shared) for one in wanted)
        assert stage.job is not None  # noqa: S101 (an experiment sees to it)
        preset, settings = _settings(made, row, name, stage.job)
        fresh = Stage(
            f"{made.name}.{row.key}.{name}", row.key, name, stage.job, preset, settings, needs
        )
        same = json.dumps([fresh.job, preset, settings, needs], sort_keys=True)
        run = shared.setdefault(same, fresh.run)
        made.stages.setdefault(run, fresh)
    made.cells[row.key, name] = run
    return run


def _borrow(made: Plan, borrowed: Borrowed) -> str:
    """Add a stage of another experiment and what that needs; gives the name of its run."""
    lender = experiment_files.load(borrowed.experiment)
    other = _plan(lender, made.scale, made.given, made.above)
    run = other.cells.get((borrowed.row, borrowed.stage))
    if run is None:
        raise InputError(
            f"{made.experiment.experiment} borrows the stage {borrowed.stage} of the row "
            f"{borrowed.row} of {borrowed.experiment}, which has none",
            kind="experiment",
        )
    for one in other.of_rows(lambda row: row == borrowed.row):
        if one.run == run or _leads_to(other, one.run, run):
            made.stages.setdefault(one.run, replace(one, row=borrowed.row))
    return run


def _leads_to(made: Plan, run: str, target: str) -> bool:
    return any(
        need == run or (need in made.stages and _leads_to(made, run, need))
        for need in made.stages[target].needs
    )


def _blocks(made: Plan, name: str) -> list[StageAt]:
    """What the scale says of a stage, or what it says of it on data of the user's own."""
    blocks = [one for one in made.at.stages if one.name == name]
    if made.given.data is not None and made.at.own_data is not None:
        blocks = [one for one in made.at.own_data.stages if one.name == name] or blocks
    return blocks


def _settings(made: Plan, row: Row, name: str, job: str) -> tuple[str | None, Settings]:
    """Preset and settings: those of the stage, of the scale, of the row, then the user's data."""
    blocks = _blocks(made, name)
    preset = next((one.preset for one in reversed(blocks) if one.preset is not None), None)
    stage = made.experiment.stage(name)
    settings: Settings = dict(stage.set)
    for block in (*(one.set for one in blocks), row.set.get(name, {})):
        settings |= block
    files = {INCEPTION: made.given.inception, IMAGENET: made.given.imagenet}
    fill = {"row": row.key, **files, **row.fill}
    settings = {path: _filled(value, fill) for path, value in settings.items()}
    data, root = made.given.data, made.given.root
    # Points of the ring are no images, whoever's.
    if data is not None and settings.get(SOURCE) != RING:
        settings = {p: v for p, v in settings.items() if not p.startswith(_RENDERED)}
        if "data" in JOBS[job].model_fields:
            settings[SOURCE] = data
    filled = None if preset is None else str(_filled(preset, fill))
    if root is not None:
        source = settings.get(SOURCE) or _at(_plain(job, filled), SOURCE)
        if source in DATASETS and DATASETS[source].layout:
            settings[ROOT] = str(Path(root) / source)
    return filled, settings


def _plain(job: str, preset: str | None) -> dict[str, Any]:
    return resolve(job, preset=preset).preset.model_dump(mode="json")


def _filled(value: Any, fill: Mapping[str, Any]) -> Any:
    """`value` with what stands for `{name}` in its text; alone it may be anything but text."""
    if isinstance(value, list):
        return [_filled(item, fill) for item in value]
    if not isinstance(value, str):
        return value
    for name, instead in fill.items():
        if value == f"{{{name}}}":
            return instead
        value = value.replace(f"{{{name}}}", str(instead))
    return value


def _argument(path: str, value: Any, option: Option | None) -> list[str]:
    """A setting as it is typed: by its own option where there is one."""
    if option is None or value is None:
        return ["--set", f"{path}={json.dumps(value, ensure_ascii=False)}"]
    if option.is_bool:
        return [option.flags[-1] if value is False else option.flags[0]]
    return [option.flags[0], _text(value)]


def _text(value: Any) -> str:
    if isinstance(value, list):
        return ",".join(map(_text, value))
    return value if isinstance(value, str) else json.dumps(value)


def _at(data: Any, path: str) -> Any:
    for part in path.split("."):
        data = data.get(part) if isinstance(data, dict) else None
    return data
