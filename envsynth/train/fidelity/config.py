"""What the experiment is asked to do, with three ready profiles."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final, Literal

from envsynth.errors import SpecError
from envsynth.policy.attention import AttentionMode
from envsynth.policy.config import PolicyConfig
from envsynth.policy.presets import nano, small
from envsynth.train.fidelity.tasks import VOCABULARY, TaskConfig

PROFILES: Final = ("smoke", "cpu", "gpu")


def _need(sound: Mapping[str, bool], record: object) -> None:
    """Refuse a record whose named fields are out of range.

    Raises:
        SpecError: one is.
    """
    kind = type(record).__name__
    for name, is_sound in sound.items():
        if not is_sound:
            raise SpecError(f"{kind}.{name} is {getattr(record, name)!r}, which is out of range; see its documentation")


@dataclass(frozen=True, kw_only=True)
class StageConfig:
    """How one stage trains.

    Raises:
        SpecError: a value is out of range.
    """

    steps: int
    """Optimizer steps (count). The only budget: a budget of seconds would train unequally what is compared."""
    batch_tokens: int
    """Tokens of a batch; a batch holds this many divided by the context, at least one sequence."""
    muon_lr: float = 0.02
    """Learning rate of the matrices inside the layers; the warm-up does not use it."""
    adamw_lr: float = 3e-3
    """Learning rate of everything else, the indexer among it."""
    rise: int = 20
    """Steps in which the learning rates rise from zero."""
    final_lr: float = 0.05
    """Factor on the learning rates at the end, which they reach linearly."""
    kl_weight: float = 1.0
    """Weight of the indexer's loss beside that of the language model, where both are trained."""
    seconds: float | None = None
    """Cap: a job that needs more fails, rather than train fewer steps than its twin. None: no cap."""

    def __post_init__(self) -> None:
        _need(
            {
                "steps": self.steps >= 1,
                "batch_tokens": self.batch_tokens >= 1,
                "muon_lr": self.muon_lr >= 0,
                "adamw_lr": self.adamw_lr >= 0,
                "rise": self.rise >= 0,
                "final_lr": 0 <= self.final_lr <= 1,
                "kl_weight": self.kl_weight > 0,
                "seconds": self.seconds is None or self.seconds > 0,
            },
            self,
        )

    def scale(self, step: int) -> float:
        """Give the factor on the learning rates of a step, counted from 0."""
        rise = min(1.0, (step + 1) / self.rise) if self.rise else 1.0
        return rise * (1 - (1 - self.final_lr) * step / self.steps)


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """How much is measured.

    Raises:
        SpecError: a value is out of range.
    """

    sequences: int
    """Held-out sequences for accuracies and losses (count)."""
    diagnosed: int
    """Held-out sequences for what the indexer selects (count)."""
    batch_tokens: int
    """Tokens of one pass without gradient."""
    points: int = 8
    """Points of a curve over training at which selection is measured, the first and the last step among them."""

    def __post_init__(self) -> None:
        _need({name: getattr(self, name) >= 1 for name in ("sequences", "diagnosed", "batch_tokens")}, self)
        _need({"points": self.points >= 2}, self)


@dataclass(frozen=True, kw_only=True)
class ComputeConfig:
    """How it is computed; none of this changes what is asked, all of it changes rounding or speed.

    Raises:
        SpecError: a value is out of range.
    """

    precision: Literal["float32", "bfloat16"] = "float32"
    """Arithmetic of products on an accelerator, by autocast; weights stay float32. The CPU is float32 always."""
    checkpoint_layers: bool = False
    """Recompute layers in the backward pass where the indexer learns: each keeps a matrix of all pairs per head."""
    dense_attention: AttentionMode = "fused"
    """Where every key is read."""
    sparse_attention: AttentionMode = "fused"
    """Where selected keys are read; the same for every cell, so that rounding is."""
    micro_tokens: int = 65536
    """Tokens of one forward and backward pass; a batch of more is added up."""
    micro_tokens_kl: int = 8192
    """The same where the indexer learns, whose loss needs a matrix of all pairs."""
    log_every: int = 20
    """Steps between two lines of progress; between them nothing waits for the device."""

    def __post_init__(self) -> None:
        _need({name: getattr(self, name) >= 1 for name in ("micro_tokens", "micro_tokens_kl", "log_every")}, self)


@dataclass(frozen=True, kw_only=True)
class FidelityConfig:
    """The experiment: what is trained, for which numbers of selected keys and of indexer heads.

    Raises:
        SpecError: a value is out of range, or parts do not fit each other.
    """

    policy: PolicyConfig
    """The policy; selected keys and indexer heads are replaced by those of the grid."""
    context: int
    """Tokens of the sequences that count."""
    topks: tuple[int, ...]
    """Selected keys per query, k; each at most an eighth of the context."""
    heads: tuple[int, ...]
    """Heads of the indexer."""
    seeds: int
    """Repetitions with other weights and other sequences (count)."""
    curriculum: tuple[tuple[int, float], ...]
    """Pretraining: contexts in their order, each with its share of the steps; the last is the whole context."""
    pretrain: StageConfig
    """Dense pretraining."""
    warmup: StageConfig
    """Warm-up of the indexer."""
    sparse: StageConfig
    """Training on selected keys, and of the dense twin."""
    evaluation: EvaluationConfig
    """How much is measured."""
    compute: ComputeConfig = field(default_factory=ComputeConfig)
    """How it is computed."""

    def __post_init__(self) -> None:
        shares = [share for _, share in self.curriculum]
        limit = self.policy.max_position_embeddings
        _need(
            {
                "context": 64 <= self.context <= limit,
                "topks": bool(self.topks) and all(1 <= k <= self.context // 8 for k in self.topks),
                "heads": bool(self.heads) and min(self.heads) >= 1,
                "seeds": self.seeds >= 1,
                "curriculum": bool(shares) and min(shares) > 0 and abs(sum(shares) - 1) < 1e-6,
            },
            self,
        )
        if len(set(self.topks)) < len(self.topks) or len(set(self.heads)) < len(self.heads):
            raise SpecError(f"FidelityConfig: topks {self.topks} and heads {self.heads} must not repeat a value")
        if self.curriculum[-1][0] != self.context:
            raise SpecError(
                f"FidelityConfig.curriculum must end with context={self.context}, got {self.curriculum[-1][0]}"
            )
        if self.policy.vocab_size < VOCABULARY:
            raise SpecError(f"FidelityConfig.policy.vocab_size must be >= {VOCABULARY}, got {self.policy.vocab_size}")
        for context, _ in self.curriculum:
            TaskConfig.for_context(context)

    def cell(self, heads: int, topk: int) -> PolicyConfig:
        """Give the policy of a cell of the grid."""
        indexer = replace(self.policy.indexer, index_n_heads=heads, index_topk=topk)
        return replace(self.policy, indexer=indexer)

    def phases(self) -> tuple[tuple[int, int], ...]:
        """Give the curriculum of pretraining as contexts with their steps, which sum to all steps."""
        done, found = 0, []
        share = 0.0
        for context, part in self.curriculum:
            share += part
            until = round(share * self.pretrain.steps)
            found.append((context, until - done))
            done = until
        return tuple(found)

    def to_dict(self) -> dict[str, Any]:
        """Give the settings as JSON has them."""
        return json.loads(json.dumps(asdict(self)))


def profile(name: str, *, seeds: int | None = None) -> FidelityConfig:
    """Give a ready experiment.

    Args:
        name: `smoke` (seconds; for tests), `cpu` (minutes on two cores; a demonstration) or `gpu` (context 8,192).
        seeds: Repetitions; None keeps the profile's.

    Returns:
        The settings.

    Raises:
        SpecError: there is no such profile.
    """
    makers = {"smoke": _smoke, "cpu": _cpu, "gpu": _gpu}
    if name not in makers:
        raise SpecError(f"profile must be one of {', '.join(PROFILES)}, got {name!r}")
    config = makers[name]()
    return config if seeds is None else replace(config, seeds=seeds)


def with_steps(config: FidelityConfig, **steps: int | None) -> FidelityConfig:
    """Give the experiment with other numbers of steps.

    Args:
        config: The settings.
        **steps: `pretrain`, `warmup` and `sparse`; None keeps what is there.

    Returns:
        The settings.
    """
    changed = {name: replace(getattr(config, name), steps=count) for name, count in steps.items() if count is not None}
    return replace(config, **changed)


def _smoke() -> FidelityConfig:
    return FidelityConfig(
        policy=replace(nano(VOCABULARY, max_position_embeddings=64), hidden_size=64, num_hidden_layers=2),
        context=64,
        topks=(4, 8),
        heads=(1, 2),
        seeds=1,
        curriculum=((64, 1.0),),
        pretrain=StageConfig(steps=8, batch_tokens=256, rise=2),
        warmup=StageConfig(steps=4, batch_tokens=128, adamw_lr=1e-3, rise=0),
        sparse=StageConfig(steps=4, batch_tokens=128, muon_lr=0.002, adamw_lr=1e-3, rise=1),
        evaluation=EvaluationConfig(sequences=8, diagnosed=2, batch_tokens=512, points=3),
        compute=ComputeConfig(sparse_attention="mqa", log_every=2),
    )


def _cpu() -> FidelityConfig:
    return FidelityConfig(
        policy=nano(VOCABULARY, max_position_embeddings=128),
        context=128,
        topks=(4, 8, 16),
        heads=(1, 2),
        seeds=1,
        curriculum=((64, 0.5), (128, 0.5)),
        pretrain=StageConfig(steps=400, batch_tokens=1024, muon_lr=0.012, adamw_lr=0.01),
        warmup=StageConfig(steps=60, batch_tokens=1024, adamw_lr=3e-3, rise=5),
        sparse=StageConfig(steps=40, batch_tokens=1024, muon_lr=0.002, adamw_lr=2e-3, rise=5),
        evaluation=EvaluationConfig(sequences=64, diagnosed=8, batch_tokens=2048, points=4),
        compute=ComputeConfig(micro_tokens_kl=65536, log_every=10),
    )


def _gpu() -> FidelityConfig:
    return FidelityConfig(
        policy=small(VOCABULARY, max_position_embeddings=8192),
        context=8192,
        topks=(32, 64, 128, 256, 512, 1024),
        heads=(1, 2, 4, 8),
        seeds=1,
        # Finding needles is learned where answers are dense; later contexts only have to stretch it.
        curriculum=((64, 0.2), (256, 0.3), (1024, 0.2), (4096, 0.15), (8192, 0.15)),
        # The best of four variants, which `benchmarks/fidelity.py` tried (`benchmarks/results/dsa-fidelity-variants.json`).
        pretrain=StageConfig(steps=1500, batch_tokens=65536, muon_lr=0.006, adamw_lr=2e-3, rise=50),
        warmup=StageConfig(steps=150, batch_tokens=32768, adamw_lr=1e-3, rise=5),
        sparse=StageConfig(steps=150, batch_tokens=32768, muon_lr=0.001, adamw_lr=5e-4, rise=5),
        evaluation=EvaluationConfig(sequences=64, diagnosed=4, batch_tokens=16384, points=6),
        compute=ComputeConfig(precision="bfloat16", sparse_attention="mqa"),
    )
