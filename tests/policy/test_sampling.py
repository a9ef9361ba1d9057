"""Truncated sampling: what is kept, that training scores what was sampled, and that nothing leaks from the tail."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from envsynth.errors import SpecError
from envsynth.policy.grpo import GrpoConfig, LossInputs, count_totals, grpo_loss
from envsynth.policy.sampling import (
    KeptSets,
    SamplingConfig,
    draw,
    entropy,
    join_kept,
    keep_mask,
    kept_from_mask,
    kept_log_probs,
    kept_mass,
    mask_from_kept,
    select_kept,
    temper,
    token_log_probs,
)

F64 = torch.float64


def generator(seed):
    return torch.Generator().manual_seed(seed)


def logits_of(probabilities):
    return torch.tensor(probabilities, dtype=F64).log()


def kept_ids(probabilities, **rules):
    return keep_mask(logits_of([probabilities]), SamplingConfig(**rules))[0].nonzero()[:, 0].tolist()


# --- the kept set ---------------------------------------------------------------------------------------------------

SKEWED = [0.1, 0.4, 0.05, 0.25, 0.2]


@pytest.mark.parametrize(
    ("rules", "wanted"),
    [
        ({}, [0, 1, 2, 3, 4]),
        ({"top_k": 1}, [1]),
        ({"top_k": 3}, [1, 3, 4]),
        ({"top_k": 9}, [0, 1, 2, 3, 4]),
        ({"top_p": 0.3}, [1]),
        ({"top_p": 0.5}, [1, 3]),
        ({"top_p": 0.66}, [1, 3, 4]),
        ({"top_p": 0.99}, [0, 1, 2, 3, 4]),
        ({"min_p": 0.45}, [1, 3, 4]),
        ({"min_p": 1.0}, [1]),
        ({"top_k": 2, "top_p": 0.8}, [1, 3]),
        ({"top_k": 4, "top_p": 0.8, "min_p": 0.6}, [1, 3]),
        ({"temperature": 0.5, "top_p": 0.6}, [1, 3]),  # squares: 0.16 0.0625 0.04 of 0.275; 0.58, then 0.81
        ({"temperature": 0.5, "min_p": 0.45}, [1]),
    ],
)
def test_keep_mask_follows_the_rules(rules, wanted):
    assert kept_ids(SKEWED, **rules) == wanted


def test_keep_mask_breaks_ties_by_id():
    """Five equal tokens: the lower ids come first, whatever the sort does."""
    assert kept_ids([0.2] * 5, top_k=2) == [0, 1]
    assert kept_ids([0.2] * 5, top_p=0.5) == [0, 1, 2]
    many = torch.zeros(3, 4096)
    assert keep_mask(many, SamplingConfig(top_k=7)).nonzero()[:, 1].tolist() == list(range(7)) * 3


def test_keep_mask_top_p_keeps_the_token_that_passes_the_threshold():
    """Exact in binary: 0.5 + 0.25 reaches 0.75, so the third token is not needed; at 0.76 it is."""
    assert kept_ids([0.5, 0.25, 0.125, 0.125], top_p=0.75) == [0, 1]
    assert kept_ids([0.5, 0.25, 0.125, 0.125], top_p=0.76) == [0, 1, 2]


# --- S1: training scores exactly what was sampled -------------------------------------------------------------------


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 10_000),
    temperature=st.floats(0.3, 3.0),
    top_k=st.one_of(st.none(), st.integers(1, 20)),
    top_p=st.sampled_from([1.0, 0.95, 0.8, 0.5, 0.05]),
    min_p=st.sampled_from([0.0, 0.01, 0.2, 1.0]),
    dtype=st.sampled_from([torch.float64, torch.float32]),
)
def test_ratio_is_one_for_every_sampled_token(seed, temperature, top_k, top_p, min_p, dtype):
    """S1: at equal weights, with whatever truncation; the sampler's values are checked against plain probabilities."""
    config = SamplingConfig(temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p)
    n, t, v = 3, 5, 20
    logits = (3 * torch.randn(n, t, v, generator=generator(seed), dtype=F64)).to(dtype)
    uniform = torch.rand(n * t, generator=generator(seed + 1), dtype=F64)
    sample = draw(logits.flatten(end_dim=1), config, uniform)
    assert bool(sample.keep.gather(-1, sample.ids[:, None]).all())
    kept = kept_from_mask(sample.keep, sample.ids)
    logp = kept_log_probs(logits, sample.ids.view(n, t), kept, temperature)
    tolerance = 1e-12 if dtype == F64 else 1e-6
    mask = torch.ones(n, t, dtype=torch.bool)
    inputs = LossInputs(mu=sample.log_probs.view(n, t), mask=mask, advantages=torch.ones(n))
    _, metrics = grpo_loss(logp, inputs, GrpoConfig(kl_beta=0.0), count_totals(mask))
    assert abs(float(metrics["ratio/max"]) - 1) <= tolerance
    assert abs(float(metrics["ratio/mean"]) - 1) <= tolerance
    # By hand, in fp64: p^(1/T) over the kept set.
    powered = (logits.double().softmax(-1) ** (1 / temperature)).flatten(end_dim=1)
    kept_powered = torch.where(sample.keep, powered, 0)
    by_hand = (kept_powered / kept_powered.sum(-1, keepdim=True)).gather(-1, sample.ids[:, None])[:, 0].log()
    assert torch.allclose(sample.log_probs.double(), by_hand, rtol=0, atol=1e-9 if dtype == F64 else 2e-5)


def test_token_log_probs_align_logits_with_the_next_token():
    """Kept sets belong to the token, logits to the one before; a shift of either gives other numbers."""
    tokens = torch.tensor([[0, 2, 1, 3]])
    logits = torch.randn(1, 4, 5, generator=generator(3), dtype=F64)
    keep = torch.ones(4, 5, dtype=torch.bool)
    keep[1] = torch.tensor([False, False, True, True, False])
    keep[3] = torch.tensor([True, False, False, True, False])
    kept = kept_from_mask(keep, tokens[0])
    found = token_log_probs(logits, tokens, kept, 0.7)[0].tolist()
    z = (logits[0] / 0.7).exp()
    wanted = [0.0, z[0, 2] / (z[0, 2] + z[0, 3]), z[1, 1] / z[1].sum(), z[2, 3] / (z[2, 0] + z[2, 3])]
    assert found == pytest.approx([0.0] + [math.log(float(p)) for p in wanted[1:]], rel=1e-12)
    assert token_log_probs(logits, tokens, None, 0.7)[0, 1] != found[1]


# --- S2: gradients of a truncated policy ----------------------------------------------------------------------------


def test_gradient_of_a_truncated_policy_is_that_of_its_return_and_the_tail_has_none():
    """S2: sum over S of pi(a) A(a) grad log pi^S(a) = grad of the truncated return; tail logits get exactly 0."""
    v, temperature = 8, 0.7
    logits = torch.randn(v, generator=generator(4), dtype=F64).requires_grad_()
    returns = torch.randn(v, generator=generator(5), dtype=F64)
    keep = keep_mask(logits.detach()[None, :], SamplingConfig(temperature=temperature, top_p=0.8))[0]
    inside = keep.nonzero()[:, 0]
    assert 2 <= len(inside) < v
    kept = kept_from_mask(keep.expand(len(inside), v), inside)
    logp = kept_log_probs(logits.expand(len(inside), v), inside, kept, temperature)
    (found,) = torch.autograd.grad((logp.detach().exp() * returns[inside] * logp).sum(), logits)
    truncated_return = ((logits[inside] / temperature).softmax(-1) * returns[inside]).sum()
    (wanted,) = torch.autograd.grad(truncated_return, logits)
    assert float((found - wanted).norm() / wanted.norm()) < 1e-12
    assert float(wanted.norm()) > 0.01
    assert found[~keep].tolist() == [0.0] * int((~keep).sum())


@pytest.mark.parametrize("extreme", [1e4, -1e4])
def test_kept_log_probs_stay_finite_at_extreme_logits(extreme):
    """fp32, a tail far above or below the kept set: neither value nor gradient is NaN or infinite."""
    logits = torch.tensor([[0.0, 1.0, extreme, extreme]], requires_grad=True)
    kept = KeptSets(ids=torch.tensor([0, 1], dtype=torch.int32), offsets=torch.tensor([0, 2]))
    logp = kept_log_probs(logits, torch.tensor([0]), kept, 1.0)
    (slope,) = torch.autograd.grad(logp.sum(), logits)
    assert logp.item() == pytest.approx(-math.log(1 + math.e), rel=1e-6)
    assert slope[0].tolist() == pytest.approx([1 - 1 / (1 + math.e), -math.e / (1 + math.e), 0, 0], rel=1e-5)
    assert slope[0, 2:].tolist() == [0.0, 0.0]


def test_a_singleton_set_is_certain_and_teaches_nothing():
    logits = torch.randn(1, 6, generator=generator(1), dtype=F64).requires_grad_()
    kept = KeptSets(ids=torch.tensor([3], dtype=torch.int32), offsets=torch.tensor([0, 1]))
    logp = kept_log_probs(logits, torch.tensor([3]), kept, 0.5)
    assert logp.tolist() == [0.0]
    assert torch.autograd.grad(logp.sum(), logits)[0].tolist() == [[0.0] * 6]


def test_kept_log_probs_widen_half_precision_before_the_temperature():
    """A bf16 quotient would round to 3 digits."""
    logits = torch.tensor([[1.0, 2.0, 3.0]], dtype=torch.bfloat16)
    found = kept_log_probs(logits, torch.tensor([0]), None, 0.7)
    assert found.dtype == torch.float32
    assert found.item() == pytest.approx(float((logits.double() / 0.7).log_softmax(-1)[0, 0]), abs=1e-6)


# --- drawing --------------------------------------------------------------------------------------------------------


def test_draw_follows_the_recorded_probabilities():
    """A grid of uniform numbers is a sample without noise: frequencies equal exp(recorded log-prob) to the grid."""
    n = 20_000
    logits = 1.5 * torch.randn(12, generator=generator(8), dtype=F64)
    config = SamplingConfig(temperature=0.8, top_p=0.9, top_k=9)
    uniform = (torch.arange(n, dtype=F64) + 0.5) / n
    sample = draw(logits.expand(n, 12), config, uniform)
    seen = torch.bincount(sample.ids, minlength=12).double() / n
    inside = sample.keep[0]
    assert seen[~inside].sum() == 0
    for token in inside.nonzero()[:, 0].tolist():
        recorded = sample.log_probs[sample.ids == token][0].exp()
        assert abs(float(seen[token] - recorded)) <= 1.01 / n


@pytest.mark.parametrize("value", [0.0, 1.0 - 2.0**-53])
@pytest.mark.parametrize("probabilities", [[0.0, 0.5, 0.5, 0.0], [0.0, 0.0, 1.0, 0.0], [0.1] * 10])
def test_draw_at_the_ends_of_the_interval_stays_in_the_set(value, probabilities):
    config = SamplingConfig(min_p=0.01)
    sample = draw(logits_of([probabilities]), config, torch.tensor([value], dtype=F64))
    assert bool(sample.keep[0, sample.ids[0]])
    assert math.isfinite(float(sample.log_probs[0]))
    inside = sample.keep[0].nonzero()[:, 0]
    assert int(sample.ids[0]) == int(inside[0] if value == 0 else inside[-1])


def test_draw_depends_on_its_own_row_alone():
    logits = torch.randn(6, 30, generator=generator(9), dtype=F64)
    uniform = torch.rand(6, generator=generator(10), dtype=F64)
    config = SamplingConfig(top_p=0.7)
    together = draw(logits, config, uniform)
    for row in range(6):
        alone = draw(logits[row : row + 1], config, uniform[row : row + 1])
        assert alone.ids[0] == together.ids[row]
        assert alone.log_probs[0] == together.log_probs[row]


# --- records --------------------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None, derandomize=True)
@given(p=st.integers(1, 6), v=st.integers(2, 9), seed=st.integers(0, 10_000), data=st.data())
def test_kept_sets_survive_the_round_trip_and_any_selection(p, v, seed, data):
    keep = torch.rand(p, v, generator=generator(seed)) > 0.5
    keep[0] = data.draw(st.booleans()) or keep[0]
    actions = torch.randint(v, (p,), generator=generator(seed + 1))
    kept = kept_from_mask(keep, actions)
    unfolded = mask_from_kept(kept, v)
    assert torch.equal(unfolded, keep.scatter(-1, actions[:, None], True))
    rows = data.draw(st.lists(st.integers(-1, p - 1), max_size=8))
    selected = mask_from_kept(select_kept(kept, torch.tensor(rows, dtype=torch.int64)), v)
    wanted = [unfolded[row].tolist() if row >= 0 else [True] * v for row in rows]
    assert selected.tolist() == wanted
    joined = mask_from_kept(join_kept([kept, select_kept(kept, torch.tensor([0])), kept]), v)
    assert joined.tolist() == [*unfolded.tolist(), unfolded[0].tolist(), *unfolded.tolist()]


def test_a_full_set_takes_no_room():
    kept = kept_from_mask(torch.ones(3, 50, dtype=torch.bool), torch.tensor([0, 1, 2]))
    assert (kept.ids.numel(), kept.offsets.tolist()) == (0, [0, 0, 0, 0])


def test_kept_mass_and_entropy_describe_the_full_distribution():
    logits = logits_of([SKEWED, [0.2] * 5])
    keep = torch.tensor([[False, True, False, True, False], [True] * 5])
    kept = kept_from_mask(keep, torch.tensor([1, 0]))
    assert kept_mass(logits, kept, 1.0).tolist() == pytest.approx([0.65, 1.0])
    assert entropy(logits, 1.0).tolist() == pytest.approx([-sum(p * math.log(p) for p in SKEWED), math.log(5)])
    assert entropy(logits, 1e3)[0].item() == pytest.approx(math.log(5), abs=1e-5)


# --- errors ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong",
    [{"temperature": 0.0}, {"temperature": math.inf}, {"top_k": 0}, {"top_p": 0.0}, {"top_p": 1.1}, {"min_p": -0.1}],
)
def test_config_refuses(wrong):
    with pytest.raises(SpecError, match=next(iter(wrong))):
        SamplingConfig(**wrong)


def test_records_that_do_not_fit_are_refused():
    logits = torch.zeros(2, 4)
    one = KeptSets(ids=torch.tensor([0], dtype=torch.int32), offsets=torch.tensor([0, 1]))
    two = KeptSets(ids=torch.tensor([0, 1], dtype=torch.int32), offsets=torch.tensor([0, 1, 2]))
    with pytest.raises(SpecError, match="1 kept sets for 2 tokens"):
        kept_log_probs(logits, torch.tensor([0, 1]), one, 1.0)
    with pytest.raises(SpecError, match="not in its kept set"):
        kept_log_probs(logits, torch.tensor([1, 1]), two, 1.0)
    with pytest.raises(SpecError, match="disagree"):
        kept_log_probs(logits, torch.tensor([1]), None, 1.0)
    with pytest.raises(SpecError, match="outside the vocabulary"):
        mask_from_kept(two, 1)
    with pytest.raises(SpecError, match="offsets"):
        mask_from_kept(KeptSets(ids=two.ids, offsets=torch.tensor([0, 1])), 4)
    with pytest.raises(SpecError, match="uniform"):
        draw(logits, SamplingConfig(), torch.tensor([0.0, 1.0]))


def test_temper_keeps_fp64():
    assert temper(torch.zeros(1, dtype=F64), 2.0).dtype == F64
    assert temper(torch.ones(1, dtype=torch.float16), 2.0).tolist() == [0.5]
