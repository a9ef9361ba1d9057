"""Configurations: what is refused, and what the preset weighs."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import replace

import pytest

from envsynth.errors import SpecError
from envsynth.policy.config import AttentionConfig, ExpertsConfig, IndexerConfig, PolicyConfig, YarnConfig
from envsynth.policy.model import Policy
from envsynth.policy.presets import nano


@pytest.mark.parametrize("vocab", [200, 300])
def test_nano_has_about_a_million_parameters(vocab):
    count = sum(parameter.numel() for parameter in Policy(nano(vocab)).parameters())
    assert 0.95e6 <= count <= 1.1e6


def test_nano_is_sparse_at_the_length_of_its_episodes():
    assert nano(200).indexer.index_topk < 91 <= nano(200).max_position_embeddings


def test_to_dict_survives_json(tiny):
    assert PolicyConfig.from_dict(json.loads(json.dumps(tiny.to_dict()))) == tiny


def test_to_dict_survives_json_with_yarn(tiny):
    yarn = YarnConfig(factor=4.0, original_max_position_embeddings=16)
    config = replace(tiny, attention=replace(tiny.attention, yarn=yarn), num_nextn_predict_layers=1)
    assert PolicyConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_from_dict_fills_in_what_older_files_do_not_have(tiny):
    data = tiny.to_dict()
    del data["num_nextn_predict_layers"], data["attention"]["yarn"], data["indexer"]["index_precision"]
    assert PolicyConfig.from_dict(data) == tiny


@pytest.mark.parametrize("kind", [PolicyConfig, AttentionConfig, YarnConfig, IndexerConfig, ExpertsConfig])
def test_records_are_small_frozen_and_keyword_only(kind):
    fields = dataclasses.fields(kind)
    assert len(fields) <= 12
    assert all(field.kw_only for field in fields)
    assert kind.__dataclass_params__.frozen


@pytest.mark.parametrize(
    ("part", "changes", "message"),
    [
        ("attention", {"qk_rope_head_dim": 5}, "qk_rope_head_dim must be even, got 5"),
        ("attention", {"num_attention_heads": 0}, "num_attention_heads must be >= 1, got 0"),
        ("attention", {"kv_lora_rank": 2.5}, "kv_lora_rank must be an integer, got 2.5"),
        ("attention", {"rope_theta": 1.0}, "rope_theta must be > 1"),
        ("indexer", {"index_topk": 0}, "index_topk must be >= 1, got 0"),
        ("experts", {"n_group": 3}, "n_group must divide n_routed_experts=8, got 3"),
        ("experts", {"topk_group": 5}, "topk_group must be <= n_group=4, got 5"),
        ("experts", {"n_group": 8, "topk_group": 4}, "a group is scored by its best two experts, but holds 1"),
        ("experts", {"num_experts_per_tok": 5}, "num_experts_per_tok must be <= 4"),
    ],
)
def test_parts_refuse_impossible_values(tiny, part, changes, message):
    with pytest.raises(SpecError, match=message):
        replace(getattr(tiny, part), **changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"vocab_size": 1}, "vocab_size must be >= 2"),
        ({"first_k_dense_replace": 4}, "first_k_dense_replace must be <= 3 layers, got 4"),
        ({"first_k_dense_replace": -1}, "first_k_dense_replace must be >= 0"),
        ({"rms_norm_eps": 0.0}, "rms_norm_eps must be > 0"),
        ({"indexer": IndexerConfig(index_n_heads=1, index_head_dim=2, index_topk=1)}, "must be >= qk_rope_head_dim=4"),
    ],
)
def test_policy_config_refuses_impossible_values(tiny, changes, message):
    with pytest.raises(SpecError, match=message):
        replace(tiny, **changes)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data.update(heads=4), r"PolicyConfig: unknown keys \['heads'\]"),
        (lambda data: data.pop("experts"), r"missing keys \['experts'\]"),
        (lambda data: data["indexer"].update(topk=4), r"IndexerConfig: unknown keys \['topk'\]"),
        (lambda data: data.update(indexer=3), "PolicyConfig.indexer must be a mapping, got 3"),
        (lambda data: data["attention"].update(yarn=2.0), "AttentionConfig.yarn must be a mapping, got 2.0"),
        (lambda data: data["attention"].update(yarn={"factor": 2.0}), r"YarnConfig: .* missing keys \['original_max"),
    ],
)
def test_from_dict_refuses_other_keys(tiny, change, message):
    data = tiny.to_dict()
    change(data)
    with pytest.raises(SpecError, match=message):
        PolicyConfig.from_dict(data)
