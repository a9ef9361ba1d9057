"""GRPO against enumeration: gradients in expectation, the KL, the off-policy mask, and what must not change the loss."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from envsynth.errors import SpecError
from envsynth.policy.advantages import group_advantages
from envsynth.policy.grpo import (
    GrpoConfig,
    LossInputs,
    Totals,
    count_totals,
    domain_betas,
    grpo_loss,
    merge_metrics,
    off_policy_keep,
    unbiased_kl,
)
from envsynth.policy.sampling import (
    SamplingConfig,
    draw,
    keep_mask,
    kept_from_mask,
    kept_log_probs,
    token_log_probs,
)

F64 = torch.float64
PLAIN = GrpoConfig(kl_beta=0.0, clip_low=1.0, clip_high=1e9, off_policy_delta=math.inf)
"""The surrogate alone: no clip, no mask, no KL."""
KL_ONLY = GrpoConfig(kl_beta=1.0, off_policy_delta=math.inf)
"""For rows with advantage 0: the KL alone."""


def number(x):
    return x.detach().item() if isinstance(x, torch.Tensor) else float(x)


def randn(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def relative_error(found, wanted):
    return number((found - wanted).norm() / wanted.norm())


def gradient(scalar, parameter):
    return torch.autograd.grad(scalar, parameter, retain_graph=True)[0]


# --- G1, G2: a two-step process with an observation between the actions, all of it enumerated -----------------------

V = 5
END = 4
"""In the variant with two lengths, this first action ends the episode."""


def process(n_observations=2, ends=False):
    """All trajectories [prompt, action, observation, action], what the world adds to their probability, returns."""
    rows, world, mask = [], [], []
    chance = randn(V, n_observations, seed=1).softmax(-1)
    for first, seen, second in itertools.product(range(V), range(n_observations), range(V)):
        if ends and first == END:
            if (seen, second) == (0, 0):
                rows.append([0, first, 0, 0])
                world.append(1.0)
                mask.append([False, True, False, False])
        else:
            rows.append([0, first, 1 + seen, second])
            world.append(number(chance[first, seen]))
            mask.append([False, True, False, True])
    returns = randn(len(rows), seed=2)
    return torch.tensor(rows), torch.tensor(world, dtype=F64), torch.tensor(mask), returns


def log_probs(theta, tokens_NT):
    """A policy that sees the last token alone."""
    return token_log_probs(theta[tokens_NT], tokens_NT, None, 1.0)


def row_probabilities(theta, tokens_NT, world_N, mask_NT):
    """Probability of each trajectory, by products of a softmax; no code of the loss is used."""
    table = theta.softmax(-1)
    previous, following = tokens_NT[:, :-1], tokens_NT[:, 1:]
    chosen = table[previous, following]
    return world_N * torch.where(mask_NT[:, 1:], chosen, 1.0).prod(dim=1)


def pairs_of(n_rows):
    left, right = torch.meshgrid(torch.arange(n_rows), torch.arange(n_rows), indexing="ij")
    return torch.stack([left.flatten(), right.flatten()], dim=1)  # [pairs, 2]


def expected_over_groups(theta, behaviour, config, ends=False):
    """E[loss] over all groups of two that the behaviour policy can play, exactly.

    The surrogate is homogeneous in the advantage, so an advantage times the probability of its group makes one call of
    the loss an expectation.
    """
    tokens_NT, world_N, mask_NT, returns_N = process(ends=ends)
    pairs = pairs_of(len(tokens_NT))
    members = pairs.flatten()
    chance_N = row_probabilities(behaviour, tokens_NT, world_N, mask_NT)
    weights = chance_N[pairs].prod(dim=1).repeat_interleave(2)
    groups = torch.arange(len(pairs)).repeat_interleave(2)
    advantages = group_advantages(returns_N[members], groups, config.baseline).values
    inputs = LossInputs(
        mu=log_probs(behaviour, tokens_NT)[members].detach(),
        mask=mask_NT[members],
        advantages=advantages * weights,
    )
    totals = Totals(n_trajectories=2, n_tokens=4)
    return grpo_loss(log_probs(theta, tokens_NT)[members], inputs, config, totals)[0]


def expected_return(theta, ends=False):
    tokens_NT, world_N, mask_NT, returns_N = process(ends=ends)
    return (row_probabilities(theta, tokens_NT, world_N, mask_NT) * returns_N).sum()


@pytest.mark.parametrize(("baseline", "factor"), [("mean", 0.5), ("leave_one_out", 1.0)])
@pytest.mark.parametrize("reduction", ["sequence_mean", "token_mean"])
def test_loss_gradient_is_the_gradient_of_the_return(baseline, factor, reduction):
    """G1. With the group's own mean the factor is 1 - 1/G; each trajectory has two action tokens."""
    theta = randn(V, V, seed=3).requires_grad_()
    config = replace(PLAIN, baseline=baseline, reduction=reduction)
    found = gradient(expected_over_groups(theta, theta.detach(), config), theta)
    wanted = -factor / 2 * gradient(expected_return(theta), theta)
    assert relative_error(found, wanted) < 1e-12


def test_constant_length_gradient_is_unbiased_where_lengths_differ():
    """G1. The paper's mean over own tokens favours short successes; a constant divisor does not."""
    theta = randn(V, V, seed=3).requires_grad_()
    wanted = -0.5 / 3 * gradient(expected_return(theta, ends=True), theta)
    constant = replace(PLAIN, reduction="constant_length", constant_length=3)
    assert relative_error(gradient(expected_over_groups(theta, theta.detach(), constant, True), theta), wanted) < 1e-12
    by_length = gradient(expected_over_groups(theta, theta.detach(), PLAIN, True), theta)
    scale = (by_length * wanted).sum() / (wanted * wanted).sum()
    assert relative_error(by_length, scale * wanted) > 0.05


def test_cispo_gradient_on_policy_is_the_gradient_of_the_return():
    theta = randn(V, V, seed=3).requires_grad_()
    found = gradient(expected_over_groups(theta, theta.detach(), replace(PLAIN, term="cispo")), theta)
    assert relative_error(found, -0.25 * gradient(expected_return(theta), theta)) < 1e-12


def stale_gradient_by_hand(theta, behaviour):
    """-1/2 E_mu[A r_t (onehot - softmax)] over groups of two, token by token, without autograd."""
    tokens_NT, world_N, mask_NT, returns_N = process()
    chance_N = row_probabilities(behaviour, tokens_NT, world_N, mask_NT)
    centred_N = 0.5 * (returns_N - (chance_N * returns_N).sum())  # E of R_i - (R_i + R_j)/2 given i
    live, stale = theta.detach().softmax(-1), behaviour.softmax(-1)
    total = torch.zeros(V, V, dtype=F64)
    for row, tokens in enumerate(tokens_NT.tolist()):
        for t in (1, 3):
            state, action = tokens[t - 1], tokens[t]
            score = -live[state].clone()
            score[action] += 1
            total[state] -= chance_N[row] * centred_N[row] * live[state, action] / stale[state, action] * score / 2
    return total


@pytest.mark.parametrize("term", ["grpo", "cispo"])
def test_stale_loss_gradient_is_its_enumerated_expectation(term):
    """G2. CISPO with an idle bound has the same gradient: sg(r) grad(log pi) = grad(r)."""
    theta = randn(V, V, seed=3).requires_grad_()
    behaviour = theta.detach() + 0.5 * randn(V, V, seed=4)
    found = gradient(expected_over_groups(theta, behaviour, replace(PLAIN, term=term, cispo_ratio_max=1e9)), theta)
    assert relative_error(found, stale_gradient_by_hand(theta, behaviour)) < 1e-12


def test_stale_loss_bias_vanishes_with_the_drift():
    """G2. Token ratios leave the distribution of states to mu; that bias goes to 0 as the drift does."""
    theta = randn(V, V, seed=3).requires_grad_()
    wanted = -0.25 * gradient(expected_return(theta), theta)
    errors = []
    for drift in (0.8, 0.4, 0.2, 0.1, 0.01):
        behaviour = theta.detach() + drift * randn(V, V, seed=4)
        errors.append(relative_error(gradient(expected_over_groups(theta, behaviour, PLAIN), theta), wanted))
    assert errors == sorted(errors, reverse=True)
    assert errors[0] > 0.1
    assert errors[-1] < 0.01


# --- K1, K2: the KL -------------------------------------------------------------------------------------------------


def kl(a, b):
    return (a.softmax(-1) * (a.log_softmax(-1) - b.log_softmax(-1))).sum(-1)


def expected_kl_loss(logp_NT, mu_NT, ref_NT, weights_N, config=KL_ONLY):
    """E[KL term] over enumerated rows: the term is linear in beta, so beta carries the probability."""
    inputs = LossInputs(
        mu=mu_NT, mask=torch.ones_like(mu_NT, dtype=torch.bool), advantages=0 * weights_N, ref=ref_NT, kl_beta=weights_N
    )
    return grpo_loss(logp_NT, inputs, config, Totals(n_trajectories=1, n_tokens=mu_NT.shape[1]))


def one_step():
    """Six tokens; the reference loves the last one, which the policy has almost given up (k3 far above 10 there)."""
    theta, reference = randn(6, seed=5), randn(6, seed=6)
    theta[5], reference[5] = -4.0, 1.0
    theta.requires_grad_()
    old = theta.detach() + 0.6 * randn(6, seed=7)
    return theta, old, reference


@pytest.mark.parametrize("level", ["token", "sequence"])
def test_kl_gradient_is_that_of_the_reverse_kl_off_policy(level):
    """K1, first row of the table, one step."""
    theta, old, reference = one_step()
    logp, mu, ref = (x.log_softmax(-1)[:, None] for x in (theta, old, reference))
    loss, metrics = expected_kl_loss(logp, mu, ref, old.softmax(-1), replace(KL_ONLY, ratio_level=level))
    assert relative_error(gradient(loss, theta), gradient(kl(theta, reference), theta)) < 1e-12
    assert relative_error(gradient(loss, theta), gradient(kl(reference, theta), theta)) > 0.1
    assert number(loss) == pytest.approx(number(kl(theta, reference)), rel=1e-12)
    assert metrics["kl/ratio_clamped"] == 0


@pytest.mark.parametrize("level", ["token", "sequence"])
@pytest.mark.parametrize("drift", [0.0, 0.6])
def test_kl_gradient_over_two_steps_uses_the_ratio_of_each_token(level, drift):
    """K1 over sequences: the mean over tokens of the KL in each state that mu visits, at either ratio level."""
    theta = randn(4, 4, seed=8).requires_grad_()
    reference = randn(4, 4, seed=9)
    old = theta.detach() + drift * randn(4, 4, seed=10)
    tokens_NT = torch.tensor([[0, *pair] for pair in itertools.product(range(4), repeat=2)])
    mu = log_probs(old, tokens_NT)
    weights_N = mu.sum(dim=1).exp()
    config = replace(KL_ONLY, ratio_level=level)
    loss, _ = expected_kl_loss(
        log_probs(theta, tokens_NT)[:, 1:], mu[:, 1:], log_probs(reference, tokens_NT)[:, 1:], weights_N, config
    )
    by_state = kl(theta, reference)
    wanted = (by_state[0] + (old[0].softmax(-1) * by_state).sum()) / 2
    assert relative_error(gradient(loss, theta), gradient(wanted, theta)) < 1e-12


def test_table_of_kl_estimators():
    """K1, the whole table: which estimator has the gradient of which KL. Ours is the first row; the rest are foils."""
    theta, old, reference = one_step()
    logp, mu, ref = theta.log_softmax(-1), old.log_softmax(-1), reference.log_softmax(-1)
    reverse, forward = gradient(kl(theta, reference), theta), gradient(kl(reference, theta), theta)
    inputs = LossInputs(mu=mu[:, None], mask=torch.ones(6, 1, dtype=torch.bool), advantages=mu, ref=ref[:, None])
    ours = unbiased_kl(logp[:, None], inputs, 10.0)[0][:, 0]
    k1, k3 = logp - ref, (ref - logp).exp() - (ref - logp) - 1
    k2 = k1**2 / 2
    ratio = (logp - mu).exp()
    on, off = logp.detach().exp(), mu.exp()
    rows = {
        "off r k3, live r": (off * ours, True, False),
        "on k3": (on * k3, False, True),
        "off k3": (off * k3, False, False),
        "off sg(r) k3": (off * ratio.detach() * k3, False, True),
        "off sg(r) k2": (off * ratio.detach() * k2, True, False),
        "off k2": (off * k2, False, False),
    }
    for name, (terms, is_reverse, is_forward) in rows.items():
        found = gradient(terms.sum(), theta)
        for wanted, is_equal in ((reverse, is_reverse), (forward, is_forward)):
            error = relative_error(found, wanted)
            assert error < 1e-12 if is_equal else error > 0.1, (name, error)
    assert number(gradient((on * k1).sum(), theta).norm()) < 1e-12
    assert number(k3.max()) > 10
    assert relative_error(gradient((off * ratio * k3.clamp(max=10)).sum(), theta), reverse) > 0.1


def test_kl_gradient_on_policy_still_flows_through_the_ratio():
    """With r = 1 in value, the gradient must not be that of plain k3."""
    theta, _, reference = one_step()
    old = theta.detach()
    logp, mu, ref = (x.log_softmax(-1)[:, None] for x in (theta, old, reference))
    loss, _ = expected_kl_loss(logp, mu, ref, old.softmax(-1))
    assert relative_error(gradient(loss, theta), gradient(kl(theta, reference), theta)) < 1e-12


@pytest.mark.parametrize("is_ref_cut", [True, False])
def test_kl_gradient_under_kept_sets_is_that_of_the_truncated_policies(is_ref_cut):
    """The reference's mass in the kept set is a constant: uncut, it inflates the value and leaves the gradient."""
    theta, old, reference = one_step()
    keep = keep_mask(old[None, :], SamplingConfig(top_p=0.8))[0]
    inside = keep.nonzero()[:, 0]
    assert 2 <= len(inside) < 6
    kept = kept_from_mask(keep.expand(len(inside), 6), inside)
    logp, mu, ref = (
        kept_log_probs(x.expand(len(inside), 6), inside, sets, 1.0)[:, None]
        for x, sets in ((theta, kept), (old, kept), (reference, kept if is_ref_cut else None))
    )
    loss, _ = expected_kl_loss(logp, mu, ref, mu[:, 0].exp())
    wanted = kl(theta[inside], reference[inside])
    assert relative_error(gradient(loss, theta), gradient(wanted, theta)) < 1e-12
    mass = number(reference.softmax(-1)[inside].sum())
    assert number(loss - wanted) == pytest.approx(0.0 if is_ref_cut else -math.log(mass) + mass - 1, abs=1e-12)


def test_kl_value_is_unbiased_and_has_less_variance_than_k1():
    """K2: a million draws from a stale policy; the 99 % interval covers the exact KL, and r k3 varies less than r k1."""
    theta = randn(6, seed=11)
    reference = theta + 0.1 * randn(6, seed=12)
    old = theta + 0.4 * randn(6, seed=13)
    n = 1_000_000
    ids = torch.multinomial(old.softmax(-1), n, replacement=True, generator=torch.Generator().manual_seed(0))
    logp, mu, ref = (x.log_softmax(-1)[ids][:, None] for x in (theta, old, reference))
    inputs = LossInputs(mu=mu, mask=torch.ones(n, 1, dtype=torch.bool), advantages=mu, ref=ref)
    draws = unbiased_kl(logp, inputs, 10.0)[0][:, 0]
    exact = number(kl(theta, reference))
    error_of_mean = number(draws.std() / math.sqrt(n))
    assert abs(number(draws.mean()) - exact) < 2.576 * error_of_mean
    assert error_of_mean < 0.02 * exact
    assert number(draws.var()) < 0.1 * number(((logp - mu).exp() * (logp - ref))[:, 0].var())


def test_kl_clamps_the_ratio_alone_and_counts_it():
    logp = torch.tensor([[-0.1, -3.0]], dtype=F64, requires_grad=True)
    mu = torch.tensor([[-4.1, -3.0]], dtype=F64)
    ref = torch.tensor([[-1.1, -0.5]], dtype=F64)
    mask = torch.ones(1, 2, dtype=torch.bool)
    inputs = LossInputs(mu=mu, mask=mask, advantages=torch.zeros(1), ref=ref)
    config = GrpoConfig(kl_beta=1.0, kl_ratio_max=10.0)
    loss, metrics = grpo_loss(logp, inputs, config, count_totals(mask))
    assert metrics["kl/ratio_clamped"] == 0.5
    k3 = [math.exp(gap) - gap - 1 for gap in (-1.0, 2.5)]
    assert number(loss) == pytest.approx((10 * k3[0] + k3[1]) / 2)
    first, second = gradient(loss, logp)[0].tolist()
    assert first == pytest.approx(10 * (1 - math.exp(-1)) / 2)  # clamped: the gradient of 10 k3
    assert second == pytest.approx(-2.5 / 2)  # not clamped: r (logp - ref)


def test_kl_stays_finite_where_the_policy_has_left_the_reference():
    """fp32, a token that the policy has all but given up: r k3 = ref/mu - r (1 + gap), with a gradient of about 0."""
    logp = torch.tensor([[-300.0]], requires_grad=True)
    inputs = LossInputs(
        mu=torch.tensor([[-1.0]]),
        mask=torch.ones(1, 1, dtype=torch.bool),
        advantages=torch.zeros(1),
        ref=torch.tensor([[-0.5]]),
    )
    loss, metrics = grpo_loss(logp, inputs, GrpoConfig(kl_beta=1.0), Totals(n_trajectories=1, n_tokens=1))
    assert number(loss) == pytest.approx(math.exp(0.5), rel=1e-6)
    assert abs(number(gradient(loss, logp))) < 1e-6
    assert metrics["kl/unbiased"] == pytest.approx(number(loss))


# --- O1, O2: the off-policy mask ------------------------------------------------------------------------------------

DELTA = 0.25


def keep(drift_NT, advantages, mask_NT=None, trajectory_ids=None):
    """M for rows with a given log(mu/pi); padding holds garbage on both sides."""
    drift_NT = torch.tensor(drift_NT, dtype=F64)
    mask_NT = torch.ones_like(drift_NT, dtype=torch.bool) if mask_NT is None else torch.tensor(mask_NT)
    logp_NT = torch.where(mask_NT, torch.full_like(drift_NT, -1.0), 1e4)
    mu_NT = torch.where(mask_NT, drift_NT - 1.0, -1e4)
    advantages = torch.tensor(advantages, dtype=F64)
    inputs = LossInputs(mu=mu_NT, mask=mask_NT, advantages=advantages, trajectory_ids=trajectory_ids)
    wide = (advantages[:, None] if advantages.ndim == 1 else advantages).expand_as(logp_NT)
    return off_policy_keep(logp_NT, wide, inputs, DELTA).tolist()


def test_off_policy_keep_truth_table():
    """O1: strict on both sides; 0.25, 0.5 and their means are exact in binary."""
    over, at, under = [0.5, 0.25], [0.5, 0.0], [0.0, 0.25]
    drift = [over, at, under] * 3
    advantages = [-1.0] * 3 + [0.0] * 3 + [1.0] * 3
    assert keep(drift, advantages) == [False, True, True, True, True, True, True, True, True]
    assert keep([over, over], [-0.0, -1e-30]) == [True, False]


def test_off_policy_keep_divides_by_own_tokens_and_ignores_padding():
    drift = [[0.5, 0.25, 0.0, 0.0], [0.5, 0.0, 9.0, -9.0], [9.0, 9.0, 9.0, 9.0]]
    mask = [[True, True, False, False], [True, True, False, False], [False] * 4]
    assert keep(drift, [-1.0, -1.0, -1.0], mask) == [False, True, True]


def test_off_policy_keep_is_one_scalar_where_advantages_vary_by_token():
    """Positive tokens of a rejected trajectory are rejected too, negative ones of an accepted one are not."""
    drift = [[1.0, 1.0, 1.0], [1.0, 1.0, 1.0]]
    assert keep(drift, [[-3.0, 1.0, 1.0], [3.0, -1.0, -1.0]]) == [False, True]


def test_off_policy_keep_is_shared_by_segments():
    drift = [[1.0, 1.0], [0.0, 0.0], [1.0, 1.0], [0.0, 0.0]]
    ids = torch.tensor([7, 7, 8, 9])
    assert keep(drift, [-1.0] * 4, trajectory_ids=ids) == [False, False, False, True]


@pytest.mark.parametrize("shape", [(3,), (3, 1), (3, 3)])
def test_advantages_of_any_shape_give_one_loss(shape):
    """A [N] that broadcast over the tokens of a square batch would give another loss."""
    logp, inputs, config, totals = random_batch(n=3, t=3, seed=20)
    wanted = grpo_loss(logp, inputs, config, totals)[0]
    wide = inputs.advantages[:, None].expand(3, 3) if shape == (3, 3) else inputs.advantages.view(shape)
    assert number(grpo_loss(logp, replace(inputs, advantages=wide), config, totals)[0]) == number(wanted)


@pytest.mark.parametrize(("is_replayed", "is_masked"), [(True, False), (False, True)])
def test_off_policy_mask_on_policy_with_top_p(is_replayed, is_masked):
    """O2: zero drift, top-p 0.8. With the kept sets replayed nothing is masked; without, the cut looks like drift."""
    n, t, v = 32, 12, 40
    config = SamplingConfig(temperature=0.9, top_p=0.8)
    logits = 1.5 * randn(n * t, v, seed=21).float()
    uniform = torch.rand(n * t, generator=torch.Generator().manual_seed(1), dtype=F64)
    sample = draw(logits, config, uniform)
    kept = kept_from_mask(sample.keep, sample.ids) if is_replayed else None
    logp = kept_log_probs(logits, sample.ids, kept, config.temperature).view(n, t)
    mask = torch.ones(n, t, dtype=torch.bool)
    advantages = torch.tensor([-1.0, 1.0]).repeat(n // 2)
    inputs = LossInputs(mu=sample.log_probs.view(n, t), mask=mask, advantages=advantages, domains=("a", "b") * (n // 2))
    loss_config = GrpoConfig(kl_beta=0.0, off_policy_delta=0.1)
    _, metrics = grpo_loss(logp, inputs, loss_config, count_totals(mask))
    assert number(metrics["mask/off_policy"]) == (0.5 if is_masked else 0.0)
    assert number(metrics["mask/off_policy/a"]) == number(metrics["mask/off_policy"])
    assert number(metrics["mask/off_policy/b"]) == 0
    assert (
        number(metrics["ratio/mean"]) == pytest.approx(1.0, abs=1e-6) if is_replayed else metrics["ratio/mean"] < 0.95
    )


# --- the loss: clip, weights, denominators --------------------------------------------------------------------------


def token_loss(log_r, advantage, config, **extra):
    """Loss and its gradient for one token with a given ratio."""
    logp = torch.tensor([[-1.0]], dtype=F64, requires_grad=True)
    inputs = LossInputs(
        mu=logp.detach() - log_r,
        mask=torch.ones(1, 1, dtype=torch.bool),
        advantages=torch.tensor([advantage], dtype=F64),
        **extra,
    )
    loss, metrics = grpo_loss(logp, inputs, config, Totals(n_trajectories=1, n_tokens=1))
    return number(loss), number(gradient(loss, logp)), {name: number(value) for name, value in metrics.items()}


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "slope", "clipped"),
    [
        (1.1, 1.0, -1.1, -1.1, ""),
        (1.5, 1.0, -1.28, 0.0, "high"),
        (0.5, 1.0, -0.5, -0.5, ""),
        (1.5, -1.0, 1.5, 1.5, ""),
        (0.5, -1.0, 0.8, 0.0, "low"),
        (0.9, -1.0, 0.9, 0.9, ""),
    ],
)
def test_surrogate_clips_as_ppo(ratio, advantage, loss, slope, clipped):
    config = GrpoConfig(kl_beta=0.0, clip_low=0.2, clip_high=0.28, off_policy_delta=math.inf)
    found, found_slope, metrics = token_loss(math.log(ratio), advantage, config)
    assert found == pytest.approx(loss)
    assert found_slope == pytest.approx(slope)
    assert metrics["ratio/clip_low"] == (clipped == "low")
    assert metrics["ratio/clip_high"] == (clipped == "high")
    assert metrics["ratio/mean"] == pytest.approx(ratio)


@pytest.mark.parametrize(("ratio", "slope"), [(2.0, -2.0), (9.0, -5.0), (0.1, -0.1)])
def test_cispo_keeps_the_gradient_of_bounded_tokens(ratio, slope):
    config = GrpoConfig(term="cispo", kl_beta=0.0, off_policy_delta=math.inf)
    loss, found, metrics = token_loss(math.log(ratio), 1.0, config)
    assert found == pytest.approx(slope)
    assert loss == pytest.approx(-slope * 1.0)  # sg(r) A log pi with log pi = -1
    assert metrics["ratio/clip_high"] == (ratio > 5)


def test_sequence_ratio_is_the_geometric_mean():
    logp = torch.tensor([[0.0, -1.0, -2.0], [-1.0, -1.0, 0.0]], dtype=F64, requires_grad=True)
    mask = torch.tensor([[False, True, True], [True, True, False]])
    log_r = torch.tensor([[9.0, 0.3, -0.1], [0.2, 0.2, -9.0]], dtype=F64)
    inputs = LossInputs(mu=logp.detach() - log_r, mask=mask, advantages=torch.ones(2, dtype=F64))
    config = replace(PLAIN, ratio_level="sequence")
    loss, metrics = grpo_loss(logp, inputs, config, count_totals(mask))
    assert number(loss) == pytest.approx(-(math.exp(0.1) + math.exp(0.2)) / 2)
    assert number(metrics["ratio/max"]) == pytest.approx(math.exp(0.2))
    slopes = gradient(loss, logp)
    assert slopes[0].tolist() == pytest.approx([0.0, -math.exp(0.1) / 4, -math.exp(0.1) / 4])


def test_kl_is_touched_neither_by_the_mask_nor_by_the_weight():
    """A trajectory that the mask rejects, under a weight far from 1, has exactly the KL's loss and slope."""
    drift, ref = torch.tensor([[-2.0]], dtype=F64), torch.tensor([[-1.5]], dtype=F64)
    old = torch.tensor([[-1.2]], dtype=F64)
    config = GrpoConfig(kl_beta=0.5, tis_max=2.0, off_policy_delta=0.1)
    inputs = {"old": old, "ref": ref}
    loss, slope, metrics = token_loss(number(drift), -1.0, config, **inputs)
    assert metrics["mask/off_policy"] == 1.0
    assert metrics["loss/policy"] == 0.0
    _, _, alone = token_loss(number(drift), 0.0, replace(config, tis_max=None), **inputs)
    assert loss == pytest.approx(alone["loss/kl"], rel=1e-12)
    assert loss == pytest.approx(0.5 * alone["kl/unbiased"], rel=1e-12)
    assert slope == pytest.approx(0.5 * math.exp(-2.0) * 0.5)  # beta r (logp - ref)


def test_truncated_weight_is_detached_and_bounded():
    old = torch.tensor([[-1.2]], dtype=F64)
    plain = replace(PLAIN, tis_max=None)
    _, slope, metrics = token_loss(0.5, 1.0, plain, old=old)  # mu = -1.5, r = exp(0.2)
    assert slope == pytest.approx(-math.exp(0.2))
    assert metrics["drift/max"] == pytest.approx(0.3)
    assert token_loss(0.5, 1.0, replace(plain, tis_max=2.0), old=old)[1] == pytest.approx(
        -math.exp(0.2) * math.exp(0.3)
    )
    assert token_loss(0.5, 1.0, replace(plain, tis_max=1.1), old=old)[1] == pytest.approx(-math.exp(0.2) * 1.1)


def test_mask_leaves_the_denominators():
    """Rejecting one of two trajectories doubles nothing for the other; the clip is out of the way."""
    logp = torch.full((2, 2), -1.0, dtype=F64, requires_grad=True)
    mask = torch.ones(2, 2, dtype=torch.bool)
    mu = torch.tensor([[-1.0, -1.0], [0.0, 0.0]], dtype=F64)
    inputs = LossInputs(mu=mu, mask=mask, advantages=torch.tensor([-1.0, -1.0], dtype=F64))
    for reduction in ("sequence_mean", "token_mean"):
        config = replace(PLAIN, off_policy_delta=0.5, reduction=reduction)
        slopes = gradient(grpo_loss(logp, inputs, config, count_totals(mask))[0], logp)
        assert slopes.tolist() == [[0.25, 0.25], [0.0, 0.0]]


def test_reductions_weigh_tokens_as_named():
    logp = torch.zeros(2, 3, dtype=F64, requires_grad=True)
    mask = torch.tensor([[True, False, False], [True, True, True]])
    inputs = LossInputs(mu=logp.detach(), mask=mask, advantages=torch.ones(2, dtype=F64))
    wanted = {
        "sequence_mean": [[1 / 2, 0, 0], [1 / 6, 1 / 6, 1 / 6]],
        "token_mean": [[1 / 4, 0, 0], [1 / 4, 1 / 4, 1 / 4]],
        "constant_length": [[1 / 20, 0, 0], [1 / 20, 1 / 20, 1 / 20]],
    }
    for reduction, weights in wanted.items():
        length = 10 if reduction == "constant_length" else None
        config = replace(PLAIN, reduction=reduction, constant_length=length)
        slopes = gradient(grpo_loss(logp, inputs, config, count_totals(mask))[0], logp)
        assert torch.allclose(-slopes, torch.tensor(weights, dtype=F64), rtol=1e-12)


# --- N1, N2: what must not change the loss --------------------------------------------------------------------------

CONFIGS = [
    GrpoConfig(kl_beta=0.1),
    GrpoConfig(kl_beta=0.1, reduction="token_mean"),
    GrpoConfig(kl_beta=0.1, reduction="constant_length", constant_length=7),
    GrpoConfig(kl_beta=0.1, term="cispo", tis_max=1.5),
    GrpoConfig(kl_beta=0.1, ratio_level="sequence", clip_low=0.05, clip_high=0.05),
    GrpoConfig(kl_beta=0.1, ratio_level="sequence", term="cispo", reduction="token_mean"),
]


def random_batch(n, t, seed, config=CONFIGS[0]):
    """Rows with drift on both sides of every bound, and masks with holes; each row acts at least once."""
    logp = (-1.5 + 0.3 * randn(n, t, seed=seed)).requires_grad_()
    mask = randn(n, t, seed=seed + 1) > -0.3
    mask[:, 0] = True
    inputs = LossInputs(
        mu=logp.detach() + 0.3 * randn(n, t, seed=seed + 2),
        mask=mask,
        advantages=randn(n, seed=seed + 3),
        old=logp.detach() + 0.2 * randn(n, t, seed=seed + 4),
        ref=logp.detach() + 0.5 * randn(n, t, seed=seed + 5),
        kl_beta=randn(n, seed=seed + 6).abs(),
        domains=tuple("xy"[row % 2] for row in range(n)),
    )
    return logp, inputs, config, count_totals(mask)


def rows_of(inputs, rows):
    """Some rows of all inputs."""
    fields = ("mu", "mask", "advantages", "old", "ref", "kl_beta", "trajectory_ids")
    parts = {name: getattr(inputs, name)[rows] for name in fields if getattr(inputs, name) is not None}
    return replace(inputs, **parts, domains=tuple(inputs.domains[row] for row in rows))


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    n=st.integers(2, 6),
    t=st.integers(1, 5),
    seed=st.integers(0, 10_000),
    config=st.sampled_from(CONFIGS),
    garbage=st.sampled_from([1e4, -1e4, math.inf, -math.inf, math.nan]),
    data=st.data(),
)
def test_loss_ignores_padding_order_and_micro_batches(n, t, seed, config, garbage, data):
    """N1, the loss half: loss, gradient and metrics of shuffled, padded micro-batches add up to those of the batch."""
    logp, inputs, config, totals = random_batch(n, t, seed, config)
    whole, whole_metrics = grpo_loss(logp, inputs, config, totals)
    wanted = gradient(whole, logp)
    order = data.draw(st.permutations(range(n)))
    cut = data.draw(st.integers(1, n - 1))
    parts = []
    for rows in (list(order[:cut]), list(order[cut:])):
        part = rows_of(inputs, rows)
        padded = {
            name: torch.nn.functional.pad(getattr(part, name), (1, 2), value=value)
            for name, value in (("mu", garbage), ("old", -garbage), ("ref", garbage), ("mask", False))
        }
        padded_logp = torch.nn.functional.pad(logp[rows], (1, 2), value=-garbage)
        parts.append(grpo_loss(padded_logp, replace(part, **padded), config, totals))
    total = parts[0][0] + parts[1][0]
    assert number(total) == pytest.approx(number(whole), abs=1e-12)
    assert torch.allclose(gradient(total, logp), wanted, rtol=0, atol=1e-12)
    merged = merge_metrics(metrics for _, metrics in parts)
    assert merged == pytest.approx({name: number(value) for name, value in whole_metrics.items()}, abs=1e-12)


@pytest.mark.parametrize("config", CONFIGS)
def test_loss_ignores_how_a_trajectory_is_split_into_segments(config):
    """Two segments of one trajectory share ratio, mask and normalizer with the row that they came from."""
    logp, inputs, config, totals = random_batch(n=3, t=6, seed=40, config=config)
    whole = grpo_loss(logp, inputs, config, totals)[0]
    wanted = gradient(whole, logp)
    front, back = slice(0, 3), slice(3, 6)
    twice = {name: torch.cat([getattr(inputs, name)] * 2) for name in ("advantages", "kl_beta")}
    halves = {
        name: torch.cat([getattr(inputs, name)[:, front], getattr(inputs, name)[:, back]])
        for name in ("mu", "mask", "old", "ref")
    }
    ids = torch.tensor([4, 5, 6, 4, 5, 6])
    split = replace(inputs, **twice, **halves, trajectory_ids=ids, domains=inputs.domains * 2)
    assert count_totals(split.mask, ids) == totals
    loss, metrics = grpo_loss(torch.cat([logp[:, front], logp[:, back]]), split, config, totals)
    assert number(loss) == pytest.approx(number(whole), abs=1e-12)
    assert torch.allclose(gradient(loss, logp), wanted, rtol=0, atol=1e-12)
    assert 0 <= number(metrics["mask/off_policy"]) <= 1


def group_gradient(rewards, groups, theta, tokens, baseline="mean"):
    config = replace(PLAIN, baseline=baseline)
    logp = theta.log_softmax(-1)[tokens][:, None]
    advantages = group_advantages(torch.tensor(rewards, dtype=F64), torch.tensor(groups), baseline).values
    inputs = LossInputs(mu=logp.detach(), mask=torch.ones_like(logp, dtype=torch.bool), advantages=advantages)
    return gradient(grpo_loss(logp, inputs, config, count_totals(inputs.mask))[0], theta)


@pytest.mark.parametrize("baseline", ["mean", "leave_one_out", "mean_std"])
def test_gradient_ignores_duplicates_order_and_constants(baseline):
    """N2."""
    theta = randn(6, seed=50).requires_grad_()
    rewards, groups = [0.0, 1.0, 0.4, 2.0, 2.5, 0.1], [0, 0, 0, 1, 1, 1]
    tokens = torch.tensor([0, 1, 2, 3, 4, 5])
    wanted = group_gradient(rewards, groups, theta, tokens, baseline)
    doubled = group_gradient(rewards * 2, [*groups, 2, 2, 2, 3, 3, 3], theta, tokens.repeat(2), baseline)
    order = [4, 1, 5, 0, 2, 3]
    shuffled = group_gradient(
        [rewards[i] for i in order], [groups[i] for i in order], theta, tokens[torch.tensor(order)], baseline
    )
    shifted = group_gradient([r + 1000.0 for r in rewards], groups, theta, tokens, baseline)
    one_shifted = group_gradient(
        [r + 7.0 * g for r, g in zip(rewards, groups, strict=True)], groups, theta, tokens, baseline
    )
    for found in (doubled, shuffled, shifted, one_shifted):
        assert relative_error(found, wanted) < 1e-7
    assert number(wanted.norm()) > 0.01


@pytest.mark.parametrize("baseline", ["mean", "leave_one_out", "mean_std"])
def test_flat_and_single_groups_have_no_gradient_at_all(baseline):
    """N2. Three times 0.1 has a mean that is not 0.1 in binary."""
    theta = randn(6, seed=50).requires_grad_()
    found = group_gradient([0.1, 0.1, 0.1, 5.0], [0, 0, 0, 1], theta, torch.tensor([0, 1, 2, 3]), baseline)
    assert found.tolist() == [0.0] * 6


def test_group_advantages_centre_and_report():
    rewards = torch.tensor([1.0, 0.0, 0.1, 0.1, 0.1, 3.0, 0.0, 0.0, 1.0])
    groups = torch.tensor([5, 5, 2, 2, 2, 9, 7, 7, 7])
    found = group_advantages(rewards, groups)
    assert found.values.tolist() == pytest.approx([0.5, -0.5, 0, 0, 0, 0, -1 / 3, -1 / 3, 2 / 3])
    assert found.values.dtype == torch.float32
    assert (found.flat_groups, found.single_groups, found.n_groups) == ((2,), (9,), 4)
    others = group_advantages(rewards, groups, "leave_one_out").values
    assert others.tolist() == pytest.approx([1.0, -1.0, 0, 0, 0, 0, -0.5, -0.5, 1.0])
    scaled = group_advantages(rewards, groups, "mean_std").values
    assert scaled[:2].tolist() == pytest.approx([math.sqrt(0.5), -math.sqrt(0.5)])


def test_group_advantages_with_a_tiny_deviation_stay_bounded():
    """Equal up to rounding: the floor keeps a division by almost nothing from shouting."""
    found = group_advantages(torch.tensor([0.95, 0.95 + 1e-7, 0.95]), torch.zeros(3), "mean_std").values
    assert number(found.abs().max()) < 1e-3


# --- errors and settings --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong",
    [
        {"term": "ppo"},
        {"reduction": "mean"},
        {"baseline": "std"},
        {"ratio_level": "word"},
        {"clip_low": 0.0},
        {"clip_low": 1.5},
        {"clip_high": 0.0},
        {"off_policy_delta": -0.1},
        {"off_policy_delta": math.nan},
        {"kl_beta": -1.0},
        {"kl_ratio_max": 0.5},
        {"tis_max": 0.0},
        {"std_floor": 0.0},
        {"cispo_ratio_max": 0.0},
        {"reduction": "constant_length"},
        {"constant_length": 5},
    ],
)
def test_config_refuses(wrong):
    named = next(iter(wrong)) if "constant_length" not in wrong.values() else "constant_length"
    with pytest.raises(SpecError, match=named):
        GrpoConfig(**wrong)


@pytest.mark.parametrize(
    "wrong",
    [
        {"advantages": torch.zeros(1, 3)},
        {"advantages": torch.zeros(5)},
        {"mu": torch.zeros(3, 1)},
        {"ref": torch.zeros(2, 5)},
        {"kl_beta": torch.zeros(3, 1)},
        {"trajectory_ids": torch.zeros(2)},
        {"mask": torch.ones(3, 5)},
        {"domains": ("x",)},
    ],
)
def test_loss_refuses_shapes_that_would_broadcast(wrong):
    logp, inputs, config, totals = random_batch(n=3, t=5, seed=60)
    with pytest.raises(SpecError, match=next(iter(wrong))):
        grpo_loss(logp, replace(inputs, **wrong), config, totals)


def test_loss_refuses_a_missing_reference_and_an_empty_step():
    logp, inputs, config, totals = random_batch(n=3, t=5, seed=60)
    with pytest.raises(SpecError, match="ref"):
        grpo_loss(logp, replace(inputs, ref=None), config, totals)
    with pytest.raises(SpecError, match="nothing to learn"):
        grpo_loss(logp, inputs, config, Totals(n_trajectories=0, n_tokens=0))


def test_advantages_refuse_rewards_that_are_not_finite():
    with pytest.raises(SpecError, match="void"):
        group_advantages(torch.tensor([0.0, math.nan]), torch.tensor([0, 0]))
    with pytest.raises(SpecError, match="must both be"):
        group_advantages(torch.zeros(3), torch.zeros(2))


def test_domain_betas_name_each_row():
    found = domain_betas(["math", "tools", "math"], 0.25, {"math": 0.0})
    assert found.tolist() == [0.0, 0.25, 0.0]


def test_half_precision_is_widened_first():
    logp = torch.tensor([[-1.0, -2.0]], dtype=torch.bfloat16, requires_grad=True)
    inputs = LossInputs(
        mu=torch.tensor([[-1.001, -2.001]]), mask=torch.ones(1, 2, dtype=torch.bool), advantages=torch.ones(1)
    )
    loss, _ = grpo_loss(logp, inputs, PLAIN, Totals(n_trajectories=1, n_tokens=2))
    assert loss.dtype == torch.float32
    assert number(loss) == pytest.approx(-math.exp(0.001), abs=1e-6)


def test_totals_skip_rows_without_actions():
    mask = torch.tensor([[True, True], [False, False], [True, False]])
    assert count_totals(mask) == Totals(n_trajectories=2, n_tokens=3)
    assert count_totals(mask, torch.tensor([1, 2, 1])) == Totals(n_trajectories=1, n_tokens=3)
