"""Text that came from elsewhere, made harmless to show."""

from __future__ import annotations

import re

# Escape sequences as a whole, so that no residue such as "[31m" is left of them: those that set
# something, those that carry a text, and the short ones.
_ESCAPES = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"
    r"|(?:\x1b[\]PX^_]|[\x90\x98\x9d-\x9f]).*?(?:\x07|\x1b\\|\x9c|$)"
    r"|\x1b[ -/]*[0-~]?",
    re.DOTALL,
)
# C0, DEL, C1, line and paragraph separators, and everything that reorders text.
_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]")


def plain(text: object, *, lines: bool = False) -> str:
    """`text` without anything that could move the cursor, colour, hide or reorder what is shown.

    Line breaks and tabs become spaces; with `lines` line breaks are kept. Bytes of a file name
    that are not UTF-8 are shown as `\\udcNN`.
    """
    if lines:
        return "\n".join(plain(line) for line in str(text).split("\n"))
    text = _ESCAPES.sub("", str(text).replace("\n", " ").replace("\t", " "))
    return _CONTROLS.sub("", text).encode("utf-8", "backslashreplace").decode("utf-8")
