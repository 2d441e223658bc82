"""Generators on disk come back as they were, whatever they are made of."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from selfsup_cli.errors import InputError
from selfsup_cli.models import build, save_backbone, sidecar_path
from selfsup_cli.models.gan import Generator, PointGenerator, noise_network
from selfsup_cli.models.gan_files import (
    AnyGenerator,
    GaussianRecipe,
    LearnedRecipe,
    Noise,
    load_generator,
    recipe_of,
    save_generator,
)
from selfsup_cli.models.gan_noise import GaussianNoise, LearnedNoise
from selfsup_cli.runs.seal import sealed


def gen(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


NETWORKS: dict[str, dict[str, Any]] = {
    "plain": {"base": 2, "latent": 5},
    "all else": {
        "size": 96, "base": 1, "latent": 3, "channels": 1, "norm": "none", "activation": "tanh",
        "depth": 2, "reach": 2.0,
    },
}  # fmt: skip


@pytest.mark.parametrize("settings", NETWORKS.values(), ids=NETWORKS)
def test_a_recipe_says_how_a_generator_was_built(settings: dict[str, Any]) -> None:
    network = Generator(gen(), **settings)
    found = recipe_of(network).model_dump()
    for name, value in settings.items():
        assert found[name] == value, name
    names = recipe_of(network).build().state_dict()
    assert {k: v.shape for k, v in names.items()} == {
        k: v.shape for k, v in network.state_dict().items()
    }


def test_a_recipe_says_how_a_generator_of_points_was_built() -> None:
    for reach in (None, 2.0):
        found = recipe_of(PointGenerator(gen(), latent=3, hidden=7, dims=4, reach=reach))
        assert found.model_dump() == {
            "kind": "point", "latent": 3, "hidden": 7, "dims": 4, "reach": reach,
        }  # fmt: skip


def case(name: str) -> tuple[AnyGenerator, AnyGenerator | None, Noise | None]:
    if name == "points":
        network = PointGenerator(gen(), latent=3, hidden=4)
        noise = LearnedNoise(PointGenerator(gen(2), latent=6, hidden=5, reach=2.0), latent=6)
        return network, copy.deepcopy(network), noise
    image = Generator(gen(), **NETWORKS["plain"])
    if name == "sigma":
        return image, None, GaussianNoise((3, 32, 32), sigma=0.5, learned=True)
    if name == "alone":
        return image, None, None
    learned = noise_network(gen(3), latent=5, base=1)
    return (
        image,
        Generator(gen(4), **NETWORKS["plain"]),
        LearnedNoise(learned, latent=5, reduction="sum"),
    )


@pytest.mark.parametrize("name", ["learned", "sigma", "alone", "points"])
def test_what_is_read_is_what_was_written(tmp_path: Path, name: str) -> None:
    network, average, noise = case(name)
    path = tmp_path / "generator.safetensors"
    digest = save_generator(path, network, {"step": 7}, average=average, noise=noise)
    found = load_generator(path)
    assert (found.sha256, found.facts) == (digest, {"step": 7})
    z = torch.randn(4, network.latent, generator=gen())
    for ours, theirs in ((network, found.raw), (average, found.average), (noise, found.noise)):
        assert (ours is None) == (theirs is None)
        if ours is None or theirs is None:
            continue
        assert not theirs.training
        ours.eval()
        if isinstance(ours, Generator | PointGenerator):
            assert torch.equal(ours(z), theirs(z))
        else:
            assert torch.equal(ours(4, gen()), theirs(4, gen()))
            assert ours.state_dict().keys() == theirs.state_dict().keys()
    if isinstance(found.noise, LearnedNoise):
        assert found.noise.reduction == ("sum" if name == "learned" else "mean")
    if average is None:
        with pytest.raises(InputError, match="--weights raw"):
            found.network("average")
        assert found.network("raw") is found.raw


def test_learned_and_fixed_deviations_stay_what_they_are(tmp_path: Path) -> None:
    path = tmp_path / "g.safetensors"
    for learned in (True, False):
        noise = GaussianNoise((2,), sigma=1.5, learned=learned)
        noise.sigma.data.fill_(0.25)
        save_generator(path, PointGenerator(gen()), {}, noise=noise)
        found = load_generator(path).noise
        assert isinstance(found, GaussianNoise)
        assert isinstance(found.sigma, torch.nn.Parameter) is learned
        assert (float(found.sigma.detach()), found.start) == (0.25, 1.5)


def test_mistakes_are_told(tmp_path: Path) -> None:
    path = tmp_path / "generator.safetensors"
    with pytest.raises(InputError, match="there are no weights at"):
        load_generator(path)
    save_generator(path, Generator(gen(), **NETWORKS["plain"]), {})
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(InputError, match="is damaged"):
        load_generator(path)
    save_generator(path, Generator(gen(), **NETWORKS["plain"]), {})
    place = sidecar_path(path)
    content = json.loads(place.read_text())
    del content["check"]
    content["generator"]["base"] = 4
    place.write_text(json.dumps(sealed(content)))
    with pytest.raises(InputError, match="does not hold the weights of the generator"):
        load_generator(path)
    content["generator"]["size"] = 48
    place.write_text(json.dumps(sealed(content)))
    with pytest.raises(InputError, match="of 48×48 pixels; there are those of"):
        load_generator(path)
    backbone = tmp_path / "backbone.safetensors"
    save_backbone(backbone, build("alexnet", width=0.0625), {})
    with pytest.raises(InputError, match=r"a selfsup.backbone/1, where a selfsup.generator/1 is"):
        load_generator(backbone)
    pickle = tmp_path / "model.pth"
    pickle.write_bytes(b"PK\x03\x04....")
    with pytest.raises(InputError, match=r"give a generator\.safetensors that selfsup wrote"):
        load_generator(pickle)


def test_a_file_cannot_ask_for_any_size() -> None:
    with pytest.raises(ValueError, match="less than or equal to 8192"):
        recipe_of(Generator(gen(), **NETWORKS["plain"])).model_copy().model_validate(
            {**recipe_of(Generator(gen(), **NETWORKS["plain"])).model_dump(), "base": 1 << 20}
        )
    with pytest.raises(ValueError, match="at most 3"):
        GaussianRecipe(shape=[1, 1, 1, 1], sigma=1.0, learned=False)
    with pytest.raises(ValueError, match="reduction"):
        LearnedRecipe(
            network=recipe_of(PointGenerator(gen())),
            latent=2,
            reduction="max",  # type: ignore[arg-type]
        )
