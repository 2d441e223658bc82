"""The page of a report: the same numbers, nothing that runs, nothing that is fetched."""

from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import sample_reports as samples
from hypothesis import example, given, settings
from hypothesis import strategies as st
from page_tree import Node, parse
from PIL import Image

from selfsup_cli.runs import html, svg
from selfsup_cli.runs.facts import Facts
from selfsup_cli.runs.report import Curve, Finding, LeftOut, Picture, Report
from selfsup_cli.runs.text import plain


def facts_of_a_run(tmp_path: Path) -> Facts:
    return samples.finished(tmp_path, samples.everything()).facts()


# -- the numbers


def rows_of(root: Node, section: str) -> Iterator[dict[str, Node]]:
    """The rows of the tables of a section, as cells by the heads of their columns."""
    [place] = root.all("section", id=section)
    for table in place.all("table"):
        heads = [cell.text for cell in table.all("thead")[0].all("th")]
        for body in table.all("tbody"):
            for row in body.all("tr"):
                cells = [node for node in row.children if isinstance(node, Node)]
                yield dict(zip(heads, cells, strict=True))


def exact(cell: Node) -> list[float]:
    return [float(str(node.attributes["value"])) for node in cell.all("data")]


def test_every_number_is_that_of_the_json(tmp_path: Path) -> None:
    report = samples.everything()
    said = samples.in_tables(json.loads(report.to_json())["measurements"])
    root = parse(html.page(report, facts_of_a_run(tmp_path)))
    rows = list(rows_of(root, "numbers"))
    assert len(rows) == len(said)
    for row, m in zip(rows, said, strict=True):
        bounds = [m["interval"]["low"], m["interval"]["high"]] if m["interval"] else []
        assert exact(row["value"]) == [m["value"], *bounds]
        assert exact(row["n"]) == [m["n"]]
        if "chance" in row:
            assert exact(row["chance"]) == ([] if m["chance"] is None else [m["chance"]])
        if "thesis" in row:
            assert exact(row["thesis"]) == ([m["published"]["value"]] if m["published"] else [])
        for head, key in (("training", "training_accuracy"), ("validation", "validation_accuracy")):
            if head in row:
                assert exact(row[head]) == ([m["protocol"][key]] if key in m["protocol"] else [])
    for node in root.all("data"):
        value, text = float(str(node.attributes["value"])), node.text
        assert text in (f"{value:.1f}", f"{value:.4g}", f"{value:.0f}")


def test_classes_and_curves_are_those_of_the_json(tmp_path: Path) -> None:
    root = parse(html.page(samples.everything(), facts_of_a_run(tmp_path)))
    shown = {row["class"].text: exact(row["learned, %"]) for row in rows_of(root, "classes")}
    assert shown == {samples.EVIL: [12.5], "a|b": [100.0], "drift": [0.0]}
    curves = {row["curve"].text: row for row in rows_of(root, "curves")}
    assert list(curves) == ["loss", "loss_speed", samples.EVIL, "once"]
    heads = ("points", "first", "last", "lowest", "highest")
    assert [curves["loss"][head].text for head in heads] == ["200", "4", "0.02", "0.02", "4"]
    assert exact(curves["once"]["first"]) == [0.125]


def test_each_number_leads_to_its_protocol_and_to_what_is_printed() -> None:
    root = parse(html.page(samples.everything()))
    notes = {}
    for notes_of_table in root.all("dl", class_="measured"):
        children = [node for node in notes_of_table.children if isinstance(node, Node)]
        for term, said in zip(children[::2], children[1::2], strict=True):
            notes[term.attributes.get("id") or term.text] = said.text
    rows = list(rows_of(root, "numbers"))
    how = [row["how"].all("a")[0].attributes["href"] if "how" in row else None for row in rows]
    assert how == ["#t1-A", "#t1-A", "#t1-B", "#t1-A", None, None]
    assert (notes["t1-A"], notes["t1-B"]) == ("epochs 60", "epochs 5")
    assert "flip yes" in notes["protocol"] or "device cpu" in notes["protocol"]
    assert "per class" not in "".join(notes.values())
    printed = [row["thesis"].all("a")[0].attributes["href"] for row in (rows[0], rows[1])]
    assert [notes[str(href)[1:]] for href in printed] == [
        "thesis table 5.1; comparable",
        "thesis table 5.2; not comparable: epochs: 5",
    ]


# -- nothing runs, nothing is fetched


def assert_harmless(root: Node) -> None:
    ids = [node.attributes["id"] for node in root.walk() if "id" in node.attributes]
    assert len(ids) == len(set(ids))
    tags = {node.tag for node in root.walk()}
    assert not tags & {
        "script",
        "iframe",
        "object",
        "embed",
        "base",
        "form",
        "input",
        "foreignobject",
    }
    for node in root.walk():
        for name, value in node.attributes.items():
            assert not name.startswith("on"), name
            if name == "href":
                assert value == "data:," or str(value)[1:] in ids, value
                assert value == "data:," or str(value).startswith("#")
            elif name == "src":
                assert re.match(r"data:image/(png|jpeg);base64,", str(value))
            else:
                assert name not in (
                    "srcset",
                    "action",
                    "formaction",
                    "poster",
                    "xlink:href",
                    "style",
                )
    [style] = root.all("style")
    assert not re.search(r"url\(|@import|expression|javascript", style.text)
    [policy] = root.all("meta", **{"http-equiv": "Content-Security-Policy"})
    said = str(policy.attributes["content"])
    assert said.startswith("default-src 'none';")
    assert set(re.findall(r"(\S+)-src ([^;]*)", said)) == {
        ("default", "'none'"), ("img", "data:"), ("style", "'unsafe-inline'"),
    }  # fmt: skip


def test_nothing_of_a_name_is_markup(tmp_path: Path) -> None:
    page = html.page(samples.everything(run=samples.EVIL), facts_of_a_run(tmp_path))
    assert "<script" not in page
    assert samples.EVIL not in page
    assert "\x1b" not in page
    root = parse(page)
    assert_harmless(root)
    assert [node.attributes["alt"] for node in root.all("img")] == [f"A sheet {samples.EVIL}"]
    [found] = root.all("section", id="found")
    assert samples.EVIL_LINK in found.text
    assert f"{samples.EVIL}/0.avi" in root.all("section", id="left-out")[0].text


@settings(max_examples=30)
@given(st.text(st.characters(codec="utf-8"), min_size=1, max_size=40))
@example("'\"><svg onload=x>")
@example("\x00\x85\u202e]]>--><!--")
def test_any_text_stays_text(text: str) -> None:
    measured = samples.number(3, text, dataset=text, split=text, layer=text, control=text,
                              metric=text, protocol={text: text, "list": [text]})  # fmt: skip
    report = Report(
        job=text, run=text, command=text, created=text,
        findings=[Finding(text=text, verdict="note")],
        measurements=[measured, measured],
        curves=[Curve(name=text, x_label=text, y_label=text, points=[(0, 1), (1, 2)])],
        pictures=[Picture(file=text, caption=text)],
        left_out=[LeftOut(id=text, reason=text)], left_out_total=1,
        data={text: {"name": text, text: text}},
    )  # fmt: skip
    page = html.page(report)
    page.encode()
    root = parse(page)
    assert_harmless(root)
    assert plain(text, lines=True) in root.all("section", id="found")[0].text


def test_a_page_names_what_the_run_was_made_of(tmp_path: Path) -> None:
    root = parse(html.page(samples.everything(), facts_of_a_run(tmp_path)))
    [repeat] = root.all("section", id="repeat")
    assert [node.text for node in repeat.all("pre")] == [
        "selfsup probe --set 'a=b c' --run first",
        "selfsup probe --preset preset.yaml",
        f"description: {samples.EVIL}\n```",
    ]
    made = root.all("section", id="made-with")[0].text
    assert re.search(r"torch\d", made)
    assert "run parent, arch c3d, sha256 efef" in made
    left_out = root.all("section", id="left-out")[0].text
    assert "Not used: 40, of which 3 are listed" in left_out
    assert f"{samples.EVIL}.mp4is empty" in left_out
    assert "took 1 h 2 min" in root.all("ul", class_="facts")[0].text


def test_what_is_not_there_is_left_out() -> None:
    bare = Report(job="probe", run="first", command="", created=samples.CREATED)
    root = parse(html.page(bare))
    assert_harmless(root)
    assert root.all("section") == []
    once = Curve(name="a", x_label="x", y_label="y", points=[(1, 2)])
    root = parse(html.page(bare.model_copy(update={"curves": [once]})))
    assert [node.attributes["id"] for node in root.all("section")] == ["curves"]
    assert root.all("svg") == []


# -- curves


def test_lines_are_told_apart_without_colour() -> None:
    styles = [svg.line_class(index) for index in range(12)]
    assert len(set(styles)) == 12
    assert len({style.split()[1] for style in styles[:4]}) == 4
    css = html.html_parts._style()
    dashes = [re.search(rf"\.d{i} {{ stroke-dasharray: ([^;]+);", css) for i in range(1, 4)]
    assert len({found[1] for found in dashes if found}) == 3


def test_chance_is_drawn_and_said_once() -> None:
    ends = [(0.0, 0.2), (9.0, 0.6)]
    given_ = {"x_label": "epoch", "y_label": "accuracy", "points": ends}
    curves = [Curve(name="a", chance=0.25, **given_), Curve(name="b", chance=0.25, **given_)]
    root = parse(html.page(samples.everything(curves=[*curves, Curve(name="c", **given_)])))
    [panel] = root.all("svg", class_="panel")
    [line] = panel.all("line", class_="chance")
    rules = {node.attributes["y1"] for node in panel.all("line", class_="rule")}
    assert line.attributes["y1"] == line.attributes["y2"] not in rules
    assert line.text == "chance 0.25"
    assert [node.text for node in root.all("ul", class_="legend")[0].all("li")] == [
        "a 0.6", "b 0.6", "c 0.6", "chance 0.25",
    ]  # fmt: skip


def test_what_chance_is_stands_below_the_table() -> None:
    def said(*what: str | None) -> list[str]:
        rows = [
            samples.number(100 + i, chance_is=one, metric=f"m{i}") for i, one in enumerate(what)
        ]
        root = parse(html.page(samples.everything(measurements=rows)))
        [notes] = root.all("dl", class_="measured")
        texts = [node.text for node in notes.children if isinstance(node, Node)]
        return [
            text for term, text in zip(texts[::2], texts[1::2], strict=True) if term == "chance"
        ]

    assert said(None, None) == []
    assert said("a coin", "a coin") == ["a coin"]
    assert said("a coin", "a die") == ["of m0: a coin; of m1: a die"]
    assert said("a coin", "a die", "a die", "a die") == ["of m0: a coin; of all others: a die"]


def test_metrics_of_several_layers_have_tables_of_their_own() -> None:
    rows = [
        samples.number(100, layer=layer, metric=metric)
        for layer in ("conv1", "conv2")
        for metric in ("top-1", "balanced")
    ]
    heads = [
        [node.text for node in parse(html.page(samples.everything(measurements=own))).all("h3")][:2]
        for own in (rows, rows[:2])
    ]
    assert heads[0] == [
        f"linear probe · motion, test · {metric}" for metric in ("top-1", "balanced")
    ]
    assert heads[1][0] == "linear probe · motion, test"


def test_points_say_their_values() -> None:
    curve = Curve(name="acc", x_label="epoch", y_label="acc", points=[(1, 0.25), (2.5, 0.75)])
    root = parse(svg.panel("accuracy", [curve]))
    titles = [node.text for node in root.all("title")]
    assert titles[0] == "acc: 0.25 at epoch 1, 0.75 at 2.5"
    assert titles[1:] == ["acc 0.25 at epoch 1", "acc 0.75 at epoch 2.5"]
    [line] = root.all("polyline")
    (x0, y0), (x1, y1) = (map(float, p.split(",")) for p in str(line.attributes["points"]).split())
    assert x0 < x1
    assert y0 > y1, "a larger value stands higher"


FINITE = st.floats(allow_nan=False, allow_infinity=False)


@settings(max_examples=100)
@given(st.lists(st.tuples(FINITE, FINITE), min_size=1, max_size=80))
@example([(0.0, 1e308), (1.0, -1e308)])
@example([(5e-324, 0.0), (1e-323, 5e-324)])
@example([(3.0, 7.0)])
@example([(0.0, 1.7e308)])
@example([(1.7e308, 0.0), (-1.7e308, 1.7e308)])
def test_whatever_the_numbers_the_picture_is_whole(points: list[tuple[float, float]]) -> None:
    curve = Curve(name="c", x_label="x", y_label="y", points=points)
    root = parse(svg.panel("y", [curve]))
    for node in root.walk():
        places = [node.attributes.get(name) for name in ("x", "y", "x1", "y1", "cx", "cy")]
        places += re.split("[ ,]", str(node.attributes.get("points", "0")))
        for place in filter(None, places):
            assert -1 <= float(place) <= svg.WIDTH


# -- pictures and size


def test_pictures_are_inside_the_page_and_curves_are_drawn_anew(tmp_path: Path) -> None:
    facts = facts_of_a_run(tmp_path)
    root = parse(html.page(samples.everything(), facts))
    [image] = root.all("img")
    data = base64.b64decode(str(image.attributes["src"]).partition(",")[2])
    assert data == samples.picture()
    assert (image.attributes["width"], image.attributes["height"]) == ("40", "30")
    shown = root.all("section", id="pictures")[0].text
    assert "Gone. (pictures/gone.png cannot be shown: it is not in the run)" in shown
    assert "curves.png" not in shown
    without = samples.everything(curves=[])
    assert "pictures/curves.png" in parse(html.page(without, facts)).text


def test_nothing_outside_the_run_and_no_other_format_is_embedded(tmp_path: Path) -> None:
    secret = tmp_path / "secret.png"
    secret.write_bytes(samples.picture())
    run = samples.finished(tmp_path / "runs", samples.everything())
    (run.path / "link.png").symlink_to(secret)
    (run.path / "x.svg").write_text("<svg onload='alert(1)'></svg>")
    files = ["../../secret.png", str(secret), "link.png", "x.svg", "pictures", "\x00", ""]
    report = samples.everything(pictures=[Picture(file=file, caption="c") for file in files])
    root = parse(html.page(report, run.facts()))
    assert root.all("img") == []
    assert len(root.all("figure")) == len(files)


def test_a_page_has_at_most_five_megabytes(tmp_path: Path) -> None:
    run = samples.finished(tmp_path, samples.everything())
    large = samples.picture(1400, 900, noise=True)
    names = [f"pictures/large{i}.png" for i in range(3)]
    for name in names:
        (run.path / name).write_bytes(large)
    (run.path / "pictures/torn.png").write_bytes(large[:2_500_000])
    files = ["pictures/sheet.png", *names, "pictures/torn.png"]
    report = samples.everything(pictures=[Picture(file=file, caption="c") for file in files])
    page = html.page(report, run.facts())
    assert 1_000_000 < len(page.encode()) <= 5_000_000
    root = parse(page)
    kinds = [str(one.attributes["src"]).partition(";")[0] for one in root.all("img")]
    assert kinds == ["data:image/png", *["data:image/jpeg"] * 3]
    for one in root.all("img")[1:]:
        data = base64.b64decode(str(one.attributes["src"]).partition(",")[2])
        with Image.open(io.BytesIO(data)) as image:
            image.load()
            assert str(image.width) == one.attributes["width"]
    assert root.text.count("made smaller for this page; the file has 1400 × 900 pixels") == 3
    assert "pictures/torn.png cannot be shown: it is damaged" in root.text


# -- to be read by all


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(a: str, b: str) -> float:
    high, low = sorted((luminance(a), luminance(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", [0, 1, 2], ids=["light", "dark", "print"])
def test_contrast_is_that_of_wcag_aa(scheme: int) -> None:
    blocks = re.findall(r":root \{(.*?)\}", html.html_parts._style(), re.DOTALL)
    assert len(blocks) == 3
    colours = dict(re.findall(r"--(\w+): (#[0-9a-f]{6})", blocks[scheme]))
    for paper in ("paper", "soft"):
        for ink in ("ink", "grey", "link", "good", "bad", "unclear", "note"):
            assert contrast(colours[ink], colours[paper]) >= 4.5, (ink, paper)
        for line in ("edge", *(f"c{i}" for i in range(svg.COLOURS))):
            assert contrast(colours[line], colours[paper]) >= 3, (line, paper)


def test_tables_and_sections_are_named_for_those_who_hear_them(tmp_path: Path) -> None:
    root = parse(html.page(samples.everything(), facts_of_a_run(tmp_path)))
    assert root.all("html")[0].attributes["lang"] == "en"
    assert len(root.all("h1")) == 1
    for table in root.all("table"):
        assert table.attributes["aria-label"]
        assert all(head.attributes["scope"] == "col" for head in table.all("thead")[0].all("th"))
    for one in root.all("svg"):
        assert one.attributes.get("aria-hidden") or one.attributes["role"] == "img"
    for finding in root.all("li", class_="finding"):
        assert re.match(r"[✓✗?i](ok|bad|unclear|note)", finding.text)
