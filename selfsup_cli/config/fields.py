"""How a preset field is declared: once, with the command-line option that sets it."""

from __future__ import annotations

import types
from collections.abc import Sequence
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt, MaxLen, MinLen
from pydantic import BaseModel, ConfigDict, Field
from pydantic.fields import FieldInfo


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
    form: str | None = None,
    identity: bool = True,
    **constraints: Any,
) -> Any:
    """Declare a preset field.

    `flag` is the command-line option (`"--data,--dataset"` gives two spellings; a boolean gets its
    `--no-` form by itself; none: reachable through `--set` only). `names` is the registry that a
    free string is looked up in, for suggestions and completion (`"archs"` for networks of videos,
    `"image-archs"`, `"datasets"`, `"layers"`, `"runs"`). `form` says in words what a `pattern` asks
    for. `identity=False` marks what may differ between a run and its continuation because it cannot
    change the result (workers, devices, intervals).
    """
    told = {"flag": flag, "unit": unit, "names": names, "form": form}
    extra: dict[str, Any] = {"identity": identity} | {
        key: value for key, value in told.items() if value
    }
    return Field(default, description=help or None, json_schema_extra=extra, **constraints)


def declared(info: FieldInfo, key: str, otherwise: Any = None) -> Any:
    """What `field` was told about `key` (`"flag"`, `"unit"`, `"names"`, `"form"`, `"identity"`)."""
    extra = info.json_schema_extra
    return extra.get(key, otherwise) if isinstance(extra, dict) else otherwise


def bare(annotation: Any) -> Any:
    """`annotation` without `Annotated[…]` and without `| None`."""
    while True:
        if get_origin(annotation) is Annotated:
            annotation = get_args(annotation)[0]
        elif (members := union_members(annotation)) and len(members) == 1:
            annotation = members[0]
        else:
            return annotation


def union_members(annotation: Any) -> list[Any]:
    """The members of a union but None; an empty list for anything that is no union."""
    if get_origin(annotation) in (Union, types.UnionType):
        return [member for member in get_args(annotation) if member is not type(None)]
    return []


def is_optional(annotation: Any) -> bool:
    """Whether None is allowed."""
    return type(None) in get_args(annotation) and bool(union_members(annotation))


def is_block(annotation: Any) -> bool:
    """Whether the (bare) annotation is a block of fields."""
    return isinstance(annotation, type) and issubclass(annotation, Model)


def choices(annotation: Any) -> tuple[Any, ...]:
    """The values of a `Literal`, or of the `Literal` items of a list; else nothing."""
    annotation = bare(annotation)
    if get_origin(annotation) is list:
        annotation = bare(get_args(annotation)[0])
    return get_args(annotation) if get_origin(annotation) is Literal else ()


def expected(annotation: Any, constraints: Sequence[Any] = (), form: str | None = None) -> str:
    """In words what a field takes: `a whole number from 1 to 64`, `one of adamw, sgd`."""
    if form:
        return form
    if get_origin(annotation) is Annotated:
        inner, *more = get_args(annotation)
        return expected(inner, [*more, *constraints])
    if members := union_members(annotation):
        return " or ".join(expected(member, constraints) for member in members)
    origin = get_origin(annotation)
    if origin is Literal:
        values = [str(value) for value in get_args(annotation)]
        return values[0] if len(values) == 1 else f"one of {', '.join(values)}"
    if origin is list:
        return f"a list{_length(constraints)}, each item {expected(get_args(annotation)[0])}"
    if origin is tuple:
        items = get_args(annotation)
        return f"a list of {len(items)}, each {expected(items[0])}"
    if is_block(annotation):
        return f"a block with the keys {', '.join(annotation.model_fields)}"
    if annotation is bool:
        return "true or false"
    if annotation in (int, float):
        noun = "a whole number" if annotation is int else "a number"
        return f"{noun}{_range(constraints)}"
    return f"text{_length(constraints)}"


def _range(constraints: Sequence[Any]) -> str:
    low = high = ""
    for rule in constraints:
        match rule:
            case Ge(ge=bound):
                low = f"of at least {_plain(bound)}"
            case Gt(gt=bound):
                low = f"greater than {_plain(bound)}"
            case Le(le=bound):
                high = f"at most {_plain(bound)}"
            case Lt(lt=bound):
                high = f"less than {_plain(bound)}"
    if low.startswith("of at least") and high.startswith("at most"):
        low, high = f"from {low[12:]} to {high[8:]}", ""
    words = " and ".join(part for part in (low, high) if part)
    return f" {words}" if words else ""


def _plain(bound: Any) -> str:
    return str(int(bound)) if bound == int(bound) else str(bound)


def _length(constraints: Sequence[Any]) -> str:
    for rule in constraints:
        if isinstance(rule, MinLen):
            return f" of at least {rule.min_length}"
        if isinstance(rule, MaxLen):
            return f" of at most {rule.max_length}"
    return ""
