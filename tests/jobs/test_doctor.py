"""The doctor: each check by itself, and none that takes the others with it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from selfsup_cli.config.registry import DATASETS
from selfsup_cli.jobs import doctor


def found(checks: object) -> dict[str, doctor.Check]:
    return {check.name: check for check in checks}  # type: ignore[attr-defined]


def test_the_samples_decode_here() -> None:
    told = found(doctor._video())
    assert set(told) >= {"h264", "mpeg4", "vp9", "hevc", "av1"}
    assert {check.state for check in told.values()} == {"ok"}


def test_a_codec_that_does_not_decode(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good = (doctor.SAMPLES / "vp9.webm").read_bytes()
    (tmp_path / "vp9.webm").write_bytes(good)
    (tmp_path / "h264.mp4").write_bytes(b"nothing that decodes")
    (tmp_path / "av1.mkv").write_bytes(good[: len(good) // 2])
    monkeypatch.setattr(doctor, "SAMPLES", tmp_path)
    told = {name: check.state for name, check in found(doctor._video()).items()}
    assert told == {"h264": "broken", "vp9": "ok", "av1": "warning"}


def test_one_check_that_fails_leaves_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise ImportError("libcudart.so is gone")

    for name in ("_versions", "_video", "_storage"):
        monkeypatch.setattr(doctor, name, lambda: iter(()))
    monkeypatch.setattr(doctor, "_devices", fail)
    told = found(doctor.examine())
    assert told["devices"].state == "broken"
    assert "libcudart.so is gone" in told["devices"].found
    assert told["motion"].state == "ok"


def test_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SELFSUP_RUNS", str(tmp_path / "new" / "runs"))
    (tmp_path / "file").touch()
    monkeypatch.setenv("SELFSUP_CACHE", str(tmp_path / "file" / "cache"))
    told = found(doctor._storage())
    assert told["runs"].state == "ok"
    assert "not made yet" in told["runs"].found
    assert told["cache"].state == "broken"
    assert told["cache"].hint == "set SELFSUP_CACHE"
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]

    monkeypatch.setattr(doctor, "LITTLE_DISK", 1 << 70)
    assert found(doctor._storage())["runs"].state == "warning"


def test_data_sets_are_found_or_it_is_said_where_they_should_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ucf101").mkdir()
    monkeypatch.setenv("SELFSUP_DATA", str(tmp_path))
    told = found(doctor._data())
    assert list(told) == list(DATASETS)
    assert told["ucf101"].found == str(tmp_path / "ucf101")
    assert told["hmdb51"].state == "note"
    assert str(tmp_path / "hmdb51") in told["hmdb51"].found


def test_versions_are_held_against_what_is_required(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        doctor.metadata, "requires",
        lambda name: ["numpy>=2", "pydantic>=99", "nowhere-to-be-found>=3", 'x>=1; extra == "dev"'],
    )  # fmt: skip
    told = found(doctor._versions())
    assert told["numpy"].state == "ok"
    assert told["pydantic"].state == "broken"
    assert told["nowhere-to-be-found"].hint == "pip install 'nowhere-to-be-found>=3'"
    assert "x" not in told


def test_a_package_that_cannot_be_imported_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str) -> None:
        raise OSError("undefined symbol: nccl\nand more")

    monkeypatch.setattr(doctor, "import_module", fail)
    told = doctor._imported("torchvision", "0.1")
    assert told.state == "broken"
    assert "undefined symbol: nccl)" in told.found


def test_a_device_that_is_asked_for_and_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SELFSUP_DEVICE", "cuda:97")
    told = found(doctor._devices())
    assert told["SELFSUP_DEVICE"].state == "broken"
    assert told["CPU"].state == "ok"


def test_cuda_devices_are_told_with_their_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    facts = SimpleNamespace(name="NVIDIA X", major=9, minor=0)
    for name, value in (
        ("is_available", True), ("device_count", 1), ("get_device_properties", facts),
        ("mem_get_info", (3 * doctor.GIB, 8 * doctor.GIB)), ("is_bf16_supported", True),
    ):  # fmt: skip
        monkeypatch.setattr(torch.cuda, name, lambda *a, value=value, **k: value)
    monkeypatch.setenv("SELFSUP_DEVICE", "cpu")
    told = found(doctor._devices())
    assert told["cuda:0"].found == (
        "NVIDIA X, 3.0 of 8.0 GiB free, capability 9.0, with bf16 arithmetic"
    )
    assert "CUDA" not in told


def test_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SELFSUP_RUNS", "here")
    monkeypatch.setenv("SELFSUP_RUSN", "there")
    told = found(doctor._environment())
    assert told["SELFSUP_RUNS"].found == "here"
    assert "did you mean 'SELFSUP_RUNS'" in told["unknown"].found
