"""The objectives of chapter 7 by hand, by closed forms, and by where their gradients go."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from selfsup_cli.methods.dfgan_losses import (
    HINGE,
    MINIMAX,
    NON_SATURATING,
    OBJECTIVES,
    WASSERSTEIN,
    Feeding,
    Scores,
    accuracies,
    discriminator_loss,
    filtered,
    generator_loss,
    gradient_penalty,
    gradient_regularizer,
    noise_count,
    noise_loss,
    split,
    squared_gradients,
    standardized,
)
from selfsup_cli.models.gan import (
    Discriminator,
    Generator,
    PointDiscriminator,
    PointGenerator,
    noise_network,
)
from selfsup_cli.models.gan_noise import GaussianNoise, LearnedNoise

FEEDINGS: tuple[Feeding, ...] = ("clean", "noisy", "both", "alternate")


def gen(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=gen(seed))


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


# Values


def by_hand(name: str, real: list[float], fake: list[float]) -> tuple[float, float]:
    """L_D and L_G of one distribution, written with plain numbers."""
    n, m = len(real), len(fake)
    if name in ("minimax", "non-saturating"):
        d = -sum(math.log(sigmoid(r)) for r in real) / n
        d -= sum(math.log(1 - sigmoid(f)) for f in fake) / m
        if name == "minimax":
            return d, sum(math.log(1 - sigmoid(f)) for f in fake) / m
        return d, -sum(math.log(sigmoid(f)) for f in fake) / m
    if name == "least-squares":
        d = sum((r - 1) ** 2 / 2 for r in real) / n + sum(f**2 / 2 for f in fake) / m
        return d, sum((f - 1) ** 2 / 2 for f in fake) / m
    if name == "hinge":
        d = sum(max(0, 1 - r) for r in real) / n + sum(max(0, 1 + f) for f in fake) / m
        return d, -sum(fake) / m
    return sum(fake) / m - sum(real) / n, -sum(fake) / m


@pytest.mark.parametrize("name", OBJECTIVES)
def test_objectives_by_hand(name: str) -> None:
    objective = OBJECTIVES[name]
    real, noisy_real = [0.3, -1.2, 2.5], [1.4, -0.1, 0.7]
    fake, noisy_fake = [-0.4, 0.9, -3.0], [0.2, 0.6, -1.5]
    clean, noisy = by_hand(name, real, fake), by_hand(name, noisy_real, noisy_fake)
    t = torch.tensor
    assert discriminator_loss(
        objective, Scores(t(real), None), Scores(t(fake), None)
    ).item() == pytest.approx(clean[0], rel=1e-5)
    ours, theirs = Scores(t(real), t(noisy_real)), Scores(t(fake), t(noisy_fake))
    whole = (clean[0] + noisy[0]) / 2
    assert discriminator_loss(objective, ours, theirs).item() == pytest.approx(whole, rel=1e-5)
    assert generator_loss(objective, theirs).item() == pytest.approx(
        (clean[1] + noisy[1]) / 2, rel=1e-5
    )
    found = noise_loss(objective, ours, theirs, t(0.7), 0.1)
    assert found.item() == pytest.approx(0.07 - noisy[0] / 2, rel=1e-5)
    found = noise_loss(objective, ours, theirs, t(0.7), 0.1, whole=True)
    assert found.item() == pytest.approx(0.07 - whole, rel=1e-5)
    only = noise_loss(objective, Scores(None, ours.noisy), Scores(None, theirs.noisy), t(0.7), 10)
    assert only.item() == pytest.approx(7 - noisy[0], rel=1e-5)


def test_extreme_logits_stay_finite() -> None:
    far = torch.tensor([-1e4, 1e4], requires_grad=True)
    for objective in (MINIMAX, NON_SATURATING):
        loss = discriminator_loss(objective, Scores(far, None), Scores(far, None))
        loss = loss + generator_loss(objective, Scores(far, None))
        (gradient,) = torch.autograd.grad(loss, far)
        assert bool(torch.isfinite(loss))
        assert bool(torch.isfinite(gradient).all())


def test_the_minimax_generator_saturates_and_the_other_does_not() -> None:
    beaten = torch.tensor([-12.0], requires_grad=True)
    (flat,) = torch.autograd.grad(generator_loss(MINIMAX, Scores(beaten, None)), beaten)
    (steep,) = torch.autograd.grad(generator_loss(NON_SATURATING, Scores(beaten, None)), beaten)
    assert -1e-4 < flat.item() < 0
    assert steep.item() == pytest.approx(-1, abs=1e-4)


@pytest.mark.parametrize("name", ["minimax", "non-saturating"])
def test_the_optimal_discriminator_is_that_of_equation_7_3(name: str) -> None:
    """With the denominator's brackets mended: p̄_d / (p̄_d + p̄_g), p̄ summed over S."""
    data = torch.tensor([[0.5, 0.3, 0.2], [0.4, 0.4, 0.2]])  # clean, noisy
    model = torch.tensor([[0.1, 0.1, 0.8], [0.2, 0.2, 0.6]])
    wanted = data.sum(0) / (data.sum(0) + model.sum(0))
    logits = torch.logit(wanted).requires_grad_()
    objective = OBJECTIVES[name]
    expected = (data.sum(0) * objective.real(logits) + model.sum(0) * objective.fake(logits)).sum()
    (gradient,) = torch.autograd.grad(expected, logits)
    torch.testing.assert_close(gradient, torch.zeros(3), atol=1e-6, rtol=0)


def test_half_precision_logits_are_summed_in_float32() -> None:
    half = torch.tensor([2.0, 3.0], dtype=torch.bfloat16)
    loss = discriminator_loss(NON_SATURATING, Scores(half, None), Scores(half, None))
    assert loss.dtype == torch.float32


# Batches


@pytest.mark.parametrize("count", [6, 7])
@pytest.mark.parametrize("feeding", FEEDINGS)
def test_batches_hold_what_their_feeding_says(feeding: Feeding, count: int) -> None:
    images = randn(count, 3, 4, 4)
    noisy = noise_count(count, feeding)
    noise = randn(noisy, 3, 4, 4, seed=1)
    batch = filtered(images, noise if noisy else None, feeding)
    total = {"both": 2 * count}.get(feeding, count)
    assert len(batch) == total
    clean = total - noisy
    assert torch.equal(batch[:clean], images[:clean])
    assert torch.equal(batch[clean:], images[count - noisy :] + noise)
    assert noisy == {"clean": 0, "noisy": count, "both": count, "alternate": count // 2}[feeding]
    scores = split(torch.arange(float(total)), feeding)
    assert (scores.clean is None) == (clean == 0)
    assert (scores.noisy is None) == (noisy == 0)
    assert torch.cat(scores.parts()).tolist() == list(range(total))
    assert noisy == 0 or (scores.noisy is not None and len(scores.noisy) == noisy)


def test_noise_of_another_number_is_refused() -> None:
    images = randn(4, 3, 4, 4)
    for noise in (None, randn(3, 3, 4, 4), randn(4, 1, 4, 4)):
        with pytest.raises(ValueError, match="both wants noise"):
            filtered(images, noise, "both")
    one = Scores(torch.zeros(2), None)
    with pytest.raises(ValueError, match="no noise to learn"):
        noise_loss(NON_SATURATING, one, one, torch.tensor(0.0), 1)


def test_noisy_images_are_standardized_by_themselves() -> None:
    images, noise = 3 * randn(8, 3, 4, 4) + 1, 5 * randn(8, 3, 4, 4, seed=1)
    batch = filtered(images, noise, "both", standardize=True)
    assert torch.equal(batch[:8], images)
    for channel in range(3):
        values = batch[8:, channel]
        assert values.mean().item() == pytest.approx(0, abs=1e-5)
        assert values.std(correction=0).item() == pytest.approx(1, abs=1e-3)
    norm = nn.BatchNorm2d(3, affine=False)
    torch.testing.assert_close(standardized(images), norm(images))
    points = randn(8, 2)
    torch.testing.assert_close(standardized(points), nn.BatchNorm1d(2, affine=False)(points))


def test_real_and_fake_are_normalised_apart_and_clean_with_noisy() -> None:
    judge = Discriminator(gen(), base=2)
    real, fake = randn(4, 3, 32, 32), 3 * randn(4, 3, 32, 32, seed=1)
    noise = randn(4, 3, 32, 32, seed=2)
    norm = judge.get_submodule("conv2.1")
    seen: list[int] = []
    norm.register_forward_hook(lambda _, inputs, __: seen.append(len(inputs[0])))
    alone = split(judge(filtered(real, noise, "both")), "both")
    judge(filtered(fake, noise, "both"))
    assert seen == [8, 8]
    # Other fakes change nothing for the reals; other noise changes even the clean ones.
    again = split(judge(filtered(real, noise, "both")), "both")
    louder = split(judge(filtered(real, 4 * noise, "both")), "both")
    assert alone.clean is not None
    assert louder.clean is not None
    torch.testing.assert_close(alone, again)
    assert not torch.allclose(alone.clean, louder.clean)


# Gradients


def both_losses(
    whole: bool = False, weight: float = 0.0, seed: int = 0
) -> tuple[Tensor, Tensor, Discriminator, LearnedNoise, Generator]:
    """L_D and L_N of small networks of table 7.2, as section 5.3's step has them."""
    judge, g = Discriminator(gen(1), base=4), Generator(gen(2), base=4, latent=8)
    noise = LearnedNoise(noise_network(gen(3), base=2, latent=8), latent=8)
    real = randn(8, 3, 32, 32, seed=seed).tanh()
    with torch.no_grad():
        made = g(randn(8, 8, seed=seed))
    eps = noise(8, gen(seed))
    ours, theirs = (split(judge(filtered(x, eps, "both")), "both") for x in (real, made))
    loss = discriminator_loss(NON_SATURATING, ours, theirs)
    against = noise_loss(NON_SATURATING, ours, theirs, noise.magnitude(eps), weight, whole=whole)
    return loss, against, judge, noise, g


def test_a_noise_step_raises_the_discriminators_loss_and_its_own_step_lowers_it() -> None:
    loss, against, judge, noise, g = both_losses()
    weights = list(noise.parameters())
    gradients = torch.autograd.grad(against, weights, retain_graph=True)
    down = torch.autograd.grad(loss, list(judge.parameters()))
    assert any(bool(gradient.abs().sum() > 0) for gradient in gradients)
    assert all(p.grad is None for p in g.parameters())
    with torch.no_grad():
        before = noise_half(noise, judge)
        for p, gradient in zip(weights, gradients, strict=True):
            p.sub_(0.05 * gradient)
        after = noise_half(noise, judge)
        assert after > before
        for p, gradient in zip(judge.parameters(), down, strict=True):
            p.sub_(0.05 * gradient)
        assert noise_half(noise, judge) < after


def noise_half(noise: LearnedNoise, judge: Discriminator) -> float:
    """The noisy half of D's loss on the batch that `both_losses` starts with."""
    g = Generator(gen(2), base=4, latent=8)
    eps = noise(8, gen(0))
    real, made = randn(8, 3, 32, 32).tanh(), g(randn(8, 8))
    scores = [split(judge(filtered(x, eps, "both")), "both") for x in (real, made)]
    noisy = [Scores(None, score.noisy) for score in scores]
    return discriminator_loss(NON_SATURATING, *noisy).item()


def test_the_penalty_pulls_the_noise_down() -> None:
    noise = GaussianNoise((2,), sigma=0.5, learned=True)
    flat = Scores(None, torch.zeros(4))
    loss = noise_loss(NON_SATURATING, flat, flat, noise.magnitude(noise(4, gen())), 2.0)
    (gradient,) = torch.autograd.grad(loss, noise.sigma)
    assert gradient.item() == pytest.approx(2.0 * 2 * 0.5)


def test_clean_images_matter_to_the_noise_through_batch_norm_only() -> None:
    plain, _, _, _, _ = both_losses()
    assert plain.requires_grad
    found = []
    for whole in (False, True):
        _, against, _, noise, _ = both_losses(whole=whole)
        found.append(torch.autograd.grad(against, list(noise.parameters())))
    assert not all(torch.allclose(a, b) for a, b in zip(*found, strict=True))
    judge, maker = PointDiscriminator(gen()), PointGenerator(gen(), latent=4, reach=2)
    noise = LearnedNoise(maker, latent=4)
    found = []
    for whole in (False, True):
        eps = noise(8, gen(5))
        points = [filtered(randn(8, 2, seed=s), eps, "both") for s in (1, 2)]
        ours, theirs = (split(judge(batch), "both") for batch in points)
        loss = noise_loss(HINGE, ours, theirs, noise.magnitude(eps), 0.1, whole=whole)
        found.append(torch.autograd.grad(loss, list(noise.parameters())))
    torch.testing.assert_close(found[0], found[1])


# The first theorem


def divergence(p: Tensor, q: Tensor) -> Tensor:
    """Jensen and Shannon's, of two distributions on a grid."""
    mean = (p + q) / 2
    return (torch.xlogy(p, p / mean).sum() + torch.xlogy(q, q / mean).sum()) / 2


def matched(filters: list[Tensor], data: Tensor, steps: int = 1000) -> tuple[float, float]:
    """JSD that is left, and total variation from the data, after descent on (7.4) by the model."""
    centre = torch.linspace(-1, 1, data.numel(), dtype=torch.float64)
    logits = (-((centre - 0.6) ** 2) / 0.08).requires_grad_()
    optimizer = torch.optim.Adam([logits], lr=0.1)
    scale = 1 / len(filters)
    target = torch.stack([f @ data for f in filters]).sum(0) * scale
    for _ in range(steps):
        model = logits.softmax(0)
        loss = divergence(target, torch.stack([f @ model for f in filters]).sum(0) * scale)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return loss.item(), (logits.softmax(0) - data).abs().sum().item() / 2


def test_theorem_1_in_one_dimension() -> None:
    n = 41
    x = torch.linspace(-1, 1, n, dtype=torch.float64)
    wide = torch.linspace(-2, 2, 2 * n - 1, dtype=torch.float64)  # room for what noise adds
    clean = torch.zeros(len(wide), n, dtype=torch.float64)
    clean[n // 2 : n // 2 + n] = torch.eye(n, dtype=torch.float64)
    noisy = torch.exp(-((wide[:, None] - x[None]) ** 2) / (2 * 0.2**2))
    noisy = noisy / noisy.sum(0)
    data = torch.exp(-((x + 0.5) ** 2) / 0.004) + 0.5 * torch.exp(-(x**2) / 0.004)
    data = data / data.sum()
    left, apart = matched([clean, noisy], data)
    assert left < 1e-4
    assert apart < 0.02
    # Noise alone leaves next to no divergence either, and yet another distribution.
    blurred, still = matched([noisy], data)
    assert blurred < 1e-4
    assert still > 0.2


# Regularisers


class Paraboloid(nn.Module):
    """D(x) = a·|x|²/2, whose gradient is a·x."""

    def __init__(self, a: float) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.tensor(a))

    def forward(self, x: Tensor) -> Tensor:
        return self.a * x.flatten(1).square().sum(1) / 2


def test_squared_gradients_of_a_known_function() -> None:
    x = randn(5, 3, 2, 2).requires_grad_()
    judge = Paraboloid(3.0)
    found = squared_gradients(judge(x), x)
    torch.testing.assert_close(found, 9 * x.flatten(1).square().sum(1))
    (gradient,) = torch.autograd.grad(found.sum(), judge.a)
    assert gradient.item() == pytest.approx(2 * 3 * x.square().sum().item(), rel=1e-5)


def test_gradient_penalty_against_its_formula() -> None:
    real, fake = randn(6, 3, 2, 2), randn(6, 3, 2, 2, seed=1).requires_grad_()
    judge = Paraboloid(0.7)
    u = torch.rand(6, 1, 1, 1, generator=gen(4))
    mixed = u * real + (1 - u) * fake.detach()
    wanted = ((0.7 * mixed.flatten(1).norm(dim=1) - 1) ** 2).mean()
    found = gradient_penalty(judge, real, fake, gen(4))
    torch.testing.assert_close(found, wanted)
    found.backward()  # type: ignore[no-untyped-call]
    assert fake.grad is None
    assert judge.a.grad is not None
    norm = mixed.flatten(1).norm(dim=1)
    by_a = (2 * (0.7 * norm - 1) * norm).mean()
    torch.testing.assert_close(judge.a.grad, by_a)


def test_gradient_penalty_in_mixed_precision() -> None:
    judge = PointDiscriminator(gen())
    real, fake = randn(8, 2), randn(8, 2, seed=1)
    with torch.autocast("cpu", torch.bfloat16):
        found = gradient_penalty(judge, real, fake.bfloat16(), gen(4))
    torch.testing.assert_close(found, gradient_penalty(judge, real, fake, gen(4)), rtol=0.1, atol=0)


def test_gradient_penalty_of_a_flat_discriminator_is_one() -> None:
    judge = Paraboloid(0.0)
    found = gradient_penalty(judge, randn(4, 2), randn(4, 2, seed=1), gen())
    assert found.item() == pytest.approx(1, abs=1e-4)
    (gradient,) = torch.autograd.grad(found, judge.a)
    assert bool(torch.isfinite(gradient))


def test_gradient_regularizer_against_its_formula() -> None:
    real, fake = randn(6, 2).requires_grad_(), randn(6, 2, seed=1).requires_grad_()
    judge = Paraboloid(1.5)
    a, b = judge(real), judge(fake)
    wanted = sum(
        (1 - sigmoid(s)) ** 2 * 2.25 * x.square().sum().item() / 6
        for s, x in zip(a.tolist(), real, strict=True)
    ) + sum(
        sigmoid(s) ** 2 * 2.25 * x.square().sum().item() / 6
        for s, x in zip(b.tolist(), fake, strict=True)
    )
    assert gradient_regularizer(a, real, b, fake).item() == pytest.approx(wanted, rel=1e-5)


def test_penalties_reach_the_weights_of_real_networks() -> None:
    judge = Discriminator(gen(), base=2, norm="none")
    real, fake = randn(2, 3, 32, 32), randn(2, 3, 32, 32, seed=1)
    loss = gradient_penalty(judge, real, fake, gen())
    weight = judge.get_parameter("conv1.0.weight")
    assert torch.autograd.grad(loss, weight)[0].abs().sum() > 0
    normed = Discriminator(gen(), base=2)
    real, fake = real.requires_grad_(), fake.requires_grad_()
    loss = gradient_regularizer(normed(real), real, normed(fake), fake)
    assert torch.autograd.grad(loss, normed.get_parameter("conv1.0.weight"))[0].abs().sum() > 0


# Health


def test_accuracies_of_clean_and_noisy() -> None:
    real = Scores(torch.tensor([1.0, 2.0, -1.0, 3.0]), torch.tensor([-1.0, 1.0]))
    fake = Scores(torch.tensor([-1.0, -2.0, -0.5, -3.0]), torch.tensor([1.0, -1.0]))
    found = accuracies(NON_SATURATING, real, fake)
    assert {name: value.item() for name, value in found.items()} == {"clean": 0.875, "noisy": 0.5}
    high, low = (Scores(torch.tensor([value]), None) for value in (0.9, 0.4))
    squares = accuracies(OBJECTIVES["least-squares"], high, low)
    assert {name: value.item() for name, value in squares.items()} == {"clean": 1.0}
    ordered = accuracies(
        WASSERSTEIN, Scores(torch.tensor([5.0, 7.0]), None), Scores(torch.tensor([6.0, 5.0]), None)
    )
    assert ordered["clean"].item() == pytest.approx((0 + 0.5 + 1 + 1) / 4)
