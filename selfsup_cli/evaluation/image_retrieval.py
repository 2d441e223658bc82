"""Nearest neighbours among images (thesis, section 4.4, figures 4.6 and 4.7).

An image is the features of its crops, one after the other, each feature standardised with the
statistics of the gallery. Its class is that of most of its k nearest images by cosine; where the
gallery is the set itself, an image is left out of its own neighbours.
"""

from __future__ import annotations

import errno
import math
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from selfsup_cli.errors import MachineError
from selfsup_cli.evaluation.cache import cache_root
from selfsup_cli.evaluation.features import Features, standard
from selfsup_cli.evaluation.neighbours import cosine_topk
from selfsup_cli.evaluation.retrieval import Neighbourhood
from selfsup_cli.runs import atomic
from selfsup_cli.runs.report import (
    About,
    Measurement,
    ProtocolValue,
    accuracy,
    clustered_accuracy,
)

# Vectors of one set are held in memory up to this size, and in a file of the cache beyond it.
IN_MEMORY_BYTES = 1 << 30
_BLOCK_BYTES = 64 << 20
_QUERIES = 2048
_NAME = "nearest neighbours"

SAME = 1 - 1e-5
"""A cosine above this is that of a copy: float32 features of equal pixels."""


# Vectors


def vectors_of(features: Features, layer: str, images: int) -> Tensor:
    """The rows of each image one after the other: float32 [images, rows of an image · D].

    Beyond `IN_MEMORY_BYTES` the tensor lies in a file that is gone with it, so that a large set
    takes no memory that the system cannot take back. Raises MachineError where the disk is full.
    """
    crops = len(features) // images
    if not np.array_equal(features.video, np.repeat(np.arange(images), crops)):
        raise ValueError("images have different numbers of rows")
    out = _room(images, crops * features.dims[layer])
    rows = out.view(len(features), -1)
    for first, block in features.blocks(layer):
        rows[first : first + len(block)] = block
    return out


def standardized(gallery: Tensor, *others: Tensor) -> None:
    """Give, in place, every feature of `gallery` mean 0 and variance 1; `others` are moved alike.

    [n, D] each, read and written in blocks.
    """
    rows = max(1, _BLOCK_BYTES // (8 * gallery.shape[1]))
    statistics = standard(iter(torch.split(gallery, rows)))
    for vectors in (gallery, *others):
        for block in torch.split(vectors, rows):
            block.copy_(statistics(block))


def _room(rows: int, columns: int) -> Tensor:
    size = rows * columns * 4
    if size <= IN_MEMORY_BYTES:
        return torch.empty(rows, columns)
    folder = cache_root()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        fd, name = tempfile.mkstemp(prefix=".vectors-", dir=folder)
        try:
            # Without the blocks, a disk that fills up while the map is written kills the process.
            _reserve(fd, size)
            mapped = torch.from_file(name, shared=True, size=rows * columns, dtype=torch.float32)
        finally:
            os.close(fd)
            Path(name).unlink()
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise MachineError(
                f"the features to compare take {size / 2**20:,.0f} MB, more than {folder} has free",
                kind="disk",
                hint="set SELFSUP_CACHE to a larger disk, compare one crop (--crops center), or "
                "average to fewer cells (--set neighbours.grid=1)",
            ) from error
        raise atomic.cannot_write(folder, error) from error
    return mapped.view(rows, columns)


def _reserve(fd: int, size: int) -> None:
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(fd, 0, size)
    else:  # macOS
        os.ftruncate(fd, size)


# The search


def nearest(
    queries: Tensor,
    gallery: Tensor | None,
    k: int,
    *,
    device: torch.device | str = "cpu",
    progress: Callable[[int, int], None] | None = None,
) -> Neighbourhood:
    """The k rows of `gallery` [N, D] nearest to each of `queries` [Q, D], nearest first.

    Without a gallery it is the queries themselves, and each is left out of its own neighbours:
    k + 1 are searched and the query dropped, or the last of them where the query has more equals
    than that. k is cut to what there is. `progress(done, total)` counts queries and may raise.
    """
    alone = gallery is None
    among = queries if gallery is None else gallery
    k = min(k, len(among) - alone)
    scores, rows = [], []
    for start in range(0, len(queries), _QUERIES):
        part = queries[start : start + _QUERIES]
        value, index = cosine_topk(part, among, k + alone, device=device)
        if alone:
            own = torch.arange(start, start + len(part))
            value, index = _without(own, value, index)
        scores.append(value)
        rows.append(index)
        if progress is not None:
            progress(min(start + _QUERIES, len(queries)), len(queries))
    return Neighbourhood(torch.cat(rows).numpy(), torch.cat(scores).numpy())


def _without(own: Tensor, scores: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """`scores` and `rows` [Q, k + 1] less, in each line, the row `own` [Q], or else the last."""
    keep = rows != own[:, None]
    keep[:, -1] &= ~keep.all(1)
    shape = (len(rows), rows.shape[1] - 1)
    return scores[keep].view(shape), rows[keep].view(shape)


# Counting


def voted(found: Neighbourhood, labels: np.ndarray, k: int) -> np.ndarray:
    """The class that most of the first k neighbours have, int64 [Q].

    `labels` int64 [N] are those of the gallery. Of classes with equally many votes, the one whose
    neighbours are nearer in sum.
    """
    classes = int(labels.max()) + 1
    answers = []
    for start in range(0, len(found.rows), _QUERIES):
        part = slice(start, start + _QUERIES)
        votes = torch.from_numpy(labels[found.rows[part, :k]])
        scores = torch.from_numpy(found.scores[part, :k]).double()
        # A cosine is at most 1 in size: k of them, divided by 2k + 1, only decide between equals.
        tally = torch.zeros(len(votes), classes, dtype=torch.float64)
        tally.scatter_add_(1, votes, 1 + scores / (2 * k + 1))
        answers.append(tally.argmax(1).numpy())
    return np.concatenate(answers)


def shared(found: Neighbourhood, queries: np.ndarray, gallery: np.ndarray) -> np.ndarray:
    """Whether each neighbour has the query's class, or any label that the query has: bool [Q, k].

    Labels are int64 [N], or uint8 [N, A] where images have several: 1 has it, anything else not.
    """
    if queries.ndim == 1:
        return np.asarray(gallery[found.rows] == queries[:, None])
    out = np.empty(found.rows.shape, dtype=bool)
    for k in range(found.rows.shape[1]):
        out[:, k] = ((queries == 1) & (gallery[found.rows[:, k]] == 1)).any(1)
    return out


def sharing(queries: np.ndarray, gallery: np.ndarray | None) -> np.ndarray:
    """How many images of the gallery share a label with each query, int64 [Q].

    Without a gallery it is the queries themselves, each less itself.
    """
    among = queries if gallery is None else gallery
    if queries.ndim == 1:
        classes = int(max(queries.max(), among.max())) + 1
        counts = np.bincount(among, minlength=classes)[queries]
        return np.asarray(counts - (gallery is None), dtype=np.int64)
    has = torch.from_numpy((among == 1).astype(np.float32))
    wants = torch.from_numpy((queries == 1).astype(np.float32))
    counts = np.concatenate(
        [((part @ has.T) > 0).sum(1).numpy() for part in torch.split(wants, _QUERIES // 4)]
    )
    if gallery is None:
        counts = counts - (queries == 1).any(1)
    return np.asarray(counts, dtype=np.int64)


def chance_of_any(counts: np.ndarray, n: int, k: int) -> float:
    """Expected share of queries that share a label with any of k images drawn blindly from n.

    `counts` int64 [Q]: how many of the n do. A draw of k misses all m with probability
    C(n − m, k) / C(n, k).
    """
    values, often = np.unique(counts, return_counts=True)
    whole = math.comb(n, k)
    missed = sum(
        int(times) * (math.comb(n - int(m), k) / whole)
        for m, times in zip(values, often, strict=True)
    )
    return 1 - missed / len(counts)


def measurements(
    found: Neighbourhood,
    queries: np.ndarray,
    gallery: np.ndarray | None,
    ks: Sequence[int],
    *,
    subject: str,
    dataset: str,
    split: str,
    layer: str,
    protocol: Mapping[str, ProtocolValue],
) -> list[Measurement]:
    """For each of `ks` that the gallery can fill, in ascending order, what its neighbours say.

    `K-NN accuracy`: the class that most of them have is the query's; of classes with equally many,
    the one whose neighbours are nearer in sum. Where images have several labels there is no such
    vote, and it is `top-K`: any of them shares a label. `precision at K` (from 2 on): the share of
    them that has the class or shares a label. Labels as in `shared`; without `gallery` it is the
    queries, left out of their own neighbours.
    """
    several = queries.ndim == 2
    n = len(queries) - 1 if gallery is None else len(gallery)
    among = queries if gallery is None else gallery
    hits = shared(found, queries, among)
    counts = sharing(queries, gallery)
    what = "a label of the query" if several else "the query's class"
    described: dict[str, ProtocolValue] = {
        **protocol,
        "gallery": n,
        "similarity": "cosine",
        "hit": f"a neighbour that has {what}",
        **({} if several else {"vote": "most neighbours; of equals, those nearer in sum"}),
    }
    if alone := int((counts == 0).sum()):
        described["queries_that_share_with_none"] = alone
    about: About = {
        "task": "retrieve",
        "subject": subject,
        "dataset": dataset,
        "split": split,
        "layer": layer,
        "protocol": described,
    }
    blind = "what neighbours drawn at random get"
    out = []
    for k in (k for k in sorted(set(ks)) if k <= found.rows.shape[1]):
        if several:
            right = hits[:, :k].any(1)
            told: About = {**about, "chance": 100 * chance_of_any(counts, n, k), "chance_is": blind}
            told["metric"] = f"top-{k}"
        else:
            right = voted(found, among, k) == queries
            often = float(np.bincount(queries).max()) / len(queries)
            told = {**about, "chance": 100 * often}
            told["chance_is"] = "what the best constant answer gets"
            told["metric"] = f"{k}-NN accuracy"
        out.append(accuracy(_NAME, int(right.sum()), len(queries), **told))
        if k > 1:
            told = {**about, "chance": 100 * float(counts.mean()) / n, "chance_is": blind}
            told["metric"] = f"precision at {k}"
            shares = hits[:, :k].mean(1).tolist()
            out.append(clustered_accuracy(_NAME, shares, "images", **told))
    return out


def copies(found: Neighbourhood) -> int:
    """How many queries have a neighbour with the very same features."""
    return int((found.scores[:, 0] > SAME).sum())
