"""Index scores, their selection and their loss in plain torch: the truth that the kernels are tested against.

Shape letters: B sequences, T queries, S keys, I indexer heads, J indexer head width, K selected keys.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

ROW_BLOCK = 16
"""Rows and columns of a product at least: fewer are multiplied by other code, with other rounding."""


def index_scores(query_BTIJ: Tensor, key_BSJ: Tensor, weight_BTI: Tensor, key_scale_BS: Tensor | None = None) -> Tensor:
    """Score every key for every query, without any mask: I[t, s] = sum over heads of w[t, i] * relu(q[t, i] . k[s]).

    Args:
        query_BTIJ: Queries, [B, T, I, J].
        key_BSJ: Keys, [B, S, J].
        weight_BTI: Head weights, [B, T, I].
        key_scale_BS: Factor of each key's scores, [B, S]; None for 1.

    Returns:
        Scores, float32 or wider [B, T, S].
    """
    with torch.autocast(query_BTIJ.device.type, enabled=False):
        query, key, weight = widened(query_BTIJ), widened(key_BSJ), widened(weight_BTI)
        B, T, heads, width = query.shape
        n_keys = key.shape[1]
        products = _at_least_rows(query.reshape(B, T * heads, width)) @ _at_least_rows(key).transpose(1, 2)
        dots_BTIS = products[:, : T * heads, :n_keys].unflatten(1, (T, heads))
        # Unbound, not indexed: the gradient of an index fills a tensor of all heads with zeros, once for each head.
        first, *others = zip(dots_BTIS.unbind(2), weight[..., None].unbind(2), strict=True)
        scores_BTS = first[0].relu() * first[1]
        for dots_BTS, weight_BT1 in others:
            scores_BTS = scores_BTS + dots_BTS.relu() * weight_BT1
        return scores_BTS if key_scale_BS is None else scores_BTS * key_scale_BS[:, None]


def gathered_scores(query_BTIJ: Tensor, key_BSJ: Tensor, weight_BTI: Tensor, topk_BTK: Tensor) -> Tensor:
    """Score the selected keys of each query.

    Args:
        query_BTIJ: Queries, [B, T, I, J].
        key_BSJ: Keys, [B, S, J].
        weight_BTI: Head weights, [B, T, I].
        topk_BTK: Selected keys, integer [B, T, K], padded with -1.

    Returns:
        Scores, float32 or wider [B, T, K]; 0 at padding.
    """
    query, key, weight = widened(query_BTIJ), widened(key_BSJ), widened(weight_BTI)
    batch_B11 = torch.arange(len(key), device=key.device)[:, None, None]
    key_BTKJ = key[batch_B11, topk_BTK.clamp(min=0).to(torch.int64)]
    kept_BTK = topk_BTK >= 0
    # What padding would read must not matter, were it NaN.
    key_BTKJ = torch.where(kept_BTK[..., None], key_BTKJ, 0.0)
    dots_BTIK = query @ key_BTKJ.transpose(-1, -2)
    return (dots_BTIK.relu() * weight[..., None]).sum(2).masked_fill(~kept_BTK, 0.0)


def selected_kl(scores_BTK: Tensor, target_BTK: Tensor, topk_BTK: Tensor) -> Tensor:
    """Measure KL(p || softmax(scores)) over the selected keys, where p is the target scaled to sum one.

    Args:
        scores_BTK: Index scores, [B, T, K].
        target_BTK: Attention summed over heads, [B, T, K]; without gradient.
        topk_BTK: Selected keys, integer [B, T, K], padded with -1.

    Returns:
        Divergence in nats, float32 or wider [B, T].
    """
    kept_BTK, scores_BTK = topk_BTK >= 0, widened(scores_BTK)
    target_BTK = widened(target_BTK.detach()).masked_fill(~kept_BTK, 0.0)
    target_BTK = target_BTK / target_BTK.sum(-1, keepdim=True).clamp(min=torch.finfo(target_BTK.dtype).tiny)
    # A row of minus infinities has no softmax, and NaN times zero is NaN: a query without keys keeps its scores.
    hidden_BTK = ~kept_BTK & kept_BTK.any(-1, keepdim=True)
    log_index_BTK = scores_BTK.masked_fill(hidden_BTK, float("-inf")).log_softmax(-1).masked_fill(~kept_BTK, 0.0)
    return (torch.xlogy(target_BTK, target_BTK) - target_BTK * log_index_BTK).sum(-1)


def widened(x: Tensor) -> Tensor:
    """Give numbers in float32, or in float64 as they are."""
    return x if x.dtype == torch.float64 else x.to(torch.float32)


def _at_least_rows(x: Tensor) -> Tensor:
    """Pad [B, rows, width] with zeros to a whole block, if it has fewer rows."""
    missing = ROW_BLOCK - x.shape[1]
    return functional.pad(x, (0, 0, 0, missing)) if missing > 0 else x
