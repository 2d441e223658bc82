"""`selfsup sync` and `selfsup data check` of several cameras, as they are typed."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
from PIL import Image


@pytest.fixture
def videos(data_dir: Path) -> str:
    return str(data_dir / "multiview" / "single_person" / "videos_small")


def test_offsets_by_motion(
    process: Callable[..., CompletedProcess[str]], tmp_path: Path, videos: str
) -> None:
    done = process("sync", videos, "--by", "motion", "--most", "0.5")
    assert done.returncode == 0, done.stderr
    assert "cam02 after cam01" in done.stdout
    assert "cannot be told" in done.stderr
    with (tmp_path / "offsets.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 6
    for row in rows:
        inside = float(row["low_seconds"]) <= float(row["offset_seconds"])
        assert inside
        assert float(row["offset_seconds"]) <= float(row["high_seconds"])
        assert (row["told"] == "yes") == (row["doubt"] == "")
    assert Image.open(tmp_path / "offsets.png").size[0] > 500


def test_what_is_wrong_with_what_was_typed(
    selfsup: Callable[..., Any], tmp_path: Path, videos: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    said = selfsup("sync", videos)
    assert said.status == 2
    assert "there are no runs" in said.err
    said = selfsup("sync", videos, "--by", "motion", "--cameras", "cam01")
    assert said.status == 2
    assert "nothing to align" in said.err
    said = selfsup("sync", str(tmp_path / "nowhere"), "--by", "motion")
    assert said.status == 2
    (tmp_path / "offsets.csv").write_text("mine")
    said = selfsup("sync", videos, "--by", "motion")
    assert said.status == 2
    assert "--force" in said.err
    assert selfsup("sync", videos, "--most", "0").status == 2


def test_data_check_of_several_cameras(
    selfsup: Callable[..., Any], tmp_path: Path, videos: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    said = selfsup("data", "check", videos, "--json", "-q")
    assert said.status == 0
    document = json.loads(said.out)
    found = document.get("data", document)
    assert found["problems"] == []
    (one,) = found["recordings"]
    assert [each["frames"] for each in one["cameras"]] == [100] * 4
    assert all(each["calibrated"] for each in one["cameras"])
    names = {Path(name).name for name in found["pictures"]}
    assert names == {"coverage.png", "subjects.png", "scenes.png", "offsets.png"}
    for name in found["pictures"]:
        Image.open(tmp_path / name).verify()
    said = selfsup("data", "check", videos, "--no-recordings", "-q")
    assert "sound videos" in said.out
    said = selfsup("data", "check", videos, "--no-recordings", "--pictures", "x")
    assert said.status == 2
