"""How the images that a preset names are opened."""

from __future__ import annotations

from typing import TYPE_CHECKING

from selfsup_cli.data.image_sets import opened
from selfsup_cli.data.source import ImageSource, Progress, Split

if TYPE_CHECKING:
    from selfsup_cli.config.images import ImageData


def open_images(
    data: ImageData,
    split: Split,
    *,
    labels: bool,
    workers: int,
    progress: Progress | None = None,
) -> ImageSource:
    """Open the images that `data` names, indexing in `workers` processes what is not indexed yet.

    With `labels=False` no label is read and none is inferred. `progress(done, total)` counts files
    while they are indexed. Data without a split of its own is divided by a seeded hash of the
    ids, so that labelled and unlabelled views of the same data agree on what is held out. Images
    whose header cannot be read are left out (see `source.check_bad_share`); what is wrong behind
    the header shows when they are read. Raises `InputError` for anything the user has to mend.
    """
    return opened(data, split, labels=labels, workers=workers, progress=progress)
