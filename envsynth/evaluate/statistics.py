"""Estimates and intervals. Standard library only, seeded, exact where counting is."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from math import comb

Z_95 = 1.959963984540054
"""Quantile of the normal distribution for a two-sided interval of 95 %."""

RESAMPLES = 2000
"""Resamples of the bootstrap (count)."""


@dataclass(frozen=True)
class Interval:
    """A two-sided interval of 95 %."""

    low: float
    """Lower end."""
    high: float
    """Upper end."""
    method: str
    """`bootstrap` or `wilson`, and what was counted as independent: `environments` or `tasks`."""


def _check(n: int, c: int, k: int) -> None:
    if not 0 <= c <= n or not 1 <= k <= n:
        raise ValueError(f"need 0 <= c <= n and 1 <= k <= n, got n={n}, c={c}, k={k}")


def pass_at_k(n: int, c: int, k: int) -> float:
    """Estimate the chance that at least one of k fresh episodes passes, without bias.

    Of all ways to choose k of the n episodes, the share that holds a pass: `1 - C(n - c, k) / C(n, k)`.

    Args:
        n: Scored episodes.
        c: Passed ones among them.
        k: Episodes that one may try.

    Returns:
        The estimate, in [0, 1].

    Raises:
        ValueError: not 0 <= c <= n, or not 1 <= k <= n.
    """
    _check(n, c, k)
    return (comb(n, k) - comb(n - c, k)) / comb(n, k)


def pass_hat_k(n: int, c: int, k: int) -> float:
    """Estimate the chance that all of k fresh episodes pass (pass^k), without bias: `C(c, k) / C(n, k)`.

    Args:
        n: Scored episodes.
        c: Passed ones among them.
        k: Episodes that must all pass.

    Returns:
        The estimate, in [0, 1].

    Raises:
        ValueError: not 0 <= c <= n, or not 1 <= k <= n.
    """
    _check(n, c, k)
    return comb(c, k) / comb(n, k)


def wilson(share: float, n: int) -> tuple[float, float]:
    """Return the Wilson score interval of 95 %.

    With z = 1.96: centre `(share + z^2 / 2n) / (1 + z^2 / n)`, half width
    `z / (1 + z^2 / n) * sqrt(share * (1 - share) / n + z^2 / 4n^2)`.

    Args:
        share: Observed share, in [0, 1].
        n: Independent observations (count, >= 1).

    Returns:
        Lower and upper end, in [0, 1].

    Raises:
        ValueError: n < 1, or the share is outside [0, 1].
    """
    if n < 1 or not 0.0 <= share <= 1.0:
        raise ValueError(f"need n >= 1 and a share in [0, 1], got n={n}, share={share}")
    squared = Z_95 * Z_95
    scale = 1 + squared / n
    centre = (share + squared / (2 * n)) / scale
    half = Z_95 / scale * math.sqrt(share * (1 - share) / n + squared / (4 * n * n))
    # At the ends the formula gives 0 and 1 exactly but for rounding.
    low = 0.0 if share == 0.0 else max(0.0, centre - half)
    high = 1.0 if share == 1.0 else min(1.0, centre + half)
    return low, high


def cluster_interval(clusters: Sequence[Sequence[float]], seed: str) -> Interval:
    """Return an interval of 95 % for the mean over all tasks, where tasks of one environment are not independent.

    Bootstrap: draw as many environments as there are, with replacement, each with all its tasks; take the mean over the
    drawn tasks; repeat 2000 times; the ends are the 2.5th and 97.5th percentile. With a single environment its tasks
    are drawn instead. Where that has no width, because everything drawn is equal (such as all 0), it would pretend to
    be certain; the Wilson interval is taken instead, with the number of environments (or tasks) as observations.

    Args:
        clusters: Values in [0, 1] of the tasks, by environment; none empty.
        seed: Seed of the resampling.

    Returns:
        The interval.

    Raises:
        ValueError: there is no value, or a cluster is empty.
    """
    if not clusters or not all(clusters):
        raise ValueError("an interval needs at least one value in every cluster")
    unit = "environments"
    if len(clusters) == 1:
        clusters, unit = [[value] for value in clusters[0]], "tasks"
    total = math.fsum(value for cluster in clusters for value in cluster)
    mean = min(1.0, total / sum(map(len, clusters)))
    low, high = _bootstrap([(math.fsum(cluster), len(cluster)) for cluster in clusters], seed)
    if high > low:
        return Interval(low, high, f"bootstrap/{unit}")
    return Interval(*wilson(mean, len(clusters)), f"wilson/{unit}")


def _bootstrap(sums: Sequence[tuple[float, int]], seed: str) -> tuple[float, float]:
    rng = random.Random(f"bootstrap/{seed}")
    means: list[float] = []
    for _ in range(RESAMPLES):
        drawn = rng.choices(sums, k=len(sums))
        means.append(math.fsum(part for part, _ in drawn) / sum(count for _, count in drawn))
    means.sort()
    last = RESAMPLES - 1
    return means[math.floor(0.025 * last)], means[math.ceil(0.975 * last)]
