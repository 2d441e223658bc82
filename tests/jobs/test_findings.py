"""Sentences claim no more than their numbers carry."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from selfsup_cli.config.blocks import VideoData
from selfsup_cli.config.images import ImageData
from selfsup_cli.data.clips import open_source
from selfsup_cli.data.images import open_images
from selfsup_cli.data.source import ClipSource, ImageSource
from selfsup_cli.evaluation.probe import ProbeResult
from selfsup_cli.jobs.findings import Probed, of_probe, seen_before, shared_recordings
from selfsup_cli.runs.report import accuracy

N = 200


def probed(
    layer: str,
    hits: int,
    validation: float | None,
    subject: str = "learned",
    control: str | None = None,
    n: int = N,
) -> Probed:
    labels = np.arange(n) % 4
    result = ProbeResult(
        layer, ("a", "b", "c", "d"), 0.1, 0.0, "given", validation, 0.9, labels, labels
    )
    row = accuracy(
        "linear probe", hits, n, task="probe", subject=subject, control=control, dataset="toy",
        split="s", layer=layer, chance=25.0, protocol={"clips": 1},
    )  # fmt: skip
    return result, row


def test_the_layer_is_chosen_on_training_videos_held_out() -> None:
    found = [
        probed("conv1", 190, 0.3), probed("conv2", 120, 0.6), probed("conv3", 180, 0.5),
        probed("conv1", 60, 0.4, "random weights"), probed("conv2", 55, 0.2, "random weights"),
    ]  # fmt: skip
    first, chance = of_probe(found)
    assert first.text.startswith("linear probe of conv2 (random weights: conv1, each its best on ")
    assert (first.verdict, chance.verdict) == ("good", "good")


def test_where_none_could_be_held_out_the_deepest_is_taken_and_that_is_said() -> None:
    found = [
        probed("conv1", 190, None), probed("conv2", 120, None),
        probed("conv1", 60, None, "random weights"), probed("conv2", 55, None, "random weights"),
    ]  # fmt: skip
    first = of_probe(found)[0]
    assert first.text.startswith("linear probe of conv2 (random weights: conv2, the deepest one)")


@pytest.mark.parametrize(
    ("moving", "still", "n", "said"),
    [
        (150, 50, N, "what is told is told by motion"),
        (150, 100, N, "above chance, appearance helps"),
        (52, 50, N, "not told apart from moving videos"),
        (4, 2, 8, "not told apart from moving videos"),
    ],
)
def test_still_videos_prove_motion_only_beside_what_moves(
    moving: int, still: int, n: int, said: str
) -> None:
    found = [probed("conv2", moving, 0.6, n=n), probed("conv2", still, 0.3, control="still", n=n)]
    last = of_probe(found)[-1]
    assert said in last.text
    assert last.verdict == "note"


@pytest.mark.parametrize(("split", "shared"), [(1, 0), (2, 49)])
def test_clips_of_one_recording_on_both_sides_are_told_of(
    data_dir: Path, split: int, shared: int
) -> None:
    data = VideoData(source=str(data_dir / "actions"), split=split)
    train, test = (open_source(data, part, labels=True, workers=1) for part in ("train", "test"))
    told = [finding.text for finding in shared_recordings(train, test)]
    assert len(told) == (shared > 0)
    assert all(text.startswith(f"{shared} of {len(test)} test videos were cut") for text in told)


def rendered(name: str, seed: int) -> ClipSource | ImageSource:
    own = {name: {"seed": seed}}
    if name == "motion":
        data = VideoData.model_validate({"source": name, **own})
        return open_source(data, "test", labels=True, workers=1)
    images = ImageData.model_validate({"source": name, **own})
    return open_images(images, "test", labels=True, workers=1)


@pytest.mark.parametrize("name", ["scenes", "facelike", "motion"])
def test_no_seed_renders_a_test_part_that_was_trained_on(name: str) -> None:
    before, now = rendered(name, 0), rendered(name, 1)
    assert before.split_rule != now.split_rule
    trained_on = {"data": name, "split": before.split_rule}
    assert seen_before(trained_on, now) == []
    (note,) = seen_before({**trained_on, "split": "CSV column split"}, now)
    assert "may have been seen" in note.text
