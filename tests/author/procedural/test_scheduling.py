"""The scheduling mechanism: three texts agree, calendar and other jobs bite, any earliest machine passes, tools refuse."""

from __future__ import annotations

import functools
import itertools
import random
from collections import Counter
from datetime import date, timedelta

import pytest

from envsynth.author.procedural.compose import connect
from envsynth.author.procedural.docs import public_docs
from envsynth.author.procedural.mechanisms.booking import MECHANISM as BOOKING
from envsynth.author.procedural.mechanisms.scheduling import MECHANISM
from tests.author.procedural.mechanism_texts import (
    Play,
    Refusal,
    argument,
    entry,
    make_world,
    missing,
    oracle_changes,
    oracle_diff,
    plan_scope,
    refused,
    sql_value,
    write_tool,
)

SEEDS = range(12)
NAMES = ("ready_day", "completion", "earliest_start", "busy_days")
ONE_DAY = timedelta(days=1)


@functools.cache
def world_of(seed, **rules):
    """A world; tests that change its rows make their own."""
    return make_world([MECHANISM], seed, **rules)


def drawer(world, rng):
    days = sorted({row[column] for row in world.rows["sched_slot"] for column in ("first", "last")})
    return lambda type_: rng.choice(world.rows[type_.detail] if type_.kind == "row" else days)


def goal_scope(world):
    """Goal texts whose `once` works: without it each value would work the whole calendar out again."""
    scope = {"once": functools.cache, "db": world.rows}
    for item in [*world.derived.values(), *world.actions.values()]:
        exec(item.goal, scope)
    return scope


def compare(world, name, draw, rng, count):
    """Assert that the three texts of a derived attribute agree."""
    derived = next(item for item in world.derived.values() if item.name == name)
    database, plan, goal = connect(world), plan_scope(world), goal_scope(world)
    for _ in range(count):
        row = rng.choice(world.rows[derived.entity])
        arguments = [draw(type_) for type_ in derived.params]
        by_sql = sql_value(database, derived, row, arguments)
        by_plan = plan[f"d_{name}"](row, *arguments)
        by_goal = goal[f"g_{name}"](world.rows, row, *arguments)
        assert by_sql == by_plan == by_goal, (name, row, arguments)
        assert type(by_sql) is type(by_plan) is type(by_goal) is (int if derived.type.kind == "num" else str)


@pytest.mark.parametrize("seed", SEEDS)
def test_derived_attributes_agree_in_all_three_texts(seed):
    world, rng = world_of(seed), random.Random(f"scheduling/{seed}")
    for name in NAMES:
        compare(world, name, drawer(world, rng), rng, count=12)


@pytest.mark.parametrize("name", NAMES)
def test_ignoring_the_rules_changes_derived_values(name):
    asked = changed = 0
    for seed in SEEDS:
        world, rng = world_of(seed), random.Random(f"policy/{seed}")
        right, naive, draw = plan_scope(world), plan_scope(world, POLICY=False), drawer(world, rng)
        derived = next(item for item in world.derived.values() if item.name == name)
        for _ in range(12):
            given = [rng.choice(world.rows[derived.entity]), *(draw(type_) for type_ in derived.params)]
            asked += 1
            changed += right[f"d_{name}"](*given) != naive[f"d_{name}"](*given)
    assert changed / asked >= 0.05


class Definition:
    """The sentences of the rules, word by word: an independent fourth calculation."""

    def __init__(self, world):
        self.world, self.rules = world, world.rules
        self.today = date.fromisoformat(world.now)
        self.known = {}

    def target(self, entity, relation, row):
        column, key = self.world.fk(entity, relation)
        ref = self.world.col(entity, relation).ref
        if (ref, key) not in self.known:
            self.known[ref, key] = {other[key]: other for other in self.world.rows[ref]}
        return self.known[ref, key][row[column]]

    def slot(self, job):
        if job["state"] == "cancelled":
            return None
        mine = [row for row in self.world.rows["sched_slot"] if self.target("sched_slot", "job", row) is job]
        return mine[0] if mine else None

    def works(self, day):
        return self.rules["work_weekends"] or day.weekday() < 5

    def end(self, job):
        slot = self.slot(job)
        if slot is None:
            day = self.ready(job)
            for _ in range(job["duration"] - 1):
                day += ONE_DAY
                while not self.works(day):
                    day += ONE_DAY
            return day
        last = date.fromisoformat(slot["last"])
        return last if job["state"] == "done" else max(last, self.today)

    def earlier(self, job):
        for row in self.world.rows["precedence"]:
            if self.target("precedence", "after", row) is job:
                before = self.target("precedence", "before", row)
                if before["state"] != "cancelled":
                    yield before, row.get("lag", 0)

    def ready(self, job):
        days = [self.today, *(self.end(before) + (1 + lag) * ONE_DAY for before, lag in self.earlier(job))]
        if self.rules["kickoffs"]:
            days.append(date.fromisoformat(self.target("job", "scheme", job)["kickoff"]))
        day = max(days)
        while not self.works(day):
            day += ONE_DAY
        return day

    def completion(self, scheme):
        jobs = [job for job in self.world.rows["job"] if self.target("job", "scheme", job) is scheme]
        return max([self.end(job) for job in jobs if job["state"] != "cancelled"], default=self.today)

    def open(self, machine, day):
        if self.rules["closed_by"] != "none":
            place = machine if self.rules["closed_by"] == "machine" else self.target("machine", "site", machine)
            for row in self.world.rows["sched_closure"]:
                if (
                    row["day"] == day.isoformat()
                    and self.target("sched_closure", self.rules["closed_by"], row) is place
                ):
                    return False
        return self.works(day)

    def held(self, machine):
        for row in self.world.rows["sched_slot"]:
            job = self.target("sched_slot", "job", row)
            if self.target("sched_slot", "machine", row) is machine and job["state"] != "cancelled":
                yield job, date.fromisoformat(row["first"]), self.end(job)

    def span(self, machine, job, day):
        """Days from a first day on, or None where the job does not fit."""
        days = [day]
        if not self.open(machine, day):
            return None
        while sum(self.open(machine, each) for each in days) < job["duration"]:
            days.append(days[-1] + ONE_DAY)
        if self.rules["unbroken_jobs"] and len(days) > job["duration"]:
            return None
        near = self.rules["changeover"] * ONE_DAY
        for other, first, last in self.held(machine):
            if other is not job and first - near <= days[-1] and days[0] <= last + near:
                return None
        return days

    def start(self, machine, job):
        day = self.ready(job)
        while not self.span(machine, job, day):
            day += ONE_DAY
        return day


@pytest.mark.parametrize("seed", SEEDS)
def test_values_are_those_of_the_definition(seed):
    world, rng = world_of(seed), random.Random(f"definition/{seed}")
    plan, known = plan_scope(world), Definition(world)
    for _ in range(3):
        job, machine = rng.choice(world.rows["job"]), rng.choice(world.rows["machine"])
        scheme = rng.choice(world.rows["scheme"])
        assert plan["d_ready_day"](job) == known.ready(job).isoformat()
        assert plan["d_completion"](scheme) == known.completion(scheme).isoformat()
        assert plan["d_earliest_start"](machine, job) == known.start(machine, job).isoformat()
        days = [known.today + rng.randint(-9, 9) * ONE_DAY for _ in range(2)]
        busy = {
            day
            for _, first, last in known.held(machine)
            for day in (days[0] + ahead * ONE_DAY for ahead in range((days[1] - days[0]).days + 1))
            if first <= day <= last and known.open(machine, day)
        }
        assert plan["d_busy_days"](machine, *(day.isoformat() for day in days)) == len(busy)


def test_the_start_by_precedence_alone_is_often_wrong():
    """The shortcut: no calendar of the machine, and none of its other jobs."""
    asked = wrong = 0
    for seed in SEEDS:
        world, rng = world_of(seed), random.Random(f"shortcut/{seed}")
        plan = plan_scope(world)
        for job in [row for row in world.rows["job"] if row["state"] == "planned"][:8]:
            asked += 1
            wrong += plan["d_earliest_start"](rng.choice(world.rows["machine"]), job) != plan["d_ready_day"](job)
    assert wrong / asked >= 0.3


def small_world(**rules):
    """One machine of interest without closed days, one job on it, and a planned job of three days that comes after."""
    defaults = {"closed_by": "machine", "job_lags": True, "kickoffs": True, "changeover": 0, "work_weekends": False}
    world = make_world([MECHANISM], 1, **{**defaults, "unbroken_jobs": False, **rules})
    (slot_job, slot_key), (slot_machine, machine_key) = (world.fk("sched_slot", name) for name in ("job", "machine"))
    (before, before_key), (after, after_key) = (world.fk("precedence", name) for name in ("before", "after"))
    first, then, *_ = world.rows["job"]
    first.update(state="assigned", duration=2)
    then.update(state="planned", duration=3)
    column, key = world.fk("job", "scheme")
    scheme = world.rows["scheme"][0]
    first[column] = then[column] = scheme[key]
    scheme["kickoff"] = "2031-04-01"
    machine = world.rows["machine"][0]
    slot = {**world.rows["sched_slot"][0], slot_job: first[slot_key], slot_machine: machine[machine_key]}
    world.rows["sched_slot"] = [{**slot, "first": "2031-05-06", "last": "2031-05-07"}]
    link = {**world.rows["precedence"][0], before: first[before_key], after: then[after_key], "lag": 0}
    world.rows["precedence"] = [link]
    world.rows["sched_closure"] = world.rows["sched_closure"][:1]
    world.rows["sched_closure"][0]["day"] = "2031-01-01"
    return world


def start_of(world):
    """Earliest start of the later job, by its planner text after all texts were found to agree."""
    rng = random.Random("small")
    for name in ("ready_day", "earliest_start"):
        compare(world, name, drawer(world, rng), rng, count=6)
    return plan_scope(world)["d_earliest_start"](world.rows["machine"][0], world.rows["job"][1])[-5:]


def test_each_rule_moves_the_start_by_the_right_number_of_days():
    assert start_of(small_world()) == "05-08"  # a Thursday, the day after the one before it
    world = small_world()
    world.rows["precedence"][0]["lag"] = 1
    assert start_of(world) == "05-09"
    world.rows["precedence"][0]["lag"] = 2
    assert start_of(world) == "05-12"  # over the weekend
    assert start_of(small_world(changeover=1)) == "05-09"
    assert start_of(small_world(unbroken_jobs=True)) == "05-12"  # Thursday and Friday are no three days in a row
    assert start_of(small_world(unbroken_jobs=True, work_weekends=True)) == "05-08"
    world = small_world()
    world.rows["sched_closure"][0].update(day="2031-05-08")
    column, key = world.fk("sched_closure", "machine")
    world.rows["sched_closure"][0][column] = world.rows["machine"][0][key]
    assert start_of(world) == "05-09"
    world.rows["job"][0]["state"] = "cancelled"
    assert start_of(world) == "05-02"
    world.rows["scheme"][0]["kickoff"] = "2031-05-03"
    assert start_of(world) == "05-05"


def test_a_job_that_fits_before_another_one_starts_there_to_the_day():
    for last, expected in (("2031-05-06", "05-02"), ("2031-05-05", "05-14")):
        world = small_world()
        world.rows["precedence"] = world.rows["precedence"][:1]
        (after, key), (before, before_key) = world.fk("precedence", "after"), world.fk("precedence", "before")
        world.rows["precedence"][0][after] = world.rows["job"][2][key]
        world.rows["precedence"][0][before] = world.rows["job"][0][before_key]
        # Three working days from Friday end on Tuesday; the other job begins on the day after `last`.
        begins = (date.fromisoformat(last) + ONE_DAY).isoformat()
        world.rows["sched_slot"][0].update(first=begins, last="2031-05-13")
        assert start_of(world) == expected


@pytest.mark.parametrize("seed", SEEDS)
def test_rows_keep_every_rule_and_are_the_same_on_every_run(seed):
    world = world_of(seed)
    assert world.rows == make_world([MECHANISM], seed).rows
    assert connect(world).execute("PRAGMA foreign_key_check").fetchall() == []
    known, today = Definition(world), world.now
    owners = [known.target("sched_slot", "job", row)["id"] for row in world.rows["sched_slot"]]
    assert len(set(owners)) == len(owners)
    for job in world.rows["job"]:
        slot = known.slot(job)
        assert job["state"] in world.col("job", "state").values
        if job["state"] == "cancelled":
            continue
        assert (slot is None) == (job["state"] == "planned")
        assert all(known.target("job", "scheme", before) is not None for before, _ in known.earlier(job))
        if slot is None:
            continue
        assert slot["first"] <= slot["last"]
        assert {"assigned": slot["first"] > today, "done": slot["last"] < today}.get(
            job["state"], slot["first"] <= today
        )
        machine = known.target("sched_slot", "machine", slot)
        assert not world.rules["machine_kinds"] or machine["kind"] == job["kind"]
        days = known.span(machine, job, date.fromisoformat(slot["first"]))
        assert days
        assert days[-1].isoformat() == slot["last"]
        for before, lag in known.earlier(job):
            assert before["state"] == "done" or job["state"] == "assigned"
            assert known.end(before) + lag * ONE_DAY < days[0]
        if world.rules["kickoffs"]:
            assert known.target("job", "scheme", job)["kickoff"] <= slot["first"]
    for machine in world.rows["machine"]:
        held = sorted((first, last) for _, first, last in known.held(machine))
        gap = world.rules["changeover"] * ONE_DAY
        assert all(one[1] + gap < two[0] for one, two in itertools.pairwise(held))
    states = Counter(job["state"] for job in world.rows["job"])
    assert min(states[state] for state in ("planned", "assigned", "running", "done", "cancelled")) >= 1
    assert all(20 <= len(world.rows[name]) <= 120 for name in world.rows if name in ("job", "precedence", "sched_slot"))


def check_ends(world, name, arguments):
    """Oracle, planner and goal agree on one action that changes something; every other end is refused."""
    action, claims = world.actions[name], goal_scope(world)[f"s_{name}"]
    expected = oracle_diff(world, oracle_changes(world, action, arguments))
    play = Play(world)
    plan_scope(world, call=play.call)[f"a_{name}"](*arguments)
    done = play.diff()
    assert sorted((item["op"], item["table"]) for item in done) == sorted(
        (item["op"], item["table"]) for item in expected
    )
    for end in (done, expected):
        assert sorted(map(repr, claims(world.rows, end, *arguments) or ())) == sorted(map(repr, end))
    for index, item in enumerate(done):
        assert claims(world.rows, done[:index] + done[index + 1 :], *arguments) is None
        cells = item["changed"] or [column for column in item["new"] if column != "id"]
        for column in cells:
            value = {"first": "2031-06-30", "last": "2031-07-30"}.get(column, "nothing")
            wrong = {**item, "new": {**item["new"], column: value}}
            assert claims(world.rows, [*done[:index], wrong, *done[index + 1 :]], *arguments) is None, column
    assert claims(world.rows, [], *arguments) is None
    bystander = next(row for row in world.rows["job"] if row["id"] not in [item["new"]["id"] for item in done])
    extra = entry("update", "job", bystander, {**bystander, "state": "running"})
    assert extra not in (claims(world.rows, [*done, extra], *arguments) or ())
    other = next(row for row in world.rows[action.params[0][1].detail] if row is not arguments[0])
    assert claims(world.rows, done, other, *arguments[1:]) is None
    return done


def movable(known, job):
    """Whether a job can be scheduled, by the definition."""
    later = [
        known.target("precedence", "after", row)
        for row in known.world.rows["precedence"]
        if known.target("precedence", "before", row) is job
    ]
    return job["state"] in ("planned", "assigned") and not any(known.slot(each) for each in later)


def suited(world, job):
    return [row for row in world.rows["machine"] if not world.rules["machine_kinds"] or row["kind"] == job["kind"]]


def test_assigning_agrees_in_oracle_planner_and_goal():
    seen = Counter()
    for seed in range(7):
        world, rng = world_of(seed), random.Random(f"assign/{seed}")
        known = Definition(world)
        for job in rng.sample(world.rows["job"], 8):
            machine = rng.choice(world.rows["machine"])
            changes = oracle_changes(world, world.actions["assign_job"], [job, machine])
            able, slot = movable(known, job) and machine in suited(world, job), known.slot(job)
            if able and slot and known.target("sched_slot", "machine", slot) is machine:
                able = slot["first"] > known.start(machine, job).isoformat()  # else it is there already
                seen["there already"] += not able
            assert bool(changes) == able
            if not changes and not (slot and movable(known, job)):
                with pytest.raises(Refusal):
                    plan_scope(world, call=Play(world).call)["a_assign_job"](job, machine)
                seen["refused"] += 1
            elif changes and seen[seed] < 2:
                seen[seed] += 1
                done = check_ends(world, "assign_job", [job, machine])
                (slot,) = [item["new"] for item in done if item["table"] == "sched_slot"]
                assert slot["first"] == known.start(machine, job).isoformat()
                assert slot["last"] == known.span(machine, job, known.start(machine, job))[-1].isoformat()
                seen[job["state"]] += 1
    assert min(seen["planned"], seen["assigned"], seen["refused"]) >= 3, seen


@pytest.mark.parametrize("seed", range(6))
def test_any_machine_with_the_earliest_start_is_accepted_and_no_other(seed):
    world, seen = world_of(seed, free_choice=True), Counter()
    claims, plan, tool = goal_scope(world)["s_place_job"], plan_scope(world), write_tool(world, "assign_")
    planned = [row for row in world.rows["job"] if row["state"] == "planned" and movable(Definition(world), row)]
    for job in planned[:2]:
        machines = suited(world, job)
        starts = {machine["id"]: plan["d_earliest_start"](machine, job) for machine in machines}
        check_ends(world, "place_job", [job])
        for machine in machines:
            play = Play(world)
            ids = {argument(world, "job"): job["id"], argument(world, "machine"): machine["id"]}
            play.call(tool, **ids, first_day=starts[machine["id"]])
            accepted = claims(world.rows, play.diff(), job)
            assert bool(accepted) == (starts[machine["id"]] == min(starts.values()))
            seen[bool(accepted)] += 1
    assert seen[True] > 2 or seen[False]


def test_other_machines_than_the_oracle_takes_are_accepted_and_the_first_one_is_often_wrong():
    seen = Counter()
    for seed in SEEDS:
        world = world_of(seed, free_choice=True)
        plan = plan_scope(world)
        for job in [row for row in world.rows["job"] if row["state"] == "planned"][:5]:
            machines = [
                m for m in world.rows["machine"] if not world.rules["machine_kinds"] or m["kind"] == job["kind"]
            ]
            starts = [plan["d_earliest_start"](machine, job) for machine in machines]
            seen["several"] += starts.count(min(starts)) > 1
            seen["first wrong"] += starts[0] > min(starts)
            seen["asked"] += 1
    assert seen["several"] >= 10
    assert seen["first wrong"] / seen["asked"] >= 0.05


def test_scheduling_without_the_rules_fails():
    seen = Counter()
    for seed in range(8):
        world, rng = world_of(seed, machine_kinds=False), random.Random(f"weak/{seed}")
        claims = goal_scope(world)["s_assign_job"]
        known = Definition(world)
        for job in [row for row in world.rows["job"] if row["state"] == "planned" and movable(known, row)][:4]:
            machine, play = rng.choice(world.rows["machine"]), Play(world)
            try:
                plan_scope(world, call=play.call, POLICY=False)["a_assign_job"](job, machine)
            except Refusal:
                seen["refused"] += 1
                continue
            seen["right" if claims(world.rows, play.diff(), job, machine) else "wrong"] += 1
    assert seen["wrong"] >= 3
    assert seen["refused"] >= 10
    assert seen["right"] < 0.6 * sum(seen.values())


def jobs_on(known, machine, state):
    """Jobs in a state with an entry on a machine, by the first day of the entry."""
    found = [
        (row["first"], known.target("sched_slot", "job", row))
        for row in known.world.rows["sched_slot"]
        if known.target("sched_slot", "machine", row) is machine
    ]
    return [job for _, job in sorted(found, key=lambda pair: pair[0]) if job["state"] == state]


def test_beginning_agrees_in_oracle_planner_and_goal():
    seen = Counter()
    for seed in range(6):
        world = world_of(seed)
        known = Definition(world)
        for machine in world.rows["machine"]:
            changes = oracle_changes(world, world.actions["begin_next"], [machine])
            waiting = jobs_on(known, machine, "assigned")
            assert bool(changes) == bool(waiting and known.start(machine, waiting[0]) == known.today)
            if changes:
                done = check_ends(world, "begin_next", [machine])
                assert waiting[0] in [item["old"] for item in done]
                seen["done"] += 1
            elif waiting:
                with pytest.raises(Refusal):
                    plan_scope(world, call=Play(world).call)["a_begin_next"](machine)
                seen["refused"] += 1
    assert seen["done"] >= 5
    assert seen["refused"] >= 10


def test_who_begins_any_assigned_job_often_begins_the_wrong_one():
    seen = Counter()
    for seed in SEEDS:
        world = world_of(seed)
        for machine in world.rows["machine"]:
            if oracle_changes(world, world.actions["begin_next"], [machine]):
                play = Play(world)
                try:
                    plan_scope(world, call=play.call, POLICY=False)["a_begin_next"](machine)
                except Refusal:
                    seen["refused"] += 1
                    continue
                seen["right" if goal_scope(world)["s_begin_next"](world.rows, play.diff(), machine) else "wrong"] += 1
    assert seen["wrong"] + seen["refused"] >= 3
    assert seen["right"]


def test_finishing_agrees_in_oracle_planner_and_goal():
    seen = Counter()
    for seed in range(6):
        world = world_of(seed, inspect_from=4)
        known = Definition(world)
        for machine in world.rows["machine"][::2]:
            running = jobs_on(known, machine, "running")
            assert len(running) <= 1
            assert bool(oracle_changes(world, world.actions["finish_running"], [machine])) == bool(running)
            if running:
                done = check_ends(world, "finish_running", [machine])
                (state,) = [item["new"]["state"] for item in done if item["table"] == "job"]
                assert state == ("inspection" if running[0]["duration"] >= 4 else "done")
                seen[state] += 1
    assert min(seen["inspection"], seen["done"]) >= 2


def test_a_long_job_finished_without_the_rules_ends_in_the_wrong_state():
    wrong = 0
    for seed in range(5):
        world = world_of(seed, inspect_from=3, strict_plan=False)
        known = Definition(world)
        for machine in world.rows["machine"]:
            if [job for job in jobs_on(known, machine, "running") if job["duration"] >= 3]:
                play = Play(world)
                plan_scope(world, call=play.call, POLICY=False)["a_finish_running"](machine)
                assert goal_scope(world)["s_finish_running"](world.rows, play.diff(), machine) is None
                wrong += 1
    assert wrong >= 5


@pytest.mark.parametrize("seed", range(4))
def test_calling_off_agrees_in_oracle_planner_and_goal(seed):
    world, seen = world_of(seed, job_cancels=True), Counter()
    for job in world.rows["job"]:
        changes = oracle_changes(world, world.actions["cancel_job"], [job])
        assert bool(changes) == (job["state"] in ("planned", "assigned"))
        if changes and seen[job["state"]] < 2:
            check_ends(world, "cancel_job", [job])
            seen[job["state"]] += 1
    assert len(seen) == 2


@pytest.mark.parametrize("seed", range(4))
def test_every_write_tool_has_two_reachable_refusals(seed):
    world = world_of(seed, strict_plan=True, job_cancels=True, inspect_from=3, machine_kinds=True, closed_by="machine")
    nothing, known, name = missing(world), Definition(world), argument(world, "job")
    play, jobs = Play(world), world.rows["job"]
    assign, start = write_tool(world, "assign_"), write_tool(world, "start_")
    finish, cancel = write_tool(world, "finish_"), write_tool(world, "call_off_")
    by_state = {job["state"]: job for job in jobs}
    planned, *more = [job for job in jobs if job["state"] == "planned" and movable(known, job)]
    bound = next(job for job in jobs if job["state"] == "assigned" and not movable(known, job))
    machine = next(row for row in world.rows["machine"] if row["kind"] == planned["kind"])
    other = next(row for row in world.rows["machine"] if row["kind"] != planned["kind"])
    base = {name: planned["id"], argument(world, "machine"): machine["id"], "first_day": "2031-09-01"}
    assert refused(play.call, assign, **{**base, name: nothing}) == "not_found"
    assert refused(play.call, assign, **{**base, argument(world, "machine"): nothing}) == "not_found"
    assert refused(play.call, assign, **{**base, argument(world, "machine"): other["id"]}) == "invalid"
    for day in ("2031-05-01", "2031-02-30", "2031-13-01", "9999-12-30"):
        assert refused(play.call, assign, **{**base, "first_day": day}) == "invalid"
    assert refused(play.call, assign, **{**base, name: by_state["done"]["id"]}) == "conflict"
    if not world.rules["work_weekends"]:
        assert refused(play.call, assign, **{**base, "first_day": "2031-08-31"}) == "conflict"
    play.call(assign, **base)
    assert refused(play.call, assign, **{**base, name: bound["id"]}) in ("conflict", "invalid")
    again = next(job for job in more if job["kind"] == planned["kind"])
    assert refused(play.call, assign, **{**base, name: again["id"]}) == "conflict"  # the machine is taken
    stuck = next(
        job
        for job in jobs
        if job["state"] == "assigned" and any(before["state"] != "done" for before, _ in known.earlier(job))
    )
    assert refused(play.call, start, **{name: nothing}) == "not_found"
    assert refused(play.call, start, **{name: by_state["done"]["id"]}) == "conflict"
    assert refused(play.call, start, **{name: stuck["id"]}) == "conflict"
    running = by_state["running"]
    right = "inspection" if running["duration"] >= 3 else "done"
    wrong = "done" if right == "inspection" else "inspection"
    assert refused(play.call, finish, **{name: nothing}, state="done") == "not_found"
    assert refused(play.call, finish, **{name: by_state["done"]["id"]}, state="done") == "conflict"
    assert refused(play.call, finish, **{name: running["id"]}, state=wrong) == "invalid"
    assert play.call(finish, **{name: running["id"]}, state=right)["state"] == right
    assert refused(play.call, finish, **{name: running["id"]}, state=right) == "conflict"
    assert refused(play.call, cancel, **{name: nothing}) == "not_found"
    assert refused(play.call, cancel, **{name: by_state["done"]["id"]}) == "conflict"
    play.call(cancel, **{name: planned["id"]})
    assert refused(play.call, cancel, **{name: planned["id"]}) == "conflict"
    assert known.slot(planned) is None


def test_only_a_strict_tool_looks_at_what_comes_before():
    for strict in (True, False):
        world = small_world(strict_plan=strict, machine_kinds=False)
        play, tool, job = Play(world), write_tool(world, "assign_"), world.rows["job"][1]
        ids = {argument(world, "job"): job["id"], argument(world, "machine"): world.rows["machine"][3]["id"]}
        if strict:
            assert refused(play.call, tool, **ids, first_day="2031-05-07") == "conflict"
            assert play.call(tool, **ids, first_day="2031-05-08")["last"] == "2031-05-12"
        else:
            play.call(tool, **ids, first_day="2031-05-07")
            assert goal_scope(world)["s_assign_job"](world.rows, play.diff(), job, world.rows["machine"][3]) is None


@pytest.mark.parametrize("seed", range(3))
def test_joined_with_booking_the_texts_still_agree_and_words_are_clear(seed):
    world = make_world([BOOKING, MECHANISM], seed)
    public_docs(world)
    rng = random.Random(f"joined/{seed}")
    for name in NAMES:
        compare(world, name, drawer(world, rng), rng, count=8)


def test_every_derived_attribute_and_action_has_its_sentence():
    for seed in SEEDS:
        world = world_of(seed)
        public_docs(world)
        for item in [*world.derived.values(), *world.actions.values()]:
            assert item.policy in world.policy
            assert item.policy.endswith(".")
        assert 3 <= len(world.actions) <= 5


def test_rules_vary_the_structure():
    shapes = {
        (tuple((name, len(cols)) for name, cols in world.tables.items()), tuple(tool.name for tool in world.tools))
        for world in (make_world([MECHANISM], seed) for seed in range(40))
    }
    assert len(shapes) >= 34
