"""The keys of a tile of queries: each key once, in ascending order, with a bit for each query that selected it."""

# ruff: noqa: ANN001, ANN202 - Triton types the parameters of its kernels itself
# pyright: reportCallIssue=false, reportArgumentType=false

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

_NOTHING = tl.constexpr(2**31 - 1)
"""Sorts behind every entry."""


class Entries(NamedTuple):
    """What each tile of queries reads."""

    keys: Tensor
    """Places of keys, int32 [B * tiles, width]; unused ones hold anything."""
    bits: Tensor | None
    """Bit g is set where the tile's query g selected the key, int32 like `keys`; None where nothing is packed."""
    counts: Tensor | None
    """Entries used, int32 [B * tiles]; None where nothing is packed: the row of `keys` is the query's own selection."""
    queries: int
    """Queries of a tile."""

    @property
    def width(self) -> int:
        """Room for entries of a tile."""
        return self.keys.shape[1]


@triton.jit
def _either(starts_left, bits_left, starts_right, bits_right):
    """Join bits from the left, unless an entry starts on the right."""
    return starts_left | starts_right, tl.where(starts_right != 0, bits_right, bits_left | bits_right)


@triton.jit(do_not_specialize=["T", "S", "tiles"])
def _unite(  # noqa: PLR0913
    topk,
    keys,
    bits,
    counts,
    T,
    S,
    tiles,
    K: tl.constexpr,
    QUERIES: tl.constexpr,
    SIZE: tl.constexpr,
):
    tile = tl.program_id(0)
    first = (tile % tiles) * QUERIES
    lane = tl.arange(0, SIZE)
    member = lane // K
    base = ((tile // tiles).to(tl.int64) * T + first) * K
    there = (member < QUERIES) & (first + member < T)
    key = tl.load(topk + base + lane, mask=there, other=-1)
    valid = (key >= 0) & (key < S)
    entry = tl.sort(tl.where(valid, key * QUERIES + member, _NOTHING))
    before = tl.gather(entry, tl.maximum(lane - 1, 0), 0)
    after = tl.gather(entry, tl.minimum(lane + 1, SIZE - 1), 0)
    key = entry // QUERIES
    real = entry != _NOTHING
    # A query that names a key twice counts it twice: the second one starts an entry of its own.
    starts = (lane == 0) | (before // QUERIES != key) | (before == entry)
    ends = ((lane == SIZE - 1) | (after // QUERIES != key) | (after == entry)) & real
    _, joined = tl.associative_scan((starts.to(tl.int32), 1 << (entry % QUERIES)), 0, _either)
    place = tl.cumsum(ends.to(tl.int32), 0)
    room = tile.to(tl.int64) * (QUERIES * K)
    tl.store(keys + room + place - 1, key, mask=ends)
    tl.store(bits + room + place - 1, joined, mask=ends)
    tl.store(counts + tile, tl.sum(ends.to(tl.int32), 0))


def entries_of(topk_BTK: Tensor, size: int, queries: int) -> Entries:
    """Give the entries of every tile.

    Args:
        topk_BTK: Selected keys, contiguous int32 [B, T, K].
        size: Keys S of a sequence; entries below 0 or from S on are left out.
        queries: Queries of a tile; 1 leaves rows as they are.

    Returns:
        The entries.
    """
    B, T, K = topk_BTK.shape
    if queries == 1:
        return Entries(topk_BTK.view(B * T, K), None, None, 1)
    tiles = -(-T // queries)
    keys = torch.empty(B * tiles, queries * K, dtype=torch.int32, device=topk_BTK.device)
    bits = torch.empty_like(keys)
    counts = torch.empty(B * tiles, dtype=torch.int32, device=topk_BTK.device)
    sorted_at_once = max(2, triton.next_power_of_2(queries * K))
    _unite[(B * tiles,)](
        topk_BTK,
        keys,
        bits,
        counts,
        T,
        size,
        tiles,
        K=K,
        QUERIES=queries,
        SIZE=sorted_at_once,
        num_warps=max(1, min(8, sorted_at_once // 256)),
    )
    return Entries(keys, bits, counts, queries)
