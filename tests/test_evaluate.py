"""Statistics against brute force, and evaluations on the tiny shop, in one process and in several."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from fractions import Fraction
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envsynth.actors import IdleActor, actor_factory
from envsynth.errors import SpecError, WorkError
from envsynth.evaluate import (
    EvaluationOptions,
    EvaluationReport,
    cluster_interval,
    evaluate,
    pass_at_k,
    pass_hat_k,
    summarize,
    wilson,
)
from envsynth.rollout import Actor
from envsynth.spec import EnvironmentSpec, TaskVersion
from envsynth.trajectory import StopReason, Trajectory, Verdict, void_verdict

Pairs = list[tuple[EnvironmentSpec, TaskVersion]]

# ----------------------------------------------------------------------------------------------------------- statistics


@pytest.mark.parametrize("n", range(1, 8))
def test_pass_at_k_and_pass_hat_k_equal_counting_all_choices(n: int) -> None:
    for c in range(n + 1):
        episodes = [True] * c + [False] * (n - c)
        for k in range(1, n + 1):
            choices = list(combinations(episodes, k))
            some = Fraction(sum(any(choice) for choice in choices), len(choices))
            every = Fraction(sum(all(choice) for choice in choices), len(choices))
            assert pass_at_k(n, c, k) == float(some)
            assert pass_hat_k(n, c, k) == float(every)


@pytest.mark.parametrize("k", [1, 2, 3])
def test_pass_at_k_is_unbiased(k: int) -> None:
    n, p = 5, Fraction(3, 10)
    chance = [Fraction(math.comb(n, c)) * p**c * (1 - p) ** (n - c) for c in range(n + 1)]
    assert math.isclose(sum(float(chance[c]) * pass_at_k(n, c, k) for c in range(n + 1)), 1 - 0.7**k)
    assert math.isclose(sum(float(chance[c]) * pass_hat_k(n, c, k) for c in range(n + 1)), 0.3**k)


@given(data=st.data(), n=st.integers(1, 300))
def test_pass_at_k_grows_with_k_and_c_and_pass_hat_k_falls(data: st.DataObject, n: int) -> None:
    c, k = data.draw(st.integers(0, n)), data.draw(st.integers(1, n))
    assert 0.0 <= pass_hat_k(n, c, k) <= pass_hat_k(n, c, 1) == c / n == pass_at_k(n, c, 1)
    assert c / n <= pass_at_k(n, c, k) <= 1.0
    if k < n:
        assert pass_at_k(n, c, k) <= pass_at_k(n, c, k + 1)
        assert pass_hat_k(n, c, k) >= pass_hat_k(n, c, k + 1)
    if c < n:
        assert pass_at_k(n, c, k) <= pass_at_k(n, c + 1, k)


@pytest.mark.parametrize(("n", "c", "k"), [(3, 4, 1), (3, -1, 1), (3, 1, 0), (3, 1, 4), (0, 0, 1)])
def test_pass_at_k_refuses_what_cannot_be(n: int, c: int, k: int) -> None:
    for function in (pass_at_k, pass_hat_k):
        with pytest.raises(ValueError, match=f"n={n}, c={c}, k={k}"):
            function(n, c, k)


def test_wilson_known_values() -> None:
    # z^2 / (n + z^2) for no success in ten, and its mirror image
    low, high = wilson(0.0, 10)
    assert low == 0.0
    assert math.isclose(high, 0.27753279, rel_tol=1e-6)
    assert wilson(1.0, 10)[0] == pytest.approx(1 - high)
    assert wilson(1.0, 10)[1] == 1.0
    # the roots of (p - 0.5)^2 = z^2 p (1 - p) / n, solved by hand for n = 4
    assert wilson(0.5, 4) == pytest.approx((0.15003898915214944, 0.8499610108478506))


@given(share=st.floats(0, 1), n=st.integers(1, 1000))
def test_wilson_holds_the_share_and_solves_its_equation(share: float, n: int) -> None:
    low, high = wilson(share, n)
    assert 0.0 <= low <= share + 1e-12
    assert share - 1e-12 <= high <= 1.0
    for end in (low, high):
        if 0.0 < end < 1.0:
            assert math.isclose(
                (end - share) ** 2, 1.959963984540054**2 * end * (1 - end) / n, rel_tol=1e-6, abs_tol=1e-9
            )


@given(clusters=st.lists(st.lists(st.floats(0, 1), min_size=1, max_size=4), min_size=1, max_size=5))
def test_cluster_interval_is_inside_and_has_width_and_repeats(clusters: list[list[float]]) -> None:
    found = cluster_interval(clusters, "1")
    assert 0.0 <= found.low < found.high <= 1.0
    assert found == cluster_interval(clusters, "1")


def test_cluster_interval_says_what_it_did() -> None:
    mixed = cluster_interval([[0.0, 1.0], [1.0, 1.0], [0.0]], "1")
    assert mixed.method == "bootstrap/environments"
    assert cluster_interval([[0.0, 1.0, 1.0]], "1").method == "bootstrap/tasks"
    assert cluster_interval([[0.0, 0.0, 0.0]], "1").method == "wilson/tasks"
    sure = cluster_interval([[1.0]] * 12, "1")
    assert (sure.method, (sure.low, sure.high)) == ("wilson/environments", wilson(1.0, 12))


def test_cluster_interval_is_wider_when_tasks_of_an_environment_agree() -> None:
    rng = random.Random(0)
    values = [[float(rng.random() < 0.5)] * 10 for _ in range(12)]
    clustered = cluster_interval(values, "1")
    alone = cluster_interval([[value] for cluster in values for value in cluster], "1")
    assert clustered.high - clustered.low > 2 * (alone.high - alone.low)


def test_cluster_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    rng = random.Random(5)
    hits = 0
    for trial in range(60):
        clusters = [[float(rng.random() < chance) for _ in range(5)] for chance in (rng.random() for _ in range(20))]
        found = cluster_interval(clusters, str(trial))
        hits += found.low <= 0.5 <= found.high
    assert 50 <= hits <= 60


@pytest.mark.parametrize("clusters", [[], [[0.5], []]])
def test_cluster_interval_needs_values(clusters: list[list[float]]) -> None:
    with pytest.raises(ValueError, match="at least one value"):
        cluster_interval(clusters, "1")


# -------------------------------------------------------------------------------------------------------------- reports


def record(task: TaskVersion, seed: int, score: float | None, calls: int = 0, actor: str = "a") -> Trajectory:
    status = {1.0: "pass", 0.0: "fail", None: "void"}[score]
    return Trajectory(
        environment=task.environment,
        task=task.hash,
        actor=actor,
        seed=seed,
        prompt="",
        turns=tuple({"action": "x", "call": {"tool": "t", "arguments": {}}, "observation": "y"} for _ in range(calls)),
        stop=StopReason.VOID if score is None else StopReason.ANSWERED,
        verdict=Verdict(status=status, score=score, failure="broken" if score is None else None),  # type: ignore[arg-type]
    )


@pytest.fixture
def pairs(shop: EnvironmentSpec, value_task: TaskVersion, restock_task: TaskVersion) -> Pairs:
    return [(shop, value_task), (shop, restock_task)]


def test_summarize_counts_void_and_averages_without_it(pairs: Pairs) -> None:
    first, second = (task for _, task in pairs)
    trajectories = [
        *(record(first, seed, score, 2) for seed, score in enumerate([1.0, 0.0, None, 1.0])),
        *(record(second, seed, score, 5) for seed, score in enumerate([None, None, None, 0.0])),
    ]
    report = summarize(pairs, trajectories, actor="a", n=4, ks=(1, 2), seed=3)
    one, two = report.tasks
    assert (one.n, one.c, one.void, one.mean_calls) == (3, 2, 1, 2.0)
    assert one.pass_at == (pass_at_k(3, 2, 1), pass_at_k(3, 2, 2)) == (2 / 3, 1.0)
    assert one.pass_hat == (2 / 3, 1 / 3)
    assert (two.n, two.c, two.void, two.pass_at, two.pass_hat) == (1, 0, 3, (0.0, None), (0.0, None))
    assert (report.episodes, report.scored, report.passed, report.void) == (8, 4, 2, 4)
    assert report.stops == {"answered": 4, "void": 4}
    assert report.mean_calls == (3 * 2 + 5) / 4
    assert (report.rate(1).pass_at, report.rate(1).tasks, report.rate(1).left_out) == (1 / 3, 2, 0)
    assert (report.rate(2).pass_at, report.rate(2).tasks, report.rate(2).left_out) == (1.0, 1, 1)
    with pytest.raises(SpecError, match="no k=3: it has 1, 2"):
        report.rate(3)
    assert EvaluationReport.from_json(report.to_json()) == report


def test_summarize_of_nothing_but_void_has_no_rate(pairs: Pairs) -> None:
    trajectories = [record(task, 0, None) for _, task in pairs]
    report = summarize(pairs, trajectories, actor="a", n=1)
    rate = report.rate(1)
    assert (rate.pass_at, rate.pass_at_interval, rate.pass_hat, rate.tasks, rate.left_out) == (
        None,
        None,
        None,
        0,
        2,
    )
    assert report.mean_calls is None


@given(scores=st.lists(st.sampled_from([0.0, 1.0, None]), min_size=1, max_size=8), extra=st.integers(0, 5))
def test_void_never_enters_an_average(scores: list[float | None], extra: int) -> None:
    spec, task = MADE
    played = [record(task, seed, score, seed) for seed, score in enumerate(scores)]
    more = [record(task, 100 + seed, None, 50) for seed in range(extra)]
    plain = summarize([(spec, task)], played, actor="a", n=1)
    diluted = summarize([(spec, task)], [*more, *played], actor="a", n=1)
    assert diluted.rates == plain.rates
    assert diluted.mean_calls == plain.mean_calls
    assert diluted.void == plain.void + extra


def test_summarize_passes_over_strangers_and_counts_each_seed_once(pairs: Pairs) -> None:
    task = pairs[0][1]
    trajectories = [
        record(task, 0, None),
        record(task, 0, 1.0),
        record(task, 0, 0.0),
        record(task, 1, 0.0, actor="b"),
        record(pairs[1][1], 0, 1.0),
    ]
    report = summarize(pairs[:1], trajectories, actor="a", n=1)
    assert (report.episodes, report.passed, report.void) == (1, 1, 0)


@pytest.mark.parametrize(
    ("n", "ks", "message"),
    [
        (2, (1, 3), "pass@3 needs at least 3 episodes of each task, but n is 2"),
        (2, (0,), "k must be at least 1, got 0"),
        (2, (), "at least one k"),
        (2, (1, 1), "each once"),
        (0, (1,), "n=0"),
    ],
)
def test_evaluate_refuses_k_that_n_cannot_answer(pairs: Pairs, n: int, ks: tuple[int, ...], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        evaluate(pairs, actor_factory("idle"), n, ks)


# ---------------------------------------------------------------------------------------------------------- evaluations


@pytest.mark.parametrize(("actor", "passed"), [("oracle", 4), ("ablated:no_pagination", 2), ("idle", 0), ("random", 0)])
def test_evaluate_ranks_the_ladder(pairs: Pairs, actor: str, passed: int) -> None:
    tasks = [task for _, task in pairs]
    done: list[Trajectory] = []
    report = evaluate(pairs, actor_factory(actor, tasks), 2, (1, 2), 5, on_done=done.append)
    assert (report.actor, report.episodes, report.passed, report.void) == (actor, 4, passed, 0)
    assert report.rate(1).pass_at == passed / 4
    assert sorted((item.task, item.seed) for item in done) == sorted(
        (task.hash, seed) for task in tasks for seed in (5, 6)
    )
    assert [score.task for score in report.tasks] == [task.hash for task in tasks]


def test_evaluate_is_the_same_in_processes_and_slots(pairs: Pairs, broken_task: TaskVersion) -> None:
    pairs = [*pairs, (pairs[0][0], broken_task)]
    factory = actor_factory("random", seed=3)
    reports: list[EvaluationReport] = []
    played: list[set[str]] = []
    for workers, slots in ((1, 1), (1, 3), (2, 2)):
        done: list[Trajectory] = []
        options = EvaluationOptions(workers=workers, slots=slots)
        reports.append(evaluate(pairs, factory, 4, (1, 4), 9, options=options, on_done=done.append))
        played.append({item.hash for item in done})
        assert len(done) == 12
    assert reports[0].to_json() == reports[1].to_json() == reports[2].to_json()
    assert played[0] == played[1] == played[2]
    assert reports[0].tasks[2].void > 0


def test_evaluate_in_processes_keeps_solutions_private_and_right(pairs: Pairs) -> None:
    tasks = [task for _, task in pairs]
    report = evaluate(pairs, actor_factory("oracle", tasks), 3, (1, 3), options=EvaluationOptions(workers=2))
    assert (report.passed, report.rate(3).pass_hat) == (6, 1.0)


class Counting:
    """A factory of idle actors that counts what they play."""

    name = "idle"

    def __init__(self) -> None:
        self.begun: list[tuple[str, int]] = []
        self.closed = 0

    def __call__(self) -> Actor:
        outer = self

        class Counted(IdleActor):
            def begin(self, slot: int, episode: Any) -> None:
                outer.begun.append((episode.task, episode.seed))

            def close(self) -> None:
                outer.closed += 1

        return Counted()


def test_evaluate_goes_on_where_it_stopped(pairs: Pairs) -> None:
    (_, first), (_, second) = pairs
    whole: list[Trajectory] = []
    expected = evaluate(pairs, Counting(), 3, (1, 3), on_done=whole.append)
    kept = [item for item in whole if (item.task, item.seed) in {(first.hash, 0), (first.hash, 2), (second.hash, 1)}]
    strangers = [
        record(first, 1, 1.0, actor="oracle"),
        record(first, 7, 1.0, actor="idle"),
        record(second, 0, None, actor="idle"),
    ]
    factory, fresh = Counting(), list[Trajectory]()
    report = evaluate(pairs, factory, 3, (1, 3), done=[*strangers, *kept], on_done=fresh.append)
    assert report == expected
    assert factory.begun == [(first.hash, 1), (second.hash, 0), (second.hash, 2)]
    assert [(item.task, item.seed) for item in fresh] == factory.begun
    assert factory.closed == 1


def test_evaluate_with_everything_done_plays_nothing(pairs: Pairs) -> None:
    done: list[Trajectory] = []
    expected = evaluate(pairs, Counting(), 2, on_done=done.append)
    for workers in (1, 2):
        factory = Counting()
        options = EvaluationOptions(workers=workers)
        assert evaluate(pairs, factory, 2, done=done, options=options) == expected
        assert factory.begun == []


def test_evaluate_ctrl_c_keeps_what_was_finished(pairs: Pairs) -> None:
    factory = Counting()
    done: list[Trajectory] = []

    def save(trajectory: Trajectory) -> None:
        done.append(trajectory)
        if len(factory.begun) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate(pairs, factory, 3, on_done=save)
    assert factory.closed == 1
    unique = {item.seed: item for item in done}
    report = evaluate(pairs, Counting(), 3, done=unique.values())
    assert report == evaluate(pairs, Counting(), 3)


class Misnamed:
    name = "oracle"

    def __call__(self) -> Actor:
        return IdleActor()


class Fatal:
    name = "idle"

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __call__(self) -> Actor:
        raise RuntimeError(f"no device at {self.mark.name}")


def test_evaluate_refuses_bad_input(pairs: Pairs, shop_factory: Callable[..., EnvironmentSpec], tmp_path: Path) -> None:
    other = shop_factory("other-shop")
    with pytest.raises(SpecError, match="belongs to environment"):
        evaluate([(other, pairs[0][1])], Counting())
    with pytest.raises(SpecError, match="there twice"):
        evaluate([pairs[0], pairs[0]], Counting())
    with pytest.raises(SpecError, match="not negative"):
        evaluate(pairs, Counting(), seed=-1)
    with pytest.raises(SpecError, match="names must agree"):
        evaluate(pairs, Misnamed())
    with pytest.raises(WorkError, match="no device at gpu0"):
        evaluate(pairs, Fatal(tmp_path / "gpu0"), 2, options=EvaluationOptions(workers=2))


def _made() -> tuple[EnvironmentSpec, TaskVersion]:
    # Hypothesis runs one test many times, so its records are made once, outside of fixtures.
    spec = EnvironmentSpec.parse(
        {
            "slug": "s",
            "title": "t",
            "world": {
                "tables": [{"name": "t", "columns": [{"name": "a", "type": "INTEGER"}], "primary_key": ["a"]}],
                "rows": {},
                "now": "2025-01-01",
            },
            "tools": [
                {"name": "f", "effect": "read", "description": "", "parameters": {}, "source": "def f(db): pass"}
            ],
            "provenance": {"author": "hand", "category": "c", "seed": "0"},
        }
    )
    task = TaskVersion.parse(
        {
            "environment": spec.hash,
            "kind": "read",
            "prompt": "p",
            "answer_schema": {},
            "max_turns": 1,
            "solution": "",
            "verifier": {"form": "program", "program": "x"},
            "oracle": {"answer": {}},
            "provenance": {"author": "hand", "category": "c", "seed": "0"},
        }
    )
    return spec, task


MADE = _made()


def test_report_counts_void_episodes_by_cause(pairs: Pairs) -> None:
    _, task = pairs[0]
    verdicts = [void_verdict("x", "crash"), void_verdict("x", "crash"), void_verdict("x"), void_verdict("x", "memory")]
    played = [
        Trajectory(
            environment=task.environment,
            task=task.hash,
            actor="a",
            seed=seed,
            prompt="p",
            turns=(),
            stop=StopReason.VOID,
            verdict=verdict,
        )
        for seed, verdict in enumerate(verdicts)
    ]
    found = summarize(pairs[:1], played, actor="a", n=4, ks=(1,), seed=0)
    assert found.causes == {"crash": 2, "memory": 1, "other": 1}
    assert found.scored == 0
