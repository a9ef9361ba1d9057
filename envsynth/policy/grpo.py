"""Group relative policy optimization: equations 5 to 9 of DeepSeek-V3.2 as pure functions of tensors.

Source: DeepSeek-V3.2, arXiv:2512.02556, section 3.1. Four log-probabilities meet here, all of the same sampled tokens:

    logp   of the live policy, with gradient
    mu     as the sampler recorded it
    old    recomputed by the trainer at the weights of the rollout; where absent, mu takes its place
    ref    of the frozen reference policy, under the same kept sets

Everything is computed in fp32 at least; fp64 stays fp64. What stands at positions without an action is never read, so
padding may hold any finite or infinite garbage.

Shape letters: N rows of a batch, T tokens. A row is a trajectory, or one segment of it where
context management has split it; rows with the same trajectory id share one ratio, one mask and one normalizer.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch
from torch import Tensor

from envsynth.errors import SpecError
from envsynth.policy.advantages import Baseline

Term = Literal["grpo", "cispo"]
"""What a token contributes: the clipped surrogate (eq. 5), or CISPO's detached ratio times log-probability."""
Reduction = Literal["sequence_mean", "token_mean", "constant_length"]
"""How tokens become one number: eq. 5, over all tokens alike (DAPO), or over a fixed length (Dr.GRPO)."""
RatioLevel = Literal["token", "sequence"]
"""Whether each token has its own ratio (eq. 5) or a trajectory has one (GSPO)."""

MAX_LOG_RATIO = 20.0
"""Policy ratios are clamped to exp(+-20) so that one token cannot overflow the sum."""


@dataclass(frozen=True, kw_only=True)
class GrpoConfig:
    """Which loss is computed; the defaults are the paper's.

    Raises:
        SpecError: a value is out of its range.
    """

    term: Term = "grpo"
    """Per-token term."""
    reduction: Reduction = "sequence_mean"
    """How tokens are averaged."""
    baseline: Baseline = "mean"
    """How rewards become advantages."""
    ratio_level: RatioLevel = "token"
    """One ratio per token or per trajectory."""
    clip_low: float = 0.2
    """The ratio is clipped at 1 - clip_low; in (0, 1]."""
    clip_high: float = 0.2
    """The ratio is clipped at 1 + clip_high; above 0."""
    cispo_ratio_max: float = 5.0
    """Upper bound of the detached ratio of the CISPO term."""
    off_policy_delta: float = 0.1
    """Threshold of eq. 9, nats per token; the paper does not publish its own. `inf` never masks."""
    kl_beta: float = 1e-3
    """Weight of the KL term where a row brings none of its own; 0 needs no reference policy."""
    kl_ratio_max: float = 10.0
    """Upper bound of the ratio inside the KL term; nothing else in it is clamped."""
    tis_max: float | None = None
    """Upper bound of the weight old/mu on the surrogate (truncated importance sampling); None: no weight."""
    constant_length: int | None = None
    """Divisor of the reduction of that name, in tokens."""
    std_floor: float = 1e-3
    """Smallest deviation that `mean_std` divides by."""

    def __post_init__(self) -> None:
        for name, choices in (
            ("term", Term),
            ("reduction", Reduction),
            ("baseline", Baseline),
            ("ratio_level", RatioLevel),
        ):
            if getattr(self, name) not in get_args(choices):
                raise SpecError(f"{name} is {getattr(self, name)!r}; choose one of {', '.join(get_args(choices))}")
        sound = {
            "clip_low": 0 < self.clip_low <= 1,
            "clip_high": self.clip_high > 0,
            "cispo_ratio_max": self.cispo_ratio_max > 0,
            "off_policy_delta": self.off_policy_delta >= 0,
            "kl_beta": 0 <= self.kl_beta < math.inf,
            "kl_ratio_max": self.kl_ratio_max >= 1,
            "tis_max": self.tis_max is None or self.tis_max > 0,
            "constant_length": self.constant_length is None or self.constant_length > 0,
            "std_floor": self.std_floor > 0,
        }
        for name, is_sound in sound.items():
            if not is_sound:
                raise SpecError(f"{name} is {getattr(self, name)!r}, which is out of range; see GrpoConfig.{name}")
        if (self.reduction == "constant_length") != (self.constant_length is not None):
            raise SpecError("constant_length must be given with the reduction of that name, and only with it")


@dataclass(frozen=True, kw_only=True, eq=False)
class LossInputs:
    """What the loss needs besides the live log-probabilities; nothing in it carries a gradient."""

    mu: Tensor
    """Log-probabilities that the sampler recorded, nats, [N, T]."""
    mask: Tensor
    """True on every sampled token, end of turn included; False on prompts, observations, padding. Bool [N, T]."""
    advantages: Tensor
    """Advantages, [N] or [N, 1]; or [N, T] where they vary by token."""
    old: Tensor | None = None
    """Log-probabilities recomputed by the trainer at the weights of the rollout, [N, T]; None: mu."""
    ref: Tensor | None = None
    """Log-probabilities of the reference policy, [N, T]; None only without a KL term."""
    kl_beta: Tensor | None = None
    """Weight of the KL term by row, [N] (the paper tunes it by domain); None: `GrpoConfig.kl_beta`."""
    trajectory_ids: Tensor | None = None
    """Which trajectory a row belongs to, int [N]; None: each row is a whole one. Segments stay in one micro-batch."""
    domains: tuple[str, ...] = ()
    """Domain of each row, for the metrics by domain; empty: none."""


@dataclass(frozen=True, kw_only=True)
class Totals:
    """Counts over the whole step: every micro-batch and every rank, before any rejection."""

    n_trajectories: int
    """Trajectories with an action token."""
    n_tokens: int
    """Action tokens."""


def domain_betas(domains: Sequence[str], default: float, by_domain: Mapping[str, float]) -> Tensor:
    """Give each row the KL weight of its domain, fp32 [N].

    Source: DeepSeek-V3.2, section 3.1: the strength of the KL is tuned by domain, down to 0.

    Args:
        domains: Domain of each row.
        default: Weight of domains that are not named.
        by_domain: Weights by domain.

    Returns:
        Weights, fp32 [N].
    """
    return torch.tensor([by_domain.get(domain, default) for domain in domains], dtype=torch.float32)


def count_totals(mask_NT: Tensor, trajectory_ids_N: Tensor | None = None) -> Totals:
    """Count the trajectories and action tokens of a whole step.

    Args:
        mask_NT: Action mask, bool [N, T].
        trajectory_ids_N: Which trajectory each row belongs to, int [N]; None: each row is one.

    Returns:
        Counts; a row without action tokens is padding and counts for nothing.
    """
    acting_N = mask_NT.any(dim=1)
    rows = acting_N if trajectory_ids_N is None else torch.unique(trajectory_ids_N[acting_N])
    n_trajectories = int(rows.sum()) if trajectory_ids_N is None else rows.numel()
    return Totals(n_trajectories=n_trajectories, n_tokens=int(mask_NT.sum()))


def log_ratio(logp_NT: Tensor, old_NT: Tensor, inputs: LossInputs, level: RatioLevel = "token") -> Tensor:
    """Compare the live policy with the one that the ratio refers to.

    Source: DeepSeek-V3.2, eq. 5, r = pi / pi_old; at sequence level GSPO, arXiv:2507.18071: the geometric mean of r.

    Args:
        logp_NT: Live log-probabilities, [N, T].
        old_NT: Log-probabilities below the fraction line, [N, T].
        inputs: Mask and trajectory ids.
        level: Whether all tokens of a trajectory share one ratio.

    Returns:
        log r, [N, T], within +-MAX_LOG_RATIO, exactly 0 where there is no action.
    """
    difference_NT = _on_actions(logp_NT - old_NT, inputs.mask)
    if level == "sequence":
        mean_N = _trajectory_mean(difference_NT, inputs)
        difference_NT = _on_actions(mean_N[:, None].expand_as(difference_NT), inputs.mask)
    return difference_NT.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)


def surrogate(log_ratio_NT: Tensor, logp_NT: Tensor, advantages_NT: Tensor, config: GrpoConfig) -> Tensor:
    """Weigh each token by its advantage; larger is better.

    Source: DeepSeek-V3.2, eq. 5: min(r A, clip(r, 1 - low, 1 + high) A); CISPO, arXiv:2506.13585: sg(min(r, max)) A log pi.

    Args:
        log_ratio_NT: log r, [N, T].
        logp_NT: Live log-probabilities, finite everywhere, [N, T]; only the CISPO term reads them.
        advantages_NT: Advantages, [N, T].
        config: Term and bounds.

    Returns:
        The term of each token, [N, T].
    """
    ratio_NT = log_ratio_NT.exp()
    if config.term == "cispo":
        return ratio_NT.detach().clamp(max=config.cispo_ratio_max) * advantages_NT * logp_NT
    clipped_NT = ratio_NT.clamp(1 - config.clip_low, 1 + config.clip_high)
    return torch.minimum(ratio_NT * advantages_NT, clipped_NT * advantages_NT)


def unbiased_kl(logp_NT: Tensor, inputs: LossInputs, ratio_max: float) -> tuple[Tensor, Tensor]:
    """Estimate KL(pi || ref) from tokens that mu drew, with an unbiased gradient.

    Source: DeepSeek-V3.2, eq. 7: (pi/mu) (ref/pi - log(ref/pi) - 1). The gradient flows through pi/mu, and that part of
    it does not vanish at pi = mu. The ratio is the token's own at either ratio level: a product over the trajectory
    would estimate something else. Only the ratio is clamped: a bound on the bracket would switch the gradient off
    exactly where the policy has left the reference furthest.

    Args:
        logp_NT: Live log-probabilities, [N, T].
        inputs: Recorded and reference log-probabilities, and the mask.
        ratio_max: Upper bound of pi/mu.

    Returns:
        The estimate, [N, T], 0 where there is no action; and whether its ratio was clamped, bool [N, T].

    Raises:
        SpecError: there are no reference log-probabilities.
    """
    if inputs.ref is None:
        raise SpecError("the KL term needs ref; give it, or set kl_beta to 0")
    log_r_NT = _on_actions(logp_NT - inputs.mu, inputs.mask)
    gap_NT = _on_actions(inputs.ref - logp_NT, inputs.mask)
    clamped_NT = log_r_NT > math.log(ratio_max)
    log_r_NT = log_r_NT.clamp(max=math.log(ratio_max))
    r_NT = log_r_NT.exp()
    # One formula, two ways to evaluate it: near 0 the first keeps the digits; far from 0 the second cannot overflow,
    # because exp(log r + gap) is ref/mu. Each is fed zeros where it is not used, so that its gradient is finite there.
    near_NT = gap_NT.abs() < 1
    small_NT = torch.where(near_NT, gap_NT, 0)
    large_NT = torch.where(near_NT, 0, gap_NT)
    near_kl_NT = r_NT * (torch.expm1(small_NT) - small_NT)
    far_kl_NT = (log_r_NT + large_NT).exp() - r_NT * (1 + large_NT)
    return torch.where(near_NT, near_kl_NT, far_kl_NT), clamped_NT


def off_policy_keep(logp_NT: Tensor, advantages_NT: Tensor, inputs: LossInputs, delta: float) -> Tensor:
    """Decide which trajectories the surrogate may learn from.

    Source: DeepSeek-V3.2, eq. 9: M = 0 if A < 0 and the mean of log(mu/pi) over the trajectory's own tokens > delta,
    else 1. mu is what the sampler recorded, so that a difference between engines counts as drift too. Where advantages
    vary by token, the sign of their mean decides for the whole trajectory.

    Args:
        logp_NT: Live log-probabilities, [N, T]; no gradient is taken.
        advantages_NT: Advantages, [N, T].
        inputs: Recorded log-probabilities, mask and trajectory ids.
        delta: Threshold, nats per token.

    Returns:
        M, bool [N]; equal for all segments of a trajectory.
    """
    drift_N = _trajectory_mean(_on_actions(inputs.mu - logp_NT.detach(), inputs.mask), inputs)
    advantage_N = _trajectory_mean(_on_actions(advantages_NT, inputs.mask), inputs)
    return ~((advantage_N < 0) & (drift_N > delta))


def reduce_tokens(values_NT: Tensor, inputs: LossInputs, config: GrpoConfig, totals: Totals) -> Tensor:
    """Turn one number per token into one number, such that micro-batches of a step add up.

    Source: DeepSeek-V3.2, eq. 5: the mean over trajectories of the mean over their own tokens. Token mean: DAPO,
    arXiv:2503.14476; constant length: Dr.GRPO, arXiv:2503.20783. Divisors are counted over the whole step and before
    any rejection, so that a mask scales nothing else.

    Args:
        values_NT: One number per token, [N, T]; read on action tokens alone.
        inputs: Mask and trajectory ids.
        config: The reduction.
        totals: Counts over the whole step.

    Returns:
        A scalar: the share of these rows in the step's value.
    """
    row_sums_N = _on_actions(values_NT, inputs.mask).sum(dim=1)
    if config.reduction == "token_mean":
        return row_sums_N.sum() / totals.n_tokens
    if config.constant_length is not None:  # given with the reduction of that name, and only with it
        return row_sums_N.sum() / (totals.n_trajectories * config.constant_length)
    return (row_sums_N / _trajectory_tokens(inputs)).sum() / totals.n_trajectories


def grpo_loss(
    logp_NT: Tensor, inputs: LossInputs, config: GrpoConfig, totals: Totals
) -> tuple[Tensor, dict[str, Tensor]]:
    """Compute the share of some rows in the loss of a step, to be minimized.

    Source: DeepSeek-V3.2, eq. 5 to 9:
    loss = -mean_i(mean_t(surrogate M tis)) + mean_i(beta_i mean_t(kl)). Neither M nor the weight touches the KL.

    Args:
        logp_NT: Live log-probabilities of the sampled tokens, nats, [N, T], with gradient.
        inputs: Everything that carries no gradient.
        config: Which loss.
        totals: Counts over the whole step; `count_totals` of the whole batch where it is not split.

    Returns:
        The loss, a scalar; and metrics, detached scalars that add up over micro-batches as the loss does, except that
        those ending in `/max` combine by their maximum (`merge_metrics`).

    Raises:
        SpecError: shapes disagree, the step is empty, or a KL term has no reference.
    """
    inputs = _checked(logp_NT, inputs, totals)
    logp_NT = _on_actions(_at_least_fp32(logp_NT), inputs.mask)
    advantages_NT = inputs.advantages.expand_as(logp_NT)
    old_NT = inputs.mu if inputs.old is None else inputs.old

    log_r_NT = log_ratio(logp_NT, old_NT, inputs, config.ratio_level)
    keep_N = off_policy_keep(logp_NT, advantages_NT, inputs, config.off_policy_delta)
    gain_NT = surrogate(log_r_NT, logp_NT, advantages_NT, config) * keep_N[:, None]
    if config.tis_max is not None:
        weight_NT = _on_actions(old_NT - inputs.mu, inputs.mask).exp().clamp(max=config.tis_max)
        gain_NT = gain_NT * weight_NT.detach()
    policy_loss = -reduce_tokens(gain_NT, inputs, config, totals)
    metrics = {"loss/policy": policy_loss.detach()}
    metrics |= _ratio_metrics(log_r_NT.detach(), advantages_NT, config, inputs, totals)
    metrics |= _mask_metrics(keep_N, inputs, totals)
    loss = policy_loss
    if inputs.ref is not None or inputs.kl_beta is not None or config.kl_beta > 0:
        kl_NT, clamped_NT = unbiased_kl(logp_NT, inputs, config.kl_ratio_max)
        beta_N = torch.full_like(kl_NT[:, 0], config.kl_beta) if inputs.kl_beta is None else inputs.kl_beta
        kl_loss = reduce_tokens(kl_NT * beta_N[:, None], inputs, config, totals)
        loss = policy_loss + kl_loss
        metrics["loss/kl"] = kl_loss.detach()
        metrics |= _kl_metrics(logp_NT.detach(), kl_NT.detach(), clamped_NT, inputs, totals)
    metrics["loss/total"] = loss.detach()
    return loss, metrics


def merge_metrics(parts: Iterable[Mapping[str, Tensor]]) -> dict[str, float]:
    """Combine the metrics of all micro-batches of a step.

    Args:
        parts: What `grpo_loss` returned for each.

    Returns:
        Sums, and maxima of the names that end in `/max`.
    """
    merged: dict[str, float] = {}
    for part in parts:
        for name, tensor in part.items():
            value = float(tensor)
            if name not in merged:
                merged[name] = value
            else:
                merged[name] = max(merged[name], value) if name.endswith("/max") else merged[name] + value
    return merged


def _at_least_fp32(x: Tensor) -> Tensor:
    """fp64 stays, everything else becomes fp32: half precision would round ratios near 1 to 1."""
    return x if x.dtype == torch.float64 else x.float()


def _on_actions(x_NT: Tensor, mask_NT: Tensor) -> Tensor:
    """Zero what is no action. A product with the mask would keep the NaN of an infinite padding value."""
    return torch.where(mask_NT, x_NT, 0)


def _over_trajectory(x_N: Tensor, inputs: LossInputs) -> Tensor:
    """Give each row the sum over all rows of its trajectory, [N]."""
    ids_N = inputs.trajectory_ids
    return x_N if ids_N is None else torch.where(ids_N[:, None] == ids_N[None, :], x_N[None, :], 0).sum(dim=1)


def _trajectory_tokens(inputs: LossInputs) -> Tensor:
    """|o_i|: action tokens of each row's whole trajectory, at least 1, [N]."""
    return _over_trajectory(inputs.mask.sum(dim=1), inputs).clamp(min=1)


def _trajectory_mean(x_NT: Tensor, inputs: LossInputs) -> Tensor:
    """Mean over the action tokens of each row's whole trajectory, [N]; x is 0 where there is no action."""
    return _over_trajectory(x_NT.sum(dim=1), inputs) / _trajectory_tokens(inputs)


def _checked(logp_NT: Tensor, inputs: LossInputs, totals: Totals) -> LossInputs:
    """Refuse shapes that would broadcast into nonsense; detach, widen, and bring advantages to [N, 1] or [N, T].

    Raises:
        SpecError: a shape or the type of the mask is wrong, or the step is empty.
    """
    if logp_NT.ndim != 2 or totals.n_tokens < 1 or totals.n_trajectories < 1:
        raise SpecError(f"log-probabilities {tuple(logp_NT.shape)} with {totals}: nothing to learn from, or not [N, T]")
    n_rows, n_tokens = logp_NT.shape
    wanted = {
        "mu": [(n_rows, n_tokens)],
        "mask": [(n_rows, n_tokens)],
        "old": [(n_rows, n_tokens)],
        "ref": [(n_rows, n_tokens)],
        "advantages": [(n_rows,), (n_rows, 1), (n_rows, n_tokens)],
        "kl_beta": [(n_rows,)],
        "trajectory_ids": [(n_rows,)],
    }
    for name, shapes in wanted.items():
        tensor = getattr(inputs, name)
        if tensor is not None and tuple(tensor.shape) not in shapes:
            raise SpecError(
                f"{name} has shape {tuple(tensor.shape)}; with logp {(n_rows, n_tokens)} it must be {shapes}"
            )
    if inputs.mask.dtype != torch.bool or len(inputs.domains) not in (0, n_rows):
        raise SpecError(f"mask is {inputs.mask.dtype} and must be bool; domains are {len(inputs.domains)}, not N")
    wide = {
        name: _at_least_fp32(getattr(inputs, name).detach())
        for name in ("mu", "old", "ref", "advantages", "kl_beta")
        if getattr(inputs, name) is not None
    }
    advantages = wide["advantages"]
    wide["advantages"] = advantages[:, None] if advantages.ndim == 1 else advantages
    return replace(inputs, **wide)


def _token_mean(x_NT: Tensor, inputs: LossInputs, totals: Totals) -> Tensor:
    return torch.where(inputs.mask, x_NT.double(), 0).sum() / totals.n_tokens


def _ratio_metrics(
    log_r_NT: Tensor, advantages_NT: Tensor, config: GrpoConfig, inputs: LossInputs, totals: Totals
) -> dict[str, Tensor]:
    """Mean and largest ratio, share of tokens whose gradient the clip stops on each side, or whose ratio saturates."""
    ratio_NT = log_r_NT.exp()
    if config.term == "cispo":
        low_NT, high_NT = torch.zeros_like(inputs.mask), ratio_NT > config.cispo_ratio_max
    else:
        low_NT = (ratio_NT < 1 - config.clip_low) & (advantages_NT < 0)
        high_NT = (ratio_NT > 1 + config.clip_high) & (advantages_NT > 0)
    found = {
        "ratio/mean": ratio_NT,
        "ratio/clip_low": low_NT,
        "ratio/clip_high": high_NT,
        "ratio/saturated": log_r_NT.abs() >= MAX_LOG_RATIO,
    }
    metrics = {name: _token_mean(x_NT, inputs, totals) for name, x_NT in found.items()}
    metrics["ratio/max"] = _on_actions(ratio_NT, inputs.mask).max()
    if inputs.old is not None:
        drift_NT = _on_actions((inputs.old - inputs.mu).abs(), inputs.mask)
        metrics |= {"drift/mean": _token_mean(drift_NT, inputs, totals), "drift/max": drift_NT.max()}
    return metrics


def _mask_metrics(keep_N: Tensor, inputs: LossInputs, totals: Totals) -> dict[str, Tensor]:
    """Masked trajectories as a share of all, and by domain, still as a share of all."""
    share_N = inputs.mask.sum(dim=1).double() / _trajectory_tokens(inputs) / totals.n_trajectories
    masked_N = torch.where(keep_N, 0, share_N)
    metrics = {"mask/off_policy": masked_N.sum()}
    for domain in sorted(set(inputs.domains)):
        rows_N = torch.tensor([name == domain for name in inputs.domains], device=masked_N.device)
        metrics[f"mask/off_policy/{domain}"] = masked_N[rows_N].sum()
    return metrics


def _kl_metrics(
    logp_NT: Tensor, kl_NT: Tensor, clamped_NT: Tensor, inputs: LossInputs, totals: Totals
) -> dict[str, Tensor]:
    """Token means of the plain estimators, of the unbiased one, and of how often its ratio was clamped."""
    gap_NT = torch.zeros_like(logp_NT) if inputs.ref is None else _on_actions(inputs.ref - logp_NT, inputs.mask)
    found = {
        "kl/k1": -gap_NT,
        "kl/k3": torch.expm1(gap_NT) - gap_NT,
        "kl/unbiased": kl_NT,
        "kl/ratio_clamped": clamped_NT,
    }
    return {name: _token_mean(x_NT, inputs, totals) for name, x_NT in found.items()}
