"""The kernels of the experts in order, forward and backward, as plain functions: no autograd, no choice of backend.

Shape letters: N tokens, A active experts per token, E experts, D model, F expert width, X = N * A choices.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from envsynth.kernels.dispatch import load_kernels
from envsynth.kernels.experts.configs import Tiles

_NAME = "experts"


class Call(NamedTuple):
    """What one call of the kernels needs to know beside tensors."""

    tiles: Tiles
    """How to cut."""
    out_dtype: torch.dtype
    """Type of the result."""
    keep: bool
    """Whether a backward pass follows."""


class Hidden(NamedTuple):
    """What the backward pass reads of the forward pass."""

    gates_XF: Tensor
    """Gate products in the order of the sorted choices, [X, F]."""
    ups_XF: Tensor
    """Up products, likewise."""
    sorting: tuple[Tensor, ...]
    """The sorted choices (`sorting.Sorted`)."""


def run(
    x_ND: Tensor, chosen_NA: Tensor, gates_NA: Tensor, weights: tuple[Tensor, Tensor, Tensor], call: Call
) -> tuple[Tensor, Hidden]:
    """Run tokens through their experts; everything is contiguous, and there is at least one choice.

    Args:
        x_ND: Tokens, [N, D].
        chosen_NA: Experts, int [N, A].
        gates_NA: Gates, [N, A].
        weights: Gate, up and down matrices, [E, F, D] twice and [E, D, F].
        call: How.

    Returns:
        Weighted sums [N, D], and what the backward pass reads; without `keep` its products are empty.
    """
    sorting, kernels = load_kernels(f"{_NAME}.sorting"), load_kernels(f"{_NAME}.forward")
    products = load_kernels(f"{_NAME}.products")
    gate_EFD, up_EFD, down_EDF = weights
    tiles, active = call.tiles, chosen_NA.shape[1]
    with torch.cuda.device_of(x_ND):
        by_expert = sorting.sort_choices(chosen_NA, len(gate_EFD), tiles.rows)
        hidden_XF, gates_XF, ups_XF = kernels.multiply_up(
            x_ND, (gate_EFD, up_EFD), by_expert, active, tiles.up, rows=tiles.rows, keep=call.keep
        )
        out_XD = products.multiply((hidden_XF,), (down_EDF,), by_expert, tiles.down, rows=tiles.rows, transposed=False)
        del hidden_XF
        out_ND = kernels.add_choices(out_XD, by_expert, gates_NA, call.out_dtype, weighted=True)
    return out_ND, Hidden(gates_XF, ups_XF, tuple(by_expert))


def sort(chosen_NA: Tensor, n_experts: int, tiles: Tiles) -> tuple[Tensor, ...]:
    """Sort choices again, which is cheaper than to keep the tables.

    Args:
        chosen_NA: Experts, int [N, A], contiguous.
        n_experts: Experts E (count).
        tiles: The forward pass's.

    Returns:
        The sorted choices, as `run` gave them.
    """
    with torch.cuda.device_of(chosen_NA):
        return tuple(load_kernels(f"{_NAME}.sorting").sort_choices(chosen_NA, n_experts, tiles.rows))


def differentiate(
    grad_ND: Tensor, inputs: Sequence[Tensor], hidden: Hidden, tiles: Tiles, needs: Sequence[bool]
) -> tuple[Tensor | None, ...]:
    """Give the gradients of tokens, gates and the three stacks.

    Args:
        grad_ND: Gradient of the result, [N, D].
        inputs: x, gates, and gate, up and down matrices, contiguous.
        hidden: What `run` gave.
        tiles: The forward pass's.
        needs: Which of the inputs' gradients are wanted.

    Returns:
        Gradients in the inputs' types and order; None where not wanted.
    """
    x_ND, gates_NA, gate_EFD, up_EFD, down_EDF = inputs
    by_expert = load_kernels(f"{_NAME}.sorting").Sorted(*hidden.sorting)
    kernels, forward = load_kernels(f"{_NAME}.backward"), load_kernels(f"{_NAME}.forward")
    products, sums = load_kernels(f"{_NAME}.products"), load_kernels(f"{_NAME}.sums")
    needs_x, needs_gates, needs_gate, needs_up, needs_down = needs
    active, dy_ND = gates_NA.shape[1], grad_ND.to(x_ND.dtype).contiguous()
    to_x = to_gate = to_up = to_down = None
    with torch.cuda.device_of(x_ND):
        to_gate_XF, to_up_XF, weighted_XF, to_gates = kernels.differentiate_hidden(
            dy_ND, down_EDF, hidden[:2], gates_NA, by_expert, tiles.hidden, rows=tiles.rows
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
                (to_gate_XF, to_up_XF), (gate_EFD, up_EFD), by_expert, tiles.inputs, rows=tiles.rows, transposed=True
            )
            del to_gate_XF, to_up_XF
            to_x = forward.add_choices(rows_XD, by_expert, gates_NA, x_ND.dtype, weighted=False)
    return to_x, to_gates.to(gates_NA.dtype) if needs_gates else None, to_gate, to_up, to_down
