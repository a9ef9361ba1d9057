"""Ready-made configurations, from two CPU cores to the released model.

Sizes are counted with the vocabulary that each is meant for; `test_presets.py` counts every one of them.
"""

from __future__ import annotations

from collections.abc import Callable

from envsynth.policy.config import AttentionConfig, ExpertsConfig, IndexerConfig, PolicyConfig, YarnConfig


def nano(vocab_size: int, *, index_topk: int = 32, max_position_embeddings: int = 256) -> PolicyConfig:
    """Give the preset for two CPU cores: about one million parameters with a vocabulary of 200 to 600 ids.

    Args:
        vocab_size: Token ids (count, >= 2).
        index_topk: Keys kept per query (count); below the usual length, so that sparse attention is exercised.
        max_position_embeddings: Longest sequence (tokens).

    Returns:
        The configuration: four layers of width 128, each with four routed experts and a shared one.
    """
    return PolicyConfig(
        vocab_size=vocab_size,
        hidden_size=128,
        num_hidden_layers=4,
        intermediate_size=240,
        first_k_dense_replace=0,
        max_position_embeddings=max_position_embeddings,
        attention=AttentionConfig(
            num_attention_heads=4,
            q_lora_rank=96,
            kv_lora_rank=64,
            qk_nope_head_dim=32,
            qk_rope_head_dim=16,
            v_head_dim=32,
            rope_theta=1000.0,
        ),
        indexer=IndexerConfig(index_n_heads=2, index_head_dim=32, index_topk=index_topk),
        experts=ExpertsConfig(n_routed_experts=4, num_experts_per_tok=2, n_shared_experts=1, moe_intermediate_size=80),
    )


def small(vocab_size: int, *, index_topk: int = 64, max_position_embeddings: int = 1024) -> PolicyConfig:
    """Give the preset of about ten million parameters, five of them active, with a vocabulary of 512 ids.

    Args:
        vocab_size: Token ids (count, >= 2).
        index_topk: Keys kept per query (count).
        max_position_embeddings: Longest sequence (tokens).

    Returns:
        The configuration: eight layers of width 256; the first is dense, the others have eight routed experts.
    """
    return PolicyConfig(
        vocab_size=vocab_size,
        hidden_size=256,
        num_hidden_layers=8,
        intermediate_size=512,
        first_k_dense_replace=1,
        max_position_embeddings=max_position_embeddings,
        attention=AttentionConfig(
            num_attention_heads=8,
            q_lora_rank=128,
            kv_lora_rank=64,
            qk_nope_head_dim=32,
            qk_rope_head_dim=16,
            v_head_dim=32,
            rope_theta=10000.0,
        ),
        indexer=IndexerConfig(index_n_heads=4, index_head_dim=32, index_topk=index_topk),
        experts=ExpertsConfig(n_routed_experts=8, num_experts_per_tok=2, n_shared_experts=1, moe_intermediate_size=160),
    )


def base(vocab_size: int, *, index_topk: int = 128, max_position_embeddings: int = 4096) -> PolicyConfig:
    """Give the preset of about thirty million parameters with a vocabulary of 1,024 ids.

    Args:
        vocab_size: Token ids (count, >= 2).
        index_topk: Keys kept per query (count).
        max_position_embeddings: Longest sequence (tokens).

    Returns:
        The configuration: ten layers of width 384; the first is dense, the others have sixteen routed experts.
    """
    return PolicyConfig(
        vocab_size=vocab_size,
        hidden_size=384,
        num_hidden_layers=10,
        intermediate_size=1024,
        first_k_dense_replace=1,
        max_position_embeddings=max_position_embeddings,
        attention=AttentionConfig(
            num_attention_heads=8,
            q_lora_rank=192,
            kv_lora_rank=128,
            qk_nope_head_dim=48,
            qk_rope_head_dim=32,
            v_head_dim=48,
        ),
        indexer=IndexerConfig(index_n_heads=4, index_head_dim=64, index_topk=index_topk),
        experts=ExpertsConfig(
            n_routed_experts=16,
            num_experts_per_tok=2,
            n_shared_experts=1,
            moe_intermediate_size=128,
            n_group=4,
            topk_group=2,
        ),
    )


def large(vocab_size: int, *, index_topk: int = 256, max_position_embeddings: int = 16384) -> PolicyConfig:
    """Give the preset of about 300 million parameters, 85 of them active, with a vocabulary of 8,192 ids.

    Args:
        vocab_size: Token ids (count, >= 2).
        index_topk: Keys kept per query (count).
        max_position_embeddings: Longest sequence (tokens).

    Returns:
        The configuration: fourteen layers of width 768; the first is dense, the others have 32 routed experts.
    """
    return PolicyConfig(
        vocab_size=vocab_size,
        hidden_size=768,
        num_hidden_layers=14,
        intermediate_size=2304,
        first_k_dense_replace=1,
        max_position_embeddings=max_position_embeddings,
        attention=AttentionConfig(
            num_attention_heads=12,
            q_lora_rank=384,
            kv_lora_rank=192,
            qk_nope_head_dim=64,
            qk_rope_head_dim=32,
            v_head_dim=64,
        ),
        indexer=IndexerConfig(index_n_heads=8, index_head_dim=64, index_topk=index_topk),
        experts=ExpertsConfig(
            n_routed_experts=32,
            num_experts_per_tok=4,
            n_shared_experts=1,
            moe_intermediate_size=256,
            n_group=4,
            topk_group=2,
        ),
    )


def deepseek_v32(
    vocab_size: int = 129_280, *, index_topk: int = 2048, max_position_embeddings: int = 163_840
) -> PolicyConfig:
    """Give the released model: 671 billion parameters beside the indexers. Make it on the meta device.

    Source: `config.json` of DeepSeek-V3.2 (arXiv:2512.02556); its prediction layer is left out.

    Args:
        vocab_size: Token ids (count, >= 2).
        index_topk: Keys kept per query (count).
        max_position_embeddings: Longest sequence (tokens).

    Returns:
        The configuration: 61 layers of width 7,168; three are dense, the others have 256 routed experts.
    """
    return PolicyConfig(
        vocab_size=vocab_size,
        hidden_size=7168,
        num_hidden_layers=61,
        intermediate_size=18432,
        first_k_dense_replace=3,
        max_position_embeddings=max_position_embeddings,
        attention=AttentionConfig(
            num_attention_heads=128,
            q_lora_rank=1536,
            kv_lora_rank=512,
            qk_nope_head_dim=128,
            qk_rope_head_dim=64,
            v_head_dim=128,
            yarn=YarnConfig(factor=40.0, original_max_position_embeddings=4096),
        ),
        indexer=IndexerConfig(index_n_heads=64, index_head_dim=128, index_topk=index_topk, index_precision="fp8"),
        experts=ExpertsConfig(
            n_routed_experts=256,
            num_experts_per_tok=8,
            n_shared_experts=1,
            moe_intermediate_size=2048,
            n_group=8,
            topk_group=4,
            routed_scaling_factor=2.5,
        ),
    )


PRESETS: dict[str, Callable[..., PolicyConfig]] = {
    "nano": nano,
    "small": small,
    "base": base,
    "large": large,
    "deepseek-v3.2": deepseek_v32,
}
"""All presets by name, the smallest first."""
