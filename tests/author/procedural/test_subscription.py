"""The subscription mechanism: three calendars agree, real months bite, changes cost their share, tools refuse."""

from __future__ import annotations

import random
from calendar import monthrange
from collections import Counter
from datetime import date, timedelta
from fractions import Fraction
from functools import cache
from itertools import pairwise
from math import ceil, floor

import pytest

from envsynth.author.procedural.compose import connect, signature
from envsynth.author.procedural.docs import public_docs
from envsynth.author.procedural.mechanisms.booking import MECHANISM as BOOKING
from envsynth.author.procedural.mechanisms.subscription import MECHANISM
from envsynth.author.procedural.mechanisms.subscription.bindings import contract_states
from tests.author.procedural.mechanism_texts import (
    Play,
    Refusal,
    argument,
    as_dict,
    compare,
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

SEEDS = range(12)
ATTRIBUTES = ["next_bill", "unused_value", "overdue", "arrears"]
ACTIONS = [
    "upgrade_contract",
    "refund_days",
    "collect_charge",
    "suspend_contract",
    "terminate_contract",
    "pause_contract",
]
EDGES = ["2031-01-31", "2031-02-27", "2031-02-28", "2031-03-01", "2032-02-28", "2032-02-29", "2030-12-31", "2031-04-30"]
"""Days at which calendars go wrong: ends of short months, the leap day, the turn of the year."""


@cache
def world_of(seed, **rules):
    return make_world([MECHANISM], seed, **rules)


def days_of(world):
    return [
        row[col.column] for name, cols in world.tables.items() for col in cols if col.kind == "date"
        for row in world.rows[name]
    ]  # fmt: skip


def drawer(world, rng):
    days = days_of(world)
    return lambda _: rng.choice(EDGES if rng.random() < 0.3 else days)


def goals_of(world):
    """Goal texts with what depends on the initial rows worked out once, as the verifier does."""
    scope = {"once": cache, "db": world.rows}
    for item in [*world.derived.values(), *world.actions.values()]:
        exec(item.goal, scope)
    return scope


class Desk:
    """Planner texts, compiled once, over a database that each play starts anew."""

    def __init__(self, world, **flags):
        self.world = world
        self.play = Play(world)
        self.scope = plan_scope(world, call=self.call, **flags)

    def call(self, tool, **arguments):
        return self.play.call(tool, **arguments)

    def start(self):
        self.play.database = connect(self.world)
        self.play.database.row_factory = as_dict
        return self.play


def as_set(entries):
    """Diff entries without the ids that a tool coins, in any order."""
    found = []
    for item in entries:
        new = {key: value for key, value in item["new"].items() if item["op"] == "update" or key != "id"}
        found.append((item["op"], item["table"], sorted(new.items())))
    return sorted(found, key=repr)


# ------------------------------------------------------------------------------------------------------ attributes


@pytest.mark.parametrize("seed", SEEDS)
def test_derived_attributes_agree_in_all_three_texts(seed):
    world, rng = world_of(seed), random.Random(f"subscription/{seed}")
    for _, name in world.derived:
        compare(world, name, drawer(world, rng), rng, count=12)


@pytest.mark.parametrize("name", ATTRIBUTES)
def test_ignoring_the_rules_changes_derived_values(name):
    asked = changed = 0
    for seed in SEEDS:
        world, rng = world_of(seed), random.Random(f"policy/{seed}")
        seen = compare(world, name, drawer(world, rng), rng, count=12)
        asked, changed = asked + seen.asked, changed + seen.by_flag
    assert changed / asked >= 0.05


def billing_days(world, contract):
    """All billing days of some years, month by month: an independent fourth calendar."""
    anchor = int(contract[world.rules["sub_anchor"]][-2:])
    return [
        date(year, month, min(anchor, monthrange(year, month)[1]))
        for year in range(2028, 2035)
        for month in range(1, 13)
    ]


def month_around(world, contract, day):
    """The billing month that holds a day: its first day and that of the next one."""
    days = billing_days(world, contract)
    return max(other for other in days if other <= day), min(other for other in days if other > day)


def rounded(world, share):
    return {"down": floor, "up": ceil, "half": lambda value: floor(value + Fraction(1, 2))}[world.rules["sub_round"]](
        share
    )


def left_on(world, contract, day):
    """Days of a billing month that are left and not paused, as a set."""
    _, end = month_around(world, contract, day)
    first = day if world.rules["sub_day_counts"] else day + timedelta(days=1)
    left = {first + timedelta(days=number) for number in range((end - first).days)}
    for row in world.rows.get("freeze", []):
        if row[world.fk("freeze", "contract")[0]] == contract["id"]:
            left -= {other for other in left if row["start"] <= other.isoformat() <= row["until"]}
    return left


def tariff_of(world, contract):
    column, key = world.fk("contract", "tariff")
    return next(row for row in world.rows["tariff"] if row[key] == contract[column])


@pytest.mark.parametrize("seed", SEEDS)
def test_unused_value_and_next_billing_day_are_those_of_the_definition(seed):
    world, rng = world_of(seed), random.Random(f"hand/{seed}")
    database, draw = connect(world), drawer(world, rng)
    for contract in world.rows["contract"]:
        text = draw(None)
        day = date.fromisoformat(text)
        start, end = month_around(world, contract, day)
        bill, value = world.derived["contract", "next_bill"], world.derived["contract", "unused_value"]
        assert sql_value(database, bill, contract, [text]) == end.isoformat()
        idle = contract["contract_state"] in ("trial", "ended")
        share = Fraction(tariff_of(world, contract)["price"] * len(left_on(world, contract, day)), (end - start).days)
        assert sql_value(database, value, contract, [text]) == (0 if idle else rounded(world, share))


def test_months_of_thirty_days_are_the_wrong_shortcut():
    """Even without pauses and states, a month of 30 days gives other values and other days."""
    seen = Counter()
    for seed in SEEDS:
        world, rng = world_of(seed, sub_pauses=False), random.Random(f"thirty/{seed}")
        for contract in world.rows["contract"]:
            day = date.fromisoformat(rng.choice(days_of(world)))
            start, end = month_around(world, contract, day)
            price, left = tariff_of(world, contract)["price"], len(left_on(world, contract, day))
            naive = max(0, left - (end - start).days + 30)
            seen["value"] += rounded(world, Fraction(price * left, (end - start).days)) != rounded(
                world, Fraction(price * naive, 30)
            )
            seen["day"] += start + timedelta(days=30) != end
            seen["asked"] += 1
    assert seen["value"] / seen["asked"] > 0.2
    assert seen["day"] / seen["asked"] > 0.3


@pytest.mark.parametrize(
    ("anchor", "day", "bills"),
    [
        (31, "2031-01-31", ("2031-01-31", "2031-02-28", "2031-03-31")),
        (31, "2031-02-27", ("2031-01-31", "2031-02-28", "2031-03-31")),
        (30, "2031-02-28", ("2031-02-28", "2031-03-30", "2031-04-30")),
        (29, "2032-02-28", ("2032-01-29", "2032-02-29", "2032-03-29")),
        (31, "2032-02-29", ("2032-02-29", "2032-03-31", "2032-04-30")),
        (1, "2030-12-31", ("2030-12-01", "2031-01-01", "2031-02-01")),
    ],
)
def test_awkward_anchor_days_fall_on_the_end_of_short_months(anchor, day, bills):
    world = world_of(0, sub_anchor="start")
    contract = {**world.rows["contract"][0], "start": f"2029-01-{anchor:02d}"}
    scope, goals = plan_scope(world), goals_of(world)
    found = [scope["billing_after"](contract, day, count) for count in range(3)]
    stepped = [date.fromordinal(other).isoformat() for other in goals["bills_around"](contract["start"], day, 2)]
    assert tuple(found) == tuple(stepped) == bills


# ------------------------------------------------------------------------------------------------------------ rows


@pytest.mark.parametrize("seed", SEEDS)
def test_rows_keep_the_rules_and_are_the_same_on_every_run(seed):
    world = world_of(seed)
    assert world.rows == world_of.__wrapped__(seed).rows
    assert connect(world).execute("PRAGMA foreign_key_check").fetchall() == []
    assert all(20 <= len(world.rows[name]) <= 120 for name in ("person", "tariff", "contract", "charge"))
    assert {row["contract_state"] for row in world.rows["contract"]} == set(contract_states(world.rules))
    scope, today = plan_scope(world), world.now[:10]
    contracts = {row["id"]: row for row in world.rows["contract"]}
    spans = {}
    for row in world.rows.get("freeze", []):
        spans.setdefault(row[world.fk("freeze", "contract")[0]], []).append((row["start"], row["until"]))
    for key, contract in contracts.items():
        state, own = contract["contract_state"], sorted(spans.get(key, []))
        assert all(first[1] < second[0] for first, second in pairwise(own))
        assert (state == "paused") == any(first <= today <= last for first, last in own)
        assert (state == "ended") == (contract["until"] <= today)
        assert state != "suspended" or scope["d_overdue"](contract)
    charged, _ = world.fk("charge", "contract")
    monthly = [row for row in world.rows["charge"] if row["charge_kind"] == "monthly"]
    assert len({(row[charged], row["day"]) for row in monthly}) == len(monthly)
    for row in monthly:
        day = date.fromisoformat(row["day"])
        assert month_around(world, contracts[row[charged]], day)[0] == day
        assert row["day"] <= contracts[row[charged]]["until"]
        assert row["day"] <= today or row["charge_state"] == "open"
    assert all(contracts[row[charged]]["contract_state"] != "trial" for row in world.rows["charge"])
    states = {"monthly": {"open", "paid", "refunded"}, "change": {"open", "paid"}, "refund": {"paid"}}
    assert all(row["charge_state"] in states[row["charge_kind"]] for row in world.rows["charge"])


@pytest.mark.parametrize("seed", SEEDS)
def test_refunds_on_record_are_shares_of_their_month(seed):
    world = world_of(seed)
    charged, _ = world.fk("charge", "contract")
    contracts = {row["id"]: row for row in world.rows["contract"]}
    refunds = Counter((row[charged], row["amount"]) for row in world.rows["charge"] if row["charge_kind"] == "refund")
    seen = 0
    for row in world.rows["charge"]:
        if row["charge_state"] != "refunded":
            assert row.get("given_back", 0) == 0
            continue
        contract = contracts[row[charged]]
        start, end = month_around(world, contract, date.fromisoformat(row["day"]))
        limit = tariff_of(world, contract)["refundable"]
        shares = {rounded(world, Fraction(row["amount"] * days, (end - start).days)) for days in range(1, limit + 1)}
        backs = {amount for owner, amount in refunds if owner == contract["id"]} if refunds else {row["given_back"]}
        assert shares & backs
        seen += 1
    assert seen
    assert not refunds or sum(refunds.values()) == seen


def test_structure_varies_with_the_rules():
    signatures = {signature(make_world([MECHANISM], seed)) for seed in range(30)}
    assert len(signatures) > 25


# --------------------------------------------------------------------------------------------------------- actions


def overdue_ones(world):
    """Subscriptions that can be suspended."""
    late = goals_of(world)["owed_too_long"]()
    return [
        row for row in world.rows["contract"] if row["contract_state"] in ("active", "paused") and row["id"] in late
    ]


def fitting(world, name, rng):
    """Arguments that mostly meet the conditions of an action."""
    rows = world.rows
    active = [row for row in rows["contract"] if row["contract_state"] in ("active", "trial")]
    contract = rng.choice(active if rng.random() < 0.8 else rows["contract"])
    if name == "upgrade_contract":
        own = tariff_of(world, contract)["price"]
        dearer = [row for row in rows["tariff"] if row["price"] > own]
        tariff = rng.choice(dearer if dearer and rng.random() < 0.85 else rows["tariff"])
        day = rng.choice([day for day in days_of(world) if day >= "2031-04-28"])
        return [contract, tariff, day] if world.rules["sub_dated"] else [contract, tariff]
    if name == "refund_days":
        paid = [row for row in rows["charge"] if (row["charge_kind"], row["charge_state"]) == ("monthly", "paid")]
        return [rng.randint(1, 16), rng.choice(paid if rng.random() < 0.8 else rows["charge"])]
    if name == "collect_charge":
        unpaid = [row for row in rows["charge"] if row["charge_state"] == "open"]
        return [rng.choice(unpaid if rng.random() < 0.5 else rows["charge"])]
    if name == "suspend_contract":
        return [rng.choice(overdue_ones(world)) if rng.random() < 0.4 else contract]
    return [contract] if name == "terminate_contract" else [contract, rng.randint(1, 4)]


def wrong_ends(done):
    """Final states near the right one: a write left out, one cell off."""
    for index, item in enumerate(done):
        rest = done[:index] + done[index + 1 :]
        yield rest
        for column, value in item["new"].items():
            if column == "id" or (item["op"] == "update" and column not in item["changed"]):
                continue
            other = (
                value + 1 if isinstance(value, int) else "2031-12-31" if column in ("day", "start", "until") else "NO"
            )
            yield [*rest, entry(item["op"], item["table"], item["old"], {**item["new"], column: other})]


@pytest.mark.parametrize("seed", SEEDS)
def test_actions_agree_in_oracle_planner_and_goal(seed):
    world, rng, seen = world_of(seed), random.Random(f"acts/{seed}"), Counter()
    goals, desk = goals_of(world), Desk(world)
    for name in world.actions:
        for _ in range(8):
            arguments = fitting(world, name, rng)
            goal, changes = goals[f"s_{name}"], oracle_changes(world, world.actions[name], arguments)
            play = desk.start()
            if not changes:
                seen[name, "nothing"] += 1
                # A pause of given days may be wrong in its months only, which that tool cannot see.
                if name != "pause_contract" or world.rules["sub_quoted"]:
                    with pytest.raises(Refusal):
                        desk.scope[f"a_{name}"](*arguments)
                continue
            seen[name, "done"] += 1
            desk.scope[f"a_{name}"](*arguments)
            done, expected = play.diff(), oracle_diff(world, changes)
            assert as_set(done) == as_set(expected)
            assert as_set(goal(world.rows, done, *arguments)) == as_set(done)
            assert as_set(goal(world.rows, list(reversed(expected)), *arguments)) == as_set(expected)
            for wrong in wrong_ends(done):
                assert goal(world.rows, wrong, *arguments) is None
            extra = entry("insert", "charge", None, {**world.rows["charge"][0], "id": "extra"})
            assert len(goal(world.rows, [*done, extra], *arguments)) == len(done)
            assert len(goal(world.rows, [*done, *done], *arguments)) == len(done)
    assert all(seen[name, "done"] for name in world.actions), seen


@pytest.mark.parametrize("name", ACTIONS)
def test_a_change_of_another_row_is_refused(name):
    tried = 0
    for seed in range(6):
        world, rng = world_of(seed, sub_pauses=True), random.Random(f"target/{seed}")
        goals, desk = goals_of(world), Desk(world)
        for _ in range(4):
            arguments, others = fitting(world, name, rng), fitting(world, name, rng)
            place = 1 if name == "refund_days" else 0
            swapped = [*arguments[:place], others[place], *arguments[place + 1 :]]
            action = world.actions[name]
            if others[place] == arguments[place] or not oracle_changes(world, action, arguments):
                continue
            play = desk.start()
            desk.scope[f"a_{name}"](*arguments)
            assert goals[f"s_{name}"](world.rows, play.diff(), *swapped) is None
            tried += 1
    assert tried > 5


@pytest.mark.parametrize("name", ["upgrade_contract", "refund_days", "pause_contract"])
def test_who_takes_months_for_thirty_days_goes_wrong_where_tools_do_not_reckon(name):
    seen = Counter()
    for seed in range(6):
        world, rng = world_of(seed, sub_pauses=True, sub_quoted=False), random.Random(f"naive/{seed}")
        goals, desk = goals_of(world), Desk(world, POLICY=False)
        for _ in range(10):
            arguments = fitting(world, name, rng)
            if not oracle_changes(world, world.actions[name], arguments):
                continue
            play = desk.start()
            try:
                desk.scope[f"a_{name}"](*arguments)
            except Refusal:
                seen["refused"] += 1
                continue
            seen["right" if goals[f"s_{name}"](world.rows, play.diff(), *arguments) else "wrong"] += 1
    assert seen["wrong"] / sum(seen.values()) > 0.15, seen


# ----------------------------------------------------------------------------------------------------------- tools


def arranged(seed, **rules):
    """A world whose first subscription is active and owes nothing, and whose charges are known."""
    world = make_world([MECHANISM], seed, **{"sub_pauses": True, "sub_grace_by": "all", "sub_grace": 5, **rules})
    column, key = world.fk("contract", "tariff")
    cheap, dear = sorted(world.rows["tariff"], key=lambda row: row["price"])[:: len(world.rows["tariff"]) - 1]
    cheap["longest_pause"], cheap["refundable"] = 2, 10
    contract = world.rows["contract"][0]
    contract |= {column: cheap[key], "until": "2031-12-31", "contract_state": "active"}
    contract[world.rules["sub_anchor"]] = "2029-01-31"
    charged, frozen = world.fk("charge", "contract")[0], world.fk("freeze", "contract")[0]
    for row in world.rows["charge"]:
        if row[charged] == contract["id"]:
            row["charge_state"] = "paid"
    world.rows["freeze"] = [row for row in world.rows["freeze"] if row[frozen] != contract["id"]]
    charge = world.rows["charge"][0]
    charge |= {
        charged: contract["id"],
        "charge_kind": "monthly",
        "charge_state": "paid",
        "day": "2031-02-28",
        "amount": 62,
    }
    return world, contract, cheap, dear, charge


@pytest.mark.parametrize("quoted", [True, False])
@pytest.mark.parametrize("seed", range(4))
def test_upgrade_refuses(seed, quoted):
    world, contract, cheap, dear, charge = arranged(seed, sub_quoted=quoted, sub_dated=True)
    tool, nothing = write_tool(world, "upgrade_"), missing(world)
    mine, plan = argument(world, "contract"), argument(world, "tariff")
    base = {mine: contract["id"], plan: dear["id"], "effective_day": "2031-05-10", **({} if quoted else {"amount": 1})}
    call = Play(world).call
    assert refused(call, tool, **{**base, mine: nothing}) == "not_found"
    assert refused(call, tool, **{**base, plan: nothing}) == "not_found"
    assert refused(call, tool, **{**base, plan: cheap["id"]}) == "invalid"
    assert refused(call, tool, **{**base, "effective_day": "2031-05-01"}) == "invalid"
    assert refused(call, tool, **{**base, "effective_day": "2032-01-01"}) == "invalid"
    assert refused(call, tool, **{**base, "effective_day": "2031-06-31"}) == "invalid"
    ended = next(row for row in world.rows["contract"] if row["contract_state"] == "ended")
    assert refused(call, tool, **{**base, mine: ended["id"]}) == "conflict"
    # Five days of grace: a charge of 27 April may be paid until today, one of 26 April is late.
    charge |= {"charge_state": "open", "day": "2031-04-27"}
    assert call(tool, **base)["amount"] >= 0
    charge["day"] = "2031-04-26"
    assert refused(Play(world).call, tool, **base) == "conflict"


@pytest.mark.parametrize("quoted", [True, False])
@pytest.mark.parametrize("rows", [True, False])
def test_refund_refuses(quoted, rows):
    world, _, _, _, charge = arranged(1, sub_quoted=quoted, sub_refund_rows=rows, sub_round="down")
    tool, nothing, key = write_tool(world, "refund_"), missing(world), argument(world, "charge")
    base = {key: charge["id"], "days": 10, **({} if quoted else {"amount": 20})}
    play = Play(world)
    assert refused(play.call, tool, **{**base, key: nothing}) == "not_found"
    assert refused(play.call, tool, **{**base, "days": 11}) == "invalid"
    change = next(row for row in world.rows["charge"] if row["charge_kind"] == "change")
    assert refused(play.call, tool, **{**base, key: change["id"]}) == "conflict"
    if not quoted:
        assert refused(play.call, tool, **{**base, "amount": 63}) == "invalid"
    # 28 February to 30 March are 31 days: ten of them are worth 20 of 62 credits.
    assert play.call(tool, **base)["amount"] == 20
    assert refused(play.call, tool, **base) == "conflict"


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("start", ["today", "billing"])
def test_pause_refuses_and_follows_the_billing_days(seed, start):
    world, contract, _, _, charge = arranged(seed, sub_quoted=True, sub_pause_from=start)
    tool, nothing, key = write_tool(world, "pause_"), missing(world), argument(world, "contract")
    play = Play(world)
    assert refused(play.call, tool, **{key: nothing, "months": 1}) == "not_found"
    assert refused(play.call, tool, **{key: contract["id"], "months": 3}) == "invalid"
    paused = next(row for row in world.rows["contract"] if row["contract_state"] == "paused")
    assert refused(play.call, tool, **{key: paused["id"], "months": 1}) == "conflict"
    done = play.call(tool, **{key: contract["id"], "months": 2})
    spans = {"today": ("2031-05-02", "2031-06-29"), "billing": ("2031-05-31", "2031-07-30")}
    assert (done["first_day"], done["last_day"]) == spans[start]
    state = next(row for row in play.rows()["contract"] if row["id"] == contract["id"])["contract_state"]
    assert state == {"today": "paused", "billing": "active"}[start]
    assert refused(play.call, tool, **{key: contract["id"], "months": 1}) == "conflict"
    charge |= {"charge_state": "open", "day": "2031-04-01"}
    assert refused(Play(world).call, tool, **{key: contract["id"], "months": 1}) == "conflict"


def test_pause_of_given_days_refuses():
    world, contract, *_ = arranged(2, sub_quoted=False)
    tool, key = write_tool(world, "pause_"), argument(world, "contract")
    play = Play(world)
    for first, last in [
        ("2031-05-01", "2031-05-30"),
        ("2031-05-20", "2031-05-19"),
        ("2031-05-02", "2031-07-03"),
        ("2031-05-02", "2031-05-32"),
    ]:
        assert refused(play.call, tool, **{key: contract["id"], "first_day": first, "last_day": last}) == "invalid"
    play.call(tool, **{key: contract["id"], "first_day": "2031-05-02", "last_day": "2031-07-02"})


@pytest.mark.parametrize("seed", range(4))
def test_collect_suspend_and_terminate_refuse(seed):
    world, contract, _, _, charge = arranged(seed)
    collect, suspend, terminate = (write_tool(world, start) for start in ("collect_", "suspend_", "terminate_"))
    key, owner, nothing = argument(world, "charge"), argument(world, "contract"), missing(world)
    play = Play(world)
    assert refused(play.call, collect, **{key: nothing}) == "not_found"
    assert refused(play.call, collect, **{key: charge["id"]}) == "conflict"
    assert refused(play.call, suspend, **{owner: nothing}) == "not_found"
    assert refused(play.call, suspend, **{owner: contract["id"]}) == "conflict"
    charge |= {"charge_state": "open", "day": "2031-04-26"}
    late = Play(world)
    late.call(suspend, **{owner: contract["id"]})
    assert refused(late.call, suspend, **{owner: contract["id"]}) == "conflict"
    again = Play(world)
    again.call(collect, **{key: charge["id"]})
    assert refused(again.call, suspend, **{owner: contract["id"]}) == "conflict"
    assert refused(again.call, terminate, **{owner: nothing}) == "not_found"
    again.call(terminate, **{owner: contract["id"]})
    assert refused(again.call, terminate, **{owner: contract["id"]}) == "conflict"


# ----------------------------------------------------------------------------------------------------------- words


@pytest.mark.parametrize("seed", range(4))
def test_joined_with_booking_the_texts_still_agree_and_words_are_clear(seed):
    world, rng = make_world([BOOKING, MECHANISM], seed), random.Random(f"joined/{seed}")
    public_docs(world)
    for name in ATTRIBUTES:
        compare(world, name, drawer(world, rng), rng, count=10)


def test_every_derived_attribute_and_action_has_its_sentence():
    for seed in SEEDS:
        world = world_of(seed)
        public_docs(world)
        assert [name for _, name in world.derived] == ATTRIBUTES
        assert list(world.actions) == [
            name for name in ACTIONS if name != "pause_contract" or world.rules["sub_pauses"]
        ]
        for item in [*world.derived.values(), *world.actions.values()]:
            assert item.policy in world.policy
            assert item.policy.endswith(".")
