"""Products of rows with their experts' matrices, and what all kernels of tiles share.

Shape letters: E experts, X choices in the order of their experts (rows), T tiles of rows.

Each program takes one tile of one expert's rows and some columns, or one such after another. A row of a tile behind its
expert's last is computed from a row that exists and is not stored; rows of a product never mix, so it reaches no other.
What a row's result is depends on neither its place in a tile nor the other rows.
"""

# ruff: noqa: ANN001, ANN201, ANN202 - Triton types the parameters of its kernels itself
# pyright: reportArgumentType=false, reportCallIssue=false, reportGeneralTypeIssues=false

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from envsynth.kernels.experts import configs
from envsynth.kernels.experts.configs import Tile
from envsynth.kernels.experts.sorting import Sorted

TILES_AT_ONCE = 8
"""Tiles of rows whose columns are computed together, so that the second-level cache holds what they share."""


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
def _multiply_tile(  # noqa: PLR0913
    tile,
    block,
    expert,
    left_ptr,
    weight_ptr,
    second_left_ptr,
    second_weight_ptr,
    tile_row_ptr,
    tile_end_ptr,
    out_ptr,
    INPUTS: tl.constexpr,
    OUTPUTS: tl.constexpr,
    STRIDE_IN: tl.constexpr,
    STRIDE_OUT: tl.constexpr,
    TWO: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    DEPTH: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Multiply a tile of rows with its expert's matrix, or add two such products, [X, OUTPUTS]."""
    COLUMNS_END: tl.constexpr = OUTPUTS % COLUMNS != 0
    DEPTH_END: tl.constexpr = INPUTS % DEPTH != 0
    rows = tl.load(tile_row_ptr + tile) + tl.arange(0, ROWS)
    end = tl.load(tile_end_ptr + tile)
    columns = block * COLUMNS + tl.arange(0, COLUMNS)
    depth = tl.arange(0, DEPTH)
    column_mask = columns[None, :] < OUTPUTS
    left = tl.minimum(rows, end - 1).to(tl.int64)[:, None] * INPUTS + depth[None, :]
    weight = expert.to(tl.int64) * (INPUTS * OUTPUTS) + columns[None, :] * STRIDE_OUT + depth[:, None] * STRIDE_IN
    left_ptrs, weight_ptrs = left_ptr + left, weight_ptr + weight
    second_left_ptrs, second_weight_ptrs = second_left_ptr + left, second_weight_ptr + weight
    total = tl.zeros((ROWS, COLUMNS), tl.float32)
    for first in range(0, INPUTS, DEPTH):
        row_mask, depth_mask = depth[None, :] < INPUTS - first, depth[:, None] < INPUTS - first
        a = load_block(left_ptrs + first, row_mask, True, DEPTH_END, False)
        b = load_block(weight_ptrs + first * STRIDE_IN, depth_mask, column_mask, DEPTH_END, COLUMNS_END)
        total = tl.dot(a, b, total, input_precision=PRECISION)
        if TWO:
            a = load_block(second_left_ptrs + first, row_mask, True, DEPTH_END, False)
            b = load_block(second_weight_ptrs + first * STRIDE_IN, depth_mask, column_mask, DEPTH_END, COLUMNS_END)
            total = tl.dot(a, b, total, input_precision=PRECISION)
    where = rows.to(tl.int64)[:, None] * OUTPUTS + columns[None, :]
    tl.store(out_ptr + where, total.to(out_ptr.dtype.element_ty), mask=(rows < end)[:, None] & column_mask)


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
    n_tiles_ptr,
    n_tiles,
    INPUTS: tl.constexpr,
    OUTPUTS: tl.constexpr,
    STRIDE_IN: tl.constexpr,
    STRIDE_OUT: tl.constexpr,
    TWO: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    DEPTH: tl.constexpr,
    PRECISION: tl.constexpr,
    GROUP: tl.constexpr,
    PERSISTENT: tl.constexpr,
):
    """Run `_multiply_tile` on one tile, or on one after another."""
    BLOCKS: tl.constexpr = (OUTPUTS + COLUMNS - 1) // COLUMNS
    if PERSISTENT:
        count = tl.load(n_tiles_ptr)
        for program in tl.range(tl.program_id(0), count * BLOCKS, tl.num_programs(0), flatten=True):
            tile, block = tile_and_column(program, count, BLOCKS, GROUP)
            expert = tl.load(tile_expert_ptr + tile)
            _multiply_tile(
                tile, block, expert, left_ptr, weight_ptr, second_left_ptr, second_weight_ptr, tile_row_ptr,
                tile_end_ptr, out_ptr, INPUTS, OUTPUTS, STRIDE_IN, STRIDE_OUT, TWO, ROWS, COLUMNS, DEPTH, PRECISION
            )  # fmt: skip
    else:
        tile, block = tile_and_column(tl.program_id(0), n_tiles, BLOCKS, GROUP)
        expert = tl.load(tile_expert_ptr + tile)
        if expert >= 0:
            _multiply_tile(
                tile, block, expert, left_ptr, weight_ptr, second_left_ptr, second_weight_ptr, tile_row_ptr,
                tile_end_ptr, out_ptr, INPUTS, OUTPUTS, STRIDE_IN, STRIDE_OUT, TWO, ROWS, COLUMNS, DEPTH, PRECISION
            )  # fmt: skip


def grid_for(tile: Tile, programs: int) -> tuple[int]:
    """Say how many programs to start for so many tiles of rows and columns."""
    return (min(programs, configs.PROCESSORS) if tile.persistent else programs,)


def precision_for(dtype: torch.dtype) -> str:
    """Say how `tl.dot` multiplies: whole float32, never rounded to fewer bits; halves have one way only."""
    return "ieee" if dtype == torch.float32 else "tf32"


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
    _multiply[grid_for(tile, n_tiles * triton.cdiv(outputs, tile.columns))](
        lefts[0],
        weights[0],
        lefts[-1],
        weights[-1],
        by_expert.tile_expert_T,
        by_expert.tile_row_T,
        by_expert.tile_end_T,
        out,
        by_expert.n_tiles,
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
        PERSISTENT=tile.persistent,
        PRECISION=precision_for(out.dtype),
        num_warps=tile.warps,
        num_stages=tile.stages,
    )
    return out
