"""The entries of many rows ordered by key, then by row: a counting sort.

A backward pass adds up what many queries give to one key, so it needs to know who they are. Rows are cut into blocks,
each with a counter for every key. The counts of earlier blocks are where a block's entries of a key begin; one program
walks the rows of a block one after the other, with counters that are its own, so that no order is open.

Shape letters: B sequences, R rows of a sequence, W entries of a row, S keys of a sequence, N blocks of a sequence.
"""

# ruff: noqa: ANN001, ANN202 - Triton types the parameters of its kernels itself
# pyright: reportCallIssue=false, reportArgumentType=false

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

LEAST_ROWS, MOST_ROWS = 16, 64
"""Rows of a block: more make fewer counters, and a longer walk."""
COUNTED_BLOCKS = 512
"""Blocks that fill a GPU, and whose counters its cache still holds."""
_BLOCKS_AT_ONCE = tl.constexpr(16)
_KEYS_AT_ONCE = tl.constexpr(128)


class Order(NamedTuple):
    """Entries in the order of sequence, key and row."""

    entries: Tensor
    """Which entry stands at each place, counted in [B, R, W], int32 [B * R * W]; of no meaning behind the last."""
    bounds: Tensor
    """Where the entries of each key begin, and the end of the last, int32 [B * S + 1]."""


def block_rows(n_keys: int) -> int:
    """Choose the rows of a block; as many keys as rows are the usual case.

    Args:
        n_keys: Keys S of a sequence.

    Returns:
        Rows (count), a power of two.
    """
    return min(MOST_ROWS, max(LEAST_ROWS, (1 << max(n_keys - 1, 0).bit_length()) // COUNTED_BLOCKS))


@triton.jit
def _larger(left, right):
    return tl.maximum(left, right)


@triton.jit
def _keys_of(keys, counts, row, entry, S, WIDTH: tl.constexpr, COUNTED: tl.constexpr):
    """Load a row's keys; -1 where there is no entry."""
    count = WIDTH
    if COUNTED:
        count = tl.minimum(tl.load(counts + row), WIDTH)
    key = tl.load(keys + row * WIDTH + entry, mask=entry < count, other=-1)
    return tl.where(key < S, key, -1)


# Few rows would make a constant of 1, which cannot be a bound of a loop.
@triton.jit(do_not_specialize=["all_rows", "first", "rows", "S", "blocks"])
def _count(  # noqa: PLR0913
    keys,
    counts,
    counters,
    all_rows,
    first,
    rows,
    S,
    blocks,
    WIDTH: tl.constexpr,
    SIZE: tl.constexpr,
    BLOCK: tl.constexpr,
    COUNTED: tl.constexpr,
):
    """Count how often a row names each key, for its block."""
    sequence, row = (tl.program_id(0) // rows).to(tl.int64), tl.program_id(0) % rows
    key = _keys_of(keys, counts, sequence * all_rows + first + row, tl.arange(0, SIZE), S, WIDTH, COUNTED)
    counters += (sequence * blocks + row // BLOCK) * S
    tl.atomic_add(counters + key, 1, mask=key >= 0, sem="relaxed")


@triton.jit(do_not_specialize=["all_rows", "first", "rows", "S", "blocks"])
def _walk(  # noqa: PLR0913
    keys,
    counts,
    counters,
    bounds,
    entries,
    all_rows,
    first,
    rows,
    S,
    blocks,
    WIDTH: tl.constexpr,
    SIZE: tl.constexpr,
    BLOCK: tl.constexpr,
    COUNTED: tl.constexpr,
):
    """Give the entries of a block's rows their places, one row after the other."""
    sequence, block = (tl.program_id(0) // blocks).to(tl.int64), tl.program_id(0) % blocks
    counters += (sequence * blocks + block) * S
    bounds += sequence * S
    begin, end = block * BLOCK, tl.minimum(block * BLOCK + BLOCK, rows)
    place = sequence * all_rows + first
    entry = tl.arange(0, SIZE)
    ahead = _keys_of(keys, counts, place + begin, entry, S, WIDTH, COUNTED)
    for row in range(begin, end):
        key = ahead
        # Read one row ahead; the last row is read twice.
        ahead = _keys_of(keys, counts, place + tl.minimum(row + 1, end - 1), entry, S, WIDTH, COUNTED)
        real = key >= 0
        number = ((sequence * rows + row) * WIDTH + entry).to(tl.int32)
        start = tl.load(bounds + key, mask=real, other=0)
        if COUNTED:
            # Entries of one key stand next to each other, and may hold different sums: their order must not be open.
            before = tl.gather(key, tl.maximum(entry - 1, 0), 0)
            after = tl.gather(key, tl.minimum(entry + 1, SIZE - 1), 0)
            starts = (entry == 0) | (before != key)
            ends = (entry == SIZE - 1) | (after != key)
            rank = entry - tl.associative_scan(tl.where(starts, entry, 0), 0, _larger)
            rank += tl.load(counters + key, mask=real, other=0)
            tl.store(entries + start + rank, number, mask=real)
            # All have read before anyone counts, and all have counted before the next row reads.
            tl.debug_barrier()
            tl.store(counters + key, rank + 1, mask=real & ends)
        else:
            # A query that names a key several times gives it the same each time, so they may take any of its places.
            rank = tl.atomic_add(counters + key, 1, mask=real, sem="relaxed", scope="cta")
            tl.store(entries + start + rank, number, mask=real)
        tl.debug_barrier()


@triton.jit(do_not_specialize=["blocks", "S"])
def _add_up(counters, totals, blocks, S, BLOCKS: tl.constexpr, KEYS: tl.constexpr):
    """Turn the counters of a sequence's blocks into what came before each block."""
    parts = tl.cdiv(S, KEYS)
    sequence = (tl.program_id(0) // parts).to(tl.int64)
    key = (tl.program_id(0) % parts) * KEYS + tl.arange(0, KEYS)
    total = tl.zeros((KEYS,), tl.int32)
    for first in range(0, blocks, BLOCKS):
        block = first + tl.arange(0, BLOCKS)
        here = counters + (sequence * blocks + block)[:, None] * S + key[None, :]
        mask = (block < blocks)[:, None] & (key < S)[None, :]
        counted = tl.load(here, mask=mask, other=0)
        tl.store(here, tl.cumsum(counted, 0) - counted + total[None, :], mask=mask)
        total += tl.sum(counted, 0)
    tl.store(totals + sequence * S + key, total, mask=key < S)


def order_by_key(keys_BRW: Tensor, counts_BR: Tensor | None, n_keys: int, rows: slice) -> Order:
    """Order the entries of some rows by sequence, key and row.

    Args:
        keys_BRW: Keys of each row, contiguous int32 [B, R, W]. Those below 0 or from S on are no entries.
        counts_BR: Entries of each row, contiguous int32 [B, R], of which equal ones stand next to each other; None: all
            W, of which equal ones are exchangeable.
        n_keys: Keys S of a sequence.
        rows: Rows of each sequence that are ordered.

    Returns:
        The order; rows are counted from the first of these.
    """
    B, R, W = keys_BRW.shape
    n_rows = rows.stop - rows.start
    block = block_rows(n_keys)
    blocks, device = -(-n_rows // block), keys_BRW.device
    counters = torch.zeros(B, blocks, n_keys, dtype=torch.int32, device=device)
    size = triton.next_power_of_2(W)
    warps = max(1, min(8, size // 128))
    what = (keys_BRW, keys_BRW if counts_BR is None else counts_BR, counters)
    sizes = (R, rows.start, n_rows, n_keys, blocks)
    kinds = {"WIDTH": W, "SIZE": size, "BLOCK": block, "COUNTED": counts_BR is not None}
    _count[(B * n_rows,)](*what, *sizes, **kinds, num_warps=warps)
    bounds = torch.zeros(B * n_keys + 1, dtype=torch.int32, device=device)
    totals = torch.empty(B * n_keys, dtype=torch.int32, device=device)
    _add_up[(B * -(-n_keys // _KEYS_AT_ONCE.value),)](
        counters, totals, blocks, n_keys, BLOCKS=_BLOCKS_AT_ONCE, KEYS=_KEYS_AT_ONCE
    )
    torch.cumsum(totals, 0, dtype=torch.int32, out=bounds[1:])
    entries = torch.empty(B * n_rows * W, dtype=torch.int32, device=device)
    _walk[(B * blocks,)](*what, bounds, entries, *sizes, **kinds, num_warps=warps)
    return Order(entries, bounds)
