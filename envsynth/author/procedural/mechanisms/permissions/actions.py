"""Actions of a permission world: grant, move a membership, offboard; each with its three texts."""

from __future__ import annotations

from envsynth.author.procedural.ir import Type
from envsynth.author.procedural.mechanism import Action
from envsynth.author.procedural.mechanisms.permissions.bindings import FOLDER, LEVEL, PERSON, TEAM, TOP
from envsynth.author.procedural.mechanisms.permissions.derived import DerivedTexts


class ActionTexts(DerivedTexts):
    """Writes the actions over one world."""

    # grant ------------------------------------------------------------------------------------------------------

    def grant(self) -> Action:
        """Give a team a level on a folder."""
        word = self.world.word
        team, folder, rule = word("team"), word("folder"), word("accessrule")
        policy = [
            f"To grant a {team} a level on a {folder} raises the level of the {rule} for exactly this {team} and this "
            f"{folder}, or makes one if there is none; it never lowers one."
        ]
        if self.denials:
            policy.append(
                f"Where that {rule} has the effect deny, nothing can be granted; a new one has the effect allow."
            )
        if self.archiving:
            policy.append(f"Nothing can be granted on an archived {folder}.")
        return Action(
            name="grant_level",
            phrase="grant {team} level {level} on {folder}",
            params=(("team", TEAM), ("level", LEVEL), ("folder", FOLDER)),
            oracle_sql=self.grant_sql(),
            plan=(
                "def a_grant_level(team, level, folder):\n"
                f"    write({self.grant_tool!r}, {self.arg('team')}=team['id'], {self.arg('folder')}=folder['id'],"
                " level=level)\n"
            ),
            goal=self.grant_goal(),
            tables=("accessrule",),
            policy=" ".join(policy),
        )

    def grant_sql(self) -> str:
        """Oracle: the rule that is made, or raised."""
        allow = ", 'effect', 'allow'" if self.denials else ""
        not_denied = " AND r.\"effect\" <> 'deny'" if self.denials else ""
        pair = f'r."{self.rule_team}" = e."{self.rule_team_key}" AND r."{self.folder}" = f."{self.folder_key}"'
        which = (
            f'"team" e, "folder" f WHERE e."id" = {{team}} AND f."id" = {{folder}} AND {{level}} BETWEEN 1 AND {TOP}'
        )
        if self.archiving:
            which += " AND f.\"state\" = 'active'"
        return (
            f"SELECT 'insert', 'accessrule', json_object('{self.rule_team}', e.\"{self.rule_team_key}\","
            f" '{self.folder}', f.\"{self.folder_key}\", 'level', {{level}}{allow}) FROM {which}"
            f' AND NOT EXISTS (SELECT 1 FROM "accessrule" r WHERE {pair})'
            " UNION ALL SELECT 'update', 'accessrule', json_object('id', r.\"id\", 'level', {level})"
            f' FROM "accessrule" r, {which} AND {pair} AND r."level" < {{level}}{not_denied}'
        )

    def grant_goal(self) -> str:
        """Goal source of `s_grant_level`: afterwards the one rule of the pair allows the level, which is new."""
        effect = ", 'effect': 'allow'" if self.denials else ""
        archived = "    if folder['state'] == 'archived':\n        return None\n" if self.archiving else ""
        return (
            "def s_grant_level(db, diff, team, level, folder):\n"
            f"{archived}"
            f"    pair = (team[{self.rule_team_key!r}], folder[{self.folder_key!r}])\n"
            f"    known = [r for r in db['accessrule'] if (r[{self.rule_team!r}], r[{self.folder!r}]) == pair]\n"
            f"    want = {{{self.rule_team!r}: pair[0], {self.folder!r}: pair[1], 'level': level{effect}}}\n"
            "    for entry in diff:\n"
            "        if entry['table'] != 'accessrule' or {**(entry['new'] or {}), **want} != entry['new']:\n"
            "            continue\n"
            "        if entry['op'] == 'insert' and not known and level > 0:\n"
            "            return [entry]\n"
            "        if entry['op'] == 'update' and entry['changed'] == ['level'] and entry['old']['level'] < level:\n"
            "            return [entry]\n"
            "    return None\n"
        )

    # move -------------------------------------------------------------------------------------------------------

    def move(self) -> Action:
        """Move a membership to another team."""
        membership, team = self.world.word("membership"), self.world.word("team")
        labels = [self.world.col("membership", name).label for name in self.kept]
        same = f", with the same {' and '.join(labels)}" if labels else ""
        kept = "".join(f", {name}=membership[{name!r}]" for name in self.kept)
        return Action(
            name="move_membership",
            phrase="move {membership} to {team}",
            params=(("membership", Type("row", "membership")), ("team", TEAM)),
            oracle_sql=self.move_sql(),
            plan=(
                "def a_move_membership(membership, team):\n"
                f"    person = named('person', {self.person_key!r}, membership[{self.person!r}])\n"
                f"    write({self.end_tool!r}, {self.arg('membership')}=membership['id'])\n"
                f"    write({self.add_tool!r}, {self.arg('person')}=person['id'],"
                f" {self.arg('team')}=team['id']{kept})\n"
            ),
            goal=self.move_goal(),
            tables=("membership",),
            policy=(
                f"To move a current {membership} to another {team} ends it ({self.end_words()}) and makes a new current one "
                f"of the same {self.world.word('person')} there{same}; that cannot be done if they have a current one in "
                f"that {team} already."
            ),
        )

    def move_sql(self) -> str:
        """Oracle: the membership that ends and the one that begins."""
        column, value = self.ended
        kept = "".join(f", '{name}', m.\"{name}\"" for name in self.kept)
        kept += "" if self.dated else ", 'state', 'current'"
        twice = (
            f'SELECT 1 FROM "membership" o WHERE o."{self.person}" = m."{self.person}"'
            f' AND o."{self.team}" = e."{self.team_key}" AND {self.current_sql("o")}'
        )
        which = (
            f'FROM "membership" m, "team" e WHERE m."id" = {{membership}} AND e."id" = {{team}}'
            f" AND {self.current_sql('m')} AND NOT EXISTS ({twice})"
        )
        return (
            f"SELECT 'update', 'membership', json_object('id', m.\"id\", '{column}', '{value}') {which}"
            f" UNION ALL SELECT 'insert', 'membership', json_object('{self.person}', m.\"{self.person}\","
            f" '{self.team}', e.\"{self.team_key}\"{kept}) {which}"
        )

    def move_goal(self) -> str:
        """Goal source of `s_move_membership`: one has ended, one with the same cells has begun where none was."""
        column, value = self.ended
        kept = "".join(f", {name!r}: membership[{name!r}]" for name in self.kept)
        kept += "" if self.dated else ", 'state': 'current'"
        return (
            "def s_move_membership(db, diff, membership, team):\n"
            f"    want = {{{self.person!r}: membership[{self.person!r}], {self.team!r}: team[{self.team_key!r}]{kept}}}\n"
            "    for m in db['membership']:\n"
            f"        there = m[{self.person!r}] == want[{self.person!r}] and m[{self.team!r}] == want[{self.team!r}]\n"
            f"        if there and not {self.over('m')}:\n"
            "            return None\n"
            "    left, begun = [], []\n"
            "    for entry in diff:\n"
            "        if entry['table'] != 'membership':\n"
            "            continue\n"
            f"        if entry['op'] == 'update' and entry['new'] == {{**membership, {column!r}: {value!r}}}:\n"
            "            left.append(entry)\n"
            "        if entry['op'] == 'insert' and {**entry['new'], **want} == entry['new']:\n"
            "            begun.append(entry)\n"
            f"    if {self.over('membership')} or not left or not begun:\n"
            "        return None\n"
            "    return [left[0], begun[0]]\n"
        )

    def end_words(self) -> str:
        """What ending a membership does."""
        return f"its last day becomes {self.yesterday}" if self.dated else "its state becomes ended"

    # offboard ---------------------------------------------------------------------------------------------------

    def offboard(self) -> Action:
        """End all memberships of a person; by rule, give their folders to another one."""
        person, memberships = self.world.word("person"), self.world.plural("membership")
        folders = ""
        policy = (
            f"To offboard a {person} ends all current {memberships} of that {person} (for each, {self.end_words()})"
        )
        if self.owners:
            folders = (
                f"    for folder in rows('folder', {{{self.owner!r}: person[{self.owner_key!r}]}}):\n"
                f"        write({self.reassign_tool!r}, {self.arg('folder')}=folder['id'], owner_id=heir['id'])\n"
            )
            policy += (
                f" and makes the heir, who must be somebody else, the owner of all {self.world.plural('folder')} that the "
                f"{person} owns"
            )
        return Action(
            name="offboard",
            phrase="offboard {person} with {heir} as the heir" if self.owners else "offboard {person}",
            params=(("person", PERSON), *((("heir", PERSON),) if self.owners else ())),
            oracle_sql=self.offboard_sql(),
            plan=(
                self.plan_people() + f"def a_offboard({'person, heir' if self.owners else 'person'}):\n"
                f"    held = rows('membership', {{{self.person!r}: person[{self.person_key!r}]}})\n"
                f"{folders}"
                "    for m in held:\n"
                "        if current_one(m):\n"
                f"            write({self.end_tool!r}, {self.arg('membership')}=m['id'])\n"
            ),
            goal=self.offboard_goal(),
            tables=("membership", *(("folder",) if self.owners else ())),
            policy=f"{policy}. A {person} without a current {self.world.word('membership')} cannot be offboarded.",
        )

    def offboard_sql(self) -> str:
        """Oracle: the memberships that end and the folders that get another owner."""
        column, value = self.ended
        other = " AND {heir} <> {person}" if self.owners else ""
        sql = (
            f"SELECT 'update', 'membership', json_object('id', m.\"id\", '{column}', '{value}')"
            f' FROM "membership" m JOIN "person" p ON p."{self.person_key}" = m."{self.person}"'
            f' WHERE p."id" = {{person}} AND {self.current_sql("m")}{other}'
        )
        if self.owners:
            has = (
                f'EXISTS (SELECT 1 FROM "membership" o WHERE o."{self.person}" = p."{self.person_key}"'
                f" AND {self.current_sql('o')})"
            )
            sql += (
                f" UNION ALL SELECT 'update', 'folder', json_object('id', f.\"id\", '{self.owner}',"
                f' h."{self.owner_key}") FROM "folder" f, "person" p, "person" h'
                f' WHERE p."id" = {{person}} AND h."id" = {{heir}} AND f."{self.owner}" = p."{self.owner_key}"'
                f"{other} AND {has}"
            )
        return sql

    def offboard_goal(self) -> str:
        """Goal source of `s_offboard`: nothing current and no folder is left to the person."""
        column, value = self.ended
        barred = "    if heir['id'] == person['id']:\n        return None\n" if self.owners else ""
        folders = (
            "    for f in db['folder']:\n"
            f"        if f[{self.owner!r}] == person[{self.owner_key!r}]:\n"
            f"            wanted.append(('folder', {{**f, {self.owner!r}: heir[{self.owner_key!r}]}}))\n"
            if self.owners
            else ""
        )
        return (
            f"def s_offboard(db, diff, {'person, heir' if self.owners else 'person'}):\n"
            f"{barred}"
            "    wanted = []\n"
            "    for m in db['membership']:\n"
            f"        if m[{self.person!r}] == person[{self.person_key!r}] and not {self.over('m')}:\n"
            f"            wanted.append(('membership', {{**m, {column!r}: {value!r}}}))\n"
            "    if not wanted:\n"
            "        return None\n"
            f"{folders}"
            "    done = [e for e in diff if e['op'] == 'update' and (e['table'], e['new']) in wanted]\n"
            "    return done if len(done) == len(wanted) else None\n"
        )
