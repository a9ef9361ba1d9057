"""The kernels as operators of the library: Triton's launches from autograd functions cannot be traced.

To the compiler each is one call of known shapes. They compute what `index_select`, `gathered_scores` and `selected_kl`
compute.

Shape letters: B sequences, T queries, S keys, I indexer heads, J indexer head width, K selected keys, R rows.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, library

from envsynth.kernels.dispatch import load_kernels
from envsynth.kernels.indexer import selecting


@library.custom_op("envsynth::index_select", mutates_args=())
def selection_operator(
    query_BTIJ: Tensor,
    key_BSJ: Tensor,
    weight_BTI: Tensor,
    scale_BS: Tensor | None,
    k: int,
    starts_BT: Tensor | None,
    query_start_B: Tensor | None,
    chunk_rows: int | None,
) -> tuple[Tensor, Tensor]:
    """Select through the kernels; arguments were checked.

    Returns:
        Keys, int32 [B, T, K], and their scores, float32 [B, T, K].
    """
    problem = selecting.problem_of(query_BTIJ, key_BSJ, weight_BTI, scale_BS, starts_BT, query_start_B)
    return selecting.select(selecting.whole(problem), k, chunk_rows, with_kernels=True)


@selection_operator.register_fake
def _(
    query_BTIJ: Tensor,
    key_BSJ: Tensor,
    weight_BTI: Tensor,
    scale_BS: Tensor | None,
    k: int,
    starts_BT: Tensor | None,
    query_start_B: Tensor | None,
    chunk_rows: int | None,
) -> tuple[Tensor, Tensor]:
    del key_BSJ, scale_BS, starts_BT, query_start_B, chunk_rows
    shape = (*query_BTIJ.shape[:2], k)
    return weight_BTI.new_empty(shape, dtype=torch.int32), weight_BTI.new_empty(shape, dtype=torch.float32)


@library.custom_op("envsynth::index_scores", mutates_args=())
def scores_operator(
    query_BTIJ: Tensor, key_BSJ: Tensor, weight_BTI: Tensor, topk_BTK: Tensor, known_BTK: Tensor | None
) -> Tensor:
    """Score the selected keys through the kernels, or give what is known; arguments were checked.

    Returns:
        Scores, float32 [B, T, K].
    """
    if known_BTK is not None:
        return known_BTK.detach().clone()
    inputs = map(selecting.rows_contiguous, (query_BTIJ, key_BSJ, weight_BTI))
    return load_kernels("indexer.forward").gathered_scores(*inputs, topk_BTK.contiguous())


@scores_operator.register_fake
def _(query_BTIJ: Tensor, key_BSJ: Tensor, weight_BTI: Tensor, topk_BTK: Tensor, known_BTK: Tensor | None) -> Tensor:
    del query_BTIJ, key_BSJ, known_BTK
    return weight_BTI.new_empty(topk_BTK.shape, dtype=torch.float32)


@library.custom_op("envsynth::index_scores_backward", mutates_args=())
def _scores_backward(
    grad_BTK: Tensor, query_BTIJ: Tensor, key_BSJ: Tensor, weight_BTI: Tensor, topk_BTK: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Give the gradients of queries, keys and weights."""
    inputs = tuple(map(selecting.rows_contiguous, (query_BTIJ, key_BSJ, weight_BTI)))
    kernels = load_kernels("indexer.backward")
    found = kernels.gradients(*inputs, topk_BTK.contiguous(), grad_BTK.contiguous(), with_key=True)
    return found.query_BTIJ.to(query_BTIJ.dtype), found.key_BSJ.to(key_BSJ.dtype), found.weight_BTI


@_scores_backward.register_fake
def _(
    grad_BTK: Tensor, query_BTIJ: Tensor, key_BSJ: Tensor, weight_BTI: Tensor, topk_BTK: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    del grad_BTK, topk_BTK
    query, key, weight = (item.new_empty(item.shape) for item in (query_BTIJ, key_BSJ, weight_BTI))
    return query, key, weight


def _remember_inputs(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    """Keep what the backward pass of the scores reads."""
    del output
    ctx.save_for_backward(*inputs[:4])


def _differentiate_scores(ctx: Any, grad_BTK: Tensor) -> tuple[Tensor | None, ...]:
    """Give the gradients of the arguments; selection and known scores have none."""
    return *_scores_backward(grad_BTK.contiguous(), *ctx.saved_tensors), None, None


scores_operator.register_autograd(_differentiate_scores, setup_context=_remember_inputs)


@library.custom_op("envsynth::selected_kl", mutates_args=())
def divergence_operator(scores_RK: Tensor, target_RK: Tensor, topk_RK: Tensor) -> Tensor:
    """Measure KL(target || softmax(scores)) of each row through the kernels; arguments were checked.

    Returns:
        Divergences in nats, float32 [R].
    """
    return load_kernels("indexer.divergence").divergence(
        *(item.contiguous() for item in (scores_RK, target_RK, topk_RK))
    )


@divergence_operator.register_fake
def _(scores_RK: Tensor, target_RK: Tensor, topk_RK: Tensor) -> Tensor:
    del target_RK, topk_RK
    return scores_RK.new_empty(scores_RK.shape[:1], dtype=torch.float32)


@library.custom_op("envsynth::selected_kl_backward", mutates_args=())
def _divergence_backward(grad_R: Tensor, scores_RK: Tensor, target_RK: Tensor, topk_RK: Tensor) -> Tensor:
    """Give the gradient of the scores."""
    rows = (item.contiguous() for item in (scores_RK, target_RK, topk_RK))
    found = load_kernels("indexer.divergence").divergence_gradient(*rows, grad_R.contiguous())
    return found.to(scores_RK.dtype)


@_divergence_backward.register_fake
def _(grad_R: Tensor, scores_RK: Tensor, target_RK: Tensor, topk_RK: Tensor) -> Tensor:
    del grad_R, target_RK, topk_RK
    return scores_RK.new_empty(scores_RK.shape)


def _remember_rows(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    """Keep what the backward pass of the divergence reads."""
    del output
    ctx.save_for_backward(*inputs)


def _differentiate_divergence(ctx: Any, grad_R: Tensor) -> tuple[Tensor | None, ...]:
    """Give the gradients of the arguments; target and selection have none."""
    return _divergence_backward(grad_R.contiguous(), *ctx.saved_tensors), None, None


divergence_operator.register_autograd(_differentiate_divergence, setup_context=_remember_rows)
