"""Command-line options, derived from the fields of presets and declared nowhere else."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any, get_origin

from selfsup_cli.config.blocks import Preset
from selfsup_cli.config.fields import Model, bare, choices, declared, expected, is_block


@dataclass(frozen=True)
class Option:
    """An option of the command line, as its preset field declares it.

    `path` is the dotted path of the field. `flags` are its spellings (`("--data", "--dataset")`,
    `("--compile", "--no-compile")` for a boolean, the negative last). `type` is bool, int, float
    or str: str also for a list, which is given comma-separated, and for a field that takes either
    a number or a word. `default` is the field's own default (a preset may say otherwise),
    `default_text` the same in words. `choices` are the only values it takes, if they can be
    listed; of a list, those of its items. `names` is the registry the text is looked up in.
    """

    path: str
    flags: tuple[str, ...]
    type: type[bool] | type[int] | type[float] | type[str]
    default: Any
    default_text: str
    help: str
    unit: str | None
    choices: tuple[str, ...]
    names: str | None
    wanted: str
    is_bool: bool
    is_list: bool


def options_of(model: type[Preset]) -> list[Option]:
    """The options of a job, in the order in which the fields are declared."""
    return list(_options(model))


@cache
def _options(model: type[Preset]) -> tuple[Option, ...]:
    found: list[Option] = []
    _collect(model, "", found)
    return tuple(found)


def _collect(model: type[Model], prefix: str, found: list[Option]) -> None:
    for name, info in model.model_fields.items():
        kind = bare(info.annotation)
        if is_block(kind):
            _collect(kind, f"{prefix}{name}.", found)
            continue
        flag = declared(info, "flag")
        if flag is None:
            continue
        is_bool, is_list = kind is bool, get_origin(kind) in (list, tuple)
        flags = tuple(flag.split(","))
        if is_bool:
            flags += (f"--no-{flags[0].removeprefix('--')}",)
        default = info.get_default()
        found.append(
            Option(
                path=prefix + name,
                flags=flags,
                type=kind if kind in (bool, int, float) else str,
                default=default,
                default_text=_in_words(default),
                help=info.description or "",
                unit=declared(info, "unit"),
                choices=tuple(str(choice) for choice in choices(kind)),
                names=declared(info, "names"),
                wanted=expected(info.annotation, info.metadata, declared(info, "form")),
                is_bool=is_bool,
                is_list=is_list,
            )
        )


def flag_for(model: type[Model], path: str, value: Any = None) -> str:
    """The option that sets the field at `path` to `value`, as a user types it."""
    for option in _options(model):
        if option.path == path:
            return option.flags[-1] if option.is_bool and value is False else option.flags[0]
    return f"--set {path}"


def _in_words(default: Any) -> str:
    match default:
        case None:
            return ""
        case bool():
            return "yes" if default else "no"
        case float():
            return f"{default:.4g}"
        case list() | tuple():
            return ",".join(_in_words(item) for item in default)
        case _:
            return str(default)
