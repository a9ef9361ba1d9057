"""What the experts compute, in plain torch, float64 capable.

Shape letters: N tokens, A active experts per token, E experts, D model, F expert width, X = N * A choices.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

ROW_BLOCK = 16
"""Rows are computed in multiples of this: libraries multiply few rows, and finish the last few elements of a function,
by other code with other rounding."""


def run(
    x_ND: Tensor, chosen_NA: Tensor, gates_NA: Tensor, gate_EFD: Tensor, up_EFD: Tensor, down_EDF: Tensor
) -> Tensor:
    """Run each token through its experts and add the results, weighted by their gates.

    Args:
        x_ND: Tokens, [N, D].
        chosen_NA: Experts, int [N, A]; an index outside 0 to E - 1 adds nothing.
        gates_NA: Gates, [N, A].
        gate_EFD: Gate matrices, [E, F, D].
        up_EFD: Up matrices, [E, F, D].
        down_EDF: Down matrices, [E, D, F].

    Returns:
        Weighted sum, float32 or wider [N, D].
    """
    n_experts, active = len(gate_EFD), chosen_NA.shape[1]
    flat_X = chosen_NA.flatten().to(torch.int64)
    inside_X = (flat_X >= 0) & (flat_X < n_experts)
    flat_X = torch.where(inside_X, flat_X, n_experts)
    order_X = torch.argsort(flat_X, stable=True)
    *counts, n_outside = torch.bincount(flat_X, minlength=n_experts + 1).tolist()
    rows = x_ND[order_X.div(max(active, 1), rounding_mode="floor")].split([*counts, n_outside])
    # Experts without tokens run on no rows, so that their gradients are zeros.
    parts = [
        _expert(part, gate, up, down)
        for part, gate, up, down in zip(rows[:-1], gate_EFD, up_EFD, down_EDF, strict=True)
    ]
    out_XD = torch.cat([*parts, x_ND.new_zeros(n_outside, x_ND.shape[1])])
    back_X = torch.empty_like(order_X).scatter(0, order_X, torch.arange(len(order_X), device=order_X.device))
    per_choice_NAD = out_XD[back_X].view(*chosen_NA.shape, x_ND.shape[1])
    gates_NA = torch.where(inside_X.view_as(gates_NA), gates_NA, 0.0)
    return (_at_least_float32(per_choice_NAD) * gates_NA[..., None]).sum(1)


def gradients(
    grad_ND: Tensor,
    chosen_NA: Tensor,
    x_ND: Tensor,
    gates_NA: Tensor,
    gate_EFD: Tensor,
    up_EFD: Tensor,
    down_EDF: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Give what autograd gives for `run`, for an operator in which autograd does not work.

    Args:
        grad_ND: Gradient of the weighted sum, [N, D].
        chosen_NA: Experts, int [N, A]; an index outside 0 to E - 1 has added nothing.
        x_ND: Tokens, [N, D].
        gates_NA: Gates, [N, A].
        gate_EFD: Gate matrices, [E, F, D].
        up_EFD: Up matrices, [E, F, D].
        down_EDF: Down matrices, [E, D, F].

    Returns:
        Gradients of x, gates and the three stacks, in their types.
    """
    active = chosen_NA.shape[1]
    to_gates_X = _at_least_float32(gates_NA).new_zeros(chosen_NA.numel())
    to_choices_XD = x_ND.new_zeros(chosen_NA.numel(), x_ND.shape[1])
    to_gate, to_up, to_down = (torch.zeros_like(item) for item in (gate_EFD, up_EFD, down_EDF))
    for expert, (gate_FD, up_FD, down_DF) in enumerate(zip(gate_EFD, up_EFD, down_EDF, strict=True)):
        choices = (chosen_NA.flatten() == expert).nonzero()[:, 0]
        tokens = choices.div(max(active, 1), rounding_mode="floor")
        rows, wide_grad = x_ND[tokens], _at_least_float32(grad_ND[tokens])
        gate, up = _at_least_float32(rows @ gate_FD.mT), _at_least_float32(rows @ up_FD.mT)
        share = gate.sigmoid()
        hidden = (functional.silu(gate) * up).to(rows.dtype)
        to_gates_X[choices] = (wide_grad * _at_least_float32(hidden @ down_DF.mT)).sum(-1).to(to_gates_X.dtype)
        grad = (wide_grad * gates_NA.flatten()[choices][:, None]).to(rows.dtype)
        to_hidden = _at_least_float32(grad @ down_DF)
        to_gate_rows = (to_hidden * up * (share + gate * share * (1 - share))).to(rows.dtype)
        to_up_rows = (to_hidden * functional.silu(gate)).to(rows.dtype)
        to_down[expert], to_gate[expert], to_up[expert] = grad.mT @ hidden, to_gate_rows.mT @ rows, to_up_rows.mT @ rows
        to_choices_XD[choices] = to_gate_rows @ gate_FD + to_up_rows @ up_FD
    to_x_ND = to_choices_XD.view(*chosen_NA.shape, x_ND.shape[1]).sum(1)
    return to_x_ND, to_gates_X.view_as(gates_NA).to(gates_NA.dtype), to_gate, to_up, to_down


def _expert(rows: Tensor, gate_FD: Tensor, up_FD: Tensor, down_DF: Tensor) -> Tensor:
    """Run one expert: each product is rounded to its inputs' type, activation and product are float32 or wider."""
    block = functional.pad(rows, (0, 0, 0, -len(rows) % ROW_BLOCK))
    gate, up = functional.linear(block, gate_FD), functional.linear(block, up_FD)
    hidden = (functional.silu(_at_least_float32(gate)) * _at_least_float32(up)).to(rows.dtype)
    return functional.linear(hidden, down_DF)[: len(rows)]


def _at_least_float32(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.to(torch.float32)
