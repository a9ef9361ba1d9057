"""Advantages: what a reward says about its trajectory, compared with the others of its group.

Source: DeepSeek-V3.2, arXiv:2512.02556, section 3.1, eq. 6.

Shape letters: N trajectories of a batch, G members of one group.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from envsynth.errors import SpecError

Baseline = Literal["mean", "leave_one_out", "mean_std"]
"""What is taken from a reward: eq. 6, the mean of the others, or the mean with a division by the deviation."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Advantages:
    """Advantages of a batch, and the groups that teach nothing."""

    values: Tensor
    """One advantage per trajectory, [N]; exactly 0 in the groups below."""
    flat_groups: tuple[int, ...]
    """Ids of groups of two or more whose rewards are all equal, ascending."""
    single_groups: tuple[int, ...]
    """Ids of groups of one, ascending."""
    n_groups: int
    """All groups, counted."""


def group_advantages(
    rewards_N: Tensor, group_ids_N: Tensor, baseline: Baseline = "mean", std_floor: float = 1e-3
) -> Advantages:
    """Centre rewards within their groups.

    Source: DeepSeek-V3.2, eq. 6: A = R - mean(R), with no division by the deviation. The member's own reward is part of
    that mean, so over groups of G the expected gradient is (1 - 1/G) times that of the return; `leave_one_out` has no
    such factor.

    Args:
        rewards_N: One finite reward per trajectory, [N]. A void trajectory has none and must not be here.
        group_ids_N: Group of each trajectory, int [N].
        baseline: What is subtracted, and for `mean_std` divided by.
        std_floor: Smallest deviation that `mean_std` divides by.

    Returns:
        Advantages, fp32 (fp64 for fp64 rewards), exactly 0 where a group has one member or equal rewards.

    Raises:
        SpecError: shapes disagree, or a reward is not finite.
    """
    if rewards_N.ndim != 1 or rewards_N.shape != group_ids_N.shape:
        raise SpecError(f"rewards {tuple(rewards_N.shape)} and groups {tuple(group_ids_N.shape)} must both be [N]")
    if not bool(torch.isfinite(rewards_N).all()):
        raise SpecError("a reward is not finite; leave void trajectories out before the advantage is centred")
    # Centring in fp64 keeps a constant that all rewards share from eating the digits that differ.
    values_N = torch.zeros_like(rewards_N, dtype=torch.float64)
    flat: list[int] = []
    single: list[int] = []
    group_ids = torch.unique(group_ids_N).tolist()
    for group_id in group_ids:
        rows_N = group_ids_N == group_id
        rewards_G = rewards_N[rows_N].double()
        n_members = rewards_G.numel()
        if n_members == 1:
            single.append(int(group_id))
        elif bool(rewards_G.max() == rewards_G.min()):  # a mean of equal numbers may differ from them in the last digit
            flat.append(int(group_id))
        else:
            centred_G = rewards_G - rewards_G.mean()
            if baseline == "leave_one_out":
                centred_G = centred_G * (n_members / (n_members - 1))
            elif baseline == "mean_std":
                centred_G = centred_G / centred_G.std().clamp(min=std_floor)
            values_N[rows_N] = centred_G
    return Advantages(
        values=values_N.to(torch.promote_types(rewards_N.dtype, torch.float32)),
        flat_groups=tuple(flat),
        single_groups=tuple(single),
        n_groups=len(group_ids),
    )
