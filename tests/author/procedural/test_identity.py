"""The identity mechanism: its texts agree, equal names prove nothing, parties merge into one survivor, tools refuse."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from envsynth.author.procedural.compose import connect
from envsynth.author.procedural.docs import public_docs
from envsynth.author.procedural.mechanisms.booking import MECHANISM as BOOKING
from envsynth.author.procedural.mechanisms.identity import MECHANISM
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

SEEDS = range(12)


def world_of(seed, **rules):
    return make_world([MECHANISM], seed, **rules)


def drawer(world, rng):
    return lambda type_: rng.choice(world.rows[type_.detail])


@pytest.mark.parametrize("seed", SEEDS)
def test_derived_attributes_agree_in_all_three_texts(seed):
    world, rng = world_of(seed), random.Random(f"identity/{seed}")
    for _, name in world.derived:
        compare(world, name, drawer(world, rng), rng, count=8)


@pytest.mark.parametrize("name", ["shared_keys", "twins", "activity", "parties"])
def test_ignoring_the_rules_changes_derived_values(name):
    asked = changed = 0
    for seed in range(6):
        world, rng = world_of(seed, contact_messages=True), random.Random(f"policy/{seed}")
        plan, naive = plan_scope(world), plan_scope(world, POLICY=False)
        derived = next(item for item in world.derived.values() if item.name == name)
        for _ in range(60 if name == "shared_keys" else 6):
            arguments = [
                rng.choice(world.rows[derived.entity]),
                *(rng.choice(world.rows["contact"]) for _ in derived.params),
            ]
            asked += 1
            changed += plan[f"d_{name}"](*arguments) != naive[f"d_{name}"](*arguments)
    assert changed / asked >= 0.05


def key(world, kind, value):
    """A key as the policy words it."""
    if kind == "phone" and world.rules["phone_prefix"] and value.startswith("+49-"):
        value = "0-" + value[4:]
    return kind, value if world.rules["keys_by_case"] else value.lower()


def parties(world):
    """Ids of the party of each live contact, by the definition: an independent fourth calculation."""
    column = world.fk("alias", "contact")[0]
    keys = {}
    for row in world.rows["contact"]:
        mine = [a for a in world.rows["alias"] if a[column] == row["id"]]
        mine = [a for a in mine if a["kind"] != "badge" or world.rules["alias_badges"] == "count"]
        raw = [("phone", row["phone"]), ("mail", row["mail"]), *((a["kind"], a["value"]) for a in mine)]
        keys[row["id"]] = {key(world, *pair) for pair in raw}
    live = [row["id"] for row in world.rows["contact"] if row["state"] == "live"]
    near = {one: {two for two in live if one == two or len(keys[one] & keys[two]) >= 2} for one in live}
    if world.rules["party_transitive"]:
        for _ in live:
            near = {one: set().union(*(near[two] for two in near[one])) for one in live}
    return near


@pytest.mark.parametrize("seed", SEEDS)
def test_twins_are_those_of_the_definition_and_not_those_of_equal_names(seed):
    world = world_of(seed)
    database, near, shortcut = connect(world), parties(world), 0
    rows = world.rows["contact"]
    for row in random.Random(f"definition/{seed}").sample(rows, 30):
        wanted = len(near.get(row["id"], [0])) - 1
        assert sql_value(database, world.derived["contact", "twins"], row, []) == wanted
        shortcut += wanted != sum(other["called"] == row["called"] for other in rows if other is not row)
    assert shortcut >= 5


def test_two_keys_are_needed_and_are_compared_by_the_rules():
    for by_case in (True, False):
        for transitive in (True, False):
            world = world_of(
                1, keys_by_case=by_case, phone_prefix=True, party_transitive=transitive, alias_badges="count"
            )
            a, b, c = world.rows["contact"][:3]
            for row, phone, mail in ((a, "+49-1", "m"), (b, "0-1", "M" if not by_case else "m"), (c, "0-3", "other")):
                row |= {"phone": phone, "mail": mail, "state": "live"}
            column = world.fk("alias", "contact")[0]
            spare = world.rows["alias"][:4]
            world.rows |= {"contact": [a, b, c], "alias": spare}
            for row, owner, kind, value in zip(
                spare, (b, c, b, c), ("phone", "phone", "badge", "badge"), "5577", strict=True
            ):
                row |= {column: owner["id"], "kind": kind, "value": value}
            found = [goal_scope(world)["g_twins"](world.rows, row) for row in (a, b, c)]
            assert found == ([2, 2, 2] if transitive else [1, 2, 1])
            b["mail"] = "M" if by_case else "n"
            assert goal_scope(world)["g_twins"](world.rows, a) == 0
            c["state"] = "merged"
            assert goal_scope(world)["g_twins"](world.rows, b) == 0


@pytest.mark.parametrize("seed", SEEDS)
def test_merge_and_relabel_agree_in_oracle_planner_and_goal(seed):
    world, rng, seen = world_of(seed), random.Random(f"merge/{seed}"), Counter()
    for name in ("merge", "relabel"):
        goal = goal_scope(world)[f"s_{name}"]
        for row in rng.sample(world.rows["contact"], 14):
            changes = oracle_changes(world, world.actions[name], [row])
            if name == "merge":
                assert bool(changes) == (len(parties(world).get(row["id"], [])) > 1)
            if not changes or seen[name] == 4:
                continue
            seen[name] += 1
            play = Play(world)
            plan_scope(world, call=play.call)[f"a_{name}"](row)
            done, expected = play.diff(), oracle_diff(world, changes)
            order = lambda e: (e["table"], str(e["new"]["id"]))  # noqa: E731
            assert sorted(done, key=order) == sorted(expected, key=order)
            assert goal(world.rows, done, row) == done
            assert goal(world.rows, done[::-1], row) == done[::-1]
            for index in range(len(done)):
                assert goal(world.rows, done[:index] + done[index + 1 :], row) is None
            stranger = next(c for c in world.rows["contact"] if c["id"] not in parties(world)[row["id"]])
            stray = entry("update", "contact", stranger, {**stranger, "state": "merged", "source": "?"})
            assert goal(world.rows, [*done, stray], row) == done
            wrong = [entry(e["op"], e["table"], e["old"], {**e["new"], "id": stranger["id"]}) for e in done]
            assert goal(world.rows, wrong, row) is None
    assert seen["merge"]


def test_who_goes_by_names_merges_strangers():
    seen = Counter()
    for seed in range(6):
        world = world_of(seed)
        goal = goal_scope(world)["s_merge"]
        for row in random.Random(f"names/{seed}").sample(world.rows["contact"], 10):
            if not oracle_changes(world, world.actions["merge"], [row]):
                continue
            play = Play(world)
            try:
                plan_scope(world, call=play.call, POLICY=False)["a_merge"](row)
            except Refusal:
                seen["refused"] += 1
                continue
            done = play.diff()
            seen["right" if done and goal(world.rows, done, row) == done else "wrong"] += 1
    assert seen["wrong"] > seen["right"]


@pytest.mark.parametrize("seed", range(4))
def test_every_write_tool_has_two_reachable_refusals(seed):
    world = world_of(seed)
    play, nothing, contact = Play(world), missing(world), argument(world, "contact")
    one, two = [row for row in world.rows["contact"] if row["state"] == "live"][:2]
    merge, relabel = write_tool(world, "merge_"), write_tool(world, "relabel_")
    assert refused(play.call, merge, **{contact: nothing}, survivor_id=two["id"]) == "not_found"
    assert refused(play.call, merge, **{contact: one["id"]}, survivor_id=nothing) == "not_found"
    assert refused(play.call, merge, **{contact: one["id"]}, survivor_id=one["id"]) == "invalid"
    assert refused(play.call, relabel, **{contact: nothing}, source="web") == "not_found"
    assert refused(play.call, relabel, **{contact: one["id"]}, source=one["source"]) == "invalid"
    play.call(merge, **{contact: one["id"]}, survivor_id=two["id"])
    assert refused(play.call, merge, **{contact: one["id"]}, survivor_id=two["id"]) == "conflict"
    assert refused(play.call, relabel, **{contact: one["id"]}, source="web") == "conflict"


@pytest.mark.parametrize("seed", SEEDS)
def test_rows_keep_the_rules_and_are_the_same_on_every_run(seed):
    world = world_of(seed)
    assert world.rows == world_of(seed).rows
    assert connect(world).execute("PRAGMA foreign_key_check").fetchall() == []
    merged = {row["id"] for row in world.rows["contact"] if row["state"] == "merged"}
    column = world.fk("alias", "contact")[0]
    assert not [row for row in world.rows["alias"] if row[column] in merged]
    days = [row["since"] for row in world.rows["contact"]]
    assert len(set(days)) == len(days)
    sizes = Counter(len(party) for party in parties(world).values())
    assert sizes[1] >= 2
    assert sum(count for size, count in sizes.items() if size > 1) >= 10


@pytest.mark.parametrize("seed", range(3))
def test_joined_with_booking_the_texts_still_agree_and_words_are_clear(seed):
    world, rng = make_world([BOOKING, MECHANISM], seed), random.Random(f"joined/{seed}")
    public_docs(world)
    for name in ("shared_keys", "twins", "parties"):
        compare(world, name, drawer(world, rng), rng, count=6)


def test_every_derived_attribute_and_action_has_its_sentence():
    for seed in SEEDS:
        world = world_of(seed)
        public_docs(world)
        for item in [*world.derived.values(), *world.actions.values()]:
            assert item.policy in world.policy
            assert item.policy.endswith(".")
