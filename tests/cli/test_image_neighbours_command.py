"""`selfsup retrieve` on images and `selfsup probe-tiles`, as they are typed."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

from selfsup_cli.models import build, save_backbone

Run = Callable[..., "subprocess.CompletedProcess[str]"]
QUICK = ("--device", "cpu", "--workers", "0", "--json", "-q")


def weights(folder: Path, seed: int) -> str:
    path = folder / f"network{seed}.safetensors"
    network = build("alexnet", width=0.125, crop=32, resize=(40, 40), seed=seed)
    save_backbone(path, network, {"method": "supervised"} if seed else {})
    return str(path)


def test_neighbours_of_a_folder_of_photographs(
    process: Run, tmp_path: Path, data_dir: Path
) -> None:
    done = process(
        "retrieve", "--data", str(data_dir / "cifar10-folder"), "--from", weights(tmp_path, 0),
        "--against", weights(tmp_path, 1), "--run", "near", "--crops", "center",
        "--set", "neighbours.ks=[1,5]", *QUICK,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)["report"]
    assert report["job"] == "retrieve-images"
    subjects = {row["subject"] for row in report["measurements"]}
    assert subjects == {"learned", "supervised", "random weights"}
    assert {row["n"] for row in report["measurements"]} == {200}


def test_real_or_shuffled(process: Run, tmp_path: Path) -> None:
    done = process(
        "probe-tiles", "--data", "scenes", "--from", weights(tmp_path, 0), "--layer", "conv2",
        "--epochs", "2", "--images", "40", "--test-images", "20", "--run", "tiles",
        "--set", "data.scenes.side=40", "--set", "data.scenes.images=40",
        "--set", "data.scenes.test_images=20", "--set", "probe.lrs=[0.03]", *QUICK,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)["report"]
    assert report["job"] == "probe-tiles"
    assert [row["subject"] for row in report["measurements"]] == [
        "learned", "random weights", "seams alone",
    ]  # fmt: skip
    assert {row["n"] for row in report["measurements"]} == {20}
