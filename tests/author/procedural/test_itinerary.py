"""The itinerary mechanism: its three searches agree, its rules bite, any cheapest route passes, tools refuse."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from envsynth.author.procedural.compose import connect
from envsynth.author.procedural.docs import public_docs
from envsynth.author.procedural.mechanisms.booking import MECHANISM as BOOKING
from envsynth.author.procedural.mechanisms.itinerary import MECHANISM
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

SEEDS = range(8)
NAMES = ("seats_left", "arrival", "fare", "visit", "outing")


def world_of(seed, **rules):
    return make_world([MECHANISM], seed, **rules)


def drawer(world, rng):
    return lambda type_: rng.choice(world.rows[type_.detail]) if type_.kind == "row" else rng.randint(4, 20)


@pytest.mark.parametrize("seed", SEEDS)
def test_derived_attributes_agree_in_all_three_texts(seed):
    world, rng = world_of(seed), random.Random(f"itinerary/{seed}")
    for _, name in world.derived:
        compare(world, name, drawer(world, rng), rng, count=18)


@pytest.mark.parametrize("name", NAMES)
def test_ignoring_the_rules_changes_derived_values(name):
    asked = changed = 0
    for seed in SEEDS:
        world, rng = world_of(seed, visit=1 + seed % 2), random.Random(f"policy/{seed}")
        seen = compare(world, name, drawer(world, rng), rng, count=18)
        asked, changed = asked + seen.asked, changed + seen.by_flag
    assert changed / asked >= 0.05


@pytest.mark.parametrize("name", ["fare", "arrival"])
def test_the_route_of_fewest_connections_is_often_not_the_best(name):
    asked = worse = 0
    for seed in SEEDS:
        world, rng = world_of(seed), random.Random(f"greedy/{seed}")
        seen = compare(world, name, drawer(world, rng), rng, count=18, GREEDY=True)
        asked, worse = asked + seen.asked, worse + seen.by_flag
    assert worse / asked > 0.05


def small_world(legs, **rules):
    """Places 0-3 with given connections (from, to, departs, arrives, fare, seats) and no tickets but those sold later."""
    defaults = {"transfer": 1, "max_legs": 2, "kept_seats": 0, "fee": 0, "refunds": False, "visit": 0}
    world = world_of(1, **{**defaults, **rules})
    (origin, origin_key), (destination, destination_key) = (
        world.fk("leg", "origin"),
        world.fk("leg", "destination"),
    )
    sites = world.rows["site"]
    world.rows["leg"] = [
        {
            **world.rows["leg"][0],
            "id": world.coin_id("leg", index),
            origin: sites[start][origin_key],
            destination: sites[end][destination_key],
            **dict(zip(("departs", "arrives", "fare", "seats"), cells, strict=True)),
        }
        for index, (start, end, *cells) in enumerate(legs)
    ]
    world.rows["ticket"] = []
    return world


def sell(world, leg, person):
    column, key = world.fk("ticket", "leg")
    holder, holder_key = world.fk("ticket", "person")
    row = {
        "id": world.coin_id("ticket", len(world.rows["ticket"])),
        column: world.rows["leg"][leg][key],
        holder: world.rows["person"][person][holder_key],
    }
    if world.rules["refunds"]:
        row["validity"] = "valid"
    world.rows["ticket"].append(row)
    return row


LEGS = [
    (0, 2, 8, 12, 90, 5),
    (0, 1, 8, 9, 20, 1),
    (1, 2, 10, 11, 20, 5),
    (1, 2, 9, 10, 10, 5),
    (2, 3, 12, 13, 5, 5),
]


def values(world, name, *arguments):
    """A derived attribute of the first four places, by its goal text after all texts were found to agree."""
    rng = random.Random("small")
    compare(world, name, lambda type_: rng.choice(world.rows["site"]) if type_.kind == "row" else 8, rng)
    goal = goal_scope(world)[f"g_{name}"]
    return [goal(world.rows, row, world.rows["site"][0], *arguments) for row in world.rows["site"][:4]]


def test_time_to_change_length_and_fee_decide_at_the_hour():
    assert values(small_world(LEGS), "fare") == [0, 20, 40, 9999]
    assert values(small_world(LEGS), "arrival", 8) == [8, 9, 11, 99]
    assert values(small_world(LEGS), "arrival", 9) == [9, 99, 99, 99]
    assert values(small_world(LEGS, transfer=2), "fare") == [0, 20, 90, 9999]
    assert values(small_world(LEGS, max_legs=3), "fare") == [0, 20, 40, 45]
    assert values(small_world(LEGS, max_legs=3), "arrival", 8) == [8, 9, 11, 13]
    assert values(small_world(LEGS, fee=8), "fare") == [0, 28, 56, 9999]


def test_sold_out_and_kept_seats_close_a_connection_until_a_refund():
    world = small_world(LEGS, refunds=True)
    ticket = sell(world, 1, 0)
    assert values(world, "fare") == [0, 9999, 90, 9999]
    ticket["validity"] = "refunded"
    assert values(world, "fare") == [0, 20, 40, 9999]
    assert values(small_world(LEGS, kept_seats=1), "fare") == [0, 9999, 90, 9999]


def buy(world, person, start, end):
    return [world.rows["person"][person], world.rows["site"][start], world.rows["site"][end]]


def tickets(world, person, *legs):
    column, key = world.fk("ticket", "leg")
    holder, holder_key = world.fk("ticket", "person")
    return [
        entry(
            "insert",
            "ticket",
            None,
            {
                "id": f"new {number}",
                column: world.rows["leg"][leg][key],
                holder: world.rows["person"][person][holder_key],
            },
        )
        for number, leg in enumerate(legs)
    ]


def test_goal_accepts_every_cheapest_route_and_nothing_else():
    world = small_world([*LEGS, (0, 2, 6, 7, 40, 5)])
    goal, arguments = goal_scope(world)["s_buy"], buy(world, 0, 0, 2)

    def claimed(*legs):
        diff = tickets(world, 0, *legs)
        found = goal(world.rows, diff, *arguments) or []
        return sorted(item["id"] for item in (x["new"] for x in found))

    assert claimed(1, 2) == ["new 0", "new 1"]
    assert claimed(2, 1) == ["new 0", "new 1"]
    assert claimed(5) == ["new 0"]
    assert len(claimed(5, 1)) == 1, "a ticket too many stays unclaimed"
    for wrong in [(0,), (1, 3), (1,), (2,), ()]:
        assert claimed(*wrong) == []
    assert goal(world.rows, tickets(world, 1, 1, 2), *arguments) is None
    assert goal(world.rows, [], *buy(world, 0, 0, 0)) is None


def test_a_route_that_is_held_in_part_is_no_choice():
    world = small_world([*LEGS, (0, 2, 6, 7, 40, 5)])
    sell(world, 2, 0)
    changes = oracle_changes(world, world.actions["buy"], buy(world, 0, 0, 2))
    assert len(changes) == 1, "the direct connection of the same price is left"
    sell(world, 5, 0)
    assert oracle_changes(world, world.actions["buy"], buy(world, 0, 0, 2)) == []
    with pytest.raises(RuntimeError, match="held already"):
        plan_scope(world)["a_buy"](*buy(world, 0, 0, 2))


@pytest.mark.parametrize("seed", SEEDS)
def test_buy_agrees_in_oracle_planner_and_goal(seed):
    world, rng = world_of(seed), random.Random(f"buy/{seed}")
    action, goal, seen = world.actions["buy"], goal_scope(world)["s_buy"], Counter()
    for _ in range(25):
        arguments = [
            rng.choice(world.rows["person"]),
            rng.choice(world.rows["site"]),
            rng.choice(world.rows["site"]),
        ]
        changes = oracle_changes(world, action, arguments)
        play = Play(world)
        plan = plan_scope(world, call=play.call)["a_buy"]
        seen[len(changes)] += 1
        if not changes:
            with pytest.raises((RuntimeError, ValueError)):
                plan(*arguments)
            continue
        plan(*arguments)
        done, expected = play.diff(), oracle_diff(world, changes)
        assert sorted(item["new"]["id"] for item in goal(world.rows, done, *arguments)) == sorted(
            item["new"]["id"] for item in done
        )
        assert goal(world.rows, expected, *arguments) == expected
        assert goal(world.rows, done[1:], *arguments) is None
    assert seen[1] > 0
    assert seen[2] + seen[3] > 0


@pytest.mark.parametrize("flag", [{"POLICY": False}, {"GREEDY": True}])
def test_a_weaker_buyer_takes_another_route_or_is_refused(flag):
    seen = Counter()
    for seed in SEEDS:
        world, rng = world_of(seed), random.Random(f"weak/{seed}")
        goal = goal_scope(world)["s_buy"]
        for _ in range(9):
            arguments = [rng.choice(world.rows["person"]), *rng.sample(world.rows["site"], 2)]
            if not oracle_changes(world, world.actions["buy"], arguments):
                continue
            play = Play(world)
            try:
                plan_scope(world, call=play.call, **flag)["a_buy"](*arguments)
            except (Refusal, RuntimeError):
                seen["refused"] += 1
                continue
            seen["right" if goal(world.rows, play.diff(), *arguments) else "wrong"] += 1
    assert seen["wrong"] >= 5, "the tool does not enforce the rules"
    assert seen["right"] >= 5


@pytest.mark.parametrize("seed", range(4))
def test_every_write_tool_has_two_reachable_refusals(seed):
    world = world_of(seed, refunds=True)
    play, nothing = Play(world), missing(world)
    tool, leg, person = write_tool(world, "buy_"), argument(world, "leg"), argument(world, "person")
    target, people = world.rows["leg"][0], [row["id"] for row in world.rows["person"]]
    assert refused(play.call, tool, **{leg: nothing, person: people[0]}) == "not_found"
    assert refused(play.call, tool, **{leg: target["id"], person: nothing}) == "not_found"
    column, key = world.fk("ticket", "leg")
    valid = [row for row in world.rows["ticket"] if row["validity"] == "valid"]
    holder, holder_key = world.fk("ticket", "person")
    taken = [row[holder] for row in valid if row[column] == target[key]]
    strangers = [row["id"] for row in world.rows["person"] if row[holder_key] not in taken]
    for one in strangers[: target["seats"] - len(taken)]:
        play.call(tool, **{leg: target["id"], person: one})
    again = [row["id"] for row in world.rows["person"] if row["id"] not in strangers] or strangers
    assert refused(play.call, tool, **{leg: target["id"], person: again[0]}) == "conflict"
    assert refused(play.call, tool, **{leg: target["id"], person: strangers[-1]}) == "conflict"
    refund, ticket = write_tool(world, "refund_"), argument(world, "ticket")
    assert refused(play.call, refund, **{ticket: nothing}) == "not_found"
    play.call(refund, **{ticket: valid[0]["id"]})
    assert refused(play.call, refund, **{ticket: valid[0]["id"]}) == "conflict"


@pytest.mark.parametrize("seed", range(4))
def test_refund_agrees_in_oracle_planner_and_goal(seed):
    world = world_of(seed, refunds=True)
    goal, seen = goal_scope(world)["s_refund"], Counter()
    for row in world.rows["ticket"]:
        changes = oracle_changes(world, world.actions["refund"], [row])
        assert bool(changes) == (row["validity"] == "valid")
        seen[bool(changes)] += 1
    assert min(seen[True], seen[False]) > 0
    row = next(row for row in world.rows["ticket"] if row["validity"] == "valid")
    play = Play(world)
    plan_scope(world, call=play.call)["a_refund"](row)
    assert goal(world.rows, play.diff(), row) == play.diff()
    assert goal(world.rows, [], row) is None


@pytest.mark.parametrize("seed", range(4))
def test_joined_with_booking_the_texts_still_agree_and_words_are_clear(seed):
    world = make_world([BOOKING, MECHANISM], seed)
    public_docs(world)
    rng = random.Random(f"joined/{seed}")
    for name in ("arrival", "fare"):
        compare(world, name, drawer(world, rng), rng, count=10)


@pytest.mark.parametrize("seed", SEEDS)
def test_timetable_is_possible_and_the_same_on_every_run(seed):
    world = world_of(seed)
    assert world.rows == world_of(seed).rows
    assert connect(world).execute("PRAGMA foreign_key_check").fetchall() == []
    column, key = world.fk("ticket", "leg")
    sold = Counter(row[column] for row in world.rows["ticket"] if row.get("validity") != "refunded")
    for row in world.rows["leg"]:
        assert 0 <= row["departs"] < row["arrives"] <= 24
        assert sold[row[key]] <= row["seats"]
    full = [row for row in world.rows["leg"] if sold[row[key]] == row["seats"]]
    assert 0.04 < len(full) / len(world.rows["leg"]) < 0.35
    assert len(world.rows["ticket"]) <= 130
    for row in world.rows.get("attraction", []):
        assert row["opens"] < row["closes"]


def test_every_derived_attribute_and_action_has_its_sentence():
    for seed in SEEDS:
        world = world_of(seed)
        for item in [*world.derived.values(), *world.actions.values()]:
            assert item.policy in world.policy
            assert item.policy.endswith(".")


def test_attractions_exist_only_by_rule():
    assert "attraction" not in world_of(0, visit=0).tables
    world = world_of(0, visit=2)
    assert 20 <= len(world.rows["attraction"]) <= 30
