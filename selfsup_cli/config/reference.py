"""The reference of presets and of the environment, written down from their declarations.

`python -m selfsup_cli.config.reference presets` prints `docs/presets.md`, the word `environment`
instead `docs/environment.md`.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, get_args, get_origin

from selfsup_cli.config.blocks import Preset
from selfsup_cli.config.environment import OTHERS, VARIABLES, Variable
from selfsup_cli.config.fields import Model, bare, declared, expected, is_block
from selfsup_cli.config.jobs import JOBS, discriminator
from selfsup_cli.config.options import options_of

PRESETS = """\
# Fields of presets

Generated from the declarations by `python -m selfsup_cli.config.reference presets`.

A preset is a YAML file (`selfsup presets list`, `show`, `copy`, `validate`). Every field has a
default; what a preset says goes over that of the preset it `extends`, the environment over the
preset, options and `--set field.path=value` over all. Fields that have no option of their own are
set with `--set`, lists comma-separated in an option and as `[1, 2]` with `--set`.

*Fixed* says whether the field must stay as it is when a run is continued; the others cannot change
what a run computes.
"""

ENVIRONMENT = """\
# Environment variables

Generated from the declarations by `python -m selfsup_cli.config.reference environment`.

These variables are read and no others; a `SELFSUP_` variable that is not among them is warned of.
A variable that sets a field of presets goes over the preset, and an option goes over it.
"""

HEAD = ("field", "takes", "default", "unit", "option", "fixed", "meaning")


@dataclass(frozen=True)
class Row:
    """One field of a preset, in words. `path` is dotted, `flags` the options that set it."""

    path: str
    takes: str
    default: str
    unit: str
    flags: tuple[str, ...]
    fixed: bool
    help: str


def settable(job: str) -> list[str]:
    """Dotted paths of the fields that decide what `job` does, for `--set`."""
    about_itself = {*Preset.model_fields, discriminator(job)[0]}
    return [
        row.path
        for _, _, rows in _blocks(JOBS[job], "", True, _flags(job))
        for row in rows
        if re.split(r"\W", row.path)[0] not in about_itself
    ]


def presets_text() -> str:
    """`docs/presets.md`: each block of fields once, with the jobs that have it."""
    about: dict[str, str] = {}
    tables: dict[str, dict[str, list[Row]]] = {}
    jobs: dict[tuple[str, str], list[str]] = {}
    lines = [PRESETS]
    for job, model in JOBS.items():
        key, value = discriminator(job)
        verb = f"selfsup {job.replace('/', ' ')}"
        lines.append(f"- `{key}: {value}`, for `{verb}`: {_in_one_line(model.__doc__)}")
        for prefix, block, rows in _blocks(model, "", True, _flags(job)):
            title = prefix.rstrip(".")
            own = {row.path for row in rows} - {key, *Preset.model_fields}
            if title or own:
                about[block.__name__] = _in_one_line(block.__doc__)
                tables.setdefault(title, {})[block.__name__] = rows
                jobs.setdefault((title, block.__name__), []).append(job)
    lines += ["", "## Every preset", ""]
    _, _, rows = next(_blocks(Preset, "", True, {}))
    lines += [*_table(HEAD, [_cells(row) for row in rows]), ""]
    # What a preset says of itself comes last: nobody sets it on the command line.
    for title in sorted(tables, key=lambda title: re.split(r"\W", title)[0] in Preset.model_fields):
        for name, rows in tables[title].items():
            of = ", ".join(f"`{job}`" for job in jobs[title, name])
            lines += [f"## {title}", "", f"{about[name]} Of {of}.", ""]
            lines += [*_table(HEAD, [_cells(row) for row in rows]), ""]
    return "\n".join(lines)


def environment_text() -> str:
    """`docs/environment.md`: the variables of selfsup, then those of others that it obeys."""

    def rows(variables: dict[str, Variable]) -> list[list[str]]:
        return [
            [f"`{name}`", variable.about, f"`{variable.field}`" if variable.field else ""]
            for name, variable in variables.items()
        ]

    head = ("variable", "meaning", "sets the field")
    return "\n".join(
        [
            ENVIRONMENT,
            *_table(head, rows(VARIABLES)),
            "",
            "## Of others",
            "",
            *_table(head[:2], [cells[:2] for cells in rows(OTHERS)]),
            "",
        ]
    )


def _blocks(
    model: type[Model], prefix: str, fixed: bool, flags: dict[str, tuple[str, ...]]
) -> Iterator[tuple[str, type[Model], list[Row]]]:
    """Path prefix, class and own fields of `model`, then of each block inside it.

    `fixed` says whether the block as a whole is part of what a continuation has to share.
    """
    rows: list[Row] = []
    inner: list[tuple[str, type[Model], bool]] = []
    for name, info in model.model_fields.items():
        kind = bare(info.annotation)
        is_fixed = fixed and declared(info, "identity", True)
        items = bare(get_args(kind)[0]) if get_origin(kind) is list else None
        if items is not None and is_block(items):
            inner.append((f"{prefix}{name}[].", items, is_fixed))
        elif is_block(kind):
            inner.append((f"{prefix}{name}.", kind, is_fixed))
        if is_block(kind) and not info.is_required() and info.get_default() is not None:
            continue
        path = prefix + name
        rows.append(
            Row(
                path=path,
                takes=expected(info.annotation, info.metadata, declared(info, "form")),
                default="required" if info.is_required() else f"`{_shown(info.get_default())}`",
                unit=declared(info, "unit", ""),
                flags=flags.get(path, ()),
                fixed=is_fixed,
                help=info.description or "",
            )
        )
    yield prefix, model, rows
    for path, block, is_fixed in inner:
        yield from _blocks(block, path, is_fixed, flags)


def _flags(job: str) -> dict[str, tuple[str, ...]]:
    return {option.path: option.flags for option in options_of(JOBS[job])}


def _in_one_line(text: str | None) -> str:
    return " ".join((text or "").split())


def _shown(default: Any) -> str:
    if default is None:
        return "null"
    if isinstance(default, float) and not default.is_integer():
        return f"{default:.4g}"
    return json.dumps(default, ensure_ascii=False)


def _cells(row: Row) -> list[str]:
    options = ", ".join(f"`{flag}`" for flag in row.flags)
    fixed = "yes" if row.fixed else "no"
    return [f"`{row.path}`", row.takes, row.default, row.unit, options, fixed, row.help]


def _table(head: tuple[str, ...], rows: list[list[str]]) -> list[str]:
    escaped = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    return [f"| {' | '.join(line)} |" for line in (head, ["---"] * len(head), *escaped)]


if __name__ == "__main__":
    texts = {"presets": presets_text, "environment": environment_text}
    if len(sys.argv) != 2 or sys.argv[1] not in texts:
        sys.exit(f"usage: python -m selfsup_cli.config.reference {'|'.join(texts)}")
    sys.stdout.write(texts[sys.argv[1]]())
