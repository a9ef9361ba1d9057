"""Actions of a world of programmes: enrol, admit, deny, end; each with its three texts."""

from __future__ import annotations

from envsynth.author.procedural.ir import Type
from envsynth.author.procedural.mechanism import Action
from envsynth.author.procedural.mechanisms.eligibility.bindings import PERSON, PROGRAMME, Bindings

_PAIR = (("person", PERSON), ("programme", PROGRAMME))


class ActionTexts(Bindings):
    """Writes the actions over one world."""

    def pair_sql(self, states: tuple[str, ...]) -> str:
        """SQL condition that p and g have an enrolment in one of some states."""
        listed = ", ".join(repr(state) for state in states)
        return (
            f'EXISTS (SELECT 1 FROM "enrolment" e WHERE e."{self.person}" = p."{self.person_key}"'
            f' AND e."{self.programme}" = g."{self.programme_key}" AND e."state" IN ({listed}))'
        )

    def insert_sql(self, state: str, where: str) -> str:
        """SQL of the row that an action adds for {person} and {programme}."""
        return (
            f"SELECT 'insert', 'enrolment', json_object('{self.person}', p.\"{self.person_key}\","
            f" '{self.programme}', g.\"{self.programme_key}\", 'day', '{self.today}', 'state', {state})"
            f' FROM "person" p, "programme" g WHERE p."id" = {{person}} AND g."id" = {{programme}} AND {where}'
        )

    def insert_goal(self, name: str, checks: str, state: str) -> str:
        """Goal source that claims the row that an action adds."""
        return (
            f"def {name}(db, diff, person, programme):\n"
            f"{checks}"
            f"    cells = {{{self.person!r}: person[{self.person_key!r}],"
            f" {self.programme!r}: programme[{self.programme_key!r}], 'day': {self.today!r}, 'state': {state}}}\n"
            "    for entry in diff:\n"
            "        if entry['op'] == 'insert' and entry['table'] == 'enrolment':\n"
            "            if {**entry['new'], **cells} == entry['new']:\n"
            "                return [entry]\n"
            "    return None\n"
        )

    def enrol(self) -> Action:
        """Enrol an eligible person, on the waiting list when there is no place."""
        word = self.world.word
        person, programme, enrolment = word("person"), word("programme"), word("enrolment")
        where = f"{self.eligible_sql('p', 'g')} AND NOT {self.pair_sql(self.current)}"
        if self.most:
            where += (
                f' AND (SELECT COUNT(*) FROM "enrolment" c WHERE c."{self.person}" = p."{self.person_key}"'
                f" AND {self.current_sql('c')}) < {self.most}"
            )
        state_sql, state_plan, state_goal = "'enrolled'", "", "'enrolled'"
        checks = "    if not g_eligible(db, person, programme):\n        return None\n"
        if self.waitlist:
            state_sql = f"CASE WHEN {self.places_sql('g')} > 0 THEN 'enrolled' ELSE 'waiting' END"
            state_plan = ", state='enrolled' if not POLICY or d_places_left(programme) > 0 else 'waiting'"
            state_goal = "('waiting', 'enrolled')[g_places_left(db, programme) >= 1]"
        else:
            where += f" AND {self.places_sql('g')} > 0"
            checks += "    if g_places_left(db, programme) < 1:\n        return None\n"
        listed = " or ".join(self.current)
        policy = [
            f"Only a {person} who is eligible for a {programme} and has no {enrolment} in it whose state is {listed} may "
            "be enrolled in it."
        ]
        if self.most:
            policy.append(
                f"At any time a {person} may have at most {self.most} {self.world.plural('enrolment')} whose state is {listed}."
            )
        policy.append(
            f"The state of a new {enrolment} is enrolled while the {programme} has free capacity, and waiting when it has "
            "none."
            if self.waitlist
            else f"A {programme} without free capacity takes nobody."
        )
        return Action(
            name="enrol",
            phrase="enrol {person} in {programme}",
            params=_PAIR,
            oracle_sql=self.insert_sql(state_sql, where),
            plan=(
                f"{self.plan_places() if self.waitlist else ''}"
                "def a_enrol(person, programme):\n"
                f"    write({self.enrol_tool!r}, {self.arg('person')}=person['id'],"
                f" {self.arg('programme')}=programme['id']{state_plan})\n"
            ),
            goal=self.goal_eligible() + self.goal_places() + self.insert_goal("s_enrol", checks, state_goal),
            tables=("enrolment",),
            policy=" ".join(policy),
        )

    def deny(self) -> Action:
        """Put a refusal on record."""
        word = self.world.word
        person, programme, enrolment = word("person"), word("programme"), word("enrolment")
        taken = (*self.current, "denied")
        return Action(
            name="deny_entry",
            phrase="deny {person} entry to {programme}",
            params=_PAIR,
            oracle_sql=self.insert_sql("'denied'", f"NOT {self.eligible_sql('p', 'g')} AND NOT {self.pair_sql(taken)}"),
            plan=(
                "def a_deny_entry(person, programme):\n"
                f"    write({self.deny_tool!r}, {self.arg('person')}=person['id'],"
                f" {self.arg('programme')}=programme['id'])\n"
            ),
            goal=self.goal_eligible()
            + self.insert_goal(
                "s_deny_entry",
                "    if g_eligible(db, person, programme):\n        return None\n",
                "'denied'",
            ),
            tables=("enrolment",),
            policy=(
                f"To deny a {person} entry to a {programme} adds a {enrolment} whose state is denied. Only a {person} who is "
                f"not eligible for that {programme} and has no {enrolment} in it whose state is "
                f"{', '.join(taken[:-1])} or denied may be denied entry."
            ),
        )

    def end(self) -> Action:
        """End a current enrolment."""
        return Action(
            name="end_enrolment",
            phrase="end {enrolment}",
            params=(("enrolment", Type("row", "enrolment")),),
            oracle_sql=(
                "SELECT 'update', 'enrolment', json_object('id', e.\"id\", 'state', 'ended')"
                f' FROM "enrolment" e WHERE e."id" = {{enrolment}} AND {self.current_sql("e")}'
            ),
            plan=(
                "def a_end_enrolment(enrolment):\n"
                f"    write({self.end_tool!r}, {self.arg('enrolment')}=enrolment['id'])\n"
            ),
            goal=(
                "def s_end_enrolment(db, diff, enrolment):\n"
                "    for entry in diff:\n"
                "        if entry['op'] == 'update' and entry['table'] == 'enrolment':\n"
                "            if entry['new'] == {**enrolment, 'state': 'ended'}:\n"
                "                return [entry]\n"
                "    return None\n"
            ),
            tables=("enrolment",),
            policy=(
                f"Only a {self.world.word('enrolment')} whose state is {' or '.join(self.current)} can be ended; its state "
                "becomes ended."
            ),
        )

    def admit(self) -> Action:
        """Give a free place to whom has waited longest and is still eligible."""
        word = self.world.word
        programme = word("programme")
        return Action(
            name="admit_next",
            phrase="admit the next from the waiting list of {programme}",
            params=(("programme", PROGRAMME),),
            oracle_sql=(
                "SELECT 'update', 'enrolment', json_object('id', \"next\".\"id\", 'state', 'enrolled') FROM"
                f' (SELECT e."id" FROM "enrolment" e JOIN "programme" g ON g."{self.programme_key}" = e."{self.programme}"'
                f' JOIN "person" p ON p."{self.person_key}" = e."{self.person}"'
                f' WHERE g."id" = {{programme}} AND e."state" = \'waiting\' AND {self.places_sql("g")} > 0'
                f' AND {self.eligible_sql("p", "g")} ORDER BY e."day", e."id" LIMIT 1) "next"'
            ),
            plan=(
                self.plan_eligible() + "def a_admit_next(programme):\n"
                f"    queue = rows('enrolment', {{{self.programme!r}: programme[{self.programme_key!r}]}})\n"
                "    queue = [e for e in queue if e['state'] == 'waiting']\n"
                "    if POLICY:\n"
                "        queue = sorted(queue, key=lambda e: e['day'])\n"
                "    for e in queue:\n"
                f"        if d_eligible(named('person', {self.person_key!r}, e[{self.person!r}]), programme):\n"
                f"            write({self.admit_tool!r}, {self.arg('enrolment')}=e['id'])\n"
                "            return\n"
                "    raise RuntimeError('nobody eligible waits')\n"
            ),
            goal=(
                self.goal_eligible() + self.goal_places() + "def s_admit_next(db, diff, programme):\n"
                "    good = eligible_pairs()\n"
                f"    persons = {{p[{self.person_key!r}]: p['id'] for p in db['person']}}\n"
                "    days = {}\n"
                "    for e in db['enrolment']:\n"
                f"        mine = e[{self.programme!r}] == programme[{self.programme_key!r}] and e['state'] == 'waiting'\n"
                f"        if mine and (persons[e[{self.person!r}]], programme['id']) in good:\n"
                "            days[e['id']] = e['day']\n"
                "    if not days or g_places_left(db, programme) < 1:\n"
                "        return None\n"
                "    for entry in diff:\n"
                "        if entry['op'] == 'update' and entry['table'] == 'enrolment' and entry['changed'] == ['state']:\n"
                "            if entry['new']['state'] == 'enrolled' and days.get(entry['new']['id']) == min(days.values()):\n"
                "                return [entry]\n"
                "    return None\n"
            ),
            tables=("enrolment",),
            policy=(
                f"The next from the waiting list of a {programme} is the one with the earliest entry day among its "
                f"{self.world.plural('enrolment')} whose state is waiting and whose {word('person')} is still eligible for "
                f"the {programme}; of several with that day any will do. It becomes enrolled; that needs free capacity."
            ),
        )
