"""Reads the pickles that CIFAR is handed out as, without unpickling anything.

A pickle is a program for a small stack machine, and some of its instructions call whatever
function they name. Here the instructions are only looked at: those that build numbers, text,
bytes, lists, tuples and dictionaries are followed, an array is put together from its bytes where
the pickle asks NumPy for one, and everything else is refused. Nothing is imported, nothing called.
"""

from __future__ import annotations

import pickletools
from dataclasses import dataclass, field
from typing import Any

import numpy as np

_MARK = object()
_ARRAY = {
    "numpy.core.multiarray _reconstruct",
    "numpy._core.multiarray _reconstruct",
}
_NDARRAY, _DTYPE, _ENCODE = "numpy ndarray", "numpy dtype", "_codecs encode"
_TYPES = {"u1": np.uint8, "i8": np.int64, "i4": np.int32}
_MAX_OPERATIONS = 50_000_000

_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_VALUES = {
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
    *("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
}
_IGNORED = {"PROTO", "FRAME", "STOP"}


@dataclass(frozen=True)
class _Name:
    """A function or class that a pickle names; it stays a name."""

    name: str


@dataclass
class _Array:
    """An array that waits for its state."""

    state: Any = None

    def value(self) -> np.ndarray:
        _, shape, dtype, fortran, data = self.state
        if not isinstance(dtype, _Type) or dtype.code not in _TYPES or not isinstance(data, bytes):
            raise ValueError("an array of an unexpected type")
        values = np.frombuffer(data, _TYPES[dtype.code])
        return values.reshape(tuple(map(int, shape)), order="F" if fortran else "C")


@dataclass
class _Type:
    """A type of numbers."""

    code: str


@dataclass
class _Machine:
    stack: list[Any] = field(default_factory=list)
    memory: dict[int, Any] = field(default_factory=dict)

    def marked(self) -> list[Any]:
        """What lies above the last mark; it and the mark go."""
        at = len(self.stack) - 1
        while self.stack[at] is not _MARK:
            at -= 1
            if at < 0:
                raise ValueError("a mark is missing")
        found = self.stack[at + 1 :]
        del self.stack[at:]
        return found

    def call(self, function: Any, arguments: Any) -> Any:
        """What the pickle would get from a call, if it is one of the few that are expected."""
        name = function.name if isinstance(function, _Name) else ""
        if name in _ARRAY and arguments[0] == _Name(_NDARRAY):
            return _Array()
        if name == _DTYPE and isinstance(arguments[0], str | bytes):
            code = arguments[0]
            return _Type(code.decode("latin-1") if isinstance(code, bytes) else code)
        if name == _ENCODE and arguments[1] == "latin1" and isinstance(arguments[0], str):
            return arguments[0].encode("latin-1")
        raise ValueError(f"it calls {name or 'something'}")


def read(data: bytes) -> dict[Any, Any]:
    """The dictionary that a pickle of plain values and arrays stands for.

    Text of Python 2 is given as bytes, arrays are uint8, int32 or int64. Raises ValueError for a
    pickle of anything else.
    """
    machine = _Machine()
    try:
        for count, (operation, argument, _) in enumerate(pickletools.genops(data)):
            if count > _MAX_OPERATIONS:
                raise ValueError("it is too long")
            _follow(machine, operation.name, argument)
        (result,) = machine.stack
        return {
            key: value.value() if isinstance(value, _Array) else value
            for key, value in _dict(result).items()
        }
    except (IndexError, KeyError, TypeError, AttributeError, UnicodeError) as error:
        raise ValueError(f"it is damaged ({type(error).__name__})") from error


def _follow(machine: _Machine, name: str, argument: Any) -> None:
    """Follow one instruction."""
    stack, memory = machine.stack, machine.memory
    if name in _VALUES:
        # What Python 2 called a string is bytes.
        is_bytes = name in ("STRING", "BINSTRING", "SHORT_BINSTRING")
        stack.append(argument.encode("latin-1") if is_bytes else argument)
    elif name in _CONSTANTS:
        stack.append(_CONSTANTS[name])
    elif name in _IGNORED:
        pass
    elif name == "MARK":
        stack.append(_MARK)
    elif name in ("EMPTY_LIST", "EMPTY_DICT", "EMPTY_TUPLE"):
        stack.append({"EMPTY_LIST": list, "EMPTY_DICT": dict, "EMPTY_TUPLE": tuple}[name]())
    elif name in ("LIST", "TUPLE"):
        stack.append({"LIST": list, "TUPLE": tuple}[name](machine.marked()))
    elif name in ("TUPLE1", "TUPLE2", "TUPLE3"):
        size = int(name[-1])
        stack[-size:] = [tuple(stack[-size:])]
    elif name == "DICT":
        items = machine.marked()
        stack.append(dict(zip(items[::2], items[1::2], strict=True)))
    elif name == "APPEND":
        item = stack.pop()
        _list(stack[-1]).append(item)
    elif name == "APPENDS":
        more = machine.marked()
        _list(stack[-1]).extend(more)
    elif name == "SETITEM":
        value, key = stack.pop(), stack.pop()
        _dict(stack[-1])[key] = value
    elif name == "SETITEMS":
        items = machine.marked()
        _dict(stack[-1]).update(zip(items[::2], items[1::2], strict=True))
    elif name in ("PUT", "BINPUT", "LONG_BINPUT"):
        memory[argument] = stack[-1]
    elif name == "MEMOIZE":
        memory[len(memory)] = stack[-1]
    elif name in ("GET", "BINGET", "LONG_BINGET"):
        stack.append(memory[argument])
    elif name == "GLOBAL":
        stack.append(_Name(argument))
    elif name == "STACK_GLOBAL":
        attribute, module = stack.pop(), stack.pop()
        stack.append(_Name(f"{module} {attribute}"))
    elif name == "REDUCE":
        arguments, function = stack.pop(), stack.pop()
        stack.append(machine.call(function, arguments))
    elif name == "BUILD":
        state = stack.pop()
        if isinstance(stack[-1], _Array):
            stack[-1].state = state
        elif not isinstance(stack[-1], _Type):
            raise ValueError("it changes what it has made")
    else:
        raise ValueError(f"it has the instruction {name}")


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise ValueError("it appends to what is no list")
    return value


def _dict(value: Any) -> dict[Any, Any]:
    if not isinstance(value, dict):
        raise ValueError("it holds no dictionary where there must be one")
    return value
