"""Mini-batches weighted by a validation gradient: every formula against an independent one."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import spreading
import torch
import torch.distributed as dist
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from torch import Tensor, nn

from selfsup_cli.engine.bilevel import BilevelGradient, BilevelSGD, Loss, layers_of
from selfsup_cli.engine.checkpoints import read_tensors
from selfsup_cli.engine.minibatches import mini_batches, with_masks
from selfsup_cli.randomness import generator

ROOT = Path(__file__).resolve().parents[2]


def rows(count: int, size: int = 6, seed: int = 0) -> Tensor:
    return torch.randn(count, size, generator=generator(seed, "rows"), dtype=torch.float64)


def linear(gradients: Tensor, p: Tensor) -> list[Loss]:
    """Losses whose gradients for `p` are the rows given, whatever `p` is."""
    return [lambda g=g: (g * p).sum() for g in gradients]  # type: ignore[misc]


def combined(gradients: Tensor, **settings: Any) -> tuple[np.ndarray, np.ndarray]:
    p = nn.Parameter(torch.zeros_like(gradients[0]))
    weighting = BilevelGradient([p], **settings)(linear(gradients, p))
    assert p.grad is not None
    return weighting.weights.numpy(), p.grad.numpy().copy()


def cost(omega: np.ndarray, g: np.ndarray, lam: float, mu: float, *, diagonal: bool) -> float:
    """Equation 8.7 without its constraint; "diagonal" leaves out the products of different ones."""
    v, t = g[0], g[1:]
    if diagonal:
        quadratic = sum(w * w * (one @ one) for w, one in zip(omega, t, strict=True))
    else:
        quadratic = float(((omega @ t) ** 2).sum())
    return float(-omega @ (t @ v) + quadratic / (2 * lam) + mu / 2 * omega @ omega)


@pytest.mark.parametrize("solver", ["diagonal", "exact"])
@pytest.mark.parametrize(("lam", "mu"), [(1.0, 0.01), (0.3, 2.0)])
def test_weights_minimise_what_the_thesis_minimises(solver: str, lam: float, mu: float) -> None:
    g = rows(4)
    found, _ = combined(g, solver=solver, lam=lam, mu=mu, normalize=False)
    arguments = (g.numpy(), lam, mu)
    best = minimize(
        lambda w: cost(w, *arguments, diagonal=solver == "diagonal"), np.zeros(3), tol=1e-12
    )
    np.testing.assert_allclose(found, best.x, atol=1e-5)


@given(
    seed=st.integers(0, 1000), k=st.integers(2, 9), size=st.integers(1, 40),
    lam=st.floats(0.1, 10), mu=st.floats(0.001, 1),
)  # fmt: skip
@settings(max_examples=25)
def test_the_exact_weights_solve_the_linear_system(
    seed: int, k: int, size: int, lam: float, mu: float
) -> None:
    g = rows(k, size, seed)
    v, t = g[0].numpy(), g[1:].numpy()
    omega = np.linalg.solve(t @ t.T / lam + mu * np.eye(k - 1), t @ v)
    found, gradient = combined(g, solver="exact", lam=lam, mu=mu, normalize=False)
    np.testing.assert_allclose(found, omega, rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(gradient, omega @ t, rtol=1e-6, atol=1e-8)
    found, gradient = combined(g, solver="exact", lam=lam, mu=mu)
    omega /= np.abs(omega).sum()
    np.testing.assert_allclose(found, omega, rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(gradient, omega @ t, rtol=1e-6, atol=1e-8)


@given(seed=st.integers(0, 1000), k=st.integers(2, 33), mu=st.floats(0, 1))
@settings(max_examples=25)
def test_weights_and_gradient_follow_equations_8_10_and_8_11(seed: int, k: int, mu: float) -> None:
    g = rows(k, seed=seed)
    v, *t = g.numpy()
    omega = np.array([v @ one / (one @ one / 0.7 + mu) for one in t])
    omega /= np.abs(omega).sum()
    found, gradient = combined(g, lam=0.7, mu=mu)
    np.testing.assert_allclose(found, omega, rtol=1e-9)
    np.testing.assert_allclose(gradient, sum(w * one for w, one in zip(omega, t, strict=True)))


@pytest.mark.parametrize("sign", [1, -1])
def test_of_two_mini_batches_one_is_followed_or_turned_around(sign: int) -> None:
    g = rows(1).repeat(2, 1) + 0.1 * rows(2, seed=1)
    g[1] *= sign
    found, gradient = combined(g)
    assert found.tolist() == [sign]
    np.testing.assert_allclose(gradient, sign * g[1].numpy())


@pytest.mark.parametrize("solver", ["diagonal", "exact", "uniform"])
@pytest.mark.parametrize("mu", [0.0, 0.01])
def test_equal_mini_batches_have_equal_weights(solver: str, mu: float) -> None:
    g = rows(1).repeat(8, 1)
    found, gradient = combined(g, solver=solver, mu=mu)
    np.testing.assert_allclose(found, np.full(7, 1 / 7))
    np.testing.assert_allclose(gradient, g[0].numpy())


def test_without_mu_the_scale_of_a_loss_does_not_matter() -> None:
    g = rows(4)
    scaled = g.clone()
    scaled[2] *= 37.0
    weights, gradient = combined(g, mu=0.0, normalize=False)
    others, same = combined(scaled, mu=0.0, normalize=False)
    np.testing.assert_allclose(others * [1, 37, 1], weights)
    np.testing.assert_allclose(same, gradient)


def test_the_control_weights_uniformly_whatever_is_said_of_normalisation() -> None:
    g = rows(5)
    for normalize in (True, False):
        found, gradient = combined(g, solver="uniform", normalize=normalize)
        np.testing.assert_allclose(found, np.full(4, 0.25))
        np.testing.assert_allclose(gradient, g[1:].mean(0).numpy())


def small(seed: int = 0) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.BatchNorm2d(2), nn.Conv2d(2, 3, 2), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(),
            nn.Linear(12, 3),
        )  # fmt: skip


def splits(count: int, size: int = 6, seed: int = 0) -> list[tuple[Tensor, Tensor]]:
    x = torch.randn(count, size, 2, 3, 3, generator=generator(seed, "images"))
    return [(one, torch.arange(size) % 3) for one in x]


def losses_of(module: nn.Module, data: Sequence[tuple[Tensor, Tensor]]) -> list[Loss]:
    return [lambda x=x, y=y: F.cross_entropy(module(x), y) for x, y in data]  # type: ignore[misc]


def test_a_step_is_momentum_and_decay_of_weights_on_the_combined_gradient() -> None:
    module, twin = small(), small()
    optimizer = BilevelSGD(module.parameters(), lr=0.1, momentum=0.9, weight_decay=0.05)
    velocity = {name: torch.zeros_like(p) for name, p in twin.named_parameters()}
    for step in range(3):
        data = splits(4, seed=step)
        assert optimizer.step(losses_of(module, data)) is not None
        parameters = dict(twin.named_parameters())
        each = [
            torch.autograd.grad(loss(), list(parameters.values())) for loss in losses_of(twin, data)
        ]
        flat = [torch.cat([g.flatten() for g in one]).double() for one in each]
        omega = torch.stack([flat[0] @ one / (one @ one + 0.01) for one in flat[1:]])
        omega /= omega.abs().sum()
        for place, (name, p) in enumerate(parameters.items()):
            g = sum(w * one[place] for w, one in zip(omega, each[1:], strict=True))
            g = g + (0.05 * p if name.endswith(("1.weight", "5.weight")) else 0)
            velocity[name] = 0.9 * velocity[name] + g
            p.data -= 0.1 * velocity[name]
    for name, value in module.state_dict().items():
        torch.testing.assert_close(value, twin.state_dict()[name], rtol=1e-4, atol=1e-5)
    assert int(module.get_buffer("2.num_batches_tracked")) == 12  # one for each mini-batch


def test_layers_are_weights_with_what_follows_them() -> None:
    module = small()
    names = {id(p): name for name, p in module.named_parameters()}
    assert [[names[id(p)] for p in layer] for layer in layers_of(module)] == [
        ["0.weight", "0.bias", "1.weight", "1.bias", "2.weight", "2.bias"],
        ["5.weight", "5.bias"],
    ]


def test_weights_per_layer_are_those_of_each_layer_alone() -> None:
    g = rows(4, 7)
    p, q = nn.Parameter(torch.zeros(3).double()), nn.Parameter(torch.zeros(4).double())
    losses: list[Loss] = [
        lambda one=one: (one[:3] * p).sum() + (one[3:] * q).sum()  # type: ignore[misc]
        for one in g
    ]
    for solver in ("diagonal", "exact"):
        gradient = BilevelGradient([p, q], layers=[[q], [p]], solver=solver)  # type: ignore[arg-type]
        found = gradient(losses)
        for layer, (mine, part) in enumerate([(q, g[:, 3:]), (p, g[:, :3])]):
            weights, expected = combined(part, solver=solver)
            np.testing.assert_allclose(found.weights[:, layer], weights)
            assert mine.grad is not None
            np.testing.assert_allclose(mine.grad, expected)


def test_what_is_logged() -> None:
    g = torch.tensor([[1.0, 0], [2, 0], [-3, 0], [0, 5], [3, 4]]).double()
    p = nn.Parameter(torch.ones(2).double())
    found = BilevelGradient([p])(linear(g, p))
    np.testing.assert_allclose(found.agreement, [1, -1, 0, 0.6])
    assert found.losses.tolist() == [1, 2, -3, 5, 7]
    assert found.negative == 0.25
    assert (found.left_out, found.skipped) == ((), "")


def moved(gradients: Tensor, **settings: Any) -> tuple[Tensor, str, tuple[int, ...]]:
    """How far a second step goes after one along the first axis, why it may not, who is out."""
    p = nn.Parameter(torch.ones(1, 2, dtype=torch.float64))
    optimizer = BilevelSGD([p], lr=1.0, momentum=0.5, weight_decay=0.1, **settings)
    optimizer.step(linear(torch.tensor([[1.0, 0], [1.0, 0]]).double(), p))
    before = p.detach().clone()
    weighting = optimizer.step(linear(gradients.double(), p))
    assert weighting is not None
    return (p.detach() - before)[0], weighting.skipped, weighting.left_out


def test_a_step_is_skipped_where_all_weights_are_zero_or_disagree() -> None:
    orthogonal = torch.tensor([[1.0, 0], [0, 1], [0, -2]])
    still, why, _ = moved(orthogonal)
    assert (still.tolist(), why) == ([0, 0], "all weights are zero")
    against = torch.tensor([[1.0, 0], [-1, 0], [-2, 1]])
    way, why, _ = moved(against)
    assert way[0] != 0
    assert why == ""
    still, why, _ = moved(against, skip_disagreeing=True)
    assert (still.tolist(), why[:25]) == ([0, 0], "all mini-batches disagree")


@pytest.mark.parametrize("solver", ["diagonal", "exact", "uniform"])
def test_a_gradient_that_is_not_finite_is_left_out(solver: str) -> None:
    g = rows(4)
    bad = torch.cat([g[:2], torch.full((1, 6), torch.nan), torch.full((1, 6), torch.inf), g[2:]])
    weights, gradient = combined(bad, solver=solver)
    expected, same = combined(g, solver=solver)
    np.testing.assert_allclose(weights[[0, 3, 4]], expected)
    assert weights[1:3].tolist() == [0, 0]
    np.testing.assert_allclose(gradient, same)
    nan = torch.full((1, 2), torch.nan)
    still, why, out = moved(torch.cat([nan, torch.ones(2, 2)]), solver=solver)
    assert (still.tolist(), out) == ([0, 0], (0,))
    assert "validation mini-batch is not finite" in why
    with pytest.raises(FloatingPointError, match="no mini-batch has a finite"):
        moved(nan.repeat(3, 1), solver=solver)


@pytest.mark.parametrize(("values", "message"), [
    ({"lam": 0.0}, "λ̂ has to be above 0"), ({"mu": -1.0}, "μ̂ at least 0"),
    ({"solver": "newton"}, "no solver 'newton'"), ({"layers": []}, "every parameter once"),
])  # fmt: skip
def test_settings_that_cannot_be_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        BilevelGradient([nn.Parameter(torch.ones(2))], **values)


def test_a_single_mini_batch_and_parameters_that_come_later_are_refused() -> None:
    p = nn.Parameter(torch.ones(6).double())
    optimizer = BilevelSGD([p])
    with pytest.raises(ValueError, match="at least one to follow"):
        optimizer.step(linear(rows(1), p))
    with pytest.raises(ValueError, match="cannot be added"):
        optimizer.add_param_group({"params": [nn.Parameter(torch.ones(1))]})


def test_frozen_and_channels_last_parameters_take_part_as_they_are() -> None:
    module, plain = small().to(memory_format=torch.channels_last), small()  # type: ignore[call-overload]
    for one in (module, plain):
        one[5].requires_grad_(False)
        BilevelSGD(one.parameters(), lr=0.1).step(losses_of(one, splits(3)))
    assert module[1].weight.grad.stride() == module[1].weight.stride()
    assert torch.equal(module[5].weight, small()[5].weight)
    for mine, other in zip(module.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("solver", ["diagonal", "uniform"])
def test_memory_does_not_grow_with_the_number_of_mini_batches(solver: Any) -> None:
    p = nn.Parameter(torch.zeros(1003))
    optimizer = BilevelSGD([p], momentum=0.0, solver=solver)
    for k in (2, 32):
        optimizer.step(linear(rows(k, 1003).float(), p))
        assert p.grad is not None
        # All that is kept is in one piece, and one third of it is what every optimiser needs.
        assert p.grad.untyped_storage().nbytes() <= 3.02 * 4 * 1003


def test_a_step_can_be_clipped_before_it_is_taken() -> None:
    p = nn.Parameter(torch.zeros(6).double())
    optimizer = BilevelSGD([p], lr=1.0)
    optimizer.weigh(linear(rows(3), p))
    assert not p.detach().any()
    nn.utils.clip_grad_norm_([p], 0.5)
    assert optimizer.step() is None
    assert float(p.detach().norm()) == pytest.approx(0.5)


def test_masks_are_equal_or_independent_and_do_not_depend_on_what_came_before() -> None:
    def ones() -> Tensor:
        return F.dropout(torch.ones(64), 0.5, training=True)

    state = torch.random.get_rng_state()
    try:
        for equal in (True, False):
            first, second, third = (f() for f in with_masks([ones] * 3, 0, 5, equal=equal))
            assert torch.equal(first, second) is equal
            assert torch.equal(second, third) is equal
            (again,) = (f() for f in with_masks([ones], 0, 5, equal=equal, first=2))
            assert torch.equal(third, again)
        assert not torch.equal(third, with_masks([ones], 0, 6, first=2)[0]())
    finally:
        torch.random.set_rng_state(state)


def test_a_batch_is_cut_in_order() -> None:
    batch = {"image": torch.arange(12).view(6, 2), "label": torch.arange(6)}
    parts = mini_batches(batch, 3)
    assert [part["label"].tolist() for part in parts] == [[0, 1], [2, 3], [4, 5]]
    assert torch.equal(torch.cat([part["image"] for part in parts]), batch["image"])
    with pytest.raises(ValueError, match="4 equal parts"):
        mini_batches(batch, 4)


def test_two_processes_do_what_one_does(tmp_path: Path) -> None:
    script = Path(spreading.__file__)
    other = subprocess.Popen([sys.executable, str(script), str(tmp_path)])
    state = torch.random.get_rng_state()
    try:
        spreading.join(0, str(tmp_path))
        shared = {case: spreading.trained(case, spread=True) for case in spreading.CASES}
        assert other.wait(60) == 0
    finally:
        other.kill()
        if dist.is_initialized():
            dist.destroy_process_group()
    second = read_tensors(tmp_path / "second.pt")
    for case in spreading.CASES:
        alone = spreading.trained(case, spread=False)
        for name, value in alone.items():
            for found in (shared[case][name], second[case][name]):
                torch.testing.assert_close(found, value, rtol=1e-9, atol=1e-12, equal_nan=True)
    torch.random.set_rng_state(state)


def test_ten_lines_of_the_documentation_run() -> None:
    (snippet,) = re.findall(
        r"```python\n(.*?)```", (ROOT / "docs" / "bilevel.md").read_text(), re.S
    )
    assert len([line for line in snippet.splitlines() if line.strip()]) <= 12
    state = torch.random.get_rng_state()
    try:
        torch.manual_seed(0)
        found: dict[str, Any] = {}
        exec(snippet, found)  # noqa: S102
    finally:
        torch.random.set_rng_state(state)
    assert found["weighting"].weights.shape == (7,)
    assert float(found["weighting"].losses.mean()) < 0.3
