"""The job, on built-in and real images: what it finds, says and keeps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from selfsup_cli.config.presets import resolve
from selfsup_cli.errors import InputError, Stopped
from selfsup_cli.evaluation import image_retrieval
from selfsup_cli.jobs import image_search
from selfsup_cli.jobs.common import Outcome
from selfsup_cli.jobs.retrieve_images import curves_of, retrieve_images, said
from selfsup_cli.models import build, save_backbone
from selfsup_cli.runs.report import Measurement, accuracy

SMALL = ["data.scenes.images=24", "data.scenes.test_images=24", "data.scenes.side=40",
         "neighbours.ks=[1, 3]", "neighbours.sheet=2", "machine.workers=0",
         "machine.device=cpu"]  # fmt: skip


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    return saved(tmp_path / "first.safetensors", 1, {"method": "transformations"})


def saved(path: Path, seed: int, trained_on: dict[str, Any]) -> Path:
    network = build("alexnet", width=0.125, crop=32, resize=(40, 40), seed=seed)
    save_backbone(path, network, trained_on)
    return path


def do(weights: Path, *sets: str, source: str = "scenes", **settings: Any) -> Outcome:
    options = {"subject.run": str(weights), "data.source": source}
    chosen = {one.partition("=")[0]: one for one in (*SMALL, *sets)}
    found = resolve("retrieve-images", options=options, sets=[*chosen.values()], env={})
    return retrieve_images(found, quiet=True, **settings)


def test_what_is_reported_is_what_the_features_say(weights: Path, tmp_path: Path) -> None:
    other = saved(tmp_path / "other.safetensors", 2, {"method": "supervised"})
    outcome = do(weights, f'subject.against=["{other}", "{weights}"]', run="first")
    report = outcome.report
    assert report is not None
    assert outcome.run_dir is not None
    subjects = list(dict.fromkeys(row.subject for row in report.measurements))
    assert subjects == ["learned", "supervised", "random weights"]
    assert [row.metric for row in report.measurements[:3]] == [
        "1-NN accuracy", "3-NN accuracy", "precision at 3",
    ]  # fmt: skip
    assert {row.layer for row in report.measurements} == {"conv5"}
    assert {row.n for row in report.measurements} == {24}
    first = report.measurements[0]
    assert "leave-one-out" in str(first.protocol["neighbours_among"])
    assert "five crops" in str(first.protocol["crops"])
    hashes = {row.protocol["weights"] for row in report.measurements}
    assert len(hashes) == 3
    for name in ("neighbours.png", "k.png"):
        assert (outcome.run_dir / "pictures" / name).stat().st_size > 1000
    assert any("supervised" in finding.text for finding in report.findings)
    assert any("random weights" in finding.text for finding in report.findings)
    # The same command again ends at once, with the same report.
    again = do(weights, f'subject.against=["{other}", "{weights}"]', run="first")
    assert again.report == report


def test_the_search_agrees_with_numpy(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, torch.Tensor] = {}
    vectors_of = image_retrieval.vectors_of

    def kept(features: Any, layer: str, images: int) -> torch.Tensor:
        vectors = vectors_of(features, layer, images)
        seen[str(len(seen))] = vectors.clone()
        return vectors

    monkeypatch.setattr(image_search, "vectors_of", kept)
    outcome = do(weights, "subject.baseline=none")
    assert outcome.report is not None
    x = seen["0"].double().numpy()
    assert x.shape == (24, 5 * 32 * 2 * 2)
    labels = np.array([label_of(i) for i in range(24)])
    variance = x.var(0)
    x = (x - x.mean(0)) / np.sqrt(variance + 1e-3 * variance.mean())
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    cosine = x @ x.T
    np.fill_diagonal(cosine, -2)
    expected = 100 * (labels[cosine.argmax(1)] == labels).mean()
    assert outcome.report.measurements[0].value == pytest.approx(expected)


def label_of(i: int) -> int:
    from selfsup_cli.data.scenes import class_of

    return class_of(0, "test", i)


def test_among_training_images_nobody_is_left_out(weights: Path) -> None:
    outcome = do(weights, "neighbours.gallery=train", "neighbours.crops=center", run="train")
    assert outcome.report is not None
    row = outcome.report.measurements[0]
    assert row.protocol["neighbours_among"] == "the training images"
    assert row.protocol["gallery"] == 24
    assert set(outcome.report.data) >= {"train", "test"}


def test_without_labels_there_is_the_picture_alone(weights: Path, data_dir: Path) -> None:
    folder = str(data_dir / "photos-unlabeled")
    outcome = do(weights, "data.test_share=0.03", source=folder)
    assert outcome.report is not None
    assert outcome.report.measurements == []
    assert [picture.file for picture in outcome.report.pictures] == ["pictures/neighbours.png"]
    assert any("no labels" in finding.text for finding in outcome.report.findings)


@pytest.mark.parametrize(("gallery", "has"), [("test", 23), ("train", 24)])
def test_more_neighbours_than_there_are_are_refused_before_any_work(
    weights: Path, monkeypatch: pytest.MonkeyPatch, gallery: str, has: int
) -> None:
    sets = [f"neighbours.gallery={gallery}", "subject.baseline=none", "neighbours.crops=center"]
    monkeypatch.setattr(image_search, "extract", lambda *_, **__: pytest.fail("it extracts"))
    for dry_run in (True, False):
        with pytest.raises(InputError, match=f"ks is {has + 1}, but each of the 24 .* {has} "):
            do(weights, f"neighbours.ks=[50, {has + 1}]", *sets, dry_run=dry_run)


def test_as_many_neighbours_as_there_are_can_be_asked_for(weights: Path) -> None:
    sets = ["subject.baseline=none", "neighbours.crops=center"]
    report = do(weights, "neighbours.ks=[23, 50]", *sets).report
    assert report is not None
    assert [row.metric for row in report.measurements] == ["23-NN accuracy", "precision at 23"]
    assert not any("no labels" in finding.text for finding in report.findings)


def test_several_labels_are_counted_by_what_is_shared(weights: Path) -> None:
    sets = ["data.facelike.test_images=16", "data.facelike.side=40"]
    outcome = do(weights, *sets, source="facelike")
    assert outcome.report is not None
    assert [row.metric for row in outcome.report.measurements[:3]] == [
        "top-1", "top-3", "precision at 3",
    ]  # fmt: skip


def test_a_rehearsal_says_what_would_be_done_and_leaves_nothing(weights: Path) -> None:
    outcome = do(weights, dry_run=True)
    assert outcome.run_dir is None
    assert outcome.data["queries"] == 24
    assert outcome.data["networks"] == ["learned", "random weights"]
    assert "leave-one-out" in outcome.text


def test_what_is_wrong_is_told_before_any_work(weights: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="fc3"):
        do(weights, "neighbours.layer=fc3")
    with pytest.raises(InputError, match="nothing"):
        do(weights, f'subject.against=["{tmp_path}/nothing.safetensors"]')
    clips = tmp_path / "clips.safetensors"
    save_backbone(clips, build("c3d", width=0.125, crop=32, seed=0), {})
    with pytest.raises(InputError, match="images"):
        do(clips)


def test_a_stopped_search_goes_on(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = do(weights, "subject.baseline=none", run="whole").report

    def stopped(*args: Any, **settings: Any) -> None:
        raise Stopped("told to", 15)

    with monkeypatch.context() as patched:
        patched.setattr(image_search, "nearest", stopped)
        with pytest.raises(Stopped):
            do(weights, "subject.baseline=none", run="broken")
    after = do(weights, "subject.baseline=none", run="broken").report
    assert whole is not None
    assert after is not None
    assert after.measurements == whole.measurements


def row(metric: str, subject: str, hits: int) -> Measurement:
    return accuracy(
        "nearest neighbours", hits, 200, task="retrieve", subject=subject, dataset="d", split="s",
        layer="conv5", metric=metric, chance=10.0, protocol={"crops": "five"},
    )  # fmt: skip


def test_findings_are_told_at_ten_neighbours_and_claim_no_more_than_intervals() -> None:
    rows = [row(f"{k}-NN accuracy", who, hits)
            for who, hits in (("learned", 120), ("supervised", 125), ("random weights", 40))
            for k in (1, 8, 50)]  # fmt: skip
    found = said(rows)
    assert all("8-NN accuracy" in one.text for one in found)
    assert [one.verdict for one in found] == ["note", "good", "good"]
    assert "no difference is shown" in found[0].text
    curves = curves_of(rows)
    assert [curve.name for curve in curves] == ["learned", "supervised", "random weights"]
    assert [x for x, _ in curves[0].points] == [1, 8, 50]
    assert said([]) == []
    assert image_retrieval.SAME < 1
