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

from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from envsynth.kernels.dispatch import Backend, UnsupportedError, choose, load_kernels
from envsynth.kernels.experts import reference
from envsynth.kernels.experts.configs import Tiles, tiles_for

_NAME = "experts"
_DTYPES = (torch.float32, torch.float16, torch.bfloat16)
WIDTH_STEP = 16
"""The kernels take widths of whole multiples of this."""


class _Call(NamedTuple):
    """What one call of the kernels needs to know beside tensors."""

    tiles: Tiles
    out_dtype: torch.dtype
    keep: bool


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
    if way == "reference":
        return reference.run(x_ND, chosen_NA, gates_NA, *weights).to(out_dtype)
    _check_kernels(x_ND, chosen_NA, gates_NA, gate_EFD)
    tiles = tiles_for(x_ND.dtype, chosen_NA.numel(), len(gate_EFD), x_ND.shape[1], gate_EFD.shape[1])
    inputs = (x_ND, gates_NA, *weights)
    keep = torch.is_grad_enabled() and any(item.requires_grad for item in inputs)
    call = _Call(tiles, out_dtype, keep)
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
        call: _Call,
    ) -> Tensor:
        ctx.tiles = call.tiles  # pyright: ignore[reportAttributeAccessIssue]
        if chosen_NA.numel() == 0:
            ctx.save_for_backward(x_ND, gates_NA, gate_EFD, up_EFD, down_EDF)
            return x_ND.new_zeros(x_ND.shape, dtype=call.out_dtype)
        sorting, kernels = load_kernels(f"{_NAME}.sorting"), load_kernels(f"{_NAME}.forward")
        products = load_kernels(f"{_NAME}.products")
        tiles, active = call.tiles, chosen_NA.shape[1]
        with torch.cuda.device_of(x_ND):
            by_expert = sorting.sort_choices(chosen_NA, len(gate_EFD), tiles.rows)
            hidden_XF, gates_XF, ups_XF = kernels.multiply_up(
                x_ND, (gate_EFD, up_EFD), by_expert, active, tiles.up, rows=tiles.rows, keep=call.keep
            )
            if call.keep:
                ctx.save_for_backward(x_ND, gates_NA, gate_EFD, up_EFD, down_EDF, gates_XF, ups_XF, *by_expert)
            out_XD = products.multiply(
                (hidden_XF,), (down_EDF,), by_expert, tiles.down, rows=tiles.rows, transposed=False
            )
            del hidden_XF, gates_XF, ups_XF
            return kernels.add_choices(out_XD, by_expert, gates_NA, call.out_dtype, weighted=True)

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: torch.autograd.function.BackwardCFunction, *grad_outputs: Tensor
    ) -> tuple[Tensor | None, ...]:
        (grad_ND,) = grad_outputs
        x_ND, gates_NA, gate_EFD, up_EFD, down_EDF, *kept = list[Tensor](ctx.saved_tensors)
        if not kept:
            to_x, to_gates, to_gate, to_up, to_down = map(torch.zeros_like, ctx.saved_tensors)
            return to_x, None, to_gates, to_gate, to_up, to_down, None
        gates_XF, ups_XF, *by_expert = kept
        by_expert = load_kernels(f"{_NAME}.sorting").Sorted(*by_expert)
        kernels, forward = load_kernels(f"{_NAME}.backward"), load_kernels(f"{_NAME}.forward")
        products, sums = load_kernels(f"{_NAME}.products"), load_kernels(f"{_NAME}.sums")
        tiles: Tiles = ctx.tiles  # pyright: ignore[reportAttributeAccessIssue]
        needs_x, _, needs_gates, needs_gate, needs_up, needs_down, _ = list[bool](ctx.needs_input_grad)
        active, dy_ND = gates_NA.shape[1], grad_ND.to(x_ND.dtype).contiguous()
        to_x = to_gate = to_up = to_down = None
        with torch.cuda.device_of(x_ND):
            to_gate_XF, to_up_XF, weighted_XF, to_gates = kernels.differentiate_hidden(
                dy_ND, down_EDF, (gates_XF, ups_XF), gates_NA, by_expert, tiles.hidden, rows=tiles.rows
            )
            # Each large tensor goes as soon as it has been read.
            if needs_down:
                (to_down,) = sums.sum_products(
                    (dy_ND,), weighted_XF, by_expert, active, tiles.single, out_rows=tiles.single_rows, gather_left=True
                )
            del weighted_XF
            if needs_gate or needs_up:
                to_gate, to_up = sums.sum_products(
                    (to_gate_XF, to_up_XF),
                    x_ND,
                    by_expert,
                    active,
                    tiles.pair,
                    out_rows=tiles.pair_rows,
                    gather_left=False,
                )
            if needs_x:
                rows_XD = products.multiply(
                    (to_gate_XF, to_up_XF),
                    (gate_EFD, up_EFD),
                    by_expert,
                    tiles.inputs,
                    rows=tiles.rows,
                    transposed=True,
                )
                del to_gate_XF, to_up_XF
                to_x = forward.add_choices(rows_XD, by_expert, gates_NA, x_ND.dtype, weighted=False)
        return to_x, None, to_gates.to(gates_NA.dtype) if needs_gates else None, to_gate, to_up, to_down, None


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
