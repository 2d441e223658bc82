"""`quarantine.jsonl`: files that are known to be bad, one `{"path": …, "reason": …}` a line."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from selfsup_cli.data.source import LeftOut
from selfsup_cli.errors import InputError
from selfsup_cli.runs import atomic
from selfsup_cli.runs.seal import parsed


def read(path: Path) -> dict[str, str]:
    """The reason for each path that a quarantine file names; InputError for any other file."""
    reasons: dict[str, str] = {}
    number = 0
    try:
        with path.open(encoding="utf-8-sig", newline="\n") as file:
            for line in file:
                number += 1
                if line.strip():
                    entry = parsed(line)
                    reasons[str(entry["path"])] = str(entry.get("reason", "no reason given"))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read: {error}", kind="quarantine") from error
    except (ValueError, TypeError, KeyError, AttributeError):
        raise InputError(
            f'{path}:{number}: not a quarantine entry, {{"path": …, "reason": …}}',
            kind="quarantine",
        ) from None
    return reasons


def check_replaceable(path: Path) -> None:
    """Raise `InputError` if there is no place for a quarantine file at `path`."""
    if not path.exists():
        if not path.absolute().parent.is_dir():
            raise InputError(f"there is no folder {path.absolute().parent}", kind="path")
        return
    try:
        read(path)
    except InputError as error:
        raise InputError(
            f"{path} is not a quarantine file and is not overwritten ({error}); "
            "name another file with --out",
            kind="not-ours",
        ) from error


def write(path: Path, bad: Iterable[LeftOut]) -> None:
    """Write a quarantine file, instead of an older one.

    Raises `InputError` if a file of another kind is in its place, `MachineError` if it cannot be
    written.
    """
    check_replaceable(path)
    rows = ({"path": out.id, "reason": out.reason} for out in bad)
    atomic.write_text(path, "".join(f"{json.dumps(row)}\n" for row in rows))
