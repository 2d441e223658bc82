"""What a prepared store of views is to hold, and the key that it is kept under."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from selfsup_cli.data.multiview import Recording

SCHEMA = "selfsup.views/1"
QUALITY = 92


@dataclass(frozen=True)
class Plan:
    """What a store is to hold. `about` (plain values) decides its content, whatever makes it."""

    name: str
    about: Mapping[str, Any]
    recordings: tuple[Recording, ...]
    side: int
    quality: int | None = QUALITY

    @property
    def key(self) -> str:
        """SHA-256 (hex) of what decides the content."""
        facts = {
            "schema": SCHEMA,
            "about": dict(self.about),
            "side": self.side,
            "quality": self.quality,
            "recordings": [written_recording(one) for one in self.recordings],
        }
        text = json.dumps(facts, sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()


def written_recording(recording: Recording) -> dict[str, Any]:
    """A recording as plain values."""
    return {
        "subject": recording.subject,
        "sequence": recording.sequence,
        "action": recording.action,
        "frames": recording.frames,
        "rate": recording.rate,
        "cameras": [
            {
                "name": camera.name,
                "width": camera.width,
                "height": camera.height,
                "intrinsics": _listed(camera.intrinsics),
                "rotation": _listed(camera.rotation),
                "translation": _listed(camera.translation),
                "distortion": None if camera.distortion is None else list(camera.distortion),
            }
            for camera in recording.cameras
        ],
    }


def _listed(matrix: NDArray[np.float64] | None) -> Any:
    return None if matrix is None else np.asarray(matrix, np.float64).tolist()
