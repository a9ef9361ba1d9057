"""The telemetry mechanism: its three texts agree, its rules bite, counting raw values fails, tools refuse."""

from __future__ import annotations

import itertools
import random
from collections import Counter

import pytest

from envsynth.author.procedural.compose import connect
from envsynth.author.procedural.docs import public_docs
from envsynth.author.procedural.mechanisms import MECHANISMS
from envsynth.author.procedural.mechanisms.telemetry import MECHANISM
from tests.author.procedural.mechanism_texts import (
    Play,
    Refusal,
    argument,
    compare,
    entry,
    goal_scope,
    make_world,
    missing,
    oracle_changes,
    oracle_diff,
    plan_scope,
    refused,
    sql_value,
    write_tool,
)

SEEDS = range(14)
DAYS = ("2031-04-30", "2031-05-01", "2031-05-02")
NAMES = ("episodes", "out_of_range", "peak", "open_load")
RICH = {
    "alarm_low": True,
    "alarm_since": True,
    "alarm_quality": True,
    "alarm_maintenance": "hours",
    "alarm_margin": 2,
    "alarm_escalation": True,
    "alarm_group": True,
}


def world_of(seed, **rules):
    return make_world([MECHANISM], seed, **rules)


def drawer(rng):
    return lambda _: rng.choice(DAYS)


@pytest.mark.parametrize("seed", SEEDS)
def test_derived_attributes_agree_in_all_three_texts(seed):
    world, rng = world_of(seed), random.Random(f"telemetry/{seed}")
    assert [name for _, name in world.derived] == list(NAMES)
    for name in NAMES:
        compare(world, name, drawer(rng), rng)


@pytest.mark.parametrize("chained", [True, False])
@pytest.mark.parametrize("margin", [0, 3])
@pytest.mark.parametrize("seed", range(3))
def test_derived_attributes_agree_with_every_rule_in_force(seed, margin, chained):
    world = world_of(seed, **{**RICH, "alarm_margin": margin, "alarm_chained": chained})
    rng = random.Random(f"rich/{seed}")
    for name in NAMES:
        compare(world, name, drawer(rng), rng)


@pytest.mark.parametrize("name", NAMES)
def test_ignoring_the_rules_changes_derived_values(name):
    asked = changed = 0
    for seed in range(8):
        world, rng = world_of(seed), random.Random(f"policy/{seed}")
        seen = compare(world, name, drawer(rng), rng)
        asked, changed = asked + seen.asked, changed + seen.by_flag
    assert changed / asked >= 0.05


def test_counting_raw_values_above_the_limit_gives_another_number():
    """The shortcut of the mechanism: no calibration, no maintenance, no window."""
    asked = wrong = 0
    for seed in SEEDS:
        world = world_of(seed)
        database, derived = connect(world), world.derived["sensor", "episodes"]
        fk, key = world.fk("reading", "sensor")
        for sensor, day in itertools.product(world.rows["sensor"], DAYS):
            mine = [row["value"] for row in world.rows["reading"] if (row[fk], row["day"]) == (sensor[key], day)]
            if mine:
                asked += 1
                raw = sum(value > sensor["high"] for value in mine)
                wrong += raw != sql_value(database, derived, sensor, [day])
    assert wrong / asked > 0.3


def by_hand(world, readings, **sensor):
    """Episodes of one sensor with hand-made measurements (hour, value), in all three texts."""
    row = {**world.rows["sensor"][0], "high": 50, "low": 20, "offset": 0, "since": DAYS[0], **sensor}
    row = {column: row[column] for column in world.columns("sensor")}
    world.rows["sensor"][0] = row
    fk, key = world.fk("reading", "sensor")
    template = world.rows["reading"][0]
    world.rows["reading"] = [
        {
            column: cell
            for column, cell in {
                **template,
                "id": f"R-{index}" if world.style.ids == "code" else index,
                fk: row[key],
                "day": DAYS[1],
                "hour": hour,
                "value": value,
                "quality": "good",
            }.items()
            if column in template
        }
        for index, (hour, value) in enumerate(readings)
    ]
    found = [
        sql_value(connect(world), world.derived["sensor", "episodes"], row, [DAYS[1]]),
        plan_scope(world)["d_episodes"](row, DAYS[1]),
        goal_scope(world)["g_episodes"](world.rows, row, DAYS[1]),
    ]
    assert len(set(found)) == 1, found
    return found[0]


@pytest.mark.parametrize(
    ("rules", "readings", "wanted"),
    [
        ({"alarm_chained": True}, [(1, 51), (3, 51), (5, 51), (7, 51)], 1),
        ({"alarm_chained": False}, [(1, 51), (3, 51), (5, 51), (7, 51)], 2),
        ({"alarm_chained": True}, [(1, 51), (4, 51)], 2),
        ({"alarm_chained": True}, [(1, 50), (4, 50)], 0),
        ({"alarm_chained": True, "alarm_margin": 2}, [(1, 51), (3, 49), (9, 51)], 1),
        ({"alarm_chained": True, "alarm_margin": 2}, [(1, 51), (3, 48), (9, 51)], 2),
        ({"alarm_chained": True, "alarm_margin": 2}, [(1, 51), (9, 51), (1, 40), (9, 40)], 1),
        ({"alarm_chained": False, "alarm_margin": 2}, [(1, 51), (2, 40), (5, 51), (6, 51), (9, 51)], 2),
        ({"alarm_chained": True, "alarm_low": True}, [(1, 51), (9, 19), (15, 20)], 2),
        ({"alarm_chained": True}, [], 0),
    ],
)
def test_window_margin_and_limits_decide_at_the_hour_and_degree(rules, readings, wanted):
    base = {"alarm_window": 2, "alarm_margin": 0, "alarm_low": False, "alarm_maintenance": "none"}
    for seed in range(2):
        assert by_hand(world_of(seed, **{**base, **rules}), readings) == wanted


def test_a_calibration_holds_from_its_day_on():
    base = {"alarm_maintenance": "none", "alarm_since": True, "alarm_low": False}
    for since, wanted in [(DAYS[0], 1), (DAYS[1], 1), (DAYS[2], 0)]:
        assert by_hand(world_of(3, **base), [(6, 49)], offset=2, since=since) == wanted


def played(world, name, arguments, **flags):
    """What the planner's action does through the tools; None when a tool refuses."""
    play = Play(world)
    try:
        plan_scope(world, call=play.call, **flags)[f"a_{name}"](*arguments)
    except Refusal:
        return None
    return play.diff()


def draw(world, rng, action):
    days = [*DAYS, "2031-05-03", "2031-05-04", "2031-05-20"]
    found = []
    for name, type_ in action.params:
        if type_.kind == "row":
            found.append(rng.choice(world.rows[type_.detail]))
        elif type_.kind == "date":
            found.append(rng.choice(days))
        else:
            found.append({"start": rng.randint(5, 12), "end": rng.randint(8, 15)}.get(name, rng.randint(-3, 90)))
    return found


@pytest.mark.parametrize("name", ["acknowledge", "clear", "set_limit", "maintain"])
def test_actions_agree_in_oracle_tools_and_goal(name):
    seen = Counter()
    for seed in SEEDS:
        world, rng = world_of(seed), random.Random(f"act/{name}/{seed}")
        if name not in world.actions:
            continue
        action, goal = world.actions[name], goal_scope(world)[f"s_{name}"]
        for _ in range(4):
            arguments = draw(world, rng, action)
            changes, done = oracle_changes(world, action, arguments), played(world, name, arguments)
            assert bool(changes) == (done is not None), (seed, arguments)
            if not changes:
                seen["refused"] += 1
                continue
            expected = oracle_diff(world, changes)
            known = [{**item["new"], "id": 0} if item["op"] == "insert" else item["new"] for item in done]
            meant = [{**item["new"], "id": 0} if item["op"] == "insert" else item["new"] for item in expected]
            assert sorted(map(repr, known)) == sorted(map(repr, meant))
            for diff in (done, expected, done[::-1]):
                claimed = goal(world.rows, diff, *arguments)
                assert sorted(map(repr, claimed)) == sorted(map(repr, diff))
            check_wrong_ends(world, goal, action, arguments, done, rng)
            seen["done"] += 1
    assert seen["done"] >= 8, seen
    assert seen["refused"] >= 5, seen


def check_wrong_ends(world, goal, action, arguments, done, rng):
    """A missing write, another cell, another target are refused; an extra write is never claimed."""
    for index in range(len(done)):
        assert goal(world.rows, [*done[:index], *done[index + 1 :]], *arguments) is None
        for column in done[index]["new"]:
            if column != "id":
                cell = done[index]["new"][column]
                new = {**done[index]["new"], column: cell + 1 if isinstance(cell, int) else cell + "x"}
                wrong = {**done[index], "new": new}
                assert goal(world.rows, [*done[:index], wrong, *done[index + 1 :]], *arguments) is None, column
    table = action.tables[0]
    other = rng.choice(world.rows[table])
    extra = entry("insert", table, None, {**other, "id": "extra"})
    assert extra not in goal(world.rows, [extra, *done], *arguments)


def test_alarms_that_belong_together_are_acknowledged_together_and_only_the_rule_says_so():
    several = lazy = 0
    for seed in range(5):
        world = world_of(seed, alarm_group=True)
        goal = goal_scope(world)["s_acknowledge"]
        for alarm in world.rows["alarm"][::4]:
            arguments = [alarm, world.rows["person"][0]][: 1 + world.rules["alarm_assigned"]]
            right = played(world, "acknowledge", arguments)
            if right is None:
                continue
            naive = played(world, "acknowledge", arguments, POLICY=False)
            several += len(right) > 1
            lazy += goal(world.rows, naive, *arguments) is None
    assert several == lazy >= 5


def test_acknowledging_twice_is_no_way_to_end():
    world = world_of(5, alarm_group=False, alarm_assigned=False)
    play, tool = Play(world), write_tool(world, "acknowledge_")
    alarm = next(row for row in world.rows["alarm"] if row["state"] == "raised")
    play.call(tool, **{argument(world, "alarm"): alarm["id"]})
    assert refused(play.call, tool, **{argument(world, "alarm"): alarm["id"]}) == "conflict"
    play.call(write_tool(world, "clear_"), **{argument(world, "alarm"): alarm["id"]})
    assert goal_scope(world)["s_acknowledge"](world.rows, play.diff(), alarm) is None


@pytest.mark.parametrize("seed", range(4))
def test_every_write_tool_has_two_reachable_refusals(seed):
    rules = {"alarm_maintenance": "hours", "alarm_site_cap": 1, "alarm_low": True, "alarm_step": 10, "alarm_margin": 2}
    world = world_of(seed, **rules, alarm_escalation=True)
    play, nothing = Play(world), missing(world)
    alarm, sensor, person = (argument(world, entity) for entity in ("alarm", "sensor", "person"))
    states = {row["state"]: row["id"] for row in world.rows["alarm"]}
    owner = {person: world.rows["person"][0]["id"]} if world.rules["alarm_assigned"] else {}
    acknowledge, clear = write_tool(world, "acknowledge_"), write_tool(world, "clear_")
    assert refused(play.call, acknowledge, **owner, **{alarm: nothing}) == "not_found"
    assert refused(play.call, acknowledge, **owner, **{alarm: states["cleared"]}) == "conflict"
    assert refused(play.call, acknowledge, **owner, **{alarm: states["acknowledged"]}) == "conflict"
    if owner:
        assert refused(play.call, acknowledge, **{person: nothing, alarm: states["raised"]}) == "not_found"
    assert refused(play.call, clear, **{alarm: nothing}) == "not_found"
    assert refused(play.call, clear, **{alarm: states["escalated"]}) == "conflict"
    assert refused(play.call, clear, **{alarm: states["cleared"]}) == "conflict"
    limit, row = write_tool(world, "set_"), world.rows["sensor"][0]
    assert refused(play.call, limit, **{sensor: nothing, "high": 60}) == "not_found"
    assert refused(play.call, limit, **{sensor: row["id"], "high": row["high"]}) == "conflict"
    assert refused(play.call, limit, **{sensor: row["id"], "high": row["high"] + 11}) == "conflict"
    assert refused(play.call, limit, **{sensor: row["id"], "high": row["low"] + 4}) == "invalid"
    assert refused(play.call, limit, **{sensor: row["id"], "high": 0}) == "invalid"
    assert play.call(limit, **{sensor: row["id"], "high": row["high"] + 10})["high"] == row["high"] + 10
    plan, day = write_tool(world, "plan_"), "2031-05-20"
    base = {sensor: row["id"], "day": day, "start": 8, "end": 10}
    column, _ = world.fk("sensor", "site")
    beside = next(other for other in world.rows["sensor"][1:] if other[column] == row[column])
    assert refused(play.call, plan, **{**base, sensor: nothing}) == "not_found"
    assert refused(play.call, plan, **{**base, "day": "2031-05-01"}) == "invalid"
    assert refused(play.call, plan, **{**base, "end": 8}) == "invalid"
    play.call(plan, **base)
    assert refused(play.call, plan, **base) == "conflict"
    assert refused(play.call, plan, **{**base, sensor: beside["id"]}) == "conflict"


@pytest.mark.parametrize("seed", SEEDS)
def test_rows_keep_the_rules_and_are_the_same_on_every_run(seed):
    world = world_of(seed)
    assert world.rows == world_of(seed).rows
    assert connect(world).execute("PRAGMA foreign_key_check").fetchall() == []
    sensors = {row[world.fk("reading", "sensor")[1]]: row for row in world.rows["sensor"]}
    times = [(row[world.fk("reading", "sensor")[0]], row["day"], row["hour"]) for row in world.rows["reading"]]
    assert len(set(times)) == len(times)
    assert set(sensors) == {time[0] for time in times}
    by_id = {row["id"]: row for row in world.rows["sensor"]}
    fk, key = world.fk("alarm", "sensor")
    alarmed = [(row[fk], row["day"], row["hour"]) for row in world.rows["alarm"]]
    assert len(set(alarmed)) == len(alarmed) >= 20
    keys = {row[world.fk("reading", "sensor")[1]]: row[key] for row in by_id.values()}
    assert set(alarmed) <= {(keys[link], day, hour) for link, day, hour in times}
    for row in world.rows["sensor"]:
        assert row["high"] > 2 * world.rules["alarm_margin"] + row.get("low", 0)
    if "maintenance" in world.rows:
        fk, key = world.fk("maintenance", "sensor")
        sites = {row[key]: row[world.fk("sensor", "site")[0]] for row in world.rows["sensor"]}
        days = [(row[fk], row["day"]) for row in world.rows["maintenance"]]
        assert len(set(days)) == len(days)
        busiest = Counter((sites[link], day) for link, day in days).most_common(1)[0][1]
        assert busiest <= (world.rules["alarm_site_cap"] or len(days))
        assert all(row.get("start", 0) < row.get("end", 1) for row in world.rows["maintenance"])
    for entity in ("sensor", "reading", "alarm"):
        assert 20 <= len(world.rows[entity]) <= 140, entity


def test_measurements_stand_at_limits_and_episodes_have_several():
    at_limit = several = 0
    for seed in SEEDS:
        world = world_of(seed, alarm_since=False)
        sensors = {row[world.fk("reading", "sensor")[1]]: row for row in world.rows["sensor"]}
        for row in world.rows["reading"]:
            sensor = sensors[row[world.fk("reading", "sensor")[0]]]
            at_limit += row["value"] + sensor["offset"] == sensor["high"]
        database, derived = connect(world), world.derived["sensor", "episodes"]
        counts = [sql_value(database, derived, row, [day]) for row in world.rows["sensor"] for day in DAYS]
        several += sum(count > 1 for count in counts)
    assert at_limit >= 5 * len(SEEDS)
    assert several >= 2 * len(SEEDS)


def test_rules_change_structure():
    bare = world_of(6, alarm_maintenance="none", alarm_low=False, alarm_assigned=False, alarm_escalation=False)
    rich = world_of(6, **RICH, alarm_assigned=True)
    assert "maintenance" not in bare.tables
    assert {"start", "end"} <= {col.name for col in rich.tables["maintenance"]}
    assert not bare.has("sensor", "low")
    assert rich.has("sensor", "low")
    assert rich.has("alarm", "assignee")
    assert bare.has("sensor", "keeper")
    assert bare.col("alarm", "state").values == ("raised", "acknowledged", "cleared")
    assert rich.col("alarm", "state").values == ("raised", "escalated", "acknowledged", "cleared")


@pytest.mark.parametrize("other", ["booking", "inventory", "pricing", "itinerary"])
def test_joined_with_others_the_texts_still_agree_and_words_are_clear(other):
    for seed in range(2):
        world = make_world([MECHANISMS[other], MECHANISM], seed)
        public_docs(world)
        rng = random.Random(f"joined/{seed}")
        for name in NAMES:
            compare(world, name, drawer(rng), rng, count=15)


def test_every_derived_attribute_and_action_has_its_sentence():
    for seed in SEEDS:
        world = world_of(seed)
        public_docs(world)
        for item in [*world.derived.values(), *world.actions.values()]:
            assert item.policy in world.policy
            assert item.policy.endswith(".")
