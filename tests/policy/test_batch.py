"""Batches: what leaves, what is padded with what, in which order, and how parts add up."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from envsynth.errors import SpecError
from envsynth.policy.batch import TokenTrajectory, collate, micro_batches, report_groups, take_rows
from envsynth.policy.grpo import GrpoConfig, Totals, grpo_loss, merge_metrics
from envsynth.policy.sampling import KeptSets, kept_from_mask, mask_from_kept, token_log_probs

PAD, V = 7, 8


def trajectory(group="a", member=0, *, reward=1.0, length=4, seed=0, with_kept=True, domain="shop", **changes):
    """Prompt of one token, then sampled tokens with one observation token at position 2; the last token is sampled."""
    generator = torch.Generator().manual_seed(1000 * member + seed + sum(map(ord, group)))
    mask = torch.ones(length, dtype=torch.bool)
    mask[0] = False
    if length > 3:
        mask[2] = False
    tokens = torch.randint(0, V - 1, (length,), generator=generator)
    keep = (torch.rand(length, V, generator=generator) > 0.4) | ~mask[:, None]
    fields = {
        "tokens": tokens,
        "action_mask": mask,
        "log_probs": -torch.rand(length, generator=generator) - 0.5,
        "kept": kept_from_mask(keep, tokens) if with_kept else None,
        "routed_experts": torch.randint(0, 300, (length, 2, 2), generator=generator),
        "indexer_topk": torch.randint(0, length, (length, 2, 3), generator=generator).int(),
        "reward": reward,
        "group": group,
        "member": member,
        "domain": domain,
    }
    return TokenTrajectory(**(fields | changes))


def test_collate_pads_each_field_with_what_means_nothing():
    short, long = trajectory(member=0, length=3), trajectory(member=1, length=5, reward=0.0)
    batch = collate([short, long], pad_id=PAD)
    assert batch.tokens.tolist() == [[*short.tokens.tolist(), PAD, PAD], long.tokens.tolist()]
    assert batch.valid.tolist() == [[True] * 3 + [False] * 2, [True] * 5]
    assert batch.action_mask.tolist() == [[False, True, True, False, False], [False, True, False, True, True]]
    assert batch.mu[0].tolist() == [0.0, *short.log_probs[1:].tolist(), 0.0, 0.0]
    assert batch.mu[1, 2] == 0  # the observation's number is not read
    assert batch.routed_experts[0, :3].tolist() == short.routed_experts.tolist()
    assert batch.routed_experts[0, 3:].unique().tolist() == [-1]
    assert int(batch.routed_experts.max()) > 255  # no narrow integer on the way
    assert batch.indexer_topk[0, :3].tolist() == short.indexer_topk.tolist()
    assert batch.indexer_topk[0, 3:].unique().tolist() == [-1]
    keep = mask_from_kept(batch.kept, V).view(2, 5, V)
    assert torch.equal(keep[0, :3], mask_from_kept(short.kept, V))
    assert bool(keep[0, 3:].all())
    assert torch.equal(keep[1], mask_from_kept(long.kept, V))
    assert batch.advantages.tolist() == [0.5, -0.5]
    assert batch.totals == Totals(n_trajectories=2, n_tokens=5)
    assert batch.domains == ("shop", "shop")


def test_collate_trains_the_end_of_turn_and_no_injected_token():
    """The last sampled token is the end of turn; the observation in the middle is not the policy's."""
    batch = collate([trajectory(length=4)], pad_id=PAD)
    assert batch.action_mask.tolist() == [[False, True, False, True]]


def test_collate_centres_without_void_trajectories():
    """With the void one as 0 the advantages would be 1/3 and -2/3."""
    records = [trajectory(member=0), trajectory(member=1, reward=None), trajectory(member=2, reward=0.0)]
    batch = collate(records, pad_id=PAD)
    assert batch.advantages.tolist() == [0.5, -0.5]
    assert batch.rewards.tolist() == [1.0, 0.0]
    assert batch.report.n_void == (("shop", 1),)
    assert batch.totals.n_trajectories == 2


def test_collate_order_is_that_of_group_and_member():
    records = [trajectory(group, member, reward=float(member)) for group in ("b", "a", "c") for member in (10, 9, 0)]
    wanted = collate(records, pad_id=PAD)
    assert wanted.groups == ("a", "b", "c")
    assert wanted.group_ids.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert wanted.rewards.tolist() == [0.0, 9.0, 10.0] * 3
    for order in ([8, 3, 1, 0, 7, 2, 4, 6, 5], list(range(9))[::-1]):
        found = collate([records[i] for i in order], pad_id=PAD)
        assert torch.equal(found.tokens, wanted.tokens)
        assert torch.equal(found.advantages, wanted.advantages)
        assert torch.equal(found.kept.ids, wanted.kept.ids)


def test_report_names_groups_that_teach_nothing():
    records = [
        *(trajectory("flat", member, reward=0.1) for member in range(3)),
        *(trajectory("good", member, reward=float(member)) for member in range(2)),
        trajectory("one", 0),
        trajectory("rest", 0, reward=None, domain="trip"),
        trajectory("rest", 1),
        trajectory("lost", 0, reward=None),
    ]
    report = report_groups(records)
    assert (report.flat, report.single, report.lost) == (("flat",), ("one", "rest"), ("lost",))
    assert report.n_groups == 4
    assert report.n_void == (("shop", 1), ("trip", 1))
    assert report.refill == ("flat", "lost", "one", "rest")
    batch = collate(records, pad_id=PAD)
    assert batch.report == report
    by_group = {key: batch.advantages[batch.group_ids == i].tolist() for i, key in enumerate(batch.groups)}
    assert by_group == {"flat": [0.0] * 3, "good": [-0.5, 0.5], "one": [0.0], "rest": [0.0]}


def test_collate_without_truncation_or_replay_has_no_records():
    plain = trajectory(with_kept=False, routed_experts=None, indexer_topk=None)
    batch = collate([plain], pad_id=PAD)
    assert (batch.kept, batch.routed_experts, batch.indexer_topk) == (None, None, None)


def test_collate_takes_kept_sets_from_some():
    """A trajectory that was never cut keeps everything; it is no gap in the record."""
    batch = collate([trajectory(member=0, with_kept=False), trajectory(member=1)], pad_id=PAD)
    keep = mask_from_kept(batch.kept, V).view(2, 4, V)
    assert bool(keep[0].all())
    assert not bool(keep[1].all())


def test_collate_widens_selected_keys():
    narrow = trajectory(member=0, indexer_topk=torch.zeros(4, 2, 1, dtype=torch.int32))
    batch = collate([narrow, trajectory(member=1)], pad_id=PAD)
    assert batch.indexer_topk[0].tolist() == [[[0, -1, -1]] * 2] * 4


def live_log_probs(theta, batch):
    return token_log_probs(theta[batch.tokens], batch.tokens, batch.kept, 0.8)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    lengths=st.lists(st.integers(2, 7), min_size=2, max_size=7),
    max_tokens=st.integers(1, 30),
    seed=st.integers(0, 1000),
    reduction=st.sampled_from(["sequence_mean", "token_mean"]),
)
def test_micro_batches_add_up_to_the_batch(lengths, max_tokens, seed, reduction):
    """N1: loss, gradient and metrics, through kept sets and a policy; every row is in one part."""
    records = [
        trajectory("ab"[i % 2], i, length=length, reward=float(i % 3), seed=seed, domain="xy"[i % 2])
        for i, length in enumerate(lengths)
    ]
    batch = collate(records, pad_id=PAD)
    theta = torch.randn(V, V, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).requires_grad_()
    reference = torch.randn(V, V, generator=torch.Generator().manual_seed(seed + 1), dtype=torch.float64)
    config = GrpoConfig(kl_beta=0.1, reduction=reduction, off_policy_delta=0.0)

    def loss_of(part):
        inputs = part.loss_inputs(ref=live_log_probs(reference, part))
        return grpo_loss(live_log_probs(theta, part), inputs, config, part.totals)

    whole, metrics = loss_of(batch)
    parts = micro_batches(batch, max_tokens)
    assert sorted(n for part in parts for n in part.valid.sum(dim=1).tolist()) == sorted(lengths)
    assert all(part.tokens.numel() <= max_tokens or len(part.tokens) == 1 for part in parts)
    assert all(int(part.valid.sum(dim=1).max()) == part.tokens.shape[1] for part in parts)
    found = [loss_of(part) for part in parts]
    total = torch.stack([loss for loss, _ in found]).sum()
    assert total.item() == pytest.approx(whole.item(), abs=1e-12)
    (slope,) = torch.autograd.grad(total, theta)
    (wanted,) = torch.autograd.grad(whole, theta)
    assert torch.allclose(slope, wanted, rtol=0, atol=1e-12)
    merged = merge_metrics(metrics for _, metrics in found)
    assert {name: merged.get(name, 0.0) for name in metrics} == pytest.approx(
        {name: value.item() for name, value in metrics.items()}, abs=1e-12
    )


def test_take_rows_carries_every_field():
    batch = collate([trajectory(member=i, length=3 + i, reward=float(i)) for i in range(3)], pad_id=PAD)
    part = take_rows(batch, [1, 0])
    assert part.tokens.shape == (2, 4)
    for name in ("tokens", "action_mask", "mu", "routed_experts", "indexer_topk"):
        assert torch.equal(getattr(part, name), getattr(batch, name)[[1, 0], :4]), name
    keep = mask_from_kept(batch.kept, V).view(3, 5, V)
    assert torch.equal(mask_from_kept(part.kept, V).view(2, 4, V), keep[[1, 0], :4])
    assert part.rewards.tolist() == [1.0, 0.0]
    assert part.advantages.tolist() == batch.advantages[[1, 0]].tolist()
    assert part.totals == batch.totals


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"log_probs": torch.zeros(3)}, "log_probs"),
        ({"action_mask": torch.ones(5, dtype=torch.bool)}, "action_mask"),
        ({"action_mask": torch.ones(4)}, "must be bool"),
        ({"action_mask": torch.ones(4, dtype=torch.bool)}, "the first token"),
        ({"action_mask": torch.zeros(4, dtype=torch.bool)}, "needs a sampled token"),
        ({"reward": math.nan}, "void"),
        ({"log_probs": torch.full((4,), -math.inf)}, "not finite"),
        ({"log_probs": torch.full((4,), 0.5)}, "above 0"),
        ({"routed_experts": torch.zeros(3, 2, 2)}, "routed_experts"),
        ({"indexer_topk": torch.zeros(9, 2, 2)}, "indexer_topk"),
        ({"kept": KeptSets(ids=torch.zeros(0), offsets=torch.zeros(4, dtype=torch.int64))}, "kept"),
    ],
)
def test_trajectory_refuses(changes, message):
    with pytest.raises(SpecError, match=message):
        trajectory(**changes)


def test_a_void_trajectory_may_hold_anything():
    assert trajectory(reward=None, action_mask=torch.zeros(4, dtype=torch.bool)).reward is None


def test_collate_refuses():
    with pytest.raises(SpecError, match="all of 1 trajectories are void"):
        collate([trajectory(reward=None)], pad_id=PAD)
    with pytest.raises(SpecError, match="a#0 is there twice"):
        collate([trajectory(), trajectory()], pad_id=PAD)
    with pytest.raises(SpecError, match="1 of 2 trajectories have no routed_experts"):
        collate([trajectory(member=0, routed_experts=None), trajectory(member=1)], pad_id=PAD)
    with pytest.raises(SpecError, match="equal layers"):
        collate([trajectory(member=0, routed_experts=torch.zeros(4, 3, 2)), trajectory(member=1)], pad_id=PAD)
    with pytest.raises(SpecError, match="max_tokens"):
        micro_batches(collate([trajectory()], pad_id=PAD), 0)


def test_loss_inputs_hand_over_the_batch():
    batch = collate([trajectory(member=i, reward=float(i)) for i in range(2)], pad_id=PAD)
    inputs = batch.loss_inputs(kl_beta=torch.tensor([0.0, 1.0]))
    assert inputs.mu is batch.mu
    assert inputs.mask is batch.action_mask
    assert inputs.advantages is batch.advantages
    assert inputs.domains == batch.domains
    assert inputs.kl_beta.tolist() == [0.0, 1.0]
    assert replace(inputs, domains=()).ref is None
