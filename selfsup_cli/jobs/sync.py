"""`selfsup sync`: by how much recordings of one event are apart in time."""

from __future__ import annotations

import csv
import io
import json
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from selfsup_cli.data import offsets
from selfsup_cli.data.multiview_layouts import find_recordings, open_each_camera
from selfsup_cli.data.multiview_raw import RawRecording
from selfsup_cli.data.offsets import Offset
from selfsup_cli.data.survey import survey
from selfsup_cli.data.view_recordings import Recordings
from selfsup_cli.engine import signals
from selfsup_cli.engine.devices import choose
from selfsup_cli.engine.progress import Progress
from selfsup_cli.errors import InputError
from selfsup_cli.jobs.common import Outcome
from selfsup_cli.jobs.predicted import target
from selfsup_cli.runs import atomic
from selfsup_cli.visualization.recordings import curves

log = logging.getLogger("selfsup")

By = Literal["model", "motion"]
_MOST_FRAMES = 1500
_CURVES = 24
_COLUMNS = (
    *("recording", "first", "second", "offset_frames", "offset_seconds"),
    *("low_seconds", "high_seconds", "score", "told", "doubt"),
)


@dataclass(frozen=True)
class Pair:
    """Two cameras of a recording and by how much they are apart, in frames of the clock."""

    first: str
    second: str
    offset: Offset


@dataclass(frozen=True)
class Aligned:
    """The cameras of a recording against each other; `rate` is the clock's, in frames a second.

    `starts` are how many seconds later than the first each camera's recording shows the same, by
    all pairs together; NaN for one that cannot be told.
    """

    id: str
    cameras: tuple[str, ...]
    rate: float
    pairs: tuple[Pair, ...]
    starts: tuple[float, ...]


def sync(
    folder: str,
    *,
    by: By = "model",
    subject: str = "latest",
    cameras: Sequence[str] = (),
    most: float = 5.0,
    background: str = "auto",
    out: Path | None = None,
    picture: Path | None = None,
    device: str = "auto",
    force: bool = False,
    quiet: bool = False,
) -> Outcome:
    """Find by how much the cameras of each recording in `folder` are apart, up to `most` seconds.

    By the synchronisation score of a network of `pretrain multiview` (the run `subject`), or by how
    much moves at which height (`by="motion"`, which needs none). Writes `out` (.csv or .json) and
    `picture`. What cannot be told is said so. Raises InputError and MachineError.
    """
    wanted = target(out or Path("offsets.csv"), (".csv", ".json"), "--out", force=force)
    drawn = target(picture or wanted.with_suffix(".png"), (".png",), "--picture", force=force)
    found = find_recordings(folder)
    recordings = _several(found, cameras)
    with signals.catching() as stop, Progress(quiet=quiet) as progress:
        compare: Callable[[RawRecording], Aligned]
        if by == "motion":
            about = "how much moves at which height"
            counted = progress.counting("looking through cameras")
            compare = _by_motion(recordings, most, counted)
            score = "correlation"
        else:
            compare, about = _by_model(
                recordings, found, most, subject, background, device, progress
            )
            score = "synchronisation (centred logit)"
        results = []
        for recording in recordings:
            if stop:
                raise stop.stopped("nothing")
            results.append(compare(recording))
    for one in results:
        for pair in one.pairs:
            if pair.offset.doubt:
                log.warning(
                    "%s: the offset of %s and %s cannot be told: %s",
                    *(one.id, pair.first, pair.second, pair.offset.doubt),
                )
    _write(wanted, results, about)
    shown = [
        (f"{one.id} {pair.first} · {pair.second}", pair.offset)
        for one in results
        for pair in one.pairs
    ]
    curves(drawn, shown[:_CURVES], results[0].rate, title=f"Offsets by {about}", score=score)
    data = {
        "by": by,
        "about": about,
        "out": str(wanted),
        "picture": str(drawn),
        "recordings": [_as_data(one, curve=True) for one in results],
    }
    return Outcome(text="\n".join(_told(results, about, wanted, drawn)), data=data)


def _several(found: Recordings, cameras: Sequence[str]) -> list[RawRecording]:
    """The recordings with at least two of `cameras` (all where none are named)."""
    for note in found.notes:
        log.warning("%s: %s", found.name, note)
    for name, reason in found.left_out:
        log.warning("%s is left out: %s", name, reason)
    kept = []
    for one in found.recordings:
        views = [view for view in one.views if not cameras or view.camera.name in cameras]
        if len(views) >= 2:
            kept.append(replace(one, views=tuple(views)))
        else:
            log.warning("%s is left out: it has %d camera(s)", one.id, len(views))
    if not kept:
        raise InputError(
            f"no recording of {found.name} has two cameras, so there is nothing to align: put "
            "those of one event into one folder, as EVENT/CAMERA.mp4",
            kind="one-camera",
        )
    return kept


@dataclass(frozen=True)
class _Clock:
    """What the cameras of a recording count in together: the slowest one's frames."""

    rate: float
    rates: tuple[float, ...]

    @classmethod
    def of(cls, recording: RawRecording) -> _Clock:
        rates = tuple(view.rate or recording.rate for view in recording.views)
        return cls(min(rates), rates)

    def frames(self, camera: int, count: int) -> NDArray[np.int64]:
        """Which of `count` frames of a camera is shown at each tick."""
        ratio = self.rates[camera] / self.rate
        ticks = max(1, int((count - 1) / ratio) + 1)
        return np.minimum(np.round(np.arange(ticks) * ratio), count - 1).astype(np.int64)


def _by_motion(
    recordings: Sequence[RawRecording], most: float, counted: Callable[[int, int], None]
) -> Callable[[RawRecording], Aligned]:
    total = sum(len(one.views) for one in recordings)
    done = 0

    def compare(recording: RawRecording) -> Aligned:
        nonlocal done
        clock = _Clock.of(recording)
        signals_ = []
        for n, view in enumerate(recording.views):
            known = survey(view.pictures)
            energy = offsets.energy(known.profile, clock.rates[n])
            signals_.append(energy[clock.frames(n, len(energy))])
            done += 1
            counted(done, total)
        return _aligned(
            recording,
            clock.rate,
            [
                offsets.by_motion(signals_[a], signals_[b], round(most * clock.rate), clock.rate)
                for a, b in combinations(range(len(signals_)), 2)
            ],
        )

    return compare


def _by_model(
    recordings: Sequence[RawRecording],
    found: Recordings,
    most: float,
    subject: str,
    background: str,
    device: str,
    progress: Progress,
) -> tuple[Callable[[RawRecording], Aligned], str]:
    """A function that compares the cameras of a recording by a network, and what it goes by."""
    from selfsup_cli.evaluation.view_features import Viewer
    from selfsup_cli.jobs.multiview import background_for, find_comparing

    compared = find_comparing(subject)
    compared.require("sync")
    side = compared.preset.data.side
    hardware = choose(device)
    asked = background_for(background, compared)
    views = open_each_camera(found, recordings, side, told=progress.counting("preparing views"))
    viewer = Viewer(compared.network, views, hardware, background=asked)
    places = {one.id: n for n, one in enumerate(views.recordings)}

    def compare(recording: RawRecording) -> Aligned:
        clock = _Clock.of(recording)
        ticks, features = [], []
        longest = max(view.pictures.frames for view in recording.views)
        step = -(-longest // _MOST_FRAMES)
        for n, view in enumerate(recording.views):
            place = places[f"{recording.id}/{view.camera.name}"]
            shown = clock.frames(n, view.pictures.frames)[::step]
            ticks.append(shown)
            told = progress.counting(f"{view.camera.name} of {recording.id}")
            features.append(viewer.features([(place, 0, int(f)) for f in shown], told))
        found_ = []
        for a, b in combinations(range(len(ticks)), 2):
            there = viewer.scores(features[a], features[b])
            back = viewer.scores(features[b], features[a]).T
            both = ((there + back) / 2).double().numpy()
            found_.append(_by_logits(both, round(most * clock.rate / step), clock.rate / step))
        if step > 1:
            found_ = [_stretched(one, step) for one in found_]
        return _aligned(recording, clock.rate, found_)

    return compare, f"the network of {compared.run}"


def _by_logits(logits: NDArray[np.float64], most: int, rate: float) -> Offset:
    """The offset by how well each frame of one camera goes with each of another, `[N,M]`.

    What frames score with all others alike is taken off: it says nothing of when.
    """
    centred = logits - logits.mean(0) - logits.mean(1)[:, None] + logits.mean()
    lags = offsets.searched(len(logits), logits.shape[1], most)
    scores, times = [], []
    for lag in lags.tolist():
        start = max(0, -lag)
        values = np.diagonal(centred, lag)
        scores.append(values)
        times.append(np.arange(start, start + len(values)))
    return offsets.by_scores(lags, scores, times, len(logits), rate)


def _stretched(one: Offset, step: int) -> Offset:
    """An offset in steps of `step` ticks, in ticks."""
    return replace(
        one,
        lags=one.lags * step,
        best=one.best * step,
        peak=one.peak * step,
        low=one.low * step,
        high=one.high * step,
    )


def _aligned(recording: RawRecording, rate: float, found: Sequence[Offset]) -> Aligned:
    names = tuple(view.camera.name for view in recording.views)
    pairs = list(combinations(range(len(names)), 2))
    triples = [(a, b, one) for (a, b), one in zip(pairs, found, strict=True)]
    starts, _ = offsets.consistent(triples, len(names))
    return Aligned(
        recording.id,
        names,
        rate,
        tuple(Pair(names[a], names[b], one) for a, b, one in triples),
        tuple((starts / rate).tolist()),
    )


# -- what is written and told


def _as_data(one: Aligned, *, curve: bool) -> dict[str, Any]:
    rows = []
    for pair in one.pairs:
        offset = pair.offset
        row: dict[str, Any] = {
            "first": pair.first,
            "second": pair.second,
            "offset_frames": round(offset.peak, 3),
            "offset_seconds": round(offset.peak / one.rate, 4),
            "low_seconds": round(offset.low / one.rate, 4),
            "high_seconds": round(offset.high / one.rate, 4),
            "score": round(offset.score, 4),
            "told": not offset.doubt,
            "doubt": offset.doubt,
        }
        if curve:
            known = np.isfinite(offset.scores)
            row["curve"] = {
                "frames": offset.lags[known].tolist(),
                "scores": np.round(offset.scores[known], 5).tolist(),
            }
        rows.append(row)
    return {
        "recording": one.id,
        "frames_per_second": one.rate,
        "cameras": {
            name: None if np.isnan(start) else round(start, 4)
            for name, start in zip(one.cameras, one.starts, strict=True)
        },
        "pairs": rows,
    }


def _write(path: Path, results: Sequence[Aligned], about: str) -> None:
    if path.suffix.lower() == ".json":
        rows = [_as_data(one, curve=True) for one in results]
        text = json.dumps({"by": about, "recordings": rows}, indent=2, ensure_ascii=False)
        atomic.write_text(path, text + "\n")
        return
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, _COLUMNS, lineterminator="\n")
    writer.writeheader()
    for one in results:
        for row in _as_data(one, curve=False)["pairs"]:
            writer.writerow({"recording": one.id, **row, "told": "yes" if row["told"] else "no"})
    atomic.write_text(path, buffer.getvalue())


def _told(results: Sequence[Aligned], about: str, wanted: Path, drawn: Path) -> Iterator[str]:
    yield f"offsets by {about}"
    for one in results:
        yield ""
        yield f"{one.id} ({one.rate:g} frames a second)"
        for pair in one.pairs:
            offset = pair.offset
            said = f"{offset.peak / one.rate:+.3f} s ({offset.peak:+.1f} frames)"
            low, high = offset.low / one.rate, offset.high / one.rate
            said += f", 95 % interval {low:+.3f} … {high:+.3f}"
            if offset.doubt:
                said = f"cannot be told: {offset.doubt} (best {offset.peak:+.1f} frames)"
            yield f"  {pair.second} after {pair.first}: {said}"
        tied = [
            f"{name} {start:+.3f}"
            for name, start in zip(one.cameras, one.starts, strict=True)
            if not np.isnan(start)
        ]
        if len(tied) > 1:
            yield f"  all together, seconds after {one.cameras[0]}: {', '.join(tied)}"
    yield ""
    yield f"{wanted}, {drawn}"
