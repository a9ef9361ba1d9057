"""Latent attention: against loops over its definition, and its two modes against each other."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from envsynth.policy.attention import LatentAttention, Wants
from envsynth.policy.packing import Layout, visible_keys
from envsynth.policy.rope import rope_angles


def interleaved(vector: Tensor, position: int, theta: float) -> Tensor:
    """Rotate numbers 2i and 2i+1 together."""
    out, width = vector.clone(), len(vector)
    for i in range(width // 2):
        angle = position * theta ** (-2 * i / width)
        a, b = vector[2 * i], vector[2 * i + 1]
        out[2 * i], out[2 * i + 1] = (
            a * math.cos(angle) - b * math.sin(angle),
            a * math.sin(angle) + b * math.cos(angle),
        )
    return out


def by_loops(attention: LatentAttention, x: Tensor, keys: list[list[int]], theta: float) -> Tensor:
    """The definition, one query, head and key at a time."""
    heads, nope, rope, value_dim, latent_dim = 2, 8, 4, 8, 16
    scale, out = (nope + rope) ** -0.5, []
    expand = attention.kv_b_proj.weight.view(heads, nope + value_dim, latent_dim)
    down = attention.kv_a_proj_with_mqa(x)
    latent = functional.rms_norm(down[:, :latent_dim], (latent_dim,), attention.kv_a_layernorm.weight, 1e-6)
    compressed = functional.rms_norm(attention.q_a_proj(x), (24,), attention.q_a_layernorm.weight, 1e-6)
    for t, visible in enumerate(keys):
        read = []
        for h in range(heads):
            query = attention.q_b_proj(compressed[t]).view(heads, nope + rope)[h]
            logits, values = [], []
            for s in visible:
                both = expand[h] @ latent[s]
                with_position = interleaved(query[nope:], t, theta) @ interleaved(down[s, latent_dim:], s, theta)
                logits.append(scale * (query[:nope] @ both[:nope] + with_position))
                values.append(both[nope:])
            read.append(torch.stack(logits).softmax(0) @ torch.stack(values))
        out.append(attention.o_proj(torch.cat(read)))
    return torch.stack(out)


@pytest.mark.parametrize("mode", ["mha", "fused", "mqa", "kernels"])
@pytest.mark.parametrize("length", [5, 14], ids=["dense", "sparse"])
def test_forward_is_the_definition_on_the_selected_keys(policy, tiny, length, mode):
    attention, positions = policy.layers[0].self_attn.double(), torch.arange(length)
    x = torch.randn(1, length, 32, dtype=torch.float64)
    angles = rope_angles(positions, policy.frequencies.double())
    layout = Layout(*angles, positions, None, visible_keys(length, None, x.device), length)
    output = attention(x, layout, Wants(), mode)
    keys = [[s for s in row if s >= 0] for row in output.topk_BTK[0].tolist()]
    want = by_loops(attention, x[0], keys, tiny.attention.rope_theta)
    torch.testing.assert_close(output.out_BTD[0], want, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("mode", ["mqa", "kernels"])
def test_both_modes_agree_in_float64(lively, tokens, mode):
    policy, batch = lively().double(), tokens(1, 40)
    with torch.no_grad():
        whole = policy(batch)
        policy.attention_mode = mode
        cache = policy.new_cache(2, 40)
        for t in range(40):
            where = torch.tensor([1]), torch.tensor([t])
            logits, routed, topk = policy.decode(batch[0, t : t + 1], cache, *where)
            assert torch.equal(routed[0], whole.routed_experts[0, t])
            assert torch.equal(topk[0], whole.indexer_topk[0, t])
            assert (logits[0] - whole.logits_BTV[0, t]).abs().max() < 1e-12
    assert cache.latent_LNSC[:, 0].abs().max() == 0, "the other slot is untouched"


@pytest.mark.parametrize("length", [3, 6], ids=["L<k", "L=k"])
def test_dense_equals_sparse_up_to_k_keys(policy, tokens, length):
    batch = tokens(2, length)
    assert torch.equal(policy(batch, dense=True).logits_BTV, policy(batch).logits_BTV)


def test_dense_path_equals_the_sparse_path_bitwise(lively, tokens, tiny):
    """The short cut for short sequences is no other arithmetic: replaying all keys goes through the sparse path."""
    policy, batch = lively(), tokens(2, 6)
    live = policy(batch)
    assert torch.equal(policy(batch, indexer_topk_BTLK=live.indexer_topk).logits_BTV, live.logits_BTV)
    wide = lively(indexer=replace(tiny.indexer, index_topk=20))
    long = tokens(2, 20)
    assert torch.equal(wide(long).logits_BTV, wide(long, dense=True).logits_BTV)


def test_dense_differs_from_sparse_beyond_k_keys(policy, tokens):
    batch = tokens(2, 20)
    dense, sparse = policy(batch, dense=True), policy(batch)
    assert dense.indexer_topk is None
    difference = (dense.logits_BTV - sparse.logits_BTV).abs().amax((0, 2))
    assert difference[:6].max() < 1e-5
    assert difference[6:].min() > 1e-3


@pytest.mark.parametrize("mode", ["mqa", "kernels"])
def test_decode_ignores_what_it_did_not_select(policy, tokens, mode):
    batch = tokens(1, 31)[0]
    policy.attention_mode = mode
    output, prefilled = policy.prefill(batch[:30])
    assert output.logits_BTV.shape == (1, 30, 50)
    results = []
    for poison in (False, True):
        cache = policy.new_cache(1, 64)
        cache.latent_LNSC[:, :, :30], cache.index_key_LNSJ[:, :, :30] = prefilled
        if poison:  # later positions hold what an earlier sequence, or nothing, left there
            cache.latent_LNSC[:, :, 31:], cache.index_key_LNSJ[:, :, 31:] = float("nan"), float("nan")
        results.append(policy.decode(batch[30:], cache, torch.tensor([0]), torch.tensor([30])))
    assert results[0][0].isfinite().all()
    assert all(torch.equal(clean, poisoned) for clean, poisoned in zip(*results, strict=True))


def test_attention_never_looks_ahead(policy, tokens):
    batch = tokens(1, 30)
    changed = batch.clone()
    changed[0, 20] = (changed[0, 20] + 1) % 50
    before, after = policy(batch).logits_BTV, policy(changed).logits_BTV
    assert (before[:, :20] - after[:, :20]).abs().max() < 1e-5
    assert (before[:, 20] - after[:, 20]).abs().max() > 1e-3
