"""Routing against loops over its definition; experts against one matrix product per token."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn import functional

from envsynth.policy.config import ExpertsConfig
from envsynth.policy.experts import MixtureOfExperts, choose_experts, expert_load
from envsynth.policy.model import Policy, balance_experts


def by_loops(scores: list[float], sizes: ExpertsConfig) -> list[int]:
    """Best groups by the sum of their best two, then best experts within them; lower indices win ties."""
    size = sizes.n_routed_experts // sizes.n_group
    groups = [scores[g * size : (g + 1) * size] for g in range(sizes.n_group)]
    order = sorted(range(sizes.n_group), key=lambda g: (-sum(sorted(groups[g])[-2:]), g))
    allowed = [e for g in order[: sizes.topk_group] for e in range(g * size, (g + 1) * size)]
    return sorted(sorted(allowed, key=lambda e: (-scores[e], e))[: sizes.num_experts_per_tok])


@pytest.mark.parametrize("shift", [0.0, -3.0], ids=["positive", "negative"])
def test_choose_experts_is_the_definition(tiny, shift):
    scores = torch.rand(200, 8, generator=torch.Generator().manual_seed(0)).mul(8).round().div(8) + shift
    got = choose_experts(scores, tiny.experts)
    assert got.tolist() == [by_loops(row, tiny.experts) for row in scores.tolist()]
    assert (got[:, 1:] > got[:, :-1]).all()


def test_choose_experts_never_leaves_its_groups_when_all_scores_are_negative(tiny):
    scores = torch.full((1, 8), -5.0)
    scores[0, :4] = torch.tensor([-1.0, -1.0, -4.0, -4.0])
    assert choose_experts(scores, tiny.experts).tolist() == [[0, 1, 2]]


def test_gates_come_from_the_affinity_without_the_bias(policy):
    gate = policy.layers[1].mlp.gate
    x = torch.randn(6, 32)
    gate.e_score_correction_bias.copy_(torch.tensor([9.0, 9, 0, 0, 0, 0, 9, 0]))
    chosen, gates = gate(x)
    affinity = torch.sigmoid(x @ gate.weight.T)
    assert chosen[:, :2].tolist() == [[0, 1]] * 6
    picked = affinity.gather(1, chosen.long())
    torch.testing.assert_close(gates, 1.5 * picked / picked.sum(-1, keepdim=True))


def test_gates_without_normalisation_are_the_affinities(tiny):
    sizes = replace(tiny.experts, norm_topk_prob=False, routed_scaling_factor=2.0)
    gate = Policy(replace(tiny, experts=sizes)).layers[1].mlp.gate
    x = torch.randn(4, 32)
    chosen, gates = gate(x)
    torch.testing.assert_close(gates, 2 * torch.sigmoid(x @ gate.weight.T).gather(1, chosen.long()))


def test_mixture_is_the_weighted_sum_of_its_experts(policy):
    mixture: MixtureOfExperts = policy.layers[2].mlp
    x = torch.randn(2, 13, 32)
    out, chosen = mixture(x)
    want = torch.empty_like(x)
    for b in range(2):
        for t in range(13):
            token = x[b, t]
            _, gates = mixture.gate(token[None], chosen[b, t][None])
            total = mixture.shared_experts(token)
            for expert, weight in zip(chosen[b, t].tolist(), gates[0], strict=True):
                e = mixture.experts
                hidden = functional.silu(e.gate_proj[expert] @ token) * (e.up_proj[expert] @ token)
                total = total + weight * (e.down_proj[expert] @ hidden)
            want[b, t] = total
    torch.testing.assert_close(out, want, rtol=1e-5, atol=1e-5)


def test_mixture_gives_a_token_the_same_values_in_any_batch(policy):
    """To rounding: which kernel multiplies depends on processor and size of the batch, so bits may differ."""
    x = torch.randn(40, 32)
    together, _ = policy.layers[1].mlp(x)
    for rows in (slice(0, 8), slice(5, 16), slice(20, 40)):
        alone, _ = policy.layers[1].mlp(x[rows])
        torch.testing.assert_close(alone, together[rows], rtol=1e-5, atol=1e-6)


def test_expert_load_skips_padding():
    routed = torch.tensor([[[[0, 2]], [[2, 1]], [[-1, -1]]]], dtype=torch.int32)
    assert expert_load(routed, 4).tolist() == [[1, 1, 2, 0]]


def test_balance_experts_steps_towards_equal_load(policy, tokens):
    before = [layer.mlp.gate.e_score_correction_bias.clone() for layer in policy.layers[1:]]
    routed = policy(tokens(4, 30)).routed_experts
    load = balance_experts(policy, routed, rate=0.25)
    assert load.sum(-1).tolist() == [4 * 30 * 3] * 2
    for layer, old, counts in zip(policy.layers[1:], before, load.float(), strict=True):
        step = layer.mlp.gate.e_score_correction_bias - old
        torch.testing.assert_close(step, 0.25 * torch.sign(counts.mean() - counts))


def test_balance_experts_evens_a_skewed_router(policy, tokens):
    batch = tokens(4, 40)
    policy.layers[1].mlp.gate.e_score_correction_bias[0] = 1.0

    def spread() -> float:
        return expert_load(policy(batch).routed_experts, 8).float().std(dim=-1).max().item()

    skewed = spread()
    for _ in range(30):
        balance_experts(policy, policy(batch).routed_experts, rate=0.05)
    assert spread() < 0.5 * skewed


def test_forward_never_changes_the_bias(policy, tokens):
    before = {name: buffer.clone() for name, buffer in policy.named_buffers()}
    policy.train()(tokens(2, 20)).logits_BTV.sum().backward()
    assert all(torch.equal(buffer, before[name]) for name, buffer in policy.named_buffers())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_operator_has_the_bits_of_plain_torch_live_and_replayed(lively, tokens, dtype):
    policy, batch = lively().to(dtype), tokens(2, 20)
    live = policy(batch)
    other = (live.routed_experts + 1).remainder(8)
    for replay in (None, other):
        found = []
        for kernels in (False, True):
            policy.kernels = kernels
            policy.zero_grad()
            output = policy(batch, routed_experts_BTMA=replay)
            output.logits_BTV.square().mean().backward()
            found.append((output, {name: item.grad for name, item in policy.named_parameters()}))
        (plain, want), (through, gradients) = found
        assert torch.equal(through.logits_BTV, plain.logits_BTV)
        assert torch.equal(through.routed_experts, plain.routed_experts)
        for name, item in want.items():
            if item is not None and dtype == torch.float32:
                torch.testing.assert_close(gradients[name], item, rtol=1e-4, atol=1e-6, msg=name)
