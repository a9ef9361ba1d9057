"""What order means among enrolments: nobody is in a programme twice, and no programme has more than its places."""

from __future__ import annotations

import random
from datetime import date, timedelta

from envsynth.author.procedural.mechanism import Breach, Composed, Norm, Row
from envsynth.author.procedural.mechanisms.eligibility.bindings import Bindings
from envsynth.author.procedural.mechanisms.planting import Planting


class NormTexts(Bindings):
    """Writes the norm over one world."""

    def __init__(self, world: Composed) -> None:
        super().__init__(world)
        self.enrolment = world.word("enrolment")
        self.repair = f"end the {self.enrolment}"

    def norm(self) -> Norm:
        """All rules of an enrolment."""
        return Norm(entity="enrolment", breaches=(self.double(), self.overfull()))

    def double(self) -> Breach:
        """The later one of two current enrolments of a person in a programme."""
        word, states = self.world.word, " or ".join(self.current)
        return Breach(
            name="double",
            rule=(
                f"its state is {states}, and the same {word('person')} has another {self.enrolment} in the same "
                f"{word('programme')} with an earlier entry day whose state is {states}"
            ),
            sql=(
                f'({self.current_sql("{t}")} AND EXISTS (SELECT 1 FROM "enrolment" o WHERE {self.current_sql("o")}'
                f' AND o."{self.person}" = {{t}}."{self.person}" AND o."{self.programme}" = {{t}}."{self.programme}"'
                ' AND o."day" < {t}."day"))'
            ),
            plan=(
                "def p_enrolment_double(row):\n"
                f"    if row['state'] not in {self.current}:\n"
                "        return False\n"
                f"    for e in rows('enrolment', {{{self.person!r}: row[{self.person!r}]}}):\n"
                f"        if e['id'] == row['id'] or (POLICY and e['state'] not in {self.current}):\n"
                "            continue\n"
                "        if not CHECKS:\n"
                "            return True\n"
                f"        if e[{self.programme!r}] == row[{self.programme!r}] and e['day'] < row['day']:\n"
                "            return True\n"
                "    return False\n"
            ),
            goal=(
                "@once\n"
                "def first_entries():\n"
                "    first = {}\n"
                "    for e in db['enrolment']:\n"
                f"        pair = e[{self.person!r}], e[{self.programme!r}]\n"
                f"        if e['state'] in {list(self.current)}:\n"
                "            first[pair] = min(e['day'], first.get(pair, e['day']))\n"
                "    return first\n"
                "def v_enrolment_double(db, row):\n"
                f"    first = first_entries().get((row[{self.person!r}], row[{self.programme!r}]), row['day'])\n"
                f"    return first < row['day'] and row['state'] in {list(self.current)}\n"
            ),
            repair=self.repair,
            action="end_enrolment",
            parameter="enrolment",
            plant=self.plant_double,
        )

    def overfull(self) -> Breach:
        """The latest entry of a programme in which more are enrolled than it has places."""
        programme = self.world.word("programme")
        return Breach(
            name="overfull",
            rule=(
                f"its state is enrolled, more {self.world.plural('enrolment')} of its {programme} have that state than the "
                f"{programme} has places, and all others of these have an earlier entry day"
            ),
            sql=(
                f'({{t}}."state" = \'enrolled\' AND (SELECT {self.places_sql("g")} FROM "programme" g'
                f' WHERE g."{self.programme_key}" = {{t}}."{self.programme}") < 0 AND NOT EXISTS (SELECT 1 FROM'
                f' "enrolment" o WHERE o."state" = \'enrolled\' AND o."{self.programme}" = {{t}}."{self.programme}"'
                ' AND o."id" <> {t}."id" AND o."day" >= {t}."day"))'
            ),
            plan=(
                "def p_enrolment_overfull(row):\n"
                "    if row['state'] != 'enrolled':\n"
                "        return False\n"
                f"    mine = rows('enrolment', {{{self.programme!r}: row[{self.programme!r}]}})\n"
                "    mine = [e for e in mine if not POLICY or e['state'] == 'enrolled']\n"
                "    if [e for e in mine if e['id'] != row['id'] and e['day'] >= row['day']]:\n"
                "        return False\n"
                f"    programme = named('programme', {self.programme_key!r}, row[{self.programme!r}])\n"
                "    return not CHECKS or len(mine) > programme['places']\n"
            ),
            goal=(
                "@once\n"
                "def surplus_entries():\n"
                "    found = set()\n"
                "    for g in db['programme']:\n"
                f"        mine = [e for e in db['enrolment'] if e[{self.programme!r}] == g[{self.programme_key!r}]]\n"
                "        days = {e['id']: e['day'] for e in mine if e['state'] == 'enrolled'}\n"
                "        last = [key for key, day in days.items() if day == max(days.values())]\n"
                "        if len(days) > g['places'] and len(last) == 1:\n"
                "            found.update(last)\n"
                "    return found\n"
                "def v_enrolment_overfull(db, row):\n"
                "    return row['id'] in surplus_entries()\n"
            ),
            repair=self.repair,
            action="end_enrolment",
            parameter="enrolment",
            plant=self.plant_overfull,
        )

    # ------------------------------------------------------------------------------------------------------ planting

    def later(self, day: str, days: int) -> str:
        """So many days after a day."""
        return (date.fromisoformat(day) + timedelta(days=days)).isoformat()

    def plant_double(self, rng: random.Random) -> list[tuple[str, Row]]:
        """A second enrolment of a person; near misses: an ended one of another pair's person, of earlier and later days."""
        planting = Planting(self.world, rng)
        rows = self.world.rows["enrolment"]
        first = planting.pick([row for row in rows if row["state"] == self.current[-1]], "current enrolment")
        planting.add("enrolment", first, day=self.later(str(first["day"]), rng.randint(1, 9)))
        other = planting.pick([row for row in rows if row["state"] in self.current and row is not first], "enrolment")
        for days in (-7, 6):
            planting.add_early("enrolment", other, state="ended", day=self.later(str(other["day"]), days))
        return planting.rows

    def plant_overfull(self, rng: random.Random) -> list[tuple[str, Row]]:
        """One more in a full programme; near misses: one in a programme that is full with it, and an ended one."""
        planting = Planting(self.world, rng)
        inside: dict[int | str, list[Row]] = {}
        for row in self.world.rows["enrolment"]:
            if row["state"] == "enrolled":
                inside.setdefault(row[self.programme], []).append(row)
        room = {
            programme[self.programme_key]: int(programme["places"]) - len(inside.get(programme[self.programme_key], []))
            for programme in self.world.rows["programme"]
        }
        full = rng.choice(inside[planting.pick_key([key for key in inside if not room[key]], "full programme")])
        persons = {
            row[self.person] for row in self.world.rows["enrolment"] if row[self.programme] == full[self.programme]
        }
        free = [p for p in self.world.rows["person"] if p[self.person_key] not in persons]
        newcomer = planting.pick(free, "person outside")[self.person_key]
        last = max(str(row["day"]) for row in inside[full[self.programme]])
        planting.add("enrolment", full, day=self.later(last, rng.randint(1, 9)), **{self.person: newcomer})
        planting.add_early("enrolment", full, day=last, state="ended", **{self.person: newcomer})
        almost = [key for key in inside if room[key] == 1]
        if almost:
            base = rng.choice(inside[rng.choice(almost)])
            taken = {
                row[self.person] for row in self.world.rows["enrolment"] if row[self.programme] == base[self.programme]
            }
            others = [p[self.person_key] for p in self.world.rows["person"] if p[self.person_key] not in taken]
            if others:
                planting.add_early("enrolment", base, **{self.person: rng.choice(others)})
        return planting.rows
