"""The command line as data: every command, its options, and what may stand for their values."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from selfsup_cli.cli.groups import LazyGroup
from selfsup_cli.config.jobs import JOBS
from selfsup_cli.config.options import Option, options_of
from selfsup_cli.config.reference import settable
from selfsup_cli.config.registry import FREEZES
from selfsup_cli.jobs.kinds import jobs_of


@dataclass(frozen=True)
class Value:
    """What may stand for a value.

    `words` are known beforehand, `names` is a kind that `selfsup __complete` knows, `files` says
    that a path may stand here too, `many` that values stand one after the other between commas.
    `fields` are paths of preset fields, each followed by `=` and something.
    """

    words: tuple[str, ...] = ()
    names: str | None = None
    files: bool = False
    many: bool = False
    fields: tuple[str, ...] = ()


@dataclass(frozen=True)
class Flag:
    """An option: its spellings, one line about it, and its value unless it takes none."""

    spellings: tuple[str, ...]
    about: str
    word: str
    value: Value | None
    repeats: bool


@dataclass(frozen=True)
class Position:
    """An argument without a name; the last one may repeat."""

    word: str
    value: Value
    repeats: bool


@dataclass(frozen=True)
class Node:
    """A command. `commands` are the names of those below it, each with a line about it.

    Where naming one of them may be left out, the options of the default one are among `flags`.
    """

    path: tuple[str, ...]
    about: str
    flags: tuple[Flag, ...]
    positions: tuple[Position, ...]
    commands: tuple[tuple[str, str], ...]


# What stands for the registry of a field, and for a metavar of an option that is no field. The word
# in the line of usage and what is offered for it are the same thing said twice.
REGISTRIES = {
    "archs": Value(names="archs"),
    "image-archs": Value(names="image-archs"),
    "layers": Value(names="layers"),
    "image-layers": Value(names="layers"),
    "transformations": Value(names="transformations", many=True),
    "datasets": Value(names="datasets", files=True),
    "image-datasets": Value(names="image-datasets", files=True),
    "view-datasets": Value(names="view-datasets", files=True),
    "all-datasets": Value(names="all-datasets", files=True),
    "freezes": Value(words=FREEZES, names="layers"),
    "runs": Value(words=("latest",), names="runs", files=True),
    "starts": Value(words=("latest", "random", "supervised"), names="runs", files=True),
}
METAVARS = {
    "N": Value(),
    "X": Value(),
    "DATA": REGISTRIES["datasets"],
    "RUN": REGISTRIES["runs"],
    "NAME": Value(names="runs"),
    "OUTPUT,": Value(words=("embedding", "forward"), names="layers", many=True),
    "NAME|FILE": Value(names="presets", files=True),
    "[EXPERIMENT]": Value(names="experiments", files=True),
    "GLOB,": Value(),
}
ANYTHING_ELSE = Value(files=True)


def nodes(root: Any) -> list[Node]:
    """All commands of a Typer application's command `root`, it first, each before those in it."""
    return list(_walk(root, (), None))


def _walk(command: Any, path: tuple[str, ...], parent: Any) -> Iterator[Node]:
    name = path[-1] if path else "selfsup"
    settings = command.context_settings
    context = command.context_class(command, info_name=name, parent=parent, **settings)
    below = {}
    if hasattr(command, "list_commands"):
        below = {
            name: command.get_command(context, name) for name in command.list_commands(context)
        }
    parameters = list(command.get_params(context))
    default = getattr(command, "default", None)
    if default is not None:
        parameters = [*below[default].get_params(context), *parameters]
    flags = {}
    for parameter in parameters:
        if parameter.param_type_name == "option" and not parameter.hidden:
            flag = _flag(parameter, (*path, default) if default else path)
            flags[flag.spellings] = flag
    yield Node(
        path=path,
        about=command.get_short_help_str(limit=10_000),
        flags=tuple(flags.values()),
        positions=tuple(
            Position(_word(one), _value(one, path), one.nargs == -1)
            for one in parameters
            if one.param_type_name == "argument"
        ),
        commands=tuple((name, _about(command, name, one)) for name, one in below.items()),
    )
    for name, one in below.items():
        yield from _walk(one, (*path, name), context)


def _about(group: Any, name: str, command: Any) -> str:
    if isinstance(group, LazyGroup):
        return group.entries[name].about
    return str(command.get_short_help_str(limit=10_000))


def _flag(parameter: Any, path: tuple[str, ...]) -> Flag:
    spellings = (*parameter.opts, *parameter.secondary_opts)
    help_ = re.sub(r" ?\[default: .*\]$", "", parameter.help or "")
    return Flag(
        spellings=tuple(sorted(spellings, key=lambda one: not one.startswith("--"))),
        about=re.split(r"(?<=[\w)]\.)\s|; ", help_)[0].rstrip("."),
        word=_word(parameter),
        value=None if parameter.is_flag else _value(parameter, path),
        repeats=bool(parameter.multiple),
    )


def _word(parameter: Any) -> str:
    return str(parameter.metavar or parameter.name.upper())


def _value(parameter: Any, path: tuple[str, ...]) -> Value:
    word = _word(parameter)
    jobs = _jobs(path)
    job = jobs[0] if jobs else None
    if word == "FIELD=VALUE":
        return Value(fields=tuple(dict.fromkeys(field for job in jobs for field in settable(job))))
    if word == "NAME|FILE" and job:
        return Value(names=f"presets:{job}", files=True)
    options = [one for job in jobs if (one := _field(parameter.name, job)) is not None]
    if {one.names for one in options} >= {"datasets", "image-datasets"}:
        return REGISTRIES["all-datasets"]
    if word.rstrip("….") in METAVARS and not (options and options[0].names):
        return METAVARS[word.rstrip("….")]
    if re.fullmatch(r"[a-z0-9_]+(\|[a-z0-9_]+)+(,…)?", word):
        return Value(words=tuple(word.removesuffix(",…").split("|")), many=word.endswith("…"))
    if not options:
        return ANYTHING_ELSE
    option = options[0]
    if option.names:
        offered = REGISTRIES[option.names]
        return Value(offered.words, offered.names, offered.files, many=option.is_list)
    # Text of a certain form is not a path.
    is_text = option.type is str and option.wanted == "text"
    return ANYTHING_ELSE if is_text else Value()


def _jobs(path: tuple[str, ...]) -> tuple[str, ...]:
    """The jobs of a command; two of one that is about videos or images."""
    known = ("/".join(path), "-".join(path), f"pretrain/{path[-1]}" if path else "", *path[:1])
    job = next((job for job in known if job in JOBS), None)
    return () if job is None else jobs_of(job)


def _field(name: str, job: str | None) -> Option | None:
    options = options_of(JOBS[job]) if job else []
    return next((one for one in options if one.path.replace(".", "__") == name), None)
