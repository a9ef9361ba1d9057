"""Exact top-k of rows with a total order: equal scores give equal sets, on every machine and in every pass.

Shape letters: R rows, S scores of a row, K kept entries.

The order is score descending, then index ascending. -0.0 equals 0.0, and NaN counts as minus infinity. Ties are common:
the indexer's ReLU makes every key without a positive head score exactly 0.0, often at the very place where the k-th key
is decided, and a library's top-k breaks them as it likes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from envsynth.kernels.dispatch import Backend, UnsupportedError, choose, load_kernels
from envsynth.kernels.topk import reference
from envsynth.kernels.topk.configs import LARGEST_K

__all__ = ["topk"]


def topk(
    scores_RS: Tensor, ends_R: Tensor, k: int, *, starts_R: Tensor | None = None, backend: Backend | None = None
) -> Tensor:
    """Select the k best of each row's visible scores, start <= index < end.

    What lies outside of the visible part is never selected, and its value has no influence. No gradient.

    Args:
        scores_RS: Scores, floating [R, S]; read as float32.
        ends_R: End of each row's visible part, exclusive; values beyond S count as S; integer [R].
        k: Entries kept per row (count, >= 1); may exceed S.
        starts_R: First visible entry of each row, integer [R]; None for 0.
        backend: How to run; None takes the kernels on a GPU and the reference elsewhere.

    Returns:
        Indices, int32 [R, K], ascending, padded with -1 at the end.

    Raises:
        ValueError: k < 1, or shapes disagree.
        UnsupportedError: the kernels cannot keep so many of a row, or devices differ.
    """
    if k < 1:
        raise ValueError(f"topk: k must be >= 1, got {k}")
    bounds = [item for item in (ends_R, starts_R) if item is not None]
    if scores_RS.ndim != 2 or any(item.shape != scores_RS.shape[:1] for item in bounds):
        shapes = [tuple(item.shape) for item in (scores_RS, *bounds)]
        raise ValueError(f"topk: scores must be [R, S], ends and starts [R]; shapes are {shapes}")
    if not scores_RS.is_floating_point():
        raise ValueError(f"topk: scores must be floating, got {scores_RS.dtype}")
    scores_RS = scores_RS.detach()
    if choose("topk", scores_RS, *bounds, backend=backend) == "reference":
        return reference.topk(scores_RS, ends_R, k, starts_R)
    rows, size = scores_RS.shape
    if rows == 0 or size == 0:
        return torch.full((rows, k), -1, dtype=torch.int32, device=scores_RS.device)
    if LARGEST_K < k < size:
        raise UnsupportedError(
            f"topk: kernels keep at most {LARGEST_K} of {size} scores, got k={k}; use backend='reference'"
        )
    return load_kernels("topk.forward").launch(scores_RS, ends_R, k, starts_R)
