"""What the texts of a world of programmes have in common: column names and rules of one world, and SQL pieces."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from envsynth.author.procedural.ir import Type
from envsynth.author.procedural.mechanism import Composed
from envsynth.author.procedural.mechanisms.entities import id_argument

PROGRAMME = Type("row", "programme")
PERSON = Type("row", "person")
CREDITS = Type("num", "credits")
PEOPLE = Type("num", "people")


def states(rules: Mapping[str, Any]) -> tuple[str, ...]:
    """States that an enrolment can have under these rules."""
    waiting = ("waiting",) if rules["enrolment_waitlist"] else ()
    denied = ("denied",) if rules["enrolment_denials"] != "none" else ()
    return ("enrolled", *waiting, *denied, "ended")


def current_states(rules: Mapping[str, Any]) -> tuple[str, ...]:
    """States in which an enrolment is current."""
    return ("enrolled", "waiting") if rules["enrolment_waitlist"] else ("enrolled",)


def conditions(rules: Mapping[str, Any]) -> tuple[str, ...]:
    """Conditions that a waiver can override."""
    return ("score", "seniority", "residence") if rules["programme_residence"] else ("score", "seniority")


class Bindings:
    """The texts over one composed world: column names, nouns and rules are bound here."""

    def __init__(self, world: Composed) -> None:
        self.world, rules = world, world.rules
        self.judged, self.judged_key = world.fk("standing", "person")
        self.person, self.person_key = world.fk("enrolment", "person")
        self.programme, self.programme_key = world.fk("enrolment", "programme")
        self.most, self.waitlist = int(rules["enrolment_most"]), rules["enrolment_waitlist"]
        self.denials, self.final = rules["enrolment_denials"] != "none", rules["enrolment_denials"] == "final"
        self.strict = rules["enrolment_strict"]
        self.combine, self.residence = rules["programme_combine"], rules["programme_residence"]
        self.history = rules["standing_history"]
        self.ceiling, self.kept_only = int(rules["benefit_ceiling"]), rules["benefit_while_eligible"]
        self.current = current_states(rules)
        self.waivers, self.waiver_dated = rules["programme_waivers"], rules["waiver_dated"]
        self.bans = rules["programme_bans"]
        self.today = world.now[:10]
        none = ("", "")
        self.waived, self.waived_key = world.fk("waiver", "person") if self.waivers != "none" else none
        self.waived_at, self.waived_at_key = world.fk("waiver", "programme") if self.waivers == "one" else none
        self.banned, self.banned_key = world.fk("ban", "person") if self.bans != "none" else none
        self.banned_at, self.banned_at_key = world.fk("ban", "programme") if self.bans == "one" else none
        self.enrol_tool = f"enrol_in_{world.slug('programme')}"
        self.deny_tool = f"deny_entry_to_{world.slug('programme')}"
        self.end_tool = f"end_{world.slug('enrolment')}"
        self.admit_tool = f"admit_{world.slug('enrolment')}"

    def arg(self, entity: str) -> str:
        """Name of the tool argument that takes an id."""
        return id_argument(self.world, entity)

    # SQL --------------------------------------------------------------------------------------------------------

    def current_sql(self, enrolment: str) -> str:
        """SQL condition that an enrolment is current."""
        return f'{enrolment}."state" IN ({", ".join(repr(state) for state in self.current)})'

    def met_sql(self, person: str, programme: str, condition: str, test: str) -> str:
        """SQL condition that a standing passes the test on alias `s`, or that the condition is waived."""
        latest = ""
        if self.history:
            latest = (
                f' AND s."day" = (SELECT MAX(x."day") FROM "standing" x'
                f' WHERE x."{self.judged}" = {person}."{self.judged_key}")'
            )
        met = (
            f'EXISTS (SELECT 1 FROM "standing" s WHERE s."{self.judged}" = {person}."{self.judged_key}"{latest}'
            f" AND {test})"
        )
        if self.waivers == "none":
            return met
        where = f'w."{self.waived}" = {person}."{self.waived_key}" AND w."waives" = \'{condition}\''
        if self.waived_at:
            where += f' AND w."{self.waived_at}" = {programme}."{self.waived_at_key}"'
        if self.waiver_dated:
            where += f" AND w.\"until\" >= '{self.today}'"
        return f'({met} OR EXISTS (SELECT 1 FROM "waiver" w WHERE {where}))'

    def eligible_sql(self, person: str, programme: str) -> str:
        """SQL condition on the aliases of a person and a programme."""
        score = self.met_sql(person, programme, "score", f's."score" >= {programme}."minimum_score"')
        years = self.met_sql(person, programme, "seniority", f's."seniority" >= {programme}."minimum_seniority"')
        if self.combine == "each":
            held = f"CASE {programme}.\"combine\" WHEN 'both' THEN {score} AND {years} ELSE {score} OR {years} END"
        else:
            held = f"{score} {'AND' if self.combine == 'both' else 'OR'} {years}"
        parts = [f"({held})"]
        if self.residence:
            local = self.met_sql(person, programme, "residence", "s.\"residence\" = 'local'")
            parts.append(f"({programme}.\"scope\" = 'open' OR {local})")
        if self.bans != "none":
            where = f'b."{self.banned}" = {person}."{self.banned_key}" AND b."until" >= \'{self.today}\''
            if self.banned_at:
                where += f' AND b."{self.banned_at}" = {programme}."{self.banned_at_key}"'
            parts.append(f'NOT EXISTS (SELECT 1 FROM "ban" b WHERE {where})')
        if self.final:
            parts.append(
                f'NOT EXISTS (SELECT 1 FROM "enrolment" d WHERE d."{self.person}" = {person}."{self.person_key}"'
                f' AND d."{self.programme}" = {programme}."{self.programme_key}" AND d."state" = \'denied\')'
            )
        return f"({' AND '.join(parts)})"

    def places_sql(self, programme: str) -> str:
        """SQL of the free places."""
        return (
            f'({programme}."places" - (SELECT COUNT(*) FROM "enrolment" n'
            f' WHERE n."{self.programme}" = {programme}."{self.programme_key}" AND n."state" = \'enrolled\'))'
        )

    # planner ----------------------------------------------------------------------------------------------------

    def plan_eligible(self) -> str:
        """Planner source of `d_eligible`; without the rules it knows conditions only, and the first standing."""
        link = f"{{{self.judged!r}: row[{self.judged_key!r}]}}"
        source = (
            "def d_eligible(row, programme):\n"
            f"    found = rows('standing', {link})\n"
            f"{self._plan_latest()}"
            "    met = {'score': False, 'seniority': False, 'residence': False}\n"
            "    if found:\n"
            "        met['score'] = found[0]['score'] >= programme['minimum_score']\n"
            "        met['seniority'] = found[0]['seniority'] >= programme['minimum_seniority']\n"
        )
        if self.residence:
            source += (
                "        met['residence'] = found[0]['residence'] == 'local'\n"
                "    if programme['scope'] == 'open':\n"
                "        met['residence'] = True\n"
            )
        source += self._plan_exceptions()
        both, one = "met['score'] and met['seniority']", "met['score'] or met['seniority']"
        held = {"both": both, "any": one, "each": f"({both}) if programme['combine'] == 'both' else ({one})"}
        local = " and met['residence']" if self.residence else ""
        return source + f"    enough = {held[self.combine]}\n    return enough{local}\n"

    def _plan_latest(self) -> str:
        if not self.history:
            return ""
        return "    if POLICY:\n        found = sorted(found, key=lambda s: s['day'], reverse=True)\n"

    def _plan_exceptions(self) -> str:
        """Lines that let waivers, bans and denials change what is met; skipped without the rules."""
        source = ""
        if self.waivers != "none":
            tests: list[str] = []
            if self.waived_at:
                tests.append(f"w[{self.waived_at!r}] == programme[{self.waived_at_key!r}]")
            if self.waiver_dated:
                tests.append(f"w['until'] >= {self.today!r}")
            only = f" if {' and '.join(tests)}" if tests else ""
            source += (
                "    if POLICY:\n"
                f"        waivers = rows('waiver', {{{self.waived!r}: row[{self.waived_key!r}]}})\n"
                f"        for waives in [w['waives'] for w in waivers{only}]:\n"
                "            met[waives] = True\n"
            )
        if self.bans != "none":
            there = f" and b[{self.banned_at!r}] == programme[{self.banned_at_key!r}]" if self.banned_at else ""
            source += (
                "    if POLICY:\n"
                f"        bans = rows('ban', {{{self.banned!r}: row[{self.banned_key!r}]}})\n"
                f"        if [b for b in bans if b['until'] >= {self.today!r}{there}]:\n"
                "            return False\n"
            )
        if self.final:
            source += (
                "    if POLICY:\n"
                f"        past = rows('enrolment', {{{self.person!r}: row[{self.person_key!r}]}})\n"
                f"        past = [e for e in past if e[{self.programme!r}] == programme[{self.programme_key!r}]]\n"
                "        if 'denied' in [e['state'] for e in past]:\n"
                "            return False\n"
            )
        return source

    def plan_places(self) -> str:
        """Planner source of `d_places_left`."""
        return (
            "def d_places_left(row):\n"
            f"    taken = rows('enrolment', {{{self.programme!r}: row[{self.programme_key!r}]}})\n"
            "    return row['places'] - len([e for e in taken if not POLICY or e['state'] == 'enrolled'])\n"
        )

    # goals ------------------------------------------------------------------------------------------------------

    def goal_eligible(self) -> str:
        """Goal source of `g_eligible`: what each pair lacks, less what is waived."""
        newer = "old is None or s['day'] > old['day']" if self.history else "old is None"
        source = (
            "@once\n"
            "def eligible_pairs():\n"
            "    judged = {}\n"
            "    for s in db['standing']:\n"
            f"        old = judged.get(s[{self.judged!r}])\n"
            f"        if {newer}:\n"
            f"            judged[s[{self.judged!r}]] = s\n"
            f"{self._goal_sets()}"
            "    pairs = set()\n"
            "    for p in db['person']:\n"
            f"        s = judged.get(p[{self.judged_key!r}])\n"
            "        for g in db['programme']:\n"
            "            lacks = set()\n"
            "            if s is None or s['score'] < g['minimum_score']:\n"
            "                lacks.add('score')\n"
            "            if s is None or s['seniority'] < g['minimum_seniority']:\n"
            "                lacks.add('seniority')\n"
        )
        if self.residence:
            source += (
                "            if g['scope'] == 'local' and (s is None or s['residence'] != 'local'):\n"
                "                lacks.add('residence')\n"
            )
        if self.waivers != "none":
            at = f", g[{self.waived_at_key!r}]" if self.waived_at else ""
            source += f"            lacks = {{c for c in lacks if (p[{self.waived_key!r}]{at}, c) not in waived}}\n"
        if self.bans != "none":
            at = f", g[{self.banned_at_key!r}]" if self.banned_at else ","
            source += f"            if (p[{self.banned_key!r}]{at}) in banned:\n                continue\n"
        if self.final:
            source += (
                f"            if (p[{self.person_key!r}], g[{self.programme_key!r}]) in denied:\n"
                "                continue\n"
            )
        spare = {
            "both": "()",
            "any": "('score', 'seniority')",
            "each": "('score', 'seniority') if g['combine'] == 'any' else ()",
        }
        return source + (
            f"            optional = {spare[self.combine]}\n"
            "            if not lacks or (len(lacks) == 1 and lacks.issubset(optional)):\n"
            "                pairs.add((p['id'], g['id']))\n"
            "    return pairs\n"
            "def g_eligible(db, row, programme):\n"
            "    return (row['id'], programme['id']) in eligible_pairs()\n"
        )

    def _goal_sets(self) -> str:
        source = ""
        if self.waivers != "none":
            at = f", w[{self.waived_at!r}]" if self.waived_at else ""
            live = f" if not w['until'] < {self.today!r}" if self.waiver_dated else ""
            source += f"    waived = {{(w[{self.waived!r}]{at}, w['waives']) for w in db['waiver']{live}}}\n"
        if self.bans != "none":
            at = f", b[{self.banned_at!r}]" if self.banned_at else ","
            source += (
                f"    banned = {{(b[{self.banned!r}]{at}) for b in db['ban'] if not b['until'] < {self.today!r}}}\n"
            )
        if self.final:
            cells = f"(e[{self.person!r}], e[{self.programme!r}])"
            source += f"    denied = {{{cells} for e in db['enrolment'] if e['state'] == 'denied'}}\n"
        return source

    def goal_places(self) -> str:
        """Goal source of `g_places_left`."""
        return (
            "@once\n"
            "def places_taken():\n"
            "    taken = {}\n"
            "    for e in db['enrolment']:\n"
            f"        if e['state'] not in {tuple(s for s in states(self.world.rules) if s != 'enrolled')}:\n"
            f"            taken[e[{self.programme!r}]] = taken.get(e[{self.programme!r}], 0) + 1\n"
            "    return taken\n"
            "def g_places_left(db, row):\n"
            f"    return row['places'] - places_taken().get(row[{self.programme_key!r}], 0)\n"
        )
