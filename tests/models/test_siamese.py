"""The network that compares two images: fusions, signs, weights of other libraries."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor, nn
from torchvision import models
from torchvision.models.resnet import Bottleneck

from selfsup_cli.errors import InputError
from selfsup_cli.models import build, load_backbone, save_backbone
from selfsup_cli.models.library_weights import load_library_weights
from selfsup_cli.models.siamese import Fusion, Siamese
from selfsup_cli.models.torchvision_image import unrectified

SMALL = "timm/test_resnet"


def siamese(fusion: Fusion = "mult", *, relu: bool = True) -> Siamese:
    backbone = build(SMALL, crop=32, signed=True, colours="imagenet", seed=0)
    g = torch.Generator().manual_seed(0)
    return Siamese(backbone, fusion, relu=relu, generator=g).eval()


@pytest.mark.parametrize("fusion", ["mult", "add", "diff", "concat"])
@pytest.mark.parametrize("relu", [True, False])
def test_fusions_are_those_of_table_6_1(fusion: Fusion, relu: bool) -> None:
    network = siamese(fusion, relu=relu)
    width = network.backbone.out_features
    a, b = torch.randn(5, width), torch.randn(5, width)
    x, y = a.numpy(), b.numpy()
    expected = {"mult": x * y, "add": x + y, "diff": x - y, "concat": np.hstack([x, y])}[fusion]
    if relu:
        expected = np.maximum(expected, 0)
    head: nn.Linear = network.get_submodule("sync")  # type: ignore[assignment]
    weight, bias = head.weight.detach().numpy(), head.bias.detach().numpy()
    logits = network.score("sync", a, b).detach().numpy()
    np.testing.assert_allclose(logits, (expected @ weight.T + bias)[:, 0], atol=1e-5)
    # All with all is the same, pair by pair.
    table = network.score("sync", a[:, None], b[None]).detach()
    assert table.shape == (5, 5)
    np.testing.assert_allclose(table.diagonal(), logits, atol=1e-5)
    swapped = network.score("sync", b, a).detach().numpy()
    assert np.allclose(swapped, logits, atol=1e-5) == (fusion in ("mult", "add"))


def test_every_image_passes_through_the_backbone_once() -> None:
    network = siamese()
    seen: list[int] = []
    network.backbone.register_forward_hook(lambda _, given, __: seen.append(len(given[0])))
    pairs = {
        "sync": torch.tensor([[0, 1], [0, 2], [1, 2]]),
        "flip": torch.tensor([[2, 0]]),
    }
    found = network(torch.rand(3, 3, 32, 32) * 2 - 1, pairs)
    assert seen == [3]
    assert {name: len(given) for name, given in found.items()} == {"sync": 3, "flip": 1}


def test_the_last_block_ends_with_its_sum() -> None:
    """Against torchvision's network, whose last block is taken apart."""
    signed = build("resnet18", crop=32, signed=True, seed=1).eval()
    other = models.resnet18(weights=None)
    state = {name.removeprefix("stem."): value for name, value in signed.state_dict().items()}
    other.load_state_dict(state, strict=False)
    other.eval()
    x = torch.rand(2, 3, 32, 32) * 2 - 1
    with torch.no_grad():
        at = other.maxpool(other.relu(other.bn1(other.conv1(x))))
        at = other.layer3(other.layer2(other.layer1(at)))
        *first, last = other.layer4
        for block in first:
            at = block(at)
        expected = at + last.bn2(last.conv2(last.bn1(last.conv1(at)).relu()))
        found = signed.features(x, ["layer4"])["layer4"]
        plain = build("resnet18", crop=32, seed=1).eval().features(x, ["layer4"])["layer4"]
    torch.testing.assert_close(found, expected)
    assert float(found.min()) < 0 <= float(plain.min())
    torch.testing.assert_close(found.relu(), plain)


def test_a_bottleneck_ends_with_its_sum_as_well() -> None:
    block = Bottleneck(32, 8).eval()
    signed = unrectified(block).eval()
    signed.load_state_dict(block.state_dict())
    x = torch.randn(2, 32, 4, 4)
    with torch.no_grad():
        assert float(signed(x).min()) < 0
        torch.testing.assert_close(signed(x).relu(), block(x))


def test_colours_are_those_of_imagenet_and_nothing_is_saved_of_them() -> None:
    from selfsup_cli.transforms.images import to_unit
    from selfsup_cli.transforms.views import FILL

    backbone = build("resnet18", crop=32, colours="imagenet", seed=0)
    image = torch.tensor([[200, 30, 90], FILL], dtype=torch.uint8)[:, :, None, None]
    found = backbone.arrange(to_unit(image))[..., 0, 0]
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    expected = (image[..., 0, 0].float() / 255 - mean) / std
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    # What takes the place of a background is nothing to a convolution.
    assert float(found[1].abs().max()) < 0.01
    assert not any("colours" in name for name in backbone.state_dict())


def test_a_signed_network_comes_back_from_disk_as_it_was(tmp_path: Path) -> None:
    backbone = build(SMALL, crop=32, signed=True, colours="imagenet", seed=3).eval()
    save_backbone(tmp_path / "backbone.safetensors", backbone, {"method": "multiview"})
    back = load_backbone(tmp_path / "backbone.safetensors").eval()
    x = torch.rand(2, 3, 32, 32)
    assert back.spec["signed"] is True
    with torch.no_grad():
        torch.testing.assert_close(back(x), backbone(x))


def test_networks_of_the_thesis_keep_their_ends() -> None:
    with pytest.raises(InputError, match="alexnet has its own last layer"):
        build("alexnet", signed=True)


def imagenet_file(path: Path) -> dict[str, Tensor]:
    state: dict[str, Tensor] = models.resnet18(weights=None).state_dict()
    safetensors.torch.save_file({k: v.contiguous() for k, v in state.items()}, path)
    return state


def test_torchvisions_weights_fill_the_backbone_without_its_classifier(tmp_path: Path) -> None:
    state = imagenet_file(tmp_path / "resnet18.safetensors")
    backbone = build("resnet18", crop=32, signed=True, seed=0)
    load_library_weights(tmp_path / "resnet18.safetensors", backbone)
    own = backbone.state_dict()
    assert torch.equal(own["stem.conv1.weight"], state["conv1.weight"])
    assert torch.equal(own["layer4.1.bn2.running_var"], state["layer4.1.bn2.running_var"])
    assert {"fc.weight", "fc.bias"} == {
        name for name in state if name not in own and f"stem.{name}" not in own
    }


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    imagenet_file(tmp_path / "r.safetensors")
    small = build(SMALL, crop=32)
    with pytest.raises(InputError, match="does not hold the weights of timm/test_resnet"):
        load_library_weights(tmp_path / "r.safetensors", small)
    (tmp_path / "w.pth").write_bytes(b"PK\x03\x04rest")
    with pytest.raises(InputError, match="pickle"):
        load_library_weights(tmp_path / "w.pth", small)
    (tmp_path / "t.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0{}")
    with pytest.raises(InputError, match="no safetensors"):
        load_library_weights(tmp_path / "t.safetensors", small)
    with pytest.raises(InputError, match="there is no file"):
        load_library_weights(tmp_path / "none.safetensors", small)
    with pytest.raises(InputError, match="network of the thesis"):
        load_library_weights(tmp_path / "r.safetensors", build("cifarnet", crop=32))
