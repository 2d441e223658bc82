"""`selfsup visualize pretext multiview`: the pairs of views that the network is fed."""

from __future__ import annotations

from pathlib import Path

from selfsup_cli.config.multiview import PretrainMultiview
from selfsup_cli.engine.progress import Progress
from selfsup_cli.jobs.common import Outcome
from selfsup_cli.jobs.multiview_pictures import sheet_of
from selfsup_cli.jobs.pretraining_multiview import MultiviewWork
from selfsup_cli.jobs.visualize_images import checked


def pretext(
    preset: PretrainMultiview, *, out: Path | None, count: int, quiet: bool = False
) -> Outcome:
    """Draw the pairs of `count` anchors as the network is fed them, into `out`."""
    path = checked(out or Path("pretext.png"))
    work = MultiviewWork(preset)
    with Progress(quiet=quiet) as progress:
        train, _ = work.open(progress)
    sheet_of(work.create(train), train.source, path, answered=False, count=count)
    return Outcome(text=str(path), data={"picture": str(path)})
