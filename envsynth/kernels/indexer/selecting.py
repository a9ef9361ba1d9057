"""Selection by index scores in bounded chunks: no tensor of all queries times all keys exists.

Shape letters: B sequences, T queries, S keys, I indexer heads, J indexer head width, K selected keys.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from envsynth.kernels.dispatch import load_kernels
from envsynth.kernels.indexer import configs, reference
from envsynth.kernels.topk import reference as topk_reference
from envsynth.kernels.topk import topk

ROW_ALIGNMENT = 32
"""Scores of a row of the workspace are a multiple of this, so that rows begin at whole sectors of memory."""


class Problem(NamedTuple):
    """What to score, and what is visible."""

    query_BTIJ: Tensor
    """Queries, [B, T, I, J]."""
    key_BSJ: Tensor
    """Keys, [B, S, J], or a cache [slots, S, J]."""
    weight_BTI: Tensor
    """Head weights, float32 [B, T, I]."""
    scale_BS: Tensor | None
    """Factor of each key's scores, shaped like the keys; None for 1."""
    slots_B: Tensor | None
    """Slot of each sequence in the cache; None if the keys have a batch of their own."""
    starts_BT: Tensor
    """First visible key, int32 [B, T]."""
    ends_BT: Tensor
    """End of the visible keys, exclusive, at most S, int32 [B, T]."""
    from_zero: bool
    """Whether query t sees no key after t, which is known without a look at `ends_BT`."""
    has_starts: bool = True
    """Whether any of `starts_BT` may differ from 0."""


def problem_of(
    query_BTIJ: Tensor,
    key_BSJ: Tensor,
    weight_BTI: Tensor,
    scale_BS: Tensor | None,
    starts_BT: Tensor | None,
    query_start_B: Tensor | None,
) -> Problem:
    """Say what whole sequences see: query t stands at query_start + t, and sees the keys from starts to its place.

    Args:
        query_BTIJ: Queries, [B, T, I, J].
        key_BSJ: Keys, [B, S, J].
        weight_BTI: Head weights, float32 [B, T, I].
        scale_BS: Factor of each key's scores, [B, S]; None for 1.
        starts_BT: First visible key, integer [B, T]; None for 0.
        query_start_B: Position of each sequence's first query, integer [B]; None for 0.

    Returns:
        The problem.
    """
    B, T = query_BTIJ.shape[:2]
    place_T = torch.arange(T, device=query_BTIJ.device, dtype=torch.int32)
    first_B1 = 0 if query_start_B is None else query_start_B.to(torch.int32)[:, None]
    ends_BT = (place_T[None] + 1 + first_B1).expand(B, T).clamp(max=key_BSJ.shape[1])
    has_starts, from_zero = starts_BT is not None, query_start_B is None
    starts_BT = torch.zeros_like(ends_BT) if starts_BT is None else starts_BT.to(torch.int32)
    return Problem(query_BTIJ, key_BSJ, weight_BTI, scale_BS, None, starts_BT, ends_BT, from_zero, has_starts)


def whole(problem: Problem) -> Problem:
    """Make the last axis of what kernels read contiguous.

    Args:
        problem: What to score.

    Returns:
        The same problem.
    """
    scale = problem.scale_BS
    return problem._replace(
        query_BTIJ=rows_contiguous(problem.query_BTIJ),
        key_BSJ=rows_contiguous(problem.key_BSJ),
        weight_BTI=rows_contiguous(problem.weight_BTI),
        scale_BS=None if scale is None else rows_contiguous(scale),
    )


def rows_contiguous(x: Tensor) -> Tensor:
    """Make the last axis contiguous.

    Args:
        x: Any.

    Returns:
        The same numbers.
    """
    return x if x.stride(-1) == 1 else x.contiguous()


class Chunk(NamedTuple):
    """Rows that are scored at once."""

    batch: slice
    """Sequences."""
    rows: slice
    """Queries."""
    n_keys: int
    """Keys that these rows see at most."""


def chunks(problem: Problem, rows: int | None) -> Iterator[Chunk]:
    """Cut the rows: several sequences together where they fit, or parts of a single one.

    Args:
        problem: What to score.
        rows: Rows of a chunk at most; None for what the workspace holds.

    Yields:
        The chunks, which cover all rows.
    """
    B, T = problem.query_BTIJ.shape[:2]
    size = problem.key_BSJ.shape[1]
    rows = rows or max(1, configs.WORKSPACE_BYTES // (4 * _padded(size)))
    batches, queries = max(1, rows // T), min(rows, T)
    for first_batch in range(0, B, batches):
        for first in range(0, T, queries):
            end = min(first + queries, T)
            n_keys = min(size, end) if problem.from_zero else size
            yield Chunk(slice(first_batch, min(first_batch + batches, B)), slice(first, end), n_keys)


def select(problem: Problem, k: int, rows: int | None, *, with_kernels: bool) -> tuple[Tensor, Tensor]:
    """Select the k best visible keys of each query.

    Args:
        problem: What to score, and what is visible.
        k: Keys kept per query.
        rows: Rows of a chunk at most; None for what the workspace holds.
        with_kernels: Whether kernels do it.

    Returns:
        Keys, int32 [B, T, K], ascending, padded with -1, and their scores, float32 or wider [B, T, K], 0 at padding.
    """
    if with_kernels and _walks(problem, k):
        return load_kernels("indexer.walk").select(problem, k, rows)
    shape = (*problem.query_BTIJ.shape[:2], k)
    topk_BTK = torch.full(shape, -1, dtype=torch.int32, device=problem.query_BTIJ.device)
    wide = torch.float64 if problem.query_BTIJ.dtype == torch.float64 else torch.float32
    scores_BTK = torch.zeros(shape, dtype=wide, device=problem.query_BTIJ.device)
    if 0 in problem.query_BTIJ.shape or 0 in problem.key_BSJ.shape:
        return topk_BTK, scores_BTK
    for chunk in chunks(problem, rows):
        scores_BRS = (_kernel_scores if with_kernels else _reference_scores)(problem, chunk)
        ends_R = problem.ends_BT[chunk.batch, chunk.rows].flatten()
        starts_R = problem.starts_BT[chunk.batch, chunk.rows].flatten()
        flat_RS = scores_BRS.flatten(0, 1)
        if with_kernels:
            kept_RK = topk(flat_RS, ends_R, k, starts_R=starts_R, backend="triton")
        else:
            kept_RK = topk_reference.topk(flat_RS, ends_R, k, starts_R)
        read_RK = flat_RS.gather(1, kept_RK.clamp(min=0).to(torch.int64)).masked_fill_(kept_RK < 0, 0.0)
        topk_BTK[chunk.batch, chunk.rows] = kept_RK.unflatten(0, scores_BRS.shape[:2])
        scores_BTK[chunk.batch, chunk.rows] = read_RK.unflatten(0, scores_BRS.shape[:2])
    return topk_BTK, scores_BTK


def _walks(problem: Problem, k: int) -> bool:
    """Tell whether kernels select in one walk, without writing scores."""
    if problem.slots_B is not None or 0 in problem.query_BTIJ.shape or 0 in problem.key_BSJ.shape:
        return False
    B, T, heads, width = problem.query_BTIJ.shape
    tile = configs.score_tile(heads, width, problem.query_BTIJ.dtype)
    return configs.walks(B * -(-T // tile.queries), min(k, problem.key_BSJ.shape[1]))


def _kernel_scores(problem: Problem, chunk: Chunk) -> Tensor:
    """Score a chunk's visible keys, [b, t, S at least]; what is invisible is undefined."""
    kernels = load_kernels("indexer.forward")
    query = problem.query_BTIJ[chunk.batch, chunk.rows]
    out = torch.empty(*query.shape[:2], _padded(chunk.n_keys), dtype=torch.float32, device=query.device)
    own = problem.slots_B is None
    kernels.scores_of_range(
        query,
        problem.key_BSJ[chunk.batch] if own else problem.key_BSJ,
        problem.weight_BTI[chunk.batch, chunk.rows],
        kernels.KeyRange(
            problem.starts_BT[chunk.batch, chunk.rows].contiguous(),
            problem.ends_BT[chunk.batch, chunk.rows].contiguous(),
            chunk.n_keys,
        ),
        out,
        key_scale_BS=problem.scale_BS[chunk.batch] if own and problem.scale_BS is not None else problem.scale_BS,
        slots_B=None if problem.slots_B is None else problem.slots_B[chunk.batch],
    )
    return out


def _reference_scores(problem: Problem, chunk: Chunk) -> Tensor:
    """Score all keys that a chunk may see, [b, t, S at most]."""
    key, scale = problem.key_BSJ, problem.scale_BS
    if problem.slots_B is None:
        key, scale = key[chunk.batch], None if scale is None else scale[chunk.batch]
    else:
        slots = problem.slots_B[chunk.batch].to(torch.int64)
        key, scale = key[slots], None if scale is None else scale[slots]
    return reference.index_scores(
        problem.query_BTIJ[chunk.batch, chunk.rows],
        key[:, : chunk.n_keys],
        problem.weight_BTI[chunk.batch, chunk.rows],
        None if scale is None else scale[:, : chunk.n_keys],
    )


def _padded(size: int) -> int:
    """Round a row's length up."""
    return -(-size // ROW_ALIGNMENT) * ROW_ALIGNMENT
