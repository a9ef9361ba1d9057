"""Write tools of a permission world."""

from __future__ import annotations

from envsynth.author.procedural.mechanism import ToolDraft
from envsynth.author.procedural.mechanisms.entities import (
    arguments_schema,
    count_schema,
    fetch_source,
    id_schema,
    insert_source,
)
from envsynth.author.procedural.mechanisms.permissions.bindings import TOP, Bindings


class ToolTexts(Bindings):
    """Writes the tools over one world."""

    def grant_draft(self) -> ToolDraft:
        """The tool that grants."""
        world, team, folder = self.world, self.arg("team"), self.arg("folder")
        rule, word, folder_word = world.word("accessrule"), world.word("team"), world.word("folder")
        query = f'SELECT * FROM "accessrule" WHERE "{self.rule_team}" = ? AND "{self.folder}" = ?'
        raise_level = 'UPDATE "accessrule" SET "level" = ? WHERE "id" = ?'
        denied = (
            "        if known['effect'] == 'deny':\n"
            f"            raise Refusal('conflict', {f'this {word} is denied there'!r})\n"
            if self.denials
            else ""
        )
        archived = (
            "    if folder['state'] == 'archived':\n"
            f"        raise Refusal('conflict', {f'this {folder_word} is archived'!r})\n"
            if self.archiving
            else ""
        )
        cells = {
            self.rule_team: f"team[{self.rule_team_key!r}]",
            self.folder: f"folder[{self.folder_key!r}]",
            "level": "level",
            **({"effect": "'allow'"} if self.denials else {}),
        }
        return ToolDraft(
            name=self.grant_tool,
            effect="write",
            description=f"Grant a {word} a level on a {world.word('folder')}: raises its {rule} or makes one.",
            parameters=arguments_schema(
                {
                    team: id_schema(world, "team"),
                    folder: id_schema(world, "folder"),
                    "level": {**count_schema("1 read, 2 write, 3 manage"), "maximum": TOP},
                }
            ),
            returns=f"id: id of the {rule}; level: its level.",
            errors=("not_found", "conflict"),
            source=(
                f"def {self.grant_tool}(db, *, {team}, {folder}, level):\n"
                + fetch_source(world, "team", "team")
                + fetch_source(world, "folder", "folder")
                + archived
                + f"    pair = (team[{self.rule_team_key!r}], folder[{self.folder_key!r}])\n"
                f"    known = db.execute({query!r}, pair).fetchone()\n"
                "    if known is not None:\n"
                f"{denied}"
                "        if known['level'] >= level:\n"
                f"            raise Refusal('conflict', {f'this {word} has that level already'!r})\n"
                f"        db.execute({raise_level!r}, (level, known['id']))\n"
                "        return {'id': known['id'], 'level': level}\n"
                + insert_source(world, "accessrule", cells)
                + "    return {'id': new_id, 'level': level}\n"
            ),
        )

    def end_draft(self) -> ToolDraft:
        """The tool that ends a membership."""
        world, membership = self.world, self.arg("membership")
        column, value = self.ended
        statement = f'UPDATE "membership" SET "{column}" = ? WHERE "id" = ?'
        over = f"found['until'] < {self.today!r}" if self.dated else "found['state'] == 'ended'"
        return ToolDraft(
            name=self.end_tool,
            effect="write",
            description=f"End a {world.word('membership')} as of today.",
            parameters=arguments_schema({membership: id_schema(world, "membership")}),
            returns=f"id: id of the {world.word('membership')}; {column}: its new {world.col('membership', column).label}.",
            errors=("not_found", "conflict"),
            source=(
                f"def {self.end_tool}(db, *, {membership}):\n"
                + fetch_source(world, "membership", "found")
                + f"    if {over}:\n"
                "        raise Refusal('conflict', 'it has ended already')\n"
                f"    db.execute({statement!r}, ({value!r}, found['id']))\n"
                f"    return {{'id': found['id'], {column!r}: {value!r}}}\n"
            ),
        )

    def add_draft(self) -> ToolDraft:
        """The tool that adds a membership."""
        world, person, team = self.world, self.arg("person"), self.arg("team")
        word = world.word("person")
        live, value = ('"until" >= ?', self.today) if self.dated else ('"state" = ?', "current")
        query = f'SELECT 1 AS "hit" FROM "membership" WHERE "{self.person}" = ? AND {live}'
        held, where = f"person[{self.person_key!r}], {value!r}", ""
        if not self.one_team:
            query, held, where = f'{query} AND "{self.team}" = ?', f"{held}, team[{self.team_key!r}]", " there"
        standing = {"type": "string", "enum": ["regular", "guest"], "description": "standing to enter it with"}
        until = {"type": "string", "pattern": r"^\d{4}-\d{2}-\d{2}$", "description": "last day, YYYY-MM-DD"}
        more = {**({"standing": standing} if self.guests else {}), **({"until": until} if self.dated else {})}
        past = (
            f"    if until < {self.today!r}:\n        raise Refusal('invalid', 'the last day lies in the past')\n"
            if self.dated
            else ""
        )
        cells = {
            self.person: f"person[{self.person_key!r}]",
            self.team: f"team[{self.team_key!r}]",
            **{name: name for name in more},
            **({} if self.dated else {"state": "'current'"}),
        }
        return ToolDraft(
            name=self.add_tool,
            effect="write",
            description=f"Add a {word} to a {world.word('team')}: makes a {world.word('membership')}.",
            parameters=arguments_schema({person: id_schema(world, "person"), team: id_schema(world, "team"), **more}),
            returns=f"id: id of the new {world.word('membership')}.",
            errors=("not_found", "invalid", "conflict") if self.dated else ("not_found", "conflict"),
            source=(
                f"def {self.add_tool}(db, *, {', '.join([person, team, *more])}):\n"
                + fetch_source(world, "person", "person")
                + fetch_source(world, "team", "team")
                + past
                + f"    if db.execute({query!r}, ({held})).fetchone() is not None:\n"
                f"        raise Refusal('conflict', {f'this {word} has a current one{where} already'!r})\n"
                + insert_source(world, "membership", cells)
                + "    return {'id': new_id}\n"
            ),
        )

    def reassign_draft(self) -> ToolDraft:
        """The tool that gives a folder another owner."""
        world, folder = self.world, self.arg("folder")
        statement = f'UPDATE "folder" SET "{self.owner}" = ? WHERE "id" = ?'
        return ToolDraft(
            name=self.reassign_tool,
            effect="write",
            description=f"Make another {world.word('person')} the owner of a {world.word('folder')}.",
            parameters=arguments_schema(
                {
                    folder: id_schema(world, "folder"),
                    "owner_id": {**id_schema(world, "person"), "description": "id of the new owner"},
                }
            ),
            returns=f"id: id of the {world.word('folder')}; {self.owner}: its new owner.",
            errors=("not_found", "conflict"),
            source=(
                f"def {self.reassign_tool}(db, *, {folder}, owner_id):\n"
                + fetch_source(world, "folder", "folder")
                + fetch_source(world, "person", "owner", "owner_id")
                + f"    if folder[{self.owner!r}] == owner[{self.owner_key!r}]:\n"
                "        raise Refusal('conflict', 'this owner has it already')\n"
                f"    db.execute({statement!r}, (owner[{self.owner_key!r}], folder['id']))\n"
                f"    return {{'id': folder['id'], {self.owner!r}: owner[{self.owner_key!r}]}}\n"
            ),
        )
