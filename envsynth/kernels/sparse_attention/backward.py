"""Gradients of attention over selected keys: probabilities are formed again from the log-sum-exp.

A latent gets a gradient from every query that read it. With atomics these are added in the order in which programs
happen to run. The deterministic way writes what each tile gives to each of its entries as a row, and adds up the rows of
a key in the order of tiles, in float32; for bfloat16 inputs the rows are rounded to bfloat16. Tiles are taken in chunks
of equal places in all sequences, so the rows never need more than a bounded workspace, and neither another run nor
another order of the sequences changes a bit.
"""

# ruff: noqa: ANN001, ANN202 - Triton types the parameters of its kernels itself
# pyright: reportCallIssue=false, reportArgumentType=false, reportGeneralTypeIssues=false

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from envsynth.kernels import by_key
from envsynth.kernels.sparse_attention import configs
from envsynth.kernels.sparse_attention.forward import LOG2_E
from envsynth.kernels.sparse_attention.pieces import (
    no_pieces,
    products,
    read_entries,
    read_pieces,
    read_rows,
    write_pieces,
    write_rows,
)
from envsynth.kernels.sparse_attention.union import Entries


class Saved(NamedTuple):
    """What the forward pass kept."""

    query: Tensor
    """Queries, contiguous [B, T, H, C]."""
    latent: Tensor
    """Latents, contiguous [B, S, C]."""
    out: Tensor
    """Result, [B, T, H, R]."""
    lse: Tensor
    """Log-sum-exp of the logits, float32 [B, T, H]."""
    entries: Entries
    """What each tile read."""


@triton.jit
def _give(base, offset, there, rows, WIDTH: tl.constexpr, PADDED: tl.constexpr, ATOMIC: tl.constexpr):
    """Write rows of [rows, PADDED], or add them in no order to float32 memory."""
    if ATOMIC:
        column = tl.arange(0, PADDED)
        mask = there[:, None]
        if WIDTH != PADDED:
            mask = mask & (column < WIDTH)[None, :]
        tl.atomic_add(base + offset[:, None] + column[None, :], rows, mask=mask, sem="relaxed")
    else:
        write_rows(base, offset, there, rows, WIDTH, PADDED)


@triton.jit
def _row_products(left, base, offset, there, WIDTH: tl.constexpr, PIECE: tl.constexpr):
    """Multiply each row with the row in memory: [rows]."""
    right = read_pieces(base, offset, there, WIDTH, PIECE)
    total = tl.sum(left[0].to(tl.float32) * right[0].to(tl.float32), 1)
    for index in tl.static_range(1, (WIDTH + PIECE - 1) // PIECE):
        total += tl.sum(left[index].to(tl.float32) * right[index].to(tl.float32), 1)
    return total


@triton.jit
def _add_step(slope, value, rope, value_sum, rope_sum, COUNT: tl.constexpr):
    """Add what a step's keys give to the queries."""
    sums = ()
    for index in tl.static_range(COUNT):
        sums = sums + (tl.dot(slope, value[index], value_sum[index], input_precision="ieee"),)  # noqa: RUF005
    return sums, tl.dot(slope, rope, rope_sum, input_precision="ieee")


@triton.jit
def _give_step(  # noqa: PLR0913
    given, place, inside, weight, slope, query_value, query_rope, out_gradient,
    RANK: tl.constexpr, ROPE: tl.constexpr, PIECE: tl.constexpr, ROPE_PADDED: tl.constexpr, COUNT: tl.constexpr,
    ATOMIC: tl.constexpr,
):  # fmt: skip
    """Give a step's keys what they get from the queries, piece by piece."""
    turned_weight, turned_slope = tl.trans(weight), tl.trans(slope)
    for index in tl.static_range(COUNT):
        to_piece = tl.dot(turned_weight, out_gradient[index], input_precision="ieee")
        to_piece = tl.dot(turned_slope, query_value[index], to_piece, input_precision="ieee")
        _give(given + index * PIECE, place, inside, to_piece, min(PIECE, RANK - index * PIECE), PIECE, ATOMIC)
    to_rope = tl.dot(turned_slope, query_rope, input_precision="ieee")
    _give(given + RANK, place, inside, to_rope, ROPE, ROPE_PADDED, ATOMIC)


@triton.jit(do_not_specialize=["T", "S", "tiles", "first_tile", "chunk"])
def _gradients(  # noqa: PLR0913, PLR0915
    query, latent, gradient, out, lse, keys, bits, counts, query_gradient, given,
    T, S, tiles, first_tile, chunk, scale, log2_e,
    HEADS: tl.constexpr, RANK: tl.constexpr, ROPE: tl.constexpr, PIECE: tl.constexpr, ROPE_PADDED: tl.constexpr,
    QUERIES: tl.constexpr, ROWS: tl.constexpr, ROW_BLOCKS: tl.constexpr, KEYS: tl.constexpr, ENTRIES: tl.constexpr,
    PACKED: tl.constexpr, ATOMIC: tl.constexpr,
):  # fmt: skip
    one = tl.program_id(0) // ROW_BLOCKS
    block = tl.program_id(0) % ROW_BLOCKS
    row = block * ROWS + tl.arange(0, ROWS)
    sequence = (one // chunk).to(tl.int64)
    tile = first_tile + one % chunk
    first = tile * QUERIES
    member = row // HEADS
    live = (row < QUERIES * HEADS) & (first + member < T)
    place = (sequence * T + first) * HEADS
    WIDTH: tl.constexpr = RANK + ROPE
    COUNT: tl.constexpr = (RANK + PIECE - 1) // PIECE
    query += place * WIDTH
    query_value = read_pieces(query, row * WIDTH, live, RANK, PIECE)
    query_rope = read_rows(query + RANK, row * WIDTH, live, ROPE, ROPE_PADDED)
    out_gradient = read_pieces(gradient + place * RANK, row * RANK, live, RANK, PIECE)
    level = tl.load(lse + place + row, mask=live, other=float("inf")) * log2_e
    product = _row_products(out_gradient, out + place * RANK, row * RANK, live, RANK, PIECE)
    base = (sequence * tiles + tile) * ENTRIES
    count = ENTRIES
    if PACKED:
        count = tl.load(counts + sequence * tiles + tile)
    shift = tl.minimum(member, 31)
    latent += sequence * S * WIDTH
    if ATOMIC:
        given += sequence * S * WIDTH
    else:
        given += (one.to(tl.int64) * ROW_BLOCKS + block) * ENTRIES * WIDTH
    query_gradient += place * WIDTH
    value_sum = no_pieces(ROWS, RANK, PIECE)
    rope_sum = tl.zeros([ROWS, ROPE_PADDED], tl.float32)
    for start in range(0, count, KEYS):
        entry = start + tl.arange(0, KEYS)
        key, inside, chosen = read_entries(keys, bits, base, entry, count, S, PACKED)
        offset = key * WIDTH
        value = read_pieces(latent, offset, inside, RANK, PIECE)
        rope = read_rows(latent + RANK, offset, inside, ROPE, ROPE_PADDED)
        score = products(query_value, value, COUNT)
        score = tl.dot(query_rope, tl.trans(rope), score, input_precision="ieee")
        reads = (((chosen[None, :] >> shift[:, None]) & 1) != 0) & live[:, None]
        weight = tl.exp2(tl.where(reads, score * (scale * log2_e) - level[:, None], float("-inf")))
        slope = products(out_gradient, value, COUNT) - product[:, None]
        slope = (weight * slope * scale).to(rope.dtype)
        value_sum, rope_sum = _add_step(slope, value, rope, value_sum, rope_sum, COUNT)
        place_given = offset if ATOMIC else entry * WIDTH
        weight = weight.to(rope.dtype)
        _give_step(
            given, place_given, inside, weight, slope, query_value, query_rope, out_gradient,
            RANK, ROPE, PIECE, ROPE_PADDED, COUNT, ATOMIC,
        )  # fmt: skip
    write_pieces(query_gradient, row * WIDTH, live, value_sum, RANK, PIECE)
    write_rows(query_gradient + RANK, row * WIDTH, live, rope_sum, ROPE, ROPE_PADDED)


@triton.jit
def _sum_by_key(  # noqa: PLR0913
    given,
    entries,
    bounds,
    latent_gradient,
    RANK: tl.constexpr,
    ROPE: tl.constexpr,
    RANK_PADDED: tl.constexpr,
    ROPE_PADDED: tl.constexpr,
    ENTRIES: tl.constexpr,
    ROW_BLOCKS: tl.constexpr,
    ROWS: tl.constexpr,
):
    key = tl.program_id(0).to(tl.int64)
    begin, end = tl.load(bounds + key), tl.load(bounds + key + 1)
    WIDTH: tl.constexpr = RANK + ROPE
    value_sum = tl.zeros([ROWS, RANK_PADDED], tl.float32)
    rope_sum = tl.zeros([ROWS, ROPE_PADDED], tl.float32)
    place = begin + tl.arange(0, ROWS)
    # Read one step ahead.
    ahead = tl.load(entries + place, mask=place < end, other=0)
    for start in range(begin, end, ROWS):
        place = start + tl.arange(0, ROWS)
        entry = ahead.to(tl.int64)
        ahead = tl.load(entries + place + ROWS, mask=place + ROWS < end, other=0)
        for block in tl.static_range(ROW_BLOCKS):
            row = entry
            if ROW_BLOCKS > 1:
                row = (entry // ENTRIES * ROW_BLOCKS + block) * ENTRIES + entry % ENTRIES
            value_sum += read_rows(given, row * WIDTH, place < end, RANK, RANK_PADDED).to(tl.float32)
            rope_sum += read_rows(given + RANK, row * WIDTH, place < end, ROPE, ROPE_PADDED).to(tl.float32)
    column, rope_column = tl.arange(0, RANK_PADDED), tl.arange(0, ROPE_PADDED)
    mine = latent_gradient + key * WIDTH
    touched = begin < end
    before = tl.load(mine + column, mask=(column < RANK) & touched, other=0.0)
    tl.store(mine + column, before + tl.sum(value_sum, 0), mask=(column < RANK) & touched)
    before = tl.load(mine + RANK + rope_column, mask=(rope_column < ROPE) & touched, other=0.0)
    tl.store(mine + RANK + rope_column, before + tl.sum(rope_sum, 0), mask=(rope_column < ROPE) & touched)


class _Plan(NamedTuple):
    """Sizes of one backward pass."""

    sizes: configs.Tiles
    blocks: int
    """Programs that share a tile's rows."""
    tiles: int
    """Tiles of a sequence."""
    chunk: int
    """Tiles of a sequence that are taken at once."""
    partial: torch.dtype
    """Kind of the rows that are added up later."""


def _plan(saved: Saved, *, rank: int, deterministic: bool, workspace_bytes: int) -> _Plan:
    """Choose tiles, and as many of them at once as the workspace holds."""
    B, T, H, C = saved.query.shape
    rows, dtype = saved.entries.queries * H, saved.query.dtype
    sizes = configs.tiles(configs.BACKWARD, rows=rows, rank=rank, item_bytes=dtype.itemsize)
    blocks, tiles = -(-rows // sizes.rows), -(-T // saved.entries.queries)
    partial = torch.bfloat16 if dtype == torch.bfloat16 else torch.float32
    # Rows, rank and place of each entry, and each tile's part of its block's counters.
    counters = 4 * saved.latent.shape[1] // by_key.block_rows(saved.latent.shape[1])
    tile_bytes = B * (saved.entries.width * (blocks * C * partial.itemsize + 8) + counters)
    chunk = max(1, min(tiles, workspace_bytes // tile_bytes)) if deterministic else tiles
    # Equal parts: a short one at the end would take as long as a long one.
    chunk = -(-tiles // -(-tiles // chunk))
    return _Plan(sizes, blocks, tiles, chunk, partial)


def gradients(
    saved: Saved,
    gradient_BTHR: Tensor,
    *,
    rank: int,
    scale: float,
    deterministic: bool,
    workspace_bytes: int,
) -> tuple[Tensor, Tensor]:
    """Give the gradients of query and latent.

    Args:
        saved: What the forward pass kept.
        gradient_BTHR: Gradient of the result, contiguous [B, T, H, R].
        rank: Width R of a value.
        scale: Factor on the logits.
        deterministic: Add up in a fixed order, at the price of the workspace; else with atomics.
        workspace_bytes: Bound of the workspace; the least is one tile of every sequence.

    Returns:
        Gradients in the inputs' dtype, [B, T, H, C] and [B, S, C].
    """
    query, latent, entries = saved.query, saved.latent, saved.entries
    (B, T, H, C), S = query.shape, latent.shape[1]
    plan = _plan(saved, rank=rank, deterministic=deterministic, workspace_bytes=workspace_bytes)
    widths = {"RANK": rank, "ROPE": C - rank, "ROPE_PADDED": configs.padded(C - rank)}
    query_gradient = torch.empty_like(query)
    latent_gradient = torch.zeros(B, S, C, dtype=torch.float32, device=query.device)
    given = latent_gradient
    if deterministic:
        rows = B * plan.chunk * plan.blocks * entries.width
        given = torch.empty(rows, C, dtype=plan.partial, device=query.device)
    keys_BRW = entries.keys.view(B, plan.tiles, entries.width)
    counts_BR = None if entries.counts is None else entries.counts.view(B, plan.tiles)
    for first in range(0, plan.tiles, plan.chunk):
        last = min(first + plan.chunk, plan.tiles)
        _gradients[(B * (last - first) * plan.blocks,)](
            query, latent, gradient_BTHR, saved.out, saved.lse, entries.keys,
            entries.keys if entries.bits is None else entries.bits,
            entries.keys if entries.counts is None else entries.counts,
            query_gradient, given, T, S, plan.tiles, first, last - first, scale, LOG2_E,
            HEADS=H, PIECE=plan.sizes.piece(rank), QUERIES=entries.queries, ROWS=plan.sizes.rows,
            ROW_BLOCKS=plan.blocks, KEYS=plan.sizes.keys, ENTRIES=entries.width,
            PACKED=entries.bits is not None, ATOMIC=not deterministic,
            **plan.sizes.launch, **widths,
        )  # fmt: skip
        if deterministic:
            order = by_key.order_by_key(keys_BRW, counts_BR, S, slice(first, last))
            _sum_by_key[(B * S,)](
                given,
                *order,
                latent_gradient,
                RANK_PADDED=configs.padded(rank),
                ENTRIES=entries.width,
                ROW_BLOCKS=plan.blocks,
                ROWS=configs.SUMMED_ROWS,
                num_warps=configs.SUMMING_WARPS,
                **widths,
            )
    return query_gradient, latent_gradient.to(latent.dtype)
