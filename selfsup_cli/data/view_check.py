"""Looks through recordings by several cameras: what each has, whether they belong together, and
whether joints and calibration fit."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from selfsup_cli.config.joints import JOINTS
from selfsup_cli.data import offsets
from selfsup_cli.data.geometry import project_camera, to_camera, triangulate
from selfsup_cli.data.motionless import moving
from selfsup_cli.data.multiview import Camera
from selfsup_cli.data.multiview_raw import LEAST_FRAMES, RawRecording, RawView
from selfsup_cli.data.offsets import Offset
from selfsup_cli.data.pictures import VideoPictures
from selfsup_cli.data.survey import Survey, survey
from selfsup_cli.data.view_recordings import Recordings
from selfsup_cli.errors import BadMediaError
from selfsup_cli.runs.atomic import file_sha256

_SHORT = 0.02  # share of the frames of others by which a camera may be shorter
_SAME_RATE = 0.005
_SEARCHED = 5.0  # seconds
_OFF = 0.05  # seconds by which cameras may be apart
_DRIFTING = 10.0  # milliseconds a minute
_MISSES = 5.0  # pixels by which joints may miss
_STANDS = 0.5
_LEAST_SEEN = 3

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class CameraCheck:
    """What was found of one camera.

    `rate` is 0 where it is not known. `missing` is the share of frames in which each joint is not
    known, or None without joints. `misses` is how far, in pixels (median), joints that are
    projected lie from where they are said to be seen; `strays` how far the middle of what moves
    lies from where the other cameras say it is, as a share of its height, without joints.
    """

    camera: Camera
    frames: int
    rate: float
    survey: Survey
    missing: NDArray[np.float64] | None
    misses: float | None
    strays: float | None


@dataclass(frozen=True)
class PairCheck:
    """By how much two cameras are apart, by what moves when; `drift` in milliseconds a minute."""

    first: str
    second: str
    offset: Offset
    drift: float | None


@dataclass
class RecordingCheck:
    """What was found of one recording; `problems` are sentences, the worst first.

    `moving` bool `[T]` says in which frames something moves.
    """

    raw: RawRecording
    cameras: list[CameraCheck]
    pairs: list[PairCheck]
    moving: NDArray[np.bool_]
    problems: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    @property
    def frames(self) -> int:
        """What all cameras have."""
        return min(one.frames for one in self.cameras)


@dataclass
class ViewsChecked:
    """What was found of all recordings."""

    found: Recordings
    recordings: list[RecordingCheck]
    problems: list[str] = field(default_factory=list)

    def all_problems(self) -> list[str]:
        """Those of the whole, then those of each recording, with its name."""
        own = [f"{one.raw.id}: {said}" for one in self.recordings for said in one.problems]
        return [*self.problems, *own]


def check_views(
    found: Recordings, *, cache: Path | None = None, progress: Progress | None = None
) -> ViewsChecked:
    """Look through every picture of `found`, once. `progress(done, total)` counts cameras."""
    total = sum(len(one.views) for one in found.recordings)
    checked = ViewsChecked(found, [])
    checked.problems += [f"{name} cannot be read: {reason}" for name, reason in found.left_out]
    done = 0
    for recording in found.recordings:
        known: list[tuple[RawView, Survey]] = []
        for view in recording.views:
            try:
                known.append((view, survey(view.pictures, cache=cache)))
            except BadMediaError as error:
                name = f"{recording.id}/{view.camera.name}"
                checked.problems.append(f"{name} cannot be read: {error.reason}")
            done += 1
            if progress is not None:
                progress(done, total)
        if known:
            checked.recordings.append(_recording(recording, known))
    checked.problems += _same_content(found)
    return checked


def _recording(raw: RawRecording, known: list[tuple[RawView, Survey]]) -> RecordingCheck:
    strays = _strays([view for view, _ in known], [one for _, one in known])
    cameras = [
        CameraCheck(
            view.camera,
            view.pictures.frames,
            view.rate,
            one,
            _missing(view),
            _misses(view),
            strays.get(view.camera.name),
        )
        for view, one in known
    ]
    length = min(one.frames for one in cameras)
    energies = [offsets.energy(one.survey.profile, raw.rate) for one in cameras]
    pairs = []
    for a, b in combinations(range(len(cameras)), 2):
        if min(len(energies[a]), len(energies[b])) < 2 * offsets.CHANNELS:
            continue
        most = round(_SEARCHED * raw.rate)
        offset = offsets.by_motion(energies[a], energies[b], most, raw.rate)
        drift = None
        if not offset.doubt:
            drift = offsets.drift(energies[a], energies[b], offset, raw.rate)
        pairs.append(PairCheck(cameras[a].camera.name, cameras[b].camera.name, offset, drift))
    motion = np.mean([one.survey.motion[:length] for one in cameras], 0)
    result = RecordingCheck(raw, cameras, pairs, moving(motion, raw.rate))
    result.problems = list(_problems(result))
    result.remarks = list(_remarks(result))
    return result


def _problems(one: RecordingCheck) -> Iterator[str]:
    """What has to be mended, in sentences."""
    if len(one.cameras) < 2:
        name = one.cameras[0].camera.name
        yield f"one camera only ({name}): nothing can be compared with it"
    rates = {each.camera.name: each.rate for each in one.cameras if each.rate > 0}
    if rates and max(rates.values()) > (1 + _SAME_RATE) * min(rates.values()):
        said = ", ".join(f"{name} {rate:.5g}" for name, rate in rates.items())
        yield f"cameras record at different rates: {said} frames a second"
    usual = float(np.median([each.frames for each in one.cameras]))
    longest = max(each.frames for each in one.cameras)
    for each in one.cameras:
        lost = longest - each.frames
        if lost > max(1, _SHORT * longest):
            end = each.frames / one.raw.rate
            yield (
                f"camera {each.camera.name} is cut short: {each.frames} of {longest} frames, "
                f"nothing after {end:.2f} s"
                + ("" if each.frames >= usual / 2 else " (too little to be used)")
            )
    for pair in one.pairs:
        offset = pair.offset
        if not offset.doubt and not offset.low <= 0 <= offset.high:
            seconds = offset.peak / one.raw.rate
            if abs(seconds) > _OFF:
                yield (
                    f"{pair.second} is {abs(offset.peak):.1f} frames ({abs(seconds):.2f} s) "
                    f"{'behind' if offset.peak > 0 else 'ahead of'} {pair.first}, by what moves"
                )
        if pair.drift is not None and abs(pair.drift) > _DRIFTING:
            yield (
                f"{pair.second} drifts by {pair.drift:+.0f} milliseconds a minute against "
                f"{pair.first}"
            )
    for each in one.cameras:
        if each.misses is not None and each.misses > _MISSES:
            yield (
                f"joints projected into {each.camera.name} miss where they are seen by "
                f"{each.misses:.1f} pixels (median)"
            )
        if each.strays is not None and each.strays > _STANDS:
            yield (
                f"the calibration of {each.camera.name} does not fit: what moves lies "
                f"{each.strays:.1f} of its height from where the other cameras see it"
            )
        yield from _unseen(each)


def _unseen(each: CameraCheck) -> Iterator[str]:
    if each.missing is None:
        return
    never = [name for name, share in zip(JOINTS, each.missing, strict=True) if share == 1]
    some = float(each.missing.mean())
    if len(never) == len(JOINTS):
        yield f"{each.camera.name} has no joint in any frame (all are NaN)"
    elif never:
        yield f"{each.camera.name} never has the joints {', '.join(never)}"
    elif some > 0:
        yield f"{some:.1%} of the joints of {each.camera.name} are missing (NaN)"


def _remarks(one: RecordingCheck) -> Iterator[str]:
    """What is worth knowing, and no mistake."""
    lengths = {each.frames for each in one.cameras}
    if len(lengths) > 1:
        yield f"the first {one.frames} frames are what all cameras have"
    if (quiet := float((~one.moving).mean())) > 0:
        yield f"nothing moves in {quiet:.0%} of the frames"
    still, empty = [], []
    for each in one.cameras:
        places = each.survey.places
        known = places[np.isfinite(places).all(1)]
        if not len(known):
            empty.append(each.camera.name)
        elif _overlap(known) > _STANDS:
            still.append(each.camera.name)
    if one.frames >= LEAST_FRAMES:
        if empty:
            yield f"nothing stands out from the scene of {', '.join(empty)}"
        if still:
            yield (
                f"the subject hardly leaves its place in {', '.join(still)}: the median may show "
                "it instead of what is behind"
            )
    doubtful = [pair for pair in one.pairs if pair.offset.doubt]
    if doubtful:
        names = ", ".join(f"{pair.first} and {pair.second}" for pair in doubtful[:3])
        more = f" and {len(doubtful) - 3} more pairs" if len(doubtful) > 3 else ""
        yield f"what moves does not tell whether {names}{more} are synchronised"


def _overlap(places: NDArray[np.float32]) -> float:
    """How much of its usual place the subject covers, in the mean over time."""
    usual = np.median(places, 0)
    low, high = np.maximum(places[:, :2], usual[:2]), np.minimum(places[:, 2:], usual[2:])
    shared = np.prod(np.maximum(high - low, 0), 1)
    own = np.prod(places[:, 2:] - places[:, :2], 1) + np.prod(usual[2:] - usual[:2])
    return float((shared / np.maximum(own - shared, 1e-9)).mean())


def _missing(view: RawView) -> NDArray[np.float64] | None:
    seen = view.annotation
    part = seen.joints if seen.joints is not None else seen.pixels
    if part is None:
        return None
    return np.asarray(1 - np.isfinite(part).all(-1).mean(0))


def _misses(view: RawView) -> float | None:
    """Pixels between joints that are projected and those that are seen, where both are given."""
    seen = view.annotation
    if seen.joints is None or seen.pixels is None or view.camera.intrinsics is None:
        return None
    apart = np.linalg.norm(project_camera(seen.joints, view.camera) - seen.pixels, axis=-1)
    return float(np.nanmedian(apart)) if np.isfinite(apart).any() else None


def _strays(views: list[RawView], surveys: list[Survey]) -> dict[str, float]:
    """How far, by the others, the middle of what stands out lies from where a camera has it.

    As a share of its height; for cameras with a place in the world and no joints, three of which
    are needed for one to be judged by the others.
    """
    usable = [
        n
        for n, view in enumerate(views)
        if view.camera.calibrated and view.annotation.joints is None
    ]
    if len(usable) < _LEAST_SEEN:
        return {}
    length = min(len(surveys[n].places) for n in usable)
    places = np.stack([surveys[n].places[:length] for n in usable])
    middles = (places[..., :2] + places[..., 2:]) / 2
    heights = places[..., 3] - places[..., 1]
    found = {}
    for k, n in enumerate(usable):
        others = [place for place in range(len(usable)) if place != k]
        points = triangulate(middles[others], [views[usable[place]].camera for place in others])
        camera = views[n].camera
        apart = np.linalg.norm(
            project_camera(to_camera(points, camera), camera) - middles[k], axis=1
        )
        share = apart / np.maximum(heights[k], 1)
        known = np.isfinite(share)
        if known.sum() >= _LEAST_SEEN:
            found[camera.name] = float(np.median(share[known]))
    return found


def _same_content(found: Recordings) -> Iterator[str]:
    """Videos that are copies of others: of one subject under two names, or of one camera."""
    by_size: dict[int, list[tuple[str, str, Path]]] = defaultdict(list)
    for recording in found.recordings:
        for view in recording.views:
            if isinstance(view.pictures, VideoPictures):
                path = view.pictures.path
                name = f"{recording.id}/{view.camera.name}"
                by_size[path.stat().st_size].append((recording.subject, name, path))
    for group in by_size.values():
        if len(group) < 2:
            continue
        by_content: dict[str, list[tuple[str, str]]] = defaultdict(list)
        for subject, name, path in group:
            by_content[file_sha256(path)].append((subject, name))
        for same in by_content.values():
            if len(same) > 1:
                names = ", ".join(name for _, name in same)
                subjects = {subject for subject, _ in same}
                said = ": one person under two names ends up in training and test"
                yield f"{names} have the same content{said if len(subjects) > 1 else ''}"
