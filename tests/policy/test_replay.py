"""Rows R1, R2, R3 and D1 of the design's suite: what was chosen at rollout is what training uses, and nothing else.

Each test names the wrong implementation that it is there to notice.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from envsynth.policy.config import ExpertsConfig
from envsynth.policy.model import Policy, PolicyOutput

LENGTH = 30
"""Tokens per sequence: five times the keys that attention keeps."""


def replayed(policy: Policy, batch: Tensor, routed: Tensor | None, topk: Tensor | None) -> PolicyOutput:
    return policy(batch, routed_experts_BTMA=routed, indexer_topk_BTLK=topk)


def other_experts(routed: Tensor, n_experts: int) -> Tensor:
    """Shift every expert by one: another valid set in every row."""
    return (routed + 1).remainder(n_experts)


def other_keys(topk: Tensor) -> Tensor:
    """Give each token the earliest keys instead of the best: another valid set in most rows."""
    n_kept = (topk >= 0).sum(-1, keepdim=True)
    index = torch.arange(topk.shape[-1], dtype=topk.dtype)
    return torch.where(index < n_kept, index, -1)


def gradients(policy: Policy, loss: Tensor) -> dict[str, Tensor]:
    policy.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in policy.named_parameters() if p.grad is not None}


def token_loss(output: PolicyOutput, batch: Tensor) -> Tensor:
    """Sum of next-token losses and of the indexer's, per sequence, [B]."""
    log_probs = output.logits_BTV[:, :-1].log_softmax(-1).gather(-1, batch[:, 1:, None]).squeeze(-1)
    return -log_probs.sum(1) + output.indexer_kl.sum(1)


# R1 -----------------------------------------------------------------------------------------------------------------


def test_r1_own_choices_replay_bitwise(policy, tokens):
    batch = tokens(3, LENGTH)
    live = policy(batch)
    for routed, topk in (
        (live.routed_experts, None),
        (None, live.indexer_topk),
        (live.routed_experts, live.indexer_topk),
    ):
        again = replayed(policy, batch, routed, topk)
        assert torch.equal(again.logits_BTV, live.logits_BTV)
        assert torch.equal(again.routed_experts, live.routed_experts)
        assert torch.equal(again.indexer_topk, live.indexer_topk)


@pytest.mark.parametrize("layer", [0, 1])
def test_r1_wrong_experts_change_the_logits(policy, tokens, layer):
    batch = tokens(3, LENGTH)
    live = policy(batch)
    wrong = live.routed_experts.clone()
    wrong[:, :, layer] = other_experts(wrong[:, :, layer], 8)
    got = replayed(policy, batch, wrong, None)
    assert torch.equal(got.routed_experts[:, :, layer], wrong[:, :, layer])
    assert ((got.logits_BTV - live.logits_BTV).abs().amax(-1) > 1e-3).all()


@pytest.mark.parametrize("layer", [0, 1, 2])
def test_d1_wrong_keys_change_the_logits(policy, tokens, layer):
    batch = tokens(3, LENGTH)
    live = policy(batch)
    wrong = live.indexer_topk.clone()
    wrong[:, :, layer] = other_keys(wrong[:, :, layer])
    got = replayed(policy, batch, None, wrong)
    assert torch.equal(got.indexer_topk[:, :, layer], wrong[:, :, layer])
    changed = (wrong != live.indexer_topk).flatten(2).any(-1)
    assert changed.float().mean() > 0.5
    assert ((got.logits_BTV - live.logits_BTV).abs().amax(-1) > 1e-3)[changed].all()


def test_r1_rows_of_minus_one_are_live(policy, tokens):
    batch = tokens(3, LENGTH)
    live = policy(batch)
    routed, topk = live.routed_experts.clone(), live.indexer_topk.clone()
    routed[:, ::2], topk[:, 1::3] = -1, -1
    routed[1], topk[2, :, 1] = -1, -1
    again = replayed(policy, batch, routed, topk)
    assert torch.equal(again.logits_BTV, live.logits_BTV)
    assert torch.equal(again.routed_experts, live.routed_experts)
    assert torch.equal(again.indexer_topk, live.indexer_topk)


def test_r1_a_live_row_among_wrong_ones_follows_the_changed_input(policy, tokens):
    """A live row is routed from what the layer now gets, not from a record of the unchanged pass."""
    batch = tokens(3, LENGTH)
    live = policy(batch)
    wrong = live.routed_experts.clone()
    wrong[:, :, 0] = other_experts(wrong[:, :, 0], 8)
    wrong[:, :, 1] = -1
    got = replayed(policy, batch, wrong, None)
    assert (got.routed_experts[:, :, 1] != live.routed_experts[:, :, 1]).any()


def test_r1_only_the_set_counts(policy, tokens):
    batch = tokens(2, LENGTH)
    live = policy(batch)
    again = replayed(policy, batch, live.routed_experts.flip(-1), None)
    torch.testing.assert_close(again.logits_BTV, live.logits_BTV, rtol=0, atol=1e-5)


def test_r1_gates_are_live(policy, tokens):
    """Changed weights change the logits although the sets stay: what is replayed is the set, never the gates."""
    batch = tokens(2, LENGTH)
    live = policy(batch)
    before = replayed(policy, batch, live.routed_experts, live.indexer_topk).logits_BTV
    with torch.no_grad():
        policy.layers[2].mlp.gate.weight.mul_(-1)
    after = replayed(policy, batch, live.routed_experts, live.indexer_topk)
    assert torch.equal(after.routed_experts, live.routed_experts)
    assert (after.logits_BTV - before).abs().max() > 1e-3


# R2 -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", [False, True], ids=["own", "others"])
def test_r2_gradients_are_equal_with_and_without_checkpointing(lively, tokens, wrong):
    batch = tokens(3, LENGTH)
    kept, recomputed = (lively(checkpoint_layers=flag).double() for flag in (False, True))
    live = kept(batch)
    routed = other_experts(live.routed_experts, 8) if wrong else live.routed_experts
    topk = other_keys(live.indexer_topk) if wrong else live.indexer_topk
    results = []
    for policy in (kept, recomputed):
        output = policy(batch, routed_experts_BTMA=routed, indexer_topk_BTLK=topk, with_indexer_kl=True)
        results.append(gradients(policy, token_loss(output, batch).mean()))
    assert results[0].keys() == results[1].keys() == {name for name, _ in kept.named_parameters()}
    for name, gradient in results[0].items():
        assert (gradient - results[1][name]).abs().max() < 1e-12, name


def test_r2_gradients_are_equal_padded_alone_and_in_micro_batches(lively, tokens):
    policy, batch = lively().double(), tokens(4, LENGTH)
    lengths = [30, 9, 21, 4]
    mask = torch.arange(LENGTH) < torch.tensor(lengths)[:, None]
    live = policy(batch, mask_BT=mask)

    def loss(rows: slice, cut: int) -> Tensor:
        output = policy(
            batch[rows, :cut],
            mask_BT=mask[rows, :cut],
            routed_experts_BTMA=live.routed_experts[rows, :cut],
            indexer_topk_BTLK=live.indexer_topk[rows, :cut],
            with_indexer_kl=True,
        )
        log_probs = output.logits_BTV[:, :-1].log_softmax(-1).gather(-1, batch[rows, 1:cut, None]).squeeze(-1)
        return -(log_probs * mask[rows, 1:cut]).sum() + output.indexer_kl.sum()

    whole = gradients(policy, loss(slice(0, 4), LENGTH))
    halves = gradients(policy, loss(slice(0, 2), LENGTH) + loss(slice(2, 4), LENGTH))
    alone = gradients(policy, sum(loss(slice(b, b + 1), lengths[b]) for b in range(4)))
    for name, gradient in whole.items():
        scale = gradient.abs().max()
        assert (gradient - halves[name]).abs().max() <= 1e-10 * scale, name
        assert (gradient - alone[name]).abs().max() <= 1e-10 * scale, name


def test_r2_router_learns_under_replay_of_experts_it_would_not_choose(policy, tokens):
    batch = tokens(3, LENGTH)
    wrong = other_experts(policy(batch).routed_experts, 8)
    output = policy(batch, routed_experts_BTMA=wrong, with_indexer_kl=True)
    found = gradients(policy, token_loss(output, batch).mean())
    for layer in (1, 2):
        gradient = found[f"layers.{layer}.mlp.gate.weight"]
        assert (gradient.abs().amax(-1) > 1e-6).all(), "every replayed expert's affinity has a gradient"


def test_r2_router_gradient_is_the_finite_difference_under_replay(lively, tokens):
    policy, batch = lively().double(), tokens(2, 12)
    wrong = other_experts(policy(batch).routed_experts, 8)
    weight = policy.layers[1].mlp.gate.weight
    direction = torch.randn(weight.shape, dtype=torch.float64)

    def loss() -> Tensor:
        return policy(batch, routed_experts_BTMA=wrong).logits_BTV[..., 0].sum()

    policy.zero_grad()
    loss().backward()
    analytic = (weight.grad * direction).sum()
    with torch.no_grad():
        step = 1e-6
        weight += step * direction
        up = loss()
        weight -= 2 * step * direction
        numeric = (up - loss()) / (2 * step)
    torch.testing.assert_close(analytic, numeric, rtol=1e-6, atol=1e-8)


# R3: see also test_engine.py ------------------------------------------------------------------------------------------


def test_r3_records_have_one_row_per_layer_with_experts(lively, tokens):
    batch = tokens(2, LENGTH)
    for dense in (0, 1, 2, 3):
        output = lively(first_k_dense_replace=dense)(batch)
        assert output.routed_experts.shape == (2, LENGTH, 3 - dense, 3)
        assert output.indexer_topk.shape == (2, LENGTH, 3, 6)


def test_r3_record_m_belongs_to_layer_m_behind_the_dense_ones(lively, tokens):
    policy, batch = lively(first_k_dense_replace=1), tokens(2, LENGTH)
    ran: dict[int, Tensor] = {}
    for index in (1, 2):
        hook = lambda _module, _inputs, output, index=index: ran.update({index: output[1]})  # noqa: E731
        policy.layers[index].mlp.register_forward_hook(hook)
    live = policy(batch)
    wrong = live.routed_experts.clone()
    wrong[:, :, 0] = other_experts(wrong[:, :, 0], 8)
    output = replayed(policy, batch, wrong, None)
    for moe in (0, 1):
        assert torch.equal(ran[moe + 1], output.routed_experts[:, :, moe])
        assert torch.equal(ran[moe + 1], wrong[:, :, moe])


def test_r3_padding_is_minus_one_not_expert_zero(policy, tokens):
    batch = tokens(3, LENGTH)
    mask = torch.arange(LENGTH) < torch.tensor([30, 11, 3])[:, None]
    output = policy(batch, mask_BT=mask, with_indexer_kl=True)
    assert (output.routed_experts[~mask] == -1).all()
    assert (output.indexer_topk[~mask] == -1).all()
    assert (output.indexer_kl[~mask] == 0).all()
    assert (output.routed_experts[mask] >= 0).all()
    assert (output.indexer_topk[mask][..., 0] >= 0).all()


def test_r3_ids_above_255_survive(lively, tokens):
    experts = ExpertsConfig(n_routed_experts=300, num_experts_per_tok=3, n_shared_experts=1, moe_intermediate_size=4)
    policy, batch = lively(experts=experts, num_hidden_layers=2), tokens(2, LENGTH)
    for layer in policy.layers[1:]:
        layer.mlp.gate.e_score_correction_bias[250:] += 5.0
    live = policy(batch)
    assert live.routed_experts.max() > 255
    assert live.routed_experts.min() >= 250
    for dtype in (torch.int16, torch.int32, torch.int64):
        assert torch.equal(replayed(policy, batch, live.routed_experts.to(dtype), None).logits_BTV, live.logits_BTV)


def test_r3_one_expert_per_token_replays(lively, tiny, tokens):
    policy = lively(experts=replace(tiny.experts, num_experts_per_tok=1))
    batch = tokens(2, LENGTH)
    live = policy(batch)
    routed = live.routed_experts.clone()
    assert torch.equal(replayed(policy, batch, routed, None).logits_BTV, live.logits_BTV)
    wrong = replayed(policy, batch, other_experts(routed, 8), None).logits_BTV
    assert (wrong - live.logits_BTV).abs().max() > 1e-3
    routed[:, ::2] = -1
    assert torch.equal(replayed(policy, batch, routed, None).logits_BTV, live.logits_BTV)


# D1 -----------------------------------------------------------------------------------------------------------------


def test_d1_positions_are_relative_to_their_sequence(policy, tokens):
    batch = tokens(3, LENGTH)
    mask = torch.arange(LENGTH) < torch.tensor([30, 17, 25])[:, None]
    together = policy(batch, mask_BT=mask)
    for row, length in enumerate([30, 17, 25]):
        alone = policy(batch[row : row + 1, :length])
        assert torch.equal(alone.indexer_topk[0], together.indexer_topk[row, :length])
        assert (alone.logits_BTV[0] - together.logits_BTV[row, :length]).abs().max() < 1e-5


def test_d1_records_are_causal_ascending_and_full(policy, tokens):
    topk = policy(tokens(2, LENGTH)).indexer_topk
    position = torch.arange(LENGTH)[:, None]
    assert (topk.amax(-1) <= position).all()
    assert torch.equal((topk >= 0).sum(-1), (position + 1).clamp(max=6).expand(2, -1, 3))
    assert ((topk[..., 1:] > topk[..., :-1]) | (topk[..., 1:] == -1)).all()


def test_d1_nothing_is_read_outside_the_replayed_keys(policy, tokens):
    """Changing a token that no later row reads in any layer changes nothing later."""
    batch = tokens(1, LENGTH)
    keys = policy(batch).indexer_topk.clone()
    index = torch.arange(6, dtype=torch.int32)
    for t in range(12, LENGTH):
        keys[:, t] = torch.where(index < 6, t - 5 + index, -1)
    changed = batch.clone()
    changed[0, 3] = (changed[0, 3] + 1) % 50
    # Tokens from 12 on read at most five back per layer, three layers deep: token 27 and later never see token 3.
    before, after = (replayed(policy, ids, None, keys) for ids in (batch, changed))
    routed = before.routed_experts
    after = replayed(policy, changed, routed, keys)
    assert torch.equal(before.logits_BTV[:, 27:], after.logits_BTV[:, 27:])
    assert not torch.equal(before.logits_BTV[:, 3], after.logits_BTV[:, 3])


# What is refused ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda routed: routed[:, :, :1], r"routed_experts must be int16, int32 or int64 \(2, 30, 2, 3\)"),
        (lambda routed: routed.to(torch.uint8), "got torch.uint8"),
        (lambda routed: routed.masked_fill(routed == 7, 8), r"within -1..7, got 0..8"),
        (lambda routed: torch.zeros_like(routed), "names an expert twice"),
        (lambda routed: torch.cat((routed[..., :2], torch.full_like(routed[..., 2:], -1)), -1), "complete, or all -1"),
        (lambda routed: routed - 2, "within -1..7, got -2"),
    ],
    ids=["shape", "uint8", "range", "zeros", "half", "below"],
)
def test_forward_refuses_experts_that_no_router_chose(policy, tokens, change, message):
    batch = tokens(2, LENGTH)
    routed = policy(batch).routed_experts
    with pytest.raises(ValueError, match=message):
        policy(batch, routed_experts_BTMA=change(routed))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda topk: topk[..., :5], r"indexer_topk must be int16, int32 or int64 \(2, 30, 3, 6\)"),
        (lambda topk: topk.float(), "got torch.float32"),
        (lambda topk: topk.roll(-1, dims=1), "reads a later position"),
        (lambda topk: topk.flip(-1), "must ascend"),
        (lambda topk: topk.clamp(max=0), "must ascend"),
        (lambda topk: topk - 1, "must be >= -1, got -2"),
    ],
    ids=["shape", "float", "future", "descending", "twice", "below"],
)
def test_forward_refuses_keys_that_no_indexer_selected(policy, tokens, change, message):
    batch = tokens(2, LENGTH)
    topk = policy(batch).indexer_topk
    with pytest.raises(ValueError, match=message):
        policy(batch, indexer_topk_BTLK=change(topk))


def test_forward_refuses_dense_attention_with_recorded_keys(policy, tokens):
    batch = tokens(2, LENGTH)
    with pytest.raises(ValueError, match="dense attention reads every key"):
        policy(batch, indexer_topk_BTLK=policy(batch).indexer_topk, dense=True)
