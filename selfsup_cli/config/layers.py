"""Values laid over each other, each remembering where it came from."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel

from selfsup_cli.config.document import KeyPath
from selfsup_cli.config.fields import Model, bare, is_block
from selfsup_cli.config.problems import Problem, dotted, shown


@dataclass(frozen=True)
class Origin:
    """Where a value came from: a line of a file, or what `label` says (`--lr`, `--set optim.lr`,
    `$SELFSUP_DEVICE`); neither for the default of the field. `base` is the name under which a
    file was extended.
    """

    file: str | None = None
    line: int | None = None
    label: str | None = None
    base: str | None = None

    def __str__(self) -> str:
        if self.label:
            return self.label.split(" ")[0]
        if self.file is None:
            return "default"
        return f"{f'extends {self.base}' if self.base else self.file}: line {self.line}"

    def problem(self, path: Sequence[str | int], message: str) -> Problem:
        """A problem with the value at `path`, which stands here."""
        return Problem(self.file, self.line, dotted(path), message, self.label)


DEFAULT = Origin()


@dataclass
class Layers:
    """Plain data merged from layers: mappings key by key, lists and scalars replaced."""

    data: dict[str, Any] = field(default_factory=dict)
    origins: dict[KeyPath, Origin] = field(default_factory=dict)

    def lay(
        self, layer: Mapping[str, Any], origin: Callable[[KeyPath], Origin], at: KeyPath = ()
    ) -> None:
        """Lay a mapping over the values at `at`; `origin` tells for each path of `layer` where
        its value stands."""
        below = self.data
        for part in at:
            below = below[part]  # type: ignore[index]
        for key, value in layer.items():
            path = (*at, key)
            if isinstance(value, dict) and isinstance(below.get(key), dict):
                self.origins[path] = origin(path)
                self.lay(value, origin, path)
            else:
                self._forget(path)
                below[key] = copy.deepcopy(value)
                for inner in _paths(value, path):
                    self.origins[inner] = origin(inner)

    def put(self, path: Sequence[str], value: Any, origin: Origin) -> Problem | None:
        """Put one value at `path`, whose parts may be numbers of list items. Blocks that are not
        there yet are made. Returns what is wrong with the path, if something is."""
        node: Any = self.data
        walked: KeyPath = ()
        for index, part in enumerate(path):
            key: str | int = part
            if isinstance(node, list):
                if not is_index(part) or int(part) >= len(node):
                    items = f"numbered 0 to {len(node) - 1}" if node else "now empty"
                    return origin.problem(path, f"{dotted(walked)} is a list, {items}")
                key = int(part)
                self.origins[walked] = origin
            elif not isinstance(node, dict):
                return origin.problem(path, f"{dotted(walked)} is no block, it holds {shown(node)}")
            walked = (*walked, key)
            if index == len(path) - 1:
                self._forget(walked)
                node[key] = copy.deepcopy(value)
            elif isinstance(node, dict) and node.get(part) is None:
                node[key] = {}
            else:
                node = node[key]
                continue
            self.origins[walked] = origin
            node = node[key]
        return None

    def origin(self, path: Sequence[str | int]) -> Origin:
        """Where the value at `path`, or the nearest block around it, came from."""
        for length in range(len(path), 0, -1):
            if found := self.origins.get(tuple(path[:length])):
                return found
        return DEFAULT

    def _forget(self, path: KeyPath) -> None:
        # Whatever holds a known path is known itself, so most paths end the search here.
        if path in self.origins:
            for known in [known for known in self.origins if known[: len(path)] == path]:
                del self.origins[known]


def is_index(part: str) -> bool:
    """Whether a part of a dotted path can be the number of a list item."""
    return part.isdecimal() and len(part) < 9


def defaults(model: type[Model]) -> dict[str, Any]:
    """The defaults of all fields of `model` as plain data; required fields are absent."""
    plain: dict[str, Any] = {}
    for name, info in model.model_fields.items():
        inner = bare(info.annotation)
        if not info.is_required():
            value = info.get_default(call_default_factory=True)
            plain[name] = value.model_dump(mode="json") if isinstance(value, BaseModel) else value
            if isinstance(value, tuple):
                plain[name] = list(value)
        elif is_block(inner):
            plain[name] = defaults(inner)
    return copy.deepcopy(plain)


def leaves(data: Any, path: KeyPath = ()) -> list[KeyPath]:
    """The paths of all values but blocks; a list of plain values counts as one value."""
    if isinstance(data, dict):
        return [leaf for key, value in data.items() for leaf in leaves(value, (*path, key))]
    if isinstance(data, list) and any(isinstance(item, dict) for item in data):
        return [leaf for i, item in enumerate(data) for leaf in leaves(item, (*path, i))]
    return [path]


def _paths(value: Any, path: KeyPath) -> list[KeyPath]:
    items = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    return [path, *(inner for key, item in items for inner in _paths(item, (*path, key)))]
