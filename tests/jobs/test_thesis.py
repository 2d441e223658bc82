"""The thesis' numbers stand beside ours only where its method was used, with what differs."""

from __future__ import annotations

from typing import Any

import pytest

from selfsup_cli.jobs.thesis import beside
from selfsup_cli.models import Backbone, build
from selfsup_cli.runs.published import Facts
from selfsup_cli.runs.report import Measurement, accuracy

TRAINED = {
    "method": "temporal",
    "data": "ucf101",
    "kinds": ["speed", "random", "periodic", "warp"],
    "questions": ["motion", "speed"],
    "epochs": 50,
}


def network(arch: str = "c3d", **trained: Any) -> Backbone:
    backbone = build(arch, width=0.125, crop=32, seed=0)
    backbone.trained_on = {**TRAINED, **trained}
    return backbone


def measured(metric: str = "top-1 accuracy", dataset: str = "ucf101") -> Measurement:
    return accuracy(
        "probe", 5, 10, task="probe", subject="learned", dataset=dataset, split="official split 1",
        metric=metric, protocol={"clips": 1},
    )  # fmt: skip


def test_a_linear_probe_names_what_its_classifier_differs_in() -> None:
    facts: Facts = {"layer": "conv5", "classifier": "one linear layer"}
    found = beside("frozen", measured(), network(), **facts).published
    assert found is not None
    assert (found.value, found.comparable) == (60.6, False)
    assert any("three fully connected layers" in text for text in found.differs)
    assert not any(text.startswith(("transformations", "pretraining")) for text in found.differs)
    short = network(epochs=0.25)
    found = beside("frozen", measured(), short, **facts).published
    assert found is not None
    assert any("50 in the thesis, 0.25 here" in text for text in found.differs)


def test_labels_are_compared_with_labels_and_other_methods_with_nothing() -> None:
    facts: Facts = {"layer": "conv5", "classifier": "one linear layer"}
    row = measured()
    labels = network(method="supervised", kinds=["clip"], questions=["label"])
    found = beside("frozen", row, labels, **facts).published
    assert found is not None
    assert found.value == 60.7
    for other in (network(method="rotnet3d"), network(method="shuffle-learn"), build("r3d")):
        assert beside("frozen", row, other, **facts).published is None


@pytest.mark.parametrize(("method", "value"), [("temporal", 26.1), ("supervised", None)])
def test_retrieval_is_that_of_the_method(method: str, value: float | None) -> None:
    found = beside(
        "retrieve", measured("top-1"), network("r3d", method=method, data="kinetics"),
        layer="global average pool", clips=10, standardised=True,
    ).published  # fmt: skip
    assert (None if found is None else found.value) == value


SPOTTING: dict[str, Any] = {
    "method": "artifacts", "data": "stl10", "kinds": ["corrupt", "real"], "epochs": 400,
    "drop_rate": 0.5, "real": "replicas", "locate": True, "repair": "distributed", "gated": True,
    "kernel": 2, "history": 6400,
}  # fmt: skip


@pytest.mark.parametrize(
    ("changed", "value"),
    [
        ({}, 79.94),
        ({"real": "images"}, 74.99),
        ({"locate": False}, 78.44),
        ({"repair": "local"}, 77.51),
        ({"kernel": 3}, 79.84),
        ({"gated": False}, 79.66),
        ({"history": 0}, 79.76),
        ({"drop_rate": 0.7}, 81.06),
    ],
)
def test_a_network_of_chapter_3_finds_its_row_of_table_3_1(
    changed: dict[str, Any], value: float
) -> None:
    backbone = build("alexnet_lrn", width=0.125, crop=32, seed=0)
    backbone.trained_on = {**SPOTTING, **changed}
    row = measured(dataset="stl10").model_copy(update={"split": "official train and test"})
    said = "three fully connected layers trained for 200 epochs"
    found = beside("classify", row, backbone, layer="conv5", classifier=said).published
    assert found is not None
    assert (found.value, found.differs) == (value, [])
    other = beside("classify", row, backbone, layer="conv5", classifier="another").published
    assert other is not None
    assert not other.comparable


def test_each_task_on_voc_finds_its_number() -> None:
    backbone = build("alexnet_lrn", width=0.125, crop=32, seed=0)
    backbone.trained_on = {**SPOTTING, "data": "imagenet", "epochs": 150}
    for task, dataset, metric, value in (
        ("classify", "voc2007", "mean average precision", 69.8),
        ("detect", "voc2007", "mean average precision (VOC 2007, 11 points)", 52.5),
        ("segment", "voc2012", "mean intersection over union", 38.1),
    ):
        crops: Facts = {"crops": "10 random crops, half of them mirrored"}
        found = beside(task, measured(metric, dataset), backbone, **crops).published
        assert found is not None
        assert (found.value, found.comparable) == (value, True)
    single = beside("classify", measured("mean average precision", "voc2007"), backbone).published
    assert single is not None
    assert not single.comparable
