"""Attention over selected keys in one pass, and the sum of its probabilities over heads."""

# ruff: noqa: ANN001, ANN202 - Triton types the parameters of its kernels itself
# pyright: reportCallIssue=false, reportArgumentType=false, reportGeneralTypeIssues=false

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from envsynth.kernels.sparse_attention import configs
from envsynth.kernels.sparse_attention.pieces import (
    add_products,
    no_pieces,
    products,
    read_pieces,
    read_rows,
    read_selected,
    write_pieces,
)

_LOWEST = tl.constexpr(-3.0e38)
"""Finite, so that a row without any key has no minus infinity less minus infinity."""
_LN2 = tl.constexpr(math.log(2.0))
LOG2_E = math.log2(math.e)
"""Kernels take powers of two."""


class Attended(NamedTuple):
    """What the forward pass gives."""

    out: Tensor
    """Result, [B, T, H, R]."""
    lse: Tensor
    """Log-sum-exp of the logits, float32 [B, T, H]; +inf where nothing was read."""
    sums: Tensor | None
    """Probabilities of each entry summed over heads, float32 [B, T, K]; None unless asked for."""


@triton.jit(do_not_specialize=["T", "S"])
def _attend(  # noqa: PLR0913, PLR0915
    query, latent, topk, slots, out, lse, sums,
    T, S, scale_log2,
    HEADS: tl.constexpr, RANK: tl.constexpr, ROPE: tl.constexpr, PIECE: tl.constexpr, ROPE_PADDED: tl.constexpr,
    ROWS: tl.constexpr, ROW_BLOCKS: tl.constexpr, KEYS: tl.constexpr, ENTRIES: tl.constexpr,
    CACHED: tl.constexpr, SUMMED: tl.constexpr,
):  # fmt: skip
    one = (tl.program_id(0) // ROW_BLOCKS).to(tl.int64)
    head = (tl.program_id(0) % ROW_BLOCKS) * ROWS + tl.arange(0, ROWS)
    sequence = one // T
    live = head < HEADS
    place = one * HEADS
    WIDTH: tl.constexpr = RANK + ROPE
    COUNT: tl.constexpr = (RANK + PIECE - 1) // PIECE
    query += place * WIDTH
    query_value = read_pieces(query, head * WIDTH, live, RANK, PIECE)
    query_rope = read_rows(query + RANK, head * WIDTH, live, ROPE, ROPE_PADDED)
    if CACHED:
        sequence = tl.load(slots + sequence).to(tl.int64)
    latent += sequence * S * WIDTH
    topk += one * ENTRIES
    highest = tl.full([ROWS], _LOWEST, tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    result = no_pieces(ROWS, RANK, PIECE)
    for start in range(0, ENTRIES, KEYS):
        key, inside = read_selected(topk, start + tl.arange(0, KEYS), ENTRIES, S)
        offset = key * WIDTH
        value = read_pieces(latent, offset, inside, RANK, PIECE)
        rope = read_rows(latent + RANK, offset, inside, ROPE, ROPE_PADDED)
        score = products(query_value, value, COUNT)
        score = tl.dot(query_rope, tl.trans(rope), score, input_precision="ieee")
        score = tl.where(inside[None, :] & live[:, None], score * scale_log2, float("-inf"))
        higher = tl.maximum(highest, tl.max(score, 1))
        shrink = tl.exp2(highest - higher)
        weight = tl.exp2(score - higher[:, None])
        total = total * shrink + tl.sum(weight, 1)
        result = add_products(weight.to(rope.dtype), value, result, shrink, COUNT)
        highest = higher
    empty = total == 0.0
    total = tl.where(empty, 1.0, total)
    divided = ()
    for index in tl.static_range(COUNT):
        divided = divided + (result[index] / total[:, None],)  # noqa: RUF005
    write_pieces(out + place * RANK, head * RANK, live, divided, RANK, PIECE)
    level = tl.where(empty, float("inf"), highest + tl.log2(total))
    tl.store(lse + place + head, level * _LN2, mask=live)
    if SUMMED:
        # The keys of the query are read again while they are near.
        for start in range(0, ENTRIES, KEYS):
            entry = start + tl.arange(0, KEYS)
            key, inside = read_selected(topk, entry, ENTRIES, S)
            value = read_pieces(latent, key * WIDTH, inside, RANK, PIECE)
            rope = read_rows(latent + RANK, key * WIDTH, inside, ROPE, ROPE_PADDED)
            score = products(query_value, value, COUNT)
            score = tl.dot(query_rope, tl.trans(rope), score, input_precision="ieee")
            score = tl.where(inside[None, :] & live[:, None], score * scale_log2 - level[:, None], float("-inf"))
            tl.store(sums + one * ENTRIES + entry, tl.sum(tl.exp2(score), 0), mask=entry < ENTRIES)


@triton.jit(do_not_specialize=["T", "S"])
def _sum_heads(  # noqa: PLR0913
    query,
    latent,
    topk,
    lse,
    sums,
    T,
    S,
    K,
    scale_log2,
    log2_e,
    HEADS: tl.constexpr,
    RANK: tl.constexpr,
    ROPE: tl.constexpr,
    PIECE: tl.constexpr,
    ROPE_PADDED: tl.constexpr,
    ROWS: tl.constexpr,
    ROW_BLOCKS: tl.constexpr,
    KEYS: tl.constexpr,
):
    one = tl.program_id(0).to(tl.int64)
    WIDTH: tl.constexpr = RANK + ROPE
    COUNT: tl.constexpr = (RANK + PIECE - 1) // PIECE
    query += one * HEADS * WIDTH
    latent += (one // T) * S * WIDTH
    for block in tl.static_range(ROW_BLOCKS):
        head = block * ROWS + tl.arange(0, ROWS)
        live = head < HEADS
        query_value = read_pieces(query, head * WIDTH, live, RANK, PIECE)
        query_rope = read_rows(query + RANK, head * WIDTH, live, ROPE, ROPE_PADDED)
        level = tl.load(lse + one * HEADS + head, mask=live, other=float("inf")) * log2_e
        for start in range(0, K, KEYS):
            entry = start + tl.arange(0, KEYS)
            key, inside = read_selected(topk + one * K, entry, K, S)
            offset = key * WIDTH
            value = read_pieces(latent, offset, inside, RANK, PIECE)
            rope = read_rows(latent + RANK, offset, inside, ROPE, ROPE_PADDED)
            score = products(query_value, value, COUNT)
            score = tl.dot(query_rope, tl.trans(rope), score, input_precision="ieee")
            score = tl.where(inside[None, :] & live[:, None], score * scale_log2 - level[:, None], float("-inf"))
            found = tl.sum(tl.exp2(score), 0)
            if block > 0:
                found += tl.load(sums + one * K + entry, mask=entry < K, other=0.0)
            tl.store(sums + one * K + entry, found, mask=entry < K)
        # What one thread has written another may read in the next block of heads.
        tl.debug_barrier()


def _launch(
    query: Tensor, latent: Tensor, topk: Tensor, slots: Tensor | None, *, rank: int, scale: float, with_sum: bool
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Run the kernel over all queries; give sums over heads only where one program has all heads."""
    B, T, H, C = query.shape
    out = torch.empty(B, T, H, rank, dtype=query.dtype, device=query.device)
    lse = torch.empty(B, T, H, dtype=torch.float32, device=query.device)
    sizes = configs.tiles(configs.FORWARD, rows=H, rank=rank, item_bytes=query.element_size())
    blocks = -(-H // sizes.rows)
    summed = with_sum and blocks == 1
    sums = torch.empty(topk.shape, dtype=torch.float32, device=query.device) if summed else None
    _attend[(B * T * blocks,)](
        query,
        latent,
        topk,
        topk if slots is None else slots,
        out,
        lse,
        lse if sums is None else sums,
        T,
        latent.shape[1],
        scale * LOG2_E,
        HEADS=H,
        RANK=rank,
        ROPE=C - rank,
        PIECE=sizes.piece(rank),
        ROPE_PADDED=configs.padded(C - rank),
        ROWS=sizes.rows,
        ROW_BLOCKS=blocks,
        KEYS=sizes.keys,
        ENTRIES=topk.shape[-1],
        CACHED=slots is not None,
        SUMMED=summed,
        **sizes.launch,
    )
    return out, lse, sums


def attend(
    query_BTHC: Tensor,
    latent_BSC: Tensor,
    topk_BTK: Tensor,
    *,
    rank: int,
    scale: float,
    with_sum: bool = False,
) -> Attended:
    """Attend to the selected latents of each query.

    Args:
        query_BTHC: Queries, contiguous [B, T, H, C], not empty.
        latent_BSC: Latents, contiguous [B, S, C].
        topk_BTK: Selected keys, contiguous int32 [B, T, K], K >= 1.
        rank: Width R of a value.
        scale: Factor on the logits.
        with_sum: Also sum the probabilities over heads.

    Returns:
        Result, log-sum-exp and sums.
    """
    out, lse, sums = _launch(query_BTHC, latent_BSC, topk_BTK, None, rank=rank, scale=scale, with_sum=with_sum)
    if with_sum and sums is None:
        sums = sum_heads(query_BTHC, latent_BSC, topk_BTK, lse, rank=rank, scale=scale)
    return Attended(out, lse, sums)


def attend_cached(
    query_NHC: Tensor, latent_cache: Tensor, rows_N: Tensor, topk_NK: Tensor, *, rank: int, scale: float
) -> Tensor:
    """Attend from one token per row to its slot of a cache.

    Args:
        query_NHC: Queries, contiguous [N, H, C], not empty.
        latent_cache: Latents, contiguous [slots, max length, C].
        rows_N: Slot of each row, int32 or int64 [N].
        topk_NK: Selected keys, contiguous int32 [N, K], K >= 1.
        rank: Width R of a value.
        scale: Factor on the logits.

    Returns:
        Result, [N, H, R].
    """
    out, *_ = _launch(query_NHC[:, None], latent_cache, topk_NK, rows_N, rank=rank, scale=scale, with_sum=False)
    return out[:, 0]


def sum_heads(
    query_BTHC: Tensor, latent_BSC: Tensor, topk_BTK: Tensor, lse_BTH: Tensor, *, rank: int, scale: float
) -> Tensor:
    """Sum the probabilities of each entry over heads: logits are formed once more, and nothing of T x H x K is kept.

    Args:
        query_BTHC: Queries, contiguous [B, T, H, C], not empty.
        latent_BSC: Latents, contiguous [B, S, C].
        topk_BTK: Selected keys, contiguous int32 [B, T, K], K >= 1.
        lse_BTH: Log-sum-exp of the forward pass, float32 [B, T, H].
        rank: Width R of a value.
        scale: Factor on the logits.

    Returns:
        Sums, float32 [B, T, K]; 0 at skipped entries.
    """
    B, T, H, C = query_BTHC.shape
    sums = torch.empty(topk_BTK.shape, dtype=torch.float32, device=query_BTHC.device)
    sizes = configs.tiles(configs.FORWARD, rows=H, rank=rank, item_bytes=query_BTHC.element_size())
    _sum_heads[(B * T,)](
        query_BTHC,
        latent_BSC,
        topk_BTK,
        lse_BTH,
        sums,
        T,
        latent_BSC.shape[1],
        topk_BTK.shape[-1],
        scale * LOG2_E,
        LOG2_E,
        HEADS=H,
        RANK=rank,
        ROPE=C - rank,
        PIECE=sizes.piece(rank),
        ROPE_PADDED=configs.padded(C - rank),
        ROWS=sizes.rows,
        ROW_BLOCKS=-(-H // sizes.rows),
        KEYS=sizes.keys,
        **sizes.launch,
    )
    return sums
