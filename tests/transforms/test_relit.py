"""Brightness, contrast and the squares out of padded images (thesis, section 8.4)."""

from __future__ import annotations

import torch

from selfsup_cli.randomness import generator
from selfsup_cli.transforms.finetuning import cut_from_padded, relit


def test_light_is_added_then_spread_about_the_mean_of_each_channel() -> None:
    images = torch.rand(64, 3, 5, 5, generator=generator(0, "images"))
    found = relit(images, generator(1, "light"))
    u = torch.rand(2, 64, generator=generator(1, "light"))
    for number in range(64):
        bright = images[number] + (2 * u[0, number] - 1) * 63 / 255
        mean = bright.mean((1, 2), keepdim=True)
        expected = (bright - mean) * (0.2 + 1.6 * u[1, number]) + mean
        assert torch.allclose(found[number], expected, atol=1e-6)


def test_squares_come_from_everywhere_in_padded_images() -> None:
    size, pad, side = 4, 2, 5
    images = torch.arange(1, 3 * size**2 + 1, dtype=torch.uint8).view(1, 3, size, size)
    images = images.repeat(400, 1, 1, 1)
    found = cut_from_padded(images, pad, side, generator(0, "cut"))
    assert (found.shape, found.dtype) == ((400, 3, side, side), torch.uint8)
    padded = torch.nn.functional.pad(images[0], (pad,) * 4)
    places = {
        tuple(padded[:, y : y + side, x : x + side].flatten().tolist())
        for y in range(4) for x in range(4)
    }  # fmt: skip
    assert {tuple(one.flatten().tolist()) for one in found} == places
