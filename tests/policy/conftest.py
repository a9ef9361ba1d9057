"""Small policies whose every part matters: random weights everywhere, so that a wrong index changes a number."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from envsynth.policy.config import AttentionConfig, ExpertsConfig, IndexerConfig, PolicyConfig
from envsynth.policy.model import Policy

TINY = PolicyConfig(
    vocab_size=50,
    hidden_size=32,
    num_hidden_layers=3,
    intermediate_size=48,
    first_k_dense_replace=1,
    max_position_embeddings=64,
    attention=AttentionConfig(
        num_attention_heads=2,
        q_lora_rank=24,
        kv_lora_rank=16,
        qk_nope_head_dim=8,
        qk_rope_head_dim=4,
        v_head_dim=8,
        rope_theta=100.0,
    ),
    indexer=IndexerConfig(index_n_heads=2, index_head_dim=8, index_topk=6),
    experts=ExpertsConfig(
        n_routed_experts=8,
        num_experts_per_tok=3,
        n_shared_experts=1,
        moe_intermediate_size=16,
        n_group=4,
        topk_group=2,
        routed_scaling_factor=1.5,
    ),
)
"""One dense layer below two with experts in groups; sparse from seven tokens on."""


def lively_weights(policy: Policy, seed: int = 0) -> Policy:
    """Fill every weight, gain and bias with random numbers; a fresh policy has zeros where branches end."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in policy.named_parameters():
            if parameter.ndim >= 2:
                scale = 1.0 if name.startswith("embed") else parameter.shape[-1] ** -0.5
                parameter.normal_(std=scale, generator=generator)
            else:
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
        for name, buffer in policy.named_buffers():
            if name.endswith("e_score_correction_bias"):
                buffer.normal_(std=0.1, generator=generator)
    return policy


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture
def tiny() -> PolicyConfig:
    return TINY


@pytest.fixture
def policy() -> Policy:
    return lively_weights(Policy(TINY))


@pytest.fixture
def lively() -> Callable[..., Policy]:
    """Make a policy with random weights: `lively(config, seed=0, **fields)`."""

    def make(
        config: PolicyConfig = TINY, seed: int = 0, *, checkpoint_layers: bool = False, **fields: object
    ) -> Policy:
        changed = replace(config, **fields)  # pyright: ignore[reportArgumentType]
        return lively_weights(Policy(changed, checkpoint_layers=checkpoint_layers), seed)

    return make


@pytest.fixture
def tokens() -> Callable[..., torch.Tensor]:
    """Make random token ids: `tokens(B, T, seed=0)`."""

    def make(*shape: int, seed: int = 0, vocab: int = TINY.vocab_size) -> torch.Tensor:
        return torch.randint(0, vocab, shape, generator=torch.Generator().manual_seed(seed))

    return make


@pytest.fixture(autouse=True)
def plain_arithmetic():
    """One thread, because two of them wait for each other in a busy machine, 50 times as long; denormals are kept.

    A test may have called `prepare_cpu` in this process, and its settings stay.
    """
    torch.set_num_threads(1)
    torch.set_flush_denormal(False)
