"""The presets of chapter 7 against its tables."""

from __future__ import annotations

import pytest

from selfsup_cli.config.gan import PretrainGan
from selfsup_cli.config.presets import default_preset, list_presets, resolve

# Tables 7.1, 7.3 and 7.4, from the thesis.
TABLE_7_1 = {
    "standard": ("none", None, None),
    "a": ("gaussian", "noisy", None),
    "b": ("learned", "noisy", 1),
    "c": ("annealed", "noisy", None),
    "d": ("gaussian", "both", None),
    "e": ("learned-sigma", "both", 1),
    "f": ("learned", "both", 0.1),
    "g": ("learned", "both", 1),
    "h": ("learned", "both", 10),
    "i": ("learned", "alternate", 1),
}
TABLE_7_3 = {
    "mmgan": ("minimax", 0.1),
    "dcgan": ("non-saturating", 10),
    "wgan-gp": ("wasserstein", None),
    "lsgan": ("least-squares", 10),
    "svm-gan": ("hinge", 1),
    "sngan": ("hinge", 1),
}
TABLE_7_4 = {
    "a": {"lr": 2e-4, "bn": False, "opt": "adam", "act": "relu", "n_disc": 1, "n_train": None},
    "b": {"lr": 2e-4, "bn": True, "opt": "adam", "act": "tanh", "n_disc": 1, "n_train": None},
    "c": {"lr": 1e-3, "bn": True, "opt": "adam", "act": "relu", "n_disc": 1, "n_train": None},
    "d": {"lr": 1e-2, "bn": True, "opt": "sgd", "act": "relu", "n_disc": 1, "n_train": None},
    "e": {"lr": 2e-4, "bn": True, "opt": "adam", "act": "relu", "n_disc": 5, "n_train": None},
    "f": {"lr": 2e-4, "bn": True, "opt": "adam", "act": "relu", "n_disc": 1, "n_train": 5000},
}


def preset(name: str) -> PretrainGan:
    found = resolve("pretrain/dfgan", preset=f"dfgan/{name}", env={}).preset
    assert isinstance(found, PretrainGan)
    return found


@pytest.mark.parametrize("row", TABLE_7_1)
def test_table_7_1(row: str) -> None:
    found, (noise, feeding, weight) = preset(f"table-7.1/{row}"), TABLE_7_1[row]
    assert found.filtering.noise == noise
    assert feeding is None or found.filtering.feeding == feeding
    assert weight is None or found.filtering.weight == weight
    assert (found.data.source, found.network.size, found.train.max_steps) == (
        "cifar10", 32, 100_000,
    )  # fmt: skip
    assert (found.optim.lr, found.optim.betas, found.train.batch_size) == (1e-4, (0.5, 0.999), 64)


@pytest.mark.parametrize("row", TABLE_7_3)
def test_table_7_3(row: str) -> None:
    objective, weight = TABLE_7_3[row]
    plain = preset(f"table-7.3/{row}")
    assert (plain.objective, plain.filtering.noise) == (objective, "none")
    spectral = plain.network.discriminator_norm == "spectral"
    assert (plain.network.arch == "sngan") == spectral == (row == "sngan")
    assert (plain.penalty.kind == "gradient-penalty") == (row == "wgan-gp")
    if weight is not None:
        filtered = preset(f"table-7.3/{row}-df")
        assert (filtered.objective, filtered.filtering.noise) == (objective, "learned")
        assert filtered.filtering.weight == weight
        assert filtered.network == plain.network
        assert filtered.standardizes == spectral


@pytest.mark.parametrize("row", [*TABLE_7_4, "deep"])
def test_table_7_4(row: str) -> None:
    wanted = TABLE_7_4.get(row, TABLE_7_4["a"] | {"bn": True})
    for method in ("standard", "gan-gp", "sngan", "dfgan"):
        found = preset(f"table-7.4/{row}-{method}")
        assert {
            "lr": found.optim.lr,
            "bn": found.network.generator_norm == "batch",
            "opt": found.optim.name,
            "act": found.network.activation,
            "n_disc": found.train.discriminator_steps,
            "n_train": found.data.images,
        } == wanted
        assert found.network.depth == (2 if row == "deep" else 1)
        assert (found.filtering.noise == "learned") == (method == "dfgan")
        if method == "dfgan":
            assert found.filtering.weight == 0.1
        assert (found.penalty.kind == "gradient-regularizer") == (method == "gan-gp")
        assert (found.network.discriminator_norm == "spectral") == (method == "sngan")


def test_nothing_decays_and_all_say_what_they_are() -> None:
    infos = [info for info in list_presets({}) if info.job == "pretrain/dfgan"]
    assert len(infos) == 58
    for info in infos:
        assert info.problem is None
        assert preset(info.name.removeprefix("dfgan/")).optim.weight_decay == 0


@pytest.mark.parametrize(("options", "name"), [
    ({}, "dfgan/base"), ({"data.source": "ring"}, "dfgan/ring"),
    ({"data.source": "cifar10"}, "dfgan/dcgan-cifar10"), ({"data.source": "scenes"}, "dfgan/base"),
    ({"data.source": "cifar10", "network.arch": "sngan"}, "dfgan/base"),
])  # fmt: skip
def test_the_preset_that_fits_the_data(options: dict[str, str], name: str) -> None:
    assert default_preset("pretrain/dfgan", options, {}) == name
