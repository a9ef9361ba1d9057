"""The faults of the doctor's tests, planted where they happen in practice; each is a context manager.

They live here and not in the package: production code has no switch that makes it wrong.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from unittest.mock import patch

import torch

import envsynth.policy.batch as batch
import envsynth.policy.drawing as drawing
import envsynth.policy.engine as engine
import envsynth.policy.grpo as grpo
import envsynth.policy.model as model
import envsynth.train.collect as collect
import envsynth.train.grpo_update as grpo_update
import envsynth.train.sft as sft
import envsynth.train.traces as traces
from envsynth.policy.optimizer import OptimizerConfig, PolicyOptimizer
from envsynth.policy.tokens import END
from envsynth.trajectory import Trajectory

Fault = Callable[[], AbstractContextManager[object]]


def _record(change: Callable[[engine.SlotRecord], engine.SlotRecord]) -> AbstractContextManager[object]:
    """Every record that leaves the engine is changed."""
    record = engine.Engine.record
    return patch.object(engine.Engine, "record", lambda self, slot: change(record(self, slot)))


def _forward(change: Callable[[dict], dict]) -> AbstractContextManager[object]:
    """The trainer's forward pass gets other arguments; a pass without gradient does not."""
    forward = model.Policy.forward

    def changed(self, *tokens, **options):
        return forward(self, *tokens, **(change(options) if torch.is_grad_enabled() else options))

    return patch.object(model.Policy, "forward", changed)


def shuffled_keys_in_the_record():
    def shuffle(record: engine.SlotRecord) -> engine.SlotRecord:
        keys = record.indexer_topk.clone()
        chance = torch.Generator().manual_seed(0)
        for position in range(keys.shape[2], len(keys)):
            if keys[position, 0, 0] >= 0:
                for layer in range(keys.shape[1]):
                    some = torch.randperm(position + 1, generator=chance)[: keys.shape[2]]
                    keys[position, layer] = some.sort().values
        return replace(record, indexer_topk=keys)

    return _record(shuffle)


def shuffled_keys_in_training():
    """The rows of a batch get each other's keys."""

    def shuffle(options: dict) -> dict:
        keys = options.get("indexer_topk_BTLK")
        return options if keys is None else {**options, "indexer_topk_BTLK": keys.flip(2)}

    return _forward(shuffle)


def live_keys_in_training():
    return _forward(lambda options: {**options, "indexer_topk_BTLK": None})


def live_routing_in_training():
    return _forward(lambda options: {**options, "routed_experts_BTMA": None})


def no_experts_in_the_record():
    to_tokens = collect.to_tokens
    return patch.object(collect, "to_tokens", lambda *a: replace(to_tokens(*a), routed_experts=None))


@contextmanager
def stale_sampler() -> Iterator[None]:
    """The sampler plays with the weights of before an update: one part in fifty of noise."""
    actor = collect.PolicyActor

    def stale(policy, **options):
        old = copy.deepcopy(policy)
        chance = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for item in old.parameters():
                item += 0.02 * item.std() * torch.randn(item.shape, generator=chance)
        return actor(old, **options)

    with patch.object(collect, "PolicyActor", stale):
        yield


@contextmanager
def sampler_one_update_away() -> Iterator[None]:
    """Between the sampler's weights and the trainer's lies a single step at the learning rates of the trainer."""
    actor = collect.PolicyActor

    def stale(policy, **options):
        other = copy.deepcopy(policy)
        lessons = sft.batch_of(traces.nano_lessons(4, "stale", max_tokens=policy.config.max_position_embeddings))
        output = other(lessons.tokens_BT, mask_BT=lessons.valid_BT)
        sft.sft_loss(output, lessons, context_weight=0.0, echo_weight=0.0, indexer_kl_weight=0.0)[0].backward()
        PolicyOptimizer(other, OptimizerConfig(muon_lr=2e-3, adamw_lr=2e-4)).step()
        return actor(other, **options)

    with patch.object(collect, "PolicyActor", stale):
        yield


def detached_ratio():
    """The common bug: the ratio weighs the estimate, and no gradient flows through it."""

    def detached(logp_NT, inputs, ratio_max):
        log_r_NT = torch.where(inputs.mask, logp_NT.detach() - inputs.mu, 0)
        gap_NT = torch.where(inputs.mask, inputs.ref - logp_NT, 0)
        return log_r_NT.exp() * (torch.expm1(gap_NT) - gap_NT), torch.zeros_like(inputs.mask)

    return patch.object(grpo, "unbiased_kl", detached)


def kept_sets_ignored_in_training():
    asked = grpo_update.next_token_request
    return patch.object(grpo_update, "next_token_request", lambda *what, **how: asked(*what, **{**how, "kept": None}))


def kept_sets_not_recorded():
    to_tokens = collect.to_tokens
    return patch.object(collect, "to_tokens", lambda *a: replace(to_tokens(*a), kept=None))


def action_mask_ignored():
    """The loss runs over prompts and observations too."""
    loss_inputs = batch.TrainBatch.loss_inputs

    def everything(self, **options):
        mask = self.valid.clone()
        mask[:, 0] = False
        return replace(loss_inputs(self, **options), mask=mask)

    return patch.object(batch.TrainBatch, "loss_inputs", everything)


def temperature_forgotten_in_training():
    asked = grpo_update.next_token_request
    return patch.object(
        grpo_update, "next_token_request", lambda *what, **how: asked(*what, **{**how, "temperature": 1.0})
    )


def temperature_forgotten_by_the_sampler():
    chosen = engine.truncated_log_probs

    def plain(logits_NV, sampling):
        keep_NV = chosen(logits_NV, sampling).isfinite()
        return logits_NV.masked_fill(~keep_NV, -math.inf).log_softmax(-1)

    return patch.object(engine, "truncated_log_probs", plain)


def drawn_colder_than_recorded():
    """Sampling at another temperature than both record and trainer: every ratio is 1."""
    draw = drawing.draw
    return patch.object(engine, "draw", lambda logp_NV, uniforms_N: draw((2 * logp_NV).log_softmax(-1), uniforms_N))


def end_not_in_the_action_mask():
    return _record(lambda record: replace(record, sampled=record.sampled & (record.tokens != END)))


def end_not_in_the_loss():
    loss_inputs = batch.TrainBatch.loss_inputs

    def without(self, **options):
        found = loss_inputs(self, **options)
        return replace(found, mask=found.mask & (self.tokens != END))

    return patch.object(batch.TrainBatch, "loss_inputs", without)


def end_not_in_the_lessons():
    render = traces.render

    def without(messages, **options):
        found = render(messages, **options)
        return replace(found, sampled=tuple(s and i != END for i, s in zip(found.ids, found.sampled, strict=True)))

    return patch.object(traces, "render", without)


def reward_flipped_in_the_record():
    to_tokens = collect.to_tokens

    def flipped(*arguments):
        item = to_tokens(*arguments)
        return item if item.reward is None else replace(item, reward=1 - item.reward)

    return patch.object(collect, "to_tokens", flipped)


def advantage_flipped():
    centred = batch.group_advantages

    def flipped(*arguments):
        found = centred(*arguments)
        return replace(found, values=-found.values)

    return patch.object(batch, "group_advantages", flipped)


def loss_flipped():
    surrogate = grpo.surrogate
    return patch.object(grpo, "surrogate", lambda *arguments: -surrogate(*arguments))


def verdict_flipped():
    score = Trajectory.reward.fget
    return patch.object(Trajectory, "reward", property(lambda self: None if score(self) is None else 1 - score(self)))


FAULTS: dict[str, tuple[Fault, ...]] = {
    "indexer-shuffled": (shuffled_keys_in_the_record, shuffled_keys_in_training, live_keys_in_training),
    "live-routing": (live_routing_in_training, no_experts_in_the_record),
    "stale-weights": (stale_sampler, sampler_one_update_away),
    "detached-kl-ratio": (detached_ratio,),
    "mask-dropped": (kept_sets_ignored_in_training, kept_sets_not_recorded, action_mask_ignored),
    "temperature-mismatch": (
        temperature_forgotten_in_training,
        temperature_forgotten_by_the_sampler,
        drawn_colder_than_recorded,
    ),
    "end-of-turn-untrained": (end_not_in_the_action_mask, end_not_in_the_loss, end_not_in_the_lessons),
    "reward-flipped": (reward_flipped_in_the_record, advantage_flipped, loss_flipped, verdict_flipped),
}
"""Finding -> the faults that it must name, and nothing else."""
