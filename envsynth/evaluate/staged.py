"""Estimates from episodes whose number depends on the first of them, and exact intervals and tests.

A task gets a pilot of n1 episodes, and n2 more only when its pilot passes are inside a window. The plain share of passes is
then biased: what continues was chosen by its luck. Given the total of passes, the pilot's own is hypergeometric whatever the
true rate is, so averaging the pilot's estimate over the pilots that could have led there is unbiased and uses all episodes
(Jung and Kim, Statistics in Medicine 2004, for two-stage trials).
"""

from __future__ import annotations

from fractions import Fraction
from math import comb

from envsynth.evaluate.statistics import pass_at_k


def staged_pass_at_k(
    pilot: tuple[int, int], more: tuple[int, int] | None, window: tuple[float, float], k: int
) -> float:
    """Estimate pass@k without bias from a pilot, and from what followed it if anything did.

    Args:
        pilot: Scored episodes of the pilot, and passed ones among them.
        more: The same of the second stage; None when there was none, because the pilot's share was outside the window.
        window: Shares of the pilot between which, ends included, the second stage is played.
        k: Episodes that one may try, at most those of the pilot.

    Returns:
        The estimate, in [0, 1]. Over all outcomes of both stages its mean is `1 - (1 - p)^k` for every true rate p.

    Raises:
        ValueError: counts do not fit each other, k is more than the pilot, or the second stage was played outside of its
            window.
    """
    n1, x1 = pilot
    alone = pass_at_k(n1, x1, k)
    if more is None:
        return alone
    n2, x2 = more
    if not 0 <= x2 <= n2 or not in_window(n1, x1, window):
        raise ValueError(f"{x1} of {n1} passes with {x2} of {n2} after them cannot be: the window is {window}")
    total, weight, found = x1 + x2, 0, Fraction(0)
    for x in range(max(0, total - n2), min(n1, total) + 1):
        if in_window(n1, x, window):
            ways = comb(n1, x) * comb(n2, total - x)
            weight += ways
            found += ways * (1 - Fraction(comb(n1 - x, k), comb(n1, k)))
    return float(found / weight)


def in_window(n: int, c: int, window: tuple[float, float]) -> bool:
    """Whether a share of passes is between two others, ends included.

    Args:
        n: Scored episodes.
        c: Passed ones among them.
        window: The two shares.
    """
    return n > 0 and window[0] <= c / n <= window[1]


def exact_interval(n: int, c: int) -> tuple[float, float]:
    """Return the exact interval of 95 % for the chance of a pass (Clopper and Pearson 1934).

    Each end is the chance at which so many passes, or more extreme ones, would be seen in 2.5 % of the cases.

    Args:
        n: Scored episodes (count, >= 1).
        c: Passed ones among them.

    Returns:
        Lower and upper end, in [0, 1].

    Raises:
        ValueError: n < 1, or not 0 <= c <= n.
    """
    if n < 1 or not 0 <= c <= n:
        raise ValueError(f"need n >= 1 and 0 <= c <= n, got n={n}, c={c}")
    low = 0.0 if c == 0 else 1.0 - _chance_of_at_most(n, n - c, 0.025)
    return low, 1.0 if c == n else _chance_of_at_most(n, c, 0.025)


def highest_rate(n: int, c: int, alpha: float = 0.05) -> float:
    """Return the rate that is excluded from below: at it, so few passes are seen in a share `alpha` of the cases.

    With no pass it is `1 - alpha^(1/n)`: 0 of 16 leaves 17 %, 0 of 100 leaves 3 %.

    Args:
        n: Scored episodes (count, >= 1).
        c: Passed ones among them.
        alpha: Chance of being wrong.

    Returns:
        The rate, in [0, 1].

    Raises:
        ValueError: n < 1, or not 0 <= c <= n.
    """
    if n < 1 or not 0 <= c <= n:
        raise ValueError(f"need n >= 1 and 0 <= c <= n, got n={n}, c={c}")
    return 1.0 if c == n else _chance_of_at_most(n, c, alpha)


def _chance_of_at_most(n: int, c: int, alpha: float) -> float:
    """The rate at which at most c of n pass with chance alpha, by bisection; c < n."""
    low, high = 0.0, 1.0
    for _ in range(60):
        rate = (low + high) / 2
        chance = sum(comb(n, i) * rate**i * (1 - rate) ** (n - i) for i in range(c + 1))
        low, high = (rate, high) if chance > alpha else (low, rate)
    return high


def lower_rate_test(child: tuple[int, int], parent: tuple[int, int]) -> float:
    """Test whether a rate is lower than another one, by Fisher's exact test.

    Args:
        child: Scored episodes, and passed ones among them, of what should be harder.
        parent: The same of what it was made from.

    Returns:
        The chance of so few passes of the child, or fewer, when both rates are equal: small when the child is harder.

    Raises:
        ValueError: counts do not fit each other.
    """
    (n1, c1), (n2, c2) = child, parent
    if not (0 <= c1 <= n1 and 0 <= c2 <= n2 and n1 and n2):
        raise ValueError(f"need 0 <= c <= n and n >= 1, got {child} and {parent}")
    passes = c1 + c2
    ways = sum(comb(n1, c) * comb(n2, passes - c) for c in range(max(0, passes - n2), c1 + 1))
    return float(Fraction(ways, comb(n1 + n2, passes)))
