"""What the thesis printed, and what of its protocol differs from a run's; video (chapter 5)."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import TypedDict, Unpack

from selfsup_cli.runs import (
    published_artifacts,
    published_gan,
    published_images,
    published_labels,
    published_views,
)
from selfsup_cli.runs.published_row import OURS, RANDOM, Fact, Row
from selfsup_cli.runs.report import Published

__all__ = [
    "NETWORKS",
    "OURS",
    "RANDOM",
    "ROWS",
    "SUPERVISED",
    "Fact",
    "Facts",
    "Row",
    "published",
    "table",
    "tabled",
]

SUPERVISED = "Action Labels"
UCF, HMDB, KINETICS = "ucf101", "hmdb51", "kinetics"
NETWORKS = {
    "c3d": "C3D",
    "r3d": "3D-ResNet18",
    "r2plus1d": "R(2+1)D",
    "alexnet": "AlexNet",
    "alexnet_lrn": "AlexNet",
    "resnet18": "ResNet-18",
    "resnet34": "ResNet-34",
    "resnet50": "ResNet-50",
}

_QUARTER_TURNS = {"rotate90", "rotate180", "rotate270"}

_ALL_SPLITS = "mean of the three official splits"
_FROZEN: dict[str, Fact] = {
    "split": _ALL_SPLITS,
    "layer": "conv5",
    "classifier": "three fully connected layers trained for 50 epochs",
    "pretraining_epochs": 50,
}
_FINETUNED: dict[str, Fact] = {
    "split": _ALL_SPLITS,
    "classifier": "all layers fine-tuned for 50 epochs",
    "pretraining_epochs": 50,
}


def _table_5_1() -> Iterable[Row]:
    everything = (
        # transformations, speed loss, UCF101 with frozen convolutions, HMDB51 fine-tuned
        ("speed", True, 49.3, 32.5),
        ("speed + random", False, 44.5, 31.7),
        ("speed + periodic", False, 40.6, 29.5),
        ("speed + warp", False, 43.5, 32.6),
        ("speed + random", True, 55.1, 33.2),
        ("speed + periodic", True, 56.5, 36.1),
        ("speed + warp", True, 55.8, 36.9),
        ("speed + random + periodic", False, 47.4, 30.1),
        ("speed + random + warp", False, 54.8, 36.6),
        ("speed + periodic + warp", False, 50.6, 36.4),
        ("speed + random + periodic", True, 60.0, 37.1),
        ("speed + random + warp", True, 60.4, 39.2),
        ("speed + periodic + warp", True, 59.5, 39.0),
        ("speed + random + periodic + warp", False, 54.2, 34.9),
        ("speed + random + periodic + warp", True, 60.6, 38.0),
    )
    table, metric = "thesis table 5.1", "top-1 accuracy"
    yield Row(table, SUPERVISED, "frozen", UCF, metric, 60.7, conditions=_FROZEN)
    yield Row(table, SUPERVISED, "finetune", HMDB, metric, 28.8, conditions=_FINETUNED)
    for kinds, speed_loss, frozen, finetuned in everything:
        signal: dict[str, Fact] = {"transformations": kinds, "speed_loss": speed_loss}
        yield Row(table, OURS, "frozen", UCF, metric, frozen, conditions={**signal, **_FROZEN})
        yield Row(
            table, OURS, "finetune", HMDB, metric, finetuned, conditions={**signal, **_FINETUNED}
        )


def _table_5_2() -> Iterable[Row]:
    everything = (
        # method, network, trained on, UCF101, HMDB51; (re) marks the author's reimplementations
        ("Shuffle&Learn", "AlexNet", UCF, 50.2, 18.1),
        ("O3N", "AlexNet", UCF, 60.3, 32.5),
        ("AoT", "VGG-16", UCF, 78.1, None),
        ("OPN", "VGG-M-2048", UCF, 59.8, 23.8),
        ("DPC", "3D-ResNet34", KINETICS, 75.7, 35.7),
        ("SpeedNet", "S3D-G", KINETICS, 81.1, 48.8),
        ("AVTS (RGB+audio)", "MC3", KINETICS, 85.8, 56.9),
        ("Shuffle&Learn (re)", "C3D", UCF, 55.8, 25.4),
        ("3D-RotNet (re)", "C3D", UCF, 60.6, 27.3),
        ("Clip Order", "C3D", UCF, 65.6, 28.4),
        ("Spatio-Temp", "C3D", UCF, 58.8, 32.6),
        ("Spatio-Temp", "C3D", KINETICS, 61.2, 33.4),
        ("3D ST-puzzle", "C3D", KINETICS, 60.6, 28.3),
        (OURS, "C3D", UCF, 68.3, 38.4),
        (OURS, "C3D", KINETICS, 69.9, 39.6),
        ("3D ST-puzzle", "3D-ResNet18", KINETICS, 65.8, 33.7),
        ("3D RotNet", "3D-ResNet18", KINETICS, 66.0, 37.1),
        ("DPC", "3D-ResNet18", KINETICS, 68.2, 34.5),
        (OURS, "3D-ResNet18", UCF, 77.3, 47.5),
        (OURS, "3D-ResNet18", KINETICS, 79.3, 49.8),
        ("Clip Order", "R(2+1)D", UCF, 72.4, 30.9),
        ("PRP", "R(2+1)D", UCF, 72.1, 35.0),
        (OURS, "R(2+1)D", UCF, 81.6, 46.4),
    )
    for method, network, trained_on, ucf, hmdb in everything:
        conditions: dict[str, Fact] = {}
        if method == OURS:
            small = network == "C3D"
            on_ucf = 100 if small else 200
            conditions = {
                "split": _ALL_SPLITS,
                "classifier": f"all layers fine-tuned for {75 if small else 150} epochs",
                "pretraining_epochs": on_ucf if trained_on == UCF else 15,
            }
        for dataset, value in ((UCF, ucf), (HMDB, hmdb)):
            if value is not None:
                yield Row(
                    "thesis table 5.2",
                    method,
                    "finetune",
                    dataset,
                    "top-1 accuracy",
                    value,
                    network=network,
                    trained_on=trained_on,
                    conditions=conditions,
                )


def _table_5_3() -> Iterable[Row]:
    everything = (
        # method, synchronisation, its mean absolute error in frames, before-after
        (SUPERVISED, 36.7, 1.85, 66.6),
        ("3D-RotNet (re)", 28.0, 2.84, 57.8),
        ("Shuffle&Learn (re)", 39.0, 1.89, 69.8),
        (OURS, 42.4, 1.61, 76.9),
    )
    table = "thesis table 5.3"
    sync: dict[str, Fact] = {"layer": "conv5", "offsets": "-6 … +6 frames"}
    for method, accuracy, error, order in everything:
        yield Row(table, method, "sync", UCF, "accuracy", accuracy, conditions=sync)
        yield Row(
            table, method, "sync", UCF, "mean absolute error", error, "frames", conditions=sync
        )
        yield Row(
            table,
            method,
            "order",
            UCF,
            "accuracy",
            order,
            conditions={"frames": "two non-overlapping runs of 8"},
        )


def _table_5_4() -> Iterable[Row]:
    everything = (
        ("Jigsaw", "AlexNet", (19.7, 28.5, 33.5, 40.0, 49.4)),
        ("OPN", "AlexNet", (19.9, 28.7, 34.0, 40.6, 51.6)),
        ("Büchler et al.", "AlexNet", (25.7, 36.2, 42.2, 49.2, 59.5)),
        ("Clip Order", "R3D", (14.1, 30.3, 40.0, 51.1, 66.5)),
        ("SpeedNet", "S3D-G", (13.0, 28.1, 37.5, 49.5, 65.0)),
        ("PRP", "R3D", (22.8, 38.5, 46.7, 55.2, 69.1)),
        (OURS, "3D-ResNet18", (26.1, 48.5, 59.1, 69.6, 82.8)),
    )
    conditions: dict[str, Fact] = {
        "split": "official split 1",
        "layer": "global average pool",
        "clips": 10,
        "standardised": True,
    }
    for method, network, values in everything:
        for k, value in zip((1, 5, 10, 20, 50), values, strict=True):
            yield Row(
                "thesis table 5.4",
                method,
                "retrieve",
                UCF,
                f"top-{k}",
                value,
                network=network,
                # Its text names what the author trained on, not what the others did.
                trained_on=KINETICS if method == OURS else "",
                conditions=conditions if method == OURS else {},
            )


def _still() -> Iterable[Row]:
    conditions: dict[str, Fact] = {
        "layer": "conv5",
        "classifier": "three fully connected layers trained",
    }
    for method, still, moving in ((SUPERVISED, 18.5, 56.5), (OURS, 1.0, 58.1)):
        for task, value in (("still", still), ("moving", moving)):
            yield Row(
                "thesis section 5.3 (still videos)",
                method,
                task,
                UCF,
                "top-1 accuracy",
                value,
                conditions=conditions,
            )


ROWS: tuple[Row, ...] = (
    *published_artifacts.rows(),
    *published_images.rows(),
    *_table_5_1(),
    *_table_5_2(),
    *_table_5_3(),
    *_table_5_4(),
    *_still(),
    *published_views.rows(),
    *published_gan.rows(),
    *published_labels.rows(),
)


class Facts(TypedDict, total=False):
    """What a run did, under the names that `Row.conditions` uses. What is not given counts as
    different.

    `network` and `trained_on` are registered names (c3d, kinetics), `split` the source's
    `split_rule`, `transformations` the kinds told apart, in any order.
    """

    network: str
    trained_on: str
    split: str
    layer: str
    classifier: str
    ablation: str
    transformations: Collection[str]
    speed_loss: bool
    pretraining_epochs: int
    clips: int
    standardised: bool
    offsets: str
    frames: str
    crop: int
    pooling: str
    crops: str
    labelled_subjects: str
    background: str
    frozen: str
    init: str
    updates: int
    pretraining_updates: int
    test_frames: str


def published(
    task: str, metric: str, dataset: str, *, method: str = OURS, **facts: Unpack[Facts]
) -> Published | None:
    """The thesis' number for `task` and `metric` on `dataset`, or None if it printed none.

    Of several rows the one whose protocol is nearest to `facts` is taken, and `differs` names every
    condition that is not the same, so that nothing is compared in silence. Tasks: frozen, finetune,
    sync, order, retrieve, still, moving, classify. `method` is OURS, SUPERVISED or another one of
    its tables.
    """
    rows = [
        row
        for row in ROWS
        if (row.task, row.metric, row.dataset, row.method) == (task, metric, dataset, method)
    ]
    if not rows:
        return None
    # The last of equals: the tables end with the fullest method and the largest network.
    row = min(reversed(rows), key=lambda row: len(_differences(row, facts)))
    differs = _differences(row, facts)
    return Published(value=row.value, where=row.where, comparable=not differs, differs=differs)


def tabled(task: str, metric: str, dataset: str, condition: str) -> set[Fact]:
    """Of which values of a condition (layers, say) the thesis prints numbers."""
    return {
        row.conditions[condition]
        for row in ROWS
        if (row.task, row.metric, row.dataset) == (task, metric, dataset)
        and condition in row.conditions
    }


def table(number: str) -> list[Row]:
    """The rows of a table ("3.1" … "7.3"), in the order in which they are printed."""
    return [row for row in ROWS if row.table == f"thesis table {number}"]


def _differences(row: Row, facts: Facts) -> list[str]:
    here: dict[str, object] = dict(facts)
    if "network" in facts:
        here["network"] = NETWORKS.get(facts["network"], facts["network"])
    if "transformations" in facts:
        here["transformations"] = _signal(facts["transformations"])
    there = {"network": row.network, "trained_on": row.trained_on, **row.conditions}
    return [
        f"{name.replace('_', ' ')}: {_said(value)} in the thesis, "
        f"{_said(here[name]) if name in here else 'not stated'} here"
        for name, value in there.items()
        if here.get(name) != value
    ]


def _signal(kinds: Collection[str]) -> str:
    order = ["speed", "random", "periodic", "rotation", "warp", "LCI"]
    named = {"LCI" if kind == "lci" else kind for kind in kinds} - {"identity"}
    if named >= _QUARTER_TURNS:
        named = (named - _QUARTER_TURNS) | {"rotation"}
    return " + ".join(
        sorted(named, key=lambda kind: (kind not in order, [*order, kind].index(kind), kind))
    )


def _said(value: object) -> str:
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)
