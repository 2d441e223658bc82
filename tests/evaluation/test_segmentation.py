"""Mean intersection over union, against other statements of it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torchmetrics
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import confusion_matrix, jaccard_score
from torch import Tensor

from selfsup_cli.errors import InputError
from selfsup_cli.evaluation.segmentation import Confusion, Segmented


def masks(seed: int, classes: int, n: int = 3) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    truth = torch.randint(classes + 1, (n, 7, 9), generator=g)
    found = torch.randint(classes, (n, 7, 9), generator=g)
    found = torch.where(torch.rand(n, 7, 9, generator=g) < 0.5, truth.clamp(max=classes - 1), found)
    return found, torch.where(truth == classes, 255, truth).to(torch.uint8)


def counted(found: Tensor, truth: Tensor, classes: int) -> Segmented:
    confusion = Confusion(classes)
    confusion.add(found, truth)
    return confusion.result()


def test_by_hand() -> None:
    truth = torch.tensor([[0, 0, 0, 1], [1, 1, 255, 2]], dtype=torch.uint8)
    found = torch.tensor([[0, 0, 1, 1], [1, 2, 3, 0]])
    result = counted(found, truth, 5)
    assert result.pixels == 7
    assert result.confusion[:3, :3].tolist() == [[2, 1, 0], [0, 2, 1], [1, 0, 0]]
    assert result.confusion.sum() == 7
    # 0: 2 right of 3 true and 3 found; 1: 2 of 3 and 3; 2: none of 1 and 1; 3, 4: nowhere.
    np.testing.assert_allclose(result.iou, [2 / 4, 2 / 4, 0, np.nan, np.nan])
    assert result.mean_iou == pytest.approx(1 / 3)
    assert result.accuracy == pytest.approx(4 / 7)
    np.testing.assert_allclose(result.class_accuracy, [2 / 3, 2 / 3, 0, np.nan, np.nan])
    assert result.mean_accuracy == pytest.approx(4 / 9)


def test_a_class_that_is_found_but_not_there_counts() -> None:
    truth = torch.zeros(4, dtype=torch.uint8)
    result = counted(torch.tensor([0, 0, 0, 1]), truth, 3)
    np.testing.assert_allclose(result.iou, [0.75, 0, np.nan])
    assert result.mean_iou == pytest.approx(0.375)
    assert result.mean_accuracy == 0.75


@settings(max_examples=25)
@given(st.integers(0, 2**32), st.integers(2, 6))
def test_against_libraries(seed: int, classes: int) -> None:
    found, truth = masks(seed, classes)
    result = counted(found, truth, classes)
    known = truth != 255
    expected, said = truth[known].numpy(), found[known].numpy()
    labels = list(range(classes))
    np.testing.assert_array_equal(result.confusion, confusion_matrix(expected, said, labels=labels))
    there = ~np.isnan(result.iou)
    each = jaccard_score(expected, said, labels=labels, average=None, zero_division=0)
    np.testing.assert_allclose(result.iou[there], each[there])
    assert result.mean_iou == pytest.approx(each[there].mean())
    assert result.accuracy == pytest.approx((expected == said).mean())
    if there.all():
        jaccard = torchmetrics.JaccardIndex("multiclass", num_classes=classes, ignore_index=255)
        assert float(jaccard(found, truth.long())) == pytest.approx(result.mean_iou, abs=1e-6)


def test_batches_add_up() -> None:
    found, truth = masks(1, 4, n=6)
    confusion = Confusion(4)
    for part in (slice(0, 1), slice(1, 6), slice(6, 6)):
        confusion.add(found[part].to(torch.uint8), truth[part])
    np.testing.assert_array_equal(confusion.result().confusion, counted(found, truth, 4).confusion)


def test_perfect_and_hopeless() -> None:
    _, truth = masks(2, 4)
    perfect = counted(torch.where(truth == 255, 0, truth).long(), truth, 4)
    assert (perfect.mean_iou, perfect.accuracy, perfect.mean_accuracy) == (1, 1, 1)
    hopeless = counted((truth.long() + 1) % 4, truth, 4)
    assert (hopeless.mean_iou, hopeless.accuracy, hopeless.mean_accuracy) == (0, 0, 0)


def test_strange_labels_are_named() -> None:
    truth = torch.tensor([0, 7, 255], dtype=torch.uint8)
    confusion = Confusion(5)
    with pytest.raises(InputError, match=r"has the label 7; labels are 0 to 4, and 255"):
        confusion.add(torch.zeros(3, dtype=torch.int64), truth)
    with pytest.raises(ValueError, match="no pixel whose class is known"):
        confusion.result()
    for wrong in ([0, 5, 0], [0, -1, 0]):
        with pytest.raises(ValueError, match="were found among 5 classes"):
            confusion.add(torch.tensor(wrong), truth)
    for found, masks_ in (
        (torch.zeros(2, dtype=torch.int64), truth),
        (torch.zeros(3), truth),
        (torch.zeros(3, dtype=torch.int64), truth.long()),
    ):
        with pytest.raises(ValueError, match="for masks of"):
            confusion.add(found, masks_)
    confusion.add(torch.zeros(3, dtype=torch.int64), torch.full((3,), 255, dtype=torch.uint8))
    with pytest.raises(ValueError, match="no pixel whose class is known"):
        confusion.result()
    for classes in (0, 256):
        with pytest.raises(ValueError, match="a mask has room for"):
            Confusion(classes)
