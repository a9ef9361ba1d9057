"""The kernels as one operator of the library: Triton's launches from an autograd function cannot be traced.

To the compiler this is one call of known shapes, forward and backward. It computes what `linear_log_probs` computes.

Shape letters: N rows, D width of a hidden state, V vocabulary, W words of 32 bits, S columns of kept logits.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, library

from envsynth.kernels.dispatch import load_kernels
from envsynth.kernels.logprobs import configs


@library.custom_op("envsynth::linear_log_probs", mutates_args=())
def scores_operator(
    hidden_ND: Tensor,
    weight_VD: Tensor,
    targets_N: Tensor,
    words_NW: Tensor | None,
    temperature: float,
    precision: str,
    keep: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Score each row's token through the kernels; arguments were checked.

    Returns:
        Log-probabilities, entropies, masses and whether the token is best, [N]; and for the backward pass the levels
        [2, N] and the logits [N, S], empty without `keep`.
    """
    hidden, weight, targets = hidden_ND.contiguous(), weight_VD.contiguous(), targets_N.long().contiguous()
    wide, rows = torch.float32, len(targets)
    if rows == 0:
        found = (hidden.new_empty(0, dtype=wide), hidden.new_empty(0, dtype=wide), hidden.new_empty(0, dtype=wide))
        return *found, hidden.new_empty(0, dtype=torch.bool), hidden.new_empty(2, 0, dtype=wide), _empty(hidden)
    words = None if words_NW is None else words_NW.contiguous()
    scores = load_kernels("logprobs.forward").scan(
        hidden, weight, targets, words, temperature=temperature, precision=precision, keep=keep
    )
    return *scores[:5], _empty(hidden) if scores.logits_NS is None else scores.logits_NS


@scores_operator.register_fake
def _(
    hidden_ND: Tensor,
    weight_VD: Tensor,
    targets_N: Tensor,
    words_NW: Tensor | None,
    temperature: float,
    precision: str,
    keep: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    del targets_N, words_NW, temperature, precision
    rows, wide = len(hidden_ND), torch.float32
    one, two, three = (hidden_ND.new_empty(rows, dtype=wide) for _ in range(3))
    columns = configs.stride_for(len(weight_VD)) if keep else 0
    logits = hidden_ND.new_empty(rows, columns, dtype=wide) if keep else hidden_ND.new_empty(0, 0, dtype=wide)
    return (
        one,
        two,
        three,
        hidden_ND.new_empty(rows, dtype=torch.bool),
        hidden_ND.new_empty(2, rows, dtype=wide),
        logits,
    )


@library.custom_op("envsynth::linear_log_probs_backward", mutates_args=())
def _backward(
    gradient_N: Tensor, tensors: list[Tensor], words_NW: Tensor | None, temperature: float, precision: str
) -> tuple[Tensor, Tensor]:
    """Give the gradients of hidden states and head, from these, the targets, the levels and the logits."""
    hidden, weight, targets, level_2N, logits_NS = (item.contiguous() for item in tensors)
    if len(hidden) == 0:
        return torch.zeros_like(hidden), torch.zeros_like(weight)
    module = load_kernels("logprobs.backward")
    words = None if words_NW is None else words_NW.contiguous()
    kept = module.Kept(hidden, weight, targets.long(), words, level_2N, logits_NS if logits_NS.numel() else None)
    return module.gradients(
        kept, gradient_N.contiguous(), temperature=temperature, precision=precision, wanted=(True, True)
    )


@_backward.register_fake
def _(
    gradient_N: Tensor, tensors: list[Tensor], words_NW: Tensor | None, temperature: float, precision: str
) -> tuple[Tensor, Tensor]:
    del gradient_N, words_NW, temperature, precision
    return tensors[0].new_empty(tensors[0].shape), tensors[1].new_empty(tensors[1].shape)


def _remember(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    """Keep what the backward pass reads."""
    *tensors, words, temperature, precision, _ = inputs
    ctx.save_for_backward(*tensors, *output[4:], words)
    ctx.numbers = (temperature, precision)
    ctx.mark_non_differentiable(*output[1:])


def _differentiate(ctx: Any, gradient_N: Tensor, *_of_measures: Tensor) -> tuple[Tensor | None, ...]:
    """Give the gradients of the arguments; measures have none."""
    *tensors, words = ctx.saved_tensors
    found = _backward(gradient_N.contiguous(), tensors, words, *ctx.numbers)
    return *found, None, None, None, None, None


scores_operator.register_autograd(_differentiate, setup_context=_remember)


def _empty(hidden_ND: Tensor) -> Tensor:
    return hidden_ND.new_empty(0, 0, dtype=torch.float32)
