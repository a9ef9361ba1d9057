"""Log-probabilities of tokens from hidden states, without forming more logits than are of use (DeepSeek-V3.2, section 3.1).

Shape letters: N rows, D width of a hidden state, V vocabulary, W words of 32 bits, P rows of a record.

With logits `z = hidden . head / temperature`, the log-probability of token a under the kept set S is
`z_a - log sum over S of exp z`. Its gradient at the logits is `(1 at a - softmax over S) / temperature`, so tokens outside
of S get exactly 0. Logits are formed in float32 a tile at a time. Where a gradient is wanted and they are few enough
(`configs.keeps_logits`: at most 4 GiB, and only where it saves time) the forward pass leaves them to the backward pass;
otherwise that forms them again. The results have the same bits both ways.
"""

# What a backward pass needs are attributes of its context:
# pyright: reportAttributeAccessIssue=false, reportIncompatibleMethodOverride=false

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from envsynth.kernels.dispatch import Backend, UnsupportedError, choose, load_kernels
from envsynth.kernels.logprobs import compiled, configs, reference

__all__ = ["LogProbs", "Precision", "linear_log_probs", "pack_kept"]

_NAME = "linear_log_probs"
_DTYPES = (torch.float32, torch.float16, torch.bfloat16)
Precision = Literal["ieee", "tf32x3"]
"""How the kernels multiply float32 numbers: in float32, or as three products of eleven bits on matrix units.

It does not matter for bfloat16 hidden states with a float32 head: the head is cut into three parts of eight bits, whose
products with bfloat16 are exact, and they are summed in float32 on matrix units.
"""


class LogProbs(NamedTuple):
    """What is known of each row's token. Only the log-probabilities have a gradient."""

    log_probs_N: Tensor
    """Log-probability under the kept set (nats), float32 or wider [N]; minus infinity outside of it, 0 where ignored."""
    entropy_N: Tensor
    """Entropy of the full distribution at this temperature (nats), [N]."""
    mass_N: Tensor
    """Share of the full distribution that the kept set holds, [N]."""
    is_best_N: Tensor
    """Whether no token has a larger logit, bool [N]; False where ignored."""


def linear_log_probs(
    hidden_ND: Tensor,
    weight_VD: Tensor,
    targets_N: Tensor,
    *,
    temperature: float = 1.0,
    keep_words_NW: Tensor | None = None,
    precision: Precision = "ieee",
    backend: Backend | None = None,
) -> LogProbs:
    """Score each row's token; differentiable in hidden states and head.

    Args:
        hidden_ND: Hidden states, float32, float16 or bfloat16 (the reference: float64 too), [N, D].
        weight_VD: The head, of these types, [V, D]. Where it differs from the hidden states' both are widened to float32.
        targets_N: Tokens, integer below V [N]; a negative one is ignored. The caller checks the upper bound.
        temperature: Divides the logits; above 0.
        keep_words_NW: Kept tokens as bits (`pack_kept`), int32 [N, W]; None: everything is kept. A target outside of its
            set has log-probability minus infinity, and no gradient.
        precision: How the kernels multiply float32 numbers.
        backend: How to run; None takes the kernels on a GPU and the reference elsewhere.

    Returns:
        Log-probabilities, and measures without gradient.

    Raises:
        ValueError: shapes disagree, or the temperature is not above 0.
        UnsupportedError: the kernels cannot take these types.
    """
    _check(hidden_ND, weight_VD, targets_N, keep_words_NW, temperature)
    tensors = [item for item in (hidden_ND, weight_VD, targets_N, keep_words_NW) if item is not None]
    if choose(_NAME, *tensors, backend=backend) == "reference":
        return LogProbs(*reference.score(hidden_ND, weight_VD, targets_N, keep_words_NW, temperature))
    if hidden_ND.dtype not in _DTYPES or weight_VD.dtype not in _DTYPES:
        raise UnsupportedError(
            f"{_NAME}: hidden states and head are {hidden_ND.dtype} and {weight_VD.dtype};"
            " make them float32, float16 or bfloat16, or use backend='reference'"
        )
    words = None if keep_words_NW is None else keep_words_NW.contiguous()
    # Inside of an autograd function gradients are always off.
    may_keep = torch.is_grad_enabled() and (hidden_ND.requires_grad or weight_VD.requires_grad)
    if torch.compiler.is_compiling():
        (rows, width), kinds = hidden_ND.shape, (hidden_ND.dtype, weight_VD.dtype)
        keep = may_keep and rows > 0 and configs.keeps_logits(rows, width, len(weight_VD), kinds, precision)
        found = compiled.scores_operator(hidden_ND, weight_VD, targets_N, words, float(temperature), precision, keep)
        return LogProbs(*found[:4])
    return LogProbs(*_Kernels.apply(hidden_ND, weight_VD, targets_N, words, (temperature, precision, may_keep)))


@torch.no_grad()
def pack_kept(ids: Tensor, offsets_P: Tensor, vocabulary: int) -> Tensor:
    """Turn compressed rows of kept tokens into bits, without waiting for the device.

    Args:
        ids: Token ids of all rows one after the other, each once in its row, integer [X].
        offsets_P: Where each row begins in `ids`, and the end of the last, integer [P + 1]. An empty row keeps all.
        vocabulary: Tokens V (count).

    Returns:
        Bit j of word w is set where token 32 w + j is kept, int32 [P, W]; bits from V on mean nothing.
    """
    count, words = offsets_P.numel() - 1, -(-vocabulary // 32)
    place_X = torch.arange(ids.numel(), device=ids.device)
    row_X = torch.searchsorted(offsets_P[1:].contiguous(), place_X, right=True)
    bits = torch.zeros(count * words, dtype=torch.int64, device=ids.device)
    # Each bit is added once, so the sum is the union.
    bits.index_add_(0, row_X * words + ids.long() // 32, torch.ones_like(place_X) << (ids.long() % 32))
    everything_P1 = (offsets_P.diff() == 0)[:, None]
    # The highest bit is the sign.
    signed_PW = torch.where(bits >= 2**31, bits - 2**32, bits).to(torch.int32).view(count, words)
    return torch.where(everything_P1, -1, signed_PW)


class _Kernels(torch.autograd.Function):
    """The kernels with their gradient."""

    @staticmethod
    def forward(
        ctx: torch.autograd.function.FunctionCtx,
        hidden_ND: Tensor,
        weight_VD: Tensor,
        targets_N: Tensor,
        words_NW: Tensor | None,
        settings: tuple[float, Precision, bool],
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        ctx.settings, ctx.any_rows = settings, len(targets_N) > 0
        temperature, precision, may_keep = settings
        hidden, weight, targets = hidden_ND.contiguous(), weight_VD.contiguous(), targets_N.long().contiguous()
        if not ctx.any_rows:
            ctx.save_for_backward(hidden, weight)
            nothing = hidden.new_zeros(0, dtype=torch.float32)
            outputs = (nothing, nothing.clone(), nothing.clone(), targets >= 0)
        else:
            (N, width), kinds = hidden.shape, (hidden.dtype, weight.dtype)
            keep = may_keep and configs.keeps_logits(N, width, len(weight), kinds, precision)
            scores = load_kernels("logprobs.forward").scan(
                hidden, weight, targets, words_NW, temperature=temperature, precision=precision, keep=keep
            )
            left = (hidden, weight, targets, words_NW, scores.level_2N, scores.logits_NS)
            ctx.save_for_backward(*left)  # pyright: ignore[reportArgumentType] - None may be saved
            outputs = scores[:4]
        ctx.mark_non_differentiable(*outputs[1:])
        return outputs

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: torch.autograd.function.FunctionCtx, gradient_N: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        saved = ctx.saved_tensors
        if not ctx.any_rows:
            return torch.zeros_like(saved[0]), torch.zeros_like(saved[1]), None, None, None
        module = load_kernels("logprobs.backward")
        found = module.gradients(
            module.Kept(*saved),
            gradient_N.contiguous(),
            temperature=ctx.settings[0],
            precision=ctx.settings[1],
            wanted=ctx.needs_input_grad[:2],
        )
        return (*found, None, None, None)


def _check(
    hidden_ND: Tensor, weight_VD: Tensor, targets_N: Tensor, words_NW: Tensor | None, temperature: float
) -> None:
    """Refuse arguments that do not belong together.

    Raises:
        ValueError: They do not.
    """
    fits = hidden_ND.ndim == weight_VD.ndim == 2 and hidden_ND.shape[1] == weight_VD.shape[1]
    if not fits or targets_N.shape != hidden_ND.shape[:1] or len(weight_VD) == 0:
        shapes = [list(item.shape) for item in (hidden_ND, weight_VD, targets_N)]
        raise ValueError(f"{_NAME}: hidden states, head and targets must be [N, D], [V, D] and [N], got {shapes}")
    wanted = [len(hidden_ND), -(-len(weight_VD) // 32)]
    if words_NW is not None and (list(words_NW.shape) != wanted or words_NW.dtype != torch.int32):
        raise ValueError(f"{_NAME}: kept bits must be int32 {wanted}, got {words_NW.dtype} {list(words_NW.shape)}")
    if not temperature > 0:
        raise ValueError(f"{_NAME}: the temperature must be above 0, got {temperature}")
