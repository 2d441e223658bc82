"""The 17 joints of Human3.6M, in its order: what is left, what is right, what hangs on what."""

from __future__ import annotations

JOINTS = (
    "pelvis",
    "right hip",
    "right knee",
    "right ankle",
    "left hip",
    "left knee",
    "left ankle",
    "spine",
    "thorax",
    "nose",
    "head top",
    "left shoulder",
    "left elbow",
    "left wrist",
    "right shoulder",
    "right elbow",
    "right wrist",
)

ROOT = 0

# The joint that each one hangs on; the root hangs on itself.
PARENTS = (0, 0, 1, 2, 0, 4, 5, 0, 7, 8, 9, 8, 11, 12, 8, 14, 15)

BONES = tuple((parent, joint) for joint, parent in enumerate(PARENTS) if joint != ROOT)

# Which joint a mirror image shows in the place of each: left and right change names.
MIRRORED = (0, 4, 5, 6, 1, 2, 3, 7, 8, 9, 10, 14, 15, 16, 11, 12, 13)

# Pairs of (left, right) joints.
SIDES = ((4, 1), (5, 2), (6, 3), (11, 14), (12, 15), (13, 16))
