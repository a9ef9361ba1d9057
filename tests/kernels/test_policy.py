"""The policy through the kernels themselves, interpreted: forward, gradients, scores, decoding; and what they refuse."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import envsynth.kernels.experts
import envsynth.kernels.indexer
import envsynth.kernels.logprobs
import envsynth.kernels.sparse_attention
import envsynth.kernels.topk
from acceptance.policy_models import TINY, random_policy, random_tokens
from envsynth.kernels.dispatch import UnsupportedError
from envsynth.policy.engine import Engine
from envsynth.policy.model import Policy
from envsynth.policy.sampling import KeptSets
from envsynth.policy.scores import next_token_request

OPERATORS = (
    envsynth.kernels.experts,
    envsynth.kernels.indexer,
    envsynth.kernels.logprobs,
    envsynth.kernels.sparse_attention,
    envsynth.kernels.topk,
)


@pytest.fixture
def chosen(monkeypatch) -> list[str]:
    """Every operator takes its kernels, as on a GPU, and writes down its name."""
    names: list[str] = []
    for module in OPERATORS:
        monkeypatch.setattr(module, "choose", lambda name, *_, **__: names.append(name) or "triton")
    return names


def scored(policy: Policy, batch: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Scores, the indexer's loss, and the gradients of both."""
    kept = KeptSets(
        ids=torch.stack((batch.flatten(), (batch.flatten() + 7) % 50)).T.sort(-1).values.flatten().int(),
        offsets=torch.arange(batch.numel() + 1) * 2,
    )
    asked = next_token_request(batch, torch.ones_like(batch, dtype=torch.bool), kept=kept, temperature=0.8)
    policy.zero_grad()
    output = policy(batch, score=asked, with_indexer_kl=True)
    (output.scores.log_probs_BT.sum() + output.indexer_kl.sum()).backward()
    gradients = {name: item.grad.clone() for name, item in policy.named_parameters() if item.grad is not None}
    return output.scores.log_probs_BT.detach(), output.indexer_topk, gradients


@pytest.mark.slow
def test_training_through_kernels_is_training_in_plain_torch(chosen):
    policy, batch = random_policy(TINY), random_tokens(2, 14)
    policy.attention_mode = "mqa"
    want = scored(policy, batch)
    assert not chosen
    policy.attention_mode = "kernels"
    found = scored(policy, batch)
    names = {"experts", "index_select", "sparse_attention", "gathered_scores", "selected_kl", "linear_log_probs"}
    assert set(chosen) >= names
    torch.testing.assert_close(found[0], want[0], rtol=1e-4, atol=1e-5)
    assert torch.equal(found[1], want[1])
    assert found[2].keys() == want[2].keys()
    for name, item in want[2].items():
        torch.testing.assert_close(found[2][name], item, rtol=1e-3, atol=1e-4, msg=name)


@pytest.mark.slow
def test_playing_through_kernels_is_playing_in_plain_torch(chosen):
    def play(mode: str) -> list:
        policy = random_policy(TINY)
        policy.attention_mode = mode
        engine = Engine(policy, n_slots=3, max_len=32)
        engine.start([2], list(range(3, 20)), ["old"])
        engine.generate_turn([2], stop_ids=[1], max_tokens=2)
        for slot, length in ((0, 3), (2, 9)):
            engine.start([slot], list(range(5, 5 + length)), [f"new/{slot}"])
        engine.generate_turn([0, 2], stop_ids=[1], max_tokens=4)
        return [engine.record(slot) for slot in (0, 2)]

    want = play("mha")
    assert not chosen
    for found, item in zip(play("kernels"), want, strict=True):
        for name in ("tokens", "sampled", "routed_experts", "indexer_topk"):
            assert torch.equal(getattr(found, name), getattr(item, name)), name
        torch.testing.assert_close(found.log_probs, item.log_probs, rtol=0, atol=1e-4)
    assert set(chosen) >= {"index_select_decode", "sparse_attention", "experts"}


@pytest.mark.parametrize(
    ("mode", "setting"), [("mha", r"set Policy\.kernels = False"), ("kernels", r"set Policy\.attention_mode = 'mqa'")]
)
def test_a_refusal_names_the_setting_to_change(chosen, mode, setting):
    policy = random_policy(TINY).double()
    policy.attention_mode, policy.kernels = mode, True
    with pytest.raises(UnsupportedError, match=r"float64.*For a policy: " + setting):
        policy(random_tokens(1, 12))
    cache, where = policy.new_cache(1, 12), torch.zeros(1, dtype=torch.int64)
    with pytest.raises(UnsupportedError, match=r"float64.*For a policy: " + setting):
        policy.decode(random_tokens(1), cache, where, where)
    asked = next_token_request(random_tokens(1, 5), torch.ones(1, 5, dtype=torch.bool))
    dense = Policy(TINY).double()
    dense.kernels = True
    with pytest.raises(UnsupportedError, match=r"set Policy\.kernels = False"):
        dense._head(torch.zeros(1, 5, 32, dtype=torch.float64), asked)
    policy.attention_mode, policy.kernels = "mqa", False
    assert policy(random_tokens(1, 12)).logits_BTV.dtype == torch.float64
    assert chosen
