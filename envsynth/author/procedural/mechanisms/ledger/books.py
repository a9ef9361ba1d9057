"""Rows of a ledger world: accounts, transfers and holds that keep every rule."""

from __future__ import annotations

import random
from datetime import date, timedelta
from typing import Any

from envsynth.author.procedural.mechanism import Composed, Row
from envsynth.author.procedural.mechanisms.entities import skewed
from envsynth.author.procedural.mechanisms.ledger.bindings import OPEN_TYPES, fee_rates, send_limits


class Books:
    """Fills the books: nothing is spent that is not available, no daily limit is exceeded, both sides are entered."""

    def __init__(self, world: Composed, rng: random.Random) -> None:
        self.world, self.rng, self.rules = world, rng, world.rules
        self.today = date.fromisoformat(world.now[:10])
        self.rates, self.limits = fee_rates(world.rules), send_limits(world.rules)
        self.kinds: dict[int | str, str] = {}
        self.balance: dict[int | str, int] = {}
        self.spare: dict[int | str, int] = {}
        self.sent: dict[tuple[int | str, str], int] = {}

    def day(self, ahead: int) -> str:
        """A day as ISO text."""
        return (self.today + timedelta(days=ahead)).isoformat()

    def fill(self) -> None:
        """Append accounts, transfers and, by rule, holds to the world."""
        world, rng = self.world, self.rng
        opening = [max(60, int(rng.lognormvariate(6.1, 0.7))) for _ in range(rng.randint(32, 44))]
        people = rng.sample(world.rows["person"], len(world.rows["person"]))

        def account(index: int) -> dict[str, Any]:
            kind = OPEN_TYPES[index % 3] if index else "house" if self.rules["fee_rate"] else "business"
            return {
                "owner": skewed(rng, people, 0.08),
                "account_type": kind,
                "opening": opening[index],
                "balance": opening[index],
                "overdraft": rng.choice([0, 0, 50, 100, 200]),
                "opened": self.day(-rng.randint(30, 900)),
            }

        world.fill(rng, "account", len(opening), account)
        for index, row in enumerate(world.rows["account"]):
            self.kinds[row["id"]] = str(row["account_type"])
            self.balance[row["id"]] = opening[index]
            self.spare[row["id"]] = opening[index] + int(row.get("overdraft", 0))
        world.fill(rng, "transfer", rng.randint(80, 110), self.transfer)
        if self.rules["with_holds"]:
            world.fill(rng, "hold", rng.randint(34, 48), self.hold)
        if self.rules["stored_balance"]:
            for row in world.rows["account"]:
                row["balance"] = self.balance[row["id"]]

    def transfer(self, _: int) -> dict[str, Any]:
        """Draw one transfer that keeps every rule and enter it."""
        rng, rules = self.rng, self.rules
        users = [row for row in self.world.rows["account"] if self.kinds[row["id"]] != "house"]
        while True:
            source, target = skewed(rng, users, 0.06), rng.choice(users)
            amount, day = self.amount(), self.day(-min(int(rng.expovariate(0.5)), 5))
            fee = self.fee(source, amount)
            left = self.sent.get((source["id"], day), 0) + amount + fee
            fits = not rules["send_limit"] or left <= self.limits[self.kinds[source["id"]]]
            if source is not target and fits and amount + fee <= self.spare[source["id"]]:
                break
        waits = amount > rules["wait_above"]
        state = rng.choices(("pending", "posted", "reversed"), [3, 1, 1] if waits else [0, 4, 1])[0]
        cost = amount + fee
        if state != "reversed":
            self.sent[source["id"], day] = left
            self.spare[source["id"]] -= cost
        if state == "posted":
            self.balance[source["id"]] -= cost
            self.balance[target["id"]] += amount
            self.spare[target["id"]] += amount
            house = next((row["id"] for row in self.world.rows["account"] if self.kinds[row["id"]] == "house"), None)
            if house is not None:
                self.balance[house] += fee
                self.spare[house] += fee
        return {
            "source": source,
            "target": target,
            "amount": amount,
            "fee": fee,
            "day": day,
            "transfer_state": state,
        }

    def amount(self) -> int:
        """Draw an amount: mostly small, now and then just at the limit above which a transfer waits."""
        limit = int(self.rules["wait_above"])
        if self.rng.random() < 0.35:
            return self.rng.choice([limit, limit + 1, limit + self.rng.randint(5, 60)])
        return max(5, int(self.rng.lognormvariate(3.9, 0.6)))

    def fee(self, source: Row, amount: int) -> int:
        """Fee of an amount."""
        rules = self.rules
        if not rules["fee_rate"]:
            return 0
        share = amount * self.rates[self.kinds[source["id"]]]
        return max(rules["fee_floor"], (share + 999) // 1000 if rules["fee_up"] else share // 1000)

    def hold(self, _: int) -> dict[str, Any]:
        """Draw one hold; one that is live fits into what is available."""
        rng, step = self.rng, int(self.rules["hold_step"])
        users = [row for row in self.world.rows["account"] if self.kinds[row["id"]] != "house"]
        while True:
            account = skewed(rng, users, 0.05)
            amount = -(-max(10, int(rng.lognormvariate(4.0, 0.6))) // step) * step
            ahead = rng.choice([-5, -2, -1, 0, 0, 1, 3, 8])
            state = rng.choices(("active", "released"), [4, 1])[0]
            live = state == "active" and ahead >= 0
            if not live or amount <= self.spare[account["id"]]:
                break
        if live:
            self.spare[account["id"]] -= amount
        return {"account": account, "amount": amount, "until": self.day(ahead), "hold_state": state}
