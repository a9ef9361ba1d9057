"""Small policies whose every part matters: random weights everywhere, so that a wrong index changes a number."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from acceptance.policy_models import TINY as POLICY
from acceptance.policy_models import random_policy, random_tokens
from envsynth.policy.config import PolicyConfig
from envsynth.policy.model import Policy

TINY = replace(POLICY, max_position_embeddings=64)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture
def tiny() -> PolicyConfig:
    return TINY


@pytest.fixture
def policy() -> Policy:
    return random_policy(TINY)


@pytest.fixture
def lively() -> Callable[..., Policy]:
    """Make a policy with random weights: `lively(config, seed=0, **fields)`."""

    def make(
        config: PolicyConfig = TINY, seed: int = 0, *, checkpoint_layers: bool = False, **fields: object
    ) -> Policy:
        changed = replace(config, **fields)  # pyright: ignore[reportArgumentType]
        return random_policy(changed, seed, checkpoint_layers=checkpoint_layers)

    return make


@pytest.fixture
def tokens() -> Callable[..., torch.Tensor]:
    """Make random token ids: `tokens(B, T, seed=0)`."""
    return random_tokens


@pytest.fixture(autouse=True)
def plain_arithmetic():
    """One thread, because two of them wait for each other in a busy machine, 50 times as long; denormals are kept.

    A test may have called `prepare_cpu` in this process, and its settings stay.
    """
    torch.set_num_threads(1)
    torch.set_flush_denormal(False)
