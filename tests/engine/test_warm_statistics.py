"""Running statistics of batch norm after few updates."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from selfsup_cli.engine.statistics import WarmStatistics
from selfsup_cli.randomness import generator


def trained(module: nn.Module, batches: torch.Tensor) -> None:
    warm = WarmStatistics(module)
    module.train()
    for batch in batches:
        warm()
        module(batch)


def test_they_begin_as_the_average_of_all_batches() -> None:
    batches = 5 + 3 * torch.randn(10, 64, 2, generator=generator(0, "batches"))
    norm = nn.BatchNorm1d(2, momentum=0.025)
    trained(norm, batches)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    torch.testing.assert_close(norm.running_mean, batches.mean((0, 1)))
    torch.testing.assert_close(norm.running_var, batches.var(1).mean(0))


def test_they_go_on_with_their_momentum() -> None:
    batches = torch.randn(12, 64, 1, generator=generator(1, "batches"))
    norm = nn.BatchNorm1d(1, momentum=0.25)
    trained(norm, batches)
    mean = batches[:4].mean()
    for batch in batches[4:]:
        mean = 0.75 * mean + 0.25 * batch.mean()
    assert norm.running_mean is not None
    assert norm.running_mean.item() == pytest.approx(float(mean), abs=1e-6)
    assert norm.momentum == 0.25


def test_what_was_trained_before_goes_on_as_it_was() -> None:
    batches = torch.randn(60, 16, 1, generator=generator(2, "batches"))
    norm = nn.BatchNorm1d(1, momentum=0.1)
    trained(norm, batches[:50])
    twin = nn.BatchNorm1d(1, momentum=0.1)
    twin.load_state_dict(norm.state_dict())
    trained(norm, batches[50:])
    for batch in batches[50:]:
        twin(batch)
    assert torch.equal(norm.running_mean, twin.running_mean)  # type: ignore[arg-type]


def test_interrupted_they_are_the_same() -> None:
    batches = torch.randn(9, 16, 1, generator=generator(3, "batches"))
    whole, parted = (nn.BatchNorm1d(1, momentum=0.05) for _ in range(2))
    trained(whole, batches)
    trained(parted, batches[:4])
    resumed = nn.BatchNorm1d(1, momentum=0.05)
    resumed.load_state_dict(parted.state_dict())
    trained(resumed, batches[4:])
    assert torch.equal(whole.running_mean, resumed.running_mean)  # type: ignore[arg-type]


def test_a_deep_network_of_small_weights_answers_when_it_is_tested() -> None:
    """Without it, few updates leave a network that gives one answer to everything."""
    g = generator(4, "network")
    layers: list[nn.Module] = []
    for _ in range(6):
        linear = nn.Linear(32, 32, bias=False)
        nn.init.normal_(linear.weight, std=0.01, generator=g)
        layers += [linear, nn.BatchNorm1d(32, momentum=0.025), nn.ReLU()]
    warm = nn.Sequential(*layers)
    batches = torch.randn(60, 64, 32, generator=g)
    cold_state = {name: value.clone() for name, value in warm.state_dict().items()}
    trained(warm, batches)
    warm_out = warm.eval()(batches[0])
    warm.load_state_dict(cold_state)
    for module in warm.modules():
        if isinstance(module, nn.BatchNorm1d):
            module.momentum = 0.025
    warm.train()
    for batch in batches:
        warm(batch)
    cold = warm.eval()(batches[0])
    assert warm_out.std(0).mean() > 0.4
    assert cold.std(0).mean() < 0.1
