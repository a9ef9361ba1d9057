"""Supervised fine-tuning: imitate lessons, from random weights, on a budget of steps or of seconds.

What decided a small budget, measured: words of many shapes in the lessons, so that copying is learned instead of words;
Muon for the matrices and a high rate of AdamW for the rest; batches of 1,024 tokens; a learning rate that falls to almost
nothing; dense attention first, so that copying can appear before the indexer chooses what may be copied.

With a budget of steps everything follows from seed and step, so a run that was killed goes on as if it had not been. With
a budget of seconds the learning rate follows the clock, and two runs are never quite equal.

Shape letters: B sequences, T tokens, V vocabulary.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

from envsynth.errors import CheckpointError, SpecError
from envsynth.policy.checkpoint import Checkpoint, CheckpointRecord, git_revision, save_checkpoint
from envsynth.policy.model import BIAS_RATE, Policy, PolicyOutput, balance_experts
from envsynth.policy.optimizer import OptimizerConfig, PolicyOptimizer
from envsynth.policy.prediction import Predictions
from envsynth.policy.scores import next_token_request
from envsynth.policy.tokens import PAD, VOCABULARY_HASH
from envsynth.train.run_folder import SOURCE, RunFolder, StepReport, StopRequest
from envsynth.train.traces import ACTION, CONTEXT, ECHO, Lesson, lessons_hash

PHASE: Final = "sft"
_BLOCK = 2048
"""Lessons that are sorted by length together: large enough that batches are even, small enough that they stay mixed."""


@dataclass(frozen=True, kw_only=True)
class SftConfig:
    """How to imitate. Exactly one of `steps` and `seconds` is the budget.

    Raises:
        SpecError: a value is out of range, or there is not exactly one budget.
    """

    steps: int | None = None
    """Budget in optimizer steps (count)."""
    seconds: float | None = None
    """Budget in seconds, without evaluation."""
    seed: int = 0
    """Seed of the order of the lessons."""
    batch_tokens: int = 1024
    """Tokens per batch at most, padding included."""
    context_weight: float = 0.3
    """Weight in the loss of a token that is no action; an action's is 1."""
    echo_weight: float = 1.0
    """Weight of a token that is no action but part of a word that stood earlier: practice in copying."""
    warmup_steps: int = 20
    """Steps in which the learning rate rises from zero."""
    final_lr: float = 0.02
    """Factor on the learning rates at the end; it falls linearly over the whole budget."""
    dense_share: float = 0.7
    """Share of the budget with dense attention; the indexer chooses the keys after that, and after its warm-up."""
    indexer_warmup_share: float = 0.0
    """Share of the budget after the dense one in which the trunk rests and the indexer alone learns, from dense
    attention: the published order (arXiv:2512.02556, section 2.1). 0: it learns beside the trunk, from `indexer_start`."""
    mtp_weight: float = 0.3
    """Weight of the prediction layers' loss, where the policy has such layers (arXiv:2412.19437, section 4.2)."""
    indexer_start: float = 0.5
    """Share of the budget after which the indexer learns: before, attention looks elsewhere than it will."""
    indexer_kl_weight: float = 0.1
    """Weight of the indexer's loss."""
    checkpoint_every: int = 200
    """Steps between two checkpoints."""
    optimizer: OptimizerConfig = field(default_factory=lambda: OptimizerConfig(muon_lr=0.012, adamw_lr=0.01))
    """Learning rates."""

    def __post_init__(self) -> None:
        if (self.steps is None) == (self.seconds is None):
            raise SpecError("SFT needs a budget: either steps or seconds")
        sound = {
            "steps": self.steps is None or self.steps >= 1,
            "seconds": self.seconds is None or self.seconds > 0,
            "batch_tokens": self.batch_tokens >= 2,
            "context_weight": self.context_weight >= 0,
            "echo_weight": self.echo_weight >= 0,
            "warmup_steps": self.warmup_steps >= 0,
            "final_lr": 0 <= self.final_lr <= 1,
            "dense_share": 0 <= self.dense_share <= 1,
            "indexer_warmup_share": 0 <= self.indexer_warmup_share <= 1 - self.dense_share,
            "mtp_weight": self.mtp_weight >= 0,
            "indexer_start": 0 <= self.indexer_start <= 1,
            "indexer_kl_weight": self.indexer_kl_weight >= 0,
            "checkpoint_every": self.checkpoint_every >= 1,
        }
        for name, is_sound in sound.items():
            if not is_sound:
                raise SpecError(f"{name} is {getattr(self, name)!r}, which is out of range; see SftConfig.{name}")


@dataclass(frozen=True, kw_only=True, eq=False)
class SftBatch:
    """Some lessons as tensors."""

    tokens_BT: Tensor
    """Token ids, int64 [B, T]."""
    valid_BT: Tensor
    """False on padding, bool [B, T]."""
    marks_BT: Tensor
    """CONTEXT, ACTION, MISTAKE or ECHO; 0 on padding, int64 [B, T]."""

    def to(self, device: torch.device) -> SftBatch:
        """Give the same batch on a device.

        Args:
            device: Where to.

        Returns:
            The batch.
        """
        return SftBatch(
            tokens_BT=self.tokens_BT.to(device), valid_BT=self.valid_BT.to(device), marks_BT=self.marks_BT.to(device)
        )


def batch_of(lessons: Sequence[Lesson]) -> SftBatch:
    """Pad lessons into tensors, in their order."""
    pad = torch.nn.utils.rnn.pad_sequence
    lengths = torch.tensor([len(item) for item in lessons])
    return SftBatch(
        tokens_BT=pad([torch.tensor(item.ids) for item in lessons], batch_first=True, padding_value=PAD),
        valid_BT=torch.arange(int(lengths.max()))[None] < lengths[:, None],
        marks_BT=pad([torch.tensor(item.marks) for item in lessons], batch_first=True),
    )


def epoch_batches(lengths: Sequence[int], *, batch_tokens: int, seed: int, epoch: int) -> list[list[int]]:
    """Split all lessons into batches of about equal length, in an order that follows from seed and epoch.

    Args:
        lengths: Tokens of each lesson.
        batch_tokens: Tokens of a batch at most, padding included; a longer lesson is a batch of its own.
        seed: Seed of the order.
        epoch: Which pass (from 0).

    Returns:
        Indices of the lessons of each batch; each lesson is in exactly one.
    """
    chance = random.Random(f"{seed}/sft/{epoch}")
    order = list(range(len(lengths)))
    chance.shuffle(order)
    batches: list[list[int]] = []
    for start in range(0, len(order), _BLOCK):
        block: list[list[int]] = []
        for index in sorted(order[start : start + _BLOCK], key=lambda item: (lengths[item], item)):
            # Lengths ascend, so the newest lesson is the longest of its batch.
            if block and (len(block[-1]) + 1) * lengths[index] <= batch_tokens:
                block[-1].append(index)
            else:
                block.append([index])
        chance.shuffle(block)
        batches += block
    return batches


def sft_loss(
    output: PolicyOutput, batch: SftBatch, *, context_weight: float, echo_weight: float, indexer_kl_weight: float
) -> tuple[Tensor, dict[str, float]]:
    """Compute the weighted cross-entropy of the next token, plus the indexer's loss.

    Args:
        output: Of the policy on the batch, with its indexer loss; with scores of all tokens, or with logits.
        batch: The lessons.
        context_weight: Weight of a token that is no action.
        echo_weight: Weight of a token that is no action but part of a word that stood earlier.
        indexer_kl_weight: Weight of the indexer's loss.

    Returns:
        The loss, a scalar; and metrics: losses in nats, share of action tokens that are the most probable.
    """
    marks_BT = batch.marks_BT[:, 1:]
    valid_BT = batch.valid_BT[:, 1:]
    action_BT = (marks_BT == ACTION) & valid_BT
    weight_BT = action_BT + context_weight * ((marks_BT == CONTEXT) & valid_BT) + echo_weight * (marks_BT == ECHO)
    nats_BT, is_best_BT = _next_tokens(output, batch)
    loss = (nats_BT * weight_BT).sum() / weight_BT.sum()
    n_actions = action_BT.sum()
    metrics = {
        "loss/sft": float(loss.detach()),
        "loss/action": float((nats_BT.detach() * action_BT).sum() / n_actions),
        "accuracy/action": float((is_best_BT & action_BT).sum() / n_actions),
    }
    if output.indexer_kl is not None:
        indexer = output.indexer_kl.sum() / batch.valid_BT.sum()
        metrics["loss/indexer"] = float(indexer.detach())
        loss = loss + indexer_kl_weight * indexer
    return loss, metrics


def _next_tokens(output: PolicyOutput, batch: SftBatch) -> tuple[Tensor, Tensor]:
    """Give the nats of each next token [B, T - 1], and whether it is the most probable one."""
    scores, targets_BT = output.scores, batch.tokens_BT[:, 1:]
    if scores is not None and scores.measures is not None:
        return -scores.log_probs_BT[:, :-1], scores.measures.is_best_BT[:, :-1]
    logits_BTV = output.logits_BTV[:, :-1]
    nats_BT = functional.cross_entropy(logits_BTV.transpose(1, 2), targets_BT, reduction="none")
    return nats_BT, logits_BTV.argmax(-1) == targets_BT


def prediction_loss(predictions: Predictions, batch: SftBatch, metrics: dict[str, float]) -> Tensor:
    """Compute the cross-entropy of the tokens after the next one, mean over prediction layers and real targets.

    Args:
        predictions: Of the policy on the batch.
        batch: The lessons.
        metrics: Gets `loss/mtp`, in nats.

    Returns:
        The loss, a scalar.
    """
    valid_BTP, length, device = predictions.valid_BTP, batch.tokens_BT.shape[1], batch.tokens_BT.device
    if predictions.log_probs_BTP is not None:
        nats_BTP = -predictions.log_probs_BTP
    else:
        places_TP = torch.arange(length, device=device)[:, None] + 2 + torch.arange(valid_BTP.shape[2], device=device)
        targets_BTP = batch.tokens_BT[:, places_TP.clamp(max=length - 1)]
        nats_BTP = functional.cross_entropy(predictions.logits_BTPV.movedim(-1, 1), targets_BTP, reduction="none")
    loss = (nats_BTP * valid_BTP).sum() / valid_BTP.sum().clamp(min=1)
    metrics["loss/mtp"] = float(loss.detach())
    return loss


class SftRun:
    """A run of supervised fine-tuning in a folder.

    Args:
        folder: Where metrics and checkpoints go.
        policy: What is trained.
        lessons: What is imitated.
        config: How.
        clock: Seconds, for budgets and timings.

    Raises:
        SpecError: there is no lesson, or one is longer than the policy's longest sequence.
    """

    def __init__(
        self,
        folder: RunFolder,
        policy: Policy,
        lessons: Sequence[Lesson],
        config: SftConfig,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        longest = max((len(item) for item in lessons), default=0)
        if not lessons or longest > policy.config.max_position_embeddings:
            raise SpecError(
                f"{len(lessons)} lessons of up to {longest} tokens, the policy reads {policy.config.max_position_embeddings}:"
                " give some, and leave out longer ones"
            )
        self.folder, self.policy, self.lessons, self.config = folder, policy, list(lessons), config
        self.optimizer = PolicyOptimizer(policy, config.optimizer)
        self.step = 0
        self.elapsed_s = 0.0
        self.data = lessons_hash(lessons)
        self._clock = clock
        self._lengths = [len(item) for item in lessons]

    @property
    def fraction(self) -> float:
        """Share of the budget that is used up."""
        used = self.elapsed_s / self.config.seconds if self.config.seconds else self.step / (self.config.steps or 1)
        return min(used, 1.0)

    def resume(self, checkpoint: Checkpoint) -> None:
        """Go on from a checkpoint of an equal run: weights, optimizer, generators, position, metrics.

        Args:
            checkpoint: Of this phase.

        Raises:
            CheckpointError: it is of another phase, other lessons or another configuration.
        """
        record = checkpoint.record
        here = {"phase": PHASE, "data": self.data, "config": self.policy.config, "vocabulary": VOCABULARY_HASH}
        for name, value in here.items():
            if (found := getattr(record, name)) != value:
                raise CheckpointError(f"the checkpoint's {name} is {found}, this run's is {value}: start a new run")
        if record.state["options"] != _options(self.config):
            raise CheckpointError("the checkpoint was written with other options: start a new run, or repeat its own")
        self.policy.load_state_dict(dict(checkpoint.weights))
        self.optimizer.load_state_dict(checkpoint.part("optimizer"))
        self.step, self.elapsed_s = record.step, record.state["elapsed_s"]
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
            state={"elapsed_s": self.elapsed_s, "options": _options(self.config)},
        )
        state = {f"optimizer.{name}": tensor for name, tensor in self.optimizer.state_dict().items()}
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
        self.policy.train()
        batches = self._batches()
        while self.fraction < 1 and not (stop and stop.asked):
            began = self._clock()
            batch = next(batches)
            metrics = self._train(batch)
            self.step += 1
            self.elapsed_s += self._clock() - began
            tokens = int(batch.valid_BT.sum())
            report = StepReport(PHASE, self.step, metrics, self.fraction, self.elapsed_s, tokens)
            self.folder.log(report)
            if on_step is not None:
                on_step(report)
            if self.step % self.config.checkpoint_every == 0 and self.fraction < 1:
                self.save()
        return self.save()

    def _train(self, batch: SftBatch) -> dict[str, float]:
        config, fraction = self.config, self.fraction
        warmup = min(1.0, (self.step + 1) / config.warmup_steps) if config.warmup_steps else 1.0
        scale = warmup * (1 - (1 - config.final_lr) * fraction)
        warms_up = config.dense_share <= fraction < config.dense_share + config.indexer_warmup_share
        is_dense = fraction < config.dense_share or warms_up
        with_kl = warms_up or (config.indexer_kl_weight > 0 and fraction >= config.indexer_start)
        predicts = not warms_up and config.mtp_weight > 0 and self.policy.config.num_nextn_predict_layers > 0
        batch = batch.to(self.policy.embed_tokens.weight.device)
        # In plain torch the logits are there anyway, and the library's loss reads them.
        score = next_token_request(batch.tokens_BT, batch.valid_BT) if self.policy.uses_kernels else None
        output = self.policy(
            batch.tokens_BT,
            mask_BT=batch.valid_BT,
            dense=is_dense,
            with_indexer_kl=with_kl,
            with_predictions=predicts,
            score=score,
        )
        loss, metrics = sft_loss(
            output,
            batch,
            context_weight=config.context_weight,
            echo_weight=config.echo_weight,
            indexer_kl_weight=config.indexer_kl_weight,
        )
        if output.predictions is not None:
            loss = loss + config.mtp_weight * prediction_loss(output.predictions, batch, metrics)
            balance_experts(self.policy, output.predictions.routed_experts, predicting=True)
        if warms_up and output.indexer_kl is not None:
            # Its loss alone, whose gradient ends at the indexer's inputs: the trunk has no gradient, so it rests.
            loss = output.indexer_kl.sum() / batch.valid_BT.sum()
        loss.backward()
        metrics["grad_norm"] = self.optimizer.step(scale)
        rate = 0.0 if warms_up else BIAS_RATE
        load_ME = balance_experts(self.policy, output.routed_experts, rate).to(torch.float32)
        metrics["experts/load_max"] = float((load_ME / load_ME.sum(-1, keepdim=True)).max()) if load_ME.numel() else 0.0
        return metrics | {"lr_scale": scale, "attention/dense": float(is_dense), "indexer/warmup": float(warms_up)}

    def _batches(self) -> Iterator[SftBatch]:
        """All batches from the current step on: pass after pass, each in its own order."""
        config, epoch, before = self.config, 0, 0
        while True:
            batches = epoch_batches(self._lengths, batch_tokens=config.batch_tokens, seed=config.seed, epoch=epoch)
            for position, indices in enumerate(batches):
                if before + position >= self.step:
                    yield batch_of([self.lessons[index] for index in indices])
            before, epoch = before + len(batches), epoch + 1


def _options(config: SftConfig) -> dict[str, object]:
    """What must be equal for a continuation, as JSON has it."""
    return json.loads(json.dumps(asdict(config)))
