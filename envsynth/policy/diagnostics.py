"""How well the indexer's selection stands for dense attention.

Shape letters: B sequences, T queries, S keys, K selected keys, L layers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from envsynth.policy.selection import kept_mask


class LayerDiagnostics(NamedTuple):
    """Measures of one layer."""

    recall_BT: Tensor
    """Share of the dense attention's mass, all heads together, that the selected keys hold, [B, T]."""
    best_BT: Tensor
    """The same of the K keys that hold most: what no selection for all heads can exceed, [B, T]."""
    entropy_BT: Tensor
    """Entropy of softmax(index scores) over the visible keys in nats, [B, T]."""
    overlap_BT: Tensor
    """Share of a query's selected keys that the query before selected as well, [B, T]; 0 at the first query."""


@dataclass(frozen=True, kw_only=True, eq=False)
class SelectionDiagnostics:
    """Measures of all layers. Queries with at most K visible keys select all of them, and say little."""

    recall_BTL: Tensor
    """Share of the dense attention's mass, all heads together, that the selected keys hold, [B, T, L]."""
    best_BTL: Tensor
    """The same of the K keys that hold most: what no selection for all heads can exceed, [B, T, L]."""
    entropy_BTL: Tensor
    """Entropy of softmax(index scores) over the visible keys in nats, [B, T, L]."""
    overlap_BTL: Tensor
    """Share of a query's selected keys that the query before selected as well, [B, T, L]; 0 at the first query."""


@torch.no_grad()
def layer_diagnostics(scores_BTS: Tensor, attention_BTS: Tensor, visible: Tensor, topk_BTK: Tensor) -> LayerDiagnostics:
    """Measure a selection.

    Args:
        scores_BTS: Index scores, [B, T, S].
        attention_BTS: Dense attention probabilities, summed over heads, [B, T, S].
        visible: Visible keys, bool [T, S] or [B, T, S].
        topk_BTK: Selected keys, int [B, T, K], padded with -1.

    Returns:
        The measures.
    """
    is_key_BTK = topk_BTK >= 0
    places_BTK = topk_BTK.clamp(min=0).to(torch.int64)
    held_BT = (attention_BTS.gather(-1, places_BTK) * is_key_BTK).sum(-1)
    most_BT = attention_BTS.topk(min(topk_BTK.shape[-1], attention_BTS.shape[-1]), sorted=False).values.sum(-1)
    all_BT = attention_BTS.sum(-1)
    log_index_BTS = scores_BTS.masked_fill(~visible, float("-inf")).log_softmax(-1).masked_fill(~visible, 0.0)
    entropy_BT = -(log_index_BTS.exp() * log_index_BTS * visible).sum(-1)
    kept_BTS = kept_mask(topk_BTK, scores_BTS.shape[-1])
    shared_BT = torch.zeros_like(held_BT)
    shared_BT[:, 1:] = (kept_BTS[:, 1:] & kept_BTS[:, :-1]).sum(-1) / is_key_BTK[:, 1:].sum(-1)
    return LayerDiagnostics(held_BT / all_BT, most_BT / all_BT, entropy_BT, shared_BT)


def join_layers(layers: list[LayerDiagnostics]) -> SelectionDiagnostics | None:
    """Stack the measures of layers.

    Args:
        layers: Measures of each layer, in order.

    Returns:
        All measures; None without any layer.
    """
    if not layers:
        return None
    return SelectionDiagnostics(
        recall_BTL=torch.stack([layer.recall_BT for layer in layers], dim=-1),
        best_BTL=torch.stack([layer.best_BT for layer in layers], dim=-1),
        entropy_BTL=torch.stack([layer.entropy_BT for layer in layers], dim=-1),
        overlap_BTL=torch.stack([layer.overlap_BT for layer in layers], dim=-1),
    )
