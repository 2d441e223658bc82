"""Wrong labels on purpose, and images without objects (thesis, sections 8.4.2 and 8.4.3).

Everything is a function of the labels and a seed: the same images are mislabelled on every machine.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from selfsup_cli.data.tables import table_rows
from selfsup_cli.errors import InputError
from selfsup_cli.randomness import generator

_SUM = 1e-6


@dataclass(frozen=True)
class NoisyLabels:
    """Labels to train on: `given` int64 `[N]` in place of `true`, the dataset's own.

    `about` says in one phrase how they came about.
    """

    true: np.ndarray
    given: np.ndarray
    about: str

    @property
    def wrong(self) -> np.ndarray:
        """Which labels are no longer the dataset's own, bool `[N]`."""
        different: np.ndarray = self.true != self.given
        return different

    def counts(self, classes: int) -> np.ndarray:
        """How many images of each class (row) have which label (column), int64 `[C, C]`."""
        table = np.zeros((classes, classes), np.int64)
        np.add.at(table, (self.true, self.given), 1)
        return table

    def rows(self, ids: Sequence[str], classes: Sequence[str]) -> Iterator[tuple[str, str, str]]:
        """Path, label to train on and the dataset's own, of the images that were relabelled.

        As CSV with the columns path, label, true this is what `stated` reads.
        """
        for i in np.flatnonzero(self.wrong).tolist():
            yield ids[i], classes[self.given[i]], classes[self.true[i]]


def uniform(labels: np.ndarray, classes: Sequence[str], share: float, seed: int) -> NoisyLabels:
    """⌊share · N_c⌋ images of each class c get one of the other labels, each as likely.

    `labels` are int64 `[N]` into `classes`. Raises InputError for a share outside of [0, 1).
    """
    _check_share(share)
    given = labels.copy()
    for number, images in _by_class(labels, classes, seed, "uniform"):
        chosen = images[: int(share * len(images) + 1e-9)]
        g = generator(seed, number, "uniform labels")
        drawn = torch.randint(len(classes) - 1, (len(chosen),), generator=g).numpy()
        given[chosen] = drawn + (drawn >= number)
    return _complete(NoisyLabels(labels, given, f"uniform label noise of {share:g}"), classes)


def pair_flip(labels: np.ndarray, classes: Sequence[str], share: float, seed: int) -> NoisyLabels:
    """⌊share · N_c⌋ images of each class get the label of the next one; the last one's, the first.

    Raises InputError for a share outside of [0, 1).
    """
    _check_share(share)
    given = labels.copy()
    for number, images in _by_class(labels, classes, seed, "pairs"):
        given[images[: int(share * len(images) + 1e-9)]] = (number + 1) % len(classes)
    return _complete(NoisyLabels(labels, given, f"pair flips of {share:g}"), classes)


def confuse(
    labels: np.ndarray, classes: Sequence[str], matrix: np.ndarray, seed: int
) -> NoisyLabels:
    """Of the images of class i, the share `matrix[i, j]` gets the label j, as exactly as can be.

    Counts are rounded down, and those left over go to the labels with the largest remainders (of
    equals, the first). Raises InputError unless `matrix` `[C, C]` has rows of shares that sum to
    one, and where no image of a class keeps its label.
    """
    matrix = np.asarray(matrix, np.float64)
    if matrix.shape != (len(classes), len(classes)):
        shape = "×".join(map(str, matrix.shape))
        raise InputError(
            f"the confusion matrix is {shape}, but there are {len(classes)} classes",
            kind="label-noise",
        )
    given = labels.copy()
    for number, row in enumerate(matrix):
        if not np.isfinite(row).all() or row.min() < 0 or abs(row.sum() - 1) > _SUM:
            raise InputError(
                f"row {number + 1} of the confusion matrix ({classes[number]}) is not made of "
                f"shares that sum to one (it sums to {row.sum():g})",
                kind="label-noise",
            )
    for number, images in _by_class(labels, classes, seed, "confusion"):
        exact = matrix[number] * len(images)
        counts = np.floor(exact + 1e-9).astype(np.int64)
        left = np.argsort(counts - exact, kind="stable")[: len(images) - counts.sum()]
        counts[left] += 1
        if len(images) and not counts[number]:
            raise InputError(
                f"the confusion matrix flips all {len(images)} images of class "
                f"'{classes[number]}' away from it",
                kind="label-noise",
            )
        given[images] = np.repeat(np.arange(len(classes)), counts)
    return _complete(NoisyLabels(labels, given, "labels by a confusion matrix"), classes)


def stated(
    labels: np.ndarray, ids: Sequence[str], classes: Sequence[str], path: Path
) -> NoisyLabels:
    """The labels that a CSV file with the columns path and label gives; others stay as they are.

    Paths are those of `ids`. Raises InputError, naming the line, for an image or a class that is
    not there, and for an image that is there twice.
    """
    places = {one: i for i, one in enumerate(ids)}
    codes = {name: number for number, name in enumerate(classes)}
    given = labels.copy()
    seen: dict[int, str] = {}
    for where, row in table_rows(path, ("path",), True):
        place = places.get(row["path"])
        if place is None:
            raise InputError(f"{where}: there is no image '{row['path']}'", kind="label-noise")
        if row["label"] not in codes:
            raise InputError(f"{where}: there is no class '{row['label']}'", kind="label-noise")
        if place in seen:
            raise InputError(
                f"{where}: '{row['path']}' has a label already ({seen[place]})", kind="label-noise"
            )
        seen[place] = where
        given[place] = codes[row["label"]]
    if not seen:
        raise InputError(f"{path} gives no labels", kind="label-noise")
    return _complete(NoisyLabels(labels, given, f"labels of {path.name}"), classes)


def predicted(labels: np.ndarray, found: np.ndarray) -> NoisyLabels:
    """What a network took the images for: `found` int64 `[N]`, predicted with its dropout left on.

    Its mistakes are those that people make (section 8.4.3). There may be classes that it
    takes none for.
    """
    if found.shape != labels.shape:
        raise ValueError(f"{len(found)} predictions for {len(labels)} images")
    return NoisyLabels(labels, found.astype(np.int64), "labels that a network predicted")


def read_matrix(path: Path, classes: Sequence[str]) -> np.ndarray:
    """A confusion matrix `[C, C]` of a CSV file with a column `class` and one for each class.

    A row says what becomes of the images of its class; a class without row keeps its labels.
    Raises InputError, naming the line, for unknown classes and for what is no number.
    """
    matrix = np.eye(len(classes))
    codes = {name: number for number, name in enumerate(classes)}
    seen: set[str] = set()
    for where, row in table_rows(path, ("class",), False):
        for name in (row["class"], *row):
            if name != "class" and name not in codes:
                raise InputError(f"{where}: there is no class '{name}'", kind="label-noise")
        if row["class"] in seen:
            raise InputError(f"{where}: class '{row['class']}' is there twice", kind="label-noise")
        seen.add(row["class"])
        matrix[codes[row["class"]]] = _shares(where, row, codes)
    if not seen:
        raise InputError(f"{path} has no rows", kind="label-noise")
    return matrix


def permute_pixels(image: Tensor, seed: int, identifier: str) -> Tensor:
    """The pixels of `image` `[C, H, W]` in an order of its own, the same in all channels.

    The order is fixed by seed and `identifier` (the image's path), so that a network may learn
    images by heart, but no pattern that they share (section 8.4.2).
    """
    order = torch.randperm(
        image[0].numel(), generator=generator(seed, identifier, "pixels"), device="cpu"
    )
    return image.flatten(1)[:, order.to(image.device)].view_as(image)


def _shares(where: str, row: Mapping[str, str], codes: Mapping[str, int]) -> np.ndarray:
    shares = np.zeros(len(codes))
    for name, text in row.items():
        if name == "class" or not text:
            continue
        try:
            shares[codes[name]] = float(text)
        except ValueError:
            raise InputError(f"{where}: {name} is no number ('{text}')", kind="csv") from None
    return shares


def _check_share(share: float) -> None:
    if not 0 <= share < 1:
        raise InputError(
            f"label noise is a share of at least 0 and below 1, not {share:g}", kind="label-noise"
        )


def _by_class(
    labels: np.ndarray, classes: Sequence[str], seed: int, purpose: str
) -> Iterator[tuple[int, np.ndarray]]:
    """The images of each class, in an order drawn for it."""
    if len(classes) < 2:
        raise InputError("labels of a single class cannot be wrong", kind="label-noise")
    for number in range(len(classes)):
        images = np.flatnonzero(labels == number)
        order = torch.randperm(len(images), generator=generator(seed, number, purpose))
        yield number, images[order.numpy()]


def _complete(noisy: NoisyLabels, classes: Sequence[str]) -> NoisyLabels:
    """Raises InputError where a class that has images is no image's label any more."""
    gone = np.setdiff1d(noisy.true, noisy.given)
    if len(gone):
        raise InputError(
            f"{noisy.about}: no image has the label '{classes[gone[0]]}' any more",
            kind="label-noise",
        )
    return noisy
