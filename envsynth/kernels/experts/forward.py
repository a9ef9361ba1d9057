"""Experts as grouped matrix products: rows are gathered, activated and added up where they are multiplied.

Shape letters: N tokens, A active experts per token, E experts, D model, F expert width, X = N * A choices in the order
of their experts (rows), T tiles of rows.

Each program takes one tile of one expert's rows and some columns. A row of a tile behind its expert's last is computed
from a row that exists and is not stored; rows of a product never mix, so it reaches no other. What a row's result is
depends on neither its place in a tile nor the other rows.
"""

# ruff: noqa: ANN001, ANN201, ANN202 - Triton types the parameters of its kernels itself
# pyright: reportArgumentType=false, reportCallIssue=false, reportGeneralTypeIssues=false

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from envsynth.kernels.experts.configs import Tile
from envsynth.kernels.experts.sorting import Sorted

TILES_AT_ONCE = 8
"""Tiles of rows whose columns are computed together, so that the second-level cache holds what they share."""
_REDUCED = 4096
"""Elements that one program of `add_choices` holds."""


@triton.jit
def tile_and_column(program, n_tiles, BLOCKS: tl.constexpr, GROUP: tl.constexpr):
    """Turn a program's number into a tile of rows and a block of columns: a few tiles by all columns at a time."""
    group = program // (GROUP * BLOCKS)
    first = group * GROUP
    size = tl.minimum(n_tiles - first, GROUP)
    within = program - first * BLOCKS
    return first + within % size, within // size


@triton.jit
def load_block(pointers, row_mask, column_mask, ROWS_END: tl.constexpr, COLUMNS_END: tl.constexpr):
    """Load a block, with zeros behind the ends that a block can cross."""
    if ROWS_END and COLUMNS_END:
        return tl.load(pointers, mask=row_mask & column_mask, other=0.0)
    if ROWS_END:
        return tl.load(pointers, mask=row_mask, other=0.0)
    if COLUMNS_END:
        return tl.load(pointers, mask=column_mask, other=0.0)
    return tl.load(pointers)


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
    n_tiles,
    ACTIVE: tl.constexpr,
    D: tl.constexpr,
    F: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    DEPTH: tl.constexpr,
    GROUP: tl.constexpr,
    KEEP: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Give silu(gate x) * up x of a tile of rows, [X, F], and if wanted both products."""
    BLOCKS: tl.constexpr = (F + COLUMNS - 1) // COLUMNS
    COLUMNS_END: tl.constexpr = F % COLUMNS != 0
    DEPTH_END: tl.constexpr = D % DEPTH != 0
    tile, block = tile_and_column(tl.program_id(0), n_tiles, BLOCKS, GROUP)
    expert = tl.load(tile_expert_ptr + tile)
    if expert < 0:
        return
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
def _multiply(  # noqa: PLR0913
    left_ptr,
    weight_ptr,
    second_left_ptr,
    second_weight_ptr,
    tile_expert_ptr,
    tile_row_ptr,
    tile_end_ptr,
    out_ptr,
    n_tiles,
    INPUTS: tl.constexpr,
    OUTPUTS: tl.constexpr,
    STRIDE_IN: tl.constexpr,
    STRIDE_OUT: tl.constexpr,
    TWO: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    DEPTH: tl.constexpr,
    GROUP: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Multiply a tile of rows with its expert's matrix, or add two such products, [X, OUTPUTS]."""
    BLOCKS: tl.constexpr = (OUTPUTS + COLUMNS - 1) // COLUMNS
    COLUMNS_END: tl.constexpr = OUTPUTS % COLUMNS != 0
    DEPTH_END: tl.constexpr = INPUTS % DEPTH != 0
    tile, block = tile_and_column(tl.program_id(0), n_tiles, BLOCKS, GROUP)
    expert = tl.load(tile_expert_ptr + tile)
    if expert < 0:
        return
    rows = tl.load(tile_row_ptr + tile) + tl.arange(0, ROWS)
    end = tl.load(tile_end_ptr + tile)
    columns = block * COLUMNS + tl.arange(0, COLUMNS)
    depth = tl.arange(0, DEPTH)
    column_mask = columns[None, :] < OUTPUTS
    left = tl.minimum(rows, end - 1).to(tl.int64)[:, None] * INPUTS + depth[None, :]
    weight = expert.to(tl.int64) * (INPUTS * OUTPUTS) + columns[None, :] * STRIDE_OUT + depth[:, None] * STRIDE_IN
    total = tl.zeros((ROWS, COLUMNS), tl.float32)
    for first in range(0, INPUTS, DEPTH):
        row_mask, depth_mask = depth[None, :] < INPUTS - first, depth[:, None] < INPUTS - first
        at, weight_at = left + first, weight + first * STRIDE_IN
        a = load_block(left_ptr + at, row_mask, True, DEPTH_END, False)
        b = load_block(weight_ptr + weight_at, depth_mask, column_mask, DEPTH_END, COLUMNS_END)
        total = tl.dot(a, b, total, input_precision=PRECISION)
        if TWO:
            a = load_block(second_left_ptr + at, row_mask, True, DEPTH_END, False)
            b = load_block(second_weight_ptr + weight_at, depth_mask, column_mask, DEPTH_END, COLUMNS_END)
            total = tl.dot(a, b, total, input_precision=PRECISION)
    where = rows.to(tl.int64)[:, None] * OUTPUTS + columns[None, :]
    tl.store(out_ptr + where, total.to(out_ptr.dtype.element_ty), mask=(rows < end)[:, None] & column_mask)


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


def precision_for(dtype: torch.dtype) -> str:
    """Say how `tl.dot` multiplies: whole float32, never rounded to fewer bits; halves have one way only."""
    return "ieee" if dtype == torch.float32 else "tf32"


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
    _multiply_up[(n_tiles * triton.cdiv(width, tile.columns),)](
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
        n_tiles,
        ACTIVE=active,
        D=x_ND.shape[1],
        F=width,
        ROWS=rows,
        COLUMNS=tile.columns,
        DEPTH=tile.depth,
        GROUP=TILES_AT_ONCE,
        KEEP=keep,
        PRECISION=precision_for(x_ND.dtype),
        num_warps=tile.warps,
        num_stages=tile.stages,
    )
    return hidden_XF, gates_XF, ups_XF


def multiply(
    lefts: tuple[Tensor, ...],
    weights: tuple[Tensor, ...],
    by_expert: Sorted,
    tile: Tile,
    *,
    rows: int,
    transposed: bool,
) -> Tensor:
    """Multiply each row with its expert's matrix; of two lefts with two stacks of matrices give the sum.

    Args:
        lefts: One or two of rows, contiguous [X, inputs].
        weights: As many stacks, contiguous [E, outputs, inputs], or transposed [E, inputs, outputs].
        by_expert: The choices' order.
        tile: Columns and depth of a tile.
        rows: Rows of a tile (count).
        transposed: How the matrices lie.

    Returns:
        Products in the rows' type, [X, outputs].
    """
    inputs = lefts[0].shape[1]
    outputs = weights[0].shape[2 if transposed else 1]
    out = lefts[0].new_empty(len(lefts[0]), outputs)
    n_tiles = len(by_expert.tile_row_T)
    _multiply[(n_tiles * triton.cdiv(outputs, tile.columns),)](
        lefts[0],
        weights[0],
        lefts[-1],
        weights[-1],
        by_expert.tile_expert_T,
        by_expert.tile_row_T,
        by_expert.tile_end_T,
        out,
        n_tiles,
        INPUTS=inputs,
        OUTPUTS=outputs,
        STRIDE_IN=outputs if transposed else 1,
        STRIDE_OUT=1 if transposed else inputs,
        TWO=len(lefts) == 2,
        ROWS=rows,
        COLUMNS=tile.columns,
        DEPTH=tile.depth,
        GROUP=TILES_AT_ONCE,
        PRECISION=precision_for(out.dtype),
        num_warps=tile.warps,
        num_stages=tile.stages,
    )
    return out


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
