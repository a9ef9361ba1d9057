"""Measures of the selection, against their definitions one query at a time."""

from __future__ import annotations

import math

import pytest
import torch

from envsynth.policy.attention import Wants
from envsynth.policy.diagnostics import join_layers, layer_diagnostics


def test_measures_are_their_definitions():
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(1, 5, 5, generator=generator, dtype=torch.float64)
    visible = torch.ones(5, 5, dtype=torch.bool).tril()
    attention = torch.randn(1, 3, 5, 5, generator=generator, dtype=torch.float64)
    attention = attention.masked_fill(~visible, -math.inf).softmax(-1).sum(1)
    topk = torch.tensor([[[0, -1], [0, 1], [0, 2], [1, 2], [2, 4]]])
    found = layer_diagnostics(scores, attention, visible, topk)
    for t in range(5):
        keys = [key for key in topk[0, t].tolist() if key >= 0]
        assert found.recall_BT[0, t] == pytest.approx(float(sum(attention[0, t, key] for key in keys)) / 3)
        most = sorted(attention[0, t].tolist())[-2:]
        assert found.best_BT[0, t] == pytest.approx(sum(most) / 3)
        p = scores[0, t, : t + 1].softmax(-1)
        assert found.entropy_BT[0, t] == pytest.approx(float(-(p * p.log()).sum()), abs=1e-12)
    assert found.overlap_BT[0].tolist() == [0.0, 0.5, 0.5, 0.5, 0.5]


@pytest.mark.parametrize("dense", [False, True], ids=["sparse", "dense"])
@pytest.mark.parametrize("mode", ["mha", "fused", "mqa", "kernels"])
def test_a_policy_measures_the_same_in_every_mode(policy, tokens, dense, mode):
    batch = tokens(2, 25)
    want = policy(batch, dense=dense, with_diagnostics=True).diagnostics
    policy.attention_mode = mode
    found = policy(batch, dense=dense, with_diagnostics=True).diagnostics
    torch.testing.assert_close(found.recall_BTL, want.recall_BTL, rtol=0, atol=1e-5)
    torch.testing.assert_close(found.best_BTL, want.best_BTL, rtol=0, atol=1e-5)
    assert (found.best_BTL >= found.recall_BTL - 1e-6).all()
    torch.testing.assert_close(found.entropy_BTL, want.entropy_BTL, rtol=0, atol=1e-4)
    assert found.recall_BTL.shape == (2, 25, 3)
    assert (found.recall_BTL[:, :6] - 1).abs().max() < 1e-5, "up to six keys all are selected"
    assert 0.3 < found.recall_BTL[:, 6:].mean() < 0.95


def test_measuring_changes_nothing(policy, tokens):
    batch = tokens(2, 25)
    plain, measured = policy(batch), policy(batch, with_diagnostics=True)
    assert torch.equal(plain.logits_BTV, measured.logits_BTV)
    assert plain.diagnostics is None
    assert not measured.diagnostics.recall_BTL.requires_grad


def test_measures_without_layers_are_none():
    assert join_layers([]) is None
    assert Wants() == Wants(score_live=True, dense=False, with_kl=False, with_diagnostics=False)
