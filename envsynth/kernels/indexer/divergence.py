"""The loss of the indexer on selected keys as one kernel forward and one backward, each with a row in registers.

Shape letters: R rows (sequences times queries), K selected keys.
"""

# ruff: noqa: ANN001, ANN201, ANN202 - Triton types the parameters of its kernels itself
# pyright: reportCallIssue=false, reportGeneralTypeIssues=false

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from envsynth.kernels.indexer.configs import power_of_two

_TINY = tl.constexpr(1.1754943508222875e-38)
"""Least normal float32."""


@triton.jit
def _load_row(scores_ptr, target_ptr, topk_ptr, n_selected, BLOCK: tl.constexpr):
    """Load a row: its places, which are kept, log-softmax of scores (0 where not kept), and the target with sum one."""
    offsets = tl.program_id(0).to(tl.int64) * n_selected + tl.arange(0, BLOCK)
    kept = tl.load(topk_ptr + offsets, mask=tl.arange(0, BLOCK) < n_selected, other=-1) >= 0
    scores = tl.load(scores_ptr + offsets, mask=kept, other=float("-inf")).to(tl.float32)
    target = tl.load(target_ptr + offsets, mask=kept, other=0.0).to(tl.float32)
    target = target / tl.maximum(tl.sum(target, axis=0), _TINY)
    highest = tl.max(scores, axis=0)
    # A row without keys has no highest score; it is 0 everywhere below.
    highest = tl.where(highest == float("-inf"), 0.0, highest)
    total = tl.sum(tl.exp(scores - highest), axis=0)
    log_total = tl.log(tl.where(total == 0.0, 1.0, total))
    return offsets, kept, tl.where(kept, scores - highest - log_total, 0.0), target


@triton.jit
def divergence_kernel(scores_ptr, target_ptr, topk_ptr, out_ptr, n_selected, BLOCK: tl.constexpr):
    """Write KL(target || softmax(scores)) of a row."""
    _, _, log_index, target = _load_row(scores_ptr, target_ptr, topk_ptr, n_selected, BLOCK)
    # The logarithm of a zero target would be minus infinity, and NaN in a product with it.
    entropy = tl.where(target == 0.0, 0.0, target * tl.log(tl.where(target == 0.0, 1.0, target)))
    tl.store(out_ptr + tl.program_id(0), tl.sum(entropy - target * log_index, axis=0))


@triton.jit
def divergence_gradient_kernel(
    scores_ptr, target_ptr, topk_ptr, grad_ptr, grad_scores_ptr, n_selected, BLOCK: tl.constexpr
):
    """Write the gradient at a row's scores: softmax(scores) times the target's mass (one or zero), minus the target."""
    offsets, kept, log_index, target = _load_row(scores_ptr, target_ptr, topk_ptr, n_selected, BLOCK)
    logit = tl.exp(log_index) * tl.sum(target, axis=0) - target
    grad = tl.load(grad_ptr + tl.program_id(0)).to(tl.float32)
    inside = tl.arange(0, BLOCK) < n_selected
    tl.store(grad_scores_ptr + offsets, tl.where(kept, grad * logit, 0.0), mask=inside)


def divergence(scores_RK: Tensor, target_RK: Tensor, topk_RK: Tensor) -> Tensor:
    """Measure KL(target scaled to sum one || softmax(scores)) of each row.

    Args:
        scores_RK: Scores, [R, K], contiguous.
        target_RK: Masses, [R, K], contiguous.
        topk_RK: Selected keys, [R, K], contiguous, padded with -1.

    Returns:
        Divergences in nats, float32 [R].
    """
    rows, selected = scores_RK.shape
    out_R = torch.empty(rows, dtype=torch.float32, device=scores_RK.device)
    block = power_of_two(selected)
    divergence_kernel[(rows,)](scores_RK, target_RK, topk_RK, out_R, selected, BLOCK=block, num_warps=_warps(block))
    return out_R


def divergence_gradient(scores_RK: Tensor, target_RK: Tensor, topk_RK: Tensor, grad_R: Tensor) -> Tensor:
    """Pass a gradient at divergences on to the scores.

    Args:
        scores_RK: Scores, [R, K], contiguous.
        target_RK: Masses, [R, K], contiguous.
        topk_RK: Selected keys, [R, K], contiguous, padded with -1.
        grad_R: Gradient at the divergences, [R], contiguous.

    Returns:
        Gradient at the scores, float32 [R, K]; 0 at padding.
    """
    rows, selected = scores_RK.shape
    out_RK = torch.empty(rows, selected, dtype=torch.float32, device=scores_RK.device)
    block = power_of_two(selected)
    divergence_gradient_kernel[(rows,)](
        scores_RK, target_RK, topk_RK, grad_R, out_RK, selected, BLOCK=block, num_warps=_warps(block)
    )
    return out_RK


def _warps(block: int) -> int:
    """Give a thread at most 16 entries."""
    return max(1, min(16, block // 512))
