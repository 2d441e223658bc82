from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.neighbors import NearestNeighbors

from selfsup_cli.errors import InputError
from selfsup_cli.evaluation.neighbours import cosine_topk


@settings(deadline=None, max_examples=40)
@given(
    queries=st.integers(1, 40),
    gallery=st.integers(1, 90),
    dim=st.integers(1, 12),
    data=st.data(),
    seed=st.integers(0, 2**31),
)
def test_agrees_with_brute_force_for_any_tiling(
    queries: int, gallery: int, dim: int, data: st.DataObject, seed: int
) -> None:
    k = data.draw(st.integers(1, gallery))
    g = torch.Generator().manual_seed(seed)
    q = torch.randn(queries, dim, generator=g)
    x = torch.randn(gallery, dim, generator=g) * 50
    scores, rows = cosine_topk(q, x, k, query_tile=7, gallery_tile=11)
    brute = NearestNeighbors(n_neighbors=k, metric="cosine", algorithm="brute").fit(x.numpy())
    distance, _ = brute.kneighbors(q.numpy())
    np.testing.assert_allclose(scores.numpy(), 1 - distance, atol=2e-6)
    # The rows are those that have these similarities, and none comes twice.
    unit_q, unit_x = torch.nn.functional.normalize(q), torch.nn.functional.normalize(x)
    np.testing.assert_allclose((unit_q @ unit_x.T).gather(1, rows), scores, atol=2e-6)
    assert all(len(set(row)) == k for row in rows.tolist())


def test_finds_the_same_rows_as_sklearn_on_a_larger_gallery() -> None:
    g = torch.Generator().manual_seed(1)
    q, x = torch.randn(600, 32, generator=g), torch.randn(9000, 32, generator=g)
    _, rows = cosine_topk(q, x, 20)
    brute = NearestNeighbors(n_neighbors=20, metric="cosine", algorithm="brute").fit(x.numpy())
    expected = brute.kneighbors(q.numpy(), return_distance=False)
    same = [set(a) == set(b) for a, b in zip(rows.tolist(), expected.tolist(), strict=True)]
    assert np.mean(same) > 0.995  # rounding may exchange the last with the next


def test_zero_vectors_are_similar_to_nothing() -> None:
    scores, _ = cosine_topk(torch.zeros(1, 3), torch.eye(3), 3)
    assert scores.tolist() == [[0, 0, 0]]
    scores, rows = cosine_topk(torch.tensor([[1.0, 0]]), torch.tensor([[0.0, 0], [2, 0]]), 2)
    assert rows.tolist() == [[1, 0]]
    assert scores.tolist() == [[1, 0]]


@pytest.mark.parametrize("k", [0, 6])
def test_refuses_a_k_that_the_gallery_does_not_have(k: int) -> None:
    with pytest.raises(InputError, match=f"cannot take {k} neighbours from a gallery of 5"):
        cosine_topk(torch.ones(2, 3), torch.ones(5, 3), k)


def test_refuses_what_cannot_be_compared() -> None:
    with pytest.raises(InputError, match="equally many features"):
        cosine_topk(torch.ones(2, 3), torch.ones(5, 4), 1)
    with pytest.raises(InputError, match="not finite"):
        cosine_topk(torch.ones(2, 3), torch.full((5, 3), torch.nan), 1)
    with pytest.raises(InputError, match="not finite"):
        cosine_topk(torch.full((5, 3), torch.inf), torch.ones(2, 3), 1)


def test_memory_does_not_grow_with_the_gallery() -> None:
    clear = Path("/proc/self/clear_refs")
    if not clear.exists():
        pytest.skip("peak memory cannot be reset here")
    q, x = torch.randn(1500, 8), torch.randn(150_000, 8)  # all similarities at once: 900 MB
    cosine_topk(q[:600], x[:9000], 50)
    clear.write_text("5")
    before = _peak_mib()
    cosine_topk(q, x, 50)
    assert _peak_mib() - before < 64


def _peak_mib() -> float:
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024
