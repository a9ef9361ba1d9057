"""Top-k in plain torch: the truth that the kernel is tested against.

Shape letters: R rows, S scores of a row, K kept entries.
"""

from __future__ import annotations

import torch
from torch import Tensor

_LOWEST = torch.iinfo(torch.int32).min
"""Below the key of every number, minus infinity included."""


def topk(scores_RS: Tensor, ends_R: Tensor, k: int, starts_R: Tensor | None = None) -> Tensor:
    """Select the k best visible scores of each row: score descending, then index ascending.

    Each score becomes one integer, the order of its float32 bits above and its index below, so no two are equal and
    the order of selection is settled before the library sees it.

    Args:
        scores_RS: Scores, floating [R, S]; read as float32.
        ends_R: End of the visible part, exclusive, integer [R].
        k: Entries kept per row (count, >= 1).
        starts_R: First visible entry, integer [R]; None for 0.

    Returns:
        Indices, int32 [R, K], ascending, padded with -1.
    """
    size = scores_RS.shape[-1]
    place_S = torch.arange(size, device=scores_RS.device)
    visible_RS = place_S < ends_R[:, None]
    if starts_R is not None:
        visible_RS = visible_RS & (place_S >= starts_R[:, None])
    scores_RS = scores_RS.to(torch.float32)
    scores_RS = scores_RS.nan_to_num(float("-inf"), float("inf"), float("-inf")) + 0.0  # -0.0 + 0.0 = 0.0
    bits_RS = scores_RS.contiguous().view(torch.int32)
    # Negative floats order backwards by their bits: flipping all but the sign makes integers of the same order.
    ordered_RS = bits_RS.bitwise_xor((bits_RS >> 31).bitwise_and_(0x7FFFFFFF))
    ordered_RS = ordered_RS.masked_fill_(~visible_RS, _LOWEST).to(torch.int64)
    ordered_RS.mul_(size).add_(size - 1 - place_S)
    best_RK = torch.topk(ordered_RS, min(k, size), dim=-1, sorted=False).values
    kept_RK = (size - 1) - best_RK.remainder(max(size, 1))
    # Entries below are invisible: as `size` they sort to the end, and become the padding.
    kept_RK = kept_RK.masked_fill_(best_RK < (_LOWEST + 1) * size, size).to(torch.int32).sort(dim=-1).values
    kept_RK = kept_RK.masked_fill_(kept_RK == size, -1)
    return torch.nn.functional.pad(kept_RK, (0, k - kept_RK.shape[-1]), value=-1)
