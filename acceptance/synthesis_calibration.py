"""Calibrations: estimates are unbiased, routes follow the actor, and nobody's failure deletes a task.

Estimates and intervals are checked by enumerating every outcome of both stages. Then the leaves of a synthesized set (or of
`--db`) are calibrated with the oracle, an idle actor, and solvers that err more and more often; fresh episodes with other
seeds say what the estimates should be. `--fast`: tasks of the nano tier, smaller stages, and no fresh episodes.
"""

from __future__ import annotations

import argparse
import functools
import math
import tempfile
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

from acceptance.claims import Claims
from envsynth.actors import actor_factory
from envsynth.calibrate import CalibrationOptions, PoolSummary, calibrate, summarize_pool
from envsynth.evaluate import EvaluationOptions, evaluate
from envsynth.evaluate.staged import exact_interval, in_window, staged_pass_at_k
from envsynth.pipeline import synthesize
from envsynth.spec import EnvironmentSpec, TaskVersion
from envsynth.store import Store, TaskQuery

CATEGORIES = ("planning a travel itinerary", "warehouse restocking", "sensor alarms")
FRESH_SEED, FRESH = 10_000, 32
TASKS = 8


def outcomes(n1: int, n2: int, rate: float) -> Iterator[tuple[float, tuple[int, int], tuple[int, int] | None]]:
    """Every outcome of both stages with its chance."""
    window = CalibrationOptions().window
    first = [math.comb(n1, x) * rate**x * (1 - rate) ** (n1 - x) for x in range(n1 + 1)]
    then = [math.comb(n2, y) * rate**y * (1 - rate) ** (n2 - y) for y in range(n2 + 1)]
    for x, chance in enumerate(first):
        if in_window(n1, x, window):
            yield from ((chance * then[y], (n1, x), (n2, y)) for y in range(n2 + 1))
        else:
            yield chance, (n1, x), None


def statistics(claims: Claims) -> None:
    """Enumerate 16 and 48 episodes."""
    window, interval = CalibrationOptions().window, functools.cache(exact_interval)
    estimate = functools.cache(staged_pass_at_k)
    error, covered = 0.0, 1.0
    for rate in (step / 50 for step in range(1, 50)):
        every = list(outcomes(16, 48, rate))
        for k in (1, 4, 16):
            mean = sum(chance * estimate(pilot, more, window, k) for chance, pilot, more in every)
            error = max(error, abs(mean - (1 - (1 - rate) ** k)))
        hit = 0.0
        for chance, (n1, c1), more in every:
            n2, c2 = more or (0, 0)
            low, high = interval(n1 + n2, c1 + c2)
            hit += chance * (low <= rate <= high)
        covered = min(covered, hit)
    claims.line("largest bias of pass@1, 4, 16 over 49 rates", f"{error:.1e}", "<= 1e-9", error <= 1e-9)
    claims.line("least coverage of the exact interval", f"{covered:.3f}", ">= 0.93", covered >= 0.93)


class Pool:
    """The tasks and their store.

    Args:
        store: The store.
        options: Numbers of episodes.
    """

    def __init__(self, store: Store, options: CalibrationOptions) -> None:
        entries = store.task_entries(TaskQuery(leaves_only=True, status="passed"))[:TASKS]
        homes = {key: store.environment(key) for key in dict.fromkeys(entry.environment for entry in entries)}
        self.pairs: list[tuple[EnvironmentSpec, TaskVersion]] = [
            (homes[entry.environment], store.task(entry.hash)) for entry in entries
        ]
        self._store, self._options = store, options

    def measured(self, actor: str) -> PoolSummary:
        """Calibrate, store, summarize."""
        factory = actor_factory(actor, [task for _, task in self.pairs])
        found = calibrate(self.pairs, factory, self._options, on_task=self._store.add_calibration)
        return summarize_pool(found)

    def fresh(self, actor: str) -> float:
        """The mean pass rate of episodes with other seeds."""
        factory = actor_factory(actor, [task for _, task in self.pairs])
        options = EvaluationOptions(retries=3)
        report = evaluate(self.pairs, factory, FRESH, (1,), FRESH_SEED, options=options)
        return sum(score.c / score.n for score in report.tasks) / len(report.tasks)


def play(claims: Claims, pool: Pool, store: Store, shares: tuple[str, ...], *, fresh: bool) -> None:
    """Calibrate with actors of known strength."""
    count = len(pool.pairs)
    before = [entry.hash for entry in store.task_entries()]
    claims.line("tasks", count, ">= 4", count >= 4)
    oracle, idle = pool.measured("oracle"), pool.measured("idle")
    claims.line("routes for the oracle", oracle.routes, f"harden {count}", oracle.routes == {"harden": count})
    claims.line("routes for an idle actor", idle.routes, f"park {count}", idle.routes == {"park": count})
    parked = store.calibrations(actor="idle", route="park")
    solvable = sum(item.planner is True and item.highest is not None for item in parked)
    claims.line("parked tasks that their own solution solves", f"{solvable} of {len(parked)}", "all", solvable == count)
    rates = [oracle.rates[0][1]]
    for share in shares:
        found = pool.measured(f"noisy:{share}")
        rates.append(found.rates[0][1])
        spans = ", ".join(f"pass@{k} {value:.3f} ({span.low:.3f}-{span.high:.3f})" for k, value, span in found.rates)
        print(f"      noisy:{share}: {spans}; {found.routes}; informative {found.informative:.2f}; void {found.void}")
        if fresh:
            error = abs(pool.fresh(f"noisy:{share}") - rates[-1])
            claims.line(
                f"noisy:{share} against {FRESH} fresh episodes a task", f"{error:.3f}", "<= 0.08", error <= 0.08
            )
    falling = all(one > other for one, other in pairwise(rates))
    claims.line("pass@1 as mistakes grow", ", ".join(f"{rate:.3f}" for rate in rates), "falling", falling)
    after = [entry.hash for entry in store.task_entries()]
    claims.line("tasks deleted", len(before) - len(after), "0", before == after)


def main() -> int:
    """Print the lines."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fast", action="store_true")
    parser.add_argument(
        "--db", type=Path, help="a store of tier full, instead of a synthesis; calibrations are added to it"
    )
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    claims = Claims()
    statistics(claims)
    stages = CalibrationOptions(pilot=8, more=8, certify=10) if options.fast else CalibrationOptions(certify=100)
    with tempfile.TemporaryDirectory() as place, Store.open(options.db or Path(place) / "set.db") as store:
        if options.db is None:
            tier = "nano" if options.fast else "full"
            synthesize(
                CATEGORIES, count=4 if options.fast else 6, seed=3, store=store, workers=options.workers, tier=tier
            )
        shares = ("0.2", "0.6") if options.fast else ("0.03", "0.1")
        play(claims, Pool(store, stages), store, shares, fresh=not options.fast)
    return claims.exit_code()


if __name__ == "__main__":
    raise SystemExit(main())
