"""`selfsup presets list|show|validate|copy|schema`."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from selfsup_cli.cli import console, document, work
from selfsup_cli.cli.groups import HOUSE, Action, NamedGroup

Json = Annotated[bool, typer.Option("--json", help="Print the result as one JSON document.")]
Name = Annotated[str, typer.Argument(metavar="NAME|FILE", help="A preset's name, or its file.")]

app = typer.Typer(
    name="presets", cls=NamedGroup, help="List, show, check and copy presets.", **HOUSE
)


def load() -> Any:
    """The group of commands."""
    return typer.main.get_command(app)


@app.callback()
def _group() -> None:
    pass


@app.command("list")
def _list(as_json: Json = False) -> Action:
    """List the presets: those in $SELFSUP_PRESET_PATH, then the built-in ones."""
    return lambda: _show_list(as_json)


@app.command("show")
def _show(
    name: Name,
    sets: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="FIELD=VALUE", help="Set a field; may be repeated."),
    ] = None,
    origin: Annotated[
        bool, typer.Option("--origin", help="Say of each value where it comes from.")
    ] = False,
    as_json: Json = False,
) -> Action:
    """Show all values of a preset, those that it inherits included."""
    return lambda: _show_values(name, sets or [], origin, as_json)


@app.command("validate")
def _validate(
    file: Annotated[str, typer.Argument(metavar="FILE", help="The preset's file, or a name.")],
    as_json: Json = False,
) -> Action:
    """Check a preset; every mistake is a line on stderr."""
    return lambda: _check(file, as_json)


@app.command("copy")
def _copy(
    name: Name,
    target: Annotated[str, typer.Argument(metavar="TARGET", help="A new file, or a folder.")] = ".",
    as_json: Json = False,
) -> Action:
    """Copy a preset to edit it. Nothing is overwritten."""
    return lambda: _write_copy(name, target, as_json)


@app.command("schema")
def _schema() -> Action:
    """Print the JSON Schema of presets, for editors."""
    return _print_schema


def _show_list(as_json: bool) -> None:
    from selfsup_cli.config.presets import list_presets

    work.listen(0)
    presets = list_presets()
    if as_json:
        document.success({"presets": [asdict(one) for one in presets]})
        return
    from selfsup_cli.cli import report

    rows = [
        [console.plain(cell) for cell in (one.name, one.problem or one.description, one.paper)]
        for one in presets
    ]
    console.emit(report.table(("name", "about", "paper"), rows, wraps=("about", "paper")))


def _show_values(name: str, sets: list[str], origin: bool, as_json: bool) -> None:
    from selfsup_cli.config.presets import dump, job_of, resolve

    work.listen(0)
    found = resolve(job_of(name), preset=name, sets=sets)
    plain = found.preset.model_dump(mode="json")
    if as_json:
        data = {"name": found.name, "job": found.job, "preset": plain, "origin": found.origin}
        document.success(data)
    elif origin:
        lines = [f"{path} = {_value(plain, path)}" for path in found.origin]
        width = min(max(map(len, lines)), 48)
        told = zip(lines, found.origin.values(), strict=True)
        console.emit(
            "\n".join(console.plain(f"{line:<{width}}  # {where}") for line, where in told)
        )
    else:
        console.emit(console.plain(dump(found.preset), lines=True).rstrip("\n"))


def _value(data: Any, path: str) -> str:
    for part in path.split("."):
        data = data[int(part)] if isinstance(data, list) else data[part]
    return json.dumps(data, ensure_ascii=False)


def _check(file: str, as_json: bool) -> None:
    from selfsup_cli.config.presets import job_of, resolve

    work.listen(0)
    found = resolve(job_of(file), preset=file)
    if as_json:
        document.success({"name": found.name, "job": found.job})
    else:
        console.emit(console.plain(f"{file}: a valid preset of {found.job}"))


def _write_copy(name: str, target: str, as_json: bool) -> None:
    from selfsup_cli.config.presets import copy_preset

    work.listen(0)
    path = copy_preset(name, Path(os.path.expanduser(target)))  # noqa: PTH111 (raises for no text)
    if as_json:
        document.success({"file": path})
    else:
        console.emit(console.plain(path))


def _print_schema() -> None:
    from selfsup_cli.config.schema import schema_text

    console.emit(schema_text().rstrip("\n"))
