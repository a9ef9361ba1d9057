"""The booking mechanism: its three texts agree, its rules bite, its tools refuse."""

from __future__ import annotations

import json
import random
import sqlite3

import pytest

from envsynth.author.procedural.compose import Composition, compose, connect
from envsynth.author.procedural.lexicon import load_pack
from envsynth.author.procedural.mechanisms.booking import MECHANISM

SEEDS = range(8)


class Refusal(Exception):
    def __init__(self, code, message):
        super().__init__(code, message)
        self.code = code


def make_world(seed, **rules) -> Composition:
    return compose([MECHANISM], load_pack("general"), random.Random(f"booking/{seed}"), rules=rules)


def as_dict(cursor, values):
    return {column[0]: value for column, value in zip(cursor.description, values, strict=True)}


def tool_caller(world):
    """A database of the world and a function that calls its tools on it."""
    database = connect(world)
    database.row_factory = as_dict
    scope = {"Refusal": Refusal}
    for tool in world.tools:
        if tool.effect == "write":
            exec(tool.source, scope)
    return database, lambda name, /, **arguments: scope[name](database, **arguments)


def plan_scope(world, policy=True, call=None):
    """The planner texts over plain rows: what they compute, apart from how rows are read."""
    scope = {
        "POLICY": policy,
        "CHECKS": True,
        "named": lambda entity, by, value: next(row for row in world.rows[entity] if row[by] == value),
        "rows": lambda entity, equal: [
            row for row in world.rows[entity] if all(row[column] == value for column, value in equal.items())
        ],
        "write": call,
    }
    for item in [*world.derived.values(), *world.actions.values()]:
        exec(item.plan, scope)
    return scope


def goal_scope(world):
    scope = {"once": lambda function: function, "db": world.rows}
    for item in [*world.derived.values(), *world.actions.values()]:
        exec(item.goal, scope)
    return scope


def draw_arguments(world, derived, rng):
    drawn = []
    for type_ in derived.params:
        if type_.kind == "date":
            drawn.append(rng.choice(sorted({str(row["day"]) for row in world.rows["booking"]})))
        else:
            drawn.append(rng.randint(5, 21))
    return drawn


def sql_value(database, derived, row, arguments):
    text = derived.sql.replace("{t}", "t")
    for index, value in enumerate(arguments):
        text = text.replace(f"{{{index}}}", repr(value))
    return database.execute(f'SELECT {text} FROM "{derived.entity}" t WHERE t."id" = ?', [row["id"]]).fetchone()[0]


@pytest.mark.parametrize("seed", SEEDS)
def test_derived_attributes_agree_in_all_three_texts(seed):
    world = make_world(seed)
    database, plan, goal = connect(world), plan_scope(world), goal_scope(world)
    rng = random.Random(f"arguments/{seed}")
    for derived in world.derived.values():
        for _ in range(60):
            row = rng.choice(world.rows[derived.entity])
            arguments = draw_arguments(world, derived, rng)
            by_sql = sql_value(database, derived, row, arguments)
            by_plan = plan[f"d_{derived.name}"](row, *arguments)
            by_goal = goal[f"g_{derived.name}"](world.rows, row, *arguments)
            assert by_sql == by_plan == by_goal, (derived.name, row, arguments)


def test_a_span_that_does_not_end_after_it_starts_is_never_free_and_costs_nothing():
    world = make_world(1)
    plan = plan_scope(world)
    row = world.rows["resource"][0]
    assert not plan["d_free"](row, "2031-05-30", 12, 12)
    assert not plan["d_free"](row, "2031-05-30", 12, 10)
    assert plan["d_free"](row, "2031-05-30", 10, 12)
    assert plan["d_charge"](row, 12, 10) == 0


def test_gap_and_opening_hours_decide_freedom_at_the_hour():
    world = make_world(2, buffer=1, opens=8, closes=18, closures=False)
    row = world.rows["resource"][0]
    fk, key = world.fk("booking", "resource")
    world.rows["booking"] = [
        {
            **world.rows["booking"][0],
            fk: row[key],
            "day": "2031-05-20",
            "start": 10,
            "end": 12,
            "status": "active",
        }
    ]
    goal = goal_scope(world)["g_free"]
    spans = [(8, 9), (8, 10), (12, 13), (13, 14), (7, 9), (17, 18), (17, 19)]
    free = [goal(world.rows, row, "2031-05-20", *span) for span in spans]
    assert free == [True, False, False, True, False, True, False]


@pytest.mark.parametrize("name", ["booked", "free", "booked_time", "charge"])
def test_ignoring_the_rules_changes_derived_values(name):
    changed = asked = 0
    for seed in SEEDS:
        world = make_world(seed, peak=14)
        right, naive = plan_scope(world), plan_scope(world, policy=False)
        rng = random.Random(f"policy/{seed}")
        derived = next(item for item in world.derived.values() if item.name == name)
        for row in world.rows[derived.entity]:
            arguments = draw_arguments(world, derived, rng)
            asked += 1
            changed += right[f"d_{name}"](row, *arguments) != naive[f"d_{name}"](row, *arguments)
    assert changed / asked > 0.05


def diff_of(world, database):
    """Row changes between the composed rows and the database, as the verifier kernel lists them."""
    entries = []
    for entity in world.tables:
        old = {row["id"]: row for row in world.rows[entity]}
        for new in database.execute(f'SELECT * FROM "{entity}"').fetchall():
            if new["id"] not in old:
                entries.append({"op": "insert", "table": entity, "old": None, "new": new, "changed": []})
            elif new != old[new["id"]]:
                changed = [column for column in new if new[column] != old[new["id"]][column]]
                entries.append(
                    {
                        "op": "update",
                        "table": entity,
                        "old": old[new["id"]],
                        "new": new,
                        "changed": changed,
                    }
                )
    return entries


def oracle_changes(world, action, arguments):
    text = action.oracle_sql
    for name, value in arguments.items():
        text = text.replace(f"{{{name}}}", repr(value["id"] if isinstance(value, dict) else value))
    return [(op, table, json.loads(cells)) for op, table, cells in connect(world).execute(text).fetchall()]


def draw_booking(world, rng):
    days = sorted({str(row["day"]) for row in world.rows["booking"]})
    start = rng.randint(7, 17)
    return {
        "resource": rng.choice(world.rows["resource"]),
        "person": rng.choice(world.rows["person"]),
        "day": rng.choice(days),
        "start": start,
        "end": start + rng.randint(1, 7),
        "headcount": rng.randint(1, 20),
    }


def draw_change(world, rng):
    return {
        "booking": rng.choice(world.rows["booking"]),
        "person": rng.choice(world.rows["person"]),
    }


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", ["book", "cancel", "hand_over"])
def test_actions_agree_in_oracle_tools_and_goal(seed, name):
    world = make_world(seed)
    action = world.actions[name]
    goal = goal_scope(world)[f"s_{name}"]
    rng = random.Random(f"act/{seed}")
    done = 0
    for _ in range(40 if name == "book" else 16):
        drawn = draw_booking(world, rng) if name == "book" else draw_change(world, rng)
        arguments = {param: drawn[param] for param, _ in action.params}
        expected = oracle_changes(world, action, arguments)
        database, call = tool_caller(world)
        plan = plan_scope(world, call=call)[f"a_{name}"]
        if not expected:
            with pytest.raises(Refusal):
                plan(**arguments)
            continue
        plan(**arguments)
        entries = diff_of(world, database)
        assert len(entries) == len(expected) == 1
        (op, table, cells), entry = expected[0], entries[0]
        assert (entry["op"], entry["table"]) == (op, table)
        assert {cell: entry["new"][cell] for cell in cells} == cells
        assert goal(world.rows, entries, *arguments.values()) == entries
        assert goal(world.rows, [], *arguments.values()) is None
        done += 1
    assert done >= 3


def test_goal_of_book_refuses_every_other_cell():
    world = make_world(3, tentative="open", large_group=4)
    arguments = {
        "resource": world.rows["resource"][0],
        "person": world.rows["person"][0],
        "day": "2031-05-20",
    }
    arguments |= {"start": 10, "end": 11, "headcount": 2}
    arguments["resource"] = {**arguments["resource"], "capacity": 30}
    fk, key = world.fk("booking", "resource")
    holder, holder_key = world.fk("booking", "person")
    row = {
        "id": 0,
        fk: arguments["resource"][key],
        holder: arguments["person"][holder_key],
        "status": "active",
    }
    row |= {cell: arguments[cell] for cell in ("day", "start", "end", "headcount")}
    goal = goal_scope(world)["s_book"]

    def claimed(new):
        entry = {"op": "insert", "table": "booking", "old": None, "new": new, "changed": []}
        return goal(world.rows, [entry], *arguments.values())

    assert claimed(row)
    wrong = {fk: world.rows["resource"][1][key], holder: world.rows["person"][1][holder_key]}
    wrong |= {"day": "2031-05-21", "start": 9, "end": 12, "headcount": 3, "status": "tentative"}
    for cell, value in wrong.items():
        assert not claimed({**row, cell: value}), cell


def test_large_groups_are_entered_as_tentative_and_only_the_rule_says_so():
    world = make_world(4, tentative="open", large_group=4)
    sent = []
    for policy in (True, False):
        plan = plan_scope(world, policy=policy, call=lambda tool, **given: sent.append(given["status"]))
        for headcount in (4, 5):
            plan["a_book"](world.rows["resource"][0], world.rows["person"][0], "2031-05-20", 10, 11, headcount)
    assert sent == ["active", "tentative", "active", "active"]
    assert any("for more than 4 people is entered as tentative" in sentence for sentence in world.policy)


def test_every_write_tool_has_two_reachable_refusals():
    world = make_world(5, tentative="none", longest=5)
    room, person = world.rows["resource"][0], world.rows["person"][0]
    statuses = {row["status"]: row for row in world.rows["booking"]}
    room_id, person_id = f"{world.slug('resource')}_id", f"{world.slug('person')}_id"
    booking_id = f"{world.slug('booking')}_id"
    base = {
        room_id: room["id"],
        person_id: person["id"],
        "day": "2031-05-20",
        "start": 10,
        "end": 12,
        "headcount": 1,
    }
    _, call = tool_caller(world)
    book, cancel, over = (tool.name for tool in world.tools if tool.effect == "write")
    missing = "nothing" if world.style.ids == "code" else -1

    def code(name, **arguments):
        with pytest.raises(Refusal) as caught:
            call(name, **arguments)
        return caught.value.code

    assert code(book, **{**base, room_id: missing}) == "not_found"
    assert code(book, **{**base, "end": 9}) == "invalid"
    assert code(book, **{**base, "end": 17}) == "invalid"
    assert code(book, **{**base, "headcount": 999}) == "invalid"
    call(book, **base)
    assert code(book, **base) == "conflict"
    assert code(cancel, **{booking_id: missing}) == "not_found"
    assert code(cancel, **{booking_id: statuses["cancelled"]["id"]}) == "conflict"
    assert code(over, **{booking_id: statuses["cancelled"]["id"], person_id: person["id"]}) == "conflict"
    assert code(over, **{booking_id: missing, person_id: person["id"]}) == "not_found"


@pytest.mark.parametrize("seed", SEEDS)
def test_generated_bookings_keep_the_rules(seed):
    world = make_world(seed)
    database = connect(world)
    rules, counting = (
        world.rules,
        ["active"] + (["tentative"] if world.rules["tentative"] == "blocks" else []),
    )
    rows = [row for row in world.rows["booking"] if row["status"] in counting]
    fk, _ = world.fk("booking", "resource")
    for row in rows:
        assert rules["opens"] <= row["start"] < row["end"] <= rules["closes"]
        near = [other for other in rows if other is not row and (other[fk], other["day"]) == (row[fk], row["day"])]
        assert all(
            row["end"] + rules["buffer"] <= other["start"] or other["end"] + rules["buffer"] <= row["start"]
            for other in near
        )
    assert database.execute("PRAGMA foreign_key_check").fetchall() == []


def test_rules_change_structure():
    bare = make_world(6, closures=False, tentative="none")
    rich = make_world(6, closures=True, tentative="blocks")
    assert "closure" not in bare.tables
    assert "closure" in rich.tables
    assert bare.col("booking", "status").values == ("active", "cancelled")
    assert rich.col("booking", "status").values == ("active", "tentative", "cancelled")
    same = [entity for entity in bare.tables if entity != "booking"]
    assert all(bare.tables[entity] == rich.tables[entity] for entity in same)


def test_connection_rows_are_tuples_in_autocommit():
    database = connect(make_world(7))
    assert isinstance(database, sqlite3.Connection)
    assert database.isolation_level is None
    assert isinstance(database.execute("SELECT 1").fetchone(), tuple)
