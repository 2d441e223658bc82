"""One flipped bit in every kind of file: noticed, said aloud, and answered."""

from __future__ import annotations

import json
import os
import random
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import harness
import pytest
from harness import Server

from selfsup_cli.config.blocks import VideoData
from selfsup_cli.data.clips import open_source
from selfsup_cli.engine.checkpoints import Checkpoints
from selfsup_cli.errors import InputError
from selfsup_cli.models import load_backbone
from selfsup_cli.runs.run import Run

# Every kind of file of a complete run whose content the manifest vouches for.
LISTED = {
    "state of a checkpoint": "checkpoints/step-*/state.pt",
    "manifest of a checkpoint": "checkpoints/step-*/manifest.json",
    "backbone": "backbone.safetensors",
    "sidecar": "backbone.safetensors.json",
    "run.json": "run.json",
    "preset": "preset.yaml",
    "metrics": "metrics.jsonl",
    "report": "report.json",
    "html": "report.html",
    "markdown": "report.md",
    "picture": "pictures/*.png",
    "status": "status.json",
    "manifest": "manifest.json",
}


def bits(what: str, count: int = harness.KILLS) -> list[float]:
    """Where bits are flipped, as shares of the file."""
    draw = random.Random(f"{harness.SEED} {what}")
    return [draw.random() for _ in range(count)]


@pytest.mark.parametrize("kind", LISTED)
def test_verify_notices_a_flipped_bit_of_a_complete_run(
    server: Server, undisturbed: Path, copied: Path, kind: str
) -> None:
    run = copied / "whole"
    path = sorted(run.glob(LISTED[kind]))[-1]
    whole = path.read_bytes()
    for where in bits(kind):
        harness.flip(path, where)
        same = kind in ("status", "manifest") and _same_json(path, whole)
        found = server(["runs", "verify", "whole"], copied)
        assert (found.status == 2) is not same, f"bit at {where}\n{found.said}"
        if not same:
            assert path.name in found.said, found.said
            assert len(found.errors()) >= 1
            assert "Traceback" not in found.said
        path.write_bytes(whole)
    sound = server(["runs", "verify"], copied)
    assert sound.status == 0, sound.said


def _same_json(path: Path, whole: bytes) -> bool:
    """Some bits of a document mean nothing: spaces, and the case of an escape."""
    try:
        return bool(json.loads(path.read_bytes()) == json.loads(whole))
    except ValueError:
        return False


@pytest.mark.parametrize("file", ["state.pt", "manifest.json"])
def test_a_damaged_checkpoint_is_answered_by_the_one_before(
    server: Server, undisturbed: Path, tmp_path: Path, file: str
) -> None:
    stopped = server(
        harness.pretrain("whole"), tmp_path, harness.striking([harness.STEP], 4, "signal:SIGUSR2")
    )
    assert stopped.status == 75, stopped.said
    checkpoints = Checkpoints(tmp_path / "whole" / "checkpoints")
    assert checkpoints.steps() == [3, 4]
    harness.flip(checkpoints.path(4) / file, 0.6)
    damaged = server(["runs", "verify", "whole"], tmp_path)
    assert damaged.status == 2
    assert "step-00000004" in damaged.said
    again = server(harness.pretrain("whole"), tmp_path)
    assert again.status == 0, again.said
    assert "checkpoint 4 is damaged" in again.said
    assert "going on from step 3" in (tmp_path / "whole" / "log.txt").read_text()
    assert harness.content(tmp_path / "whole") == harness.content(undisturbed / "whole")
    assert Run.open(tmp_path / "whole").problems() == []


def test_checksums_that_nobody_looks_at_are_noticed(
    server: Server, undisturbed: Path, tmp_path: Path
) -> None:
    """Negative control: the same damage, believed, changes the result or ends the run."""
    server(
        harness.pretrain("whole"), tmp_path, harness.striking([harness.STEP], 4, "signal:SIGUSR2")
    )
    path = tmp_path / "whole/checkpoints/step-00000004/state.pt"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 64
    path.write_bytes(data)
    again = server(harness.pretrain("whole"), tmp_path, broken=["believing"])
    same = harness.content(tmp_path / "whole") == harness.content(undisturbed / "whole")
    assert again.status != 0 or not same


def test_damaged_weights_are_never_loaded(copied: Path) -> None:
    for name in ("backbone.safetensors", "backbone.safetensors.json"):
        path = copied / "whole" / name
        whole = path.read_bytes()
        for where in bits(name, 20):
            harness.flip(path, where)
            if name.endswith(".json") and _same_json(path, whole):
                continue
            with pytest.raises(InputError, match="backbone"):
                load_backbone(copied / "whole" / "backbone.safetensors")
            path.write_bytes(whole)


def _shard(runs: Path) -> Path:
    return sorted((runs / ".cache").rglob("shard-*.h5"))[0]


def _feature_index(runs: Path) -> Path:
    return sorted((runs / ".cache" / "features").rglob("index.json"))[0]


@pytest.mark.parametrize("find", [_shard, _feature_index])
def test_damaged_features_are_made_again(
    server: Server, copied: Path, find: Callable[[Path], Path]
) -> None:
    first = server(harness.probe("one", "whole"), copied)
    assert first.status == 0, first.said
    expected = harness.shards(copied)
    path = find(copied)
    harness.flip(path, 0.45)
    again = server(harness.probe("two", "whole"), copied)
    assert again.status == 0, again.said
    assert "made again" in again.said
    assert str(path.parent) in again.said
    assert harness.shards(copied) == expected
    found = [harness.content(copied / name)["report"]["measurements"] for name in ("one", "two")]
    assert found[0] == found[1]


def test_features_that_nobody_checks_are_noticed(server: Server, copied: Path) -> None:
    """Negative control: the same damage, believed, changes the result or ends the job."""
    first = server(harness.probe("one", "whole"), copied)
    assert first.status == 0, first.said
    expected = harness.shards(copied)
    harness.flip(_shard(copied), 0.45)
    again = server(harness.probe("two", "whole"), copied, broken=["believing"])
    assert again.status != 0 or harness.shards(copied) != expected


def test_a_damaged_frame_index_is_built_anew(
    data_dir: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What is known of the videos never rests on what a damaged index says."""
    videos = [path for path in sorted((data_dir / "actions").rglob("*.*")) if path.is_file()]
    for video in [path for path in videos if path.suffix in (".mp4", ".avi", ".mkv")][:4]:
        target = tmp_path / "videos" / video.parent.name / video.name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(video, target)
    data = VideoData(source=str(tmp_path / "videos"))

    def known() -> str:
        return open_source(data, "all", labels=False, workers=0).fingerprint

    expected = known()
    index = sorted(Path(os.environ["SELFSUP_CACHE"]).rglob("*.sqlite"))[0]
    whole = index.read_bytes()
    draw = random.Random(f"{harness.SEED} index")
    for _ in range(max(harness.KILLS, 3)):
        index.write_bytes(whole)
        for _ in range(64):
            harness.flip(index, draw.random())
        assert known() == expected
    assert "frame index" in caplog.text
    with sqlite3.connect(index) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
