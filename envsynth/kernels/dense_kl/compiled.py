"""The kernels as one operator of the library: Triton's launches from an autograd function cannot be traced.

To the compiler this is one call of known shapes, forward and backward. It computes what `dense_kl` computes.

Shape letters: B sequences, T queries, S keys, H heads, C their width, I indexer heads, J their width.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, library

from envsynth.kernels.dispatch import load_kernels


@library.custom_op("envsynth::dense_kl", mutates_args=())
def divergence_operator(
    query_BTIJ: Tensor,
    key_BSJ: Tensor,
    weight_BTI: Tensor,
    teacher: list[Tensor],
    scale: float,
    lse_BTH: Tensor | None,
    visible: list[Tensor],
) -> tuple[Tensor, Tensor, Tensor]:
    """Measure through the kernels; arguments were checked, and nothing is empty.

    Returns:
        Divergences in nats, [B, T]; and for the backward pass the log-sum-exps of the teacher [B, T, H] and of the
        scores [B, T].
    """
    kernels = load_kernels("dense_kl.forward")
    tensors = (*teacher, query_BTIJ, key_BSJ, weight_BTI, *visible)
    problem = kernels.Problem(*(item.contiguous() for item in tensors), scale)
    # An operator's result is never one of its arguments.
    lse = kernels.teacher_lse(problem) if lse_BTH is None else lse_BTH.contiguous().clone()
    loss, index_lse = kernels.divergence(problem, lse)
    return loss, lse, index_lse


@divergence_operator.register_fake
def _(
    query_BTIJ: Tensor,
    key_BSJ: Tensor,
    weight_BTI: Tensor,
    teacher: list[Tensor],
    scale: float,
    lse_BTH: Tensor | None,
    visible: list[Tensor],
) -> tuple[Tensor, Tensor, Tensor]:
    del key_BSJ, weight_BTI, scale, lse_BTH, visible
    rows, wide = query_BTIJ.shape[:2], torch.float32
    lse = query_BTIJ.new_empty(teacher[0].shape[:3], dtype=wide)
    return query_BTIJ.new_empty(rows, dtype=wide), lse, query_BTIJ.new_empty(rows, dtype=wide)


@library.custom_op("envsynth::dense_kl_backward", mutates_args=())
def _backward(grad_BT: Tensor, tensors: list[Tensor], scale: float) -> tuple[Tensor, Tensor, Tensor]:
    """Give the gradients of the indexer's queries, keys and weights."""
    *inputs, lse, index_lse = tensors
    problem = load_kernels("dense_kl.forward").Problem(*(item.contiguous() for item in inputs), scale)
    found = load_kernels("dense_kl.backward").gradients(problem, lse, index_lse, grad_BT.contiguous())
    kinds = (problem.index_query_BTIJ.dtype, problem.index_key_BSJ.dtype)
    return found.query_BTIJ.to(kinds[0]), found.key_BSJ.to(kinds[1]), found.weight_BTI


@_backward.register_fake
def _(grad_BT: Tensor, tensors: list[Tensor], scale: float) -> tuple[Tensor, Tensor, Tensor]:
    del grad_BT, scale
    query, key, weight = (item.new_empty(item.shape) for item in tensors[2:5])
    return query, key, weight


def _remember(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    """Keep what the backward pass reads, in the order of `forward.Problem`."""
    query, key, weight, teacher, scale, _, visible = inputs
    ctx.save_for_backward(*teacher, query, key, weight, *visible, *output[1:])
    ctx.scale = scale
    ctx.mark_non_differentiable(*output[1:])


def _differentiate(ctx: Any, grad_BT: Tensor, *_of_sums: Tensor) -> tuple[Any, ...]:
    """Give the gradients of the arguments; the teacher has none."""
    found = _backward(grad_BT.contiguous(), list(ctx.saved_tensors), ctx.scale)
    return *found, [None, None], None, None, [None, None]


divergence_operator.register_autograd(_differentiate, setup_context=_remember)
