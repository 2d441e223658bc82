"""The Markdown of a report: the same numbers, and names that stay names.

Read back by another reader of Markdown, not by the rules it was written by.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import sample_reports as samples
from hypothesis import example, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from page_tree import Node, parse

from selfsup_cli.runs import markdown
from selfsup_cli.runs.report import Curve, Finding, Report
from selfsup_cli.runs.tables import class_heading

READER = MarkdownIt("commonmark", {"xhtmlOut": False}).enable("table")


def read(page: str) -> Node:
    return parse(READER.render(page))


def tables(root: Node) -> list[list[dict[str, str]]]:
    found = []
    for table in root.all("table"):
        head, *rows = ([cell.text for cell in row.all() if cell.tag in ("th", "td")]
                       for row in table.all("tr"))  # fmt: skip
        found.append([dict(zip(head, row, strict=True)) for row in rows])
    return found


def rounded(text: str, value: float) -> bool:
    """Whether `text` is `value` as far as it goes."""
    digits = re.fullmatch(r"-?\d+(?:\.(\d+))?", text)
    assert digits, text
    return abs(float(text) - value) <= 0.5 * 10.0 ** -len(digits[1] or "") + 1e-9


def test_every_number_is_that_of_the_json() -> None:
    report = samples.everything()
    said = samples.in_tables(json.loads(report.to_json())["measurements"])
    root = read(markdown.page(report))
    rows = [row for table in tables(root) for row in table if "value" in row]
    assert len(rows) == len(said)
    for row, m in zip(rows, said, strict=True):
        value, _, unit = row["value"].partition(" ")
        assert unit == m["unit"]
        assert rounded(value, m["value"])
        ends = [m["interval"]["low"], m["interval"]["high"]] if m["interval"] else []
        shown = row.get("interval", "").split(" … ") if ends else []
        assert len(shown) == len(ends)
        assert all(map(rounded, shown, ends))
        assert row["n"] == str(m["n"])
        for head, value in (
            ("chance", m["chance"]),
            ("thesis", (m["published"] or {}).get("value")),
        ):
            if value is None:
                assert row.get(head, "") == ""
            else:
                assert rounded(row[head].partition(" ")[0], value)
    assert [row.get("how") for row in rows] == ["[A]", "[A]", "[B]", "[A]", None, None]
    notes = [item.text for item in root.all("li")]
    assert "[A]: epochs 60" in notes
    assert "[B]: epochs 5" in notes
    assert "thesis [2]: thesis table 5.2; not comparable: epochs: 5" in notes
    [first] = [row for row in rows if row.get("training")]
    assert (first["training"], first["validation"]) == ("98.4", "18.8")


def test_classes_curves_and_what_was_left_out() -> None:
    root = read(markdown.page(samples.everything()))
    found = {tuple(table[0]): table for table in tables(root) if table}
    classes = found["class", "learned, %"]
    assert [[*row.values()] for row in classes] == [
        [samples.EVIL, "12.5"], ["a|b", "100.0"], ["drift", "0.0"],
    ]  # fmt: skip
    curves = found["curve", "first", "shape", "last", "over"]
    assert [*curves[0].values()][:2] == ["loss", "4"]
    assert curves[0]["last"] == "0.02"
    assert re.fullmatch("█▃?[▁▂▃]+", curves[0]["shape"])
    assert [row["curve"] for row in curves] == ["loss", "loss_speed", samples.EVIL, "once"]
    left_out = found["file", "why"]
    assert left_out[0] == {"file": f"{samples.EVIL}/0.avi", "why": "cut | red"}


def test_names_stay_names(tmp_path: Path) -> None:
    run = samples.finished(tmp_path, samples.everything())
    page = (run.path / "report.md").read_text()
    root = read(page)
    # What is not ours: three pictures of the report, and folded parts.
    assert {node.tag for node in root.walk()} <= {
        "h1", "h2", "p", "ul", "li", "strong", "table", "thead", "tbody", "tr", "th", "td", "img",
        "pre", "code", "details", "summary",
    }  # fmt: skip
    assert [str(one.attributes["src"]) for one in root.all("img")] == [
        "pictures/curves.png", "pictures/sheet.png", "pictures/gone.png",
    ]  # fmt: skip
    assert root.all("img")[1].attributes["alt"] == f"A sheet {samples.EVIL}"
    assert samples.EVIL_LINK in root.text
    commands = [one.text for one in root.all("pre")]
    assert commands[0] == "selfsup probe --set 'a=b c' --run first\n"
    assert f"description: {samples.EVIL}\n```\n" in commands
    assert "files that could not be read: 1" in root.text


@settings(max_examples=60)
@given(st.text(st.characters(codec="utf-8"), min_size=1, max_size=30))
@example("1. one")
@example("- one")
@example("# one")
@example("+")
@example("---")
@example("    four")
@example("&lt;b&gt; <b> &amp;")
@example("a\\|b | c")
@example("__x__ *y* ~~z~~ `w`")
@example("![x](y) [a]: b")
def test_any_text_comes_back(text: str) -> None:
    report = Report(
        job="probe", run=text, command="", created=samples.CREATED,
        findings=[Finding(text=text, verdict="note")],
        measurements=[samples.number(3, text), samples.number(4, text, layer="b")],
        curves=[Curve(name=text, x_label="x", y_label="y", points=[(0, 1)])],
        pictures=[{"file": "a.png", "caption": text}],  # type: ignore[list-item]
    )  # fmt: skip
    root = read(markdown.page(report, pictures=None))
    said = " ".join(markdown.plain(text).split())
    assert " ".join(root.all("li")[0].text.split()) == f"note: {said}".strip()
    assert f"{said} (a.png in the run)".strip() in [" ".join(p.text.split()) for p in root.all("p")]
    for row in tables(root)[0]:
        assert " ".join(row.get("features", "").split()) == said
    assert not {node.tag for node in root.walk()} & {"a", "img", "em", "del", "b", "script", "ol"}


@pytest.mark.parametrize(
    ("before", "address"),
    [("", "pictures/a%20%28b%29.png"), ("../first/", "../first/pictures/a%20%28b%29.png")],
)
def test_pictures_are_found_from_where_the_page_lies(before: str, address: str) -> None:
    report = samples.everything(pictures=[{"file": "pictures/a (b).png", "caption": "c"}])
    [image] = read(markdown.page(report, pictures=before)).all("img")
    assert image.attributes["src"] == address


def test_a_page_that_lies_nowhere_names_its_pictures() -> None:
    root = read(markdown.page(samples.everything(), pictures=None))
    assert root.all("img") == []
    assert "Gone. (pictures/gone.png in the run)" in root.text


def test_what_is_not_there_is_left_out() -> None:
    bare = Report(job="probe", run="first", command="", created=samples.CREATED)
    assert markdown.page(bare) == "# first: probe\n\nMade 2026-01-02 03:04 UTC.\n"


def test_results_are_by_what_they_are_told_apart_by() -> None:
    one = samples.number(450)
    classes = one.model_copy(update={"protocol": {"per_class": ["dog: 50.0 %"]}})
    attributes = one.model_copy(update={"protocol": {"per_attribute": ["smiles: 50.0 %"]}})
    assert class_heading([classes]) == "Results by class"
    assert class_heading([attributes]) == "Results by attribute"
    assert class_heading([attributes, classes]) == "Results by class or attribute"
