"""What is wrong with a preset, in one plain sentence for each mistake."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, get_args, get_origin

from pydantic_core import ErrorDetails

from selfsup_cli.config.document import KeyPath
from selfsup_cli.config.fields import Model, bare, choices, declared, expected, is_block
from selfsup_cli.config.registry import nearest
from selfsup_cli.errors import InputError

MAX_LINES = 20
MAX_SHOWN = 60


@dataclass(frozen=True)
class Problem:
    """One mistake: where it stands and what is wrong.

    `file` and `line` are None for what came from the command line or the environment; `origin`
    then says from where (`--lr`, `--set optim.lr`, `$SELFSUP_DEVICE`).
    """

    file: str | None
    line: int | None
    path: str
    message: str
    origin: str | None = None

    def __str__(self) -> str:
        where = self.origin if self.file is None else self.file
        if self.file is not None and self.line is not None:
            where = f"{self.file}:{self.line}"
        # `--set a.b` names the field already.
        path = "" if self.origin and self.origin.startswith(f"--set {self.path}") else self.path
        return ": ".join(clean(part) for part in (where, path, self.message) if part)


class PresetError(InputError):
    """All that is wrong with a preset, or with the options over it, at once.

    The message has one line for each of `problems`, at most 20 lines.
    """

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = sorted(
            dict.fromkeys(problems),
            key=lambda problem: (problem.file is None, problem.file or "", problem.line or 0),
        )
        lines = [str(problem) for problem in self.problems]
        if len(lines) > MAX_LINES:
            left = len(lines) - MAX_LINES + 1
            lines[MAX_LINES - 1 :] = [f"… and {left} more"]
        super().__init__("\n".join(lines), kind="preset")


def clean(text: str) -> str:
    """`text` on one line, without characters that steer a terminal."""
    return "".join(
        character
        if unicodedata.category(character)[0] != "C" and character not in "\u2028\u2029"
        else "\ufffd"
        for character in text
    )


def shown(value: Any) -> str:
    """A value in the words of YAML, cut to a length that fits into a sentence."""
    match value:
        case None:
            return "nothing"
        case bool():
            return str(value).lower()
        case str():
            text = f"'{value[: MAX_SHOWN + 1]}'"
        case dict():
            return "a block of keys" if value else "{}"
        case list() if not value:
            return "an empty list"
        case list() if len(value) > 8 or any(isinstance(item, list | dict) for item in value):
            return f"a list of {len(value)}"
        case list():
            text = f"[{', '.join(shown(item) for item in value)}]"
        case _:
            text = str(value)
    text = clean(text)
    return text if len(text) <= MAX_SHOWN else f"{text[: MAX_SHOWN - 1]}…"


def dotted(path: Sequence[str | int]) -> str:
    """`("time", "kinds", 0)` as `time.kinds.0`, long keys cut."""
    return ".".join(str(part)[:MAX_SHOWN] for part in path)


@dataclass(frozen=True)
class Place:
    """A field of a model, as an error or a path leads to it."""

    path: KeyPath
    owner: type[Model] | None
    annotation: Any
    constraints: Sequence[Any] = ()
    form: str | None = None
    names: str | None = None

    @property
    def wanted(self) -> str:
        return expected(self.annotation, self.constraints, self.form)


def locate(model: type[Model], path: Sequence[str | int]) -> Place:
    """Follow `path` into `model`, as far as there are fields.

    What is left of the path (the member of a union that pydantic adds to it) is dropped. An
    unknown key ends in a place whose annotation is None and whose owner is the block it stands in.
    """
    place = Place((), None, model)
    for part in path:
        here = bare(place.annotation)
        walked = (*place.path, part)
        if is_block(here):
            info = here.model_fields.get(str(part))
            if info is None:
                return Place(walked, here, None)
            place = Place(
                walked,
                here,
                info.annotation,
                info.metadata,
                declared(info, "form"),
                declared(info, "names"),
            )
        elif get_origin(here) in (list, tuple) and isinstance(part, int):
            items = get_args(here)
            inner = items[min(part, len(items) - 1)]
            place = Place(walked, None, inner, names=place.names)
        else:
            break
    return place


def keys_of(model: type[Model], prefix: str = "") -> list[str]:
    """Every key of `model` as a dotted path, blocks included."""
    keys: list[str] = []
    for name, info in model.model_fields.items():
        keys.append(prefix + name)
        inner = bare(info.annotation)
        if is_block(inner):
            keys += keys_of(inner, f"{prefix}{name}.")
    return keys


def told(model: type[Model], error: ErrorDetails) -> tuple[KeyPath, str]:
    """A pydantic error as path and sentence."""
    place = locate(model, error["loc"])
    value = error["input"]
    if place.path == ("version",):
        return place.path, _version(value)
    match error["type"]:
        case "extra_forbidden":
            return place.path, unknown_key(model, place)
        case "missing":
            return place.path, f"is missing; it must be {place.wanted}"
        case "value_error":
            return _of_validator(place, str(error["ctx"]["error"]))
    return place.path, f"must be {place.wanted}; got {shown(value)}{_hint(place, value)}"


def unknown_key(model: type[Model], place: Place) -> str:
    """The sentence for a key that its block does not have, with what may have been meant."""
    key = str(place.path[-1])[:MAX_SHOWN]
    known = list(place.owner.model_fields) if place.owner else []
    guess = nearest(key, known)
    if not guess:
        elsewhere = [path for path in keys_of(model) if path.split(".")[-1] == key]
        guess = f" (did you mean '{elsewhere[0]}'?)" if elsewhere else ""
    where = f"; known here are {', '.join(known)}" if not guess else ""
    return f"unknown key '{key}'{guess}{where}"


def _of_validator(place: Place, message: str) -> tuple[KeyPath, str]:
    """A block's own validator says `field: what is wrong`; the field belongs to the path."""
    inner = bare(place.annotation)
    name, _, rest = message.partition(": ")
    if is_block(inner) and name in inner.model_fields:
        return (*place.path, name), rest
    return place.path, message


def _version(value: Any) -> str:
    if type(value) is int and value > 1:
        return (
            f"this preset is in format {shown(value)}, newer than this selfsup, which reads "
            "format 1: upgrade selfsup"
        )
    return f"must be 1; got {shown(value)}"


def _hint(place: Place, value: Any) -> str:
    if isinstance(value, str):
        return nearest(value[:MAX_SHOWN], [str(choice) for choice in choices(place.annotation)])
    if bare(place.annotation) is str and isinstance(value, int | float):
        return " (put it in quotes to make it text)"
    return ""
