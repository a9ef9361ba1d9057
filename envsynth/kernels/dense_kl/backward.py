"""Gradients of the divergence, without any addition whose order is open.

Shape letters: B sequences, T queries, S keys, H heads, I indexer heads, J indexer width, P parts of the queries.

The gradient at a score is dI = g (softmax(I) - p). For a bounded chunk of queries, softmax(I) - p is written down once, so
that the teacher is formed anew once and not twice. With a = q . k and da = dI w where a > 0, one kernel by blocks of
queries adds up dw = sum over keys of dI relu(a) and dq = sum over keys of da k, and one by blocks of keys
dk = sum over queries and heads of da q. Chunks never depend on a sequence's place in the batch.
"""

# ruff: noqa: ANN001, ANN201, ANN202 - Triton types the parameters of its kernels itself
# pyright: reportCallIssue=false, reportGeneralTypeIssues=false, reportArgumentType=false

from __future__ import annotations

import math
from typing import NamedTuple

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


@triton.jit(do_not_specialize=["n_queries", "n_keys", "blocks", "keys_per_program"])
def score_gradients_kernel(  # noqa: PLR0913
    query_ptr,
    key_ptr,
    index_query_ptr,
    index_key_ptr,
    weight_ptr,
    starts_ptr,
    ends_ptr,
    lse_ptr,
    index_lse_ptr,
    out_ptr,
    n_queries,
    n_keys,
    blocks,
    keys_per_program,
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
    """Write softmax(I) - p of a block of queries and a part of the keys, where they are visible."""
    batch = (tl.program_id(0) // blocks).to(tl.int64)
    # Backwards: in causal attention the last queries see most keys.
    first = (blocks - 1 - tl.program_id(0) % blocks) * QUERIES
    lane = tl.arange(0, QUERIES)
    start, end, live = read_bounds(starts_ptr, ends_ptr, batch, first + lane, n_queries)
    begin = tl.min(tl.where(live, start, n_keys), axis=0) // KEYS * KEYS
    begin = tl.maximum(begin, tl.program_id(1) * keys_per_program)
    stop = tl.minimum(tl.max(tl.where(live, end, 0), axis=0), (tl.program_id(1) + 1) * keys_per_program)
    if begin < stop:
        query, level = read_teacher(
            query_ptr, lse_ptr, starts_ptr, ends_ptr, batch, first, n_queries,
            N_HEADS, N_WIDTH, QUERIES, HEADS, CHUNKS,
        )  # fmt: skip
        index_query, weight = read_student(
            index_query_ptr, weight_ptr, starts_ptr, ends_ptr, batch, first, n_queries,
            N_INDEX_HEADS, N_INDEX_WIDTH, QUERIES, INDEX_HEADS, INDEX_WIDTH,
        )  # fmt: skip
        row = batch * n_queries + first
        index_lse = tl.load(index_lse_ptr + row + lane, mask=live, other=float("inf"))
        COUNT: tl.constexpr = piece_count(N_WIDTH)
        key_lane = tl.arange(0, KEYS)
        for base in tl.range(begin, stop, KEYS):
            key_place = base + key_lane
            block = batch * n_keys + base
            latent = read_pieces(key_ptr + block * N_WIDTH, key_lane * N_WIDTH, key_place < n_keys, N_WIDTH)
            index_key = read_rows(
                index_key_ptr + block * N_INDEX_WIDTH,
                key_lane * N_INDEX_WIDTH,
                key_place < n_keys,
                N_INDEX_WIDTH,
                INDEX_WIDTH,
            )
            dots = tl.dot(index_key, tl.trans(index_query), input_precision="ieee")
            scores = scores_of(dots, weight, KEYS, QUERIES, INDEX_HEADS)
            share = teacher_block(latent, query, level, scale_log2, N_HEADS, COUNT, KEYS, QUERIES, HEADS, CHUNKS)
            grad = tl.exp2((scores - index_lse[None, :]) * LOG2_E) - share
            seen = (key_place[:, None] >= start[None, :]) & (key_place[:, None] < end[None, :]) & live[None, :]
            place = lane.to(tl.int64)[None, :] * n_keys + key_place[:, None]
            tl.store(out_ptr + row * n_keys + place, grad, mask=seen)


@triton.jit(do_not_specialize=["n_queries", "n_keys", "blocks"])
def query_gradients_kernel(  # noqa: PLR0913
    index_query_ptr,
    index_key_ptr,
    weight_ptr,
    starts_ptr,
    ends_ptr,
    grad_scores_ptr,
    grad_ptr,
    grad_query_ptr,
    grad_weight_ptr,
    n_queries,
    n_keys,
    blocks,
    PRECISION: tl.constexpr,
    N_HEADS: tl.constexpr,
    N_WIDTH: tl.constexpr,
    KEYS: tl.constexpr,
    QUERIES: tl.constexpr,
    HEADS: tl.constexpr,
    WIDTH: tl.constexpr,
):
    """Write the gradients of a block's indexer queries and weights."""
    batch = (tl.program_id(0) // blocks).to(tl.int64)
    first = (blocks - 1 - tl.program_id(0) % blocks) * QUERIES
    lane = tl.arange(0, QUERIES)
    start, end, live = read_bounds(starts_ptr, ends_ptr, batch, first + lane, n_queries)
    query, weight = read_student(
        index_query_ptr, weight_ptr, starts_ptr, ends_ptr, batch, first, n_queries,
        N_HEADS, N_WIDTH, QUERIES, HEADS, WIDTH,
    )  # fmt: skip
    row = batch * n_queries + first
    # Factors of a query come last: what is multiplied lies between -1 and 1.
    grad_query = tl.zeros((WIDTH, HEADS * QUERIES), tl.float32)
    grad_weight = tl.zeros((HEADS * QUERIES,), tl.float32)
    begin = tl.min(tl.where(live, start, n_keys), axis=0) // KEYS * KEYS
    stop = tl.max(tl.where(live, end, 0), axis=0)
    key_lane = tl.arange(0, KEYS)
    for base in tl.range(begin, stop, KEYS):
        key_place = base + key_lane
        seen = (key_place[:, None] >= start[None, :]) & (key_place[:, None] < end[None, :]) & live[None, :]
        # A key that nobody sees has gradients of zero, but zero times NaN is NaN.
        anybody = tl.max(seen.to(tl.int32), axis=1) > 0
        key_block = index_key_ptr + (batch * n_keys + base) * N_WIDTH
        key = read_rows(key_block, key_lane * N_WIDTH, anybody, N_WIDTH, WIDTH)
        place = lane.to(tl.int64)[None, :] * n_keys + key_place[:, None]
        grad = tl.load(grad_scores_ptr + row * n_keys + place, mask=seen, other=0.0)
        grad = per_head(grad, KEYS, QUERIES, HEADS)
        dots = tl.dot(key, tl.trans(query), input_precision="ieee")
        grad_weight += tl.sum(grad * tl.maximum(dots, 0.0), axis=0)
        # Transposed, since there may be fewer columns than rows of a matrix instruction.
        grad_query += product(tl.trans(key), tl.where(dots > 0, grad, 0.0), PRECISION, key.dtype)
    column = tl.arange(0, HEADS * QUERIES)
    member, head = column % QUERIES, column // QUERIES
    _, _, column_live = read_bounds(starts_ptr, ends_ptr, batch, first + member, n_queries)
    factor = tl.load(grad_ptr + row + member, mask=column_live, other=0.0).to(tl.float32)
    written = (head < N_HEADS) & (first + member < n_queries)
    own = row * N_HEADS
    place = member * N_HEADS + head
    tl.store(grad_weight_ptr + own + place, grad_weight * factor, mask=written)
    width = tl.arange(0, WIDTH)
    tl.store(
        grad_query_ptr + own * N_WIDTH + place[None, :] * N_WIDTH + width[:, None],
        (grad_query * (factor * weight)[None, :]).to(grad_query_ptr.dtype.element_ty),
        mask=written[None, :] & (width < N_WIDTH)[:, None],
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
    index_query_ptr,
    index_key_ptr,
    weight_ptr,
    starts_ptr,
    ends_ptr,
    grad_scores_ptr,
    grad_ptr,
    grad_key_ptr,
    n_queries,
    n_keys,
    blocks,
    PARTS: tl.constexpr,
    ROWS: tl.constexpr,
    PRECISION: tl.constexpr,
    N_HEADS: tl.constexpr,
    N_WIDTH: tl.constexpr,
    KEYS: tl.constexpr,
    QUERIES: tl.constexpr,
    HEADS: tl.constexpr,
    WIDTH: tl.constexpr,
):
    """Write what every PARTS-th block of queries gives to the indexer keys of a block."""
    batch = (tl.program_id(0) // blocks).to(tl.int64)
    part = tl.program_id(1)
    key_base = tl.program_id(0) % blocks * KEYS
    key_lane = tl.arange(0, KEYS)
    key_place = key_base + key_lane
    exists = key_place < n_keys
    key_block = index_key_ptr + (batch * n_keys + key_base) * N_WIDTH
    key = read_rows(key_block, key_lane * N_WIDTH, exists, N_WIDTH, WIDTH)
    lowest, highest = _seeing_queries(starts_ptr, ends_ptr, batch, n_queries, key_base, key_base + KEYS, ROWS)
    grad_key = tl.zeros((KEYS, WIDTH), tl.float32)
    lane = tl.arange(0, QUERIES)
    # Parts are the same queries for every key.
    STEP: tl.constexpr = QUERIES * PARTS
    for first in tl.range(lowest // STEP * STEP + part * QUERIES, highest, STEP):
        start, end, live = read_bounds(starts_ptr, ends_ptr, batch, first + lane, n_queries)
        query, weight = read_student(
            index_query_ptr, weight_ptr, starts_ptr, ends_ptr, batch, first, n_queries,
            N_HEADS, N_WIDTH, QUERIES, HEADS, WIDTH,
        )  # fmt: skip
        row = batch * n_queries + first
        factor = tl.load(grad_ptr + row + lane, mask=live, other=0.0).to(tl.float32)
        seen = (key_place[:, None] >= start[None, :]) & (key_place[:, None] < end[None, :]) & live[None, :]
        place = lane.to(tl.int64)[None, :] * n_keys + key_place[:, None]
        grad = tl.load(grad_scores_ptr + row * n_keys + place, mask=seen, other=0.0)
        grad = per_head(tl.where(seen, grad * factor[None, :], 0.0), KEYS, QUERIES, HEADS)
        dots = tl.dot(key, tl.trans(query), input_precision="ieee")
        grad_key += product(tl.where(dots > 0, grad * weight[None, :], 0.0), query, PRECISION, query.dtype)
    width = tl.arange(0, WIDTH)
    out = (batch * PARTS + part) * n_keys + key_base
    tl.store(
        grad_key_ptr + out * N_WIDTH + key_lane[:, None] * N_WIDTH + width[None, :],
        grad_key,
        mask=exists[:, None] & (width < N_WIDTH)[None, :],
    )


class Gradients(NamedTuple):
    """Gradients of the divergences."""

    query_BTIJ: Tensor
    """In the indexer queries' type, [B, T, I, J]."""
    key_BSJ: Tensor
    """Float32 [B, S, J]."""
    weight_BTI: Tensor
    """Float32 [B, T, I]."""


def gradients(problem: Problem, lse_BTH: Tensor, index_lse_BT: Tensor, grad_BT: Tensor) -> Gradients:
    """Pass a gradient at the divergences on to the indexer.

    Args:
        problem: What is compared.
        lse_BTH: Log-sum-exp of the teacher's visible logits, float32 [B, T, H], contiguous.
        index_lse_BT: Log-sum-exp of visible scores, float32 [B, T], contiguous.
        grad_BT: Gradient at the divergences, [B, T], contiguous.

    Returns:
        The gradients.
    """
    B, T = problem.starts_BT.shape
    n_keys, device = problem.index_key_BSJ.shape[1], grad_BT.device
    grad_query = torch.empty_like(problem.index_query_BTIJ)
    grad_weight = torch.empty_like(problem.weight_BTI)
    grad_key = torch.zeros(problem.index_key_BSJ.shape, dtype=torch.float32, device=device)
    rows = max(1, configs.WORKSPACE_BYTES // (4 * n_keys))
    batches, queries = max(1, rows // T), min(rows, T)
    workspace = torch.empty(min(batches, B) * queries * n_keys, dtype=torch.float32, device=device)
    for first_batch in range(0, B, batches):
        some = slice(first_batch, first_batch + batches)
        for first in range(0, T, queries):
            # Whole sequences, or queries of a single one: contiguous either way.
            at = (some, slice(first, first + queries))
            chunk = problem.part(*at)
            _score_gradients(chunk, lse_BTH[at], index_lse_BT[at], workspace)
            _query_gradients(chunk, workspace, grad_BT[at], grad_query[at], grad_weight[at])
            grad_key[some] += _key_gradients(chunk, workspace, grad_BT[at])
    return Gradients(grad_query, grad_key, grad_weight)


def _score_gradients(chunk: Problem, lse_BTH: Tensor, index_lse_BT: Tensor, out: Tensor) -> None:
    """Write softmax(I) - p where visible, as [B, T, S]; what is invisible is left as it is."""
    B, T = chunk.starts_BT.shape
    n_keys = chunk.key_BSC.shape[1]
    tile = configs.tile(configs.TEACHER, chunk.sizes)
    blocks = triton.cdiv(T, tile.queries)
    parts = triton.cdiv(configs.PROGRAMS, B * blocks)
    per_program = triton.cdiv(triton.cdiv(n_keys, parts), tile.keys) * tile.keys
    score_gradients_kernel[(B * blocks, triton.cdiv(n_keys, per_program))](
        *chunk[:7],
        lse_BTH,
        index_lse_BT,
        out,
        T,
        n_keys,
        blocks,
        per_program,
        chunk.scale * math.log2(math.e),
        **constants(chunk, tile),
    )


def _query_gradients(
    chunk: Problem, grad_scores: Tensor, grad_BT: Tensor, grad_query_BTIJ: Tensor, grad_weight_BTI: Tensor
) -> None:
    """Write the gradients of the indexer's queries and weights."""
    B, T = chunk.starts_BT.shape
    tile = configs.student_tile(chunk.sizes)
    blocks = triton.cdiv(T, tile.queries)
    query_gradients_kernel[(B * blocks,)](
        *chunk[2:7],
        grad_scores,
        grad_BT,
        grad_query_BTIJ,
        grad_weight_BTI,
        T,
        chunk.key_BSC.shape[1],
        blocks,
        PRECISION=_precision(chunk),
        **_student_constants(chunk, tile),
    )


def _key_gradients(chunk: Problem, grad_scores: Tensor, grad_BT: Tensor) -> Tensor:
    """Give what these queries give to the indexer's keys, float32 [B, S, J]."""
    B, T = chunk.starts_BT.shape
    n_keys, width = chunk.index_key_BSJ.shape[1:]
    tile = configs.student_tile(chunk.sizes)
    parts = max(1, min(configs.KEY_PARTS, triton.cdiv(T, tile.queries)))
    given_BPSJ = torch.empty(B, parts, n_keys, width, dtype=torch.float32, device=grad_BT.device)
    blocks = triton.cdiv(n_keys, tile.keys)
    key_gradients_kernel[(B * blocks, parts)](
        *chunk[2:7],
        grad_scores,
        grad_BT,
        given_BPSJ,
        T,
        n_keys,
        blocks,
        PARTS=parts,
        ROWS=SCAN,
        PRECISION=_precision(chunk),
        **_student_constants(chunk, tile),
    )
    # One addition after another: the order of a library's sum may depend on the shape.
    total_BSJ = given_BPSJ[:, 0]
    for part in range(1, parts):
        total_BSJ = total_BSJ + given_BPSJ[:, part]
    return total_BSJ


def _precision(problem: Problem) -> str:
    """Say how gradients are multiplied."""
    return "tf32" if problem.index_query_BTIJ.dtype == torch.float16 else "ieee"


def _student_constants(problem: Problem, tile: configs.StudentTile) -> dict[str, int]:
    """Name the sizes of a kernel that knows the indexer alone."""
    sizes = problem.sizes
    return {
        "N_HEADS": sizes.index_heads,
        "N_WIDTH": sizes.index_width,
        "KEYS": tile.keys,
        "QUERIES": tile.queries,
        "HEADS": configs.power_of_two(sizes.index_heads),
        "WIDTH": max(16, configs.power_of_two(sizes.index_width)),
        "num_warps": tile.warps,
        "num_stages": tile.stages,
    }
