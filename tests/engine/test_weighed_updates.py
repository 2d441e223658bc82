"""Steps on weighted mini-batches as the engine takes them: schedule, clipping, what goes wrong."""

from __future__ import annotations

import logging

import pytest
import torch
from torch import Tensor, nn

from selfsup_cli.config.blocks import Optim
from selfsup_cli.config.weighing import WeighedOptim, Weighing
from selfsup_cli.engine import schedule
from selfsup_cli.engine.bilevel import Loss
from selfsup_cli.engine.devices import Hardware
from selfsup_cli.engine.trainable import NotFiniteError, Update
from selfsup_cli.errors import InputError
from selfsup_cli.randomness import generator

CPU = Hardware(torch.device("cpu"), None)


def made(
    clip: float | None = None, scaler: torch.amp.GradScaler | None = None, **how: object
) -> tuple[nn.Linear, Update]:
    net = nn.Linear(3, 2)
    with torch.no_grad():
        for p in net.parameters():
            p.copy_(torch.randn(p.shape, generator=generator(0, p.ndim, "weights")))
    settings = WeighedOptim(name="bilevel", lr=0.1, weight_decay=0.5, nesterov=False)
    weighing = Weighing.model_validate(how)
    optimizer = schedule.build_weighed(net, settings, weighing)
    update = Update(
        {"main": optimizer}, lambda step: 0.5**step, CPU, seed=0, clip_grad=clip, scaler=scaler
    )
    return net, update


def losses(net: nn.Module, *scales: float) -> list[Loss]:
    def loss(number: int, scale: float) -> Tensor:
        x = torch.randn(4, 3, generator=generator(number, "x"))
        y = torch.randn(4, 2, generator=generator(number, "y"))
        value: Tensor = scale * (net(x) - y).square().mean()
        return value

    return [lambda i=i, s=s: loss(i, s) for i, s in enumerate(scales)]  # type: ignore[misc]


def gradients(net: nn.Module, *scales: float) -> list[Tensor]:
    found = []
    for loss in losses(net, *scales):
        grads = torch.autograd.grad(loss(), list(net.parameters()))
        found.append(torch.cat([one.flatten() for one in grads]))
    return found


def test_a_step_follows_equation_8_10_by_the_schedule_and_clipped() -> None:
    net, update = made(clip=0.25)
    before = torch.cat([p.detach().flatten() for p in net.parameters()])
    first, *rest = gradients(net, 1, 1, 1)
    weights = torch.stack([first @ g / (g @ g + 0.01) for g in rest])
    weights /= weights.abs().sum()
    combined = sum(w * g for w, g in zip(weights, rest, strict=True))
    assert isinstance(combined, Tensor)
    assert combined.norm() > 0.25
    combined = combined / combined.norm() * 0.25
    combined[:6] += 0.5 * before[:6]  # the decay of weights alone
    update.begin(1)
    found = update.weighed(losses(net, 1, 1, 1))
    assert torch.allclose(found.weights.float(), weights)
    after = torch.cat([p.detach().flatten() for p in net.parameters()])
    assert torch.allclose(after, before - 0.05 * combined, atol=1e-6)
    assert update.lr == {"main": pytest.approx(0.05)}


def test_a_step_that_is_skipped_moves_nothing_and_has_its_rate() -> None:
    net, update = made()
    update.begin(0)
    update.weighed(losses(net, 1, 1))  # momentum
    before = [p.detach().clone() for p in net.parameters()]
    update.begin(1)
    found = update.weighed(losses(net, float("nan"), 1))
    assert found.skipped
    assert all(torch.equal(p, q) for p, q in zip(net.parameters(), before, strict=True))
    assert update.lr == {"main": pytest.approx(0.05)}


def test_a_mini_batch_that_is_not_finite_is_named_and_does_not_count(
    caplog: pytest.LogCaptureFixture,
) -> None:
    net, update = made()
    update.begin(4)
    with caplog.at_level(logging.WARNING, "selfsup"):
        found = update.weighed(losses(net, 1, float("inf"), 1))
    assert found.weights[0] == 0
    assert "step 5: the loss or gradient of mini-batch 2 of 3 is not finite" in caplog.text
    assert all(bool(p.isfinite().all()) for p in net.parameters())


def test_all_mini_batches_that_are_not_finite_end_the_training() -> None:
    net, update = made()
    before = [p.detach().clone() for p in net.parameters()]
    with pytest.raises(NotFiniteError, match=r"all mini-batches .* in step 1"):
        update.weighed(losses(net, float("nan"), float("nan")))
    assert all(torch.equal(p, q) for p, q in zip(net.parameters(), before, strict=True))


def test_scaled_losses_are_refused() -> None:
    net, update = made(scaler=torch.amp.GradScaler("cpu"))
    with pytest.raises(InputError, match="fp16"):
        update.weighed(losses(net, 1, 1))


def test_weights_per_layer_leave_out_what_is_frozen() -> None:
    net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    net[0].requires_grad_(False)
    optimizer = schedule.build_weighed(
        net, WeighedOptim(name="bilevel"), Weighing(per_layer=True, count=2)
    )
    found = optimizer.weigh(losses(net, 1, 1, 1))
    assert found.weights.shape == (2, 1)


def test_a_staircase_falls_after_every_epoch() -> None:
    factor = schedule.factor(Optim(schedule="staircase", each_epoch=0.9), 100, 7)
    assert [factor(step) for step in (0, 6, 7, 20)] == pytest.approx([1, 1, 0.9, 0.81])
    later = schedule.within(Optim(schedule="staircase", each_epoch=0.9), 10, 100, 7)
    assert [later(step) for step in (10, 17)] == pytest.approx([1, 0.9])
