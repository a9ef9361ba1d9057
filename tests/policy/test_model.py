"""The policy as a whole: outputs, padding, what is refused, fresh weights."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from envsynth.policy.model import Policy, prepare_cpu
from envsynth.policy.presets import nano


def test_forward_gives_float32_logits_and_int32_records(policy, tokens):
    output = policy(tokens(2, 10))
    assert output.logits_BTV.shape == (2, 10, 50)
    assert output.logits_BTV.dtype == torch.float32
    assert (output.routed_experts.dtype, output.indexer_topk.dtype) == (torch.int32, torch.int32)
    assert output.indexer_kl is None


def test_bfloat16_policy_gives_float32_logits(lively, tokens):
    policy = lively()
    batch = tokens(2, 20)
    exact = policy(batch)
    half = policy.to(torch.bfloat16)(
        batch, routed_experts_BTMA=exact.routed_experts, indexer_topk_BTLK=exact.indexer_topk, with_indexer_kl=True
    )
    assert half.logits_BTV.dtype == half.indexer_kl.dtype == torch.float32
    assert (half.logits_BTV - exact.logits_BTV).abs().mean() < 0.1 * exact.logits_BTV.abs().mean()


def test_padding_changes_no_real_token(policy, tokens):
    batch = tokens(2, 25)
    mask = torch.arange(25) < torch.tensor([[25], [12]])
    padded = policy(batch, mask_BT=mask, with_indexer_kl=True)
    other = torch.where(mask, batch, 0)
    again = policy(other, mask_BT=mask, with_indexer_kl=True)
    for name in ("logits_BTV", "routed_experts", "indexer_topk", "indexer_kl"):
        first, second = getattr(padded, name)[mask], getattr(again, name)[mask]
        torch.testing.assert_close(first, second, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"tokens_BT": torch.zeros(3, dtype=torch.int64)}, r"int64 \[B, T\]"),
        ({"tokens_BT": torch.zeros(2, 0, dtype=torch.int64)}, r"B, T >= 1"),
        ({"tokens_BT": torch.zeros(2, 3)}, "got torch.float32"),
        ({"tokens_BT": torch.full((1, 3), 50)}, r"within 0..49, got 50..50"),
        ({"tokens_BT": torch.full((1, 3), -1)}, r"within 0..49, got -1..-1"),
        ({"tokens_BT": torch.zeros(1, 65, dtype=torch.int64)}, "65 tokens, but max_position_embeddings is 64"),
        ({"mask_BT": torch.ones(2, 4, dtype=torch.bool)}, r"the mask must be bool \(2, 3\)"),
        ({"mask_BT": torch.ones(2, 3)}, "got torch.float32"),
        ({"mask_BT": torch.tensor([[True, False, True]] * 2)}, "padding must stand to the right"),
        ({"mask_BT": torch.zeros(2, 3, dtype=torch.bool)}, "at least one real token"),
    ],
)
def test_forward_refuses_what_it_cannot_read(policy, arguments, message):
    with pytest.raises(ValueError, match=message):
        policy(**{"tokens_BT": torch.zeros(2, 3, dtype=torch.int64), **arguments})


def test_prefill_refuses_unknown_tokens(policy):
    with pytest.raises(ValueError, match=r"within 0\.\.49"):
        policy.prefill(torch.tensor([1, 50]))


def test_prefill_gives_the_last_logits_alone_where_asked(policy, tokens):
    batch = tokens(1, 10)[0]
    whole, last = policy.prefill(batch)[0], policy.prefill(batch, last_only=True)[0]
    assert last.logits_BTV.shape == (1, 1, 50)
    torch.testing.assert_close(last.logits_BTV[0, 0], whole.logits_BTV[0, -1], rtol=1e-5, atol=1e-6)
    assert torch.equal(last.indexer_topk, whole.indexer_topk)


def test_prefill_is_the_forward_pass(policy, tokens):
    batch = tokens(1, 20)
    output, cache = policy.prefill(batch[0])
    assert torch.equal(output.logits_BTV, policy(batch).logits_BTV)
    assert cache.latent_LNSC.shape == (3, 1, 20, 20)
    assert cache.index_key_LNSJ.shape == (3, 1, 20, 8)


def test_policy_without_experts_runs(lively, tokens):
    policy = lively(first_k_dense_replace=3)
    batch = tokens(2, 20)
    whole = policy(batch)
    assert whole.routed_experts.shape == (2, 20, 0, 3)
    again = policy(batch, routed_experts_BTMA=whole.routed_experts)
    assert torch.equal(again.logits_BTV, whole.logits_BTV)
    _, routed, _ = policy.decode(batch[0, :1], policy.new_cache(1, 4), torch.tensor([0]), torch.tensor([0]))
    assert routed.shape == (1, 0, 3)


def test_fresh_policy_is_uniform_and_depends_on_the_seed_alone(tiny, tokens):
    first, same, other = (Policy(tiny, seed=seed) for seed in (1, 1, 2))
    assert first(tokens(1, 9)).logits_BTV.abs().max() == 0
    torch.rand(3)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), same.parameters(), strict=True))
    assert not torch.equal(first.embed_tokens.weight, other.embed_tokens.weight)


def test_fresh_nano_learns_to_repeat(tokens):
    """The zero branches of a fresh policy are no dead end: a few steps already fit one batch."""
    policy, batch = Policy(replace(nano(50), num_hidden_layers=2)), tokens(4, 40)
    optimizer = torch.optim.AdamW(policy.parameters(), lr=5e-3)
    losses = []
    for _ in range(15):
        output = policy(batch, with_indexer_kl=True)
        loss = torch.nn.functional.cross_entropy(output.logits_BTV[:, :-1].flatten(0, 1), batch[:, 1:].flatten())
        (loss + 0.1 * output.indexer_kl.mean()).backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[0] == pytest.approx(torch.tensor(50.0).log().item(), abs=1e-5)
    assert losses[-1] < 0.6 * losses[0]


def test_prepare_cpu_flushes_denormals_and_import_does_not():
    probe = (
        "import torch; import envsynth.policy.engine; tiny = torch.tensor(1e-40); before = float(tiny * 1);"
        "from envsynth.policy.model import prepare_cpu; prepare_cpu(1);"
        "print(before > 0, float(tiny * 1) == 0, torch.get_num_threads())"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "True", "1"]


def test_prepare_cpu_refuses_no_threads():
    with pytest.raises(ValueError, match="threads must be >= 1, got 0"):
        prepare_cpu(0)
