"""Exact search by cosine against faiss and scikit-learn, and the memory that it takes."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import measure
import peers
import torch

from selfsup_cli.evaluation.neighbours import cosine_topk

# Gallery and queries.
SIZES = ((10_000, 2000), (50_000, 1000), (200_000, 300))
FEATURES, K, THREADS, ROUNDS = 512, 20, 2, 5
FAISS, SKLEARN, MEMORY = "≥ 0.7", "≥ 2.5", "≤ 64 MB"
_PRODUCT = (
    "the matrix product: on AMD processors PyTorch's library takes longer for it than faiss for "
    "the whole search, and selecting adds a fifth"
)
_OTHERS = (
    "scikit-learn multiplies as fast and only its selection is slower, on one thread; the goal "
    "needs two cores that nobody else uses (1.5 on one)"
)
LIMITS: dict[str, str] = {}


def rows() -> list[measure.Row]:
    """Queries a second over those of each peer; then the extra memory in MB."""
    found: list[measure.Row] = []
    torch.set_num_threads(THREADS)
    faiss, sklearn = peers.find("faiss"), peers.find("sklearn.neighbors")
    for count, asked in SIZES:
        gallery, queries = _vectors(count), _vectors(asked)
        contenders: dict[str, Callable[[], object]] = {
            "ours": lambda g=gallery, q=queries: cosine_topk(q, g, K)
        }
        if faiss:
            faiss.omp_set_num_threads(THREADS)

            index = faiss.IndexFlatIP(FEATURES)
            # Features are made unit vectors once, as its users do.
            index.add(torch.nn.functional.normalize(gallery).numpy())
            contenders["faiss"] = lambda i=index, q=queries: i.search(q.numpy(), K)
        if sklearn:
            model = sklearn.NearestNeighbors(n_neighbors=K, algorithm="brute", metric="cosine")
            model.fit(gallery.numpy())
            contenders["scikit-learn"] = lambda m=model, q=queries: m.kneighbors(q.numpy())
        spent = measure.interleaved(contenders, ROUNDS, time.perf_counter)
        name = f"exact cosine search, {asked} in {count // 1000} k × {FEATURES}"
        for peer, goal in (("faiss", FAISS), ("scikit-learn", SKLEARN)):
            ratio = spent.get(peer, measure.ABSENT) / spent["ours"]
            found.append((name, peer, ratio, goal))
            LIMITS[f"{name}, {peer}"] = _PRODUCT if peer == "faiss" else _OTHERS
    for count, asked in SIZES:
        done = subprocess.run(
            [sys.executable, __file__, "--memory", str(count), str(asked)],
            check=True,
            capture_output=True,
            text=True,
        )
        name = f"extra memory in MB, {asked} in {count // 1000} k × {FEATURES}"
        found.append((name, "–", float(done.stdout), MEMORY))
    return found


def _vectors(count: int) -> torch.Tensor:
    return torch.randn(count, FEATURES, generator=torch.Generator().manual_seed(count))


def _extra_memory(count: int, asked: int) -> float:
    """How far the search lifts the peak of this process above what it held before, in MB."""
    torch.set_num_threads(THREADS)
    gallery, queries = _vectors(count), _vectors(asked)
    cosine_topk(queries[:32], gallery[:64], K)  # the libraries' own buffers
    Path("/proc/self/clear_refs").write_text("5")
    before = _status("VmRSS")
    cosine_topk(queries, gallery, K)
    return (_status("VmHWM") - before) / 1e3


def _status(name: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return float(next(line for line in lines if line.startswith(name)).split()[1])


if __name__ == "__main__":
    if "--memory" in sys.argv:
        print(_extra_memory(*map(int, sys.argv[-2:])))
    else:
        measure.main(rows, LIMITS)
