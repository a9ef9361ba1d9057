"""What a policy is made of, with the field's own names (DeepSeek-V3.2, arXiv:2512.02556, section 2.1).

Four frozen records: attention, indexer, experts, and the policy that holds them. Whatever can be derived is a
property. Every record refuses impossible values when it is made, and names the field.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Self

from envsynth.errors import SpecError


def _need(holds: bool, message: str) -> None:
    """Refuse with the message unless the condition holds.

    Raises:
        SpecError: It does not hold.
    """
    if not holds:
        raise SpecError(message)


def _need_counts(record: object, names: tuple[str, ...], least: int = 1) -> None:
    """Raise `SpecError` unless the named fields are integers of at least `least`."""
    for name in names:
        value = getattr(record, name)
        where = f"{type(record).__name__}.{name}"
        _need(isinstance(value, int) and not isinstance(value, bool), f"{where} must be an integer, got {value!r}")
        _need(value >= least, f"{where} must be >= {least}, got {value}")


def _only_known(kind: type, data: Mapping[str, Any]) -> None:
    """Raise `SpecError` when the keys are not exactly the fields of the record."""
    known = {item.name for item in fields(kind)}
    extra, missing = sorted(set(data) - known), sorted(known - set(data))
    _need(not extra and not missing, f"{kind.__name__}: unknown keys {extra}, missing keys {missing}")


@dataclass(frozen=True, kw_only=True)
class AttentionConfig:
    """Multi-head latent attention: all heads read one latent per token.

    Raises:
        SpecError: A count is below one, `qk_rope_head_dim` is odd, or `rope_theta` is not above one.
    """

    num_attention_heads: int
    """Heads, H."""
    q_lora_rank: int
    """Width of the compressed query; the indexer reads it too."""
    kv_lora_rank: int
    """Width of the latent, C."""
    qk_nope_head_dim: int
    """Width of a query head without position."""
    qk_rope_head_dim: int
    """Width of a query head with position, R (even)."""
    v_head_dim: int
    """Width of a value head."""
    rope_theta: float = 10000.0
    """Base of the rotary frequencies; no YaRN, so positions are those of training."""

    def __post_init__(self) -> None:
        _need_counts(
            self,
            (
                "num_attention_heads",
                "q_lora_rank",
                "kv_lora_rank",
                "qk_nope_head_dim",
                "qk_rope_head_dim",
                "v_head_dim",
            ),
        )
        rope = self.qk_rope_head_dim
        _need(rope % 2 == 0, f"AttentionConfig.qk_rope_head_dim must be even, got {rope}")
        _need(self.rope_theta > 1, f"AttentionConfig.rope_theta must be > 1, got {self.rope_theta}")

    @property
    def qk_head_dim(self) -> int:
        """Width of a whole query head."""
        return self.qk_nope_head_dim + self.qk_rope_head_dim

    @property
    def softmax_scale(self) -> float:
        """Factor on the attention logits: one over the root of the head's width."""
        return self.qk_head_dim**-0.5


@dataclass(frozen=True, kw_only=True)
class IndexerConfig:
    """The lightning indexer, which chooses the keys that attention reads.

    Raises:
        SpecError: A count is below one.
    """

    index_n_heads: int
    """Heads, I."""
    index_head_dim: int
    """Width of a head, J; its first `qk_rope_head_dim` numbers carry the position."""
    index_topk: int
    """Keys kept per query, K."""
    index_rope_interleave: bool = False
    """Rotate neighbours (2i, 2i+1) instead of halves (i, i+R/2). V3.2 rotates halves here; other models do not."""

    def __post_init__(self) -> None:
        _need_counts(self, ("index_n_heads", "index_head_dim", "index_topk"))


@dataclass(frozen=True, kw_only=True)
class ExpertsConfig:
    """A mixture of routed experts beside shared ones.

    Raises:
        SpecError: A count is below one, groups do not divide the experts, or more experts are asked for than the
            selected groups hold.
    """

    n_routed_experts: int
    """Experts to choose from, E."""
    num_experts_per_tok: int
    """Routed experts per token, A."""
    n_shared_experts: int
    """Experts that run for every token."""
    moe_intermediate_size: int
    """Width of one expert, F."""
    n_group: int = 1
    """Groups of experts."""
    topk_group: int = 1
    """Groups that a token may choose from."""
    norm_topk_prob: bool = True
    """Whether the gates of a token are scaled to sum one before the factor."""
    routed_scaling_factor: float = 1.0
    """Factor on the gates."""

    def __post_init__(self) -> None:
        _need_counts(self, ("n_routed_experts", "num_experts_per_tok", "moe_intermediate_size", "n_group"))
        _need_counts(self, ("n_shared_experts", "topk_group"))
        experts, groups, chosen = self.n_routed_experts, self.n_group, self.topk_group
        _need(experts % groups == 0, f"ExpertsConfig.n_group must divide n_routed_experts={experts}, got {groups}")
        _need(chosen <= groups, f"ExpertsConfig.topk_group must be <= n_group={groups}, got {chosen}")
        size = experts // groups
        _need(groups == 1 or size >= 2, f"ExpertsConfig: a group is scored by its best two experts, but holds {size}")
        _need(
            self.num_experts_per_tok <= chosen * size,
            f"ExpertsConfig.num_experts_per_tok must be <= {chosen * size}, the experts of topk_group={chosen} groups,"
            f" got {self.num_experts_per_tok}",
        )


@dataclass(frozen=True, kw_only=True)
class PolicyConfig:
    """A decoder of sparse-attention layers with dense or routed feed-forward halves.

    Raises:
        SpecError: A count is out of range, or the parts do not fit each other.
    """

    vocab_size: int
    """Token ids, V."""
    hidden_size: int
    """Width of the model, D."""
    num_hidden_layers: int
    """Layers, L."""
    intermediate_size: int
    """Width of the feed-forward half of a dense layer."""
    first_k_dense_replace: int
    """Leading layers with a dense feed-forward half instead of experts."""
    max_position_embeddings: int
    """Longest sequence (tokens)."""
    attention: AttentionConfig
    """Latent attention."""
    indexer: IndexerConfig
    """Lightning indexer."""
    experts: ExpertsConfig
    """Mixture of experts."""
    rms_norm_eps: float = 1e-6
    """Added to the mean square in every normalisation."""

    def __post_init__(self) -> None:
        _need_counts(self, ("hidden_size", "num_hidden_layers", "intermediate_size", "max_position_embeddings"))
        _need_counts(self, ("vocab_size",), least=2)
        _need_counts(self, ("first_k_dense_replace",), least=0)
        dense, layers = self.first_k_dense_replace, self.num_hidden_layers
        _need(dense <= layers, f"PolicyConfig.first_k_dense_replace must be <= {layers} layers, got {dense}")
        rope, width = self.attention.qk_rope_head_dim, self.indexer.index_head_dim
        _need(width >= rope, f"IndexerConfig.index_head_dim must be >= qk_rope_head_dim={rope}, got {width}")
        _need(self.rms_norm_eps > 0, f"PolicyConfig.rms_norm_eps must be > 0, got {self.rms_norm_eps}")

    @property
    def n_moe_layers(self) -> int:
        """Layers with routed experts, M."""
        return self.num_hidden_layers - self.first_k_dense_replace

    def to_dict(self) -> dict[str, Any]:
        """Give the configuration as nested plain values, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Read what `to_dict` wrote.

        Args:
            data: Nested plain values with exactly the records' keys.

        Returns:
            The configuration.

        Raises:
            SpecError: A key is unknown or missing, a part is no mapping, or a value is impossible.
        """
        _only_known(cls, data)
        parts: dict[str, Any] = {}
        for name, kind in (("attention", AttentionConfig), ("indexer", IndexerConfig), ("experts", ExpertsConfig)):
            part = data[name]
            if not isinstance(part, Mapping):
                raise SpecError(f"PolicyConfig.{name} must be a mapping, got {part!r}")
            _only_known(kind, part)
            parts[name] = kind(**part)
        return cls(**{**data, **parts})


def nano(vocab_size: int, *, index_topk: int = 32, max_position_embeddings: int = 256) -> PolicyConfig:
    """Give the preset for two CPU cores: about one million parameters with a vocabulary of 200 to 300 ids.

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
