"""Wrong labels on purpose: how many, which ones, and what is refused."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from selfsup_cli.data.label_noise import (
    NoisyLabels,
    confuse,
    pair_flip,
    permute_pixels,
    predicted,
    read_matrix,
    stated,
    uniform,
)
from selfsup_cli.errors import InputError

CLASSES = ("cat", "dog", "emu", "fox")
LABELS = np.random.default_rng(0).permutation(np.repeat(np.arange(4), [40, 30, 21, 9]))


@given(
    percent=st.integers(0, 99), counts=st.lists(st.integers(1, 60), min_size=2, max_size=6),
    seed=st.integers(0, 99),
)  # fmt: skip
@example(percent=58, counts=[50, 50], seed=0)  # 0.58 · 50 is a little less than 29
@settings(max_examples=40)
def test_uniform_noise_has_the_exact_share_of_every_class(
    percent: int, counts: list[int], seed: int
) -> None:
    labels = np.repeat(np.arange(len(counts)), counts)
    noisy = uniform(labels, [str(c) for c in range(len(counts))], percent / 100, seed)
    wrong = np.bincount(labels[noisy.wrong], minlength=len(counts))
    assert wrong.tolist() == [count * percent // 100 for count in counts]
    assert noisy.true is labels
    again = uniform(labels, [str(c) for c in range(len(counts))], percent / 100, seed)
    assert np.array_equal(again.given, noisy.given)


def test_uniform_noise_gives_every_other_label_alike() -> None:
    labels = np.repeat(np.arange(4), 3000)
    found = uniform(labels, CLASSES, 0.5, 123).counts(4)
    assert np.diag(found).tolist() == [1500] * 4
    others = found[~np.eye(4, dtype=bool)]
    assert abs(others - 500).max() < 5 * (500 * 2 / 3) ** 0.5
    assert not np.array_equal(
        uniform(labels, CLASSES, 0.5, 1).wrong, uniform(labels, CLASSES, 0.5, 2).wrong
    )


def test_nine_tenths_of_ten_classes_is_no_information() -> None:
    labels = np.repeat(np.arange(10), 1000)
    found = uniform(labels, [str(c) for c in range(10)], 0.9, 0).counts(10)
    assert np.diag(found).tolist() == [100] * 10
    assert abs(found - 100).max() < 60


def test_pairs_flip_to_the_next_class() -> None:
    found = pair_flip(LABELS, CLASSES, 0.45, 0).counts(4)
    assert found.tolist() == [[22, 18, 0, 0], [0, 17, 13, 0], [0, 0, 12, 9], [4, 0, 0, 5]]


def test_a_confusion_matrix_is_met_as_exactly_as_can_be() -> None:
    matrix = np.array([[0.5, 0.5, 0, 0], [0.1, 0.8, 0.1, 0], [0.3, 0.3, 0.4, 0], [0, 0, 0, 1]])
    noisy = confuse(LABELS, CLASSES, matrix, 0)
    # 21 of the third class are 6.3, 6.3 and 8.4: the one left over goes to the last.
    assert noisy.counts(4).tolist() == [[20, 20, 0, 0], [3, 24, 3, 0], [6, 6, 9, 0], [0, 0, 0, 9]]
    assert not np.array_equal(confuse(LABELS, CLASSES, matrix, 1).given, noisy.given)


@pytest.mark.parametrize("share", [-0.1, 1.0, 1.5, float("nan")])
def test_noise_outside_of_its_range_is_refused(share: float) -> None:
    for kind in (uniform, pair_flip):
        with pytest.raises(InputError, match="at least 0 and below 1, not"):
            kind(LABELS, CLASSES, share, 0)


def test_matrices_that_cannot_be_are_refused() -> None:
    for row, message in (
        ([0.5, 0.4, 0, 0], r"row 2 .* \(dog\) .* sums to 0\.9"),
        ([1.5, -0.5, 0, 0], r"row 2 .* \(dog\)"),
        ([1.0, 0, 0, 0], "flips all 30 images of class 'dog' away"),
    ):
        matrix = np.eye(4)
        matrix[1] = row
        with pytest.raises(InputError, match=message):
            confuse(LABELS, CLASSES, matrix, 0)
    with pytest.raises(InputError, match="is 3×3, but there are 4 classes"):
        confuse(LABELS, CLASSES, np.eye(3), 0)
    with pytest.raises(InputError, match="single class cannot be wrong"):
        uniform(np.zeros(5, np.int64), ("cat",), 0.5, 0)


def test_labels_are_written_and_read_again(tmp_path: Path) -> None:
    ids = [f"{i:03d}.png" for i in range(100)]
    noisy = uniform(LABELS, CLASSES, 0.5, 0)
    path = tmp_path / "noise.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("path", "label", "true"), *noisy.rows(ids, CLASSES)])
    again = stated(LABELS, ids, CLASSES, path)
    assert np.array_equal(again.given, noisy.given)
    assert again.about == "labels of noise.csv"
    assert len(path.read_text().splitlines()) == 1 + 20 + 15 + 10 + 4


@pytest.mark.parametrize(("lines", "message"), [
    (["a.png,cat", "x.png,dog"], r":3: there is no image 'x\.png'"),
    (["a.png,cat", "b.png,yak"], ":3: there is no class 'yak'"),
    (["a.png,cat", "a.png,dog"], r":3: 'a\.png' has a label already \(.*:2\)"),
    (["b.png,cat"], "no image has the label 'dog' any more"),
    ([], "gives no labels"),
])  # fmt: skip
def test_lists_of_labels_that_do_not_fit_are_refused(
    tmp_path: Path, lines: list[str], message: str
) -> None:
    path = tmp_path / "labels.csv"
    path.write_text("\n".join(["path,label", *lines]))
    with pytest.raises(InputError, match=message):
        stated(np.array([0, 1]), ["a.png", "b.png"], ("cat", "dog"), path)


def test_a_matrix_is_read_by_the_names_of_classes(tmp_path: Path) -> None:
    path = tmp_path / "matrix.csv"
    path.write_text("class,dog,cat\ncat,0.25,0.75\n")
    expected = np.eye(4)
    expected[0, :2] = 0.75, 0.25
    assert np.array_equal(read_matrix(path, CLASSES), expected)
    for text, message in (
        ("class,dog\nyak,1\n", ":2: there is no class 'yak'"),
        ("class,yak\ncat,1\n", ":2: there is no class 'yak'"),
        ("class,dog\ncat,1\ncat,1\n", ":3: class 'cat' is there twice"),
        ("class,dog\ncat,much\n", r":2: dog is no number \('much'\)"),
        ("class,dog\n", "has no rows"),
    ):
        path.write_text(text)
        with pytest.raises(InputError, match=message):
            read_matrix(path, CLASSES)


def test_predictions_are_taken_as_they_are() -> None:
    noisy = predicted(LABELS, np.zeros(100, np.int32))
    assert noisy.given.dtype == np.int64
    assert noisy.wrong.sum() == 60
    with pytest.raises(ValueError, match="3 predictions for 100 images"):
        predicted(LABELS, np.zeros(3, np.int32))


def test_pixels_are_permuted_alike_in_all_channels_and_fixed_for_each_image() -> None:
    plane = torch.arange(30).view(5, 6)
    image = torch.stack([plane, plane + 100, plane + 200]).to(torch.uint8)
    found = permute_pixels(image, 0, "a.png")
    assert sorted(found[0].flatten().tolist()) == list(range(30))
    assert not torch.equal(found, image)
    assert torch.equal(found[1] - found[0], torch.full((5, 6), 100, dtype=torch.uint8))
    assert torch.equal(found, permute_pixels(image, 0, "a.png"))
    for seed, name in ((0, "b.png"), (1, "a.png")):
        assert not torch.equal(found, permute_pixels(image, seed, name))


def test_noise_says_what_is_wrong() -> None:
    noisy = NoisyLabels(np.array([0, 1, 1]), np.array([0, 0, 1]), "by hand")
    assert noisy.wrong.tolist() == [False, True, False]
    assert list(noisy.rows("abc", CLASSES)) == [("b", "cat", "dog")]
