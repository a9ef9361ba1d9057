"""What is timed of sparse attention: each part of a layer, whole layers, and decode steps.

A builder makes what a call needs and gives the call; memory counts from there, so inputs, selections and weights are
not in it. Projections are left out, as they are in `dense`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

import torch
from torch import Tensor

from envsynth.kernels.indexer import gathered_scores, index_select, index_select_decode, selected_kl
from envsynth.kernels.sparse_attention import SparseAttention, sparse_attention, sparse_attention_decode
from envsynth.train.overhead.inputs import Indexed, Inputs

Call = Callable[[], Any]
Builder = Callable[[Inputs, int], Call]


def attend(
    given: Inputs, k: int, query: Tensor, latent: Tensor, *, with_sum: bool, deterministic: bool = True
) -> SparseAttention:
    """Attend to the selection of k keys.

    Args:
        given: Sizes and selections.
        k: Keys kept per query.
        query: Queries, [B, T, H, C].
        latent: Latents, [B, T, C].
        with_sum: Whether the indexer's teacher is made too.
        deterministic: Whether gradients are added up in a fixed order.

    Returns:
        What the operator gives.
    """
    numbers: dict[str, Any] = {"rank": given.sizes.rank, "scale": given.sizes.scale}
    topk_BTK = given.selection(k)[0]
    return sparse_attention(query, latent, topk_BTK, with_sum=with_sum, deterministic=deterministic, **numbers)


def leaves(*tensors: Tensor) -> list[Tensor]:
    """Give tensors that share memory with these and take part in gradients.

    Args:
        *tensors: Any.

    Returns:
        The same numbers.
    """
    return [item.detach().requires_grad_() for item in tensors]


def core_gradients(given: Inputs, k: int, deterministic: bool) -> Call:
    """Give a call of attention forward and backward, which returns result, query's and latent's gradient.

    Args:
        given: Inputs.
        k: Keys kept per query.
        deterministic: Whether gradients are added up in a fixed order.

    Returns:
        The call.
    """
    needing, gradient = leaves(*given.core), given.gradient
    given.selection(k)

    def call() -> tuple[Tensor, ...]:
        out = attend(given, k, needing[0], needing[1], with_sum=False, deterministic=deterministic).out_BTHR
        return out, *torch.autograd.grad(out, needing, gradient)

    return call


def loss_gradients(given: Inputs, k: int, known: bool) -> Call:
    """Give a call of the indexer's loss forward and backward: its value, gradients of queries, keys and weights.

    Args:
        given: Inputs.
        k: Keys kept per query.
        known: Whether the scores of the selection are handed over, so that kernels need not score again.

    Returns:
        The call.
    """
    query, key, weight = given.index
    assert isinstance(key, Tensor)
    needing = leaves(query, key, weight)
    topk, scores = given.selection(k)
    with torch.no_grad():
        target = attend(given, k, *given.core, with_sum=True).sum_BTK
    assert target is not None

    def call() -> tuple[Tensor, ...]:
        mine = gathered_scores(needing[0], needing[1], needing[2], topk, known_BTK=scores if known else None)
        loss = selected_kl(mine, target, topk).mean()
        return loss, *torch.autograd.grad(loss, needing)

    return call


def layer_training(given: Inputs, k: int) -> Call:
    """Give a call of a whole layer in training: selection, attention with the teacher, loss, all gradients.

    Args:
        given: Inputs.
        k: Keys kept per query.

    Returns:
        The call; it returns the five gradients.
    """
    index_query, index_key, index_weight = given.index
    assert isinstance(index_key, Tensor)
    needing, gradient = leaves(*given.core, index_query, index_key, index_weight), given.gradient
    sizes = given.sizes

    def call() -> tuple[Tensor, ...]:
        query, latent, *index = needing
        topk, scores = index_select(index[0], index[1], index[2], k)
        found = sparse_attention(query, latent, topk, rank=sizes.rank, scale=sizes.scale, with_sum=True)
        assert found.sum_BTK is not None
        loss = selected_kl(gathered_scores(index[0], index[1], index[2], topk, known_BTK=scores), found.sum_BTK, topk)
        return torch.autograd.grad((found.out_BTHR, loss.mean()), needing, (gradient, None))

    return call


def _selection(given: Inputs, k: int, *, eight: bool) -> Call:
    index: Indexed = given.index_eight if eight else given.index
    return lambda: index_select(*index, k)


def _core(given: Inputs, k: int, *, with_sum: bool) -> Call:
    given.selection(k)
    query, latent = given.core
    return torch.no_grad()(lambda: attend(given, k, query, latent, with_sum=with_sum))


def _layer(given: Inputs, k: int) -> Call:
    index, (query, latent), sizes = given.index, given.core, given.sizes

    def call() -> SparseAttention:
        topk = index_select(*index, k)[0]
        return sparse_attention(query, latent, topk, rank=sizes.rank, scale=sizes.scale)

    return torch.no_grad()(call)


def decode_selection(given: Inputs, k: int) -> Call:
    """Give a call that selects for one token of every slot.

    Args:
        given: Inputs.
        k: Keys kept per slot.

    Returns:
        The call; it returns keys, int32 [N, K], and scores.
    """
    step = given.decoding
    return lambda: index_select_decode(
        step.query_NIJ, step.key_NSJ, step.weight_NI, step.rows_N, step.lengths_N, k
    )  # fmt: skip


def decode_core(given: Inputs, k: int) -> Call:
    """Give a call that attends for one token of every slot.

    Args:
        given: Inputs.
        k: Keys kept per slot.

    Returns:
        The call; it returns [N, H, R].
    """
    step, sizes = given.decoding, given.sizes
    topk_NK = decode_selection(given, k)()[0]
    return lambda: sparse_attention_decode(
        step.query_NHC, step.latent_NSC, step.rows_N, topk_NK, rank=sizes.rank, scale=sizes.scale
    )  # fmt: skip


def _decode_layer(given: Inputs, k: int) -> Call:
    step, sizes, select = given.decoding, given.sizes, decode_selection(given, k)
    return lambda: sparse_attention_decode(
        step.query_NHC, step.latent_NSC, step.rows_N, select()[0], rank=sizes.rank, scale=sizes.scale
    )  # fmt: skip


PARTS: Final[Mapping[str, Builder]] = {
    "selection": partial(_selection, eight=False),
    "selection_fp8": partial(_selection, eight=True),
    "core_forward": partial(_core, with_sum=False),
    "core_forward_sum": partial(_core, with_sum=True),
    "core_training": partial(core_gradients, deterministic=True),
    "core_training_atomic": partial(core_gradients, deterministic=False),
    "index_loss": partial(loss_gradients, known=False),
    "index_loss_known": partial(loss_gradients, known=True),
    "layer_forward": _layer,
    "layer_training": layer_training,
    "decode_selection": decode_selection,
    "decode_core": decode_core,
    "decode_layer": _decode_layer,
}
"""Name -> builder, in the order in which they are timed. `training` is forward and backward. Selection has no backward.
`index_loss` is the loss with its gradients; `known`: with the scores that the selection gave, as in `layer_training`."""
