from __future__ import annotations

import warnings
from itertools import product

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from evaluation_toys import CPU
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score, recall_score

from selfsup_cli.config.evaluation import LinearProbe
from selfsup_cli.engine.signals import StopFlag
from selfsup_cli.engine.trainable import Update
from selfsup_cli.errors import InputError, Stopped
from selfsup_cli.evaluation import probe as probes
from selfsup_cli.evaluation.features import Features, Standard
from selfsup_cli.evaluation.labelled import RowLoader, hold_out, recording_of
from selfsup_cli.evaluation.probe import (
    Heads,
    Labelled,
    ProbeResult,
    balanced_interval,
    measurements,
    probe_layer,
)

NAMES = ("a", "b", "c", "d", "e", "f")
QUICK = LinearProbe(epochs=15)


def labelled(rows: np.ndarray, labels: np.ndarray, clips: int = 1, tag: str = "v") -> Labelled:
    video = np.repeat(np.arange(len(labels)), clips)
    classes = NAMES[: int(labels.max()) + 1]
    ids = [f"{tag}{i}" for i in range(len(labels))]
    return Labelled(Features.of({"x": rows.astype(np.float32)}, video), labels, classes, ids)


def blobs(
    videos: int, classes: int, dim: int, apart: float, seed: int, clips: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    """Normal clouds whose centres are `apart` from the origin; clips scatter around their video."""
    centres = np.random.default_rng(99).normal(size=(classes, dim))
    centres *= apart / np.linalg.norm(centres, axis=1, keepdims=True)
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, videos)
    rows = np.repeat(centres[labels] + 0.5 * rng.normal(size=(videos, dim)), clips, axis=0)
    return rows + 0.5 * rng.normal(size=rows.shape), labels


# Heads


def test_heads_trained_together_come_out_as_if_trained_alone_by_plain_sgd() -> None:
    grid = list(product([0.003, 0.05], [0.0, 0.02]))
    g = torch.Generator().manual_seed(0)
    x, y = torch.randn(40, 7, generator=g) * 3 + 1, torch.randint(0, 3, (40,), generator=g)
    statistics = Standard(x.mean(0), 1 / x.std(0, correction=0))
    heads = Heads(statistics, 3, grid, seed=4)
    weights = heads.weight.detach().reshape(len(grid), 3, 7).clone()
    assert all(torch.equal(weights[0], w) for w in weights)  # the same start for all

    def falling(step: int) -> float:
        return 1 - step / 30

    update = Update(heads.optimizers(), falling, CPU, seed=0)
    for step in range(30):
        update.step = step
        heads.step({"feature": x, "label": y}, update)
    for h, (lr, decay) in enumerate(grid):
        weight = weights[h].clone().requires_grad_()
        bias = torch.zeros(3, requires_grad=True)
        plain = torch.optim.SGD(
            [{"params": [weight], "weight_decay": decay}, {"params": [bias]}],
            lr=lr, momentum=0.9, nesterov=True,
        )  # fmt: skip
        for step in range(30):
            for group in plain.param_groups:
                group["lr"] = lr * falling(step)
            plain.zero_grad()
            F.cross_entropy(F.linear(statistics(x), weight, bias), y).backward()
            plain.step()
        own = heads.weight.detach().reshape(len(grid), 3, 7)[h]
        torch.testing.assert_close(own, weight.detach(), atol=1e-6, rtol=1e-4)
        torch.testing.assert_close(
            heads.bias.detach().reshape(len(grid), 3)[h], bias.detach(), atol=1e-6, rtol=1e-4
        )


# Rows


@settings(deadline=None, max_examples=30)
@given(
    n=st.integers(2, 900),
    batch=st.integers(1, 64),
    budget=st.sampled_from([0, 4000, 20_000, 1 << 30]),
    epoch=st.integers(0, 2),
)
def test_an_epoch_gives_every_row_once_with_its_label(
    n: int, batch: int, budget: int, epoch: int
) -> None:
    rows = np.arange(2 * n, dtype=np.float32).reshape(n, 2)
    data = labelled(rows, np.arange(n) % 3)
    chosen = np.flatnonzero(np.arange(n) % 5 != 2)
    loader = RowLoader(data, "x", chosen, batch, seed=1, in_memory=budget)
    batches = list(loader.epoch(epoch))
    assert len(batches) == len(loader) == len(chosen) // loader.batch_size
    assert all(len(b["feature"]) == loader.batch_size for b in batches)
    index = torch.cat([b["index"] for b in batches]).numpy()
    assert len(set(index)) == len(index)
    assert (torch.cat([b["feature"] for b in batches]).numpy() == rows[chosen[index]]).all()
    assert (torch.cat([b["label"] for b in batches]).numpy() == chosen[index] % 3).all()
    # Going on in the middle of an epoch gives what was left.
    start = len(batches) // 2
    for a, b in zip(batches[start:], loader.epoch(epoch, start), strict=True):
        assert all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("budget", [4000, 1 << 30])
def test_the_order_is_mixed_and_differs_by_epoch_and_seed(budget: int) -> None:
    data = labelled(np.zeros((3000, 2)), np.arange(3000) % 3)
    everything = np.arange(3000)
    orders = [
        RowLoader(data, "x", everything, 10, seed, in_memory=budget).order(epoch)
        for seed, epoch in ((0, 0), (0, 1), (1, 0))
    ]
    again = RowLoader(data, "x", everything, 10, 0, in_memory=budget).order(0)
    assert (orders[0] == again).all()
    for i in range(3):
        assert sorted(orders[i]) == list(range(3000))
        assert (np.abs(np.diff(orders[i])) > 1).mean() > 0.9
        assert (orders[i] != orders[(i + 1) % 3]).mean() > 0.9


# Held-out videos


@settings(deadline=None)
@given(
    counts=st.lists(st.integers(0, 30), min_size=2, max_size=5),
    share=st.floats(0.05, 0.8),
    seed=st.integers(0, 5),
)
def test_every_class_keeps_videos_and_gives_some(
    counts: list[int], share: float, seed: int
) -> None:
    labels = np.repeat(np.arange(len(counts)), counts)
    if len(labels) == 0:
        return
    data = Labelled(
        Features.of({"x": np.zeros((len(labels), 1), np.float32)}, np.arange(len(labels))),
        labels, NAMES[: len(counts)], [f"v{i}" for i in range(len(labels))],
    )  # fmt: skip
    kept, held = hold_out(data, share, seed)
    assert sorted([*kept, *held]) == list(range(len(labels)))
    for c, count in enumerate(counts):
        out = int((labels[held] == c).sum())
        assert out <= max(count - 1, 0)
        assert abs(out - share * count) <= 1 or count < 3
        assert out >= 1 or count < 2
    assert all(
        (a == b).all() for a, b in zip(hold_out(data, share, seed), (kept, held), strict=True)
    )


def test_who_is_held_out_depends_on_id_and_seed_and_not_on_the_order() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 60)
    data = labelled(np.zeros((60, 1)), labels)
    _, held = hold_out(data, 0.3, 0)
    order = rng.permutation(60)
    moved = Labelled(data.features, labels[order], data.classes, [data.ids[i] for i in order])
    _, again = hold_out(moved, 0.3, 0)
    assert {moved.ids[i] for i in again} == {data.ids[i] for i in held}
    assert set(hold_out(data, 0.3, 1)[1]) != set(held)


@settings(deadline=None)
@given(groups=st.lists(st.integers(1, 9), min_size=2, max_size=12), share=st.floats(0.1, 0.6))
def test_clips_of_one_recording_stay_together(groups: list[int], share: float) -> None:
    ids = [f"a/v_a_g{g:02d}_c{c:02d}.avi" for g, n in enumerate(groups) for c in range(n)]
    labels = np.zeros(len(ids), dtype=np.int64)
    data = Labelled(
        Features.of({"x": np.zeros((len(ids), 1), np.float32)}, np.arange(len(ids))),
        labels, ("a",), ids,
    )  # fmt: skip
    kept, held = hold_out(data, share, 0)
    assert {ids[i][:9] for i in kept}.isdisjoint({ids[i][:9] for i in held})
    assert len(held) > 0
    assert len(kept) > 0
    assert len(held) <= max(share * len(ids) + max(groups) / 2, *groups)


@pytest.mark.parametrize(
    ("identifier", "recording"),
    [
        ("Walk/v_Walk_g07_c02.avi", "Walk/v_Walk_g07"),
        ("v_Walk_g7_c12", "v_Walk_g7"),
        ("train/000012", "train/000012"),
        ("a_g1_cx.mp4", "a_g1_cx.mp4"),
        ("a_g1_c1.mp4/b.avi", "a_g1_c1.mp4/b.avi"),
    ],
)
def test_recordings_are_read_from_names(identifier: str, recording: str) -> None:
    assert recording_of(identifier) == recording


# The protocol


@pytest.mark.parametrize("dim", [3, 40, 300])
def test_agrees_with_logistic_regression_on_separable_classes(dim: int) -> None:
    rows, labels = blobs(150, 4, dim, 6, seed=0)
    tested, truth = blobs(200, 4, dim, 6, seed=1)
    result = probe_layer(labelled(rows, labels), labelled(tested, truth, tag="t"), "x", QUICK, CPU)
    reference = LogisticRegression(max_iter=2000).fit(rows, labels)
    assert reference.score(tested, truth) > 0.97
    assert (result.predictions == reference.predict(tested)).mean() > 0.97
    assert result.hits / len(truth) > 0.97


def test_as_good_as_the_best_logistic_regression_on_classes_that_overlap() -> None:
    rows, labels = blobs(300, 4, 40, 1.2, seed=0)
    tested, truth = blobs(600, 4, 40, 1.2, seed=1)
    mean, std = rows.mean(0), rows.std(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        best = max(
            LogisticRegression(C=c, max_iter=500)
            .fit((rows - mean) / std, labels)
            .score((tested - mean) / std, truth)
            for c in (1e-3, 1e-2, 0.1, 1)
        )
    result = probe_layer(labelled(rows, labels), labelled(tested, truth), "x", LinearProbe(), CPU)
    assert 0.5 < best < 0.9
    assert result.hits / len(truth) > best - 0.04


def test_labels_that_have_nothing_to_do_with_the_features_are_not_learned() -> None:
    rng = np.random.default_rng(0)
    train = labelled(rng.normal(size=(300, 30)), rng.integers(0, 4, 300))
    test = labelled(rng.normal(size=(400, 30)), rng.integers(0, 4, 400))
    result = probe_layer(train, test, "x", QUICK, CPU)
    top1 = measurements(result, subject="learned", dataset="d", split="s", protocol={"k": 1})[0]
    assert top1.interval is not None
    assert top1.interval.low < 25 < top1.interval.high + 3


def test_the_scale_of_a_layer_does_not_matter() -> None:
    rows, labels = blobs(120, 3, 10, 1.5, seed=0)
    tested, truth = blobs(120, 3, 10, 1.5, seed=1)
    results = [
        probe_layer(labelled(rows * s, labels), labelled(tested * s, truth), "x", QUICK, CPU)
        for s in (1e-3, 1, 1e3)
    ]
    for result in results:
        assert (result.predictions == results[1].predictions).mean() > 0.99


def test_the_same_seed_gives_the_same_bits() -> None:
    rows, labels = blobs(100, 3, 10, 1, seed=0, clips=3)
    train = labelled(rows, labels, 3)
    a, b = (probe_layer(train, train, "x", QUICK, CPU) for _ in range(2))
    assert (a.predictions == b.predictions).all()
    assert (a.lr, a.weight_decay, a.validation) == (b.lr, b.weight_decay, b.validation)
    heads = [
        probes._train(train, "x", np.arange(100), [(0.1, 0.0)], QUICK, CPU, None) for _ in range(2)
    ]
    assert torch.equal(heads[0].weight, heads[1].weight)


def test_choice_is_made_without_the_test_videos_and_without_leaking_clips() -> None:
    rows, labels = blobs(100, 3, 10, 1.5, seed=0, clips=4)
    train = labelled(rows, labels, 4)
    results = []
    for seed in (1, 2):
        tested, truth = blobs(50, 3, 10, 1.5, seed=seed, clips=4)
        results.append(probe_layer(train, labelled(tested, truth, 4), "x", QUICK, CPU))
    assert results[0].lr == results[1].lr
    assert results[0].weight_decay == results[1].weight_decay
    assert results[0].validation == results[1].validation
    kept, held = hold_out(train, 0.2, 0)
    assert not set(train.rows_of(kept)) & set(train.rows_of(held))
    assert set(train.features.video[train.rows_of(held)]) == set(held)


def test_softmax_is_averaged_over_the_clips_of_a_video() -> None:
    """Two clips lean slightly one way, one is sure of the other: the mean follows the sure one."""
    heads = Heads(Standard(torch.zeros(1), torch.ones(1)), 2, [(0.1, 0.0)], 0)
    with torch.no_grad():
        heads.weight.copy_(torch.tensor([[-1.0], [1.0]]))
    rows = np.array([[-0.1], [-0.1], [9.0], [-1.0]])
    data = Labelled(
        Features.of({"x": rows.astype(np.float32)}, np.array([0, 0, 0, 1])),
        np.array([1, 0]), ("a", "b"), ["v", "w"],
    )  # fmt: skip
    found = probes._probabilities(heads, data, "x", np.arange(2))[:, 0]
    expected = torch.stack(
        [torch.softmax(heads(torch.tensor(rows[:3]).float())[:, 0], 1).mean(0),
         torch.softmax(heads(torch.tensor(rows[3:]).float())[0, 0], 0)]
    )  # fmt: skip
    torch.testing.assert_close(found, expected.detach())
    assert found.argmax(1).tolist() == [1, 0]
    # A part of the videos gives the same as the whole.
    assert torch.equal(probes._probabilities(heads, data, "x", np.array([1]))[:, 0], found[1:])


def test_of_equal_accuracies_the_lowest_loss_is_chosen() -> None:
    grid = [(0.1, 0.0), (0.2, 0.0), (0.3, 0.0)]
    truth = np.array([0, 1] * 20)
    sure = torch.tensor([0.9, 0.1])
    unsure = torch.tensor([0.6, 0.4])
    heads = [
        torch.stack([unsure if t == 0 else unsure.flip(0) for t in truth]),
        torch.stack([sure if t == 0 else sure.flip(0) for t in truth]),
        torch.stack([sure.flip(0) if t == 0 else sure for t in truth]),
    ]
    best, accuracy = probes._choose(torch.stack(heads, 1), truth, grid)
    assert best == (0.2, 0.0)
    assert accuracy == 1


def test_a_grid_of_one_needs_no_choice_and_one_video_per_class_allows_none() -> None:
    rows, labels = blobs(60, 3, 5, 4, seed=0)
    one = LinearProbe(epochs=5, lrs=[0.05], weight_decays=[0.001])
    result = probe_layer(labelled(rows, labels), labelled(rows, labels), "x", one, CPU)
    assert (result.lr, result.weight_decay, result.chosen) == (0.05, 0.001, "given")
    # There is nothing to choose here, but layers are compared by it.
    assert result.validation is not None
    few = labelled(np.eye(3), np.arange(3))
    result = probe_layer(few, few, "x", LinearProbe(epochs=5), CPU)
    assert "too few videos" in result.chosen
    assert result.validation is None


def test_features_are_left_as_they_are_if_the_preset_says_so() -> None:
    rows, labels = blobs(60, 3, 5, 4, seed=0)
    data = labelled(1000 + rows, labels)
    plain = LinearProbe(epochs=5, lrs=[0.05], weight_decays=[0.0], normalize=False)
    everything = np.arange(len(labels))
    heads = probes._train(data, "x", everything, [(0.05, 0.0)], plain, CPU, None)
    assert torch.equal(heads.mean, torch.zeros(5))
    assert torch.equal(heads.scale, torch.ones(5))
    found = probe_layer(data, data, "x", plain, CPU)
    row = measurements(found, subject="learned", dataset="d", split="s", protocol={"k": 1})[0]
    assert row.protocol["classifier"] == "linear on features as they are"


def test_one_class_is_refused() -> None:
    data = labelled(np.zeros((5, 2)), np.zeros(5, dtype=np.int64))
    with pytest.raises(InputError, match="at least two classes"):
        probe_layer(data, data, "x", QUICK, CPU)


def test_a_signal_stops_it() -> None:
    rows, labels = blobs(100, 3, 10, 1, seed=0)
    data = labelled(rows, labels)
    with pytest.raises(Stopped):
        probe_layer(data, data, "x", QUICK, CPU, stop=StopFlag(15))


# Numbers


def result(predictions: list[int], labels: list[int]) -> ProbeResult:
    return ProbeResult(
        "conv4", ("a", "b", "c"), 0.1, 0.0, "given", None, 0.5,
        np.array(predictions), np.array(labels),
    )  # fmt: skip


def test_measurements_say_what_was_measured() -> None:
    given = result([0, 0, 0, 1, 1, 0], [0, 0, 0, 0, 1, 1])
    top1, balanced = measurements(
        given, subject="random weights", control="still", dataset="toy", split="official split 1",
        protocol={"clips": 4, "weights": "abc"},
    )  # fmt: skip
    assert (top1.value, top1.n, top1.layer) == (pytest.approx(400 / 6), 6, "conv4")
    assert top1.chance == pytest.approx(400 / 6)  # answering "a" always
    assert (top1.subject, top1.control, top1.dataset) == ("random weights", "still", "toy")
    assert top1.interval is not None
    assert top1.interval.method == "Wilson"
    assert top1.protocol["weights"] == "abc"
    assert {"lr", "weight_decay", "optimiser", "test", "chosen"} <= set(top1.protocol)
    assert balanced.metric == "class-balanced accuracy"
    assert balanced.value == pytest.approx(100 * (3 / 4 + 1 / 2) / 2)
    assert balanced.chance == pytest.approx(50)  # of the classes that are tested
    assert balanced.protocol["per_class"] == ["a: 75.0 %", "b: 50.0 %"]


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=40))
def test_accuracies_agree_with_sklearn(pairs: list[tuple[int, int]]) -> None:
    truth, answer = [t for t, _ in pairs], [a for _, a in pairs]
    top1, balanced = measurements(
        result(answer, truth), subject="learned", dataset="d", split="s", protocol={"k": 1}
    )
    assert top1.value == pytest.approx(100 * np.mean(np.array(truth) == np.array(answer)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert balanced.value == pytest.approx(100 * balanced_accuracy_score(truth, answer))
        recalls = recall_score(truth, answer, average=None, labels=sorted(set(truth)))
    assert list(result(answer, truth).per_class().values()) == pytest.approx(list(recalls))


def test_the_stratified_interval_covers_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    p, n = np.array([0.9, 0.6, 0.3]), np.array([20, 40, 15])
    inside = 0
    for _ in range(1000):
        found = balanced_interval((rng.binomial(n, p) / n).tolist(), n.tolist())
        inside += found.low <= 60 <= found.high
    assert 930 <= inside <= 975
    sure = balanced_interval([1.0, 1.0], [10, 10])
    assert sure.low < 100 == sure.high
