"""Exact top-k: one order for everything, ties and broken numbers included."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from envsynth.policy.selection import exact_topk, first_k, kept_mask

SPECIAL = [0.0, -0.0, 1.0, -1.0, math.nan, math.inf, -math.inf, 1e-45, -1e-45, 3e38, -3e38, 65520.0]


def by_sorting(scores: list[float], visible: list[bool], k: int) -> list[int]:
    """The definition: sort visible indices by score descending, then index ascending; keep k; list ascending."""
    value = [-math.inf if math.isnan(score) else score for score in scores]
    order = sorted((index for index in range(len(scores)) if visible[index]), key=lambda index: (-value[index], index))
    kept = sorted(order[:k])
    return kept + [-1] * (k - len(kept))


@settings(max_examples=150, deadline=None)
@given(rows=st.lists(st.tuples(st.sampled_from(SPECIAL), st.booleans()), min_size=1, max_size=24), k=st.integers(1, 30))
def test_exact_topk_is_the_sorted_definition(rows, k):
    scores, visible = [score for score, _ in rows], [seen for _, seen in rows]
    got = exact_topk(torch.tensor(scores), torch.tensor(visible), k)
    assert got.tolist() == by_sorting(scores, visible, k)
    assert got.dtype == torch.int32


def test_exact_topk_random_rows_match_the_definition():
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(50, 40, generator=generator).mul(2).round().div(2)  # many ties
    visible = torch.rand(50, 40, generator=generator) < 0.7
    got = exact_topk(scores, visible, 9).tolist()
    want = [by_sorting(row, seen, 9) for row, seen in zip(scores.tolist(), visible.tolist(), strict=True)]
    assert got == want


@pytest.mark.parametrize(
    ("scores", "want"),
    [
        ([2.0, 2.0, 2.0, 2.0], [0, 1]),
        ([0.0, -0.0, 0.0, -0.0], [0, 1]),
        ([-0.0, 0.0, -1.0, 0.0], [0, 1]),
        ([-1.0, 0.0, 0.0, 0.0], [1, 2]),
        ([math.nan, -5.0, math.nan, -6.0], [1, 3]),
        ([math.nan, -math.inf, math.nan, -math.inf], [0, 1]),
        ([-math.inf, math.inf, -3e38, 0.0], [1, 3]),
    ],
    ids=["equal", "minus-zero", "minus-zero-first", "plateau-at-boundary", "nan-loses", "nan-ties-minus-inf", "inf"],
)
def test_exact_topk_ties(scores, want):
    assert exact_topk(torch.tensor(scores), torch.ones(4, dtype=torch.bool), 2).tolist() == want


def test_exact_topk_takes_a_visible_nan_before_an_invisible_key():
    got = exact_topk(torch.tensor([9.0, math.nan, 9.0]), torch.tensor([False, True, False]), 2)
    assert got.tolist() == [1, -1]


def test_exact_topk_keeps_order_in_long_equal_rows():
    got = exact_topk(torch.zeros(2, 20000), torch.ones(20000, dtype=torch.bool), 500)
    assert torch.equal(got, torch.arange(500, dtype=torch.int32).expand(2, -1))


def test_exact_topk_does_not_depend_on_the_batch_or_on_grad():
    scores = torch.randn(6, 30, generator=torch.Generator().manual_seed(1)).relu()
    visible = torch.ones(30, dtype=torch.bool)
    together = exact_topk(scores.requires_grad_(), visible, 10)
    assert not together.is_floating_point()
    assert torch.equal(together, torch.stack([exact_topk(row, visible, 10) for row in scores.detach()]))


def test_exact_topk_refuses_to_keep_nothing():
    with pytest.raises(ValueError, match="k must be >= 1, got 0"):
        exact_topk(torch.zeros(3), torch.ones(3, dtype=torch.bool), 0)


@pytest.mark.parametrize("length", [1, 4, 5])
def test_first_k_is_what_causal_topk_selects(length):
    scores = torch.randn(length, length, generator=torch.Generator().manual_seed(2))
    causal = torch.ones(length, length, dtype=torch.bool).tril()
    assert torch.equal(first_k(torch.arange(length), 5), exact_topk(scores, causal, 5))


def test_kept_mask_is_true_at_the_indices_only():
    rows = torch.tensor([[0, 3, -1], [-1, -1, -1], [1, 2, 3]], dtype=torch.int32)
    assert kept_mask(rows, 4).tolist() == [[True, False, False, True], [False] * 4, [False, True, True, True]]
