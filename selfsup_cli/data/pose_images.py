"""Images of people and where their joints are: single frames of synchronised views."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from selfsup_cli.config.joints import JOINTS, ROOT
from selfsup_cli.data.loader import SourceDataset
from selfsup_cli.data.source import LeftOut
from selfsup_cli.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from selfsup_cli.data.multiview import Views
    from selfsup_cli.data.view_pairs import Stretch

_AT_ONCE = 512
_METRES = 20.0


class PoseImages:
    """Single frames with their poses; a source for the loader.

    `places` int64 [N, 3] are recording, camera and frame. Frames whose root is not known are left
    out. Raises InputError where there are no joints, where they are in metres, or, with `masks`,
    where the subject cannot be told from the scene.
    """

    labels = None
    classes = None
    many = "images"

    def __init__(
        self,
        views: Views,
        places: NDArray[np.int64],
        *,
        name: str,
        split: str,
        split_rule: str,
        masks: bool,
    ) -> None:
        self.views = views
        self.name = name
        self.split = split
        self.split_rule = split_rule
        self.masks = masks
        self.left_out: Sequence[LeftOut] = ()
        self.rootless = 0
        self.places = places
        if not len(places):
            raise InputError(f"{name}: the {split} part has no image", kind="no-data")
        self.poses = _all_poses(self)
        known = np.isfinite(self.poses[:, ROOT]).all(1)
        if not known.any():
            raise _no_joints(self)
        if not known.all():
            self.rootless = int((~known).sum())
            self.places, self.poses = places[known], self.poses[known]
        _check_unit(self)
        if masks:
            recording, camera, frame = self.places[0].tolist()
            if views.masks(recording, camera, [frame]) is None:
                raise InputError(
                    f"the background of {views.recordings[recording].id} is not known, so the "
                    "subject cannot be told from it; use --background keep",
                    kind="no-background",
                )
        told = f"{views.fingerprint}/{split}/{masks}/".encode() + self.places.tobytes()
        self.fingerprint = hashlib.sha256(told).hexdigest()
        self.ids: Sequence[str] = _Ids(self)

    def __len__(self) -> int:
        return len(self.places)

    def subset(self, indices: NDArray[np.int64]) -> PoseImages:
        """The images `indices` (int64, in that order) as a source of its own."""
        return PoseImages(
            self.views,
            self.places[indices],
            name=self.name,
            split=self.split,
            split_rule=self.split_rule,
            masks=self.masks,
        )

    def read(self, index: int) -> dict[str, torch.Tensor]:
        """`image` uint8 `[1, 3, S, S]`, `pose` float32 `[1, 17, 3]` and, where the background is to
        be removed, `mask` bool `[1, S, S]`."""
        recording, camera, frame = self.places[index].tolist()
        sample = {
            "image": torch.from_numpy(self.views.crops(recording, camera, [frame])),
            "pose": torch.from_numpy(self.poses[index : index + 1]),
        }
        if self.masks:
            mask = self.views.masks(recording, camera, [frame])
            assert mask is not None  # noqa: S101 (asked for when it was made)
            sample["mask"] = torch.from_numpy(mask)
        return sample

    def pixels(self, index: int) -> NDArray[np.float32] | None:
        """The joints [17, 2] in pixels of the crop, where they are known."""
        recording, camera, frame = self.places[index].tolist()
        found = self.views.pixels(recording, camera, [frame])
        return None if found is None else found[0]

    def seen(self, index: int) -> tuple[str, str, str, int]:
        """Recording, action, camera and frame of an image."""
        recording, camera, frame = self.places[index].tolist()
        one = self.views.recordings[recording]
        return one.id, one.action, one.cameras[camera].name, frame


class PoseDataset(SourceDataset):
    """Images and poses as the loader takes them; `index` besides."""

    MANY = "images"

    def __init__(self, source: PoseImages) -> None:
        super().__init__(source)
        self.source = source

    def _sample(self, epoch: int, index: int) -> dict[str, Any]:
        return {**self.source.read(index), "index": torch.tensor(index)}


class _Ids(Sequence[str]):
    """Names of images, made when they are asked for."""

    def __init__(self, source: PoseImages) -> None:
        self._source = source

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not 0 <= index < len(self):
            raise IndexError(index)
        recording, _, camera, frame = self._source.seen(int(index))
        return f"{recording}/{camera}/{frame}"


def frames_of(
    views: Views, stretches: Sequence[Stretch], every: int, still: float = 0.0
) -> NDArray[np.int64]:
    """Places [N, 3] of every so many frames of stretches, by all cameras.

    With `still`, without the frames in which the picture changes less than that share of what it
    changes in the median frame of all of them; the first of a stretch stays.
    """
    motions = {one.recording: views.motion(one.recording) for one in stretches} if still else {}
    least = 0.0
    if still:
        moved = [motions[one.recording][max(one.first, 1) : one.last] for one in stretches]
        together = np.concatenate(moved)
        least = still * float(np.median(together)) if together.size else 0.0
    found = []
    for one in stretches:
        frames = np.arange(one.first, one.last, every)
        if still:
            moving = motions[one.recording][frames] >= least
            moving[:1] = True
            frames = frames[moving]
        for camera in range(len(views.recordings[one.recording].cameras)):
            place = np.empty((len(frames), 3), np.int64)
            place[:, 0], place[:, 1], place[:, 2] = one.recording, camera, frames
            found.append(place)
    return np.concatenate(found) if found else np.zeros((0, 3), np.int64)


def _all_poses(source: PoseImages) -> NDArray[np.float32]:
    places = source.places
    poses = np.empty((len(places), len(JOINTS), 3), np.float32)
    keys = places[:, 0] * 65536 + places[:, 1]
    for key in np.unique(keys):
        own = np.flatnonzero(keys == key)
        recording, camera = (int(n) for n in divmod(int(key), 65536))
        for first in range(0, len(own), _AT_ONCE):
            part = own[first : first + _AT_ONCE]
            found = source.views.poses(recording, camera, places[part, 2])
            if found is None:
                raise _no_joints(source, source.views.recordings[recording].id)
            poses[part] = found
    return poses


def _no_joints(source: PoseImages, recording: str = "") -> InputError:
    which = f"{recording} of {source.name}" if recording else f"the {source.split} part"
    where = "" if recording else f"{source.name}: "
    return InputError(
        f"{where}{which} has no joints, and poses are learned from them; give data with "
        "joints (docs/multiview-data.md), or --data figures",
        kind="no-joints",
    )


def _check_unit(source: PoseImages) -> None:
    """Raise InputError where joints lie as people in metres, or in something else, have them."""
    known = source.poses[np.isfinite(source.poses).all(2)]
    far = float(np.median(np.abs(known).max(1)))
    if far < _METRES:
        raise InputError(
            f"{source.name}: joints of the {source.split} part are {far:.3g} from the root on "
            "average, so they are in metres or normalised; give them in millimetres",
            kind="unit",
        )
