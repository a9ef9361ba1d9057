"""The benchmark of the policy: its dense twin is as large as it says, its record is whole, unequal losses are refused."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from benchmarks import policy as benchmark
from benchmarks.dense_twin import active, count, dense_twin
from envsynth.policy.model import Policy


@pytest.fixture
def threads() -> int:
    return torch.get_num_threads()


@pytest.mark.parametrize("name", list(benchmark.SETTINGS))
def test_dense_twin_has_as_many_parameters_as_the_policy_has_active_ones(name: str) -> None:
    policy = Policy(benchmark.SETTINGS[name].config)
    twin = dense_twin(policy)
    assert count(twin) == pytest.approx(active(policy), rel=0.02)
    assert len(twin.layers) == len(policy.layers)
    assert twin.embed_tokens.weight.shape == policy.embed_tokens.weight.shape
    tokens = torch.randint(policy.config.vocab_size, (2, 20))
    logits = twin(tokens)
    changed = tokens.clone()
    changed[:, 10:] = (tokens[:, 10:] + 1) % policy.config.vocab_size
    assert torch.equal(twin(changed)[:, :10], logits[:, :10]), "a token sees later ones"
    assert not torch.allclose(twin(changed)[:, 10:], logits[:, 10:])


def test_active_counts_the_chosen_experts_alone() -> None:
    policy = Policy(benchmark.SETTINGS["nano"].config)
    assert count(policy) - active(policy) == 4 * (4 - 2) * 3 * 128 * 80


def test_measure_gives_losses_and_rates_of_each_competitor(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark, "TURNS", 2)
    names = (benchmark.OURS, benchmark.DENSE, benchmark.TWIN)
    case = benchmark.measure("nano", threads, 0.0, names)
    assert json.loads(json.dumps(case)) == case
    assert set(case["losses"]) == set(case["tokens_per_s"]) == set(names)
    for found in case["tokens_per_s"].values():
        assert len(found["turns"]) == benchmark.TURNS
        assert 0 < found["slowest"] <= found["median"] <= found["quietest"]
    assert benchmark.ratio(case, benchmark.OURS) == 1.0


def test_summary_and_best_peer_take_the_quietest_turn() -> None:
    first, second = benchmark.PEERS[:2]
    rates = {benchmark.OURS: [10.0, 20.0, 30.0], first: [1.0, 2.0, 15.0], second: [9.0, 9.5, 10.0]}
    case = {"tokens_per_s": {name: benchmark.summary(found) for name, found in rates.items()}}
    assert case["tokens_per_s"][benchmark.OURS] == {
        "median": 20.0,
        "quietest": 30.0,
        "slowest": 10.0,
        "spread": 1.0,
        "turns": [10.0, 20.0, 30.0],
    }
    assert benchmark.best_peer(case) == first
    assert benchmark.best_peer(case, "median") == second
    assert benchmark.ratio(case, first) == 2.0


def test_losses_that_differ_are_refused() -> None:
    made = {
        benchmark.OURS: (nn.Identity(), lambda: torch.tensor(2.0)),
        benchmark.PEERS[0]: (nn.Identity(), lambda: torch.tensor(2.001)),
    }
    with pytest.raises(SystemExit, match=r"differ by more than 0\.0001, nothing is reported"):
        benchmark.starting_losses(made)
    made[benchmark.PEERS[0]] = (nn.Identity(), lambda: torch.tensor(float("nan")))
    with pytest.raises(SystemExit, match="nothing is reported"):
        benchmark.starting_losses(made)


def test_losses_of_equal_weights_agree() -> None:
    reason = "the benchmark needs transformers >= 5.17, an optional peer: pip install transformers"
    pytest.importorskip("transformers.models.deepseek_v32", reason=reason)
    made = benchmark.competitors(benchmark.SETTINGS["nano"], (benchmark.OURS, *benchmark.PEERS))
    losses = benchmark.starting_losses(made)
    assert len(losses) == 5
    assert losses[benchmark.OURS] > 1.0


def test_an_unknown_competitor_is_named() -> None:
    with pytest.raises(ValueError, match="no competitor 'somebody'"):
        benchmark.competitors(benchmark.SETTINGS["nano"], ("somebody",))
