"""What a search finds, and what is said of its numbers."""

from __future__ import annotations

import pytest
import torch

from selfsup_cli.config.evaluation import Retrieve
from selfsup_cli.config.presets import resolve
from selfsup_cli.data.clips import open_source
from selfsup_cli.engine.devices import choose
from selfsup_cli.engine.progress import Progress
from selfsup_cli.engine.signals import StopFlag
from selfsup_cli.jobs.retrieve import SHOWN, Search
from selfsup_cli.models import build


def test_numbers_name_weights_and_seed_and_the_picture_gets_its_neighbours(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sets = ["data.motion.videos=16", "data.motion.test_videos=8", "neighbours.ks=[1]"]
    preset = resolve("retrieve", options={"data.source": "motion"}, sets=sets, env={}).preset
    assert isinstance(preset, Retrieve)
    gallery, queries = (
        open_source(preset.data, part, labels=True, workers=0) for part in ("train", "test")
    )
    monkeypatch.setattr(
        Search, "_vectors", lambda self, network, source, what, control: torch.rand(len(source), 6)
    )
    search = Search(preset, gallery, queries, choose("cpu"), Progress(quiet=True), StopFlag())
    networks = [build("c3d", width=0.125, crop=32, seed=seed) for seed in (0, 1)]
    found = search(networks[0], "learned")
    # Only the nearest is counted, but the picture shows more.
    assert found.rows.shape == (8, SHOWN)
    weights = set()
    for network in networks:
        (row,) = search.rows(found, network, "learned")
        weights.add(row.protocol["weights"])
        assert "seed" not in row.protocol
        (row,) = search.rows(found, network, "learned", "shuffled")
        assert row.protocol["seed"] == preset.neighbours.seed
    assert len(weights) == 2
