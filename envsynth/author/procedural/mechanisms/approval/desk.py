"""Rows of an approval world: posts, delegations, and requests whose decisions keep every rule."""

from __future__ import annotations

import random
from datetime import date, timedelta
from typing import Any

from envsynth.author.procedural.mechanism import Composed, Row
from envsynth.author.procedural.mechanisms.approval.bindings import HEAVY, HEAVY_POINTS, KINDS, STEP
from envsynth.author.procedural.mechanisms.entities import skewed


class Desk:
    """Fills posts and delegations, then requests in order, with decisions by those who may decide them."""

    def __init__(self, world: Composed, rng: random.Random) -> None:
        self.world, self.rng, self.rules = world, rng, world.rules
        self.today = date.fromisoformat(world.now[:10])
        self.people = list(world.rows["person"])
        self.own: dict[int | str, int] = {row["id"]: 0 for row in self.people}
        self.lent: list[tuple[Row, Row]] = []
        self.decisions: list[tuple[int, Row, str, str]] = []

    def day(self, ahead: int) -> str:
        """The day so many days after today."""
        return (self.today + timedelta(days=ahead)).isoformat()

    def fill(self) -> None:
        """Append all rows."""
        self.posts()
        if self.rules["delegations"]:
            self.delegations()
        self.requests()

    def posts(self) -> None:
        """Append posts; under single posts each person has one at most."""
        rng, people = self.rng, self.people
        holders = rng.sample(people, max(20, len(people) * 4 // 5))
        if self.rules["many_posts"]:
            holders = [*holders, *(skewed(rng, holders, 0.12) for _ in range(len(people) // 2))]
            rng.shuffle(holders)

        def post(index: int) -> dict[str, Any]:
            level = int(rng.betavariate(1.4, 1.2) * 90) + 8
            if rng.random() < 0.2:  # exactly, or one short of, what some requests need
                level = self.rules["base_level"] + rng.randrange(4) * STEP - rng.choice([0, 0, 1])
            ends = rng.choice([-40, -9, -1, 0, 12, 60, 150, 200, 300, 365])
            if not self.rules["terms"] or ends >= 0:
                key = holders[index]["id"]
                self.own[key] = max(self.own[key], level)
            return {"holder": holders[index], "level": level, "until": self.day(ends)}

        self.world.fill(rng, "post", len(holders), post)

    def delegations(self) -> None:
        """Append delegations of different pairs; high levels are lent more often."""
        rng = self.rng
        ranked = sorted(self.people, key=lambda row: -self.own[row["id"]])
        pairs: dict[tuple[int | str, int | str], tuple[Row, Row]] = {}
        for _ in range(rng.randint(22, 34)):
            giver, taker = skewed(rng, ranked, 0.12), rng.choice(self.people)
            if giver is not taker:
                pairs.setdefault((giver["id"], taker["id"]), (giver, taker))
        chosen = list(pairs.values())

        def delegation(index: int) -> dict[str, Any]:
            giver, taker = chosen[index]
            ends = rng.choice([-30, -7, -1, 0, 3, 6, 10, 14, 20, 30, 45])
            if ends >= 0:
                self.lent.append((giver, taker))
            return {"giver": giver, "taker": taker, "until": self.day(ends)}

        self.world.fill(rng, "delegation", len(chosen), delegation)

    def requests(self) -> None:
        """Append requests, then their decisions in mixed order."""
        rng = self.rng
        made = [self.request(index) for index in range(rng.randint(60, 84))]

        def request(index: int) -> dict[str, Any]:
            return made[index]

        self.world.fill(rng, "request", len(made), request)
        rows = self.world.rows["request"]
        rng.shuffle(self.decisions)

        def decision(index: int) -> dict[str, Any]:
            number, person, verdict, day = self.decisions[index]
            return {"request": rows[number], "decider": person, "verdict": verdict, "day": day}

        self.world.fill(rng, "decision", len(self.decisions), decision)

    def amount(self) -> int:
        """Draw an amount: log-normal, one in four at or beside a limit."""
        rng, rules = self.rng, self.rules
        if rng.random() < 0.25:
            limits = (rules["limit_low"], rules["limit_mid"], rules["limit_high"], rules["double_from"])
            return rng.choice(limits) + rng.choice([-1, 0, 0, 1])
        return max(15, int(rng.lognormvariate(5.8, 0.9)))

    def request(self, index: int) -> dict[str, Any]:
        """Draw one request and note its decisions."""
        rng, rules = self.rng, self.rules
        requester, amount, kind = skewed(rng, self.people, 0.07), self.amount(), rng.choice(KINDS)
        stage = rng.choices(["draft", "submitted", "approved", "rejected"], [30, 42, 19, 9])[0]
        if stage == "draft" and not rules["drafts"]:
            stage = "submitted"
        petty = rules["drafts"] and amount <= rules["petty"]
        if petty and stage != "draft":
            stage = "approved"
        if stage == "submitted":
            filed = -rng.choice([0, 2, 4, 6, rules["lapse_days"] - 1, rules["lapse_days"], rules["lapse_days"] + 1])
            due = rng.choice([-3, -1, 0, 1, 4, 8, 15, 30])
        else:
            filed = -rng.randint(0, 45)
            due = rng.randint(-2, 25) if stage == "draft" else filed + rng.randint(10, 30)
        if stage != "draft" and not petty:
            stage = self.decide(index, requester, amount, kind, stage, filed)
        return {
            "requester": requester,
            "amount": amount,
            "kind": kind,
            "day": self.day(filed),
            "due": self.day(due),
            "stage": stage,
        }

    def decide(self, index: int, requester: Row, amount: int, kind: str, stage: str, filed: int) -> str:
        """Note decisions that lead to a stage; a request that too few may decide stays submitted."""
        rng, rules = self.rng, self.rules
        able = self.able(requester, amount, kind)
        signatures = 2 if amount >= rules["double_from"] else 1
        verdicts = {
            "approved": ["approve"] * signatures,
            "rejected": [*["approve"] * rng.randint(0, signatures - 1), "reject"],
            "submitted": ["approve"] * (signatures - 1 if rng.random() < 0.6 else 0),
        }[stage]
        if rules["abstentions"] and rng.random() < 0.35:
            verdicts = ["abstain", *verdicts]
        if len(able) < len(verdicts):
            return "submitted"
        for person, verdict in zip(rng.sample(able, len(verdicts)), verdicts, strict=True):
            # Half of the decisions are as old as the request, so that some approvals have gone stale.
            when = filed if rng.random() < 0.5 else -rng.randint(0, -filed)
            self.decisions.append((index, person, verdict, self.day(when)))
        return stage

    def able(self, requester: Row, amount: int, kind: str) -> list[Row]:
        """Persons whose level suffices, apart from the requester and from what the requester has lent."""
        rules = self.rules
        limits = [rules["limit_low"], rules["limit_mid"], rules["limit_high"]]
        needed = rules["base_level"] + STEP * sum(amount > limit - rules["from_limit"] for limit in limits)
        needed += HEAVY_POINTS * (rules["contract_level"] and kind == HEAVY)
        found: list[Row] = []
        for person in self.people:
            lent = [
                self.own[giver["id"]] - rules["lent_loss"]
                for giver, taker in self.lent
                if taker is person and giver is not requester
            ]
            if person is not requester and max([self.own[person["id"]], *lent]) >= needed:
                found.append(person)
        return found
