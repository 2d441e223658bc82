"""How the videos that a preset names are opened."""

from __future__ import annotations

from typing import TYPE_CHECKING

from selfsup_cli.data.source import ClipSource, Progress, Split

if TYPE_CHECKING:
    from selfsup_cli.config.blocks import VideoData


def open_source(
    data: VideoData,
    split: Split,
    *,
    labels: bool,
    workers: int,
    progress: Progress | None = None,
) -> ClipSource:
    """Open the videos that `data` names, indexing in `workers` processes what is not indexed yet.

    With `labels=False` no label is read and none is inferred. `progress(done, total)` counts files
    while they are indexed. Data without a split of its own is divided by a seeded hash of the
    ids, so that labelled and unlabelled views of the same data agree on what is held out.
    Raises `InputError` for anything the user has to mend.
    """
    if data.source == "motion":
        from selfsup_cli.data.motion import MotionSource

        return MotionSource(data.motion, split, labels)
    from selfsup_cli.data.pack import is_pack, open_pack

    if is_pack(data.source):
        return open_pack(data, split, labels=labels)
    from selfsup_cli.data.files import open_files

    return open_files(data, split, labels=labels, workers=workers, progress=progress)
