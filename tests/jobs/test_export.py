"""What is exported computes what the network computed, for those who have nothing of ours."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torchvision.models import video

from selfsup_cli.config.registry import archs
from selfsup_cli.errors import InputError, MachineError
from selfsup_cli.jobs import export as job
from selfsup_cli.jobs.export import export
from selfsup_cli.models import Backbone, build, load_backbone, save_backbone, sidecar_path
from selfsup_cli.models import export as forms
from selfsup_cli.models.libraries import LIBRARIES
from selfsup_cli.runs.atomic import file_sha256
from selfsup_cli.runs.run import Run, runs_dir

ROOT = Path(__file__).resolve().parents[2]
THESIS = ("c3d", "r3d", "r2plus1d")


def lived(arch: str, crop: int = 32, seed: int = 0) -> Backbone:
    """A network whose batch norms have seen something, in evaluation mode."""
    width = 0.125 if arch in THESIS else 1.0
    network = build(arch, width=width, crop=crop, resize=(crop, crop + 4), seed=seed)
    g = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm3d):
            assert module.running_mean is not None
            assert module.running_var is not None
            for value, (low, high) in {
                module.running_mean: (-0.1, 0.1),
                module.running_var: (0.5, 1.5),
                module.weight.data: (0.5, 1.5),
                module.bias.data: (-0.1, 0.1),
            }.items():
                value.uniform_(low, high, generator=g)
    return network.eval()


def saved(network: Backbone, path: Path) -> str:
    """`network` as a file for `--from`."""
    save_backbone(path, network, {"data": "motion"})
    return str(path)


def finished(network: Backbone, name: str, *, complete: bool = True) -> Path:
    """A run that has the network, in the folder of runs."""
    run = Run.create_or_continue(
        runs_dir(), name, preset="", identity={"network": {"arch": network.arch}},
        command=["selfsup"], job="pretrain/temporal", seed=0, dataset=None, parents=[],
    )  # fmt: skip
    with run:
        save_backbone(run.path / "backbone.safetensors", network, {})
        if complete:
            run.finish(step=1)
    return run.path


def random_clips(network: Backbone, count: int) -> Tensor:
    spec = network.input
    g = torch.Generator().manual_seed(count)
    return torch.rand(count, 3, spec.frames, spec.crop, spec.crop, generator=g) * 2 - 1


def close(found: Any, wanted: Tensor) -> None:
    found = torch.as_tensor(found)
    assert found.shape == wanted.shape
    assert found.dtype == torch.float32
    largest = float(wanted.detach().abs().max())
    assert float((found - wanted).abs().max()) < 2e-5 * largest


@pytest.mark.parametrize("arch", ["c3d", "r2plus1d"])
def test_graphs_compute_what_the_network_computes(arch: str, tmp_path: Path) -> None:
    network = lived(arch, crop=16)
    middle = network.layers[1]
    names = ["forward", middle, "embedding"]
    weights = saved(network, tmp_path / "w.safetensors")
    program = tmp_path / "p.pt2"
    model = tmp_path / "m.onnx"
    for form, path in (("program", program), ("onnx", model)):
        told = export(form, weights, out=path, outputs=names).data
        assert list(told["outputs"]) == names
        assert told["file"]["sha256"] == file_sha256(path)
        compared = told["compared"]["outputs"]
        assert all(one["largest_difference"] < 1e-4 for one in compared.values())
        assert all(one["largest_value"] > 1e-3 for one in compared.values())
    loaded = torch.export.load(program).module()
    session = onnxruntime.InferenceSession(model)
    ends = (*session.get_inputs(), *session.get_outputs())
    assert [one.shape[0] for one in ends] == ["batch"] * 4
    for count in (1, 4):
        clips = random_clips(network, count)
        with torch.no_grad():
            wanted = {
                "forward": network(clips),
                middle: network.features(clips, [middle])[middle],
                "embedding": network.embed(clips),
            }
            found = loaded(clips)
        assert list(found) == names
        for name, one in zip(names, session.run(names, {"clips": clips.numpy()}), strict=True):
            close(found[name], wanted[name])
            close(one, wanted[name])


def test_only_as_much_of_the_network_as_is_asked_for(tmp_path: Path) -> None:
    weights = Path(saved(lived("c3d"), tmp_path / "w.safetensors"))
    part = export("onnx", str(weights), out=tmp_path / "part.onnx", outputs=["conv2"])
    assert part.data["file"]["bytes"] < weights.stat().st_size / 10


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_torchvision_loads_it_strictly(suffix: str, tmp_path: Path) -> None:
    network = lived("mc3_18", crop=16)
    weights = saved(network, tmp_path / "w.safetensors")
    state = torch.random.get_rng_state()
    path = tmp_path / f"tv{suffix}"
    outcome = export("torchvision", weights, out=path)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert "strict=True" in outcome.text
    plain = video.mc3_18(weights=None)
    plain.fc = nn.Identity()
    read = torch.load if suffix == ".pth" else load_file  # noqa: TID251 (as a user would)
    plain.load_state_dict(read(path), strict=True)
    clips = random_clips(network, 2)
    with torch.no_grad():
        close(plain.eval()(clips), network(clips))


@pytest.mark.parametrize("arch", [one for one in archs("video") if one not in THESIS])
def test_what_is_called_torchvisions_is(arch: str) -> None:
    assert LIBRARIES["torchvision"].has(arch)
    assert hasattr(video, arch)


def test_safetensors_are_the_weights_and_load_again(tmp_path: Path) -> None:
    network = lived("r3d")
    weights = saved(network, tmp_path / "w.safetensors")
    out = tmp_path / "copy.safetensors"
    outcome = export("safetensors", weights, out=out)
    assert out.read_bytes() == Path(weights).read_bytes()
    assert outcome.text.endswith(str(out))
    again = load_backbone(out).eval()
    assert again.trained_on == {"data": "motion"}
    clips = random_clips(network, 1)
    assert torch.equal(again(clips), network(clips))


# The comparison


def test_another_network_is_found_out_and_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = saved(lived("r3d_18", crop=16), tmp_path / "w.safetensors")
    other = LIBRARIES["torchvision"]

    def shifted(backbone: Backbone) -> nn.Module:
        network = other.make(backbone)
        network.layer3[0].downsample[0].stride = (2, 2, 1)  # type: ignore[index,union-attr]
        network.layer3[0].conv1[0].stride = (2, 2, 1)  # type: ignore[index,union-attr]
        return network

    changed = replace(other, make=shifted)
    monkeypatch.setitem(LIBRARIES, "torchvision", changed)
    out = tmp_path / "tv.safetensors"
    with pytest.raises(MachineError, match=r"forward differs by up to .*; nothing was written"):
        export("torchvision", weights, out=out)
    assert not out.exists()
    assert not sidecar_path(out).exists()


@pytest.mark.parametrize(
    "spoil", [lambda x: x * 1.01, lambda x: x * float("nan"), lambda x: x[:, 1:]]
)
def test_what_differs_is_an_error(spoil: Any) -> None:
    network = lived("c3d", crop=16)

    def other(clips: Tensor) -> dict[str, Tensor]:
        return {"embedding": spoil(network.embed(clips))}

    with pytest.raises(MachineError, match="embedding differs"):
        forms._compare(network, ["embedding"], other, "x 1.0")


def test_the_largest_difference_of_any_clip_is_stated() -> None:
    network = lived("c3d", crop=16)

    def other(clips: Tensor) -> dict[str, Tensor]:
        out = network.embed(clips)
        out[-1, 3] += 1e-5  # only in the last clip
        return {"embedding": out}

    found = forms._compare(network, ["embedding"], other, "x 1.0")["embedding"]
    assert found.difference == pytest.approx(1e-5, rel=0.01)
    assert found.shape == (32,)


def test_clips_of_the_comparison_fill_the_range_and_differ() -> None:
    clips = forms.comparison_clips(lived("c3d", crop=32).input)
    assert clips.shape == (len(forms.COMPARED_ON["video"]), 3, 16, 32, 32)
    assert (clips.amin((1, 2, 3, 4)) < -0.99).all()
    assert (clips.amax((1, 2, 3, 4)) > 0.99).all()
    moving = (clips[2].diff(dim=1) != 0).any()
    assert moving
    assert (clips[1, 0].diff(dim=0) > 0).all()


def test_unusable_weights_are_named() -> None:
    network = lived("c3d", crop=16)
    with torch.no_grad():
        network.conv5.norm.weight.fill_(3e38)  # type: ignore[union-attr]
    with pytest.raises(InputError, match="not finite in embedding"):
        forms.as_program(network, ["embedding"], {})


# What the files say


def check_twin(form: str, weights: str, path: Path) -> None:
    """Equal weights make equal files, and these do not know where they were made."""
    twin = path.with_name(f"twin{path.suffix}")
    export(form, weights, out=twin)
    assert twin.read_bytes() == path.read_bytes()
    for word in (str(ROOT), str(path.parent), sys.prefix, "site-packages"):
        assert word.encode() not in path.read_bytes()


def test_a_program_says_how_clips_are_prepared(tmp_path: Path) -> None:
    weights = saved(lived("c3d"), tmp_path / "w.safetensors")
    path = tmp_path / "p.pt2"
    export("program", weights, out=path)
    extra = {forms.ABOUT: ""}
    torch.export.load(path, extra_files=extra)
    assert json.loads(extra[forms.ABOUT])["input"]["resize"] == [32, 36]
    check_twin("program", weights, path)


def test_the_model_and_the_sidecar_say_how_clips_are_prepared(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    network = lived("c3d")
    weights = saved(network, tmp_path / "w.safetensors")
    path = tmp_path / "m.onnx"
    outcome = export("onnx", weights, out=path)
    # What the exporters of others print would stand in the result.
    assert capfd.readouterr().out == ""
    sidecar = json.loads(sidecar_path(path).read_text())
    model = onnx.load(path)
    metadata = {one.key: one.value for one in model.metadata_props}
    for about in (sidecar["input"], json.loads(metadata["input"])):
        assert about["shape"] == ["batch", 3, 16, 32, 32]
        assert (about["frames"], about["crop"], about["resize"]) == (16, 32, [32, 36])
        assert about["mean"] == about["std"] == [0.5, 0.5, 0.5]
    assert sidecar["from"]["weights_sha256"] == file_sha256(weights)
    assert sidecar["network"] == network.spec
    assert sidecar["outputs"] == {"embedding": ["batch", 32]}
    assert sidecar["trained_on"] == {"data": "motion"}
    assert outcome.text.splitlines()[-2:] == [f"sidecar   {sidecar_path(path)}", str(path)]
    assert outcome.data["path"] == str(path)
    check_twin("onnx", weights, path)


# What is exported, and where to


def test_the_newest_run_that_fits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    finished(lived("mc3_18", crop=16), "one")
    finished(lived("c3d"), "two")
    assert export("torchvision").data["path"] == "one.torchvision.safetensors"
    assert export("program").data["from"]["run"] == "two"
    assert Path("two.pt2").is_file()
    with pytest.raises(InputError, match=r"two: torchvision has no network c3d, .*; export it as"):
        export("torchvision", "two")


def test_no_run_fits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="there are no runs"):
        export("onnx")
    path = finished(lived("c3d"), "one")
    with pytest.raises(InputError, match=r"one: torchvision has no network c3d"):
        export("torchvision")
    finished(lived("c3d"), "two", complete=False)
    with pytest.raises(InputError, match="run two is not finished"):
        export("onnx", "two")
    weights = path / "backbone.safetensors"
    data = bytearray(weights.read_bytes())
    data[-9] ^= 1
    weights.write_bytes(data)
    for form in ("safetensors", "program"):
        with pytest.raises(InputError, match="is damaged"):
            export(form, "one")
    assert sorted(path.name for path in tmp_path.iterdir()) == []


def test_outputs_that_a_network_does_not_have(tmp_path: Path) -> None:
    weights = saved(lived("r3d"), tmp_path / "w.safetensors")
    with pytest.raises(InputError, match=r"unknown layer 'layer5' \(did you mean 'layer4'\?\)"):
        export("onnx", weights, out=tmp_path / "m.onnx", outputs=["layer5"])


@pytest.mark.parametrize(
    ("out", "said"),
    [
        ("m.foo", r"give it a name that ends in \.onnx$"),
        ("none/m.onnx", "there is no folder"),
        ("folder.onnx", "is a folder"),
        ("run/m.onnx", "lies in the run run, which keeps what it has"),
        ("run/pictures/m.onnx", "lies in the run run"),
        ("old.onnx", "old.onnx exists already; --force replaces it"),
        ("half.onnx", "half.onnx.json exists already"),
        ("link.onnx", "link.onnx exists already"),
    ],
)
def test_places_where_nothing_is_written(
    out: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "folder.onnx").mkdir()
    (tmp_path / "run" / "pictures").mkdir(parents=True)
    for name in ("run/run.json", "old.onnx", "half.onnx.json"):
        (tmp_path / name).touch()
    (tmp_path / "link.onnx").symlink_to("nowhere")
    # It is known before anything is loaded.
    monkeypatch.setattr(job, "load_subject", None)
    with pytest.raises(InputError, match=said):
        export("onnx", "any", out=tmp_path / out)


def test_force_replaces_and_never_half(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = saved(lived("c3d"), tmp_path / "w.safetensors")
    out = tmp_path / "p.pt2"
    out.write_bytes(b"old")
    with monkeypatch.context() as patch:
        patch.setattr(forms, "TOLERANCE", -1.0)
        with pytest.raises(MachineError):
            export("program", weights, out=out, force=True)
    assert out.read_bytes() == b"old"
    export("program", weights, out=out, force=True)
    assert torch.export.load(out) is not None


def test_a_folder_that_takes_no_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(MachineError, match=r"cannot write .*p\.pt2: Permission denied"):
        export("program", "any", out=tmp_path / "p.pt2")


@pytest.mark.parametrize("missing", job.ONNX)
def test_a_missing_extra_is_named_with_the_command(
    missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(MachineError, match=f"onnx needs the Python package '{missing}'") as caught:
        export("onnx", "any")
    assert caught.value.exit_status == 3
    assert caught.value.hint == "pip install onnx onnxscript onnxruntime"


def test_an_unknown_format() -> None:
    with pytest.raises(InputError, match=r"unknown format 'onxx' \(did you mean 'onnx'\?\)"):
        export("onxx")
