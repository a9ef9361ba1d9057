"""The pricing mechanism: its three texts agree, its rules bite, any best set of vouchers passes, tools refuse."""

from __future__ import annotations

import itertools
import random
from collections import Counter

import pytest

from envsynth.author.procedural.compose import connect
from envsynth.author.procedural.docs import public_docs
from envsynth.author.procedural.mechanisms.inventory import MECHANISM as INVENTORY
from envsynth.author.procedural.mechanisms.pricing import MECHANISM
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


def world_of(seed, **rules):
    return make_world([MECHANISM], seed, **rules)


def drawer(rng):
    return lambda _: rng.choice([1, 4, 5, 6, 9, 10, 11, 19, 20, 21, 39, 40, 41])


@pytest.mark.parametrize("seed", SEEDS)
def test_derived_attributes_agree_in_all_three_texts(seed):
    world, rng = world_of(seed), random.Random(f"pricing/{seed}")
    for _, name in world.derived:
        compare(world, name, drawer(rng), rng)


@pytest.mark.parametrize("name", ["cost", "best_price", "spent"])
def test_ignoring_the_rules_changes_derived_values(name):
    asked = changed = 0
    for seed in SEEDS:
        world, rng = world_of(seed, withdrawals=True), random.Random(f"policy/{seed}")
        seen = compare(world, name, drawer(rng), rng)
        asked, changed = asked + seen.asked, changed + seen.by_flag
    assert changed / asked >= 0.05


def test_the_best_single_voucher_is_often_not_the_best_set():
    asked = worse = 0
    for seed in SEEDS:
        world, rng = world_of(seed), random.Random(f"greedy/{seed}")
        seen = compare(world, "best_price", drawer(rng), rng, GREEDY=True)
        asked, worse = asked + seen.asked, worse + seen.by_flag
    assert worse / asked > 0.3


def brute_force(world, item, quantity):
    """The definition itself, set by set: an independent fourth calculation."""
    rules, fk = world.rules, world.fk("pricebreak", "item")
    steps = [
        row["reduction"] for row in world.rows["pricebreak"] if row[fk[0]] == item[fk[1]] and row["minimum"] <= quantity
    ]
    full = item["price"] * quantity * (100 - max(steps, default=0))
    cost = (full + 99) // 100 if rules["round_up"] else full // 100
    prices = []
    for size in range(len(world.rows["coupon"]) + 1):
        for chosen in itertools.combinations(world.rows["coupon"], size):
            stacks = [row.get("stack", row["id"]) for row in chosen]
            if len(set(stacks)) < size or (rules["most"] and size > rules["most"]):
                continue
            if any(row["minimum"] > cost or row.get("until", "9") < world.now for row in chosen):
                continue
            percent = sum(row["value"] for row in chosen if row["kind"] == "percent")
            flat = sum(row["value"] for row in chosen if row["kind"] == "flat")
            if rules["flat_first"]:
                left = max(0, cost - flat)
                left -= left * percent // 100
            else:
                left = cost - cost * percent // 100 - flat
            prices.append(max(left, cost * (100 - rules["cap"]) // 100))
    return min(prices)


@pytest.mark.parametrize("seed", SEEDS)
def test_best_price_is_that_of_the_definition(seed):
    world, rng = world_of(seed), random.Random(f"brute/{seed}")
    database, derived = connect(world), world.derived["item", "best_price"]
    for _ in range(8):
        item, quantity = rng.choice(world.rows["item"]), rng.randint(1, 45)
        assert sql_value(database, derived, item, [quantity]) == brute_force(world, item, quantity)


@pytest.mark.parametrize("seed", SEEDS)
def test_order_agrees_in_oracle_planner_and_goal(seed):
    world, rng = world_of(seed), random.Random(f"order/{seed}")
    action, goal = world.actions["order"], goal_scope(world)["s_order"]
    for _ in range(12):
        item, person = rng.choice(world.rows["item"]), rng.choice(world.rows["person"])
        arguments = [rng.randint(1, 45), item, person]
        changes = oracle_changes(world, action, arguments)
        play = Play(world)
        plan_scope(world, call=play.call)["a_order"](*arguments)
        done, expected = play.diff(), oracle_diff(world, changes)
        assert {column: done[0]["new"][column] for column in changes[0][2]} == changes[0][2]
        assert goal(world.rows, done, *arguments) == done
        assert goal(world.rows, expected, *arguments) == expected
        for column, other in [("amount", 1), ("quantity", 1)]:
            new = {**done[0]["new"], column: done[0]["new"][column] + other}
            assert goal(world.rows, [entry("insert", "order", None, new)], *arguments) is None
        assert goal(world.rows, [], *arguments) is None


@pytest.mark.parametrize("flag", [{"POLICY": False}, {"GREEDY": True}])
def test_a_weaker_buyer_pays_another_amount_or_is_refused(flag):
    seen = Counter()
    for seed in SEEDS:
        world, rng = world_of(seed), random.Random(f"weak/{seed}")
        goal = goal_scope(world)["s_order"]
        for _ in range(6):
            arguments = [
                rng.randint(5, 45),
                rng.choice(world.rows["item"]),
                rng.choice(world.rows["person"]),
            ]
            play = Play(world)
            try:
                plan_scope(world, call=play.call, **flag)["a_order"](*arguments)
            except Refusal:
                seen["refused"] += 1
                continue
            seen["right" if goal(world.rows, play.diff(), *arguments) else "wrong"] += 1
    assert seen["wrong"] + seen["refused"] > 10


def test_an_ended_voucher_is_refused_only_where_the_tool_is_strict():
    for strict in (True, False):
        world = world_of(2, dated=True, strict=strict, groups=False, most=3)
        coupon = {**world.rows["coupon"][0], "minimum": 0, "until": "2031-05-01"}
        world.rows["coupon"] = [coupon, {**world.rows["coupon"][1], "minimum": 0, "until": world.now}]
        play, tool = Play(world), write_tool(world, "place_")
        arguments = {
            argument(world, "item"): world.rows["item"][0]["id"],
            argument(world, "person"): world.rows["person"][0]["id"],
            "quantity": 10,
        }
        name = f"{world.slug('coupon')}_ids"
        play.call(tool, **arguments, **{name: [world.rows["coupon"][1]["id"]]})
        if strict:
            assert refused(play.call, tool, **arguments, **{name: [coupon["id"]]}) == "conflict"
        else:
            play.call(tool, **arguments, **{name: [coupon["id"]]})


@pytest.mark.parametrize("seed", range(4))
def test_every_write_tool_has_two_reachable_refusals(seed):
    world = world_of(seed, withdrawals=True, groups=True, most=2, dated=False)
    for row in world.rows["coupon"]:
        row["minimum"] = 0
    world.rows["coupon"][-1]["minimum"] = 10**9
    play, nothing = Play(world), missing(world)
    tool, name = write_tool(world, "place_"), f"{world.slug('coupon')}_ids"
    item, person = argument(world, "item"), argument(world, "person")
    base = {item: world.rows["item"][0]["id"], person: world.rows["person"][0]["id"]}
    base |= {"quantity": 9, name: []}
    ids = {row["stack"]: row["id"] for row in reversed(world.rows["coupon"][:-1])}
    assert refused(play.call, tool, **{**base, item: nothing}) == "not_found"
    assert refused(play.call, tool, **{**base, person: nothing}) == "not_found"
    assert refused(play.call, tool, **{**base, name: [nothing]}) == "not_found"
    assert refused(play.call, tool, **{**base, name: [ids["A"], ids["A"]]}) == "conflict"
    assert refused(play.call, tool, **{**base, name: [ids[k] for k in "ABC"]}) == "conflict"
    assert refused(play.call, tool, **{**base, name: [world.rows["coupon"][-1]["id"]]}) == "conflict"
    assert play.call(tool, **{**base, name: [ids["A"], ids["B"]]})["amount"] >= 0
    withdraw, order = write_tool(world, "withdraw_"), argument(world, "order")
    target = next(row for row in world.rows["order"] if row["stage"] == "open")
    assert refused(play.call, withdraw, **{order: nothing}) == "not_found"
    play.call(withdraw, **{order: target["id"]})
    assert refused(play.call, withdraw, **{order: target["id"]}) == "conflict"


@pytest.mark.parametrize("seed", range(5))
def test_withdraw_agrees_in_oracle_planner_and_goal(seed):
    world = world_of(seed, withdrawals=True)
    goal, seen = goal_scope(world)["s_withdraw"], Counter()
    for row in world.rows["order"]:
        changes = oracle_changes(world, world.actions["withdraw"], [row])
        assert bool(changes) == (row["stage"] == "open")
        seen[bool(changes)] += 1
    row = next(row for row in world.rows["order"] if row["stage"] == "open")
    play = Play(world)
    plan_scope(world, call=play.call)["a_withdraw"](row)
    assert goal(world.rows, play.diff(), row) == play.diff()
    assert goal(world.rows, play.diff(), {**row, "quantity": 99}) is None
    assert seen[True]
    assert seen[False]


@pytest.mark.parametrize("seed", range(4))
def test_joined_with_inventory_the_texts_still_agree_and_words_are_clear(seed):
    world = make_world([INVENTORY, MECHANISM], seed)
    public_docs(world)
    rng = random.Random(f"joined/{seed}")
    for name in ("cost", "best_price"):
        compare(world, name, drawer(rng), rng, count=15)


@pytest.mark.parametrize("seed", SEEDS)
def test_rows_are_small_consistent_and_the_same_on_every_run(seed):
    world = world_of(seed)
    assert world.rows == world_of(seed).rows
    assert connect(world).execute("PRAGMA foreign_key_check").fetchall() == []
    assert 6 <= len(world.rows["coupon"]) <= 8
    fk, _ = world.fk("pricebreak", "item")
    steps = [(row[fk], row["minimum"]) for row in world.rows["pricebreak"]]
    assert len(set(steps)) == len(steps)


def test_every_derived_attribute_and_action_has_its_sentence():
    for seed in SEEDS:
        world = world_of(seed)
        for item in [*world.derived.values(), *world.actions.values()]:
            assert item.policy in world.policy
            assert item.policy.endswith(".")
