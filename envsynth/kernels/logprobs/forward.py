"""One pass over the vocabulary: log-sum-exp of all and of kept tokens, the target's logit, and the entropy.

The vocabulary is cut into pieces of one fixed width, so that few rows still fill a GPU; what each piece found is joined in
the order of the pieces. A row's bits depend on that row, the head and the settings alone.
"""

# ruff: noqa: ANN001, ANN202 - Triton types the parameters of its kernels itself
# pyright: reportArgumentType=false, reportCallIssue=false, reportGeneralTypeIssues=false

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from envsynth.kernels.logprobs import configs
from envsynth.kernels.logprobs.tiles import parts_of, tile_kept, tile_logits

_LOWEST = tl.constexpr(-1.0e30)
"""Finite, so that a row that has seen no token yet has no minus infinity less minus infinity, also over a temperature."""
_LN2 = tl.constexpr(math.log(2))
_FOUND = 6
"""Numbers that a piece finds for each row."""


class Scores(NamedTuple):
    """What a pass over the vocabulary found."""

    log_probs_N: Tensor
    """Log-probability under the kept set (nats), float32 [N]; minus infinity outside of it, 0 where ignored."""
    entropy_N: Tensor
    """Entropy of the full distribution (nats), float32 [N]."""
    mass_N: Tensor
    """Share of the full distribution that the kept set holds, float32 [N]."""
    is_best_N: Tensor
    """Whether no token has a larger logit, bool [N]; False where ignored."""
    level_2N: Tensor
    """Largest kept logit, and log2 of the sum of kept exponentials below it, float32 [2, N].

    The second is infinite where a row gives no gradient: such a row has no share of any token.
    """
    logits_NS: Tensor | None
    """Logits without the temperature, float32 [N, S], S >= V, columns from V on mean nothing; None where not kept."""


@triton.jit
def _finish(  # noqa: PLR0913
    words,
    log_probs,
    entropies,
    masses,
    is_best,
    level,
    row,
    target,
    target_logit,
    highest,
    total,
    weighted,
    kept_highest,
    kept_total,
    scale,
    N,
    W,
    MASKED: tl.constexpr,
):
    """Write a row's results. Differences of logits come first: they are exact where the logits are large."""
    live = row < N
    used = target >= 0
    drawn = used
    if MASKED:
        token = tl.maximum(target, 0)
        word = tl.load(words + row.to(tl.int64) * W + token // 32, mask=live, other=0)
        drawn = used & (((word >> (token % 32)) & 1) != 0)
    # A row that keeps nothing has no sum; its mass is 0, since its highest is far below all.
    full_log, kept_log = tl.log2(total), tl.log2(tl.where(kept_total == 0.0, 1.0, kept_total))
    log_prob = ((target_logit - kept_highest) * scale - kept_log) * _LN2
    log_prob = tl.where(used, tl.where(drawn, log_prob, float("-inf")), 0.0)
    tl.store(log_probs + row, log_prob, mask=live)
    tl.store(entropies + row, ((highest - weighted / total) * scale + full_log) * _LN2, mask=live)
    tl.store(masses + row, tl.exp2((kept_highest - highest) * scale + (kept_log - full_log)), mask=live)
    tl.store(is_best + row, (target_logit >= highest) & used, mask=live)
    tl.store(level + row, kept_highest, mask=live)
    tl.store(level + N + row, tl.where(drawn, kept_log, float("inf")), mask=live)


@triton.jit
def _add(highest, total, logits, scale):
    """Add a tile to a row's sum of exponentials below its highest logit; also give the old sum's factor, and the terms."""
    higher = tl.maximum(highest, tl.max(logits, 1))
    shrink = tl.exp2((highest - higher) * scale)
    share = tl.exp2((logits - higher[:, None]) * scale)
    return higher, total * shrink + tl.sum(share, 1), shrink, share


@triton.jit
def _merge(highest, total, top, part, scale):
    """Add a piece's sum of exponentials to a row's; also give the factors of both."""
    higher = tl.maximum(highest, top)
    shrink, share = tl.exp2((highest - higher) * scale), tl.exp2((top - higher) * scale)
    return higher, total * shrink + part * share, shrink, share


@triton.jit(do_not_specialize=["N", "W"])
def _scan(  # noqa: PLR0913
    hidden,
    weight,
    targets,
    words,
    found,
    logits_kept,
    log_probs,
    entropies,
    masses,
    is_best,
    level,
    N,
    V,
    W,
    S,
    scale,
    WIDTH: tl.constexpr,
    PARTS: tl.constexpr,
    PIECE: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    INNER: tl.constexpr,
    WIDEN: tl.constexpr,
    PRECISION: tl.constexpr,
    MASKED: tl.constexpr,
    KEEP: tl.constexpr,
    WHOLE: tl.constexpr,
    EVEN: tl.constexpr,
):
    first_row = tl.program_id(0) * ROWS
    row = first_row + tl.arange(0, ROWS)
    part = tl.program_id(1)
    live = row < N
    target = tl.maximum(tl.load(targets + row, mask=live, other=-1), -1).to(tl.int32)
    highest = tl.full([ROWS], _LOWEST, tl.float32)
    kept_highest = tl.full([ROWS], _LOWEST, tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    kept_total = tl.zeros([ROWS], tl.float32)
    weighted = tl.zeros([ROWS], tl.float32)
    target_logit = tl.zeros([ROWS], tl.float32)
    for start in range(part * PIECE, tl.minimum((part + 1) * PIECE, V), COLUMNS):
        column = start + tl.arange(0, COLUMNS)
        logits = tile_logits(
            hidden, weight, first_row, first_row * 0 + start, N, V, WIDTH, PARTS, ROWS, COLUMNS, INNER, WIDEN, PRECISION
        )
        visible = logits
        if not EVEN:
            visible = tl.where((column < V)[None, :], logits, float("-inf"))
        if KEEP:
            place = logits_kept + row.to(tl.int64)[:, None] * S + column[None, :]
            # Up to S, not V: a limit that is a multiple of 16 lets stores be wide.
            tl.store(place, logits, mask=live[:, None] & (column < S)[None, :])
        # Counted from the tile's start, the columns are constants.
        at_target = tl.arange(0, COLUMNS)[None, :] == (target - start)[:, None]
        target_logit += tl.sum(tl.where(at_target, logits, 0.0), 1)
        highest, total, shrink, share = _add(highest, total, visible, scale)
        weighted = weighted * shrink + tl.sum(share * logits, 1)
        if MASKED:
            kept = tl.where(tile_kept(words, row, start, N, W, ROWS, COLUMNS), visible, float("-inf"))
            kept_highest, kept_total, _shrink, _share = _add(kept_highest, kept_total, kept, scale)
    if not MASKED:
        kept_highest, kept_total = highest, total
    if WHOLE:
        _finish(
            words, log_probs, entropies, masses, is_best, level, row, target,
            target_logit, highest, total, weighted, kept_highest, kept_total, scale, N, W, MASKED,
        )  # fmt: skip
    else:
        base = found + part.to(tl.int64) * 6 * N + row
        tl.store(base, target_logit, mask=live)
        tl.store(base + N, highest, mask=live)
        tl.store(base + 2 * N, total, mask=live)
        tl.store(base + 3 * N, weighted, mask=live)
        if MASKED:
            tl.store(base + 4 * N, kept_highest, mask=live)
            tl.store(base + 5 * N, kept_total, mask=live)


@triton.jit(do_not_specialize=["N", "W", "pieces"])
def _join(  # noqa: PLR0913
    found,
    targets,
    words,
    log_probs,
    entropies,
    masses,
    is_best,
    level,
    N,
    W,
    pieces,
    scale,
    ROWS: tl.constexpr,
    MASKED: tl.constexpr,
):
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    live = row < N
    target = tl.maximum(tl.load(targets + row, mask=live, other=-1), -1).to(tl.int32)
    highest = tl.full([ROWS], _LOWEST, tl.float32)
    kept_highest = tl.full([ROWS], _LOWEST, tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    kept_total = tl.zeros([ROWS], tl.float32)
    weighted = tl.zeros([ROWS], tl.float32)
    target_logit = tl.zeros([ROWS], tl.float32)
    for piece in range(pieces):
        base = found + (row * 0 + piece).to(tl.int64) * 6 * N + row
        target_logit += tl.load(base, mask=live, other=0.0)
        top, part = tl.load(base + N, mask=live, other=0.0), tl.load(base + 2 * N, mask=live, other=1.0)
        highest, total, shrink, share = _merge(highest, total, top, part, scale)
        weighted = weighted * shrink + tl.load(base + 3 * N, mask=live, other=0.0) * share
        if MASKED:
            top, part = tl.load(base + 4 * N, mask=live, other=0.0), tl.load(base + 5 * N, mask=live, other=1.0)
            kept_highest, kept_total, _shrink, _share = _merge(kept_highest, kept_total, top, part, scale)
    if not MASKED:
        kept_highest, kept_total = highest, total
    _finish(
        words, log_probs, entropies, masses, is_best, level, row, target,
        target_logit, highest, total, weighted, kept_highest, kept_total, scale, N, W, MASKED,
    )  # fmt: skip


def scan(
    hidden_ND: Tensor,
    weight_VD: Tensor,
    targets_N: Tensor,
    words_NW: Tensor | None,
    *,
    temperature: float,
    precision: str,
    keep: bool,
) -> Scores:
    """Pass over the vocabulary.

    Args:
        hidden_ND: Hidden states, contiguous [N, D], N >= 1.
        weight_VD: The head, contiguous [V, D].
        targets_N: Tokens, contiguous int64 [N]; a negative one is ignored.
        words_NW: Kept tokens as bits, contiguous int32 [N, W], or None.
        temperature: Divides the logits.
        precision: How float32 numbers are multiplied, `ieee` or `tf32x3`.
        keep: Whether to leave the logits to a backward pass.

    Returns:
        What was found.
    """
    (N, width), V, device = hidden_ND.shape, len(weight_VD), hidden_ND.device
    tiles = configs.tiles_for(hidden_ND.dtype, weight_VD.dtype)
    parts_VPD = parts_of(hidden_ND, weight_VD)
    pieces, stride = configs.pieces_for(V), configs.stride_for(V)
    scale = math.log2(math.e) / temperature
    # Apart, not rows of one tensor: a caller may change what it was given.
    scores = Scores(
        torch.empty(N, dtype=torch.float32, device=device),
        torch.empty(N, dtype=torch.float32, device=device),
        torch.empty(N, dtype=torch.float32, device=device),
        torch.empty(N, dtype=torch.bool, device=device),
        torch.empty(2, N, dtype=torch.float32, device=device),
        torch.empty(N, stride, dtype=torch.float32, device=device) if keep else None,
    )
    # A pointer that a variant does not read is that of the targets.
    found = torch.empty(pieces, _FOUND, N, dtype=torch.float32, device=device) if pieces > 1 else targets_N
    words = targets_N if words_NW is None else words_NW
    word_count, masked = (0, False) if words_NW is None else (words_NW.shape[1], True)
    written = scores[:5]
    _scan[(triton.cdiv(N, tiles.rows), pieces)](
        hidden_ND, parts_VPD, targets_N, words, found, targets_N if scores.logits_NS is None else scores.logits_NS,
        *written, N, V, word_count, stride, scale,
        WIDTH=width, PARTS=parts_VPD.shape[1], PIECE=configs.PIECE,
        ROWS=tiles.rows, COLUMNS=tiles.columns, INNER=min(tiles.inner, triton.next_power_of_2(width)),
        WIDEN=hidden_ND.dtype != parts_VPD.dtype, PRECISION=precision,
        MASKED=masked, KEEP=keep, WHOLE=pieces == 1, EVEN=V % tiles.columns == 0,
        num_warps=tiles.warps, num_stages=tiles.stages, enable_fp_fusion=configs.fuses(hidden_ND.dtype, weight_VD.dtype),
    )  # fmt: skip
    if pieces > 1:
        _join[(triton.cdiv(N, configs.JOIN_ROWS),)](
            found, targets_N, words, *written, N, word_count, pieces, scale,
            ROWS=configs.JOIN_ROWS, MASKED=masked, num_warps=4,
        )  # fmt: skip
    return scores
