"""The ledger mechanism: three texts agree, both sides are entered, holds and pending money bite, tools refuse."""

from __future__ import annotations

import random
from collections import Counter
from functools import cache

import pytest

from envsynth.author.procedural.compose import connect, signature
from envsynth.author.procedural.docs import public_docs
from envsynth.author.procedural.ir import MEND
from envsynth.author.procedural.mechanisms.booking import MECHANISM as BOOKING
from envsynth.author.procedural.mechanisms.ledger import MECHANISM
from envsynth.author.procedural.mechanisms.ledger.bindings import fee_rates, send_limits
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
ATTRIBUTES = ["balance", "available_balance", "sending_fee", "outflow", "able_to_send", "wealth"]


@cache
def world_of(seed, **rules):
    return make_world([MECHANISM], seed, **rules)


def drawer(world, rng):
    amounts = [0, 1, 20, 60, 149, 150, 151, 200, 201, 300, 301]
    days = [row["day"] for row in world.rows["transfer"]]
    return lambda type_: rng.choice(days) if type_.kind == "date" else rng.choice([*amounts, rng.randint(1, 400)])


def refusal_of(call, *arguments, **named):
    """The code that a call is refused with, "given up" when the planner does not even try, "" when it is accepted."""
    try:
        call(*arguments, **named)
    except Refusal as refusal:
        return refusal.code
    except RuntimeError:
        return "given up"
    return ""


class Desk:
    """Planner texts, compiled once, over a database that each play starts anew."""

    def __init__(self, world, **flags):
        self.world = world
        self.play = Play(world)
        self.scope = plan_scope(world, call=self.call, **flags)

    def call(self, tool, **arguments):
        return self.play.call(tool, **arguments)

    def start(self):
        """Put the rows back as they were."""
        self.play.database = connect(self.world)
        self.play.database.row_factory = as_dict
        return self.play


def goals_of(world):
    """Goal texts with what depends on the initial rows worked out once, as the verifier does."""
    scope = {"once": cache, "db": world.rows}
    for item in [*world.derived.values(), *world.actions.values()]:
        exec(item.goal, scope)
    return scope


def changes_of(world, name, arguments):
    return oracle_changes(world, world.actions[name], arguments)


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
    world, rng = world_of(seed), random.Random(f"ledger/{seed}")
    for _, name in world.derived:
        compare(world, name, drawer(world, rng), rng, count=12)


@pytest.mark.parametrize("name", ATTRIBUTES)
def test_ignoring_the_rules_changes_derived_values(name):
    asked = changed = 0
    for seed in range(8):
        world = world_of(seed, stored_balance=False, fee_rate=10)
        rng = random.Random(f"policy/{seed}")
        seen = compare(world, name, drawer(world, rng), rng, count=10)
        asked, changed = asked + seen.asked, changed + seen.by_flag
    assert changed / asked >= 0.05


def by_hand(world, account):
    """What an account has available, walked through transfer by transfer: an independent fourth calculation."""
    rules, today = world.rules, world.now[:10]
    (source, source_key), (target, target_key) = world.fk("transfer", "source"), world.fk("transfer", "target")
    value = account["balance"] if rules["stored_balance"] else account["opening"]
    value += account.get("overdraft", 0)
    for row in world.rows["transfer"]:
        cost = row["amount"] + row.get("fee", 0)
        sends, gets = row[source] == account[source_key], row[target] == account[target_key]
        if row["transfer_state"] == "posted" and not rules["stored_balance"]:
            value += row["amount"] * gets - cost * sends
            value += row.get("fee", 0) * (account["account_type"] == "house")
        if row["transfer_state"] == "pending" and rules["pending_money"] == "blocks":
            value -= cost * sends
    for row in world.rows.get("hold", []):
        column, key = world.fk("hold", "account")
        if row[column] == account[key] and row["hold_state"] == "active" and row["until"] >= today:
            value -= row["amount"]
    return value


@pytest.mark.parametrize("seed", SEEDS)
def test_available_is_that_of_the_definition(seed):
    world = world_of(seed)
    database, derived = connect(world), world.derived["account", "available_balance"]
    for account in world.rows["account"]:
        assert sql_value(database, derived, account, []) == by_hand(world, account)


def test_the_balance_is_often_not_what_is_available():
    """The shortcut of this mechanism takes the balance for what is available: of accounts, and of who can send."""
    seen = Counter()
    for seed in SEEDS:
        world = world_of(seed)
        exact, naive = plan_scope(world), plan_scope(world, POLICY=False)
        for account in world.rows["account"]:
            seen["available"] += exact["d_available_balance"](account) != exact["account_money"](account)
            seen["able"] += exact["d_able_to_send"](account, 150) != naive["d_able_to_send"](account, 150)
            seen["asked"] += 1
    assert seen["available"] / seen["asked"] > 0.2
    assert seen["able"] / seen["asked"] >= 0.05


# ------------------------------------------------------------------------------------------------------------ rows


@pytest.mark.parametrize("seed", SEEDS)
def test_rows_keep_the_rules_and_are_the_same_on_every_run(seed):
    world = world_of(seed)
    assert world.rows == world_of.__wrapped__(seed).rows
    assert connect(world).execute("PRAGMA foreign_key_check").fetchall() == []
    assert all(20 <= len(world.rows[entity]) <= 120 for entity in ("person", "account", "transfer"))
    assert {row["transfer_state"] for row in world.rows["transfer"]} == {"pending", "posted", "reversed"}
    scope, rules = plan_scope(world), world.rules
    limits, rates = send_limits(rules), fee_rates(rules)
    for account in world.rows["account"]:
        assert scope["d_available_balance"](account) >= 0
        for day in {row["day"] for row in world.rows["transfer"]}:
            if rules["send_limit"] and account["account_type"] != "house":
                assert scope["d_outflow"](account, day) <= limits[account["account_type"]]
    (source, key), (target, target_key) = world.fk("transfer", "source"), world.fk("transfer", "target")
    accounts = {row[key]: row for row in world.rows["account"]}
    takers = {row[target_key]: row for row in world.rows["account"]}
    for row in world.rows["transfer"]:
        giver = accounts[row[source]]
        assert giver is not takers[row[target]]
        assert row["transfer_state"] == "reversed" or (
            (row["transfer_state"] == "pending") <= (row["amount"] > rules["wait_above"])
        )
        if rules["fee_rate"]:
            share = rates[giver["account_type"]] * row["amount"] / 1000
            assert row["fee"] == rules["fee_floor"] or abs(row["fee"] - share) < 1
    for row in world.rows.get("hold", []):
        assert row["amount"] % rules["hold_step"] == 0


def money(world, rows):
    """All balances added up."""
    if world.rules["stored_balance"]:
        return sum(row["balance"] for row in rows["account"])
    scope = plan_scope(world, rows=rows)
    return sum(scope["account_money"](row) for row in rows["account"])


@pytest.mark.parametrize("seed", SEEDS)
def test_every_transfer_is_entered_on_both_sides(seed):
    """Whatever the tools do, the balances of all accounts add up to what was there at first."""
    world, rng, play = world_of(seed), random.Random(f"sum/{seed}"), Play(world_of(seed))
    before, done = money(world, world.rows), Counter()
    if not world.rules["stored_balance"]:
        assert before == sum(row["opening"] for row in world.rows["account"])
    rows = sorted(world.rows["transfer"], key=lambda row: row["transfer_state"])[:40]
    for row in rows:
        for start in ("settle_", "reverse_"):
            tool, arguments = write_tool(world, start), {argument(world, "transfer"): row["id"]}
            code = refusal_of(play.call, tool, **arguments)
            assert code in ("", "conflict")
            done[start] += not code
    make = plan_scope(world, call=play.call)["a_transfer_money"]
    for _ in range(20):
        code = refusal_of(make, rng.randint(1, 250), *rng.sample(world.rows["account"], 2))
        assert code in ("", "conflict", "invalid")
        done["make_"] += not code
    assert money(world, play.rows()) == before
    assert all(done[start] for start in ("settle_", "reverse_", "make_"))


# --------------------------------------------------------------------------------------------------------- actions


def arguments_for(world, name, rng):
    accounts, rows = world.rows["account"], world.rows
    amount = rng.choice([rng.randint(1, 120), rng.choice(rows["transfer"])["amount"]])
    match name:
        case "transfer_money":
            return [amount, *rng.sample(accounts, 2)]
        case "pay_for":
            column, key = world.fk("account", "owner")
            owners = {row[column] for row in accounts}
            people = [row for row in rows["person"] if row[key] in owners]
            return [amount, rng.choice(people), rng.choice(accounts)]
        case "place_hold":
            return [amount, rng.choice(accounts), rng.choice([row["until"] for row in rows["hold"]])]
        case "release_hold":
            return [rng.choice(rows["hold"])]
        case "settle_transfer":
            wanted = rng.choice(["pending", "pending", "posted"])
            return [rng.choice([row for row in rows["transfer"] if row["transfer_state"] == wanted])]
    return [rng.choice(rows["transfer"])]


def wrong_ends(world, done):
    """Final states near the right one: a write left out, one cell off, a write twice."""
    for index, item in enumerate(done):
        rest = done[:index] + done[index + 1 :]
        yield rest
        for column, value in item["new"].items():
            if column == "id" or (item["op"] == "update" and column not in item["changed"]):
                continue
            other = value + 1 if isinstance(value, int) else "2031-12-31" if column in ("day", "until") else "other"
            yield [*rest, entry(item["op"], item["table"], item["old"], {**item["new"], column: other})]


@pytest.mark.parametrize("seed", SEEDS)
def test_actions_agree_in_oracle_planner_and_goal(seed):
    world, rng, seen = world_of(seed), random.Random(f"acts/{seed}"), Counter()
    goals, desk = goals_of(world), Desk(world)
    names = [name for name in world.actions if not name.startswith(MEND)]  # nothing is out of order here
    for name in names:
        for _ in range(10):
            arguments = arguments_for(world, name, rng)
            goal, changes = goals[f"s_{name}"], changes_of(world, name, arguments)
            if not changes:
                seen[name, "nothing"] += 1
                continue
            seen[name, "done"] += 1
            play = desk.start()
            desk.scope[f"a_{name}"](*arguments)
            done, expected = play.diff(), oracle_diff(world, changes)
            if name != "pay_for":
                assert as_set(done) == as_set(expected)
            assert as_set(goal(world.rows, done, *arguments)) == as_set(done)
            assert as_set(goal(world.rows, expected, *arguments)) == as_set(expected)
            for wrong in wrong_ends(world, done):
                assert goal(world.rows, wrong, *arguments) is None, (name, wrong)
            # A second application stays unclaimed, so the frame refuses it.
            twice = [*done, {**done[0], "new": {**done[0]["new"], "id": 999}}]
            assert len(goal(world.rows, twice, *arguments)) == len(done)
    assert all(seen[name, "done"] for name in names), seen


@pytest.mark.parametrize("seed", range(6))
def test_what_may_not_be_done_changes_nothing_and_no_goal_accepts_it(seed):
    world, rng, seen = world_of(seed), random.Random(f"never/{seed}"), Counter()
    goals, desk = goals_of(world), Desk(world)
    for name in ("transfer_money", "pay_for", "settle_transfer", "reverse_transfer"):
        for _ in range(25):
            arguments = arguments_for(world, name, rng)
            if changes_of(world, name, arguments):
                continue
            play = desk.start()
            if refusal_of(desk.scope[f"a_{name}"], *arguments):
                seen["refused"] += 1
                continue
            seen["let through"] += 1
            assert name == "transfer_money"
            assert not world.rules["checks_available"]
            assert goals[f"s_{name}"](world.rows, play.diff(), *arguments) is None
    assert seen["refused"] > 10


def test_any_of_several_equal_accounts_may_pay():
    tried = Counter()
    for seed in range(4):
        world = world_of(seed, fee_rate=20, fee_floor=3, pay_from="fee")
        desk, goal = Desk(world), goals_of(world)["s_pay_for"]
        exact = desk.scope
        column, key = world.fk("account", "owner")
        target = next(row for row in world.rows["account"] if row["account_type"] == "current")
        for person in world.rows["person"]:
            mine = [row for row in world.rows["account"] if row[column] == person[key] and row is not target]
            able = [row for row in mine if exact["d_able_to_send"](row, 150)]
            lowest = min([exact["d_sending_fee"](row, 150) for row in able], default=0)
            for row in able:
                play = desk.start()
                exact["a_transfer_money"](150, row, target)
                best = exact["d_sending_fee"](row, 150) == lowest
                assert (goal(world.rows, play.diff(), 150, person, target) is not None) == best
                equal = sum(exact["d_sending_fee"](other, 150) == lowest for other in able)
                tried["alternative" if best and equal > 1 else "best" if best else "worse"] += 1
    assert tried["alternative"] >= 20
    assert tried["worse"] >= 20


def test_a_payer_who_ignores_the_rules_ends_wrong_or_is_refused():
    seen = Counter()
    for seed in SEEDS:
        world, rng = world_of(seed), random.Random(f"weak/{seed}")
        goal, desk = goals_of(world)["s_pay_for"], Desk(world, POLICY=False)
        for _ in range(8):
            arguments = arguments_for(world, "pay_for", rng)
            if not changes_of(world, "pay_for", arguments):
                continue
            play = desk.start()
            if refusal_of(desk.scope["a_pay_for"], *arguments):
                seen["refused"] += 1
                continue
            seen["right" if goal(world.rows, play.diff(), *arguments) else "wrong"] += 1
    assert (seen["wrong"] + seen["refused"]) / sum(seen.values()) > 0.2, seen
    assert seen["wrong"]
    assert seen["refused"]


def test_an_actor_who_ignores_the_step_of_holds_is_told_wrong():
    world = world_of(3, with_holds=True, hold_step=25)
    users = [row for row in world.rows["account"] if row["account_type"] != "house"]
    account = max(users, key=plan_scope(world)["d_available_balance"])
    goal = goals_of(world)["s_place_hold"]
    for policy in (True, False):
        play = Play(world)
        plan_scope(world, call=play.call, POLICY=policy)["a_place_hold"](30, account, "2031-05-02")
        assert bool(goal(world.rows, play.diff(), 30, account, "2031-05-02")) == policy
        assert play.diff()[0]["new"]["amount"] == (50 if policy else 30)


# ----------------------------------------------------------------------------------------------------------- tools


@pytest.mark.parametrize("seed", range(6))
def test_every_write_tool_has_two_reachable_refusals(seed):
    world = world_of(
        seed,
        with_holds=True,
        fee_rate=10,
        checks_available=True,
        reversible="posted",
        reversible_days=2,
        send_limit=300,
    )
    play, nothing, scope = Play(world), missing(world), plan_scope(world)
    make, extra = write_tool(world, "make_"), {}
    if not world.rules["booked_by_tool"]:
        extra = {"fee": 3, "state": "posted"}
    source, target = f"source_{argument(world, 'account')}", f"target_{argument(world, 'account')}"
    users = sorted(
        (row for row in world.rows["account"] if row["account_type"] != "house"), key=scope["d_available_balance"]
    )
    house = next(row for row in world.rows["account"] if row["account_type"] == "house")
    poor, rich = users[0]["id"], users[-1]["id"]
    base = {source: rich, target: poor, "amount": 5, **extra}
    assert refused(play.call, make, **{**base, source: nothing}) == "not_found"
    assert refused(play.call, make, **{**base, target: nothing}) == "not_found"
    assert refused(play.call, make, **{**base, target: rich}) == "invalid"
    assert refused(play.call, make, **{**base, target: house["id"]}) == "invalid"
    assert refused(play.call, make, **{**base, "amount": 10**6}) == "conflict"
    limit = send_limits(world.rules)[users[-1]["account_type"]]
    if scope["d_available_balance"](users[-1]) > limit * 2:
        assert refused(play.call, make, **{**base, "amount": limit + 1}) == "conflict"
    settle, reverse, transfer = (
        write_tool(world, "settle_"),
        write_tool(world, "reverse_"),
        argument(world, "transfer"),
    )
    pending = next(row for row in world.rows["transfer"] if row["transfer_state"] == "pending")
    posted = [row for row in world.rows["transfer"] if row["transfer_state"] == "posted"]
    assert refused(play.call, settle, **{transfer: nothing}) == "not_found"
    assert refused(play.call, settle, **{transfer: posted[0]["id"]}) == "conflict"
    assert refused(play.call, reverse, **{transfer: nothing}) == "not_found"
    assert refused(play.call, reverse, **{transfer: pending["id"]}) == "conflict"
    old = next(row for row in posted if row["day"] < "2031-04-30")
    assert refused(play.call, reverse, **{transfer: old["id"]}) == "conflict"
    place, release = write_tool(world, "place_"), write_tool(world, "release_")
    account, hold = argument(world, "account"), argument(world, "hold")
    base = {account: rich, "amount": 5, "until": world.now[:10]}
    assert refused(play.call, place, **{**base, account: nothing}) == "not_found"
    assert refused(play.call, place, **{**base, account: house["id"]}) == "invalid"
    assert refused(play.call, place, **{**base, "until": "2031-05-01"}) == "invalid"
    assert refused(play.call, place, **{**base, "amount": 10**6}) == "conflict"
    live = play.call(place, **base)["id"]
    over = next(row for row in world.rows["hold"] if row["until"] < world.now[:10] and row["hold_state"] == "active")
    assert refused(play.call, release, **{hold: nothing}) == "not_found"
    assert refused(play.call, release, **{hold: over["id"]}) == "conflict"
    assert play.call(release, **{hold: live})["hold_state"] == "released"
    assert refused(play.call, release, **{hold: live}) == "conflict"


def test_money_that_was_spent_on_cannot_be_taken_back():
    world = world_of(1, with_holds=True, reversible="posted", reversible_days=0, overdrafts=False)
    play, scope = Play(world), plan_scope(world)
    column, key = world.fk("transfer", "target")
    takers = {row[key]: row for row in world.rows["account"]}
    row = next(row for row in world.rows["transfer"] if row["transfer_state"] == "posted")
    taker = takers[row[column]]
    left = scope["d_available_balance"](taker)
    play.call(
        write_tool(world, "place_"),
        **{argument(world, "account"): taker["id"], "amount": left, "until": "2031-05-09"},
    )
    assert refused(play.call, write_tool(world, "reverse_"), **{argument(world, "transfer"): row["id"]}) == "conflict"


@pytest.mark.parametrize("guarded", [True, False])
def test_only_a_guarded_tool_knows_what_is_held(guarded):
    world = world_of(
        4, with_holds=True, checks_available=guarded, overdrafts=False, fee_rate=0, send_limit=0, wait_above=300
    )
    scope, tool = plan_scope(world), write_tool(world, "place_")
    account = next(
        row for row in world.rows["account"] if scope["account_money"](row) > scope["d_available_balance"](row) > 0
    )
    play = Play(world)
    arguments = {
        argument(world, "account"): account["id"],
        "amount": scope["account_money"](account),
        "until": "2031-05-09",
    }
    if guarded:
        assert refused(play.call, tool, **arguments) == "conflict"
    else:
        play.call(tool, **arguments)
        assert len(play.diff()) == 1


# ------------------------------------------------------------------------------------------------------- structure


@pytest.mark.parametrize("seed", range(4))
def test_joined_with_booking_the_texts_still_agree_and_words_are_clear(seed):
    world = make_world([BOOKING, MECHANISM], seed)
    public_docs(world)
    rng = random.Random(f"joined/{seed}")
    for name in ("available_balance", "wealth"):
        compare(world, name, drawer(world, rng), rng, count=15)


def test_the_rules_give_many_structures():
    assert len({signature(world_of(seed)) for seed in range(40)}) >= 36


def test_every_derived_attribute_and_action_has_its_sentence():
    for seed in SEEDS:
        world = world_of(seed)
        public_docs(world)
        for item in [*world.derived.values(), *world.actions.values()]:
            assert item.policy in world.policy
            assert item.policy.endswith(".")
