"""Rollouts for a step of reinforcement learning: groups of episodes, refilled until enough of them teach something.

A group whose members all got the same reward has no gradient. Such groups are replaced by groups of new tasks, a bounded
number of times. Episodes that are void never reach the loss, and shift nobody's baseline.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch

from envsynth.policy.batch import TokenTrajectory, report_groups
from envsynth.policy.drawing import Sampling
from envsynth.policy.engine import SlotRecord
from envsynth.policy.model import Policy
from envsynth.policy.sampling import KeptSets
from envsynth.policy.tokens import PAD
from envsynth.rollout import EpisodeRequest, Playable, rollout
from envsynth.train.actor import PolicyActor
from envsynth.trajectory import Trajectory, void_causes


@dataclass(frozen=True, kw_only=True)
class Stock:
    """What is played: slots, tasks, and the domain of each task."""

    envs: Sequence[Playable]
    """One environment per slot; each knows every task."""
    tasks: tuple[str, ...]
    """Task hashes (at least one)."""
    domains: Mapping[str, str]
    """Domain of each task, for metrics; tasks that are not in it are `other`."""


@dataclass(frozen=True, kw_only=True)
class RolloutConfig:
    """How episodes are collected for one step."""

    seed: int = 0
    """Seed of the order of tasks and of sampling."""
    tasks_per_step: int = 24
    """Groups that are played first (count)."""
    group_size: int = 8
    """Episodes of each group (count, >= 2)."""
    max_refills: int = 2
    """How often flat groups are replaced by new tasks (count, >= 0)."""
    sampling: Sampling = field(default_factory=Sampling)
    """How tokens are drawn."""
    max_turn_tokens: int = 64
    """Tokens of one turn at most."""


@dataclass(frozen=True, kw_only=True)
class Collected:
    """The episodes of one step."""

    trajectories: tuple[TokenTrajectory, ...]
    """Members of the groups that teach something, by group and member; none is void."""
    cursor: int
    """Tasks drawn so far in the run (count)."""
    metrics: Mapping[str, float]
    """Over all episodes that were played, flat groups included."""


def collect(policy: Policy, stock: Stock, config: RolloutConfig, *, step: int, cursor: int) -> Collected:
    """Play groups of tasks until enough of them have variance, or the refills are used up.

    Args:
        policy: Who plays; it does not change here.
        stock: What is played.
        config: How.
        step: Number of the step; it is part of every random number's key.
        cursor: Tasks drawn so far.

    Returns:
        The episodes that teach something; possibly none.
    """
    policy.eval()
    actor = PolicyActor(
        policy, n_slots=len(stock.envs), sampling=config.sampling, max_turn_tokens=config.max_turn_tokens
    )
    kept: list[TokenTrajectory] = []
    played: list[TokenTrajectory] = []
    stops: Counter[str] = Counter()
    causes: Counter[str] = Counter()
    wanted, rounds, unread = config.tasks_per_step, 0, 0
    while wanted and rounds <= config.max_refills:
        tasks = [task_at(stock.tasks, config.seed, cursor + index) for index in range(wanted)]
        actor.seed = f"{config.seed}/grpo/{step}/{rounds}"
        # Members of a group are far apart, so that a slot which ended one finds another one of the same world.
        requests = [
            EpisodeRequest(task, place * config.group_size + member)
            for member in range(config.group_size)
            for place, task in enumerate(tasks)
        ]
        trajectories = rollout(stock.envs, actor, requests)
        records = actor.take_records()
        found: list[TokenTrajectory] = []
        for request, trajectory in zip(requests, trajectories, strict=True):
            place, member = divmod(request.seed, config.group_size)
            record = records.get((request.task, request.seed))
            domain = stock.domains.get(request.task, "other")
            found.append(to_tokens(trajectory, record, f"{rounds}/{place:04d}", member, domain))
            unread += found[-1].reward is None and not trajectory.void
            stops[trajectory.stop.value] += 1
        causes.update(void_causes(trajectories))
        report = report_groups(found)
        empty = set(report.refill)
        kept += [item for item in found if item.group not in empty and item.reward is not None]
        played += found
        cursor, rounds, wanted = cursor + len(tasks), rounds + 1, len(empty)
    actor.close()
    return Collected(
        trajectories=tuple(sorted(kept, key=lambda item: (item.group, item.member))),
        cursor=cursor,
        metrics=_metrics(played, kept, stops)
        | {f"void/{cause}": count for cause, count in causes.items()}
        | {"rollout/rounds": rounds, "rollout/unread": unread},
    )


def task_at(tasks: Sequence[str], seed: int, position: int) -> str:
    """Return the task at a position of the endless order: pass after pass, each shuffled by seed and pass.

    Args:
        tasks: All tasks.
        seed: Seed of the order.
        position: Which one, from 0.

    Returns:
        The task.
    """
    epoch, place = divmod(position, len(tasks))
    order = list(range(len(tasks)))
    random.Random(f"{seed}/tasks/{epoch}").shuffle(order)
    return tasks[order[place]]


def to_tokens(
    trajectory: Trajectory, record: SlotRecord | None, group: str, member: int, domain: str
) -> TokenTrajectory:
    """Join what the environment judged with what the engine recorded.

    Args:
        trajectory: The episode.
        record: Its tokens, if the policy read any.
        group: Key of its group.
        member: Its number in the group.
        domain: Its domain.

    Returns:
        The record for training; without a reward when the episode was void, or when no token was sampled in it: then
        nothing could be learned from its score, and in its group it would only shift the others.
    """
    if record is None or not bool(record.sampled.any()):
        nothing = torch.zeros(1)
        tokens, mask = torch.tensor([PAD]), torch.tensor([False])
        return TokenTrajectory(
            tokens=tokens, action_mask=mask, log_probs=nothing, reward=None, group=group, member=member, domain=domain
        )
    is_cut = record.kept_ids.numel() > 0
    return TokenTrajectory(
        tokens=record.tokens,
        action_mask=record.sampled,
        log_probs=record.log_probs,
        kept=KeptSets(ids=record.kept_ids, offsets=record.kept_offsets) if is_cut else None,
        routed_experts=record.routed_experts,
        indexer_topk=record.indexer_topk,
        reward=trajectory.reward,
        group=group,
        member=member,
        domain=domain,
    )


def _metrics(
    played: Sequence[TokenTrajectory], kept: Sequence[TokenTrajectory], stops: Mapping[str, int]
) -> dict[str, float]:
    scored = [item for item in played if item.reward is not None]
    report = report_groups(played)
    tokens = [item.tokens.numel() for item in scored]
    metrics: dict[str, float] = {
        "episodes/played": len(played),
        "episodes/void": sum(count for _, count in report.n_void),
        "episodes/trained": len(kept),
        "groups/played": report.n_groups + len(report.lost),
        "groups/flat": len(report.flat),
        "groups/flat_share": len(report.flat) / report.n_groups if report.n_groups else 0.0,
        "groups/single": len(report.single),
        "groups/lost": len(report.lost),
        "tokens/mean": sum(tokens) / len(tokens) if tokens else 0.0,
    }
    by_domain: dict[str, list[float]] = {}
    for item in scored:
        by_domain.setdefault(item.domain, []).append(item.reward or 0.0)
    rewards = [reward for group in by_domain.values() for reward in group]
    if rewards:
        metrics["reward/mean"] = sum(rewards) / len(rewards)
        metrics |= {f"reward/{name}": sum(group) / len(group) for name, group in by_domain.items()}
    return metrics | {f"stop/{reason}": count for reason, count in stops.items()}
