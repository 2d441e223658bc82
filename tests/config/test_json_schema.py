"""The JSON Schema: up to date, documented, and precise about where a mistake is."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from functools import cache
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest

from selfsup_cli.config.finding import builtin_root
from selfsup_cli.config.presets import resolve
from selfsup_cli.config.schema import schema, schema_text

VALIDATORS = (jsonschema.Draft7Validator, jsonschema.Draft202012Validator)


@cache
def built(kind: Any) -> Any:
    """Once for each kind, however the tests are dealt out to processes."""
    rules = schema()
    kind.check_schema(rules | {"$schema": kind.META_SCHEMA["$schema"]})
    return kind(rules)


@pytest.fixture(params=VALIDATORS, ids=["draft-07", "2020-12"])
def validator(request: pytest.FixtureRequest) -> Any:
    return built(request.param)


def test_the_committed_schema_is_the_generated_one() -> None:
    committed = (builtin_root() / "schema.json").read_text(encoding="utf-8")
    assert committed == schema_text(), (
        "run: python -m selfsup_cli.config.schema > presets/schema.json"
    )


def _properties(node: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    for name, definition in node["definitions"].items():
        for key, value in definition["properties"].items():
            yield f"{name}.{key}", value


def test_every_key_is_described() -> None:
    described = dict(_properties(schema()))
    assert len(described) > 80
    assert [key for key, value in described.items() if not value.get("description")] == []
    leftovers = {"title", "flag", "names", "identity", "form", "prefixItems", "$defs"}
    assert [key for key, value in described.items() if leftovers & set(value)] == []


def test_each_mistake_lands_on_its_own_key(validator: Any) -> None:
    preset = resolve("pretrain/temporal", env={}).preset.model_dump(mode="json")
    assert list(validator.iter_errors(preset)) == []
    wrong = copy.deepcopy(preset)
    wrong["optim"]["lr"] = -1
    wrong["optim"]["betas"][1] = 2
    wrong["optim"]["clip_grad"] = "1"
    wrong["network"]["arch"] = "alexnet"
    wrong["time"]["kinds"][2] = "fast"
    wrong["data"]["motion"]["side"] = 1.5
    wrong["train"]["precision"] = 64
    wrong["paper"]["differs"] = "no"
    wrong["nonsense"] = 1
    found = {".".join(map(str, error.absolute_path)) for error in validator.iter_errors(wrong)}
    assert found == {
        "",  # the unknown key is the file's
        "optim.lr",
        "optim.betas.1",
        "optim.clip_grad",
        "network.arch",
        "time.kinds.2",
        "data.motion.side",
        "train.precision",
        "paper.differs",
    }


@pytest.mark.parametrize(
    ("preset", "right"),
    [
        ({"version": 1, "method": "temporal"}, True),
        ({"version": 1, "task": "retrieve"}, True),
        ({"method": "temporal"}, False),
        ({"version": 1}, False),
        ({"version": 1, "method": "temporal", "task": "probe"}, False),
        ({"version": 1, "method": "tempral"}, False),
        ({"version": 1, "method": "temporal", "probe": {}}, False),
        ({"version": 1, "task": "probe", "probe": {"layers": ["conv4"]}}, True),
        ({"version": 1, "task": "probe", "probe": {"layers": ["conv10"]}}, False),
        ({"version": 1, "method": "temporal", "paper": None}, True),
        ({"version": 1, "method": "temporal", "paper": 1}, False),
        # A key may be left to the preset that is extended, and only to that.
        ({"version": 1, "method": "temporal", "paper": {"reference": "x"}}, False),
        (
            {"version": 1, "method": "temporal", "extends": "a", "paper": {"reference": "x"}},
            True,
        ),
        ({"version": 1, "method": "temporal", "extends": "a", "expect": [{"metric": "x"}]}, False),
        ({"version": 1, "method": "temporal", "train": {"precision": 32}}, True),
        ({"version": 1, "method": "temporal", "machine": {"workers": "auto"}}, True),
        ({"version": 1, "method": "temporal", "machine": {"workers": "many"}}, False),
    ],
)
def test_right_and_wrong_files(validator: Any, preset: dict[str, Any], right: bool) -> None:
    assert validator.is_valid(preset) is right
