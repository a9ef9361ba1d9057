"""Gradients of log-probabilities, from logits that the forward pass kept, or that are formed again.

For each row the gradient at its logits is `(1 at the target - softmax over the kept tokens) / temperature` times the
gradient that came. It stands in a workspace of whole rows, and library products make the gradients of hidden states and
head from it. No atomics, and rows are taken in their order, so the bits are the same each time; they are the same both
ways too. Kept logits are only read, so a graph that is retained may be gone through again.
"""

# ruff: noqa: ANN001, ANN202 - Triton types the parameters of its kernels itself
# pyright: reportArgumentType=false, reportCallIssue=false, reportGeneralTypeIssues=false

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from envsynth.kernels.logprobs import configs
from envsynth.kernels.logprobs.tiles import parts_of, three_parts, tile_kept, tile_logits


class Kept(NamedTuple):
    """What the forward pass left. Everything is contiguous."""

    hidden_ND: Tensor
    """Hidden states, [N, D], N >= 1."""
    weight_VD: Tensor
    """The head, [V, D]."""
    targets_N: Tensor
    """Tokens, int64 [N]."""
    words_NW: Tensor | None
    """Kept tokens as bits, int32 [N, W], or None."""
    level_2N: Tensor
    """Largest kept logit, and log2 of the sum of exponentials below it, float32 [2, N]; +inf where no gradient is."""
    logits_NS: Tensor | None
    """Logits without the temperature, float32 [N, S], or None: they are formed again."""


@triton.jit(do_not_specialize=["first", "N", "W", "count"])
def _slopes(  # noqa: PLR0913
    hidden,
    weight,
    targets,
    words,
    level,
    gradient,
    logits_kept,
    slopes,
    first,
    N,
    V,
    W,
    S,
    count,
    scale,
    rescale,
    WIDTH: tl.constexpr,
    PARTS: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    INNER: tl.constexpr,
    WIDEN: tl.constexpr,
    PRECISION: tl.constexpr,
    MASKED: tl.constexpr,
    READ: tl.constexpr,
    CUT: tl.constexpr,
):
    local_row, first_column = tl.program_id(0) * ROWS, tl.program_id(1) * COLUMNS
    local, column = local_row + tl.arange(0, ROWS), first_column + tl.arange(0, COLUMNS)
    row = first + local
    live = local < count
    target = tl.maximum(tl.load(targets + row, mask=live, other=-1), -1).to(tl.int32)
    highest = tl.load(level + row, mask=live, other=0.0)
    sum_log = tl.load(level + N + row, mask=live, other=float("inf"))
    pulled = tl.load(gradient + row, mask=live, other=0.0)
    # What comes for a row without gradient may be anything, and counts for nothing.
    pulled = tl.where(sum_log == float("inf"), 0.0, pulled) * rescale
    # Up to S, not V: a limit that is a multiple of 16 lets loads and stores be wide.
    there = live[:, None] & (column < S)[None, :]
    if READ:
        place = logits_kept + row.to(tl.int64)[:, None] * S + column[None, :]
        logits = tl.load(place, mask=there, other=0.0)
    else:
        logits = tile_logits(
            hidden, weight, first + local_row, first_column, N, V,
            WIDTH, PARTS, ROWS, COLUMNS, INNER, WIDEN, PRECISION,
        )  # fmt: skip
    if MASKED:
        logits = tl.where(tile_kept(words, row, first_column, N, W, ROWS, COLUMNS), logits, float("-inf"))
    share = tl.exp2((logits - highest[:, None]) * scale - sum_log[:, None])
    at_target = tl.arange(0, COLUMNS)[None, :] == (target - first_column)[:, None]
    slope = (tl.where(at_target, 1.0, 0.0) - share) * pulled[:, None]
    kind = slopes.dtype.element_ty
    place = slopes + local.to(tl.int64)[:, None] * S + column[None, :]
    if CUT:
        low, middle, high = three_parts(slope)
        further = count.to(tl.int64) * S
        tl.store(place, low.to(kind), mask=there)
        tl.store(place + further, middle.to(kind), mask=there)
        tl.store(place + 2 * further, high.to(kind), mask=there)
    else:
        tl.store(place, slope.to(kind), mask=there)


def gradients(
    kept: Kept, gradient_N: Tensor, *, temperature: float, precision: str, wanted: tuple[bool, bool]
) -> tuple[Tensor | None, Tensor | None]:
    """Give the gradients of hidden states and head.

    Args:
        kept: What the forward pass left.
        gradient_N: Gradient of the log-probabilities, contiguous float32 [N].
        temperature: Divides the logits.
        precision: How float32 numbers were multiplied, `ieee` or `tf32x3`. Products of float32 gradients are exact.
        wanted: Whether the gradient of the hidden states, and that of the head, are wanted.

    Returns:
        Gradients in the inputs' types, [N, D] and [V, D]; None where not wanted.
    """
    hidden_ND, weight_VD = kept.hidden_ND, kept.weight_VD
    N, V = len(hidden_ND), len(weight_VD)
    parts_VPD = parts_of(hidden_ND, weight_VD)
    parts = parts_VPD.shape[1]
    # Types that differ and are not in parts were widened.
    kind = parts_VPD.dtype if hidden_ND.dtype == parts_VPD.dtype else torch.float32
    stride = configs.stride_for(V)
    rows = configs.rows_at_once(N, V, parts * stride * kind.itemsize)
    workspace = torch.empty(parts * rows * stride, dtype=kind, device=hidden_ND.device)
    to_hidden = torch.empty_like(hidden_ND) if wanted[0] else None
    to_weight = None
    with _exact_products(kind):
        head_VPD = parts_VPD.to(kind)
        for first in range(0, N, rows):
            count = min(rows, N - first)
            slopes_PnS = workspace[: parts * count * stride].view(parts, count, stride)
            _form(kept, parts_VPD, gradient_N, slopes_PnS, first, temperature, precision)
            slopes_PnV, hidden_nD = slopes_PnS[..., :V], hidden_ND[first : first + count].to(kind)
            if to_hidden is not None:
                _to_hidden(slopes_PnV, head_VPD, to_hidden[first : first + count])
            if wanted[1]:
                again = hidden_nD if parts == 1 else hidden_nD.repeat(parts, 1)
                share_VD = _to_head(slopes_PnS.flatten(0, 1)[:, :V], again)
                to_weight = share_VD if to_weight is None else to_weight.add_(share_VD)
    return to_hidden, None if to_weight is None else to_weight.to(weight_VD.dtype)


def _form(
    kept: Kept,
    parts_VPD: Tensor,
    gradient_N: Tensor,
    slopes_PnS: Tensor,
    first: int,
    temperature: float,
    precision: str,
) -> None:
    """Write the gradient at the logits of the rows from `first` on; columns from V on mean nothing."""
    hidden_ND, words_NW, logits_NS = kept.hidden_ND, kept.words_NW, kept.logits_NS
    (parts, count, stride), (N, width), V = slopes_PnS.shape, hidden_ND.shape, len(parts_VPD)
    formed = configs.tiles_for(hidden_ND.dtype, kept.weight_VD.dtype)
    tiles = formed if logits_NS is None else configs.READ
    # A pointer that a variant does not read is that of the targets.
    words, word_count = (kept.targets_N, 0) if words_NW is None else (words_NW, words_NW.shape[1])
    _slopes[(triton.cdiv(count, tiles.rows), triton.cdiv(V, tiles.columns))](
        hidden_ND, parts_VPD, kept.targets_N, words, kept.level_2N, gradient_N,
        kept.targets_N if logits_NS is None else logits_NS, slopes_PnS,
        first, N, V, word_count, stride, count, math.log2(math.e) / temperature, 1.0 / temperature,
        WIDTH=width, PARTS=parts, ROWS=tiles.rows, COLUMNS=tiles.columns,
        INNER=min(formed.inner, triton.next_power_of_2(width)),
        WIDEN=hidden_ND.dtype != parts_VPD.dtype, PRECISION=precision,
        MASKED=words_NW is not None, READ=logits_NS is not None, CUT=parts > 1,
        num_warps=tiles.warps, num_stages=tiles.stages,
        enable_fp_fusion=configs.fuses(hidden_ND.dtype, kept.weight_VD.dtype),
    )  # fmt: skip


def _to_hidden(slopes_PnV: Tensor, head_VPD: Tensor, out_nD: Tensor) -> None:
    """Write slopes . head [n, D]. Of parts, three products of the upper two remain: the result has eight bits anyway."""
    if len(slopes_PnV) == 1:
        if out_nD.dtype == slopes_PnV.dtype:
            torch.mm(slopes_PnV[0], head_VPD[:, 0], out=out_nD)
        else:
            out_nD.copy_(slopes_PnV[0] @ head_VPD[:, 0])
        return
    width = out_nD.shape[1]
    both = _product(slopes_PnV[2], head_VPD[:, 1:].flatten(1))
    other = _product(slopes_PnV[1], head_VPD[:, 2])
    out_nD.copy_(other.add_(both[:, :width]).add_(both[:, width:]))


def _to_head(slopes_RV: Tensor, hidden_RD: Tensor) -> Tensor:
    """Give slopes^T . hidden, float32 [V, D]. A small head has too few tiles for a GPU, so rows are cut into pieces."""
    rows = len(slopes_RV)
    pieces = configs.head_pieces(rows, slopes_RV.shape[1], hidden_RD.shape[1])
    if pieces == 1:
        return _product(slopes_RV.t(), hidden_RD)
    whole = rows // pieces * pieces
    slopes, hidden = (item[:whole].unflatten(0, (pieces, -1)) for item in (slopes_RV, hidden_RD))
    found_VD = _product(slopes.transpose(1, 2), hidden).sum(0)
    if whole < rows:
        found_VD += _product(slopes_RV[whole:].t(), hidden_RD[whole:])
    return found_VD


def _product(left: Tensor, right: Tensor) -> Tensor:
    """Multiply matrices of one type into float32; half precision is not rounded between where the library allows it.

    Both are matrices, or batches of them.
    """
    multiply = torch.mm if left.ndim == 2 else torch.bmm
    if left.is_cuda and left.dtype != torch.float32:
        return multiply(left, right, out_dtype=torch.float32)
    return multiply(left, right).to(torch.float32)


@contextmanager
def _exact_products(kind: torch.dtype) -> Iterator[None]:
    """Keep autocast out of what is inside and, of float32, the library's shorter products, whichever way they were allowed.

    That setting is the process's: another thread's products meanwhile are exact too.
    """
    matmul = torch.backends.cuda.matmul
    with torch.autocast("cuda", enabled=False), torch.autocast("cpu", enabled=False):
        if kind != torch.float32 or matmul.fp32_precision != "tf32":
            yield
            return
        try:
            before = torch.get_float32_matmul_precision()
        except RuntimeError:
            # It was allowed by the newer setting alone, and torch refuses to read the older one.
            before = None
        if before is None:
            matmul.fp32_precision = "ieee"
        else:
            torch.set_float32_matmul_precision("highest")
        try:
            yield
        finally:
            if before is None:
                matmul.fp32_precision = "tf32"
            else:
                torch.set_float32_matmul_precision(before)
