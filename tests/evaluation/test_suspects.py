"""Which labels are wrong: scores, proposals, and how well they tell."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score
from torch import Tensor

from selfsup_cli.data.label_noise import uniform
from selfsup_cli.errors import InputError, MachineError
from selfsup_cli.evaluation.suspects import (
    RANKINGS,
    Suspicion,
    agreements,
    auroc,
    confident_learning,
    named,
    precision_at,
    suspects,
)
from selfsup_cli.randomness import generator

K, B, D, C = 3, 4, 5, 3


def step(seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    g = generator(seed, "step")
    features = torch.randn(K, B, D, generator=g) + 2
    logits = torch.randn(K, B, C, generator=g)
    return torch.arange(K * B).view(K, B), features, logits, torch.randint(C, (K, B), generator=g)


def test_agreement_is_the_cosine_of_gradients_of_the_last_layer() -> None:
    _, features, logits, labels = step()
    centred = features - features.flatten(0, 1).mean(0)
    weights = torch.zeros(C, D, requires_grad=True)

    def gradient(split: int, samples: slice) -> Tensor:
        """Where the logits are those given, whatever the weights."""
        f = centred[split, samples]
        z = logits[split, samples] + f @ weights.T
        loss = F.cross_entropy(z, labels[split, samples], reduction="sum")
        return torch.autograd.grad(loss, weights)[0].flatten()

    found = agreements(features, logits.softmax(2), labels)
    whole = slice(None)
    for split in range(K):
        others = sum(gradient(one, whole) for one in range(K) if one != split)
        assert isinstance(others, Tensor)
        for sample in range(B):
            expected = F.cosine_similarity(gradient(split, slice(sample, sample + 1)), others, 0)
            assert float(found[split, sample]) == pytest.approx(float(expected), abs=1e-5)
    assert not agreements(features[:1], logits[:1].softmax(2), labels[:1]).any()


def test_scores_are_means_over_visits() -> None:
    suspicion = Suspicion(K * B + 1)
    for seed in (0, 1):
        suspicion.see(*step(seed))  # type: ignore[arg-type]
    seen = [(agreements(f, z.softmax(2), y), z, y) for _, f, z, y in (step(0), step(1))]
    agreement = sum(one for one, _, _ in seen).flatten() / 2  # type: ignore[union-attr]
    loss = sum(-z.log_softmax(2).gather(2, y[..., None]) for _, z, y in seen).flatten() / 2  # type: ignore[union-attr]
    np.testing.assert_allclose(suspicion.scores("agreement")[:-1], -agreement, rtol=1e-5)
    np.testing.assert_allclose(suspicion.scores("loss")[:-1], loss, rtol=1e-5)
    places = [np.argsort(np.argsort(one)) + 1 for one in (-agreement.numpy(), loss.numpy())]
    np.testing.assert_allclose(suspicion.scores("both")[:-1], sum(places) / (2 * K * B))
    assert all(np.isnan(suspicion.scores(one)[-1]) for one in RANKINGS)
    assert suspicion.proposed[-1] == -1


def test_the_proposal_is_the_other_label_that_had_most_support() -> None:
    suspicion = Suspicion(3)
    index = [torch.tensor([0, 2])]
    # Sample 0 of class 0 is taken for 2, for 1 and for 2 again; sample 2 always for its own.
    for first in ([0.0, 1, 3], [0, 2, 1], [0, 1, 2]):
        logits = [torch.tensor([first, [0.0, 9, 1]])]
        suspicion.see(index, [torch.ones(2, D)], logits, [torch.tensor([0, 1])])
    assert suspicion.proposed.tolist() == [2, -1, 2]


def test_what_is_not_finite_is_not_noted() -> None:
    suspicion, other = Suspicion(K * B), Suspicion(K * B)
    index, features, logits, labels = step()
    suspicion.see(index, features, logits, labels)  # type: ignore[arg-type]
    broken = logits.clone()
    broken[1, 2, 0] = torch.nan
    other.see(index, features, broken, labels)  # type: ignore[arg-type]
    assert np.isnan(other.scores("loss")[B + 2])
    assert np.isfinite(suspicion.scores("loss")).all()


def test_it_goes_on_from_what_it_remembers() -> None:
    whole, first, second = (Suspicion(K * B) for _ in range(3))
    for seed in (0, 1):
        whole.see(*step(seed))  # type: ignore[arg-type]
    first.see(*step(0))  # type: ignore[arg-type]
    second.remember(first.memory())
    second.see(*step(1))  # type: ignore[arg-type]
    for ranking in RANKINGS:
        assert np.array_equal(second.scores(ranking), whole.scores(ranking))
    assert np.array_equal(second.proposed, whole.proposed)


def test_what_several_processes_saw_is_joined() -> None:
    whole, first, second = (Suspicion(K * B) for _ in range(3))
    for suspicion, seed in ((whole, 0), (whole, 1), (first, 0), (second, 1)):
        suspicion.see(*step(seed))  # type: ignore[arg-type]
    joined = Suspicion.joined([first.memory(), second.memory()])
    for ranking in RANKINGS:
        np.testing.assert_allclose(joined.scores(ranking), whole.scores(ranking), rtol=1e-6)
    assert np.array_equal(joined.proposed, whole.proposed)
    alone = Suspicion.joined([Suspicion(K * B).memory(), second.memory()])
    assert np.array_equal(alone.proposed, second.proposed)


def test_wrong_labels_are_found_where_a_linear_layer_learns() -> None:
    """Clusters, a third of the labels wrong: both ways of looking at training tell them."""
    g = generator(0, "clusters")
    true = np.repeat(np.arange(4), 60)
    noisy = uniform(true, ["a", "b", "c", "d"], 1 / 3, 0)
    labels = torch.from_numpy(noisy.given)
    x = torch.eye(4).repeat_interleave(60, 0) * 3 + torch.randn(240, 4, generator=g)
    weights = torch.zeros(4, 4)
    suspicion = Suspicion(240)
    for _ in range(40):
        index = torch.randperm(240, generator=g)[:64].view(4, 16)
        z = x[index] @ weights.T
        suspicion.see(index, x[index], z, labels[index])  # type: ignore[arg-type]
        errors = z.softmax(2) - F.one_hot(labels[index], 4)
        weights -= 0.2 * torch.einsum("kbc,kbd->cd", errors, x[index]) / 64
    for ranking, least in (("agreement", 0.85), ("loss", 0.95), ("both", 0.95)):
        area, interval = auroc(suspicion.scores(ranking), noisy.wrong)  # type: ignore[arg-type]
        assert area > least, ranking
        assert interval.high - interval.low < 0.15
    assert (suspicion.proposed == true)[noisy.wrong].mean() > 0.9


@given(data=st.data(), ties=st.booleans())
@settings(max_examples=40)
def test_auroc_is_that_of_sklearn_and_its_interval_that_of_delong(
    data: st.DataObject, ties: bool
) -> None:
    counts = st.integers(1, 12)
    m, n = data.draw(counts), data.draw(counts)
    rng = np.random.default_rng(data.draw(st.integers(0, 999)))
    wrong = rng.permutation(np.repeat([True, False], [m, n]))
    scores = rng.normal(size=m + n) + wrong
    scores = scores.round() if ties else scores
    area, interval = auroc(scores, wrong)
    assert area == pytest.approx(roc_auc_score(wrong, scores))
    assert 0 <= interval.low <= area <= interval.high <= 1
    x, y = scores[wrong][:, None], scores[~wrong]
    above = (x > y) + 0.5 * (x == y)
    parts = [one.var(ddof=1) / len(one) for one in (above.mean(1), above.mean(0)) if len(one) > 1]
    if not sum(parts) or not 0 < area < 1:
        assert interval.method.startswith("Wilson")
        return
    low, high = (np.log(p / (1 - p)) for p in (interval.low, interval.high))
    half = 1.959964 * np.sqrt(sum(parts)) / (area * (1 - area))
    assert (high - low) / 2 == pytest.approx(half, rel=1e-4)
    assert (high + low) / 2 == pytest.approx(np.log(area / (1 - area)), abs=1e-6)


def test_without_both_kinds_there_is_nothing_to_tell() -> None:
    for wrong, which in ((np.zeros(3, bool), "wrong"), (np.ones(3, bool), "right")):
        with pytest.raises(InputError, match=f"no {which} label to tell"):
            auroc(np.arange(3.0), wrong)


def test_precision_counts_the_highest_scores() -> None:
    scores = np.array([0.1, 0.9, 0.5, 0.7])
    wrong = np.array([True, True, False, False])
    assert [precision_at(scores, wrong, k)[0] for k in (1, 2, 4)] == [1, 0.5, 0.5]
    assert precision_at(scores, wrong, 2)[1].method == "Wilson"
    for k in (0, 5):
        with pytest.raises(InputError, match=f"precision is asked for at {k} of 4"):
            precision_at(scores, wrong, k)


def test_suspects_are_listed_by_score_and_named() -> None:
    scores = np.array([0.5, np.nan, 2.0, 0.5])
    found = suspects(scores, np.array([0, 0, 1, 1]), np.array([1, -1, 0, -1]))
    assert [(one.index, one.score) for one in found] == [(2, 2.0), (0, 0.5), (3, 0.5)]
    assert suspects(scores, np.zeros(4), np.zeros(4), 1) == [type(found[0])(2, 2.0, 0, 0)]
    assert named(found, ["a.png", "b.png", "c.png", "d.png"], ["cat", "dog"]) == [
        ["id", "given", "proposed", "score"],
        ["c.png", "dog", "cat", "2"], ["a.png", "cat", "dog", "0.5"], ["d.png", "dog", "", "0.5"],
    ]  # fmt: skip


def test_confident_learning_ranks_by_the_probability_of_the_label() -> None:
    pytest.importorskip("cleanlab")
    probabilities = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]])
    found = confident_learning(probabilities, np.array([0, 0, 1]))
    np.testing.assert_allclose(found, [0.1, 0.8, 0.6])


def test_confident_learning_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cleanlab.rank", None)
    with pytest.raises(MachineError, match="not installed") as caught:
        confident_learning(np.eye(2), np.arange(2))
    assert caught.value.hint == "install it: pip install 'selfsup[noise]'"
