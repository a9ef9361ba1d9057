"""What a policy is made of, with the field's own names (DeepSeek-V3.2, arXiv:2512.02556, section 2.1).

Five frozen records: attention with its YaRN scaling, indexer, experts, and the policy that holds them. Whatever can be
derived is a property. Every record refuses impossible values when it is made, and names the field.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from typing import Any, Literal, Self, get_args

from envsynth.errors import SpecError

IndexPrecision = Literal["exact", "fp8"]
"""How the indexer multiplies: in the policy's own type with float32 sums, or as the released model does, in eight bits
(e4m3) after a Hadamard transform."""


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
    """Raise `SpecError` when a key is no field of the record, or a field without a default is missing."""
    known = {item.name for item in fields(kind)}
    required = {item.name for item in fields(kind) if item.default is MISSING and item.default_factory is MISSING}
    extra, missing = sorted(set(data) - known), sorted(required - set(data))
    _need(not extra and not missing, f"{kind.__name__}: unknown keys {extra}, missing keys {missing}")


@dataclass(frozen=True, kw_only=True)
class YarnConfig:
    """YaRN: longer sequences than those of pretraining, by slower rotation (arXiv:2309.00071).

    Raises:
        SpecError: A value is out of range.
    """

    factor: float
    """How many times longer; slow frequencies are divided by it."""
    original_max_position_embeddings: int
    """Longest sequence of pretraining (tokens)."""
    beta_fast: float = 32.0
    """Frequencies that turn at least so often within the original length stay as they are."""
    beta_slow: float = 1.0
    """Frequencies that turn at most so often are divided by the factor; between the two the share ramps linearly."""
    mscale: float = 1.0
    """Temperature on the rotated part, as a multiple of log(factor) / 10."""
    mscale_all_dim: float = 1.0
    """Temperature on whole attention logits, likewise; equal values leave the rotation's length alone."""

    def __post_init__(self) -> None:
        _need_counts(self, ("original_max_position_embeddings",))
        _need(self.factor >= 1, f"YarnConfig.factor must be >= 1, got {self.factor}")
        ordered = 0 < self.beta_slow < self.beta_fast
        _need(ordered, f"YarnConfig needs 0 < beta_slow < beta_fast, got {self.beta_slow} and {self.beta_fast}")
        positive = self.mscale > 0 and self.mscale_all_dim > 0
        _need(positive, f"YarnConfig needs mscale, mscale_all_dim > 0, got {self.mscale} and {self.mscale_all_dim}")

    @property
    def attention_factor(self) -> float:
        """Factor on cosine and sine."""
        return self._temperature(self.mscale) / self._temperature(self.mscale_all_dim)

    @property
    def softmax_factor(self) -> float:
        """Factor on attention logits; the indexer's scores have none."""
        return self._temperature(self.mscale_all_dim) ** 2

    def _temperature(self, mscale: float) -> float:
        return 0.1 * mscale * math.log(self.factor) + 1.0


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
    """Base of the rotary frequencies."""
    yarn: YarnConfig | None = None
    """Scaling of the rotary frequencies; None reads positions as they are."""

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
        """Factor on the attention logits: one over the root of the head's width, times YaRN's."""
        return self.qk_head_dim**-0.5 * (self.yarn.softmax_factor if self.yarn else 1.0)


@dataclass(frozen=True, kw_only=True)
class IndexerConfig:
    """The lightning indexer, which chooses the keys that attention reads.

    Raises:
        SpecError: A count is below one, or eight bits are asked for heads that no Hadamard matrix fits.
    """

    index_n_heads: int
    """Heads, I."""
    index_head_dim: int
    """Width of a head, J; its first `qk_rope_head_dim` numbers carry the position."""
    index_topk: int
    """Keys kept per query, K."""
    index_rope_interleave: bool = False
    """Rotate neighbours (2i, 2i+1) instead of halves (i, i+R/2). V3.2 rotates halves here; other models do not."""

    index_precision: IndexPrecision = "exact"
    """How scores are computed."""

    def __post_init__(self) -> None:
        _need_counts(self, ("index_n_heads", "index_head_dim", "index_topk"))
        known, width = get_args(IndexPrecision), self.index_head_dim
        _need(
            self.index_precision in known,
            f"IndexerConfig.index_precision must be one of {known}, got {self.index_precision!r}",
        )
        _need(
            self.index_precision == "exact" or width & (width - 1) == 0,
            f"IndexerConfig.index_head_dim must be a power of two for fp8, got {width}",
        )


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
    """Added to the mean square where the residual stream is normalised; that of latents has 1e-6 always."""
    num_nextn_predict_layers: int = 0
    """Layers that predict tokens after the next one, each one token further (multi-token prediction)."""

    def __post_init__(self) -> None:
        _need_counts(self, ("hidden_size", "num_hidden_layers", "intermediate_size", "max_position_embeddings"))
        _need_counts(self, ("vocab_size",), least=2)
        _need_counts(self, ("first_k_dense_replace", "num_nextn_predict_layers"), least=0)
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
            part = _mapping(kind, f"PolicyConfig.{name}", data[name])
            if part.get("yarn") is not None:
                yarn = _mapping(YarnConfig, "AttentionConfig.yarn", part["yarn"])
                part = {**part, "yarn": YarnConfig(**yarn)}
            parts[name] = kind(**part)
        return cls(**{**data, **parts})


def _mapping(kind: type, where: str, part: object) -> Mapping[str, Any]:
    """Give the part of a configuration, checked against the record's fields.

    Raises:
        SpecError: It is no mapping, or its keys are wrong.
    """
    if not isinstance(part, Mapping):
        raise SpecError(f"{where} must be a mapping, got {part!r}")
    _only_known(kind, part)
    return part
