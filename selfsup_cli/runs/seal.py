"""A checksum inside a JSON document: a flipped bit in it does not pass for what was written."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

KEY = "check"


def parsed(text: bytes | str) -> Any:
    """The value of a JSON text. ValueError where it is none, or nested too deeply to be read."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def sealed(document: Mapping[str, Any]) -> dict[str, Any]:
    """`document` with the SHA-256 of its content under `check`. ValueError for NaN and infinity."""
    return {**document, KEY: _digest(document)}


def opened(document: Any, *, required: bool = True) -> dict[str, Any]:
    """What was given to `sealed`. Raises ValueError if it is not what was written.

    With `required=False` a document without a seal passes: its other keys are for the caller.
    """
    if not isinstance(document, dict):
        raise ValueError("it is not a JSON object")
    content = {key: value for key, value in document.items() if key != KEY}
    if (required or KEY in document) and document.get(KEY) != _digest(content):
        raise ValueError("it does not match its checksum")
    return content


def _digest(content: Mapping[str, Any]) -> str:
    try:
        text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    return hashlib.sha256(text.encode()).hexdigest()
