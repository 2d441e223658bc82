"""Whether recordings can be used as they are: enough cameras, in step, seeing the subject."""

from __future__ import annotations

import logging

import numpy as np

from selfsup_cli.data.multiview_raw import RawRecording, RawView
from selfsup_cli.data.view_recordings import Recordings
from selfsup_cli.errors import InputError

log = logging.getLogger("selfsup")

_SAME_RATE = 0.005
_LEAST_SHARE = 0.5


def require_cameras(
    found: Recordings, recordings: list[RawRecording], least: int
) -> list[RawRecording]:
    """The recordings with at least `least` cameras. Raises `InputError` if there is none."""
    enough = [one for one in recordings if len(one.views) >= least]
    for one in recordings:
        if len(one.views) < least:
            log.warning("%s is left out: it has %d camera(s)", one.id, len(one.views))
    if enough:
        return enough
    one = recordings[0]
    cameras = ", ".join(view.camera.name for view in one.views) or "none of those that are named"
    raise InputError(
        f"every sequence of {found.name} has one camera only (as {one.id}: {cameras}), and views "
        f"are compared between at least {least} cameras of the same moment: lay them out as "
        "SUBJECT/SEQUENCE/CAMERA.mp4",
        kind="one-camera",
    )


def in_step(recording: RawRecording) -> RawRecording:
    """`recording`, whose cameras must have one rate and about one length.

    What only some cameras have at the end is not used. Raises `InputError` for cameras of different
    rates, and for one that has less than half of what the others have.
    """
    rates = {view.camera.name: view.rate for view in recording.views if view.rate > 0}
    if rates and max(rates.values()) > (1 + _SAME_RATE) * min(rates.values()):
        said = ", ".join(f"{name} {rate:.5g}" for name, rate in rates.items())
        raise InputError(
            f"the cameras of {recording.id} record at different rates ({said} frames a second): "
            "bring them to one rate first",
            kind="rates",
        )
    lengths = {view.camera.name: view.pictures.frames for view in recording.views}
    short = min(lengths, key=lambda name: lengths[name])
    usual = float(np.median(list(lengths.values())))
    if lengths[short] < _LEAST_SHARE * usual:
        others = ",".join(name for name in lengths if name != short)
        raise InputError(
            f"{recording.id}: camera {short} has {lengths[short]} frames where others have "
            f"{usual:.0f}: it is cut short; leave it out (--set "
            f"data.cameras=[{others}]), or replace it (selfsup data check shows what each has)",
            kind="lengths",
        )
    if len(set(lengths.values())) > 1:
        said = ", ".join(f"{name} {count}" for name, count in lengths.items())
        log.warning(
            "%s: cameras have different numbers of frames (%s): the first %d are used",
            recording.id,
            said,
            recording.frames,
        )
    return recording


def check_projection(recording: RawRecording, view: RawView) -> None:
    """Raise `InputError` where almost no joint of a calibrated camera lies in its pictures."""
    pixels, joints = view.annotation.pixels, view.annotation.joints
    if joints is None or not np.isfinite(joints).any():
        return
    behind = bool((joints[..., 2][np.isfinite(joints[..., 2])] <= 0).mean() > 0.5)
    inside = 0.0
    if pixels is not None and np.isfinite(pixels).all(-1).any():
        known = pixels[np.isfinite(pixels).all(-1)]
        size = np.array([view.pictures.width, view.pictures.height])
        inside = float(((known >= 0) & (known < size)).all(1).mean())
    if behind or (pixels is not None and inside < 0.1):
        raise InputError(
            f"{recording.id}: by its calibration, camera {view.camera.name} does not see the "
            f"subject ({inside:.0%} of the joints fall into its pictures"
            f"{', and most lie behind it' if behind else ''}): check its rotation and translation "
            "(x_camera = R·x_world + t, in mm), and which camera is which",
            kind="calibration",
        )
