"""The buffer of corrupt images: what goes in, what comes out, what a checkpoint keeps."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from selfsup_cli.methods.artifacts_history import History


def gen(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def batch(numbers: range) -> tuple[Tensor, Tensor]:
    """Images of one grey level each, their number, and masks that spell it in binary."""
    n = torch.tensor(list(numbers))
    images = (n * 2 / 255 - 1).view(-1, 1, 1, 1).expand(-1, 3, 4, 4).contiguous()
    return images, (n[:, None] >> torch.arange(8) & 1).bool().view(-1, 1, 2, 4)


def numbers(images: Tensor, kept: Tensor) -> list[int]:
    grey = ((images + 1) * 127.5).round().to(torch.int64)
    assert (grey == grey[:, :1, :1, :1]).all()
    written = (kept.flatten(1) * 2 ** torch.arange(8)).sum(1)
    assert torch.equal(grey[:, 0, 0, 0], written)
    return written.tolist()


def test_the_buffer_fills_before_it_is_used() -> None:
    history = History(5)
    for start, size in ((0, 2), (10, 4)):
        given = batch(range(start, start + 4))
        images, kept, fresh = history.mix(*given, gen())
        assert images is given[0]
        assert kept is given[1]
        assert (fresh, len(history)) == (4, size)
    assert history.mix(*batch(range(20, 24)), gen())[2] == 4
    state = history.state_dict()
    assert numbers(state["images"] * (2 / 255) - 1, state["kept"]) == [2, 3, 12, 13, 22]
    assert history.mix(*batch(range(30, 34)), gen())[2] == 2


def test_half_of_a_batch_changes_places_with_the_buffer() -> None:
    history = History(6)
    first = batch(range(12))
    history.mix(*first, gen())
    assert len(history) == 6
    inside = set(range(6, 12))
    for step in range(1, 15):
        mine = range(12 + 5 * step, 17 + 5 * step)
        images, kept, fresh = history.mix(*batch(mine), gen(step))
        assert fresh == 3
        found = numbers(images, kept)
        assert found[:3] == list(mine[:3])
        assert len(set(found[3:])) == 2
        assert set(found[3:]) <= inside
        inside = inside - set(found[3:]) | set(mine[3:])
        state = history.state_dict()
        now = numbers(state["images"] * (2 / 255) - 1, state["kept"])
        assert set(now) == inside


def test_every_place_is_as_likely() -> None:
    counts = torch.zeros(4)
    for seed in range(2000):
        history = History(4)
        history.load_state_dict(stored(4))
        images, kept, _ = history.mix(*batch(range(100, 102)), gen(seed))
        counts[numbers(images, kept)[1]] += 1
    assert (counts - 500).abs().max() < 80


def stored(count: int) -> dict[str, Tensor]:
    images, kept = batch(range(count))
    return {"images": ((images + 1) * 127.5).round().to(torch.uint8), "kept": kept}


def test_gradients_reach_new_images_alone() -> None:
    history = History(2)
    history.load_state_dict(stored(2))
    images, kept = batch(range(100, 104))
    images.requires_grad_()
    mixed, _, fresh = history.mix(images, kept, gen())
    (gradient,) = torch.autograd.grad(mixed.sum(), images)
    assert (gradient[:fresh] == 1).all()
    assert (gradient[fresh:] == 0).all()


def test_it_goes_on_from_its_state() -> None:
    one, other = History(6), History(6)
    for step in range(3):
        one.mix(*batch(range(4 * step, 4 * step + 4)), gen(step))
    other.load_state_dict(one.state_dict())
    assert len(other) == 6
    for step in range(3, 7):
        given = batch(range(4 * step, 4 * step + 4))
        mine, theirs = one.mix(*given, gen(step)), other.mix(*given, gen(step))
        assert torch.equal(mine[0], theirs[0])
        assert torch.equal(mine[1], theirs[1])
    half = History(6)
    half.mix(*batch(range(4)), gen())
    copy = History(6)
    copy.load_state_dict(half.state_dict())
    assert len(copy) == 2
    assert History(3).state_dict() == {}
    copy.load_state_dict({})
    assert len(copy) == 0


def test_what_does_not_fit_is_refused() -> None:
    history = History(2)
    history.load_state_dict(stored(2))
    images, kept = batch(range(4))
    for wrong in ((images[:, :, :2], kept), (images, kept[:, :, :1]), (images, kept[:3])):
        with pytest.raises(ValueError, match="in a history of"):
            history.mix(*wrong, gen())
    with pytest.raises(ValueError, match="do not fit in 2 places"):
        history.mix(*batch(range(6)), gen())
    with pytest.raises(ValueError, match="3 images and 3 masks for a history of 2"):
        History(2).load_state_dict(stored(3))
    with pytest.raises(ValueError, match=r"a history of torch\.float32"):
        History(2).load_state_dict({**stored(2), "images": images[:2]})
    with pytest.raises(ValueError, match="a history of 0 images"):
        History(0)
