"""Routed experts of a mixture: each token runs through those that its router chose (DeepSeek-V3, arXiv:2412.19437).

Shape letters: N tokens, A active experts per token, E experts, D model, F expert width, X = N * A choices.

For token n: `y_n = sum_a gates_na * down_e(silu(gate_e x_n) * up_e x_n)` with `e = chosen_na`. An expert that a token
names twice counts twice; an index outside 0 to E - 1 adds nothing, and its gate's gradient is 0.

What is rounded where, in both ways to run: products are summed in float32 and rounded to x's type; activation and
product are float32, rounded to x's type; each choice's result is rounded to x's type; the sum over choices, weighted by
their gates, is float32 in the order of the choices and rounded once, to the type that the caller wants. float64 stays
float64 in the reference. The gradient that arrives is rounded to x's type first.

The kernels sort choices by expert on the device and never wait for the host. Bits repeat from run to run. A token's
result does not depend on the other tokens as long as the tiles are the same, which `configs.tiles_for` chooses by the
average number of tokens of an expert. For the backward pass both products of the hidden layer are kept, 2 * X * F
numbers of x's type; the hidden layer and the choices' results are not.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from envsynth.kernels.dispatch import Backend, UnsupportedError, choose
from envsynth.kernels.experts import reference
from envsynth.kernels.experts.compiled import experts_operator
from envsynth.kernels.experts.configs import Tiles, tiles_for
from envsynth.kernels.experts.running import Call, Hidden, differentiate, run

_NAME = "experts"
_DTYPES = (torch.float32, torch.float16, torch.bfloat16)
WIDTH_STEP = 16
"""The kernels take widths of whole multiples of this."""


def experts(
    x_ND: Tensor,
    chosen_NA: Tensor,
    gates_NA: Tensor,
    gate_EFD: Tensor,
    up_EFD: Tensor,
    down_EDF: Tensor,
    *,
    out_dtype: torch.dtype | None = None,
    backend: Backend | None = None,
) -> Tensor:
    """Run each token through its experts and add the results; differentiable in all but the choice (the kernels: once).

    Args:
        x_ND: Tokens, float32, float16 or bfloat16 (the reference: float64 too), [N, D].
        chosen_NA: Experts, int32 or int64 [N, A].
        gates_NA: Gates, floating [N, A].
        gate_EFD: Gate matrices of x's dtype, [E, F, D].
        up_EFD: Up matrices of x's dtype, [E, F, D].
        down_EDF: Down matrices of x's dtype, [E, D, F].
        out_dtype: Type of the result; None takes x's. float32 leaves the sum over choices as it was computed.
        backend: How to run; None takes the kernels on a GPU and the reference elsewhere.

    Returns:
        Weighted sums, [N, D].

    Raises:
        ValueError: shapes disagree, types of x and weights differ, or there are no experts.
        UnsupportedError: the kernels cannot take this type, these widths or so many choices.
    """
    weights = (gate_EFD, up_EFD, down_EDF)
    _check(x_ND, chosen_NA, gates_NA, weights)
    way = choose(_NAME, x_ND, chosen_NA, gates_NA, *weights, backend=backend)
    out_dtype = out_dtype or x_ND.dtype
    if way == "triton":
        _check_kernels(x_ND, chosen_NA, gates_NA, gate_EFD)
    if torch.compiler.is_compiling():
        return experts_operator(x_ND, chosen_NA, gates_NA, *weights, out_dtype, way)[0]
    if way == "reference":
        return reference.run(x_ND, chosen_NA, gates_NA, *weights).to(out_dtype)
    tiles = tiles_for(x_ND.dtype, chosen_NA.numel(), len(gate_EFD), x_ND.shape[1], gate_EFD.shape[1])
    inputs = (x_ND, gates_NA, *weights)
    keep = torch.is_grad_enabled() and any(item.requires_grad for item in inputs)
    call = Call(tiles, out_dtype, keep)
    return _Kernels.apply(x_ND.contiguous(), chosen_NA.contiguous(), gates_NA.contiguous(), *_dense(weights), call)


class _Kernels(torch.autograd.Function):
    """The kernels with their gradient."""

    @staticmethod
    def forward(
        ctx: torch.autograd.function.FunctionCtx,
        x_ND: Tensor,
        chosen_NA: Tensor,
        gates_NA: Tensor,
        gate_EFD: Tensor,
        up_EFD: Tensor,
        down_EDF: Tensor,
        call: Call,
    ) -> Tensor:
        ctx.tiles = call.tiles  # pyright: ignore[reportAttributeAccessIssue]
        inputs = (x_ND, gates_NA, gate_EFD, up_EFD, down_EDF)
        if chosen_NA.numel() == 0:
            ctx.save_for_backward(*inputs)
            return x_ND.new_zeros(x_ND.shape, dtype=call.out_dtype)
        out_ND, hidden = run(x_ND, chosen_NA, gates_NA, (gate_EFD, up_EFD, down_EDF), call)
        if call.keep:
            ctx.save_for_backward(*inputs, hidden.gates_XF, hidden.ups_XF, *hidden.sorting)
        return out_ND

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: torch.autograd.function.BackwardCFunction, *grad_outputs: Tensor
    ) -> tuple[Tensor | None, ...]:
        saved = list[Tensor](ctx.saved_tensors)
        inputs, kept = saved[:5], saved[5:]
        if not kept:
            to_x, *others = map(torch.zeros_like, inputs)
            return to_x, None, *others, None
        hidden = Hidden(kept[0], kept[1], tuple(kept[2:]))
        needs_x, _, *needs, _ = list[bool](ctx.needs_input_grad)
        tiles: Tiles = ctx.tiles  # pyright: ignore[reportAttributeAccessIssue]
        to_x, *others = differentiate(grad_outputs[0], inputs, hidden, tiles, (needs_x, *needs))
        return to_x, None, *others, None


def _dense(tensors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(item.contiguous() for item in tensors)


def _check(x_ND: Tensor, chosen_NA: Tensor, gates_NA: Tensor, weights: tuple[Tensor, ...]) -> None:
    """Compare shapes and types.

    Raises:
        ValueError: they disagree, or there are no experts.
    """
    named = dict(zip(("gate", "up", "down"), weights, strict=True))
    n_experts, hidden = weights[0].shape[:2]
    width = x_ND.shape[-1]
    wanted = {"gate": (n_experts, hidden, width), "up": (n_experts, hidden, width), "down": (n_experts, width, hidden)}
    if x_ND.ndim != 2 or chosen_NA.ndim != 2 or len(chosen_NA) != len(x_ND) or gates_NA.shape != chosen_NA.shape:
        shapes = [list(item.shape) for item in (x_ND, chosen_NA, gates_NA)]
        raise ValueError(f"{_NAME}: x, chosen and gates must be [N, D], [N, A] and [N, A], got {shapes}")
    for name, item in named.items():
        if tuple(item.shape) != wanted[name]:
            raise ValueError(f"{_NAME}: {name} must be {list(wanted[name])} beside this x, got {list(item.shape)}")
        if item.dtype != x_ND.dtype:
            raise ValueError(f"{_NAME}: {name} is {item.dtype} and x is {x_ND.dtype}; cast one of them")
    if chosen_NA.dtype not in (torch.int32, torch.int64):
        raise ValueError(f"{_NAME}: chosen is {chosen_NA.dtype}; give int32 or int64")
    if n_experts == 0:
        raise ValueError(f"{_NAME}: there are no experts, gate is {list(weights[0].shape)}")


def _check_kernels(x_ND: Tensor, chosen_NA: Tensor, gates_NA: Tensor, gate_EFD: Tensor) -> None:
    """Refuse what the kernels cannot take.

    Raises:
        UnsupportedError: a type, a width or a number of choices.
    """
    if x_ND.dtype not in _DTYPES or gates_NA.dtype not in _DTYPES:
        found = gates_NA.dtype if x_ND.dtype in _DTYPES else x_ND.dtype
        raise UnsupportedError(
            f"{_NAME}: kernels take float32, float16 and bfloat16, got {found}; use backend='reference'"
        )
    for name, width in (("D", x_ND.shape[1]), ("F", gate_EFD.shape[1])):
        if width % WIDTH_STEP or width == 0:
            raise UnsupportedError(
                f"{_NAME}: kernels take widths of whole multiples of {WIDTH_STEP}, {name} is {width};"
                " use backend='reference'"
            )
    if chosen_NA.numel() >= 2**30:
        raise UnsupportedError(f"{_NAME}: {chosen_NA.numel()} choices, the kernels count up to 2^30; split the tokens")
