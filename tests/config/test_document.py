"""Reading and writing YAML: the core schema of YAML 1.2, lines, and all that is refused."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selfsup_cli.config.document import (
    MAX_BYTES,
    MAX_DEPTH,
    MAX_NODES,
    UnreadableError,
    parse,
    read,
    write,
)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("1E5", 1e5),
        ("-.5", -0.5),
        ("1.", 1.0),
        ("+3", 3),
        ("012", 12),
        ("0o17", 15),
        ("0xfF", 255),
        ("true", True),
        ("False", False),
        ("~", None),
        ("null", None),
        ("", None),
        (".inf", math.inf),
        ("-.INF", -math.inf),
        # Text in YAML 1.2, something else in YAML 1.1.
        ("NO", "NO"),
        ("yes", "yes"),
        ("off", "off"),
        ("y", "y"),
        ("1:30", "1:30"),
        ("1_000", "1_000"),
        ("2001-01-01", "2001-01-01"),
        ("0b1", "0b1"),
        ("tRue", "tRue"),
        ("1e", "1e"),
        ("'1e-4'", "1e-4"),
        ('"null"', "null"),
        ("[1, no, 2.5]", [1, "no", 2.5]),
    ],
)
def test_scalars_follow_the_core_schema(text: str, value: Any) -> None:
    found = parse(f"key: {text}").data["key"]
    assert found == value
    assert type(found) is type(value)


def test_not_a_number_is_read() -> None:
    assert math.isnan(parse("a: .nan").data["a"])


def test_every_value_knows_its_line() -> None:
    document = parse("a: 1\n\n# comment\nb:\n  c: [x,\n    y]\n  d:\n    - e: 2\n")
    assert document.lines == {
        (): 1,
        ("a",): 1,
        ("b",): 4,
        ("b", "c"): 5,
        ("b", "c", 0): 5,
        ("b", "c", 1): 6,
        ("b", "d"): 7,
        ("b", "d", 0): 8,
        ("b", "d", 0, "e"): 8,
    }


@pytest.mark.parametrize(
    ("text", "line", "path", "words"),
    [
        ("a: 1\nb: 2\na: 3", 3, ("a",), "given twice, first in line 1"),
        ("b:\n  a: 1\n  a: {c: 2}", 3, ("b", "a"), "given twice, first in line 2"),
        ("a: &x 1", 1, ("a",), "anchors (&x)"),
        ("&x a: 1", 1, ("a",), "anchors (&x)"),
        ("a: 1\nb: *x", 2, ("b",), "aliases (*x)"),
        ("a: !!python/object:os.system x", 1, ("a",), "tags"),
        ("- !local {a: 1}", 1, (0,), "tags"),
        ("a: " + "9" * 400, 1, ("a",), "more than 300 digits"),
    ],
)
def test_what_presets_do_not_use_is_a_problem(
    text: str, line: int, path: tuple[str | int, ...], words: str
) -> None:
    ((found_line, found_path, message),) = parse(text).problems
    assert (found_line, found_path) == (line, path)
    assert words in message


def test_a_key_given_twice_keeps_its_first_value_and_line() -> None:
    document = parse("a: {b: 1}\na: {b: 2}")
    assert document.data == {"a": {"b": 1}}
    assert document.lines["a", "b"] == 1


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("a: [1", 1, "not valid YAML"),
        ("a:\n\t- 1", 2, "tab"),
        ("a: b: c", 1, "second ': '"),
        ("a: 1\n--- \nb: 2", 2, "second YAML document"),
        ("%YAML 1.1\n---\na: yes", 2, "YAML 1.2"),
        ("? [1]\n: 2", 1, "key must be plain text"),
        ("a: 1\nb: \x07", 2, "U+0007"),
        ('a: "\\ud800"', 1, "surrogate"),
        ('a: "\\UFFFFFFFF"', None, "not valid YAML"),
        ("[" * (MAX_DEPTH + 1), 1, "nested deeper"),
        ("- a\n" * (MAX_NODES + 1), MAX_NODES, "more than"),
    ],
)
def test_what_is_no_yaml_is_refused_with_its_line(text: str, line: int | None, words: str) -> None:
    with pytest.raises(UnreadableError) as caught:
        parse(text)
    assert words in str(caught.value)
    assert caught.value.line == line


def test_only_regular_files_of_reasonable_size_are_read(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.yaml"
    os.mkfifo(pipe)
    large = tmp_path / "large.yaml"
    large.write_bytes(b"#" * (MAX_BYTES + 1))
    latin = tmp_path / "latin.yaml"
    latin.write_bytes(b"a: 1\nb: \xe9\n")
    for path, words in [
        (pipe, "not a regular file"),
        (Path("/dev/zero"), "not a regular file"),
        (tmp_path, "folder"),
        (tmp_path / "none.yaml", "no such file"),
        (large, "1 MiB"),
        (latin, "UTF-8"),
    ]:
        with pytest.raises(UnreadableError) as caught:
            read(path)
        assert words in str(caught.value)
    assert caught.value.line == 2


def test_a_byte_order_mark_is_no_part_of_the_first_key(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_bytes(b"\xef\xbb\xbfa: 1\n")
    assert read(path).data == {"a": 1}


# Half surrogates cannot be written to a UTF-8 file at all.
_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=12) | st.sampled_from(
    [
        "NO",
        "1e-4",
        "012",
        "0o7",
        ".5e3",
        "null",
        "",
        "~",
        "- x",
        "a: b",
        "#",
        "<<",
        "=",
        "1:30",
        "9" * 400,
    ]
)
_plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**40), 10**40)
    | st.floats(allow_nan=False, allow_infinity=False)
    | _text,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_text, inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(_text, _plain, max_size=4))
@settings(max_examples=150, deadline=None)
def test_what_is_written_reads_back_equal(data: dict[str, Any]) -> None:
    document = parse(write(data))
    assert document.data == data
    assert repr(document.data) == repr(data)
    assert not document.problems


@given(st.text(max_size=60) | st.text("[]{}:,-&*!|>'\"%@`#?~ \n\tax1.", max_size=60))
@settings(max_examples=300, deadline=None)
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        lines, refusal = list(parse(text).lines.values()), "none"
    except UnreadableError as error:
        lines, refusal = [], str(error)
    assert all(line >= 1 for line in lines)
    assert refusal
    assert "\n" not in refusal
