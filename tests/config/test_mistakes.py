"""Generated mistakes: a wrong preset is always told in a few lines, and never crashes."""

from __future__ import annotations

import copy
import string
import time
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selfsup_cli.config.document import parse, write
from selfsup_cli.config.jobs import JOBS
from selfsup_cli.config.presets import default_preset, dump, resolve
from selfsup_cli.config.problems import PresetError, Problem
from selfsup_cli.config.schema import schema

Path_ = tuple[str, ...]
NAMES = {job: default_preset(job, {}, {}) for job in JOBS}
WHOLE = {
    job: resolve(job, preset=name, env={}).preset.model_dump(mode="json")
    for job, name in NAMES.items()
}
VALIDATOR = jsonschema.Draft7Validator(schema())


def _paths(data: Any, path: Path_ = ()) -> Iterator[Path_]:
    for key, value in data.items():
        yield (*path, key)
        if isinstance(value, dict):
            yield from _paths(value, (*path, key))


PATHS = {job: list(_paths(data)) for job, data in WHOLE.items()}
HEADS = ("version", "method", "task")


def _at(data: Any, path: Path_) -> Any:
    for key in path:
        data = data[key]
    return data


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("mistakes") / "preset.yaml"


def problems_of(job: str, **arguments: Any) -> list[Problem]:
    """What is wrong, told in a few clean lines; nothing if the preset is right."""
    try:
        resolve(job, **{"env": {}, **arguments})
    except PresetError as error:
        found = error
    else:
        return []
    lines = str(found).splitlines()
    assert 1 <= len(lines) <= 20
    assert all(lines)
    assert not any(unicodedata.category(letter)[0] == "C" for line in lines for letter in line)
    return found.problems


def told(job: str, file: Path) -> list[Problem]:
    problems = problems_of(job, preset=str(file))
    assert problems
    return problems


@given(data=st.data(), job=st.sampled_from(list(JOBS)))
@settings(max_examples=60, deadline=None)
def test_a_misspelt_key_is_told_at_its_line(file: Path, data: st.DataObject, job: str) -> None:
    path = data.draw(st.sampled_from([path for path in PATHS[job] if path[0] not in HEADS]))
    key = path[-1]
    position = data.draw(st.integers(0, len(key) - 1))
    letter = data.draw(st.sampled_from(string.ascii_lowercase))
    typo = data.draw(
        st.sampled_from(
            [key[:position] + letter + key[position:], key[:position] + key[position + 1 :]]
        )
    )
    preset = copy.deepcopy(WHOLE[job])
    block = _at(preset, path[:-1])
    if typo in block or not typo:
        return
    renamed = {typo if name == key else name: value for name, value in block.items()}
    block.clear()
    block.update(renamed)
    file.write_text(write(preset), encoding="utf-8")
    line = parse(write(preset)).lines[(*path[:-1], typo)]
    problems = {problem.path: problem for problem in told(job, file)}
    wrong = problems[".".join((*path[:-1], typo))]
    assert (wrong.file, wrong.line) == (str(file), line)
    assert wrong.message.startswith(f"unknown key '{typo}'")
    if len(key) > 4:
        assert "did you mean" in wrong.message
    assert list(VALIDATOR.iter_errors(preset))


WRONG: st.SearchStrategy[Any] = st.sampled_from(
    [{"x": 1}, [[]], -1e12, "zzz", True, 1.5, None, [], {}, ["a", 3]]
)


@given(
    data=st.data(), job=st.sampled_from(list(JOBS)), values=st.lists(WRONG, min_size=1, max_size=25)
)
@settings(max_examples=100, deadline=None)
def test_wrong_values_are_told_where_the_schema_sees_them(
    file: Path, data: st.DataObject, job: str, values: list[Any]
) -> None:
    preset = copy.deepcopy(WHOLE[job])
    # Without its method or task, the schema cannot know what else belongs into the preset.
    paths = [path for path in PATHS[job] if path[0] not in ("method", "task")]
    for value in values:
        path = data.draw(st.sampled_from(paths))
        block = preset
        for key in path[:-1]:
            block = block.get(key) if isinstance(block, dict) else None  # type: ignore[assignment]
        if isinstance(block, dict):
            block[path[-1]] = copy.deepcopy(value)
    file.write_text(write(preset), encoding="utf-8")
    wrong = {".".join(map(str, error.absolute_path)) for error in VALIDATOR.iter_errors(preset)}
    problems = problems_of(job, preset=str(file))
    assert all(problem.file == str(file) for problem in problems)
    # A missing or unknown key is the block's for the schema, and the key's for us.
    told_at = {problem.path for problem in problems}
    for where in wrong:
        assert any(f"{found}.".startswith(f"{where}.") for found in told_at) or not where
    # Whether values fit each other, and which datasets there are, no schema can say.
    for problem in problems:
        if "; got " in problem.message or "unknown key" in problem.message:
            assert any(f"{problem.path}.".startswith(f"{where}.") for where in wrong - {""}) or (
                "" in wrong
            )


_yaml_soup = st.lists(
    st.sampled_from(
        [
            *("version: 1", "method: temporal", "optim:", "  lr: 1e-3", "extends: temporal/base"),
            *("time: {kinds: [speed]}", "train: [1, 2]", "extends: .", "<<: *a", "&a", "*a"),
            *("!!str", "---", "...", "%YAML 1.2", "- ", "? ", ": ", "[", "]", "{", "}", "|", ">"),
            *("'", '"', "#", "\t", "\n", "\r", "\x00", "é"),
        ]
    ),
    max_size=30,
)


@given(lines=_yaml_soup, glue=st.sampled_from(["\n", "", " "]))
@settings(max_examples=100, deadline=None)
def test_yaml_soup_is_resolved_or_told(file: Path, lines: list[str], glue: str) -> None:
    file.write_text(glue.join(lines), encoding="utf-8")
    problems_of("pretrain/temporal", preset=str(file))


@given(content=st.binary(max_size=200))
@settings(max_examples=100, deadline=None)
def test_random_bytes_are_told(file: Path, content: bytes) -> None:
    file.write_bytes(content)
    told("pretrain/temporal", file)


@given(data=st.data(), cuts=st.integers(1, 4))
@settings(max_examples=60, deadline=None)
def test_a_damaged_preset_is_resolved_or_told(file: Path, data: st.DataObject, cuts: int) -> None:
    text = write(WHOLE["pretrain/temporal"])
    for _ in range(cuts):
        start = data.draw(st.integers(0, len(text)))
        stop = data.draw(st.integers(start, min(len(text), start + 40)))
        text = text[:start] + data.draw(st.text("[]{}:,-&*!|'\" \n\t1a", max_size=3)) + text[stop:]
    file.write_text(text, encoding="utf-8")
    problems_of("pretrain/temporal", preset=str(file))


_anything = st.text(max_size=30) | st.sampled_from(["optim.lr", "=", "1", "[", "time.kinds.0"])


@given(
    sets=st.lists(st.builds("{}={}".format, _anything, _anything) | _anything, max_size=4),
    workers=st.text(max_size=5),
)
@settings(max_examples=100, deadline=None)
def test_any_set_and_environment_are_taken_or_told(sets: list[str], workers: str) -> None:
    for problem in problems_of(
        "pretrain/temporal", preset="temporal/base", sets=sets, env={"SELFSUP_WORKERS": workers}
    ):
        assert problem.file is None or problem.file.endswith("base.yaml")


def test_the_largest_presets_are_refused_in_time(file: Path) -> None:
    for body in ("[" * 2**20, "a: b\n" * 200_000, "- a\n" * 200_000, "a" * 2**20, "{a: " * 2**18):
        file.write_text(body[: 2**20], encoding="utf-8")
        start = time.process_time()
        told("pretrain/temporal", file)
        assert time.process_time() - start < 10


def test_dump_is_a_preset_of_every_job(file: Path) -> None:
    for job, name in NAMES.items():
        first = resolve(job, preset=name, env={})
        file.write_text(dump(first.preset), encoding="utf-8")
        assert resolve(job, preset=str(file), env={}).preset == first.preset
