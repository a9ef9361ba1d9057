"""Small policies with random weights everywhere, for the lines about the policy."""

from __future__ import annotations

import torch
from torch import Tensor

from envsynth.policy.config import AttentionConfig, ExpertsConfig, IndexerConfig, PolicyConfig
from envsynth.policy.model import Policy

TINY = PolicyConfig(
    vocab_size=50,
    hidden_size=32,
    num_hidden_layers=3,
    intermediate_size=48,
    first_k_dense_replace=1,
    max_position_embeddings=256,
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


def random_policy(config: PolicyConfig, seed: int = 0, *, checkpoint_layers: bool = False) -> Policy:
    """Make a policy whose every weight, gain and bias is random; a fresh one has zeros where branches end."""
    policy = Policy(config, checkpoint_layers=checkpoint_layers)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, item in policy.named_parameters():
            if item.ndim >= 2:
                scale = 1.0 if name.startswith("embed") else item.shape[-1] ** -0.5
                item.normal_(std=scale, generator=generator)
            else:
                item.add_(0.3 * torch.randn(item.shape, generator=generator))
        for name, item in policy.named_buffers():
            if name.endswith("e_score_correction_bias"):
                item.normal_(std=0.1, generator=generator)
    return policy


def random_tokens(*shape: int, seed: int = 0, vocab: int = TINY.vocab_size) -> Tensor:
    """Draw token ids."""
    return torch.randint(0, vocab, shape, generator=torch.Generator().manual_seed(seed))
