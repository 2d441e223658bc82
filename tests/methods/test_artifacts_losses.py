"""The losses of spotting artifacts, by hand, and whom their gradients reach."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from selfsup_cli.methods.artifacts_losses import (
    ERROR_WEIGHT,
    MASK_WEIGHT,
    autoencoder_loss,
    class_loss,
    deceiving_loss,
    discriminator_loss,
    kept_error,
    mask_loss,
    repair_loss,
    repair_loss_as_released,
)
from selfsup_cli.models.alexnet_artifacts import AlexNetLRN, Discriminator, Verdicts
from selfsup_cli.models.backbone import Spec
from selfsup_cli.models.damage import Autoencoder, RepairNetwork
from selfsup_cli.transforms.damage import damage, draw_kept, upsample


def gen(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=gen(seed))


def log_sigmoid(x: float) -> float:
    return -math.log1p(math.exp(-x))


REAL = torch.tensor([[0.0, 2.0], [1.0, 0.5]])
CORRUPT = torch.tensor([[3.0, 1.0], [-1.0, 1.5]])


def test_the_classes_by_hand() -> None:
    # Logit of real less that of corrupt: 2, −½ for real images, −2, 2½ for corrupt ones.
    wrong = [log_sigmoid(2), log_sigmoid(-0.5), log_sigmoid(2), log_sigmoid(-2.5)]
    assert float(class_loss(REAL, CORRUPT)) == pytest.approx(-sum(wrong) / 4)
    deceived = [log_sigmoid(-2), log_sigmoid(2.5)]
    assert float(deceiving_loss(CORRUPT)) == pytest.approx(-sum(deceived) / 2)
    assert float(class_loss(REAL, CORRUPT[:1])) == pytest.approx(-sum(wrong[:3]) / 3)


def test_masks_by_hand() -> None:
    real = torch.tensor([0.5, -1.0]).view(1, 1, 1, 2)
    corrupt = torch.tensor([2.0, -3.0]).view(1, 1, 1, 2)
    kept = torch.tensor([True, False]).view(1, 1, 1, 2)
    said = [log_sigmoid(0.5), log_sigmoid(-1), log_sigmoid(2), log_sigmoid(3)]
    assert float(mask_loss(real, corrupt, kept)) == pytest.approx(-sum(said) / 4)
    said = [log_sigmoid(0.5), log_sigmoid(-1), log_sigmoid(-2), log_sigmoid(-3)]
    assert float(mask_loss(real, corrupt, ~kept)) == pytest.approx(-sum(said) / 4)


def test_the_discriminator_weighs_the_mask_by_a_tenth() -> None:
    real, corrupt = (
        Verdicts(one, randn(2, 1, 2, 2, seed=s)) for s, one in enumerate((REAL, CORRUPT))
    )
    kept = draw_kept(2, (2, 2), 0.5, gen())
    assert real.masks is not None
    assert corrupt.masks is not None
    masks = mask_loss(real.masks, corrupt.masks, kept)
    classes = class_loss(REAL, CORRUPT)
    assert MASK_WEIGHT == 0.1
    torch.testing.assert_close(discriminator_loss(real, corrupt, kept), classes + 0.1 * masks)
    torch.testing.assert_close(
        discriminator_loss(real, corrupt, kept, mask_weight=2), classes + 2 * masks
    )
    blind = (Verdicts(REAL, None), Verdicts(CORRUPT, None))
    assert torch.equal(discriminator_loss(*blind, kept), classes)


def test_the_error_is_a_mean_over_what_was_kept() -> None:
    x, y = randn(3, 3, 4, 4), randn(3, 3, 4, 4, seed=1)
    kept = draw_kept(3, (4, 4), 0.6, gen())
    squares = [
        float((y[b, c, i, j] - x[b, c, i, j]) ** 2)
        for b, _, i, j in kept.nonzero().tolist()
        for c in range(3)
    ]
    assert float(kept_error(y, x, kept)) == pytest.approx(sum(squares) / len(squares))
    everything = torch.ones_like(kept)
    torch.testing.assert_close(kept_error(y, x, everything), nn.functional.mse_loss(y, x))
    assert float(kept_error(y, x, ~everything)) == 0
    assert ERROR_WEIGHT == 30
    torch.testing.assert_close(autoencoder_loss(y, x), 30 * (y - x).square().mean())
    expected = deceiving_loss(CORRUPT) + 30 * kept_error(y, x, kept)
    torch.testing.assert_close(repair_loss(CORRUPT, y, x, kept), expected)


def test_what_was_dropped_is_no_error() -> None:
    x = randn(2, 3, 4, 4)
    kept = draw_kept(2, (4, 4), 0.5, gen())
    y = torch.where(kept, x, x + 1).requires_grad_()
    assert float(kept_error(y, x, kept).detach()) == 0
    y = (x + 1).requires_grad_()
    (gradient,) = torch.autograd.grad(kept_error(y, x, kept), y)
    assert bool((gradient != 0).eq(kept).all())


def test_as_released_repair_drives_the_discriminator_to_a_half() -> None:
    real, corrupt = (
        Verdicts(randn(4, 2, seed=s).requires_grad_(), randn(4, 1, 2, 2, seed=s).requires_grad_())
        for s in (1, 2)
    )
    x, y = randn(4, 3, 4, 4), randn(4, 3, 4, 4, seed=1)
    kept = draw_kept(4, (2, 2), 0.5, gen())
    pixels = upsample(kept, (4, 4))
    loss = repair_loss_as_released(real, corrupt, kept, y, x, pixels)
    assert corrupt.masks is not None
    on_classes, on_masks = torch.autograd.grad(loss, (corrupt.classes, corrupt.masks))
    sure = corrupt.classes.softmax(1)[:, 1]
    torch.testing.assert_close(on_classes[:, 1], (2 * sure - 1) / 8)
    torch.testing.assert_close(on_masks, 0.1 * (corrupt.masks.sigmoid() - kept.float()) / 32)
    without = loss - 30 * kept_error(y, x, pixels)
    logits = torch.cat([real.classes, corrupt.classes])
    both = -logits.log_softmax(1).sum(1).mean()
    assert real.masks is not None
    torch.testing.assert_close(without, both + 0.1 * mask_loss(real.masks, corrupt.masks, kept))


class Game:
    """One forward pass of everything, small."""

    def __init__(self) -> None:
        self.autoencoder = Autoencoder(gen(), base=2).freeze()
        self.repair = RepairNetwork(gen(1), base=2)
        size = {"arch": "alexnet_lrn", "frames": 1, "crop": 32, "resize": (32, 32), "width": 0.1}
        backbone = AlexNetLRN(Spec.model_validate(size))
        backbone.initialize(gen(2))
        self.discriminator = Discriminator(backbone, gen(3))
        self.images = randn(4, 3, 32, 32).clamp(-1, 1)
        code = self.autoencoder.encoder(self.images)
        self.kept = draw_kept(4, (2, 2), 0.5, gen())
        self.pixels = upsample(self.kept, (32, 32))
        decoder = self.autoencoder.decoder
        self.repaired = self.repair(damage(code, self.kept), self.kept, decoder)
        torch.manual_seed(0)
        verdicts = self.discriminator(torch.cat([decoder(code), self.repaired]))
        self.real, self.corrupt = verdicts.split(4)


def reached(network: nn.Module) -> int:
    return sum(int(p.grad is not None and bool(p.grad.any())) for p in network.parameters())


def test_each_loss_moves_its_own_network_alone() -> None:
    game = Game()
    loss = discriminator_loss(game.real, game.corrupt, game.kept)
    theirs = list(game.discriminator.parameters())
    loss.backward(inputs=theirs, retain_graph=True)
    assert reached(game.discriminator) == len(theirs)
    assert reached(game.repair) == reached(game.autoencoder) == 0
    before = [None if p.grad is None else p.grad.clone() for p in theirs]
    ours = list(game.repair.parameters())
    loss = repair_loss(game.corrupt.classes, game.repaired, game.images, game.pixels)
    loss.backward(inputs=ours)
    assert reached(game.repair) == len(ours)
    assert reached(game.autoencoder) == 0
    for parameter, gradient in zip(theirs, before, strict=True):
        assert parameter.grad is not None
        assert gradient is not None
        assert torch.equal(parameter.grad, gradient)


def test_repair_moves_towards_being_taken_for_real() -> None:
    game = Game()
    game.discriminator.requires_grad_(False).eval()
    optimizer = torch.optim.Adam(game.repair.parameters(), lr=1e-3)
    game.repair.eval()
    found: list[float] = []
    for _ in range(4):
        code = damage(game.autoencoder.encoder(game.images), game.kept)
        repaired = game.repair(code, game.kept, game.autoencoder.decoder)
        loss = deceiving_loss(game.discriminator(repaired).classes)
        found.append(float(loss.detach()))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert found == sorted(found, reverse=True)
    assert found[-1] < found[0]
