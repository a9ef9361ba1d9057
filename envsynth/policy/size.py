"""How large a policy is: parameters by part, those that a token uses, and what a cache keeps of a token."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import torch

from envsynth.policy.config import PolicyConfig
from envsynth.policy.model import Policy
from envsynth.policy.tokens import VOCABULARY_SIZE

VOCABULARIES: Final[Mapping[str, int]] = {
    "nano": VOCABULARY_SIZE, "small": 512, "base": 1024, "large": 8192, "deepseek-v3.2": 129_280,
}  # fmt: skip
"""Token ids that each preset is meant for."""
ROUTED, PREDICTION = "routed experts", "prediction layers"
_PARTS: Final = (
    ("mtp_layers.", PREDICTION),
    ("embed_tokens.", "embedding"),
    ("lm_head.", "head"),
    (".indexer.", "indexers"),
    (".self_attn.", "attention"),
    (".mlp.experts.", ROUTED),
    (".mlp.shared_experts.", "shared experts"),
    (".mlp.gate.", "routers"),
    (".mlp.", "dense layers"),
    ("", "norms"),
)
"""What a parameter's name contains -> its part; the first that fits counts."""


@dataclass(frozen=True, kw_only=True)
class PolicySize:
    """Counts of a policy."""

    parts: Mapping[str, int]
    """Parameters by part; every parameter is in one part."""
    total: int
    """Parameters without those of prediction layers."""
    active: int
    """Parameters that one token uses: all of these but the routed experts that are not chosen."""
    cache_numbers: int
    """Numbers that a cache keeps per token: latents and indexer keys of all layers."""


def policy_size(config: PolicyConfig) -> PolicySize:
    """Count the parameters of a policy without making its numbers.

    Args:
        config: The policy's configuration.

    Returns:
        The counts.
    """
    with torch.device("meta"):
        policy = Policy(config)
    parts: dict[str, int] = {}
    for name, parameter in policy.named_parameters():
        part = next(part for mark, part in _PARTS if mark in name)
        parts[part] = parts.get(part, 0) + parameter.numel()
    total = sum(count for part, count in parts.items() if part != PREDICTION)
    experts, attention = config.experts, config.attention
    idle = parts.get(ROUTED, 0) // experts.n_routed_experts * (experts.n_routed_experts - experts.num_experts_per_tok)
    width = attention.kv_lora_rank + attention.qk_rope_head_dim + config.indexer.index_head_dim
    return PolicySize(parts=parts, total=total, active=total - idle, cache_numbers=width * config.num_hidden_layers)
