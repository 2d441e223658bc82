"""Probes of attributes: one classifier each, and average precision."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from evaluation_toys import CPU
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score

from selfsup_cli.config.image_evaluation import ImageProbe
from selfsup_cli.engine.trainable import Update
from selfsup_cli.errors import InputError
from selfsup_cli.evaluation.features import Features, Standard
from selfsup_cli.evaluation.labelled import hold_out
from selfsup_cli.evaluation.multilabel import (
    AttributeHeads,
    attribute_measurement,
    mean_precision,
    probe_attributes,
    told_apart,
)
from selfsup_cli.evaluation.probe import Heads, Labelled, measurements, probe_layer

NAMES = ("hat", "beard", "glasses")


def faces(n: int, seed: int, views: int = 1, unknown: float = 0.0) -> Labelled:
    """Features that carry the attributes along fixed directions, in noise."""
    directions = np.random.default_rng(99).normal(size=(3, 12))
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, (n, 3)).astype(np.uint8)
    rows = (2.0 * labels - 1) @ directions * 0.5 + rng.normal(size=(n, 12)) * 1.5
    rows = np.repeat(rows, views, axis=0) + 0.3 * rng.normal(size=(n * views, 12))
    labels[rng.random(labels.shape) < unknown] = 255
    ids = [f"{seed}/{i}.png" for i in range(n)]
    owner = np.repeat(np.arange(n), views)
    return Labelled(Features.of({"x": rows.astype(np.float32)}, owner), labels, NAMES, ids)


def test_each_attribute_is_trained_as_if_alone() -> None:
    """Against single two-class heads on the difference of logits: one sigmoid each."""
    data = faces(40, 0)
    x, y = data.features.read("x"), torch.from_numpy(data.labels)
    statistics = Standard(x.mean(0), 1 / x.std(0))
    together = AttributeHeads(statistics, 3, [(0.1, 0.01), (0.02, 0.0)], 0)
    start = together.weight.detach().clone()
    update = Update(together.optimizers(), lambda step: 1.0, CPU, seed=0)
    for step in range(20):
        update.step = step
        together.step({"feature": x, "label": y}, update)
    for h, (lr, decay) in enumerate(together.settings):
        for a in range(3):
            weight = start.reshape(2, 3, 12)[h, a].clone().requires_grad_()
            bias = torch.zeros(1, requires_grad=True)
            plain = torch.optim.SGD(
                [{"params": [weight], "weight_decay": decay}, {"params": [bias]}],
                lr=lr, momentum=0.9, nesterov=True,
            )  # fmt: skip
            for _ in range(20):
                plain.zero_grad()
                logits = statistics(x) @ weight + bias
                torch.nn.functional.binary_cross_entropy_with_logits(
                    logits, y[:, a].float()
                ).backward()
                plain.step()
            own = together.weight.detach().reshape(2, 3, 12)[h, a]
            torch.testing.assert_close(own, weight.detach(), atol=1e-5, rtol=1e-4)


def test_what_is_not_known_weighs_nothing() -> None:
    heads = AttributeHeads(Standard.none(2), 3, [(0.1, 0.0)], 0)
    logits = torch.randn(4, 1, 3, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([[1, 0, 255], [0, 1, 255], [1, 255, 255], [0, 0, 255]]).byte()
    by_hand = torch.zeros(())
    for a in range(2):
        known = labels[:, a] != 255
        p = logits[known, 0, a].sigmoid()
        truth = labels[known, a].float()
        by_hand = by_hand - (truth * p.log() + (1 - truth) * (1 - p).log()).mean()
    torch.testing.assert_close(heads.losses(logits, labels), by_hand[None])
    assert torch.isfinite(heads.losses(logits, torch.full_like(labels, 255))).all()


def test_probes_agree_with_logistic_regression_on_the_same_features() -> None:
    train, test = faces(400, 1, views=2), faces(300, 2)
    settings = ImageProbe(epochs=40, batch_size=64)
    found = probe_attributes(train, test, "x", settings, CPU)
    x, truth = train.features.read("x").numpy(), train.row_labels()
    held = test.features.read("x").numpy()
    theirs = [
        LogisticRegression(C=1.0).fit(x, truth[:, a]).decision_function(held) for a in range(3)
    ]
    expected = np.mean([average_precision_score(test.labels[:, a], theirs[a]) for a in range(3)])
    row = attribute_measurement(found, subject="learned", dataset="d", split="s", protocol={"k": 1})
    assert row.value / 100 == pytest.approx(expected, abs=0.01)
    assert expected > 0.75
    own = [average_precision_score(test.labels[:, a], found.scores[:, a]) for a in range(3)]
    assert row.value == pytest.approx(100 * np.mean(own))
    assert row.protocol["per_attribute"] == [
        f"{name}: {100 * one:.1f} %" for name, one in zip(NAMES, own, strict=True)
    ]
    assert (row.metric, row.task, row.n) == ("mean average precision", "probe", 300)
    assert row.interval is not None
    assert row.interval.low < row.value < row.interval.high
    assert row.interval.high - row.interval.low < 10
    assert row.chance == pytest.approx(100 * test.labels.mean(), abs=1.5)
    assert row.chance > 100 * test.labels.mean() + 0.5
    assert found.validation is not None


def test_single_labels_agree_with_logistic_regression_too() -> None:
    """Images of three classes, several views each."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(3, 10))

    def blobs(n: int, views: int, seed: int) -> Labelled:
        own = np.random.default_rng(seed)
        labels = own.integers(0, 3, n)
        rows = np.repeat(centres[labels] + own.normal(size=(n, 10)), views, axis=0)
        rows += 0.3 * own.normal(size=rows.shape)
        owner = np.repeat(np.arange(n), views)
        features = Features.of({"x": rows.astype(np.float32)}, owner)
        return Labelled(features, labels, ("a", "b", "c"), [f"{seed}/{i}" for i in range(n)])

    train, test = blobs(400, 2, 1), blobs(300, 1, 2)
    found = probe_layer(train, test, "x", ImageProbe(epochs=30), CPU, many="images")
    theirs = LogisticRegression().fit(train.features.read("x").numpy(), train.row_labels())
    expected = theirs.score(test.features.read("x").numpy(), test.labels)
    assert found.hits / 300 == pytest.approx(expected, abs=0.03)
    top1, _ = measurements(
        found, subject="learned", dataset="d", split="s", protocol={"k": 1}, medium="images"
    )
    assert "training images held out" in str(top1.protocol["chosen"])
    assert top1.protocol["test"] == "mean of the softmax over the views of an image"
    assert not any("video" in str(value) for value in top1.protocol.values())


def test_unknown_and_constant_attributes_take_no_part() -> None:
    train, test = faces(300, 3, unknown=0.2), faces(200, 4, unknown=0.2)
    test.labels[:, 1] = 1
    found = probe_attributes(train, test, "x", ImageProbe(epochs=10), CPU)
    row = attribute_measurement(found, subject="learned", dataset="d", split="s", protocol={"k": 1})
    own = []
    for a in (0, 2):
        known = test.labels[:, a] != 255
        own.append(average_precision_score(test.labels[known, a], found.scores[known, a]))
    assert row.value == pytest.approx(100 * np.mean(own))
    assert row.protocol["attributes"] == 2
    assert row.protocol["not_measured"] == ["beard"]
    assert "of the labels, left out" in str(row.protocol["unknown"])
    assert told_apart(test.labels).tolist() == [True, False, True]
    assert mean_precision(found.scores, test.labels) == pytest.approx(np.mean(own))
    for part in (train, test):
        part.labels[:] = 0
    with pytest.raises(InputError, match="no attribute that some of the training images have"):
        probe_attributes(train, test, "x", ImageProbe(epochs=1), CPU)


def test_a_fold_is_trained_on_alone() -> None:
    """What lies outside of it changes nothing, and of it a part is held out."""
    train, test = faces(200, 5), faces(100, 6)
    among = np.arange(0, 200, 2)
    quick = ImageProbe(epochs=4)
    first = probe_attributes(train, test, "x", quick, CPU, among=among)
    train.labels[1::2] = 1 - train.labels[1::2]
    second = probe_attributes(train, test, "x", quick, CPU, among=among)
    assert np.array_equal(first.scores, second.scores)
    whole = probe_attributes(train, test, "x", quick, CPU)
    assert not np.array_equal(first.scores, whole.scores)
    kept, held = hold_out(train, 0.2, 0, among)
    assert sorted([*kept, *held]) == among.tolist()
    assert len(held) == 20


def test_heads_of_classes_are_not_touched_by_it() -> None:
    assert Heads.answers is not AttributeHeads.answers
    logits = torch.randn(2, 1, 4)
    assert torch.equal(Heads(Standard.none(1), 4, [(1, 0)], 0).answers(logits), logits.softmax(2))
