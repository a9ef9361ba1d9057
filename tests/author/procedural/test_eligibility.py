"""The eligibility mechanism: its texts agree, exceptions take precedence, waiting lists are fair, tools refuse."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from envsynth.author.procedural.compose import connect
from envsynth.author.procedural.docs import public_docs
from envsynth.author.procedural.mechanisms.booking import MECHANISM as BOOKING
from envsynth.author.procedural.mechanisms.eligibility import MECHANISM
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
NAMES = ("eligible", "places_left", "benefit", "lapsed")
FULL = {"enrolment_waitlist": True, "enrolment_denials": "final"}


def world_of(seed, **rules):
    return make_world([MECHANISM], seed, **rules)


def drawer(world, rng):
    return lambda type_: rng.choice(world.rows[type_.detail])


def pairs(world):
    return [(person, programme) for person in world.rows["person"] for programme in world.rows["programme"]]


def of(world, entity, person, programme=None):
    """Rows of an entity that belong to a person and, where it has that relation, to a programme."""
    found = world.rows[entity]
    for name, row in (("person", person), ("programme", programme)):
        if row is not None and world.has(entity, name):
            column, key = world.fk(entity, name)
            found = [other for other in found if other[column] == row[key]]
    return found


def by_definition(world, person, programme):
    """Eligibility as the policy words it: an independent fourth calculation."""
    rules, today = world.rules, world.now
    standings = sorted(of(world, "standing", person), key=lambda row: row.get("day", ""))
    met = []
    if standings:
        met += ["score"] if standings[-1]["score"] >= programme["minimum_score"] else []
        met += ["seniority"] if standings[-1]["seniority"] >= programme["minimum_seniority"] else []
        met += ["residence"] if standings[-1].get("residence") == "local" else []
    if rules["programme_waivers"] != "none":
        met += [row["waives"] for row in of(world, "waiver", person, programme) if row.get("until", today) >= today]
    bans = of(world, "ban", person, programme) if rules["programme_bans"] != "none" else []
    denied = [row for row in of(world, "enrolment", person, programme) if row["state"] == "denied"]
    if any(row["until"] >= today for row in bans) or (denied and rules["enrolment_denials"] == "final"):
        return False
    if programme.get("scope") == "local" and "residence" not in met:
        return False
    held = ["score" in met, "seniority" in met]
    return any(held) if programme.get("combine", rules["programme_combine"]) == "any" else all(held)


@pytest.mark.parametrize("seed", SEEDS)
def test_derived_attributes_agree_in_all_three_texts(seed):
    world, rng = world_of(seed), random.Random(f"eligibility/{seed}")
    for _, name in world.derived:
        compare(world, name, drawer(world, rng), rng)


@pytest.mark.parametrize("seed", SEEDS)
def test_eligible_is_that_of_the_definition(seed):
    world, rng = world_of(seed), random.Random(f"definition/{seed}")
    database, derived = connect(world), world.derived["person", "eligible"]
    for person, programme in rng.sample(pairs(world), 60):
        assert sql_value(database, derived, person, [programme]) == by_definition(world, person, programme)


@pytest.mark.parametrize("name", NAMES)
def test_ignoring_the_rules_changes_derived_values(name):
    asked = changed = 0
    for seed in SEEDS:
        world, rng = world_of(seed), random.Random(f"policy/{seed}")
        seen = compare(world, name, drawer(world, rng), rng)
        asked, changed = asked + seen.asked, changed + seen.by_flag
    assert changed / asked >= 0.05


@pytest.mark.parametrize(("waivers", "bans"), [("one", "none"), ("every", "one"), ("none", "every")])
def test_the_shortcut_that_ignores_exceptions_is_often_wrong(waivers, bans):
    asked = wrong = 0
    for seed in range(4):
        plain = {"standing_history": False, "enrolment_denials": "none"}
        world = world_of(seed, programme_waivers=waivers, programme_bans=bans, waiver_dated=False, **plain)
        right, shortcut = plan_scope(world), plan_scope(world, POLICY=False)
        for person, programme in random.Random(f"shortcut/{seed}").sample(pairs(world), 150):
            asked += 1
            wrong += right["d_eligible"](person, programme) != shortcut["d_eligible"](person, programme)
    assert wrong / asked >= 0.05


def test_waivers_override_conditions_bans_override_waivers_and_days_are_inclusive():
    world = world_of(
        1,
        programme_combine="both",
        programme_residence=True,
        programme_waivers="one",
        waiver_dated=True,
        programme_bans="one",
        standing_history=True,
        **FULL,
    )
    person, programme = world.rows["person"][0], world.rows["programme"][0]
    programme |= {"minimum_score": 40, "minimum_seniority": 3, "scope": "local"}
    standing = {
        **world.rows["standing"][0],
        world.fk("standing", "person")[0]: person[world.fk("standing", "person")[1]],
    }
    first, second = (row["id"] for row in world.rows["standing"][:2])
    old = {**standing, "id": first, "day": "2030-01-01", "score": 90, "seniority": 9, "residence": "foreign"}
    new = {**standing, "id": second, "day": "2031-01-01", "score": 40, "seniority": 3, "residence": "local"}

    def linked(entity, **cells):
        links = {world.fk(entity, name)[0]: row[world.fk(entity, name)[1]] for name, row in both}
        return {**world.rows[entity][0], **links, **cells}

    both = [("person", person), ("programme", programme)]
    waiver = linked("waiver", waives="score", until=world.now)
    other_waiver = {**waiver, "id": world.rows["waiver"][1]["id"], "waives": "seniority"}
    ban = linked("ban", until=world.now)
    denied = linked("enrolment", state="denied")
    world.rows |= {"waiver": [], "ban": [], "enrolment": []}

    def eligible(standings, waivers=(), bans=(), enrolments=()):
        world.rows |= {"standing": standings, "waiver": list(waivers), "ban": list(bans), "enrolment": list(enrolments)}
        value = sql_value(connect(world), world.derived["person", "eligible"], person, [programme])
        assert value == plan_scope(world)["d_eligible"](person, programme)
        assert value == goal_scope(world)["g_eligible"](world.rows, person, programme)
        return bool(value)

    low = {**new, "score": 39}
    assert eligible([old, new])
    assert not eligible([old, low])
    assert not eligible([old, {**new, "seniority": 2}])
    assert not eligible([{**old, "day": "2031-02-01"}, new])
    assert not eligible([])
    assert eligible([old, low], [waiver])
    assert not eligible([old, {**low, "seniority": 2}], [waiver])
    assert eligible([old, {**low, "seniority": 2}], [waiver, other_waiver])
    assert not eligible([old, low], [{**waiver, "until": "2031-05-01"}])
    assert not eligible([old, low], [waiver], [ban])
    assert eligible([old, low], [waiver], [{**ban, "until": "2031-05-01"}])
    assert not eligible([old, new], (), (), [denied])
    assert eligible([old, new], (), (), [{**denied, "state": "ended"}])


def test_a_programme_whose_combination_is_any_needs_one_condition():
    plain = {"standing_history": False, "programme_waivers": "none", "programme_bans": "none"}
    world = world_of(3, programme_combine="each", programme_residence=False, enrolment_denials="none", **plain)
    found = Counter()
    for person, programme in pairs(world):
        standing = of(world, "standing", person)
        held = [s["score"] >= programme["minimum_score"] for s in standing]
        held += [s["seniority"] >= programme["minimum_seniority"] for s in standing]
        if held == [True, False] or held == [False, True]:
            found[programme["combine"], by_definition(world, person, programme)] += 1
    assert found["any", True] >= 20
    assert found["both", False] >= 20
    assert found["any", False] == found["both", True] == 0


# ------------------------------------------------------------------------------------------------------------- actions


def wrong_ends(goal, world, done, arguments):
    """Assert that ends that differ from the right one are not claimed whole."""
    assert goal(world.rows, [], *arguments) is None
    stray = entry("insert", "enrolment", None, {**done[0]["new"], "id": "stray"})
    twice = goal(world.rows, [*done, stray], *arguments)
    assert twice is not None
    assert len(twice) == 1
    for other in ("enrolled", "waiting", "denied", "ended"):
        if other != done[0]["new"]["state"]:
            new = {**done[0]["new"], "state": other}
            assert goal(world.rows, [entry(done[0]["op"], "enrolment", done[0]["old"], new)], *arguments) is None


@pytest.mark.parametrize("seed", SEEDS)
def test_enrol_and_deny_agree_in_oracle_planner_and_goal(seed):
    world, rng = world_of(seed, enrolment_denials="open"), random.Random(f"enrol/{seed}")
    done_by = Counter()
    for name in ("enrol", "deny_entry"):
        action, goal = world.actions[name], goal_scope(world)[f"s_{name}"]
        for arguments in rng.sample(pairs(world), 8):
            changes = oracle_changes(world, action, arguments)
            if not changes:
                done_by[name, "refused"] += 1
                continue
            play = Play(world)
            plan_scope(world, call=play.call)[f"a_{name}"](*arguments)
            done, expected = play.diff(), oracle_diff(world, changes)
            assert len(done) == 1
            assert {column: done[0]["new"][column] for column in changes[0][2]} == changes[0][2]
            assert goal(world.rows, done, *arguments) == done
            assert goal(world.rows, expected, *arguments) == expected
            wrong_ends(goal, world, done, arguments)
            person, programme = arguments
            assert (
                goal(world.rows, done, rng.choice([p for p in world.rows["person"] if p != person]), programme) is None
            )
            done_by[name, done[0]["new"]["state"]] += 1
    assert done_by["deny_entry", "denied"]
    assert done_by["enrol", "refused"]


def test_who_may_enrol_is_decided_by_eligibility_places_and_most():
    seen = Counter()
    for seed in SEEDS:
        world = world_of(seed)
        current = ("enrolled", "waiting")
        for person, programme in random.Random(f"may/{seed}").sample(pairs(world), 12):
            inside = [row for row in of(world, "enrolment", None, programme) if row["state"] == "enrolled"]
            free = len(inside) < programme["places"]
            mine = [row for row in of(world, "enrolment", person) if row["state"] in current]
            here = [row for row in of(world, "enrolment", person, programme) if row["state"] in current]
            may = by_definition(world, person, programme) and not here
            may = may and (free or world.rules["enrolment_waitlist"])
            may = may and len(mine) < (world.rules["enrolment_most"] or 99)
            changes = oracle_changes(world, world.actions["enrol"], [person, programme])
            wanted = [("enrolled" if free else "waiting")] if may else []
            assert [cells["state"] for _, _, cells in changes] == wanted
            seen[tuple(wanted)] += 1
    assert len(seen) == 3
    assert min(seen.values()) >= 5


@pytest.mark.parametrize("seed", range(6))
def test_end_agrees_in_oracle_planner_and_goal(seed):
    world = world_of(seed, **FULL)
    goal, seen = goal_scope(world)["s_end_enrolment"], Counter()
    drawn = random.Random(f"end/{seed}").sample(world.rows["enrolment"], 24)
    for row in drawn:
        changes = oracle_changes(world, world.actions["end_enrolment"], [row])
        assert bool(changes) == (row["state"] in ("enrolled", "waiting"))
        seen[row["state"]] += 1
    assert len(seen) >= 3
    row = next(row for row in world.rows["enrolment"] if row["state"] == "waiting")
    play = Play(world)
    plan_scope(world, call=play.call)["a_end_enrolment"](row)
    done = play.diff()
    assert goal(world.rows, done, row) == done
    assert goal(world.rows, oracle_diff(world, oracle_changes(world, world.actions["end_enrolment"], [row])), row)
    assert goal(world.rows, [], row) is None
    assert goal(world.rows, done, next(r for r in world.rows["enrolment"] if r != row)) is None
    assert goal(world.rows, [entry("update", "enrolment", row, {**done[0]["new"], "day": "2031-05-09"})], row) is None


@pytest.mark.parametrize("seed", SEEDS)
def test_admit_takes_the_first_who_is_still_eligible(seed):
    world = world_of(seed, **FULL)
    action, goal, admitted = world.actions["admit_next"], goal_scope(world)["s_admit_next"], 0
    for programme in world.rows["programme"]:
        changes = oracle_changes(world, action, [programme])
        if not changes:
            continue
        admitted += 1
        play = Play(world)
        plan_scope(world, call=play.call)["a_admit_next"](programme)
        done = play.diff()
        assert done == oracle_diff(world, changes)
        assert goal(world.rows, done, programme) == done
        assert goal(world.rows, [], programme) is None
        for other in of(world, "enrolment", None, programme):
            if other["state"] == "waiting" and other["id"] != done[0]["new"]["id"]:
                wrong = entry("update", "enrolment", other, {**other, "state": "enrolled"})
                assert goal(world.rows, [wrong], programme) is None
                assert goal(world.rows, [wrong, *done], programme) == done
        late = {**done[0]["new"], "day": world.now}
        assert goal(world.rows, [entry("update", "enrolment", done[0]["old"], late)], programme) is None
    assert admitted or not any(row["state"] == "waiting" for row in world.rows["enrolment"])


def tied_queue():
    """A world with a programme on whose waiting list two eligible persons share the first day.

    Raises:
        AssertionError: there is none.
    """
    for seed in range(40):
        world = world_of(seed, **FULL)
        for programme in world.rows["programme"]:
            changes = oracle_changes(world, world.actions["admit_next"], [programme])
            queue = [row for row in of(world, "enrolment", None, programme) if row["state"] == "waiting"]
            column, key = world.fk("enrolment", "person")
            persons = {row[key]: row for row in world.rows["person"]}
            fit = [row for row in queue if by_definition(world, persons[row[column]], programme)]
            if changes and len(fit) > 1:
                for row in fit[:2]:
                    row["day"] = "2031-01-01"
                return world, programme, fit[:2]
    raise AssertionError("no world has a queue of two")


def test_of_several_who_have_waited_equally_long_any_is_accepted():
    world, programme, first = tied_queue()
    goal = goal_scope(world)["s_admit_next"]
    for row in first:
        play = Play(world)
        play.call(write_tool(world, "admit_"), **{argument(world, "enrolment"): row["id"]})
        assert goal(world.rows, play.diff(), programme) == play.diff()
    both = [entry("update", "enrolment", row, {**row, "state": "enrolled"}) for row in first]
    assert len(goal(world.rows, both, programme)) == 1
    expected = oracle_diff(world, oracle_changes(world, world.actions["admit_next"], [programme]))
    assert goal(world.rows, expected, programme) == expected


def test_without_the_rules_the_wrong_one_is_admitted_and_the_wrong_state_entered():
    seen = Counter()
    for seed in range(8):
        world = world_of(seed, enrolment_strict=False, **FULL)
        goals = goal_scope(world)
        drawn = random.Random(f"naive/{seed}").sample(pairs(world), 8)
        for name, cases in (("enrol", drawn), ("admit_next", [(row,) for row in world.rows["programme"]])):
            for arguments in cases:
                if not oracle_changes(world, world.actions[name], arguments):
                    continue
                play = Play(world)
                try:
                    plan_scope(world, call=play.call, POLICY=False)[f"a_{name}"](*arguments)
                except (Refusal, RuntimeError):
                    seen[name, "refused"] += 1
                    continue
                seen[name, bool(goals[f"s_{name}"](world.rows, play.diff(), *arguments))] += 1
    assert seen["enrol", "refused"] >= 3
    assert seen["admit_next", False] >= 5


# --------------------------------------------------------------------------------------------------------------- tools


@pytest.mark.parametrize("seed", range(6))
def test_every_write_tool_has_two_reachable_refusals(seed):
    world = world_of(seed, enrolment_strict=True, enrolment_most=5, **FULL)
    play, nothing = Play(world), missing(world)
    person, programme, enrolment = (argument(world, name) for name in ("person", "programme", "enrolment"))
    fit = [pair for pair in pairs(world) if not of(world, "enrolment", *pair)]
    good = next(pair for pair in fit if oracle_changes(world, world.actions["enrol"], pair))
    loads = {p["id"]: [r for r in of(world, "enrolment", p) if r["state"] in ("enrolled", "waiting")] for p, _ in fit}
    bad = next(pair for pair in fit if not by_definition(world, *pair) and len(loads[pair[0]["id"]]) < 5)

    def ids(pair):
        return {person: pair[0]["id"], programme: pair[1]["id"]}

    enrol, deny, end, admit = (write_tool(world, start) for start in ("enrol_", "deny_", "end_", "admit_"))
    for tool, more in ((enrol, {"state": "waiting"}), (deny, {})):
        assert refused(play.call, tool, **{**ids(good), person: nothing, **more}) == "not_found"
        assert refused(play.call, tool, **{**ids(good), programme: nothing, **more}) == "not_found"
    assert refused(play.call, enrol, **ids(bad), state="waiting") == "invalid"
    assert refused(play.call, deny, **ids(good)) == "invalid"
    play.call(deny, **ids(bad))
    assert refused(play.call, deny, **ids(bad)) == "conflict"
    play.call(enrol, **ids(good), state="waiting")
    assert refused(play.call, enrol, **ids(good), state="waiting") == "conflict"
    new = play.diff()[-1]["new"]
    for tool in (end, admit):
        assert refused(play.call, tool, **{enrolment: nothing}) == "not_found"
    play.call(end, **{enrolment: new["id"]})
    assert refused(play.call, end, **{enrolment: new["id"]}) == "conflict"
    assert refused(play.call, admit, **{enrolment: new["id"]}) == "conflict"


def test_places_and_most_per_person_are_kept_by_the_tools():
    world = world_of(5, enrolment_strict=False, enrolment_most=5, **FULL)
    play = Play(world)
    enrol, admit = write_tool(world, "enrol_"), write_tool(world, "admit_")
    queued = next(row for row in world.rows["enrolment"] if row["state"] == "waiting")
    column, key = world.fk("enrolment", "programme")
    programme = next(row for row in world.rows["programme"] if row[key] == queued[column])
    play.database.execute('UPDATE "programme" SET "places" = 0')
    assert refused(play.call, admit, **{argument(world, "enrolment"): queued["id"]}) == "conflict"
    outsider = next(p for p in world.rows["person"] if not of(world, "enrolment", p, programme))
    ids = {argument(world, "person"): outsider["id"], argument(world, "programme"): programme["id"]}
    assert refused(play.call, enrol, **ids, state="enrolled") == "conflict"
    play.database.execute('UPDATE "programme" SET "places" = 99')
    person = min(world.rows["person"], key=lambda p: len(of(world, "enrolment", p)))
    held = [row for row in of(world, "enrolment", person) if row["state"] in ("enrolled", "waiting")]
    free = [row for row in world.rows["programme"] if not of(world, "enrolment", person, row)]
    tried = [{argument(world, "person"): person["id"], argument(world, "programme"): row["id"]} for row in free]
    for ids in tried[: 5 - len(held)]:
        play.call(enrol, **ids, state="enrolled")
    assert refused(play.call, enrol, **tried[5 - len(held)], state="enrolled") == "conflict"


@pytest.mark.parametrize("seed", SEEDS)
def test_strict_tools_judge_as_the_definition_does(seed):
    world = world_of(seed, enrolment_strict=True, enrolment_most=0, enrolment_waitlist=True)
    play, enrol = Play(world), write_tool(world, "enrol_")
    for person, programme in random.Random(f"strict/{seed}").sample(pairs(world), 25):
        if [row for row in of(world, "enrolment", person, programme) if row["state"] in ("enrolled", "waiting")]:
            continue
        ids = {argument(world, "person"): person["id"], argument(world, "programme"): programme["id"]}
        if by_definition(world, person, programme):
            play.call(enrol, **ids, state="waiting")
        else:
            assert refused(play.call, enrol, **ids, state="waiting") == "invalid"


# ---------------------------------------------------------------------------------------------------------------- rows


@pytest.mark.parametrize("seed", SEEDS)
def test_rows_keep_the_rules_and_are_the_same_on_every_run(seed):
    world = world_of(seed)
    assert world.rows == world_of(seed).rows
    assert connect(world).execute("PRAGMA foreign_key_check").fetchall() == []
    most = world.rules["enrolment_most"] or 99
    for programme in world.rows["programme"]:
        rows = of(world, "enrolment", None, programme)
        assert sum(row["state"] == "enrolled" for row in rows) <= programme["places"]
        days = [row["day"] for row in rows if row["state"] == "waiting"]
        assert len(set(days)) == len(days)
    for person in world.rows["person"]:
        current = [row for row in of(world, "enrolment", person) if row["state"] in ("enrolled", "waiting")]
        assert len(current) <= most
        places = [row[world.fk("enrolment", "programme")[0]] for row in current]
        assert len(set(places)) == len(places)
        days = [row.get("day", "") for row in of(world, "standing", person)]
        assert len(set(days)) == len(days)
    sizes = {entity: len(rows) for entity, rows in world.rows.items() if entity != "tier"}
    assert all(16 <= size <= 180 for size in sizes.values()), sizes
    column = world.fk("enrolment", "programme")[0]
    popular = Counter(row[column] for row in world.rows["enrolment"]).most_common()
    assert popular[0][1] >= 2 * popular[-1][1]


def test_options_change_schema_and_states():
    shapes = {
        (tuple(world.tables), tuple(col.name for cols in world.tables.values() for col in cols), tuple(world.actions))
        for world in map(world_of, range(40))
    }
    assert len(shapes) >= 30
    assert world_of(1, enrolment_waitlist=False, enrolment_denials="none").col("enrolment", "state").values == (
        "enrolled",
        "ended",
    )


@pytest.mark.parametrize("seed", range(4))
def test_joined_with_booking_the_texts_still_agree_and_words_are_clear(seed):
    world = make_world([BOOKING, MECHANISM], seed)
    public_docs(world)
    rng = random.Random(f"joined/{seed}")
    for name in NAMES:
        compare(world, name, drawer(world, rng), rng, count=15)


def test_every_derived_attribute_and_action_has_its_sentence():
    for seed in SEEDS:
        world = world_of(seed)
        public_docs(world)
        for item in [*world.derived.values(), *world.actions.values()]:
            assert item.policy in world.policy
            assert item.policy.endswith(".")
