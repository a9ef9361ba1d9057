"""The inventory mechanism: its three texts agree, its rules bite, any split of equal expiry days passes, tools refuse."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from envsynth.author.procedural.compose import connect
from envsynth.author.procedural.docs import public_docs
from envsynth.author.procedural.mechanisms.booking import MECHANISM as BOOKING
from envsynth.author.procedural.mechanisms.inventory import MECHANISM
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
    write_tool,
)

SEEDS = range(10)
NAMES = ("free_qty", "available", "stock", "held")


def world_of(seed, **rules):
    return make_world([MECHANISM], seed, **rules)


def drawer(world, rng):
    return lambda type_: rng.choice(world.rows[type_.detail])


@pytest.mark.parametrize("seed", SEEDS)
def test_derived_attributes_agree_in_all_three_texts(seed):
    world, rng = world_of(seed), random.Random(f"inventory/{seed}")
    for name in NAMES:
        compare(world, name, drawer(world, rng), rng)


@pytest.mark.parametrize("name", NAMES)
def test_ignoring_the_rules_changes_derived_values(name):
    asked = changed = 0
    for seed in SEEDS:
        world, rng = world_of(seed), random.Random(f"policy/{seed}")
        seen = compare(world, name, drawer(world, rng), rng)
        asked, changed = asked + seen.asked, changed + seen.by_flag
    assert changed / asked >= 0.05


@pytest.mark.parametrize("seed", range(4))
def test_joined_with_booking_the_texts_still_agree_and_words_are_clear(seed):
    world = make_world([BOOKING, MECHANISM], seed)
    rng = random.Random(f"joined/{seed}")
    public_docs(world)
    for name in NAMES:
        compare(world, name, drawer(world, rng), rng, count=15)


def draw_reserve(world, rng):
    lot = rng.choice(world.rows["lot"])
    fk = {name: world.fk("lot", name) for name in ("item", "site")}
    good = {
        name: next(row for row in world.rows[name] if row[key] == lot[column]) for name, (column, key) in fk.items()
    }
    return [rng.randint(1, 45), good["item"], good["site"], rng.choice(world.rows["person"])]


def totals(world, rows):
    """Reserved units by lot and holder."""
    lot, _ = world.fk("reservation", "lot")
    person, _ = world.fk("reservation", "person")
    units = Counter()
    for row in rows:
        units[row[lot], row[person]] += row["quantity"]
    return units


@pytest.mark.parametrize("seed", SEEDS)
def test_reserve_agrees_in_oracle_planner_and_goal(seed):
    world, rng = world_of(seed), random.Random(f"reserve/{seed}")
    action, goal = world.actions["reserve"], goal_scope(world)["s_reserve"]
    outcomes = Counter()
    for _ in range(40):
        arguments = draw_reserve(world, rng)
        changes = oracle_changes(world, action, arguments)
        play = Play(world)
        plan = plan_scope(world, call=play.call)["a_reserve"]
        if not changes:
            with pytest.raises(RuntimeError, match="not enough stock"):
                plan(*arguments)
            outcomes["infeasible"] += 1
            continue
        plan(*arguments)
        expected, done = oracle_diff(world, changes), play.diff()
        assert goal(world.rows, expected, *arguments) == expected
        assert goal(world.rows, done, *arguments) == done
        assert goal(world.rows, [], *arguments) is None
        assert sum(cells["quantity"] for _, _, cells in changes) == sum(item["new"]["quantity"] for item in done)
        less = [{**item, "new": {**item["new"]}} for item in done]
        less[0]["new"]["quantity"] -= 1
        assert goal(world.rows, less, *arguments) is None
        outcomes["several lots" if len(changes) > 1 else "one lot"] += 1
    assert min(outcomes["infeasible"], outcomes["one lot"], outcomes["several lots"]) > 0


def small_world(**rules):
    """One good at one place: lots of 5 (quarantined), 6 and 4 with the same day, 9 with a later day, 7 expired."""
    defaults = {"quarantine": True, "shelf_days": 0, "safety": False, "pack": 1, "releases": False}
    world = world_of(3, **{**defaults, **rules})
    item, site = world.rows["item"][0], world.rows["site"][0]
    template = world.rows["lot"][0]
    (item_fk, item_key), (site_fk, site_key) = world.fk("lot", "item"), world.fk("lot", "site")
    cells = [
        (5, "2031-05-03", "quarantine"),
        (6, "2031-05-20", "ok"),
        (4, "2031-05-20", "ok"),
        (9, "2031-06-20", "ok"),
        (7, "2031-05-01", "ok"),
    ]
    world.rows["lot"] = [
        {
            **template,
            "id": world.coin_id("lot", index),
            item_fk: item[item_key],
            site_fk: site[site_key],
            "quantity": quantity,
            "expiry": expiry,
            "condition": condition,
        }
        for index, (quantity, expiry, condition) in enumerate(cells)
    ]
    if not world.rules["quarantine"]:
        for row in world.rows["lot"]:
            del row["condition"]
    world.rows["reservation"] = []
    return world, item, site, world.rows["person"][0]


def reservations(world, person, *pairs):
    lot_fk, lot_key = world.fk("reservation", "lot")
    person_fk, person_key = world.fk("reservation", "person")
    return [
        entry(
            "insert",
            "reservation",
            None,
            {
                "id": f"new {number}",
                lot_fk: world.rows["lot"][index][lot_key],
                person_fk: person[person_key],
                "quantity": quantity,
            },
        )
        for number, (index, quantity) in enumerate(pairs)
    ]


def test_goal_accepts_every_split_of_equal_days_and_nothing_else():
    world, item, site, person = small_world()
    goal = goal_scope(world)["s_reserve"]

    def claimed(quantity, *pairs):
        diff = reservations(world, person, *pairs)
        return goal(world.rows, diff, quantity, item, site, person) == diff

    assert claimed(7, (1, 6), (2, 1))
    assert claimed(7, (1, 3), (2, 4))
    assert claimed(7, (1, 3), (1, 3), (2, 1))
    assert claimed(12, (1, 6), (2, 4), (3, 2))
    assert not claimed(7, (1, 6), (3, 1))
    assert not claimed(7, (0, 5), (1, 2))
    assert not claimed(7, (4, 7))
    assert not claimed(7, (1, 7))
    assert not claimed(7, (1, 6), (2, 2))
    assert not claimed(20, (1, 6), (2, 4), (3, 10))


def test_rules_decide_what_is_available_at_the_threshold():
    def available(**rules):
        world, item, site, _ = small_world(**rules)
        site["safety"] = 4
        return goal_scope(world)["g_available"](world.rows, item, site)

    assert available() == 19
    assert available(quarantine=False) == 24
    assert available(shelf_days=7) == 19
    assert available(shelf_days=14) == 19
    assert available(safety=True) == 15


def test_packs_round_a_request_up_and_safety_stock_stays():
    world, item, site, person = small_world(pack=4, safety=True)
    site["safety"] = 4
    action = world.actions["reserve"]

    def reserved(quantity):
        changes = oracle_changes(world, action, [quantity, item, site, person])
        return sum(cells["quantity"] for _, _, cells in changes)

    assert [reserved(quantity) for quantity in (1, 4, 5, 12, 13)] == [4, 4, 8, 12, 0]
    goal = goal_scope(world)["s_reserve"]
    right = reservations(world, person, (1, 6), (2, 2))
    assert goal(world.rows, right, 5, item, site, person) == right
    wrong = reservations(world, person, (1, 5))
    assert goal(world.rows, wrong, 5, item, site, person) is None
    emptied = reservations(world, person, (1, 6), (2, 4), (3, 6))
    assert goal(world.rows, emptied, 13, item, site, person) is None


def test_ignoring_the_rules_reserves_wrongly():
    world, item, site, person = small_world()
    play = Play(world)
    plan_scope(world, call=play.call, POLICY=False)["a_reserve"](7, item, site, person)
    goal = goal_scope(world)["s_reserve"]
    assert play.diff()
    assert goal(world.rows, play.diff(), 7, item, site, person) is None


@pytest.mark.parametrize("seed", SEEDS)
def test_receive_and_release_agree_in_oracle_planner_and_goal(seed):
    world, rng = world_of(seed, releases=True), random.Random(f"receive/{seed}")
    goals = goal_scope(world)
    days = ["2031-05-01", "2031-05-02", "2031-06-01"]
    drawn = [
        ("receive", [n, rng.choice(world.rows["item"]), rng.choice(world.rows["site"]), day])
        for n, day in enumerate(days, 1)
    ]
    drawn += [("release", [row]) for row in rng.sample(world.rows["reservation"], 12)]
    seen = Counter()
    for name, arguments in drawn:
        changes = oracle_changes(world, world.actions[name], arguments)
        play = Play(world)
        plan = plan_scope(world, call=play.call)[f"a_{name}"]
        seen[name, bool(changes)] += 1
        if not changes:
            with pytest.raises(Refusal):
                plan(*arguments)
            continue
        plan(*arguments)
        done = play.diff()
        cells = changes[0][2]
        assert {column: done[0]["new"][column] for column in cells} == cells
        assert goals[f"s_{name}"](world.rows, done, *arguments) == done
        assert goals[f"s_{name}"](world.rows, [], *arguments) is None
    assert set(seen) == {(n, ok) for n in ("receive", "release") for ok in (True, False)}


def test_new_lots_start_in_quarantine_and_only_the_rule_says_so():
    world = world_of(1, quarantine=True)
    arguments = [5, world.rows["item"][0], world.rows["site"][0], "2031-06-01"]
    conditions = []
    for policy in (True, False):
        play = Play(world)
        plan_scope(world, call=play.call, POLICY=policy)["a_receive"](*arguments)
        conditions.append(play.diff()[0]["new"]["condition"])
    assert conditions == ["quarantine", "ok"]
    assert any(" is quarantine." in sentence and "The condition of a new" in sentence for sentence in world.policy)


@pytest.mark.parametrize("seed", range(4))
def test_every_write_tool_has_two_reachable_refusals(seed):
    world = world_of(seed, releases=True, quarantine=False)
    call, nothing = Play(world).call, missing(world)
    lot, person = argument(world, "lot"), argument(world, "person")
    reserve = write_tool(world, "reserve_")
    base = {lot: world.rows["lot"][0]["id"], person: world.rows["person"][0]["id"], "quantity": 1}
    assert refused(call, reserve, **{**base, lot: nothing}) == "not_found"
    assert refused(call, reserve, **{**base, person: nothing}) == "not_found"
    assert refused(call, reserve, **{**base, "quantity": 999}) == "conflict"
    receive, item, site = (
        write_tool(world, "receive_"),
        argument(world, "item"),
        argument(world, "site"),
    )
    base = {item: world.rows["item"][0]["id"], site: world.rows["site"][0]["id"], "quantity": 1}
    assert refused(call, receive, **{**base, item: nothing, "expiry": "2031-06-01"}) == "not_found"
    assert refused(call, receive, **{**base, "expiry": "2031-05-01"}) == "invalid"
    call(receive, **{**base, "expiry": "2031-05-02"})
    release, reservation = write_tool(world, "release_"), argument(world, "reservation")
    held = next(row for row in world.rows["reservation"] if row["phase"] == "held")
    assert refused(call, release, **{reservation: nothing}) == "not_found"
    call(release, **{reservation: held["id"]})
    assert refused(call, release, **{reservation: held["id"]}) == "conflict"


@pytest.mark.parametrize("seed", SEEDS)
def test_rows_keep_the_rules_and_are_the_same_on_every_run(seed):
    world = world_of(seed)
    assert world.rows == world_of(seed).rows
    assert connect(world).execute("PRAGMA foreign_key_check").fetchall() == []
    free = plan_scope(world)["d_free_qty"]
    assert min(free(row) for row in world.rows["lot"]) >= 0
    assert all(5 <= len(rows) <= 130 for name, rows in world.rows.items() if name in ("lot", "reservation", "site"))


def test_every_derived_attribute_and_action_has_its_sentence():
    for seed in SEEDS:
        world = world_of(seed)
        for item in [*world.derived.values(), *world.actions.values()]:
            assert item.policy in world.policy
            assert item.policy.endswith(".")
