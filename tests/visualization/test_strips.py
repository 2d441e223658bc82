from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from selfsup_cli.errors import InputError, MachineError
from selfsup_cli.visualization import strips
from selfsup_cli.visualization.strips import (
    Look,
    Seen,
    Video,
    animation,
    brightness,
    heat,
    spread,
    strip,
)

HOSTILE = ["line\nbreak", "\x1b[31m$\\frac{", "\udcff \u202eПривет 日本", "x" * 5000, ""]


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """All text that is drawn, in order."""
    texts: list[str] = []
    text = ImageDraw.ImageDraw.text

    def remember(self: Any, at: Any, string: str, *args: Any, **kwargs: Any) -> None:
        texts.append(string)
        text(self, at, string, *args, **kwargs)

    monkeypatch.setattr(ImageDraw.ImageDraw, "text", remember)
    return texts


def seen(colour: int, names: list[str], length: int = 8, side: int = 16) -> Seen:
    """Frames of one colour each, and looks that are bright in the first frames only."""
    frames = torch.zeros(3, length, side, side, dtype=torch.uint8)
    frames[0], frames[1] = colour, torch.arange(length)[:, None, None] * 8
    pixels = torch.zeros(3, length, side, side)
    pixels[1, : length // 2] = 1e-6
    looks = [Look(name, "c3d", pixels) for name in names]
    return Seen(frames, list(range(3, 3 + 2 * length, 2)), looks)


def load(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB")).astype(int)


def where(pixels: np.ndarray, colour: tuple[int, ...]) -> np.ndarray:
    return np.argwhere((pixels == colour).all(2))


def test_a_strip_has_a_row_for_each_network_below_its_input(
    tmp_path: Path, said: list[str]
) -> None:
    videos = [
        Video("a.avi", "walk", [seen(50, ["mine", "random weights"])]),
        Video("b.avi", "run", [seen(90, ["mine", "random weights"])]),
    ]
    strip(tmp_path / "s.png", videos, title="T", subtitle="S", note="N", columns=4)
    pixels = load(tmp_path / "s.png")
    brightest = tuple(int(v) for v in strips._colours()[255])
    for colour in (50, 90):
        centres = [where(pixels, (colour, 8 * t, 0)).mean(0) for t in (1, 3, 5, 7)]
        assert np.ptp([row for row, _ in centres]) == 0
        assert np.diff([column for _, column in centres]) == pytest.approx([87] * 3)
        # Below the first two of the four frames both networks are active, and nowhere else.
        for row in (87, 174):
            for k, (y, x) in enumerate(centres):
                below = tuple(pixels[int(y) + row, int(x)])
                assert below == (brightest if k < 2 else tuple(strips._colours()[0]))
    for t in (0, 2, 4, 6):
        assert not len(where(pixels, (50, 8 * t, 0)))
    assert [text for text in said if text.isdigit()] == ["5", "9", "13", "17"] * 2
    for text in ("walk", "a.avi", "run", "b.avi", "T", "S", "N"):
        assert said.count(text) == 1
    assert said.count("mine") == said.count("random weights") == 2
    assert "no influence" in said


def test_networks_of_other_inputs_have_an_input_of_their_own(
    tmp_path: Path, said: list[str]
) -> None:
    videos = [Video("a.avi", None, [seen(50, ["one"]), seen(90, ["two"], length=4, side=24)])]
    strip(tmp_path / "s.png", videos, title="T")
    pixels = load(tmp_path / "s.png")
    assert where(pixels, (50, 8, 0)).mean(0)[0] < where(pixels, (90, 8, 0)).mean(0)[0] - 150
    assert "4 frames, 24 pixels" in said
    assert [text for text in said if text.isdigit()] == [
        *(str(n) for n in range(3, 19, 2)), "3", "5", "7", "9",
    ]  # fmt: skip
    animation(tmp_path / "s.webp", videos, title="T")
    assert said.count("4 frames, 24 pixels") == 2
    with Image.open(tmp_path / "s.webp") as moving:
        assert moving.n_frames == 8  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", ["m.webp", "m.gif", "M.GIF"])
def test_an_animation_plays_every_frame_and_begins_again(
    tmp_path: Path, said: list[str], name: str
) -> None:
    videos = [Video(f"{c}.avi", "walk", [seen(c, ["mine", "other"])]) for c in (50, 90)]
    animation(tmp_path / name, videos, title="T", note="N")
    with Image.open(tmp_path / name) as moving:
        assert moving.format == name[2:].upper()
        assert moving.n_frames == 8  # type: ignore[attr-defined]
        assert moving.info["loop"] == 0
        greens, looks = [], []
        for tick in range(8):
            moving.seek(tick)
            frame = np.asarray(moving.convert("RGB")).astype(int)
            red = np.abs(frame - (50, 8 * tick, 0)).sum(2) < 24
            greens.append(frame[red][:, 1].mean())
            y, x = np.argwhere(red).mean(0).astype(int)
            looks.append(int(frame[y, x + 123].sum()))
    assert np.diff(greens).min() > 2
    assert min(looks[:4]) > 500
    assert max(looks[4:]) < 60
    assert [text for text in said if text.startswith("frame ")] == [
        f"frame {n}" for n in range(3, 19, 2) for _ in videos
    ]
    assert said.count("mine") == said.count("other") == said.count("N") == 1


def test_a_pillow_without_webp_is_the_machines_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(strips.features, "check", lambda name: False)
    with pytest.raises(MachineError, match=r"no WebP; name a \.gif"):
        animation(tmp_path / "m.webp", [Video("a", None, [seen(1, ["x"])])], title="T")


def test_brightness_is_relative_to_the_clip_and_takes_the_strongest_colour() -> None:
    values = np.random.default_rng(0).uniform(0, 4, (3, 6, 20, 20))
    values[2, 0, 0, 0] = 1000.0
    got = brightness(torch.from_numpy(values))
    strongest = values.max(0)
    top = np.sort(strongest.reshape(-1))[int(0.995 * strongest.size)]
    np.testing.assert_allclose(got, np.minimum(strongest / top, 1), rtol=2e-3)
    assert got[0, 0, 0] == 1
    for factor in (1e-12, 1e9):
        np.testing.assert_allclose(brightness(torch.from_numpy(values * factor)), got, rtol=1e-4)


def test_what_is_rare_is_seen_and_nothing_is_black() -> None:
    pixels = torch.zeros(3, 4, 32, 32)
    assert not brightness(pixels).any()
    pixels[0, 1, 2, 3] = 1e-8
    got = brightness(pixels)
    assert got[1, 2, 3] == 1
    assert got.sum() == 1


def test_more_influence_is_lighter() -> None:
    ramp = np.linspace(0, 1, 64)[:, None, None].repeat(8, 1).repeat(8, 2)
    grey = [np.asarray(image.convert("L")).mean() for image in heat(ramp, 16)]
    assert grey[0] < 5
    assert np.diff(grey).min() > 0
    assert grey[-1] > 230


@given(st.integers(1, 100), st.integers(1, 40))
def test_chosen_frames_are_evenly_spread(length: int, count: int) -> None:
    chosen = spread(length, count)
    assert len(chosen) == min(length, count)
    assert 0 <= chosen[0] <= chosen[-1] < length
    steps = np.diff(chosen)
    assert len(steps) == 0 or (steps.min() >= 1 and np.ptp(steps) <= 1)
    assert abs(chosen[0] - (length - 1 - chosen[-1])) <= 1


@pytest.mark.parametrize("name", HOSTILE)
def test_names_are_plain_text(tmp_path: Path, said: list[str], name: str) -> None:
    one = seen(5, [name])
    videos = [Video(name, name, [one, one]), Video(name, None, [one, one])]
    strip(tmp_path / "a.png", videos, title=name, subtitle=name, note=name)
    animation(tmp_path / "b.webp", videos, title=name, subtitle=name, note=name)
    assert max(load(tmp_path / "a.png").shape) < 2000
    assert max(load(tmp_path / "b.webp").shape) < 2000
    assert all(text.isprintable() for text in said)


def test_the_same_content_gives_the_same_bytes(tmp_path: Path) -> None:
    videos = [Video("a", "x", [seen(5, ["n"])])]
    for draw, suffix in ((strip, "png"), (animation, "webp"), (animation, "gif")):
        paths = [tmp_path / f"{k}.{suffix}" for k in range(2)]
        for path in paths:
            draw(path, videos, title="T")
        assert paths[0].read_bytes() == paths[1].read_bytes()


def test_a_place_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere"):
        strip(tmp_path / "nowhere" / "s.png", [], title="t")
