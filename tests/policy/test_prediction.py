"""Prediction layers: what they read, what they predict, and that playing does without them."""

from __future__ import annotations

import pytest
import torch

from envsynth.policy.attention import Wants
from envsynth.policy.model import balance_experts
from envsynth.policy.packing import Layout, pack, visible_keys
from envsynth.policy.prediction import tokens_ahead
from envsynth.policy.rope import rope_angles


@pytest.fixture
def predicting(lively):
    return lively(num_nextn_predict_layers=2).double()


def test_predictions_follow_their_definition(predicting, tokens):
    """Layer p joins the normalised hidden state before it with the embedding of token t+1+p (DeepSeek-V3, eq. 21-23)."""
    policy, batch = predicting, tokens(2, 9)
    found = policy(batch, with_predictions=True).predictions
    seen = []
    policy.norm.register_forward_hook(lambda _module, _inputs, output: seen.append(output))
    policy(batch)
    hidden = seen[0]
    for index, layer in enumerate(policy.mtp_layers):
        ahead = torch.cat((batch[:, index + 1 :], batch[:, -1:].expand(-1, index + 1)), dim=1)
        joined = torch.cat((layer.enorm(policy.embed_tokens(ahead)), layer.hnorm(hidden)), dim=-1)
        positions = torch.arange(9)
        angles = rope_angles(positions, policy.frequencies)
        layout = Layout(*angles, positions, None, visible_keys(9, None, batch.device), 9)
        from_layer = layer.layer(layer.eh_proj(joined), layout, Wants(), "mha")
        hidden = layer.norm(from_layer.x_BTD)
        torch.testing.assert_close(found.logits_BTPV[:, :, index], policy.lm_head(hidden), rtol=0, atol=1e-12)


def test_a_prediction_sees_exactly_the_tokens_up_to_the_one_before_its_target(predicting, tokens):
    batch = tokens(1, 20)
    before = predicting(batch, with_predictions=True).predictions.logits_BTPV
    changed = batch.clone()
    changed[0, 10] = (changed[0, 10] + 1) % 50
    after = predicting(changed, with_predictions=True).predictions.logits_BTPV
    moved = (before - after).abs().amax(-1)[0] > 1e-9
    for layer in range(2):  # at position t, layer p reads tokens up to t + 1 + p
        first = 10 - 1 - layer
        assert not moved[:first, layer].any()
        assert moved[first:12, layer].all()


def test_valid_targets_stay_within_their_document(predicting, tokens):
    rows = pack([tokens(1, n)[0] for n in (5, 3, 1)], 10)
    valid = predicting(
        rows.tokens_BT, mask_BT=rows.mask_BT, starts_BT=rows.starts_BT, with_predictions=True
    ).predictions.valid_BTP
    lengths = [sum(item.tolist()) for item in rows.unpack(valid[..., 0])]
    assert lengths == [3, 1, 0]
    assert [sum(item.tolist()) for item in rows.unpack(valid[..., 1])] == [2, 0, 0]


def test_tokens_ahead_without_documents():
    batch, mask = torch.arange(8).view(2, 4), torch.tensor([[True] * 4, [True, True, True, False]])
    ahead, there = tokens_ahead(batch, mask, None, 1)
    assert ahead.tolist() == [[1, 2, 3, 3], [5, 6, 7, 7]]
    assert there.tolist() == [[True, True, True, False], [True, True, False, False]]


def test_playing_is_the_same_with_and_without_prediction_layers(predicting, tokens):
    batch = tokens(2, 20)
    plain, more = predicting(batch), predicting(batch, with_predictions=True)
    assert torch.equal(plain.logits_BTV, more.logits_BTV)
    assert torch.equal(plain.routed_experts, more.routed_experts)
    assert plain.predictions is None
    assert more.predictions.routed_experts.shape == (2, 20, 2, 3)


def test_prediction_loss_reaches_the_trunk_and_its_own_layers_but_no_indexer(predicting, tokens):
    predicting(tokens(1, 20), with_predictions=True).predictions.logits_BTPV.square().mean().backward()
    for name, item in predicting.named_parameters():
        reached = item.grad is not None and bool(item.grad.abs().max() > 0)
        assert reached == (".indexer." not in name), name


def test_their_indexers_learn_from_their_own_attention(predicting, tokens):
    predicting(tokens(1, 20), with_predictions=True, with_indexer_kl=True).indexer_kl.sum().backward()
    assert all(item.layer.self_attn.indexer.wk.weight.grad.abs().max() > 0 for item in predicting.mtp_layers)


def test_balance_reaches_the_routers_that_were_counted(predicting, tokens):
    output = predicting(tokens(2, 20), with_predictions=True)
    bias = predicting.mtp_layers[0].layer.mlp.gate.e_score_correction_bias
    main = predicting.layers[1].mlp.gate.e_score_correction_bias
    before, main_before = bias.clone(), main.clone()
    balance_experts(predicting, output.predictions.routed_experts, predicting=True)
    assert not torch.equal(bias, before)
    assert torch.equal(main, main_before)


def test_predictions_need_layers(policy, tokens):
    with pytest.raises(ValueError, match="num_nextn_predict_layers >= 1, got 0"):
        policy(tokens(1, 5), with_predictions=True)
