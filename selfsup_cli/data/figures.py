"""The built-in people as synchronised views: who does what, seen by four cameras at 50 Hz."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from selfsup_cli.config.figures import MOTIONS, SUBJECTS, Figures
from selfsup_cli.config.registry import unknown
from selfsup_cli.data import room
from selfsup_cli.data.bodies import Body, body_of
from selfsup_cli.data.crops import cut, whole
from selfsup_cli.data.figure_parts import parts_of
from selfsup_cli.data.geometry import (
    Box,
    crop_around,
    into_crop,
    project_camera,
    to_camera,
    virtual_pose,
)
from selfsup_cli.data.mocap import Mocap
from selfsup_cli.data.motions import RATE, Motion, by_rule
from selfsup_cli.data.multiview import Frames, Recording, frame_numbers
from selfsup_cli.data.multiview_plan import Plan
from selfsup_cli.data.multiview_shard import Piece
from selfsup_cli.data.multiview_store import prepare
from selfsup_cli.data.raycast import Window, cast, shade
from selfsup_cli.data.stored_views import StoredViews
from selfsup_cli.errors import InputError
from selfsup_cli.randomness import derive

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from selfsup_cli.data.multiview import Camera

_LOG = logging.getLogger("selfsup")

Told = Callable[[int, int], None]

EXTENT = 2300.0
"""What a crop shows at the depth of the subject, in mm."""

_VERSION = 1
_CHUNK = 16
_TOGETHER = 128
_FINE = 2
_COVERED = 0.25
_AMBIENT = 0.5
_GREY = (124, 116, 104)
_NOISE = 2.0


@dataclass(frozen=True)
class Doing:
    """Who does what."""

    subject: str
    sequence: str
    motion: Motion


class RenderedFigures:
    """People who are rendered when they are asked for: `Views`, and what fills a store of them."""

    def __init__(self, spec: Figures, side: int, doing: Sequence[Doing], mark: str = "") -> None:
        self.spec = spec
        self.side = side
        self._bodies = [body_of(one.subject, spec.seed) for one in doing]
        self._joints = [
            one.motion.joints(body) for one, body in zip(doing, self._bodies, strict=True)
        ]
        self._motion: dict[int, NDArray[np.float32]] = {}
        cameras = room.cameras(spec.seed)
        self.recordings = tuple(
            Recording(one.subject, one.sequence, one.motion.action, cameras, len(one.motion), RATE)
            for one in doing
        )
        self.about = {
            "figures": _VERSION,
            "spec": spec.model_dump(mode="json", exclude={"mocap"}),
            "mocap": mark,
        }
        told = [self.about, side, [one.id for one in self.recordings]]
        self.fingerprint = hashlib.sha256(repr(told).encode()).hexdigest()

    def crops(self, recording: int, camera: int, frames: Frames) -> NDArray[np.uint8]:
        """See `Views`."""
        return self._rendered(recording, camera, frames).crops

    def masks(self, recording: int, camera: int, frames: Frames) -> NDArray[np.bool_]:
        """See `Views`."""
        return self._rendered(recording, camera, frames).masks

    def backgrounds(self, recording: int, camera: int, frames: Frames) -> NDArray[np.uint8]:
        """See `Views`."""
        seen = self._seen(recording, camera, frames)
        return self._behind(camera, seen.boxes)

    def poses(self, recording: int, camera: int, frames: Frames) -> NDArray[np.float32]:
        """See `Views`."""
        return virtual_pose(self._seen(recording, camera, frames).joints).astype(np.float32)

    def pixels(self, recording: int, camera: int, frames: Frames) -> NDArray[np.float32]:
        """See `Views`."""
        return self._seen(recording, camera, frames).pixels(self.side).astype(np.float32)

    def motion(self, recording: int) -> NDArray[np.float32]:
        """See `Views`; the noise of the cameras is no motion."""
        if recording not in self._motion:
            each = [
                np.concatenate([piece.motion for piece in self.pieces(recording, camera, 0)])
                for camera in range(len(self.recordings[recording].cameras))
            ]
            self._motion[recording] = np.mean(each, 0, dtype=np.float32)
        return self._motion[recording]

    def scene(self, recording: int, camera: int) -> NDArray[np.uint8]:
        """The empty scene as a whole picture, uint8 [3, H, W]."""
        if self.spec.scene == "room":
            return room.scene(camera, self.spec.seed)
        view = self.recordings[recording].cameras[camera]
        plain = np.array(_GREY, np.uint8)[:, None, None]
        return np.broadcast_to(plain, (3, view.height, view.width))

    def pieces(self, recording: int, camera: int, start: int) -> Iterator[Piece]:
        """All frames of a camera from `start` on, a few at a time, as a store takes them."""
        frames = self.recordings[recording].frames
        before: NDArray[np.float32] | None = None
        if 0 < start < frames:
            before = self._rendered(recording, camera, [start - 1]).clean
        for first in range(start, frames, _TOGETHER):
            part = range(first, min(first + _TOGETHER, frames))
            now = self._rendered(recording, camera, part)
            both = np.concatenate([now.clean[:1] if before is None else before, now.clean])
            before = now.clean[-1:]
            seen = self._seen(recording, camera, part)
            yield Piece(
                crops=now.crops,
                motion=np.abs(np.diff(both, axis=0)).mean((1, 2, 3)).astype(np.float32),
                masks=now.masks,
                boxes=np.array([(b.left, b.top, b.side) for b in seen.boxes], np.float32),
                poses=virtual_pose(seen.joints).astype(np.float32),
                pixels=seen.pixels(self.side).astype(np.float32),
            )

    def close(self) -> None:
        """Nothing is open."""

    def joints(self, recording: int) -> NDArray[np.float64]:
        """All joints of a recording in the world, [T, 17, 3] in mm."""
        return self._joints[recording]

    def _seen(self, recording: int, camera: int, frames: Frames) -> _Seen:
        here = self.recordings[recording]
        numbers = frame_numbers(frames, here.frames)
        view = here.cameras[camera]
        joints = to_camera(self._joints[recording][numbers], view)
        boxes = [whole(crop_around(one[0], view, EXTENT)) for one in joints]
        return _Seen(view, numbers, joints, boxes)

    def _behind(self, camera: int, boxes: Sequence[Box]) -> NDArray[np.uint8]:
        """What stands still in the crops, uint8 [N, 3, S, S]."""
        shape = (len(boxes), 3, self.side, self.side)
        if self.spec.scene == "none":
            plain = np.array(_GREY, np.uint8)[:, None, None]
            return np.broadcast_to(plain, shape).copy()
        empty = room.scene(camera, self.spec.seed)
        found = np.empty(shape, np.uint8)
        for place, box in enumerate(boxes):
            found[place] = cut(empty, box, self.side)
        return found

    def _rendered(self, recording: int, camera: int, frames: Frames) -> _Rendered:
        side, seed = self.side, self.spec.seed
        here = self._seen(recording, camera, frames)
        count = len(here.joints)
        clean = np.empty((count, side, side, 3), np.float32)
        masks = np.empty((count, side, side), np.bool_)
        for first in range(0, count, _CHUNK):
            part = slice(first, first + _CHUNK)
            scene = self._behind(camera, here.boxes[part]).transpose(0, 2, 3, 1)
            clean[part], covered = render(here.part(part), self._bodies[recording], side, scene)
            masks[part] = covered > _COVERED
        images = clean
        if self.spec.scene == "room":
            noise, name = _noise(side, seed), self.recordings[recording].id
            places = [derive(seed, name, camera, int(n), "noise") for n in here.numbers]
            images = clean + np.stack(
                [np.roll(noise, (at % side, at // side % side), (0, 1)) for at in places]
            ) if count else clean  # fmt: skip
        crops = np.rint(np.clip(images, 0, 255)).astype(np.uint8).transpose(0, 3, 1, 2)
        return _Rendered(np.ascontiguousarray(crops), masks, clean)


@dataclass(frozen=True)
class _Seen:
    """Somebody as a camera has them: joints [N, 17, 3] in mm, and the crops around them."""

    camera: Camera
    numbers: NDArray[np.int64]
    joints: NDArray[np.float64]
    boxes: list[Box]

    def part(self, chosen: slice) -> _Seen:
        return _Seen(self.camera, self.numbers[chosen], self.joints[chosen], self.boxes[chosen])

    def pixels(self, side: int) -> NDArray[np.float64]:
        """The joints in pixels of the crops, [N, 17, 2]."""
        seen = project_camera(self.joints, self.camera)
        found = [into_crop(one, box, side) for one, box in zip(seen, self.boxes, strict=True)]
        return np.array(found).reshape(-1, 17, 2)

    def window(self, side: int) -> Window:
        """The rays of the crops, as the camera has them."""
        assert self.camera.intrinsics is not None  # noqa: S101 (the cameras here are calibrated)
        matrix = self.camera.intrinsics
        corners = np.array([(b.left, b.top, b.side) for b in self.boxes]).reshape(-1, 3)
        places = (np.arange(side) + 0.5) / side
        across = corners[:, :1] + places * corners[:, 2:]
        down = corners[:, 1:2] + places * corners[:, 2:]
        return Window(
            ((across - matrix[0, 2]) / matrix[0, 0]).astype(np.float32),
            ((down - matrix[1, 2]) / matrix[1, 1]).astype(np.float32),
        )


@dataclass(frozen=True)
class _Rendered:
    """Crops uint8 [N, 3, S, S], what they show of the subject [N, S, S], and the same without the
    noise of cameras, float32 [N, S, S, 3]."""

    crops: NDArray[np.uint8]
    masks: NDArray[np.bool_]
    clean: NDArray[np.float32]


def render(
    seen: _Seen, body: Body, side: int, scene: NDArray[np.uint8], *, fine: int = _FINE
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Somebody before a scene, uint8 [N, S, S, 3].

    Gives the colours, float32 [N, S, S, 3] in 0 … 255, and the share of each pixel that is covered,
    [N, S, S]; both are means over `fine`² rays a pixel.
    """
    count, long = len(seen.joints), side * fine
    window = seen.window(side).finer(fine)
    parts = parts_of(seen.joints, body)
    hits = cast(parts, window)
    places, lit = shade(parts, window, hits, _light(seen.camera, count), _AMBIENT)
    # Fine pixels are added up where the coarse ones are that they are a part of.
    frame, pixel = np.divmod(places, long * long)
    row, column = np.divmod(pixel, long)
    coarse = (frame * side + row // fine) * side + column // fine
    cells = count * side * side
    covered = (np.bincount(coarse, minlength=cells) / (fine * fine)).astype(np.float32)
    color = np.ascontiguousarray(
        scene * (1 - covered.reshape(count, side, side, 1)), dtype=np.float32
    )
    flat = color.reshape(-1, 3)
    for channel in range(3):
        total = np.bincount(coarse, lit[:, channel], cells) / (fine * fine)
        flat[:, channel] += total.astype(np.float32)
    return color, covered.reshape(count, side, side)


def _light(camera: Camera, count: int) -> NDArray[np.float32]:
    """Where the lamp is, [N, 3], as the camera has it: high up, and to one side of the room."""
    lamp = np.array([0.45, -0.3, 0.84])
    seen = np.asarray(camera.rotation, np.float64) @ (lamp / np.linalg.norm(lamp))
    return np.broadcast_to(seen.astype(np.float32), (count, 3))


@lru_cache(maxsize=4)
def _noise(side: int, seed: int) -> NDArray[np.float32]:
    g = np.random.default_rng(derive(seed, side, "noise"))
    return g.normal(0, _NOISE, size=(side, side, 3)).astype(np.float32)


def open_figures(
    spec: Figures,
    side: int,
    *,
    subjects: Sequence[str] = SUBJECTS,
    cache: Path | None = None,
    workers: int = 0,
    told: Told | None = None,
) -> StoredViews:
    """The figures of `subjects` in crops of `side` pixels, from a prepared store.

    It lies under `cache`, by default the cache folder, and is rendered by `workers` processes where
    it is missing; `told(done, total)` hears of that. Raises InputError for a subject or an action
    that there is not, and for a folder of motion capture that cannot be read.
    """
    for subject in subjects:
        if subject not in SUBJECTS:
            raise unknown("subject", subject, SUBJECTS)
    figures = rendered(spec, side, subjects)
    plan = Plan("figures", figures.about, figures.recordings, side)
    return prepare(plan, figures, cache=cache, workers=workers, progress=told)


def rendered(spec: Figures, side: int, subjects: Sequence[str] = SUBJECTS) -> RenderedFigures:
    """The same without a store: each crop is rendered when it is asked for."""
    frames = round(spec.seconds * RATE)
    mocap = None if spec.mocap is None else Mocap(Path(spec.mocap).expanduser())
    known = MOTIONS if mocap is None else mocap.actions
    for action in spec.actions:
        if action not in known:
            raise _unknown(action, known, mocap)
    if mocap is not None and mocap.too_short:
        _LOG.warning(
            "of motion capture %s is left out: it lasts less than 3.2 seconds",
            ", ".join(mocap.too_short),
        )
    doing = []
    for subject in subjects:
        for action in spec.actions or known:
            for number in range(spec.sequences):
                if mocap is None:
                    motion = by_rule(action, frames, spec.seed, subject, number)
                else:
                    turn = SUBJECTS.index(subject) + number
                    motion = mocap.performed(action, turn, frames, spec.seed, subject)
                name = action if spec.sequences == 1 else f"{action} {number + 1}"
                doing.append(Doing(subject, name, motion))
    if not doing:
        raise InputError(
            f"no motion in {spec.mocap} lasts 3.2 seconds, which pairs in time need", kind="mocap"
        )
    return RenderedFigures(spec, side, doing, "" if mocap is None else mocap.mark)


def _unknown(action: str, known: Sequence[str], mocap: Mocap | None) -> InputError:
    if mocap is not None and action in mocap.too_short:
        return InputError(
            f"the files of {action} together last less than 3.2 seconds, which is too short",
            kind="mocap",
        )
    return unknown("action", action, list(known))
