"""What `--json` prints: exactly one document, on success and on failure."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from selfsup_cli.cli import console

SCHEMA = "selfsup.result/1"


def as_json(value: object) -> Any:
    """`value` as plain data: models and paths unfolded, numbers that JSON lacks as null."""
    if isinstance(value, BaseModel):
        return as_json(value.model_dump(mode="json"))
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: as_json(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, dict):
        return {str(key): as_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [as_json(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, Path):
        return str(value)
    item = getattr(value, "item", None)
    return as_json(item()) if callable(item) else str(value)


def success(data: object, *, run: Path | None = None, report: object = None) -> None:
    """Print the document of a command that did what it was asked to."""
    _print(
        {
            "schema": SCHEMA,
            "ok": True,
            "run": None if run is None else str(run),
            "report": as_json(report),
            "data": as_json(data),
        }
    )


def failure(
    error: Mapping[str, Any], problems: Sequence[Any], *, run: Path | None, data: object
) -> None:
    """Print the document of a command that failed: code, kind, message, hint, and its problems."""
    error = {
        **error,
        "problems": [as_json(p) if is_dataclass(p) else str(p) for p in problems],
    }
    found = {} if data is None else {"data": as_json(data)}
    where = None if run is None else str(run)
    _print({"schema": SCHEMA, "ok": False, "run": where, "error": as_json(error), **found})


def _print(document: dict[str, Any]) -> None:
    # ASCII, so that the document survives every locale; indented where a person reads it.
    indent = 2 if sys.stdout.isatty() else None
    console.emit(json.dumps(document, allow_nan=False, ensure_ascii=True, indent=indent))
