"""Exact top-k with a total order: equal scores give equal sets, on every machine and in every pass.

Shape letters: B sequences, T queries, S keys, K kept keys; `...` is any leading shape.

Scores that are equal are common, not rare: the indexer's ReLU makes every key without a positive head score exactly
0.0, often at the very place where the k-th key is decided. A library's top-k breaks such ties as it likes, so two
passes would read different keys.
"""

from __future__ import annotations

import torch
from torch import Tensor

_LOWEST = torch.iinfo(torch.int32).min
"""Below the key of every number, minus infinity included."""


def exact_topk(scores: Tensor, visible: Tensor, k: int) -> Tensor:
    """Select the k best visible entries of each row: score descending, then index ascending.

    -0.0 equals 0.0, NaN counts as minus infinity, and a visible entry always comes before an invisible one. Each
    entry becomes one integer, the order of its float32 bits above and its index below, so no two are equal and the
    order of selection is settled before the library sees it.

    Args:
        scores: Scores, floating [..., S]; read as float32.
        visible: Which entries may be selected, bool, broadcasts to [..., S].
        k: Entries kept per row (count, >= 1).

    Returns:
        Indices, int32 [..., k], ascending, padded with -1 at the end.

    Raises:
        ValueError: k < 1.
    """
    if k < 1:
        raise ValueError(f"k must be >= 1, got {k}")
    size = scores.shape[-1]
    scores = scores.detach().to(torch.float32)
    scores = scores.nan_to_num(float("-inf"), float("inf"), float("-inf")) + 0.0  # -0.0 + 0.0 = 0.0
    bits = scores.contiguous().view(torch.int32)
    # Negative floats order backwards by their bits: flipping all but the sign makes integers of the same order.
    ordered = bits.bitwise_xor((bits >> 31).bitwise_and_(0x7FFFFFFF)).masked_fill_(~visible, _LOWEST).to(torch.int64)
    ordered.mul_(size).add_(torch.arange(size - 1, -1, -1, device=scores.device))
    best = torch.topk(ordered, min(k, size), dim=-1, sorted=False).values
    kept = (size - 1) - best.remainder(size)
    # Entries below are invisible: as `size` they sort to the end, and become the padding.
    kept = kept.masked_fill_(best < (_LOWEST + 1) * size, size).to(torch.int32).sort(dim=-1).values
    kept = kept.masked_fill_(kept == size, -1)
    return torch.nn.functional.pad(kept, (0, k - kept.shape[-1]), value=-1)


def first_k(positions: Tensor, k: int) -> Tensor:
    """Give what causal top-k selects when nothing is left out: position t holds 0..t.

    Args:
        positions: Positions in their sequences, below k, int [...].
        k: Width of a row.

    Returns:
        Indices, int32 [..., k], ascending, padded with -1.
    """
    index = torch.arange(k, dtype=torch.int32, device=positions.device)
    return torch.where(index <= positions[..., None], index, -1)


def kept_mask(indices: Tensor, size: int) -> Tensor:
    """Turn index rows into a mask.

    Args:
        indices: Indices, int [..., K], padded with -1.
        size: Entries S of a row.

    Returns:
        True where an entry is kept, bool [..., S].
    """
    # Padding goes to one extra column that is cut off again.
    slots = torch.where(indices < 0, size, indices).to(torch.int64)
    mask = torch.zeros(*indices.shape[:-1], size + 1, dtype=torch.bool, device=indices.device)
    return mask.scatter(-1, slots, True)[..., :size]
