"""Calibrations: stages, routes, void episodes, going on after an interruption; and children that are measured by an actor."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from envsynth.actors import SlotActor, answer_move
from envsynth.calibrate import ActorMeasure, CalibrationOptions, calibrate, route, summarize_pool
from envsynth.errors import SpecError, SpecNotFound
from envsynth.evaluate import EvaluationOptions
from envsynth.evaluate.staged import lower_rate_test, staged_pass_at_k
from envsynth.spec import EnvironmentSpec, TaskVersion
from envsynth.store import Calibration, Store
from envsynth.trajectory import Episode, Move, Trajectory

Pair = tuple[EnvironmentSpec, TaskVersion]
RIGHT = {"value": 774}
ONCE = EvaluationOptions(retries=0)


@dataclass
class Plan:
    """A factory of an actor that passes, fails or breaks as planned: `outcome(task, seed, try)` gives `pass`, `fail` or `void`."""

    outcome: Callable[[str, int, int], str]
    name: str = "planned"
    played: list[tuple[str, int]] = field(default_factory=list)
    stop_at: int | None = None
    """Ctrl-C comes at this episode."""

    def __call__(self) -> SlotActor:
        return Planned(self)


class Planned(SlotActor):
    def __init__(self, plan: Plan) -> None:
        super().__init__(plan.name)
        self.plan = plan

    def move(self, slot: int, episode: Episode, observation: str) -> Move:
        key = (episode.task, episode.seed)
        if self.plan.stop_at is not None and len(self.plan.played) == self.plan.stop_at:
            raise KeyboardInterrupt
        attempt = self.plan.played.count(key)
        self.plan.played.append(key)
        found = self.plan.outcome(*key, attempt)
        if found == "void":
            return Move("", stop=True, failure="down", void=True)
        return answer_move(RIGHT if found == "pass" else {"value": 1})


def first(n: int) -> Callable[[str, int, int], str]:
    """Passes of the first n seeds."""
    return lambda task, seed, attempt: "pass" if seed < n else "fail"


@pytest.fixture
def pair(shop: EnvironmentSpec, value_task: TaskVersion) -> Pair:
    return shop, value_task


def one(pair: Pair, plan: Plan, **options: Any) -> Calibration:
    return calibrate([pair], plan, CalibrationOptions(**options), evaluation=ONCE)[0]


# --------------------------------------------------------------------------------------------------------------- stages


@pytest.mark.parametrize(
    ("passes", "more", "where"),
    [
        (0, None, "park"),
        (1, None, "hard"),
        (2, (48, 0), "hard"),
        (12, (48, 0), "hard"),
        (13, None, "harden"),
        (16, None, "harden"),
        (14, None, "harden"),
    ],
)
def test_the_pilot_decides_what_is_played(pair: Pair, passes: int, more: tuple[int, int] | None, where: str) -> None:
    plan = Plan(first(passes))
    found = one(pair, plan)
    assert (found.pilot, found.more, found.route) == ((16, passes), more, where)
    assert plan.played == [(pair[1].hash, seed) for seed in range(16 if more is None else 64)]
    assert [rate.k for rate in found.rates] == [1, 4, 16]
    for rate in found.rates:
        assert rate.value == staged_pass_at_k((16, passes), more, (0.125, 0.75), rate.k)
        assert rate.low <= rate.high
    assert (found.n, found.c) == ((16, passes) if more is None else (64, passes))


@pytest.mark.parametrize(
    ("share", "passed", "where"),
    [
        (0.81, True, "harden"),
        (0.8, True, "train"),
        (0.2, True, "train"),
        (0.19, True, "hard"),
        (0.0, True, "hard"),
        (0.0, False, "park"),
    ],
)
def test_routes(share: float, passed: bool, where: str) -> None:
    assert route(share, passed=passed, band=(0.2, 0.8)) == where


def test_a_task_between_trains_and_the_band_decides(pair: Pair) -> None:
    plan = Plan(lambda task, seed, attempt: "pass" if seed % 2 else "fail")
    assert one(pair, plan).route == "train"
    assert one(pair, Plan(plan.outcome), band=(0.6, 0.9)).route == "hard"
    assert one(pair, Plan(plan.outcome), band=(0.1, 0.4)).route == "harden"
    assert one(pair, Plan(plan.outcome), more=0).more is None


def test_a_task_without_a_pass_is_certified_or_parked(pair: Pair) -> None:
    plan = Plan(lambda task, seed, attempt: "pass" if seed == 37 else "fail")
    found = one(pair, plan, certify=100)
    # Blocks of 16: the one from 32 to 47 has the pass.
    assert (found.route, found.certified, found.certification, found.highest) == ("hard", True, (32, 1), None)
    assert len(plan.played) == 48
    assert [rate.value for rate in found.rates] == [0.0, 0.0, 0.0]
    plan = Plan(lambda task, seed, attempt: "pass" if seed == 100 else "fail")
    found = one(pair, plan, certify=100)
    assert (found.route, found.certified, found.certification) == ("park", False, (84, 0))
    assert found.highest == pytest.approx(0.0295, abs=1e-4)
    assert [seed for _, seed in plan.played] == list(range(100))
    assert one(pair, Plan(first(0))).certified is None
    assert one(pair, Plan(first(1)), certify=100).certified is True


def test_a_parked_task_is_tried_by_its_own_solution(pair: Pair, task_factory: Callable[..., TaskVersion]) -> None:
    assert one(pair, Plan(first(0))).planner is True
    broken = task_factory(pair[0], solution="def solve(call):\n    return {'value': 0}\n")
    assert one((pair[0], broken), Plan(first(0))).planner is False
    assert one(pair, Plan(first(1))).planner is None


# ----------------------------------------------------------------------------------------------------------------- void


def test_void_episodes_are_played_again_and_never_count(pair: Pair) -> None:
    plan = Plan(lambda task, seed, attempt: "void" if attempt < 2 else "pass" if seed % 4 == 0 else "fail")
    found = calibrate([pair], plan, evaluation=EvaluationOptions(retries=2))[0]
    assert (found.pilot, found.more, found.void, found.route) == ((16, 4), (48, 12), 0, "train")
    assert len(plan.played) == 3 * 64


def test_a_pilot_that_stays_void_measures_nothing(pair: Pair) -> None:
    plan = Plan(lambda task, seed, attempt: "void" if seed == 3 else "fail")
    found = one(pair, plan, certify=100)
    assert (found.pilot, found.void, found.route, found.rates) == ((15, 0), 1, "unmeasured", ())
    assert (found.certified, found.highest, found.planner) == (None, None, None)
    assert len(plan.played) == 16
    assert summarize_pool([found]).informative is None


def test_void_episodes_of_the_second_stage_are_left_out(pair: Pair) -> None:
    plan = Plan(lambda task, seed, attempt: "void" if seed >= 60 else "pass" if seed % 4 == 0 else "fail")
    found = one(pair, plan)
    assert (found.pilot, found.more, found.void, found.route) == ((16, 4), (44, 11), 4, "train")
    assert found.rates[0].value == staged_pass_at_k((16, 4), (44, 11), (0.125, 0.75), 1)


# ------------------------------------------------------------------------------------------------------------- going on


def test_an_interrupted_calibration_goes_on_where_it_stopped(pair: Pair, tmp_path: Path) -> None:
    outcome = first(9)
    with Store.open(tmp_path / "s.db") as store:
        store.add_environment(pair[0])
        store.add_task(pair[1])

        def kept(task: str) -> Iterable[Trajectory]:
            return store.trajectories(task, "planned")

        def run(plan: Plan) -> list[Calibration]:
            return calibrate(
                [pair],
                plan,
                evaluation=ONCE,
                done=kept,
                on_done=lambda item: store.add_trajectories([item]),
                on_task=store.add_calibration,
            )

        for stop in (5, 20):
            with pytest.raises(KeyboardInterrupt):
                run(Plan(outcome, stop_at=stop))
        assert [item.seed for item in store.trajectories()] == list(range(25))
        assert store.calibrations() == []
        plan = Plan(outcome)
        found = run(plan)
        assert [seed for _, seed in plan.played] == list(range(25, 64))
        assert found == calibrate([pair], Plan(outcome), evaluation=ONCE) == store.calibrations()
        again = Plan(outcome)
        assert run(again) == found
        assert again.played == []
        assert len(store.calibrations(pair[1].hash, "planned", route="hard")) == 1


def test_what_others_played_and_void_episodes_do_not_count_as_done(pair: Pair) -> None:
    records: list[Trajectory] = []
    calibrate([pair], Plan(first(16), name="other"), evaluation=ONCE, on_done=records.append)
    plan = Plan(first(0))
    calibrate([pair], plan, evaluation=ONCE, done=lambda task: records)
    assert len(plan.played) == 16
    voids: list[Trajectory] = []
    calibrate([pair], Plan(lambda *key: "void"), evaluation=ONCE, on_done=voids.append)
    plan = Plan(first(0))
    found = calibrate([pair], plan, evaluation=ONCE, done=lambda task: voids)
    assert (len(voids), len(plan.played), found[0].void) == (16, 16, 0)
    for known in (records, voids):
        told: list[tuple[str, int]] = []
        still = Plan(lambda *key: "void")
        found = calibrate(
            [pair],
            still,
            evaluation=ONCE,
            done=lambda task, known=known: known,
            on_stage=lambda *one, told=told: told.append(one),
        )
        assert (found[0].pilot, found[0].route, told) == ((0, 0), "unmeasured", [("pilot", 16)])


def test_seeds_are_exact_and_stages_are_told(pair: Pair) -> None:
    plan, told = Plan(lambda task, seed, attempt: "pass" if seed % 3 else "fail"), []
    calibrate([pair], plan, seed=40, evaluation=ONCE, on_stage=lambda *stage: told.append(stage))
    assert [seed for _, seed in plan.played] == list(range(40, 104))
    assert told == [("pilot", 16), ("further", 48)]


def test_many_tasks_are_measured_in_chunks_in_order(
    shop: EnvironmentSpec, task_factory: Callable[..., TaskVersion], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("envsynth.calibrate.CHUNK", 2)
    pairs = [(shop, task_factory(shop, max_turns=6 + number)) for number in range(5)]
    order = {task.hash: number for number, (_, task) in enumerate(pairs)}
    plan = Plan(lambda task, seed, attempt: "pass" if seed < (0, 1, 2, 3, 4)[order[task]] else "fail")
    told: list[Calibration] = []
    found = calibrate(pairs, plan, CalibrationOptions(pilot=4, more=4), evaluation=ONCE, on_task=told.append)
    assert found == told
    assert [item.task for item in found] == [task.hash for _, task in pairs]
    assert [item.route for item in found] == ["park", "hard", "train", "train", "harden"]
    pool = summarize_pool(found)
    assert pool.routes == {"harden": 1, "train": 2, "hard": 1, "park": 1}
    assert (pool.tasks, pool.informative, [k for k, _, _ in pool.rates]) == (5, 0.6, [1, 4])
    assert pool.rates[0][1] == pytest.approx(sum(item.rates[0].value for item in found) / 5)


def test_bad_options_are_refused(pair: Pair) -> None:
    for wrong in ({"pilot": 0}, {"more": -1}, {"certify": -1}, {"band": (0.8, 0.2)}, {"window": (0.0, 0.5)}):
        with pytest.raises(SpecError):
            CalibrationOptions(**wrong)
    with pytest.raises(SpecError, match="there twice"):
        calibrate([pair, pair], Plan(first(0)))


# ---------------------------------------------------------------------------------------------------------------- store


def test_the_latest_calibration_of_each_actor_counts(pair: Pair, tmp_path: Path) -> None:
    spec, task = pair
    with Store.open(tmp_path / "s.db") as store:
        store.add_environment(spec)
        store.add_task(task)
        hard, easy = one(pair, Plan(first(1))), one(pair, Plan(first(16)))
        other = one(pair, Plan(first(1), name="other"))
        for item in (hard, hard, other, easy):
            store.add_calibration(item)
        assert store.calibrations() == [other, easy]
        assert store.calibrations(task.hash[:8], "planned") == [easy]
        assert store.calibrations(route="hard") == [other]
        assert Calibration.from_json(easy.to_json()) == easy
        with pytest.raises(SpecNotFound):
            store.calibrations("0" * 32)
    with Store.open(tmp_path / "empty.db") as store, pytest.raises(Exception, match="is not in the store"):
        store.add_calibration(easy)


# ------------------------------------------------------------------------------------------------------------ hardening


@pytest.fixture
def child(pair: Pair, task_factory: Callable[..., TaskVersion]) -> TaskVersion:
    return task_factory(pair[0], max_turns=9)


def measured(pair: Pair, child: TaskVersion, before: int, after: Callable[[int], str]) -> tuple[Any, Plan]:
    def outcome(task: str, seed: int, attempt: int) -> str:
        return after(seed) if task == child.hash else "pass" if seed < before else "fail"

    plan = Plan(outcome)
    measure = ActorMeasure(lambda tasks: plan, evaluation=ONCE)
    return measure(pair[0], child, pair[1]), plan


def test_a_child_is_harder_when_its_pass_rate_falls(pair: Pair, child: TaskVersion) -> None:
    found, plan = measured(pair, child, 60, lambda seed: "pass" if seed % 2 else "fail")
    chance = lower_rate_test((64, 32), (64, 60))
    assert found.status == "pass"
    assert found.evidence == {
        "actor": "planned", "before": [64, 60], "after": [64, 32], "chance": round(chance, 6), "certified_by": "actor"
    }  # fmt: skip
    assert len(plan.played) == 128
    nothing, _ = measured(pair, child, 60, lambda seed: "fail")
    assert (nothing.status, nothing.evidence["certified_by"]) == ("pass", "planner")


def test_a_child_that_is_as_easy_is_refused_after_its_pilot(pair: Pair, child: TaskVersion) -> None:
    found, plan = measured(pair, child, 60, lambda seed: "pass")
    assert (found.status, found.evidence["after"]) == ("fail", [16, 16])
    assert len(plan.played) == 64 + 16


def test_a_child_that_is_a_little_harder_is_no_proof(pair: Pair, child: TaskVersion) -> None:
    found, _ = measured(pair, child, 60, lambda seed: "fail" if seed < 6 else "pass")
    assert lower_rate_test((64, 58), (64, 60)) > 0.05
    assert (found.status, found.evidence["after"]) == ("fail", [64, 58])
    assert "of the parent 60 of 64: no lower pass rate" in found.findings[0].message


@pytest.mark.parametrize("whose", ["parent", "child"])
def test_void_episodes_are_no_lower_pass_rate(pair: Pair, child: TaskVersion, whose: str) -> None:
    def outcome(task: str, seed: int, attempt: int) -> str:
        broken = (task == child.hash) == (whose == "child")
        return "void" if broken and seed == 5 else "pass" if task != child.hash else "fail"

    found = ActorMeasure(lambda tasks: Plan(outcome), evaluation=ONCE)(pair[0], child, pair[1])
    assert found.status == "void"
    assert f"episodes of the {whose} have a score" in found.findings[0].message


def test_a_parent_is_measured_once(pair: Pair, child: TaskVersion) -> None:
    plan = Plan(first(64))
    measure = ActorMeasure(lambda tasks: plan, evaluation=ONCE)
    assert [measure(pair[0], child, pair[1]).status for _ in range(2)] == ["fail", "fail"]
    assert len(plan.played) == 64 + 16
