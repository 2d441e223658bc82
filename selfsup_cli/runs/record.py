"""What a run says of itself: `run.json`, written once, and `status.json`, replaced as it goes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from selfsup_cli.errors import InputError
from selfsup_cli.runs import atomic
from selfsup_cli.runs.seal import opened, parsed, sealed

State = Literal["created", "running", "preempted", "failed", "diverged", "complete"]
ENDED: frozenset[State] = frozenset({"preempted", "failed", "diverged", "complete"})
MOST_LISTED = 20
NOT_SET = "(not set)"


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", serialize_by_alias=True)

    def plain(self) -> dict[str, Any]:
        """As JSON data."""
        return self.model_dump(mode="json")


class Attempt(_Record):
    """One process that worked on a run. `end` is None while it works, or if it was killed."""

    host: str
    pid: int
    start: str
    end: str | None = None
    step: int | None = None
    reason: str | None = None


class Status(_Record):
    """How far a run is. `step` counts updates; `reason` says why it is in this state."""

    schema_: Literal["selfsup.status/1"] = Field(default="selfsup.status/1", alias="schema")
    state: State = "created"
    step: int | None = None
    reason: str | None = None
    updated: str = ""
    attempts: list[Attempt] = []


class RunInfo(_Record):
    """Where a run comes from. `identity` is what a continuation has to share."""

    schema_: Literal["selfsup.run/1"] = Field(default="selfsup.run/1", alias="schema")
    job: str
    created: str
    command: list[str]
    seed: int
    arch: str | None
    data: str | None
    identity: dict[str, Any]
    dataset: dict[str, Any] | None
    parents: list[dict[str, Any]]
    preset_sha256: str | None = None
    versions: dict[str, str] = {}
    code: dict[str, Any] | None = None
    machine: dict[str, str] = {}


RecordT = TypeVar("RecordT", bound=_Record)


def read(path: Path, model: type[RecordT]) -> RecordT:
    """Read a record. Raises InputError if it is missing, damaged or of another version."""
    try:
        return model.model_validate(opened(parsed(path.read_bytes()), required=False))
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}", kind="run") from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InputError(
            f"{path} is damaged or of another version: {where + ': ' if where else ''}"
            f"{first['msg']}",
            kind="run",
        ) from error
    except ValueError as error:
        raise InputError(f"{path} is damaged or of another version: {error}", kind="run") from error


def write(path: Path, record: _Record) -> None:
    """Write a record with its checksum. Raises MachineError if the disk does not take it."""
    atomic.write_json(path, sealed(record.plain()))


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """`path.to.field: old → new` for every value that differs, in order of the paths."""
    return [f"{path}: {a} → {b}" for path, (a, b) in across([old, new])]


def across(facts: Sequence[Mapping[str, Any]]) -> list[tuple[str, list[str]]]:
    """Path and values, one for each of `facts`, of all that is not the same in all of them."""
    leaves = [dict(_leaves(plain(one))) for one in facts]
    paths = sorted({path for one in leaves for path in one})
    rows = [(path, [_shown(one, path) for one in leaves]) for path in paths]
    return [(path, shown) for path, shown in rows if len(set(shown)) > 1]


def listed(lines: list[str], most: int = MOST_LISTED) -> str:
    """`lines` on lines of their own, at most `most` of them, the rest counted."""
    more = [f"… and {len(lines) - most} more"] if len(lines) > most else []
    return "".join(f"\n  {line}" for line in lines[:most] + more)


def plain(value: Any) -> Any:
    """`value` as it comes back from JSON: tuples are lists, keys are text."""
    return json.loads(json.dumps(value, allow_nan=False))


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and (value or not path):
        for key, item in value.items():
            yield from _leaves(item, f"{path}.{key}" if path else key)
    else:
        yield path, value


def _shown(leaves: dict[str, Any], path: str) -> str:
    if path not in leaves:
        return NOT_SET
    value = leaves[path]
    # 1 and 1.0 are the same setting, as the YAML of a preset may say either.
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return json.dumps(value, ensure_ascii=False)
