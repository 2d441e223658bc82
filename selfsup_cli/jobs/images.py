"""How jobs open the images of a preset."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from selfsup_cli.config.blocks import Data, Machine
from selfsup_cli.config.images import ImageData
from selfsup_cli.data.images import open_images as open_source
from selfsup_cli.data.source import ImageSource, LeftOut, Split, check_bad_share
from selfsup_cli.engine.devices import loader_workers
from selfsup_cli.engine.progress import Progress
from selfsup_cli.errors import InputError

_PARTS: tuple[Split, Split] = ("train", "test")


@dataclass
class Images:
    """A source and what was left out of it on the way."""

    source: ImageSource
    left_out: list[LeftOut]


Opener = Callable[..., ImageSource]
"""Opens a split as `open_source` does, with its arguments."""


def open_images(
    data: Any,
    split: Split,
    *,
    labels: bool,
    machine: Machine,
    progress: Progress,
    opener: Opener | None = None,
) -> Images:
    """Open a split, of `ImageData` or of what `opener` takes.

    Raises InputError (data that cannot be found, no labels where they are asked for) and
    TrainingError (too many of its files cannot be read).
    """
    source = (opener or open_source)(
        data,
        split,
        labels=labels,
        workers=max(1, loader_workers(machine.workers)),
        progress=progress.counting("indexing images"),
    )
    check_bad_share(source, data.max_bad)
    return Images(source, list(source.left_out))


def open_fold(
    data: Data,
    fold: int,
    whole: ImageSource,
    option: str,
    *,
    labels: bool,
    machine: Machine,
    progress: Progress,
    opener: Opener | None = None,
) -> Images:
    """The training images of a fold of data whose training part without folds is `whole`.

    Raises InputError, which names the `option` that asked, where there is no such fold or the data
    has none.
    """
    part = open_images(
        data.model_copy(update={"split": fold}),
        "train",
        labels=labels,
        machine=machine,
        progress=progress,
        opener=opener,
    )
    if len(part.source) == len(whole):
        raise InputError(
            f"{whole.name} has no folds of its own; leave out {option}", kind="unknown-split"
        )
    return part


def open_parts(
    data: Data,
    machine: Machine,
    progress: Progress,
    *,
    labels: bool,
    opener: Opener | None = None,
) -> tuple[Images, Images]:
    """The training and test parts. With `labels`, raises InputError for unlabelled data."""
    train, test = (
        open_images(data, split, labels=labels, machine=machine, progress=progress, opener=opener)
        for split in _PARTS
    )
    return train, test


def open_labelled(data: ImageData, machine: Machine, progress: Progress) -> tuple[Images, Images]:
    """The training and test parts with their labels. Raises InputError for unlabelled data."""
    return open_parts(data, machine, progress, labels=True)


def open_both(data: ImageData, machine: Machine, progress: Progress) -> tuple[Images, Images]:
    """Both parts, with labels if the data has any."""
    try:
        return open_labelled(data, machine, progress)
    except InputError as error:
        if error.kind != "unlabelled":
            raise
    return open_parts(data, machine, progress, labels=False)
