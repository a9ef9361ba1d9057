"""Derived attributes of a world of programmes, each with its sentence and three texts."""

from __future__ import annotations

from envsynth.author.procedural.ir import Type
from envsynth.author.procedural.mechanism import Derived
from envsynth.author.procedural.mechanisms.eligibility.bindings import CREDITS, PEOPLE, PROGRAMME, Bindings


class DerivedTexts(Bindings):
    """Writes the derived attributes over one world."""

    def standing_policy(self) -> str:
        """Which standing counts, and what its conditions are."""
        word = self.world.word
        person, programme, standing = word("person"), word("programme"), word("standing")
        which = f"the {standing} of the {person}"
        parts = [f"A {person} has at most one {standing}."]
        if self.history:
            which = f"the latest {standing} of the {person}"
            parts = [f"Of the {self.world.plural('standing')} of a {person} only the latest counts, by its day."]
        parts.append(
            f"A {programme} has a score condition, met if {which} has a score of at least the minimum score, and a "
            "seniority condition, met if it has a seniority of at least the minimum seniority."
        )
        if self.residence:
            parts.append(
                f"A {programme} of scope local also has a residence condition, met if {which} has residence local; one "
                "of scope open has none."
            )
        parts.append(f"A {person} without a {standing} meets no condition.")
        return " ".join(parts)

    def eligible_policy(self) -> str:
        """What eligible means, with what takes precedence over what."""
        word = self.world.word
        person, programme = word("person"), word("programme")
        both, one = "both the score and the seniority condition", "the score or the seniority condition or both"
        need = {
            "both": f"meets {both}",
            "any": f"meets {one}",
            "each": f"meets {both} where its combination is both, or {one} where its combination is any",
        }
        text = f"A {person} is eligible for a {programme} if the {person} {need[self.combine]}"
        text += ", and the residence condition where there is one." if self.residence else "."
        if self.waivers != "none":
            waiver = word("waiver")
            where = f" for that {programme}" if self.waived_at else f", at every {programme}"
            live = f", unless the last day of the {waiver} lies before today, {self.today}" if self.waiver_dated else ""
            text += f" A condition that a {waiver} of the {person} waives counts as met{where}{live}."
        if self.bans != "none":
            what = f"that {programme}" if self.banned_at else f"any {programme}"
            which = f"a {word('ban')} for a {programme}" if self.banned_at else f"a {word('ban')}"
            over = f", whatever {self.world.plural('waiver')} say" if self.waivers != "none" else ""
            text += (
                f" A {person} with {which} whose last day is today, {self.today}, or later is not eligible for "
                f"{what}{over}."
            )
        if self.final:
            text += f" Nor is a {person} with a denied {word('enrolment')} in a {programme} eligible for it."
        return text

    def eligible(self) -> Derived:
        """Whether a person may enter a programme."""
        return Derived(
            entity="person",
            name="eligible",
            label="eligible for {0}",
            params=(PROGRAMME,),
            type=Type("bool"),
            sql=f'EXISTS (SELECT 1 FROM "programme" g WHERE g."id" = {{0}} AND {self.eligible_sql("{t}", "g")})',
            plan=self.plan_eligible(),
            goal=self.goal_eligible(),
            policy=f"{self.standing_policy()} {self.eligible_policy()}",
        )

    def places_left(self) -> Derived:
        """Free places of a programme."""
        programme, enrolments = self.world.word("programme"), self.world.plural("enrolment")
        return Derived(
            entity="programme",
            name="places_left",
            label="free capacity",
            type=PEOPLE,
            sql=self.places_sql("{t}"),
            plan=self.plan_places(),
            goal=self.goal_places(),
            policy=(
                f"The free capacity of a {programme} is its place count less the number of its {enrolments} whose state is "
                "enrolled."
            ),
        )

    def benefit(self) -> Derived:
        """What a person draws from all programmes."""
        return Derived(
            entity="person",
            name="benefit",
            label="drawn benefit",
            type=CREDITS,
            sql=self.benefit_sql(),
            plan=self.benefit_plan(),
            goal=self.benefit_goal(),
            policy=self.benefit_policy(),
        )

    def benefit_policy(self) -> str:
        """What the drawn benefit is."""
        person = self.world.word("person")
        kept = f" and for which the {person} is eligible" if self.kept_only else ""
        most = f", but never more than {self.ceiling} credits" if self.ceiling else ""
        return (
            f"The drawn benefit of a {person} is the sum of the benefits of all {self.world.plural('programme')} in which the {person} has a "
            f"{self.world.word('enrolment')} whose state is enrolled{kept}{most}."
        )

    def benefit_sql(self) -> str:
        """SQL of the drawn benefit."""
        kept = f" AND {self.eligible_sql('{t}', 'g')}" if self.kept_only else ""
        total = (
            f'(SELECT COALESCE(SUM(g."benefit"), 0) FROM "enrolment" e JOIN "programme" g'
            f' ON g."{self.programme_key}" = e."{self.programme}"'
            f' WHERE e."{self.person}" = {{t}}."{self.person_key}" AND e."state" = \'enrolled\'{kept})'
        )
        return f"MIN({self.ceiling}, {total})" if self.ceiling else total

    def benefit_plan(self) -> str:
        """Planner source of `d_benefit`."""
        kept = "            if POLICY and not d_eligible(row, g):\n                continue\n" if self.kept_only else ""
        most = f"    if POLICY:\n        total = min(total, {self.ceiling})\n" if self.ceiling else ""
        return (
            f"{self.plan_eligible() if self.kept_only else ''}"
            "def d_benefit(row):\n"
            f"    programmes = {{g[{self.programme_key!r}]: g for g in rows('programme', {{}})}}\n"
            "    total = 0\n"
            f"    for e in rows('enrolment', {{{self.person!r}: row[{self.person_key!r}]}}):\n"
            "        if not POLICY or e['state'] == 'enrolled':\n"
            f"            g = programmes[e[{self.programme!r}]]\n"
            f"{kept}"
            "            total += g['benefit']\n"
            f"{most}"
            "    return total\n"
        )

    def benefit_goal(self) -> str:
        """Goal source of `g_benefit`."""
        kept = " and (p['id'], g['id']) in good" if self.kept_only else ""
        return (
            f"{self.goal_eligible() if self.kept_only else ''}"
            "@once\n"
            "def drawn_benefits():\n"
            f"{'    good = eligible_pairs()' + chr(10) if self.kept_only else ''}"
            f"    inside = {{(e[{self.person!r}], e[{self.programme!r}]) for e in db['enrolment']"
            " if e['state'] == 'enrolled'}\n"
            "    return {\n"
            "        p['id']: sum(\n"
            "            g['benefit']\n"
            "            for g in db['programme']\n"
            f"            if (p[{self.person_key!r}], g[{self.programme_key!r}]) in inside{kept}\n"
            "        )\n"
            "        for p in db['person']\n"
            "    }\n"
            "def g_benefit(db, row):\n"
            "    drawn = drawn_benefits()[row['id']]\n"
            f"    return {f'drawn if drawn < {self.ceiling} else {self.ceiling}' if self.ceiling else 'drawn'}\n"
        )

    def lapsed(self) -> Derived:
        """Whether a current enrolment has lost its ground."""
        word = self.world.word
        state = " or ".join(self.current)
        return Derived(
            entity="enrolment",
            name="lapsed",
            label="lapsed",
            type=Type("bool"),
            sql=(
                f'({self.current_sql("{t}")} AND NOT EXISTS (SELECT 1 FROM "person" p, "programme" g'
                f' WHERE p."{self.person_key}" = {{t}}."{self.person}"'
                f' AND g."{self.programme_key}" = {{t}}."{self.programme}" AND {self.eligible_sql("p", "g")}))'
            ),
            plan=(
                self.plan_eligible() + "def d_lapsed(row):\n"
                f"    if row['state'] not in {self.current}:\n"
                "        return False\n"
                f"    person = named('person', {self.person_key!r}, row[{self.person!r}])\n"
                f"    return not d_eligible(person, named('programme', {self.programme_key!r}, row[{self.programme!r}]))\n"
            ),
            goal=(
                self.goal_eligible() + "@once\n"
                "def lapsed_enrolments():\n"
                f"    persons = {{p[{self.person_key!r}]: p['id'] for p in db['person']}}\n"
                f"    programmes = {{g[{self.programme_key!r}]: g['id'] for g in db['programme']}}\n"
                "    good = eligible_pairs()\n"
                "    return {\n"
                "        e['id']\n"
                "        for e in db['enrolment']\n"
                f"        if (persons[e[{self.person!r}]], programmes[e[{self.programme!r}]]) not in good\n"
                "    }\n"
                "def g_lapsed(db, row):\n"
                f"    return row['state'] in {list(self.current)} and row['id'] in lapsed_enrolments()\n"
            ),
            policy=(
                f"Eligibility is judged as of today. A {word('enrolment')} whose state is {state} is lapsed if its "
                f"{word('person')} is not eligible for its {word('programme')} any more; it stays as it is until it is "
                "ended."
            ),
        )
