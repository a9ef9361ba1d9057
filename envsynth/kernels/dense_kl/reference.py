"""The indexer's loss on all visible keys in plain torch: the truth that the kernels are tested against.

Shape letters: B sequences, T queries, S keys, H heads, C width of the teacher's keys, I indexer heads, J indexer width,
R queries of a chunk.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from envsynth.kernels.indexer.reference import index_scores, widened

ROWS = 256
"""Queries of a chunk: all pairs exist for one chunk at a time, forward and backward."""


def dense_kl(
    query_BTHC: Tensor,
    key_BSC: Tensor,
    index_query_BTIJ: Tensor,
    index_key_BSJ: Tensor,
    weight_BTI: Tensor,
    visible: tuple[Tensor, Tensor],
    scale: float,
    lse_BTH: Tensor | None = None,
) -> Tensor:
    """Measure KL(p || softmax(I)) of each query over its visible keys; p is the teacher's mean over heads.

    Args:
        query_BTHC: The teacher's queries, [B, T, H, C]; without gradient.
        key_BSC: The teacher's keys, [B, S, C]; without gradient.
        index_query_BTIJ: The indexer's queries, [B, T, I, J].
        index_key_BSJ: The indexer's keys, [B, S, J].
        weight_BTI: Head weights, [B, T, I].
        visible: First visible key and end, integer [B, T] each.
        scale: Factor on the teacher's logits.
        lse_BTH: Log-sum-exp of the teacher's visible logits, [B, T, H]; None to find it.

    Returns:
        Divergences in nats, float32 or wider [B, T]; 0, and without gradient, for a query without keys.
    """
    length = query_BTHC.shape[1]
    found = []
    for begin in range(0, length, ROWS):
        rows = slice(begin, begin + ROWS)
        lse_BRH = None if lse_BTH is None else lse_BTH[:, rows]
        bounds = (visible[0][:, rows], visible[1][:, rows])
        inputs = (query_BTHC[:, rows], key_BSC, index_query_BTIJ[:, rows], index_key_BSJ, weight_BTI[:, rows])
        if length > ROWS:
            found.append(checkpoint(_rows_kl, *inputs, bounds, scale, lse_BRH, use_reentrant=False))
        else:
            found.append(_rows_kl(*inputs, bounds, scale, lse_BRH))
    return torch.cat(found, dim=1)


def _rows_kl(
    query_BRHC: Tensor,
    key_BSC: Tensor,
    index_query_BRIJ: Tensor,
    index_key_BSJ: Tensor,
    weight_BRI: Tensor,
    visible: tuple[Tensor, Tensor],
    scale: float,
    lse_BRH: Tensor | None,
) -> Tensor:
    """Measure a chunk's divergences, [B, R]."""
    starts_BR, ends_BR = visible
    place_S = torch.arange(key_BSC.shape[1], device=key_BSC.device)
    seen_BRS = (place_S >= starts_BR[..., None]) & (place_S < ends_BR[..., None])
    live_BR, used_BS = seen_BRS.any(-1), seen_BRS.any(1)
    target_BRS = _teacher(query_BRHC, key_BSC, seen_BRS, scale, lse_BRH)
    # What nobody sees, and who sees nothing, must not matter, were it NaN: zero times NaN is NaN.
    index_key_BSJ = torch.where(used_BS[..., None], index_key_BSJ, 0.0)
    index_query_BRIJ = torch.where(live_BR[..., None, None], index_query_BRIJ, 0.0)
    weight_BRI = torch.where(live_BR[..., None], weight_BRI, 0.0)
    scores_BRS = index_scores(index_query_BRIJ, index_key_BSJ, weight_BRI)
    # A row of minus infinities has no softmax: a query without keys keeps its scores, which are zero.
    hidden_BRS = ~seen_BRS & live_BR[..., None]
    log_index_BRS = scores_BRS.masked_fill(hidden_BRS, float("-inf")).log_softmax(-1).masked_fill(~seen_BRS, 0.0)
    return (torch.xlogy(target_BRS, target_BRS) - target_BRS * log_index_BRS).sum(-1)


@torch.no_grad()
def _teacher(query_BRHC: Tensor, key_BSC: Tensor, seen_BRS: Tensor, scale: float, lse_BRH: Tensor | None) -> Tensor:
    """Give the mean of the teacher's probabilities over heads, [B, R, S]; 0 where not visible."""
    with torch.autocast(query_BRHC.device.type, enabled=False):
        logits_BRHS = torch.einsum("brhc,bsc->brhs", widened(query_BRHC), widened(key_BSC)) * scale
        logits_BRHS = logits_BRHS.masked_fill(~seen_BRS[:, :, None], float("-inf"))
        share_BRHS = logits_BRHS.softmax(-1) if lse_BRH is None else (logits_BRHS - lse_BRH[..., None]).exp()
        return share_BRHS.mean(2).masked_fill(~seen_BRS, 0.0)
