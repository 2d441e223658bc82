"""Images and labels mixed in pairs."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
import torch.nn.functional as F

from selfsup_cli.randomness import generator
from selfsup_cli.transforms.mixup import mixed_cross_entropy, mixup

IMAGES = torch.rand(6, 3, 2, 2, generator=generator(0, "images"))
LABELS = torch.tensor([0, 0, 1, 1, 2, 3])


def test_every_image_is_mixed_with_the_one_whose_label_it_has() -> None:
    mixed = mixup(IMAGES, torch.arange(6), 1.0, generator(0, "mix"))
    assert sorted(mixed.others.tolist()) == list(range(6))
    expected = mixed.share * IMAGES + (1 - mixed.share) * IMAGES[mixed.others]
    assert torch.equal(mixed.images, expected)
    again = mixup(IMAGES, torch.arange(6), 1.0, generator(0, "mix"))
    assert torch.equal(again.images, mixed.images)
    assert not torch.equal(mixup(IMAGES, LABELS, 1.0, generator(1, "mix")).images, mixed.images)


def test_shares_are_those_of_beta() -> None:
    one = torch.zeros(1, 1, 1, 1)
    for alpha in (0.2, 1.0, 4.0):
        drawn = [mixup(one, LABELS[:1], alpha, generator(i, "mix")).share for i in range(600)]
        shares = torch.tensor(drawn)
        assert float(shares.mean()) == pytest.approx(0.5, abs=0.06)
        assert float(shares.var()) == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.2)


def test_the_loss_is_that_of_mixed_and_smoothed_labels() -> None:
    logits = torch.randn(6, 4, generator=generator(0, "logits"))
    mixed = mixup(IMAGES, LABELS, 1.0, generator(2, "mix"))
    for smoothing in (0.0, 0.1):
        soft = mixed.share * F.one_hot(mixed.labels, 4) + (1 - mixed.share) * F.one_hot(
            mixed.others, 4
        )
        soft = (1 - smoothing) * soft + smoothing / 4
        expected = -(soft * logits.log_softmax(1)).sum(1).mean()
        torch.testing.assert_close(mixed_cross_entropy(logits, mixed, smoothing), expected)


def test_mini_batches_with_the_same_labels_have_the_same_mixed_labels() -> None:
    pairs = []
    for images in (IMAGES, IMAGES.flip(0)):
        mixed = mixup(images, LABELS, 0.5, generator(0, "mix"))
        pairs.append(Counter(zip(mixed.labels.tolist(), mixed.others.tolist(), strict=True)))
        pairs[-1]["share"] = mixed.share  # type: ignore[index, assignment]
    assert pairs[0] == pairs[1]


def test_without_alpha_nothing_is_mixed() -> None:
    mixed = mixup(IMAGES, LABELS, 0.0, generator(0, "mix"))
    assert mixed.images is IMAGES
    logits = torch.randn(6, 4, generator=generator(0, "logits"))
    torch.testing.assert_close(mixed_cross_entropy(logits, mixed), F.cross_entropy(logits, LABELS))
    with pytest.raises(ValueError, match="α has to be at least 0"):
        mixup(IMAGES, LABELS, -1.0, generator(0, "mix"))
