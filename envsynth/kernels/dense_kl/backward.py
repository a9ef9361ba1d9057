"""Gradients of the divergence, without any addition whose order is open.

Shape letters: B sequences, T queries, S keys, H heads, I indexer heads, J indexer width, P parts of the queries.

Probabilities and scores are formed anew, once by blocks of queries and once by blocks of keys. The gradient at a score is
dI = g (softmax(I) - p); with a = q . k and da = dI w where a > 0 it goes on to dw = sum over keys of dI relu(a),
dq = sum over keys of da k, and dk = sum over queries and heads of da q.
"""

# ruff: noqa: ANN001, ANN201, ANN202 - Triton types the parameters of its kernels itself
# pyright: reportCallIssue=false, reportGeneralTypeIssues=false, reportArgumentType=false

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from envsynth.kernels.dense_kl import configs
from envsynth.kernels.dense_kl.forward import Problem, constants
from envsynth.kernels.dense_kl.tiles import (
    LOG2_E,
    per_head,
    piece_count,
    product,
    read_bounds,
    read_pieces,
    read_rows,
    read_student,
    read_teacher,
    scores_of,
    teacher_block,
)

SCAN = 1024
"""Queries that are looked at together when those that see a block of keys are searched."""


@triton.jit(do_not_specialize=["n_queries", "n_keys", "blocks"])
def query_gradients_kernel(  # noqa: PLR0913
    query_ptr,
    key_ptr,
    index_query_ptr,
    index_key_ptr,
    weight_ptr,
    starts_ptr,
    ends_ptr,
    lse_ptr,
    index_lse_ptr,
    grad_ptr,
    grad_query_ptr,
    grad_weight_ptr,
    n_queries,
    n_keys,
    blocks,
    scale_log2,
    PRECISION: tl.constexpr,
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
    """Write the gradients of a block's indexer queries and weights."""
    batch = (tl.program_id(0) // blocks).to(tl.int64)
    # Backwards: in causal attention the last queries see most keys.
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
    index_lse = tl.load(index_lse_ptr + batch * n_queries + row, mask=live, other=float("inf"))
    COUNT: tl.constexpr = piece_count(N_WIDTH)
    # Factors of a query come last: what is multiplied lies between -1 and 1.
    grad_query = tl.zeros((INDEX_WIDTH, INDEX_HEADS * QUERIES), tl.float32)
    grad_weight = tl.zeros((INDEX_HEADS * QUERIES,), tl.float32)
    begin = tl.min(tl.where(live, start, n_keys), axis=0) // KEYS * KEYS
    stop = tl.max(tl.where(live, end, 0), axis=0)
    key_lane = tl.arange(0, KEYS)
    for base in tl.range(begin, stop, KEYS):
        key_place = base + key_lane
        block = batch * n_keys + base
        seen = (key_place[:, None] >= start[None, :]) & (key_place[:, None] < end[None, :]) & live[None, :]
        latent = read_pieces(key_ptr + block * N_WIDTH, key_lane * N_WIDTH, key_place < n_keys, N_WIDTH)
        # A key that nobody sees has gradients of zero, but zero times NaN is NaN.
        anybody = tl.max(seen.to(tl.int32), axis=1) > 0
        index_key = read_rows(
            index_key_ptr + block * N_INDEX_WIDTH, key_lane * N_INDEX_WIDTH, anybody, N_INDEX_WIDTH, INDEX_WIDTH
        )
        dots = tl.dot(index_key, tl.trans(index_query), input_precision="ieee")
        scores = scores_of(dots, weight, KEYS, QUERIES, INDEX_HEADS)
        share = teacher_block(latent, query, level, scale_log2, N_HEADS, COUNT, KEYS, QUERIES, HEADS, CHUNKS)
        grad = tl.where(seen, tl.exp2((scores - index_lse[None, :]) * LOG2_E) - share, 0.0)
        grad = per_head(grad, KEYS, QUERIES, INDEX_HEADS)
        grad_weight += tl.sum(grad * tl.maximum(dots, 0.0), axis=0)
        # Transposed, since there may be fewer columns than rows of a matrix instruction.
        grad_query += product(tl.trans(index_key), tl.where(dots > 0, grad, 0.0), PRECISION, index_key.dtype)
    column = tl.arange(0, INDEX_HEADS * QUERIES)
    member, head = column % QUERIES, column // QUERIES
    _, _, column_live = read_bounds(starts_ptr, ends_ptr, batch, first + member, n_queries)
    factor = tl.load(grad_ptr + batch * n_queries + first + member, mask=column_live, other=0.0).to(tl.float32)
    written = (head < N_INDEX_HEADS) & (first + member < n_queries)
    own = (batch * n_queries + first) * N_INDEX_HEADS
    place = member * N_INDEX_HEADS + head
    tl.store(grad_weight_ptr + own + place, grad_weight * factor, mask=written)
    lane = tl.arange(0, INDEX_WIDTH)
    tl.store(
        grad_query_ptr + own * N_INDEX_WIDTH + place[None, :] * N_INDEX_WIDTH + lane[:, None],
        (grad_query * (factor * weight)[None, :]).to(grad_query_ptr.dtype.element_ty),
        mask=written[None, :] & (lane < N_INDEX_WIDTH)[:, None],
    )


@triton.jit
def _seeing_queries(starts_ptr, ends_ptr, batch, n_queries, begin, stop, ROWS: tl.constexpr):
    """Give the first query that sees one of these keys, and the end after the last: 0 and 0 if none does."""
    lowest, highest = n_queries, 0
    for base in tl.range(0, n_queries, ROWS):
        row = base + tl.arange(0, ROWS)
        start, end, live = read_bounds(starts_ptr, ends_ptr, batch, row, n_queries)
        sees = live & (start < stop) & (end > begin)
        lowest = tl.minimum(lowest, tl.min(tl.where(sees, row, n_queries), axis=0))
        highest = tl.maximum(highest, tl.max(tl.where(sees, row + 1, 0), axis=0))
    return tl.minimum(lowest, highest), highest


@triton.jit(do_not_specialize=["n_queries", "n_keys", "blocks"])
def key_gradients_kernel(  # noqa: PLR0913
    query_ptr,
    key_ptr,
    index_query_ptr,
    index_key_ptr,
    weight_ptr,
    starts_ptr,
    ends_ptr,
    lse_ptr,
    index_lse_ptr,
    grad_ptr,
    grad_key_ptr,
    n_queries,
    n_keys,
    blocks,
    scale_log2,
    PARTS: tl.constexpr,
    ROWS: tl.constexpr,
    PRECISION: tl.constexpr,
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
    """Write what every PARTS-th block of queries gives to the indexer keys of a block."""
    batch = (tl.program_id(0) // blocks).to(tl.int64)
    part = tl.program_id(1)
    key_base = tl.program_id(0) % blocks * KEYS
    key_lane = tl.arange(0, KEYS)
    key_place = key_base + key_lane
    block = batch * n_keys + key_base
    latent = read_pieces(key_ptr + block * N_WIDTH, key_lane * N_WIDTH, key_place < n_keys, N_WIDTH)
    index_key = read_rows(
        index_key_ptr + block * N_INDEX_WIDTH, key_lane * N_INDEX_WIDTH, key_place < n_keys, N_INDEX_WIDTH, INDEX_WIDTH
    )
    COUNT: tl.constexpr = piece_count(N_WIDTH)
    lowest, highest = _seeing_queries(starts_ptr, ends_ptr, batch, n_queries, key_base, key_base + KEYS, ROWS)
    grad_key = tl.zeros((KEYS, INDEX_WIDTH), tl.float32)
    # Whole blocks from a place that depends on the sequence alone, so that parts are the same queries for every key.
    STEP: tl.constexpr = QUERIES * PARTS
    for first in tl.range(lowest // STEP * STEP + part * QUERIES, highest, STEP):
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
        index_lse = tl.load(index_lse_ptr + batch * n_queries + row, mask=live, other=float("inf"))
        factor = tl.load(grad_ptr + batch * n_queries + row, mask=live, other=0.0).to(tl.float32)
        seen = (key_place[:, None] >= start[None, :]) & (key_place[:, None] < end[None, :]) & live[None, :]
        dots = tl.dot(index_key, tl.trans(index_query), input_precision="ieee")
        scores = scores_of(dots, weight, KEYS, QUERIES, INDEX_HEADS)
        share = teacher_block(latent, query, level, scale_log2, N_HEADS, COUNT, KEYS, QUERIES, HEADS, CHUNKS)
        grad = tl.exp2((scores - index_lse[None, :]) * LOG2_E) - share
        grad = per_head(tl.where(seen, grad * factor[None, :], 0.0), KEYS, QUERIES, INDEX_HEADS)
        grad_key += product(tl.where(dots > 0, grad * weight[None, :], 0.0), index_query, PRECISION, index_query.dtype)
    lane = tl.arange(0, INDEX_WIDTH)
    out = (batch * PARTS + part) * n_keys + key_base
    tl.store(
        grad_key_ptr + out * N_INDEX_WIDTH + key_lane[:, None] * N_INDEX_WIDTH + lane[None, :],
        grad_key,
        mask=(key_place < n_keys)[:, None] & (lane < N_INDEX_WIDTH)[None, :],
    )


def query_gradients(problem: Problem, lse_BTH: Tensor, index_lse_BT: Tensor, grad_BT: Tensor) -> tuple[Tensor, Tensor]:
    """Pass a gradient at the divergences on to the indexer's queries and weights.

    Args:
        problem: What is compared.
        lse_BTH: Log-sum-exp of the teacher's visible logits, float32 [B, T, H], contiguous.
        index_lse_BT: Log-sum-exp of visible scores, float32 [B, T], contiguous.
        grad_BT: Gradient at the divergences, [B, T], contiguous.

    Returns:
        Gradients, [B, T, I, J] in the queries' type, and float32 [B, T, I].
    """
    B, T = problem.starts_BT.shape
    grad_query = torch.empty_like(problem.index_query_BTIJ)
    grad_weight = torch.empty_like(problem.weight_BTI)
    tile = configs.tile(configs.BY_QUERY, problem.sizes)
    blocks = triton.cdiv(T, tile.queries)
    query_gradients_kernel[(B * blocks,)](
        *problem[:7],
        lse_BTH,
        index_lse_BT,
        grad_BT,
        grad_query,
        grad_weight,
        T,
        problem.key_BSC.shape[1],
        blocks,
        problem.scale * math.log2(math.e),
        PRECISION=_precision(problem),
        **constants(problem, tile),
    )
    return grad_query, grad_weight


def key_gradients(problem: Problem, lse_BTH: Tensor, index_lse_BT: Tensor, grad_BT: Tensor) -> Tensor:
    """Pass a gradient at the divergences on to the indexer's keys.

    Args:
        problem: What is compared.
        lse_BTH: Log-sum-exp of the teacher's visible logits, float32 [B, T, H], contiguous.
        index_lse_BT: Log-sum-exp of visible scores, float32 [B, T], contiguous.
        grad_BT: Gradient at the divergences, [B, T], contiguous.

    Returns:
        Gradient, float32 [B, S, J].
    """
    B, T = problem.starts_BT.shape
    n_keys, width = problem.index_key_BSJ.shape[1:]
    tile = configs.tile(configs.BY_KEY, problem.sizes)
    parts = max(1, min(configs.KEY_PARTS, triton.cdiv(T, tile.queries)))
    given_BPSJ = torch.empty(B, parts, n_keys, width, dtype=torch.float32, device=grad_BT.device)
    blocks = triton.cdiv(n_keys, tile.keys)
    key_gradients_kernel[(B * blocks, parts)](
        *problem[:7],
        lse_BTH,
        index_lse_BT,
        grad_BT,
        given_BPSJ,
        T,
        n_keys,
        blocks,
        problem.scale * math.log2(math.e),
        PARTS=parts,
        ROWS=SCAN,
        PRECISION=_precision(problem),
        **constants(problem, tile),
    )
    # One addition after another: the order of a library's sum may depend on the shape.
    total_BSJ = given_BPSJ[:, 0]
    for part in range(1, parts):
        total_BSJ = total_BSJ + given_BPSJ[:, part]
    return total_BSJ


def _precision(problem: Problem) -> str:
    """Say how gradients are multiplied."""
    return "tf32" if problem.index_query_BTIJ.dtype == torch.float16 else "ieee"
