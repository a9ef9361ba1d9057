"""The logits are those of another implementation of the same arithmetic, with the same weights."""

from __future__ import annotations

import json
import re
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from envsynth.errors import SpecError
from envsynth.policy.config import YarnConfig
from envsynth.policy.huggingface import huggingface_config, huggingface_state_dict, policy_config
from envsynth.policy.indexer import index_scores
from envsynth.policy.model import Policy
from envsynth.policy.presets import PRESETS, nano
from envsynth.policy.rope import attention_frequencies
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


@pytest.mark.parametrize("original", [16, 64, 4096], ids=["short", "as long", "long"])
def test_forward_equals_transformers_with_yarn(deepseek_v32, tiny, lively, tokens, original):
    yarn = YarnConfig(factor=8.0, original_max_position_embeddings=original, mscale=0.707)
    policy = without_ties(lively(tiny, attention=replace(tiny.attention, yarn=yarn)))
    batch = tokens(2, 61)
    with torch.no_grad():
        ours = policy(batch).logits_BTV
    assert (ours - run_peer(deepseek_v32, policy, batch)[0]).abs().max() <= TOLERANCE


@pytest.mark.parametrize("theta", [10.0, 100.0, 10000.0])
@pytest.mark.parametrize("original", [1, 6, 7, 64, 4096, 100_000], ids="L{}".format)
def test_yarn_frequencies_are_those_of_transformers(deepseek_v32, tiny, theta, original):
    yarn = YarnConfig(factor=40.0, original_max_position_embeddings=original)
    attention = replace(tiny.attention, qk_rope_head_dim=8, rope_theta=theta, yarn=yarn)
    config = replace(tiny, attention=attention, indexer=replace(tiny.indexer, index_head_dim=8))
    peer = deepseek_v32.modeling_deepseek_v32.DeepseekV32RotaryEmbedding(
        deepseek_v32.DeepseekV32Config(**huggingface_config(config))
    )
    assert torch.allclose(attention_frequencies(attention), peer.inv_freq, rtol=1e-6, atol=0)
    assert peer.attention_scaling == pytest.approx(yarn.attention_factor)


@pytest.mark.parametrize("name", PRESETS)
def test_policy_config_reads_what_huggingface_config_wrote(name):
    config = PRESETS[name](250)
    data = {"model_type": "deepseek_v32", **huggingface_config(config)}
    # How scores are computed is not in the file.
    exact = replace(config, indexer=replace(config.indexer, index_precision="exact"))
    assert policy_config(data) == exact
    assert policy_config({**data, "num_nextn_predict_layers": 1}) == replace(exact, num_nextn_predict_layers=1)


def test_policy_config_reads_the_configuration_of_transformers(deepseek_v32, tiny):
    theirs = deepseek_v32.DeepseekV32Config(**huggingface_config(tiny)).to_dict()
    assert policy_config(theirs) == tiny


def test_policy_config_reads_the_released_configuration():
    released = json.loads((Path(__file__).parent / "released_config.json").read_text())
    expected = PRESETS["deepseek-v3.2"]()
    expected = replace(expected, num_nextn_predict_layers=1, indexer=replace(expected.indexer, index_precision="exact"))
    assert policy_config(released) == expected
    # The newer form of the same: rotation and base in one mapping, layers by kind.
    newer = {name: value for name, value in released.items() if name not in ("rope_scaling", "rope_theta")}
    newer["rope_parameters"] = {
        **released["rope_scaling"],
        "rope_theta": 10000.0,
        "rope_type": "yarn",
        "truncate": True,
    }
    newer["mlp_layer_types"] = ["dense"] * 3 + ["sparse"] * 58
    newer["layer_types"] = ["indexed_attention"] * 61
    assert policy_config(newer) == expected


YARN = {"rope_type": "yarn", "rope_theta": 100.0, "factor": 4, "original_max_position_embeddings": 16}
YARN |= {"mscale": 1.0, "mscale_all_dim": 1.0}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "deepseek_v3"}, "model_type is 'deepseek_v3'"),
        ({"architectures": ["DeepseekV3ForCausalLM"]}, "architectures"),
        ({"attention_bias": True}, "attention_bias is True"),
        ({"mlp_bias": True}, "mlp_bias"),
        ({"attention_dropout": 0.1}, "attention_dropout is 0.1"),
        ({"tie_word_embeddings": True}, "tie_word_embeddings is True"),
        ({"hidden_act": "gelu"}, "hidden_act is 'gelu'"),
        ({"scoring_func": "softmax"}, "scoring_func is 'softmax'"),
        ({"topk_method": "greedy"}, "topk_method is 'greedy'"),
        ({"moe_layer_freq": 2}, "moe_layer_freq is 2"),
        ({"moe_layer_freq": True}, "moe_layer_freq is True"),
        ({"rope_interleave": False}, "rope_interleave is False"),
        ({"layer_types": ["indexed_attention", "full_attention", "indexed_attention"]}, "layer_types"),
        ({"layer_types": ["indexed_attention"]}, "layer_types"),
        ({"mlp_layer_types": ["sparse", "dense", "sparse"]}, "mlp_layer_types"),
        ({"mlp_layer_types": "dense"}, "mlp_layer_types"),
        ({"num_key_value_heads": 1}, "num_key_value_heads is 1"),
        ({"sliding_window": 128}, "sliding_window is 128"),
        ({"index_topk": 6.0}, "index_topk is 6.0"),
        ({"index_topk": 0}, "index_topk must be >= 1"),
        ({"norm_topk_prob": 1}, "norm_topk_prob is 1"),
        ({"rms_norm_eps": "1e-6"}, "rms_norm_eps is '1e-6'"),
        ({"rms_norm_eps": float("nan")}, "rms_norm_eps is nan"),
        ({"quantization_config": {"quant_method": "awq"}}, "quant_method is 'awq'"),
        ({"quantization_config": {"quant_method": "fp8", "fmt": "e5m2"}}, "fmt is 'e5m2'"),
        ({"quantization_config": {"quant_method": "fp8"}}, "weight_block_size is None"),
        ({"quantization_config": "fp8"}, "quantization_config is 'fp8'"),
        ({"rope_parameters": {"rope_type": "linear", "rope_theta": 100.0, "factor": 2}}, "rope_type"),
        ({"rope_parameters": {"rope_type": "default", "rope_theta": 100.0, "factor": 2}}, "factor is 2"),
        ({"rope_parameters": {"rope_type": "default"}}, "lacks 'rope_theta'"),
        ({"rope_parameters": None}, "lacks 'rope_theta'"),
        ({"rope_parameters": "default"}, "rope_parameters is 'default'"),
        ({"rope_theta": 10.0}, "rope_theta is 10.0"),
        ({"rope_scaling": YARN}, "rope_scaling"),
        ({"rope_parameters": {**YARN, "type": "default"}}, "rope_type"),
        ({"rope_parameters": {**YARN, "mscale": 0}}, "mscale is 0"),
        ({"rope_parameters": {**YARN, "mscale_all_dim": None}}, "mscale_all_dim is None"),
        ({"rope_parameters": {**YARN, "truncate": False}}, "truncate is False"),
        ({"rope_parameters": {**YARN, "attention_factor": 2.0}}, "attention_factor is 2.0"),
        ({"rope_parameters": {**YARN, "factor": None}}, "lacks rope_parameters.factor"),
        ({"rope_parameters": {**YARN, "factor": 0.5}}, "factor must be >= 1"),
        ({"rope_parameters": {**YARN, "short_factor": [1.0]}}, "short_factor"),
    ],
    ids=lambda value: None if isinstance(value, str) else "-".join(value),
)
def test_policy_config_refuses_what_the_policy_cannot_represent(tiny, change, message):
    data = {"model_type": "deepseek_v32", **huggingface_config(tiny)}
    with pytest.raises(SpecError, match=re.escape(message)):
        policy_config({**data, **change})


@pytest.mark.parametrize("key", ["model_type", "vocab_size", "norm_topk_prob", "rms_norm_eps", "first_k_dense_replace"])
def test_policy_config_names_a_missing_key(tiny, key):
    data = {"model_type": "deepseek_v32", **huggingface_config(tiny)}
    del data[key]
    with pytest.raises(SpecError, match=key):
        policy_config(data)


def test_huggingface_config_refuses_another_rotation(tiny):
    other = replace(tiny, indexer=replace(tiny.indexer, index_rope_interleave=True))
    with pytest.raises(SpecError, match="rotates halves"):
        huggingface_config(other)


def test_huggingface_config_refuses_a_single_expert(tiny):
    single = replace(tiny.experts, n_routed_experts=1, num_experts_per_tok=1, n_group=1, topk_group=1)
    with pytest.raises(SpecError, match="best two"):
        huggingface_config(replace(tiny, experts=single))
