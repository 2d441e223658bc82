"""Errors of poses against loops and SciPy's Procrustes analysis."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.linalg import orthogonal_procrustes
from scipy.optimize import minimize_scalar
from scipy.spatial.transform import Rotation

from selfsup_cli.config.joints import JOINTS
from selfsup_cli.evaluation.pose_metrics import aligned, all_errors, joint_errors, scaled


def some(seed: int, count: int = 6) -> tuple[np.ndarray, np.ndarray]:
    g = np.random.default_rng(seed)
    truth = g.normal(0, 400, size=(count, len(JOINTS), 3))
    truth[:, 0] = 0
    found = 0.8 * truth + g.normal(0, 90, size=truth.shape)
    found[:, 0] = 0
    return found, truth


def by_scipy(found: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """One pose after Procrustes analysis, reflections not allowed."""
    p, g = found - found.mean(0), truth - truth.mean(0)
    rotation, strength = orthogonal_procrustes(p, g)
    if np.linalg.det(rotation) < 0:
        u, s, vt = np.linalg.svd(p.T @ g)
        u[:, 2] *= -1
        rotation, strength = u @ vt, s[0] + s[1] - s[2]
    fitted: np.ndarray = strength / (p**2).sum() * p @ rotation + truth.mean(0)
    return fitted


def test_distances_are_those_of_a_loop() -> None:
    found, truth = some(0)
    errors = joint_errors(found, truth)
    for n in range(len(found)):
        for j in range(len(JOINTS)):
            off = sum((found[n, j, k] - truth[n, j, k]) ** 2 for k in range(3)) ** 0.5
            assert errors[n, j] == pytest.approx(off)


def test_the_scale_is_the_best_one() -> None:
    found, truth = some(1)
    for p, g, fitted in zip(found, truth, scaled(found, truth), strict=True):
        best = minimize_scalar(lambda s, p=p, g=g: ((s * p - g) ** 2).sum(), (0.1, 3.0)).x
        np.testing.assert_allclose(fitted, best * p, rtol=1e-4, atol=1e-2)


@pytest.mark.parametrize("mirrored", [False, True])
def test_alignment_is_that_of_scipy(mirrored: bool) -> None:
    found, truth = some(2)
    if mirrored:  # the best orthogonal matrix is then a reflection, which no body can do
        found = found * np.array([-1, 1, 1])
    wanted = np.stack([by_scipy(p, g) for p, g in zip(found, truth, strict=True)])
    np.testing.assert_allclose(aligned(found, truth), wanted, atol=1e-8)
    if mirrored:
        assert joint_errors(aligned(found, truth), truth).mean() > 100


@given(st.integers(0, 1000), st.floats(0.2, 5.0))
def test_a_similar_pose_has_no_error_after_alignment(seed: int, scale: float) -> None:
    g = np.random.default_rng(seed)
    _, truth = some(seed, 2)
    turn = Rotation.random(random_state=seed).as_matrix()
    found = scale * truth @ turn.T + g.normal(0, 300, size=(2, 1, 3))
    np.testing.assert_allclose(aligned(found, truth), truth, atol=1e-6)
    np.testing.assert_allclose(scaled(scale * truth, truth), truth, atol=1e-6)
    errors = all_errors(found, truth)
    # Each metric puts more right than the one before, as a sum of squares.
    squares = [np.square(errors[name]).sum() for name in ("MPJPE", "NMPJPE", "PMPJPE")]
    assert squares[0] >= squares[1] - 1e-6 >= squares[2] - 2e-6


def test_unknown_joints_count_nowhere() -> None:
    found, truth = some(3)
    truth[0, [4, 9]] = np.nan
    kept = [joint for joint in range(len(JOINTS)) if joint not in (4, 9)]
    errors = all_errors(found, truth)
    alone = all_errors(found[:1, kept], truth[:1, kept])
    for name, each in errors.items():
        assert np.isnan(each[0, [4, 9]]).all()
        np.testing.assert_allclose(each[0, kept], alone[name][0], rtol=1e-9)
        assert np.isfinite(each[1:]).all()


def test_a_pose_that_is_no_pose_does_no_harm() -> None:
    _, truth = some(4)
    nothing = np.zeros_like(truth)
    np.testing.assert_array_equal(scaled(nothing, truth), nothing)
    middle = np.broadcast_to(truth.mean(1, keepdims=True), truth.shape)
    np.testing.assert_allclose(aligned(nothing, truth), middle)
    unknown = np.full_like(truth, np.nan)
    assert np.isnan(all_errors(nothing, unknown)["PMPJPE"]).all()
