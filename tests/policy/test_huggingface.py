"""The logits are those of another implementation of the same arithmetic, with the same weights."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any

import pytest
import torch

from envsynth.policy.huggingface import huggingface_config, huggingface_state_dict
from envsynth.policy.indexer import index_scores
from envsynth.policy.model import Policy
from envsynth.policy.presets import nano
from envsynth.policy.selection import exact_topk

TOLERANCE = 1e-5
"""Largest difference of a float32 logit."""


@pytest.fixture(scope="module")
def deepseek_v32() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the peer's own deprecations are not ours
        reason = "the parity check needs transformers >= 5.17, an optional peer: pip install transformers"
        peer = pytest.importorskip("transformers.models.deepseek_v32", reason=reason)
        assert peer.DeepseekV32ForCausalLM  # loads the rest of the peer now, outside of the tests' time
        return peer


def run_peer(deepseek_v32: Any, policy: Policy, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Give the peer's logits, and the keys that it selected, in our form [B, T, L, K]."""
    chosen: list[torch.Tensor] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config = deepseek_v32.DeepseekV32Config(**huggingface_config(policy.config), attn_implementation="eager")
        model = deepseek_v32.DeepseekV32ForCausalLM(config).eval()
        model.load_state_dict(huggingface_state_dict(policy), strict=True)
        for layer in model.model.layers:
            layer.self_attn.indexer.register_forward_hook(lambda _module, _inputs, output: chosen.append(output))
        with torch.no_grad():
            logits = model(tokens, use_cache=False).logits
    length, k = tokens.shape[1], policy.config.indexer.index_topk
    later = torch.stack(chosen, dim=2) > torch.arange(length)[:, None, None]
    keys = torch.stack(chosen, dim=2).masked_fill(later, length).sort(dim=-1).values
    keys = keys.masked_fill(keys == length, -1)
    return logits, torch.nn.functional.pad(keys, (0, k - keys.shape[-1]), value=-1)


def without_ties(policy: Policy) -> Policy:
    """Give every second indexer head the opposite query, so that no key scores exactly zero.

    On ties the peer keeps any of the tied keys, and we keep the first ones.
    """
    with torch.no_grad():
        for layer in policy.layers:
            indexer = layer.self_attn.indexer
            queries = indexer.wq_b.weight.unflatten(0, (indexer.heads, -1))
            queries[1::2] = -queries[::2]
    return policy


@pytest.mark.parametrize("length", [20, 32, 33, 120], ids=["L20<k", "L32=k", "L33>k", "L120>k"])
def test_forward_equals_transformers_on_nano(deepseek_v32, lively, tokens, length):
    policy = without_ties(lively(nano(250)))
    batch = tokens(2, length, vocab=250)
    with torch.no_grad():
        ours = policy(batch)
    theirs, keys = run_peer(deepseek_v32, policy, batch)
    assert theirs.std() > 0.1, "flat logits would agree with anything"
    assert torch.equal(ours.indexer_topk, keys)
    assert (ours.logits_BTV - theirs).abs().max() <= TOLERANCE


def test_forward_equals_transformers_with_groups_and_a_dense_layer(deepseek_v32, policy, tokens):
    batch = tokens(3, 40)
    with torch.no_grad():
        ours = without_ties(policy)(batch).logits_BTV
    assert (ours - run_peer(deepseek_v32, policy, batch)[0]).abs().max() <= TOLERANCE


def test_selection_equals_transformers_up_to_ties(deepseek_v32, lively, tokens):
    policy, batch = lively(nano(250)), tokens(2, 120, vocab=250)
    theirs, keys = run_peer(deepseek_v32, policy, batch)
    seen = []
    for layer in policy.layers:
        layer.self_attn.indexer.register_forward_hook(lambda _module, _inputs, output: seen.append(output))
    with torch.no_grad():
        replayed = policy(batch, indexer_topk_BTLK=keys)
    assert (replayed.logits_BTV - theirs).abs().max() <= TOLERANCE
    causal, n_differing = torch.ones(120, 120, dtype=torch.bool).tril(), 0
    for layer, parts in enumerate(seen):
        scores = index_scores(*parts).masked_fill(~causal, float("-inf"))
        ours = exact_topk(scores, causal, 32)
        n_differing += int((ours != keys[:, :, layer]).any(-1).sum())
        kept = [
            scores.gather(-1, rows.clamp(min=0).long())[:, 32:].sort(-1).values for rows in (ours, keys[:, :, layer])
        ]
        assert (kept[0] - kept[1]).abs().max() <= 1e-6
    assert n_differing > 0, "without ties this test says no more than the others"


def test_peer_sees_sparse_attention(deepseek_v32, lively, tokens):
    policy, batch = lively(nano(250)), tokens(1, 120, vocab=250)
    theirs, _ = run_peer(deepseek_v32, policy, batch)
    with torch.no_grad():
        dense = policy(batch, dense=True).logits_BTV
    assert (dense - theirs).abs().max() > 1e-2


def test_names_cover_every_weight_once(policy):
    named = huggingface_state_dict(policy)
    assert sum(tensor.numel() for tensor in named.values()) == sum(t.numel() for t in policy.state_dict().values())


def test_huggingface_config_refuses_another_rotation(tiny):
    other = replace(tiny, indexer=replace(tiny.indexer, index_rope_interleave=True))
    with pytest.raises(ValueError, match="rotates halves"):
        huggingface_config(other)
