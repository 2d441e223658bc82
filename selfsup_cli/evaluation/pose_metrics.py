"""Errors of 3D poses: MPJPE, and the same after scale, or a similarity, has been put right.

Poses are `[N, J, 3]` in mm relative to their root; a joint that is NaN in the truth is not known,
and counts nowhere. Errors are `[N, J]`, NaN where a joint is not known.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

METRICS = ("MPJPE", "NMPJPE", "PMPJPE")


def joint_errors(found: NDArray[np.float64], truth: NDArray[np.float64]) -> NDArray[np.float64]:
    """The distance of each joint to where it is: of it MPJPE is the mean."""
    distance: NDArray[np.float64] = np.linalg.norm(found - truth, axis=-1)
    return distance


def scaled(found: NDArray[np.float64], truth: NDArray[np.float64]) -> NDArray[np.float64]:
    """Each found pose times the s that is best: Σ⟨p, g⟩ / Σ‖p‖², over the known joints.

    A pose that is 0 everywhere stays so.
    """
    known = _known(truth)
    p, g = np.where(known, found, 0.0), np.where(known, truth, 0.0)
    length = (p * p).sum((1, 2))
    scale = np.divide((p * g).sum((1, 2)), length, out=np.zeros(len(p)), where=length > 0)
    fitted: NDArray[np.float64] = found * scale[:, None, None]
    return fitted


def aligned(found: NDArray[np.float64], truth: NDArray[np.float64]) -> NDArray[np.float64]:
    """Each found pose after the similarity (rotation, scale, shift; no reflection) that brings its
    known joints, the root among them, nearest to the truth: ordinary Procrustes analysis.

    A pose whose joints are all in one place becomes the mean of the truth.
    """
    known = _known(truth)
    weight = known[..., :1].astype(np.float64)
    count = np.maximum(weight.sum(1, keepdims=True), 1)
    p, g = np.where(known, found, 0.0), np.where(known, truth, 0.0)
    p_mean, g_mean = p.sum(1, keepdims=True) / count, g.sum(1, keepdims=True) / count
    p0, g0 = (p - p_mean) * weight, (g - g_mean) * weight
    u, s, vt = np.linalg.svd(np.einsum("nji,njk->nik", p0, g0))
    # The third axis turns round where a reflection would fit better.
    turn = np.ones_like(s)
    turn[:, 2] = np.sign(np.linalg.det(u) * np.linalg.det(vt))
    turn[turn == 0] = 1
    rotation = np.einsum("nik,nk,nkj->nij", u, turn, vt)
    length = (p0 * p0).sum((1, 2))
    scale = np.divide((s * turn).sum(1), length, out=np.zeros(len(p)), where=length > 1e-9)
    turned = np.einsum("nji,nik->njk", found - p_mean, rotation)
    moved: NDArray[np.float64] = turned * scale[:, None, None] + g_mean
    return moved


def all_errors(
    found: NDArray[np.float64], truth: NDArray[np.float64]
) -> dict[str, NDArray[np.float64]]:
    """The errors `[N, J]` of each of `METRICS`."""
    return {
        "MPJPE": joint_errors(found, truth),
        "NMPJPE": joint_errors(scaled(found, truth), truth),
        "PMPJPE": joint_errors(aligned(found, truth), truth),
    }


def _known(truth: NDArray[np.float64]) -> NDArray[np.bool_]:
    return np.broadcast_to(np.isfinite(truth).all(-1, keepdims=True), truth.shape)
