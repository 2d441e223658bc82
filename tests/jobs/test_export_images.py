"""Networks of images for those who have nothing of ours, and tables of their features."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import onnxruntime
import pyarrow.parquet
import pytest
import timm
import torch
import torchvision
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn

from selfsup_cli.config.presets import resolve
from selfsup_cli.errors import InputError
from selfsup_cli.jobs.export import export
from selfsup_cli.jobs.export_embeddings import embeddings
from selfsup_cli.jobs.export_tables import Table, write
from selfsup_cli.models import Backbone, build, load_backbone, save_backbone
from selfsup_cli.models import export as forms
from selfsup_cli.models.libraries import LIBRARIES
from selfsup_cli.transforms.images import center_crop, ten_crops, to_unit

CONVNEXT, VIT = "timm/convnext_atto", "timm/vit_tiny_patch16_224"


def lived(arch: str, crop: int = 32) -> Backbone:
    """A network whose batch norms have seen something, in evaluation mode."""
    width: dict[str, Any] = {"width": 0.125} if arch == "alexnet" else {}
    network = build(arch, crop=crop, resize=(crop + 8, crop + 8), seed=0, **width)
    g = torch.Generator().manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.uniform_(-0.1, 0.1, generator=g)
            module.running_var.uniform_(0.5, 1.5, generator=g)
    return network.eval()


def saved(network: Backbone, path: Path) -> str:
    save_backbone(path, network, {"data": "scenes"})
    return str(path)


def pictures(network: Backbone, count: int) -> Tensor:
    g = torch.Generator().manual_seed(count)
    return torch.rand(count, *network.input.shape, generator=g) * 2 - 1


def close(found: Any, wanted: Tensor) -> None:
    found = torch.as_tensor(found)
    assert found.shape == wanted.shape
    assert float((found - wanted).abs().max()) < 2e-5 * float(wanted.abs().max()) + 1e-9


@pytest.mark.parametrize("arch", ["alexnet", "resnet18", pytest.param(VIT, marks=pytest.mark.slow)])
def test_graphs_compute_what_the_network_computes(arch: str, tmp_path: Path) -> None:
    network = lived(arch)
    middle = network.layers[1]
    names = ["forward", middle, "embedding"]
    weights = saved(network, tmp_path / "w.safetensors")
    told = export("onnx", weights, out=tmp_path / "m.onnx", outputs=names).data
    assert told["input"]["name"] == "images"
    assert told["input"]["shape"] == ["batch", 3, 32, 32]
    assert told["compared"]["on"] == ["noise", "a gradient", "a square"]
    export("program", weights, out=tmp_path / "p.pt2", outputs=names)
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx")
    about = json.loads(session.get_modelmeta().custom_metadata_map["input"])
    assert (about["crop"], about["resize"], about["kind"]) == (32, [40, 40], "image")
    program = torch.export.load(tmp_path / "p.pt2").module()
    for count in (1, 3):
        x = pictures(network, count)
        with torch.no_grad():
            wanted = {
                "forward": network(x),
                middle: network.features(x, [middle])[middle],
                "embedding": network.embed(x),
            }
            found = program(x)
        for name, one in zip(names, session.run(names, {"images": x.numpy()}), strict=True):
            close(one, wanted[name])
            close(found[name], wanted[name])


@pytest.mark.parametrize("arch", ["resnet18", "resnet50"])
def test_torchvision_loads_it_strictly(arch: str, tmp_path: Path) -> None:
    network = lived(arch)
    weights = saved(network, tmp_path / "w.safetensors")
    outcome = export("torchvision", weights, out=tmp_path / "tv.safetensors")
    assert f"torchvision.models.{arch}(weights=None)" in outcome.text
    plain = getattr(torchvision.models, arch)(weights=None)
    plain.fc = nn.Identity()
    plain.load_state_dict(load_file(tmp_path / "tv.safetensors"), strict=True)
    x = pictures(network, 2)
    with torch.no_grad():
        close(plain.eval()(x), network(x))


@pytest.mark.parametrize("arch", [CONVNEXT, VIT])
def test_timm_loads_it_strictly(arch: str, tmp_path: Path) -> None:
    network = lived(arch)
    weights = saved(network, tmp_path / "w.safetensors")
    state = torch.random.get_rng_state()
    outcome = export("timm", weights, out=tmp_path / "timm.safetensors")
    assert torch.equal(torch.random.get_rng_state(), state)
    plain = eval(outcome.data["loads_into"], {"timm": timm})  # noqa: S307 (as a user would)
    plain.load_state_dict(load_file(tmp_path / "timm.safetensors"), strict=True)
    x = pictures(network, 2)
    with torch.no_grad():
        close(plain.eval()(x), network(x))


@pytest.mark.parametrize(
    ("arch", "library"), [("resnet18", "torchvision"), ("timm/test_resnet", "timm")]
)
def test_what_multiview_pretrains_is_exported_or_refused(
    arch: str, library: str, tmp_path: Path
) -> None:
    x = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(3)) * 2 - 1
    signed = build(arch, crop=32, signed=True, colours="imagenet", seed=0).eval()
    weights = saved(signed, tmp_path / "signed.safetensors")
    export("program", weights, out=tmp_path / "p.pt2", outputs=["forward", "layer1"])
    found = torch.export.load(tmp_path / "p.pt2").module()(x)
    with torch.no_grad():
        close(found["forward"], signed(x))
        close(found["layer1"], signed.features(x, ["layer1"])["layer1"])
    with pytest.raises(InputError, match=r"ends without its ReLU.*export it as safetensors"):
        export(library, weights, out=tmp_path / "other.safetensors")
    rectified = build(arch, crop=32, colours="imagenet", seed=0).eval()
    weights = saved(rectified, tmp_path / "rectified.safetensors")
    outcome = export(library, weights, out=tmp_path / "other.safetensors")
    assert "instead of [-1, 1]" in outcome.text
    mean, std = (torch.tensor(outcome.data["input"][name]) for name in ("mean", "std"))
    plain = LIBRARIES[library].make(rectified)
    plain.load_state_dict(load_file(tmp_path / "other.safetensors"), strict=True, assign=True)
    seen = ((x + 1) / 2 - mean.view(3, 1, 1)) / std.view(3, 1, 1)
    with torch.no_grad():
        close(plain.eval()(seen), rectified(x))


def test_a_library_that_lacks_the_network_is_refused(tmp_path: Path) -> None:
    weights = saved(lived("alexnet"), tmp_path / "w.safetensors")
    for library, said in (("torchvision", "only r3d_18"), ("timm", "called timm/NAME")):
        with pytest.raises(InputError, match=f"{library} has no network alexnet, {said}|{said}"):
            export(library, weights, out=tmp_path / "x.safetensors")
    assert not LIBRARIES["timm"].has("resnet18")
    assert load_backbone(weights).arch == "alexnet"


def test_images_of_the_comparison_fill_the_range_and_differ() -> None:
    images = forms.comparison_images(lived("alexnet").input)
    assert images.shape == (len(forms.COMPARED_ON["image"]), 3, 32, 32)
    assert (images.amin((1, 2, 3)) < -0.99).all()
    assert (images.amax((1, 2, 3)) > 0.99).all()
    assert (images[1, 0].diff(dim=0) > 0).all()
    assert (images[1, 1].diff(dim=1) > 0).all()


# Tables


def table_of(weights: str, path: Path, data: str, *sets: str, **options: Any) -> dict[str, Any]:
    resolved = resolve(
        "export/image-embeddings",
        options={"data.source": data, "subject.run": weights, **options},
        sets=["machine.workers=0", *sets],
        env={},
    )
    return embeddings(resolved, out=path, quiet=True).data


@pytest.mark.parametrize("crops", ["center", "ten"])
def test_a_row_is_the_mean_over_the_crops_of_an_image(
    crops: str, data_dir: Path, tmp_path: Path
) -> None:
    network = lived("alexnet")
    weights = saved(network, tmp_path / "w.safetensors")
    folder = data_dir / "cifar10-folder"
    path = tmp_path / "t.h5"
    told = table_of(weights, path, str(folder), **{"table.part": "test", "table.crops": crops})
    assert told["views"] == {"crops": crops, "views": 10 if crops == "ten" else 1}
    with h5py.File(path) as file:
        ids = file["id"].asstr()[:]
        features = file["features"][:]
        classes = file["classes"].asstr()[:][file["label"][:]]
    assert features.shape == (200, 32)
    for row in (0, 133):
        assert ids[row].split("/")[-2] == classes[row]
        pixels = torch.from_numpy(np.array(Image.open(folder / ids[row]).convert("RGB")))
        image = torchvision.transforms.functional.resize(
            pixels.permute(2, 0, 1), [40, 40], antialias=True
        )
        views = ten_crops(image[None], 32)[0] if crops == "ten" else center_crop(image[None], 32)
        with torch.no_grad():
            expected = network.embed(to_unit(views)).mean(0).numpy()
        assert features[row] == pytest.approx(expected, rel=0.02, abs=0.02 * float(expected.max()))


def test_attributes_come_with_the_rows(tmp_path: Path) -> None:
    weights = saved(lived("alexnet"), tmp_path / "w.safetensors")
    small = ("data.facelike.images=8", "data.facelike.test_images=9", "data.facelike.side=40")
    told = table_of(weights, tmp_path / "a.csv", "facelike", *small, **{"table.part": "test"})
    names = told["attributes"]
    assert len(names) == 8
    with (tmp_path / "a.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 9
    assert {row[f"attribute_{name}"] for row in rows for name in names} == {"0", "1"}


def test_what_is_not_known_of_an_attribute_is_empty(tmp_path: Path) -> None:
    marks = np.array([[1, 255], [0, 1], [1, 0]], np.uint8)
    rows = np.arange(6, dtype=np.float32).reshape(3, 2)

    def table() -> Table:
        ids = ["a", "b", "c"]
        return Table(ids, marks, None, 2, iter([rows[:2], rows[2:]]), {"x": 1}, ("hat", "beard"))

    write(tmp_path / "t.parquet", table())
    found = pyarrow.parquet.read_table(tmp_path / "t.parquet").to_pydict()
    assert found["attribute_hat"] == [True, False, True]
    assert found["attribute_beard"] == [None, True, False]
    assert found["features"] == rows.tolist()
    write(tmp_path / "t.csv", table())
    assert (tmp_path / "t.csv").read_text().splitlines()[1] == "a,1,,0,1"
    write(tmp_path / "t.h5", table())
    with h5py.File(tmp_path / "t.h5") as file:
        assert np.array_equal(file["label"][:], marks)
        assert list(file["attributes"].asstr()[:]) == ["hat", "beard"]
        assert np.array_equal(file["features"][:], rows)
