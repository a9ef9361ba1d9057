"""Rows of a world of funds: a season of requests, partly decided, with budgets that are tight for the rest."""

from __future__ import annotations

import random
from datetime import date, timedelta
from typing import Any

from envsynth.author.procedural.mechanism import Composed, Row
from envsynth.author.procedural.mechanisms.allocation.bindings import SHORTLIST, TRACKS, Bindings
from envsynth.author.procedural.mechanisms.entities import fill_people, skewed

_Draft = dict[str, Any]


class Season(Bindings):
    """Fills one world; everything that is granted keeps budgets, exclusions, quotas and the limit per person."""

    def __init__(self, world: Composed, rng: random.Random) -> None:
        super().__init__(world)
        self.rng = rng
        self.today = date.fromisoformat(world.now[:10])
        self.drafts: list[_Draft] = []
        self.pairs: list[tuple[int, int]] = []

    def fill(self) -> None:
        """Fill every table."""
        world, rng = self.world, self.rng
        fill_people(world, rng)
        world.fill(rng, "fund", rng.randint(6, 8), self.new_fund)
        self.draft_claims()
        self.keep_apart()
        self.decide()
        if self.topics:
            self.fill_topics()
        world.fill(rng, "claim", len(self.drafts), self.drafts.__getitem__)
        if not self.topics:
            self.fill_clashes()
        if self.shares != "none":
            self.fill_shares()
        if self.quota != "none":
            self.fill_quotas()
        self.set_budgets()

    def new_fund(self, index: int) -> _Draft:
        """A fund whose budget follows from its requests; the second one is closed where funds can be."""
        return {
            "budget": 0,
            "phase": "closed" if index == 1 else "open",
            "bar": self.rng.randint(18, 30),
            "trustee": skewed(self.rng, self.world.rows["person"], 0.2),
        }

    def draft_claims(self) -> None:
        """Requests by fund: some still to be decided, the more decided ones the earlier the fund stands."""
        rng = self.rng
        for index, fund in enumerate(self.world.rows["fund"]):
            ready = rng.randint(5, SHORTLIST - 1)
            waiting = rng.randint(1, 2) if self.stages else 0
            done = max(3, rng.randint(9, 14) // (index + 1))
            kinds = [self.ready] * ready + ["open"] * waiting + ["decided"] * done
            self.drafts += [self.new_claim(fund, kind) for kind in kinds]
        rng.shuffle(self.drafts)

    def new_claim(self, fund: Row, kind: str) -> _Draft:
        """A request; dearer ones have more merit on the whole, which is what makes the choice hard."""
        rng = self.rng
        amount = min(420, max(20, int(rng.lognormvariate(4.7, 0.5))))
        merit = 8 + int(amount * rng.uniform(0.45, 1.3)) // 3
        if self.bar and rng.random() < 0.15:
            merit = int(fund["bar"]) - rng.choice([0, 1])
        return {
            "fund": fund,
            "person": skewed(rng, self.world.rows["person"], 0.04),
            "amount": amount,
            "merit": merit,
            "track": TRACKS[min(int(rng.expovariate(0.7)), len(TRACKS) - 1)],
            "filed": (
                self.today - timedelta(days=rng.choice([rng.randint(1, 60), self.grace, self.grace + 1]))
            ).isoformat(),
            "state": kind,
        }

    def keep_apart(self) -> None:
        """Draw exclusions, mostly inside a fund: pairs of requests, or a topic of each."""
        rng, drafts = self.rng, self.drafts
        if self.topics:
            topics = 0
            for index, draft in enumerate(drafts):
                near = [other for other in drafts[:index] if other["fund"] is draft["fund"] or rng.random() < 0.04]
                if near and rng.random() < 0.28:
                    draft["topic"] = rng.choice(near)["topic"]
                else:
                    draft["topic"], topics = topics, topics + 1
            return
        found: dict[tuple[int, int], None] = {}
        while len(found) < len(drafts) * 2 // 5:
            left, right = sorted(rng.sample(range(len(drafts)), 2))
            if drafts[left]["fund"] is drafts[right]["fund"] or rng.random() < 0.03:
                found[left, right] = None
        self.pairs = list(found)

    def apart(self, one: int, other: int) -> bool:
        """Whether two drafts exclude one another."""
        if self.topics:
            return self.drafts[one]["topic"] == self.drafts[other]["topic"]
        return (min(one, other), max(one, other)) in self.pairs

    def decide(self) -> None:
        """Grant decided requests one by one while exclusions and the limit per person allow; refuse or revoke the rest."""
        granted: list[int] = []
        lost = 0
        for index, draft in enumerate(self.drafts):
            if draft["state"] != "decided":
                continue
            held = sum(self.drafts[other]["person"] is draft["person"] for other in granted)
            free = not any(self.apart(index, other) for other in granted) and not (self.holder and held >= self.holder)
            if free and self.rng.random() < 0.75:
                draft["state"] = "granted"
                granted.append(index)
            else:
                lost += 1
                draft["state"] = "refused" if lost % 3 else "revoked"

    def fill_topics(self) -> None:
        """A row for each topic that the drafts know by number."""

        def topic(_: int) -> _Draft:
            return {}

        self.world.fill(self.rng, "topic", 1 + max(int(draft["topic"]) for draft in self.drafts), topic)
        for draft in self.drafts:
            draft["topic"] = self.world.rows["topic"][draft["topic"]]

    def fill_clashes(self) -> None:
        """The drawn pairs, each either way round."""
        claims = self.world.rows["claim"]

        def clash(index: int) -> _Draft:
            ends = [claims[number] for number in self.pairs[index]]
            self.rng.shuffle(ends)
            return {"first": ends[0], "second": ends[1]}

        self.world.fill(self.rng, "clash", len(self.pairs), clash)

    def fill_shares(self) -> None:
        """What persons pay into funds."""
        rng, rows = self.rng, self.world.rows

        def share(_: int) -> _Draft:
            return {
                "fund": skewed(rng, rows["fund"], 0.3),
                "giver": rng.choice(rows["person"]),
                "amount": rng.randint(1, 9) * 5,
                "stage": "paid" if rng.random() < 0.6 else "pledged",
            }

        self.world.fill(rng, "share", rng.randint(24, 40), share)

    def claims_of(self, fund: Row, state: str) -> list[Row]:
        """Requests of a fund in a state."""
        rows = self.world.rows["claim"]
        return [row for row in rows if row[self.fund] == fund[self.fund_key] and row["state"] == state]

    def fill_quotas(self) -> None:
        """One quota per fund and track for most tracks: what is granted, and little more."""
        rng = self.rng
        places = [(fund, track) for fund in self.world.rows["fund"] for track in TRACKS]
        places = rng.sample(places, max(20, len(places) * 6 // 7))

        def quota(index: int) -> _Draft:
            fund, track = places[index]
            done = [row for row in self.claims_of(fund, "granted") if row["track"] == track]
            left = [int(row["amount"]) for row in self.claims_of(fund, self.ready) if row["track"] == track]
            if self.quota == "count":
                return {"fund": fund, "track": track, "most": len(done) + rng.choice([0, 1, 2, 2, 3])}
            some = sum(rng.sample(left, min(len(left), rng.choice([1, 2, 3])))) - rng.choice([0, 0, 1])
            return {"fund": fund, "track": track, "most": sum(int(row["amount"]) for row in done) + max(10, some)}

        self.world.fill(rng, "quota", len(places), quota)

    def cost(self, claim: Row) -> int:
        """What a request costs."""
        return int(claim["amount"]) + -(-int(claim["amount"]) * self.overhead // 100)

    def set_budgets(self) -> None:
        """Leave each fund what some requests cost that could be granted: just enough for them, or one credit less."""
        rng = self.rng
        for fund in self.world.rows["fund"]:
            ready = self.claims_of(fund, self.ready)
            aimed = rng.sample(ready, max(2, len(ready) * 2 // 5))
            left = sum(self.cost(row) for row in aimed) - rng.choice([0, 0, 1, 7])
            spent = sum(self.cost(row) for row in self.claims_of(fund, "granted"))
            money = -(-(left + spent) * 100 // (100 - self.reserve))
            for row in self.world.rows.get("share", []):
                if row[self.paid] == fund[self.paid_key] and row.get("stage", "paid") == "paid":
                    money -= int(row["amount"])
            fund["budget"] = max(60, money)
