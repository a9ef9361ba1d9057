"""The service desk: its three texts agree, the clock on the wall is wrong, any best agent or queue passes, tools refuse."""

from __future__ import annotations

import itertools
import json
import random
from collections import Counter
from datetime import datetime, timedelta
from functools import cache

import pytest

from envsynth.author.procedural.compose import connect
from envsynth.author.procedural.docs import public_docs
from envsynth.author.procedural.mechanisms.booking import MECHANISM as BOOKING
from envsynth.author.procedural.mechanisms.tickets import MECHANISM
from envsynth.author.procedural.mechanisms.tickets.bindings import FREE_DAYS, GRADES, TIERS
from tests.author.procedural.mechanism_texts import (
    Play,
    Refusal,
    argument,
    compare,
    entry,
    goal_scope,
    make_world,
    missing,
    oracle_diff,
    plan_scope,
    refused,
    sql_value,
    write_tool,
)

SEEDS = range(12)
ACTIONS = ("assign_incident", "escalate_incident", "resolve_incident", "triage_incident")


@cache
def plain_world(seed):
    return make_world([MECHANISM], seed)


def world_of(seed, **rules):
    """A world; one without rules is made once, and no test changes it."""
    return make_world([MECHANISM], seed, **rules) if rules else plain_world(seed)


def remembering_goals(world):
    """Goal texts whose `@once` definitions are remembered, as the verifier does."""
    scope = {"once": cache, "db": world.rows}
    for item in [*world.derived.values(), *world.actions.values()]:
        exec(item.goal, scope)
    return scope


def drawer(world, rng):
    return lambda type_: rng.choice(world.rows[type_.detail])


@pytest.mark.parametrize("seed", SEEDS)
def test_derived_attributes_agree_in_all_three_texts(seed):
    world, rng = world_of(seed), random.Random(f"tickets/{seed}")
    for _, name in world.derived:
        compare(world, name, drawer(world, rng), rng, count=24)


@pytest.mark.parametrize("seed", range(6))
def test_agents_are_suited_alike_in_all_three_texts_within_the_queue_too(seed):
    """Random pairs hardly ever share a queue, so pairs that do are asked apart."""
    world = world_of(seed, desk_skills=True)
    database, plan, goal = connect(world), plan_scope(world), remembering_goals(world)
    derived, seen = world.derived["assignee", "suited"], Counter()
    desks = {row[world.fk("assignee", "queue")[1]]: row for row in world.rows["queue"]}
    queues = {row[world.fk("incident", "queue")[1]]: row for row in world.rows["queue"]}
    for incident in world.rows["incident"][:40]:
        home = queues[incident[world.fk("incident", "queue")[0]]]
        for agent in world.rows["assignee"]:
            if desks[agent[world.fk("assignee", "queue")[0]]] is home:
                by_sql = sql_value(database, derived, agent, [incident])
                assert by_sql == plan["d_suited"](agent, incident) == goal["g_suited"](world.rows, agent, incident)
                seen[bool(by_sql)] += 1
    assert seen[True] > 10
    assert seen[False] > 5


@pytest.mark.parametrize("name", ["priority", "hours_left", "load", "suited"])
def test_ignoring_the_rules_changes_derived_values(name):
    asked = changed = 0
    for seed in range(6):
        world, rng = world_of(seed), random.Random(f"policy/{seed}")
        seen = compare(world, name, drawer(world, rng), rng, count=25)
        asked, changed = asked + seen.asked, changed + seen.by_flag
    assert changed / asked >= 0.05


def brute_force(world, incident, priority, *, wall=False):
    """The definition itself, hour by hour on a real calendar: an independent fourth calculation."""
    rules, hours = world.rules, 0
    shut = {row["day"] for row in world.rows.get("holiday", [])}
    moment = datetime.fromisoformat(incident["opened"]) + timedelta(hours=incident["hour"])
    now = datetime.fromisoformat(world.now[:10]) + timedelta(hours=rules["desk_hour"])
    while moment < now:
        open_day = moment.weekday() not in FREE_DAYS[rules["desk_week"]] and moment.date().isoformat() not in shut
        hours += wall or (open_day and rules["desk_opens"] <= moment.hour < rules["desk_closes"])
        moment += timedelta(hours=1)
    target = rules["desk_targets"][priority - 1]
    return target - hours + (incident["waited"] if rules["desk_waiting"] == "stops" else 0)


@pytest.mark.parametrize("seed", SEEDS)
def test_remaining_time_is_that_of_the_definition(seed):
    world = world_of(seed)
    database, derived, plan = connect(world), world.derived["incident", "hours_left"], plan_scope(world)
    for incident in world.rows["incident"]:
        assert sql_value(database, derived, incident, []) == brute_force(world, incident, plan["desk_level"](incident))


def test_the_clock_on_the_wall_is_mostly_wrong_and_often_blames_who_is_in_time():
    wrong = blamed = asked = 0
    for seed in SEEDS:
        world = world_of(seed)
        plan = plan_scope(world)
        for incident in world.rows["incident"][::6]:
            level = plan["desk_level"](incident)
            right, wall = brute_force(world, incident, level), brute_force(world, incident, level, wall=True)
            asked, wrong, blamed = asked + 1, wrong + (right != wall), blamed + (right >= 0 > wall)
    assert wrong / asked > 0.5
    assert blamed / asked > 0.05


@pytest.mark.parametrize(("opened", "hour", "worked"), [
    ("2031-05-02", 9, 2), ("2031-05-02", 7, 3), ("2031-05-01", 17, 3), ("2031-05-01", 15, 4), ("2031-04-30", 15, 11),
    ("2031-04-26", 12, 19), ("2031-04-25", 15, 20),
])  # fmt: skip
def test_evenings_weekends_and_holidays_do_not_count(opened, hour, worked):
    """2031-05-02 is a Friday; Wednesday is closed here."""
    rules = {"desk_opens": 8, "desk_closes": 16, "desk_hour": 11, "desk_week": "weekdays", "desk_holidays": True}
    world = world_of(3, **rules, desk_waiting="none", desk_aging=0)
    world.rows["holiday"] = [
        {**row, "day": day} for row, day in zip(world.rows["holiday"], ("2031-04-30", "2031-04-29"), strict=False)
    ]
    cells = {"opened": opened, "hour": hour, "severity": "critical", "reach": "company"}
    incident = {**world.rows["incident"][0], **cells}
    world.rows["incident"] = [incident, *world.rows["incident"][1:]]
    left = sql_value(connect(world), world.derived["incident", "hours_left"], incident, [])
    assert left == world.rules["desk_targets"][0] - worked
    assert left == plan_scope(world)["d_hours_left"](incident) == goal_scope(world)["g_hours_left"](None, incident)


class Desk:
    """One database for many tries, each of which is taken back."""

    def __init__(self, world, **flags):
        self.world, self.play = world, Play(world)
        self.plan, self.goal = plan_scope(world, call=self.play.call, **flags), remembering_goals(world)

    def changes(self, name, *rows):
        """What the oracle expects."""
        action = self.world.actions[name]
        text = action.oracle_sql
        for (param, _), row in zip(action.params, rows, strict=True):
            text = text.replace(f"{{{param}}}", repr(row["id"]))
        found = self.play.database.execute(text).fetchall()
        return [(op, table, json.loads(cells)) for op, table, cells in (row.values() for row in found)]

    def done(self, name, *rows):
        """What the planner changes through the tools, or None when it finds no way or is refused."""
        self.play.database.execute("SAVEPOINT before")
        try:
            self.plan[f"a_{name}"](*rows)
            return self.play.diff()
        except (Refusal, RuntimeError):
            return None
        finally:
            self.play.database.execute("ROLLBACK TO before")

    def possible(self, name, most=6):
        """Incidents that the oracle has changes for, with these as entries of a diff."""
        found = ((incident, self.changes(name, incident)) for incident in self.world.rows["incident"])
        pairs = ((incident, oracle_diff(self.world, changes)) for incident, changes in found if changes)
        return list(itertools.islice(pairs, most))


def without_choice(world, entries):
    """Entries of a diff but for what may be chosen freely, and for new ids."""
    free = ("id", world.fk("incident", "queue")[0], world.fk("dispatch", "assignee")[0])
    return [(item["op"], item["table"], {k: v for k, v in item["new"].items() if k not in free}) for item in entries]


@pytest.mark.parametrize("seed", range(12))
def test_actions_agree_in_oracle_planner_and_goal(seed):
    world = world_of(seed)
    desk, incidents = Desk(world), world.rows["incident"]
    stray = entry("insert", "person", None, {"id": "stray"})
    for name in [name for name in ACTIONS if name in world.actions]:
        goal, possible = desk.goal[f"s_{name}"], desk.possible(name)
        assert len(possible) >= 3
        for incident, expected in possible:
            done = desk.done(name, incident)
            assert same_entries(goal(world.rows, expected, incident), expected)
            assert same_entries(goal(world.rows, [*done, stray], incident), done)
            assert sorted(map(str, without_choice(world, done))) == sorted(map(str, without_choice(world, expected)))
            assert not goal(world.rows, [], incident)
            for index in range(len(done)):
                assert not goal(world.rows, done[:index] + done[index + 1 :], incident)
            assert not goal(world.rows, done, next(row for row in incidents if row is not incident))
        refused_ones = [incident for incident in incidents if not desk.changes(name, incident)]
        assert len(refused_ones) >= 3
        for incident in refused_ones[:6]:
            assert desk.done(name, incident) is None
            moved = {**incident, "progress": "resolved" if name == "resolve_incident" else "triaged"}
            assert goal(world.rows, [entry("update", "incident", incident, moved)], incident) is None


def same_entries(left, right):
    return sorted(map(str, left)) == sorted(map(str, right))


def test_any_agent_with_the_lowest_load_and_no_other_may_be_assigned():
    seen = Counter()
    for seed in range(6):
        world = world_of(seed)
        desk = Desk(world)
        plan, goal = desk.plan, desk.goal["s_assign_incident"]
        agent, key = world.fk("dispatch", "assignee")
        case, seldom = world.fk("dispatch", "incident")[0], {"triaged": 0, "assigned": 0, "waiting": 0}
        for incident, entries in desk.possible("assign_incident", most=20):
            seldom[incident["progress"]] += 1
            if seldom[incident["progress"]] > 2:
                continue
            (taken,) = [item for item in entries if item["op"] == "insert"]
            rest = [item for item in entries if item is not taken]
            current = [row for row in world.rows["dispatch"] if row["standing"] == "current"]
            had = [row[agent] for row in current if row[case] == incident["id"]]
            others = [row for row in world.rows["assignee"] if row[key] not in had]
            able = [row for row in others if plan["d_suited"](row, incident)]
            assert len(rest) == len(had) + (incident["progress"] != "assigned")
            lowest = min(map(plan["d_load"], able))
            for row in world.rows["assignee"]:
                other = {**taken, "new": {**taken["new"], agent: row[key]}}
                right = row in able and plan["d_load"](row) == lowest
                assert bool(goal(world.rows, [*rest, other], incident)) == right
                seen[
                    "held"
                    if row[key] in had and plan["d_suited"](row, incident)
                    else "right"
                    if right and taken["new"][agent] != row[key]
                    else "wrong"
                ] += 1
            twice = [*rest, taken, {**taken, "new": {**taken["new"], "id": "again"}}]
            assert goal(world.rows, twice, incident) is None
            wrong = {**taken, "new": {**taken["new"], "standing": "ended"}}
            assert goal(world.rows, [*rest, wrong], incident) is None
            assert goal(world.rows, [taken, *rest[1:]], incident) is None
    assert seen["right"] >= 3
    assert seen["held"] >= 3
    assert seen["wrong"] > 100


@pytest.mark.parametrize("name", ["escalate_incident", "triage_incident"])
def test_any_queue_of_the_level_with_the_largest_capacity_and_no_other_will_do(name):
    seen = Counter()
    for seed in range(8):
        world = world_of(seed, desk_triage=True)
        desk, (column, key) = Desk(world), world.fk("incident", "queue")
        goal, queues = desk.goal[f"s_{name}"], {row[key]: row for row in world.rows["queue"]}
        for incident, (moved, *ended) in desk.possible(name):
            best = queues[moved["new"][column]]
            for value, queue in queues.items():
                other = {**moved, "new": {**moved["new"], column: value}}
                right = (queue["level"], queue["capacity"]) == (best["level"], best["capacity"])
                assert bool(goal(world.rows, [other, *ended], incident)) == right
                seen["right" if right and queue is not best else "wrong"] += 1
    assert seen["right"] > 5
    assert seen["wrong"] > 50


@pytest.mark.parametrize(
    ("name", "flag"),
    [("assign_incident", "GREEDY"), ("escalate_incident", "POLICY"), ("triage_incident", "POLICY")],
)
def test_a_weaker_dispatcher_chooses_wrongly(name, flag):
    seen = Counter()
    for seed in range(8):
        world = world_of(seed, desk_triage=True, desk_strict=False)
        desk = Desk(world, **{flag: flag == "GREEDY"})
        for incident, _ in desk.possible(name):
            done = desk.done(name, incident)
            right = done and desk.goal[f"s_{name}"](world.rows, done, incident)
            seen["right" if right else "wrong"] += 1
    assert seen["wrong"] / sum(seen.values()) > 0.1


@pytest.mark.parametrize("seed", range(6))
def test_moving_agrees_in_oracle_planner_and_goal(seed):
    world = world_of(seed)
    column, key = world.fk("incident", "queue")
    desk, seen = Desk(world), Counter()
    goal = desk.goal["s_transfer_incident"]
    for incident, queue in zip(world.rows["incident"], itertools.cycle(world.rows["queue"]), strict=False):
        changes = desk.changes("transfer_incident", incident, queue)
        done = desk.done("transfer_incident", incident, queue)
        finished = incident["progress"] in ("resolved", "closed")
        assert bool(changes) == (done is not None) == (not finished and incident[column] != queue[key])
        seen[bool(changes)] += 1
        if changes:
            expected = oracle_diff(world, changes)
            assert same_entries(expected, done)
            assert same_entries(goal(world.rows, done, incident, queue), done)
            assert goal(world.rows, done[1:], incident, queue) is None
            other = next(row for row in world.rows["queue"] if row is not queue)
            assert goal(world.rows, done, incident, other) is None
    assert seen[True] > 30
    assert seen[False] > 5


@pytest.mark.parametrize("strict", [True, False])
def test_every_write_tool_has_two_reachable_refusals(strict):
    rules = {"desk_triage": True, "desk_skills": True, "desk_strict": strict, "desk_weight": "plain", "desk_aging": 0}
    world = world_of(4, **rules, desk_waiting="stops")
    column, key = world.fk("incident", "queue")
    desk, desk_key = world.fk("assignee", "queue")
    low, mid, top = (next(row for row in world.rows["queue"] if row["level"] == level) for level in TIERS)
    agents = world.rows["assignee"]
    for agent, home, skill, limit in [
        (agents[0], low, "expert", 9999),
        (agents[1], mid, "expert", 9999),
        (agents[2], low, "junior", 9999),
    ]:
        agent.update({desk: home[desk_key], "skill": skill, "limit": limit})
    agents[3].update({desk: low[desk_key], "skill": "expert", "limit": 0})
    urgent = {"severity": "critical", "reach": "company", column: low[key], "waited": 0}
    cases = dict(zip(("new", "triaged", "fresh", "resolved"), world.rows["incident"], strict=False))
    for progress, incident in cases.items():
        incident.update({**urgent, "progress": progress, "opened": "2031-04-14"})
    cases["fresh"].update({"progress": "triaged", "opened": world.now[:10], "hour": 23})
    world.rules["desk_alarm"] = 0
    play, nothing = Play(world), missing(world)
    incident, assignee, queue = (argument(world, entity) for entity in ("incident", "assignee", "queue"))

    def code(tool, case, **more):
        return refused(play.call, write_tool(world, tool), **{incident: case, **more})

    ids = {name: row["id"] for name, row in cases.items()}
    assert code("assign_", nothing, **{assignee: agents[0]["id"]}) == "not_found"
    assert code("assign_", ids["triaged"], **{assignee: nothing}) == "not_found"
    assert code("assign_", ids["new"], **{assignee: agents[0]["id"]}) == "conflict"
    assert code("assign_", ids["triaged"], **{assignee: agents[1]["id"]}) == "invalid"
    assert code("assign_", ids["triaged"], **{assignee: agents[3]["id"]}) == "conflict"
    if strict:
        assert code("assign_", ids["triaged"], **{assignee: agents[2]["id"]}) == "conflict"
        assert code("triage_", ids["new"], **{queue: mid["id"]}) == "invalid"
    assert code("escalate_", ids["resolved"], **{queue: mid["id"]}) == "conflict"
    assert code("escalate_", ids["triaged"], **{queue: top["id"]}) == "invalid"
    assert code("escalate_", ids["fresh"], **{queue: nothing}) == "not_found"
    assert code("triage_", nothing, **{queue: top["id"]}) == "not_found"
    assert code("move_", ids["resolved"], **{queue: mid["id"]}) == "conflict"
    assert code("move_", ids["triaged"], **{queue: low["id"]}) == "invalid"
    assert code("move_", ids["triaged"], **{queue: nothing}) == "not_found"
    assert code("resolve_", ids["triaged"]) == "conflict"
    assert code("resolve_", nothing) == "not_found"
    assert code("triage_", ids["resolved"], **{queue: top["id"]}) == "conflict"
    there = {incident: ids["triaged"], queue: low["id"]}
    assert refused(play.call, write_tool(world, "triage_"), **there) in (
        {"invalid", "conflict"} if strict else {"conflict"}
    )
    play.call(write_tool(world, "assign_"), **{incident: ids["triaged"], assignee: agents[0]["id"]})
    assert code("assign_", ids["triaged"], **{assignee: agents[0]["id"]}) == "conflict"


@pytest.mark.parametrize("seed", range(4))
def test_an_incident_goes_through_its_states_and_not_back(seed):
    world = world_of(seed, desk_triage=True, desk_strict=False)
    desk = Desk(world)
    call, tool, key = desk.play.call, write_tool(world, "triage_"), argument(world, "incident")
    (incident, _), *_ = desk.possible("triage_incident")
    base = {key: incident["id"], argument(world, "queue"): world.rows["queue"][0]["id"]}
    assert refused(call, write_tool(world, "resolve_"), **{key: incident["id"]}) == "conflict"
    assert call(tool, **base)["progress"] == "triaged"
    assert refused(call, tool, **base) == "conflict"
    assert refused(call, write_tool(world, "resolve_"), **{key: incident["id"]}) == "conflict"
    (held, _), *_ = desk.possible("resolve_incident")
    assert call(write_tool(world, "resolve_"), **{key: held["id"]})["progress"] == "resolved"
    assert refused(call, write_tool(world, "resolve_"), **{key: held["id"]}) == "conflict"
    assert refused(call, write_tool(world, "move_"), **{**base, key: held["id"]}) == "conflict"


def test_what_has_time_left_cannot_be_escalated():
    world = world_of(5, desk_alarm=0)
    column, key = world.fk("incident", "queue")
    low, mid = (next(row for row in world.rows["queue"] if row["level"] == level) for level in TIERS[:2])
    fresh = world.rows["incident"][0]
    fresh.update({"progress": "triaged", "opened": world.now[:10], "hour": 7, "severity": "minor", "reach": "single"})
    fresh[column] = low[key]
    arguments = {argument(world, "incident"): fresh["id"], argument(world, "queue"): mid["id"]}
    assert refused(Play(world).call, write_tool(world, "escalate_"), **arguments) == "conflict"


def queue_of(world, entity, row):
    column, key = world.fk(entity, "queue")
    return next(queue for queue in world.rows["queue"] if queue[key] == row[column])


@pytest.mark.parametrize("seed", SEEDS)
def test_rows_keep_every_rule_and_are_the_same_on_every_run(seed):
    world = world_of(seed)
    assert world.rows == make_world([MECHANISM], seed).rows
    assert connect(world).execute("PRAGMA foreign_key_check").fetchall() == []
    plan, (case, _) = plan_scope(world), world.fk("dispatch", "incident")
    current = Counter(row[case] for row in world.rows["dispatch"] if row["standing"] == "current")
    for incident in world.rows["incident"]:
        assert current[incident["id"]] == (incident["progress"] in ("assigned", "waiting"))
        assert incident["progress"] in world.col("incident", "progress").values
        assert (incident["opened"], incident["hour"]) < (world.now[:10], world.rules["desk_hour"])
        if "waited" in incident and world.rules["desk_waiting"] == "stops":
            unpaused = {**incident, "waited": 0}
            assert incident["waited"] <= world.rules["desk_targets"][plan["desk_level"](incident) - 1] - plan[
                "d_hours_left"
            ](unpaused)
    agents, cases = ({row["id"]: row for row in world.rows[entity]} for entity in ("assignee", "incident"))
    names = {row["name"]: row for row in agents.values()}
    for row in world.rows["dispatch"]:
        holder, incident = row[world.fk("dispatch", "assignee")[0]], cases[row[case]]
        agent = agents.get(holder) or names[holder]
        assert queue_of(world, "assignee", agent) is queue_of(world, "incident", incident)
        if row["standing"] == "current" and "skill" in agent:
            assert agent["skill"] in {1: GRADES[2:], 2: GRADES[1:]}.get(plan["desk_level"](incident), GRADES)
    for agent in world.rows["assignee"]:
        assert plan["d_load"](agent) <= agent["limit"]
    days = [row["day"] for row in world.rows.get("holiday", [])]
    assert len(set(days)) == len(days)
    assert {row["level"] for row in world.rows["queue"]} == set(TIERS)


def test_rules_change_structure():
    bare = {"desk_holidays": False, "desk_sites": False, "desk_skills": False, "desk_waiting": "none"}
    bare |= {"desk_triage": False, "desk_closing": False}
    rich = {"desk_holidays": True, "desk_sites": True, "desk_skills": True, "desk_waiting": "stops"}
    rich |= {"desk_triage": True, "desk_closing": True}
    small, large = world_of(6, **bare), world_of(6, **rich)
    assert {"holiday", "site"}.isdisjoint(small.tables)
    assert {"holiday", "site"} <= set(large.tables)
    assert small.col("incident", "progress").values == ("triaged", "assigned", "resolved")
    assert len(large.col("incident", "progress").values) == 6
    assert small.has("assignee", "skill") < large.has("assignee", "skill")
    assert len(large.actions) == len(small.actions) + 1


@pytest.mark.parametrize("seed", range(4))
def test_joined_with_booking_the_texts_still_agree_and_words_are_clear(seed):
    world = make_world([BOOKING, MECHANISM], seed)
    public_docs(world)
    rng = random.Random(f"joined/{seed}")
    for name in ("priority", "hours_left", "load", "suited"):
        compare(world, name, drawer(world, rng), rng, count=15)


def test_every_derived_attribute_and_action_has_its_sentence():
    for seed in SEEDS:
        world = world_of(seed)
        public_docs(world)
        for item in [*world.derived.values(), *world.actions.values()]:
            assert item.policy in world.policy
            assert item.policy.endswith(".")
