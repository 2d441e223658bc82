"""Where experiments lie, and reading one: all that is wrong with it, by line."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

from pydantic import ValidationError

from selfsup_cli.config.document import Document, KeyPath, UnreadableError, read
from selfsup_cli.config.experiment import Experiment
from selfsup_cli.config.finding import SUFFIXES, builtin_root, roots
from selfsup_cli.config.problems import PresetError, Problem, dotted, told
from selfsup_cli.config.registry import nearest
from selfsup_cli.errors import InputError

FOLDER = "paper"


def names(env: Mapping[str, str] | None = None) -> list[str]:
    """The experiments that can be named, those in `$SELFSUP_PRESET_PATH` first."""
    env = os.environ if env is None else env
    found = [path.stem for root in roots(env) for path in sorted((root / FOLDER).glob("*.yaml"))]
    return list(dict.fromkeys(found))


def load(reference: str, env: Mapping[str, str] | None = None) -> Experiment:
    """The experiment of that name, or in that file; `5.1` is short for `table-5.1`.

    Raises InputError if there is none, PresetError with everything that is wrong with it.
    """
    path = _find(reference, os.environ if env is None else env)
    shown = str(path)
    if path.is_relative_to(builtin_root()):
        shown = f"presets/{path.relative_to(builtin_root()).as_posix()}"
    try:
        document = read(path)
    except UnreadableError as error:
        raise PresetError([Problem(shown, error.line, "", str(error))]) from None
    problems = [Problem(shown, line, dotted(at), said) for line, at, said in document.problems]
    if problems or not isinstance(document.data, dict):
        said = "holds no `key: value` lines, so it is no experiment"
        raise PresetError(problems or [Problem(shown, 1, "", said)])
    try:
        # Strict mode takes a list for a tuple in JSON only.
        return Experiment.model_validate_json(json.dumps(document.data))
    except ValidationError as error:
        for details in error.errors(include_url=False):
            at, said = told(Experiment, details)
            problems.append(Problem(shown, _line(document, at), dotted(at), said))
        raise PresetError(problems) from None


def _find(reference: str, env: Mapping[str, str]) -> Path:
    if reference.endswith(SUFFIXES) or os.sep in reference:
        return Path(reference).expanduser()
    for name in (reference, f"table-{reference}", f"figure-{reference}"):
        for root in roots(env):
            path = root / FOLDER / f"{name}.yaml"
            if name and path.is_file():
                return path
    known = names(env)
    raise InputError(
        f"unknown experiment '{reference[:80]}'{nearest(reference[:80], known)}; "
        f"known are {', '.join(known)}, and a file of your own by its path",
        kind="unknown-experiment",
        hint="selfsup reproduce --list",
    )


def _line(document: Document, path: KeyPath) -> int:
    length = len(path)
    while length and path[:length] not in document.lines:
        length -= 1
    return document.lines.get(path[:length], 1)
