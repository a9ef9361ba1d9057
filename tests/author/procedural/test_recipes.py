"""The recipe mechanism: its three texts agree, its rules bite, one level is not enough, tools refuse."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from envsynth.author.procedural.compose import connect
from envsynth.author.procedural.docs import public_docs
from envsynth.author.procedural.mechanisms import MECHANISMS
from envsynth.author.procedural.mechanisms.recipes import MECHANISM
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
NAMES = ("demand", "material_cost", "free_of")
RICH = {
    "bom_measures": "own",
    "bom_loss": True,
    "bom_swaps": True,
    "bom_dated": True,
    "bom_allergens": True,
    "bom_states": "full",
}


def world_of(seed, **rules):
    return make_world([MECHANISM], seed, **rules)


def drawer(world, rng):
    def draw(type_):
        if type_.kind == "row":
            return rng.choice(world.rows[type_.detail])
        return rng.choice(["Gluten", "Lactose", "Nuts", "Soy"]) if type_.kind == "str" else rng.randint(1, 40)

    return draw


@pytest.mark.parametrize("seed", SEEDS)
def test_derived_attributes_agree_in_all_three_texts(seed):
    world, rng = world_of(seed), random.Random(f"recipes/{seed}")
    for _, name in world.derived:
        compare(world, name, drawer(world, rng), rng, count=25)


@pytest.mark.parametrize("runs", [True, False])
@pytest.mark.parametrize("seed", range(3))
def test_derived_attributes_agree_with_every_rule_in_force(seed, runs):
    world, rng = world_of(seed, **RICH, bom_runs=runs), random.Random(f"rich/{seed}")
    assert [name for (_, name), item in world.derived.items() if not item.norm] == list(NAMES)
    for _, name in world.derived:
        compare(world, name, drawer(world, rng), rng, count=25)


@pytest.mark.parametrize("name", NAMES)
def test_one_level_without_the_rules_gives_other_values(name):
    """The shortcut of the mechanism: only the goods that a recipe lists itself."""
    asked = changed = 0
    for seed in range(6):
        world, rng = world_of(seed, bom_allergens=True), random.Random(f"policy/{seed}")
        seen = compare(world, name, drawer(world, rng), rng)
        asked, changed = asked + seen.asked, changed + seen.by_flag
    assert changed / asked >= 0.05


def ceil(number, divisor):
    return number // divisor + (number % divisor > 0)


def row_for(world, row, entity, relation):
    """The row that a relation points to."""
    column, key = world.fk(entity, relation)
    return next(found for found in world.rows[world.col(entity, relation).ref] if found[key] == row[column])


def line_units(world, line, item):
    """Units of a line for one yield: its quantity in the measure of its own or the usual size."""
    size = {"piece": 1, "box": 6, "crate": 20}[line.get("measure", "piece")]
    for row in world.rows.get("conversion", []):
        if row_for(world, row, "conversion", "item") is item and row["measure"] == line["measure"]:
            size = row["factor"]
    return line["quantity"] * size


def stand_in(world, item, units):
    """What a line takes in place of a good, and how much of it."""
    for row in world.rows.get("substitute", []):
        if row_for(world, row, "substitute", "item") is item and row.get("since", "") <= world.now:
            return row_for(world, row, "substitute", "instead"), ceil(units * row["ratio"], 100)
    return item, units


def by_definition(world, recipe, portions, level=1):
    """Goods that portions take, by recursion over rows: an independent fourth calculation."""

    def scaled(quantity):
        if world.rules["bom_runs"]:
            return ceil(portions, recipe["portions"]) * quantity
        return ceil(portions * quantity, recipe["portions"])

    taken = Counter()
    for line in world.rows["component"]:
        if row_for(world, line, "component", "recipe") is recipe:
            item = row_for(world, line, "component", "item")
            units = ceil(scaled(line_units(world, line, item)) * (100 + line.get("loss", 0)), 100)
            item, units = stand_in(world, item, units)
            taken[item["id"]] += units
    for row in world.rows["subrecipe"] if level < 3 else []:
        if row_for(world, row, "subrecipe", "recipe") is recipe:
            taken += by_definition(world, row_for(world, row, "subrecipe", "part"), scaled(row["quantity"]), level + 1)
    return taken


@pytest.mark.parametrize("seed", range(6))
def test_demand_is_that_of_the_definition(seed):
    world, rng = world_of(seed, **(RICH if seed % 2 else {})), random.Random(f"definition/{seed}")
    database, demand, cost = connect(world), world.derived["recipe", "demand"], world.derived["recipe", "material_cost"]
    prices = {row["id"]: row["price"] for row in world.rows["item"]}
    for recipe in rng.sample(world.rows["recipe"], 6):
        portions = rng.randint(1, 30)
        taken = by_definition(world, recipe, portions)
        assert taken
        for item in world.rows["item"]:
            assert sql_value(database, demand, recipe, [item, portions]) == taken[item["id"]]
        total = sum(units * prices[item] for item, units in taken.items())
        assert sql_value(database, cost, recipe, [portions]) == total


def test_lines_below_the_third_level_are_left_out():
    world, rng = world_of(1), random.Random("chain")
    whole, part = world.fk("subrecipe", "recipe"), world.fk("subrecipe", "part")
    first, *others = world.rows["recipe"][:4]
    template = world.rows["subrecipe"][0]
    chain = []
    for upper, lower in zip([first, *others], others, strict=False):
        new_id = f"Z-{len(chain)}" if world.style.ids == "code" else len(chain)
        chain.append({**template, "id": new_id, whole[0]: upper[whole[1]], part[0]: lower[part[1]], "quantity": 4})
    world.rows["subrecipe"] = chain
    without = {**world.rows, "subrecipe": chain[:-1]}
    cost = plan_scope(world)["d_material_cost"](first, 8)
    assert cost == plan_scope(world, rows=without)["d_material_cost"](first, 8)
    assert cost > plan_scope(world, rows={**world.rows, "subrecipe": chain[:1]})["d_material_cost"](first, 8)
    compare(world, "material_cost", drawer(world, rng), rng, count=30)


def played(world, name, arguments, **flags):
    """What the planner's action does through the tools; None when a tool or the planner refuses."""
    play = Play(world)
    try:
        plan_scope(world, call=play.call, **flags)[f"a_{name}"](*arguments)
    except (Refusal, RuntimeError):
        return None
    return play.diff()


def draw(world, rng, action):
    kinds = [type_ for _, type_ in action.params]
    return [rng.choice(world.rows[kind.detail]) if kind.kind == "row" else rng.randint(1, 40) for kind in kinds]


@pytest.mark.parametrize("name", ["plan_batch", "resize_batch", "start_batch", "swap_item"])
def test_actions_agree_in_oracle_tools_and_goal(name):
    seen = Counter()
    for seed in SEEDS:
        world, rng = world_of(seed), random.Random(f"act/{name}/{seed}")
        if name not in world.actions:
            continue
        action, goal = world.actions[name], goal_scope(world)[f"s_{name}"]
        for _ in range(7 if name == "swap_item" else 3):
            arguments = draw(world, rng, action)
            changes, done = oracle_changes(world, action, arguments), played(world, name, arguments)
            assert bool(changes) == bool(done), (seed, arguments)
            if not changes:
                seen["refused"] += 1
                continue
            expected = oracle_diff(world, changes)
            for found, wanted in zip(
                sorted(done, key=lambda item: str(item["new"]["id"])),
                sorted(expected, key=lambda item: str(item["new"]["id"])),
                strict=True,
            ):
                assert {**found["new"], "id": 0} == {**wanted["new"], "id": 0}
            for diff in (done, expected, done[::-1]):
                assert sorted(map(repr, goal(world.rows, diff, *arguments))) == sorted(map(repr, diff))
            check_wrong_ends(world, goal, action, arguments, done)
            seen["done"] += 1
    assert seen["done"] >= 8, seen
    assert seen["refused"] >= 3, seen


def check_wrong_ends(world, goal, action, arguments, done):
    """A missing write, another cell or another target are refused; an extra write is never claimed."""
    for index in range(len(done)):
        assert goal(world.rows, [*done[:index], *done[index + 1 :]], *arguments) is None
        for column in done[index]["new"]:
            if column != "id":
                cell = done[index]["new"][column]
                new = {**done[index]["new"], column: cell + 1 if isinstance(cell, int) else cell + "x"}
                wrong = {**done[index], "new": new}
                assert goal(world.rows, [*done[:index], wrong, *done[index + 1 :]], *arguments) is None, column
    table = action.tables[0]
    extra = entry("insert", table, None, {**world.rows[table][0], "id": "extra"})
    assert extra not in goal(world.rows, [extra, *done], *arguments)


@pytest.mark.parametrize("name", ["plan_batch", "swap_item"])
def test_one_level_and_plain_quantities_are_the_wrong_end(name):
    wrong = right = 0
    for seed in range(6):
        world, rng = world_of(seed, bom_swaps=True, bom_dated=False), random.Random(f"weak/{name}/{seed}")
        action, goal = world.actions[name], goal_scope(world)[f"s_{name}"]
        for _ in range(4):
            arguments = draw(world, rng, action)
            if not oracle_changes(world, action, arguments):
                continue
            done = played(world, name, arguments, POLICY=False)
            accepted = done is not None and goal(world.rows, done, *arguments) is not None
            wrong, right = wrong + (not accepted), right + accepted
    assert wrong > right
    assert wrong >= 4


@pytest.mark.parametrize("seed", range(4))
def test_every_write_tool_has_two_reachable_refusals(seed):
    world = world_of(seed, **RICH, bom_runs=True, bom_most=6)
    play, nothing = Play(world), missing(world)
    recipe, person, batch = (argument(world, entity) for entity in ("recipe", "person", "batch"))
    plan, resize = write_tool(world, "plan_"), write_tool(world, "resize_")
    row = world.rows["recipe"][0]
    base = {recipe: row["id"], person: world.rows["person"][0]["id"], "portions": row["portions"], "expense": 9}
    assert refused(play.call, plan, **{**base, recipe: nothing}) == "not_found"
    assert refused(play.call, plan, **{**base, person: nothing}) == "not_found"
    assert refused(play.call, plan, **{**base, "portions": row["portions"] + 1}) == "invalid"
    assert refused(play.call, plan, **{**base, "portions": row["portions"] * 7}) == "conflict"
    made = play.call(plan, **{**base, "portions": row["portions"] * 6})["id"]
    change = {batch: made, "portions": row["portions"], "expense": 4}
    assert refused(play.call, resize, **{**change, batch: nothing}) == "not_found"
    assert refused(play.call, resize, **{**change, "portions": row["portions"] * 6}) == "conflict"
    assert refused(play.call, resize, **{**change, "portions": row["portions"] * 7}) == "conflict"
    assert refused(play.call, resize, **{**change, "portions": row["portions"] + 1}) == "invalid"
    play.call(resize, **change)
    start = write_tool(world, "start_")
    assert refused(play.call, start, **{batch: nothing}) == "not_found"
    assert play.call(start, **{batch: made})["progress"] == "running"
    assert refused(play.call, start, **{batch: made}) == "conflict"
    assert refused(play.call, resize, **{**change, "portions": 2 * row["portions"]}) == "conflict"
    swap, line, item = write_tool(world, "change_"), argument(world, "component"), argument(world, "item")
    old, new = world.fk("substitute", "item"), world.fk("substitute", "instead")
    listed = world.rows["substitute"][0]
    replaced = next(row for row in world.rows["item"] if row[old[1]] == listed[old[0]])
    instead = next(row for row in world.rows["item"] if row[new[1]] == listed[new[0]])
    fk, key = world.fk("component", "item")
    play.database.execute(f'UPDATE "component" SET "{fk}" = ?', (replaced[key],))
    change = {line: world.rows["component"][0]["id"], item: instead["id"], "quantity": 2}
    assert refused(play.call, swap, **{**change, line: nothing}) == "not_found"
    assert refused(play.call, swap, **{**change, item: nothing}) == "not_found"
    assert refused(play.call, swap, **{**change, item: replaced["id"]}) == "conflict"
    assert refused(play.call, swap, **{**change, "quantity": 0}) == "invalid"
    assert play.call(swap, **change)["quantity"] == 2


@pytest.mark.parametrize("seed", SEEDS)
def test_rows_keep_the_rules_and_are_the_same_on_every_run(seed):
    world = world_of(seed)
    assert world.rows == world_of(seed).rows
    assert connect(world).execute("PRAGMA foreign_key_check").fetchall() == []
    whole, part = world.fk("subrecipe", "recipe"), world.fk("subrecipe", "part")
    ids = {row[key]: row["id"] for row in world.rows["recipe"] for key in ("id", "name")}
    below = {row["id"]: set() for row in world.rows["recipe"]}
    for row in world.rows["subrecipe"]:
        below[ids[row[whole[0]]]].add(ids[row[part[0]]])
    depths = [depth(below, recipe) for recipe in below]
    assert max(depths) == 3
    assert depths.count(1) >= 5
    sizes = {row[world.fk("batch", "recipe")[1]]: row["portions"] for row in world.rows["recipe"]}
    for row in world.rows["batch"]:
        size = sizes[row[world.fk("batch", "recipe")[0]]]
        assert row["portions"] >= 1
        assert row["portions"] <= size * (world.rules["bom_most"] or 99)
        assert not world.rules["bom_runs"] or row["portions"] % size == 0
    for entity, column in [("substitute", "item"), ("conversion", "item"), ("allergen", "item")]:
        if entity in world.rows:
            fk, _ = world.fk(entity, column)
            keys = [(row[fk], row.get("measure"), row.get("substance")) for row in world.rows[entity]]
            assert len(set(keys)) == len(keys)
    for entity in ("recipe", "component", "subrecipe", "batch"):
        assert 20 <= len(world.rows[entity]) <= 100, entity


def depth(below, recipe):
    return 1 + max((depth(below, part) for part in below[recipe]), default=0)


def test_rules_change_structure():
    bare = world_of(6, bom_measures="units", bom_loss=False, bom_swaps=False, bom_allergens=False, bom_states="none")
    rich = world_of(6, **RICH)
    assert not {"conversion", "substitute", "allergen"} & set(bare.tables)
    assert {"conversion", "substitute", "allergen"} <= set(rich.tables)
    assert not bare.has("component", "measure")
    assert rich.has("component", "loss")
    assert rich.col("batch", "progress").values == ("planned", "running", "finished", "cancelled")
    assert "start_batch" not in bare.actions
    assert "swap_item" in rich.actions


@pytest.mark.parametrize("other", ["booking", "inventory", "pricing", "itinerary", "telemetry"])
def test_joined_with_others_the_texts_still_agree_and_words_are_clear(other):
    for seed in range(2):
        world = make_world([MECHANISMS[other], MECHANISM], seed)
        public_docs(world)
        rng = random.Random(f"joined/{seed}")
        for name in ("demand", "material_cost"):
            compare(world, name, drawer(world, rng), rng, count=12)


def test_every_derived_attribute_and_action_has_its_sentence():
    for seed in SEEDS:
        world = world_of(seed)
        public_docs(world)
        for item in [*world.derived.values(), *world.actions.values()]:
            assert item.policy in world.policy
            assert item.policy.endswith(".")
