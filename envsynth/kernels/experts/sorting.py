"""Choices sorted by expert on the device, and the table of tiles: counts, prefix sums and ranks; no wait for the host.

Shape letters: X choices, E experts, C chunks of choices, T tiles.

Choices of one expert keep the order of their tokens. A choice's place is the start of its expert, plus the choices of
that expert in earlier chunks, plus those before it in its chunk. All are integers, so the result is the same whichever
program runs first. How many tiles there are is known on the device alone; the host knows a bound, and the table says -1
for tiles that are not there.
"""

# ruff: noqa: ANN001, ANN202 - Triton types the parameters of its kernels itself
# pyright: reportArgumentType=false, reportCallIssue=false, reportGeneralTypeIssues=false

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

CHUNK = 256
"""Choices that one program counts and ranks."""
_TILES_AT_ONCE = 32


class Sorted(NamedTuple):
    """Choices by expert, and the tiles of their rows."""

    order_X: Tensor
    """Choice (token * A + place among its experts) of each row, int32 [X]; undefined behind the last row."""
    place_X: Tensor
    """Row of each choice, int32 [X]; -1 where its expert is not one of 0 to E - 1."""
    starts: Tensor
    """First row of each expert, and behind the last row, int32 [E + 1]."""
    tile_expert_T: Tensor
    """Expert of each tile, int32 [T]; -1 where there is no tile."""
    tile_row_T: Tensor
    """First row of each tile, int32 [T]."""
    tile_end_T: Tensor
    """Row behind the last of each tile's expert, int32 [T]."""
    n_tiles: Tensor
    """How many tiles there are, int32 [1]."""


@triton.jit
def _load_chunk(chosen_ptr, offsets, n_choices, n_experts):
    """Load experts; -1 behind the end and for what is no expert."""
    chosen = tl.load(chosen_ptr + offsets, mask=offsets < n_choices, other=-1)
    return tl.where((chosen >= 0) & (chosen < n_experts), chosen, -1).to(tl.int32)


@triton.jit
def _count(chosen_ptr, counts_ptr, n_choices, n_experts, n_chunks, CHUNK: tl.constexpr, EXPERTS: tl.constexpr):
    """Count each expert's choices in one chunk."""
    chunk = tl.program_id(0)
    chosen = _load_chunk(chosen_ptr, chunk * CHUNK + tl.arange(0, CHUNK), n_choices, n_experts)
    counts = tl.histogram(tl.maximum(chosen, 0), EXPERTS, mask=chosen >= 0)
    experts = tl.arange(0, EXPERTS)
    tl.store(counts_ptr + experts * n_chunks + chunk, counts, mask=experts < n_experts)


@triton.jit
def _sum_before(counts_ptr, totals_ptr, n_chunks, BLOCK: tl.constexpr):
    """Turn one expert's counts into the counts of earlier chunks, and give their total."""
    expert = tl.program_id(0)
    before = tl.zeros((), tl.int32)
    for first in range(0, n_chunks, BLOCK):
        chunks = first + tl.arange(0, BLOCK)
        where = counts_ptr + expert * n_chunks + chunks
        counts = tl.load(where, mask=chunks < n_chunks, other=0)
        tl.store(where, before + tl.cumsum(counts, 0) - counts, mask=chunks < n_chunks)
        before += tl.sum(counts, 0)
    tl.store(totals_ptr + expert, before)


@triton.jit
def _tabulate(  # noqa: PLR0913
    totals_ptr,
    starts_ptr,
    tile_expert_ptr,
    tile_row_ptr,
    tile_end_ptr,
    n_tiles_ptr,
    n_experts,
    n_tiles,
    ROWS: tl.constexpr,
    TILES: tl.constexpr,
    EXPERTS: tl.constexpr,
):
    """Write some tiles of the table; the first program also writes the starts of the experts."""
    experts = tl.arange(0, EXPERTS)
    totals = tl.load(totals_ptr + experts, mask=experts < n_experts, other=0)
    ends = tl.cumsum(totals, 0)
    n_tiles_of = (totals + ROWS - 1) // ROWS
    tile_ends = tl.cumsum(n_tiles_of, 0)
    tiles = tl.program_id(0) * TILES + tl.arange(0, TILES)
    found = tl.sum((tile_ends[None, :] <= tiles[:, None]).to(tl.int32), 1)
    # Row of a tile = its number * ROWS + what its expert's start lies before that of full tiles.
    shift = ends - totals - (tile_ends - n_tiles_of) * ROWS
    its = experts[None, :] == found[:, None]
    row = tiles * ROWS + tl.sum(tl.where(its, shift[None, :], 0), 1)
    end = tl.sum(tl.where(its, ends[None, :], 0), 1)
    there = tiles < tl.max(tile_ends, 0)
    tl.store(tile_expert_ptr + tiles, tl.where(there, found, -1), mask=tiles < n_tiles)
    tl.store(tile_row_ptr + tiles, tl.where(there, row, 0), mask=tiles < n_tiles)
    tl.store(tile_end_ptr + tiles, end, mask=tiles < n_tiles)
    if tl.program_id(0) == 0:
        tl.store(starts_ptr + experts, ends - totals, mask=experts < n_experts)
        tl.store(starts_ptr + n_experts, tl.max(ends, 0))
        tl.store(n_tiles_ptr, tl.max(tile_ends, 0))


@triton.jit
def _place(  # noqa: PLR0913
    chosen_ptr,
    before_ptr,
    starts_ptr,
    order_ptr,
    place_ptr,
    n_choices,
    n_experts,
    n_chunks,
    CHUNK: tl.constexpr,
    STEP: tl.constexpr,
):
    """Give each choice of one chunk its row."""
    chunk = tl.program_id(0)
    offsets = chunk * CHUNK + tl.arange(0, CHUNK)
    chosen = _load_chunk(chosen_ptr, offsets, n_choices, n_experts)
    rank = tl.zeros((CHUNK,), tl.int32)
    for first in range(0, CHUNK, STEP):
        others = chunk * CHUNK + first + tl.arange(0, STEP)
        equal = chosen[:, None] == _load_chunk(chosen_ptr, others, n_choices, n_experts)[None, :]
        rank += tl.sum((equal & (others[None, :] < offsets[:, None])).to(tl.int32), 1)
    there = chosen >= 0
    rank += tl.load(before_ptr + chosen * n_chunks + chunk, mask=there, other=0)
    rank += tl.load(starts_ptr + chosen, mask=there, other=0)
    tl.store(place_ptr + offsets, tl.where(there, rank, -1), mask=offsets < n_choices)
    tl.store(order_ptr + rank, offsets, mask=there)


def sort_choices(chosen_NA: Tensor, n_experts: int, tile_rows: int) -> Sorted:
    """Sort choices by expert and cut each expert's rows into tiles.

    Args:
        chosen_NA: Experts, int32 or int64 [N, A], contiguous.
        n_experts: Experts E (count).
        tile_rows: Rows of a tile (count).

    Returns:
        The order, its inverse, and the tiles.
    """
    choices = chosen_NA.numel()
    n_chunks, n_tiles = triton.cdiv(choices, CHUNK), triton.cdiv(choices, tile_rows) + n_experts
    padded = max(triton.next_power_of_2(n_experts), 32)

    def ints(*shape: int) -> Tensor:
        return torch.empty(*shape, dtype=torch.int32, device=chosen_NA.device)

    counts, totals = ints(n_experts, n_chunks), ints(n_experts)
    found = Sorted(ints(choices), ints(choices), ints(n_experts + 1), *(ints(n_tiles) for _ in range(3)), ints(1))
    _count[(n_chunks,)](chosen_NA, counts, choices, n_experts, n_chunks, CHUNK=CHUNK, EXPERTS=padded)
    _sum_before[(n_experts,)](counts, totals, n_chunks, BLOCK=1024)
    _tabulate[(triton.cdiv(n_tiles, _TILES_AT_ONCE),)](
        totals,
        found.starts,
        found.tile_expert_T,
        found.tile_row_T,
        found.tile_end_T,
        found.n_tiles,
        n_experts,
        n_tiles,
        ROWS=tile_rows,
        TILES=_TILES_AT_ONCE,
        EXPERTS=padded,
        num_warps=8,
    )
    _place[(n_chunks,)](
        chosen_NA,
        counts,
        found.starts,
        found.order_X,
        found.place_X,
        choices,
        n_experts,
        n_chunks,
        CHUNK=CHUNK,
        STEP=16,
        num_warps=8,
    )
    return found
