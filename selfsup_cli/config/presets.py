"""From a preset and options to one checked description of a job, each value with its origin.

Precedence: field defaults < `extends` chain < preset file < environment < options and `--set`.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from selfsup_cli.config.blocks import Preset
from selfsup_cli.config.chain import PresetFile, job_of_file, load_chain
from selfsup_cli.config.document import KeyPath, write
from selfsup_cli.config.fields import Model, bare, declared, is_block
from selfsup_cli.config.finding import builtin_root, everything, find, look_up
from selfsup_cli.config.given import disagreements, from_environment, from_options, from_sets
from selfsup_cli.config.jobs import JOBS
from selfsup_cli.config.layers import DEFAULT, Layers, defaults, leaves
from selfsup_cli.config.problems import MAX_SHOWN, PresetError, Problem, dotted, told
from selfsup_cli.config.registry import (
    ARCHS,
    DATASETS,
    FREEZES,
    TRANSFORMS,
    all_layers,
    datasets,
    nearest,
    unfit_arch,
    unknown,
)
from selfsup_cli.errors import InputError, MachineError

if TYPE_CHECKING:
    from selfsup_cli.config.registry import Medium


@dataclass(frozen=True)
class Resolved:
    """A job as it will run.

    `name` is the preset's name or path; `origin` maps the dotted path of every value to where it
    came from: `default`, `presets/…/c3d.yaml: line 7`, `extends temporal/base: line 3`,
    `$SELFSUP_DEVICE`, `--lr` or `--set`.
    """

    job: str
    name: str
    preset: Preset
    origin: dict[str, str]


@dataclass(frozen=True)
class PresetInfo:
    """A preset in the list. `problem` says why it cannot be used; None if it can."""

    name: str
    job: str
    description: str
    paper: str
    cost: str
    path: Path
    problem: str | None = None


def resolve(
    job: str,
    *,
    preset: str | None = None,
    options: Mapping[str, Any] | None = None,
    sets: Sequence[str] = (),
    env: Mapping[str, str] | None = None,
) -> Resolved:
    """Find, merge and check a preset.

    `job` is a key of `JOBS` (`"pretrain/temporal"`), `preset` a name or a path (by default the
    most specific that fits, see `default_preset`). `options` maps dotted paths to the values of
    command-line options (None: not given; lists may be comma-separated text), `sets` are the
    texts of `--set a.b=value`. Raises PresetError with everything that is wrong, InputError for
    an unknown job or preset.
    """
    if job not in JOBS:
        raise unknown("job", job, list(JOBS))
    env = os.environ if env is None else env
    model = JOBS[job]
    problems: list[Problem] = []
    given = [*from_options(model, options or {}, problems), *from_sets(sets, problems)]
    problems += disagreements(given)
    name = preset
    if name is None:
        name = default_preset(job, {dotted(value.path): value.value for value in given}, env)
    found = find(name, env, job=job)
    try:
        files = load_chain(found, job, env)
    except PresetError as error:
        raise PresetError([*error.problems, *problems]) from None
    layers = _lay(model, files)
    problems = [*(problem for file in files for problem in file.problems), *problems]
    for value in (*from_environment(model, env, problems), *given):
        if problem := layers.put(value.path, value.value, value.origin):
            problems.append(problem)
    checked, mistakes = _check(model, layers)
    # A line whose YAML is wrong has been told; what else does not fit there follows from it.
    broken = {(problem.file, problem.line) for problem in problems if problem.file}
    problems += [p for p in mistakes if (p.file, p.line) not in broken]
    if checked is None or problems:
        raise PresetError(problems)
    origin = {
        dotted(path): str(layers.origins.get(path, DEFAULT)) for path in leaves(_plain(checked))
    }
    return Resolved(job, found.name, checked, origin)


def default_preset(
    job: str, options: Mapping[str, Any] | None = None, env: Mapping[str, str] | None = None
) -> str:
    """The name of the most specific preset for `options` (dotted path → value) that exists.

    For pretraining METHOD/ARCH-DATA, METHOD/DATA, METHOD/ARCH, METHOD/base, where DATA is the name
    of a registered dataset; for all other jobs JOB/DATA, JOB/base, and where JOB is a word under
    another (transfer/action) its last word; last JOB/temporal-DATA, JOB/temporal. The first that
    exists. Raises InputError if there is none.
    """
    env = os.environ if env is None else env
    options = options or {}
    verb, _, last = job.partition("/")
    prefix = last or verb
    data = options.get("data.source")
    names = [f"{prefix}/base", f"{verb}/temporal"]
    heads = [f"{prefix}/"]
    if verb == "pretrain":
        arch = options.get("network.arch", defaults(JOBS[job])["network"]["arch"])
        heads = [*([f"{prefix}/{arch}-"] if arch in list(ARCHS) else []), f"{prefix}/"]
        names = [*([f"{prefix}/{arch}"] if arch in list(ARCHS) else []), f"{prefix}/base"]
    elif not last:
        heads.append(f"{verb}/temporal-")
    if data in list(DATASETS):
        names = [*(f"{head}{data}" for head in heads), *names]
    for name in names:
        if found := look_up(name, env, job=job):
            return found.name
    raise InputError(f"there is no preset for {job}; give one with --preset", kind="unknown-preset")


def job_of(reference: str, env: Mapping[str, str] | None = None) -> str:
    """The job that a preset, given by name or path, is for. Raises PresetError or InputError."""
    return job_of_file(find(reference, os.environ if env is None else env))


def list_presets(env: Mapping[str, str] | None = None) -> list[PresetInfo]:
    """All presets that can be named: those in `$SELFSUP_PRESET_PATH` first, then the built-in."""
    env = os.environ if env is None else env
    # What the environment sets in a preset is no part of the list.
    env = {"SELFSUP_PRESET_PATH": env.get("SELFSUP_PRESET_PATH", "")}
    infos = []
    for found in everything(env):
        job = str(found.job)
        try:
            preset = resolve(job, preset=str(found.path), env=env).preset
        except InputError as error:
            problem = str(error).splitlines()[0]
            infos.append(PresetInfo(found.name, job, "", "", "", found.path, problem))
            continue
        paper, cost = preset.paper, preset.cost
        infos.append(
            PresetInfo(
                name=found.name,
                job=job,
                description=preset.description,
                paper=(paper.reference or paper.title) if paper else "",
                cost=f"{cost.hours:g} h, {cost.machine}" if cost else "",
                path=found.path,
            )
        )
    return infos


def copy_preset(name: str, target: Path, env: Mapping[str, str] | None = None) -> Path:
    """Write a copy of a preset to edit, and return its path.

    `target` is a file or a folder. Raises InputError if there is a file already, MachineError if
    the copy cannot be written.
    """
    found = find(name, os.environ if env is None else env)
    job_of_file(found)
    if target.is_dir():
        target = target / f"{Path(found.name).stem}.yaml"
    schema = f"# yaml-language-server: $schema={builtin_root() / 'schema.json'}\n"
    text = found.path.read_text(encoding="utf-8")
    text = schema + re.sub(r"\A# yaml-language-server:.*\n", "", text)
    try:
        with target.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise InputError(
            f"{target} exists already; give another name, or move it away", kind="exists"
        ) from None
    except OSError as error:
        raise MachineError(f"cannot write {target}: {error.strerror}") from None
    return target


def dump(preset: Preset) -> str:
    """All values of a preset as YAML, itself a preset that resolves to an equal one."""
    return write(_plain(preset))


def identity(preset: Preset) -> dict[str, Any]:
    """The values that decide what a run computes, as plain data; a continuation must agree."""
    return _identity(type(preset), _plain(preset))


def _lay(model: type[Preset], files: Sequence[PresetFile]) -> Layers:
    layers = Layers()
    layers.lay(defaults(model), lambda _: DEFAULT)
    for file in reversed(files):
        layers.lay(file.content, file.origin)
    return layers


def _check(model: type[Preset], layers: Layers) -> tuple[Preset | None, list[Problem]]:
    """The model, and what is wrong with the data; None if it does not hold at all."""
    mistakes = dict(_unknown_names(model, layers.data, ()))
    checked = None
    try:
        # Strict mode takes a list for a tuple in JSON only, and tells 1 from 1.0 there too.
        checked = model.model_validate_json(json.dumps(layers.data))
    except ValidationError as error:
        for details in error.errors(include_url=False):
            path, said = told(model, details)
            mistakes.setdefault(path, said)
    return checked, [layers.origin(path).problem(path, said) for path, said in mistakes.items()]


def _unknown_names(model: type[Model], data: Any, path: KeyPath) -> Iterator[tuple[KeyPath, str]]:
    """Names of networks, layers and datasets that no registry has."""
    for name, info in model.model_fields.items():
        value = data.get(name)
        here = (*path, name)
        inner = bare(info.annotation)
        if is_block(inner) and isinstance(value, dict):
            yield from _unknown_names(inner, value, here)
        elif registry := declared(info, "names"):
            items = enumerate(value) if isinstance(value, list) else [(None, value)]
            for index, item in items:
                if isinstance(item, str) and (said := _unknown_name(registry, item)):
                    yield (here if index is None else (*here, index)), said


_MEDIA: dict[str, Medium] = {
    "datasets": "video",
    "image-datasets": "image",
    "view-datasets": "view",
}


def _unknown_name(registry: str, name: str) -> str | None:
    short = name[:MAX_SHOWN]
    if registry in ("archs", "image-archs"):
        return unfit_arch(short, "video" if registry == "archs" else "image")
    if registry == "transformations" and name not in TRANSFORMS:
        known = list(TRANSFORMS)
        return (
            f"unknown transformation '{short}'{nearest(short, known)}; known are {', '.join(known)}"
        )
    if registry in ("layers", "freezes"):
        known = [*FREEZES, *all_layers()] if registry == "freezes" else all_layers()
        if name not in known:
            return f"unknown layer '{short}'{nearest(short, known)}; known are {', '.join(known)}"
    if registry == "image-layers" and name.isalnum() and name not in all_layers():
        # Those of timm's networks are known where one is built; a slip of the pen is told here.
        known = all_layers()
        near = nearest(short, known)
        return f"unknown layer '{short}'{near}; known are {', '.join(known)}" if near else None
    if registry in _MEDIA and name not in DATASETS:
        is_path = os.sep in name or name in (".", "..") or os.path.exists(name)  # noqa: PTH110
        if not is_path:
            known = datasets(_MEDIA[registry])
            return (
                f"unknown dataset '{short}'{nearest(short, known)}; known are {', '.join(known)}, "
                "and a folder or CSV file of your own by its path"
            )
    return None


def _identity(model: type[Model], data: Mapping[str, Any]) -> dict[str, Any]:
    kept: dict[str, Any] = {}
    for name, info in model.model_fields.items():
        inner = bare(info.annotation)
        if not declared(info, "identity", True):
            continue
        value = data[name]
        if is_block(inner) and value is not None:
            value = _identity(inner, value)
            if not value:
                continue
        kept[name] = value
    return kept


def _plain(preset: Preset) -> dict[str, Any]:
    return preset.model_dump(mode="json")


def _value(data: Any, path: KeyPath) -> Any:
    for part in path:
        if isinstance(data, Mapping):
            data = data.get(str(part))
        elif isinstance(data, list) and isinstance(part, int) and part < len(data):
            data = data[part]
        else:
            return None
    return data
