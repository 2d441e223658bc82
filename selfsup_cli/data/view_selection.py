"""Some of the cameras of synchronised views."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from selfsup_cli.config.registry import nearest
from selfsup_cli.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from selfsup_cli.data.multiview import Frames, Views


def require_known(cameras: Iterable[str], names: Sequence[str]) -> None:
    """Raise InputError for one of `names` that none of `cameras` has."""
    known = sorted(set(cameras))
    for name in names:
        if name not in known:
            raise InputError(
                f"there is no camera '{name}'{nearest(name, known)}; there are {', '.join(known)}",
                kind="unknown-camera",
            )


class SomeCameras:
    """The views of those cameras of each recording that are named; a `Views`.

    Motion stays that of all cameras. Raises InputError for a name that no camera has.
    """

    def __init__(self, views: Views, names: Sequence[str]) -> None:
        require_known([one.name for each in views.recordings for one in each.cameras], names)
        self._views = views
        self._kept = [
            [number for number, one in enumerate(each.cameras) if one.name in names]
            for each in views.recordings
        ]
        self.recordings = tuple(
            replace(each, cameras=tuple(each.cameras[number] for number in kept))
            for each, kept in zip(views.recordings, self._kept, strict=True)
        )
        self.side = views.side
        text = "/".join((views.fingerprint, *sorted(names)))
        self.fingerprint = hashlib.sha256(text.encode()).hexdigest()

    def crops(self, recording: int, camera: int, frames: Frames) -> NDArray[np.uint8]:
        """As `Views.crops`."""
        return self._views.crops(recording, self._kept[recording][camera], frames)

    def masks(self, recording: int, camera: int, frames: Frames) -> NDArray[np.bool_] | None:
        """As `Views.masks`."""
        return self._views.masks(recording, self._kept[recording][camera], frames)

    def backgrounds(self, recording: int, camera: int, frames: Frames) -> NDArray[np.uint8] | None:
        """As `Views.backgrounds`."""
        return self._views.backgrounds(recording, self._kept[recording][camera], frames)

    def poses(self, recording: int, camera: int, frames: Frames) -> NDArray[np.float32] | None:
        """As `Views.poses`."""
        return self._views.poses(recording, self._kept[recording][camera], frames)

    def pixels(self, recording: int, camera: int, frames: Frames) -> NDArray[np.float32] | None:
        """As `Views.pixels`."""
        return self._views.pixels(recording, self._kept[recording][camera], frames)

    def motion(self, recording: int) -> NDArray[np.float32]:
        """As `Views.motion`."""
        return self._views.motion(recording)

    def close(self) -> None:
        """As `Views.close`."""
        self._views.close()
