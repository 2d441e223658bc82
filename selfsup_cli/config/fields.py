"""How a preset field is declared: once, with the command-line option that sets it."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class Model(BaseModel):
    """A block of a preset. Unknown keys, wrong types and non-finite numbers are errors."""

    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, allow_inf_nan=False, validate_default=True
    )


def field(
    default: Any = ...,
    help: str = "",  # noqa: A002 (the word users and Typer know)
    *,
    flag: str | None = None,
    unit: str | None = None,
    names: str | None = None,
    identity: bool = True,
    **constraints: Any,
) -> Any:
    """Declare a preset field.

    `flag` is the command-line option (`"--data,--dataset"` gives two spellings; a boolean gets its
    `--no-` form by itself; none: reachable through `--set` only). `names` is the registry that a
    free string is looked up in, for suggestions and completion (`"archs"`, `"datasets"`,
    `"layers"`, `"runs"`). `identity=False` marks what may differ between a run and its
    continuation because it cannot change the result (workers, devices, intervals).
    """
    extra: dict[str, Any] = {"identity": identity}
    for key, value in (("flag", flag), ("unit", unit), ("names", names)):
        if value is not None:
            extra[key] = value
    return Field(default, description=help, json_schema_extra=extra, **constraints)
