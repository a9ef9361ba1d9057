"""Gather evidence: real episodes on real environments, three updates of a copy, and the records scored again."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import torch

from envsynth.actors import actor_factory
from envsynth.author.procedural.nano import NanoTask, nano_tasks
from envsynth.environments.actions import first_observation
from envsynth.errors import CheckpointError, SpecError
from envsynth.policy.batch import TokenTrajectory
from envsynth.policy.grpo import GrpoConfig
from envsynth.policy.model import Policy
from envsynth.policy.tokens import END
from envsynth.rollout import EpisodeRequest, Stage, make_stages, rollout
from envsynth.train import grpo_loop
from envsynth.train.collect import Stock, collect
from envsynth.train.doctor.capture import CapturedRow, Tokens, altered, capture_update
from envsynth.train.doctor.rescoring import Rescored, rescore
from envsynth.train.doctor.stages import EpisodeText, ScoredStage
from envsynth.train.grpo_loop import GrpoRunConfig
from envsynth.train.run_folder import METRICS
from envsynth.train.sft import batch_of, sft_loss
from envsynth.train.traces import lesson_of

GROUPS: Final = 6
"""Groups that are played (count)."""
MEMBERS: Final = 4
"""Episodes of a group (count, even, so that half of them pass)."""
TURN_TOKENS: Final = 24
"""Tokens of one turn at most."""
TEMPERATURE: Final = 1.25
"""Temperature where the run's is 1: at 1 a forgotten division leaves no trace."""
TOP_P: Final = 0.95
"""Truncation where the run does not truncate: without it a forgotten set leaves no trace."""
REFERENCE_SHIFT: Final = 0.5
"""Deviation of the reference's logits from the policy's; where the two agree, every KL gradient is 0."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Evidence:
    """Everything that the checks look at."""

    config: GrpoRunConfig
    """How it was played and learned from."""
    trajectories: tuple[TokenTrajectory, ...]
    """Episodes as `collect` gave them."""
    given: Mapping[EpisodeText, Sequence[float]]
    """Scores that the environments gave, by episode; an episode that is absent failed by itself."""
    rescored: Rescored
    """The records scored again."""
    plain: Mapping[Tokens, CapturedRow]
    """An update on the episodes as they are."""
    opened: Mapping[Tokens, CapturedRow]
    """An update on `altered` ones."""
    altered: Mapping[Tokens, TokenTrajectory]
    """Records with other experts and keys, and without kept sets."""
    kl: Mapping[Tokens, CapturedRow]
    """An update on episodes of equal reward: what is left is the gradient of the KL term."""
    reference: Policy
    """The reference of that update."""
    solved_reward: float
    """Smallest reward of the planner's own episodes."""
    idle_reward: float
    """Largest reward of doing nothing."""
    untaught_ends: float
    """Share of the turn ends in lessons that leave no gradient in imitation."""
    logged_drift: float | None
    """Largest `drift/mean` in the metrics of the run, nats; None where it has none."""


def probe_config(loss: GrpoConfig, *, temperature: float, top_p: float, seed: int) -> GrpoRunConfig:
    """Say how the doctor plays: as the run does, with everything that may rightly silence a token's gradient off.

    Args:
        loss: The run's loss.
        temperature: The run's; 1 becomes `TEMPERATURE`.
        top_p: The run's; 1 becomes `TOP_P`.
        seed: Seed of tasks and sampling.

    Returns:
        The configuration.
    """
    wide = replace(
        loss, clip_low=1.0, clip_high=1e6, off_policy_delta=math.inf, kl_beta=0.0, kl_ratio_max=1e6, tis_max=None
    )
    return GrpoRunConfig(
        steps=1,
        seed=seed,
        tasks_per_step=GROUPS,
        group_size=MEMBERS,
        max_refills=0,
        temperature=TEMPERATURE if temperature == 1 else temperature,
        top_p=TOP_P if top_p == 1 else top_p,
        max_turn_tokens=TURN_TOKENS,
        mini_batches=1,
        loss=wide,
    )


def gather(policy: Policy, config: GrpoRunConfig, *, run: Path | None = None) -> Evidence:
    """Play episodes of the nano tier, update a copy of the policy three times, and score the records again.

    Args:
        policy: What is trained; it does not change.
        config: From `probe_config`.
        run: Folder of the run, for its metrics.

    Returns:
        The evidence.

    Raises:
        SpecError: no episode could be played.
        CheckpointError: the metrics of the run cannot be read.
    """
    tasks = list(nano_tasks(config.tasks_per_step, f"{config.seed}/doctor"))
    given: dict[EpisodeText, list[float]] = {}
    pairs = [(item.environment, item.task) for item in tasks]
    stages = make_stages(pairs, config.tasks_per_step * config.group_size)
    try:
        stock = Stock(
            envs=[ScoredStage(stage, given) for stage in stages],
            tasks=tuple(item.task.hash for item in tasks),
            domains={item.task.hash: item.kind for item in tasks},
        )
        found = collect(policy, stock, config.rollout, step=0, cursor=0).trajectories
        solved, idle = _play("oracle", tasks, stages[0]), _play("idle", tasks, stages[0])
    finally:
        for stage in stages:
            stage.close()
    if not found:
        raise SpecError("no episode of the nano tier could be played: look at `envsynth doctor sandbox`")
    others = [altered(item, policy.config.experts.n_routed_experts) for item in found]
    reference = _shifted(policy, config.seed)
    equal = [replace(item, reward=1.0) for item in found]
    with_kl = replace(config.update, loss=replace(config.loss, kl_beta=1.0))
    return Evidence(
        config=config,
        trajectories=found,
        given=given,
        rescored=rescore(policy, found, config.rollout.sampling),
        plain=capture_update(policy, None, found, config.update),
        opened=capture_update(policy, None, others, config.update),
        altered={tuple(item.tokens.tolist()): item for item in others},
        kl=capture_update(policy, reference, equal, with_kl),
        reference=reference,
        solved_reward=min(solved),
        idle_reward=max(idle),
        untaught_ends=_untaught_ends(policy, tasks),
        logged_drift=None if run is None else _logged_drift(run),
    )


def _play(actor: str, tasks: Sequence[NanoTask], stage: Stage) -> list[float]:
    player = actor_factory(actor, [item.task for item in tasks])()
    try:
        done = rollout([stage], player, [EpisodeRequest(item.task.hash) for item in tasks])
    finally:
        player.close()
    rewards = [item.reward for item in done if item.reward is not None]
    if not rewards:
        raise SpecError(f"all episodes of actor {actor!r} are void: look at `envsynth doctor sandbox`")
    return rewards


@torch.no_grad()
def _shifted(policy: Policy, seed: int) -> Policy:
    """A reference that is clearly another policy, whatever the run's own reference is by now."""
    reference = copy.deepcopy(policy).eval().requires_grad_(False)
    weight = reference.lm_head.weight
    noise = torch.randn(weight.shape, generator=torch.Generator().manual_seed(seed))
    weight += REFERENCE_SHIFT * weight.shape[1] ** -0.5 * noise
    return reference


def _untaught_ends(policy: Policy, tasks: Sequence[NanoTask]) -> float:
    lessons = [lesson_of(first_observation(item.environment, item.task), item.trace.turns) for item in tasks]
    batch = batch_of([item for item in lessons if len(item) <= policy.config.max_position_embeddings])
    output = policy(batch.tokens_BT, mask_BT=batch.valid_BT, with_indexer_kl=True)
    loss, _ = sft_loss(output, batch, context_weight=0.0, echo_weight=0.0, indexer_kl_weight=0.0)
    (gradient_BTV,) = torch.autograd.grad(loss, output.logits_BTV)
    ends_BT = (batch.tokens_BT == END)[:, 1:] & batch.valid_BT[:, 1:]
    is_taught = (gradient_BTV[:, :-1] != 0).any(-1)[ends_BT]
    return 1 - float(is_taught.double().mean())


def _logged_drift(run: Path) -> float | None:
    file = run / METRICS
    if not file.is_file():
        return None
    try:
        lines = [json.loads(line) for line in file.read_text().splitlines()]
        drifts = [float(line["drift/mean"]) for line in lines if line["phase"] == grpo_loop.PHASE and line["updates"]]
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{file} is no metrics file of a run: {error!r}") from error
    return max(drifts, default=None)
