"""Sampling: which tokens a truncated distribution keeps, drawing from it, and its log-probabilities in training.

Order everywhere, in the engine as in the trainer: logits of the head in fp32, divided by the temperature, then masked.
A trajectory records the kept set of each sampled token, and training replays the record instead of deriving it again:
under changed weights a derived set may lose the sampled token, and it would move with the parameters.

Source: DeepSeek-V3.2, arXiv:2512.02556, section 3.1, "Keep Sampling Mask".

Shape letters: N trajectories, T tokens, V vocabulary, P positions (any number of distributions in a row, such as N T).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from envsynth.errors import SpecError


@dataclass(frozen=True, kw_only=True)
class SamplingConfig:
    """How tokens are drawn. The kept set is the intersection of what each rule keeps of the tempered distribution.

    Raises:
        SpecError: a value is out of its range.
    """

    temperature: float = 1.0
    """Divides the logits; above 0. Greedy play is an argmax, not a temperature."""
    top_k: int | None = None
    """Keeps the k most probable tokens; None keeps all."""
    top_p: float = 1.0
    """Keeps the shortest run of most probable tokens with at least this mass; in (0, 1], 1 keeps all."""
    min_p: float = 0.0
    """Keeps tokens with at least this share of the largest probability; in [0, 1], 0 keeps all."""

    def __post_init__(self) -> None:
        sound = {
            "temperature": 0 < self.temperature < math.inf,
            "top_k": self.top_k is None or self.top_k >= 1,
            "top_p": 0 < self.top_p <= 1,
            "min_p": 0 <= self.min_p <= 1,
        }
        for name, is_sound in sound.items():
            if not is_sound:
                raise SpecError(f"{name} is {getattr(self, name)!r}, which is out of range; see SamplingConfig.{name}")


@dataclass(frozen=True, kw_only=True, eq=False)
class KeptSets:
    """Kept sets of P positions, as compressed rows. An empty row means that everything was kept."""

    ids: Tensor
    """Token ids of all rows one after the other, ascending within a row, int32."""
    offsets: Tensor
    """Where each row begins in `ids`, and the end of the last, int64 [P + 1]."""

    def to(self, device: torch.device) -> KeptSets:
        """Give the same sets on a device.

        Args:
            device: Where to.

        Returns:
            The sets; these, where they are there already.
        """
        return replace(self, ids=self.ids.to(device), offsets=self.offsets.to(device))


@dataclass(frozen=True, kw_only=True, eq=False)
class Sample:
    """Drawn tokens with what training needs to know about them."""

    ids: Tensor
    """Drawn tokens, int64 [P]."""
    log_probs: Tensor
    """Log-probabilities under the tempered and truncated distribution, nats, [P]."""
    keep: Tensor
    """What that distribution kept, bool [P, V]."""


def temper(logits: Tensor, temperature: float) -> Tensor:
    """Widen logits to fp32 at least and divide them by the temperature.

    Args:
        logits: Logits of the head, [..., V].
        temperature: Above 0.

    Returns:
        z / T, fp32 (fp64 for fp64 logits), [..., V].
    """
    return (logits if logits.dtype == torch.float64 else logits.float()) / temperature


def keep_mask(logits_PV: Tensor, config: SamplingConfig) -> Tensor:
    """Tell which tokens a truncated distribution keeps.

    Equal probabilities are ordered by id, lower first, so the set never depends on a sort's mood. The most probable
    token is always in it.

    Args:
        logits_PV: Logits before the temperature, [P, V].
        config: Temperature and rules.

    Returns:
        True where kept, bool [P, V].
    """
    probs_PV = temper(logits_PV, config.temperature).softmax(dim=-1)
    keep_PV = probs_PV >= config.min_p * probs_PV.amax(dim=-1, keepdim=True)
    if config.top_k is None and config.top_p >= 1:
        return keep_PV
    sorted_PV, order_PV = probs_PV.sort(dim=-1, descending=True, stable=True)
    keep_sorted_PV = torch.ones_like(keep_PV)
    if config.top_k is not None:
        keep_sorted_PV[:, config.top_k :] = False
    if config.top_p < 1:
        # A token stays when the mass before it falls short: the one that passes the threshold is the last to stay.
        before_PV = torch.zeros_like(sorted_PV)
        before_PV[:, 1:] = sorted_PV.cumsum(dim=-1)[:, :-1]
        keep_sorted_PV &= before_PV < config.top_p
    return keep_PV & torch.zeros_like(keep_PV).scatter(-1, order_PV, keep_sorted_PV)


def draw(logits_PV: Tensor, config: SamplingConfig, uniform_P: Tensor) -> Sample:
    """Draw one token per position by inverting the cumulative distribution.

    The uniform numbers come from the caller, so that a token depends on its own request's generator alone, whatever
    else is decoded beside it.

    Args:
        logits_PV: Logits before the temperature, [P, V].
        config: Temperature and rules.
        uniform_P: Numbers in [0, 1), fp64 [P].

    Returns:
        Tokens, their log-probabilities, and the kept sets, which the tokens are always in.

    Raises:
        SpecError: a number is outside [0, 1).
    """
    if not bool(((uniform_P >= 0) & (uniform_P < 1)).all()):
        raise SpecError("uniform numbers must be in [0, 1)")
    keep_PV = keep_mask(logits_PV, config)
    z_PV = temper(logits_PV, config.temperature).masked_fill(~keep_PV, -math.inf)
    cumulative_PV = z_PV.double().softmax(dim=-1).cumsum(dim=-1)
    # u < 1 keeps the threshold below the total even after rounding, and a token outside the set adds nothing to the sum,
    # so the first position above the threshold is always in the set.
    threshold_P1 = uniform_P.double()[:, None] * cumulative_PV[:, -1:]
    ids_P = torch.searchsorted(cumulative_PV, threshold_P1, right=True)[:, 0]
    return Sample(ids=ids_P, log_probs=_gather_log_probs(z_PV, ids_P), keep=keep_PV)


def kept_from_mask(keep_PV: Tensor, actions_P: Tensor) -> KeptSets:
    """Record kept sets; a full one becomes an empty row.

    Args:
        keep_PV: What was kept, bool [P, V].
        actions_P: The tokens that were drawn, int [P]; each is put into its set.

    Returns:
        The record.
    """
    keep_PV = keep_PV.scatter(-1, actions_P.long()[:, None], True)
    keep_PV = keep_PV & ~keep_PV.all(dim=-1, keepdim=True)
    offsets = torch.zeros(keep_PV.shape[0] + 1, dtype=torch.int64, device=keep_PV.device)
    offsets[1:] = keep_PV.sum(dim=-1).cumsum(dim=0)
    return KeptSets(ids=keep_PV.nonzero()[:, 1].int(), offsets=offsets)


def mask_from_kept(kept: KeptSets, n_vocabulary: int) -> Tensor:
    """Unfold a record.

    Args:
        kept: Kept sets of P positions.
        n_vocabulary: V, tokens.

    Returns:
        True where kept, bool [P, V]; all True for an empty row.

    Raises:
        SpecError: an id is outside the vocabulary, or the offsets do not cover the ids.
    """
    lengths_P = kept.offsets.diff()
    n_ids = kept.ids.numel()
    if int(kept.offsets[0]) != 0 or int(kept.offsets[-1]) != n_ids or bool((lengths_P < 0).any()):
        raise SpecError(f"offsets of kept sets must rise from 0 to {n_ids}, the number of their ids")
    if n_ids and not 0 <= int(kept.ids.min()) <= int(kept.ids.max()) < n_vocabulary:
        raise SpecError(f"a kept token id is outside the vocabulary of {n_vocabulary}")
    rows = torch.arange(lengths_P.numel(), device=lengths_P.device).repeat_interleave(lengths_P)
    keep_PV = (lengths_P == 0)[:, None].repeat(1, n_vocabulary)
    keep_PV[rows, kept.ids.long()] = True
    return keep_PV


def join_kept(parts: Sequence[KeptSets]) -> KeptSets:
    """Put records one behind the other.

    Args:
        parts: At least one record.

    Returns:
        One record of all their rows.
    """
    offsets = [parts[0].offsets[:1]]
    for part in parts:
        offsets.append(part.offsets[1:] + offsets[-1][-1])
    return KeptSets(ids=torch.cat([part.ids for part in parts]), offsets=torch.cat(offsets))


def select_kept(kept: KeptSets, rows: Tensor) -> KeptSets:
    """Take some rows of a record.

    Args:
        kept: Kept sets of P positions.
        rows: Which rows in which order, int [Q]; -1 makes an empty row.

    Returns:
        A record of Q rows.
    """
    present = rows >= 0
    safe = rows.clamp(min=0)
    lengths = torch.where(present, kept.offsets[safe + 1] - kept.offsets[safe], 0)
    offsets = torch.zeros(rows.numel() + 1, dtype=torch.int64, device=rows.device)
    offsets[1:] = lengths.cumsum(dim=0)
    within = torch.arange(int(offsets[-1]), device=rows.device) - offsets[:-1].repeat_interleave(lengths)
    return KeptSets(ids=kept.ids[kept.offsets[safe].repeat_interleave(lengths) + within], offsets=offsets)


def kept_log_probs(logits: Tensor, actions: Tensor, kept: KeptSets | None, temperature: float) -> Tensor:
    """Give the log-probabilities of tokens under the distribution that they were drawn from.

    Source: DeepSeek-V3.2, "Keep Sampling Mask": log pi^S(a) = z_a / T - logsumexp over S of z / T. Tokens outside S get
    a gradient of exactly 0. With `kept` None, or at an empty row, S is the whole vocabulary.

    Args:
        logits: Logits before the temperature, [..., V].
        actions: Tokens, int [...].
        kept: Recorded kept sets, one row for each token in the order of `actions.flatten()`; None: none was truncated.
        temperature: The sampler's.

    Returns:
        Log-probabilities, nats, fp32 (fp64 for fp64 logits), [...].

    Raises:
        SpecError: shapes disagree, or a token is not in its recorded set.
    """
    if logits.shape[:-1] != actions.shape:
        raise SpecError(f"logits {tuple(logits.shape)} and tokens {tuple(actions.shape)} disagree")
    z_PV = temper(logits, temperature).flatten(end_dim=-2)
    actions_P = actions.flatten().long()
    if kept is not None:
        if kept.offsets.numel() != actions_P.numel() + 1:
            raise SpecError(f"{kept.offsets.numel() - 1} kept sets for {actions_P.numel()} tokens; each needs its row")
        keep_PV = mask_from_kept(kept, z_PV.shape[-1])
        if not bool(keep_PV.gather(-1, actions_P[:, None]).all()):
            raise SpecError("a sampled token is not in its kept set; the record is damaged or shifted")
        z_PV = z_PV.masked_fill(~keep_PV, -math.inf)
    return _gather_log_probs(z_PV, actions_P).view(actions.shape)


def token_log_probs(logits_NTV: Tensor, tokens_NT: Tensor, kept: KeptSets | None, temperature: float) -> Tensor:
    """Give each token of a sequence the log-probability that the logits one position earlier assign to it.

    Args:
        logits_NTV: Logits of the whole sequences; those at t predict token t + 1. [N, T, V].
        tokens_NT: The sequences, int [N, T].
        kept: Kept sets, N T rows; row (n, t) belongs to token t, not to the logits at t.
        temperature: The sampler's.

    Returns:
        Log-probabilities aligned with the tokens, nats, [N, T]; 0 at t = 0, which nothing predicts.
    """
    n_rows, n_tokens = tokens_NT.shape
    if kept is not None:
        positions = torch.arange(n_rows * n_tokens, device=tokens_NT.device).view(n_rows, n_tokens)
        kept = select_kept(kept, positions[:, 1:].flatten())
    logp_NT = kept_log_probs(logits_NTV[:, :-1], tokens_NT[:, 1:], kept, temperature)
    return torch.nn.functional.pad(logp_NT, (1, 0))


def kept_mass(logits_PV: Tensor, kept: KeptSets, temperature: float) -> Tensor:
    """Tell how much of the full distribution the kept sets hold, for metrics.

    Args:
        logits_PV: Logits before the temperature, [P, V].
        kept: Kept sets of P positions.
        temperature: The sampler's.

    Returns:
        Mass in (0, 1], [P], without gradient.
    """
    z_PV = temper(logits_PV.detach(), temperature)
    kept_z_PV = z_PV.masked_fill(~mask_from_kept(kept, z_PV.shape[-1]), -math.inf)
    return (kept_z_PV.logsumexp(dim=-1) - z_PV.logsumexp(dim=-1)).exp()


def entropy(logits: Tensor, temperature: float) -> Tensor:
    """Give the entropy of the full tempered distribution, for metrics.

    Args:
        logits: Logits before the temperature, [..., V].
        temperature: The sampler's.

    Returns:
        Entropy, nats, [...], without gradient.
    """
    logp = temper(logits.detach(), temperature).log_softmax(dim=-1)
    return -(logp.exp() * logp).sum(dim=-1)


def _gather_log_probs(z_PV: Tensor, actions_P: Tensor) -> Tensor:
    """z_a - logsumexp z; the sampler and the trainer share this line, so that equal logits give equal bits."""
    return z_PV.gather(-1, actions_P[:, None])[:, 0] - z_PV.logsumexp(dim=-1)
