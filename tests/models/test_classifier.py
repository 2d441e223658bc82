"""A backbone with a head: what is frozen, what is compared, what a file gives back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from selfsup_cli.config.registry import archs
from selfsup_cli.errors import InputError
from selfsup_cli.models import Backbone, build, load_backbone
from selfsup_cli.models.classifier import (
    Classifier,
    HeadSpec,
    Trained,
    flattened,
    load_classifier,
    save_classifier,
)


def c3d() -> Backbone:
    return build("c3d", width=0.125, crop=16, resize=(16, 16), seed=0)


def clips(n: int) -> torch.Tensor:
    return torch.rand(n, 3, 16, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1


def made(kind: str, freeze: str = "none", compared: int = 1) -> Classifier:
    hidden = [] if kind == "linear" else [24, 16]
    spec = HeadSpec.model_validate(
        {"kind": kind, "outputs": 5, "hidden": hidden, "compared": compared}
    )
    g = torch.Generator().manual_seed(1)
    return Classifier(c3d(), spec, generator=g).freeze(freeze)


def test_the_difference_of_two_clips_is_classified() -> None:
    network = made("fc", compared=2).eval()
    x = clips(4)
    psi = [flattened(network.backbone.features(one[None], ["conv5"])["conv5"], "max") for one in x]
    expected = network.last(network.hidden(torch.cat([psi[0] - psi[1], psi[2] - psi[3]])))
    assert torch.allclose(network(x), expected, atol=1e-5)
    same = network(torch.stack([x[0], x[0], x[1], x[1]]))
    assert torch.allclose(same[0], same[1], atol=1e-5)


def test_a_linear_head_keeps_the_fully_connected_layers() -> None:
    network = made("linear").eval()
    x = clips(2)
    assert torch.allclose(network(x), network.last(network.backbone(x)), atol=1e-5)


@pytest.mark.parametrize(("freeze", "still"), [("conv3", 3), ("conv", 5), ("none", 0)])
def test_frozen_layers_stay_as_they_are(freeze: str, still: int) -> None:
    network = made("fc", freeze).train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in network.parameters() if p.requires_grad], lr=1.0)
    network(clips(4)).logsumexp(1).sum().backward()
    optimizer.step()
    after = network.state_dict()
    kept = [f"backbone.conv{k + 1}." for k in range(still)]
    trained = [f"backbone.conv{k + 1}." for k in range(still, 5)]
    for name, value in after.items():
        same = torch.equal(value, before[name])
        if name.startswith(tuple(kept)):
            assert same, name
        if name.startswith(tuple(trained)) and name.endswith(("weight", "running_mean")):
            assert not same, name
    assert not torch.equal(after["last.weight"], before["last.weight"])


def test_a_layer_that_a_fresh_head_leaves_out_cannot_be_frozen() -> None:
    with pytest.raises(InputError, match="fc1 lies above conv5"):
        made("fc", "fc1")
    with pytest.raises(InputError, match="conv9"):
        made("fc", "conv9")
    assert made("linear", "fc1").frozen[-1] == "fc1"


@pytest.mark.parametrize("arch", archs("video"))
def test_every_network_takes_a_fresh_head(arch: str) -> None:
    width = 1.0 if arch.endswith("_18") else 0.125
    backbone = build(arch, width=width, crop=32, resize=(32, 32), seed=0)
    network = Classifier(backbone, HeadSpec(kind="fc", outputs=3, hidden=[8], compared=2)).eval()
    with torch.no_grad():
        assert network(torch.zeros(2, 3, 16, 32, 32)).shape == (1, 3)


@pytest.mark.parametrize("kind", ["fc", "linear"])
def test_a_file_gives_the_same_network_back(kind: str, tmp_path: Path) -> None:
    network = made(kind).eval()
    path = tmp_path / "model.safetensors"
    classes = tuple("abcde")
    trained = Trained(network, "action", classes, {"crop": 16}, "")
    sha256 = save_classifier(path, trained, {"data": "d"})
    back = load_classifier(path)
    assert (back.task, back.classes, back.clips, back.weights) == (
        "action", classes, {"crop": 16}, sha256,
    )  # fmt: skip
    assert torch.equal(back.network(clips(2)), network(clips(2)))
    with pytest.raises(InputError, match="does not describe a network"):
        load_backbone(path)


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_classifier(path, Trained(made("fc"), "action", tuple("abcde"), {}, ""), {})
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"model\.safetensors is damaged"):
        load_classifier(path)
    sidecar = path.with_name("model.safetensors.json")
    content = json.loads(sidecar.read_text())
    content["head"]["kind"] = "other"
    sidecar.write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"head\.kind"):
        load_classifier(path)
