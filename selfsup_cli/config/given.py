"""Values over a preset: command-line options, `--set a.b=value` and the environment."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from os import PathLike, fspath
from typing import Any, Literal, get_args, get_origin

from selfsup_cli.config.document import SURROGATE, UnreadableError, parse, scalar
from selfsup_cli.config.environment import VARIABLES
from selfsup_cli.config.fields import Model, bare
from selfsup_cli.config.layers import Origin, is_index
from selfsup_cli.config.options import flag_for
from selfsup_cli.config.problems import MAX_SHOWN, Problem, locate, shown


@dataclass(frozen=True)
class Given:
    """A value for one field, and where it was given."""

    path: tuple[str, ...]
    value: Any
    origin: Origin


def from_options(
    model: type[Model], options: Mapping[str, Any], problems: list[Problem]
) -> list[Given]:
    """Options that were given (not None), by dotted path."""
    values = []
    for name, value in options.items():
        if value is not None:
            place = locate(model, name.split("."))
            origin = Origin(label=flag_for(model, name, value))
            values.append(_typed(place.annotation, name, value, origin, problems))
    return values


def from_environment(
    model: type[Model], env: Mapping[str, str], problems: list[Problem]
) -> list[Given]:
    """What the environment sets; an empty variable sets nothing."""
    values = []
    for name, variable in VARIABLES.items():
        text = env.get(name, "").strip()
        if variable.field and text:
            place = locate(model, variable.field.split("."))
            if len(place.path) == len(variable.field.split(".")) and place.annotation is not None:
                origin = Origin(label=f"${name}")
                values.append(_typed(place.annotation, variable.field, text, origin, problems))
    return values


def from_sets(sets: Sequence[str], problems: list[Problem]) -> list[Given]:
    """`--set a.b=value`: the value is read as YAML, a plain value or a list `[1, 2]`."""
    values = []
    for text in sets:
        name, equals, right = text.partition("=")
        name = name.strip()
        origin = Origin(label=f"--set {name[:MAX_SHOWN]}")
        if not equals or not all(name.split(".")) or SURROGATE.search(name):
            said = f"write it as --set field.path=value; got {shown(text)}"
            problems.append(Problem(None, None, "", said, "--set"))
            continue
        try:
            document = parse(right)
        except UnreadableError as error:
            problems.append(origin.problem([name], f"{error}; got {shown(right)}"))
            continue
        problems += [origin.problem([name], said) for _, _, said in document.problems]
        if isinstance(document.data, dict):
            said = f"takes one value; set each field of a block by itself; got {shown(right)}"
            problems.append(origin.problem([name], said))
        elif not document.problems:
            values.append(Given(tuple(name.split(".")), document.data, origin))
    return values


def disagreements(given: Sequence[Given]) -> Iterator[Problem]:
    """Two values for one field that are not the same."""
    for first, second in combinations(given, 2):
        outer, inner = sorted((first, second), key=lambda value: len(value.path))
        if inner.path[: len(outer.path)] != outer.path:
            continue
        same = _at(outer.value, inner.path[len(outer.path) :])
        if same != inner.value or isinstance(same, bool) != isinstance(inner.value, bool):
            yield Problem(
                None,
                None,
                ".".join(inner.path),
                f"{first.origin.label} and {second.origin.label} disagree: "
                f"{shown(first.value)} and {shown(second.value)}",
            )


def _at(value: Any, path: Sequence[str]) -> Any:
    for part in path:
        if not isinstance(value, list) or not is_index(part) or int(part) >= len(value):
            return None
        value = value[int(part)]
    return value


def _typed(
    annotation: Any, name: str, value: Any, origin: Origin, problems: list[Problem]
) -> Given:
    """An option's text as the type of its field; what is not text is left as it is."""
    kind = bare(annotation)
    if isinstance(value, PathLike):
        value = fspath(value)
    if get_origin(kind) in (list, tuple):
        if isinstance(value, str):
            value = [part.strip() for part in value.split(",") if part.strip()]
        if isinstance(value, list | tuple):
            value = [_from_text(get_args(kind)[0], item, origin, name, problems) for item in value]
    else:
        value = _from_text(kind, value, origin, name, problems)
    return Given(tuple(name.split(".")), value, origin)


def _from_text(
    annotation: Any, value: Any, origin: Origin, name: str, problems: list[Problem]
) -> Any:
    kind = bare(annotation)
    if isinstance(value, str) and SURROGATE.search(value):
        problems.append(origin.problem([name], f"is not UTF-8 text: {shown(value)}"))
        return None
    is_text = kind is str or get_origin(kind) is Literal
    if not isinstance(value, str) or is_text or kind is None:
        return value
    try:
        return scalar(value.strip())
    except ValueError as error:
        problems.append(origin.problem([name], f"cannot be {error}"))
        return None
