from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageColor, ImageDraw

from selfsup_cli.errors import InputError
from selfsup_cli.visualization import sheets
from selfsup_cli.visualization.sheets import (
    HIT,
    MISS,
    Clip,
    Shot,
    Source,
    contact_sheet,
    retrieval_sheet,
)

HOSTILE = [
    "line\nbreak\ttab",
    "[red]markup[/red] <img onerror=x> $\\frac{",
    "\x1b[31mescape\x07",
    "undecodable \udcff name",
    "Привет 日本 \u202eright-to-left",
    "x" * 5000,
    "",
]


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


def flat(colours: list[tuple[int, int, int]], height: int = 20, width: int = 20) -> torch.Tensor:
    """Frames of one colour each, uint8 [3, T, H, W]."""
    frames = torch.tensor(colours, dtype=torch.uint8).T
    return frames[:, :, None, None].expand(3, len(colours), height, width)


def load(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        assert image.format == "PNG"
        assert image.mode == "RGB"
        return np.asarray(image).astype(int)


def where(pixels: np.ndarray, colour: tuple[int, ...] | str) -> np.ndarray:
    rgb = ImageColor.getrgb(colour) if isinstance(colour, str) else colour
    return np.argwhere((pixels == rgb).all(2))


def clip(colours: list[tuple[int, int, int]], title: str, note: str = "") -> Clip:
    return Clip(flat(colours), list(range(7, 7 + 3 * len(colours), 3)), title, note)


def test_every_frame_is_shown_in_its_row_and_column_with_its_number(
    tmp_path: Path, said: list[str]
) -> None:
    rows = [[(200, 10 * r, 10 * t) for t in range(5)] for r in range(4)]
    sources = [
        Source("a.avi", [clip(rows[0], "speed", "×2"), clip(rows[1], "random")]),
        Source("b.avi", [clip(rows[2], "periodic"), clip(rows[3], "warp")]),
    ]
    contact_sheet(tmp_path / "s.png", sources, title="What it is fed", note="seed 0")
    pixels = load(tmp_path / "s.png")
    centres = np.array([[where(pixels, c).mean(0) for c in row] for row in rows])
    assert (np.diff(centres[..., 0], axis=0) > 50).all()  # rows lie below each other
    assert np.ptp(centres[..., 0], axis=1).max() == 0  # the frames of a clip are in line
    assert (np.diff(centres[..., 1], axis=1) > 50).all()  # and run from left to right
    for row in rows:
        for colour in row:
            assert len(where(pixels, colour)) == 84 * 84
    assert said.count("7") == 4
    assert [text for text in said if text.isdigit()] == ["7", "10", "13", "16", "19"] * 4
    for text in ("a.avi", "b.avi", "speed", "×2", "random", "warp", "What it is fed", "seed 0"):
        assert text in said


def test_floats_are_shown_as_the_values_that_they_stand_for(tmp_path: Path) -> None:
    frames = torch.tensor([-1.0, 0.0, 1.0])[None, :, None, None].expand(3, 3, 8, 8)
    contact_sheet(tmp_path / "s.png", [Source("a", [Clip(frames, [0, 1, 2], "speed")])], title="t")
    pixels = load(tmp_path / "s.png")
    assert len(where(pixels, (0, 0, 0))) == 84 * 84
    assert len(where(pixels, (128, 128, 128))) == 84 * 84


def test_the_plot_of_indices_follows_them(tmp_path: Path) -> None:
    def trace(numbers: list[int]) -> np.ndarray:
        frames = flat([(9, 9, 9)] * len(numbers))
        path = tmp_path / "s.png"
        contact_sheet(path, [Source("a", [Clip(frames, numbers, "x")])], title="t")
        points = where(load(path), sheets.TRACE)
        columns = [points[np.abs(points[:, 1] - x) <= 1][:, 0] for x in sorted(set(points[:, 1]))]
        return -np.array([rows.mean() for rows in columns])

    rising = trace([3, 5, 7, 9, 11, 13])
    assert np.corrcoef(rising, np.arange(len(rising)))[0, 1] > 0.99
    periodic = trace([3, 5, 7, 9, 7, 5, 3])
    middle = len(periodic) // 2
    assert periodic[middle] > periodic[0] + 20
    assert periodic[middle] > periodic[-1] + 20
    still = trace([4, 4, 4, 4])
    assert np.ptp(still) <= 1


def shot(colour: tuple[int, int, int], label: str | None = None, **more: Any) -> Shot:
    return Shot(flat([colour] * 3), f"{colour}.avi", label, **more)


def test_hit_and_miss_differ_by_border_and_by_mark(tmp_path: Path, said: list[str]) -> None:
    query = shot((1, 1, 1), "walk")
    found = [shot((2, 2, 2), "walk", score=0.75), shot((3, 3, 3), "run", score=-0.125)]
    retrieval_sheet(tmp_path / "s.png", [(query, found)], title="Neighbours")
    pixels = load(tmp_path / "s.png")

    def around(colour: tuple[int, int, int]) -> set[tuple[int, ...]]:
        area = where(pixels, colour)
        (top, left), (bottom, right) = area.min(0), area.max(0)
        return {
            tuple(pixels[y, x])
            for y, x in (
                (top - 3, left + 9),
                (bottom + 3, left + 9),
                (top + 40, left - 3),
                (bottom - 9, right + 3),
            )
        }

    assert around((2, 2, 2)) == {ImageColor.getrgb(HIT)}
    assert around((3, 3, 3)) == {ImageColor.getrgb(MISS)}
    assert around((1, 1, 1)) == {ImageColor.getrgb(sheets.PAPER)}
    # The marks are told apart without colour: their white parts have different shapes.
    shapes = []
    for colour in ((2, 2, 2), (3, 3, 3)):
        area = where(pixels, colour)
        top, right = area.min(0)[0], area.max(0)[1]
        disc = pixels[top : top + 16, right - 16 : right]
        shapes.append((disc == 255).all(2))
    assert (shapes[0] != shapes[1]).sum() > 20
    for text in ("query", "neighbour 1", "neighbour 2", "walk", "run", "0.75", "-0.12"):
        assert text in said
    assert {"same class", "other class"} <= set(said)


def test_without_classes_nothing_is_judged(tmp_path: Path, said: list[str]) -> None:
    rows = [(shot((1, 1, 1)), [shot((2, 2, 2), score=0.5)])]
    retrieval_sheet(tmp_path / "s.png", rows, title="t")
    pixels = load(tmp_path / "s.png")
    assert not len(where(pixels, HIT))
    assert not len(where(pixels, MISS))
    assert "same class" not in said
    assert "(2, 2, 2).avi" in said


@pytest.mark.parametrize("name", HOSTILE)
def test_names_are_plain_text(tmp_path: Path, said: list[str], name: str) -> None:
    contact_sheet(
        tmp_path / "a.png", [Source(name, [clip([(1, 2, 3)], name, name)])], title=name, note=name
    )
    rows = [(Shot(flat([(1, 2, 3)]), name, name), [Shot(flat([(4, 5, 6)]), name, name, 0.5)])]
    retrieval_sheet(tmp_path / "b.png", rows, title=name, note=name)
    for path in (tmp_path / "a.png", tmp_path / "b.png"):
        assert max(load(path).shape) < 2000
    assert all(text.isprintable() for text in said)


@pytest.mark.parametrize("shape", [(64, 36), (4, 600), (600, 4), (1, 1)])
def test_frames_of_any_shape_fit(tmp_path: Path, shape: tuple[int, int]) -> None:
    frames = flat([(1, 2, 3)] * 2, *shape)
    rows = [(Shot(frames, "a"), [Shot(flat([(4, 5, 6)] * 3), "b", score=1.0)])]
    retrieval_sheet(tmp_path / "s.png", rows, title="t")
    contact_sheet(tmp_path / "c.png", [Source("a", [Clip(frames, [0, 1], "x")])], title="t")
    assert len(where(load(tmp_path / "s.png"), (1, 2, 3))) > 0
    assert load(tmp_path / "s.png").shape[1] < 2000


def test_empty_sheets_are_pictures_too(tmp_path: Path) -> None:
    contact_sheet(tmp_path / "a.png", [], title="nothing")
    retrieval_sheet(tmp_path / "b.png", [], title="nothing")
    retrieval_sheet(tmp_path / "c.png", [(shot((1, 1, 1), "x"), [])], title="alone")
    for name in "abc":
        load(tmp_path / f"{name}.png")


def test_the_same_content_gives_the_same_bytes(tmp_path: Path) -> None:
    digests = set()
    for name in "ab":
        path = tmp_path / f"{name}.png"
        contact_sheet(path, [Source("v", [clip([(1, 2, 3)] * 4, "speed")])], title="t")
        digests.add(hashlib.sha256(path.read_bytes()).hexdigest())
    assert len(digests) == 1


def test_a_place_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere"):
        contact_sheet(tmp_path / "nowhere" / "s.png", [], title="t")
