"""What is particular about Human3.6M: its cameras, its rate, and what is missing in it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from selfsup_cli.data.human36m_cameras import CAMERAS, camera_of
from selfsup_cli.data.multiview_raw import RawRecording

__all__ = ["CAMERAS", "RATE", "TEST_STEP", "camera_of", "gaps"]

RATE = 50.0
TEST_STEP = 64
"""Of test subjects, every 64th frame is evaluated (thesis, section 6.3)."""

SUBJECTS = ("S1", "S5", "S6", "S7", "S8", "S9", "S11")

# Subject, sequences, camera or none for all of them, and what is the matter.
_KNOWN = (
    (
        "S11",
        ("Directions", "Directions 2", "Directions-2"),
        "54138969",
        "the video of this camera is damaged in the original, and tools leave it out",
    ),
    (
        "S9",
        ("Greeting", "SittingDown 1", "SittingDown-1", "SittingDown", "Waiting 1", "Waiting-1"),
        None,
        "joints are displaced in parts of it",
    ),
)


def gaps(recordings: Sequence[RawRecording]) -> list[str]:
    """Sentences on what of Human3.6M is missing or known to be wrong; none for other data."""
    return list(_gaps(recordings))


def _gaps(recordings: Sequence[RawRecording]) -> Iterator[str]:
    ours = [one for one in recordings if any(view.camera.name in CAMERAS for view in one.views)]
    if not ours:
        return
    subjects = {one.subject for one in ours}
    if lacking := [name for name in SUBJECTS if name not in subjects]:
        yield f"of Human3.6M, subjects {', '.join(lacking)} are not there"
    for one in ours:
        cameras = {view.camera.name for view in one.views}
        told = ""
        for subject, sequences, camera, reason in _KNOWN:
            if one.subject == subject and one.sequence in sequences:
                if camera is None:
                    yield f"{one.id}: {reason} (known of Human3.6M)"
                elif camera not in cameras:
                    told = f", known of Human3.6M: {reason}"
        if lacking := [name for name in CAMERAS if name not in cameras]:
            yield f"{one.id} lacks camera {', '.join(lacking)}{told}"
