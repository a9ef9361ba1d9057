"""Reinforcement learning in environments: collect groups, update, measure, again; on a budget of steps or of seconds.

The trainer plays what `make_env` and `gymnasium.make` return (or a foreign text environment, see `text_env`), through the
one episode loop of the house. Everything that is random has a key made of seed, step, task and member, so a run that was
killed goes on as if it had not been.
"""

from __future__ import annotations

import copy
import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

from envsynth.errors import CheckpointError, SpecError
from envsynth.policy.checkpoint import Checkpoint, CheckpointRecord, git_revision, save_checkpoint
from envsynth.policy.drawing import Sampling
from envsynth.policy.grpo import GrpoConfig
from envsynth.policy.model import Policy
from envsynth.policy.optimizer import OptimizerConfig, PolicyOptimizer
from envsynth.policy.tokens import VOCABULARY_HASH
from envsynth.train.collect import RolloutConfig, Stock, collect
from envsynth.train.grpo_update import UpdateConfig, update
from envsynth.train.run_folder import SOURCE, RunFolder, StepReport, StopRequest

PHASE: Final = "grpo"


@dataclass(frozen=True, kw_only=True)
class GrpoRunConfig:
    """How to learn from rewards. Exactly one of `steps` and `seconds` is the budget.

    Raises:
        SpecError: a value is out of range, or there is not exactly one budget.
    """

    steps: int | None = None
    """Budget in steps: rollout and updates (count)."""
    seconds: float | None = None
    """Budget in seconds."""
    seed: int = 0
    """Seed of tasks, sampling and order."""
    tasks_per_step: int = 24
    """Groups that are played first in a step (count)."""
    group_size: int = 8
    """Episodes of a group (count, >= 2)."""
    max_refills: int = 2
    """How often flat groups are replaced in a step (count, >= 0)."""
    temperature: float = 1.0
    """Of sampling, and of the log-probabilities; above 0."""
    top_p: float = 1.0
    """Tokens are drawn from the best ones with this share; the kept sets are recorded and replayed."""
    max_turn_tokens: int = 24
    """Tokens of one turn at most."""
    epochs: int = 1
    """Passes over a step's episodes (count)."""
    mini_batches: int = 4
    """Optimizer steps of a pass at most (count)."""
    micro_batch_tokens: int = 4096
    """Padded tokens that are run at once."""
    warmup_steps: int = 3
    """Steps in which the learning rates rise from zero."""
    final_lr: float = 1.0
    """Factor on the learning rates at the end of the budget; 1 keeps them."""
    indexer_kl_weight: float = 0.02
    """Weight of the indexer's loss; 0 freezes it."""
    checkpoint_every: int = 5
    """Steps between two checkpoints."""
    loss: GrpoConfig = field(default_factory=lambda: GrpoConfig(clip_high=0.28, kl_beta=0.0))
    """Which loss; with `kl_beta` above 0 the policy at the start of this phase is the reference."""
    optimizer: OptimizerConfig = field(default_factory=lambda: OptimizerConfig(muon_lr=1e-3, adamw_lr=1e-3))
    """Learning rates: a tenth of those of imitation. Muon's steps are as long as its rate whatever the gradient is, and
    rewards are noisy: a rate that imitation bears destroys the policy."""

    def __post_init__(self) -> None:
        if (self.steps is None) == (self.seconds is None):
            raise SpecError("GRPO needs a budget: either steps or seconds")
        sound = {
            "steps": self.steps is None or self.steps >= 1,
            "seconds": self.seconds is None or self.seconds > 0,
            "tasks_per_step": self.tasks_per_step >= 1,
            "group_size": self.group_size >= 2,
            "max_refills": self.max_refills >= 0,
            "temperature": self.temperature > 0,
            "max_turn_tokens": self.max_turn_tokens >= 1,
            "warmup_steps": self.warmup_steps >= 0,
            "final_lr": 0 <= self.final_lr <= 1,
            "checkpoint_every": self.checkpoint_every >= 1,
        }
        for name, is_sound in sound.items():
            if not is_sound:
                raise SpecError(f"{name} is {getattr(self, name)!r}, which is out of range; see GrpoRunConfig.{name}")

    @property
    def rollout(self) -> RolloutConfig:
        """The part that collecting needs."""
        return RolloutConfig(
            seed=self.seed,
            tasks_per_step=self.tasks_per_step,
            group_size=self.group_size,
            max_refills=self.max_refills,
            sampling=Sampling(temperature=self.temperature, sampling_top_p=self.top_p),
            max_turn_tokens=self.max_turn_tokens,
        )

    @property
    def update(self) -> UpdateConfig:
        """The part that updating needs."""
        return UpdateConfig(
            temperature=self.temperature,
            epochs=self.epochs,
            mini_batches=self.mini_batches,
            micro_batch_tokens=self.micro_batch_tokens,
            indexer_kl_weight=self.indexer_kl_weight,
            loss=self.loss,
        )


class GrpoRun:
    """A run of reinforcement learning in a folder.

    Args:
        folder: Where metrics and checkpoints go.
        policy: What is trained.
        stock: What is played; the environments belong to the caller.
        config: How.
        clock: Seconds, for budgets and timings.

    Raises:
        SpecError: there is no environment or no task.
    """

    def __init__(
        self,
        folder: RunFolder,
        policy: Policy,
        stock: Stock,
        config: GrpoRunConfig,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if not stock.envs or not stock.tasks:
            raise SpecError(f"GRPO needs environments and tasks, got {len(stock.envs)} and {len(stock.tasks)}")
        self.folder, self.policy, self.stock, self.config = folder, policy, stock, config
        self.optimizer = PolicyOptimizer(policy, config.optimizer)
        self.reference: Policy | None = None
        if config.loss.kl_beta > 0:
            self.reference = copy.deepcopy(policy).eval().requires_grad_(False)
        self.step, self.cursor = 0, 0
        self.elapsed_s = 0.0
        self.data = hashlib.blake2b(json.dumps(stock.tasks).encode(), digest_size=16).hexdigest()
        self._clock = clock

    @property
    def fraction(self) -> float:
        """Share of the budget that is used up."""
        used = self.elapsed_s / self.config.seconds if self.config.seconds else self.step / (self.config.steps or 1)
        return min(used, 1.0)

    def resume(self, checkpoint: Checkpoint) -> None:
        """Go on from a checkpoint of an equal run: weights, optimizer, reference, generators, position, metrics.

        Args:
            checkpoint: Of this phase.

        Raises:
            CheckpointError: it is of another phase, other tasks or another configuration.
        """
        record = checkpoint.record
        here = {"phase": PHASE, "data": self.data, "config": self.policy.config, "vocabulary": VOCABULARY_HASH}
        for name, value in here.items():
            if (found := getattr(record, name)) != value:
                raise CheckpointError(f"the checkpoint's {name} is {found}, this run's is {value}: start a new run")
        if record.state["options"] != _options(self.config):
            raise CheckpointError("the checkpoint was written with other options: start a new run, or repeat its own")
        self.policy.load_state_dict(dict(checkpoint.weights))
        if self.reference is not None:
            self.reference.load_state_dict(checkpoint.part("reference"))
        self.optimizer.load_state_dict(checkpoint.part("optimizer"))
        self.step, self.cursor = record.step, record.state["cursor"]
        self.elapsed_s = record.state["elapsed_s"]
        self.folder.cut_metrics(record.metrics_bytes)
        checkpoint.restore_rng()

    def save(self) -> Path:
        """Write a checkpoint of where the run is.

        Returns:
            Its folder.
        """
        record = CheckpointRecord(
            config=self.policy.config,
            vocabulary=VOCABULARY_HASH,
            seed=self.config.seed,
            step=self.step,
            phase=PHASE,
            data=self.data,
            metrics_bytes=self.folder.metrics_bytes(),
            revision=git_revision(SOURCE),
            state={"cursor": self.cursor, "elapsed_s": self.elapsed_s, "options": _options(self.config)},
        )
        state = {f"optimizer.{name}": tensor for name, tensor in self.optimizer.state_dict().items()}
        if self.reference is not None:
            state |= {f"reference.{name}": tensor for name, tensor in self.reference.state_dict().items()}
        path = self.folder.checkpoint(PHASE, self.step)
        save_checkpoint(path, record, self.policy, state)
        self.folder.prune(PHASE)
        return path

    def run(self, *, stop: StopRequest | None = None, on_step: Callable[[StepReport], None] | None = None) -> Path:
        """Train until the budget is used up, or until asked to stop; either way the last step has its checkpoint.

        Args:
            stop: Asks for the end after the current step.
            on_step: Told of each step.

        Returns:
            Folder of the last checkpoint.
        """
        while self.fraction < 1 and not (stop and stop.asked):
            began = self._clock()
            metrics, tokens = self._train()
            self.step += 1
            self.elapsed_s += self._clock() - began
            report = StepReport(PHASE, self.step, metrics, self.fraction, self.elapsed_s, tokens)
            self.folder.log(report)
            if on_step is not None:
                on_step(report)
            if self.step % self.config.checkpoint_every == 0 and self.fraction < 1:
                self.save()
        return self.save()

    def _train(self) -> tuple[dict[str, float], int]:
        config = self.config
        found = collect(self.policy, self.stock, config.rollout, step=self.step, cursor=self.cursor)
        self.cursor = found.cursor
        metrics = dict(found.metrics)
        warmup = min(1.0, (self.step + 1) / config.warmup_steps) if config.warmup_steps else 1.0
        metrics["lr_scale"] = scale = warmup * (1 - (1 - config.final_lr) * self.fraction)
        if not found.trajectories:
            # All groups were flat: there is no gradient, and saying so is better than a step of momentum alone.
            return metrics | {"updates": 0.0}, 0
        metrics |= update(
            self.policy,
            self.reference,
            self.optimizer,
            found.trajectories,
            config.update,
            scale=scale,
            key=f"{config.seed}/update/{self.step}",
        )
        return metrics, sum(item.tokens.numel() for item in found.trajectories)


def _options(config: GrpoRunConfig) -> dict[str, object]:
    """What must be equal for a continuation, as JSON has it."""
    return json.loads(json.dumps(asdict(config)))
