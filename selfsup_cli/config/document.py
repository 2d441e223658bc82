"""YAML 1.2 in, plain data out: with the line of every value, and without YAML's surprises.

Read from the parser's events, so that limits hold before anything is built. Scalars follow the
core schema of YAML 1.2 (`1e-4` is a number, `NO` and `1:30` are text); duplicate keys, anchors,
aliases and tags are errors.
"""

from __future__ import annotations

import copy
import io
import math
import os
import re
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError
from ruamel.yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    Event,
    MappingEndEvent,
    MappingStartEvent,
    NodeEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)
from ruamel.yaml.nodes import ScalarNode, SequenceNode
from ruamel.yaml.reader import ReaderError
from ruamel.yaml.representer import SafeRepresenter

KeyPath = tuple[str | int, ...]

MAX_BYTES = 1 << 20
MAX_NODES = 20_000
MAX_DEPTH = 32
MAX_DIGITS = 300

_NULL = re.compile(r"null|Null|NULL|~|")
_TRUE = re.compile(r"true|True|TRUE")
_FALSE = re.compile(r"false|False|FALSE")
_INT = re.compile(r"[-+]?[0-9]+")
_OCTAL = re.compile(r"0o[0-7]+")
_HEX = re.compile(r"0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_INFINITE = re.compile(r"([-+]?)\.(inf|Inf|INF)")
_PLAIN = re.compile(r"[A-Za-z/.]([A-Za-z0-9_./;()%=+ -]{0,200}[A-Za-z0-9_./;()%=+-])?")
SURROGATE = re.compile("[\ud800-\udfff]")
_NAN = re.compile(r"\.(nan|NaN|NAN)")


@dataclass
class Document:
    """Plain data (None, bool, int, float, str, list, dict with text keys) and where it stands.

    `lines` maps the path of every value to its line, counted from 1 (for a mapping's value: the
    line of its key). `problems` are (line, path, message) of what is wrong with the YAML itself.
    """

    data: Any = None
    lines: dict[KeyPath, int] = field(default_factory=dict)
    problems: list[tuple[int, KeyPath, str]] = field(default_factory=list)


class UnreadableError(Exception):
    """The text cannot be read at all; `line` counts from 1, None where there is no line."""

    def __init__(self, message: str, line: int | None = None) -> None:
        super().__init__(message)
        self.line = line


def read(path: str | os.PathLike[str]) -> Document:
    """Read a YAML file: a regular file of at most 1 MiB in UTF-8. Raises `UnreadableError`."""
    try:
        # Not to hang on a named pipe, which the check of the kind below then refuses.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
        with open(descriptor, "rb") as file:  # noqa: PTH123 (an open descriptor, not a path)
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise UnreadableError("is not a regular file")
            content = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise UnreadableError("there is no such file") from None
    except IsADirectoryError:
        raise UnreadableError("is a folder, not a preset file") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise UnreadableError(f"cannot be read: {reason}") from None
    if len(content) > MAX_BYTES:
        raise UnreadableError("is larger than 1 MiB, so it is no preset")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UnreadableError("is not UTF-8 text", line) from None
    return parse(text)


def parse(text: str) -> Document:
    """Parse one YAML document. Raises `UnreadableError` where the text is not YAML."""
    parsed = _parsed(text)
    return Document(copy.deepcopy(parsed.data), dict(parsed.lines), list(parsed.problems))


# An experiment of the thesis names others, and its stages share presets: each is parsed once.
@lru_cache(maxsize=256)
def _parsed(text: str) -> Document:
    try:
        events = YAML(typ="safe", pure=True).parse(text)
        return _Builder().build(events)
    except UnreadableError:
        raise
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise UnreadableError(_told(error), mark.line + 1 if mark else None) from None
    except ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        message = f"not valid YAML: character U+{int(error.character):04X} is not allowed"
        raise UnreadableError(message, line) from None
    except Exception as error:
        # The parser answers some malformed escapes with ValueError, OverflowError and the like.
        raise UnreadableError(f"not valid YAML: {type(error).__name__}") from None


def _told(error: MarkedYAMLError) -> str:
    problem = " ".join(str(error.problem or error.context).split())
    if "'\\t'" in problem:
        return "not valid YAML: a tab cannot indent, use spaces"
    if "mapping values are not allowed here" in problem:
        return "not valid YAML: a second ': ' in one line; put text that contains one in quotes"
    return f"not valid YAML: {problem}"


def scalar(text: str) -> Any:
    """The value of a plain (unquoted) scalar by the core schema of YAML 1.2.

    Raises ValueError for whole numbers of more than 300 digits.
    """
    if _NULL.fullmatch(text):
        return None
    if _TRUE.fullmatch(text) or _FALSE.fullmatch(text):
        return text[0] in "tT"
    for pattern, base in ((_INT, 10), (_OCTAL, 8), (_HEX, 16)):
        if pattern.fullmatch(text):
            if len(text) > MAX_DIGITS:
                raise ValueError(f"a whole number of more than {MAX_DIGITS} digits")
            return int(text, base)
    if _FLOAT.fullmatch(text):
        return float(text)
    if match := _INFINITE.fullmatch(text):
        return -math.inf if match[1] == "-" else math.inf
    return math.nan if _NAN.fullmatch(text) else text


class _Builder:
    """Builds plain data from parser events, with a stack of its own instead of recursion."""

    def __init__(self) -> None:
        self.document = Document()
        self.stack: list[_Open] = []
        self.nodes = 0

    def build(self, events: Iterator[Event]) -> Document:
        documents = 0
        for event in events:
            line = event.start_mark.line + 1
            if isinstance(event, DocumentStartEvent):
                documents += 1
                if documents > 1:
                    raise UnreadableError("a second YAML document starts here", line)
                if event.version not in (None, (1, 2)):
                    raise UnreadableError("presets are YAML 1.2; remove the %YAML line", line)
            elif isinstance(event, MappingEndEvent | SequenceEndEvent):
                self.stack.pop()
            elif isinstance(event, NodeEvent):
                self._node(event, line)
        return self.document

    def _node(self, event: NodeEvent, line: int) -> None:
        self.nodes += 1
        if self.nodes > MAX_NODES:
            raise UnreadableError(f"has more than {MAX_NODES} values, so it is no preset", line)
        if isinstance(event, ScalarEvent) and SURROGATE.search(event.value):
            raise UnreadableError("holds half a character (an unpaired surrogate)", line)
        if self.stack and self.stack[-1].wants_key:
            self._key(event, line)
            return
        path = self._path()
        self._refuse_sharing(event, path, line)
        value: Any = None
        if isinstance(event, ScalarEvent):
            try:
                value = scalar(event.value) if event.implicit[0] else event.value
            except ValueError as error:
                self._problem(line, path, f"cannot be {error}")
        elif isinstance(event, MappingStartEvent):
            value = {}
        elif isinstance(event, SequenceStartEvent):
            value = []
        self._place(value, path, line)
        if isinstance(value, dict | list):
            if len(self.stack) >= MAX_DEPTH:
                raise UnreadableError(f"is nested deeper than {MAX_DEPTH} levels", line)
            self.stack.append(_Open(value, path))

    def _key(self, event: NodeEvent, line: int) -> None:
        if not isinstance(event, ScalarEvent):
            raise UnreadableError("a key must be plain text", line)
        top = self.stack[-1]
        path = (*top.path, event.value)
        self._refuse_sharing(event, path, line)
        top.key, top.key_line = event.value, line
        top.doubled = event.value in top.value
        if top.doubled:
            first = self.document.lines[path]
            self._problem(line, path, f"is given twice, first in line {first}")

    def _refuse_sharing(self, event: NodeEvent, path: KeyPath, line: int) -> None:
        if isinstance(event, AliasEvent):
            self._problem(line, path, f"aliases (*{event.anchor}) are not used in presets")
        elif event.anchor:
            self._problem(line, path, f"anchors (&{event.anchor}) are not used in presets")
        elif tag := getattr(event, "ctag", None):
            self._problem(line, path, f"tags ({tag}) are not used in presets")

    def _path(self) -> KeyPath:
        if not self.stack:
            return ()
        top = self.stack[-1]
        return (*top.path, len(top.value) if isinstance(top.value, list) else str(top.key))

    def _place(self, value: Any, path: KeyPath, line: int) -> None:
        if not self.stack:
            self.document.data = value
        elif isinstance(self.stack[-1].value, list):
            self.stack[-1].value.append(value)
        else:
            top = self.stack[-1]
            # A key given twice keeps its first value; the second is read for its own mistakes.
            if not top.doubled:
                top.value[top.key] = value
            line, top.key = top.key_line, None
        self.document.lines.setdefault(path, line)

    def _problem(self, line: int, path: KeyPath, message: str) -> None:
        self.document.problems.append((line, path, message))


@dataclass
class _Open:
    """A mapping or list whose end has not been seen."""

    value: Any
    path: KeyPath
    key: str | None = None
    key_line: int = 0
    doubled: bool = False

    @property
    def wants_key(self) -> bool:
        return isinstance(self.value, dict) and self.key is None


class _Representer(SafeRepresenter):
    """Writes what `parse` reads back as the same value, short lists on one line."""


def _text(representer: SafeRepresenter, value: str) -> ScalarNode:
    # Only double quotes can hold any text, and the emitter's own judgement errs (`?0` in a list).
    quoted = not _PLAIN.fullmatch(value) or scalar(value) != value
    return representer.represent_scalar(
        "tag:yaml.org,2002:str", value, style='"' if quoted else None
    )


def _number(representer: SafeRepresenter, value: float) -> ScalarNode:
    return representer.represent_scalar("tag:yaml.org,2002:float", repr(value))


def _list(representer: SafeRepresenter, value: list[Any]) -> SequenceNode:
    flat = not any(isinstance(item, dict | list) for item in value) and len(str(value)) < 80
    return representer.represent_sequence("tag:yaml.org,2002:seq", value, flow_style=flat)


_Representer.add_representer(str, _text)
_Representer.add_representer(float, _number)
_Representer.add_representer(list, _list)


def write(data: Mapping[str, Any]) -> str:
    """Plain data as YAML 1.2 that `parse` reads back equal."""
    yaml = YAML(typ="safe", pure=True)
    yaml.Representer = _Representer
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    yaml.width = 4096
    out = io.StringIO()
    yaml.dump(dict(data), out)
    return out.getvalue()
