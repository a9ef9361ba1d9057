"""Gradients of the experts; every sum in a fixed order.

Shape letters: N tokens, A active experts per token, E experts, D model, F expert width, X = N * A choices in the order
of their experts (rows), B blocks of F, S parts of an expert's rows.

With g, u the kept products of a row, h = silu(g) * u, w its gate and dy its token's gradient: dh = down^T dy;
dw = dh . h, so the rows' results need not be kept; dg = w dh u silu'(g); du = w dh silu(g). The down matrix sees w h.
The matrices' gradients are sums over an expert's rows. Where there are too few of them to fill the GPU, rows are cut
into parts whose sums are added afterwards.
"""

# ruff: noqa: ANN001, ANN202 - Triton types the parameters of its kernels itself
# pyright: reportArgumentType=false, reportCallIssue=false, reportGeneralTypeIssues=false

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from envsynth.kernels.experts.configs import Tile, splits_for
from envsynth.kernels.experts.forward import TILES_AT_ONCE, load_block, precision_for, tile_and_column
from envsynth.kernels.experts.sorting import Sorted

_PIECE = 32
"""Columns of the hidden layer whose gradients are computed at once."""


class Hidden(NamedTuple):
    """What the gradient of the hidden layer gives."""

    to_gate_XF: Tensor
    """Gradient of the gate product."""
    to_up_XF: Tensor
    """Gradient of the up product."""
    weighted_XF: Tensor
    """Hidden layer times its row's gate."""
    to_gates_NA: Tensor
    """Gradient of the gates, float32."""


@triton.jit
def _differentiate_piece(  # noqa: PLR0913
    dh,
    kept_gate_ptr,
    kept_up_ptr,
    to_gate_ptr,
    to_up_ptr,
    weighted_ptr,
    rows,
    there,
    weight,
    first_column,
    F: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    PIECE: tl.constexpr,
):
    """Write some columns of the gradients and of w h; give their share of the gates' gradients."""
    if COLUMNS > PIECE:
        # A few columns at a time, because what they need beside the sums does not fit the registers.
        left, right = tl.split(tl.permute(tl.reshape(dh, (ROWS, 2, COLUMNS // 2)), (0, 2, 1)))
        to_weight = _differentiate_piece(
            left,
            kept_gate_ptr,
            kept_up_ptr,
            to_gate_ptr,
            to_up_ptr,
            weighted_ptr,
            rows,
            there,
            weight,
            first_column,
            F,
            ROWS,
            COLUMNS // 2,
            PIECE,
        )
        return to_weight + _differentiate_piece(
            right,
            kept_gate_ptr,
            kept_up_ptr,
            to_gate_ptr,
            to_up_ptr,
            weighted_ptr,
            rows,
            there,
            weight,
            first_column + COLUMNS // 2,
            F,
            ROWS,
            COLUMNS // 2,
            PIECE,
        )
    out_type = to_gate_ptr.dtype.element_ty
    columns = first_column + tl.arange(0, COLUMNS)
    where = rows.to(tl.int64)[:, None] * F + columns[None, :]
    mask = there[:, None] & (columns[None, :] < F)
    gate = tl.load(kept_gate_ptr + where, mask=mask, other=0.0).to(tl.float32)
    up = tl.load(kept_up_ptr + where, mask=mask, other=0.0).to(tl.float32)
    share = 1.0 / (1.0 + tl.exp(-gate))
    silu = gate * share
    hidden = (silu * up).to(out_type).to(tl.float32)
    to_weight = tl.sum(tl.where(mask, dh * hidden, 0.0), 1)
    tl.store(weighted_ptr + where, (weight[:, None] * hidden).to(out_type), mask=mask)
    dh = dh * weight[:, None]
    tl.store(to_up_ptr + where, (dh * silu).to(out_type), mask=mask)
    tl.store(to_gate_ptr + where, (dh * up * (share + silu * (1.0 - share))).to(out_type), mask=mask)
    return to_weight


@triton.jit
def _differentiate_hidden(  # noqa: PLR0913
    dy_ptr,
    down_ptr,
    kept_gate_ptr,
    kept_up_ptr,
    gates_ptr,
    order_ptr,
    tile_expert_ptr,
    tile_row_ptr,
    tile_end_ptr,
    to_gate_ptr,
    to_up_ptr,
    weighted_ptr,
    to_gates_ptr,
    n_tiles,
    ACTIVE: tl.constexpr,
    D: tl.constexpr,
    F: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    DEPTH: tl.constexpr,
    PIECE: tl.constexpr,
    GROUP: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Give the gradients of both products of a tile of rows, w h, and a block's share of the gates' gradients."""
    BLOCKS: tl.constexpr = (F + COLUMNS - 1) // COLUMNS
    COLUMNS_END: tl.constexpr = F % COLUMNS != 0
    DEPTH_END: tl.constexpr = D % DEPTH != 0
    tile, block = tile_and_column(tl.program_id(0), n_tiles, BLOCKS, GROUP)
    expert = tl.load(tile_expert_ptr + tile)
    if expert < 0:
        return
    rows = tl.load(tile_row_ptr + tile) + tl.arange(0, ROWS)
    there = rows < tl.load(tile_end_ptr + tile)
    choice = tl.load(order_ptr + rows, mask=there, other=0)
    columns = block * COLUMNS + tl.arange(0, COLUMNS)
    depth = tl.arange(0, DEPTH)
    column_mask = columns[None, :] < F
    dy_ptrs = dy_ptr + (choice // ACTIVE).to(tl.int64)[:, None] * D + depth[None, :]
    down_ptrs = down_ptr + expert.to(tl.int64) * (F * D) + depth[:, None] * F + columns[None, :]
    dh = tl.zeros((ROWS, COLUMNS), tl.float32)
    for first in range(0, D, DEPTH):
        dy = load_block(dy_ptrs + first, depth[None, :] < D - first, True, DEPTH_END, False)
        down = load_block(down_ptrs + first * F, depth[:, None] < D - first, column_mask, DEPTH_END, COLUMNS_END)
        dh = tl.dot(dy, down, dh, input_precision=PRECISION)
    weight = tl.load(gates_ptr + choice, mask=there, other=0.0).to(tl.float32)
    to_weight = _differentiate_piece(
        dh,
        kept_gate_ptr,
        kept_up_ptr,
        to_gate_ptr,
        to_up_ptr,
        weighted_ptr,
        rows,
        there,
        weight,
        block * COLUMNS,
        F,
        ROWS,
        COLUMNS,
        PIECE,
    )
    tl.store(to_gates_ptr + choice.to(tl.int64) * BLOCKS + block, to_weight, mask=there)


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


def differentiate_hidden(
    dy_ND: Tensor,
    down_EDF: Tensor,
    kept: tuple[Tensor, Tensor],
    gates_NA: Tensor,
    by_expert: Sorted,
    tile: Tile,
    *,
    rows: int,
) -> Hidden:
    """Give the gradients of the hidden layer's products and of the gates.

    Args:
        dy_ND: Gradient of the result in the weights' type, contiguous [N, D].
        down_EDF: Down matrices, contiguous [E, D, F].
        kept: Gate and up products, [X, F].
        gates_NA: Gates, contiguous [N, A].
        by_expert: The choices' order.
        tile: Columns and depth of a tile.
        rows: Rows of a tile (count).

    Returns:
        The gradients, and the hidden layer times the gates.
    """
    width = down_EDF.shape[2]
    blocks, n_tiles = triton.cdiv(width, tile.columns), len(by_expert.tile_row_T)
    to_gate_XF, to_up_XF, weighted_XF = (torch.empty_like(kept[0]) for _ in range(3))
    # Zeros, because a choice of no expert has no row that could write its share.
    shares_NAB = torch.zeros(*gates_NA.shape, blocks, dtype=torch.float32, device=dy_ND.device)
    _differentiate_hidden[(n_tiles * blocks,)](
        dy_ND,
        down_EDF,
        *kept,
        gates_NA,
        by_expert.order_X,
        by_expert.tile_expert_T,
        by_expert.tile_row_T,
        by_expert.tile_end_T,
        to_gate_XF,
        to_up_XF,
        weighted_XF,
        shares_NAB,
        n_tiles,
        ACTIVE=gates_NA.shape[1],
        D=dy_ND.shape[1],
        F=width,
        ROWS=rows,
        COLUMNS=tile.columns,
        DEPTH=tile.depth,
        PIECE=min(tile.columns, _PIECE),
        GROUP=TILES_AT_ONCE,
        PRECISION=precision_for(dy_ND.dtype),
        num_warps=tile.warps,
        num_stages=tile.stages,
    )
    return Hidden(to_gate_XF, to_up_XF, weighted_XF, shares_NAB.sum(-1))


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
    return tuple(out[0] if parts == 1 else out.sum(0).to(right.dtype) for out in outs)
