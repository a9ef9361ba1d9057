"""The same weights under the names that `transformers` uses for DeepSeek-V3.2.

Names only: this module neither imports nor downloads anything. It is what lets another implementation of the same
arithmetic check ours, and what an exported policy would be saved under.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from envsynth.policy.config import PolicyConfig
from envsynth.policy.model import Policy


def huggingface_config(config: PolicyConfig) -> dict[str, Any]:
    """Give the arguments of `transformers.DeepseekV32Config` for the same model.

    Args:
        config: The policy's configuration.

    Returns:
        Keyword arguments.

    Raises:
        ValueError: The indexer rotates neighbours, which DeepSeek-V3.2 does not.
    """
    attention, indexer, experts = config.attention, config.indexer, config.experts
    if indexer.index_rope_interleave:
        raise ValueError("DeepSeek-V3.2 rotates halves in the indexer: index_rope_interleave must be False")
    return {
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "num_hidden_layers": config.num_hidden_layers,
        "intermediate_size": config.intermediate_size,
        "first_k_dense_replace": config.first_k_dense_replace,
        "max_position_embeddings": config.max_position_embeddings,
        "rms_norm_eps": config.rms_norm_eps,
        "num_attention_heads": attention.num_attention_heads,
        "num_key_value_heads": attention.num_attention_heads,
        "q_lora_rank": attention.q_lora_rank,
        "kv_lora_rank": attention.kv_lora_rank,
        "qk_nope_head_dim": attention.qk_nope_head_dim,
        "qk_rope_head_dim": attention.qk_rope_head_dim,
        "v_head_dim": attention.v_head_dim,
        "rope_parameters": {"rope_type": "default", "rope_theta": attention.rope_theta},
        "index_n_heads": indexer.index_n_heads,
        "index_head_dim": indexer.index_head_dim,
        "index_topk": indexer.index_topk,
        "n_routed_experts": experts.n_routed_experts,
        "num_experts_per_tok": experts.num_experts_per_tok,
        "n_shared_experts": experts.n_shared_experts,
        "moe_intermediate_size": experts.moe_intermediate_size,
        "n_group": experts.n_group,
        "topk_group": experts.topk_group,
        "norm_topk_prob": experts.norm_topk_prob,
        "routed_scaling_factor": experts.routed_scaling_factor,
        "tie_word_embeddings": False,
        "bos_token_id": None,
        "eos_token_id": None,
    }


def huggingface_state_dict(policy: Policy) -> dict[str, Tensor]:
    """Give the policy's weights under the names of `transformers.DeepseekV32ForCausalLM`.

    Args:
        policy: The policy.

    Returns:
        Detached tensors; the gate and up matrices of the routed experts are joined, the others are shared.
    """
    named: dict[str, Tensor] = {}
    ours = {name: tensor.detach() for name, tensor in policy.state_dict().items()}
    for name, tensor in ours.items():
        if name.endswith(".experts.gate_proj"):
            joined = torch.cat((tensor, ours[name.replace("gate_proj", "up_proj")]), dim=1)
            named[f"model.{name.replace('gate_proj', 'gate_up_proj')}"] = joined
        elif not name.endswith(".experts.up_proj"):
            named[name if name.startswith("lm_head.") else f"model.{name}"] = tensor
    return named
