"""Half a million file names in the space of their letters."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from typing import overload

import numpy as np


class PackedIds(Sequence[str]):
    """An immutable list of strings, kept as one UTF-8 text and the places where each ends.

    Costs 8 bytes an entry besides the text, and pickles as two buffers, so that it travels to
    loader processes cheaply.
    """

    def __init__(self, ids: Iterable[str] = ()) -> None:
        text = bytearray()
        ends = array("q")
        for one in ids:
            text += one.encode()
            ends.append(len(text))
        self._text = bytes(text)
        self._ends = np.frombuffer(ends, np.int64) if ends else np.empty(0, np.int64)

    @classmethod
    def of(cls, text: bytes, ends: np.ndarray) -> PackedIds:
        """Take over what `text` and `ends` (int64 `[N]`) gave; ValueError if it cannot be that."""
        bounds = np.concatenate([[0], ends])
        if (np.diff(bounds) < 0).any() or int(bounds[-1]) != len(text):
            raise ValueError("the ends do not fit the text")
        ids = object.__new__(cls)
        ids._text, ids._ends = text, np.asarray(ends, np.int64)
        for _ in ids:  # raises UnicodeDecodeError
            pass
        return ids

    @property
    def text(self) -> bytes:
        """All of them, one after the other."""
        return self._text

    @property
    def ends(self) -> np.ndarray:
        """Where in `text` each ends, int64 `[N]`."""
        return self._ends

    def __len__(self) -> int:
        return len(self._ends)

    @overload
    def __getitem__(self, index: int) -> str: ...

    @overload
    def __getitem__(self, index: slice) -> PackedIds: ...

    def __getitem__(self, index: int | slice) -> str | PackedIds:
        if isinstance(index, slice):
            return self.take(np.arange(len(self))[index])
        place = index + len(self) if index < 0 else index
        if not 0 <= place < len(self):
            raise IndexError(f"{index} of {len(self)}")
        start = int(self._ends[place - 1]) if place else 0
        return self._text[start : int(self._ends[place])].decode()

    def __iter__(self) -> Iterator[str]:
        start = 0
        for end in self._ends:
            yield self._text[start:end].decode()
            start = end

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, PackedIds):
            return NotImplemented
        return self._text == other._text and np.array_equal(self._ends, other._ends)

    def __hash__(self) -> int:
        return hash(self._text)

    def take(self, indices: np.ndarray) -> PackedIds:
        """The entries at `indices` (int64), in that order."""
        return PackedIds(self[int(index)] for index in indices)
