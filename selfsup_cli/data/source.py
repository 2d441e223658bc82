"""What a source of video clips is, and what one of images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

from selfsup_cli.errors import TrainingError

if TYPE_CHECKING:
    import numpy as np
    import torch

    from selfsup_cli.data.framing import Sizing

Split = Literal["train", "test", "all"]
Progress = Callable[[int, int], None]

QUARANTINED = "quarantined"
UNKNOWN = 255  # of an attribute that is neither there nor not there


@dataclass(frozen=True)
class LeftOut:
    """A file or clip that is not used, and why."""

    id: str
    reason: str


@runtime_checkable
class ClipSource(Protocol):
    """Videos that can be read frame by frame.

    `ids` are unique POSIX paths relative to the source's root, `num_frames` (int64 `[N]`) true
    counts. `labels` (int64 `[N]`) index `classes`; both are None where labels were not asked for.
    `split_rule` says in one phrase who divided train from test. `fingerprint` is a SHA-256 over
    ids, sizes, content samples and labels that is equal on every machine.
    """

    name: str
    ids: Sequence[str]
    num_frames: np.ndarray
    labels: np.ndarray | None
    classes: tuple[str, ...] | None
    split: str
    split_rule: str
    fingerprint: str
    left_out: Sequence[LeftOut]

    def __len__(self) -> int: ...

    def read(self, i: int, frames: np.ndarray, size: tuple[int, int] | None) -> torch.Tensor:
        """Frames of video `i` as uint8 `[3,T,H,W]`, RGB, upright.

        `frames` is int64 `[T]` in any order, repeats allowed, `0 <= f < num_frames[i]`. `size` is
        (height, width) to scale to; None keeps the video's own. Raises `BadMediaError`.
        """
        ...

    def subset(self, indices: np.ndarray) -> ClipSource:
        """The videos `indices` (int64, in that order) as a source of its own."""
        ...


@runtime_checkable
class ImageSource(Protocol):
    """Images that can be read one by one.

    `ids` are unique POSIX paths relative to the source's root, `sizes` (int64 `[N,2]`) upright
    heights and widths. `labels` are int64 `[N]` and index `classes`; where an image has several,
    they are uint8 `[N,A]`, one column for each of `attributes`: 1 has it, 0 has not, 255 is
    neither (`UNKNOWN`). Labels, classes and attributes are None where labels were not asked
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


def check_bad_share(source: ClipSource | ImageSource, max_bad: float) -> None:
    """Raise `TrainingError` if more than the share `max_bad` of the files could not be read.

    What the user put into quarantine is left out by their own will and does not count.
    """
    bad = [out for out in source.left_out if not out.reason.startswith(QUARANTINED)]
    total = len(source) + len(bad)
    if not bad or len(bad) <= max_bad * total:
        return
    shown = "; ".join(f"{out.id}: {out.reason}" for out in bad[:5])
    more = f"; and {len(bad) - 5} more" if len(bad) > 5 else ""
    what = "videos" if hasattr(source, "num_frames") else "images"
    raise TrainingError(
        f"{len(bad)} of {total} {what} of {source.name} cannot be read, more than the allowed "
        f"{max_bad:.2%} (data.max_bad): {shown}{more}",
        kind="bad-media",
        hint="mend or remove the files, list them in a quarantine file, or raise --max-bad",
    )
