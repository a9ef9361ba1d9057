"""Log-probabilities of given tokens: what training wants of the head, with or without forming all logits.

Shape letters: B sequences, T tokens, N = B * T, P tokens that are scored, D model, V vocabulary, W words of 32 bits.

The tokens to score go into `Policy.forward`, so that the head is read there, where whoever shards the policy has gathered
it. Through `envsynth.kernels.logprobs` a tile of logits exists at a time, [P, V] never. In plain torch the logits are
formed, and these are the numbers of `sampling.kept_log_probs`.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from envsynth.errors import SpecError
from envsynth.kernels.logprobs import LogProbs, linear_log_probs, pack_kept
from envsynth.policy.precision import at_least_float32
from envsynth.policy.refusals import KERNELS, naming
from envsynth.policy.sampling import KeptSets, entropy, kept_log_probs, kept_mass, select_kept, temper


class ScoreRequest(NamedTuple):
    """Which token each hidden state is scored on."""

    targets_BT: Tensor
    """Token that the logits of this place are to predict, int64 [B, T]; a negative one is not scored."""
    kept: KeptSets | None = None
    """Kept sets of those tokens, one row for each place, B * T rows; None: nothing was left out."""
    temperature: float = 1.0
    """Divides the logits; above 0."""
    with_measures: bool = True
    """Also give what has no gradient. The kernels find it on the way; in plain torch it takes time."""

    def to(self, device: torch.device) -> ScoreRequest:
        """Give the same request on a device.

        Args:
            device: Where to.

        Returns:
            The request.
        """
        kept = None if self.kept is None else self.kept.to(device)
        return self._replace(targets_BT=self.targets_BT.to(device), kept=kept)


class Measures(NamedTuple):
    """What else is known of the distributions; without gradient, 0 or False where nothing is scored."""

    entropy_BT: Tensor
    """Entropy of the full distribution at the request's temperature (nats), [B, T]."""
    mass_BT: Tensor
    """Share of the full distribution that the kept set holds, [B, T]; 1 without kept sets."""
    is_best_BT: Tensor
    """Whether no token has a larger logit, bool [B, T]; equal ones count."""


class TokenScores(NamedTuple):
    """Scores of the tokens that were asked for."""

    log_probs_BT: Tensor
    """Log-probability of the target under its kept set (nats), float32 or wider [B, T]; 0 where nothing is scored."""
    measures: Measures | None
    """What else is known; None where it was not asked for."""


def next_token_request(
    tokens_NT: Tensor,
    scored_NT: Tensor,
    *,
    kept: KeptSets | None = None,
    temperature: float = 1.0,
    starts_NT: Tensor | None = None,
    with_measures: bool = True,
) -> ScoreRequest:
    """Ask for the tokens of sequences, each from the place before it.

    Args:
        tokens_NT: The sequences, int64 [N, T].
        scored_NT: Which of their tokens to score, bool [N, T]; a document's first has no place before it.
        kept: Kept sets, N T rows; row (n, t) belongs to token t.
        temperature: The sampler's; above 0.
        starts_NT: Place of each token's document's first token, int64 [N, T] (`packing.pack`). None: a row is one
            document.
        with_measures: Also ask for what has no gradient.

    Returns:
        The request; its targets stand one place earlier than the tokens.

    Raises:
        SpecError: a kept set has an id below 0, there is not one row for each token, or a scored token is not in its
            set.
    """
    places_NT = torch.arange(tokens_NT.numel(), device=tokens_NT.device).view_as(tokens_NT)
    scored_NT = scored_NT[:, 1:]
    if starts_NT is not None:
        scored_NT = scored_NT & (starts_NT[:, 1:] == starts_NT[:, :-1])
    targets_NT = functional.pad(torch.where(scored_NT, tokens_NT[:, 1:], -1), (0, 1), value=-1)
    if kept is not None:
        if kept.offsets.numel() != tokens_NT.numel() + 1:
            raise SpecError(f"{kept.offsets.numel() - 1} kept sets for {tokens_NT.numel()} tokens; each needs its row")
        rows_NT = functional.pad(torch.where(scored_NT, places_NT[:, 1:], -1), (0, 1), value=-1)
        kept = select_kept(kept, rows_NT.flatten())
        _check_kept(kept, targets_NT.flatten())
    return ScoreRequest(targets_NT, kept, temperature, with_measures)


def check_request(request: ScoreRequest, shape_BT: tuple[int, int], vocabulary: int) -> None:
    """Refuse a request that does not belong to the sequences.

    Args:
        request: The tokens to score.
        shape_BT: Sequences and tokens.
        vocabulary: Tokens V (count).

    Raises:
        ValueError: The targets have another shape or type, a target or a kept id is outside the vocabulary, there is
            not one kept set for each place, or the temperature is not above 0.
    """
    targets, kept = request.targets_BT, request.kept
    if tuple(targets.shape) != shape_BT or targets.dtype not in (torch.int32, torch.int64):
        raise ValueError(f"targets must be int64 {shape_BT}, got {targets.dtype} {tuple(targets.shape)}")
    if not request.temperature > 0:
        raise ValueError(f"the temperature must be above 0, got {request.temperature}")
    named = {"targets": targets} if kept is None else {"targets": targets, "kept ids": kept.ids}
    for name, ids in named.items():
        if ids.numel() and int(ids.max()) >= vocabulary:
            raise ValueError(f"{name} must be below {vocabulary}, got {int(ids.max())}")
    if kept is not None and kept.offsets.numel() != targets.numel() + 1:
        raise ValueError(f"{kept.offsets.numel() - 1} kept sets for {targets.numel()} places; each needs its row")


def aligned(values_BT: Tensor) -> Tensor:
    """Move what belongs to the places of targets to the tokens themselves.

    Args:
        values_BT: Values at the places that `next_token_request` asked for, [B, T].

    Returns:
        Values at the tokens, [B, T]; 0 at a row's first.
    """
    return functional.pad(values_BT[:, :-1], (1, 0))


def score_hidden(hidden_BTD: Tensor, weight_VD: Tensor, request: ScoreRequest) -> TokenScores:
    """Score tokens from hidden states through `envsynth.kernels.logprobs`, without forming all logits.

    Args:
        hidden_BTD: Hidden states after the last norm, [B, T, D].
        weight_VD: The head, [V, D].
        request: The tokens.

    Returns:
        Scores, measures included.

    Raises:
        ValueError: shapes disagree.
        UnsupportedError: the kernels cannot take these types.
    """
    hidden_ND, targets_N, kept = hidden_BTD.flatten(0, 1), request.targets_BT.flatten(), request.kept
    rows_P = None
    if not torch.compiler.is_compiling():  # how many are scored is data
        rows_P = (targets_N >= 0).nonzero()[:, 0]
        hidden_ND, targets_N = hidden_ND.index_select(0, rows_P), targets_N.index_select(0, rows_P)
        kept = None if kept is None else select_kept(kept, rows_P)
    words_PW = None if kept is None else pack_kept(kept.ids, kept.offsets, len(weight_VD))
    with naming(KERNELS), torch.autocast(hidden_ND.device.type, enabled=False):
        found = linear_log_probs(
            hidden_ND,
            at_least_float32(weight_VD),
            targets_N,
            temperature=request.temperature,
            keep_words_NW=words_PW,
        )
    return _placed(found, rows_P, request)


def score_logits(logits_BTV: Tensor, request: ScoreRequest) -> TokenScores:
    """Score tokens from logits, in plain torch; no value is read where nothing is scored.

    Args:
        logits_BTV: Logits before the temperature, [B, T, V].
        request: The tokens.

    Returns:
        Scores.

    Raises:
        SpecError: a kept id is outside the vocabulary, or a token is not in its kept set.
    """
    logits_PV, targets_P, kept, rows_P = logits_BTV.flatten(0, 1), request.targets_BT.flatten(), request.kept, None
    if not torch.compiler.is_compiling():
        rows_P = (targets_P >= 0).nonzero()[:, 0]
        logits_PV, targets_P = logits_PV.index_select(0, rows_P), targets_P.index_select(0, rows_P)
        kept = None if kept is None else select_kept(kept, rows_P)
    is_scored_P, safe_P = targets_P >= 0, targets_P.clamp(min=0)
    log_probs_P = kept_log_probs(logits_PV, safe_P, kept, request.temperature).masked_fill(~is_scored_P, 0.0)
    entropy_P = mass_P = log_probs_P.detach()
    is_best_P = is_scored_P
    if request.with_measures:
        z_PV = temper(logits_PV.detach(), request.temperature)
        is_best_P = (z_PV.gather(1, safe_P[:, None])[:, 0] >= z_PV.amax(-1)) & is_scored_P
        entropy_P = entropy(logits_PV, request.temperature)
        mass_P = torch.ones_like(entropy_P) if kept is None else kept_mass(logits_PV, kept, request.temperature)
    return _placed(LogProbs(log_probs_P, entropy_P, mass_P, is_best_P), rows_P, request)


def _placed(found: LogProbs, rows_P: Tensor | None, request: ScoreRequest) -> TokenScores:
    """Put the scores of some places, None for all, back where they belong."""
    shape = request.targets_BT.shape
    values = list(found if request.with_measures else found[:1])
    if rows_P is not None:
        values = [item.new_zeros(shape.numel()).index_copy(0, rows_P, item) for item in values]
    else:
        is_scored_N = request.targets_BT.flatten() >= 0
        values = [torch.where(is_scored_N, item, 0) for item in values]
    log_probs_BT, *measures = (item.view(shape) for item in values)
    if not request.with_measures:
        return TokenScores(log_probs_BT, None)
    entropy_BT, mass_BT, is_best_BT = measures
    return TokenScores(log_probs_BT, Measures(entropy_BT, mass_BT, is_best_BT.bool()))


def _check_kept(kept: KeptSets, targets_N: Tensor) -> None:
    """Refuse a record in which a scored token is not in its own set: the kernels would say minus infinity.

    Raises:
        SpecError: there is one, or an id is negative.
    """
    if kept.ids.numel() and int(kept.ids.min()) < 0:
        raise SpecError(f"a kept token id is {int(kept.ids.min())}; ids begin at 0")
    lengths_N = kept.offsets.diff()
    rows_X = torch.arange(len(targets_N), device=kept.ids.device).repeat_interleave(lengths_N)
    hits_N = torch.zeros_like(targets_N).index_add_(0, rows_X, (kept.ids.long() == targets_N[rows_X]).long())
    if bool(((hits_N == 0) & (lengths_N > 0) & (targets_N >= 0)).any()):
        raise SpecError("a sampled token is not in its kept set; the record is damaged or shifted")
