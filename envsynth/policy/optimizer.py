"""One optimizer for a policy: Muon for the matrices inside the layers, AdamW for everything else.

Muon replaces the momentum of a matrix by the nearest matrix whose singular values are all about one, so every direction
of the update counts alike. That is meant for matrices between hidden states. Embedding and head have one row per token,
norms are vectors, router and indexer are read by a top-k rather than by a matrix product: those keep AdamW.

Why not `torch.optim.Muon`: it takes matrices only, and the experts are stacks of them; and it iterates in bfloat16, which
a CPU without that arithmetic emulates: twelve times slower than float32 here (measured at 32 matrices of width 128). The
update is the library's apart from that rounding, and a test holds the two together.

Source: Muon, https://kellerjordan.github.io/posts/muon/; AdamW, arXiv:1711.05101.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from envsynth.errors import CheckpointError, SpecError

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Quintic that pushes singular values in (0, 1] towards one; steepest at zero, so small ones rise fast."""
_EPS = 1e-7
"""Lower bound of the norm that a matrix is divided by before the iteration."""
_ADAMW_STATE = ("step", "exp_avg", "exp_avg_sq")


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """Learning rates and constants of both halves.

    Raises:
        SpecError: a value is out of range.
    """

    muon_lr: float = 0.02
    """Learning rate of the matrices inside the layers."""
    muon_momentum: float = 0.95
    """Momentum of Muon (Nesterov); in [0, 1)."""
    muon_weight_decay: float = 0.01
    """Decoupled weight decay of the matrices, times the learning rate."""
    newton_schulz_steps: int = 5
    """Iterations of the orthogonalisation (count, >= 1)."""
    adamw_lr: float = 3e-3
    """Learning rate of everything else."""
    adamw_betas: tuple[float, float] = (0.9, 0.95)
    """Decay of AdamW's averages of the gradient and of its square."""
    adamw_weight_decay: float = 0.01
    """Decoupled weight decay of everything else, times the learning rate."""
    max_grad_norm: float = 1.0
    """Gradients are scaled down to this norm over all parameters; `inf` never does."""

    def __post_init__(self) -> None:
        sound = {
            "muon_lr": 0 <= self.muon_lr < math.inf,
            "muon_momentum": 0 <= self.muon_momentum < 1,
            "muon_weight_decay": 0 <= self.muon_weight_decay < math.inf,
            "newton_schulz_steps": self.newton_schulz_steps >= 1,
            "adamw_lr": 0 <= self.adamw_lr < math.inf,
            "adamw_betas": all(0 <= beta < 1 for beta in self.adamw_betas),
            "adamw_weight_decay": 0 <= self.adamw_weight_decay < math.inf,
            "max_grad_norm": self.max_grad_norm > 0,
        }
        for name, is_sound in sound.items():
            if not is_sound:
                raise SpecError(f"{name} is {getattr(self, name)!r}, which is out of range; see OptimizerConfig.{name}")


def is_layer_matrix(name: str, parameter: Tensor) -> bool:
    """Tell whether Muon serves a parameter of a policy.

    Args:
        name: Its name in the policy.
        parameter: The parameter.

    Returns:
        True for matrices and stacks of matrices inside the layers, router and indexer excepted.
    """
    parts = name.split(".")
    return parts[0] == "layers" and parameter.ndim >= 2 and "indexer" not in parts and parts[-2:] != ["gate", "weight"]


def orthogonalise(matrices: Tensor, steps: int = 5) -> Tensor:
    """Bring all singular values of each matrix near one, by Newton-Schulz iteration.

    Source: Muon, as above: X <- a X + (b X X' + c (X X')^2) X, after division by the Frobenius norm.

    Args:
        matrices: One matrix or a stack of them, [..., rows, columns].
        steps: Iterations (count).

    Returns:
        Matrices of the same shape; five steps leave singular values between about 0.7 and 1.2.
    """
    a, b, c = _COEFFICIENTS
    x = matrices / matrices.norm(dim=(-2, -1), keepdim=True).clamp(min=_EPS)
    is_tall = x.shape[-2] > x.shape[-1]
    if is_tall:
        x = x.mT
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if is_tall else x


class PolicyOptimizer:
    """Steps all parameters of a policy, and can be stored and continued bit by bit.

    Args:
        policy: The policy; its parameters are changed by `step`.
        config: Learning rates and constants.
    """

    def __init__(self, policy: nn.Module, config: OptimizerConfig | None = None) -> None:
        self.config = config or OptimizerConfig()
        self._parameters = dict(policy.named_parameters())
        self._matrices = {name: item for name, item in self._parameters.items() if is_layer_matrix(name, item)}
        self._rest = {name: item for name, item in self._parameters.items() if name not in self._matrices}
        self._momentum: dict[str, Tensor] = {}
        self._adamw = torch.optim.AdamW(
            list(self._rest.values()),
            lr=self.config.adamw_lr,
            betas=self.config.adamw_betas,
            weight_decay=self.config.adamw_weight_decay,
            fused=True,
        )

    @property
    def matrix_names(self) -> tuple[str, ...]:
        """Names of the parameters that Muon serves, in the policy's order."""
        return tuple(self._matrices)

    @torch.no_grad()
    def step(self, scale: float = 1.0) -> float:
        """Update all parameters that have a gradient, and drop the gradients.

        Args:
            scale: Factor on both learning rates, from the caller's schedule.

        Returns:
            Norm of the gradient over all parameters, before it was scaled down.

        Raises:
            FloatingPointError: the gradient is not finite; nothing was changed.
        """
        found = [item for item in self._parameters.values() if item.grad is not None]
        norm = float(torch.nn.utils.clip_grad_norm_(found, self.config.max_grad_norm))
        if not math.isfinite(norm):
            raise FloatingPointError(f"the gradient's norm is {norm}: lower the learning rate, or look at the batch")
        for name, parameter in self._matrices.items():
            if parameter.grad is not None:
                self._step_matrix(name, parameter, parameter.grad, scale)
        for group in self._adamw.param_groups:
            group["lr"] = self.config.adamw_lr * scale
        self._adamw.step()
        for parameter in found:
            parameter.grad = None
        return norm

    def _step_matrix(self, name: str, parameter: Tensor, gradient: Tensor, scale: float) -> None:
        config = self.config
        if name not in self._momentum:
            self._momentum[name] = torch.zeros_like(parameter)
        average = self._momentum[name]
        average.lerp_(gradient, 1 - config.muon_momentum)
        direction = orthogonalise(gradient.lerp(average, config.muon_momentum), config.newton_schulz_steps)
        lr = config.muon_lr * scale
        parameter.mul_(1 - lr * config.muon_weight_decay)
        # A tall matrix has more outputs than inputs: without the factor its outputs would move less than a wide one's.
        parameter.add_(direction, alpha=-lr * max(1.0, parameter.shape[-2] / parameter.shape[-1]) ** 0.5)

    def state_dict(self) -> dict[str, Tensor]:
        """Return what a continuation needs, as named tensors; parameters that never had a gradient are absent."""
        state = {f"muon.{name}": tensor.clone() for name, tensor in self._momentum.items()}
        for name, parameter in self._rest.items():
            kept = self._adamw.state.get(parameter)
            if kept:
                state |= {f"adamw.{key}.{name}": kept[key].clone() for key in _ADAMW_STATE}
        return state

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Continue from what `state_dict` returned.

        Args:
            state: Named tensors.

        Raises:
            CheckpointError: a tensor belongs to no parameter of this policy, has another shape, or lacks its partners.
        """
        momentum: dict[str, Tensor] = {}
        averages: dict[str, dict[str, Tensor]] = {}
        for key, tensor in state.items():
            kind, _, name = key.partition(".")
            if kind == "muon" and name in self._matrices:
                momentum[name] = self._fitting(key, tensor, self._matrices[name])
                continue
            part, _, name = name.partition(".")
            if kind != "adamw" or part not in _ADAMW_STATE or name not in self._rest:
                raise CheckpointError(
                    f"optimizer state {key!r} belongs to no parameter here: resume with the same policy"
                )
            parameter = self._rest[name]
            # Fused AdamW wants its count of steps where the parameter is.
            like = torch.zeros((), device=parameter.device) if part == "step" else parameter
            averages.setdefault(name, {})[part] = self._fitting(key, tensor, like)
        if partial := sorted(name for name, parts in averages.items() if len(parts) < len(_ADAMW_STATE)):
            raise CheckpointError(f"the optimizer state of {partial[0]!r} is incomplete: use another checkpoint")
        self._momentum = momentum
        self._adamw.state.clear()
        for name, parts in averages.items():
            self._adamw.state[self._rest[name]] = {part: parts[part] for part in _ADAMW_STATE}

    def _fitting(self, key: str, tensor: Tensor, like: Tensor) -> Tensor:
        if tensor.shape != like.shape:
            raise CheckpointError(
                f"optimizer state {key!r} is {tuple(tensor.shape)}, its parameter {tuple(like.shape)}:"
                " resume with the same policy"
            )
        return tensor.detach().clone().to(like.device)
