"""Batches on their way to a device: made ahead by a thread, so that a step never waits for them.

Shape letters: B sequences, T tokens.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch import Tensor

from envsynth.train.fidelity.tasks import ANSWERS, Kind, TaskConfig, make_tasks

AHEAD: Final = 4
"""Batches that are ready or being made."""
WEIGHTS: Final = {Kind.FILLER: 0.1, Kind.OTHER: 0.1, Kind.RANDOM: 0.0, **dict.fromkeys(ANSWERS, 1.0)}
"""Weight of a token in the loss. What was drawn at random cannot be learned, and would only add noise."""
_WEIGHT_OF = np.array([WEIGHTS[kind] for kind in Kind], np.float32)


@dataclass(frozen=True, kw_only=True, eq=False)
class Batch:
    """Sequences on a device."""

    tokens_BT: Tensor
    """Token ids, int64 [B, T]."""
    kinds_BT: Tensor
    """A `Kind` per token, uint8 [B, T]."""
    weights_BT: Tensor
    """Weight of each token as a target, float32 [B, T]; that of position 0 is 0."""
    weight: float
    """Sum of the weights."""
    digest: str
    """Hash of the tokens."""


class BatchFeed:
    """Gives the batches of a stage in their order, each a function of seed and step.

    Args:
        seed: Text that the sequences follow from.
        phases: Contexts with their steps, in their order.
        batch_tokens: Tokens of a batch.
        device: Where batches go.
        done: Batches that were given before, in an earlier process (count).
        digest: Hash of those.
    """

    def __init__(
        self,
        seed: str,
        phases: Sequence[tuple[int, int]],
        batch_tokens: int,
        device: torch.device,
        *,
        done: int = 0,
        digest: str = "",
    ) -> None:
        self._seed, self._batch_tokens, self._device = seed, batch_tokens, device
        self._contexts = [context for context, steps in phases for _ in range(steps)]
        self._done = done
        self.digest = digest
        """Hash of all batches given so far, in their order (32 hexadecimal digits)."""

    def __iter__(self) -> Iterator[Batch]:
        """Give every batch once."""
        waiting: deque[Future[Batch]] = deque()
        with ThreadPoolExecutor(max_workers=1, initializer=self._enter) as thread:
            try:
                for step in range(self._done, len(self._contexts) + AHEAD):
                    if step < len(self._contexts):
                        waiting.append(thread.submit(self._make, step))
                    if step >= self._done + AHEAD - 1 and waiting:
                        yield self._given(waiting.popleft().result())
            finally:
                thread.shutdown(cancel_futures=True)

    def _enter(self) -> None:
        """Prepare the thread: a device is chosen per thread, and pinning memory on another one would occupy that too."""
        if self._device.type == "cuda":
            torch.cuda.set_device(self._device)

    def _make(self, step: int) -> Batch:
        context = self._contexts[step]
        sequences = max(1, self._batch_tokens // context)
        made = make_tasks(TaskConfig.for_context(context), seed=self._seed, step=step, sequences=sequences)
        weights_BT = _WEIGHT_OF[made.kinds_BT]
        weights_BT[:, 0] = 0
        tensors = [torch.from_numpy(item) for item in (made.tokens_BT, made.kinds_BT, weights_BT)]
        if self._device.type == "cuda":
            # Only pinned memory can be copied while the device computes.
            tensors = [item.pin_memory() for item in tensors]
        return Batch(
            tokens_BT=tensors[0],
            kinds_BT=tensors[1],
            weights_BT=tensors[2],
            weight=float(weights_BT.sum(dtype=np.float64)),
            digest=made.digest,
        )

    def _given(self, batch: Batch) -> Batch:
        # A chain, so that it can be gone on with from what is known of the batches before.
        self.digest = hashlib.blake2b(f"{self.digest}/{batch.digest}".encode(), digest_size=16).hexdigest()
        return Batch(
            tokens_BT=batch.tokens_BT.to(self._device, non_blocking=True),
            kinds_BT=batch.kinds_BT.to(self._device, non_blocking=True),
            weights_BT=batch.weights_BT.to(self._device, non_blocking=True),
            weight=batch.weight,
            digest=batch.digest,
        )
