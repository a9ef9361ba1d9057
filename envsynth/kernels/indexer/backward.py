"""Gradients of the selected keys' index scores, without any addition whose order is open.

Shape letters: B sequences, T queries, S keys, I indexer heads, J indexer head width, K selected keys.

One program for each query recomputes its products a = k . q and has its own gradients: dw = sum over keys of dI relu(a),
and dq = sum over keys of da k, where da = dI w where a > 0. What a query gives to a key, the sum over heads of da q, is
written down for each pair, in bfloat16 for bfloat16 inputs. One program for each key adds up what is its own, in float32
and in the order of queries. Pairs exist for a bounded chunk of queries at a time; chunks never depend on a sequence's
place in the batch.
"""

# ruff: noqa: ANN001, ANN201, ANN202 - Triton types the parameters of its kernels itself
# pyright: reportCallIssue=false, reportArgumentType=false

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from envsynth.kernels import by_key
from envsynth.kernels.indexer import configs

KEY_BLOCK = 64
"""Selected keys that a program reads at a time."""
SUM_BLOCK = 16
"""Pairs that are added up at a time."""


@triton.jit
def _product(gradient, factor, PRECISION: tl.constexpr):
    """Multiply a float32 gradient with inputs in the inputs' type, or in tf32.

    Gradients of a mean over many tokens leave float16's range, but not tf32's.
    """
    if PRECISION == "tf32":
        product = tl.dot(gradient, factor.to(tl.float32), input_precision="tf32")
    else:
        product = tl.dot(gradient.to(factor.dtype), factor, input_precision="ieee")
    return product


@triton.jit
def pair_gradients_kernel(  # noqa: PLR0913
    query_ptr,
    key_ptr,
    weight_ptr,
    topk_ptr,
    grad_ptr,
    grad_query_ptr,
    grad_weight_ptr,
    pairs_ptr,
    first_batch,
    first_query,
    chunk_queries,
    n_queries,
    stride_qb,
    stride_qt,
    stride_qi,
    stride_kb,
    stride_ks,
    stride_wb,
    stride_wt,
    WITH_PAIRS: tl.constexpr,
    N_SELECTED: tl.constexpr,
    PRECISION: tl.constexpr,
    N_HEADS: tl.constexpr,
    N_WIDTH: tl.constexpr,
    KEYS: tl.constexpr,
    HEADS: tl.constexpr,
    WIDTH: tl.constexpr,
):
    """Write one query's gradients, and what it gives to each of its keys."""
    place = tl.program_id(0).to(tl.int64)
    batch = first_batch + place // chunk_queries
    query_place = first_query + place % chunk_queries
    row = batch * n_queries + query_place
    head, lane = tl.arange(0, HEADS), tl.arange(0, WIDTH)
    own = (head < N_HEADS)[:, None] & (lane < N_WIDTH)[None, :]
    query_row = query_ptr + batch * stride_qb + query_place * stride_qt
    query = tl.load(query_row + head.to(tl.int64)[:, None] * stride_qi + lane[None, :], mask=own, other=0.0)
    weight_row = weight_ptr + batch * stride_wb + query_place * stride_wt
    weight = tl.load(weight_row + head, mask=head < N_HEADS, other=0.0).to(tl.float32)
    grad_query = tl.zeros((HEADS, WIDTH), tl.float32)
    grad_weight = tl.zeros((HEADS,), tl.float32)
    for base in tl.range(0, N_SELECTED, KEYS):
        offsets = base + tl.arange(0, KEYS)
        selected = tl.load(topk_ptr + row * N_SELECTED + offsets, mask=offsets < N_SELECTED, other=-1)
        kept = selected >= 0
        key_places = tl.maximum(selected, 0).to(tl.int64)[:, None] * stride_ks + lane[None, :]
        readable = kept[:, None] & (lane < N_WIDTH)[None, :]
        key = tl.load(key_ptr + batch * stride_kb + key_places, mask=readable, other=0.0)
        grad = tl.load(grad_ptr + row * N_SELECTED + offsets, mask=kept, other=0.0).to(tl.float32)
        dots = tl.dot(key, tl.trans(query), input_precision="ieee")
        grad_weight += tl.sum(grad[:, None] * tl.maximum(dots, 0.0), axis=0)
        grad_dots = tl.where(dots > 0, grad[:, None] * weight[None, :], 0.0)
        grad_query += _product(tl.trans(grad_dots), key, PRECISION)
        if WITH_PAIRS:
            pairs = _product(grad_dots, query, PRECISION)
            pair_places = (place * N_SELECTED + offsets)[:, None] * N_WIDTH + lane[None, :]
            tl.store(pairs_ptr + pair_places, pairs.to(pairs_ptr.dtype.element_ty), mask=readable)
    own_places = (row * N_HEADS + head)[:, None] * N_WIDTH + lane[None, :]
    tl.store(grad_query_ptr + own_places, grad_query, mask=own)
    tl.store(grad_weight_ptr + row * N_HEADS + head, grad_weight, mask=head < N_HEADS)


@triton.jit
def key_sum_kernel(
    pairs_ptr,
    entries_ptr,
    bounds_ptr,
    grad_key_ptr,
    ADDS: tl.constexpr,
    N_WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
    WIDTH: tl.constexpr,
):
    """Add up what queries give to one key, in their order, to what earlier chunks gave."""
    key = tl.program_id(0).to(tl.int64)
    begin, end = tl.load(bounds_ptr + key), tl.load(bounds_ptr + key + 1)
    lane = tl.arange(0, WIDTH)
    exists = lane < N_WIDTH
    sums = tl.zeros((ROWS, WIDTH), tl.float32)
    offsets = begin + tl.arange(0, ROWS)
    # Read one step ahead.
    ahead = tl.load(entries_ptr + offsets, mask=offsets < end, other=0)
    for base in tl.range(begin, end, ROWS):
        offsets = base + tl.arange(0, ROWS)
        pair = ahead.to(tl.int64)
        ahead = tl.load(entries_ptr + offsets + ROWS, mask=offsets + ROWS < end, other=0)
        readable = (offsets < end)[:, None] & exists[None, :]
        given = tl.load(pairs_ptr + pair[:, None] * N_WIDTH + lane[None, :], mask=readable, other=0.0)
        sums += given.to(tl.float32)
    total = tl.sum(sums, axis=0)
    if ADDS:
        total += tl.load(grad_key_ptr + key * N_WIDTH + lane, mask=exists, other=0.0)
    tl.store(grad_key_ptr + key * N_WIDTH + lane, total, mask=exists)


class Gradients(NamedTuple):
    """Gradients of gathered scores."""

    query_BTIJ: Tensor
    """Float32 [B, T, I, J]."""
    key_BSJ: Tensor | None
    """Float32 [B, S, J]; None if nobody asked."""
    weight_BTI: Tensor
    """Float32 [B, T, I]."""


def gradients(
    query_BTIJ: Tensor, key_BSJ: Tensor, weight_BTI: Tensor, topk_BTK: Tensor, grad_BTK: Tensor, *, with_key: bool
) -> Gradients:
    """Pass a gradient at the selected keys' scores on to queries, keys and weights.

    Args:
        query_BTIJ: Queries, [B, T, I, J].
        key_BSJ: Keys, [B, S, J].
        weight_BTI: Head weights, float32 [B, T, I].
        topk_BTK: Selected keys, int32 [B, T, K], contiguous, padded with -1, none twice in a row.
        grad_BTK: Gradient at the scores, [B, T, K], contiguous; of no meaning at padding.
        with_key: Whether the keys' gradient is wanted.

    Returns:
        The gradients.
    """
    B, T, _, width = query_BTIJ.shape
    n_keys, selected = key_BSJ.shape[1], topk_BTK.shape[2]
    device = query_BTIJ.device
    grad_query = torch.empty(query_BTIJ.shape, dtype=torch.float32, device=device)
    grad_weight = torch.empty(weight_BTI.shape, dtype=torch.float32, device=device)
    grad_key = torch.empty(key_BSJ.shape, dtype=torch.float32, device=device) if with_key else None
    kind = torch.bfloat16 if query_BTIJ.dtype == torch.bfloat16 else torch.float32
    # Pairs, rank and place of each, and each query's part of its block's counters.
    row_bytes = selected * (width * kind.itemsize + 8) + 4 * n_keys // by_key.block_rows(n_keys)
    chunk = max(1, configs.GRADIENT_WORKSPACE_BYTES // row_bytes) if with_key else B * T
    pairs = torch.empty(min(chunk, B * T) * selected if with_key else 0, width, dtype=kind, device=device)
    # Equal parts: a short one at the end would take as long as a long one.
    batches, queries = max(1, chunk // T), -(-T // -(-T // chunk))
    for first_batch in range(0, B, batches):
        n_batches = min(batches, B - first_batch)
        for first_query in range(0, T, queries):
            n_queries = min(queries, T - first_query)
            _pair_gradients(
                (query_BTIJ, key_BSJ, weight_BTI, topk_BTK, grad_BTK),
                (grad_query, grad_weight, pairs),
                (first_batch, first_query),
                (n_batches, n_queries),
                with_key=with_key,
            )
            if grad_key is not None:
                batch, rows = slice(first_batch, first_batch + n_batches), slice(first_query, first_query + n_queries)
                key_sum_kernel[(n_batches * n_keys,)](
                    pairs,
                    *by_key.order_by_key(topk_BTK[batch], None, n_keys, rows),
                    grad_key[first_batch:],
                    ADDS=first_query > 0,
                    N_WIDTH=width,
                    ROWS=SUM_BLOCK,
                    WIDTH=configs.power_of_two(width),
                    num_warps=1,
                )
    return Gradients(grad_query, grad_key, grad_weight)


def _pair_gradients(
    inputs: tuple[Tensor, Tensor, Tensor, Tensor, Tensor],
    outputs: tuple[Tensor, Tensor, Tensor],
    first: tuple[int, int],
    count: tuple[int, int],
    *,
    with_key: bool,
) -> None:
    """Write the gradients of a chunk of queries: `count` (sequences, queries) from `first` (sequence, query) on."""
    query_BTIJ, key_BSJ, weight_BTI, topk_BTK, _ = inputs
    _, T, heads, width = query_BTIJ.shape
    tile = {"HEADS": max(16, configs.power_of_two(heads)), "WIDTH": max(16, configs.power_of_two(width))}
    pair_gradients_kernel[(count[0] * count[1],)](
        *inputs,
        *outputs,
        *first,
        count[1],
        T,
        *query_BTIJ.stride()[:3],
        *key_BSJ.stride()[:2],
        *weight_BTI.stride()[:2],
        WITH_PAIRS=with_key,
        N_SELECTED=topk_BTK.shape[2],
        PRECISION="tf32" if query_BTIJ.dtype == torch.float16 else "ieee",
        N_HEADS=heads,
        N_WIDTH=width,
        KEYS=KEY_BLOCK,
        **tile,
        **_launch(tile["HEADS"] * tile["WIDTH"]),
    )


def _launch(size: int) -> dict[str, int]:
    """Say how a program of so many (head, lane) pairs runs; one warp never waits for another."""
    if size <= 1024:
        return {"num_warps": 1, "num_stages": 3}
    return {"num_warps": 8 if size > 4096 else 4, "num_stages": 2}
