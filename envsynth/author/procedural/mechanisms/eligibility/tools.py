"""Write tools of a world of programmes."""

from __future__ import annotations

from envsynth.author.procedural.mechanism import ToolDraft
from envsynth.author.procedural.mechanisms.eligibility.bindings import Bindings
from envsynth.author.procedural.mechanisms.entities import arguments_schema, fetch_source, id_schema, insert_source


class ToolTexts(Bindings):
    """Writes the tools over one world."""

    def pair_source(self, states: tuple[str, ...]) -> str:
        """Tool source that fetches person and programme and refuses a pair with an enrolment in one of some states."""
        marks = ", ".join(repr(state) for state in states)
        query = (
            f'SELECT "state" FROM "enrolment" WHERE "{self.person}" = ? AND "{self.programme}" = ?'
            f' AND "state" IN ({marks})'
        )
        return (
            fetch_source(self.world, "person", "person")
            + fetch_source(self.world, "programme", "programme")
            + f"    pair = (person[{self.person_key!r}], programme[{self.programme_key!r}])\n"
            f"    held = db.execute({query!r}, pair).fetchone()\n"
            "    if held is not None:\n"
            "        raise Refusal('conflict', 'there is one already, in state ' + held['state'])\n"
        )

    def room_source(self) -> str:
        """Tool source that binds `room` to the number of free places."""
        query = f'SELECT COUNT(*) AS "n" FROM "enrolment" WHERE "{self.programme}" = ? AND "state" = \'enrolled\''
        return (
            f"    taken = db.execute({query!r}, (programme[{self.programme_key!r}],)).fetchone()['n']\n"
            "    room = programme['places'] - taken\n"
        )

    def judge_source(self) -> str:
        """Tool source that binds `fit`: whether the person is eligible for the programme."""
        order = ' ORDER BY "day" DESC' if self.history else ""
        standing = f'SELECT * FROM "standing" WHERE "{self.judged}" = ?{order} LIMIT 1'
        source = (
            f"    judged = db.execute({standing!r}, (person[{self.judged_key!r}],)).fetchone()\n"
            "    passed = []\n"
            "    if judged is not None and judged['score'] >= programme['minimum_score']:\n"
            "        passed.append('score')\n"
            "    if judged is not None and judged['seniority'] >= programme['minimum_seniority']:\n"
            "        passed.append('seniority')\n"
        )
        if self.residence:
            source += (
                "    local = judged is not None and judged['residence'] == 'local'\n"
                "    if local or programme['scope'] == 'open':\n"
                "        passed.append('residence')\n"
            )
        if self.waivers != "none":
            query, values = f'SELECT * FROM "waiver" WHERE "{self.waived}" = ?', f"person[{self.waived_key!r}]"
            if self.waived_at:
                query, values = f'{query} AND "{self.waived_at}" = ?', f"{values}, programme[{self.waived_at_key!r}]"
            live = f" if waiver['until'] >= {self.today!r}" if self.waiver_dated else ""
            source += f"    waivers = db.execute({query!r}, ({values},)).fetchall()\n"
            source += f"    passed += [waiver['waives'] for waiver in waivers{live}]\n"
        enough = {
            "both": "2",
            "any": "1",
            "each": "(2 if programme['combine'] == 'both' else 1)",
        }[self.combine]
        source += f"    fit = ('score' in passed) + ('seniority' in passed) >= {enough}\n"
        if self.residence:
            source += "    fit = fit and 'residence' in passed\n"
        if self.bans != "none":
            query = f'SELECT 1 AS "hit" FROM "ban" WHERE "{self.banned}" = ? AND "until" >= ?'
            values = f"person[{self.banned_key!r}], {self.today!r}"
            if self.banned_at:
                query, values = f'{query} AND "{self.banned_at}" = ?', f"{values}, programme[{self.banned_at_key!r}]"
            source += f"    fit = fit and db.execute({query!r}, ({values},)).fetchone() is None\n"
        if self.final:
            query = (
                f'SELECT 1 AS "hit" FROM "enrolment" WHERE "{self.person}" = ? AND "{self.programme}" = ?'
                " AND \"state\" = 'denied'"
            )
            source += f"    fit = fit and db.execute({query!r}, pair).fetchone() is None\n"
        return source

    def insert_cells(self, state: str) -> dict[str, str]:
        """Cells of a new enrolment."""
        return {self.person: "pair[0]", self.programme: "pair[1]", "day": repr(self.today), "state": state}

    def enrol_draft(self) -> ToolDraft:
        """The tool that enrols."""
        world, person, programme = self.world, self.arg("person"), self.arg("programme")
        state = {"type": "string", "enum": ["enrolled", "waiting"], "description": "state to enter it with"}
        source = (
            f"def {self.enrol_tool}(db, *, {person}, {programme}{', state' if self.waitlist else ''}):\n"
            + self.pair_source(self.current)
            + self.room_source()
        )
        if self.most:
            marks = ", ".join(repr(name) for name in self.current)
            query = f'SELECT COUNT(*) AS "n" FROM "enrolment" WHERE "{self.person}" = ? AND "state" IN ({marks})'
            source += (
                f"    if db.execute({query!r}, pair[:1]).fetchone()['n'] >= {self.most}:\n"
                f"        raise Refusal('conflict', 'at most {self.most} at once')\n"
            )
        if self.strict:
            source += self.judge_source() + (
                "    if not fit:\n        raise Refusal('invalid', 'the conditions are not met')\n"
            )
        source += (
            f"    if {'state == ' + repr('enrolled') + ' and ' if self.waitlist else ''}room < 1:\n"
            "        raise Refusal('conflict', 'no free place')\n"
        )
        source += insert_source(world, "enrolment", self.insert_cells("state" if self.waitlist else "'enrolled'"))
        return ToolDraft(
            name=self.enrol_tool,
            effect="write",
            description=(
                f"Enrol a {world.word('person')} in a {world.word('programme')} as of today: makes a "
                f"{world.word('enrolment')}."
            ),
            parameters=arguments_schema(
                {
                    person: id_schema(world, "person"),
                    programme: id_schema(world, "programme"),
                    **({"state": state} if self.waitlist else {}),
                }
            ),
            returns=f"id: id of the new {world.word('enrolment')}.",
            errors=("not_found", "conflict", *(("invalid",) if self.strict else ())),
            source=source + "    return {'id': new_id}\n",
        )

    def deny_draft(self) -> ToolDraft:
        """The tool that puts a refusal on record."""
        world, person, programme = self.world, self.arg("person"), self.arg("programme")
        source = f"def {self.deny_tool}(db, *, {person}, {programme}):\n" + self.pair_source((*self.current, "denied"))
        if self.strict:
            source += self.judge_source() + "    if fit:\n        raise Refusal('invalid', 'the conditions are met')\n"
        source += insert_source(world, "enrolment", self.insert_cells("'denied'"))
        return ToolDraft(
            name=self.deny_tool,
            effect="write",
            description=f"Put on record that a {world.word('person')} is denied entry to a {world.word('programme')}.",
            parameters=arguments_schema({person: id_schema(world, "person"), programme: id_schema(world, "programme")}),
            returns=f"id: id of the new {world.word('enrolment')}.",
            errors=("not_found", "conflict", *(("invalid",) if self.strict else ())),
            source=source + "    return {'id': new_id}\n",
        )

    def end_draft(self) -> ToolDraft:
        """The tool that ends an enrolment."""
        world, enrolment = self.world, self.arg("enrolment")
        statement = 'UPDATE "enrolment" SET "state" = ? WHERE "id" = ?'
        return ToolDraft(
            name=self.end_tool,
            effect="write",
            description=f"End a {world.word('enrolment')}.",
            parameters=arguments_schema({enrolment: id_schema(world, "enrolment")}),
            returns=f"id: id of the {world.word('enrolment')}; state: its new state.",
            errors=("not_found", "conflict"),
            source=(
                f"def {self.end_tool}(db, *, {enrolment}):\n"
                + fetch_source(world, "enrolment", "target")
                + f"    if target['state'] not in {self.current}:\n"
                "        raise Refusal('conflict', 'it is in state ' + target['state'])\n"
                f"    db.execute({statement!r}, ('ended', target['id']))\n"
                "    return {'id': target['id'], 'state': 'ended'}\n"
            ),
        )

    def admit_draft(self) -> ToolDraft:
        """The tool that gives a free place to one who waits."""
        world, enrolment = self.world, self.arg("enrolment")
        query = f'SELECT * FROM "programme" WHERE "{self.programme_key}" = ?'
        statement = 'UPDATE "enrolment" SET "state" = ? WHERE "id" = ?'
        return ToolDraft(
            name=self.admit_tool,
            effect="write",
            description=f"Give a free place to a waiting {world.word('enrolment')}.",
            parameters=arguments_schema({enrolment: id_schema(world, "enrolment")}),
            returns=f"id: id of the {world.word('enrolment')}; state: its new state.",
            errors=("not_found", "conflict"),
            source=(
                f"def {self.admit_tool}(db, *, {enrolment}):\n"
                + fetch_source(world, "enrolment", "target")
                + "    if target['state'] != 'waiting':\n"
                "        raise Refusal('conflict', 'it is in state ' + target['state'])\n"
                f"    programme = db.execute({query!r}, (target[{self.programme!r}],)).fetchone()\n"
                + self.room_source()
                + "    if room < 1:\n"
                "        raise Refusal('conflict', 'no free place')\n"
                f"    db.execute({statement!r}, ('enrolled', target['id']))\n"
                "    return {'id': target['id'], 'state': 'enrolled'}\n"
            ),
        )
