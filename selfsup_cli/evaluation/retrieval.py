"""Nearest-neighbour retrieval (thesis, section 5.3, table 5.4).

A video is the mean of its clips' features, standardised with the statistics of the gallery. A query
is a hit at k if any of its k nearest videos in the gallery, by cosine, has its class.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from selfsup_cli.evaluation.features import standard
from selfsup_cli.evaluation.neighbours import cosine_topk
from selfsup_cli.randomness import derive
from selfsup_cli.runs.report import Measurement, ProtocolValue, accuracy


@dataclass(frozen=True)
class Neighbourhood:
    """For each query its nearest videos of the gallery, nearest first: `rows` int64 [Q, k] and
    `scores` float32 [Q, k], the cosines."""

    rows: np.ndarray
    scores: np.ndarray


def neighbours_of(
    queries: Tensor,
    gallery: Tensor,
    k: int,
    *,
    standardize: bool = True,
    device: torch.device | str = "cpu",
) -> Neighbourhood:
    """The k nearest of `gallery` [N, D] to each of `queries` [Q, D], one row per video.

    `standardize` gives every feature mean 0 and variance 1 over the gallery. k is cut to N.
    """
    if standardize:
        statistics = standard(iter([gallery]))
        queries, gallery = statistics(queries), statistics(gallery)
    scores, rows = cosine_topk(queries, gallery, min(k, len(gallery)), device=device)
    return Neighbourhood(rows.numpy(), scores.numpy())


def hits_at(
    rows: np.ndarray, query_labels: np.ndarray, gallery_labels: np.ndarray, k: int
) -> np.ndarray:
    """Whether any of the first k neighbours has the query's class, bool [Q]."""
    same = gallery_labels[rows[:, :k]] == query_labels[:, None]
    return np.asarray(same.any(1))


def chance_at(query_labels: np.ndarray, gallery_labels: np.ndarray, k: int) -> float:
    """Expected share (0 … 1) of hits at k if neighbours were drawn blindly, without replacement.

    For a query whose class has m of the N videos in the gallery, a draw of k misses with
    probability C(N − m, k) / C(N, k); the mean over the queries is exact.
    """
    n = len(gallery_labels)
    k = min(k, n)
    classes, queries = np.unique(query_labels, return_counts=True)
    missed = 0.0
    for label, count in zip(classes.tolist(), queries.tolist(), strict=True):
        others = n - int((gallery_labels == label).sum())
        miss = math.exp(_log_choose(others, k) - _log_choose(n, k)) if others >= k else 0.0
        missed += count * miss
    return 1 - missed / len(query_labels)


def measurements(
    found: Neighbourhood,
    query_labels: np.ndarray,
    gallery_labels: np.ndarray,
    ks: Sequence[int],
    *,
    subject: str,
    dataset: str,
    split: str,
    layer: str,
    protocol: Mapping[str, ProtocolValue],
    control: str | None = None,
) -> list[Measurement]:
    """Retrieval accuracy for each of `ks` that the gallery is large enough for, in ascending order.

    Wilson intervals over the queries; chance is exact for these classes. `protocol` is what the
    caller knows: clips, weights' hash.
    """
    classes = np.unique(gallery_labels)
    described: dict[str, ProtocolValue] = {
        **protocol,
        "gallery": len(gallery_labels),
        "similarity": "cosine",
        "hit": "any of the first k neighbours has the query's class",
    }
    lost = int(np.isin(query_labels, classes, invert=True).sum())
    if lost:
        described["queries_without_class_in_gallery"] = lost
    out = []
    for k in sorted(set(ks)):
        if k > found.rows.shape[1]:
            continue
        hits = hits_at(found.rows, query_labels, gallery_labels, k)
        out.append(
            accuracy(
                "nearest neighbours",
                int(hits.sum()),
                len(hits),
                task="retrieve",
                subject=subject,
                control=control,
                dataset=dataset,
                split=split,
                layer=layer,
                metric=f"top-{k}",
                chance=100 * chance_at(query_labels, gallery_labels, k),
                chance_is="what neighbours drawn at random get",
                protocol=described,
            )
        )
    return out


def pick_queries(
    count: int, seed: int, ids: Sequence[str], labels: np.ndarray | None = None
) -> np.ndarray:
    """Which queries to draw in a picture, int64: at random, in turn from every class.

    Chosen by a seeded hash of the id, not by how well they do.
    """
    order = sorted(range(len(ids)), key=lambda query: derive(seed, ids[query], "sheet"))
    if labels is not None:
        seen: dict[int, int] = {}
        turn = {}
        for query in order:
            turn[query] = seen.get(int(labels[query]), 0)
            seen[int(labels[query])] = turn[query] + 1
        order.sort(key=lambda query: turn[query])
    return np.array(order[:count], dtype=np.int64)


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
