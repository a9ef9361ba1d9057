"""C1: the loss, stepped by plain SGD, finds known optima, and with a KL the fixed point that theory names."""

from __future__ import annotations

import math

import pytest
import torch

from envsynth.policy.advantages import group_advantages
from envsynth.policy.grpo import GrpoConfig, LossInputs, count_totals, grpo_loss

K = 10
N_SEEDS = 10


def step(theta, logp, inputs, config, lr):
    """One step of gradient descent."""
    loss, _ = grpo_loss(logp, inputs, config, count_totals(inputs.mask))
    (slope,) = torch.autograd.grad(loss, theta)
    return (theta - lr * slope).detach().requires_grad_()


def test_bandit_finds_the_best_arm():
    """Ten arms with noisy rewards, groups of 32, one step per batch; ten seeds side by side, none may fail."""
    generator = torch.Generator().manual_seed(0)
    means = 0.6 * torch.rand(N_SEEDS, K, generator=generator)
    best = torch.randint(K, (N_SEEDS, 1), generator=generator)
    means.scatter_(1, best, 1.0)
    theta = torch.zeros(N_SEEDS, K).requires_grad_()
    seed = torch.arange(N_SEEDS).repeat_interleave(32)
    config = GrpoConfig(kl_beta=0.0)
    for _ in range(230):
        arms = torch.multinomial(theta.detach().softmax(-1), 32, replacement=True, generator=generator).flatten()
        rewards = means[seed, arms] + 0.2 * torch.randn(len(arms), generator=generator)
        logp = theta.log_softmax(-1)[seed, arms][:, None]
        advantages = group_advantages(rewards, seed).values
        inputs = LossInputs(mu=logp.detach(), mask=torch.ones_like(logp, dtype=torch.bool), advantages=advantages)
        theta = step(theta, logp, inputs, config, lr=2.0 * N_SEEDS)
    assert float(theta.detach().softmax(-1).gather(1, best).min()) > 0.99


N_STATES, HORIZON = 4, 12


def play_chain(theta, seed, generator):
    """Left or right from state 0; right of the last state lies the goal. Reward 1 - 0.05 per step, 0 if not reached."""
    n = len(seed)
    states = torch.zeros(n, HORIZON, dtype=torch.int64)
    actions = torch.zeros(n, HORIZON, dtype=torch.int64)
    mask = torch.zeros(n, HORIZON, dtype=torch.bool)
    rewards = torch.zeros(n)
    at = torch.zeros(n, dtype=torch.int64)
    running = torch.ones(n, dtype=torch.bool)
    right = theta.detach().softmax(-1)[..., 1]
    for t in range(HORIZON):
        states[:, t], mask[:, t] = at.clamp(max=N_STATES - 1), running
        actions[:, t] = (torch.rand(n, generator=generator) < right[seed, states[:, t]]).long()
        at = torch.where(running, (at + 2 * actions[:, t] - 1).clamp(min=0), at)
        arrived = running & (at == N_STATES)
        rewards[arrived] = 1 - 0.05 * (t + 1)
        running &= ~arrived
    return states, actions, mask, rewards


def test_chain_finds_the_way():
    """Four states, trajectories of 4 to 12 tokens, groups of 32; two steps per batch, so that the second is stale."""
    generator = torch.Generator().manual_seed(0)
    theta = torch.zeros(N_SEEDS, N_STATES, 2).requires_grad_()
    seed = torch.arange(N_SEEDS).repeat_interleave(32)
    config = GrpoConfig(kl_beta=0.0, clip_high=0.28)
    for _ in range(150):
        states, actions, mask, rewards = play_chain(theta, seed, generator)
        mu = theta.detach().log_softmax(-1)[seed[:, None], states, actions]
        inputs = LossInputs(mu=mu, mask=mask, advantages=group_advantages(rewards, seed).values)
        for _ in range(2):
            logp = theta.log_softmax(-1)[seed[:, None], states, actions]
            theta = step(theta, logp, inputs, config, lr=30.0 * N_SEEDS)
    assert float(theta.detach().softmax(-1)[..., 1].min()) > 0.99


def kl_bandit(seed):
    generator = torch.Generator().manual_seed(seed)
    rewards = torch.rand(K, generator=generator, dtype=torch.float64)
    reference = torch.randn(K, generator=generator, dtype=torch.float64).log_softmax(-1)
    return generator, rewards, reference


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("is_stale", [False, True])
def test_kl_fixed_point_is_the_tilted_reference(seed, is_stale):
    """softmax(r / beta + log ref) within 1e-2, from samples; also where each batch serves two steps."""
    beta, n, n_batches = 0.3, 2048, 160
    generator, rewards, reference = kl_bandit(seed)
    theta = torch.zeros(K, dtype=torch.float64).requires_grad_()
    group, mask = torch.zeros(n, dtype=torch.int64), torch.ones(n, 1, dtype=torch.bool)
    config = GrpoConfig(kl_beta=beta, clip_low=1.0, clip_high=1e9, off_policy_delta=math.inf)
    average = torch.zeros(K, dtype=torch.float64)
    for batch in range(n_batches):
        arms = torch.multinomial(theta.detach().softmax(-1), n, replacement=True, generator=generator)
        mu = theta.detach().log_softmax(-1)[arms][:, None]
        inputs = LossInputs(
            mu=mu, mask=mask, advantages=group_advantages(rewards[arms], group).values, ref=reference[arms][:, None]
        )
        for _ in range(2 if is_stale else 1):
            theta = step(theta, theta.log_softmax(-1)[arms][:, None], inputs, config, lr=2.0)
        if batch >= n_batches // 2:
            average += theta.detach().softmax(-1) / (n_batches // 2)
    wanted = (rewards / beta + reference).softmax(-1)
    assert float((average - wanted).abs().max()) < 1e-2
    assert float((reference.exp() - wanted).abs().max()) > 0.05


@pytest.mark.parametrize(("baseline", "factor"), [("mean", 0.5), ("leave_one_out", 1.0)])
def test_kl_fixed_point_of_small_groups_enumerated(baseline, factor):
    """Groups of two, all of them: the group's own mean shrinks rewards by 1 - 1/G, leave-one-out does not."""
    beta = 0.3
    _, rewards, reference = kl_bandit(0)
    arms = torch.cartesian_prod(torch.arange(K), torch.arange(K)).flatten()
    groups = torch.arange(K * K).repeat_interleave(2)
    advantages = group_advantages(rewards[arms], groups, baseline).values
    theta = torch.zeros(K, dtype=torch.float64).requires_grad_()
    mask = torch.ones(len(arms), 1, dtype=torch.bool)
    config = GrpoConfig(kl_beta=beta, clip_low=1.0, clip_high=1e9, off_policy_delta=math.inf, baseline=baseline)
    for _ in range(350):
        mu = theta.detach().log_softmax(-1)
        # Advantage and beta carry the probability of the group, times the number of groups that the mean divides by.
        weights = mu[arms].exp().view(-1, 2).prod(dim=1).repeat_interleave(2) * K * K
        inputs = LossInputs(
            mu=mu[arms][:, None],
            mask=mask,
            advantages=advantages * weights,
            ref=reference[arms][:, None],
            kl_beta=beta * weights,
        )
        theta = step(theta, theta.log_softmax(-1)[arms][:, None], inputs, config, lr=10.0)
    found = theta.detach().softmax(-1)
    assert float((found - (factor * rewards / beta + reference).softmax(-1)).abs().max()) < 1e-4
