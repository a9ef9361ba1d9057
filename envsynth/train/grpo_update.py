"""The updates of one step: what was collected becomes one or several optimizer steps, with every recorded choice replayed.

The live policy runs with the experts and keys of the rollout and normalises over the kept sets of the rollout; the
reference policy runs with its own experts and keys, under the same kept sets.

Shape letters: N trajectories, T tokens, V vocabulary.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from envsynth.errors import SpecError
from envsynth.policy.batch import TokenTrajectory, TrainBatch, collate, micro_batches
from envsynth.policy.grpo import GrpoConfig, grpo_loss, merge_metrics
from envsynth.policy.model import Policy, PolicyOutput
from envsynth.policy.optimizer import PolicyOptimizer
from envsynth.policy.scores import Measures, ScoreRequest, TokenScores, aligned, next_token_request
from envsynth.policy.tokens import PAD

IndexerTraining = Literal["kl", "frozen"]
"""What moves the indexer in reinforcement learning: its own loss alone, or nothing. Rewards never do."""


@dataclass(frozen=True, kw_only=True)
class UpdateConfig:
    """How a step's episodes are learned from.

    Raises:
        SpecError: a count is below one, or the temperature is not above zero.
    """

    temperature: float = 1.0
    """The sampler's: log-probabilities are those of the tempered distribution."""
    epochs: int = 1
    """Passes over the episodes (count)."""
    mini_batches: int = 4
    """Optimizer steps of a pass at most; each takes whole groups (count)."""
    micro_batch_tokens: int = 4096
    """Padded tokens that are run at once; it changes memory and speed, not the gradient."""
    indexer_kl_weight: float = 0.02
    """Weight of the indexer's loss on the replayed keys; 0 freezes it."""
    loss: GrpoConfig = field(default_factory=lambda: GrpoConfig(clip_high=0.28, kl_beta=0.0))
    """Which loss."""

    def __post_init__(self) -> None:
        counts = {name: getattr(self, name) for name in ("epochs", "mini_batches", "micro_batch_tokens")}
        for name, count in counts.items():
            if count < 1:
                raise SpecError(f"UpdateConfig.{name} must be at least 1, got {count}")
        if self.temperature <= 0 or self.indexer_kl_weight < 0:
            raise SpecError(
                "UpdateConfig needs temperature > 0 and indexer_kl_weight >= 0,"
                f" got {self.temperature} and {self.indexer_kl_weight}"
            )


def update(
    policy: Policy,
    reference: Policy | None,
    optimizer: PolicyOptimizer,
    trajectories: Sequence[TokenTrajectory],
    config: UpdateConfig,
    *,
    scale: float,
    key: str,
) -> dict[str, float]:
    """Take the optimizer steps of one batch of episodes.

    Args:
        policy: What is trained.
        reference: The frozen policy of the KL term; None without one.
        optimizer: Of the policy.
        trajectories: Episodes of groups with variance; none void.
        config: How.
        scale: Factor on the learning rates.
        key: Key of the random order of groups.

    Returns:
        Metrics: means over the optimizer steps, maxima for names that end in `/max`.

    Raises:
        SpecError: there is no episode, one is void, or the KL term has no reference.
    """
    if not trajectories or any(item.reward is None for item in trajectories):
        raise SpecError("an update needs episodes, and none of them void")
    policy.train()
    parts: list[dict[str, float]] = []
    plan = [
        (epoch, part)
        for epoch in range(config.epochs)
        for part in split_groups(trajectories, config.mini_batches, f"{key}/{epoch}")
    ]
    for number, (_, part) in enumerate(plan):
        batch = collate(part, pad_id=PAD, baseline=config.loss.baseline, std_floor=config.loss.std_floor)
        # Before the first step the weights are those of the rollout: what differs then is the engine's, not learning's.
        metrics = _accumulate(policy, reference, batch, config, is_fresh=number == 0)
        if number == len(plan) - 1:
            metrics |= _agreement(policy, micro_batches(batch, config.micro_batch_tokens)[0])
        metrics["grad_norm"] = optimizer.step(scale)
        parts.append(metrics)
    return _means(parts) | {"updates": float(len(parts)), "indexer/frozen": float(config.indexer_kl_weight == 0)}


def split_groups(trajectories: Sequence[TokenTrajectory], count: int, key: str) -> list[list[TokenTrajectory]]:
    """Split episodes into parts of whole groups, in a random order that follows from the key.

    Args:
        trajectories: The episodes.
        count: Parts at most; never more than groups.
        key: Seed of the order.

    Returns:
        The parts, of about equal numbers of groups.
    """
    groups: dict[str, list[TokenTrajectory]] = {}
    for item in trajectories:
        groups.setdefault(item.group, []).append(item)
    order = sorted(groups)
    random.Random(key).shuffle(order)
    count = min(count, len(order))
    borders = [len(order) * index // count for index in range(count + 1)]
    return [
        [item for group in order[start:end] for item in groups[group]] for start, end in itertools.pairwise(borders)
    ]


def _accumulate(
    policy: Policy, reference: Policy | None, batch: TrainBatch, config: UpdateConfig, *, is_fresh: bool
) -> dict[str, float]:
    """Add up the gradients of a batch, and its metrics."""
    n_valid = int(batch.valid.sum())
    found: list[Mapping[str, Tensor]] = []
    device = policy.embed_tokens.weight.device
    for here in micro_batches(batch, config.micro_batch_tokens):
        # What the loss reads is scored. Kept sets are checked on the CPU, where nobody waits for a device.
        is_read_NT = here.loss_inputs().mask
        asked = next_token_request(here.tokens, is_read_NT, kept=here.kept, temperature=config.temperature)
        asked, part = asked.to(device), here.to(device)
        output = policy(
            part.tokens,
            mask_BT=part.valid,
            routed_experts_BTMA=part.routed_experts,
            indexer_topk_BTLK=part.indexer_topk,
            with_indexer_kl=config.indexer_kl_weight > 0,
            score=asked,
        )
        scores = _scores(output)
        logp_NT = aligned(scores.log_probs_BT)
        inputs = part.loss_inputs(ref=_reference_log_probs(reference, part, asked))
        loss, metrics = grpo_loss(logp_NT, inputs, config.loss, part.totals)
        if output.indexer_kl is not None:
            indexer = output.indexer_kl.sum() / n_valid
            loss = loss + config.indexer_kl_weight * indexer
            metrics["loss/indexer"] = indexer.detach()
        loss.backward()
        metrics |= _observed(scores.measures, logp_NT.detach(), part, is_fresh=is_fresh)
        found.append(metrics)
    return merge_metrics(found)


def _scores(output: PolicyOutput) -> TokenScores:
    """Give the scores that were asked for.

    Raises:
        SpecError: the policy gave none.
    """
    if output.scores is None:
        raise SpecError("the policy gave no scores: its forward pass must answer `score`")
    return output.scores


@torch.no_grad()
def _reference_log_probs(reference: Policy | None, part: TrainBatch, asked: ScoreRequest) -> Tensor | None:
    if reference is None:
        return None
    output = reference(part.tokens, mask_BT=part.valid, score=asked._replace(with_measures=False))
    return aligned(_scores(output).log_probs_BT)


@torch.no_grad()
def _observed(measures: Measures | None, logp_NT: Tensor, part: TrainBatch, *, is_fresh: bool) -> dict[str, Tensor]:
    """Entropy, kept mass, and the distance to the sampler's record; shares of the whole batch, so that they add up."""
    n_tokens = part.totals.n_tokens
    before_NT = part.action_mask[:, 1:]
    metrics: dict[str, Tensor] = {}
    if measures is not None:
        metrics["entropy"] = measures.entropy_BT[:, :-1][before_NT].sum() / n_tokens
    if measures is not None and part.kept is not None:
        is_cut_NT = part.kept.offsets.diff().view_as(part.tokens) > 0
        metrics["kept/mass"] = measures.mass_BT[:, :-1][before_NT].sum() / n_tokens
        metrics["kept/cut_share"] = (part.action_mask.to(is_cut_NT.device) & is_cut_NT).sum() / n_tokens
    if is_fresh:
        drift_P = (logp_NT - part.mu)[part.action_mask].abs()
        metrics |= {"drift/mean": drift_P.sum() / n_tokens, "drift/max": drift_P.max()}
    return metrics


@torch.no_grad()
def _agreement(policy: Policy, part: TrainBatch) -> dict[str, float]:
    """Share of the recorded experts and keys that the live policy would choose too, on some rows."""
    part = part.to(policy.embed_tokens.weight.device)
    nothing = ScoreRequest(torch.full_like(part.tokens, -1), with_measures=False)
    output = policy(part.tokens, mask_BT=part.valid, score=nothing)
    metrics: dict[str, float] = {}
    pairs = {
        "replay/router_agreement": (part.routed_experts, output.routed_experts),
        "replay/indexer_overlap": (part.indexer_topk, output.indexer_topk),
    }
    for name, (recorded, live) in pairs.items():
        if recorded is not None and live is not None:
            is_there = recorded >= 0
            is_shared = (recorded[..., :, None] == live[..., None, :]).any(-1) & is_there
            metrics[name] = float(is_shared.sum() / is_there.sum().clamp(min=1))
    return metrics


def _means(parts: Sequence[Mapping[str, float]]) -> dict[str, float]:
    found: dict[str, list[float]] = {}
    for part in parts:
        for name, value in part.items():
            found.setdefault(name, []).append(value)
    return {name: max(values) if name.endswith("/max") else sum(values) / len(values) for name, values in found.items()}
