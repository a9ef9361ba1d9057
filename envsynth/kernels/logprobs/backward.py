"""Gradients of log-probabilities: logits are formed again, a bounded number of rows at a time.

For each row the gradient at its logits is `(1 at the target - softmax over the kept tokens) / temperature` times the
gradient that came. It stands in a workspace of whole rows, and two products make the gradients of hidden states and head
from it. No atomics, and rows are taken in their order, so the bits are the same each time.
"""

# ruff: noqa: ANN001, ANN202 - Triton types the parameters of its kernels itself
# pyright: reportArgumentType=false, reportCallIssue=false, reportGeneralTypeIssues=false

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from envsynth.kernels.logprobs import configs
from envsynth.kernels.logprobs.forward import tile_kept, tile_logits


@triton.jit
def _slopes(  # noqa: PLR0913
    hidden,
    weight,
    targets,
    words,
    kept_sums,
    gradient,
    slopes,
    N,
    V,
    W,
    temperature,
    WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    INNER: tl.constexpr,
    WIDEN: tl.constexpr,
    PRECISION: tl.constexpr,
    MASKED: tl.constexpr,
):
    first_row, first_column = tl.program_id(0) * ROWS, tl.program_id(1) * COLUMNS
    row, column = first_row + tl.arange(0, ROWS), first_column + tl.arange(0, COLUMNS)
    live = row < N
    target = tl.load(targets + row, mask=live, other=-1)
    level = tl.load(kept_sums + row, mask=live, other=float("inf"))
    pulled = tl.load(gradient + row, mask=live, other=0.0)
    logits = tile_logits(
        hidden, weight, first_row, first_column, N, V, temperature, WIDTH, ROWS, COLUMNS, INNER, WIDEN, PRECISION
    )
    share = tl.exp(logits - level[:, None])
    if MASKED:
        share = tl.where(tile_kept(words, row, column, N, V, W), share, 0.0)
    slope = tl.where(column[None, :] == target[:, None], 1.0, 0.0) - share
    slope = slope * (pulled / temperature)[:, None]
    there = live[:, None] & (column < V)[None, :]
    place = slopes + row.to(tl.int64)[:, None] * V + column[None, :]
    tl.store(place, slope.to(slopes.dtype.element_ty), mask=there)


def gradients(  # noqa: PLR0913 - what the forward pass kept, and two settings
    hidden_ND: Tensor,
    weight_VD: Tensor,
    targets_N: Tensor,
    words_NW: Tensor | None,
    kept_N: Tensor,
    gradient_N: Tensor,
    *,
    temperature: float,
    precision: str,
    workspace_bytes: int = configs.WORKSPACE_BYTES,
) -> tuple[Tensor, Tensor]:
    """Give the gradients of hidden states and head.

    Args:
        hidden_ND: Hidden states, contiguous [N, D], N >= 1.
        weight_VD: The head, contiguous [V, D].
        targets_N: Tokens, contiguous int64 [N].
        words_NW: Kept tokens as bits, contiguous int32 [N, W], or None.
        kept_N: Log-sum-exp of the kept tokens, float32 [N]; +inf where a row gives no gradient.
        gradient_N: Gradient of the log-probabilities, float32 [N]; 0 where a row gives none.
        temperature: Divides the logits.
        precision: How float32 numbers are multiplied, `ieee` or `tf32x3`.
        workspace_bytes: Bound of the workspace; the least is one row.

    Returns:
        Gradients in the inputs' types, [N, D] and [V, D].
    """
    (N, width), V = hidden_ND.shape, len(weight_VD)
    tiles = configs.tiles_for(hidden_ND.dtype, weight_VD.dtype)
    mixed = hidden_ND.dtype != weight_VD.dtype
    kind = torch.float32 if mixed else hidden_ND.dtype
    rows = max(1, min(N, workspace_bytes // (V * kind.itemsize)))
    slopes = torch.empty(rows, V, dtype=kind, device=hidden_ND.device)
    to_hidden = torch.empty_like(hidden_ND)
    to_weight = torch.zeros(V, width, dtype=torch.float32, device=hidden_ND.device)
    head = weight_VD.to(kind)
    for start in range(0, N, rows):
        part = slice(start, min(start + rows, N))
        count = part.stop - start
        words = targets_N if words_NW is None else words_NW[part]
        _slopes[(triton.cdiv(count, tiles.rows), triton.cdiv(V, tiles.columns))](
            hidden_ND[part],
            weight_VD,
            targets_N[part],
            words,
            kept_N[part],
            gradient_N[part],
            slopes,
            count,
            V,
            0 if words_NW is None else words_NW.shape[1],
            temperature,
            WIDTH=width,
            ROWS=tiles.rows,
            COLUMNS=tiles.columns,
            INNER=min(tiles.inner, triton.next_power_of_2(width)),
            WIDEN=mixed,
            PRECISION=precision,
            MASKED=words_NW is not None,
            num_warps=tiles.warps,
            num_stages=tiles.stages,
        )
        given = slopes[:count]
        to_hidden[part] = (given @ head).to(hidden_ND.dtype)
        to_weight += _product(given, hidden_ND[part].to(kind))
    return to_hidden, to_weight.to(weight_VD.dtype)


def _product(slopes_NV: Tensor, hidden_ND: Tensor) -> Tensor:
    """Give slopes^T hidden in float32 [V, D]; half precision is not rounded between chunks where the library allows."""
    if slopes_NV.is_cuda and slopes_NV.dtype != torch.float32:
        return torch.mm(slopes_NV.t(), hidden_ND, out_dtype=torch.float32)
    return (slopes_NV.t() @ hidden_ND).to(torch.float32)
