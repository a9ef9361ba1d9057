"""One pass over the vocabulary: log-sum-exp of all and of kept tokens, the target's logit, and the entropy.

The vocabulary is cut into pieces of equal width, so that few rows still fill a GPU; what each piece found is joined in
the order of the pieces.
"""

# ruff: noqa: ANN001, ANN201, ANN202 - Triton types the parameters of its kernels itself
# pyright: reportArgumentType=false, reportCallIssue=false, reportGeneralTypeIssues=false

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from envsynth.kernels.logprobs import configs

_LOWEST = tl.constexpr(-3.0e38)
"""Finite, so that a row that has seen no token yet has no minus infinity less minus infinity."""


class Scan(NamedTuple):
    """What a pass over the vocabulary found."""

    target_N: Tensor
    """Logit of the target over the temperature, float32 [N]; 0 without target."""
    kept_N: Tensor
    """Log-sum-exp of the kept tokens, float32 [N]."""
    full_N: Tensor
    """Log-sum-exp of all tokens, float32 [N]."""
    highest_N: Tensor
    """Largest logit over the temperature, float32 [N]."""
    mean_N: Tensor
    """Mean logit over the temperature under the full distribution, float32 [N]."""


@triton.jit
def tile_logits(  # noqa: PLR0913
    hidden,
    weight,
    first_row,
    first_column,
    N,
    V,
    temperature,
    WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    INNER: tl.constexpr,
    WIDEN: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Give logits over the temperature, float32 [ROWS, COLUMNS]; rows and tokens past the end repeat the last one."""
    # Clamped, not masked, and offsets of 32 bits from a base of 64: both leave registers for the products.
    row = tl.minimum(tl.arange(0, ROWS), N - 1 - first_row) * WIDTH
    column = tl.minimum(tl.arange(0, COLUMNS), V - 1 - first_column) * WIDTH
    hidden += first_row.to(tl.int64) * WIDTH
    weight += first_column.to(tl.int64) * WIDTH
    total = tl.zeros([ROWS, COLUMNS], tl.float32)
    for start in range(0, WIDTH, INNER):
        inner = start + tl.arange(0, INNER)
        if WIDTH % INNER == 0:
            left = tl.load(hidden + row[:, None] + inner[None, :])
            right = tl.load(weight + column[:, None] + inner[None, :])
        else:
            inside = (inner < WIDTH)[None, :]
            left = tl.load(hidden + row[:, None] + inner[None, :], mask=inside, other=0.0)
            right = tl.load(weight + column[:, None] + inner[None, :], mask=inside, other=0.0)
        if WIDEN:
            left, right = left.to(tl.float32), right.to(tl.float32)
        total = tl.dot(left, tl.trans(right), total, input_precision=PRECISION)
    return total / temperature


@triton.jit
def tile_kept(words, row, column, N, V, W):
    """Tell which tokens of a tile are kept, [ROWS, COLUMNS]."""
    there = (row < N)[:, None] & (column < V)[None, :]
    word = tl.load(words + row.to(tl.int64)[:, None] * W + (column // 32)[None, :], mask=there, other=0)
    return ((word >> (column % 32)[None, :]) & 1) != 0


@triton.jit
def _scan(  # noqa: PLR0913
    hidden,
    weight,
    targets,
    words,
    found,
    N,
    V,
    W,
    temperature,
    piece,
    WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    INNER: tl.constexpr,
    WIDEN: tl.constexpr,
    PRECISION: tl.constexpr,
    MASKED: tl.constexpr,
):
    first_row = tl.program_id(0) * ROWS
    row = first_row + tl.arange(0, ROWS)
    part = tl.program_id(1)
    live = row < N
    target = tl.load(targets + row, mask=live, other=-1)
    highest = tl.full([ROWS], _LOWEST, tl.float32)
    kept_highest = tl.full([ROWS], _LOWEST, tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    kept_total = tl.zeros([ROWS], tl.float32)
    weighted = tl.zeros([ROWS], tl.float32)
    target_logit = tl.zeros([ROWS], tl.float32)
    for start in range(part * piece, tl.minimum((part + 1) * piece, V), COLUMNS):
        column = start + tl.arange(0, COLUMNS)
        logits = tile_logits(
            hidden,
            weight,
            first_row,
            first_row * 0 + start,
            N,
            V,
            temperature,
            WIDTH,
            ROWS,
            COLUMNS,
            INNER,
            WIDEN,
            PRECISION,
        )
        target_logit += tl.sum(tl.where(column[None, :] == target[:, None], logits, 0.0), 1)
        visible = tl.where((column < V)[None, :], logits, float("-inf"))
        higher = tl.maximum(highest, tl.max(visible, 1))
        shrink = tl.exp(highest - higher)
        share = tl.exp(visible - higher[:, None])
        total = total * shrink + tl.sum(share, 1)
        weighted = weighted * shrink + tl.sum(share * logits, 1)
        highest = higher
        if MASKED:
            kept = tl.where(tile_kept(words, row, column, N, V, W), visible, float("-inf"))
            higher = tl.maximum(kept_highest, tl.max(kept, 1))
            kept_total = kept_total * tl.exp(kept_highest - higher) + tl.sum(tl.exp(kept - higher[:, None]), 1)
            kept_highest = higher
    base = found + part.to(tl.int64) * 6 * N + row
    tl.store(base, target_logit, mask=live)
    tl.store(base + N, highest, mask=live)
    tl.store(base + 2 * N, total, mask=live)
    tl.store(base + 3 * N, weighted, mask=live)
    tl.store(base + 4 * N, kept_highest, mask=live)
    tl.store(base + 5 * N, kept_total, mask=live)


def scan(
    hidden_ND: Tensor,
    weight_VD: Tensor,
    targets_N: Tensor,
    words_NW: Tensor | None,
    *,
    temperature: float,
    precision: str,
) -> Scan:
    """Pass over the vocabulary.

    Args:
        hidden_ND: Hidden states, contiguous [N, D], N >= 1.
        weight_VD: The head, contiguous [V, D].
        targets_N: Tokens, contiguous int64 [N].
        words_NW: Kept tokens as bits, contiguous int32 [N, W], or None.
        temperature: Divides the logits.
        precision: How float32 numbers are multiplied, `ieee` or `tf32x3`.

    Returns:
        What was found.
    """
    (N, width), V = hidden_ND.shape, len(weight_VD)
    tiles = configs.tiles_for(hidden_ND.dtype, weight_VD.dtype)
    pieces = configs.pieces_for(N, V, tiles)
    piece = triton.cdiv(triton.cdiv(V, pieces), tiles.columns) * tiles.columns
    pieces = triton.cdiv(V, piece)
    found = torch.empty(pieces, 6, N, dtype=torch.float32, device=hidden_ND.device)
    masked = words_NW is not None
    _scan[(triton.cdiv(N, tiles.rows), pieces)](
        hidden_ND,
        weight_VD,
        targets_N,
        words_NW if masked else targets_N,
        found,
        N,
        V,
        words_NW.shape[1] if masked else 0,
        temperature,
        piece,
        WIDTH=width,
        ROWS=tiles.rows,
        COLUMNS=tiles.columns,
        INNER=min(tiles.inner, triton.next_power_of_2(width)),
        WIDEN=hidden_ND.dtype != weight_VD.dtype,
        PRECISION=precision,
        MASKED=masked,
        num_warps=tiles.warps,
        num_stages=tiles.stages,
    )
    target, highest, total, weighted, kept_highest, kept_total = found.unbind(1)
    full_N, sum_N, top_N = _join(highest, total)
    mean_N = (weighted * (highest - top_N).exp()).sum(0) / sum_N
    kept_N = _join(kept_highest, kept_total)[0] if masked else full_N
    return Scan(target.sum(0), kept_N, full_N, top_N, mean_N)


def _join(highest_PN: Tensor, total_PN: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Join pieces: log-sum-exp, sum of exponentials below the highest, and the highest, [N] each."""
    top_N = highest_PN.amax(0)
    sum_N = (total_PN * (highest_PN - top_N).exp()).sum(0)
    return top_N + sum_N.log(), sum_N, top_N
