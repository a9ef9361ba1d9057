"""The lightning indexer against loops over its definition, and the gradient of its loss."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from envsynth.policy.indexer import LightningIndexer, index_scores, indexer_kl
from envsynth.policy.rope import rope_angles


def half_split(vector: Tensor, position: int, width: int, theta: float) -> Tensor:
    """Rotate the first `width` numbers, pairing number i with number i + width / 2."""
    out = vector.clone()
    half = width // 2
    for i in range(half):
        angle = position * theta ** (-2 * i / width)
        a, b = vector[i], vector[i + half]
        out[i], out[i + half] = (
            a * math.cos(angle) - b * math.sin(angle),
            a * math.sin(angle) + b * math.cos(angle),
        )
    return out


def test_scores_are_the_definition(policy, tiny):
    indexer = policy.layers[1].self_attn.indexer.double()
    x, latent = torch.randn(1, 7, 32, dtype=torch.float64), torch.randn(1, 7, 24, dtype=torch.float64)
    cos, sin = rope_angles(torch.arange(7), policy.frequencies.double())
    got = index_scores(*indexer(x, latent, cos, sin))[0]
    heads, width, rope, theta = 2, 8, 4, tiny.attention.rope_theta
    for t in range(7):
        for s in range(7):
            key = functional.layer_norm(indexer.wk(x[0, s]), (width,), indexer.k_norm.weight, indexer.k_norm.bias, 1e-6)
            key = half_split(key, s, rope, theta)
            total = torch.zeros((), dtype=torch.float64)
            for h in range(heads):
                query = half_split(indexer.wq_b(latent[0, t])[h * width : (h + 1) * width], t, rope, theta)
                weight = indexer.weights_proj(x[0, t])[h] * heads**-0.5
                total += weight * torch.relu(query @ key) * width**-0.5
            torch.testing.assert_close(got[t, s], total, rtol=1e-6, atol=1e-7)


def test_head_weights_and_scores_may_be_negative(policy, tokens):
    x, latent = torch.randn(1, 20, 32), torch.randn(1, 20, 24)
    scores = index_scores(
        *policy.layers[0].self_attn.indexer(x, latent, *rope_angles(torch.arange(20), policy.frequencies))
    )
    assert (scores < 0).any()
    assert (scores == 0).any(), "the plateau of keys without a positive head"


def test_interleaved_rotation_is_another_model(tiny):
    x, latent = torch.randn(1, 5, 32), torch.randn(1, 5, 24)
    angles = rope_angles(torch.arange(5), torch.tensor([1.0, 0.1]))
    halves = LightningIndexer(tiny)
    pairs = LightningIndexer(replace(tiny, indexer=replace(tiny.indexer, index_rope_interleave=True)))
    pairs.load_state_dict(halves.state_dict())
    assert (halves(x, latent, *angles).key - pairs(x, latent, *angles).key).abs().max() > 1e-3


def test_indexer_inputs_are_detached(policy, tokens):
    output = policy(tokens(2, 20), with_indexer_kl=True)
    indexer = {name for name, _ in policy.named_parameters() if ".indexer." in name}
    named = dict(policy.named_parameters())
    for loss, reached in ((output.indexer_kl.sum(), True), (output.logits_BTV.square().mean(), False)):
        grads = torch.autograd.grad(loss, list(named.values()), retain_graph=True, allow_unused=True)
        for name, grad in zip(named, grads, strict=True):
            has_gradient = grad is not None and bool((grad != 0).any())  # NaN counts as one
            assert has_gradient == ((name in indexer) is reached), name


def test_indexer_kl_gradient_is_softmax_minus_target():
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(2, 5, 5, generator=generator, dtype=torch.float64).requires_grad_()
    kept = torch.ones(5, 5, dtype=torch.bool).tril().repeat(2, 1, 1)
    kept[1, 4, 2] = False
    logits = 9 * torch.randn(2, 3, 5, 5, generator=generator, dtype=torch.float64)
    attention = logits.masked_fill(~kept[:, None], -math.inf).softmax(-1).requires_grad_()
    loss = indexer_kl(scores, attention.sum(1), kept)
    gradient, to_attention = torch.autograd.grad(loss.sum(), (scores, attention), allow_unused=True)
    target = attention.detach().mean(1)
    softmax = scores.detach().masked_fill(~kept, -math.inf).softmax(-1)
    torch.testing.assert_close(gradient, softmax - target, rtol=0, atol=1e-12)
    assert gradient[~kept].abs().max() == 0
    assert to_attention is None, "the target is detached"
    want = functional.kl_div(softmax.log().nan_to_num(neginf=0.0), target, reduction="none").sum(-1)
    torch.testing.assert_close(loss.detach(), want)


def test_indexer_kl_gradient_is_finite_where_attention_is_exactly_zero():
    scores = torch.zeros(1, 1, 3, dtype=torch.float64, requires_grad=True)
    attention = torch.tensor([[[1.0, 0.0, 0.0]]], dtype=torch.float64)
    kept = torch.ones(1, 1, 3, dtype=torch.bool)
    assert torch.autograd.gradcheck(lambda x: indexer_kl(x, attention, kept), scores)


def test_indexer_kl_of_a_query_without_keys_or_attention_is_zero_and_moves_nothing():
    scores = torch.randn(1, 3, 4, dtype=torch.float64, requires_grad=True)
    attention = torch.tensor([[[1.0, 2.0, 0, 0], [0, 0, 3.0, 0], [1.0, 1.0, 1.0, 1.0]]], dtype=torch.float64)
    kept = torch.tensor([[[True, True, False, False], [True, True, False, False], [False] * 4]])
    loss = indexer_kl(scores, attention, kept)
    loss.sum().backward()
    assert loss[0, 0] > 0
    assert loss[0, 1:].tolist() == [0.0, 0.0]
    assert scores.grad[0, 0].abs().max() > 0
    assert scores.grad[0, 1:].abs().max() == 0


def test_indexer_kl_is_zero_where_scores_already_are_the_attention():
    attention = torch.rand(1, 4, 4, dtype=torch.float64).tril().add(1e-3).tril()
    attention = attention / attention.sum(-1, keepdim=True)
    kept = torch.ones(1, 4, 4, dtype=torch.bool).tril()
    assert indexer_kl(attention.log(), attention, kept).abs().max() < 1e-12


def test_warm_up_trains_on_every_key_and_the_sparse_stage_on_the_selected(policy, tokens):
    batch = tokens(2, 30)
    warm, sparse = (policy(batch, dense=dense, with_indexer_kl=True).indexer_kl for dense in (True, False))
    k = policy.config.indexer.index_topk
    torch.testing.assert_close(warm[:, :k], sparse[:, :k])
    assert (warm[:, k:] - sparse[:, k:]).abs().min() > 0
    assert (warm > -1e-6).all()


@pytest.mark.parametrize("packed", [False, True], ids=["one document", "packed"])
def test_the_warm_up_through_kernels_is_that_of_all_pairs(lively, tokens, packed):
    policy, batch = lively(), tokens(2, 30)
    starts = torch.tensor([[0] * 11 + [11] * 19, [0] * 29 + [29]]) if packed else None
    weights = [item for name, item in policy.named_parameters() if "indexer" in name]
    found = []
    for mode in ("mha", "fused", "kernels"):
        policy.attention_mode = mode
        output = policy(batch, starts_BT=starts, dense=True, with_indexer_kl=True)
        gradients = torch.autograd.grad(output.indexer_kl.square().sum(), weights)
        found.append([output.logits_BTV, output.indexer_kl, *gradients])
        assert output.indexer_topk is None
    assert all(gradient.abs().max() > 0 for gradient in found[0][2:])
    for other in found[1:]:
        for mine, theirs in zip(other, found[0], strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("heads", "width", "length"), [(1, 16, 40), (2, 32, 60), (3, 8, 50), (8, 64, 40)])
def test_a_score_does_not_depend_on_how_many_are_scored_together(heads, width, length):
    """Training, prefill and decoding score in other shapes, and must select equal keys: so scores are equal bits."""
    generator = torch.Generator().manual_seed(heads)
    query, key, weight = (
        torch.randn(2, length, *shape, generator=generator) for shape in ((heads, width), (width,), (heads,))
    )
    whole = index_scores(query, key, weight)
    for shorter in (1, 3, 16, 17, 33):
        part = index_scores(query[:, :shorter], key[:, :shorter], weight[:, :shorter])
        assert torch.equal(part, whole[:, :shorter, :shorter])
    padded = torch.cat((key, torch.zeros(2, 16, width)), 1)
    for t in range(length):
        for rows in (1, 16):
            wide = -(-(t + 1) // 16) * 16
            step = (query[:1, t : t + 1], padded[:1, :wide], weight[:1, t : t + 1])
            one = index_scores(*(item.expand(rows, *item.shape[1:]) for item in step))
            assert torch.equal(one[0, 0, : t + 1], whole[0, t, : t + 1])
