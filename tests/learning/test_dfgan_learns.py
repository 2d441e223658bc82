"""Filtering covers what the standard GAN misses, on the same data with the same budget."""

from __future__ import annotations

import pytest
import torch

from selfsup_cli.config.gan import PretrainGan
from selfsup_cli.config.presets import resolve
from selfsup_cli.data.ring import Coverage, PointLoader, Points, coverage
from selfsup_cli.engine.devices import choose
from selfsup_cli.engine.fit import Fit
from selfsup_cli.engine.progress import Progress
from selfsup_cli.methods.dfgan import Dfgan

STEPS = 1200


def trained(name: str) -> Coverage:
    preset = resolve(
        "pretrain/dfgan", preset=name, sets=[f"train.max_steps={STEPS}"], env={}
    ).preset
    assert isinstance(preset, PretrainGan)
    source = Points(preset.data.ring, "train")
    size = preset.train.batch_size * preset.train.discriminator_steps
    loader = PointLoader(source, batch_size=size, seed=preset.train.seed)
    method = Dfgan(preset)
    with Progress(quiet=True) as progress:
        Fit(method, loader, preset.train, preset.optim, choose("cpu"), progress)()
    z = torch.randn(2500, preset.network.latent, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return coverage(method.average(z), preset.data.ring)


@pytest.mark.slow
def test_filtering_covers_the_modes_that_the_standard_gan_misses() -> None:
    filtered, standard = trained("dfgan/ring"), trained("dfgan/ring-standard")
    assert filtered.covered == 8
    assert standard.covered <= 4
    assert filtered.good > 3 * standard.good
