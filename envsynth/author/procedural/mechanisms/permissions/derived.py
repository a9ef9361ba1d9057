"""Derived attributes of a permission world, each with its sentence and three texts."""

from __future__ import annotations

from envsynth.author.procedural.ir import Type
from envsynth.author.procedural.mechanism import Derived
from envsynth.author.procedural.mechanisms.permissions.bindings import FOLDER, LEVEL, PEOPLE, PERSON, TOP, Bindings


class DerivedTexts(Bindings):
    """Writes the derived attributes over one world."""

    def headcount(self) -> Derived:
        """Persons of a team, with the teams below it."""
        return Derived(
            entity="team",
            name="headcount",
            label="headcount",
            type=PEOPLE,
            sql=self.headcount_sql("{t}"),
            plan=self.plan_people() + "def d_headcount(row):\n    return len(people_of(row))\n",
            goal=(
                self.goal_teams() + "def g_headcount(db, row):\n"
                "    return sum(row['id'] in teams for teams in teams_of_people().values())\n"
            ),
            policy=self.headcount_policy(),
        )

    def access_level(self) -> Derived:
        """What a person may do with a folder."""
        return Derived(
            entity="folder",
            name="access_level",
            label="access level for {0}",
            params=(PERSON,),
            type=LEVEL,
            sql=f'(SELECT {self.level_sql("{t}", "p")} FROM "person" p WHERE p."id" = {{0}})',
            plan=self.plan_access(),
            goal=self.goal_access()
            + "def g_access_level(db, row, person):\n    return grades(row['id'])[person['id']]\n",
            policy=self.level_policy(),
        )

    def readers(self) -> Derived:
        """How many persons may read a folder."""
        folder = self.world.word("folder")
        return Derived(
            entity="folder",
            name="readers",
            label="reader count",
            type=PEOPLE,
            sql=f'(SELECT COUNT(*) FROM "person" p WHERE {self.level_sql("{t}", "p")} >= 1)',
            plan=(
                self.plan_access() + "def d_readers(row):\n"
                "    found = 0\n"
                "    levels = folder_levels(row)\n"
                "    for person in rows('person', {}):\n"
                "        if level_in(levels, row, person) > 0:\n"
                "            found = found + 1\n"
                "    return found\n"
            ),
            goal=(
                self.goal_access() + "def g_readers(db, row):\n"
                "    return len([grade for grade in grades(row['id']).values() if grade])\n"
            ),
            policy=(
                f"The reader count of a {folder} is how many {self.world.plural('person')} have an access level of at least "
                "1 for it."
            ),
        )

    def may_read(self) -> Derived:
        """Whether a person may read a folder."""
        person, folder = self.world.word("person"), self.world.word("folder")
        return Derived(
            entity="person",
            name="may_read",
            label="entitled to read {0}",
            params=(FOLDER,),
            type=Type("bool"),
            sql=f'(SELECT {self.level_sql("f", "{t}")} >= 1 FROM "folder" f WHERE f."id" = {{0}})',
            plan=(
                self.plan_access()
                + "def d_may_read(row, folder):\n    return level_in(folder_levels(folder), folder, row) > 0\n"
            ),
            goal=(
                self.goal_access()
                + "def g_may_read(db, row, folder):\n    return grades(folder['id'])[row['id']] != 0\n"
            ),
            policy=f"A {person} is entitled to read a {folder} if their access level for it is at least 1.",
        )

    # planner ----------------------------------------------------------------------------------------------------

    def plan_people(self) -> str:
        """Planner source of `people_of`; without the rules only the rows of the team itself."""
        live = f"m['until'] >= {self.today!r}" if self.dated else "m['state'] == 'current'"
        guest = " or (m['standing'] == 'guest' and part['id'] != team['id'])" if self.guests else ""
        below = (
            "    if POLICY:\n"
            f"        for child in rows('team', {{{self.above!r}: team[{self.above_key!r}]}}):\n"
            "            if child['id'] != team['id']:\n"
            "                found = found + teams_below(child)\n"
            if self.team_tree
            else ""
        )
        return (
            "def current_one(m):\n"
            f"    return not POLICY or {live}\n"
            "def teams_below(team):\n"
            "    found = [team]\n"
            f"{below}"
            "    return found\n"
            "def people_of(team):\n"
            "    found = []\n"
            "    for part in teams_below(team):\n"
            f"        for m in rows('membership', {{{self.team!r}: part[{self.team_key!r}]}}):\n"
            f"            if not current_one(m){guest}:\n"
            "                continue\n"
            f"            found.append(m[{self.person!r}])\n"
            "    return list(dict.fromkeys(found))\n"
        )

    def plan_access(self) -> str:
        """Planner source of `d_access_level`; without the rules only direct grants count."""
        outward = (
            f"    while POLICY and line[-1][{self.outer!r}] != line[-1][{self.outer_key!r}]:\n"
            f"        line = line + [rows('folder', {{{self.outer_key!r}: line[-1][{self.outer!r}]}})[0]]\n"
            if self.folder_tree
            else ""
        )
        limit = "0" if self.deny_all else "rule['level'] - 1"
        deny = (
            "                    if rule['effect'] == 'deny':\n"
            f"                        limit[person] = min(limit.get(person, {TOP}), {limit})\n"
            "                        continue\n"
            if self.denials
            else ""
        )
        owner = (
            f"    if POLICY and folder[{self.owner!r}] == person[{self.owner_key!r}]:\n        return {TOP}\n"
            if self.owners
            else ""
        )
        archived = (
            "    if POLICY and folder['state'] == 'archived':\n        level = min(level, 1)\n"
            if self.archiving
            else ""
        )
        return (
            self.plan_people() + "def folder_line(folder):\n"
            "    line = [folder]\n"
            f"{outward}"
            "    return line\n"
            "def folder_levels(folder):\n"
            "    best, limit = {}, {}\n"
            "    for part in folder_line(folder):\n"
            f"        for rule in rows('accessrule', {{{self.folder!r}: part[{self.folder_key!r}]}}):\n"
            f"            for team in rows('team', {{{self.rule_team_key!r}: rule[{self.rule_team!r}]}}):\n"
            "                for person in people_of(team):\n"
            f"{deny}"
            "                    best[person] = max(best.get(person, 0), rule['level'])\n"
            "    if not POLICY:\n"
            "        return best\n"
            f"    return {{person: min(best[person], limit.get(person, {TOP})) for person in best}}\n"
            "def level_in(levels, folder, person):\n"
            f"{owner}"
            f"    level = levels.get(person[{self.person_key!r}], 0)\n"
            f"{archived}"
            "    return level\n"
            "def d_access_level(row, person):\n"
            "    return level_in(folder_levels(row), row, person)\n"
        )

    # goals ------------------------------------------------------------------------------------------------------

    def goal_teams(self) -> str:
        """Goal source of `teams_of_people`: ids of all teams that each person belongs to, upwards."""
        upward = (
            f"    up = {{t['id']: keys[t[{self.above!r}]] for t in db['team']}}\n"
            if self.team_tree
            else "    up = {}\n"
        )
        keyed = f"    keys = {{t[{self.above_key!r}]: t['id'] for t in db['team']}}\n" if self.team_tree else ""
        stop = "m['standing'] != 'guest' and " if self.guests else ""
        climb = (
            f"        while {stop}up[team] != team:\n            team = up[team]\n            teams.add(team)\n"
            if self.team_tree
            else ""
        )
        return (
            "@once\n"
            "def teams_of_people():\n"
            f"{keyed}{upward if self.team_tree else ''}"
            f"    ids = {{t[{self.team_key!r}]: t['id'] for t in db['team']}}\n"
            "    found = {}\n"
            "    for m in db['membership']:\n"
            f"        if {self.over('m')}:\n"
            "            continue\n"
            f"        team, teams = ids[m[{self.team!r}]], found.setdefault(m[{self.person!r}], set())\n"
            "        teams.add(team)\n"
            f"{climb}"
            f"    return {{p['id']: found.get(p[{self.person_key!r}], set()) for p in db['person']}}\n"
        )

    def goal_access(self) -> str:
        """Goal source of `grades`: access level of every person for one folder."""
        climb = (
            f"        outer = outers[f[{self.outer!r}]]\n"
            "        while outer['id'] != line[-1]:\n"
            "            line.append(outer['id'])\n"
            f"            outer = outers[outer[{self.outer!r}]]\n"
            if self.folder_tree
            else ""
        )
        outers = f"    outers = {{f[{self.outer_key!r}]: f for f in db['folder']}}\n" if self.folder_tree else ""
        denied = "r['effect'] != 'allow'" if self.denials else "False"
        taken = "1" if self.deny_all else "level"
        archived = "    most = 1 if folder['state'] != 'active' else most\n" if self.archiving else ""
        owner = (
            f"        found[p['id']] = {TOP} if folder[{self.owner!r}] == p[{self.owner_key!r}] else found[p['id']]\n"
            if self.owners
            else ""
        )
        return (
            self.goal_teams() + "@once\n"
            "def marks_on_folders():\n"
            f"    teams = {{t[{self.rule_team_key!r}]: t['id'] for t in db['team']}}\n"
            f"    folders = {{f[{self.folder_key!r}]: f['id'] for f in db['folder']}}\n"
            "    marks = {}\n"
            "    for r in db['accessrule']:\n"
            f"        mark = teams[r[{self.rule_team!r}]], r['level'], {denied}\n"
            f"        marks.setdefault(folders[r[{self.folder!r}]], []).append(mark)\n"
            f"{outers}"
            "    lines = {}\n"
            "    for f in db['folder']:\n"
            "        line = [f['id']]\n"
            f"{climb}"
            "        lines[f['id']] = f, [mark for place in line for mark in marks.get(place, [])]\n"
            "    return lines\n"
            "@once\n"
            "def grades(folder_id):\n"
            "    folder, marks = marks_on_folders()[folder_id]\n"
            f"    teams, found, most = teams_of_people(), {{}}, {TOP}\n"
            f"{archived}"
            "    for p in db['person']:\n"
            "        grade, barred = 0, most + 1\n"
            "        for team, level, denied in marks:\n"
            "            if team not in teams[p['id']]:\n"
            "                continue\n"
            "            if denied:\n"
            f"                barred = min(barred, {taken})\n"
            "            elif level > grade:\n"
            "                grade = level\n"
            "        found[p['id']] = min(grade, barred - 1)\n"
            f"{owner}"
            "    return found\n"
        )

    # sentences --------------------------------------------------------------------------------------------------

    def tree_policies(self) -> list[str]:
        """How the trees hang together, and which memberships are current."""
        word, plural = self.world.word, self.world.plural
        current = f"its last day is {self.today} or later" if self.dated else "its state is current"
        found = [f"A {word('membership')} is current if {current}; an ended one gives nothing."]
        if self.one_team:
            found.append(f"A {word('person')} has at most one current {word('membership')} at a time.")
        for entity, nested in (("team", self.team_tree), ("folder", self.folder_tree)):
            if nested:
                noun = word(entity)
                found.append(
                    f"A {noun} at the top is its own parent; any other {noun} lies below its parent and below all "
                    f"{plural(entity)} that its parent lies below."
                )
        return found

    def headcount_policy(self) -> str:
        """Definition of the headcount."""
        word = self.world.word
        team, membership = word("team"), word("membership")
        below = f" or in a {team} below it" if self.team_tree else ""
        guest = f"; a {membership} whose standing is guest counts in its own {team} only" if self.guests else ""
        return (
            f"The headcount of a {team} is how many different {self.world.plural('person')} have a current {membership} in "
            f"it{below}{guest}."
        )

    def level_policy(self) -> str:
        """Definition of the access level."""
        word, plural = self.world.word, self.world.plural
        person, folder, membership = word("person"), word("folder"), word("membership")
        rules = plural("accessrule")
        rule, team = word("accessrule"), word("team")
        folders = " or for one that it lies below" if self.folder_tree else ""
        teams = f" or in a {team} below it" if self.team_tree else ""
        guest = f" (a {membership} whose standing is guest counts in that {team} itself only)" if self.guests else ""
        text = (
            f"The access level of a {folder} for a {person} (0 none, 1 read, 2 write, 3 manage) follows from the {rules} "
            f"that apply. A {rule} applies if it is for this {folder}{folders}, and the {person} has a current "
            f"{membership} in its {team}{teams}{guest}. The access level is the highest level "
        )
        if self.denials:
            text += "of those that apply with the effect allow, 0 if there is none; but "
            text += (
                "a single one that applies with the effect deny makes it 0."
                if self.deny_all
                else "one that applies with the effect deny takes away its own level and all above, so that one less than "
                "the lowest denied level is the most."
            )
        else:
            text += "of those that apply, 0 if there is none."
        if self.archiving:
            text += f" For an archived {folder} it is 1 at most."
        if self.owners:
            text += f" Whatever the {rules} say, it is {TOP} for the owner of the {folder}."
        return text
