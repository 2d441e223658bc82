from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from selfsup_cli.runs.report import Curve
from selfsup_cli.visualization import curves
from selfsup_cli.visualization.curves import draw, running_mean, sparkline


def curve(name: str, label: str, n: int = 20) -> Curve:
    points = [(float(i), float(np.sin(i / 5))) for i in range(n)]
    return Curve(name=name, x_label="epoch", y_label=label, points=points)


@pytest.fixture
def panels(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The axes that are drawn."""
    seen: list[Any] = []
    panel = curves._panel

    def remember(axes: Any, label: str, own: Any) -> None:
        panel(axes, label, own)
        seen.append(axes)

    monkeypatch.setattr(curves, "_panel", remember)
    return seen


def test_curves_with_one_label_share_a_panel(tmp_path: Path, panels: list[Any]) -> None:
    given_ = [
        curve("loss", "loss"), curve("train", "accuracy", 300), curve("held out", "accuracy"),
        curve("lr", "learning rate"),
    ]  # fmt: skip
    draw(tmp_path / "c.png", given_, title="a run")
    assert [axes.get_title(loc="left") for axes in panels] == ["loss", "accuracy", "learning rate"]
    assert [text.get_text() for text in panels[1].get_legend().get_texts()] == ["train", "held out"]
    assert panels[0].get_legend() is None
    assert panels[0].get_xlabel() == "epoch"
    # A long curve is drawn with its mean, a short one with its points.
    assert len(panels[1].lines) == 3
    assert panels[1].lines[2].get_marker() == "o"
    np.testing.assert_allclose(panels[1].lines[2].get_ydata(), np.sin(np.arange(20) / 5))
    with Image.open(tmp_path / "c.png") as image:
        assert image.format == "PNG"
        assert image.getpixel((0, 0))[:3] == (255, 255, 255)


def test_intervals_are_upright_bars(tmp_path: Path, panels: list[Any]) -> None:
    line = Curve(
        name="a", x_label="x", y_label="y", points=[(1, 5), (2, 6)], intervals=[(4, 7), None]
    )
    draw(tmp_path / "a.png", [line])
    (bar,) = (one for one in panels[0].lines if list(one.get_xdata()) == [1, 1])
    assert list(bar.get_ydata()) == [4, 7]


def test_chance_is_a_dashed_line_with_a_name(tmp_path: Path, panels: list[Any]) -> None:
    both = [curve(name, "accuracy").model_copy(update={"chance": 0.25}) for name in "ab"]
    draw(tmp_path / "c.png", [*both, curve("lr", "learning rate")])
    dashed = [line for line in panels[0].lines if line.get_linestyle() == "--"]
    assert [list(line.get_ydata()) for line in dashed] == [[0.25, 0.25]]
    names = [text.get_text() for text in panels[0].get_legend().get_texts()]
    assert names == ["a", "b", "chance 0.25"]
    assert len(panels[1].lines) == 1


@pytest.mark.parametrize("count", [0, 1, 4, 11])
def test_any_number_of_panels(tmp_path: Path, panels: list[Any], count: int) -> None:
    own = [curve(f"c{i}", f"y{i}", n=1 if i == 0 else 9) for i in range(count)]
    draw(tmp_path / "c.png", [*own, Curve(name="e", x_label="x", y_label="z", points=[])])
    assert len(panels) == count
    with Image.open(tmp_path / "c.png") as image:
        assert image.width < 2500
        assert np.asarray(image).std() > 1


@pytest.mark.parametrize("name", ["$\\frac{$", "_hidden", "a\nb", "$x$", "Привет"])
def test_names_are_plain_text(tmp_path: Path, panels: list[Any], name: str) -> None:
    draw(tmp_path / "c.png", [curve(name, name), curve("other", name)], title=name)
    assert name in [text.get_text() for text in panels[0].get_legend().get_texts()]


def test_the_users_own_settings_are_neither_used_nor_changed(tmp_path: Path) -> None:
    draw(tmp_path / "a.png", [curve("loss", "loss")], title="t")
    with matplotlib.rc_context({"text.usetex": True, "axes.facecolor": "black", "font.size": 30}):
        before = dict(matplotlib.rcParams)
        draw(tmp_path / "b.png", [curve("loss", "loss")], title="t")
        assert dict(matplotlib.rcParams) == before
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_no_figure_stays_open(tmp_path: Path) -> None:
    draw(tmp_path / "a.png", [curve("loss", "loss")])
    pyplot = sys.modules.get("matplotlib.pyplot")
    assert pyplot is None or pyplot.get_fignums() == []


@given(
    y=st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=200).map(np.array),
    parts=st.integers(1, 50),
)
def test_the_running_mean_is_the_mean_of_a_window(y: np.ndarray, parts: int) -> None:
    found = running_mean(y, parts)
    half = max(1, len(y) // parts) // 2 + 1
    expected = [y[max(0, i - half) : i + half + 1].mean() for i in range(len(y))]
    np.testing.assert_allclose(found, expected, atol=1e-6)


numbers = st.lists(st.floats(allow_nan=True, allow_infinity=True, width=32), max_size=60)


@given(values=numbers, width=st.integers(0, 20))
def test_a_sparkline_is_short_and_never_fails(values: list[float], width: int) -> None:
    line = sparkline(values, width)
    assert len(line) <= width
    assert set(line) <= set("▁▂▃▄▅▆▇█")


def test_a_sparkline_rises_and_falls_with_the_values() -> None:
    assert sparkline(range(8), 8) == "▁▂▃▄▅▆▇█"
    assert sparkline([3, 2, 1, 0] * 1, 4) == "█▆▃▁"
    assert sparkline([5.0, 5.0, 5.0]) == "▄▄▄"
    assert sparkline([]) == ""
    assert sparkline([float("nan")]) == ""
    assert sparkline([0, 0, 0, 9, 9, 9], 2) == "▁█"
    assert sparkline([0, float("nan"), 1]) == "▁█"
