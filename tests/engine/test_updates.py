"""What one step of several optimisers does: whose weights move, by what rate, at what scale."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from selfsup_cli.config.blocks import Optim
from selfsup_cli.engine import schedule
from selfsup_cli.engine.devices import choose
from selfsup_cli.engine.trainable import NotFiniteError, Update


def two() -> tuple[nn.Parameter, nn.Parameter, Update]:
    a, b = nn.Parameter(torch.zeros(())), nn.Parameter(torch.zeros(()))
    optimizers = {name: torch.optim.SGD([p], lr=1.0) for name, p in (("a", a), ("b", b))}
    return a, b, Update(optimizers, lambda step: 1.0, choose("cpu"), seed=0)


def test_a_loss_moves_only_those_it_is_given_for() -> None:
    a, b, update = two()
    update(a + 3 * b, "a")
    assert (a.item(), b.item()) == (-1, 0)
    assert b.grad is None
    update(a + 3 * b, "a", "b")
    assert (a.item(), b.item()) == (-2, -3)


def test_networks_that_play_against_each_other_move_by_the_weights_both_had() -> None:
    a, b, update = two()
    with torch.no_grad():
        a.fill_(2.0)
        b.fill_(3.0)
    product = a * b
    update.together((product, ("a",)), (-product, ("b",)))
    # Each by the other's weight before the step: 2 − 3 and 3 + 2; one after the other b would
    # have moved by −1.
    assert (a.item(), b.item()) == (-1, 5)


def test_of_losses_that_move_together_none_moves_anything_if_one_is_not_finite() -> None:
    a, b, update = two()
    with pytest.raises(NotFiniteError, match=r"the loss \(b\) became inf in step 1"):
        update.together((a * 1.0, ("a",)), (b + torch.inf, ("b",)))
    assert (a.item(), b.item()) == (0, 0)


class Scaler:
    """Doubles losses; its scale changes with every update, as a real one's does now and then."""

    def __init__(self) -> None:
        self.factor = 2.0
        self.updates = 0

    def scale(self, loss: torch.Tensor) -> torch.Tensor:
        return loss * self.factor

    def step(self, optimizer: torch.optim.Optimizer) -> None:
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                parameter.grad /= self.factor
        optimizer.step()

    def update(self) -> None:
        self.factor *= 2
        self.updates += 1


def test_all_optimisers_of_a_step_are_unscaled_by_the_scale_of_their_loss() -> None:
    a, b, update = two()
    scaler = Scaler()
    update.scaler = scaler  # type: ignore[assignment]
    for step in range(2):
        update.begin(step)
        update(a + b, "a", "b")
        update(b * 1.0, "b")
        update.end()
    assert (a.item(), b.item()) == (-2, -4)
    assert scaler.updates == 2
    update.begin(2)
    update.end()
    assert scaler.updates == 2


def test_a_step_names_the_rates_of_those_that_moved() -> None:
    a, b, update = two()
    update.begin(0)
    update(a + b, "a", "b")
    assert update.lr == {"a": 1.0, "b": 1.0}
    update.begin(1)
    update(a * 1.0, "a")
    assert update.lr == {"a": 1.0}


def test_a_loss_that_is_not_finite_moves_nothing() -> None:
    a, _, update = two()
    with pytest.raises(NotFiniteError, match="step 1"):
        update(a * torch.tensor(float("nan")), "a")
    assert a.item() == 0


def test_a_schedule_that_begins_later_ends_with_the_others() -> None:
    settings = Optim(final_factor=0.1)
    later = schedule.within(settings, 4, 10)
    assert [later(step) for step in range(5)] == [1.0] * 5
    assert later(10) == pytest.approx(0.1)
    constant = schedule.within(settings.model_copy(update={"schedule": "constant"}), 4, 10)
    assert constant(9) == 1
    a, _, update = two()
    update = replace(update, later={"a": later})
    update.begin(7)
    update(a * 1.0, "a")
    assert update.lr == {"a": pytest.approx(0.1 + 0.9 / 2)}
