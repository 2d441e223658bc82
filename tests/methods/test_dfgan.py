"""Algorithm 1 as the engine runs it: who moves, by what, on which noise, in which batches."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selfsup_cli.config.gan import PretrainGan
from selfsup_cli.config.presets import resolve
from selfsup_cli.engine import schedule
from selfsup_cli.engine.devices import choose
from selfsup_cli.engine.trainable import Update
from selfsup_cli.errors import InputError
from selfsup_cli.methods import dfgan
from selfsup_cli.methods.dfgan import Dfgan
from selfsup_cli.models.gan import average_decay
from selfsup_cli.randomness import generator

M = 6


def preset(*sets: str, name: str = "dfgan/base") -> PretrainGan:
    given = dict(one.split("=") for one in ("network.width=0.125", "optim.lr=0.01", *sets))
    texts = [f"{path}={value}" for path, value in given.items()]
    found = resolve(
        "pretrain/dfgan", preset=name, sets=[f"train.batch_size={M}", *texts], env={}
    ).preset
    assert isinstance(found, PretrainGan)
    return found


def updater(method: Dfgan, step: int = 0, total: int = 10) -> Update:
    method.periods(1, total)
    found = Update(
        method.optimizers(), schedule.factor(method.preset.optim, total), choose("cpu"), seed=0
    )
    found.begin(step)
    return found


def batch(count: int = M, seed: int = 0, size: int = 32) -> dict[str, Tensor]:
    g = generator(seed, "test images")
    return {"image": torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8, generator=g)}


def state(network: nn.Module | None) -> dict[str, Tensor]:
    assert network is not None
    return {name: value.clone() for name, value in network.state_dict().items()}


def moved(before: dict[str, Tensor], network: nn.Module | None) -> set[str]:
    assert network is not None
    return {n for n, v in network.state_dict().items() if not torch.equal(v, before[n])}


class Spy:
    """What D is given, and whether it remembers it."""

    def __init__(self, method: Dfgan) -> None:
        self.seen: list[Tensor] = []
        self.tracked: list[bool] = []
        norms = [m for m in method.discriminator.modules() if isinstance(m, nn.BatchNorm2d)]

        def note(_: Any, given: tuple[Tensor, ...]) -> None:
            self.seen.append(given[0].detach().clone())
            self.tracked.append(all(norm.track_running_stats for norm in norms))

        method.discriminator.register_forward_pre_hook(note)


def test_real_and_generated_images_get_the_same_noise_in_batches_of_their_own() -> None:
    method = Dfgan(preset()).train()
    spy = Spy(method)
    given = batch()
    method.step(given, updater(method))
    on_real, on_fake, on_generated = spy.seen
    real = given["image"].float() / 127.5 - 1
    torch.testing.assert_close(on_real[:M], real)
    assert len(on_real) == len(on_fake) == len(on_generated) == 2 * M
    noise = on_real[M:] - on_real[:M]
    assert noise.square().mean() > 1e-4
    torch.testing.assert_close(on_fake[M:] - on_fake[:M], noise, atol=1e-5, rtol=1e-5)
    # Not one of a batch is of the other kind.
    assert not any(torch.allclose(a, b, atol=1e-3) for a in on_fake[:M] for b in real)
    # G is judged on latents and noise of its own.
    assert not torch.allclose(on_generated[:M], on_fake[:M], atol=1e-3)
    assert not torch.allclose(on_generated[M:] - on_generated[:M], noise, atol=1e-3)
    # D's averages are of real images only.
    assert spy.tracked == [True, False, False]


def test_alternate_batches_are_no_larger() -> None:
    method = Dfgan(preset("filtering.feeding=alternate")).train()
    spy = Spy(method)
    given = batch()
    method.step(given, updater(method))
    assert [len(seen) for seen in spy.seen] == [M] * 3
    real = given["image"].float() / 127.5 - 1
    torch.testing.assert_close(spy.seen[0][: M // 2], real[: M // 2])
    assert not torch.allclose(spy.seen[0][M // 2 :], real[M // 2 :], atol=1e-3)


@pytest.mark.parametrize("shared", [False, True])
def test_noise_has_latents_of_its_own_unless_they_are_shared(shared: bool) -> None:
    """Both as the step draws them: z, then w."""
    method = Dfgan(preset(f"filtering.share_z={str(shared).lower()}")).train()
    drawn: list[Tensor] = []
    assert isinstance(method.noise, dfgan.LearnedNoise)
    for network in (method.generator, method.noise.network):
        network.register_forward_pre_hook(lambda _, given: drawn.append(given[0]))
    method.step(batch(), updater(method))
    assert len(drawn) == 4
    for z, w in (drawn[:2], drawn[2:]):
        assert torch.equal(z, w) is shared


def parts(method: Dfgan, real: Tensor, update: Update) -> tuple[Tensor, ...]:
    """L_D and the loss of N of the first turn, written out anew from the same draws."""
    g = update.generator("discriminator 0")
    z = torch.randn(len(real), 128, generator=g)
    w = torch.randn(len(real), 128, generator=g)
    with torch.no_grad():
        fake = method.generator(z)
    assert isinstance(method.noise, dfgan.LearnedNoise)
    noise = method.noise.network(w)
    on_real = method.discriminator(torch.cat([real, real + noise]))
    on_fake = method.discriminator(torch.cat([fake, fake + noise]))
    ones, zeros = torch.ones(len(real)), torch.zeros(len(real))
    ce = F.binary_cross_entropy_with_logits
    m = len(real)
    clean = ce(on_real[:m], ones) + ce(on_fake[:m], zeros)
    noisy = ce(on_real[m:], ones) + ce(on_fake[m:], zeros)
    given = method.preset.filtering
    hard = clean + noisy if given.against == "all" else noisy
    return (clean + noisy) / 2, given.weight * noise.square().mean() - hard / 2


@pytest.mark.parametrize("sets", [
    (),
    ("filtering.against=all",),
    ("network.norm_discriminator=none", "filtering.standardize=false"),
])  # fmt: skip
def test_gradients_are_those_of_section_7_2(sets: tuple[str, ...]) -> None:
    """L_D's for D alone, −½(noisy) + λ·mean ε² for N alone; and each moves against its own.

    In the last two cases they come out of one pass back.
    """
    sgd = ("filtering.weight=0.3", "optim.name=sgd", "optim.momentum=0")
    method = Dfgan(preset(*sgd, *sets)).train()
    assert method._at_once is bool(sets)
    other = copy.deepcopy(method)
    real = method.real(batch())
    update = updater(method)
    before = state(method.discriminator), state(method.noise), state(method.generator)
    method._discriminate(real, update, 0)
    d_loss, n_loss = parts(other, real, updater(other))
    names = [name for name, _ in other.discriminator.named_parameters()]
    d_grads = torch.autograd.grad(d_loss, list(other.discriminator.parameters()), retain_graph=True)
    for name, gradient in zip(names, d_grads, strict=True):
        wanted = before[0][name] - 0.01 * gradient
        torch.testing.assert_close(method.discriminator.state_dict()[name], wanted)
    assert other.noise is not None
    assert method.noise is not None
    names = [name for name, _ in other.noise.named_parameters()]
    n_grads = torch.autograd.grad(n_loss, list(other.noise.parameters()))
    for name, gradient in zip(names, n_grads, strict=True):
        wanted = before[1][name] - 0.01 * gradient
        torch.testing.assert_close(method.noise.state_dict()[name], wanted)
    assert not {n for n in moved(before[2], method.generator) if n.endswith(("weight", "bias"))}


def test_a_step_of_the_noise_makes_noisy_images_harder_for_the_discriminator() -> None:
    method = Dfgan(preset("filtering.weight=0", "optim.lr=0.003")).train()
    real = method.real(batch(16))
    for k in range(8):  # let D tell something apart first
        method._discriminate(real, updater(method, k), 0)
    frozen = copy.deepcopy(method)
    before = parts(method, real, updater(method))[1].item()
    update = updater(method)
    _, loss = parts(method, real, update)
    update(loss, "noise")
    assert not moved(state(frozen.discriminator), method.discriminator) - {
        n for n in state(method.discriminator) if "running" in n or "num_batches" in n
    }
    after = parts(method, real, updater(method))[1].item()
    assert after < before - 1e-4  # −½ of the noisy loss falls: that loss rises


def test_the_generators_step_moves_nothing_else() -> None:
    method = Dfgan(preset()).train()
    update = updater(method)
    before = state(method.discriminator)
    out = method._generate(M, update)
    assert moved(before, method.discriminator) == set()  # nor what batch norm averaged
    assert float(out["gradient_at_fakes"]) > 0
    assert all(p.grad is None for p in method.discriminator.parameters())
    assert method.noise is not None
    assert all(p.grad is None for p in method.noise.parameters())
    assert all(p.grad is not None for p in method.generator.parameters())


def test_the_generator_moves_so_that_d_takes_its_images_for_real() -> None:
    method = Dfgan(preset("optim.name=sgd", "optim.lr=0.001", "optim.momentum=0")).train()
    first = float(method._generate(M, updater(method))["loss_generator"])
    assert float(method._generate(M, updater(method))["loss_generator"]) < first


def test_gradient_at_fakes_is_that_of_each_image_alone() -> None:
    method = Dfgan(preset("filtering.noise=none", "network.norm_discriminator=none")).train()
    found = float(method._generate(M, updater(method))["gradient_at_fakes"])
    other = Dfgan(preset("filtering.noise=none", "network.norm_discriminator=none")).train()
    g = updater(other).generator("generator")
    fake = other.generator(torch.randn(M, 128, generator=g)).detach()
    norms = []
    for image in fake:
        one = image[None].clone().requires_grad_()
        (gradient,) = torch.autograd.grad(F.softplus(-other.discriminator(one)).sum(), one)
        norms.append(gradient.norm().item())
    assert found == pytest.approx(sum(norms) / M, rel=1e-4)


def test_the_average_follows_after_each_update_of_either() -> None:
    method = Dfgan(preset("train.discriminator_steps=2")).train()
    name = "last.weight"
    weights = [method.generator.state_dict()[name].clone()]
    average = weights[0].clone()
    for step in range(3):
        method.step(batch(2 * M), updater(method, step))
        weights.append(method.generator.state_dict()[name].clone())
        for t, seen in enumerate((weights[-2], weights[-2], weights[-1])):
            decay = average_decay(3 * step + t, 0.9999)
            average = decay * average + (1 - decay) * seen
    torch.testing.assert_close(method.average.state_dict()[name], average)
    assert not any(p.requires_grad for p in method.average.parameters())


def test_each_update_of_the_discriminator_has_images_of_its_own() -> None:
    method = Dfgan(preset("train.discriminator_steps=3", "filtering.noise=none")).train()
    spy = Spy(method)
    given = batch(3 * M)
    out = method.step(given, updater(method))
    real = given["image"].float() / 127.5 - 1
    assert len(spy.seen) == 7
    for turn in range(3):
        torch.testing.assert_close(spy.seen[2 * turn], real[turn * M : (turn + 1) * M])
    assert "noise_rms" not in out
    assert set(out) == {"loss_discriminator", "acc_clean", "loss_generator", "gradient_at_fakes"}


@pytest.mark.parametrize(("given", "sigmas"), [
    ((), (1.0, 0.75, 0.5)), (("filtering.anneal_steps=2",), (1.0, 0.5, 0.0)),
])  # fmt: skip
def test_annealed_noise_falls_with_the_steps(
    given: tuple[str, ...], sigmas: tuple[float, ...]
) -> None:
    method = Dfgan(preset("filtering.noise=annealed", "filtering.feeding=noisy", *given)).train()
    assert isinstance(method.noise, dfgan.GaussianNoise)
    for step, sigma in enumerate(sigmas):
        out = method.step(batch(), updater(method, step, total=4))
        assert float(method.noise.sigma) == pytest.approx(sigma)
        assert float(out["noise_rms"]) == pytest.approx(sigma, rel=0.05)
    assert not method.learns_noise


def test_a_learned_sigma_is_pulled_down_by_its_weight() -> None:
    method = Dfgan(preset("filtering.noise=learned-sigma", "filtering.weight=10")).train()
    assert isinstance(method.noise, dfgan.GaussianNoise)
    for step in range(3):
        method.step(batch(), updater(method, step))
    assert method.noise.sigma.item() < 0.99


@pytest.mark.parametrize("sets", [
    ("objective=wasserstein", "network.norm_discriminator=layer", "penalty.kind=gradient-penalty"),
    ("penalty.kind=gradient-regularizer", "penalty.weight=1"),
    ("penalty.kind=gradient-regularizer", "filtering.noise=none"),
    ("objective=hinge", "network.arch=sngan", "network.norm_discriminator=spectral"),
    ("objective=least-squares", "filtering.against=all"),
    ("filtering.noise=gaussian", "network.norm_generator=none", "network.activation=tanh"),
    ("network.depth=2", "network.discriminator=table"),
])  # fmt: skip
def test_every_kind_trains(sets: tuple[str, ...]) -> None:
    method = Dfgan(preset(*sets)).train()
    before = state(method.discriminator), state(method.generator)
    out = method.step(batch(2), updater(method))
    assert all(math.isfinite(float(value)) for value in out.values())
    assert moved(before[0], method.discriminator)
    assert moved(before[1], method.generator)


def test_noisy_images_are_normalised_apart_where_batch_norm_is_missing() -> None:
    method = Dfgan(preset("network.norm_discriminator=spectral")).train()
    spy = Spy(method)
    method.step(batch(), updater(method))
    # Each is judged by itself, so one pass takes all: real, with noise, generated, with noise.
    both, generated = spy.seen
    assert (len(both), len(generated)) == (4 * M, 2 * M)
    for noisy in (both[M : 2 * M], both[3 * M :], generated[M:]):
        torch.testing.assert_close(noisy.mean((0, 2, 3)), torch.zeros(3), atol=1e-5, rtol=0)
        torch.testing.assert_close(
            noisy.var((0, 2, 3), correction=0), torch.ones(3), atol=1e-3, rtol=0
        )


def test_clipping_by_shares_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dfgan.processes, "members", lambda: 2)
    for given, option in (("optim.clip_grad=1", "--clip-grad"), ("train.precision=fp16", "fp16")):
        with pytest.raises(InputError, match=option):
            Dfgan(preset(given)).optimizers()


def test_gradients_of_several_processes_are_averaged_before_anything_moves(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The other process' gradient is all ones here."""
    sgd = ("optim.name=sgd", "optim.momentum=0", "optim.lr=0.1")
    alone, one = Dfgan(preset(*sgd)).train(), Dfgan(preset(*sgd)).train()
    before = state(one.generator)
    alone._generate(M, updater(alone))
    monkeypatch.setattr(dfgan.processes, "members", lambda: 2)
    monkeypatch.setattr(dfgan.dist, "get_world_size", lambda: 2)
    monkeypatch.setattr(dfgan.dist, "all_reduce", lambda gradient: gradient.add_(1))
    one._generate(M, updater(one))
    for name, parameter in alone.generator.named_parameters():
        gradient = (before[name] - parameter.detach()) / 0.1
        wanted = before[name] - 0.1 * (gradient + 1) / 2
        torch.testing.assert_close(one.generator.state_dict()[name], wanted, atol=1e-5, rtol=1e-4)


# Theorem 1


X = torch.linspace(-3, 3, 121, dtype=torch.float64)
KERNEL = torch.softmax(-((X[:, None] - X[None, :]) ** 2) / (2 * 0.5**2), 0)


def bump(at: Tensor | float, sigma: float = 0.12) -> Tensor:
    """A Gaussian on the grid."""
    return torch.softmax(-((X - at) ** 2) / (2 * sigma**2), 0)


def divergence(p: Tensor, q: Tensor) -> Tensor:
    """Jensen and Shannon's, of densities on a grid."""
    middle = (p + q) / 2
    sides = [one * ((one + 1e-30) / (middle + 1e-30)).log() for one in (p, q)]
    return (sides[0] + sides[1]).sum() / 2


def filtered_divergence(p: Tensor, q: Tensor) -> Tensor:
    """(7.5)."""
    return divergence((p + KERNEL @ p) / 2, (q + KERNEL @ q) / 2)


def test_the_only_optimum_of_7_5_is_the_density_of_the_data() -> None:
    """Theorem 1 on a line, for a density of two modes and any other that a grid can hold."""
    data = (bump(-1.2) + 2 * bump(1.0, 0.2)) / 3
    logits = torch.zeros_like(X).requires_grad_()
    optimizer = torch.optim.LBFGS([logits], max_iter=300, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = filtered_divergence(data, torch.softmax(logits, 0))
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    found = torch.softmax(logits.detach(), 0)
    assert float((found - data).abs().sum() / 2) < 0.01
    # What makes it unique: no frequency but 0 passes through the kernel whole, see (7.7).
    passed = torch.fft.fft(torch.softmax(-(X**2) / (2 * 0.5**2), 0)).abs()[1:60]
    assert 0 <= float(passed.min()) <= float(passed.max()) < 0.99


def test_filtering_leads_from_afar_where_the_plain_divergence_says_nothing() -> None:
    data = bump(-1.5)
    slopes = []
    for measure in (divergence, filtered_divergence):
        place = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
        (slope,) = torch.autograd.grad(measure(data, bump(place)), place)
        slopes.append(float(slope))
    assert abs(slopes[0]) < 1e-6
    assert slopes[1] > 1e-3  # towards the data
