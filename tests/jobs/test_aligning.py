"""Aligning cameras: by the scores of a network, at different rates, and with what is written."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from selfsup_cli.config.multiview import PretrainMultiview
from selfsup_cli.data.multiview_layouts import find_recordings, open_each_camera
from selfsup_cli.evaluation import view_features
from selfsup_cli.jobs import multiview, sync
from selfsup_cli.jobs.sync import _by_logits, _Clock


def moments(frames: int, shift: int, source: np.random.Generator) -> np.ndarray:
    """Features of poses that change irregularly, from frame `shift` of one long motion on."""
    steps = np.random.default_rng(5).normal(size=(400, 8)).cumsum(0)
    seen = steps[shift : shift + frames]
    return np.asarray(seen + source.normal(0, 0.3, seen.shape))


@pytest.mark.parametrize(("first", "second"), [(0, 0), (12, 0), (0, 25)])
def test_the_offset_by_scores_of_all_pairs(first: int, second: int) -> None:
    source = np.random.default_rng(0)
    a, b = moments(200, first, source), moments(180, second, source)
    # Some frames score high with whatever they are compared with.
    logits = -np.linalg.norm(a[:, None] - b[None], axis=-1) + source.normal(0, 9, (200, 1))
    found = _by_logits(logits, 40, 50.0)
    assert not found.doubt
    assert found.best == first - second
    assert found.low <= found.peak <= found.high


def test_the_clock_is_that_of_the_slowest(data_dir: Path) -> None:
    (one,) = find_recordings(
        str(data_dir / "multiview" / "single_person" / "videos_small")
    ).recordings
    clock = _Clock(25.0, (25.0, 50.0))
    assert clock.frames(0, 4).tolist() == [0, 1, 2, 3]
    assert clock.frames(1, 8).tolist() == [0, 2, 4, 6]
    assert _Clock.of(one) == _Clock(60.0, (60.0,) * 4)


class Compared:
    """Stands in for a trained network."""

    run = "mine"
    preset = PretrainMultiview(method="multiview")
    network = None

    def require(self, question: str) -> None:
        assert question == "sync"


class Viewer:
    """Sees which frame it is by what it counts, and nothing else."""

    def __init__(self, network: Any, views: Any, hardware: Any, *, background: str) -> None:
        self.views = views

    def features(self, moments_: Iterable[tuple[int, int, int]], counted: Any) -> torch.Tensor:
        # The second camera began ten frames later.
        late = {place: 10 for place, one in enumerate(self.views.recordings) if "cam02" in one.id}
        frames = [frame + late.get(place, 0) for place, _, frame in moments_]
        return torch.tensor(frames, dtype=torch.float32)[:, None]

    def scores(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        return 5 * torch.exp(-(((first - second.T) / 4) ** 2))


def test_what_is_told_and_written(
    data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(multiview, "find_comparing", lambda name: Compared())
    monkeypatch.setattr(view_features, "Viewer", Viewer)
    monkeypatch.setattr(sync, "open_each_camera", _not_prepared)
    folder = str(data_dir / "multiview" / "single_person" / "videos_small")
    outcome = sync.sync(
        folder,
        cameras=["cam01", "cam02", "cam03"],
        most=0.5,
        out=tmp_path / "found.json",
        device="cpu",
        quiet=True,
    )
    assert "cam02 after cam01: -0.167 s (-10.0 frames)" in outcome.text
    (found,) = json.loads((tmp_path / "found.json").read_text())["recordings"]
    assert found["cameras"] == pytest.approx({"cam01": 0, "cam02": -1 / 6, "cam03": 0}, abs=1e-3)
    assert [pair["told"] for pair in found["pairs"]] == [True] * 3
    assert len(found["pairs"][0]["curve"]["frames"]) == 61
    assert (tmp_path / "found.png").is_file()


def _not_prepared(found: Any, recordings: Any, side: int, told: Any) -> Any:
    """The cameras by name, without their pictures."""

    class One:
        def __init__(self, name: str) -> None:
            self.id = name

    class Views:
        recordings = ()

    Views.recordings = tuple(  # type: ignore[assignment]
        One(f"{one.id}/{view.camera.name}") for one in recordings for view in one.views
    )
    return Views()


def test_each_camera_is_opened_by_itself(data_dir: Path, tmp_path: Path) -> None:
    found = find_recordings(str(data_dir / "multiview" / "single_person" / "videos_small"))
    (one,) = found.recordings
    short = one.views[:1]
    views = open_each_camera(found, [type(one)("a", "b", "c", 60.0, short)], 32, tmp_path)
    assert [each.id for each in views.recordings] == ["a/b/cam01"]
    assert views.crops(0, 0, [99]).shape == (1, 3, 32, 32)
    masks = views.masks(0, 0, [5, 95])
    assert masks is not None
    assert 0.005 < masks.mean() < 0.6
