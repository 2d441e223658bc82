"""How good the views are that were taken for synchronised."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from selfsup_cli.config.multiview import RATE
from selfsup_cli.evaluation.pose_metrics import aligned, joint_errors
from selfsup_cli.evaluation.view_features import Moment
from selfsup_cli.randomness import derive
from selfsup_cli.runs.report import Interval, Measurement, ProtocolValue, clustered_accuracy

if TYPE_CHECKING:
    from selfsup_cli.data.multiview import Views

NEAR = 4
"""Frames at 50 Hz within which the time counts as found: pretraining knows nothing nearer."""

_RESAMPLED = 2000

Statistic = Callable[[np.ndarray], Any]


@dataclass(frozen=True)
class Timing:
    """Of a query at `frame` of a `recording`, the candidate of another camera that was `found`.

    `apart` float `[n]` says how many frames at 50 Hz each candidate is late, `best` which of them
    was found, `logit` how well it goes with the query.
    """

    recording: int
    frame: int
    found: int
    logit: float
    apart: np.ndarray
    best: int

    @property
    def error(self) -> float:
        """By how many frames at 50 Hz the time is wrong."""
        return float(abs(self.apart[self.best]))


def timing_measurements(
    timing: Sequence[Timing],
    dataset: str,
    split: str,
    protocol: Mapping[str, ProtocolValue],
    step: int,
) -> list[Measurement]:
    """How often the time is found within `NEAR` frames, and the median error, beside chance.

    Queries of one recording are not independent: intervals are over recordings.
    """
    recordings = np.array([one.recording for one in timing])
    hit = np.array([one.error <= NEAR for one in timing], np.float64)
    chance = np.array([(np.abs(one.apart) <= NEAR).mean() for one in timing])
    told = {
        **protocol,
        "candidates": f"every {step}. frame of another camera, of the whole recording",
        "queries": len(timing),
    }
    shares = [float(hit[recordings == one].mean()) for one in np.unique(recordings)]
    expected = [float(chance[recordings == one].mean()) for one in np.unique(recordings)]
    rows = [
        clustered_accuracy(
            f"time found within {NEAR} frames",
            shares,
            "recordings",
            task="retrieve-sync",
            subject="learned",
            dataset=dataset,
            split=split,
            metric="share of queries",
            chance=100 * float(np.mean(expected)),
            chance_is="any candidate, each as likely",
            protocol=told,
        )
    ]
    errors = np.array([one.error for one in timing])
    by_chance = np.concatenate([np.abs(one.apart) for one in timing])
    weights = np.concatenate([np.full(len(one.apart), 1 / len(one.apart)) for one in timing])
    rows.append(
        Measurement(
            task="retrieve-sync",
            name="error in time",
            subject="learned",
            dataset=dataset,
            split=split,
            metric="median error",
            unit=f"frames at {RATE} Hz",
            value=float(np.median(errors)),
            interval=_bootstrap(errors, recordings),
            n=len(timing),
            chance=_weighted_median(by_chance, weights),
            chance_is="any candidate, each as likely",
            protocol=told,
        )
    )
    return rows


def closeness(
    views: Views, pairs: Sequence[tuple[Moment, Moment]]
) -> list[tuple[str, float]] | None:
    """PMPJPE in mm between the poses of pairs of views, each with the recording of the first one.

    All joints count, the root too: the poses of different people have no root in common.

    None where poses are not known, or of no pair both are whole.
    """
    out = []
    for pair in pairs:
        found = [views.poses(number, camera, [frame]) for number, camera, frame in pair]
        whole = [one[0] for one in found if one is not None and np.isfinite(one).all()]
        if len(whole) == len(pair):
            truth, other = (one.astype(np.float64)[None] for one in whole)
            error = joint_errors(aligned(other, truth), truth)
            out.append((views.recordings[pair[0][0]].id, float(error.mean())))
    return out or None


def by_pose(
    found: Sequence[tuple[str, float]],
    control: Sequence[tuple[str, float]],
    dataset: str,
    split: str,
    protocol: Mapping[str, ProtocolValue],
) -> list[Measurement]:
    """How far the poses of what was found are from the queries', and those of random views."""
    rows = []
    for subject, errors in (("learned", found), ("random view", control)):
        values = np.array([error for _, error in errors])
        clusters = np.unique([name for name, _ in errors], return_inverse=True)[1]
        rows.append(
            Measurement(
                task="retrieve-sync",
                name="pose of the best view of other subjects",
                subject=subject,
                dataset=dataset,
                split=split,
                metric="PMPJPE",
                unit="mm",
                value=float(values.mean()),
                interval=_bootstrap(values, clusters, np.mean),
                n=len(values),
                protocol=dict(protocol),
            )
        )
    return rows


def _bootstrap(
    values: np.ndarray, clusters: np.ndarray, measure: Statistic = np.median
) -> Interval | None:
    """95 % percentile interval over clusters that are drawn anew; None for fewer than three."""
    names = np.unique(clusters)
    if len(names) < 3:
        return None
    groups = [values[clusters == one] for one in names]
    rng = np.random.default_rng(derive(0, "bootstrap", len(values)))
    picks = rng.integers(len(groups), size=(_RESAMPLED, len(groups)))
    found = [float(measure(np.concatenate([groups[k] for k in row]))) for row in picks]
    low, high = np.quantile(found, [0.025, 0.975])
    value = float(measure(values))
    return Interval(
        low=min(float(low), value),
        high=max(float(high), value),
        method=f"bootstrap over {len(names)} recordings",
    )


def _weighted_median(values: np.ndarray, weights: np.ndarray) -> float:
    order = np.argsort(values)
    reached = np.cumsum(weights[order])
    return float(values[order][np.searchsorted(reached, reached[-1] / 2)])
