"""Write tools of a package world."""

from __future__ import annotations

from envsynth.author.procedural.mechanism import ToolDraft
from envsynth.author.procedural.mechanisms.config.bindings import Bindings
from envsynth.author.procedural.mechanisms.entities import (
    arguments_schema,
    count_schema,
    fetch_source,
    id_schema,
    insert_source,
)


class ToolTexts(Bindings):
    """Writes the tools over one world."""

    def current_marks(self) -> str:
        """Condition of an SQL statement that leaves out former pins; empty without a history."""
        return " AND \"standing\" = 'current'" if self.history else ""

    def pin_draft(self) -> ToolDraft:
        """The tool that sets the version of a package in a place."""
        world, package, place = self.world, self.arg("package"), self.arg(self.where)
        word, pin = world.word, world.word("pin")
        cells = {
            self.place: f"place[{self.place_key!r}]",
            self.pinned: f"package[{self.pinned_key!r}]",
            "version": "version",
            "day": repr(self.today),
            **({"standing": "'current'"} if self.history else {}),
        }
        change = (
            "        db.execute('UPDATE \"pin\" SET \"standing\" = ? WHERE \"id\" = ?', ('former', old['id']))\n"
            if self.history
            else (
                '        db.execute(\'UPDATE "pin" SET "version" = ?, "day" = ? WHERE "id" = ?\','
                f" (version, {self.today!r}, old['id']))\n"
                "        return {'id': old['id'], 'version': version}\n"
            )
        )
        return ToolDraft(
            name=self.pin_tool,
            effect="write",
            description=(
                f"Set the version of a {word('package')} that a {word(self.where)} uses, up or down; it must not be a "
                f"draft or withdrawn."
            ),
            parameters=arguments_schema(
                {
                    package: id_schema(world, "package"),
                    place: id_schema(world, self.where),
                    "version": count_schema(f"version of the {word('release')} to use"),
                }
            ),
            returns=f"id: id of the {pin} that sets it now; version: the version.",
            errors=("not_found", "conflict"),
            source=(
                f"def {self.pin_tool}(db, *, {package}, {place}, version):\n"
                + fetch_source(world, "package", "package")
                + fetch_source(world, self.where, "place")
                + self.pin_checks()
                + f"    if old is not None:\n{change}"
                + insert_source(world, "pin", cells)
                + "    return {'id': new_id, 'version': version}\n"
            ),
        )

    def pin_checks(self) -> str:
        """Tool source that refuses what cannot be pinned and binds `old`, the pin so far or None."""
        release = self.world.word("release")
        find = f'SELECT * FROM "release" WHERE "{self.owner}" = ? AND "number" = ?'
        before = f'SELECT * FROM "pin" WHERE "{self.place}" = ? AND "{self.pinned}" = ?{self.current_marks()}'
        source = (
            f"    release = db.execute({find!r}, (package[{self.owner_key!r}], version)).fetchone()\n"
            "    if release is None:\n"
            f"        raise Refusal('not_found', {f'no {release} has this version'!r})\n"
            "    if release['state'] in ('draft', 'withdrawn'):\n"
            f"        raise Refusal('conflict', {f'this {release} is '!r} + release['state'])\n"
            f"    old = db.execute({before!r}, (place[{self.place_key!r}], package[{self.pinned_key!r}])).fetchone()\n"
            "    if old is not None and old['version'] == version:\n"
            "        raise Refusal('conflict', 'this version is in use already')\n"
        )
        return source + (self.needs_check() if self.strict else "")

    def needs_check(self) -> str:
        """Tool source that refuses a release whose own requirements the pins do not meet."""
        strong = " AND q.\"strength\" = 'required'" if self.soft else ""
        current = " AND p.\"standing\" = 'current'" if self.history else ""
        high = " and found['version'] <= need['maximum']" if self.ceilings else ""
        needs = (
            f'SELECT q.*, k."{self.pinned_key}" AS "wanted" FROM "requirement" q'
            f' JOIN "package" k ON k."{self.needed_key}" = q."{self.needed}" WHERE q."{self.release}" = ?{strong}'
        )
        pins = f'SELECT p."version" FROM "pin" p WHERE p."{self.place}" = ? AND p."{self.pinned}" = ?{current}'
        refusal = f"a {self.world.word('requirement')} is not met"
        return (
            f"    for need in db.execute({needs!r}, (release['id'],)).fetchall():\n"
            f"        found = db.execute({pins!r}, (place[{self.place_key!r}], need['wanted'])).fetchone()\n"
            f"        if found is None or not (found['version'] >= need['minimum']{high}):\n"
            f"            raise Refusal('conflict', {refusal!r})\n"
        )

    def advance_draft(self) -> ToolDraft:
        """The tool that takes a release to its next state."""
        world, release = self.world, self.arg("release")
        word = world.word("release")
        steps = {"draft": "candidate", "candidate": "published"} if self.candidates else {"draft": "published"}
        strong = " AND q.\"strength\" = 'required'" if self.soft else ""
        high = ' AND r."number" <= q."maximum"' if self.ceilings else ""
        needs = (
            f'SELECT (SELECT COUNT(*) FROM "release" r JOIN "package" k ON k."{self.owner_key}" = r."{self.owner}"'
            f' WHERE k."{self.needed_key}" = q."{self.needed}" AND r."state" = \'published\''
            f' AND r."number" >= q."minimum"{high}) AS "cover" FROM "requirement" q WHERE q."{self.release}" = ?{strong}'
        )
        uncovered = f"nothing published covers a {world.word('requirement')}"
        statement = 'UPDATE "release" SET "state" = ?, "day" = ? WHERE "id" = ?'
        return ToolDraft(
            name=self.advance_tool,
            effect="write",
            description=f"Advance a {word} to its next state: {', '.join(f'{old} to {new}' for old, new in steps.items())}.",
            parameters=arguments_schema({release: id_schema(world, "release")}),
            returns=f"id: id of the {word}; state: its new state.",
            errors=("not_found", "conflict"),
            source=(
                f"def {self.advance_tool}(db, *, {release}):\n"
                + fetch_source(world, "release", "target")
                + f"    state = {steps!r}.get(target['state'])\n"
                "    if state is None:\n"
                f"        raise Refusal('conflict', {f'this {word} is '!r} + target['state'])\n"
                "    if state == 'published':\n"
                f"        for row in db.execute({needs!r}, (target['id'],)).fetchall():\n"
                "            if row['cover'] == 0:\n"
                f"                raise Refusal('conflict', {uncovered!r})\n"
                f"    db.execute({statement!r}, (state, {self.today!r}, target['id']))\n"
                "    return {'id': target['id'], 'state': state}\n"
            ),
        )

    def withdraw_draft(self) -> ToolDraft:
        """The tool that withdraws a release."""
        world, release = self.world, self.arg("release")
        word = world.word("release")
        used = (
            f'SELECT COUNT(*) AS "uses" FROM "pin" p JOIN "package" k ON k."{self.pinned_key}" = p."{self.pinned}"'
            f' WHERE k."{self.owner_key}" = ? AND p."version" = ?'
            + (" AND p.\"standing\" = 'current'" if self.history else "")
        )
        statement = 'UPDATE "release" SET "state" = ? WHERE "id" = ?'
        return ToolDraft(
            name=self.withdraw_tool,
            effect="write",
            description=f"Withdraw a {word} that is not in use.",
            parameters=arguments_schema({release: id_schema(world, "release")}),
            returns=f"id: id of the {word}; state: its new state.",
            errors=("not_found", "conflict"),
            source=(
                f"def {self.withdraw_tool}(db, *, {release}):\n"
                + fetch_source(world, "release", "target")
                + "    if target['state'] == 'withdrawn':\n"
                f"        raise Refusal('conflict', {f'this {word} is withdrawn already'!r})\n"
                f"    if db.execute({used!r}, (target[{self.owner!r}], target['number'])).fetchone()['uses']:\n"
                f"        raise Refusal('conflict', {f'this {word} is in use'!r})\n"
                f"    db.execute({statement!r}, ('withdrawn', target['id']))\n"
                "    return {'id': target['id'], 'state': 'withdrawn'}\n"
            ),
        )
