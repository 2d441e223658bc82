"""Looks at every frame of a pack."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from functools import partial
from pathlib import Path

import numpy as np

from selfsup_cli.config.blocks import VideoData
from selfsup_cli.data import processes
from selfsup_cli.data.check import PARTS, Checked, Verdict, compare
from selfsup_cli.data.pack import PackSource, open_pack
from selfsup_cli.data.source import Progress
from selfsup_cli.errors import BadMediaError, InputError

_PIECE = 256


def check_pack(data: VideoData, *, workers: int, progress: Progress | None = None) -> Checked:
    """Verify and decode all videos of a pack, in `workers` processes (0: in this one).

    `progress(done, total)` counts videos. Raises `InputError` if the pack as a whole is not sound.
    """
    source = open_pack(data, "all", labels=False)
    places = range(len(source))
    height, width = source.coding.size
    verdicts: list[Verdict] = []
    if progress is not None:
        progress(0, len(source))
    work = partial(_look_at, source)
    reasons = processes.each(work, _died, iter(places), len(source), workers)
    for place, reason in zip(places, reasons, strict=True):
        frames = int(source.num_frames[place])
        verdicts.append(
            Verdict(
                source.ids[place],
                "video",
                bad=reason,
                width=width,
                height=height,
                frames=frames,
                codec=source.coding.encoding,
            )
        )
        if progress is not None:
            progress(len(verdicts), len(source))
    path = Path(data.source or "").expanduser().absolute()
    checked = Checked(source.name, path, verdicts, storage=source.storage)
    checked.left_out = list(source.left_out)
    parts: dict[str, set[str]] = {}
    rule = ""
    try:
        for part in PARTS:
            opened = open_pack(data, part, labels=False)
            parts[part], rule = set(opened.ids), opened.split_rule
    except InputError as error:
        checked.notes.append(f"it cannot be divided into train and test: {error}")
        rule = ""
    compare(checked, _same_frames(source), parts, rule)
    return checked


def _look_at(source: PackSource, place: int) -> str | None:
    """Why a video of a pack is bad, if it is."""
    try:
        source.verify(place)
        for start in range(0, int(source.num_frames[place]), _PIECE):
            stop = min(start + _PIECE, int(source.num_frames[place]))
            source.read(place, np.arange(start, stop), None)
    except BadMediaError as error:
        return error.reason
    return None


def _died(place: int) -> str:
    return processes.CRASHED


def _same_frames(source: PackSource) -> Iterable[list[str]]:
    by_content: dict[bytes, list[str]] = defaultdict(list)
    for place, name in enumerate(source.ids):
        by_content[source.digest(place)].append(name)
    return by_content.values()
