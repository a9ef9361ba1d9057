"""Rows of a subscription world: plans, subscriptions, pauses and charges that keep every rule."""

from __future__ import annotations

import random
from calendar import monthrange
from datetime import date, timedelta
from typing import Any

from envsynth.author.procedural.mechanism import Composed, Row
from envsynth.author.procedural.mechanisms.entities import skewed
from envsynth.author.procedural.mechanisms.subscription.bindings import contract_states

ANCHORS = (31, 31, 31, 30, 30, 29, 29, 28, 1, 1, 2, 15, 15)
"""Anchor days, the awkward ones often; some subscriptions take any other day."""


def billing_day(anchor: int, month: int) -> date:
    """The billing day in a month that is counted from the year 0."""
    year, number = month // 12, month % 12 + 1
    return date(year, number, min(anchor, monthrange(year, number)[1]))


def month_of(day: date) -> int:
    """The month of a day, counted from the year 0."""
    return day.year * 12 + day.month - 1


class Subscribers:
    """Fills the tables: pauses of one subscription never overlap, states fit the days, charges fall on billing days."""

    def __init__(self, world: Composed, rng: random.Random) -> None:
        self.world, self.rng, self.rules = world, rng, world.rules
        self.today = date.fromisoformat(world.now[:10])
        self.column, self.key = world.fk("contract", "tariff")
        self.spans: dict[int | str, list[tuple[date, date]]] = {}
        self.taken: set[tuple[int | str, date]] = set()

    def ahead(self, low: int, high: int) -> date:
        """A day so many days from today."""
        return self.today + timedelta(days=self.rng.randint(low, high))

    def fill(self) -> None:
        """Append plans, subscriptions, by rule pauses, and charges to the world."""
        world, rng = self.world, self.rng
        count = rng.randint(20, 24)
        prices: dict[int, None] = {}
        while len(prices) < count:
            prices[max(9, int(rng.lognormvariate(4.3, 0.7)))] = None
        self.prices = list(prices)
        world.fill(rng, "tariff", count, self.tariff)
        # Cheap plans are popular.
        self.popular = sorted(world.rows["tariff"], key=lambda row: int(row["price"]) * rng.uniform(0.6, 1.6))
        self.people = rng.sample(world.rows["person"], len(world.rows["person"]))
        states = contract_states(self.rules)
        weights = {"trial": 3, "active": 26, "paused": 3, "suspended": 2, "ended": 3}
        # One of each state, so that no state is only a word.
        self.states = [*states, *rng.choices(states, [weights[state] for state in states], k=rng.randint(34, 46))]
        world.fill(rng, "contract", len(self.states), self.contract)
        self.contracts = world.rows["contract"]
        if self.rules["sub_pauses"]:
            pauses = [(row, *self.present()) for row in self.contracts if row["contract_state"] == "paused"]
            for row, first, last in pauses:
                self.spans.setdefault(row["id"], []).append((first, last))
            pauses += [self.other_pause() for _ in range(max(0, 26 + rng.randint(0, 12) - len(pauses)))]
            rng.shuffle(pauses)

            def freeze(index: int) -> dict[str, Any]:
                row, first, last = pauses[index]
                return {"contract": row, "start": first.isoformat(), "until": last.isoformat()}

            world.fill(rng, "freeze", len(pauses), freeze)
        self.fill_charges()

    def tariff(self, index: int) -> dict[str, Any]:
        """Draw a plan."""
        rng = self.rng
        return {
            "price": self.prices[index],
            "refundable": 28 if rng.random() < 0.4 else rng.randint(5, 27),
            "longest_pause": rng.choice([2, 3, 4, 6, 6, 6]),
            "grace": rng.randint(2, 12),
            "seats": rng.randint(1, 12),
        }

    def contract(self, index: int) -> dict[str, Any]:
        """Draw a subscription in its state: one on trial began some days ago, one that ended has no days to come."""
        rng, state = self.rng, self.states[index]
        if state == "trial":
            # A trial comes before the first billing day, or begins with the subscription.
            first = self.ahead(3, 20) if self.rules["sub_anchor"] == "first_bill" else self.ahead(-20, -1)
        else:
            anchor = rng.choice(ANCHORS) if rng.random() < 0.75 else rng.randint(1, 31)
            month = month_of(self.today) - rng.randint(4, 9)
            while monthrange(month // 12, month % 12 + 1)[1] < anchor:
                month -= 1
            first = billing_day(anchor, month)
        until = self.ahead(100, 700)
        if state == "ended":
            until = max(first + timedelta(days=20), self.ahead(-200, 0))
        return {
            "holder": skewed(rng, self.people, 0.09),
            "tariff": skewed(rng, self.popular, 0.2),
            "start": first.isoformat(),
            "first_bill": first.isoformat(),
            "until": until.isoformat(),
            "contract_state": state,
        }

    def present(self) -> tuple[date, date]:
        """Draw a pause that goes on today."""
        return self.ahead(-40, 0), self.ahead(0, 45)

    def other_pause(self) -> tuple[Row, date, date]:
        """Draw a past or coming pause beside those of its subscription; only a present one makes the state paused."""
        able = [row for row in self.contracts if row["contract_state"] != "trial"]
        while True:
            row = skewed(self.rng, able, 0.06)
            coming = row["contract_state"] in ("active", "paused") and self.rng.random() < 0.15
            first = self.ahead(1, 70) if coming else self.ahead(-330, -8)
            last = first + timedelta(days=self.rng.choice([4, 9, 13, 20, 27, 30, 45, 61]))
            spans = self.spans.setdefault(row["id"], [])
            begun = str(row[self.rules["sub_anchor"]]) <= first.isoformat()
            over = coming or last < min(self.today, date.fromisoformat(str(row["until"])))
            if begun and over and all(last < start or until < first for start, until in spans):
                spans.append((first, last))
                return row, first, last

    # charges ----------------------------------------------------------------------------------------------------

    def grace(self, contract: Row) -> int:
        """Days of grace of a subscription."""
        if self.rules["sub_grace_by"] == "all":
            return int(self.rules["sub_grace"])
        return int(self.tariff_of(contract)["grace"])

    def tariff_of(self, contract: Row) -> Row:
        """The plan of a subscription."""
        return next(row for row in self.world.rows["tariff"] if row[self.key] == contract[self.column])

    def monthly(self, contract: Row) -> tuple[date, int] | None:
        """Draw a past billing day that has no charge yet; None if the draw does not fit."""
        anchor = date.fromisoformat(str(contract[self.rules["sub_anchor"]])).day
        day = billing_day(anchor, month_of(self.today) - min(int(self.rng.expovariate(0.45)), 11))
        begun = date.fromisoformat(str(contract[self.rules["sub_anchor"]]))
        if not begun <= day <= min(self.today, date.fromisoformat(str(contract["until"]))):
            return None
        if (contract["id"], day) in self.taken:
            return None
        self.taken.add((contract["id"], day))
        # A few charges are of the time before a change of plan.
        price = int(self.tariff_of(contract)["price"])
        if self.rng.random() < 0.15:
            price = self.rng.choice([int(row["price"]) for row in self.popular if int(row["price"]) <= price])
        return day, price

    def coming(self, contract: Row) -> dict[str, Any] | None:
        """The charge of the next billing day, sent ahead; None where the subscription does not last until then."""
        anchor = date.fromisoformat(str(contract[self.rules["sub_anchor"]])).day
        day = billing_day(anchor, month_of(self.today))
        if day <= self.today:
            day = billing_day(anchor, month_of(self.today) + 1)
        if day.isoformat() > str(contract["until"]):
            return None
        return self.charge(contract, day, int(self.tariff_of(contract)["price"]), "monthly", "open")

    def fill_charges(self) -> None:
        """Append monthly charges, some of them sent ahead, charges for changes of plan, and by rule refunds."""
        rng, drawn = self.rng, list[dict[str, Any]]()
        able = [row for row in self.contracts if row["contract_state"] != "trial"]
        active = [row for row in able if row["contract_state"] == "active"]
        overdue = rng.sample(active, 3)
        for row in able:
            if row["contract_state"] == "suspended" or row in overdue:
                late = self.today - timedelta(days=self.grace(row) + rng.choice([1, 2, 20]))
                drawn.append(self.charge(row, late, rng.randint(5, 60), "change", "open"))
        ahead = [self.coming(row) for row in rng.sample(active, len(active) // 2)]
        drawn += [one for one in ahead if one is not None]
        wanted = rng.randint(102, 110)
        while len(drawn) < wanted:
            row = skewed(rng, able, 0.045)
            if rng.random() < 0.12:
                day, state = self.ahead(-150, -20), "paid"
                if rng.random() < 0.6:
                    day, state = self.today - timedelta(days=self.grace(row) + rng.choice([-2, -1, 0, 0, 1])), "open"
                drawn.append(self.charge(row, day, max(1, int(rng.lognormvariate(2.6, 0.8))), "change", state))
            elif (found := self.monthly(row)) is not None:
                recent = (self.today - found[0]).days <= self.grace(row)
                state = "open" if rng.random() < (0.4 if recent else 0.04) else "paid"
                drawn.append(self.charge(row, *found, "monthly", state))
        drawn += self.refunds(drawn)
        rng.shuffle(drawn)
        self.world.fill(rng, "charge", len(drawn), drawn.__getitem__)

    def charge(self, contract: Row, day: date, amount: int, kind: str, state: str) -> dict[str, Any]:
        """Cells of a charge of which nothing was refunded."""
        return {
            "contract": contract,
            "day": day.isoformat(),
            "amount": amount,
            "charge_kind": kind,
            "charge_state": state,
            "given_back": 0,
        }

    def refunds(self, drawn: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Refund some monthly charges in place; return the rows that this adds."""
        paid = [one for one in drawn if one["charge_kind"] == "monthly" and one["charge_state"] == "paid"]
        added: list[dict[str, Any]] = []
        for one in self.rng.sample(paid, len(paid) // 9):
            contract, day = one["contract"], date.fromisoformat(one["day"])
            anchor = date.fromisoformat(str(contract[self.rules["sub_anchor"]])).day
            whole = (billing_day(anchor, month_of(day) + 1) - day).days
            days = self.rng.randint(1, int(self.tariff_of(contract)["refundable"]))
            extra = {"down": 0, "up": whole - 1, "half": whole // 2}[self.rules["sub_round"]]
            share = (one["amount"] * days + extra) // whole
            one["charge_state"], one["given_back"] = "refunded", share
            if self.rules["sub_refund_rows"]:
                back = min(self.today, day + timedelta(days=self.rng.randint(1, 60)))
                added.append(self.charge(contract, back, share, "refund", "paid"))
        return added
