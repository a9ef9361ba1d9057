"""Derived attributes of a world of funds, each with its sentence and three texts."""

from __future__ import annotations

from envsynth.author.procedural.ir import Type
from envsynth.author.procedural.mechanism import Derived
from envsynth.author.procedural.mechanisms.allocation.bindings import CREDITS, POINTS
from envsynth.author.procedural.mechanisms.allocation.goals import GoalTexts
from envsynth.author.procedural.mechanisms.allocation.plans import PlanTexts


class DerivedTexts(PlanTexts, GoalTexts):
    """Writes the derived attributes over one world."""

    def exclusion_policy(self) -> str:
        """When two requests exclude one another."""
        word, plural = self.world.word, self.world.plural
        if self.topics:
            how = f"if they have the same {word('topic')}"
        else:
            how = f"if a {word('clash')} names both of them, in either order"
        return f"Two {plural('claim')} exclude one another {how}, whatever their {plural('fund')} are."

    def together_policy(self) -> str:
        """When several requests can be granted together."""
        word, plural = self.world.word, self.world.plural
        held: list[str] = []
        if self.quota != "none":
            held.append(f"every {word('quota')}")
        if self.holder:
            held.append(f"the limit on the {plural('claim')} of one {word('person')}")
        kept = f", and {' and '.join(held)} would be kept with all of them granted" if held else ""
        joint = "" if held else "and "
        return (
            f"Several {plural('claim')} of a {word('fund')} can be granted together if each of them is grantable, no two "
            f"of them exclude one another, {joint}their {self.cost_words}s add up to no more than the free budget "
            f"of the {word('fund')}{kept}."
        )

    def turn_down_policy(self) -> str:
        """What can be turned down."""
        claim = self.world.word("claim")
        return f"Only a {claim} whose state is {' or '.join(self.undecided)} can be turned down; its state is refused then."

    def full_cost(self) -> Derived:
        """What a request costs its fund."""
        word = self.world.word("claim")
        return Derived(
            entity="claim",
            name="full_cost",
            label="full cost",
            type=CREDITS,
            sql=self.cost_sql("{t}"),
            plan=self.plan_cost() + "def d_full_cost(row):\n    return claim_cost(row)\n",
            goal=self.goal_charges() + "def g_full_cost(db, row):\n    return charges()[row['id']]\n",
            policy=(
                f"The full cost of a {word} is its amount plus an overhead of {self.overhead} percent of the amount, the "
                "overhead rounded up to whole credits."
            ),
        )

    def free_budget(self) -> Derived:
        """What a fund can still grant."""
        word, plural = self.world.word, self.world.plural
        base = "its budget"
        if self.shares != "none":
            stage = " whose stage is paid" if self.shares == "paid" else ""
            base += f" plus the amounts of its {plural('share')}{stage}"
        if self.reserve:
            base += f", less a reserve of {self.reserve} percent of that, the reserve rounded up to whole credits"
        return Derived(
            entity="fund",
            name="free_budget",
            label="free budget",
            type=CREDITS,
            sql=self.room_sql("{t}"),
            plan=self.plan_room(),
            goal=self.goal_purses() + "def g_free_budget(db, row):\n    return purses()[row['id']]\n",
            policy=(
                f"The free budget of a {word('fund')} is {base}, less the {self.cost_words}s of its granted "
                f"{plural('claim')}; nothing else lowers it."
            ),
        )

    def grantable(self) -> Derived:
        """Whether a request can be granted, taken by itself."""
        return Derived(
            entity="claim",
            name="grantable",
            label="grantable",
            type=Type("bool"),
            sql=self.grantable_sql("{t}"),
            plan=self.plan_grantable(),
            goal=self.goal_grantable(),
            policy=self.grantable_policy(),
        )

    def grantable_policy(self) -> str:
        """What grantable means."""
        word, plural = self.world.word, self.world.plural
        claim, fund = word("claim"), word("fund")
        parts = [f"its state is {self.ready}"]
        if self.phases:
            parts.append(f"the phase of its {fund} is open")
        if self.bar:
            parts.append(f"its merit is at least the minimum merit of its {fund}")
        parts.append(f"its {self.cost_words} is at most the free budget of its {fund}")
        parts.append(f"no granted {claim} excludes it")
        if self.quota != "none":
            what = f"the granted {plural('claim')} of the same {fund} and track"
            how = f"with it, {what} are no more in number than"
            if self.quota != "count":
                how = f"its amount and those of {what} add up to no more than"
            parts.append(f"{how} the ceiling of the {word('quota')} for that {fund} and track, if there is one")
        if self.holder:
            parts.append(
                f"its applicant has fewer than {self.holder} granted {plural('claim')} in all {plural('fund')} together"
            )
        return f"A {claim} is grantable if all of this holds: {'; '.join(parts)}."

    def attainable(self) -> Derived:
        """The most merit that a fund can buy."""
        word, plural = self.world.word, self.world.plural
        return Derived(
            entity="fund",
            name="attainable",
            label="attainable merit",
            type=POINTS,
            sql=f'(WITH RECURSIVE {self.sets_sql("{t}")} SELECT MAX("merit") FROM "sets")',
            plan=(self.plan_best() + "def d_attainable(row):\n    return merit_of(best_claims(row))\n"),
            goal=(self.goal_peak() + f"def g_attainable(db, row):\n    return peak_merit(row[{self.fund_key!r}])\n"),
            policy=(
                f"The attainable merit of a {word('fund')} is the most that the merits of any of its {plural('claim')} "
                "that can be granted together add up to, 0 if none can be granted."
            ),
        )

    def awarded(self) -> Derived:
        """What a person was granted."""
        person, claims = self.world.word("person"), self.world.plural("claim")
        return Derived(
            entity="person",
            name="awarded",
            label="awarded money",
            type=CREDITS,
            sql=(
                f'(SELECT COALESCE(SUM(k."amount"), 0) FROM "claim" k WHERE k."state" = \'granted\''
                f' AND k."{self.person}" = {{t}}."{self.person_key}")'
            ),
            plan=(
                "def d_awarded(row):\n"
                f"    mine = rows('claim', {{{self.person!r}: row[{self.person_key!r}]}})\n"
                "    return sum([c['amount'] for c in mine if not POLICY or c['state'] == 'granted'])\n"
            ),
            goal=(
                "@once\n"
                "def money_of_people():\n"
                "    money = {}\n"
                "    for claim in db['claim']:\n"
                "        if claim['state'] == 'granted':\n"
                f"            holder = claim[{self.person!r}]\n"
                "            money[holder] = money.get(holder, 0) + claim['amount']\n"
                "    return money\n"
                "def g_awarded(db, row):\n"
                f"    return money_of_people().get(row[{self.person_key!r}], 0)\n"
            ),
            policy=(
                f"The awarded money of a {person} is the sum of the amounts, without any overhead, of the granted "
                f"{claims} of that {person}."
                if self.overhead
                else f"The awarded money of a {person} is the sum of the amounts of the granted {claims} of that "
                f"{person}."
            ),
        )
