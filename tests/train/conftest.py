"""A policy small enough for a test, a text environment that is not ours, and lessons for it."""

from __future__ import annotations

from typing import Any

import gymnasium
import pytest
import torch

from envsynth.policy.config import AttentionConfig, ExpertsConfig, IndexerConfig, PolicyConfig
from envsynth.policy.model import Policy, prepare_cpu
from envsynth.policy.tokens import VOCABULARY_SIZE
from envsynth.train.collect import Stock
from envsynth.train.text_env import TextEnv, playable
from envsynth.train.traces import Lesson, lesson_of
from envsynth.trajectory import Turn

SMALL = PolicyConfig(
    vocab_size=VOCABULARY_SIZE,
    hidden_size=32,
    num_hidden_layers=2,
    intermediate_size=32,
    first_k_dense_replace=0,
    max_position_embeddings=48,
    attention=AttentionConfig(
        num_attention_heads=2,
        q_lora_rank=24,
        kv_lora_rank=16,
        qk_nope_head_dim=8,
        qk_rope_head_dim=8,
        v_head_dim=16,
        rope_theta=100.0,
    ),
    indexer=IndexerConfig(index_n_heads=2, index_head_dim=8, index_topk=6),
    experts=ExpertsConfig(n_routed_experts=4, num_experts_per_tok=2, n_shared_experts=1, moe_intermediate_size=16),
)
ARMS = ("a", "b")


class Bandit(gymnasium.Env[str, str]):
    """Somebody's environment: one turn, two arms, and the second pays; a machine in `broken` gives no number."""

    observation_space = gymnasium.spaces.Text(64)
    action_space = gymnasium.spaces.Text(64)

    def __init__(self, broken: tuple[int, ...] = (), flaky: bool = False, count: int = 0) -> None:
        self.broken, self.flaky = broken, flaky
        self.machine, self.count = 0, count

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        super().reset(seed=seed)
        self.machine = seed or 0
        return f"arm {self.machine} ?", {}

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        self.count += 1
        # Two in a row, so that a second try of a void episode can fail too.
        if self.machine in self.broken or (self.flaky and self.count % 5 < 2):
            return "", float("nan"), True, False, {}
        return "", float(action == ARMS[1]), True, False, {}


def bandits(slots: int, tasks: int, broken: tuple[int, ...] = (), *, flaky: bool = False) -> Stock:
    envs = [playable(Bandit(broken, flaky, slot), name="bandit") for slot in range(slots)]
    names = [env.tasks(tasks) for env in envs if isinstance(env, TextEnv)]
    return Stock(envs=envs, tasks=tuple(names[0]), domains=dict.fromkeys(names[0], "bandit"))


def bandit_lessons() -> list[Lesson]:
    """Both arms of every machine, equally often: what the bandit's policy starts from."""
    return [lesson_of(f"arm {machine} ?", [Turn(action=arm, observation="")]) for machine in range(8) for arm in ARMS]


def copy_lessons(words: list[str]) -> list[Lesson]:
    return [lesson_of(f"say {word} !", [Turn(action=word, observation="")]) for word in words]


@pytest.fixture(autouse=True)
def one_thread():
    prepare_cpu(1)
    state = torch.get_rng_state()
    yield
    torch.set_rng_state(state)
    # It belongs to the process, and other tests check numbers that flushing would make zero.
    torch.set_flush_denormal(False)


@pytest.fixture
def small() -> Policy:
    return Policy(SMALL, seed=1)
