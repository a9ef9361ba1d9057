"""The config mechanism: its three texts agree, the latest release is often the wrong one, tools refuse."""

from __future__ import annotations

import functools
import random
from collections import Counter
from datetime import date
from typing import Any

import pytest

from envsynth.author.procedural.compose import connect
from envsynth.author.procedural.docs import public_docs
from envsynth.author.procedural.mechanisms.booking import MECHANISM as BOOKING
from envsynth.author.procedural.mechanisms.config import MECHANISM
from envsynth.author.procedural.mechanisms.config.bindings import place_entity, states
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

SEEDS = range(14)
NAMES = ("unmet_needs", "installable", "latest_version", "outdated_pins")
ACTIONS = ("upgrade_package", "roll_back_pin", "advance_release", "withdraw_release")


def world_of(seed, **rules):
    return make_world([MECHANISM], seed, **rules)


def goal_scope(world):
    """Goal texts whose `once` remembers, as the verifier's does: pins of all places are judged once."""
    scope: dict[str, Any] = {"once": functools.cache, "db": world.rows}
    for item in [*world.derived.values(), *world.actions.values()]:
        exec(item.goal, scope)
    return scope


def compare(world, names, rng, count):
    """Assert that the texts agree on random rows; return how often they were asked and how often the rules mattered."""
    database, goal = connect(world), goal_scope(world)
    plan, naive = plan_scope(world), plan_scope(world, POLICY=False)
    seen = Counter()
    for name in names:
        derived = next(item for item in world.derived.values() if item.name == name)
        for _ in range(min(count, 8) if name == "outdated_pins" else count):
            row = rng.choice(world.rows[derived.entity])
            arguments = [rng.choice(world.rows[type_.detail]) for type_ in derived.params]
            by_sql = sql_value(database, derived, row, arguments)
            by_plan = plan[f"d_{name}"](row, *arguments)
            by_goal = goal[f"g_{name}"](world.rows, row, *arguments)
            assert by_sql == by_plan == by_goal, (name, row, arguments)
            if derived.type.kind == "num":
                assert type(by_sql) is type(by_plan) is type(by_goal) is int
            seen[name] += 1
            seen[f"{name} by rule"] += by_plan != naive[f"d_{name}"](row, *arguments)
    return seen


def test_derived_attributes_agree_in_all_three_texts_and_rules_matter():
    seen = Counter()
    for seed in SEEDS:
        seen += compare(world_of(seed), NAMES, random.Random(f"config/{seed}"), 20)
    for name in NAMES:
        assert seen[f"{name} by rule"] / seen[name] >= 0.05, seen


def place_of(world):
    return place_entity(world.rules)


def latest_everywhere(world, package):
    """The shortcut: the newest release that is published, whatever the place uses."""
    column, key = world.fk("release", "package")
    found = [r for r in world.rows["release"] if r[column] == package[key] and r["state"] == "published"]
    return max([r["number"] for r in found], default=0)


def test_the_latest_release_is_often_not_the_one_to_install():
    seen = Counter()
    for seed in SEEDS:
        world, rng = world_of(seed), random.Random(f"latest/{seed}")
        database, derived = connect(world), world.derived["package", "latest_version"]
        for _ in range(20):
            package, place = rng.choice(world.rows["package"]), rng.choice(world.rows[place_of(world)])
            seen[sql_value(database, derived, package, [place]) == latest_everywhere(world, package)] += 1
    assert min(seen[True], seen[False]) / sum(seen.values()) > 0.1


def brute_force(world, place):
    """Installable versions by package id: the definition itself, an independent fourth calculation."""
    rules, today = world.rules, world.now[:10]
    ids = {}
    for entity, relation in [("pin", "package"), ("release", "package"), ("requirement", "needed")]:
        column, key = world.fk(entity, relation)
        ids[entity] = {
            row["id"]: next(k["id"] for k in world.rows["package"] if k[key] == row[column])
            for row in world.rows[entity]
        }
    column, key = world.fk("pin", place_of(world))
    pins = [p for p in world.rows["pin"] if p[column] == place[key] and p.get("standing", "current") == "current"]
    versions = {ids["pin"][p["id"]]: p["version"] for p in pins}
    parent, _ = world.fk("requirement", "release")

    def needs(release):
        found = [q for q in world.rows["requirement"] if q[parent] == release["id"]]
        found = [q for q in found if q.get("strength", "required") == "required"]
        return [(ids["requirement"][q["id"]], q["minimum"], q.get("maximum", 10**6)) for q in found]

    def used(package):
        for release in world.rows["release"]:
            if ids["release"][release["id"]] == package and release["number"] == versions.get(package):
                return release
        return None

    def met(need):
        package, low, high = need
        if package not in versions or not low <= versions[package] <= high:
            return False
        return not rules["deep_needs"] or all(met(other) for other in needs(used(package)))

    fitting = {}
    for release in world.rows["release"]:
        package = ids["release"][release["id"]]
        channel = next(k for k in world.rows["package"] if k["id"] == package).get("channel")
        ready = release["state"] == "published" or (release["state"] == "candidate" and channel == "preview")
        age = (date.fromisoformat(today) - date.fromisoformat(release["day"])).days
        bound = [need for other in versions for need in needs(used(other)) if need[0] == package]
        suits = all(low <= release["number"] <= high for _, low, high in bound) or not rules["mutual_needs"]
        if ready and age >= rules["release_age"] and suits and all(met(need) for need in needs(release)):
            fitting.setdefault(package, []).append(release["number"])
    return versions, fitting


@pytest.mark.parametrize("seed", SEEDS)
def test_versions_are_those_of_the_definition(seed):
    world, rng = world_of(seed), random.Random(f"brute/{seed}")
    database = connect(world)
    for place in rng.sample(world.rows[place_of(world)], 2):
        versions, fitting = brute_force(world, place)
        for package in world.rows["package"]:
            best = max(fitting.get(package["id"], [0]))
            assert sql_value(database, world.derived["package", "latest_version"], package, [place]) == best
        late = sum(version < max(fitting.get(package, [0])) for package, version in versions.items())
        assert sql_value(database, world.derived[place_of(world), "outdated_pins"], place, []) == late


# ------------------------------------------------------------------------------------------------------- a small world


def small_world(**rules):
    """Three packages in one place: C (used at 2) needs B from 1 to 2 (used at 1), B's 1 needs A from 1 to 1 (used at 2)."""
    defaults = {"fleet": True, "ceilings": True, "deep_needs": False, "soft_needs": False, "mutual_needs": False}
    defaults |= {"candidates": False, "release_age": 0, "pin_history": False, "strict_pins": False}
    world = world_of(1, **{**defaults, **rules})
    packages, place = world.rows["package"][:3], world.rows["deployment"][0]
    column, key = world.fk("release", "package")
    base = world.rows["release"][0]
    releases = {}
    world.rows["release"] = []
    for index, package in enumerate(packages):
        for number in (1, 2, 3):
            cells = {"id": world.coin_id("release", 3 * index + number), column: package[key], "number": number}
            releases["ABC"[index], number] = {**base, **cells, "state": "published", "day": f"2031-04-{9 + 7 * number}"}
    world.rows["release"] = list(releases.values())
    needed, needed_key = world.fk("requirement", "needed")
    parent, _ = world.fk("requirement", "release")
    world.rows["requirement"] = [
        {
            **world.rows["requirement"][0],
            "id": world.coin_id("requirement", index),
            parent: releases[release]["id"],
            needed: packages[target][needed_key],
            "minimum": low,
            "maximum": high,
            **({"strength": "required"} if world.rules["soft_needs"] else {}),
        }
        for index, (release, target, low, high) in enumerate(
            [(("C", 2), 1, 1, 2), (("C", 3), 1, 2, 3), (("C", 1), 1, 1, 1), (("B", 1), 0, 1, 1), (("B", 2), 0, 2, 2)]
        )
    ]
    pinned, pinned_key = world.fk("pin", "package")
    where, where_key = world.fk("pin", "deployment")
    world.rows["pin"] = [
        {
            **world.rows["pin"][0],
            "id": world.coin_id("pin", index),
            pinned: packages[index][pinned_key],
            where: place[where_key],
            "version": version,
            **({"standing": "current"} if world.rules["pin_history"] else {}),
        }
        for index, version in enumerate([2, 1, 2])
    ]
    return world, releases, packages, place


def fitting(world, package, place):
    """Installable versions of a package, by SQL after all texts were found to agree."""
    column, key = world.fk("release", "package")
    compare(world, NAMES, random.Random("small"), 6)
    derived, database = world.derived["release", "installable"], connect(world)
    mine = [r for r in world.rows["release"] if r[column] == package[key]]
    return sorted(r["number"] for r in mine if sql_value(database, derived, r, [place]))


def versions(**rules):
    world, _, packages, place = small_world(**rules)
    return [fitting(world, package, place) for package in packages]


def test_ranges_chains_and_pins_that_require_decide():
    assert versions() == [[1, 2, 3], [2, 3], [1, 2]]
    assert versions(ceilings=False) == [[1, 2, 3], [1, 2, 3], [1, 2]]
    assert versions(deep_needs=True) == [[1, 2, 3], [2, 3], []], "B is used at 1, whose own requirement is not met"
    assert versions(mutual_needs=True) == [[1], [2], [1, 2]], "B at 1 wants A at 1, C at 2 wants B up to 2"


def test_age_counts_from_the_day_itself():
    # Days are 2031-04-16, -23 and -30; today is 2031-05-02, so the second is 9 and the first 16 days old.
    assert versions(release_age=7)[0] == [1, 2]
    world, releases, packages, place = small_world(release_age=7)
    releases["A", 3]["day"] = "2031-04-25"
    assert fitting(world, packages[0], place) == [1, 2, 3]
    releases["A", 3]["day"] = "2031-04-26"
    assert fitting(world, packages[0], place) == [1, 2]


def test_candidates_count_in_the_preview_channel_only():
    world, releases, packages, place = small_world(candidates=True)
    releases["A", 3]["state"] = "candidate"
    for channel, found in [("preview", [1, 2, 3]), ("stable", [1, 2])]:
        packages[0]["channel"] = channel
        assert fitting(world, packages[0], place) == found


def test_recommended_requirements_and_former_pins_never_count():
    world, _, packages, place = small_world(soft_needs=True, pin_history=True)
    assert fitting(world, packages[2], place) == [1, 2]
    world.rows["requirement"][1]["strength"] = "recommended"
    assert fitting(world, packages[2], place) == [1, 2, 3]
    world.rows["pin"][1]["standing"] = "former"
    assert fitting(world, packages[2], place) == [3]


# ------------------------------------------------------------------------------------------------------------- actions


def drawn(world, action, rng):
    return [rng.choice(world.rows[type_.detail]) for _, type_ in action.params]


def entries(diff):
    return sorted((item["op"], item["table"], str(item["old"]), item["changed"]) for item in diff)


@pytest.mark.parametrize("name", ACTIONS)
def test_actions_agree_in_oracle_planner_and_goal(name):
    seen = Counter()
    for seed in SEEDS:
        world, rng = world_of(seed), random.Random(f"{name}/{seed}")
        action, goal = world.actions[name], goal_scope(world)[f"s_{name}"]
        scope = plan_scope(world)
        for _ in range(5):
            arguments = drawn(world, action, rng)
            changes = oracle_changes(world, action, arguments)
            play = Play(world)
            scope["write"] = play.call
            seen[bool(changes)] += 1
            if not changes:
                with pytest.raises((Refusal, RuntimeError)):
                    scope[f"a_{name}"](*arguments)
                assert goal(world.rows, play.diff(), *arguments) is None
                continue
            scope[f"a_{name}"](*arguments)
            done, expected = play.diff(), oracle_diff(world, changes)
            assert entries(goal(world.rows, done, *arguments)) == entries(done) == entries(expected)
            assert entries(goal(world.rows, expected, *arguments)) == entries(expected)
            wrong_ends(world, goal, done, arguments, rng)
    assert min(seen[True], seen[False]) >= 10, seen


def wrong_ends(world, goal, done, arguments, rng):
    """What the goal must not take: nothing, less, another value, another row; what is too much stays unclaimed."""
    for index in range(len(done)):
        assert goal(world.rows, done[:index] + done[index + 1 :], *arguments) is None
    new = done[-1]["new"]
    cell = "version" if "version" in new else "state"
    other = new[cell] + 1 if cell == "version" else "draft"
    changed = entry(done[-1]["op"], done[-1]["table"], done[-1]["old"], {**new, cell: other})
    assert goal(world.rows, [*done[:-1], changed], *arguments) is None
    day = entry(done[-1]["op"], done[-1]["table"], done[-1]["old"], {**new, "day": "2030-01-01"})
    assert goal(world.rows, [*done[:-1], day], *arguments) is None
    row = rng.choice(world.rows["person"])
    stray = entry("update", "person", row, {**row, "name": "Nobody Else"})
    assert stray not in goal(world.rows, [*done, stray], *arguments)
    twice = goal(world.rows, [*done, done[-1]], *arguments)
    assert twice is None or len(twice) == len(done)


def test_an_upgrade_without_a_pin_makes_one_and_the_order_of_changes_is_free():
    for history in (True, False):
        world, _, packages, place = small_world(pin_history=history)
        goal, arguments = goal_scope(world)["s_upgrade_package"], [packages[0], place]
        expected = oracle_diff(world, oracle_changes(world, world.actions["upgrade_package"], arguments))
        assert [item["op"] for item in expected] == (["update", "insert"] if history else ["update"])
        assert entries(goal(world.rows, expected[::-1], *arguments)) == entries(expected)
        world.rows["pin"] = world.rows["pin"][1:]
        goal = goal_scope(world)["s_upgrade_package"]
        expected = oracle_diff(world, oracle_changes(world, world.actions["upgrade_package"], arguments))
        assert [item["op"] for item in expected] == ["insert"]
        assert goal(world.rows, expected, *arguments) == expected


def test_whoever_upgrades_to_the_latest_everywhere_ends_wrong_or_is_refused():
    seen = Counter()
    for seed in SEEDS:
        world, rng = world_of(seed), random.Random(f"weak/{seed}")
        action, goal = world.actions["upgrade_package"], goal_scope(world)["s_upgrade_package"]
        for _ in range(6):
            arguments = drawn(world, action, rng)
            if not oracle_changes(world, action, arguments):
                continue
            play = Play(world)
            try:
                plan_scope(world, call=play.call, POLICY=False)["a_upgrade_package"](*arguments)
            except (Refusal, RuntimeError):
                seen["refused"] += 1
                continue
            seen["right" if goal(world.rows, play.diff(), *arguments) else "wrong"] += 1
    assert seen["wrong"] / sum(seen.values()) >= 0.05, seen
    assert seen["right"], seen


# --------------------------------------------------------------------------------------------------------------- tools


@pytest.mark.parametrize("history", [True, False])
def test_the_pin_tool_refuses_what_cannot_be_used(history):
    world, releases, packages, place = small_world(strict_pins=True, pin_history=history)
    releases["A", 1]["state"], releases["A", 3]["state"] = "withdrawn", "draft"
    play, nothing = Play(world), missing(world)
    tool, package, where = write_tool(world, "set_"), argument(world, "package"), argument(world, "deployment")
    base = {package: packages[0]["id"], where: place["id"], "version": 2}
    assert refused(play.call, tool, **{**base, package: nothing}) == "not_found"
    assert refused(play.call, tool, **{**base, where: nothing}) == "not_found"
    assert refused(play.call, tool, **{**base, "version": 9}) == "not_found"
    assert refused(play.call, tool, **{**base, "version": 1}) == "conflict"
    assert refused(play.call, tool, **{**base, "version": 3}) == "conflict"
    assert refused(play.call, tool, **base) == "conflict", "in use already"
    assert refused(play.call, tool, **{**base, package: packages[2]["id"], "version": 3}) == "conflict"
    assert play.diff() == []
    play.call(tool, **{**base, package: packages[2]["id"], "version": 1})
    assert len(play.diff()) == (2 if history else 1)


def test_only_the_strict_pin_tool_looks_at_requirements():
    world, _, packages, place = small_world()
    play, tool = Play(world), write_tool(world, "set_")
    arguments = {argument(world, "package"): packages[2]["id"], argument(world, "deployment"): place["id"]}
    play.call(tool, **arguments, version=3)
    assert len(play.diff()) == 1


@pytest.mark.parametrize("candidates", [True, False])
def test_releases_advance_step_by_step_and_only_when_covered(candidates):
    world, releases, _, _ = small_world(candidates=candidates)
    releases["C", 3]["state"] = "draft"
    play, tool, release = Play(world), write_tool(world, "advance_"), argument(world, "release")
    assert refused(play.call, tool, **{release: missing(world)}) == "not_found"
    assert refused(play.call, tool, **{release: releases["A", 1]["id"]}) == "conflict"
    steps = [play.call(tool, **{release: releases["C", 3]["id"]})["state"] for _ in range(1 + candidates)]
    assert steps == [*(["candidate"] if candidates else []), "published"]
    assert refused(play.call, tool, **{release: releases["C", 3]["id"]}) == "conflict"
    for number in (2, 3):
        releases["B", number]["state"] = "withdrawn"
    releases["C", 3]["state"] = states(world.rules)[candidates]
    play = Play(world)
    assert refused(play.call, tool, **{release: releases["C", 3]["id"]}) == "conflict", "no published B from 2 to 3"
    assert oracle_changes(world, world.actions["advance_release"], [releases["C", 3]]) == []


def test_what_is_in_use_or_withdrawn_cannot_be_withdrawn():
    world, releases, _, _ = small_world()
    releases["A", 1]["state"] = "withdrawn"
    play, tool, release = Play(world), write_tool(world, "withdraw_"), argument(world, "release")
    assert refused(play.call, tool, **{release: missing(world)}) == "not_found"
    assert refused(play.call, tool, **{release: releases["A", 1]["id"]}) == "conflict"
    assert refused(play.call, tool, **{release: releases["A", 2]["id"]}) == "conflict"
    play.call(tool, **{release: releases["A", 3]["id"]})
    assert [item["changed"] for item in play.diff()] == [["state"]]


# ---------------------------------------------------------------------------------------------------------------- rows


@pytest.mark.parametrize("seed", SEEDS)
def test_rows_keep_the_rules_and_are_the_same_on_every_run(seed):
    world = world_of(seed)
    assert world.rows == world_of(seed).rows
    assert connect(world).execute("PRAGMA foreign_key_check").fetchall() == []
    assert all(len(world.rows[entity]) <= 140 for entity in world.tables)
    package, _ = world.fk("release", "package")
    releases = world.rows["release"]
    assert len({(r[package], r["number"]) for r in releases}) == len(releases)
    for one in releases:
        assert one["state"] in states(world.rules)
        assert one["day"] <= world.now[:10]
        later = [r for r in releases if r[package] == one[package] and r["number"] > one["number"]]
        assert all(one["day"] < r["day"] for r in later)
    place, _ = world.fk("pin", place_of(world))
    pinned, pinned_key = world.fk("pin", "package")
    current = [p for p in world.rows["pin"] if p.get("standing", "current") == "current"]
    assert len({(p[place], p[pinned]) for p in current}) == len(current)
    _, release_key = world.fk("release", "package")
    keys = {k[pinned_key]: k[release_key] for k in world.rows["package"]}
    usable = {(r[package], r["number"]) for r in releases if r["state"] != "draft"}
    assert all((keys[p[pinned]], p["version"]) in usable for p in world.rows["pin"])


@pytest.mark.parametrize("seed", SEEDS)
def test_no_chain_of_requirements_is_longer_than_three(seed):
    world = world_of(seed)
    package, package_key = world.fk("release", "package")
    needed, needed_key = world.fk("requirement", "needed")
    parent, _ = world.fk("requirement", "release")
    owner = {k[package_key]: k["id"] for k in world.rows["package"]}
    target = {k[needed_key]: k["id"] for k in world.rows["package"]}
    of_release = {r["id"]: owner[r[package]] for r in world.rows["release"]}
    pairs = {(of_release[q[parent]], target[q[needed]]) for q in world.rows["requirement"]}
    wanted = [(q[parent], q[needed]) for q in world.rows["requirement"]]
    assert len(set(wanted)) == len(wanted)
    assert all(1 <= q["minimum"] <= q.get("maximum", q["minimum"]) for q in world.rows["requirement"])

    def depth(one):
        return max((1 + depth(other) for first, other in pairs if first == one), default=0)

    assert 2 <= max(depth(k["id"]) for k in world.rows["package"]) <= 3


def test_deployments_and_other_parts_exist_only_by_rule():
    for switch in (True, False):
        world = world_of(3, fleet=switch, ceilings=switch, soft_needs=switch, pin_history=switch, candidates=switch)
        assert ("deployment" in world.tables) == switch
        assert world.has("requirement", "maximum") == world.has("requirement", "strength") == switch
        assert world.has("pin", "standing") == switch
        assert ("candidate" in world.col("release", "state").values) == switch


def test_every_derived_attribute_and_action_has_its_sentence():
    for seed in SEEDS:
        world = world_of(seed)
        public_docs(world)
        assert {name for _, name in world.derived} == set(NAMES)
        assert set(world.actions) == set(ACTIONS)
        for item in [*world.derived.values(), *world.actions.values()]:
            assert item.policy in world.policy
            assert item.policy.endswith(".")


@pytest.mark.parametrize("seed", range(4))
def test_joined_with_booking_the_texts_still_agree_and_words_are_clear(seed):
    world = make_world([BOOKING, MECHANISM], seed)
    public_docs(world)
    rng = random.Random(f"joined/{seed}")
    compare(world, NAMES, rng, 8)
