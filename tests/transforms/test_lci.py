"""Limited-context inpainting: masks, erasing, pasting, and what F sees of it."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from selfsup_cli.models.inpainting import Inpainter
from selfsup_cli.transforms.images import crop, random_corners
from selfsup_cli.transforms.inpainting import draw_noise, erase, inpaint, inside, paste


def gen(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def canvases(b: int, high: int = 20, wide: int = 24, seed: int = 0) -> Tensor:
    return torch.rand(b, 3, high, wide, generator=gen(seed)) * 2 - 1


seeds = st.integers(0, 2**32)


def test_the_mask_leaves_a_border_of_the_patch() -> None:
    mask = inside(48, 3)
    assert int(mask.sum()) == 42 * 42
    assert mask[3:45, 3:45].all()
    mask[3:45, 3:45] = False
    assert not mask.any()
    assert int(inside(5, 2).sum()) == 1
    for border in (0, 3, 24):
        with pytest.raises(ValueError, match=rf"a border of {border} pixels in a patch of 6 must"):
            inside(6, border)


@given(st.integers(1, 20), st.data(), seeds)
def test_what_is_pasted_is_there_and_all_else_as_it_was(
    size: int, data: st.DataObject, seed: int
) -> None:
    x = canvases(3, seed=seed)
    corners = random_corners(3, (20, 24), size, gen(seed))
    patches = canvases(3, size, size, seed=seed + 1)
    out = paste(x, patches, corners)
    outside = torch.ones(3, 1, 20, 24, dtype=torch.bool)
    for i, (top, left) in enumerate(corners.tolist()):
        outside[i, :, top : top + size, left : left + size] = False
        assert torch.equal(out[i, :, top : top + size, left : left + size], patches[i])
    assert torch.equal(out[outside.expand_as(out)], x[outside.expand_as(out)])
    assert torch.equal(crop(out, corners, size), patches)
    assert torch.equal(paste(x, crop(x, corners, size), corners), x)
    i = data.draw(st.integers(0, 2))
    assert torch.equal(paste(x[[i]], patches[[i]], corners[[i]])[0], out[i])


def test_a_patch_larger_than_the_canvas_is_refused() -> None:
    with pytest.raises(ValueError, match="a patch of 21 does not fit into canvases of 20×24"):
        paste(canvases(1), canvases(1, 21, 21), torch.zeros(1, 2, dtype=torch.int64))


def test_the_inside_is_noise_and_the_border_stays() -> None:
    patches = canvases(4, 16, 16)
    noise = draw_noise(4, 16, gen())
    mask = inside(16, 2)
    out = erase(patches, mask, noise)
    assert torch.equal(out[..., mask], noise[..., mask])
    assert torch.equal(out[..., ~mask], patches[..., ~mask])


def test_noise_is_normal_and_from_the_generator_alone() -> None:
    state = torch.random.get_rng_state()
    noise = draw_noise(20, 32, gen(1))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(noise, draw_noise(20, 32, gen(1)))
    assert float(noise.std()) == pytest.approx(0.1, rel=0.02)
    assert float(draw_noise(20, 32, gen(1), 1.0).std()) == pytest.approx(1, rel=0.02)


class Spy(nn.Module):
    """Gives what it is given, negated, and remembers it."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(x)
        return -x


def test_patches_and_erased_patches_pass_in_one_batch() -> None:
    x = canvases(4)
    corners = random_corners(4, (20, 24), 8, gen(), margin=1)
    noise = draw_noise(4, 8, gen())
    spy = Spy()
    found = inpaint(spy, x, corners, noise, border=2)
    (seen,) = spy.seen
    original = crop(x, corners, 8)
    assert torch.equal(found.original, original)
    assert torch.equal(found.erased, erase(original, inside(8, 2), noise))
    assert torch.equal(seen, torch.cat([found.original, found.erased]))
    assert torch.equal(found.autoencoded_patches, -found.original)
    assert torch.equal(found.inpainted_patches, -found.erased)
    assert torch.equal(found.autoencoded, paste(x, -found.original, corners))
    assert torch.equal(found.inpainted, paste(x, -found.erased, corners))


def test_gradients_reach_the_inpainter_through_both_canvases() -> None:
    network = Inpainter(gen(), layers=2, base=4)
    x = canvases(4)
    corners = random_corners(4, (20, 24), 8, gen())
    weight = network.get_parameter("encoder.0.weight")
    gradients = []
    for part in ("autoencoded", "inpainted"):
        found = inpaint(network, x, corners, draw_noise(4, 8, gen()), border=1)
        loss = getattr(found, part).square().sum()
        gradients.append(torch.autograd.grad(loss, weight)[0])
        assert gradients[-1].abs().max() > 0
    assert not torch.allclose(*gradients)
    # Nothing of the canvas but the patch takes part.
    found = inpaint(network, x, corners, draw_noise(4, 8, gen()), border=1)
    outside = paste(torch.ones_like(x), torch.zeros(4, 3, 8, 8), corners)
    (none,) = torch.autograd.grad((found.inpainted * outside).sum(), weight)
    assert not none.any()
