"""The hidden layer, whose rows are gathered and activated where they are multiplied, and the sum over choices.

Shape letters: N tokens, A active experts per token, E experts, D model, F expert width, X = N * A choices in the order
of their experts (rows).
"""

# ruff: noqa: ANN001, ANN202 - Triton types the parameters of its kernels itself
# pyright: reportArgumentType=false, reportCallIssue=false, reportGeneralTypeIssues=false

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from envsynth.kernels.experts.configs import Tile
from envsynth.kernels.experts.products import TILES_AT_ONCE, grid_for, load_block, precision_for, tile_and_column
from envsynth.kernels.experts.sorting import Sorted

_REDUCED = 4096
"""Elements that one program of `add_choices` holds."""


@triton.jit
def _multiply_up_tile(  # noqa: PLR0913
    tile,
    block,
    expert,
    x_ptr,
    gate_ptr,
    up_ptr,
    order_ptr,
    tile_row_ptr,
    tile_end_ptr,
    hidden_ptr,
    gates_ptr,
    ups_ptr,
    ACTIVE: tl.constexpr,
    D: tl.constexpr,
    F: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    DEPTH: tl.constexpr,
    KEEP: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Give silu(gate x) * up x of a tile of rows, [X, F], and if wanted both products."""
    COLUMNS_END: tl.constexpr = F % COLUMNS != 0
    DEPTH_END: tl.constexpr = D % DEPTH != 0
    rows = tl.load(tile_row_ptr + tile) + tl.arange(0, ROWS)
    there = rows < tl.load(tile_end_ptr + tile)
    token = tl.load(order_ptr + rows, mask=there, other=0) // ACTIVE
    columns = block * COLUMNS + tl.arange(0, COLUMNS)
    depth = tl.arange(0, DEPTH)
    column_mask = columns[None, :] < F
    x_ptrs = x_ptr + token.to(tl.int64)[:, None] * D + depth[None, :]
    weight = expert.to(tl.int64) * (F * D) + columns[None, :] * D + depth[:, None]
    gate_ptrs, up_ptrs = gate_ptr + weight, up_ptr + weight
    gate_sum = tl.zeros((ROWS, COLUMNS), tl.float32)
    up_sum = tl.zeros((ROWS, COLUMNS), tl.float32)
    for first in range(0, D, DEPTH):
        x = load_block(x_ptrs + first, depth[None, :] < D - first, True, DEPTH_END, False)
        gate = load_block(gate_ptrs + first, depth[:, None] < D - first, column_mask, DEPTH_END, COLUMNS_END)
        up = load_block(up_ptrs + first, depth[:, None] < D - first, column_mask, DEPTH_END, COLUMNS_END)
        gate_sum = tl.dot(x, gate, gate_sum, input_precision=PRECISION)
        up_sum = tl.dot(x, up, up_sum, input_precision=PRECISION)
    # Activated as the backward pass will see them: rounded.
    gate, up = gate_sum.to(x_ptr.dtype.element_ty), up_sum.to(x_ptr.dtype.element_ty)
    where = rows.to(tl.int64)[:, None] * F + columns[None, :]
    mask = there[:, None] & column_mask
    if KEEP:
        tl.store(gates_ptr + where, gate, mask=mask)
        tl.store(ups_ptr + where, up, mask=mask)
    wide = gate.to(tl.float32)
    hidden = wide / (1.0 + tl.exp(-wide)) * up.to(tl.float32)
    tl.store(hidden_ptr + where, hidden.to(x_ptr.dtype.element_ty), mask=mask)


@triton.jit
def _multiply_up(  # noqa: PLR0913
    x_ptr,
    gate_ptr,
    up_ptr,
    order_ptr,
    tile_expert_ptr,
    tile_row_ptr,
    tile_end_ptr,
    hidden_ptr,
    gates_ptr,
    ups_ptr,
    n_tiles_ptr,
    n_tiles,
    ACTIVE: tl.constexpr,
    D: tl.constexpr,
    F: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    DEPTH: tl.constexpr,
    KEEP: tl.constexpr,
    PRECISION: tl.constexpr,
    GROUP: tl.constexpr,
    PERSISTENT: tl.constexpr,
):
    """Run `_multiply_up_tile` on one tile, or on one after another."""
    BLOCKS: tl.constexpr = (F + COLUMNS - 1) // COLUMNS
    if PERSISTENT:
        count = tl.load(n_tiles_ptr)
        for program in tl.range(tl.program_id(0), count * BLOCKS, tl.num_programs(0), flatten=True):
            tile, block = tile_and_column(program, count, BLOCKS, GROUP)
            expert = tl.load(tile_expert_ptr + tile)
            _multiply_up_tile(
                tile, block, expert, x_ptr, gate_ptr, up_ptr, order_ptr, tile_row_ptr, tile_end_ptr, hidden_ptr,
                gates_ptr, ups_ptr, ACTIVE, D, F, ROWS, COLUMNS, DEPTH, KEEP, PRECISION
            )  # fmt: skip
    else:
        tile, block = tile_and_column(tl.program_id(0), n_tiles, BLOCKS, GROUP)
        expert = tl.load(tile_expert_ptr + tile)
        if expert >= 0:
            _multiply_up_tile(
                tile, block, expert, x_ptr, gate_ptr, up_ptr, order_ptr, tile_row_ptr, tile_end_ptr, hidden_ptr,
                gates_ptr, ups_ptr, ACTIVE, D, F, ROWS, COLUMNS, DEPTH, KEEP, PRECISION
            )  # fmt: skip


@triton.jit
def _add_choices(  # noqa: PLR0913
    rows_ptr,
    place_ptr,
    gates_ptr,
    out_ptr,
    n_tokens,
    ACTIVE: tl.constexpr,
    D: tl.constexpr,
    TOKENS: tl.constexpr,
    COLUMNS: tl.constexpr,
    WEIGHTED: tl.constexpr,
):
    """Add a token's rows in the order of its choices, [N, D]."""
    token = tl.program_id(0) * TOKENS + tl.arange(0, TOKENS)
    columns = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    total = tl.zeros((TOKENS, COLUMNS), tl.float32)
    inside = token < n_tokens
    for choice in tl.static_range(ACTIVE):
        at = token.to(tl.int64) * ACTIVE + choice
        row = tl.load(place_ptr + at, mask=inside, other=-1)
        mask = (row >= 0)[:, None] & (columns < D)[None, :]
        part = tl.load(rows_ptr + row.to(tl.int64)[:, None] * D + columns[None, :], mask=mask, other=0.0)
        if WEIGHTED:
            gate = tl.load(gates_ptr + at, mask=row >= 0, other=0.0).to(tl.float32)
            total += part.to(tl.float32) * gate[:, None]
        else:
            total += part.to(tl.float32)
    where = token.to(tl.int64)[:, None] * D + columns[None, :]
    mask = inside[:, None] & (columns < D)[None, :]
    tl.store(out_ptr + where, total.to(out_ptr.dtype.element_ty), mask=mask)


def multiply_up(
    x_ND: Tensor,
    weights: tuple[Tensor, Tensor],
    by_expert: Sorted,
    active: int,
    tile: Tile,
    *,
    rows: int,
    keep: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Give the hidden layer, and both products that it comes from.

    Args:
        x_ND: Tokens, contiguous [N, D].
        weights: Gate and up matrices, contiguous [E, F, D].
        by_expert: The choices' order.
        active: Active experts A per token (count).
        tile: Columns and depth of a tile.
        rows: Rows of a tile (count).
        keep: Whether to store the products; without, they are empty.

    Returns:
        Hidden layer, gate and up products, in x's type [X, F].
    """
    gate_EFD, up_EFD = weights
    width = gate_EFD.shape[1]
    hidden_XF = x_ND.new_empty(len(by_expert.order_X), width)
    gates_XF, ups_XF = (torch.empty_like(hidden_XF) if keep else x_ND.new_empty(0) for _ in range(2))
    n_tiles = len(by_expert.tile_row_T)
    _multiply_up[grid_for(tile, n_tiles * triton.cdiv(width, tile.columns))](
        x_ND,
        gate_EFD,
        up_EFD,
        by_expert.order_X,
        by_expert.tile_expert_T,
        by_expert.tile_row_T,
        by_expert.tile_end_T,
        hidden_XF,
        gates_XF,
        ups_XF,
        by_expert.n_tiles,
        n_tiles,
        ACTIVE=active,
        D=x_ND.shape[1],
        F=width,
        ROWS=rows,
        COLUMNS=tile.columns,
        DEPTH=tile.depth,
        GROUP=TILES_AT_ONCE,
        PERSISTENT=tile.persistent,
        KEEP=keep,
        PRECISION=precision_for(x_ND.dtype),
        num_warps=tile.warps,
        num_stages=tile.stages,
    )
    return hidden_XF, gates_XF, ups_XF


def add_choices(rows_XD: Tensor, by_expert: Sorted, gates_NA: Tensor, dtype: torch.dtype, *, weighted: bool) -> Tensor:
    """Add the rows of each token, in float32 and in the order of its choices.

    Args:
        rows_XD: Rows by expert, contiguous [X, D].
        by_expert: The choices' order.
        gates_NA: Gates, contiguous [N, A].
        dtype: Type of the sums.
        weighted: Whether each row counts by its gate.

    Returns:
        Sums, [N, D].
    """
    (tokens, active), width = gates_NA.shape, rows_XD.shape[1]
    out_ND = rows_XD.new_empty(tokens, width, dtype=dtype)
    # The largest power of two in the width wastes no lane, if it is not too small.
    power = width & -width
    columns = min(power if power >= 64 else triton.next_power_of_2(width), 512)
    at_once = _REDUCED // columns
    _add_choices[(triton.cdiv(tokens, at_once), triton.cdiv(width, columns))](
        rows_XD,
        by_expert.place_X,
        gates_NA,
        out_ND,
        tokens,
        ACTIVE=active,
        D=width,
        TOKENS=at_once,
        COLUMNS=columns,
        WEIGHTED=weighted,
        num_warps=4,
    )
    return out_ND
