"""A policy as an actor: its tokens are those it sampled, it stops where its context ends, and a checkpoint plays."""

from __future__ import annotations

import pickle
from dataclasses import replace

import pytest
import torch

from envsynth.errors import CheckpointError, SpecError
from envsynth.evaluate import EvaluationOptions, evaluate
from envsynth.policy.checkpoint import CheckpointRecord, load_checkpoint, save_checkpoint
from envsynth.policy.drawing import Sampling
from envsynth.policy.model import Policy
from envsynth.policy.sampling import token_log_probs
from envsynth.policy.template import episode_messages, render
from envsynth.policy.tokens import VOCABULARY_HASH
from envsynth.rollout import EpisodeRequest, Stage, rollout
from envsynth.train.actor import PolicyActor, policy_factory
from envsynth.train.training import nano_pairs
from envsynth.trajectory import StopReason
from tests.train.conftest import SMALL, bandits

LONG = replace(SMALL, max_position_embeddings=256)
"""Reads a nano task."""


def lively(seed: int = 1) -> Policy:
    """A policy that says different things: a fresh head is zero."""
    policy = Policy(LONG, seed=seed).eval()
    with torch.no_grad():
        policy.lm_head.weight.normal_(std=0.3, generator=torch.Generator().manual_seed(seed))
    return policy


def saved(folder, policy: Policy, vocabulary: str = VOCABULARY_HASH) -> None:
    record = CheckpointRecord(
        config=policy.config, vocabulary=vocabulary, seed=0, step=3, phase="sft", data="", metrics_bytes=0
    )
    save_checkpoint(folder, record, policy)


def play(policy: Policy, slots: int = 2, **options):
    pairs, _ = nano_pairs(1, "actor-test")
    stages = [Stage(pairs) for _ in range(slots)]
    actor = PolicyActor(policy, n_slots=slots, max_turn_tokens=6, **options)
    requests = [EpisodeRequest(task.hash, seed) for _, task in pairs for seed in range(2)]
    try:
        return rollout(stages, actor, requests), actor.take_records(), requests
    finally:
        actor.close()
        for stage in stages:
            stage.close()


def test_records_hold_every_token_as_it_was_read_and_sampled():
    trajectories, records, requests = play(lively())
    assert set(records) == {(item.task, item.seed) for item in requests}
    assert sum(len(item.turns) for item in trajectories) > len(trajectories)
    for trajectory in trajectories:
        record = records[trajectory.task, trajectory.seed]
        # The last move of an episode whose context is full was never sampled; all others are in the record.
        rendered = render(episode_messages(trajectory.prompt, trajectory.turns))
        shown = record.tokens.tolist()
        assert tuple(shown[: len(rendered)]) == rendered.ids
        assert tuple(record.sampled.tolist()[: len(rendered)]) == rendered.sampled
        sampled = record.log_probs[record.sampled].tolist()
        assert [x for turn in trajectory.turns for x in turn.action_logprobs or ()] == pytest.approx(sampled)


def test_records_replay_to_the_same_log_probabilities():
    policy = lively()
    _, records, _ = play(policy)
    record = records[min(records)]
    output = policy(
        record.tokens[None],
        routed_experts_BTMA=record.routed_experts[None].long(),
        indexer_topk_BTLK=record.indexer_topk[None].long(),
    )
    logp = token_log_probs(output.logits_BTV, record.tokens[None], None, 1.0)[0]
    assert len(record.tokens) > policy.config.indexer.index_topk
    torch.testing.assert_close(logp[record.sampled], record.log_probs[record.sampled], rtol=0, atol=2e-5)


def test_play_does_not_depend_on_slots_and_depends_on_the_seed():
    one, other = play(lively(), 1, seed="x")[0], play(lively(), 2, seed="x")[0]
    assert [item.turns for item in one] == [item.turns for item in other]
    assert [item.turns for item in one] != [item.turns for item in play(lively(), 2, seed="y")[0]]


def test_greedy_play_is_the_same_whatever_the_seed():
    greedy = Sampling(temperature=0)
    texts = [
        [[turn.action for turn in item.turns] for item in play(lively(), sampling=greedy, seed=seed)[0]]
        for seed in "xy"
    ]
    assert texts[0] == texts[1]


def test_a_prompt_that_does_not_fit_makes_the_actor_stop():
    policy = Policy(replace(LONG, max_position_embeddings=20)).eval()
    trajectories, records, _ = play(policy)
    assert {item.stop for item in trajectories} == {StopReason.ACTOR_STOPPED}
    assert {item.reward for item in trajectories} == {0.0}
    assert "20" in trajectories[0].verdict.checks[0].reason
    assert records == {}


def test_an_episode_that_outgrows_the_context_stops():
    policy = Policy(replace(LONG, max_position_embeddings=126)).eval()
    trajectories, records, _ = play(policy)
    assert {item.stop for item in trajectories} == {StopReason.ACTOR_STOPPED}
    assert all(len(record.tokens) <= 126 for record in records.values())
    assert all(record.sampled.any() for record in records.values())


def test_factory_plays_a_checkpoint_in_an_evaluation(tmp_path):
    saved(tmp_path / "sft" / "step-00000003", lively())
    pairs, _ = nano_pairs(1, "factory-test")
    reports = []
    for temperature in (0.0, 0.0, 1.0):
        factory = policy_factory(tmp_path, temperature=temperature, seed=4, n_slots=2, threads=1)
        factory = pickle.loads(pickle.dumps(factory))
        reports.append(evaluate(pairs, factory, 2, (1,), 4, options=EvaluationOptions(slots=2)))
    assert reports[0] == reports[1]
    assert reports[0].actor == "policy:sft/step-00000003:greedy"
    assert reports[2].actor == "policy:sft/step-00000003:t1"
    assert reports[0].scored == 2


def test_factory_refuses_what_it_cannot_play(tmp_path):
    with pytest.raises(CheckpointError, match="no checkpoint"):
        policy_factory(tmp_path, threads=1)
    saved(tmp_path / "a", lively(), vocabulary="00" * 16)
    with pytest.raises(CheckpointError, match="vocabulary"):
        policy_factory(tmp_path / "a", threads=1)
    saved(tmp_path / "b", lively())
    with pytest.raises(SpecError, match="temperature"):
        policy_factory(tmp_path / "b", temperature=-1.0, threads=1)
    assert load_checkpoint(tmp_path / "b").record.step == 3


def test_actor_plays_foreign_text(small):
    stock = bandits(2, 2)
    actor = PolicyActor(small.eval(), n_slots=2, max_turn_tokens=4)
    found = rollout(stock.envs, actor, [EpisodeRequest(task, 0) for task in stock.tasks])
    assert all(item.turns[0].action_tokens for item in found)
    assert all(item.reward == 0.0 for item in found)
