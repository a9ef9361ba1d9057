"""What order means among requests: of two that exclude one another one at most is granted, and no fund is overspent."""

from __future__ import annotations

import random

from envsynth.author.procedural.mechanism import Breach, Composed, Norm, Row
from envsynth.author.procedural.mechanisms.allocation.goals import GoalTexts
from envsynth.author.procedural.mechanisms.allocation.plans import PlanTexts
from envsynth.author.procedural.mechanisms.planting import Planting


class NormTexts(PlanTexts, GoalTexts):
    """Writes the norm over one world."""

    def __init__(self, world: Composed) -> None:
        super().__init__(world)
        self.claim = world.word("claim")
        self.repair = f"revoke the {self.claim}"

    def norm(self) -> Norm:
        """All rules of a request."""
        return Norm(entity="claim", breaches=(self.exclusion(), self.overspent()))

    def exclusion(self) -> Breach:
        """Of two granted requests that exclude one another, the one with less merit."""
        return Breach(
            name="exclusion",
            rule=f"it is granted and a granted {self.claim} with more merit excludes it",
            sql=(
                '({t}."state" = \'granted\' AND EXISTS (SELECT 1 FROM "claim" o WHERE o."state" = \'granted\''
                f' AND o."merit" > {{t}}."merit" AND {self.excludes_sql("{t}", "o")}))'
            ),
            plan=(
                self.plan_rivals() + "def p_claim_exclusion(row):\n"
                "    if row['state'] != 'granted':\n"
                "        return False\n"
                "    found = rivals(row)\n"
                "    if not CHECKS:\n"
                "        return len(found) > 0\n"
                "    found = [other for other in found if not POLICY or other['state'] == 'granted']\n"
                "    return len([other for other in found if other['merit'] > row['merit']]) > 0\n"
            ),
            goal=(
                self.goal_foes() + "@once\n"
                "def beaten_claims():\n"
                "    merits = {claim['id']: claim['merit'] for claim in db['claim'] if claim['state'] == 'granted'}\n"
                "    rivals = foes()\n"
                "    return {key for key in merits if any(merits.get(other, 0) > merits[key] for other in rivals[key])}\n"
                "def v_claim_exclusion(db, row):\n"
                "    return row['id'] in beaten_claims()\n"
            ),
            repair=self.repair,
            action="revoke_claim",
            parameter="claim",
            plant=self.plant_exclusion,
        )

    def overspent(self) -> Breach:
        """Of the granted requests of a fund that has spent more than it has, the one with the least merit."""
        fund = self.world.word("fund")
        return Breach(
            name="overspent",
            rule=(
                f"it is granted, the free budget of its {fund} is below 0, and every other granted {self.claim} of that "
                f"{fund} has more merit"
            ),
            sql=(
                f'({{t}}."state" = \'granted\' AND (SELECT {self.room_sql("g")} FROM "fund" g'
                f' WHERE g."{self.fund_key}" = {{t}}."{self.fund}") < 0 AND NOT EXISTS (SELECT 1 FROM "claim" o'
                f' WHERE o."state" = \'granted\' AND o."{self.fund}" = {{t}}."{self.fund}" AND o."id" <> {{t}}."id"'
                ' AND o."merit" <= {t}."merit"))'
            ),
            plan=(
                self.plan_room() + "def p_claim_overspent(row):\n"
                "    if row['state'] != 'granted':\n"
                "        return False\n"
                f"    fund = named('fund', {self.fund_key!r}, row[{self.fund!r}])\n"
                "    if CHECKS and d_free_budget(fund) >= 0:\n"
                "        return False\n"
                f"    for other in rows('claim', {{{self.fund!r}: row[{self.fund!r}]}}):\n"
                "        if other['state'] == 'granted' and other['id'] != row['id'] and other['merit'] <= row['merit']:\n"
                "            return False\n"
                "    return True\n"
            ),
            goal=(
                self.goal_purses() + "@once\n"
                "def too_dear_claims():\n"
                f"    red = {{fund[{self.fund_key!r}] for fund in db['fund'] if purses()[fund['id']] < 0}}\n"
                "    found = set()\n"
                "    for key in red:\n"
                f"        mine = [c for c in db['claim'] if c[{self.fund!r}] == key and c['state'] == 'granted']\n"
                "        low = min([c['merit'] for c in mine], default=0)\n"
                "        least = [c['id'] for c in mine if c['merit'] == low]\n"
                "        found.update(least if len(least) == 1 else ())\n"
                "    return found\n"
                "def v_claim_overspent(db, row):\n"
                "    return row['id'] in too_dear_claims()\n"
            ),
            repair=self.repair,
            action="revoke_claim",
            parameter="claim",
            plant=self.plant_overspent,
        )

    # ------------------------------------------------------------------------------------------------------ planting

    def of_state(self, *states: str) -> list[Row]:
        """Requests in one of some states."""
        return [row for row in self.world.rows["claim"] if row["state"] in states]

    def keep_apart(self, planting: Planting, one: Row, other: Row) -> None:
        """Let two requests exclude one another; requests of one topic do so already."""
        if not self.topics:
            ends = {self.first: one[self.first_key], self.second: other[self.second_key]}
            planting.add("clash", planting.rng.choice(self.world.rows["clash"]), **ends)

    def plant_exclusion(self, rng: random.Random) -> list[tuple[str, Row]]:
        """A granted request beside a better one that it excludes; near misses: one that is refused, one that is open."""
        planting = Planting(self.world, rng)
        better = planting.pick([row for row in self.of_state("granted") if int(row["merit"]) > 3], "granted request")
        merit = rng.randint(1, int(better["merit"]) - 1)
        cells = {"merit": merit, "amount": rng.randint(3, 12), "filed": self.world.now[:10]}
        holder = {self.person: rng.choice(self.world.rows["person"])[self.person_key]}
        self.keep_apart(planting, planting.add("claim", better, **cells, **holder), better)
        for state in ("refused", self.ready):
            near = planting.add_early("claim", better, **{**cells, "state": state, "merit": max(1, merit - 1)})
            self.keep_apart(planting, better, near)
        return planting.rows

    def free_budget(self, fund: Row) -> int:
        """What a fund has left."""
        rows, money = self.world.rows, int(fund["budget"])
        for share in rows.get("share", []):
            if share[self.paid] == fund[self.paid_key] and (self.shares != "paid" or share["stage"] == "paid"):
                money += int(share["amount"])
        money -= -(-money * self.reserve // 100)
        for row in self.of_state("granted"):
            if row[self.fund] == fund[self.fund_key]:
                money -= int(row["amount"]) + -(-int(row["amount"]) * self.overhead // 100)
        return money

    def plant_overspent(self, rng: random.Random) -> list[tuple[str, Row]]:
        """A granted request of little merit that a fund cannot pay; near misses: as dear ones that are not granted."""
        planting = Planting(self.world, rng)
        fund = planting.pick(self.world.rows["fund"], "fund")
        mine = [row for row in self.of_state("granted") if row[self.fund] == fund[self.fund_key]]
        lowest = min((int(row["merit"]) for row in mine), default=30)
        base = planting.pick(self.of_state("refused", "revoked"), "request that was refused")
        cells = {
            self.fund: fund[self.fund_key],
            "amount": max(1, self.free_budget(fund) + rng.randint(1, 40)),
            "merit": max(1, lowest - rng.randint(1, 5)),
            "filed": self.world.now[:10],
        }
        planting.add("claim", base, **cells, state="granted")
        for state in ("revoked", self.ready):
            planting.add_early("claim", base, **cells, state=state)
        return planting.rows
