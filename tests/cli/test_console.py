"""Nothing a user names can steer the terminal, and nothing off a terminal is coloured or cut."""

from __future__ import annotations

import io
import os
import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfsup_cli.cli import console


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@given(st.text() | st.text(alphabet="\x1b[]0;31mK\x07\\ab\n\u202e\u2066\x9b\udc80"), st.booleans())
def test_plain_text_holds_no_control_character(text: str, lines: bool) -> None:
    shown = console.plain(text, lines=lines)
    controls = {c for c in shown if unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp")}
    assert controls <= ({"\n"} if lines else set())
    assert not set(shown) & set(
        "\u200e\u200f\u061c\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
    )
    shown.encode("utf-8")


@given(st.text(alphabet=st.characters(categories=["L", "N", "P", "S", "Zs"])))
def test_plain_text_keeps_what_is_harmless(text: str) -> None:
    assert console.plain(text) == text


def test_escape_sequences_leave_nothing_behind() -> None:
    hostile = "a\x1b[31mb\x1b]0;title\x07c\x1b]8;;http://x\x1b\\d\x1b(Be\x9b31mf"
    assert console.plain(hostile) == "abcdef"
    assert console.plain("one\ntwo\tthree") == "one two three"
    assert console.plain("é-\udcff") == "é-\\udcff"


@pytest.mark.parametrize(
    ("terminal", "environ", "expected"),
    [
        (True, {}, True),
        (True, {"TERM": "xterm-256color"}, True),
        (True, {"TERM": "dumb"}, False),
        (True, {"NO_COLOR": "1"}, False),
        (True, {"NO_COLOR": ""}, True),
        (True, {"NO_COLOR": "1", "FORCE_COLOR": "1"}, False),
        (False, {}, False),
        (False, {"FORCE_COLOR": "1"}, True),
        (False, {"FORCE_COLOR": "0"}, False),
        (False, {"CI": "true", "TERM": "xterm"}, False),
    ],
)
def test_who_gets_colours(
    terminal: bool, environ: dict[str, str], expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR", "TERM", "CI"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    stream = Terminal() if terminal else io.StringIO()
    assert console.coloured(stream) is expected
    console.console(stream).print("word", style="bold red")
    assert ("\x1b" in stream.getvalue()) is expected
    assert "word" in stream.getvalue()


def test_off_a_terminal_nothing_is_wrapped_cut_or_read_as_markup() -> None:
    stream = io.StringIO()
    line = "[conv4] [/red] :smile: " + "x" * 5000
    console.console(stream).print(line)
    assert stream.getvalue() == line + "\n"


def test_a_stderr_that_is_gone_never_stops_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w", buffering=1, closefd=False) as stream:
        monkeypatch.setattr(sys, "stderr", stream)
        console.say("nobody reads this")
        monkeypatch.undo()
        os.dup2(os.open(os.devnull, os.O_WRONLY), writer)
    os.close(writer)
