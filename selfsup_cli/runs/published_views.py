"""What the thesis printed for views by several cameras (chapter 6): errors of 3D poses, in mm."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from selfsup_cli.runs.published_row import OURS, RANDOM, Fact, Row

HUMAN36M = "human36m"
METRICS = ("MPJPE", "NMPJPE", "PMPJPE")
POSE, POSE_S1 = "pose", "pose, S1"
"""Learned from the poses of all training subjects, and of S1 alone."""

BASELINE = "multi-view SSL"
FROZEN = "all blocks but the last"

_R18, _R50 = "ResNet-18", "ResNet-50"
_LABELLED = {POSE: "all of the training part", POSE_S1: "S1"}
_UPDATES = 200_000
_REMOVED, _KEPT = "removed", "kept"


def rows() -> Iterable[Row]:
    """Tables 6.2 and 6.1: of numbers that stand in both, the last is that of table 6.1."""
    yield from _table_6_2()
    yield from _table_6_1()


def _errors(
    table: str,
    method: str,
    task: str,
    values: Sequence[float | None],
    network: str,
    conditions: dict[str, Fact],
    *,
    trained_on: str = HUMAN36M,
) -> Iterable[Row]:
    for metric, value in zip(METRICS, values, strict=True):
        if value is not None:
            yield Row(
                table,
                method,
                task,
                HUMAN36M,
                metric,
                value,
                unit="mm",
                network=network,
                trained_on=trained_on,
                conditions=conditions,
            )


def _protocol(task: str, background: str) -> dict[str, Fact]:
    return {
        "labelled_subjects": _LABELLED[task],
        "background": background,
        "split": "official, subjects S9, S11 held out",
        "crop": 224,
        "updates": _UPDATES,
        "test_frames": "one in 64",
    }


def _learned(task: str, ablation: str, background: str, init: str = "random") -> dict[str, Fact]:
    return {
        **_protocol(task, background),
        "ablation": ablation,
        "init": init,
        "pretraining_updates": _UPDATES,
        "frozen": FROZEN,
    }


def _table_6_1() -> Iterable[Row]:
    table = "thesis table 6.1"
    # Whether blocks of random weights were frozen as well is not said; this reads it as not.
    for ablation, background, values in (
        ("random with background", _KEPT, (167.8, 147.1, 124.5)),
        ("random without background", _REMOVED, (165.5, 145.4, 114.5)),
    ):
        conditions = {**_protocol(POSE_S1, background), "ablation": ablation, "frozen": "nothing"}
        yield from _errors(table, RANDOM, POSE_S1, values, _R18, conditions, trained_on="")
    for ablation, values in (
        ("SSL with background", (138.4, 128.1, 100.8)),
        ("SSL without background", (104.9, 91.7, 78.4)),
        ("only flip", (129.9, 117.6, 101.1)),
        ("only sync", (113.7, 102.4, 80.3)),
        ("both sync & flip", (104.9, 91.7, 78.4)),
        ("fusion concat", (180.0, 162.5, 130.5)),
        ("fusion add", (169.4, 158.4, 122.8)),
        ("fusion diff", (108.2, 93.9, 80.4)),
        ("fusion mult", (104.9, 91.7, 78.4)),
        ("single-view SSL", (158.3, 142.0, 106.9)),
        (BASELINE, (104.9, 91.7, 78.4)),
    ):
        background = _KEPT if ablation == "SSL with background" else _REMOVED
        conditions = _learned(POSE_S1, ablation, background)
        yield from _errors(table, OURS, POSE_S1, values, _R18, conditions)


def _table_6_2() -> Iterable[Row]:
    """Of others with the numbers of the thesis' references, by which it tells them apart."""
    table = "thesis table 6.2"
    others: tuple[tuple[str, str, tuple[float | None, ...], tuple[float | None, ...]], ...] = (
        # method, network, then with poses of all subjects and of S1
        ("Chen et al. [202]", _R50, (80.2, None, 58.2), (91.9, None, 68.0)),
        ("Kocabas et al. [200]", _R50, (51.8, 51.6, 45.0), (None, 67.0, 60.2)),
        ("Rhodin et al. [201], first row", _R50, (66.8, 63.3, 51.6), (None, 78.2, None)),
        ("Rhodin et al. [201], second row", _R50, (None, 95.4, None), (None, 153.3, 128.6)),
        ("Rhodin et al. [207]", "UNet", (None, 127.0, None), (149.5, 135.9, 106.4)),
        ("Rhodin et al. [207]", _R50, (None, 115.0, None), (131.7, 122.6, 98.2)),
        ("Mitra et al. [208]", _R50, (94.3, 92.6, 72.5), (121.0, 111.9, 90.8)),
    )
    for method, network, everybody, one in others:
        for task, values in ((POSE, everybody), (POSE_S1, one)):
            yield from _errors(table, method, task, values, network, {}, trained_on="")
    mixed = "background mixed"
    ours = (
        (_R18, "random", BASELINE, _REMOVED, (79.5, 73.4, 59.7), (104.9, 91.7, 78.4)),
        (_R50, "imagenet", BASELINE, _REMOVED, (72.6, 68.5, 54.5), (101.2, 89.6, 76.9)),
        (_R50, "imagenet", mixed, _KEPT, (64.9, 62.3, 53.5), (101.4, 93.7, 82.4)),
    )
    for network, init, ablation, background, everybody, one in ours:
        for task, values in ((POSE, everybody), (POSE_S1, one)):
            conditions = _learned(task, ablation, background, init)
            yield from _errors(table, OURS, task, values, network, conditions)
