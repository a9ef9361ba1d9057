"""Actions of a package world: upgrade, roll back, advance, withdraw; each with its three texts."""

from __future__ import annotations

from envsynth.author.procedural.ir import Type
from envsynth.author.procedural.mechanism import Action
from envsynth.author.procedural.mechanisms.config.bindings import Bindings


class ActionTexts(Bindings):
    """Writes the actions over one world."""

    def repin_policy(self) -> str:
        """How the tables show that another version is used."""
        pin = self.world.word("pin")
        if self.history:
            return (
                f"The standing of the {pin} so far becomes former, and it is otherwise left as it is; a new one whose "
                f"standing is current sets the version, with today, {self.today}, as its {pin} day."
            )
        return f"The {pin} that there is gets the new version, and today, {self.today}, as its {pin} day."

    def repin_sql(self) -> str:
        """SELECT of the changes that set `chosen`: (pin or NULL, place key, package key, version)."""
        new = f"json_object('{self.place}', \"place\", '{self.pinned}', \"package\", 'version', \"version\", 'day',"
        if self.history:
            return (
                "SELECT 'update', 'pin', json_object('id', \"pin\", 'standing', 'former') FROM \"chosen\""
                ' WHERE "pin" IS NOT NULL UNION ALL'
                f" SELECT 'insert', 'pin', {new} '{self.today}', 'standing', 'current') FROM \"chosen\""
            )
        return (
            f"SELECT 'update', 'pin', json_object('id', \"pin\", 'version', \"version\", 'day', '{self.today}')"
            ' FROM "chosen" WHERE "pin" IS NOT NULL UNION ALL'
            f" SELECT 'insert', 'pin', {new} '{self.today}') FROM \"chosen\" WHERE \"pin\" IS NULL"
        )

    def goal_repinned(self) -> str:
        """Goal source of `repinned`: the entries that set a package to a version that passes a test, in one place."""
        same = (
            f"            mine = old[{self.place!r}] == place[{self.place_key!r}]"
            f" and old[{self.pinned!r}] == package[{self.pinned_key!r}]\n"
        )
        made = (
            "        if entry['op'] == 'insert' and entry['table'] == 'pin':\n"
            f"            mine = new[{self.place!r}] == place[{self.place_key!r}]"
            f" and new[{self.pinned!r}] == package[{self.pinned_key!r}]\n"
            f"            if mine and new['day'] == '{self.today}' and right(new['version'])"
        )
        if self.history:
            return (
                "def repinned(db, diff, package, place, right):\n"
                "    retired, fresh = [], []\n"
                "    for entry in diff:\n"
                "        old, new = entry['old'], entry['new']\n"
                "        if entry['op'] == 'update' and entry['table'] == 'pin':\n"
                f"{same}"
                "            if mine and old['standing'] == 'current' and new == {**old, 'standing': 'former'}:\n"
                "                retired.append(entry)\n"
                f"{made} and new['standing'] == 'current':\n"
                "                fresh.append(entry)\n"
                "    pinned = package['id'] in pinned_versions(place['id'])\n"
                "    return retired + fresh if len(fresh) == 1 and len(retired) == int(pinned) else None\n"
            )
        return (
            "def repinned(db, diff, package, place, right):\n"
            "    pinned = package['id'] in pinned_versions(place['id'])\n"
            "    for entry in diff:\n"
            "        old, new = entry['old'], entry['new']\n"
            "        if entry['op'] == 'update' and entry['table'] == 'pin':\n"
            f"{same}"
            f"            if mine and new == {{**old, 'version': new['version'], 'day': '{self.today}'}}"
            " and right(new['version']):\n"
            "                return [entry]\n"
            f"{made} and not pinned:\n"
            "                return [entry]\n"
            "    return None\n"
        )

    def upgrade(self) -> Action:
        """Pin the latest installable version of a package in a place."""
        word = self.world.word
        pin, place, package = word("pin"), word(self.where), word("package")
        first = f" If the {place} has no {pin} that counts for that {package}, a new one is made."
        return Action(
            name="upgrade_package",
            phrase="upgrade {package} in {place} to its latest installable version",
            params=(("package", Type("row", "package")), ("place", Type("row", self.where))),
            oracle_sql=(
                'WITH "target" AS (SELECT k."id", '
                f'(SELECT p."id" FROM "pin" p WHERE p."{self.pinned}" = k."{self.pinned_key}"'
                f' AND {self.in_place_sql("p", "{place}")}) AS "pin",'
                f' (SELECT d."{self.place_key}" FROM "{self.where}" d WHERE d."id" = {{place}}) AS "place",'
                f' k."{self.pinned_key}" AS "package", {self.latest_sql("k", "{place}")} AS "version"'
                ' FROM "package" k WHERE k."id" = {package}),'
                ' "chosen" AS (SELECT * FROM "target" WHERE "version" >'
                ' COALESCE((SELECT p."version" FROM "pin" p WHERE p."id" = "target"."pin"), 0)) ' + self.repin_sql()
            ),
            plan=(
                self.plan_latest() + "def a_upgrade_package(package, place):\n"
                "    at = shelf(place)\n"
                "    best = max(versions_for(package, at) + [0])\n"
                "    if best <= at['pins'].get(package['id'], 0):\n"
                "        raise RuntimeError('no later version can be installed')\n"
                f"    write({self.pin_tool!r}, {self.arg('package')}=package['id'], {self.arg(self.where)}=place['id'],"
                " version=best)\n"
            ),
            goal=(
                self.goal_fitting() + self.goal_repinned() + "def s_upgrade_package(db, diff, package, place):\n"
                "    before = pinned_versions(place['id']).get(package['id'], 0)\n"
                "    fitting = [n for n in fitting_versions(place['id']).get(package['id'], []) if n > before]\n"
                "    def right(version):\n"
                "        return version in fitting and not any(n > version for n in fitting)\n"
                "    return repinned(db, diff, package, place, right)\n"
            ),
            tables=("pin",),
            policy=(
                f"To upgrade a {package} in a {place} sets it to its latest installable version there, which must be above "
                f"the version in use, if there is one. {self.repin_policy()}{first}"
            ),
        )

    def roll_back(self) -> Action:
        """Pin the largest installable version below the one that a pin sets."""
        word = self.world.word
        pin, place, package = word("pin"), word(self.where), word("package")
        current = " AND x.\"standing\" = 'current'" if self.history else ""
        standing = (
            "    if pin['standing'] != 'current':\n        raise RuntimeError('it is not in use')\n"
            if self.history
            else ""
        )
        unused = "    if pin['standing'] == 'former':\n        return None\n" if self.history else ""
        home = (
            f'SELECT d."id" FROM "{self.where}" d, "pin" y WHERE d."{self.place_key}" = y."{self.place}" AND y."id" ='
        )
        return Action(
            name="roll_back_pin",
            phrase="roll {pin} back",
            params=(("pin", Type("row", "pin")),),
            oracle_sql=(
                'WITH "target" AS (SELECT x."id" AS "pin",'
                f' x."{self.place}" AS "place", x."{self.pinned}" AS "package",'
                f' {self.latest_sql("k", f"({home} {{pin}})", "x.version")} AS "version"'
                f' FROM "pin" x JOIN "package" k ON k."{self.pinned_key}" = x."{self.pinned}"'
                f' WHERE x."id" = {{pin}}{current}),'
                ' "chosen" AS (SELECT * FROM "target" WHERE "version" > 0) ' + self.repin_sql()
            ),
            plan=(
                self.plan_latest() + "def a_roll_back_pin(pin):\n"
                f"{standing}"
                f"    package = rows('package', {{{self.pinned_key!r}: pin[{self.pinned!r}]}})[0]\n"
                f"    place = rows({self.where!r}, {{{self.place_key!r}: pin[{self.place!r}]}})[0]\n"
                "    lower = [n for n in versions_for(package, shelf(place)) if n < pin['version']]\n"
                "    if not lower:\n"
                "        raise RuntimeError('no earlier version can be installed')\n"
                f"    write({self.pin_tool!r}, {self.arg('package')}=package['id'], {self.arg(self.where)}=place['id'],"
                " version=max(lower))\n"
            ),
            goal=(
                self.goal_fitting() + self.goal_repinned() + "def s_roll_back_pin(db, diff, pin):\n"
                f"{unused}"
                f"    (package,) = [k for k in db['package'] if k[{self.pinned_key!r}] == pin[{self.pinned!r}]]\n"
                f"    (place,) = [d for d in db[{self.where!r}] if d[{self.place_key!r}] == pin[{self.place!r}]]\n"
                "    fitting = fitting_versions(place['id']).get(package['id'], [])\n"
                "    def right(version):\n"
                "        between = [n for n in fitting if version < n < pin['version']]\n"
                "        return version in fitting and version < pin['version'] and not between\n"
                "    return repinned(db, diff, package, place, right)\n"
            ),
            tables=("pin",),
            policy=(
                f"To roll back a {pin} sets its {package} in its {place} to the largest installable version below the one "
                f"in use; without such a version, or if the {pin} does not count, it cannot be rolled back. "
                f"The {pin} is changed in the same way as by an upgrade."
            ),
        )

    def advance(self) -> Action:
        """Take a release to its next state."""
        word, plural = self.world.word, self.world.plural
        release, package, requirement = word("release"), word("package"), word("requirement")
        steps = {"draft": "candidate", "candidate": "published"} if self.candidates else {"draft": "published"}
        cases = " ".join(f"WHEN '{old}' THEN '{new}'" for old, new in steps.items())
        listed = " and ".join(f"a {old} becomes {new}" for old, new in steps.items())
        strong = " AND q.\"strength\" = 'required'" if self.soft else ""
        above = ' AND s."number" <= q."maximum"' if self.ceilings else ""
        uncovered = (
            f'SELECT 1 FROM "requirement" q JOIN "package" k ON k."{self.needed_key}" = q."{self.needed}"'
            f' WHERE q."{self.release}" = r."id"{strong} AND NOT EXISTS (SELECT 1 FROM "release" s'
            f' WHERE s."{self.owner}" = k."{self.owner_key}" AND s."state" = \'published\' AND s."number" >= q."minimum"{above})'
        )
        last = "candidate" if self.candidates else "draft"
        return Action(
            name="advance_release",
            phrase="advance {release} to its next state",
            params=(("release", Type("row", "release")),),
            oracle_sql=(
                "SELECT 'update', 'release', json_object('id', r.\"id\","
                f" 'state', CASE r.\"state\" {cases} END, 'day', '{self.today}')"
                f' FROM "release" r WHERE r."id" = {{release}} AND r."state" IN ({", ".join(map(repr, steps))})'
                f" AND (r.\"state\" <> '{last}' OR NOT EXISTS ({uncovered}))"
            ),
            plan=(
                "def a_advance_release(release):\n"
                f"    write({self.advance_tool!r}, {self.arg('release')}=release['id'])\n"
            ),
            goal=(
                "def s_advance_release(db, diff, release):\n"
                f"    order = {[*steps, 'published']!r}\n"
                "    for entry in diff:\n"
                "        if entry['op'] != 'update' or entry['table'] != 'release':\n"
                "            continue\n"
                "        new = entry['new']\n"
                f"        if new == {{**release, 'state': new['state'], 'day': '{self.today}'}}:\n"
                "            if [release['state'], new['state']] in [order[i : i + 2] for i in range(len(order))]:\n"
                "                return [entry]\n"
                "    return None\n"
            ),
            tables=("release",),
            policy=(
                f"To advance a {release}: {listed}, with today, {self.today}, as its {release} day; none in another state "
                f"can be advanced. A {release} can only become published if each of its {plural('requirement')}"
                f"{' whose strength is required' if self.soft else ''} is covered by some published {release} of the needed "
                f"{package} with a version that this {requirement} allows."
            ),
        )

    def withdraw(self) -> Action:
        """Withdraw a release that no place uses."""
        word = self.world.word
        release, pin = word("release"), word("pin")
        current = " AND p.\"standing\" = 'current'" if self.history else ""
        return Action(
            name="withdraw_release",
            phrase="withdraw {release} from use",
            params=(("release", Type("row", "release")),),
            oracle_sql=(
                "SELECT 'update', 'release', json_object('id', r.\"id\", 'state', 'withdrawn')"
                ' FROM "release" r WHERE r."id" = {release} AND r."state" <> \'withdrawn\''
                f' AND NOT EXISTS (SELECT 1 FROM "pin" p JOIN "package" k ON k."{self.pinned_key}" = p."{self.pinned}"'
                f' WHERE k."{self.owner_key}" = r."{self.owner}" AND p."version" = r."number"{current})'
            ),
            plan=(
                "def a_withdraw_release(release):\n"
                f"    write({self.withdraw_tool!r}, {self.arg('release')}=release['id'])\n"
            ),
            goal=(
                "def s_withdraw_release(db, diff, release):\n"
                "    for entry in diff:\n"
                "        if entry['op'] == 'update' and entry['table'] == 'release':\n"
                "            if entry['new'] == {**release, 'state': 'withdrawn'}:\n"
                "                return [entry]\n"
                "    return None\n"
            ),
            tables=("release",),
            policy=(
                f"A {release} cannot be withdrawn if it is withdrawn already or a {pin} that counts sets its version; else "
                "its state becomes withdrawn and nothing else changes."
            ),
        )
