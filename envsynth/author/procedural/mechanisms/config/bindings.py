"""What the texts of a package world have in common: column names and rules bound to one world, and shared pieces.

The three ways to unmet requirements differ on purpose: SQL grows the closure of what a release needs, the planner asks
recursively, the goals find the pins that cannot be relied on, round by round, until there are no more.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, timedelta
from typing import Any

from envsynth.author.procedural.ir import Type
from envsynth.author.procedural.mechanism import Composed
from envsynth.author.procedural.mechanisms.entities import id_argument

VERSION = Type("num", "version")
CHANNELS = ("stable", "preview", "legacy")


def place_entity(rules: Mapping[str, Any]) -> str:
    """Entity that packages are pinned in under these rules."""
    return "deployment" if rules["fleet"] else "site"


def states(rules: Mapping[str, Any]) -> tuple[str, ...]:
    """States of a release under these rules, in the order of its life."""
    return ("draft", *(("candidate",) if rules["candidates"] else ()), "published", "withdrawn")


class Bindings:
    """The texts over one composed world: column names, nouns and rules are bound here."""

    def __init__(self, world: Composed) -> None:
        self.world, rules = world, world.rules
        self.where = place_entity(rules)
        self.place, self.place_key = world.fk("pin", self.where)
        self.pinned, self.pinned_key = world.fk("pin", "package")
        self.owner, self.owner_key = world.fk("release", "package")
        self.needed, self.needed_key = world.fk("requirement", "needed")
        self.release, _ = world.fk("requirement", "release")
        self.ceilings, self.deep, self.soft = rules["ceilings"], rules["deep_needs"], rules["soft_needs"]
        self.mutual, self.candidates = rules["mutual_needs"], rules["candidates"]
        self.history, self.strict = rules["pin_history"], rules["strict_pins"]
        self.age = int(rules["release_age"])
        self.today = world.now[:10]
        self.ripe = (date.fromisoformat(self.today) - timedelta(days=self.age)).isoformat()
        self.pin_tool = f"set_{world.slug('pin')}"
        self.advance_tool = f"advance_{world.slug('release')}"
        self.withdraw_tool = f"withdraw_{world.slug('release')}"

    def arg(self, entity: str) -> str:
        """Name of the tool argument that takes an id."""
        return id_argument(self.world, entity)

    # SQL --------------------------------------------------------------------------------------------------------

    def in_place_sql(self, pin: str, place: str) -> str:
        """Whether a pin counts and is one of the place with this id."""
        key = f'(SELECT d."{self.place_key}" FROM "{self.where}" d WHERE d."id" = {place})'
        current = f" AND {pin}.\"standing\" = 'current'" if self.history else ""
        return f'{pin}."{self.place}" = {place if self.place_key == "id" else key}{current}'

    def in_range_sql(self, version: str, need: str) -> str:
        """Whether a version meets a row of `ask`, `need` or `bound`."""
        return f'{version} BETWEEN {need}."low" AND {need}."high"' if self.ceilings else f'{version} >= {need}."low"'

    def closure_sql(self, place: str = "") -> str:
        """SQL of common tables about the place with this id, or about all places.

        `spot`: places; `held`: pins; `issue`: releases; `ask`: requirements that count; `lacking`: by place and release,
        the requirements that nothing meets, found by all that can be reached from each. Packages are told by their ids.
        No table may refer to a row outside: SQLite would fill it anew for each row.
        """
        only = f' WHERE d."id" = {place}' if place else ""
        current = " AND p.\"standing\" = 'current'" if self.history else ""
        high = 'q."maximum"' if self.ceilings else "0"
        strong = " WHERE q.\"strength\" = 'required'" if self.soft else ""
        grown = (
            ' UNION SELECT n."place", n."origin", n."root", a."package", a."low", a."high" FROM "need" n'
            ' CROSS JOIN "held" h ON h."place" = n."place" AND h."package" = n."package"'
            ' CROSS JOIN "issue" i ON i."package" = h."package" AND i."number" = h."version"'
            ' CROSS JOIN "ask" a ON a."release" = i."id"'
        )
        met = self.in_range_sql('h."version"', "n")
        return (
            f'WITH RECURSIVE "spot" AS MATERIALIZED (SELECT d."id", d."{self.place_key}" AS "key" FROM "{self.where}" d'
            f'{only}), "held"("place", "package", "version") AS MATERIALIZED (SELECT d."id", k."id", p."version"'
            f' FROM "spot" d JOIN "pin" p ON p."{self.place}" = d."key"{current}'
            f' JOIN "package" k ON k."{self.pinned_key}" = p."{self.pinned}"),'
            ' "issue" AS MATERIALIZED (SELECT r."id", k."id" AS "package", r."number" FROM "release" r'
            f' JOIN "package" k ON k."{self.owner_key}" = r."{self.owner}"),'
            ' "ask"("id", "release", "package", "low", "high") AS MATERIALIZED ('
            f'SELECT q."id", q."{self.release}", k."id", q."minimum", {high} FROM "requirement" q'
            f' JOIN "package" k ON k."{self.needed_key}" = q."{self.needed}"{strong}),'
            ' "need"("place", "origin", "root", "package", "low", "high") AS (SELECT d."id", a."release", a."id",'
            f' a."package", a."low", a."high" FROM "ask" a CROSS JOIN "spot" d{grown if self.deep else ""}),'
            ' "lacking" AS MATERIALIZED (SELECT DISTINCT n."place", n."origin", n."root" FROM "need" n LEFT JOIN "held" h'
            f' ON h."place" = n."place" AND h."package" = n."package" AND {met} WHERE h."package" IS NULL)'
        )

    def unmet_sql(self, release: str, place: str) -> str:
        """SQL of the count of unmet requirements of the release with this id."""
        return (
            f'(SELECT COUNT(*) FROM ({self.closure_sql(place)} SELECT "origin" FROM "lacking") u'
            f' WHERE u."origin" = {release})'
        )

    def fitting_sql(self, place: str = "") -> str:
        """Common tables up to `fitting`: by place, id, package and number of the releases that can be installed."""
        state = "r.\"state\" = 'published'"
        if self.candidates:
            preview = 'SELECT 1 FROM "package" c WHERE c."id" = i."package" AND c."channel" = \'preview\''
            state = f"({state} OR (r.\"state\" = 'candidate' AND EXISTS ({preview})))"
        ripe = f" AND r.\"day\" <= '{self.ripe}'" if self.age else ""
        used = bound = free = ""
        if self.mutual:
            used = (
                ', "bound" AS MATERIALIZED (SELECT h."place", a."package", a."low", a."high" FROM "held" h'
                ' CROSS JOIN "issue" i ON i."package" = h."package" AND i."number" = h."version"'
                ' CROSS JOIN "ask" a ON a."release" = i."id")'
            )
            fits = self.in_range_sql('i."number"', "b")
            bound = f' LEFT JOIN "bound" b ON b."place" = d."id" AND b."package" = i."package" AND NOT ({fits})'
            free = ' AND b."package" IS NULL'
        return (
            f'{self.closure_sql(place)}{used}, "fitting" AS MATERIALIZED (SELECT d."id" AS "place", i.* FROM "issue" i'
            ' JOIN "release" r ON r."id" = i."id" CROSS JOIN "spot" d'
            f' LEFT JOIN "lacking" l ON l."place" = d."id" AND l."origin" = i."id"{bound}'
            f' WHERE {state}{ripe} AND l."origin" IS NULL{free})'
        )

    def installable_sql(self, release: str, place: str) -> str:
        """Whether a release can be installed in the place with this id."""
        return f'({release}."id" IN ({self.fitting_sql(place)} SELECT "id" FROM "fitting"))'

    def latest_sql(self, package: str, place: str, below: str = "") -> str:
        """SQL of the largest version of a package that can be installed in the place with this id, 0 if none."""
        limit = f' AND r."number" < {below}' if below else ""
        return (
            f'(SELECT COALESCE(MAX(r."number"), 0) FROM "release" r'
            f' WHERE r."{self.owner}" = {package}."{self.owner_key}"{limit} AND {self.installable_sql("r", place)})'
        )

    def outdated_sql(self, place: str) -> str:
        """SQL of the count of pins of the place with this id below the largest version that can be installed."""
        return (
            f'(SELECT COUNT(*) FROM ({self.fitting_sql()} SELECT h."place" FROM "held" h JOIN "fitting" f'
            ' ON f."place" = h."place" AND f."package" = h."package" GROUP BY h."place", h."package"'
            f' HAVING MAX(h."version") < MAX(f."number")) late WHERE late."place" = {place})'
        )

    # planner ----------------------------------------------------------------------------------------------------

    def plan_id(self, value: str, key: str) -> str:
        """Planner expression of the id of the package that a relation's value denotes, beside `names`."""
        return value if key == "id" else f"names[{value}]"

    def plan_shelf(self) -> str:
        """Planner source of `shelf`: what a place uses and what each release asks for, read once; and `need_met`."""
        by_name = "name" in (self.pinned_key, self.owner_key, self.needed_key)
        names = "    names = {k['name']: k['id'] for k in rows('package', {})}\n" if by_name else ""
        former = "        if p['standing'] != 'current':\n            continue\n" if self.history else ""
        weak = "        if q['strength'] != 'required':\n            continue\n" if self.soft else ""
        high = ", q['maximum']" if self.ceilings else ""
        below = "    return True\n"
        if self.deep:
            below = (
                "    release = at['issues'].get((need[0], version))\n"
                "    return all([need_met(other, at) for other in at['needs'].get(release, [])])\n"
            )
        return (
            "def shelf(place):\n"
            f"{names}"
            "    at = {'pins': {}, 'needs': {}, 'issues': {}}\n"
            f"    for p in rows('pin', {{{self.place!r}: place[{self.place_key!r}]}}):\n"
            f"{former}"
            f"        at['pins'][{self.plan_id(f'p[{self.pinned!r}]', self.pinned_key)}] = p['version']\n"
            "    for r in rows('release', {}):\n"
            f"        at['issues'][{self.plan_id(f'r[{self.owner!r}]', self.owner_key)}, r['number']] = r['id']\n"
            "    for q in rows('requirement', {}):\n"
            f"{weak}"
            f"        need = ({self.plan_id(f'q[{self.needed!r}]', self.needed_key)}, q['minimum']"
            f"{high})\n"
            f"        at['needs'][q[{self.release!r}]] = at['needs'].get(q[{self.release!r}], []) + [need]\n"
            "    return at\n"
            "def need_met(need, at):\n"
            "    version = at['pins'].get(need[0], 0)\n"
            f"    if version < need[1]{' or version > need[2]' if self.ceilings else ''}:\n"
            "        return False\n"
            f"{below}"
        )

    def plan_installable(self) -> str:
        """Planner source of `can_go` and `d_installable`; without the rules every published release will do."""
        state = "    good = row['state'] == 'published'\n"
        if self.candidates:
            state += (
                "    if row['state'] == 'candidate':\n"
                f"        mine = rows('package', {{{self.owner_key!r}: row[{self.owner!r}]}})[0]\n"
                "        good = mine['channel'] == 'preview'\n"
            )
        if self.age:
            state += f"    good = good and row['day'] <= '{self.ripe}'\n"
        suits = ""
        if self.mutual:
            above = " or row['number'] > need[2]" if self.ceilings else ""
            suits = (
                "    for pinned in at['pins'].items():\n"
                "        for need in at['needs'].get(at['issues'].get(pinned), []):\n"
                f"            if at['issues'].get((need[0], row['number'])) == row['id']:\n"
                f"                if row['number'] < need[1]{above}:\n"
                "                    return False\n"
            )
        return (
            self.plan_shelf() + "def can_go(row, at):\n"
            "    if not POLICY:\n"
            "        return row['state'] == 'published'\n"
            f"{state}"
            "    if not good:\n"
            "        return False\n"
            f"{suits}"
            "    return all([need_met(need, at) for need in at['needs'].get(row['id'], [])])\n"
            "def d_installable(row, place):\n"
            "    return can_go(row, shelf(place))\n"
        )

    def plan_latest(self) -> str:
        """Planner source of `d_latest_version`; without the rules the latest published one, everywhere."""
        return (
            self.plan_installable() + "def versions_for(package, at):\n"
            f"    mine = rows('release', {{{self.owner!r}: package[{self.owner_key!r}]}})\n"
            "    return [r['number'] for r in mine if can_go(r, at)]\n"
            "def d_latest_version(row, place):\n"
            "    return max(versions_for(row, shelf(place)) + [0])\n"
        )

    # goals ------------------------------------------------------------------------------------------------------

    def goal_unmet(self) -> str:
        """Goal source of `unmet_ranges`: by release id, the needed packages that the pins of a place do not give."""
        former = "        if p['standing'] == 'former':\n            continue\n" if self.history else ""
        weak = "        if q['strength'] == 'recommended':\n            continue\n" if self.soft else ""
        high = "q['maximum']" if self.ceilings else "10**9"
        shaky = ""
        if self.deep:
            shaky = (
                "    before = None\n"
                "    while bad != before:\n"
                "        before = set(bad)\n"
                "        for issue in versions.items():\n"
                "            for other, low, high in needed.get(issue, []):\n"
                "                if other in before or not low <= versions.get(other, -1) <= high:\n"
                "                    bad.add(issue[0])\n"
            )
        return (
            "@once\n"
            "def pinned_versions(place):\n"
            f"    keys = [d[{self.place_key!r}] for d in db[{self.where!r}] if d['id'] == place]\n"
            f"    packages = {{k[{self.pinned_key!r}]: k['id'] for k in db['package']}}\n"
            "    versions = {}\n"
            "    for p in db['pin']:\n"
            f"{former}"
            f"        if p[{self.place!r}] in keys:\n"
            f"            versions[packages[p[{self.pinned!r}]]] = p['version']\n"
            "    return versions\n"
            "@once\n"
            "def issues_by_id():\n"
            f"    owners = {{k[{self.owner_key!r}]: k['id'] for k in db['package']}}\n"
            f"    return {{r['id']: (owners[r[{self.owner!r}]], r['number']) for r in db['release']}}\n"
            "@once\n"
            "def ranges_needed():\n"
            f"    packages = {{k[{self.needed_key!r}]: k['id'] for k in db['package']}}\n"
            "    issues, needed = issues_by_id(), {}\n"
            "    for q in db['requirement']:\n"
            f"{weak}"
            f"        bounds = packages[q[{self.needed!r}]], q['minimum'], {high}\n"
            f"        needed.setdefault(issues[q[{self.release!r}]], []).append(bounds)\n"
            "    return needed\n"
            "@once\n"
            "def unmet_ranges(place):\n"
            "    versions, needed, bad = pinned_versions(place), ranges_needed(), set()\n"
            f"{shaky}"
            "    unmet = {}\n"
            "    for key, issue in issues_by_id().items():\n"
            "        for other, low, high in needed.get(issue, []):\n"
            "            if other in bad or not low <= versions.get(other, -1) <= high:\n"
            "                unmet.setdefault(key, []).append(other)\n"
            "    return unmet\n"
        )

    def goal_fitting(self) -> str:
        """Goal source of `fitting_versions`: by package id, the versions that can be installed in a place."""
        channels = ""
        barred = "r['state'] != 'published'"
        if self.candidates:
            channels = f"    early = [k[{self.owner_key!r}] for k in db['package'] if k['channel'] == 'preview']\n"
            barred = (
                "r['state'] in ('draft', 'withdrawn') or"
                f" (r['state'] == 'candidate' and r[{self.owner!r}] not in early)"
            )
        young = f" or r['day'] > '{self.ripe}'" if self.age else ""
        allowed = limited = ""
        if self.mutual:
            allowed = (
                "    allowed, needed = {}, ranges_needed()\n"
                "    for issue in pinned_versions(place).items():\n"
                "        for other, low, high in needed.get(issue, []):\n"
                "            allowed.setdefault(other, []).append((low, high))\n"
            )
            limited = (
                "        if any(number < low or number > high for low, high in allowed.get(package, [])):\n"
                "            continue\n"
            )
        return (
            self.goal_unmet() + "@once\n"
            "def fitting_versions(place):\n"
            "    unmet, issues, fitting = unmet_ranges(place), issues_by_id(), {}\n"
            f"{channels}{allowed}"
            "    for r in db['release']:\n"
            "        package, number = issues[r['id']]\n"
            f"        if r['id'] in unmet or {barred}{young}:\n"
            "            continue\n"
            f"{limited}"
            "        fitting.setdefault(package, []).append(number)\n"
            "    return fitting\n"
        )
