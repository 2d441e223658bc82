"""The autoencoder and the repair network: counts, receptive field, gates, what stays as it is."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selfsup_cli.models.damage import Autoencoder, Decoder, Encoder, RepairNetwork


def gen(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(b: int = 2, high: int = 32, wide: int = 48, seed: int = 0) -> Tensor:
    return torch.rand(b, 3, high, wide, generator=gen(seed)) * 2 - 1


def count(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def lively(network: nn.Module, seed: int = 0) -> None:
    """Batch norm and biases as if after training: none of them the identity."""
    g = gen(seed)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for value in (module.weight, module.running_var):
                nn.init.uniform_(value, 0.5, 1.5, generator=g)  # type: ignore[arg-type]
            for value in (module.bias, module.running_mean):
                nn.init.uniform_(value, -0.5, 0.5, generator=g)  # type: ignore[arg-type]
        elif isinstance(module, nn.Conv2d) and module.bias is not None:
            nn.init.uniform_(module.bias, -0.5, 0.5, generator=g)


def ready(base: int = 4, **options: Any) -> tuple[Autoencoder, RepairNetwork]:
    autoencoder = Autoencoder(gen(), base=base)
    repair = RepairNetwork(gen(1), base=base, **options)
    for network in (autoencoder, repair):
        lively(network)
    return autoencoder.freeze(), repair


def masks(b: int, m: int, n: int, seed: int = 3) -> Tensor:
    return torch.rand(b, 1, m, n, generator=gen(seed)) < 0.5


def test_parameters_are_as_many_as_in_the_tables() -> None:
    assert count(Encoder(gen())) == 699_168
    assert count(Decoder(gen())) == 1_568_547
    repair = RepairNetwork(gen())
    assert count(repair) == 6_297_216
    assert [count(layer) for layer in repair.layers] == [
        4_724_736, 1_182_720, 296_448, 74_496, 18_816,
    ]  # fmt: skip
    local = RepairNetwork(gen(), base=2, local=True)
    assert [count(layer) for layer in local.layers] == [9 * 32 * (33 + 32) + 3 * 32] * 5


@pytest.mark.parametrize(("kernel", "seen"), [(2, 18), (3, 33)])
def test_an_entry_of_the_code_sees_so_many_pixels(kernel: Any, seen: int) -> None:
    encoder = Encoder(gen(), base=2, kernel=kernel).eval()
    x = images(1, 96, 96).requires_grad_()
    code = encoder(x)
    assert code.shape == (1, 32, 6, 6)
    for i, j in ((2, 3), (3, 2)):
        (gradient,) = torch.autograd.grad(code[0, :, i, j].sum(), x, retain_graph=True)
        rows = gradient.abs().sum((0, 1, 3)).nonzero().flatten()
        columns = gradient.abs().sum((0, 1, 2)).nonzero().flatten()
        for found, place in ((rows, i), (columns, j)):
            assert len(found) == int(found[-1] - found[0] + 1) == seen
            assert found[0] == 16 * place - 1


def test_shapes_and_range() -> None:
    autoencoder, repair = ready()
    x = images(2, 32, 48)
    code = autoencoder.encoder(x)
    assert code.shape == (2, autoencoder.encoder.out_channels, 2, 3)
    for out in (autoencoder(x), repair(code, masks(2, 2, 3), autoencoder.decoder)):
        assert out.shape == x.shape
        assert out.abs().max() <= 1


@pytest.mark.parametrize("size", [(40, 48), (32, 50), (8, 32)])
def test_sides_must_be_multiples_of_16(size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="multiples of 16"):
        Autoencoder(gen(), base=2)(images(1, *size))
    with pytest.raises(ValueError, match="an autoencoder of 0 channels"):
        Encoder(gen(), base=0)


def test_the_autoencoder_computes_what_its_tables_say() -> None:
    autoencoder, _ = ready()
    state = autoencoder.state_dict()

    def norm(x: Tensor, name: str) -> Tensor:
        mean, var, weight, bias = (
            state[f"{name}.{one}"][:, None, None]
            for one in ("running_mean", "running_var", "weight", "bias")
        )
        x = (x - mean) / (var + 1e-3).sqrt() * weight + bias
        return torch.maximum(x / 10, x)

    x = y = images(2)
    for i in range(5):
        weight = state[f"encoder.layers.{i}.0.weight"]
        y = F.conv2d(y, weight, stride=2 if i else 1, padding=0 if i else 1)
        y = norm(y, f"encoder.layers.{i}.1")
    torch.testing.assert_close(autoencoder.encoder(x), y, rtol=1e-4, atol=1e-4)
    for i in range(4):
        # Twice the size: ¾ of the nearest pixel and ¼ of the next, the border repeated.
        for axis in (2, 3):
            size = y.shape[axis]
            at = torch.arange(2 * size)
            near = at // 2
            far = (near + torch.where(at % 2 == 0, -1, 1)).clamp(0, size - 1)
            y = 0.75 * y.index_select(axis, near) + 0.25 * y.index_select(axis, far)
        y = F.conv2d(y, state[f"decoder.layers.{i}.1.weight"], padding=1)
        y = norm(y, f"decoder.layers.{i}.2")
    last = (state["decoder.layers.4.0.weight"], state["decoder.layers.4.0.bias"])
    torch.testing.assert_close(
        autoencoder(x), torch.tanh(F.conv2d(y, *last, padding=1)), rtol=1e-4, atol=1e-4
    )


def test_weights_and_norms_start_as_listed() -> None:
    autoencoder, repair = Autoencoder(gen(), base=16), RepairNetwork(gen(), base=16)
    for network in (autoencoder, repair):
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                assert (module.momentum, module.eps, module.affine) == (0.025, 1e-3, True)
                assert (module.weight == 1).all()
                assert (module.bias == 0).all()
            elif isinstance(module, nn.Conv2d):
                area = math.prod(module.kernel_size)
                std = (2 / (area * (module.in_channels + module.out_channels) / 2)) ** 0.5
                # The widening of what is cut at 2σ is 3 ‰ too much.
                tolerance = 0.003 + 4 / math.sqrt(2 * module.weight.numel())
                assert float(module.weight.detach().std()) == pytest.approx(std, rel=tolerance)
                assert module.weight.abs().max() < 2.3 * std
                assert module.bias is None or (module.bias == 0).all()


def test_weights_depend_on_the_generator_alone() -> None:
    before = torch.random.get_rng_state()
    first, again, other = (Autoencoder(gen(seed), base=2).state_dict() for seed in (0, 0, 1))
    assert torch.equal(torch.random.get_rng_state(), before)
    name = "decoder.layers.2.1.weight"
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(first[name], other[name])


@pytest.mark.parametrize("local", [False, True])
@pytest.mark.parametrize("training", [False, True])
def test_with_nothing_dropped_nothing_is_repaired(local: bool, training: bool) -> None:
    autoencoder, repair = ready(local=local)
    repair.train(training)
    code = autoencoder.encoder(images(3))
    kept = torch.ones(3, 1, *code.shape[2:], dtype=torch.bool)
    plain = autoencoder.decoder(code)
    assert torch.equal(repair(code, kept, autoencoder.decoder), plain)
    assert not torch.equal(repair(code, ~kept, autoencoder.decoder), plain)
    assert not torch.equal(repair(code, kept, autoencoder.decoder, gated=False), plain)


@pytest.mark.parametrize("local", [False, True])
@pytest.mark.parametrize("gated", [False, True])
def test_repairing_follows_equations_3_1_and_3_2(local: bool, gated: bool) -> None:
    autoencoder, repair = ready(local=local, gated=gated)
    repair.eval()
    code, kept = autoencoder.encoder(images(3)), masks(3, 2, 3)

    def repaired(x: Tensor, i: int) -> Tensor:
        factor = x.shape[-1] // 3
        mask = torch.kron(kept.float(), torch.ones(factor, factor))
        layer: Any = repair.layers[i]
        conv, norm, _ = layer.first
        inner = norm(F.conv2d(torch.cat([x, mask], 1), conv.weight, padding=1))
        change = F.conv2d(
            torch.where(inner > 0, inner, 0.1 * inner),
            layer.second.weight, layer.second.bias, padding=1,
        )  # fmt: skip
        return torch.where(mask == 0, x + change, x) if gated else x + change

    expected = code
    if local:
        for i in range(5):
            expected = repaired(expected, i)
        expected = autoencoder.decoder(expected)
    else:
        for i, layer in enumerate(autoencoder.decoder.layers):
            expected = layer(repaired(expected, i))
    found = repair(code, kept, autoencoder.decoder)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_far_from_what_was_dropped_nothing_changes() -> None:
    autoencoder, repair = ready()
    repair.eval()
    code = autoencoder.encoder(images(1, 16 * 7, 16))
    kept = torch.ones(1, 1, 7, 1, dtype=torch.bool)
    kept[0, 0, 0, 0] = False
    change = (repair(code, kept, autoencoder.decoder) - autoencoder.decoder(code)).abs()
    assert change[:, :, :16].max() > 0.01
    # Four doublings and five convolutions reach less than four entries.
    assert change[:, :, 64:].max() == 0


def test_a_frozen_autoencoder_stays_as_it_is_byte_for_byte() -> None:
    autoencoder, repair = ready()
    before = {name: value.clone() for name, value in autoencoder.state_dict().items()}
    whole = nn.ModuleList([autoencoder, repair]).train()
    assert not autoencoder.training
    assert not autoencoder.decoder.layers[0].training
    assert repair.training
    optimizer = torch.optim.SGD(whole.parameters(), lr=0.1)
    start = {name: value.clone() for name, value in repair.state_dict().items()}
    for step in range(2):
        x = images(4, seed=step)
        out = repair(autoencoder.encoder(x), masks(4, 2, 3), autoencoder.decoder)
        optimizer.zero_grad()
        F.mse_loss(out, x).backward()
        assert all(p.grad is None for p in autoencoder.parameters())
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in repair.parameters())
        optimizer.step()
    for name, value in autoencoder.state_dict().items():
        assert torch.equal(value, before[name])
    assert all(not torch.equal(value, start[name]) for name, value in repair.state_dict().items())


def test_an_autoencoder_that_is_not_frozen_trains() -> None:
    autoencoder = Autoencoder(gen(), base=2)
    assert autoencoder.train().encoder.training
    F.mse_loss(autoencoder(images()), images()).backward()
    assert all(p.grad is not None for p in autoencoder.parameters())
