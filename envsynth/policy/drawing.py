"""From logits to a token: temperature, truncation, a counted stream of random numbers, and what was kept.

Shape letters: N rows, V vocabulary.

The order is fixed and shared with training ("Keep Sampling Mask", arXiv:2512.02556, section 3.1): divide by the
temperature, keep a set of tokens, normalise over that set. The recorded log-probability is that of the distribution
that was sampled, and the kept set is recorded, so training normalises over the same set instead of finding another one
with other weights.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from envsynth.errors import SpecError

_TO_UNIT = 2.0**-53
"""Scales the 53 leading bits of a draw into [0, 1)."""


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How a token is drawn.

    Raises:
        SpecError: A value is out of range.
    """

    temperature: float = 1.0
    """Divides the logits; 0 takes the best token (ties: the lowest id)."""
    sampling_top_k: int = 0
    """Keep so many best tokens (ties: lower ids first); 0 keeps all."""
    sampling_top_p: float = 1.0
    """Then keep the fewest best tokens whose share of what is left reaches this."""

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < float("inf"):
            raise SpecError(f"Sampling.temperature must be >= 0 and finite, got {self.temperature}")
        if self.sampling_top_k < 0:
            raise SpecError(f"Sampling.sampling_top_k must be >= 0, got {self.sampling_top_k}")
        if not 0 < self.sampling_top_p <= 1:
            raise SpecError(f"Sampling.sampling_top_p must be in (0, 1], got {self.sampling_top_p}")

    @property
    def truncates(self) -> bool:
        """Whether some tokens can be left out, so that kept sets must be recorded."""
        return self.temperature == 0 or self.sampling_top_k > 0 or self.sampling_top_p < 1


def truncated_log_probs(logits_NV: Tensor, sampling: Sampling) -> Tensor:
    """Give the log-probabilities that tokens are drawn from.

    Args:
        logits_NV: Logits of the policy, float32 [N, V].
        sampling: Temperature and truncation.

    Returns:
        Log-probabilities, float32 [N, V]; minus infinity outside the kept set.
    """
    if sampling.temperature == 0:
        best = logits_NV == logits_NV.amax(-1, keepdim=True)
        first = best & (best.cumsum(-1) == 1)
        return torch.where(first, 0.0, float("-inf"))
    scaled_NV = logits_NV / sampling.temperature
    if sampling.truncates:
        scaled_NV = scaled_NV.masked_fill(~_kept(scaled_NV, sampling), float("-inf"))
    return scaled_NV.log_softmax(-1)


def _kept(scaled_NV: Tensor, sampling: Sampling) -> Tensor:
    """Choose the kept tokens of each row: bool [N, V]."""
    ordered, ids = scaled_NV.sort(dim=-1, descending=True, stable=True)
    keep = torch.ones_like(ordered, dtype=torch.bool)
    if sampling.sampling_top_k:
        keep[:, sampling.sampling_top_k :] = False
    if sampling.sampling_top_p < 1:
        shares = ordered.masked_fill(~keep, float("-inf")).to(torch.float64).softmax(-1)
        # A token stays when those before it have not reached the share: so the best one always does.
        keep &= shares.cumsum(-1) - shares < sampling.sampling_top_p
    return torch.zeros_like(keep).scatter(-1, ids, keep)


def draw(log_probs_NV: Tensor, uniforms_N: Tensor) -> Tensor:
    """Draw one token per row by inverting the cumulative distribution over ids.

    Args:
        log_probs_NV: Normalised log-probabilities, [N, V]; minus infinity where a token cannot be drawn.
        uniforms_N: One number in [0, 1) per row, float64 [N].

    Returns:
        Token ids, int64 [N]; always of positive probability.
    """
    # Softmax works row by row, so a row's rounding is its own; it also makes the probabilities sum to one in float64.
    cumulative_NV = log_probs_NV.to(torch.float64).softmax(-1).cumsum(-1)
    # The total is one up to rounding; scaling by it keeps the last token reachable and nothing behind it.
    points_N1 = (uniforms_N * cumulative_NV[:, -1])[:, None]
    tokens_N = torch.searchsorted(cumulative_NV, points_N1, right=True).squeeze(1)
    last_N = log_probs_NV.shape[-1] - 1 - log_probs_NV.isfinite().flip(-1).to(torch.uint8).argmax(-1)
    return torch.minimum(tokens_N, last_N)


def uniform_stream(key: str, n: int) -> Tensor:
    """Give the first numbers of the stream that belongs to a key.

    A Philox counter generator keyed by the text's hash: the i-th number depends on the key and i alone, not on who
    else draws or when. The bits come raw from the generator, whose output is stable between releases.

    Args:
        key: Any text, such as "seed/step/task/sample".
        n: Numbers (count).

    Returns:
        Numbers in [0, 1), float64 [n].
    """
    digest = hashlib.sha256(key.encode()).digest()
    generator = np.random.Philox(key=np.frombuffer(digest[:16], dtype="<u8").astype(np.uint64))
    bits = np.asarray(generator.random_raw(n), dtype=np.uint64)
    return torch.from_numpy((bits >> np.uint64(11)).astype(np.float64) * _TO_UNIT)
