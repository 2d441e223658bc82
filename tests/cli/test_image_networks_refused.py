"""Commands that take videos refuse networks of images, in a sentence that says which is which."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Said

from selfsup_cli.cli.complete import names
from selfsup_cli.config.registry import ARCHS, archs, unfit_arch
from selfsup_cli.jobs.subject import other_kind
from selfsup_cli.models import build, save_backbone


@pytest.fixture
def weights(tmp_path: Path) -> str:
    path = tmp_path / "pictures.safetensors"
    save_backbone(path, build("alexnet", width=0.125, crop=32, seed=0), {"data": "scenes"})
    return str(path)


@pytest.mark.parametrize("arch", ["alexnet", "resnet34", "timm/convnext_tiny"])
def test_pretraining_on_videos_takes_only_networks_of_videos(
    arch: str, selfsup: Callable[..., Said]
) -> None:
    said = selfsup("pretrain", "temporal", "--data", "motion", "--arch", arch)
    assert said.status == 2
    message = f"{arch} takes images, not videos; networks for videos are c3d, r3d, r2plus1d, "
    assert message in said.err
    assert "alexnet," not in said.err


@pytest.mark.parametrize("command", [
    ["probe", "--data", "motion", "--from"],
    ["retrieve", "--data", "motion", "--from"],
    ["transfer", "action", "--data", "motion", "--init"],
    ["visualize", "guided-backprop", "--data", "motion", "--out", "picture.png", "--from"],
    ["export", "embeddings", "--data", "motion", "--out", "table.h5", "--from"],
], ids=lambda command: " ".join(command[:2]))  # fmt: skip
def test_weights_of_an_image_network_are_refused(
    command: list[str], weights: str, selfsup: Callable[..., Said], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    said = selfsup(*command, weights)
    assert said.status == 2, said.err
    assert "pictures holds alexnet, which takes images, not videos" in said.err


def test_the_real_command_says_so_without_a_traceback(
    process: Callable[..., subprocess.CompletedProcess[str]], weights: str
) -> None:
    done = process("probe", "--data", "motion", "--from", weights)
    assert done.returncode == 2
    assert done.stdout == ""
    assert "takes images, not videos" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(("arch", "kind", "fits"), [
    ("c3d", "video", True), ("c3d", "image", False), ("alexnet", "image", True),
    ("timm/vit_tiny_patch16_224", "image", True), ("timm/vit_tiny_patch16_224", "video", False),
    ("nothing", "video", False), (None, "video", False),
])  # fmt: skip
def test_runs_with_another_kind_of_network_are_passed_over(
    arch: str | None, kind: str, fits: bool
) -> None:
    reason = other_kind(arch, kind)  # type: ignore[arg-type]
    assert reason == (None if fits else f"its network {arch} does not take {kind}s")


@pytest.mark.parametrize(("arch", "said"), [
    ("alexnet", None), ("timm/convnext_tiny", None),
    ("r3d", "r3d takes videos, not images; networks for images are alexnet, alexnet_lrn, resnet18, "
            "resnet34, resnet50, cifarnet, inception_small, preact_resnet18, dcgan, sngan and any "
            "of timm's as timm/NAME"),
    ("alexnett", "unknown network 'alexnett' (did you mean 'alexnet'?); known are alexnet, "),
    ("timm/a:b", "unknown network 'timm/a:b'; known are "),
    ("timm/", "unknown network 'timm/'"),
])  # fmt: skip
def test_what_is_wrong_with_a_network_of_images_is_one_sentence(
    arch: str, said: str | None
) -> None:
    found = unfit_arch(arch, "image")
    assert found is None if said is None else str(found).startswith(said)


def test_each_network_is_offered_where_it_fits() -> None:
    assert [*archs("video"), *archs("image")] == list(ARCHS)
    assert names("archs") == archs("video")
    assert names("image-archs") == [*archs("image"), "timm/"]
