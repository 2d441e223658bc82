"""What a transfer to poses leaves in its run: the poses, their errors, and pictures of them."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import h5py
import numpy as np

from selfsup_cli.config.joints import JOINTS
from selfsup_cli.evaluation.pose_metrics import METRICS, aligned
from selfsup_cli.evaluation.pose_scores import FoundPoses
from selfsup_cli.randomness import derive
from selfsup_cli.runs import atomic
from selfsup_cli.runs.report import Finding, Measurement, Picture
from selfsup_cli.runs.run import Run
from selfsup_cli.visualization import poses

ARRAYS = "predictions.h5"

_COLUMNS = 8


def write(path: Path, found: FoundPoses) -> None:
    """CSV with a row for each image: id, recording, action, camera, frame, the errors in mm, and
    x, y, z of each joint in mm from the root, as the virtual camera of the crop has them.

    The same goes into `predictions.h5` beside it, with the true poses: `ids`, `found` and `truth`
    float32 [N, 17, 3], and `joints`, their names.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    axes = [f"{joint} {axis}" for joint in JOINTS for axis in "xyz"]
    writer.writerow(
        ["id", "recording", "action", "camera", "frame", *(m.lower() for m in METRICS), *axes]
    )
    errors = [found.mean(metric) for metric in METRICS]
    for place, one in enumerate(found.views):
        own = ["" if np.isnan(e[place]) else f"{e[place]:.2f}" for e in errors]
        joints = [f"{value:.1f}" for value in found.found[place].reshape(-1)]
        writer.writerow([one.id, one.recording, one.action, one.camera, one.frame, *own, *joints])
    atomic.write_text(path, text.getvalue())
    atomic.write_bytes(path.with_name(ARRAYS), packed(found.ids, found.found, found.truth))


def packed(ids: object, found: np.ndarray, truth: np.ndarray | None = None) -> bytes:
    """Poses [N, 17, 3] as the bytes of an HDF5 file."""
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        names = [str(one).encode() for one in ids]  # type: ignore[attr-defined]
        file.create_dataset("ids", data=names, track_times=False)
        file.create_dataset("joints", data=[one.encode() for one in JOINTS], track_times=False)
        for name, each in (("found", found), ("truth", truth)):
            if each is not None:
                file.create_dataset(name, data=each.astype("<f4"), track_times=False)
        file.attrs["unit"] = "mm from the root joint"
    return buffer.getvalue()


def draw(run: Run, found: FoundPoses, scale: float | None, title: str) -> list[Picture]:
    """Some test images with what was found of them (figure 6.3), and the errors of joints."""
    source = found.source
    order = sorted(range(len(found)), key=lambda i: derive(0, found.views[i].id, "shown"))
    chosen = sorted(order[:_COLUMNS])
    columns = []
    fitted = aligned(found.found, found.truth)
    for i in chosen:
        one = found.views[i]
        sample = source.read(i)
        error = found.mean("MPJPE")[i]
        columns.append(
            poses.Column(
                title=f"{one.recording}, {one.camera}",
                said="" if np.isnan(error) else f"{error:.0f} mm",
                image=sample["image"][0],
                seen=source.pixels(i),
                guessed=poses.placed(found.found[i], scale, source.views.side),
                truth=found.truth[i],
                found=found.found[i],
                fitted=fitted[i],
            )
        )
    note = f"{len(columns)} of {len(found)} test images, chosen by a hash of their names"
    poses.sheet(run.picture("poses.png"), columns, title=title, note=note)
    caption = (
        "Test images with the joints found, and in space from the side: the true pose, and the one "
        "found (figure 6.3). The right side of the body is orange."
    )
    pictures = [Picture(file="pictures/poses.png", caption=caption)]
    means = {
        metric: np.array([_mean(each[:, joint]) for joint in range(len(JOINTS))])
        for metric, each in found.errors.items()
    }
    poses.joints(run.picture("joints.png"), means, title=title)
    caption = "Mean error of each joint, as it is, after the best scale, after the best similarity."
    return [*pictures, Picture(file="pictures/joints.png", caption=caption)]


def finding(rows: list[Measurement]) -> Finding | None:
    """The error beside that of the mean pose."""
    first = rows[0]
    mean = next((row for row in rows if row.subject == "mean training pose"), None)
    if mean is None:
        return None
    if first.interval is None:
        text = f"pose: MPJPE {first.value:.1f} mm, the mean training pose {mean.value:.1f} mm"
        return Finding(text=text + "; one recording is too few for an interval", verdict="note")
    said = (
        f"pose: MPJPE {first.value:.1f} mm ({first.interval.low:.1f} … {first.interval.high:.1f}), "
        f"the mean training pose {mean.value:.1f} mm: "
    )
    if first.interval.high < mean.value:
        return Finding(text=said + "better than not looking", verdict="good")
    if first.interval.low > mean.value:
        return Finding(text=said + "worse than not looking", verdict="bad")
    return Finding(text=said + "no better than not looking", verdict="unclear")


def _mean(values: np.ndarray) -> float:
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else float("nan")
