"""The kernels of attention over selected keys, forward and backward, as plain functions: no autograd, no choice of backend.

Shape letters: B sequences, T queries, S keys, H heads, K selected keys, R values, C keys.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from envsynth.kernels.dispatch import load_kernels
from envsynth.kernels.sparse_attention import configs

NAME = "sparse_attention"
"""The operator's, for errors and modules."""


class Call(NamedTuple):
    """Numbers of one call."""

    rank: int
    """Width R of a value."""
    scale: float
    """Factor on the logits."""
    with_sum: bool
    """Whether probabilities are also summed over heads."""
    deterministic: bool
    """Whether gradients of latents are added up in a fixed order."""


class Kept(NamedTuple):
    """What the backward pass reads."""

    query_BTHC: Tensor
    """Queries, contiguous [B, T, H, C]."""
    latent_BSC: Tensor
    """Latents, contiguous [B, S, C]."""
    topk_BTK: Tensor
    """Selected keys, contiguous int32 [B, T, K]."""
    out_BTHR: Tensor
    """Result, [B, T, H, R]."""
    lse_BTH: Tensor
    """Log-sum-exp of the logits, float32 [B, T, H]."""


def run(query_BTHC: Tensor, latent_BSC: Tensor, topk_BTK: Tensor, call: Call) -> tuple[Kept, Tensor | None]:
    """Attend to the selected latents of each query; nothing may be empty but the keys of the sequences.

    Args:
        query_BTHC: Queries, [B, T, H, C].
        latent_BSC: Latents, [B, S, C].
        topk_BTK: Selected keys, int32 [B, T, K].
        call: How.

    Returns:
        What the backward pass reads, result and log-sum-exp among it, and the sums over heads, if asked for.
    """
    B, T, H, _ = query_BTHC.shape
    query, latent, topk = (x.contiguous() for x in (query_BTHC, latent_BSC, topk_BTK))
    if query.numel() == 0 or topk.numel() == 0:
        out, lse = query.new_zeros(B, T, H, call.rank), query.new_full((B, T, H), float("inf"), dtype=torch.float32)
        sums = query.new_zeros(topk.shape, dtype=torch.float32) if call.with_sum else None
    else:
        numbers = {"rank": call.rank, "scale": call.scale}
        out, lse, sums = load_kernels(f"{NAME}.forward").attend(query, latent, topk, with_sum=call.with_sum, **numbers)
    return Kept(query, latent, topk, out, lse), sums


def differentiate(kept: Kept, gradient_BTHR: Tensor, call: Call) -> tuple[Tensor, Tensor]:
    """Give the gradients of queries and latents.

    Args:
        kept: What `run` gave.
        gradient_BTHR: Gradient of the result, [B, T, H, R].
        call: The forward pass's.

    Returns:
        Gradients in the inputs' types and shapes.
    """
    query, latent, topk, out, lse = kept
    if query.numel() == 0 or topk.numel() == 0:
        return torch.zeros_like(query), torch.zeros_like(latent)
    queries = configs.queries_per_tile(query.shape[2], topk.shape[-1])
    entries = load_kernels(f"{NAME}.union").entries_of(topk, latent.shape[1], queries)
    kernels = load_kernels(f"{NAME}.backward")
    return kernels.gradients(
        kernels.Saved(query, latent, out, lse, entries),
        gradient_BTHR.contiguous(),
        rank=call.rank,
        scale=call.scale,
        deterministic=call.deterministic,
        workspace_bytes=configs.WORKSPACE_BYTES,
    )
