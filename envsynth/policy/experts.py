"""Routed and shared experts (DeepSeek-V3, arXiv:2412.19437, section 2.1.2, eq. 12 to 16).

Shape letters: N tokens (rows), D model, E routed experts, A active experts per token, F expert width, M layers with
experts, B sequences, T tokens; `...` is any leading shape.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from envsynth.kernels.experts import experts
from envsynth.policy.config import ExpertsConfig, PolicyConfig
from envsynth.policy.grouped import can_group, expert_outputs, grouped_experts
from envsynth.policy.precision import at_least_float32, float32_linear
from envsynth.policy.refusals import KERNELS, naming
from envsynth.policy.selection import exact_topk

GATE_SUM_EPS = 1e-20
"""Added to the sum of a token's gates before it divides them."""


class GatedMLP(nn.Module):
    """SwiGLU: down(silu(gate(x)) * up(x)).

    Args:
        dim: Width of the model, D.
        width: Width of the hidden layer.
    """

    def __init__(self, dim: int, width: int) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(dim, width, bias=False)
        self.up_proj = nn.Linear(dim, width, bias=False)
        self.down_proj = nn.Linear(width, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer to [..., D]; activation and product are float32 or wider."""
        gate, up = self.gate_proj(x), self.up_proj(x)
        hidden = functional.silu(at_least_float32(gate)) * at_least_float32(up)
        return self.down_proj(hidden.to(gate.dtype))


class Router(nn.Module):
    """Chooses experts by sigmoid affinity plus a correction bias; the gates come from the affinity alone.

    Args:
        config: The policy's configuration.
    """

    e_score_correction_bias: Tensor
    """Added to the affinity for the choice only, float32 [E]; changed by `balance_experts`, never by a gradient."""

    def __init__(self, config: PolicyConfig) -> None:
        super().__init__()
        self.sizes = config.experts
        self.weight = nn.Parameter(torch.empty(config.experts.n_routed_experts, config.hidden_size))
        self.register_buffer("e_score_correction_bias", torch.zeros(config.experts.n_routed_experts))

    def forward(self, x_ND: Tensor, replay_NA: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Route each token.

        Only the set of a replayed row is replayed. Its gates are gathered from the live affinities of all experts,
        so the router learns as if it had chosen the set itself.

        Args:
            x_ND: Normalised hidden states, [N, D].
            replay_NA: Recorded experts, int [N, A]; a row of -1 is routed live.

        Returns:
            Experts, int32 [N, A], ascending (or as replayed), and their gates, float32 or wider [N, A].
        """
        affinity_NE = float32_linear(x_ND, self.weight).sigmoid()
        chosen_NA = choose_experts(affinity_NE.detach() + self.e_score_correction_bias, self.sizes)
        if replay_NA is not None:
            chosen_NA = torch.where(replay_NA[:, :1] < 0, chosen_NA, replay_NA.to(torch.int32))
        gates_NA = affinity_NE.gather(1, chosen_NA.to(torch.int64))
        if self.sizes.norm_topk_prob:
            gates_NA = gates_NA / (gates_NA.sum(-1, keepdim=True) + GATE_SUM_EPS)
        return chosen_NA, gates_NA * self.sizes.routed_scaling_factor


def choose_experts(scores_NE: Tensor, sizes: ExpertsConfig) -> Tensor:
    """Choose experts within the best groups; a group counts as the sum of its best two scores.

    Experts of other groups get minus infinity, not zero: with a correction bias scores may be negative.

    Args:
        scores_NE: Affinity plus correction bias, [N, E].
        sizes: Counts of experts and groups.

    Returns:
        Experts, int32 [N, A], ascending; ties go to the lower index.
    """
    allowed_NE = torch.ones_like(scores_NE, dtype=torch.bool)
    if sizes.topk_group < sizes.n_group:
        grouped = scores_NE.unflatten(-1, (sizes.n_group, -1))
        group_score = grouped.topk(2, dim=-1).values.sum(-1)
        best = exact_topk(group_score, torch.ones_like(group_score, dtype=torch.bool), sizes.topk_group)
        in_best = torch.zeros_like(group_score, dtype=torch.bool).scatter(-1, best.to(torch.int64), True)
        allowed_NE = in_best[..., None].expand_as(grouped).flatten(-2)
    return exact_topk(scores_NE, allowed_NE, sizes.num_experts_per_tok)


class RoutedExperts(nn.Module):
    """The routed experts, stored as three stacks of matrices.

    Args:
        config: The policy's configuration.
    """

    def __init__(self, config: PolicyConfig) -> None:
        super().__init__()
        E, D, width = config.experts.n_routed_experts, config.hidden_size, config.experts.moe_intermediate_size
        self.gate_proj = nn.Parameter(torch.empty(E, width, D))
        self.up_proj = nn.Parameter(torch.empty(E, width, D))
        self.down_proj = nn.Parameter(torch.empty(E, D, width))

    def forward(self, x_ND: Tensor, chosen_NA: Tensor, gates_NA: Tensor, kernels: bool = False) -> Tensor:
        """Run each token through its experts and add the results, weighted by their gates.

        Tokens are sorted by expert, so each expert runs once; the results return to token order before they are
        added, so the order of addition is fixed.

        Args:
            x_ND: Tokens, [N, D].
            chosen_NA: Experts, int [N, A].
            gates_NA: Gates, [N, A].
            kernels: Run through `envsynth.kernels.experts`, whose reference has the same bits on a CPU.

        Returns:
            Weighted sum, float32 or wider [N, D].

        Raises:
            UnsupportedError: the kernels cannot take these types or widths.
        """
        weights = (self.gate_proj, self.up_proj, self.down_proj)
        device = x_ND.device.type
        if torch.is_autocast_enabled(device):
            dtype = torch.get_autocast_dtype(device)
            x_ND, *weights = (item.to(dtype) for item in (x_ND, *weights))
        if kernels:
            # Not rounded: the sum is added to the shared experts' result in float32.
            wide = torch.promote_types(x_ND.dtype, torch.float32)
            with naming(KERNELS):
                return experts(x_ND, chosen_NA, gates_NA, *weights, out_dtype=wide)
        if can_group(x_ND, weights[0]):
            per_choice_NAD = grouped_experts(x_ND, chosen_NA, *weights)
        else:
            per_choice_NAD = expert_outputs(x_ND, chosen_NA, *weights)
        return (at_least_float32(per_choice_NAD) * gates_NA[..., None]).sum(1)


class MixtureOfExperts(nn.Module):
    """Routed experts beside the shared ones.

    Args:
        config: The policy's configuration.
    """

    def __init__(self, config: PolicyConfig) -> None:
        super().__init__()
        sizes = config.experts
        self.gate = Router(config)
        self.experts = RoutedExperts(config)
        self.shared_experts = GatedMLP(config.hidden_size, sizes.n_shared_experts * sizes.moe_intermediate_size)

    def forward(self, x: Tensor, replay: Tensor | None = None, kernels: bool = False) -> tuple[Tensor, Tensor]:
        """Apply the layer.

        Args:
            x: Normalised hidden states, [..., D].
            replay: Recorded experts, int [..., A]; a row of -1 is routed live.
            kernels: Run the routed experts through `envsynth.kernels`.

        Returns:
            Result [..., D], and the experts that ran, int32 [..., A].
        """
        x_ND = x.flatten(0, -2)
        chosen_NA, gates_NA = self.gate(x_ND, None if replay is None else replay.flatten(0, -2))
        routed_ND = self.experts(x_ND, chosen_NA, gates_NA, kernels)
        # Routed and shared results are added in float32 and rounded once.
        out = routed_ND.view_as(x) + self.shared_experts(x)
        return out.to(x.dtype), chosen_NA.view(*x.shape[:-1], -1)


def expert_load(routed_experts_BTMA: Tensor, n_experts: int) -> Tensor:
    """Count how often each expert was chosen, without rows of -1 (padding).

    Args:
        routed_experts_BTMA: Experts that ran, int [B, T, M, A].
        n_experts: Experts E of a layer (count).

    Returns:
        Tokens per layer and expert, int64 [M, E].
    """
    layers = routed_experts_BTMA.shape[2]
    flat_MX = routed_experts_BTMA.movedim(2, 0).reshape(layers, -1).to(torch.int64)
    ones = (flat_MX >= 0).to(torch.int64)
    return ones.new_zeros(layers, n_experts).scatter_add(1, flat_MX.clamp(min=0), ones)
