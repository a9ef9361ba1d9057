"""Estimates of two stages, exact intervals and tests, against enumeration."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from itertools import combinations

import pytest

from envsynth.evaluate import pass_at_k
from envsynth.evaluate.staged import exact_interval, highest_rate, in_window, lower_rate_test, staged_pass_at_k

WINDOW = (0.125, 0.75)
RATES = (0.0, 0.01, 0.05, 0.125, 0.2, 0.31, 0.5, 0.75, 0.83, 0.99, 1.0)


def binomial(n: int, c: int, rate: float) -> float:
    return math.comb(n, c) * rate**c * (1 - rate) ** (n - c)


def outcomes(n1: int, n2: int, rate: float) -> Iterator[tuple[float, tuple[int, int], tuple[int, int] | None]]:
    """Every outcome of both stages with its chance."""
    for x in range(n1 + 1):
        if not n2 or not in_window(n1, x, WINDOW):
            yield binomial(n1, x, rate), (n1, x), None
        else:
            for y in range(n2 + 1):
                yield binomial(n1, x, rate) * binomial(n2, y, rate), (n1, x), (n2, y)


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize(("n1", "n2"), [(16, 48), (16, 47), (8, 5), (4, 0)])
def test_pass_at_k_over_both_stages_is_unbiased(n1: int, n2: int, rate: float) -> None:
    for k in (1, 4, 16):
        if k <= n1:
            mean = sum(p * staged_pass_at_k(pilot, more, WINDOW, k) for p, pilot, more in outcomes(n1, n2, rate))
            assert math.isclose(mean, 1 - (1 - rate) ** k, abs_tol=1e-12)


def test_the_share_of_passes_is_not_and_that_is_why() -> None:
    mean = 0.0
    for p, (n, c), more in outcomes(16, 48, 0.7):
        mean += p * (c / n if more is None else (c + more[1]) / (n + more[0]))
    assert abs(mean - 0.7) > 0.005


def test_a_pilot_alone_is_the_plain_estimate() -> None:
    assert staged_pass_at_k((16, 1), None, WINDOW, 4) == pass_at_k(16, 1, 4) == 0.25
    # A window that holds every pilot leaves nothing to make up for.
    for c in range(17):
        assert staged_pass_at_k((8, c // 2), (8, c - c // 2), (0.0, 1.0), 3) == pytest.approx(pass_at_k(16, c, 3))


@pytest.mark.parametrize(("pilot", "more", "k"), [((16, 1), (48, 3), 1), ((16, 4), (8, 9), 1), ((16, 4), None, 17)])
def test_counts_that_cannot_be_are_refused(pilot: tuple[int, int], more: tuple[int, int] | None, k: int) -> None:
    with pytest.raises(ValueError, match=r"cannot be|need"):
        staged_pass_at_k(pilot, more, WINDOW, k)


@pytest.mark.parametrize("n", [1, 3, 16, 64])
def test_exact_intervals_leave_two_and_a_half_percent_on_each_side(n: int) -> None:
    for c in range(n + 1):
        low, high = exact_interval(n, c)
        assert low <= c / n <= high
        if c:
            assert math.isclose(sum(binomial(n, i, low) for i in range(c, n + 1)), 0.025, rel_tol=1e-9)
        if c < n:
            assert math.isclose(sum(binomial(n, i, high) for i in range(c + 1)), 0.025, rel_tol=1e-9)
    assert exact_interval(n, 0)[0] == 0.0
    assert exact_interval(n, n)[1] == 1.0


def test_exact_intervals_cover_the_rate_over_both_stages() -> None:
    """At a fixed number of episodes it is 95 %; where the number depends on the pilot, a little less."""
    interval, worst = functools.cache(exact_interval), 1.0
    for rate in (step / 100 for step in range(2, 100, 4)):
        covered = 0.0
        for p, (n1, c1), more in outcomes(16, 48, rate):
            n2, c2 = more or (0, 0)
            low, high = interval(n1 + n2, c1 + c2)
            covered += p * (low <= rate <= high)
        worst = min(worst, covered)
    assert 0.93 < worst < 0.95


def test_failures_alone_exclude_high_rates() -> None:
    assert [round(highest_rate(n, 0), 4) for n in (16, 48, 100)] == [0.1707, 0.0605, 0.0295]
    assert math.isclose(sum(binomial(20, i, highest_rate(20, 3)) for i in range(4)), 0.05, rel_tol=1e-9)
    assert highest_rate(4, 4) == 1.0


def test_the_test_for_a_lower_rate_counts_all_arrangements() -> None:
    for n1, n2 in ((3, 4), (5, 5), (2, 6)):
        for passes in range(n1 + n2 + 1):
            chosen = [sum(index < n1 for index in some) for some in combinations(range(n1 + n2), passes)]
            for c1 in range(max(0, passes - n2), min(n1, passes) + 1):
                share = sum(found <= c1 for found in chosen) / len(chosen)
                assert math.isclose(lower_rate_test((n1, c1), (n2, passes - c1)), share)


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_the_test_for_a_lower_rate_is_seldom_wrong(rate: float) -> None:
    wrong = sum(
        binomial(24, one, rate) * binomial(24, other, rate)
        for one in range(25)
        for other in range(25)
        if lower_rate_test((24, one), (24, other)) <= 0.05
    )
    assert wrong <= 0.05


@pytest.mark.parametrize("counts", [(0, 0), (3, 4), (3, -1)])
def test_intervals_and_tests_refuse_impossible_counts(counts: tuple[int, int]) -> None:
    for function in (exact_interval, highest_rate):
        with pytest.raises(ValueError, match="need n >= 1"):
            function(*counts)
    for pair in ((counts, (3, 1)), ((3, 1), counts)):
        with pytest.raises(ValueError, match="need 0 <= c <= n"):
            lower_rate_test(*pair)
