"""`selfsup predict pose`: where the joints of the person in images or videos are in space."""

from __future__ import annotations

import csv
import io
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from selfsup_cli.config.joints import JOINTS
from selfsup_cli.data import video
from selfsup_cli.data.listing import IMAGE_SUFFIXES, SUFFIXES
from selfsup_cli.data.multiview import Camera
from selfsup_cli.data.multiview_raw import RawRecording, RawView, RecordingMaker
from selfsup_cli.data.pictures import ImagePictures, VideoPictures
from selfsup_cli.data.source import ImageSource, LeftOut
from selfsup_cli.engine import signals
from selfsup_cli.engine.devices import Hardware, choose, tune_allocator
from selfsup_cli.engine.progress import Progress
from selfsup_cli.errors import BadMediaError, InputError
from selfsup_cli.jobs.common import Outcome
from selfsup_cli.jobs.predict_images import opened
from selfsup_cli.jobs.predicted import make_folder, picture_names, target
from selfsup_cli.jobs.subject import is_weights
from selfsup_cli.jobs.transferred import MODEL
from selfsup_cli.jobs.transferred_poses import packed
from selfsup_cli.models.pose import TrainedPose, is_pose, load_pose
from selfsup_cli.runs import atomic
from selfsup_cli.runs.atomic import file_sha256
from selfsup_cli.runs.run import RunSummary, find_run, runs_dir
from selfsup_cli.transforms.images import center_crop, to_unit
from selfsup_cli.transforms.views import remove_background
from selfsup_cli.visualization import poses

log = logging.getLogger("selfsup")

Told = Callable[[int, int], None]
Seen = Literal["fixed", "moving"]
"""By a camera that stands still, so that the empty scene is known, or by any."""

_FORMATS = (".csv", ".h5")
_RATE = 50.0
_BATCH = 64
_COLUMNS = 8
_LISTED = 20


@dataclass
class _Found:
    """What was found of a video, or of images: names and poses; some crops to show."""

    name: str
    ids: list[str] = field(default_factory=list)
    poses: list[NDArray[np.float64]] = field(default_factory=list)
    shown: list[tuple[int, Tensor]] = field(default_factory=list)


def predict_pose(
    path: str,
    subject: str = "latest",
    *,
    out: Path | None = None,
    pictures: Path | None = None,
    camera: Seen | None = None,
    device: str = "auto",
    force: bool = False,
    quiet: bool = False,
) -> Outcome:
    """Estimate the poses in the video or image `path`, or in all of a folder, by a network of
    `transfer pose`.

    By a `fixed` camera (by default that of a video) the subject is what stands out from the empty
    scene, which is the median of all pictures; the crop follows it, and the background is removed
    if the network knows none. Otherwise the subject is taken to fill the largest square in the
    middle of each image. Writes `out` (.csv or .h5) and, into the folder `pictures`, sheets of
    some. What cannot be read is named with its reason. Raises InputError and MachineError.
    """
    wanted = target(out or Path("poses.csv"), _FORMATS, "--out", force=force)
    trained, name = load_subject(subject)
    file = Path(path).expanduser()
    if not file.exists():
        raise InputError(f"there is no file or folder {file}", kind="not-found")
    hardware = choose(device)
    tune_allocator()
    trained.network.eval().to(hardware.device)
    if pictures is not None:
        make_folder(pictures)
    bad: list[LeftOut] = []
    found: list[_Found] = []
    with signals.catching() as stop, Progress(quiet=quiet) as progress:
        told = progress.counting("pictures")

        def counted(done: int, total: int) -> None:
            if stop:
                raise stop.stopped("nothing")
            told(done, total)

        ask = _Asking(trained, hardware, counted)
        for one, source in _sources(file, camera, progress, bad):
            try:
                if isinstance(source, VideoPictures | ImagePictures):
                    found.append(ask.followed(one, source))
                else:
                    found.append(ask.centred(one, source, bad))
            except BadMediaError as error:
                bad.append(LeftOut(one, error.reason))
                log.warning("cannot read %s: %s", one, error.reason)
        total = sum(len(one.ids) for one in found)
        if not total:
            raise InputError(
                f"there is no picture to be read in {file}"
                + (f" ({bad[0].id}: {bad[0].reason})" if bad else ""),
                kind="bad-media",
            )
        ids = [identifier for one in found for identifier in one.ids]
        every = np.stack([pose for one in found for pose in one.poses])
        atomic.write_bytes(
            wanted, packed(ids, every) if wanted.suffix == ".h5" else _csv(ids, every)
        )
        if pictures is not None:
            _draw(pictures, found, trained)
    lines = [f"{one.name}: {len(one.ids)} pictures" for one in found[:_LISTED]]
    if len(found) > _LISTED:
        lines.append(f"… and {len(found) - _LISTED} more")
    lines += [f"cannot be read: {one.id}: {one.reason}" for one in bad]
    return Outcome(
        text="\n".join([*lines, f"{total} poses, {len(bad)} not read", str(wanted)]),
        data={
            "from": name,
            "weights": trained.weights,
            "out": str(wanted),
            "pictures": total,
            "sources": {one.name: len(one.ids) for one in found},
            "bad": [{"id": one.id, "reason": one.reason} for one in bad],
        },
    )


def load_subject(subject: str) -> tuple[TrainedPose, str]:
    """The network of a run of `transfer pose`, or of its `model.safetensors`, and its name."""
    path = Path(subject)
    if is_weights(path):
        name = path.stem
    else:
        run = find_run(subject, runs_dir(), needs=_unfit)
        path, name = run.path / MODEL, run.name
    if not is_pose(path):
        raise InputError(
            f"{name} estimates no poses; name a run of 'selfsup transfer pose' with --from",
            kind="run-unfit",
        )
    return load_pose(path), name


def _unfit(summary: RunSummary) -> str | None:
    if summary.job != "transfer/pose":
        return f"it is no run of 'selfsup transfer pose' but of {summary.job}"
    if not (summary.path / MODEL).is_file():
        return "it trained several times; name one of its runs"
    return None


def _sources(
    file: Path, camera: Seen | None, progress: Progress, bad: list[LeftOut]
) -> Iterator[tuple[str, VideoPictures | ImagePictures | ImageSource]]:
    """What there is to look at, and its name: pictures of one camera, or images by themselves."""
    videos = [file] if file.suffix.lower() in SUFFIXES and file.is_file() else []
    inside: list[Path] = []
    if file.is_dir():
        inside = sorted(one for one in file.rglob("*") if one.is_file())
        videos = [one for one in inside if one.suffix.lower() in SUFFIXES]
    for one in videos:
        name = one.name if one == file else one.relative_to(file).as_posix()
        if camera == "moving":
            raise InputError(
                f"{name}: in a video of a moving camera the subject is not found; give images of "
                "the subject in their middle instead",
                kind="usage",
            )
        try:
            yield name, VideoPictures(one, video.probe(one), file_sha256(one))
        except BadMediaError as error:
            bad.append(LeftOut(name, error.reason))
            log.warning("cannot read %s: %s", name, error.reason)
    if videos:
        beside = sum(one.suffix.lower() in IMAGE_SUFFIXES for one in inside)
        if beside:
            log.warning("%d images beside the videos of %s are not looked at", beside, file)
        return
    source = opened(str(file), 0, progress)
    bad += [LeftOut(one.id, one.reason) for one in source.left_out]
    if camera == "fixed":
        folder = file if file.is_dir() else file.parent
        yield file.name, ImagePictures.of(folder, tuple(sorted(source.ids)))
    else:
        yield file.name, source


class _Asking:
    """A network, and what is told of how far it has come."""

    def __init__(self, trained: TrainedPose, hardware: Hardware, told: Told) -> None:
        self.network = trained.network
        self.side = int(trained.facts["side"])
        self.removes = trained.facts["background"] == "remove"
        self.hardware = hardware
        self.told = told

    @torch.no_grad()
    def poses(self, images: Tensor) -> NDArray[np.float64]:
        """The poses `[N, 17, 3]` of crops uint8 `[N, 3, S, S]`."""
        parts = []
        for part in torch.split(images, _BATCH):
            with self.hardware.autocast():
                given = self.network(to_unit(part.to(self.hardware.device)))
            parts.append(self.network.in_millimetres(given.float()).double().cpu().numpy())
        return np.concatenate(parts)

    def followed(self, name: str, pictures: VideoPictures | ImagePictures) -> _Found:
        """All pictures of a fixed camera, in crops that follow the subject."""
        seen = Camera(name, pictures.width, pictures.height)
        raw = RawRecording(name, name, name, _RATE, (RawView(seen, pictures, _RATE),))
        found = _Found(name)
        total = pictures.frames
        wanted = set(np.linspace(0, total - 1, min(_COLUMNS, total)).astype(int).tolist())
        for piece in RecordingMaker((raw,), self.side).pieces(0, 0, 0):
            crops = torch.from_numpy(np.ascontiguousarray(piece.crops))
            shown = crops
            if self.removes and piece.masks is not None:
                shown = remove_background(crops, torch.from_numpy(piece.masks))
            elif self.removes and not found.ids:
                log.warning(
                    "%s has too few pictures to tell the empty scene, and this network was trained "
                    "without background: errors are larger",
                    name,
                )
            first = len(found.ids)
            found.ids += [f"{name}/{first + n}" for n in range(len(crops))]
            found.poses += list(self.poses(shown))
            found.shown += [(first + n, crops[n]) for n in range(len(crops)) if first + n in wanted]
            self.told(len(found.ids), total)
        return found

    def centred(self, name: str, source: ImageSource, bad: list[LeftOut]) -> _Found:
        """Images by themselves, in the largest square in the middle of each."""
        if self.removes:
            log.warning(
                "this network was trained without background, and that of single images is not "
                "known: errors are larger; --camera fixed takes them for pictures of one camera"
            )
        found = _Found(name)
        for place, identifier in enumerate(source.ids):
            self.told(place + 1, len(source))
            try:
                image = source.read(place, self.side)
            except BadMediaError as error:
                bad.append(LeftOut(identifier, error.reason))
                log.warning("cannot read %s: %s", identifier, error.reason)
                continue
            crop = center_crop(image[None], self.side)
            found.shown.append((len(found.ids), crop[0]))
            found.ids.append(identifier)
            found.poses.append(self.poses(crop)[0])
        return found


def _csv(ids: list[str], found: NDArray[np.float64]) -> bytes:
    """A row for each picture: id, and x, y, z of each joint in mm from the root."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["id", *(f"{joint} {axis}" for joint in JOINTS for axis in "xyz")])
    for identifier, pose in zip(ids, found, strict=True):
        writer.writerow([identifier, *(f"{value:.1f}" for value in pose.reshape(-1))])
    return text.getvalue().encode()


def _draw(folder: Path, found: list[_Found], trained: TrainedPose) -> None:
    """Sheets of eight pictures each: of a video those at equal distances, of images all."""
    scale, side = trained.facts["scale"], int(trained.facts["side"])
    names = picture_names([one.name for one in found])
    for one, name in zip(found, names, strict=True):
        for first in range(0, len(one.shown), _COLUMNS):
            part = one.shown[first : first + _COLUMNS]
            columns = [
                poses.Column(
                    title=one.ids[place],
                    said="",
                    image=image,
                    seen=None,
                    guessed=poses.placed(one.poses[place], scale, side),
                    truth=None,
                    found=one.poses[place],
                )
                for place, image in part
            ]
            number = f"-{first // _COLUMNS + 1}" if len(one.shown) > _COLUMNS else ""
            path = folder / f"{name.removesuffix('.png')}{number}.png"
            poses.sheet(path, columns, title=one.name, note="3D poses from single pictures")
