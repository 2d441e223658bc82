"""The sheet of `selfsup retrieve`: a query, its two nearest neighbours, three frames of each."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from selfsup_cli.config.evaluation import Retrieve
from selfsup_cli.config.presets import resolve
from selfsup_cli.data.motion import MotionSource
from selfsup_cli.engine.devices import choose
from selfsup_cli.engine.progress import Progress
from selfsup_cli.engine.signals import StopFlag
from selfsup_cli.jobs import retrieve
from selfsup_cli.jobs.retrieve import Search
from selfsup_cli.models import build


def test_the_sheet_is_that_of_the_figure(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    sets = ["data.motion.videos=16", "data.motion.test_videos=8", "data.motion.side=16",
            "neighbours.ks=[1, 5]", "neighbours.sheet=3",
            "neighbours.standardize=false"]  # fmt: skip
    preset = resolve("retrieve", options={"data.source": "motion"}, sets=sets, env={}).preset
    assert isinstance(preset, Retrieve)
    gallery, queries = (MotionSource(preset.data.motion, part, True) for part in ("train", "test"))
    g = torch.Generator().manual_seed(0)
    vectors = {id(one): torch.randn(len(one), 6, generator=g) for one in (gallery, queries)}
    monkeypatch.setattr(
        Search, "_vectors", lambda self, network, source, what, control: vectors[id(source)]
    )
    read: list[str] = []
    whole = MotionSource.read

    def counted(self: MotionSource, i: int, *rest: Any) -> torch.Tensor:
        read.append(self.ids[i])
        return whole(self, i, *rest)

    monkeypatch.setattr(MotionSource, "read", counted)
    drawn: list[Any] = []
    draw = retrieve.sheets.retrieval_sheet

    def remember(path: Path, rows: list[Any], **told: Any) -> None:
        drawn.extend([rows, told])
        draw(path, rows, **told)

    monkeypatch.setattr(retrieve.sheets, "retrieval_sheet", remember)
    search = Search(preset, gallery, queries, choose("cpu"), Progress(quiet=True), StopFlag())
    found = search(build("c3d", width=0.125, crop=32, seed=0), "learned")
    run: Any = SimpleNamespace(picture=lambda name: tmp_path / name)
    subject: Any = SimpleNamespace(run="mine")
    [picture] = retrieve._sheet(run, preset, subject, search, found)
    rows, told = drawn
    assert len(rows) == 3
    assert len(read) == 9
    assert gallery.classes is not None
    for query, neighbours in rows:
        vector = vectors[id(queries)][queries.ids.index(query.name)].numpy()
        others = vectors[id(gallery)].numpy()
        lengths = np.linalg.norm(others, axis=1) * np.linalg.norm(vector)
        cosines = others @ vector / lengths
        nearest = np.argsort(-cosines)[:2]
        assert [one.name for one in neighbours] == [gallery.ids[int(k)] for k in nearest]
        assert [one.score for one in neighbours] == pytest.approx(cosines[nearest], abs=1e-5)
        for shot, source in ((query, queries), *((one, gallery) for one in neighbours)):
            assert shot.frames.shape == (3, 3, 16, 16)
            number = source.ids.index(shot.name)
            assert source.labels is not None
            assert shot.label == gallery.classes[int(source.labels[number])]
            frames = np.array([40, 80, 120])
            torch.testing.assert_close(shot.frames, whole(source, number, frames, None))
    assert "2 nearest neighbours" in told["note"]
    assert "network mine" in told["note"]
    assert "seed 0, not by how well they do" in told["note"]
    assert picture.caption == told["note"]
    assert (tmp_path / "neighbours.png").read_bytes()[:4] == b"\x89PNG"
