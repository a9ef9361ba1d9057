"""The stages of the paper's order, each a loop over batches that follow from seed and step alone.

Dense pretraining trains everything but the indexer. The warm-up trains the indexer alone, on what the frozen trunk looks
at. Sparse training trains everything on the selected keys; the dense twin trains the same trunk on the same batches.

Shape letters: B sequences, T tokens, V vocabulary, M layers with experts, A active experts.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Final, Literal, Protocol, cast

import torch
from torch import Tensor
from torch.nn import functional

from envsynth.errors import CheckpointError, ExperimentError
from envsynth.policy.config import PolicyConfig
from envsynth.policy.model import Policy, PolicyOutput, balance_experts
from envsynth.policy.optimizer import OptimizerConfig, PolicyOptimizer
from envsynth.train.fidelity.batches import Batch, BatchFeed
from envsynth.train.fidelity.config import FidelityConfig, StageConfig
from envsynth.train.fidelity.measure import SELECTION, autocast, diagnose

StageKind = Literal["pretrain", "warmup", "sparse", "twin"]
INDEXER: Final = ".indexer."
"""Part of the name of every parameter of an indexer."""
KEEP_S: Final = 30.0
"""Seconds between two states of pretraining that are kept."""


@dataclass(frozen=True, kw_only=True)
class Bench:
    """Where a stage runs and whom it tells."""

    config: FidelityConfig
    """The settings."""
    device: torch.device
    """Where."""
    seed: int
    """Repetition."""
    watch: Callable[[int, int, Mapping[str, float]], None]
    """Told now and then of steps done, all steps, and what was measured."""
    clock: Callable[[], float] = time.perf_counter
    """Seconds."""
    keep: Callable[[Mapping[str, Any], Mapping[str, Tensor]], None] | None = None
    """Takes state and tensors of pretraining now and then, so that a killed one need not begin again."""
    kept: tuple[Mapping[str, Any], Mapping[str, Tensor]] | None = None
    """What `keep` was last given by an earlier process; pretraining goes on from there."""


@dataclass(frozen=True, kw_only=True)
class StageRecord:
    """How a stage went."""

    kind: StageKind
    """Which stage."""
    steps: int
    """Optimizer steps (count)."""
    tokens: int
    """Tokens of all batches."""
    seconds: float
    """Seconds of training, without what was measured on the way."""
    tokens_per_s: float
    """Tokens per second of training."""
    batches: str
    """Hash of all batches in their order; equal hashes are equal batches."""
    rates: tuple[float, float, float, float]
    """Learning rates of matrices and of the rest, steps of the rise, and the factor at the end."""
    curve: tuple[Mapping[str, float], ...]
    """Points over training: step, loss, kl, scale, tokens_per_s; what `SELECTION` names where measured."""
    peak_memory: int
    """Most memory of an accelerator that was in use (bytes); 0 on the CPU."""

    def to_dict(self) -> dict[str, Any]:
        """Give plain values, for JSON."""
        return asdict(self)


def _below(start: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Give the tensors whose names begin so, without that beginning."""
    return {name.removeprefix(start): item for name, item in tensors.items() if name.startswith(start)}


class _Stepper(Protocol):
    """What a loop needs of an optimizer."""

    def step(self, scale: float) -> float:
        """Update, drop the gradients, and give the gradient's norm."""
        ...


class IndexerOptimizer:
    """AdamW over the indexers alone; everything else is frozen.

    Args:
        policy: The policy; its trunk asks for no gradient from now on.
        lr: Learning rate.
    """

    def __init__(self, policy: Policy, lr: float) -> None:
        self.lr = lr
        self.parameters = []
        for name, parameter in policy.named_parameters():
            parameter.requires_grad_(INDEXER in name)
            if INDEXER in name:
                self.parameters.append(parameter)
        self._adamw = torch.optim.AdamW(self.parameters, lr=lr, betas=(0.9, 0.95), weight_decay=0.0, fused=True)

    def step(self, scale: float) -> float:
        """Update the indexers.

        Args:
            scale: Factor on the learning rate.

        Returns:
            Norm of the gradient, before it was scaled down to one.

        Raises:
            FloatingPointError: the norm is not finite; nothing was changed.
        """
        norm = float(torch.nn.utils.clip_grad_norm_(self.parameters, 1.0))
        if not math.isfinite(norm):
            raise FloatingPointError(f"the gradient's norm is {norm}")
        for group in self._adamw.param_groups:
            group["lr"] = self.lr * scale
        self._adamw.step()
        self._adamw.zero_grad(set_to_none=True)
        return norm


def new_policy(policy: PolicyConfig, device: torch.device, *, seed: int) -> Policy:
    """Make a policy with fresh weights.

    Args:
        policy: What it is made of.
        device: Where it goes.
        seed: Repetition.

    Returns:
        The policy.
    """
    return Policy(policy, seed=seed).to(device)


def load_trunk(policy: Policy, weights: Mapping[str, Tensor]) -> None:
    """Take over everything but the indexers, whose weights stay as they are.

    Args:
        policy: Its trunk is replaced.
        weights: Weights and buffers of a policy with the same trunk, by name.

    Raises:
        CheckpointError: the trunks differ.
    """
    trunk = {name: tensor for name, tensor in weights.items() if INDEXER not in name}
    try:
        missing, extra = policy.load_state_dict(trunk, strict=False)
    except RuntimeError as error:
        raise CheckpointError(f"the trunk's weights do not fit: {error}; remove them and run again") from error
    lost = [name for name in missing if INDEXER not in name]
    if extra or lost:
        raise CheckpointError(f"the trunks differ: unknown {extra}, missing {lost}; remove them and run again")


def run_stage(kind: StageKind, policy: Policy, bench: Bench) -> StageRecord:
    """Train one stage.

    Args:
        kind: Which stage.
        policy: The policy, trained in place.
        bench: Where, and whom to tell.

    Returns:
        How it went.

    Raises:
        ExperimentError: a loss or gradient is not finite, or the cap in seconds was passed.
    """
    config = bench.config
    stage = config.sparse if kind == "twin" else getattr(config, kind)
    phases = config.phases() if kind == "pretrain" else ((config.context, stage.steps),)
    # The twin must see the batches of its sparse runs; the other stages have their own.
    data = {"pretrain": "pretrain", "warmup": "warmup"}.get(kind, "continue")
    loop = _Loop(kind, policy, stage, bench)
    feed = BatchFeed(
        f"{bench.seed}/{data}", phases, stage.batch_tokens, bench.device, done=loop.done, digest=loop.digest
    )
    try:
        for batch in feed:
            loop.step(batch, feed.digest)
    except FloatingPointError as error:
        raise ExperimentError(f"{kind}, step {loop.done}: {error}; lower the learning rates of this stage") from error
    return loop.record()


class _Loop:
    """One stage under way. Sums stay on the device, and are read when a line is written."""

    def __init__(self, kind: StageKind, policy: Policy, stage: StageConfig, bench: Bench) -> None:
        self.kind: StageKind = kind
        self.policy, self.stage, self.bench = policy, stage, bench
        self.compute = bench.config.compute
        self.dense = kind != "sparse"
        self.with_kl = kind in ("warmup", "sparse")
        self.attention = self.compute.dense_attention if self.dense else self.compute.sparse_attention
        self.optimizer = self._optimizer()
        points = bench.config.evaluation.points
        self.diagnosed_at = (
            {round(item * stage.steps / (points - 1)) for item in range(points)} if self.with_kl else set()
        )
        self.curve: list[dict[str, float]] = []
        self.done = self.tokens = self._fresh_tokens = self._fresh_steps = 0
        self.seconds, self.digest = 0.0, ""
        if kind == "pretrain" and bench.kept is not None:
            self._go_on(*bench.kept)
        self._sums = torch.zeros(2, dtype=torch.float64, device=bench.device)
        policy.train()
        policy.attention_mode = self.attention
        policy.checkpoint_layers = self.compute.checkpoint_layers and self.with_kl
        if bench.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(bench.device)
        if 0 in self.diagnosed_at:
            self._diagnose({"step": 0.0})
        self._began = self._kept_at = bench.clock()

    def _go_on(self, state: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
        """Take up what an earlier process kept.

        Raises:
            CheckpointError: it does not fit.
        """
        try:
            self.policy.load_state_dict(_below("policy.", tensors))
        except RuntimeError as error:
            raise CheckpointError(f"what was kept of pretraining does not fit: {error}; remove it") from error
        cast("PolicyOptimizer", self.optimizer).load_state_dict(_below("optimizer.", tensors))
        self.done, self.tokens, self.seconds = state["done"], state["tokens"], state["seconds"]
        self.digest, self.curve = state["digest"], list(state["curve"])

    def _keep(self) -> None:
        """Let the state be kept, now and then."""
        keep, now = self.bench.keep, self.bench.clock()
        if self.kind != "pretrain" or keep is None or now - self._kept_at < KEEP_S:
            return
        self._kept_at = now
        names = ("done", "tokens", "seconds", "digest", "curve")
        optimizer = cast("PolicyOptimizer", self.optimizer).state_dict()
        tensors = {f"policy.{name}": item for name, item in self.policy.state_dict().items()}
        tensors |= {f"optimizer.{name}": item for name, item in optimizer.items()}
        keep({name: getattr(self, name) for name in names}, tensors)

    def _optimizer(self) -> _Stepper:
        if self.kind == "warmup":
            return IndexerOptimizer(self.policy, self.stage.adamw_lr)
        self.policy.requires_grad_(True)
        rates = OptimizerConfig(muon_lr=self.stage.muon_lr, adamw_lr=self.stage.adamw_lr)
        return PolicyOptimizer(self.policy, rates)

    def step(self, batch: Batch, digest: str) -> None:
        """Train on one batch, in as many passes as memory asks for; `digest` is that of all batches so far."""
        step, self.digest = self.done, digest
        routed: list[Tensor] = []
        for part in self._parts(batch):
            with autocast(self.bench.config, self.bench.device):
                output = self.policy(part.tokens_BT, dense=self.dense, with_indexer_kl=self.with_kl)
            loss, seen = self._loss(output, part, batch)
            loss.backward()
            self._sums += seen
            routed.append(output.routed_experts)
        self.optimizer.step(self.stage.scale(step))
        if self.kind == "pretrain":
            balance_experts(self.policy, torch.cat(routed))
        self.done = step + 1
        self._fresh_tokens += batch.tokens_BT.numel()
        self._fresh_steps += 1
        is_last = self.done == self.stage.steps
        if self.done % self.compute.log_every == 0 or self.done in self.diagnosed_at or is_last:
            self._log(self.stage.scale(step))

    def _parts(self, batch: Batch) -> Iterator[Batch]:
        sequences, context = batch.tokens_BT.shape
        limit = self.compute.micro_tokens_kl if self.with_kl else self.compute.micro_tokens
        size = max(1, limit // context)
        for start in range(0, sequences, size):
            rows = slice(start, start + size)
            yield replace(
                batch,
                tokens_BT=batch.tokens_BT[rows],
                kinds_BT=batch.kinds_BT[rows],
                weights_BT=batch.weights_BT[rows],
            )

    def _loss(self, output: PolicyOutput, part: Batch, batch: Batch) -> tuple[Tensor, Tensor]:
        """Give a pass's part of the batch's loss, and its parts of both means, detached."""
        nats_BT = functional.cross_entropy(
            output.logits_BTV[:, :-1].float().transpose(1, 2), part.tokens_BT[:, 1:], reduction="none"
        )
        lm = (nats_BT * part.weights_BT[:, 1:]).sum() / batch.weight
        if output.indexer_kl is None:
            return lm, torch.stack((lm.detach(), torch.zeros_like(lm)))
        kl = output.indexer_kl.sum() / batch.tokens_BT.numel()
        seen = torch.stack((lm.detach(), kl.detach()))
        return (kl if self.kind == "warmup" else lm + self.stage.kl_weight * kl), seen

    def _log(self, scale: float) -> None:
        """Read the sums, and tell.

        Raises:
            FloatingPointError: a sum is not finite.
            ExperimentError: the cap in seconds was passed.
        """
        loss, kl = (self._sums / self._fresh_steps).tolist()
        # The line above waited for the device, so the clock tells the truth here.
        now = self.bench.clock()
        spent = now - self._began
        self.seconds += spent
        self.tokens += self._fresh_tokens
        if not (math.isfinite(loss) and math.isfinite(kl)):
            raise FloatingPointError(f"the loss is {loss} and the indexer's {kl}")
        point = {"step": float(self.done), "loss": loss, "scale": scale, "tokens_per_s": self._fresh_tokens / spent}
        if self.with_kl:
            point["kl"] = kl
        if self.done in self.diagnosed_at:
            self._diagnose(point)
        else:
            self.curve.append(point)
        if self.stage.seconds is not None and self.seconds > self.stage.seconds:
            raise ExperimentError(
                f"{self.kind}: {self.done} of {self.stage.steps} steps took {self.seconds:.0f} s, the cap is"
                f" {self.stage.seconds:g} s; give fewer steps or a higher cap, to every run alike"
            )
        self.bench.watch(self.done, self.stage.steps, self.curve[-1])
        self._sums.zero_()
        self._fresh_tokens = self._fresh_steps = 0
        self._keep()
        self._began = self.bench.clock()

    def _diagnose(self, point: dict[str, float]) -> None:
        found = diagnose(self.policy, self.bench.config, self.bench.device, seed=self.bench.seed)
        self.curve.append(point | {name: getattr(found, name) for name in SELECTION})

    def record(self) -> StageRecord:
        """Say how it went."""
        device, stage = self.bench.device, self.stage
        return StageRecord(
            kind=self.kind,
            steps=self.done,
            tokens=self.tokens,
            seconds=self.seconds,
            tokens_per_s=self.tokens / self.seconds,
            batches=self.digest,
            rates=(stage.muon_lr, stage.adamw_lr, float(stage.rise), stage.final_lr),
            curve=tuple(self.curve),
            peak_memory=torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0,
        )
