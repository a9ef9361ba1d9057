"""Decode steps that are captured once and repeated: buffers, one graph for each number of rows, and when none is kept."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from acceptance.policy_models import random_policy
from envsynth.policy import engine as engine_module
from envsynth.policy.decode_graph import Captured, Decoded, DecodeGraphs, can_capture
from envsynth.policy.drawing import Sampling
from envsynth.policy.engine import Engine
from envsynth.policy.model import LatentCache, Policy
from envsynth.policy.presets import nano


class Imitation:
    """What a CUDA graph does, on a CPU: repeats a call and writes its results to where they were."""

    def __init__(self) -> None:
        self.captures, self.replays = 0, 0

    def __call__(self, call: Callable[[], Decoded]) -> Captured:
        self.captures += 1
        found = call()
        for item in found:
            item.fill_(77)  # a graph that is captured has not run yet

        def replay() -> None:
            self.replays += 1
            for mine, new in zip(found, call(), strict=True):
                mine.copy_(new)

        return Captured(replay, found)


def _policy() -> Policy:
    policy = random_policy(nano(50))
    policy.attention_mode = "kernels"
    return policy.eval()


def _steps(cache: LatentCache, decode: Callable[..., Decoded], rows: list[int], count: int) -> list[Decoded]:
    numbers = torch.tensor(rows)
    found: list[Decoded] = []
    for place in range(count):
        tokens = (numbers * 7 + place * 3) % 50
        logits, routed, keys = decode(tokens, numbers, torch.full_like(numbers, place))
        found.append((logits.clone(), routed.clone(), keys.clone()))
    return found


def test_repeated_steps_are_those_of_the_policy() -> None:
    policy, imitation = _policy(), Imitation()
    plain, captured = policy.new_cache(4, 12), policy.new_cache(4, 12)
    graphs = DecodeGraphs(policy, captured, imitation)
    for rows in ([0, 1, 2], [3, 1], [2, 0, 3]):
        want = _steps(plain, lambda tokens, at, places: policy.decode(tokens, plain, at, places), rows, 6)
        got = _steps(captured, graphs.decode, rows, 6)
        for one, other in zip(want, got, strict=True):
            assert all(torch.equal(left, right) for left, right in zip(one, other, strict=True))
    assert imitation.captures == 2  # of three rows, and of two
    assert imitation.replays == 18
    assert torch.equal(plain.latent_LNSC, captured.latent_LNSC)
    assert torch.equal(plain.index_key_LNSJ, captured.index_key_LNSJ)


def test_graphs_follow_weights_that_change_in_place() -> None:
    policy, imitation = _policy(), Imitation()
    cache = policy.new_cache(2, 8)
    graphs = DecodeGraphs(policy, cache, imitation)
    first = _steps(cache, graphs.decode, [0, 1], 4)
    with torch.no_grad():
        policy.lm_head.weight.mul_(2)
    again = _steps(cache, graphs.decode, [0, 1], 4)
    torch.testing.assert_close(again[-1][0], 2 * first[-1][0])
    assert imitation.captures == 1


def test_a_cpu_captures_nothing() -> None:
    assert not can_capture(_policy())


@pytest.mark.parametrize("moved", [False, True])
def test_the_engine_forgets_graphs_of_weights_that_moved(monkeypatch: pytest.MonkeyPatch, moved: bool) -> None:
    imitation = Imitation()
    monkeypatch.setattr(engine_module, "can_capture", lambda _: True)
    monkeypatch.setattr(engine_module, "DecodeGraphs", lambda policy, cache: DecodeGraphs(policy, cache, imitation))
    policy = _policy()
    captured = Engine(policy, n_slots=3, max_len=30)
    turns = []
    for _ in range(2):
        captured.start([0, 1, 2], [5, 6, 7], ["a", "b", "c"])
        turns.append(captured.generate_turn([0, 1, 2], stop_ids=[], max_tokens=9))
        captured.clear()
        if moved:
            policy.lm_head.weight = torch.nn.Parameter(policy.lm_head.weight.detach().clone())
        else:
            with torch.no_grad():
                policy.lm_head.weight.add_(0.0)
    assert turns[0] == turns[1]
    assert imitation.captures == (2 if moved else 1)
    monkeypatch.undo()
    plain = Engine(policy, n_slots=3, max_len=30)
    plain.start([0, 1, 2], [5, 6, 7], ["a", "b", "c"])
    assert plain.generate_turn([0, 1, 2], stop_ids=[], max_tokens=9) == turns[0]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_engine_samples_the_same_captured_and_launched(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = _policy().to("cuda", torch.bfloat16)
    records = []
    for captured in (True, False):
        with monkeypatch.context() as patched:
            if not captured:
                patched.setattr(engine_module, "can_capture", lambda _: False)
            engine = Engine(policy, n_slots=20, max_len=60, sampling=Sampling(temperature=0.8, sampling_top_p=0.9))
            engine.start(range(20), [5, 6, 7], [f"key/{slot}" for slot in range(20)])
            for _ in range(2):
                engine.generate_turn(range(20), stop_ids=[1, 2], max_tokens=20)
                for slot in range(20):
                    engine.append(slot, [9, 10 + slot])
            records.append([engine.record(slot) for slot in range(20)])
    for one, other in zip(*records, strict=True):
        for name in ("tokens", "sampled", "log_probs", "kept_ids", "kept_offsets", "routed_experts", "indexer_topk"):
            assert torch.equal(getattr(one, name), getattr(other, name)), name
