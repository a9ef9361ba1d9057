"""Settings refuse what cannot be run, and say which."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from envsynth.errors import SpecError
from envsynth.train.fidelity.config import PROFILES, StageConfig, profile, with_steps


@pytest.mark.parametrize("name", PROFILES)
def test_profile_contexts_are_at_least_eight_times_k(name: str) -> None:
    config = profile(name)
    assert config.context >= 8 * max(config.topks)
    assert sum(steps for _, steps in config.phases()) == config.pretrain.steps
    assert [context for context, _ in config.phases()] == sorted(context for context, _ in config.curriculum)


def test_profile_gpu_is_the_grid_of_the_experiment() -> None:
    config = profile("gpu", seeds=2)
    assert (config.context, config.topks, config.heads, config.seeds) == (
        8192,
        (32, 64, 128, 256, 512, 1024),
        (1, 2, 4, 8),
        2,
    )


def test_profile_unknown_is_refused() -> None:
    with pytest.raises(SpecError, match="'huge'"):
        profile("huge")


def test_cell_changes_the_indexer_alone() -> None:
    config = profile("smoke")
    cell = config.cell(2, 4)
    assert (cell.indexer.index_n_heads, cell.indexer.index_topk) == (2, 4)
    assert replace(cell, indexer=config.policy.indexer) == config.policy


def test_with_steps_changes_what_is_given() -> None:
    config = with_steps(profile("smoke"), pretrain=3, warmup=None, sparse=7)
    assert (config.pretrain.steps, config.warmup, config.sparse.steps) == (3, profile("smoke").warmup, 7)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"topks": (4, 9)}, "topks"),
        ({"topks": (4, 4)}, "repeat"),
        ({"heads": ()}, "heads"),
        ({"seeds": 0}, "seeds"),
        ({"curriculum": ((64, 0.5),)}, "curriculum"),
        ({"curriculum": ((32, 1.0),)}, "end with context=64"),
        ({"curriculum": ((32, 0.5), (64, 0.5))}, "filler"),
        ({"context": 63}, "context"),
        ({"policy": replace(profile("smoke").policy, vocab_size=300)}, "vocab_size"),
    ],
)
def test_fidelity_config_refuses(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(SpecError, match=words):
        replace(profile("smoke"), **changes)


@pytest.mark.parametrize("name", ["steps", "batch_tokens", "kl_weight", "seconds"])
def test_stage_config_refuses_zero(name: str) -> None:
    values: dict[str, Any] = {"steps": 1, "batch_tokens": 64, name: 0}
    with pytest.raises(SpecError, match=f"StageConfig.{name}"):
        StageConfig(**values)


def test_stage_config_scale_rises_and_falls() -> None:
    stage = StageConfig(steps=100, batch_tokens=64, rise=10, final_lr=0.1)
    scales = [stage.scale(step) for step in range(100)]
    assert scales[0] == pytest.approx(0.1)
    assert max(scales) == pytest.approx(scales[9], rel=0.02)
    assert scales[-1] == pytest.approx(0.1, abs=0.01)
    assert scales[10:] == sorted(scales[10:], reverse=True)
