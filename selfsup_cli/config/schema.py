"""The JSON Schema of preset files, for editors: generated from the models, never written by hand.

A file may leave keys to the preset it extends, so a key is required only in files that extend
none. The job is chosen by `method` or `task` with if/then, so that an error lands on the key that
is wrong, not on the file. Valid as draft-07, which editors speak, and as 2020-12.
"""

from __future__ import annotations

import json
import sys
from typing import Any, get_args

from pydantic.fields import FieldInfo

from selfsup_cli.config.fields import Model, bare, declared, is_block
from selfsup_cli.config.jobs import JOBS, discriminator
from selfsup_cli.config.registry import FREEZES, TIMM, all_layers, archs, datasets

DRAFT = "http://json-schema.org/draft-07/schema#"
REFERENCE = "#/definitions/{model}"
# What pydantic adds that says nothing to a reader, and what `field` keeps for the command line.
DROPPED = ("title", "default", "flag", "unit", "names", "form", "identity")


def schema() -> dict[str, Any]:
    """The schema of all preset files, as plain data."""
    definitions: dict[str, Any] = {}
    keys: dict[str, list[str]] = {}
    branches = []
    for job, model in JOBS.items():
        key, value = discriminator(job)
        keys.setdefault(key, []).append(value)
        chosen = {"properties": {key: {"const": value}}, "required": [key]}
        branches.append({"if": chosen, "then": {"$ref": REFERENCE.format(model=model.__name__)}})
        _define(model, definitions)
        _make_job(definitions[model.__name__], model, key)
    return {
        "$schema": DRAFT,
        "title": "Preset of selfsup",
        "description": "What a job of selfsup is asked to do.",
        "type": "object",
        "required": ["version"],
        "properties": {
            key: {"enum": values, "description": f"The {key} that the preset is for."}
            for key, values in keys.items()
        },
        "oneOf": [{"required": [key]} for key in keys],
        "allOf": branches,
        "definitions": dict(sorted(definitions.items())),
    }


def schema_text() -> str:
    """The schema as it is committed in `presets/schema.json`."""
    return json.dumps(schema(), indent=2, ensure_ascii=False) + "\n"


def _define(model: type[Model], definitions: dict[str, Any]) -> None:
    """Add `model` and the blocks inside it to `definitions`."""
    generated = model.model_json_schema(ref_template=REFERENCE)
    properties = {}
    for name, info in model.model_fields.items():
        properties[name] = _property(info, generated["properties"][name])
        for inner in (bare(info.annotation), *map(bare, get_args(bare(info.annotation)))):
            if is_block(inner):
                _define(inner, definitions)
                if inner is not bare(info.annotation):
                    # A list is never merged, so its items are whole.
                    required = [key for key, of in inner.model_fields.items() if of.is_required()]
                    definitions[inner.__name__]["required"] = required
    definitions[model.__name__] = {
        "description": " ".join((model.__doc__ or "").split()),
        "type": "object",
        "additionalProperties": False,
        "properties": properties,
    }


def _make_job(definition: dict[str, Any], model: type[Model], key: str) -> None:
    """What holds for a whole file: what it must say itself, and what it may leave to another."""
    definition["required"] = ["version", key]
    definition["properties"]["extends"] = {
        "type": "string",
        "description": "Name or path of the preset whose values hold where this one has none.",
    }
    whole = {}
    for name, info in model.model_fields.items():
        inner = bare(info.annotation)
        if is_block(inner):
            needed = [key for key, of in inner.model_fields.items() if of.is_required()]
            if needed:
                whole[name] = {"required": needed}
    definition["if"] = {"not": {"required": ["extends"]}}
    definition["then"] = {"properties": whole}


def _property(info: FieldInfo, generated: dict[str, Any]) -> dict[str, Any]:
    unit = declared(info, "unit")
    words = f"{info.description} [{unit}]" if unit else info.description
    default = info.get_default()
    extra = {} if isinstance(default, Model) or info.is_required() else {"default": default}
    rule = _rule(generated)
    match declared(info, "names"):
        case "archs":
            rule["enum"] = archs("video")
        case "image-archs":
            rule["anyOf"] = [{"enum": archs("image")}, {"pattern": f"^{TIMM}[a-z0-9_]+$"}]
        case "datasets":
            rule["examples"] = datasets("video")
        case "image-datasets":
            rule["examples"] = datasets("image")
        case "view-datasets":
            rule["examples"] = datasets("view")
        case "freezes":
            rule["enum"] = [*FREEZES, *all_layers(), *([None] if default is None else [])]
        case "layers":
            if "items" in rule:
                rule["items"] = {"enum": all_layers()}
            else:
                rule["enum"] = [*all_layers(), None]
    return {"description": words, **rule, **extra}


def _rule(generated: dict[str, Any]) -> dict[str, Any]:
    """One field's rule in the part of JSON Schema that both drafts share."""
    rule = {
        key: value
        for key, value in generated.items()
        if key not in (*DROPPED, "description", "prefixItems", "anyOf", "$ref")
    }
    if "prefixItems" in generated:
        # Pairs are all of one kind.
        rule["items"] = _rule(generated["prefixItems"][0])
    if "$ref" in generated:
        # Beside $ref, draft-07 sees nothing else; so it goes one level down.
        rule["allOf"] = [{"$ref": generated["$ref"]}]
    members = [member for member in generated.get("anyOf", []) if member != {"type": "null"}]
    if len(members) == 1:
        inner = _rule(members[0])
        if "allOf" in inner:
            reference = inner["allOf"][0]
            rule |= {"type": ["object", "null"], "if": {"type": "object"}, "then": reference}
        else:
            rule |= inner | {"type": [inner["type"], "null"]}
    elif members:
        rule["anyOf"] = [_rule(member) for member in members]
    return rule


if __name__ == "__main__":
    sys.stdout.write(schema_text())
