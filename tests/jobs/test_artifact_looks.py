"""What is looked at of a run of chapter 3: damage side by side, where it is found, other images."""

from __future__ import annotations

import csv
from itertools import pairwise
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from PIL import Image
from pretraining import preset

from selfsup_cli.config.presets import resolve
from selfsup_cli.errors import InputError
from selfsup_cli.jobs import predict_artifacts, sample_artifacts, visualize_gradcam
from selfsup_cli.jobs.common import Outcome
from selfsup_cli.jobs.damager import load_damager, suspected
from selfsup_cli.jobs.pretrain import pretrain
from selfsup_cli.jobs.sample_artifacts import cells
from selfsup_cli.runs.run import Run
from selfsup_cli.transforms.images import to_unit
from selfsup_cli.visualization import curves

SMALL = ("machine.workers=0", "machine.device=cpu")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run that has learned next to nothing, and one that does not locate."""
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SELFSUP_RUNS", str(folder))
        patch.setenv("SELFSUP_CACHE", str(folder / "cache"))
        # Neither curves nor sheets of the training are looked at here, and they take seconds.
        patch.setattr(curves, "draw", lambda path, *_, **__: Image.new("RGB", (2, 2)).save(path))
        quick = ("monitor.every_epochs=0", "monitor.knn_images=0", "train.max_steps=6")
        pretrain(preset(0, *quick, method="artifacts"), run="mine", quiet=True)
        pretrain(preset(0, *quick, "locate=false", method="artifacts"), run="blind", quiet=True)
    return folder


@pytest.fixture(autouse=True)
def runs(finished: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SELFSUP_RUNS", str(finished))
    return finished


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name, size in (("a.png", (40, 70, 3)), ("b.png", (200, 90, 3)), ("c.png", (20, 20, 3))):
        Image.fromarray(rng.integers(0, 256, size, dtype=np.uint8)).save(folder / name)
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n")
    return folder


def sample(*sets: str, runs: str = "mine", **settings: Any) -> Outcome:
    found = resolve(
        "sample/artifacts",
        options={"subject.runs": runs},
        sets=[*SMALL, *sets],
        env={},
    )
    return sample_artifacts.artifacts(found, quiet=True, **settings)


def test_a_sample_shows_images_and_measures_where_damage_is_found() -> None:
    done = sample("shown.count=2", run="sampled")
    assert done.run_dir is not None
    assert done.report is not None
    run = Run.open(done.run_dir)
    assert run.complete
    assert run.problems() == []
    assert [row.metric.split(",")[0] for row in done.report.measurements] == [
        "average precision of damaged cells",
        "IoU of damaged cells",
        "IoU of damaged cells",
    ]
    row = done.report.measurements[0]
    assert (row.n, row.protocol["drop_rate"], row.protocol["cells"]) == (8, 0.7, "2×2 of 16 pixels")
    assert "damaged cells are found" in done.report.findings[0].text
    with Image.open(done.run_dir / "pictures/artifacts.png") as image:
        assert image.width > 7 * 32
    # The same is dropped, however many images go through the networks together.
    again = sample("shown.count=2", "scored.batch_size=3", run="again")
    assert again.report is not None
    for one, other in zip(done.report.measurements, again.report.measurements, strict=True):
        assert other.value == pytest.approx(one.value, abs=1e-3)


def test_the_columns_are_what_the_networks_make(runs: Path) -> None:
    damager = load_damager("mine")
    images = torch.randint(256, (3, 3, 32, 32), dtype=torch.uint8)
    made = damager.drawn(images, 0.5, 0)
    found = dict(cells(damager.method, made))
    assert list(found) == [
        "original", "mask", "autoencoded", "without repair", "repaired", "without gating",
        "suspected",
    ]  # fmt: skip
    assert torch.equal(found["original"], to_unit(images))
    kept = made.kept.repeat_interleave(16, 2).repeat_interleave(16, 3).expand(-1, 3, -1, -1)
    assert torch.equal(found["mask"][kept], found["original"][kept])
    assert not torch.equal(found["without gating"], found["repaired"])
    # Where nothing is dropped nothing is repaired, but for what is not gated.
    whole = damager.drawn(images, 1e-9, 0)
    untouched = dict(cells(damager.method, whole))
    assert bool(whole.kept.all())
    assert torch.allclose(untouched["repaired"], untouched["autoencoded"], atol=1e-5)
    assert not torch.allclose(untouched["without gating"], untouched["autoencoded"], atol=1e-3)


def test_more_is_dropped_at_a_higher_rate() -> None:
    damager = load_damager("mine")
    images = torch.zeros(6, 3, 64, 64, dtype=torch.uint8)
    with pytest.raises(ValueError, match="fully connected"):
        suspected(damager.method, to_unit(images))
    kept = [damager.drawn(images[..., :32, :32], rate, 3).kept for rate in (0.2, 0.5, 0.8)]
    for few, more in pairwise(kept):
        assert bool((~few <= ~more).all())


def test_rates_and_runs_stand_side_by_side(tmp_path: Path, photos: Path) -> None:
    out = tmp_path / "a.png"
    told = sample("damage.drop_rates=[0.2, 0.5, 0.8]", "shown.count=2", "scored.images=4", out=out)
    assert told.data["drop_rates"] == {"mine": [0.2, 0.5, 0.8]}
    assert len(told.data["measurements"]) == 9
    with Image.open(out) as image:
        one = image.size
    told = sample(
        f"data.source={photos}", "data.max_bad=1.0", "shown.count=2", "scored.images=4",
        runs="mine,blind", out=out,
    )  # fmt: skip
    assert set(told.data["drop_rates"]) == {"mine", "blind"}
    # All of a folder is shown, though nothing of it is a test part.
    assert set(told.data["images"]) <= {"a.png", "b.png", "c.png"}
    assert {row["subject"] for row in told.data["measurements"]} == {"mine"}
    assert any("blind was trained without" in one for one in told.data["findings"])
    with Image.open(out) as image:
        assert image.size[0] < one[0]
    with pytest.raises(InputError, match="either several runs"):
        sample("damage.drop_rates=[0.2, 0.5]", runs="mine,blind", out=out)


def test_evidence_of_real_and_of_damaged_images_has_its_border(tmp_path: Path) -> None:
    found = resolve(
        "visualize/gradcam", options={"subject.run": "mine"}, sets=[*SMALL, "shown.count=2"], env={}
    )
    told = visualize_gradcam.gradcam(found, out=tmp_path / "a.png", quiet=True)
    looks = told.data["looks"]
    assert [look["kind"] for look in looks] == ["real", "corrupt"] * 2
    with Image.open(tmp_path / "a.png") as image:
        colours = {colour for _, colour in image.convert("RGB").getcolors(1 << 20)}  # type: ignore[union-attr]
    assert {(0x12, 0x80, 0x5C), (0xC4, 0x50, 0x2A)} <= colours


# Other images


def test_a_folder_is_looked_at(photos: Path, tmp_path: Path) -> None:
    out, maps = tmp_path / "a.csv", tmp_path / "m.npz"
    done = predict_artifacts.artifacts(
        str(photos), "mine", out=out, pictures=tmp_path / "p", maps=maps, device="cpu", workers=0,
        quiet=True,
    )  # fmt: skip
    rows = {row["id"]: row for row in csv.DictReader(out.open())}
    assert sorted(rows) == ["a.png", "b.png", "broken.png", "c.png"]
    assert rows["broken.png"]["problem"]
    assert rows["broken.png"]["score"] == ""
    for name in ("a.png", "b.png", "c.png"):
        assert 0 <= float(rows[name]["score"]) <= 1
        assert 0 <= float(rows[name]["area"]) <= 1
    assert 0 <= int(rows["b.png"]["top"]) < 200
    assert 0 <= int(rows["b.png"]["left"]) < 90
    assert sorted(path.name for path in (tmp_path / "p").iterdir()) == [
        "a.png.png", "b.png.png", "c.png.png",
    ]  # fmt: skip
    with np.load(maps, allow_pickle=False) as file:
        assert file["ids"].tolist() == ["a.png", "b.png", "c.png"]
        shorter = load_damager("mine").shorter
        assert file["map_000001"].shape == (200 * shorter // 90, shorter)
    assert done.data["images"] == 3
    with pytest.raises(InputError, match="exists; --force replaces it"):
        predict_artifacts.artifacts(str(photos), "mine", out=out, quiet=True)
    one = predict_artifacts.artifacts(
        str(photos / "a.png"), "mine", out=out, maps=tmp_path / "m.h5", device="cpu", workers=0,
        force=True, quiet=True,
    )  # fmt: skip
    assert one.data["suspicions"][0]["score"] == done.data["suspicions"][0]["score"]
    with h5py.File(tmp_path / "m.h5") as file:
        assert file["ids"][0] == b"a.png"


def test_squares_cover_an_image_and_what_they_say_is_averaged() -> None:
    damager = load_damager("mine")
    method = damager.method
    assert predict_artifacts.starts(32, 32) == [0]
    for length in (33, 40, 48, 64, 91):
        found = predict_artifacts.starts(length, 32)
        assert (found[0], found[-1]) == (0, length - 32)
        assert max(b - a for a, b in pairwise(found)) <= 17
    image = torch.randint(256, (3, 32, 40), dtype=torch.uint8)
    told = predict_artifacts.look(method, image, (64, 80), replicate=False)
    total, count = np.zeros((32, 40)), np.zeros((32, 40))
    shares = []
    for x in (0, 8):
        with torch.no_grad():
            square = to_unit(image[None, :, :, x : x + 32])
            verdicts = method.plain(square)
        cell = torch.sigmoid(-verdicts.masks)[0, 0].numpy()
        total[:, x : x + 32] += np.kron(cell, np.ones((16, 16)))
        count[:, x : x + 32] += 1
        shares.append(float(verdicts.classes.softmax(1)[0, 0]))
    assert predict_artifacts.starts(40, 32) == [0, 8]
    assert np.allclose(told.likely, total / count, atol=1e-5)
    assert told.score == pytest.approx(np.mean(shares), abs=1e-5)
    other = predict_artifacts.look(method, image, (64, 80), replicate=True)
    assert not np.allclose(other.likely, told.likely)


def test_what_looks_worst_is_pointed_at_in_its_middle() -> None:
    likely = np.zeros((64, 96), np.float32)
    likely[16:32, 48:64] = 0.7
    found = predict_artifacts.Suspected(0.5, likely, (128, 192))
    assert found.worst == (2 * 24 + 1, 2 * 56 + 1)
    likely[0:16, 0:16] = 0.8
    assert predict_artifacts.Suspected(0.5, likely, (64, 96)).worst == (8, 8)


@pytest.mark.parametrize(
    ("subject", "settings", "said"),
    [
        ("blind", {}, "without saying where the damage is"),
        ("mine", {"threshold": 1.5}, "--threshold 1.5 is not between 0 and 1"),
        ("mine", {"out": Path("a.txt")}, "--out a.txt: give it a name that ends in .csv"),
        ("mine", {"maps": Path("a.npy")}, "--maps a.npy: give it a name that ends in .npz or .h5"),
        ("none", {}, "there is no run 'none'"),
    ],
)
def test_mistakes_of_predictions(
    subject: str, settings: dict[str, Any], said: str, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(photos.parent)
    with pytest.raises(InputError, match=said):
        predict_artifacts.artifacts(str(photos), subject, quiet=True, **settings)


def test_runs_of_an_experiment_are_told_apart_by_what_differs_in_their_names() -> None:
    from selfsup_cli.jobs.sample_artifacts import _heads

    names = [f"table-3.1.smoke.{row}.pretrain" for row in ("theta-0.1", "theta-0.3", "local")]
    assert _heads(names) == ["theta-0.1.pretrain", "theta-0.3.pretrain", "local.pretrain"]
    assert _heads(["a", "a.b"]) == ["a", "a.b"]
