"""Errors of 3D poses against a loop over SciPy's Procrustes analysis; the renderer of figures."""

from __future__ import annotations

import time
from collections.abc import Callable

import measure
import numpy as np
from scipy.linalg import orthogonal_procrustes

from selfsup_cli.config.figures import Figures
from selfsup_cli.data.figures import RenderedFigures, rendered
from selfsup_cli.evaluation.pose_metrics import all_errors

POSES = 2000
FRAMES = 100
SIDES = (96, 128)
ROUNDS = 5
LIMITS: dict[str, str] = {}


def rows() -> list[measure.Row]:
    """CPU time on one thread: the speed of metrics over that of the loop; frames per second."""
    g = np.random.default_rng(0)
    truth = g.normal(0, 400, size=(POSES, 17, 3))
    truth[:, 0] = 0
    found = truth + g.normal(0, 80, size=truth.shape)
    found[:, 0] = 0
    ours = np.array([one.mean() for one in all_errors(found, truth).values()])
    assert np.allclose(ours, loop(found, truth)), "the metrics differ"
    contenders: dict[str, Callable[[], object]] = {
        "ours": lambda: all_errors(found, truth),
        "loop": lambda: loop(found, truth),
    }
    spent = measure.interleaved(contenders, ROUNDS)
    what = f"MPJPE, NMPJPE and PMPJPE of {POSES:,} poses"
    table: list[measure.Row] = [
        (what, "a NumPy/SciPy loop over poses", spent["loop"] / spent["ours"], "≥ 5")
    ]
    for side in SIDES:
        speed = rendering(rendered(Figures(actions=["dancing"]), side, ["S1"]))
        what = f"figures at {side} pixels, frames a second of one core"
        table.append((what, "200", speed / 200, "≥ 1"))
    return table


def loop(found: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """The three errors, pose by pose."""
    sums = np.zeros(3)
    for p, g in zip(found, truth, strict=True):
        sums[0] += np.linalg.norm(p - g, axis=1).mean()
        sums[1] += np.linalg.norm((p * g).sum() / (p * p).sum() * p - g, axis=1).mean()
        p0, g0 = p - p.mean(0), g - g.mean(0)
        rotation, strength = orthogonal_procrustes(p0, g0)
        if np.linalg.det(rotation) < 0:
            u, s, vt = np.linalg.svd(p0.T @ g0)
            u[:, 2] *= -1
            rotation, strength = u @ vt, s[0] + s[1] - s[2]
        fitted = strength / (p0 * p0).sum() * p0 @ rotation + g.mean(0)
        sums[2] += np.linalg.norm(fitted - g, axis=1).mean()
    return sums / len(found)


def rendering(figures: RenderedFigures) -> float:
    """Frames per second of CPU time, masks and the room behind included: the best of some rounds.

    The room itself, which is made once, is there before.
    """
    for camera in range(4):
        figures.crops(0, camera, [0])
    spent = []
    for round_ in range(ROUNDS):
        began = time.process_time()
        figures.crops(0, round_ % 4, range(FRAMES))
        spent.append(time.process_time() - began)
    return FRAMES / min(spent)


if __name__ == "__main__":
    measure.main(rows, LIMITS)
