"""Exact nearest neighbours by cosine, in memory that does not grow with the gallery."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from selfsup_cli.errors import InputError

# 512 × 4096 similarities are 8 MiB: large enough for full GEMM speed, small enough for any cache
# and any GPU. Tiles shrink for long features, so that none takes more than 16 MiB.
QUERY_TILE = 512
GALLERY_TILE = 4096
_TILE_BYTES = 16 << 20


def cosine_topk(
    queries: Tensor,
    gallery: Tensor,
    k: int,
    *,
    device: torch.device | str = "cpu",
    query_tile: int = QUERY_TILE,
    gallery_tile: int = GALLERY_TILE,
) -> tuple[Tensor, Tensor]:
    """The k rows of `gallery` nearest to each row of `queries`, nearest first.

    queries [Q, D] and gallery [N, D] are float; they may lie elsewhere than on `device`, to which
    only tiles of them are moved. Returns similarities float32 [Q, k] in [−1, 1] and rows int64
    [Q, k], on the CPU. A vector of zeros has similarity 0 to everything. Rows of equal similarity
    come in no promised order. Raises InputError unless 1 ≤ k ≤ N and all values are finite.
    """
    if queries.ndim != 2 or gallery.ndim != 2 or queries.shape[1] != gallery.shape[1]:
        raise InputError(
            f"queries {list(queries.shape)} and gallery {list(gallery.shape)} must be [rows, "
            "features] with equally many features"
        )
    if not 1 <= k <= len(gallery):
        raise InputError(f"cannot take {k} neighbours from a gallery of {len(gallery)}")
    row_bytes = max(queries.shape[1], 1) * 4
    query_tile = max(1, min(query_tile, _TILE_BYTES // row_bytes))
    gallery_tile = max(1, min(gallery_tile, _TILE_BYTES // row_bytes))
    device = torch.device(device)
    scores = torch.full((len(queries), k), -2.0)
    rows = torch.zeros((len(queries), k), dtype=torch.int64)
    with torch.no_grad(), _full_precision():
        # Dividing similarities by the norms of the gallery spares a normalised copy of it.
        norms = torch.cat(
            [_inverse_norms(part.to(device)) for part in torch.split(gallery, gallery_tile)]
        )
        for q in range(0, len(queries), query_tile):
            tile = _unit(queries[q : q + query_tile], device)
            best, where = _search(tile, gallery, norms, k, gallery_tile)
            scores[q : q + query_tile] = best
            rows[q : q + query_tile] = where
    return scores, rows


def _search(
    tile: Tensor, gallery: Tensor, norms: Tensor, k: int, gallery_tile: int
) -> tuple[Tensor, Tensor]:
    best = torch.empty((len(tile), 0), device=tile.device)
    where = torch.empty((len(tile), 0), dtype=torch.int64, device=tile.device)
    for start in range(0, len(gallery), gallery_tile):
        part = gallery[start : start + gallery_tile].to(tile.device, torch.float32)
        similar = (tile @ part.T).mul_(norms[start : start + gallery_tile])
        value, index = similar.topk(min(k, similar.shape[1]), dim=1)
        best = torch.cat([best, value], dim=1)
        where = torch.cat([where, index + start], dim=1)
        best, keep = best.topk(min(k, best.shape[1]), dim=1)
        where = where.gather(1, keep)
    return best.cpu(), where.cpu()


def _unit(x: Tensor, device: torch.device) -> Tensor:
    x = x.to(device, torch.float32)
    return x * _inverse_norms(x)[:, None]


def _inverse_norms(x: Tensor) -> Tensor:
    norms = torch.linalg.vector_norm(x, dim=1, dtype=torch.float32)
    if not bool(torch.isfinite(norms).all()):
        raise InputError("features to compare hold values that are not finite")
    return torch.where(norms > 0, 1 / norms, 0.0)


@contextmanager
def _full_precision() -> Iterator[None]:
    """Keep CUDA from rounding the products to TensorFloat-32, which would reorder near ties."""
    former = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = former
