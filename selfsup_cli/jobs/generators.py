"""Which generator a command means: that of a run, at one of the steps that were kept, or a file."""

from __future__ import annotations

import json
import logging
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from selfsup_cli.config.gan import PretrainGan
from selfsup_cli.config.generated import Weights
from selfsup_cli.config.images import ImageData
from selfsup_cli.config.presets import resolve
from selfsup_cli.errors import InputError
from selfsup_cli.jobs.subject import is_weights
from selfsup_cli.models.gan_files import FILE, AnyGenerator, Generators, load_generator
from selfsup_cli.runs import atomic
from selfsup_cli.runs.run import Run, RunSummary, find_run, runs_dir

log = logging.getLogger("selfsup")

FOLDER = "generators"
TIMES = "times.json"
JOB = "pretrain/dfgan"
_KEPT = re.compile(r"step-(\d+)\.safetensors")


@dataclass(frozen=True)
class Origin:
    """Where generators come from: the `run`, if they are of one, and a file for each step kept.

    Of a file of its own, the step is the one that it was written at.
    """

    name: str
    run: Run | None
    files: dict[int, Path]

    @property
    def last(self) -> int:
        """The newest step."""
        return max(self.files)

    def at(self, step: int | None) -> tuple[int, Generators]:
        """What was kept of a step, by default the last. Raises InputError for another one."""
        if step is None:
            return self.last, load_generator(self.files[self.last])
        if step not in self.files:
            raise InputError(
                f"--checkpoint {step}: {self.name} keeps no generator of that step, but those of "
                f"{', '.join(map(str, sorted(self.files)))}",
                kind="checkpoint",
            )
        return step, load_generator(self.files[step])

    def preset(self) -> PretrainGan:
        """The preset of the run. Raises InputError where it is not known."""
        if self.run is None:
            raise InputError(
                f"{self.name} is no file of a run, so that its training data are not known: say "
                "where real images come from with --data",
                kind="no-run",
            )
        preset = resolve(JOB, preset=str(self.run.path / "preset.yaml"), env={}).preset
        assert isinstance(preset, PretrainGan)  # noqa: S101 (asked for by name)
        return preset

    def data(self, asked: ImageData) -> ImageData:
        """The data that were asked for; those that were trained on where none were."""
        return self.preset().data if asked.source is None else asked

    def seconds(self, step: int) -> float | None:
        """How long the training up to a step took; None where that is not known."""
        return None if self.run is None else _times(self.run.path).get(step)


def find_generators(settings: Weights) -> Origin:
    """What `--from` names. A run that was named may be unfinished, if it has kept a generator.

    Of a run of several trainings (`--seeds`) it is the first of them. Raises InputError for a run
    of another kind, and where there is nothing to sample from.
    """
    name, (first, *others) = find_trainings(settings)
    if others:
        log.info("%s are %d trainings; the first, %s, is taken", name, 1 + len(others), first.name)
    return first


def find_trainings(settings: Weights) -> tuple[str, list[Origin]]:
    """The same and its name, where a run of several trainings (`--seeds`) means all of them."""
    reference = settings.run or "latest"
    path = Path(reference)
    if is_weights(path):
        step = load_generator(path).facts.get("step")
        return path.stem, [Origin(path.stem, _around(path), {int(step or 0): path})]
    run = find_run(reference, runs_dir(), needs=unfit, finished=reference == "latest")
    if _has_generator(run.path):
        return run.name, [_origin(run)]
    return run.name, [_training(run, name) for name in _trainings(run)]


def keep_time(run: Path, step: int, seconds: float) -> None:
    """Note how long the training up to a step took, beside the generator that is kept of it."""
    found = {**_times(run), step: round(seconds, 3)}
    atomic.write_json(run / FOLDER / TIMES, {str(key): found[key] for key in sorted(found)})


def _times(run: Path) -> dict[int, float]:
    try:
        found = json.loads((run / FOLDER / TIMES).read_bytes())
        return {int(step): float(seconds) for step, seconds in found.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def _training(together: Run, name: str) -> Origin:
    """One of the trainings that a run is about. Raises InputError where it is not there."""
    path = together.path.parent / name
    if not (path / "run.json").is_file() or not _has_generator(path):
        raise InputError(
            f"run {together.name} is about the training {name}, whose generator is not at {path}",
            kind="no-run",
        )
    return _origin(Run.open(path))


def _origin(run: Run) -> Origin:
    files = _kept(run.path)
    if (run.path / FILE).is_file():
        step = load_generator(run.path / FILE).facts.get("step")
        files[int(step or 0)] = run.path / FILE
    return Origin(run.name, run, files)


def weights_of(
    found: Generators, asked: Literal["auto", "average", "raw"]
) -> tuple[AnyGenerator, str]:
    """The network of the weights asked for, and what they are called."""
    if asked == "raw" or (asked == "auto" and found.average is None):
        return found.raw, "as trained"
    return found.network("average"), "moving average"


def unfit(summary: RunSummary) -> str | None:
    """Why a run has no generator to look at; None if it has."""
    if summary.job != JOB:
        return f"it is no run of pretrain dfgan but of {summary.job.replace('/', ' ')}"
    if not _has_generator(summary.path) and not _trainings(Run.open(summary.path)):
        return "it has kept no generator yet"
    return None


def _has_generator(run: Path) -> bool:
    return (run / FILE).is_file() or bool(_kept(run))


def _trainings(run: Run) -> list[str]:
    """The names of the trainings that a run of several seeds reports together."""
    return [str(parent["run"]) for parent in run.info.parents if "run" in parent]


def _kept(run: Path) -> dict[int, Path]:
    found = {}
    for path in sorted((run / FOLDER).glob("step-*.safetensors")):
        if match := _KEPT.fullmatch(path.name):
            found[int(match[1])] = path
    return found


def _around(path: Path) -> Run | None:
    """The run of pretraining that a file lies in."""
    for folder in path.absolute().parents:
        if (folder / "run.json").is_file():
            run = Run.open(folder)
            return run if run.info.job == JOB else None
    return None
