"""The teacher's log-sum-exp, and the divergence in one pass over the keys.

Shape letters: B sequences, T queries, S keys, H heads, C width of the teacher's keys, I indexer heads, J indexer width.
"""

# ruff: noqa: ANN001, ANN201 - Triton types the parameters of its kernels itself
# pyright: reportCallIssue=false, reportGeneralTypeIssues=false, reportArgumentType=false

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from envsynth.kernels.dense_kl import configs
from envsynth.kernels.dense_kl.tiles import (
    LN_2,
    LOG2_E,
    LOWEST,
    piece_count,
    read_bounds,
    read_pieces,
    read_rows,
    read_student,
    read_teacher,
    scores_of,
    teacher_block,
)


class Problem(NamedTuple):
    """What is compared; all contiguous, none empty."""

    query_BTHC: Tensor
    """The teacher's queries, [B, T, H, C]."""
    key_BSC: Tensor
    """The teacher's keys of the same type, [B, S, C]."""
    index_query_BTIJ: Tensor
    """The indexer's queries, [B, T, I, J]."""
    index_key_BSJ: Tensor
    """The indexer's keys of their type, [B, S, J]."""
    weight_BTI: Tensor
    """Head weights, float32 [B, T, I]."""
    starts_BT: Tensor
    """First visible key, int32 [B, T], in 0..S."""
    ends_BT: Tensor
    """End of the visible keys, exclusive, int32 [B, T], in 0..S."""
    scale: float
    """Factor on the teacher's logits."""

    @property
    def sizes(self) -> configs.Sizes:
        """Heads, widths and bytes, by which tiles are chosen."""
        return configs.Sizes(
            *self.query_BTHC.shape[2:],
            *self.index_query_BTIJ.shape[2:],
            max(self.query_BTHC.element_size(), self.index_query_BTIJ.element_size()),
        )

    def part(self, batch: slice, rows: slice) -> Problem:
        """Give some sequences, or some queries of one.

        Args:
            batch: Sequences; one alone unless `rows` are all.
            rows: Queries.

        Returns:
            What is compared there, contiguous.
        """
        at = (batch, rows)
        return Problem(
            self.query_BTHC[at],
            self.key_BSC[batch],
            self.index_query_BTIJ[at],
            self.index_key_BSJ[batch],
            self.weight_BTI[at],
            self.starts_BT[at],
            self.ends_BT[at],
            self.scale,
        )


@triton.jit(do_not_specialize=["n_queries", "n_keys", "blocks"])
def teacher_lse_kernel(  # noqa: PLR0913
    query_ptr,
    key_ptr,
    starts_ptr,
    ends_ptr,
    lse_ptr,
    n_queries,
    n_keys,
    blocks,
    scale_log2,
    N_HEADS: tl.constexpr,
    N_WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
    KEYS: tl.constexpr,
):
    """Write the log-sum-exp of some (query, head) rows, +inf where a query sees nothing."""
    batch = (tl.program_id(0) // blocks).to(tl.int64)
    # Backwards: in causal attention the last queries see most keys.
    first = (blocks - 1 - tl.program_id(0) % blocks) * ROWS
    row = first + tl.arange(0, ROWS)
    start, end, live = read_bounds(starts_ptr, ends_ptr, batch, row // N_HEADS, n_queries)
    block = batch * n_queries * N_HEADS + first
    query = read_pieces(query_ptr + block * N_WIDTH, tl.arange(0, ROWS) * N_WIDTH, live, N_WIDTH)
    COUNT: tl.constexpr = piece_count(N_WIDTH)
    highest = tl.full([ROWS], LOWEST, tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    begin = tl.min(tl.where(live, start, n_keys), axis=0) // KEYS * KEYS
    stop = tl.max(tl.where(live, end, 0), axis=0)
    for base in tl.range(begin, stop, KEYS):
        key_place = base + tl.arange(0, KEYS)
        key_block = key_ptr + (batch * n_keys + base) * N_WIDTH
        key = read_pieces(key_block, tl.arange(0, KEYS) * N_WIDTH, key_place < n_keys, N_WIDTH)
        logits = tl.zeros((ROWS, KEYS), tl.float32)
        for index in tl.static_range(COUNT):
            logits = tl.dot(query[index], tl.trans(key[index]), logits, input_precision="ieee")
        seen = (key_place[None, :] >= start[:, None]) & (key_place[None, :] < end[:, None])
        logits = tl.where(seen, logits * scale_log2, float("-inf"))
        higher = tl.maximum(highest, tl.max(logits, axis=1))
        total = total * tl.exp2(highest - higher) + tl.sum(tl.exp2(logits - higher[:, None]), axis=1)
        highest = higher
    found = (highest + tl.log2(tl.where(live, total, 1.0))) * LN_2
    tl.store(lse_ptr + block + tl.arange(0, ROWS), tl.where(live, found, float("inf")), mask=row < n_queries * N_HEADS)


@triton.jit(do_not_specialize=["n_queries", "n_keys", "blocks"])
def divergence_kernel(  # noqa: PLR0913
    query_ptr,
    key_ptr,
    index_query_ptr,
    index_key_ptr,
    weight_ptr,
    starts_ptr,
    ends_ptr,
    lse_ptr,
    loss_ptr,
    index_lse_ptr,
    n_queries,
    n_keys,
    blocks,
    scale_log2,
    N_HEADS: tl.constexpr,
    N_WIDTH: tl.constexpr,
    N_INDEX_HEADS: tl.constexpr,
    N_INDEX_WIDTH: tl.constexpr,
    KEYS: tl.constexpr,
    QUERIES: tl.constexpr,
    HEADS: tl.constexpr,
    CHUNKS: tl.constexpr,
    INDEX_HEADS: tl.constexpr,
    INDEX_WIDTH: tl.constexpr,
):
    """Write KL(p || softmax(I)) of a block of queries, and the log-sum-exp of I, +inf where a query sees nothing.

    Maxima and sums are kept for each (key of a block, query), so that no step adds across threads.
    """
    batch = (tl.program_id(0) // blocks).to(tl.int64)
    first = (blocks - 1 - tl.program_id(0) % blocks) * QUERIES
    row = first + tl.arange(0, QUERIES)
    start, end, live = read_bounds(starts_ptr, ends_ptr, batch, row, n_queries)
    query, level = read_teacher(
        query_ptr, lse_ptr, starts_ptr, ends_ptr, batch, first, n_queries,
        N_HEADS, N_WIDTH, QUERIES, HEADS, CHUNKS,
    )  # fmt: skip
    index_query, weight = read_student(
        index_query_ptr, weight_ptr, starts_ptr, ends_ptr, batch, first, n_queries,
        N_INDEX_HEADS, N_INDEX_WIDTH, QUERIES, INDEX_HEADS, INDEX_WIDTH,
    )  # fmt: skip
    COUNT: tl.constexpr = piece_count(N_WIDTH)
    highest = tl.full((KEYS, QUERIES), LOWEST, tl.float32)
    total = tl.zeros((KEYS, QUERIES), tl.float32)
    cross = tl.zeros((KEYS, QUERIES), tl.float32)
    begin = tl.min(tl.where(live, start, n_keys), axis=0) // KEYS * KEYS
    stop = tl.max(tl.where(live, end, 0), axis=0)
    lane = tl.arange(0, KEYS)
    for base in tl.range(begin, stop, KEYS):
        key_place = base + lane
        block = batch * n_keys + base
        latent = read_pieces(key_ptr + block * N_WIDTH, lane * N_WIDTH, key_place < n_keys, N_WIDTH)
        index_key = read_rows(
            index_key_ptr + block * N_INDEX_WIDTH, lane * N_INDEX_WIDTH, key_place < n_keys, N_INDEX_WIDTH, INDEX_WIDTH
        )
        dots = tl.dot(index_key, tl.trans(index_query), input_precision="ieee")
        scores = scores_of(dots, weight, KEYS, QUERIES, INDEX_HEADS)
        share = teacher_block(latent, query, level, scale_log2, N_HEADS, COUNT, KEYS, QUERIES, HEADS, CHUNKS)
        seen = (key_place[:, None] >= start[None, :]) & (key_place[:, None] < end[None, :])
        # The logarithm of zero is minus infinity, and NaN in a product with it; a NaN is not zero, and stays.
        counts = seen & (share != 0.0)
        cross += tl.where(counts, share * (tl.log2(tl.where(counts, share, 1.0)) * LN_2 - scores), 0.0)
        scores = tl.where(seen, scores, float("-inf"))
        higher = tl.maximum(highest, scores)
        total = total * tl.exp2((highest - higher) * LOG2_E) + tl.exp2((scores - higher) * LOG2_E)
        highest = higher
    top = tl.max(highest, axis=0)
    whole = tl.sum(total * tl.exp2((highest - top[None, :]) * LOG2_E), axis=0)
    index_lse = top + tl.log2(tl.where(live, whole, 1.0)) * LN_2
    place = batch * n_queries + row
    tl.store(index_lse_ptr + place, tl.where(live, index_lse, float("inf")), mask=row < n_queries)
    tl.store(loss_ptr + place, tl.where(live, tl.sum(cross, axis=0) + index_lse, 0.0), mask=row < n_queries)


def teacher_lse(problem: Problem) -> Tensor:
    """Give the log-sum-exp of the teacher's visible logits.

    Args:
        problem: What is compared.

    Returns:
        Log-sum-exps, float32 [B, T, H]; +inf where a query sees nothing.
    """
    B, T, heads, width = problem.query_BTHC.shape
    lse_BTH = torch.empty(B, T, heads, dtype=torch.float32, device=problem.query_BTHC.device)
    tile = configs.lse_tile(width, problem.query_BTHC.element_size())
    blocks = triton.cdiv(T * heads, tile.rows)
    teacher_lse_kernel[(B * blocks,)](
        problem.query_BTHC,
        problem.key_BSC,
        problem.starts_BT,
        problem.ends_BT,
        lse_BTH,
        T,
        problem.key_BSC.shape[1],
        blocks,
        problem.scale * math.log2(math.e),
        N_HEADS=heads,
        N_WIDTH=width,
        ROWS=tile.rows,
        KEYS=tile.keys,
        num_warps=tile.warps,
        num_stages=tile.stages,
    )
    return lse_BTH


def divergence(problem: Problem, lse_BTH: Tensor) -> tuple[Tensor, Tensor]:
    """Measure the divergence of each query.

    Args:
        problem: What is compared.
        lse_BTH: Log-sum-exp of the teacher's visible logits, float32 [B, T, H], contiguous.

    Returns:
        Divergences in nats, float32 [B, T], and the log-sum-exp of visible scores, float32 [B, T]; 0 and +inf where a
        query sees nothing.
    """
    B, T = problem.starts_BT.shape
    loss_BT = torch.empty(B, T, dtype=torch.float32, device=lse_BTH.device)
    index_lse_BT = torch.empty_like(loss_BT)
    tile = configs.tile(configs.TEACHER, problem.sizes)
    blocks = triton.cdiv(T, tile.queries)
    divergence_kernel[(B * blocks,)](
        *problem[:7],
        lse_BTH,
        loss_BT,
        index_lse_BT,
        T,
        problem.key_BSC.shape[1],
        blocks,
        problem.scale * math.log2(math.e),
        **constants(problem, tile),
    )
    return loss_BT, index_lse_BT


def constants(problem: Problem, tile: configs.Tile) -> dict[str, int]:
    """Name a kernel's sizes as the kernels do.

    Args:
        problem: What is compared.
        tile: The kernel's tile.

    Returns:
        Sizes and launch options by name.
    """
    sizes = problem.sizes
    return {
        "N_HEADS": sizes.heads,
        "N_WIDTH": sizes.width,
        "N_INDEX_HEADS": sizes.index_heads,
        "N_INDEX_WIDTH": sizes.index_width,
        "KEYS": tile.keys,
        "QUERIES": tile.queries,
        "HEADS": tile.heads,
        "CHUNKS": tile.chunks,
        "INDEX_HEADS": tile.index_heads,
        "INDEX_WIDTH": tile.index_width,
        "num_warps": tile.warps,
        "num_stages": tile.stages,
    }
