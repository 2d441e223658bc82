from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageColor, ImageDraw

from selfsup_cli.visualization.neighbours_images import Query, Shown, neighbour_sheet, squared
from selfsup_cli.visualization.sheets import HIT, MISS
from selfsup_cli.visualization.tiles import tile_sheet


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


def flat(colour: tuple[int, int, int], height: int = 30, width: int = 40) -> torch.Tensor:
    pixels = torch.tensor(colour, dtype=torch.uint8)[:, None, None]
    return pixels.expand(3, height, width).contiguous()


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB")).astype(int)


def has(picture: np.ndarray, colour: str | tuple[int, int, int]) -> int:
    wanted = ImageColor.getrgb(colour) if isinstance(colour, str) else colour
    return int((picture == np.array(wanted)).all(2).sum())


def test_each_network_has_a_row_with_borders_that_say_what_agrees(
    tmp_path: Path, said: list[str]
) -> None:
    near = [
        Shown(flat((250, 0, 0)), "a.jpg", "cat", 0.91, True),
        Shown(flat((0, 250, 0)), "b.jpg", "a\ndog", 0.5, False),
    ]
    other = [Shown(flat((0, 0, 250)), "c.jpg", "cat", 0.4, True)]
    query = Query(Shown(flat((9, 9, 9)), "q.jpg", "cat"), [("learned", near), ("random", other)])
    path = tmp_path / "sheet.png"
    neighbour_sheet(path, [query], title="Neighbours", note="a note", side=50)
    picture = pixels(path)
    for colour in ((9, 9, 9), (250, 0, 0), (0, 250, 0), (0, 0, 250)):
        assert 2000 < has(picture, colour) <= 2500
    # Two hits and a miss; the marks and the legend are small.
    assert has(picture, HIT) > 1.6 * has(picture, MISS)
    for text in ("learned", "random", "cat", "a·dog", "0.91", "same class", "a note"):
        assert text in said
    rows = [np.argwhere((picture == np.array(c)).all(2))[:, 0].min() for c in
            ((250, 0, 0), (0, 0, 250))]  # fmt: skip
    assert rows[1] > rows[0] + 50


def test_without_classes_there_are_no_marks_and_names_stand_there(
    tmp_path: Path, said: list[str]
) -> None:
    query = Query(
        Shown(flat((9, 9, 9)), "q.jpg"), [("learned", [Shown(flat((1, 2, 3)), "n.jpg", score=0.1)])]
    )
    path = tmp_path / "sheet.png"
    neighbour_sheet(path, [query], title="Neighbours")
    picture = pixels(path)
    assert has(picture, HIT) == has(picture, MISS) == 0
    assert {"q.jpg", "n.jpg", "0.10"} <= set(said)
    assert "same class" not in said
    neighbour_sheet(path, [], title="Neighbours")
    assert pixels(path).shape[1] > 100


def test_images_are_cut_to_their_middle() -> None:
    wide = torch.zeros(3, 10, 30, dtype=torch.uint8)
    wide[:, :, 10:20] = 200
    assert np.asarray(squared(wide, 10)).min() == 200
    assert squared(torch.zeros(3, 1, 600, dtype=torch.uint8), 20).size == (20, 20)


def test_tiles_are_drawn_in_their_columns(tmp_path: Path, said: list[str]) -> None:
    columns = ["one", "two"]
    rows = [("x/1.png", [flat((200, 10, 10), 8, 8), flat((10, 200, 10), 8, 8)])]
    path = tmp_path / "tiles.png"
    tile_sheet(path, rows, columns, title="Tiles", note="said below", side=40)
    picture = pixels(path)
    assert has(picture, (200, 10, 10)) == has(picture, (10, 200, 10)) == 1600
    left = [np.argwhere((picture == np.array(c)).all(2))[:, 1].min() for c in
            ((200, 10, 10), (10, 200, 10))]  # fmt: skip
    assert left[1] == left[0] + 52
    assert {"one", "two", "x/1.png", "said below"} <= set(said)
