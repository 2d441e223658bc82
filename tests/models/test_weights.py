from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from selfsup_cli.config.registry import archs
from selfsup_cli.errors import InputError, MachineError
from selfsup_cli.models import Backbone, build, load_backbone, save_backbone, sidecar_path
from selfsup_cli.runs.atomic import file_sha256
from selfsup_cli.runs.seal import sealed

TRAINED_ON = {"dataset": "motion", "steps": 12}


def tiny(arch: str = "c3d", seed: int = 0) -> Backbone:
    width = {} if "_18" in arch else {"width": 0.0625}
    return build(arch, frames=8, crop=16, resize=(20, 24), seed=seed, **width)  # type: ignore[arg-type]


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "backbone.safetensors"
    save_backbone(path, tiny(), TRAINED_ON)
    return path


def edit(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    place = sidecar_path(path)
    content = json.loads(place.read_text())
    del content["check"]
    change(content)
    place.write_text(json.dumps(sealed(content)))


def resave(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    """Other tensors under a sidecar whose size and hash agree with them."""
    safetensors.torch.save_file(tensors, path)
    weights = {"sha256": file_sha256(path), "bytes": path.stat().st_size}
    edit(path, lambda content: content.update(weights=weights))


@pytest.mark.parametrize("arch", archs("video"))
def test_what_is_saved_comes_back(arch: str, tmp_path: Path) -> None:
    backbone = tiny(arch)
    x = torch.rand(2, 3, 8, 16, 16)
    backbone(x)  # moves the running statistics
    path = tmp_path / "weights" / "backbone.safetensors"
    path.parent.mkdir()
    sha256 = save_backbone(path, backbone, TRAINED_ON)
    assert sha256 == file_sha256(path)
    state = torch.random.get_rng_state()
    again = load_backbone(path)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert type(again) is type(backbone)
    assert again.spec == backbone.spec
    assert again.input == backbone.input
    assert again.trained_on == TRAINED_ON
    expected = backbone.state_dict()
    assert list(again.state_dict()) == list(expected)
    for name, value in again.state_dict().items():
        assert torch.equal(value, expected[name]), name
    assert all(p.requires_grad and p.device.type == "cpu" for p in again.parameters())
    with torch.no_grad():
        assert torch.equal(again.eval()(x), backbone.eval()(x))


# As it was written before there were networks of images.
OLD_SIDECAR = {
    "format": "selfsup.backbone/1",
    "spec": {
        "arch": "c3d", "width": 0.0625, "shortcut": "standard", "frames": 8, "crop": 16,
        "resize": [20, 24],
    },
    "layers": ["conv1", "conv2", "conv3", "conv4", "conv5", "fc1", "fc2"],
    "embedding": "conv5",
    "out_features": 128,
    "input": {
        "frames": 8, "crop": 16, "resize": [20, 24], "mean": [0.5, 0.5, 0.5],
        "std": [0.5, 0.5, 0.5],
    },
    "trained_on": TRAINED_ON,
}  # fmt: skip


def test_a_backbone_saved_before_there_were_images_loads(saved: Path) -> None:
    weights = {"sha256": file_sha256(saved), "bytes": saved.stat().st_size}
    sidecar_path(saved).write_text(json.dumps(sealed({**OLD_SIDECAR, "weights": weights})))
    again = load_backbone(saved)
    assert again.spec == OLD_SIDECAR["spec"] == tiny().spec
    assert again.trained_on == TRAINED_ON
    assert (again.input.kind, again.input.shape) == ("video", (3, 8, 16, 16))
    for name, value in tiny().state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name


def test_equal_weights_make_equal_files_and_nothing_else(tmp_path: Path) -> None:
    first = save_backbone(tmp_path / "a.safetensors", tiny(seed=1), {})
    backbone = tiny(seed=1).to(memory_format=torch.channels_last_3d)
    assert save_backbone(tmp_path / "b.safetensors", backbone, {}) == first
    assert save_backbone(tmp_path / "c.safetensors", tiny(seed=2), {}) != first
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(
        f"{name}.safetensors{end}" for name in "abc" for end in ("", ".json")
    )


def test_the_sidecar_says_what_the_network_is(saved: Path) -> None:
    content = json.loads(sidecar_path(saved).read_text())
    assert content["spec"]["arch"] == "c3d"
    assert content["layers"] == ["conv1", "conv2", "conv3", "conv4", "conv5", "fc1", "fc2"]
    assert content["input"]["crop"] == 16
    assert content["trained_on"] == TRAINED_ON
    assert content["weights"]["sha256"] == file_sha256(saved)


def test_weights_on_disk_are_plain_safetensors(saved: Path) -> None:
    tensors = safetensors.torch.load_file(saved)
    for name, value in tiny().state_dict().items():
        assert torch.equal(tensors[name], value)


@pytest.mark.parametrize("keep", [0, 5, 100, -1])
def test_a_truncated_file_is_refused(saved: Path, keep: int) -> None:
    data = saved.read_bytes()
    saved.write_bytes(data[:keep])
    with pytest.raises(
        InputError, match=r"backbone\.safetensors is truncated: [\d,]+ of [\d,]+ bytes"
    ):
        load_backbone(saved)


def test_a_longer_file_is_refused(saved: Path) -> None:
    saved.write_bytes(saved.read_bytes() + b"x")
    with pytest.raises(InputError, match="not the file it was"):
        load_backbone(saved)


@pytest.mark.parametrize("where", [3, 40, -5])
def test_a_flipped_bit_is_refused(saved: Path, where: int) -> None:
    data = bytearray(saved.read_bytes())
    data[where] ^= 1
    saved.write_bytes(data)
    with pytest.raises(InputError, match="damaged: it does not have the SHA-256"):
        load_backbone(saved)


class _Marker:
    """Pickled, it would create a file when opened."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (str(self.path),))


@pytest.mark.parametrize("name", ["model.pt", "model.pth", "model.safetensors"])
@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_is_refused_and_not_opened(tmp_path: Path, name: str, zipped: bool) -> None:
    trap = tmp_path / "trap"
    path = tmp_path / name
    torch.save({"w": _Marker(trap)}, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(InputError, match=r"is a pickle, which could run any code"):
        load_backbone(path)
    assert not trap.exists()


def test_a_foreign_file_is_refused(tmp_path: Path) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("these are not weights at all")
    empty = tmp_path / "empty.safetensors"
    empty.touch()
    for path in (text, empty):
        with pytest.raises(InputError, match="is not a safetensors file"):
            load_backbone(path)
    foreign = tmp_path / "foreign.safetensors"
    safetensors.torch.save_file({"w": torch.zeros(3)}, foreign)
    with pytest.raises(InputError, match=r"lacks its sidecar foreign\.safetensors\.json"):
        load_backbone(foreign)


def test_a_missing_file_or_a_folder_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "none.safetensors", tmp_path, sidecar_path(tmp_path / "x") / "y"):
        with pytest.raises(InputError, match="there are no weights at"):
            load_backbone(path)


def test_a_file_that_may_not_be_read_is_the_machines_fault(
    saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Path, mode: str) -> None:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(
        MachineError, match=r"cannot read .*backbone\.safetensors: Permission denied"
    ):
        load_backbone(saved)


def test_missing_and_unexpected_tensors_are_named(saved: Path) -> None:
    tensors = safetensors.torch.load_file(saved)
    del tensors["conv2.norm.bias"]
    tensors["conv9.conv.weight"] = torch.zeros(2)
    tensors["conv1.conv.weight"] = tensors["conv1.conv.weight"][:, :2].contiguous()
    tensors["fc2.norm.weight"] = tensors["fc2.norm.weight"].double()
    tensors["fc1.norm.weight"][0] = torch.nan
    resave(saved, tensors)
    with pytest.raises(InputError) as caught:
        load_backbone(saved)
    assert str(caught.value).endswith(
        "does not hold the weights of c3d; missing: conv2.norm.bias; "
        "unexpected: conv9.conv.weight; "
        "of another shape or type: conv1.conv.weight, fc2.norm.weight; "
        "not finite: fc1.norm.weight"
    )


def test_weights_of_another_architecture_are_refused(saved: Path) -> None:
    resave(saved, tiny("r3d").state_dict())
    with pytest.raises(
        InputError, match=r"weights of c3d; missing: conv1\.\S+, .* and \d+ more; un"
    ):
        load_backbone(saved)
    edit(saved, lambda content: content["spec"].update(arch="r3d", crop=112))
    assert load_backbone(saved).arch == "r3d"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["spec"].update(arch="c4d"), "unknown arch 'c4d' .did you mean 'c3d'"),
        (lambda c: c["spec"].update(shortcut="projected"), "c3d has only its standard shortcuts"),
        (lambda c: c["spec"].update(width=1e9), "spec.width: "),
        (lambda c: c["spec"].update(depth=3), "spec.depth: "),
        (lambda c: c.pop("weights"), "weights: Field required"),
        (lambda c: c.update(format="other/1"), "format: "),
        (lambda c: c["weights"].update(sha256="0"), "weights.sha256: "),
        (lambda c: c["spec"].update(width=0.125), "of another shape or type: conv2"),
    ],
)
def test_a_sidecar_that_does_not_fit_is_refused(
    saved: Path, change: Callable[[dict[str, Any]], None], message: str
) -> None:
    edit(saved, change)
    with pytest.raises(InputError, match=message):
        load_backbone(saved)


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff\xfe", b"[" * 100_000])
def test_a_sidecar_that_is_no_description_is_refused(saved: Path, content: bytes) -> None:
    sidecar_path(saved).write_bytes(content)
    with pytest.raises(InputError, match="does not describe a network of selfsup"):
        load_backbone(saved)


def test_bytes_that_are_no_safetensors_under_a_fitting_sidecar(saved: Path) -> None:
    for data in (b"\x00" * 64, (2**40).to_bytes(8, "little") + b"{}", b"short"):
        saved.write_bytes(data)
        weights = {"sha256": file_sha256(saved), "bytes": len(data)}
        edit(saved, lambda content, weights=weights: content.update(weights=weights))  # type: ignore[misc]
        with pytest.raises(InputError, match="is not a safetensors file"):
            load_backbone(saved)


def test_a_failed_save_leaves_the_old_weights(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = saved.read_bytes()

    def full(fd: int, data: Any) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with pytest.raises(MachineError, match="No space left"):
            save_backbone(saved, tiny(seed=5), {})
    assert saved.read_bytes() == before
    assert load_backbone(saved).trained_on == TRAINED_ON
