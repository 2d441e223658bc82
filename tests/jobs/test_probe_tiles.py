"""Real or shuffled? The job on built-in images: what it reports, and what it claims."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from selfsup_cli.config.evaluation import LinearHeads
from selfsup_cli.config.presets import resolve
from selfsup_cli.errors import InputError
from selfsup_cli.jobs.common import Outcome
from selfsup_cli.jobs.probe_tiles import on_seams, probe_tiles, said
from selfsup_cli.jobs.tile_work import SEAMS
from selfsup_cli.models import build, save_backbone
from selfsup_cli.runs.report import Measurement, clustered_accuracy

SMALL = ["data.scenes.images=64", "data.scenes.test_images=40", "data.scenes.side=40",
         "tiles.images=48", "tiles.test_images=32", "tiles.sheet=2", "probe.epochs=4",
         'probe.layers=["conv1", "conv5"]', "machine.workers=0", "machine.device=cpu"]  # fmt: skip


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "first.safetensors"
    network = build("alexnet", width=0.125, crop=32, resize=(40, 40), seed=1)
    save_backbone(path, network, {"method": "transformations"})
    return path


def do(weights: Path, *sets: str, **settings: Any) -> Outcome:
    options = {"subject.run": str(weights), "data.source": "scenes"}
    found = resolve("probe-tiles", options=options, sets=[*SMALL, *sets], env={})
    assert found.name == "probe-tiles/scenes"
    return probe_tiles(found, quiet=True, **settings)


def test_every_layer_is_reported_beside_random_weights_and_seams(weights: Path) -> None:
    outcome = do(weights, run="tiles")
    report = outcome.report
    assert report is not None
    assert outcome.run_dir is not None
    rows = report.measurements
    assert [(row.subject, row.layer) for row in rows] == [
        ("learned", "conv1"), ("learned", "conv5"),
        ("random weights", "conv1"), ("random weights", "conv5"), (SEAMS, None),
    ]  # fmt: skip
    assert {row.n for row in rows} == {32}
    assert {row.chance for row in rows} == {50.0}
    assert {row.task for row in rows} == {"probe"}
    learned = rows[1]
    assert learned.published is not None
    assert learned.published.value == 85.0
    assert not learned.published.comparable
    assert rows[0].published is rows[3].published is None
    assert learned.interval is not None
    assert "videos" not in learned.interval.method
    assert "in real images too" in str(learned.protocol["seams"])
    # The controls' own numbers are those of the classifier that was trained on them.
    heads = LinearHeads()
    assert (learned.protocol["epochs"], rows[-1].protocol["epochs"]) == (4, heads.epochs)
    assert heads.epochs != 4
    assert rows[-1].protocol["batch_size"] == heads.batch_size
    # Both images of a pair are held out, or neither: of 48, about a fifth.
    held = int(str(learned.protocol["chosen"]).split(" on ")[1].split()[0])
    assert held % 2 == 0
    assert 10 <= held <= 28
    for name in ("tiles.png", "layers.png"):
        assert (outcome.run_dir / "pictures" / name).stat().st_size > 1000
    assert any("seams alone" in finding.text for finding in report.findings)
    assert do(weights, run="tiles").report == report
    # From features in the cache it comes out the same.
    assert measured(do(weights, run="again")) == measured(outcome)


def measured(outcome: Outcome) -> list[Measurement]:
    assert outcome.report is not None
    return outcome.report.measurements


def test_a_rehearsal_and_mistakes(weights: Path) -> None:
    outcome = do(weights, dry_run=True)
    assert outcome.run_dir is None
    assert outcome.data["images"] == 2 * (48 + 32) * 2
    with pytest.raises(InputError, match="leave nothing"):
        do(weights, "tiles.grid=16")
    with pytest.raises(InputError, match="fc3"):
        do(weights, 'probe.layers=["fc3"]')


def row(subject: str, layer: str | None, share: float) -> Measurement:
    shares = [1.0 if i < 300 * share else 0.0 for i in range(300)]
    return clustered_accuracy(
        "real or shuffled", shares, task="probe", subject=subject, dataset="d", split="s",
        layer=layer, chance=50.0, protocol={"tiles": "4×4"},
    )  # fmt: skip


def test_findings_are_told_of_the_layer_that_was_fixed_beforehand() -> None:
    rows = [row("learned", "conv1", 0.95), row("learned", "conv5", 0.8),
            row("random weights", "conv5", 0.6), row(SEAMS, None, 0.65)]  # fmt: skip
    found = said(rows, "conv5")
    assert [one.verdict for one in found] == ["good", "good", "good"]
    assert all("conv5" in one.text for one in found)
    assert not any("95.0 %" in one.text for one in found)


def test_what_seams_give_away_is_said() -> None:
    learned = row("learned", "conv5", 0.7)
    assert on_seams(learned, row(SEAMS, None, 0.5)).verdict == "good"
    told = on_seams(learned, row(SEAMS, None, 0.69))
    assert told.verdict == "unclear"
    assert "no more than they give away" in told.text
    assert "--paint grey" in told.text
    assert "--paint" not in on_seams(learned, row(SEAMS, None, 0.69), "grey").text
