"""Kernels of index scores: whole ranges of keys for a selection, and selected keys for a loss.

Shape letters: B sequences, T queries, S keys, N rows of a decode step, I indexer heads, J indexer head width, K selected
keys.

Every kernel here calls `_tile_scores` with one tile per (heads, width, type). A score therefore comes from the same
product and the same order of sums, whatever the lengths, the position in a batch or the chunk, and whoever calls. Where
a tile has more queries than there are, it repeats one, and where it has more keys, likewise; those are not written.
"""

# ruff: noqa: ANN001, ANN201, ANN202 - Triton types the parameters of its kernels itself
# pyright: reportCallIssue=false

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from envsynth.kernels.indexer.configs import Tile, score_tile

PROGRAMS = 1024
"""Programs that a launch should have at least: where there are few queries, keys are split."""


@triton.jit
def _tile_scores(key, query, weight, KEYS: tl.constexpr, QUERIES: tl.constexpr, HEADS: tl.constexpr):
    """Score keys [KEYS, J] for queries [HEADS * QUERIES, J] with weights [HEADS * QUERIES]: [KEYS, QUERIES].

    Queries are the fast axis: a thread of a tensor-core product holds pairs of every eighth column, so with eight
    queries or more it adds up all heads of a query by itself.
    """
    dots = tl.dot(key, tl.trans(query), input_precision="ieee")
    # A NaN stays one, as in torch.
    parts = tl.maximum(dots, 0.0, propagate_nan=tl.PropagateNan.ALL) * weight[None, :]
    return tl.sum(tl.reshape(parts, (KEYS, HEADS, QUERIES)), axis=1)


@triton.jit
def _load_queries(  # noqa: PLR0913
    query_ptr,
    weight_ptr,
    queries,
    stride_qt,
    stride_qi,
    stride_wt,
    N_HEADS: tl.constexpr,
    N_WIDTH: tl.constexpr,
    QUERIES: tl.constexpr,
    HEADS: tl.constexpr,
    WIDTH: tl.constexpr,
):
    """Load each head of queries (numbers for every column, [HEADS * QUERIES]), and weights; padded heads weigh 0."""
    head = tl.arange(0, HEADS * QUERIES) // QUERIES
    lane = tl.arange(0, WIDTH)
    places = queries.to(tl.int64)[:, None] * stride_qt + head[:, None] * stride_qi + lane[None, :]
    if N_HEADS == HEADS and N_WIDTH == WIDTH:
        query = tl.load(query_ptr + places)
    else:
        query = tl.load(query_ptr + places, mask=(head < N_HEADS)[:, None] & (lane < N_WIDTH)[None, :], other=0.0)
    weight = tl.load(weight_ptr + queries.to(tl.int64) * stride_wt + head, mask=head < N_HEADS, other=0.0)
    return query, weight.to(tl.float32)


@triton.jit
def _load_keys(key_ptr, keys, stride_ks, N_WIDTH: tl.constexpr, WIDTH: tl.constexpr):
    """Load keys by their numbers, which must exist."""
    lane = tl.arange(0, WIDTH)
    places = keys.to(tl.int64)[:, None] * stride_ks + lane[None, :]
    if N_WIDTH == WIDTH:
        key = tl.load(key_ptr + places)
    else:
        key = tl.load(key_ptr + places, mask=(lane < N_WIDTH)[None, :], other=0.0)
    return key


@triton.jit
def index_scores_kernel(  # noqa: PLR0913
    query_ptr,
    key_ptr,
    weight_ptr,
    scale_ptr,
    slots_ptr,
    starts_ptr,
    ends_ptr,
    out_ptr,
    n_queries,
    n_keys,
    query_blocks,
    keys_per_program,
    stride_qb,
    stride_qt,
    stride_qi,
    stride_kb,
    stride_ks,
    stride_wb,
    stride_wt,
    stride_sb,
    stride_bound,
    stride_ob,
    stride_ot,
    HAS_SCALE: tl.constexpr,
    HAS_SLOTS: tl.constexpr,
    N_HEADS: tl.constexpr,
    N_WIDTH: tl.constexpr,
    KEYS: tl.constexpr,
    QUERIES: tl.constexpr,
    HEADS: tl.constexpr,
    WIDTH: tl.constexpr,
):
    """Write the visible scores of one block of queries, for one part of the keys."""
    batch = (tl.program_id(0) // query_blocks).to(tl.int64)
    # Backwards: in causal attention the last queries see most keys.
    first = (query_blocks - 1 - tl.program_id(0) % query_blocks) * QUERIES
    slot = batch
    if HAS_SLOTS:
        slot = tl.load(slots_ptr + batch).to(tl.int64)
    rows = first + tl.arange(0, QUERIES)
    bounds = batch * stride_bound + tl.minimum(rows, n_queries - 1)
    starts, ends = tl.maximum(tl.load(starts_ptr + bounds), 0), tl.minimum(tl.load(ends_ptr + bounds), n_keys)
    begin = tl.maximum(tl.min(starts, axis=0) // KEYS * KEYS, tl.program_id(1) * keys_per_program)
    stop = tl.minimum(tl.max(ends, axis=0), (tl.program_id(1) + 1) * keys_per_program)
    if begin < stop:
        columns = tl.minimum(first + tl.arange(0, HEADS * QUERIES) % QUERIES, n_queries - 1)
        query, weight = _load_queries(
            query_ptr + batch * stride_qb, weight_ptr + batch * stride_wb, columns, stride_qt, stride_qi, stride_wt,
            N_HEADS, N_WIDTH, QUERIES, HEADS, WIDTH,
        )  # fmt: skip
        out_rows = out_ptr + batch * stride_ob + rows.to(tl.int64) * stride_ot
        for base in tl.range(begin, stop, KEYS):
            places = base + tl.arange(0, KEYS)
            existing = tl.minimum(places, n_keys - 1)
            key = _load_keys(key_ptr + slot * stride_kb, existing, stride_ks, N_WIDTH, WIDTH)
            scores = _tile_scores(key, query, weight, KEYS, QUERIES, HEADS)
            if HAS_SCALE:
                scores = scores * tl.load(scale_ptr + slot * stride_sb + existing)[:, None]
            seen = (places[:, None] >= starts[None, :]) & (places[:, None] < ends[None, :])
            tl.store(out_rows[None, :] + places[:, None], scores, mask=seen & (rows < n_queries)[None, :])


@triton.jit
def gathered_scores_kernel(  # noqa: PLR0913
    query_ptr,
    key_ptr,
    weight_ptr,
    topk_ptr,
    out_ptr,
    n_queries,
    n_selected,
    stride_qb,
    stride_qt,
    stride_qi,
    stride_kb,
    stride_ks,
    stride_wb,
    stride_wt,
    N_HEADS: tl.constexpr,
    N_WIDTH: tl.constexpr,
    KEYS: tl.constexpr,
    QUERIES: tl.constexpr,
    HEADS: tl.constexpr,
    WIDTH: tl.constexpr,
):
    """Write the scores of one query's selected keys, 0 at padding."""
    row = tl.program_id(0).to(tl.int64)
    batch, place = row // n_queries, row % n_queries
    # All queries of the tile are the same one, so that the tile is that of the other kernels.
    columns = place + tl.zeros((HEADS * QUERIES,), tl.int64)
    query, weight = _load_queries(
        query_ptr + batch * stride_qb, weight_ptr + batch * stride_wb, columns, stride_qt, stride_qi, stride_wt,
        N_HEADS, N_WIDTH, QUERIES, HEADS, WIDTH,
    )  # fmt: skip
    lane = tl.arange(0, WIDTH)
    for base in tl.range(0, n_selected, KEYS):
        offsets = base + tl.arange(0, KEYS)
        inside = offsets < n_selected
        selected = tl.load(topk_ptr + row * n_selected + offsets, mask=inside, other=-1)
        places = tl.maximum(selected, 0).to(tl.int64)[:, None] * stride_ks + lane[None, :]
        readable = (selected >= 0)[:, None] & (lane < N_WIDTH)[None, :]
        key = tl.load(key_ptr + batch * stride_kb + places, mask=readable, other=0.0)
        scores = tl.max(_tile_scores(key, query, weight, KEYS, QUERIES, HEADS), axis=1)
        tl.store(out_ptr + row * n_selected + offsets, tl.where(selected >= 0, scores, 0.0), mask=inside)


class KeyRange(NamedTuple):
    """Which keys the queries of a launch see."""

    starts_BT: Tensor
    """First visible key, int32 [B, T], contiguous."""
    ends_BT: Tensor
    """End of the visible keys, exclusive, int32 [B, T], contiguous."""
    n_keys: int
    """Keys that any of them sees at most."""


def scores_of_range(
    query_BTIJ: Tensor,
    key_BSJ: Tensor,
    weight_BTI: Tensor,
    seen: KeyRange,
    out_BTS: Tensor,
    *,
    key_scale_BS: Tensor | None = None,
    slots_B: Tensor | None = None,
) -> None:
    """Write the scores of visible keys; entries of invisible ones are left as they are.

    Args:
        query_BTIJ: Queries, [B, T, I, J].
        key_BSJ: Keys, [B, S, J], or a cache [slots, S, J].
        weight_BTI: Head weights, float32 [B, T, I].
        seen: What is visible.
        out_BTS: Where the scores go, float32 [B, T, at least n_keys].
        key_scale_BS: Factor of each key's scores, float32, shaped like the keys; None for 1.
        slots_B: Slot of each row of the batch in the cache; None if the keys have a batch of their own.
    """
    B, T, heads, width = query_BTIJ.shape
    tile = score_tile(heads, width, query_BTIJ.dtype)
    blocks = triton.cdiv(T, tile.queries)
    parts = triton.cdiv(PROGRAMS, max(B * blocks, 1))
    per_program = triton.cdiv(triton.cdiv(seen.n_keys, parts), tile.keys) * tile.keys
    index_scores_kernel[(B * blocks, triton.cdiv(seen.n_keys, per_program))](
        query_BTIJ,
        key_BSJ,
        weight_BTI,
        weight_BTI if key_scale_BS is None else key_scale_BS,
        seen.ends_BT if slots_B is None else slots_B,
        seen.starts_BT,
        seen.ends_BT,
        out_BTS,
        T,
        seen.n_keys,
        blocks,
        per_program,
        *query_BTIJ.stride()[:3],
        *key_BSJ.stride()[:2],
        *weight_BTI.stride()[:2],
        0 if key_scale_BS is None else key_scale_BS.stride(0),
        seen.ends_BT.stride(0),
        *out_BTS.stride()[:2],
        HAS_SCALE=key_scale_BS is not None,
        HAS_SLOTS=slots_B is not None,
        N_HEADS=heads,
        N_WIDTH=width,
        **_constants(tile),
        num_warps=tile.warps,
        num_stages=tile.stages,
    )


def gathered_scores(query_BTIJ: Tensor, key_BSJ: Tensor, weight_BTI: Tensor, topk_BTK: Tensor) -> Tensor:
    """Score the selected keys of each query, bit for bit as `scores_of_range` does.

    Args:
        query_BTIJ: Queries, [B, T, I, J].
        key_BSJ: Keys, [B, S, J].
        weight_BTI: Head weights, float32 [B, T, I].
        topk_BTK: Selected keys, int32 [B, T, K], contiguous, padded with -1.

    Returns:
        Scores, float32 [B, T, K]; 0 at padding.
    """
    B, T, heads, width = query_BTIJ.shape
    tile = score_tile(heads, width, query_BTIJ.dtype)
    out_BTK = torch.empty(topk_BTK.shape, dtype=torch.float32, device=topk_BTK.device)
    gathered_scores_kernel[(B * T,)](
        query_BTIJ,
        key_BSJ,
        weight_BTI,
        topk_BTK,
        out_BTK,
        T,
        topk_BTK.shape[2],
        *query_BTIJ.stride()[:3],
        *key_BSJ.stride()[:2],
        *weight_BTI.stride()[:2],
        N_HEADS=heads,
        N_WIDTH=width,
        **_constants(tile),
        num_warps=tile.warps,
        num_stages=tile.stages,
    )
    return out_BTK


def _constants(tile: Tile) -> dict[str, int]:
    """Name the tile's sizes as the kernels do."""
    return {"KEYS": tile.keys, "QUERIES": tile.queries, "HEADS": tile.heads, "WIDTH": tile.width}
