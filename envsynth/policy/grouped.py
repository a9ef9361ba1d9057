"""Many experts, each on its own tokens: one operator for every device, one of grouped products for bfloat16 on GPUs.

Shape letters: N tokens, A active experts per token, E experts, D model, F expert width, X = N * A choices.

How many tokens an expert has is known at run time alone. A compiler cannot trace a loop whose lengths are data, so the
loop is an operator of its own: to the compiler one call of known shapes, forward and backward.
"""

from __future__ import annotations

import torch
from torch import Tensor, library
from torch.nn import functional

from envsynth.policy.precision import at_least_float32

ROW_BLOCK = 16
"""Rows are computed in multiples of this: libraries multiply few rows, and finish the last few elements of a function,
by other code with other rounding. Sixteen rows of even width fill every vector register of today's CPUs."""


def expert_outputs(x_ND: Tensor, chosen_NA: Tensor, gate_EFD: Tensor, up_EFD: Tensor, down_EDF: Tensor) -> Tensor:
    """Run each token through its experts: down(silu(gate(x)) * up(x)).

    Args:
        x_ND: Tokens, [N, D].
        chosen_NA: Experts, int [N, A].
        gate_EFD: Gate matrices, [E, F, D].
        up_EFD: Up matrices, [E, F, D].
        down_EDF: Down matrices, [E, D, F].

    Returns:
        Result of each choice, in x's type [N, A, D]; a token's result does not depend on the other tokens.
    """
    return _forward(x_ND, chosen_NA, gate_EFD, up_EFD, down_EDF)[0]


@library.custom_op("envsynth::expert_outputs", mutates_args=())
def _forward(
    x_ND: Tensor, chosen_NA: Tensor, gate_EFD: Tensor, up_EFD: Tensor, down_EDF: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Give results [N, A, D], and both halves of the hidden layer [X, F] in the order of `_by_expert`."""
    order_X, counts = _by_expert(chosen_NA, len(gate_EFD))
    rows_XD = x_ND[order_X.div(chosen_NA.shape[1], rounding_mode="floor")]
    out_XD = x_ND.new_empty(len(order_X), down_EDF.shape[1])
    gates_XF, ups_XF = (x_ND.new_empty(len(order_X), gate_EFD.shape[1]) for _ in range(2))
    start = 0
    for expert, count in enumerate(counts):
        if not count:
            continue
        where = slice(start, start + count)
        block = functional.pad(rows_XD[where], (0, 0, 0, -count % ROW_BLOCK))
        gate, up = functional.linear(block, gate_EFD[expert]), functional.linear(block, up_EFD[expert])
        out_XD[where] = functional.linear(_swiglu(gate, up), down_EDF[expert])[:count]
        gates_XF[where], ups_XF[where] = gate[:count], up[:count]
        start += count
    per_choice = torch.empty_like(out_XD)
    per_choice[order_X] = out_XD
    return per_choice.unflatten(0, (-1, chosen_NA.shape[1])), gates_XF, ups_XF


@_forward.register_fake
def _(
    x_ND: Tensor, chosen_NA: Tensor, gate_EFD: Tensor, up_EFD: Tensor, down_EDF: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    choices, width = chosen_NA.numel(), gate_EFD.shape[1]
    return (
        x_ND.new_empty(*chosen_NA.shape, down_EDF.shape[1]),
        x_ND.new_empty(choices, width),
        x_ND.new_empty(choices, width),
    )


@library.custom_op("envsynth::expert_outputs_backward", mutates_args=())
def _backward(
    grad_NAD: Tensor, chosen_NA: Tensor, x_ND: Tensor, hidden: list[Tensor], weights: list[Tensor]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Give the gradients of tokens and matrices."""
    (gates_XF, ups_XF), (gate_EFD, up_EFD, down_EDF) = hidden, weights
    order_X, counts = _by_expert(chosen_NA, len(gate_EFD))
    active = chosen_NA.shape[1]
    rows_XD = x_ND[order_X.div(active, rounding_mode="floor")]
    grads_XD = grad_NAD.flatten(0, 1)[order_X]
    to_rows_XD = torch.empty_like(rows_XD)
    to_gate, to_up, to_down = (torch.zeros_like(item) for item in weights)
    start = 0
    for expert, count in enumerate(counts):
        if not count:
            continue
        where = slice(start, start + count)
        gate, up, grad = gates_XF[where], ups_XF[where], grads_XD[where]
        grad_gate, grad_up = _swiglu_backward(grad @ down_EDF[expert], gate, up)
        to_down[expert] = grad.t() @ _swiglu(gate, up)
        to_gate[expert], to_up[expert] = grad_gate.t() @ rows_XD[where], grad_up.t() @ rows_XD[where]
        to_rows_XD[where] = torch.addmm(grad_gate @ gate_EFD[expert], grad_up, up_EFD[expert])
        start += count
    per_choice = torch.empty_like(to_rows_XD)
    per_choice[order_X] = to_rows_XD
    return per_choice.unflatten(0, (-1, active)).sum(1), to_gate, to_up, to_down


@_backward.register_fake
def _(
    grad_NAD: Tensor, chosen_NA: Tensor, x_ND: Tensor, hidden: list[Tensor], weights: list[Tensor]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    del grad_NAD, chosen_NA, hidden
    gate, up, down = (torch.empty_like(item) for item in weights)
    return torch.empty_like(x_ND), gate, up, down


def _remember(ctx: torch.autograd.function.FunctionCtx, inputs: tuple[Tensor, ...], output: tuple[Tensor, ...]) -> None:
    """Keep what the backward pass reads."""
    ctx.save_for_backward(*inputs, *output[1:])


def _differentiate(
    ctx: torch.autograd.function.BackwardCFunction, grad_NAD: Tensor, *_of_hidden: Tensor
) -> tuple[Tensor | None, ...]:
    """Give the gradients of `_forward`'s arguments; its hidden layers are outputs that nobody differentiates."""
    x_ND, chosen_NA, gate_EFD, up_EFD, down_EDF, gates_XF, ups_XF = list[Tensor](ctx.saved_tensors)
    to_x, to_gate, to_up, to_down = _backward(
        grad_NAD.contiguous(), chosen_NA, x_ND, [gates_XF, ups_XF], [gate_EFD, up_EFD, down_EDF]
    )
    return to_x, None, to_gate, to_up, to_down


_forward.register_autograd(_differentiate, setup_context=_remember)


def can_group(x_ND: Tensor, gate_EFD: Tensor) -> bool:
    """Tell whether `grouped_experts` is there and fast: bfloat16 on a GPU, widths of whole 16 bytes.

    Args:
        x_ND: Tokens, [N, D].
        gate_EFD: Gate matrices, [E, F, D].

    Returns:
        Whether to use it.
    """
    return x_ND.is_cuda and x_ND.dtype == torch.bfloat16 and all(size % 8 == 0 for size in gate_EFD.shape[1:])


def grouped_experts(x_ND: Tensor, chosen_NA: Tensor, gate_EFD: Tensor, up_EFD: Tensor, down_EDF: Tensor) -> Tensor:
    """Run each token through its experts by grouped matrix products; bfloat16 on a GPU, no wait for the host.

    Args:
        x_ND: Tokens, [N, D].
        chosen_NA: Experts, int [N, A].
        gate_EFD: Gate matrices, [E, F, D].
        up_EFD: Up matrices, [E, F, D].
        down_EDF: Down matrices, [E, D, F].

    Returns:
        Result of each choice, in x's type [N, A, D].
    """
    flat_X = chosen_NA.flatten().to(torch.int64)
    order_X = torch.argsort(flat_X, stable=True)
    experts_E = torch.arange(len(gate_EFD), device=flat_X.device)
    ends_E = torch.searchsorted(flat_X[order_X], experts_E, right=True).to(torch.int32)
    rows_XD = x_ND[order_X.div(chosen_NA.shape[1], rounding_mode="floor")]
    gate, up = (functional.grouped_mm(rows_XD, item.transpose(1, 2), offs=ends_E) for item in (gate_EFD, up_EFD))
    out_XD = functional.grouped_mm(_swiglu(gate, up), down_EDF.transpose(1, 2), offs=ends_E)
    back_X = torch.empty_like(order_X).scatter(0, order_X, torch.arange(len(order_X), device=order_X.device))
    return out_XD[back_X].unflatten(0, (-1, chosen_NA.shape[1]))


def _by_expert(chosen_NA: Tensor, n_experts: int) -> tuple[Tensor, list[int]]:
    """Sort choices by expert, those of one expert by token, and count them."""
    flat_X = chosen_NA.flatten().to(torch.int64)
    return torch.argsort(flat_X, stable=True), torch.bincount(flat_X, minlength=n_experts).tolist()


def _swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """Give silu(gate) * up, computed in float32 or wider."""
    return (functional.silu(at_least_float32(gate)) * at_least_float32(up)).to(gate.dtype)


def _swiglu_backward(grad: Tensor, gate: Tensor, up: Tensor) -> tuple[Tensor, Tensor]:
    """Give the gradients of `_swiglu`."""
    wide_grad, wide_gate, wide_up = at_least_float32(grad), at_least_float32(gate), at_least_float32(up)
    share = wide_gate.sigmoid()
    silu = wide_gate * share
    to_gate = wide_grad * wide_up * (share + silu * (1 - share))
    return to_gate.to(gate.dtype), (wide_grad * silu).to(up.dtype)
