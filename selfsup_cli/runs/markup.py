"""HTML that cannot be injected into: every text is escaped unless it was built here."""

from __future__ import annotations

from html import escape

from selfsup_cli.runs.text import plain

_VOID = {"br", "hr", "img", "link", "meta"}


class Html(str):
    """Text that is markup already."""

    __slots__ = ()


def el(tag: str, /, *content: object, **attributes: object) -> Html:
    """The element `tag` with its content and attributes, everything but `Html` escaped.

    `class_` is `class`, and `aria_label` is `aria-label`. An attribute that is None is left out,
    one that is True stands alone.
    """
    said = "".join(
        f" {key.rstrip('_').replace('_', '-')}"
        + ("" if value is True else f'="{escape(plain(value))}"')
        for key, value in attributes.items()
        if value is not None and value is not False
    )
    if tag in _VOID:
        return Html(f"<{tag}{said}>")
    return Html(f"<{tag}{said}>{join(*content)}</{tag}>")


def join(*parts: object) -> Html:
    """Parts one after another; None is nothing, and a list is its items."""
    out = []
    for part in parts:
        if isinstance(part, Html):
            out.append(str(part))
        elif isinstance(part, list | tuple):
            out.append(str(join(*part)))
        elif part is not None:
            out.append(escape(plain(part, lines=True)))
    return Html("".join(out))
