"""What is reported of poses: mean errors of all joints, of each joint and of each action."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from selfsup_cli.config.joints import JOINTS, ROOT
from selfsup_cli.data.pose_images import PoseImages
from selfsup_cli.evaluation.pose_metrics import METRICS, all_errors, joint_errors
from selfsup_cli.randomness import derive
from selfsup_cli.runs.report import Interval, Measurement, ProtocolValue

RESAMPLES = 1000
LEVEL = 0.95
NEAR = 150.0
"""A joint is found if it is no further than this from where it is, in mm (3D PCK)."""

_OTHERS = [joint for joint in range(len(JOINTS)) if joint != ROOT]


@dataclass(frozen=True)
class Seen:
    """Which view an image is: the recording (`S9/walking`), its action, camera and frame."""

    recording: str
    action: str
    camera: str
    frame: int

    @property
    def id(self) -> str:
        """The name of the image."""
        return f"{self.recording}/{self.camera}/{self.frame}"


@dataclass(frozen=True)
class FoundPoses:
    """Poses that a network found in the images of `source`, beside the true ones: both
    `[N, 17, 3]` in mm from the root."""

    source: PoseImages
    views: Sequence[Seen]
    found: NDArray[np.float64]
    truth: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.views)

    @property
    def ids(self) -> Sequence[str]:
        """The images."""
        return [one.id for one in self.views]

    @cached_property
    def errors(self) -> dict[str, NDArray[np.float64]]:
        """Errors `[N, 17]` by metric; the root, which is given, has none."""
        found = all_errors(self.found, self.truth)
        for errors in found.values():
            errors[:, ROOT] = np.nan
        return found

    def mean(self, metric: str) -> NDArray[np.float64]:
        """The mean error of each image over its known joints, `[N]`; NaN where none is known."""
        errors = self.errors[metric]
        known = np.isfinite(errors)
        return _ratio(np.where(known, errors, 0).sum(1), known.sum(1))

    @property
    def near(self) -> float:
        """The share (0 … 1) of the known joints that are within 150 mm of where they are."""
        errors = self.errors["MPJPE"]
        known = np.isfinite(errors)
        return float((errors[known] <= NEAR).sum() / max(1, known.sum()))


def standing(poses: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    """One pose [17, 3] for each of `count` images."""
    return np.broadcast_to(poses, (count, *poses.shape))


def measured(
    found: FoundPoses,
    mean_pose: NDArray[np.float64],
    about: Mapping[str, Any],
    protocol: dict[str, ProtocolValue],
) -> list[Measurement]:
    """All numbers, in mm unless said: of all joints, of each action, of each joint.

    Means are over all known joints of all images but the root, which is given: the same as the
    mean over 17 joints times 17/16 (thesis, section 6.2.4). Intervals come from drawing
    recordings, all of whose cameras and frames hang together, with replacement. `mean_pose`
    [17, 3] is what somebody says who has not looked.
    """
    columns, names = _columns(found)
    protocol = {
        **protocol,
        "joints": f"{len(_OTHERS)}, without the root, which is given",
        "recordings": len(set(_recordings(found))),
    }
    values = _means(columns)
    varied = _varied(columns, _recordings(found))
    rows = []
    for place, (name, metric, unit) in enumerate(names):
        counted = columns[:, place, 1]
        interval = None
        if varied is not None:
            interval = _interval(values[place], varied[:, place], len(set(_recordings(found))))
        rows.append(
            Measurement(
                **about,
                name=name,
                metric=metric,
                unit=unit,
                value=float(values[place]),
                interval=interval,
                n=max(1, int((counted > 0).sum())),
                protocol=protocol,
            )
        )
    return [*rows, *_unseen(found, mean_pose, about, protocol)]


def _recordings(found: FoundPoses) -> list[str]:
    return [one.recording for one in found.views]


def _columns(found: FoundPoses) -> tuple[NDArray[np.float64], list[tuple[str, str, str]]]:
    """Sums and counts `[N, K, 2]` of what K numbers are means of, and what these are called."""
    errors = {metric: found.errors[metric][:, _OTHERS] for metric in METRICS}
    known = np.isfinite(errors["MPJPE"])
    count = known.sum(1).astype(np.float64)
    sums = {metric: np.where(known, each, 0).sum(1) for metric, each in errors.items()}
    parts: list[tuple[NDArray[np.float64], NDArray[np.float64]]] = []
    names: list[tuple[str, str, str]] = []
    for metric in METRICS:
        parts.append((sums[metric], count))
        names.append((metric, metric, "mm"))
    near = (np.where(known, errors["MPJPE"], np.inf) <= NEAR).sum(1)
    parts.append((100.0 * near, count))
    names.append((f"PCK {NEAR:g} mm", "3D PCK", "%"))
    actions = np.array([one.action for one in found.views])
    for action in sorted(set(actions.tolist())):
        own = actions == action
        for metric in METRICS:
            parts.append((sums[metric] * own, count * own))
            names.append((f"{metric} {action}", metric, "mm"))
    for place, joint in enumerate(_OTHERS):
        if known[:, place].any():
            parts.append(
                (
                    np.where(known[:, place], errors["MPJPE"][:, place], 0),
                    known[:, place].astype(np.float64),
                )
            )
            names.append((f"MPJPE {JOINTS[joint]}", "MPJPE", "mm"))
    return np.stack([np.stack(part, -1) for part in parts], 1), names


def _means(columns: NDArray[np.float64]) -> NDArray[np.float64]:
    sums = columns.sum(0)
    return _ratio(sums[:, 0], sums[:, 1])


def _varied(columns: NDArray[np.float64], owners: Sequence[str]) -> NDArray[np.float64] | None:
    """The same means `[R, K]` of recordings that were drawn with replacement; None of one alone."""
    names, place = np.unique(np.array(owners), return_inverse=True)
    if len(names) < 2:
        return None
    grouped = np.zeros((len(names), *columns.shape[1:]))
    np.add.at(grouped, place, columns)
    rng = np.random.default_rng(derive(0, "bootstrap", len(names), RESAMPLES))
    often = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=RESAMPLES)
    drawn = np.einsum("rg,gkc->rkc", often.astype(np.float64), grouped)
    return _ratio(drawn[..., 0], drawn[..., 1])


def _interval(value: float, samples: NDArray[np.float64], count: int) -> Interval | None:
    samples = samples[np.isfinite(samples)]
    if not len(samples) or samples.min() == samples.max():
        return None
    low, high = np.quantile(samples, [0.5 - LEVEL / 2, 0.5 + LEVEL / 2])
    return Interval(
        low=min(float(low), value),
        high=max(float(high), value),
        level=LEVEL,
        method=f"bootstrap, {RESAMPLES} samples of the {count} recordings",
    )


def _unseen(
    found: FoundPoses,
    mean_pose: NDArray[np.float64],
    about: Mapping[str, Any],
    protocol: dict[str, ProtocolValue],
) -> list[Measurement]:
    """The error of the mean pose of training, whatever an image shows."""
    errors = joint_errors(standing(mean_pose, len(found)), found.truth)[:, _OTHERS]
    if not np.isfinite(errors).any():
        return []
    told = {**about, "subject": "mean training pose", "layer": None}
    return [
        Measurement(
            **told,
            name="MPJPE of the mean training pose",
            metric="MPJPE",
            unit="mm",
            value=float(np.nanmean(errors)),
            n=len(found),
            protocol=protocol,
        )
    ]


def _ratio(part: NDArray[Any], whole: NDArray[Any]) -> NDArray[np.float64]:
    out: NDArray[np.float64] = np.divide(
        part, whole, out=np.full(np.shape(part), np.nan), where=np.asarray(whole) > 0
    )
    return out
