"""What a source of images is, and how the one that a preset names is opened."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from selfsup_cli.data.source import LeftOut, Progress, Split

if TYPE_CHECKING:
    import numpy as np
    import torch

    from selfsup_cli.config.images import ImageData
    from selfsup_cli.data.framing import Sizing


@runtime_checkable
class ImageSource(Protocol):
    """Images that can be read one by one.

    `ids` are unique POSIX paths relative to the source's root, `sizes` (int64 `[N,2]`) upright
    heights and widths. `labels` are int64 `[N]` and index `classes`; where an image has several,
    they are uint8 `[N,A]`, one column for each of `attributes`: 1 has it, 0 has not, 255 is
    neither (`source.UNKNOWN`). Labels, classes and attributes are None where labels were not asked
    for. `split_rule` says in one phrase who divided train from test. `fingerprint` is a SHA-256
    over ids, sizes, content and labels that is equal on every machine. `notes` are phrases that a
    report should carry.
    """

    name: str
    ids: Sequence[str]
    sizes: np.ndarray
    labels: np.ndarray | None
    classes: tuple[str, ...] | None
    attributes: tuple[str, ...] | None
    split: str
    split_rule: str
    fingerprint: str
    left_out: Sequence[LeftOut]
    notes: tuple[str, ...]

    def __len__(self) -> int: ...

    def read(self, i: int, size: Sizing = None) -> torch.Tensor:
        """Image `i` as uint8 `[3,H,W]`, RGB, upright.

        `size` None keeps its own, a number scales the shorter side to it, (H, W) scales to just
        that, and a function of the upright height and width gives the `framing.Region` to cut out
        and the size to scale that to. Scaling is bilinear and antialiased. Raises `BadMediaError`.
        """
        ...

    def subset(self, indices: np.ndarray) -> ImageSource:
        """The images `indices` (int64, in that order) as a source of its own."""
        ...


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
    from selfsup_cli.data.image_sets import opened

    return opened(data, split, labels=labels, workers=workers, progress=progress)
