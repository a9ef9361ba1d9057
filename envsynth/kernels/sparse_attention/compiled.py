"""The kernels as one operator of the library: Triton's launches from an autograd function cannot be traced.

To the compiler this is one call of known shapes, forward and backward. It computes what `sparse_attention` computes.

Shape letters: B sequences, T queries, S keys, H heads, K selected keys, R values, C keys.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, library

from envsynth.kernels.sparse_attention import running


@library.custom_op("envsynth::sparse_attention", mutates_args=())
def attention_operator(
    query_BTHC: Tensor,
    latent_BSC: Tensor,
    topk_BTK: Tensor,
    rank: int,
    scale: float,
    with_sum: bool,
    deterministic: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Attend through the kernels; arguments were checked.

    Returns:
        Result [B, T, H, R], log-sum-exp [B, T, H], and sums over heads [B, T, K], empty where not asked for.
    """
    call = running.Call(rank, scale, with_sum, deterministic)
    kept, sums = running.run(query_BTHC, latent_BSC, topk_BTK, call)
    return kept.out_BTHR, kept.lse_BTH, kept.lse_BTH.new_empty(0) if sums is None else sums


@attention_operator.register_fake
def _(
    query_BTHC: Tensor,
    latent_BSC: Tensor,
    topk_BTK: Tensor,
    rank: int,
    scale: float,
    with_sum: bool,
    deterministic: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    del latent_BSC, scale, deterministic
    rows, wide = query_BTHC.shape[:3], torch.float32
    shape = topk_BTK.shape if with_sum else (0,)
    return (
        query_BTHC.new_empty(*rows, rank),
        query_BTHC.new_empty(rows, dtype=wide),
        query_BTHC.new_empty(shape, dtype=wide),
    )


@library.custom_op("envsynth::sparse_attention_backward", mutates_args=())
def _backward(
    gradient_BTHR: Tensor, kept: list[Tensor], rank: int, scale: float, deterministic: bool
) -> tuple[Tensor, Tensor]:
    """Give the gradients of queries and latents."""
    query, latent, topk, out, lse = kept
    saved = running.Kept(query.contiguous(), latent.contiguous(), topk.contiguous(), out, lse)
    return running.differentiate(saved, gradient_BTHR, running.Call(rank, scale, False, deterministic))


@_backward.register_fake
def _(gradient_BTHR: Tensor, kept: list[Tensor], rank: int, scale: float, deterministic: bool) -> tuple[Tensor, Tensor]:
    del gradient_BTHR, rank, scale, deterministic
    return kept[0].new_empty(kept[0].shape), kept[1].new_empty(kept[1].shape)


def _remember(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    """Keep what the backward pass reads."""
    query, latent, topk, rank, scale, _, deterministic = inputs
    ctx.save_for_backward(query, latent, topk, output[0], output[1])
    ctx.numbers = (rank, scale, deterministic)
    ctx.mark_non_differentiable(output[1], output[2])


def _differentiate(ctx: Any, gradient_BTHR: Tensor, *_of_others: Tensor) -> tuple[Tensor | None, ...]:
    """Give the gradients of the arguments; log-sum-exp and sums have none."""
    found = _backward(gradient_BTHR.contiguous(), list(ctx.saved_tensors), *ctx.numbers)
    return *found, None, None, None, None, None


attention_operator.register_autograd(_differentiate, setup_context=_remember)
