"""Gradients of matrices: sums over an expert's rows, in a fixed order.

Shape letters: E experts, X choices in the order of their experts (rows), M and N height and width of a matrix, S parts
of an expert's rows.

Where there are too few tiles of matrices to fill the GPU, rows are cut into parts whose sums are added afterwards.
"""

# ruff: noqa: ANN001, ANN202 - Triton types the parameters of its kernels itself
# pyright: reportArgumentType=false, reportCallIssue=false, reportGeneralTypeIssues=false

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from envsynth.kernels.experts.configs import Tile, splits_for
from envsynth.kernels.experts.products import load_block, precision_for
from envsynth.kernels.experts.sorting import Sorted


@triton.jit
def _sum_products(  # noqa: PLR0913
    left_ptr,
    second_ptr,
    right_ptr,
    order_ptr,
    starts_ptr,
    out_ptr,
    second_out_ptr,
    n_experts,
    ACTIVE: tl.constexpr,
    M: tl.constexpr,
    N: tl.constexpr,
    GATHER_LEFT: tl.constexpr,
    TWO: tl.constexpr,
    PARTS: tl.constexpr,
    OUT_ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    DEPTH: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Sum left^T right over a part of an expert's rows, [S, E, M, N]; one side is gathered from tokens."""
    ROW_BLOCKS: tl.constexpr = (M + OUT_ROWS - 1) // OUT_ROWS
    BLOCKS: tl.constexpr = (N + COLUMNS - 1) // COLUMNS
    ROWS_END: tl.constexpr = M % OUT_ROWS != 0
    COLUMNS_END: tl.constexpr = N % COLUMNS != 0
    program = tl.program_id(0)
    within, outer = program % (ROW_BLOCKS * BLOCKS), program // (ROW_BLOCKS * BLOCKS)
    part, expert = outer % PARTS, outer // PARTS
    m = within // BLOCKS * OUT_ROWS + tl.arange(0, OUT_ROWS)
    n = within % BLOCKS * COLUMNS + tl.arange(0, COLUMNS)
    start, end = tl.load(starts_ptr + expert), tl.load(starts_ptr + expert + 1)
    each = ((end - start + DEPTH - 1) // DEPTH + PARTS - 1) // PARTS * DEPTH
    first_row = start + part * each
    end_row = tl.minimum(first_row + each, end)
    total = tl.zeros((OUT_ROWS, COLUMNS), tl.float32)
    second_total = tl.zeros((OUT_ROWS, COLUMNS), tl.float32)
    for first in range(first_row, end_row, DEPTH):
        rows = first + tl.arange(0, DEPTH)
        there = rows < end_row
        token = (tl.load(order_ptr + rows, mask=there, other=0) // ACTIVE).to(tl.int64)
        rows = rows.to(tl.int64)
        left_at = (token if GATHER_LEFT else rows)[:, None] * M + m[None, :]
        right_at = (rows if GATHER_LEFT else token)[:, None] * N + n[None, :]
        left = load_block(left_ptr + left_at, there[:, None], (m < M)[None, :], True, ROWS_END)
        right = load_block(right_ptr + right_at, there[:, None], (n < N)[None, :], True, COLUMNS_END)
        total = tl.dot(tl.trans(left), right, total, input_precision=PRECISION)
        if TWO:
            left = load_block(second_ptr + left_at, there[:, None], (m < M)[None, :], True, ROWS_END)
            second_total = tl.dot(tl.trans(left), right, second_total, input_precision=PRECISION)
    where = (part * n_experts + expert).to(tl.int64) * (M * N) + m[:, None] * N + n[None, :]
    mask = (m < M)[:, None] & (n < N)[None, :]
    tl.store(out_ptr + where, total.to(out_ptr.dtype.element_ty), mask=mask)
    if TWO:
        tl.store(second_out_ptr + where, second_total.to(out_ptr.dtype.element_ty), mask=mask)


def sum_products(
    lefts: tuple[Tensor, ...],
    right: Tensor,
    by_expert: Sorted,
    active: int,
    tile: Tile,
    *,
    out_rows: int,
    gather_left: bool,
) -> tuple[Tensor, ...]:
    """Sum left^T right over each expert's rows; experts without rows get zeros.

    Args:
        lefts: One or two of one shape, contiguous [X, M] by expert, or tokens [N, M].
        right: Contiguous [X, N] by expert, or tokens; the other of the two than the lefts.
        by_expert: The choices' order.
        active: Active experts A per token (count).
        tile: Columns and depth of a tile.
        out_rows: Rows of a tile of the result (count).
        gather_left: Whether the lefts are tokens.

    Returns:
        A sum for each left, in its type [E, M, N].
    """
    n_experts, height, width = len(by_expert.starts) - 1, lefts[0].shape[1], right.shape[1]
    programs = n_experts * triton.cdiv(height, out_rows) * triton.cdiv(width, tile.columns)
    parts = splits_for(programs, len(by_expert.order_X), n_experts)
    dtype = right.dtype if parts == 1 else torch.float32
    outs = [torch.empty(parts, n_experts, height, width, dtype=dtype, device=right.device) for _ in lefts]
    _sum_products[(programs * parts,)](
        lefts[0],
        lefts[-1],
        right,
        by_expert.order_X,
        by_expert.starts,
        outs[0],
        outs[-1],
        n_experts,
        ACTIVE=active,
        M=height,
        N=width,
        GATHER_LEFT=gather_left,
        TWO=len(lefts) == 2,
        PARTS=parts,
        OUT_ROWS=out_rows,
        COLUMNS=tile.columns,
        DEPTH=tile.depth,
        PRECISION=precision_for(right.dtype),
        num_warps=tile.warps,
        num_stages=tile.stages,
    )
    # Each a tensor of its own: a library operator must not give two views of one.
    return tuple(out[0] if parts == 1 else out.sum(0).to(right.dtype) for out in outs)
