"""Several cameras that look at one subject at the same time (chapter 6): what data of them offer.

Lengths are in millimetres, image positions in pixels, angles in radians. A camera looks along z,
with x to the right and y down, so a point of the world lies at R·p + t before it. Joints are the
seventeen of `config.joints`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Frames = Sequence[int] | NDArray[np.int64]
Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class Camera:
    """One camera: the size of its images and, where it is calibrated, where it looks.

    `intrinsics` is K `[3,3]` in pixels, `rotation` R `[3,3]`, `translation` t `[3]` in millimetres
    (x_camera = R · x_world + t), `distortion` (k1, k2, p1, p2, k3) as OpenCV means them.
    """

    name: str
    width: int
    height: int
    intrinsics: Matrix | None = None
    rotation: Matrix | None = None
    translation: Matrix | None = None
    distortion: tuple[float, float, float, float, float] | None = None

    @property
    def calibrated(self) -> bool:
        """Whether points of the world can be projected into its images."""
        return not (self.intrinsics is None or self.rotation is None or self.translation is None)


@dataclass(frozen=True)
class Recording:
    """One subject in one sequence, seen by several synchronised cameras.

    `frames` is what all of its cameras have, `rate` in frames per second.
    """

    subject: str
    sequence: str
    action: str
    cameras: tuple[Camera, ...]
    frames: int
    rate: float

    @property
    def id(self) -> str:
        """Its name among all recordings, as `S1/walking`."""
        return f"{self.subject}/{self.sequence}"


class Views(Protocol):
    """Synchronised views of subjects, cropped around them.

    `recording` and `camera` count from 0 in the order of `recordings` and of the cameras of a
    recording; frames count from 0, in any order and with repetitions. `fingerprint` (hex) covers
    all that can be read here.
    """

    @property
    def recordings(self) -> tuple[Recording, ...]: ...

    @property
    def side(self) -> int:
        """Height and width of the crops, in pixels."""
        ...

    @property
    def fingerprint(self) -> str: ...

    def crops(self, recording: int, camera: int, frames: Frames) -> NDArray[np.uint8]:
        """RGB around the subject, `[N,3,S,S]`. Raises IndexError for frames that there are not."""
        ...

    def masks(self, recording: int, camera: int, frames: Frames) -> NDArray[np.bool_] | None:
        """True on the subject, `[N,S,S]`; None where it cannot be told from the scene."""
        ...

    def backgrounds(self, recording: int, camera: int, frames: Frames) -> NDArray[np.uint8] | None:
        """The empty scene, cropped alike, `[N,3,S,S]`; None where it is not known."""
        ...

    def poses(self, recording: int, camera: int, frames: Frames) -> NDArray[np.float32] | None:
        """Joints `[N,17,3]` in mm from the root, as seen by the virtual camera of the crop (its
        optical axis through the root); NaN where a joint is missing, None without any."""
        ...

    def pixels(self, recording: int, camera: int, frames: Frames) -> NDArray[np.float32] | None:
        """Joints `[N,17,2]` as (x, y) in pixels of the crop; NaN and None likewise."""
        ...

    def motion(self, recording: int) -> NDArray[np.float32]:
        """How much the picture has changed since the frame before, `[T]`, in grey levels.

        The mean over cameras, pixels and colours of |difference|; 0 for the first frame.
        """
        ...

    def close(self) -> None: ...


def frame_numbers(frames: Frames, count: int) -> NDArray[np.int64]:
    """`frames` as int64 `[N]`. Raises IndexError unless all lie in 0 … `count` - 1."""
    numbers: NDArray[Any] = np.asarray(frames, np.int64)
    if numbers.size and not 0 <= numbers.min() <= numbers.max() < count:
        raise IndexError(f"frames outside of 0 … {count - 1}: {numbers.tolist()}")
    return numbers
