"""Gradients of the hidden layer and of the gates; every sum in a fixed order.

Shape letters: N tokens, A active experts per token, E experts, D model, F expert width, X = N * A choices in the order
of their experts (rows), B blocks of F.

With g, u the kept products of a row, h = silu(g) * u, w its gate and dy its token's gradient: dh = down^T dy;
dw = dh . h, so the rows' results need not be kept; dg = w dh u silu'(g); du = w dh silu(g). The down matrix sees w h.
"""

# ruff: noqa: ANN001, ANN202 - Triton types the parameters of its kernels itself
# pyright: reportArgumentType=false, reportCallIssue=false, reportGeneralTypeIssues=false

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from envsynth.kernels.experts.configs import Tile
from envsynth.kernels.experts.products import TILES_AT_ONCE, grid_for, load_block, precision_for, tile_and_column
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
            left, kept_gate_ptr, kept_up_ptr, to_gate_ptr, to_up_ptr, weighted_ptr, rows, there, weight, first_column,
            F, ROWS, COLUMNS // 2, PIECE
        )  # fmt: skip
        return to_weight + _differentiate_piece(
            right, kept_gate_ptr, kept_up_ptr, to_gate_ptr, to_up_ptr, weighted_ptr, rows, there, weight, first_column
            + COLUMNS // 2, F, ROWS, COLUMNS // 2, PIECE
        )  # fmt: skip
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
def _differentiate_tile(  # noqa: PLR0913
    tile,
    block,
    expert,
    dy_ptr,
    down_ptr,
    kept_gate_ptr,
    kept_up_ptr,
    gates_ptr,
    order_ptr,
    tile_row_ptr,
    tile_end_ptr,
    to_gate_ptr,
    to_up_ptr,
    weighted_ptr,
    to_gates_ptr,
    ACTIVE: tl.constexpr,
    D: tl.constexpr,
    F: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    DEPTH: tl.constexpr,
    PIECE: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Give the gradients of both products of a tile of rows, w h, and a block's share of the gates' gradients."""
    BLOCKS: tl.constexpr = (F + COLUMNS - 1) // COLUMNS
    COLUMNS_END: tl.constexpr = F % COLUMNS != 0
    DEPTH_END: tl.constexpr = D % DEPTH != 0
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
        dh, kept_gate_ptr, kept_up_ptr, to_gate_ptr, to_up_ptr, weighted_ptr, rows, there, weight, block * COLUMNS, F,
        ROWS, COLUMNS, PIECE
    )  # fmt: skip
    tl.store(to_gates_ptr + choice.to(tl.int64) * BLOCKS + block, to_weight, mask=there)


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
    n_tiles_ptr,
    n_tiles,
    ACTIVE: tl.constexpr,
    D: tl.constexpr,
    F: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    DEPTH: tl.constexpr,
    PIECE: tl.constexpr,
    PRECISION: tl.constexpr,
    GROUP: tl.constexpr,
    PERSISTENT: tl.constexpr,
):
    """Run `_differentiate_tile` on one tile, or on one after another."""
    BLOCKS: tl.constexpr = (F + COLUMNS - 1) // COLUMNS
    if PERSISTENT:
        count = tl.load(n_tiles_ptr)
        for program in tl.range(tl.program_id(0), count * BLOCKS, tl.num_programs(0), flatten=True):
            tile, block = tile_and_column(program, count, BLOCKS, GROUP)
            expert = tl.load(tile_expert_ptr + tile)
            _differentiate_tile(
                tile, block, expert, dy_ptr, down_ptr, kept_gate_ptr, kept_up_ptr, gates_ptr, order_ptr, tile_row_ptr,
                tile_end_ptr, to_gate_ptr, to_up_ptr, weighted_ptr, to_gates_ptr, ACTIVE, D, F, ROWS, COLUMNS, DEPTH,
                PIECE, PRECISION
            )  # fmt: skip
    else:
        tile, block = tile_and_column(tl.program_id(0), n_tiles, BLOCKS, GROUP)
        expert = tl.load(tile_expert_ptr + tile)
        if expert >= 0:
            _differentiate_tile(
                tile, block, expert, dy_ptr, down_ptr, kept_gate_ptr, kept_up_ptr, gates_ptr, order_ptr, tile_row_ptr,
                tile_end_ptr, to_gate_ptr, to_up_ptr, weighted_ptr, to_gates_ptr, ACTIVE, D, F, ROWS, COLUMNS, DEPTH,
                PIECE, PRECISION
            )  # fmt: skip


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
    _differentiate_hidden[grid_for(tile, n_tiles * blocks)](
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
        by_expert.n_tiles,
        n_tiles,
        ACTIVE=gates_NA.shape[1],
        D=dy_ND.shape[1],
        F=width,
        ROWS=rows,
        COLUMNS=tile.columns,
        DEPTH=tile.depth,
        PIECE=min(tile.columns, _PIECE),
        GROUP=TILES_AT_ONCE,
        PERSISTENT=tile.persistent,
        PRECISION=precision_for(dy_ND.dtype),
        num_warps=tile.warps,
        num_stages=tile.stages,
    )
    return Hidden(to_gate_XF, to_up_XF, weighted_XF, shares_NAB[..., 0] if blocks == 1 else shares_NAB.sum(-1))
