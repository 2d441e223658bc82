"""A step of `pretrain dfgan`, with noise and without, against a GAN as one writes it first."""

from __future__ import annotations

from collections.abc import Callable

import measure
import torch
import torch.nn.functional as F
from torch import Tensor

from selfsup_cli.config.gan import PretrainGan
from selfsup_cli.config.presets import resolve
from selfsup_cli.engine import schedule
from selfsup_cli.engine.devices import choose, tune_allocator
from selfsup_cli.engine.trainable import Update
from selfsup_cli.methods.dfgan import Dfgan

IMAGES, ROUNDS = 64, 3
STANDARD, FULL, HALF, PENALTY = "standard GAN", "DFGAN", "DFGAN, half batches", "WGAN-GP"
STANDARD_TABLE, FULL_TABLE = "standard GAN, D of table 7.2", "DFGAN, D of table 7.2"
STANDARD_SPECTRAL, FULL_SPECTRAL = "SNGAN", "SNGAN + DF"
_SPECTRAL = {"objective": "hinge", "network.norm_discriminator": "spectral"}
STEP = f"CPU time of a step, {IMAGES} images of 32 pixels, networks of table 7.2"
KINDS = {
    STANDARD: {"filtering.noise": "none"},
    FULL: {},
    HALF: {"filtering.feeding": "alternate"},
    PENALTY: {
        "filtering.noise": "none",
        "objective": "wasserstein",
        "network.norm_discriminator": "layer",
        "penalty.kind": "gradient-penalty",
    },
    STANDARD_TABLE: {"filtering.noise": "none", "network.discriminator": "table"},
    FULL_TABLE: {"network.discriminator": "table"},
    STANDARD_SPECTRAL: {"filtering.noise": "none", **_SPECTRAL},
    FULL_SPECTRAL: _SPECTRAL,
}
BARE, BARE_FULL = "bare standard GAN", "bare DFGAN"
LIMITS = {
    f"{STEP}: {FULL}": "D sees four batches instead of two, and the noise needs a gradient through "
    "D of its own: with batch norm it cannot be had from D's (a reversed gradient would be another "
    "one). In passes of G and of D, which take as long as each other where D is the released one: "
    "4 + 20 against 4 + 8, about twice the standard GAN's",
}


def rows() -> list[measure.Row]:
    """Ratios of CPU times of steps that take turns in one process."""
    torch.set_num_threads(1)
    tune_allocator()
    real = torch.rand(IMAGES, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    images = (255 * real).to(torch.uint8)
    contenders = {name: _ours(changes, images) for name, changes in KINDS.items()}
    contenders[BARE] = _bare(2 * real - 1)
    contenders[BARE_FULL] = _bare_filtered(2 * real - 1)
    spent = measure.interleaved(contenders, ROUNDS)
    own = spent[STANDARD]
    return [
        (f"{STEP}: {STANDARD}", BARE, spent[BARE] / own, "≥ 1.1"),
        (f"{STEP}: {FULL}", f"{BARE}, times", spent[FULL] / spent[BARE], "≤ 1.75"),
        (f"{STEP}: {FULL}", BARE_FULL, spent[BARE_FULL] / spent[FULL], "≥ 1.15"),
        (f"{STEP}: {HALF}", f"{BARE}, times", spent[HALF] / spent[BARE], "≤ 1.05"),
        (f"{STEP}: {FULL}", f"our {STANDARD}, times", spent[FULL] / own, "≤ 1.9"),
        (f"{STEP}: {HALF}", f"our {STANDARD}, times", spent[HALF] / own, "≤ 1.2"),
        (f"{STEP}: {PENALTY}", f"our {STANDARD}, times", spent[PENALTY] / own, ""),
        (
            f"{STEP}: {FULL_TABLE}",
            f"our {STANDARD_TABLE}, times",
            spent[FULL_TABLE] / spent[STANDARD_TABLE],
            "≤ 1.9",
        ),
        (
            f"{STEP}: {FULL_SPECTRAL}",
            f"our {STANDARD_SPECTRAL}, times",
            spent[FULL_SPECTRAL] / spent[STANDARD_SPECTRAL],
            "≤ 1.9",
        ),
    ]


def _ours(changes: dict[str, str], images: Tensor) -> Callable[[], object]:
    found = resolve("pretrain/dfgan", preset="dfgan/base", options=changes, env={}).preset
    assert isinstance(found, PretrainGan)
    method = Dfgan(found).train()
    update = Update(method.optimizers(), schedule.factor(found.optim, 100), choose("cpu"), seed=0)

    def step() -> None:
        update.begin(update.step + 1)
        method.step({"image": images}, update)

    return step


def _networks() -> tuple[Dfgan, list[torch.optim.Optimizer]]:
    """The same networks as others would have them, in the order G, D, N."""
    found = resolve("pretrain/dfgan", preset="dfgan/base", env={}).preset
    assert isinstance(found, PretrainGan)
    method = Dfgan(found).train().to(memory_format=torch.contiguous_format)
    assert method.noise is not None
    parts = (method.generator, method.discriminator, method.noise)
    return method, [torch.optim.Adam(one.parameters(), 1e-4, (0.5, 0.999)) for one in parts]


def _bare(real: Tensor) -> Callable[[], object]:
    """The standard GAN."""
    method, (g_optimizer, d_optimizer, _) = _networks()
    generate, judge = method.generator, method.discriminator
    ones, zeros = torch.ones(len(real)), torch.zeros(len(real))
    loss_of = F.binary_cross_entropy_with_logits

    def step() -> None:
        fake = generate(torch.randn(len(real), 128))
        loss = loss_of(judge(real), ones) + loss_of(judge(fake.detach()), zeros)
        d_optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        d_optimizer.step()
        loss = loss_of(judge(generate(torch.randn(len(real), 128))), ones)
        g_optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        g_optimizer.step()

    return step


def _bare_filtered(real: Tensor) -> Callable[[], object]:
    """Algorithm 1, line by line: each loss goes back through everything it depends on."""
    method, optimizers = _networks()
    g_optimizer, d_optimizer, n_optimizer = optimizers
    generate, judge, noise_of = method.generator, method.discriminator, method.noise
    assert noise_of is not None
    network = noise_of.network
    count = len(real)
    ones, zeros = torch.ones(2 * count), torch.zeros(2 * count)
    loss_of = F.binary_cross_entropy_with_logits

    def step() -> None:
        fake = generate(torch.randn(count, 128))
        noise = network(torch.randn(count, 128))
        fooled = fake.detach()
        on_real = judge(torch.cat([real, real + noise]))
        on_fake = judge(torch.cat([fooled, fooled + noise]))
        loss = loss_of(on_real, ones) + loss_of(on_fake, zeros)
        noisy = loss_of(on_real[count:], ones[count:]) + loss_of(on_fake[count:], zeros[count:])
        against = noise.square().mean() - noisy / 2
        d_optimizer.zero_grad()
        loss.backward(retain_graph=True)  # type: ignore[no-untyped-call]
        n_optimizer.zero_grad()
        kept = [p.grad for p in judge.parameters()]
        for parameter in judge.parameters():
            parameter.grad = None
        against.backward()  # type: ignore[no-untyped-call]
        for parameter, gradient in zip(judge.parameters(), kept, strict=True):
            parameter.grad = gradient
        n_optimizer.step()
        d_optimizer.step()
        fake = generate(torch.randn(count, 128))
        noise = network(torch.randn(count, 128)).detach()
        loss = loss_of(judge(torch.cat([fake, fake + noise])), ones)
        g_optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        g_optimizer.step()

    return step


if __name__ == "__main__":
    measure.main(rows, LIMITS)
