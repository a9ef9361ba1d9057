"""What a policy can do on held-out sequences, and what its indexer selects.

Shape letters: B sequences, T tokens, V vocabulary, L layers, A answer ids, Q answers of a sequence.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from envsynth.errors import ExperimentError
from envsynth.policy.attention import AttentionMode
from envsynth.policy.model import Policy
from envsynth.train.fidelity.batches import Batch, BatchFeed
from envsynth.train.fidelity.config import FidelityConfig
from envsynth.train.fidelity.tasks import ANSWERS, Kind, TaskConfig

Z_95: Final = 1.959963984540054
"""Deviations that hold 95 % of a normal distribution."""
ACCURACIES: Final[tuple[str, ...]] = ("single", "multi", "multi_token", "copy", "copy_token")
"""Accuracies: needles, groups with every value right, ids of groups, spans with every id right, ids of spans."""

SELECTION: Final[tuple[str, ...]] = ("recall", "best", "entropy", "overlap")
"""Means over the layers that a `Selection` has."""


@dataclass(frozen=True, kw_only=True)
class Share:
    """How many were right, with Wilson's 95 % interval; sequences share a policy, so it speaks of sequences alone."""

    right: int
    """Right ones (count)."""
    n: int
    """All (count)."""
    share: float
    """Right ones among all, in [0, 1]."""
    low: float
    """Lower end of the interval."""
    high: float
    """Upper end of the interval."""

    @classmethod
    def of(cls, right: int, n: int) -> Share:
        """Count.

        Written here, not taken from the evaluation of environments, because that package loads libraries which a
        plain copy on an accelerator machine may lack; a test holds the two together.

        Args:
            right: Right ones (count).
            n: All (count, >= 1).

        Returns:
            The share with its interval.
        """
        share, squared = right / n, Z_95 * Z_95
        scale = 1 + squared / n
        centre = (share + squared / (2 * n)) / scale
        half = Z_95 / scale * math.sqrt(share * (1 - share) / n + squared / (4 * n * n))
        # At the ends the formula gives 0 and 1 but for rounding, which must not put the share outside its interval.
        low, high = max(0.0, min(share, centre - half)), min(1.0, max(share, centre + half))
        return cls(right=right, n=n, share=share, low=low, high=high)


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What a policy does on held-out sequences, given the right tokens before each."""

    accuracy: Mapping[str, Share]
    """By the names of `ACCURACIES`."""
    loss: Mapping[str, float]
    """Mean nats per token by kind, in lower case; `answer` is that of all answer ids."""
    sequences: int
    """Held-out sequences (count)."""

    def to_dict(self) -> dict[str, Any]:
        """Give plain values, for JSON."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class Selection:
    """What the indexer selects, as means over queries that see more than k keys."""

    recall: float
    """Share of the dense attention's mass that the selected keys hold, in [0, 1]."""
    best: float
    """The same of the k keys that hold most: the most that recall can be, in [0, 1]."""
    entropy: float
    """Entropy of the softmax of index scores over visible keys (nats)."""
    overlap: float
    """Share of selected keys that the query before selected too, in [0, 1]."""
    recall_by_layer: tuple[float, ...]
    """Recall of each layer."""
    queries: int
    """Queries that were counted, of one layer."""


def autocast(config: FidelityConfig, device: torch.device) -> torch.autocast:
    """Give the arithmetic of a device: what the settings ask for on an accelerator, float32 on the CPU.

    Args:
        config: The settings.
        device: Where the policy is.

    Returns:
        A context for passes of the policy.
    """
    wanted = device.type != "cpu" and config.compute.precision == "bfloat16"
    return torch.autocast(device.type, torch.bfloat16, enabled=wanted)


@torch.no_grad()
def measure(
    policy: Policy, config: FidelityConfig, device: torch.device, *, seed: int, dense: bool, attention: AttentionMode
) -> Measured:
    """Measure accuracies and losses on held-out sequences.

    Args:
        policy: The policy.
        config: The settings.
        device: Where the policy is.
        seed: Repetition; its held-out sequences are the same for every policy.
        dense: Whether every key is read.
        attention: How it attends.

    Returns:
        What was found.

    Raises:
        ExperimentError: a loss is not finite.
    """
    tasks = TaskConfig.for_context(config.context)
    per_batch = max(1, config.evaluation.batch_tokens // config.context)
    steps = -(-config.evaluation.sequences // per_batch)
    counter = _Counter(tasks, device)
    policy.attention_mode = attention
    policy.eval()
    for batch in BatchFeed(f"{seed}/held-out", ((config.context, steps),), per_batch * config.context, device):
        with autocast(config, device):
            logits_BTV = policy(batch.tokens_BT, dense=dense).logits_BTV
        counter.add(batch, logits_BTV.float())
    return counter.result(steps * per_batch)


class _Counter:
    """Adds up on the device; nothing waits for it before the end."""

    def __init__(self, tasks: TaskConfig, device: torch.device) -> None:
        self._sizes: dict[str, int] = {
            "single": tasks.queries,
            "multi": tasks.groups,
            "multi_token": tasks.multi_positions.size,
            "copy": 1,
            "copy_token": tasks.span,
        }
        self._places = [
            torch.from_numpy(np.ascontiguousarray(item)).to(device)
            for item in (tasks.single_positions, tasks.multi_positions, tasks.copy_positions[None])
        ]
        self._right = torch.zeros(len(ACCURACIES), dtype=torch.int64, device=device)
        self._nats = torch.zeros(len(Kind), dtype=torch.float64, device=device)
        self._tokens = torch.zeros(len(Kind), dtype=torch.float64, device=device)

    def add(self, batch: Batch, logits_BTV: Tensor) -> None:
        """Count a batch."""
        target_BT, kinds_BT = batch.tokens_BT[:, 1:], batch.kinds_BT[:, 1:].long()
        nats_BT = functional.cross_entropy(logits_BTV[:, :-1].transpose(1, 2), target_BT, reduction="none")
        self._nats.index_add_(0, kinds_BT.flatten(), nats_BT.flatten().double())
        self._tokens.index_add_(0, kinds_BT.flatten(), torch.ones_like(nats_BT).flatten().double())
        # The logits at a position speak of the next one.
        hit_BT = functional.pad(logits_BTV[:, :-1].argmax(-1) == target_BT, (1, 0))
        single_BQA, multi_BQA, copy_BQA = (hit_BT[:, places] for places in self._places)
        counts = (single_BQA.all(-1), multi_BQA.all(-1), multi_BQA, copy_BQA.all(-1), copy_BQA)
        self._right += torch.stack([item.sum() for item in counts])

    def result(self, sequences: int) -> Measured:
        """Read what was counted.

        Raises:
            ExperimentError: a loss is not finite.
        """
        nats, tokens = self._nats.tolist(), self._tokens.tolist()
        if not all(map(math.isfinite, nats)):
            raise ExperimentError(f"the loss on held-out sequences is not finite ({nats}): train with lower rates")
        right: dict[str, int] = dict(zip(ACCURACIES, self._right.tolist(), strict=True))
        loss = {kind.name.lower(): nats[kind] / tokens[kind] for kind in Kind}
        loss["answer"] = sum(nats[kind] for kind in ANSWERS) / sum(tokens[kind] for kind in ANSWERS)
        accuracy = {name: Share.of(right[name], sequences * size) for name, size in self._sizes.items()}
        return Measured(accuracy=accuracy, loss=loss, sequences=sequences)


@torch.no_grad()
def diagnose(policy: Policy, config: FidelityConfig, device: torch.device, *, seed: int) -> Selection:
    """Measure what the indexer selects on held-out sequences.

    Args:
        policy: The policy; its way of attending and its mode are put back.
        config: The settings.
        device: Where the policy is.
        seed: Repetition.

    Returns:
        Means over layers and over queries that see more than k keys.
    """
    before, was_training = policy.attention_mode, policy.training
    policy.attention_mode = config.compute.sparse_attention
    policy.eval()
    k, queries = policy.config.indexer.index_topk, 0
    sums_SL = torch.zeros((), dtype=torch.float64, device=device)
    steps = config.evaluation.diagnosed
    for batch in BatchFeed(f"{seed}/diagnosed", ((config.context, steps),), config.context, device):
        with autocast(config, device):
            found = policy(batch.tokens_BT, with_diagnostics=True).diagnostics
        parts = (found.recall_BTL, found.best_BTL, found.entropy_BTL, found.overlap_BTL)
        sums_SL = sums_SL + torch.stack([item[:, k:].double().sum((0, 1)) for item in parts])
        queries += batch.tokens_BT[:, k:].numel()
    policy.attention_mode = before
    policy.train(was_training)
    recall_L, best_L, entropy_L, overlap_L = (sums_SL / queries).tolist()
    return Selection(
        recall=sum(recall_L) / len(recall_L),
        best=sum(best_L) / len(best_L),
        entropy=sum(entropy_L) / len(entropy_L),
        overlap=sum(overlap_L) / len(overlap_L),
        recall_by_layer=tuple(recall_L),
        queries=queries,
    )
