"""Score the recorded tokens again, under the record and under what could be wrong with it.

The arithmetic is the doctor's own, in float64, so that a fault of the trainer's scoring does not
hide itself. If the record's log-probabilities come out, the sampler and these weights agree. If they come out under one
changed assumption only (live keys, live experts, another temperature, other kept sets), that assumption is the fault. If
they come out under none, the tokens were drawn by other weights.

Shape letters: P recorded tokens, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import torch
from torch import Tensor

from envsynth.policy.batch import TokenTrajectory
from envsynth.policy.drawing import Sampling, truncated_log_probs
from envsynth.policy.model import Policy, PolicyOutput

RESIDUAL_LIMIT: Final = 2e-4
"""Largest mean difference of log-probabilities that counts as agreement, nats; rounding leaves some 1e-6."""
Cause = Literal["none", "keys", "experts", "temperature", "kept", "weights"]
"""What explains the difference between the record and the policy."""


@dataclass(frozen=True, kw_only=True)
class Rescored:
    """The record against the policy."""

    n_tokens: int
    """Recorded tokens (count)."""
    residual: float
    """Mean difference of log-probabilities under the record, nats."""
    cause: Cause
    """What explains it."""
    explained: float
    """Mean difference under that explanation, nats."""
    temperature: float
    """Temperature under which the record fits best; the sampler's where it fits at once."""
    drawn_shift: float
    """Estimated relative error of the inverse temperature that tokens were drawn with."""
    drawn_z: float
    """The same in standard deviations; 0 on average where tokens follow their own recorded distribution."""
    wrong_keys: float | None
    """Share of the recorded keys that the live indexer would not choose; None where nothing was left out."""
    wrong_experts: float | None
    """Share of the recorded experts that the live router would not choose; None without a record."""


@dataclass(frozen=True, eq=False)
class _Pool:
    """All recorded tokens one behind the other."""

    z_PV: Tensor
    keep_PV: Tensor
    tokens_P: Tensor
    mu_P: Tensor


@torch.no_grad()
def rescore(policy: Policy, trajectories: Sequence[TokenTrajectory], sampling: Sampling) -> Rescored:
    """Find out whether the records are those of this policy, and if not, why.

    Args:
        policy: The weights that are trained.
        trajectories: Records (at least one).
        sampling: How the tokens should have been drawn.

    Returns:
        What was found.
    """
    policy.eval()
    recorded, live = _run(policy, trajectories), _run(policy, trajectories, experts=False, keys=False)
    pool = _pooled(trajectories, recorded)
    residual = explained = _residual(pool, sampling.temperature)
    cause: Cause = "none"
    temperature = sampling.temperature
    if residual > RESIDUAL_LIMIT:
        temperature, tempered = _fit(pool, sampling.temperature)
        keys, experts = _run(policy, trajectories, keys=False), _run(policy, trajectories, experts=False)
        explanations: dict[Cause, float] = {
            "keys": _residual(_pooled(trajectories, keys), sampling.temperature),
            "experts": _residual(_pooled(trajectories, experts), sampling.temperature),
            "temperature": tempered,
            "kept": _other_kept(pool, sampling),
        }
        cause = min(explanations, key=lambda name: explanations[name])
        explained = explanations[cause]
        cause = cause if explained <= RESIDUAL_LIMIT else "weights"
    shift, z = _drawn(pool, sampling.temperature)
    return Rescored(
        n_tokens=len(pool.tokens_P),
        residual=residual,
        cause=cause,
        explained=explained,
        temperature=temperature,
        drawn_shift=shift,
        drawn_z=z,
        wrong_keys=_wrong_keys(trajectories, live),
        wrong_experts=_wrong_experts(trajectories, live),
    )


def kept_rows(item: TokenTrajectory, n_vocabulary: int) -> Tensor:
    """Unfold the kept sets of a record: bool [T, V], all True where nothing was cut."""
    length = item.tokens.numel()
    keep_TV = torch.ones(length, n_vocabulary, dtype=torch.bool)
    if item.kept is None:
        return keep_TV
    offsets = item.kept.offsets.tolist()
    for position in range(length):
        ids = item.kept.ids[offsets[position] : offsets[position + 1]].long()
        if ids.numel():
            keep_TV[position] = False
            keep_TV[position, ids] = True
    return keep_TV


def share_missing(chosen: Tensor, wanted: Tensor) -> float | None:
    """Tell which share of the wanted numbers is not among the chosen ones.

    Args:
        chosen: Numbers, int [..., X]; -1 pads.
        wanted: Numbers, int [..., Y]; -1 pads and does not count.

    Returns:
        The share; None when nothing is wanted.
    """
    counts = wanted >= 0
    if not bool(counts.any()):
        return None
    found = (wanted[..., :, None] == chosen[..., None, :]).any(-1) & counts
    return 1 - float(found.sum() / counts.sum())


def _run(
    policy: Policy, trajectories: Sequence[TokenTrajectory], *, experts: bool = True, keys: bool = True
) -> PolicyOutput:
    """Run all sequences, with or without what was recorded; the padding is the doctor's own, not the trainer's."""
    lengths = torch.tensor([item.tokens.numel() for item in trajectories])
    return policy(
        _pad([item.tokens.long() for item in trajectories], 0),
        mask_BT=torch.arange(int(lengths.max())) < lengths[:, None],
        routed_experts_BTMA=_pad([item.routed_experts for item in trajectories], -1) if experts else None,
        indexer_topk_BTLK=_pad([item.indexer_topk for item in trajectories], -1) if keys else None,
    )


def _pad(parts: Sequence[Tensor | None], value: int) -> Tensor | None:
    """Pad to the longest; None where a record is missing: then nothing was recorded that could be replayed."""
    found = [item for item in parts if item is not None]
    if len(found) < len(parts):
        return None
    return torch.nn.utils.rnn.pad_sequence(found, batch_first=True, padding_value=value)


def _pooled(trajectories: Sequence[TokenTrajectory], output: PolicyOutput) -> _Pool:
    parts: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
    for row, item in enumerate(trajectories):
        at = item.action_mask.nonzero()[:, 0]
        z_PV = output.logits_BTV[row, at - 1].double()
        keep_PV = kept_rows(item, z_PV.shape[-1])[at]
        parts.append((z_PV, keep_PV, item.tokens[at].long(), item.log_probs[at].double()))
    z, keep, tokens, mu = (torch.cat(column) for column in zip(*parts, strict=True))
    return _Pool(z, keep, tokens, mu)


def _log_probs(pool: _Pool, temperature: float) -> Tensor:
    return (pool.z_PV / temperature).masked_fill(~pool.keep_PV, -math.inf).log_softmax(-1)


def _residual(pool: _Pool, temperature: float) -> float:
    logp_P = _log_probs(pool, temperature).gather(1, pool.tokens_P[:, None])[:, 0]
    # A token outside its set has no probability under the record: as wrong as anything can be, and still a number.
    return float((logp_P - pool.mu_P).abs().clamp(max=100).mean())


def _fit(pool: _Pool, start: float) -> tuple[float, float]:
    """Search the temperature that explains the record best, from a factor of 4 around the sampler's down to 1e-6."""
    centre, half, best = math.log(start), math.log(4.0), math.inf
    for _ in range(6):
        tries = torch.linspace(centre - half, centre + half, 25).tolist()
        best, centre = min((_residual(pool, math.exp(value)), value) for value in tries)
        half /= 8
    return math.exp(centre), best


def _other_kept(pool: _Pool, sampling: Sampling) -> float:
    """Mean difference when the sets are derived from the logits again, or when there are none."""
    derived_PV = truncated_log_probs(pool.z_PV.float(), sampling).isfinite()
    every_PV = torch.ones_like(pool.keep_PV)
    tries = [_Pool(pool.z_PV, keep_PV, pool.tokens_P, pool.mu_P) for keep_PV in (derived_PV, every_PV)]
    return min(_residual(item, sampling.temperature) for item in tries)


def _drawn(pool: _Pool, temperature: float) -> tuple[float, float]:
    """Test whether tokens follow the distribution: the score statistic of its inverse temperature.

    Under it, log p(a) + entropy has mean 0 and a known variance, token after token. Sampling at a lower temperature than
    that of the record makes it positive; ratios of log-probabilities cannot show that.
    """
    logp_PV = _log_probs(pool, temperature)
    p_PV = logp_PV.exp()
    finite_PV = torch.where(pool.keep_PV, logp_PV, 0.0)
    mean_P = (p_PV * finite_PV).sum(-1)
    variance = float(((p_PV * finite_PV**2).sum(-1) - mean_P**2).clamp(min=0).sum())
    surplus = float((finite_PV.gather(1, pool.tokens_P[:, None])[:, 0] - mean_P).sum())
    return (surplus / variance, surplus / math.sqrt(variance)) if variance > 0 else (0.0, 0.0)


def _wrong_keys(trajectories: Sequence[TokenTrajectory], live: PolicyOutput) -> float | None:
    """Only tokens with more visible keys than are kept count: before them every choice is the same."""
    if live.indexer_topk is None:
        return None
    pairs = [
        (live.indexer_topk[row, item.indexer_topk.shape[2] : len(item.tokens)], item.indexer_topk)
        for row, item in enumerate(trajectories)
        if item.indexer_topk is not None
    ]
    return _missing([(chosen, wanted[wanted.shape[2] :]) for chosen, wanted in pairs])


def _wrong_experts(trajectories: Sequence[TokenTrajectory], live: PolicyOutput) -> float | None:
    pairs = [
        (live.routed_experts[row, : len(item.tokens)], item.routed_experts)
        for row, item in enumerate(trajectories)
        if item.routed_experts is not None
    ]
    return _missing(pairs)


def _missing(pairs: Sequence[tuple[Tensor, Tensor]]) -> float | None:
    if not pairs:
        return None
    return share_missing(torch.cat([chosen for chosen, _ in pairs]), torch.cat([wanted for _, wanted in pairs]))
