"""Scales of the fresh layers of a classifier."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from selfsup_cli.engine.devices import Hardware, choose
from selfsup_cli.evaluation.fresh import first_samples, layers_of, rescale_classifier
from selfsup_cli.evaluation.image_task import views_of
from selfsup_cli.models import Backbone, build
from selfsup_cli.models.absorb import absorbed
from selfsup_cli.models.classifier import Classifier, HeadSpec
from selfsup_cli.models.rescale import rates


@pytest.fixture(scope="module")
def hardware() -> Hardware:
    return choose("cpu", "32")


def classifier(
    arch: str = "alexnet", kind: str = "fc", backbone: Backbone | None = None
) -> Classifier:
    width = 0.125 if arch.startswith("alexnet") else 1.0
    backbone = backbone or absorbed(build(arch, width=width, crop=32, seed=0))
    spec = HeadSpec.model_validate({
        "kind": kind, "outputs": 6, "hidden": [48, 32] if kind == "fc" else [],
        "dropout": 0.5, "batch_norm": False, "truncated": 0.005,
    })  # fmt: skip
    return Classifier(backbone, spec, generator=torch.Generator().manual_seed(1))


def images(count: int = 48) -> Tensor:
    g = torch.Generator().manual_seed(0)
    small = torch.rand(count, 3, 8, 8, generator=g) * 2 - 1
    return nn.functional.interpolate(small, size=(32, 32), mode="bilinear")


def rated(network: Classifier, x: Tensor, frozen: int = 0) -> list[float]:
    backbone = network.backbone
    below = layers_of(backbone.parts(backbone.embedding)[0])[frozen:]
    head = layers_of([network.hidden, network.last])
    g = torch.Generator().manual_seed(9)
    return rates([*below, *head], lambda: network.eval()(x), g)


@pytest.mark.parametrize("arch", ["alexnet", "alexnet_lrn"])
def test_a_learned_network_gets_a_head_in_scale_and_all_layers_change_alike(
    arch: str, hardware: Hardware
) -> None:
    network, x = classifier(arch).train(), images()
    before = network.backbone.eval().features(x, ["conv5"])["conv5"].detach()
    network.train()
    uneven = rated(network, x)
    network.train()
    rescale_classifier(network, x, hardware, everything=False, seed=0)
    assert network.training
    even = rated(network, x)
    assert max(uneven) > 5 * min(uneven)
    assert max(even) < 2 * min(even)  # by another random objective than scales were found by
    logits = network.eval()(x)
    torch.testing.assert_close(logits.var(0, correction=0), torch.ones(6), rtol=1e-2, atol=0)
    # What the convolutions compute is what it was, but for one factor.
    after = network.backbone.features(x, ["conv5"])["conv5"].detach()
    factor = float(after.norm() / before.norm())
    torch.testing.assert_close(after, before * factor, rtol=1e-3, atol=1e-4 * float(after.max()))


def test_frozen_layers_are_left_as_they_are(hardware: Hardware) -> None:
    network, x = classifier().freeze("conv3"), images()
    before = {name: value.clone() for name, value in network.backbone.state_dict().items()}
    rescale_classifier(network, x, hardware, everything=False, seed=0)
    after = network.backbone.state_dict()
    same = [name for name in before if torch.equal(before[name], after[name])]
    weights = [f"conv{k}.conv.weight" for k in range(1, 6)]
    assert [name in same for name in weights] == [True, True, True, False, False]
    even = rated(network, x, frozen=3)
    assert max(even) < 2 * min(even)


def test_random_weights_get_activations_in_scale_in_any_network(hardware: Hardware) -> None:
    for arch, kind in (("alexnet", "fc"), ("resnet18", "linear")):
        network, x = classifier(arch, kind), images(24)
        rescale_classifier(network, x, hardware, everything=True, seed=0)
        logits = network.eval()(x)
        torch.testing.assert_close(logits.var(0, correction=0), torch.ones(6), rtol=2e-2, atol=0)


def test_the_samples_are_a_function_of_the_seed() -> None:
    class Numbers:
        def __len__(self) -> int:
            return 9

        def __getitem__(self, key: tuple[int, int]) -> dict[str, object]:
            return {"image": torch.full((1, 1), key[1]), "index": torch.tensor(key[1]), "bad": []}

    chosen = [first_samples(Numbers(), seed, 4)["image"].flatten().tolist() for seed in (0, 0, 1)]  # type: ignore[arg-type]
    assert chosen[0] == chosen[1] != chosen[2]
    assert len(set(chosen[0])) == 4
    assert len(first_samples(Numbers(), 0)["image"]) == 9  # type: ignore[arg-type]


def test_random_crops_are_ten() -> None:
    views = views_of("random")
    assert (len(views), views.told()) == (10, "10 random crops, half of them mirrored")
    image = torch.randint(0, 256, (3, 40, 50), dtype=torch.uint8)
    found = views(image, 24, "a")
    assert found.shape == (10, 3, 24, 24)
    assert len({one.numpy().tobytes() for one in found}) > 5
    assert [len(views_of(one)) for one in ("center", "ten")] == [1, 10]
