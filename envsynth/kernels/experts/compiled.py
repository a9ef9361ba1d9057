"""The experts as one operator of the library, so that a compiler's graph has no hole where they are.

How many choices an expert has is data, and Triton's launches are Python: neither can be traced. To the compiler this is
one call of known shapes, forward and backward. It computes what `experts` computes, by the same kernels or reference.

Shape letters: N tokens, A active experts per token, E experts, D model, F expert width, X = N * A choices.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, library

from envsynth.kernels.experts import reference, running
from envsynth.kernels.experts.configs import Tiles, tiles_for


@library.custom_op("envsynth::experts", mutates_args=())
def experts_operator(
    x_ND: Tensor,
    chosen_NA: Tensor,
    gates_NA: Tensor,
    gate_EFD: Tensor,
    up_EFD: Tensor,
    down_EDF: Tensor,
    out_dtype: torch.dtype,
    way: str,
) -> tuple[Tensor, Tensor, Tensor]:
    """Run tokens through their experts; arguments were checked, and `way` is a `dispatch.Backend`.

    Returns:
        Weighted sums [N, D]; and for the backward pass both products of the hidden layer, [X, F], empty on a way that
        computes them again.
    """
    nothing = x_ND.new_empty(0)
    if way == "reference":
        out = reference.run(x_ND, chosen_NA, gates_NA, gate_EFD, up_EFD, down_EDF).to(out_dtype)
        return out.contiguous(), nothing, nothing.clone()
    if chosen_NA.numel() == 0:
        none_XF = x_ND.new_empty(0, gate_EFD.shape[1])
        return x_ND.new_zeros(x_ND.shape, dtype=out_dtype), none_XF, none_XF.clone()
    call = running.Call(_tiles(x_ND, chosen_NA, gate_EFD), out_dtype, keep=True)
    x, chosen, gates, *weights = (item.contiguous() for item in (x_ND, chosen_NA, gates_NA, gate_EFD, up_EFD, down_EDF))
    out_ND, hidden = running.run(x, chosen, gates, (weights[0], weights[1], weights[2]), call)
    return out_ND, hidden.gates_XF, hidden.ups_XF


@experts_operator.register_fake
def _(
    x_ND: Tensor,
    chosen_NA: Tensor,
    gates_NA: Tensor,
    gate_EFD: Tensor,
    up_EFD: Tensor,
    down_EDF: Tensor,
    out_dtype: torch.dtype,
    way: str,
) -> tuple[Tensor, Tensor, Tensor]:
    del gates_NA, up_EFD, down_EDF
    shape = (0,) if way == "reference" else (chosen_NA.numel(), gate_EFD.shape[1])
    return x_ND.new_empty(*x_ND.shape, dtype=out_dtype), x_ND.new_empty(*shape), x_ND.new_empty(*shape)


@library.custom_op("envsynth::experts_backward", mutates_args=())
def _backward(
    grad_ND: Tensor, chosen_NA: Tensor, inputs: list[Tensor], hidden: list[Tensor], way: str
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Give the gradients of tokens, gates and the three stacks."""
    if way == "reference":
        return reference.gradients(grad_ND, chosen_NA, *inputs)
    x, gates, gate, up, down = (item.contiguous() for item in inputs)
    if chosen_NA.numel() == 0:
        return tuple(torch.zeros_like(item) for item in (x, gates, gate, up, down))  # pyright: ignore[reportReturnType]
    tiles, chosen = _tiles(x, chosen_NA, gate), chosen_NA.contiguous()
    kept = running.Hidden(hidden[0], hidden[1], running.sort(chosen, len(gate), tiles))
    # All five are asked for, so none is None.
    return running.differentiate(grad_ND, (x, gates, gate, up, down), kept, tiles, (True,) * 5)  # pyright: ignore[reportReturnType]


@_backward.register_fake
def _(
    grad_ND: Tensor, chosen_NA: Tensor, inputs: list[Tensor], hidden: list[Tensor], way: str
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    del grad_ND, chosen_NA, hidden, way
    x, gates, gate, up, down = (item.new_empty(*item.shape) for item in inputs)
    return x, gates, gate, up, down


def _remember(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    """Keep what the backward pass reads."""
    *tensors, _, way = inputs
    ctx.save_for_backward(*tensors, *output[1:])
    ctx.way = way


def _differentiate(ctx: Any, grad_ND: Tensor, *_of_hidden: Tensor) -> tuple[Tensor | None, ...]:
    """Give the gradients of the arguments; the hidden products are outputs that nobody differentiates."""
    x_ND, chosen_NA, *more = ctx.saved_tensors
    found = _backward(grad_ND.contiguous(), chosen_NA, [x_ND, *more[:4]], list(more[4:]), ctx.way)
    return found[0], None, *found[1:], None, None


experts_operator.register_autograd(_differentiate, setup_context=_remember)


def _tiles(x_ND: Tensor, chosen_NA: Tensor, gate_EFD: Tensor) -> Tiles:
    """Choose the tiles of both directions."""
    return tiles_for(x_ND.dtype, chosen_NA.numel(), len(gate_EFD), x_ND.shape[1], gate_EFD.shape[1])
