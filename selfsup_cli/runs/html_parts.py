"""What the HTML pages are made of: the frame, tables, numbers with all that belongs to them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from importlib import resources
from typing import Any

from selfsup_cli.runs import svg
from selfsup_cli.runs.markup import Html, el, join
from selfsup_cli.runs.report import Curve, Finding, Measurement
from selfsup_cli.runs.tables import VERDICTS, Column, Said, Table, facts, method, number

POLICY = (
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; "
    "form-action 'none'"
)


def page(
    title: str,
    kicker: str,
    heading: str,
    said: Said,
    sections: dict[str, tuple[str, Html]],
    foot: str,
) -> str:
    """A whole page: a head with facts and links, sections (by id: title, content), a foot.

    Sections without content are left out.
    """
    shown = {key: section for key, section in sections.items() if section[1]}
    links = [el("li", el("a", name, href=f"#{key}")) for key, (name, _) in shown.items()]
    head = el(
        "header",
        el("p", kicker, class_="kicker"),
        el("h1", heading),
        el("ul", [el("li", f"{name} ", el("b", text)) for name, text in said], class_="facts"),
        el("nav", el("ul", links), aria_label="On this page"),
    )
    body = [
        el(
            "section",
            el("h2", name, id=f"{key}-title"),
            content,
            id=key,
            aria_labelledby=f"{key}-title",
        )
        for key, (name, content) in shown.items()
    ]
    skip = [
        el("a", f"Skip to: {name}", href=f"#{key}", class_="skip")
        for key, (name, _) in [*shown.items()][:1]
    ]
    meta = [
        el("meta", charset="utf-8"),
        el("meta", http_equiv="Content-Security-Policy", content=POLICY),
        el("meta", name="referrer", content="no-referrer"),
        el("meta", name="viewport", content="width=device-width, initial-scale=1"),
        el("meta", name="color-scheme", content="light dark"),
        el("title", title),
        el("link", rel="icon", href="data:,"),
        el("style", Html(_style())),
    ]
    content = el("body", skip, el("main", head, body, el("footer", foot)))
    return f"<!doctype html>\n{el('html', el('head', meta), content, lang='en')}\n"


@cache
def _style() -> str:
    return resources.files("selfsup_cli.runs").joinpath("report.css").read_text(encoding="utf-8")


def findings(given: Sequence[Finding]) -> Html:
    """What the numbers say, each with its verdict as sign, word and colour."""
    items = []
    for one in given:
        word, sign = VERDICTS[one.verdict]
        verdict = el("span", el("i", sign, aria_hidden="true"), word,
                     class_=f"verdict {one.verdict}")  # fmt: skip
        items.append(el("li", verdict, el("span", one.text), class_="finding"))
    return el("ul", items, class_="findings") if items else Html()


def scrolled(title: str, *content: Html, class_: str | None = None) -> Html:
    """A table under its title, in a box of its own that can be scrolled on a narrow screen."""
    table = el("table", *content, class_=class_, aria_label=title)
    box = el("div", table, class_="scroll", role="region", aria_label=title, tabindex="0")
    return join(el("h3", title), box)


def grid(title: str, head: Sequence[str], rows: Iterable[Sequence[object]], **more: str) -> Html:
    """A table whose first column names its rows; a column of exact numbers is set to the right."""
    body = [[*row] for row in rows]
    right = [bool(body) and all(_is_number(row[i]) for row in body) for i in range(len(head))]
    heads = [
        el("th", name, scope="col", class_="num" if is_right else None)
        for name, is_right in zip(head, right, strict=True)
    ]
    lines = [
        el(
            "tr",
            el("th", row[0], scope="row"),
            [
                el("td", item, class_="num" if is_right else None)
                for item, is_right in zip(row[1:], right[1:], strict=True)
            ],
        )
        for row in body
    ]
    return scrolled(title, el("thead", el("tr", heads)), el("tbody", lines), **more)


def _is_number(item: object) -> bool:
    return item in ("", None) or isinstance(item, int) or str(item).startswith("<data ")


def measured(m: Measurement) -> Html:
    """A number with its unit and interval."""
    shown: list[Html] = [el("b", exact(number(m.value, m.unit), m.value), f" {m.unit}".rstrip())]
    if m.interval is not None:
        low, high = (exact(number(end, m.unit), end) for end in (m.interval.low, m.interval.high))
        shown.append(el("small", low, " … ", high, title=method(m)))
    return join(shown)


def exact(text: str, value: float | None) -> Html:
    """A number as shown, with the exact one behind it."""
    return el("data", text, value=repr(value))


def reference(mark: str, key: str) -> Html:
    name = mark.strip("[]")
    return el("a", mark, href=f"#{key}-{name}") if name else Html()


def how(table: Table, key: str) -> Html:
    """How the numbers of a table were measured, and what is printed beside them."""
    lines: list[Html] = []
    if table.intervals:
        lines += [el("dt", "interval"), el("dd", "; ".join(table.intervals))]
    if table.chances:
        lines += [el("dt", "chance"), el("dd", "; ".join(table.chances))]
    if table.shared:
        lines += [el("dt", "protocol"), el("dd", inline_facts(table.shared))]
    for mark, rest in table.protocols:
        lines += [
            el("dt", f"[{mark}]", id=f"{key}-{mark}"),
            el("dd", inline_facts(rest) if rest else "nothing else"),
        ]
    for mark, note in table.published:
        lines += [el("dt", f"thesis [{mark}]", id=f"{key}-{mark}"), el("dd", note)]
    return el("dl", lines, class_="measured")


def inline_facts(given: dict[str, Any]) -> Html:
    """Facts one after another."""
    return join(
        [
            el("span", el("span", name), f" {said}", class_="fact")
            for name, said in facts(given, full=True)
        ]
    )


def cell(column: Column, index: int, key: str) -> object:
    """The content of a cell: exact numbers behind the shown ones, links behind the marks."""
    shown = column.cells[index]
    if column.kind == "how":
        return reference(shown.text, key)
    if column.kind == "thesis" and shown.exact is not None:
        text, _, mark = shown.text.rpartition(" ")
        return [exact(text, shown.exact), " ", reference(mark, key)]
    return shown.text if shown.exact is None else exact(shown.text, shown.exact)


def definitions(said: Said) -> Html:
    """Facts one below another."""
    return el("dl", [[el("dt", name), el("dd", text)] for name, text in said]) if said else Html()


def panel_box(label: str, curves: Sequence[Curve]) -> Html:
    """A panel under its label, and below it each line's name and last value."""
    legend = [
        el(
            "li",
            svg.sample(index),
            el("span", curve.name, " "),
            el("b", exact(f"{curve.points[-1][1]:.4g}", curve.points[-1][1])),
        )
        for index, curve in enumerate(curves)
    ]
    for chance in svg.chances(curves):
        said = el("b", exact(f"{chance:.4g}", chance))
        legend.append(el("li", svg.sample(None), el("span", "chance "), said))
    names = el("ul", legend, class_="legend")
    return el("div", el("h3", label), svg.panel(label, curves), names, class_="panelbox")
