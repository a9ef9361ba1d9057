"""The checks: each reads the evidence and gives one finding, named after the fault that it looks for.

Every value is a measure of harm: 0 is perfect, and above its limit something is wrong.

Shape letters: T tokens, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import torch
from torch import Tensor

from envsynth.policy.batch import TokenTrajectory
from envsynth.policy.template import read_action
from envsynth.policy.tokens import END
from envsynth.train.doctor.capture import CapturedRow, Tokens, by_tokens, turn_ends
from envsynth.train.doctor.evidence import Evidence
from envsynth.train.doctor.rescoring import RESIDUAL_LIMIT, kept_rows, share_missing
from envsynth.train.doctor.stages import EpisodeText

CHOICE_LIMIT: Final = 0.02
"""Share of replayed choices that may differ: rounding moves a near tie now and then."""
TEMPERATURE_LIMIT: Final = 0.02
"""Relative error of a temperature."""
DRAWN_LIMIT: Final = 5.0
"""Standard deviations from which a sampler is not believed any more: less than one healthy run in a million."""
KL_LIMIT: Final = 0.02
"""Relative error of the gradient of the KL term."""
SPAN_NATS: Final = 12.0
"""Tokens that are less probable than the best one by more than this say nothing in float32."""
SURE: Final = 1e-3
"""A token whose complement is less probable than this has too small a gradient to be divided by it."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What a check found."""

    name: str
    """The fault that was looked for."""
    value: float | None
    """How bad it is; None when the episodes held no evidence."""
    limit: float
    """Largest value that is healthy."""
    meaning: str
    """What the value measures, and what was seen."""
    advice: str
    """What to do when it is above the limit."""

    @property
    def state(self) -> str:
        """`healthy`, `unhealthy`, or `unknown` without evidence."""
        if self.value is None:
            return "unknown"
        return "healthy" if self.value <= self.limit else "unhealthy"  # a NaN is above every limit


Check = Callable[[Evidence], Finding]
"""From evidence to a finding."""


def indexer_shuffled(evidence: Evidence) -> Finding:
    """Whether attention reads in training what the record says, and the record says what the indexer chose."""
    replayed = _misread(evidence, "indexer_topk")
    seen = "training reads the recorded keys; this share of them is others"
    value, found = _with_record(evidence, replayed, evidence.rescored.wrong_keys, cause="keys")
    if found:
        seen = "the recorded keys are not those that the indexer chose at rollout; share of them"
    return Finding(
        name="indexer-shuffled",
        value=value,
        limit=CHOICE_LIMIT,
        meaning=seen,
        advice="pass indexer_topk of the same row and position to the forward pass of training, unchanged and unsorted",
    )


def live_routing(evidence: Evidence) -> Finding:
    """Whether the experts of the rollout run in training."""
    replayed = _misread(evidence, "routed_experts")
    seen = "share of the recorded experts that do not run in training"
    value, found = _with_record(evidence, replayed, evidence.rescored.wrong_experts, cause="experts")
    if found:
        seen = "the recorded experts are not those that the router chose at rollout; share of them"
    return Finding(
        name="live-routing",
        value=value,
        limit=CHOICE_LIMIT,
        meaning=seen,
        advice="pass routed_experts of the record to the forward pass of training (not of the reference)",
    )


def stale_weights(evidence: Evidence) -> Finding:
    """Whether the tokens were drawn by the weights that are trained."""
    rescored = evidence.rescored
    return Finding(
        name="stale-weights",
        value=rescored.residual if rescored.cause == "weights" else rescored.explained,
        limit=RESIDUAL_LIMIT,
        meaning="mean difference between recorded log-probabilities and those of these weights, which no other keys,"
        " experts, temperature or kept sets explain (nats)",
        advice="hand the sampler the trained weights after every update, and clear its caches",
    )


def detached_kl_ratio(evidence: Evidence) -> Finding:
    """Whether the gradient of the KL term is that of KL(policy || reference).

    That gradient is the mean under the sampler of r log(policy / reference) d log policy, so the coefficient of a sampled
    token must be proportional to r log(policy / reference). With a detached ratio it is r (1 - reference / policy), which
    is the gradient of KL(reference || policy), another quantity.
    """
    squares = {"all": 0.0, "unbiased": 0.0, "detached": 0.0}
    temperature = trainer_temperature(evidence) or evidence.config.temperature
    for tokens, items in by_tokens(evidence.trajectories).items():
        row = evidence.kl.get(tokens)
        if row is None:
            continue
        seen, unbiased, detached = _kl_coefficients(evidence, row, tokens, items[0], temperature)
        squares["all"] += float(seen.square().sum())
        squares["unbiased"] += _misfit(seen, unbiased)
        squares["detached"] += _misfit(seen, detached)
    total = squares["all"]
    errors = {name: math.sqrt(squares[name] / total) if total else 1.0 for name in ("unbiased", "detached")}
    seen = "relative error of the gradient of the KL term"
    if not total:
        seen = "the KL term has no gradient"
    elif errors["unbiased"] > KL_LIMIT and errors["detached"] < errors["unbiased"]:
        seen = f"{seen}; with the ratio detached it would be {errors['detached']:.2g}"
    return Finding(
        name="detached-kl-ratio",
        value=errors["unbiased"],
        limit=KL_LIMIT,
        meaning=seen,
        advice="let the gradient flow through policy/sampler in the KL term; clamp nothing else in it",
    )


def mask_dropped(evidence: Evidence) -> Finding:
    """Whether training normalises over the recorded kept sets, and learns from sampled tokens alone."""
    unkept, uncalled, total = 0.0, 0.0, 0.0
    for tokens, items in by_tokens(evidence.trajectories).items():
        row = evidence.plain.get(tokens)
        if row is None:
            continue
        force_TV = row.gradient_TV[:-1].abs().double()
        keep_TV = kept_rows(items[0], force_TV.shape[-1])[1:]
        is_action_T = (items[0].action_mask | (items[0].tokens == END))[1:]
        total += float(force_TV.sum())
        unkept += float(force_TV[is_action_T].masked_fill(keep_TV[is_action_T], 0).sum())
        uncalled += float(force_TV[~is_action_T].sum())
    without = sum(item.kept is None for item in evidence.trajectories) / len(evidence.trajectories)
    seen = "share of the gradient outside the kept sets, or on tokens that nobody sampled"
    if without:
        seen = "share of the episodes whose kept sets were not recorded although the sampler cuts"
    return Finding(
        name="mask-dropped",
        value=without or ((unkept + uncalled) / total if total else None),
        limit=1e-6,
        meaning=seen,
        advice="record the kept sets, normalise over them in training, and multiply the loss by the action mask",
    )


def temperature_mismatch(evidence: Evidence) -> Finding:
    """Whether sampler, record and trainer mean the same temperature."""
    wanted, rescored = evidence.config.temperature, evidence.rescored
    errors: dict[str, float] = {}
    if (found := trainer_temperature(evidence)) is not None:
        errors[f"the trainer scores at {found:.4g}, the sampler is set to {wanted:g}"] = abs(math.log(found / wanted))
    if rescored.cause == "temperature":
        errors[f"the record is of temperature {rescored.temperature:.4g}, the sampler is set to {wanted:g}"] = abs(
            math.log(rescored.temperature / wanted)
        )
    # What was drawn can be held against the record only where the record is right.
    if rescored.cause == "none" and abs(rescored.drawn_z) > DRAWN_LIMIT:
        errors[f"tokens are {rescored.drawn_z:.1f} deviations from their recorded distribution"] = abs(
            rescored.drawn_shift
        )
    worst = max(errors, key=lambda name: errors[name], default=None)
    return Finding(
        name="temperature-mismatch",
        value=0.0 if worst is None else errors[worst],
        limit=TEMPERATURE_LIMIT,
        meaning="relative error of a temperature" + (f": {worst}" if worst else ""),
        advice="divide the logits by the sampler's temperature before anything else, in sampling, record and training",
    )


def end_of_turn_untrained(evidence: Evidence) -> Finding:
    """Whether the end of a turn is learned, by rewards and by imitation."""
    ends = [
        bool(row.is_reached_T[position - 1])
        for tokens, row in evidence.opened.items()
        for position in turn_ends(tokens, END)
        if position
    ]
    untaught = evidence.untaught_ends
    untrained = 1 - sum(ends) / len(ends) if ends else None
    # Lessons alone do not clear the rewards: without a sampled end there is no evidence, unless the lessons are wrong.
    value = untaught or None if untrained is None else max(untrained, untaught)
    return Finding(
        name="end-of-turn-untrained",
        value=value,
        limit=0.01,
        meaning=f"share of the ends of turns that leave no gradient, of {len(ends)} sampled ones and of the lessons'",
        advice="keep the end-of-turn token in the action mask: the policy sampled it, and else never learns to stop",
    )


def reward_flipped(evidence: Evidence) -> Finding:
    """Whether training makes likelier what passed and unlikelier what failed."""
    if evidence.solved_reward <= evidence.idle_reward:
        return Finding(
            name="reward-flipped",
            value=1.0,
            limit=0.05,
            meaning=f"the planner's solutions get {evidence.solved_reward:g}, doing nothing gets {evidence.idle_reward:g}",
            advice="the verdict of the environment must reach the trajectory's reward unchanged: 1 passed, 0 failed",
        )
    wrong, judged = 0, 0
    expected = dict(_expected_pushes(evidence))
    for tokens, row in evidence.plain.items():
        taken_T = torch.tensor(tokens[1:])
        push = -float(row.gradient_TV[:-1].gather(1, taken_T[:, None]).double().sum())
        if push and expected.get(tokens):
            judged += 1
            wrong += (push > 0) != (expected[tokens] > 0)
    return Finding(
        name="reward-flipped",
        value=wrong / judged if judged else None,
        limit=0.05,
        meaning=f"share of {judged} episodes that training pushes against their score",
        advice="follow the sign: verdict, reward, advantage = reward - mean of the group, loss = -advantage * ratio",
    )


def drift_in_the_run(evidence: Evidence) -> Finding:
    """Whether sampler and trainer agreed while the run was trained."""
    return Finding(
        name="drift-in-the-run",
        value=evidence.logged_drift,
        limit=RESIDUAL_LIMIT,
        meaning="largest drift/mean in the run's metrics: what differs before the first update of a step (nats)",
        advice="the other findings say why, if it is still so; if not, the run was made by other code",
    )


CHECKS: Final[tuple[Check, ...]] = (
    indexer_shuffled,
    live_routing,
    stale_weights,
    detached_kl_ratio,
    mask_dropped,
    temperature_mismatch,
    end_of_turn_untrained,
    reward_flipped,
)
"""One for each fault; `drift_in_the_run` joins them where there is a run."""


def trainer_temperature(evidence: Evidence) -> float | None:
    """Read the trainer's temperature off its gradient.

    The gradient on a token that was not taken is proportional to its probability, so its logarithm rises with the logit by
    one over the temperature.

    Args:
        evidence: The evidence.

    Returns:
        The temperature; None where no token has a gradient.
    """
    covariance = variance = 0.0
    for tokens, row in evidence.opened.items():
        z_TV, force_TV = row.logits_TV[:-1].double(), row.gradient_TV[:-1].abs().double()
        use_TV = (force_TV > 0) & (z_TV > z_TV.amax(-1, keepdim=True) - SPAN_NATS)
        use_TV = use_TV.scatter(1, torch.tensor(tokens[1:])[:, None], False)
        count_T1 = use_TV.sum(-1, keepdim=True).clamp(min=1)
        x_TV, y_TV = (torch.where(use_TV, item, 0) for item in (z_TV, force_TV.clamp(min=1e-300).log()))
        x_TV = torch.where(use_TV, x_TV - x_TV.sum(-1, keepdim=True) / count_T1, 0)
        covariance += float((x_TV * y_TV).sum())
        variance += float(x_TV.square().sum())
    return variance / covariance if variance > 0 and covariance > 0 else None


def _misread(evidence: Evidence, field: str) -> float | None:
    """Share of altered choices that the trainer's forward pass did not take; all of them where nothing was recorded."""
    made: list[Tensor] = []
    wanted: list[Tensor] = []
    for tokens, row in evidence.opened.items():
        record: Tensor | None = getattr(evidence.altered[tokens], field)
        chosen: Tensor | None = getattr(row, field)
        if record is None or chosen is None:
            return 1.0
        start = record.shape[2] if field == "indexer_topk" else 0
        made.append(chosen[start:])
        wanted.append(record[start:])
    return share_missing(torch.cat(made), torch.cat(wanted))


def _with_record(
    evidence: Evidence, replayed: float | None, differing: float | None, *, cause: str
) -> tuple[float | None, bool]:
    """Take the record's own fault into account: it is judged where the weights agree, or where it explains why not."""
    is_judged = evidence.rescored.cause in ("none", cause)
    if is_judged and differing is not None and differing > CHOICE_LIMIT and differing > (replayed or 0):
        return differing, True
    return replayed, False


def _kl_coefficients(
    evidence: Evidence, row: CapturedRow, tokens: Tokens, item: TokenTrajectory, temperature: float
) -> tuple[Tensor, Tensor, Tensor]:
    """The coefficients that the trainer gave to sampled tokens, and what they must be proportional to.

    The trainer's own temperature and sets are used, whatever they are: those are other findings.
    """
    gradient_TV = row.gradient_TV[:-1].double()
    is_used_TV = gradient_TV != 0
    taken_T1 = torch.tensor(tokens[1:])[:, None]
    with torch.no_grad():
        reference_TV = evidence.reference(item.tokens[None].long()).logits_BTV[0, :-1].double()
    logp_T, ref_T = (
        (z_TV / temperature).masked_fill(~is_used_TV, -math.inf).log_softmax(-1).gather(1, taken_T1)[:, 0]
        for z_TV in (row.logits_TV[:-1].double(), reference_TV)
    )
    use_T = item.action_mask[1:] & torch.isfinite(logp_T) & torch.isfinite(ref_T) & (logp_T < math.log1p(-SURE))
    logp, gap = logp_T[use_T], (ref_T - logp_T)[use_T]
    ratio = (logp - item.log_probs[1:].double()[use_T]).exp()
    seen = gradient_TV.gather(1, taken_T1)[:, 0][use_T] / -torch.expm1(logp)
    return seen, -ratio * gap, -ratio * torch.expm1(gap)


def _misfit(seen: Tensor, shape: Tensor) -> float:
    """Square error after the best factor above 0: weights and lengths of a trajectory are no part of the question."""
    square = float(shape.square().sum())
    factor = max(0.0, float((seen * shape).sum()) / square) if square else 0.0
    return float((seen - factor * shape).square().sum())


def _expected_pushes(evidence: Evidence) -> Iterator[tuple[Tokens, float]]:
    """For each sequence, the sum over its equal episodes of score - mean score of the group."""
    groups: dict[str, list[TokenTrajectory]] = {}
    for item in evidence.trajectories:
        groups.setdefault(item.group, []).append(item)
    for members in groups.values():
        rows = by_tokens(members)
        totals = {tokens: sum(evidence.given.get(_episode_text(items[0]), ())) for tokens, items in rows.items()}
        mean = sum(totals.values()) / len(members)
        yield from ((tokens, totals[tokens] - mean * len(items)) for tokens, items in rows.items())


def _episode_text(item: TokenTrajectory) -> EpisodeText:
    """What the environment saw of an episode: prompt, and the text of each turn."""
    tokens: Sequence[int] = item.tokens.tolist()
    is_own = (item.action_mask | (item.tokens == END)).tolist()
    borders = [place for place in range(1, len(tokens)) if is_own[place] != is_own[place - 1]] + [len(tokens)]
    turns = [tokens[start:stop] for start, stop in pairwise(borders) if is_own[start]]
    texts = tuple(read_action(turn).text.encode("utf-8", "replace").decode() for turn in turns)
    return tuple(tokens[: borders[0]]), texts
