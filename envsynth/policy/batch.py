"""Batches: token records of trajectories become padded tensors, with advantages centred in their groups.

Void trajectories leave first, so that a failure of infrastructure never shifts the baseline of the others. The order of
rows is that of group and member, never that of arrival.

Shape letters: N trajectories, T tokens, L layers, A active experts, K selected keys.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from itertools import pairwise

import torch
from torch import Tensor

from envsynth.errors import SpecError
from envsynth.policy.advantages import Baseline, group_advantages
from envsynth.policy.grpo import LossInputs, Totals, count_totals
from envsynth.policy.sampling import KeptSets, join_kept, select_kept


@dataclass(frozen=True, kw_only=True, eq=False)
class TokenTrajectory:
    """What the engine recorded of one trajectory, token by token.

    Raises:
        SpecError: lengths disagree, a non-void trajectory holds no sampled token, or a value is out of range.
    """

    tokens: Tensor
    """Prompt, observations and actions in the order that the policy read them, int [T]."""
    action_mask: Tensor
    """True on every sampled token, end of turn included; False on prompt, observation and forced tokens. Bool [T]."""
    log_probs: Tensor
    """Recorded log-probability of each sampled token, nats, [T]; other positions are not read."""
    kept: KeptSets | None = None
    """Kept sets, T rows, empty where nothing was cut; None: no token was drawn from a truncated distribution."""
    routed_experts: Tensor | None = None
    """Experts that each token went to, int [T, L, A]; -1 where unknown."""
    indexer_topk: Tensor | None = None
    """Key positions, counted from the start of the sequence, that each token attended to, int [T, L, K]; -1 pads."""
    reward: float | None
    """What the environment gave; None: the trajectory is void."""
    group: str
    """Key of the group: one task under one version of the policy."""
    member: int
    """Number of the trajectory in its group; it fixes the order of rows."""
    domain: str
    """Domain of the task, for weights and metrics."""

    def __post_init__(self) -> None:
        n_tokens = self.tokens.numel()
        lengths = {
            "tokens": tuple(self.tokens.shape),
            "action_mask": tuple(self.action_mask.shape),
            "log_probs": tuple(self.log_probs.shape),
            "kept": (n_tokens if self.kept is None else self.kept.offsets.numel() - 1,),
            "routed_experts": (n_tokens if self.routed_experts is None else self.routed_experts.shape[0],),
            "indexer_topk": (n_tokens if self.indexer_topk is None else self.indexer_topk.shape[0],),
        }
        wrong = {name: shape for name, shape in lengths.items() if shape != (n_tokens,)}
        if wrong:
            raise SpecError(f"{self.name}: with {n_tokens} tokens, these fields have another length: {wrong}")
        if self.action_mask.dtype != torch.bool:
            raise SpecError(f"{self.name}: action_mask is {self.action_mask.dtype}; it must be bool")
        if self.reward is None:
            return
        if not math.isfinite(self.reward):
            raise SpecError(f"{self.name}: reward is {self.reward}; a void trajectory has reward None")
        if not bool(self.action_mask.any()) or bool(self.action_mask[0]):
            raise SpecError(f"{self.name}: it needs a sampled token, and the first token cannot be one")
        recorded = self.log_probs[self.action_mask]
        if not bool((torch.isfinite(recorded) & (recorded <= 1e-4)).all()):
            raise SpecError(f"{self.name}: a recorded log-probability is not finite or above 0")

    @property
    def name(self) -> str:
        """Group and member, for messages."""
        return f"{self.group}#{self.member}"


@dataclass(frozen=True, kw_only=True)
class GroupReport:
    """Which groups teach something; the others are to be refilled by the trainer."""

    n_groups: int
    """Groups with a trajectory that is not void."""
    flat: tuple[str, ...]
    """Groups of two or more with equal rewards, in order of their keys."""
    single: tuple[str, ...]
    """Groups that have one trajectory, or one left after void ones, in order of their keys."""
    lost: tuple[str, ...]
    """Groups of void trajectories alone, in order of their keys."""
    n_void: tuple[tuple[str, int], ...]
    """Void trajectories by domain, in order of domains."""

    @property
    def refill(self) -> tuple[str, ...]:
        """All groups whose advantages are 0 or missing."""
        return tuple(sorted({*self.flat, *self.single, *self.lost}))


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainBatch:
    """Padded tensors of a step, or of some of its rows."""

    tokens: Tensor
    """Tokens, int64 [N, T]."""
    valid: Tensor
    """False on padding, bool [N, T]."""
    action_mask: Tensor
    """True on sampled tokens, bool [N, T]."""
    mu: Tensor
    """Recorded log-probabilities, nats, fp32 [N, T]; 0 where there is no action."""
    kept: KeptSets | None
    """Kept sets, N T rows, row by row; None: nothing was truncated."""
    routed_experts: Tensor | None
    """Experts to replay, int64 [N, T, L, A]; -1 where unknown and on padding."""
    indexer_topk: Tensor | None
    """Selected keys to replay, int64 [N, T, L, K]; -1 pads."""
    rewards: Tensor
    """Rewards, fp64 [N]."""
    advantages: Tensor
    """Advantages, fp32 [N]."""
    group_ids: Tensor
    """Index into `groups`, int64 [N]."""
    groups: tuple[str, ...]
    """Keys of all groups of the step, ascending."""
    domains: tuple[str, ...]
    """Domain of each row."""
    totals: Totals
    """Counts over the whole step, unchanged in a part of it."""
    report: GroupReport
    """What is to be refilled; over the whole step."""

    def to(self, device: torch.device) -> TrainBatch:
        """Give the same batch on a device, such as that of the policy.

        Args:
            device: Where to.

        Returns:
            The batch; kept sets stay on the CPU, where they are checked and cut (`scores.next_token_request`).
        """
        found = {item.name: getattr(self, item.name) for item in fields(self)}
        moved = {name: value.to(device) for name, value in found.items() if isinstance(value, Tensor)}
        return replace(self, **moved)

    def loss_inputs(
        self, *, old: Tensor | None = None, ref: Tensor | None = None, kl_beta: Tensor | None = None
    ) -> LossInputs:
        """Hand over what the loss needs.

        Args:
            old: Log-probabilities recomputed at the weights of the rollout, [N, T].
            ref: Log-probabilities of the reference policy, [N, T].
            kl_beta: Weight of the KL by row, [N].

        Returns:
            Inputs for `grpo_loss`.
        """
        return LossInputs(
            mu=self.mu,
            mask=self.action_mask,
            advantages=self.advantages,
            old=old,
            ref=ref,
            kl_beta=kl_beta,
            domains=self.domains,
        )


def report_groups(trajectories: Iterable[TokenTrajectory]) -> GroupReport:
    """Tell which groups have no variance, one member, or none, so that they can be refilled before training.

    Args:
        trajectories: Any trajectories; void ones count as lost.

    Returns:
        The report.
    """
    rewards: dict[str, list[float]] = {}
    n_void: Counter[str] = Counter()
    for trajectory in trajectories:
        of_group = rewards.setdefault(trajectory.group, [])
        if trajectory.reward is None:
            n_void[trajectory.domain] += 1
        else:
            of_group.append(trajectory.reward)
    keys = sorted(rewards)
    return GroupReport(
        n_groups=sum(bool(rewards[key]) for key in keys),
        flat=tuple(key for key in keys if len(rewards[key]) > 1 and max(rewards[key]) == min(rewards[key])),
        single=tuple(key for key in keys if len(rewards[key]) == 1),
        lost=tuple(key for key in keys if not rewards[key]),
        n_void=tuple(sorted(n_void.items())),
    )


def collate(
    trajectories: Sequence[TokenTrajectory], *, pad_id: int, baseline: Baseline = "mean", std_floor: float = 1e-3
) -> TrainBatch:
    """Pad trajectories into tensors, by group and member, without the void ones.

    Rows of flat and single groups stay, with advantage 0: they still count in the means and feel the KL. A trainer that
    refills drops them beforehand, with `report_groups`.

    Args:
        trajectories: Records in any order.
        pad_id: Token that fills the rows up.
        baseline: How rewards become advantages.
        std_floor: Smallest deviation that `mean_std` divides by.

    Returns:
        The batch of the whole step.

    Raises:
        SpecError: all are void, a group has a member twice, or only some records have routed experts or selected keys.
    """
    live = sorted((item for item in trajectories if item.reward is not None), key=lambda t: (t.group, t.member))
    if not live:
        raise SpecError(f"all of {len(trajectories)} trajectories are void; roll out again")
    for before, after in pairwise(live):
        if (before.group, before.member) == (after.group, after.member):
            raise SpecError(f"{after.name} is there twice; each member of a group has a number of its own")
    groups = tuple(sorted({item.group for item in live}))
    index = {key: position for position, key in enumerate(groups)}
    group_ids = torch.tensor([index[item.group] for item in live])
    rewards = torch.tensor([item.reward for item in live], dtype=torch.float64)
    lengths = torch.tensor([item.tokens.numel() for item in live])
    action_mask = _pad([item.action_mask for item in live], 0)
    mu = _pad([torch.where(item.action_mask, item.log_probs.float(), 0) for item in live], 0)
    return TrainBatch(
        tokens=_pad([item.tokens.long() for item in live], pad_id),
        valid=torch.arange(int(lengths.max()))[None, :] < lengths[:, None],
        action_mask=action_mask,
        mu=mu,
        kept=_pad_kept(live, int(lengths.max())),
        routed_experts=_pad_replay("routed_experts", live),
        indexer_topk=_pad_replay("indexer_topk", live),
        rewards=rewards,
        advantages=group_advantages(rewards, group_ids, baseline, std_floor).values.float(),
        group_ids=group_ids,
        groups=groups,
        domains=tuple(item.domain for item in live),
        totals=count_totals(action_mask),
        report=report_groups(trajectories),
    )


def take_rows(batch: TrainBatch, rows: Sequence[int]) -> TrainBatch:
    """Take some rows of a batch, cut to the longest of them; totals and report stay those of the step.

    Args:
        batch: A batch.
        rows: Which rows, in which order; at least one.

    Returns:
        The part.
    """
    index = torch.tensor(list(rows))
    width = batch.tokens.shape[1]
    longest = int(batch.valid[index].sum(dim=1).max())
    positions = (index[:, None] * width + torch.arange(longest)[None, :]).flatten()
    return replace(
        batch,
        tokens=batch.tokens[index, :longest],
        valid=batch.valid[index, :longest],
        action_mask=batch.action_mask[index, :longest],
        mu=batch.mu[index, :longest],
        kept=None if batch.kept is None else select_kept(batch.kept, positions),
        routed_experts=None if batch.routed_experts is None else batch.routed_experts[index, :longest],
        indexer_topk=None if batch.indexer_topk is None else batch.indexer_topk[index, :longest],
        rewards=batch.rewards[index],
        advantages=batch.advantages[index],
        group_ids=batch.group_ids[index],
        domains=tuple(batch.domains[row] for row in rows),
    )


def micro_batches(batch: TrainBatch, max_tokens: int) -> list[TrainBatch]:
    """Split a batch into parts whose losses and metrics add up to its own.

    Rows are taken in order of length, longest first, equal ones in their order, so that little is padded.

    Args:
        batch: A batch.
        max_tokens: Padded tokens of a part at most; a single longer row makes a part of its own.

    Returns:
        Parts; each row is in exactly one.

    Raises:
        SpecError: max_tokens < 1.
    """
    if max_tokens < 1:
        raise SpecError(f"max_tokens is {max_tokens}; it must be at least 1")
    lengths = batch.valid.sum(dim=1).tolist()
    order = sorted(range(len(lengths)), key=lambda row: (-lengths[row], row))
    parts: list[list[int]] = []
    for row in order:
        if parts and lengths[parts[-1][0]] * (len(parts[-1]) + 1) <= max_tokens:
            parts[-1].append(row)
        else:
            parts.append([row])
    return [take_rows(batch, rows) for rows in parts]


def _pad(rows: Sequence[Tensor], value: int) -> Tensor:
    return torch.nn.utils.rnn.pad_sequence(list(rows), batch_first=True, padding_value=value)


def _pad_kept(trajectories: Sequence[TokenTrajectory], width: int) -> KeptSets | None:
    """All kept sets one behind the other, with empty rows for padding and for trajectories that were never cut."""
    if all(item.kept is None for item in trajectories):
        return None
    parts: list[KeptSets] = []
    for item in trajectories:
        n_tokens = item.tokens.numel()
        empty = KeptSets(ids=torch.zeros(0, dtype=torch.int32), offsets=torch.zeros(n_tokens + 1, dtype=torch.int64))
        rows = torch.arange(width)
        parts.append(select_kept(empty if item.kept is None else item.kept, torch.where(rows < n_tokens, rows, -1)))
    return join_kept(parts)


def _pad_replay(field: str, trajectories: Sequence[TokenTrajectory]) -> Tensor | None:
    """Pad a record of discrete choices with -1, which no expert and no position has: it means "not recorded".

    Raises:
        SpecError: only some trajectories have the record, or their layers differ.
    """
    found: list[Tensor] = [getattr(item, field) for item in trajectories if getattr(item, field) is not None]
    if not found:
        return None
    if len(found) < len(trajectories):
        raise SpecError(f"{len(trajectories) - len(found)} of {len(trajectories)} trajectories have no {field}")
    if len({part.shape[1] for part in found}) > 1 or any(part.ndim != 3 for part in found):
        raise SpecError(
            f"{field} must be [T, layers, choices] with equal layers, not {[tuple(p.shape) for p in found]}"
        )
    widest = max(part.shape[2] for part in found)
    wide = [torch.nn.functional.pad(part.long(), (0, widest - part.shape[2]), value=-1) for part in found]
    return _pad(wide, -1)
