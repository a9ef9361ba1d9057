"""Sizes are counted without making a number of the policy."""

from __future__ import annotations

from dataclasses import replace

import pytest

from envsynth.policy.model import Policy
from envsynth.policy.presets import PRESETS
from envsynth.policy.size import PREDICTION, ROUTED, policy_size


def test_policy_size_counts_every_parameter_once(tiny):
    config = replace(tiny, num_nextn_predict_layers=1)
    size = policy_size(config)
    assert sum(size.parts.values()) == sum(parameter.numel() for parameter in Policy(config).parameters())
    assert size.total == sum(size.parts.values()) - size.parts[PREDICTION]
    assert size.total == policy_size(tiny).total
    # Two layers with eight experts of three 32 x 16 matrices, of which three run.
    assert size.parts[ROUTED] == 2 * 8 * 3 * 32 * 16
    assert size.total - size.active == 2 * 5 * 3 * 32 * 16


def test_policy_size_counts_what_a_cache_keeps(tiny):
    cache = Policy(tiny).new_cache(1, 1)
    assert policy_size(tiny).cache_numbers == sum(part.numel() for part in cache)


@pytest.mark.parametrize(
    ("name", "vocabulary", "total", "active"),
    [("small", 512, 10.2e6, 5.1e6), ("large", 8192, 300e6, 85e6), ("deepseek-v3.2", 129_280, 671.9e9, 38.4e9)],
)
def test_policy_size_of_presets(name, vocabulary, total, active):
    size = policy_size(PRESETS[name](vocabulary))
    assert size.total == pytest.approx(total, rel=0.01)
    assert size.active == pytest.approx(active, rel=0.01)
