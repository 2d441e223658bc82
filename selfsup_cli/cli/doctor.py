"""`selfsup doctor`."""

from __future__ import annotations

import contextlib
import sys
from typing import Annotated, Any

import typer

from selfsup_cli.cli import console, document
from selfsup_cli.cli.groups import Action, command

ABOUT = """Check what this machine brings along: versions, devices, video codecs, disk, data sets.

The exit status is 3 if something that is needed is broken."""


def load() -> Any:
    """The command."""
    return command(_parse, "doctor", ABOUT)


def _parse(
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the result as one JSON document.")
    ] = False,
) -> Action:
    return lambda: _examine(as_json)


def _examine(as_json: bool) -> None:
    from selfsup_cli.jobs import doctor

    console.say("selfsup: looking around; importing torch takes a few seconds")
    # What a library prints while it is imported is no part of the result.
    with contextlib.redirect_stdout(sys.stderr):
        checks = doctor.examine()
    broken = any(check.state == "broken" for check in checks)
    if not as_json:
        width = max(len(check.name) for check in checks)
        lines = []
        area = ""
        for check in checks:
            if check.area != area:
                area = check.area
                lines.append(area)
            told = f"  {check.state:<7}  {check.name:<{width}}  {check.found}"
            lines.append(told + (f"; {check.hint}" if check.hint else ""))
        console.emit("\n".join(console.plain(line) for line in lines))
    elif not broken:
        document.success({"checks": checks})
    if broken:
        raise doctor.UnfitError(checks)
