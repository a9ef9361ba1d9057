"""What the texts of a permission world have in common: column names and rules bound to one world, and SQL pieces."""

from __future__ import annotations

from datetime import date, timedelta

from envsynth.author.procedural.ir import Type
from envsynth.author.procedural.mechanism import Composed
from envsynth.author.procedural.mechanisms.entities import id_argument

PERSON, TEAM, FOLDER = Type("row", "person"), Type("row", "team"), Type("row", "folder")
LEVEL = Type("num", "level")
PEOPLE = Type("num", "people")
TOP = 3
"""Highest access level: 1 is reading, 2 writing, 3 managing."""


class Bindings:
    """The texts over one composed world: column names, nouns and rules are bound here."""

    def __init__(self, world: Composed) -> None:
        self.world, rules = world, world.rules
        self.person, self.person_key = world.fk("membership", "person")
        self.team, self.team_key = world.fk("membership", "team")
        self.rule_team, self.rule_team_key = world.fk("accessrule", "team")
        self.folder, self.folder_key = world.fk("accessrule", "folder")
        self.team_tree, self.folder_tree = bool(rules["team_tree"]), bool(rules["folder_tree"])
        self.above, self.above_key = world.fk("team", "parent") if self.team_tree else ("", "")
        self.outer, self.outer_key = world.fk("folder", "parent") if self.folder_tree else ("", "")
        self.owners = bool(rules["owners"])
        self.owner, self.owner_key = world.fk("folder", "owner") if self.owners else ("", "")
        self.dated, self.guests = bool(rules["membership_ends"]), bool(rules["guests"])
        self.denials, self.deny_all = bool(rules["denials"]), bool(rules["deny_all"])
        self.archiving, self.one_team = bool(rules["archiving"]), bool(rules["one_team"])
        self.today = world.now[:10]
        self.yesterday = (date.fromisoformat(self.today) - timedelta(days=1)).isoformat()
        membership = world.slug("membership")
        self.grant_tool = f"grant_{world.slug('accessrule')}"
        self.end_tool, self.add_tool = f"end_{membership}", f"add_{membership}"
        self.reassign_tool = f"reassign_{world.slug('folder')}"
        self.ended = ("until", self.yesterday) if self.dated else ("state", "ended")
        """Column that ends a membership, and what it is set to."""
        self.kept = (*(("standing",) if self.guests else ()), *(("until",) if self.dated else ()))
        """Columns of a membership that a new one takes when it is moved; they are called what their entity calls them."""

    def arg(self, entity: str) -> str:
        """Name of the tool argument that takes an id."""
        return id_argument(self.world, entity)

    def over(self, name: str) -> str:
        """Goal condition that a membership has ended, in brackets."""
        return f"({name}['until'] < {self.today!r})" if self.dated else f"({name}['state'] == 'ended')"

    # SQL --------------------------------------------------------------------------------------------------------

    def current_sql(self, alias: str) -> str:
        """Whether a membership is current."""
        return f"{alias}.\"until\" >= '{self.today}'" if self.dated else f"{alias}.\"state\" = 'current'"

    def headcount_sql(self, team: str) -> str:
        """Different persons of a team and the teams below it."""
        below = (
            f' UNION SELECT c."id" FROM "below" JOIN "team" u ON u."id" = "below"."id"'
            f' JOIN "team" c ON c."{self.above}" = u."{self.above_key}"'
            if self.team_tree
            else ""
        )
        guest = f' AND (m."standing" <> \'guest\' OR e."id" = {team}."id")' if self.guests else ""
        return (
            f'(WITH RECURSIVE "below"("id") AS (SELECT {team}."id"{below})'
            f' SELECT COUNT(DISTINCT m."{self.person}") FROM "membership" m'
            f' JOIN "team" e ON e."{self.team_key}" = m."{self.team}"'
            f' WHERE {self.current_sql("m")} AND e."id" IN (SELECT "id" FROM "below"){guest})'
        )

    def level_sql(self, folder: str, person: str) -> str:
        """Access level of a person on a folder."""
        joined = (
            f'SELECT e."id" FROM "membership" m JOIN "team" e ON e."{self.team_key}" = m."{self.team}"'
            f' WHERE m."{self.person}" = {person}."{self.person_key}" AND {self.current_sql("m")}'
        )
        regular = f"{joined} AND m.\"standing\" <> 'guest'" if self.guests else joined
        upward = (
            f' UNION SELECT u."id" FROM "mine" JOIN "team" c ON c."id" = "mine"."id"'
            f' JOIN "team" u ON u."{self.above_key}" = c."{self.above}"'
            if self.team_tree
            else ""
        )
        outward = (
            f' UNION SELECT u."id" FROM "line" JOIN "folder" c ON c."id" = "line"."id"'
            f' JOIN "folder" u ON u."{self.outer_key}" = c."{self.outer}"'
            if self.folder_tree
            else ""
        )
        guest = f" UNION {joined} AND m.\"standing\" = 'guest'" if self.guests else ""
        effect = "r.\"effect\" = 'deny'" if self.denials else "0"
        level = 'COALESCE(MAX(CASE WHEN NOT "denied" THEN "level" END), 0)'
        if self.denials:
            limit = "0" if self.deny_all else '"level" - 1'
            level = f'MIN({level}, COALESCE(MIN(CASE WHEN "denied" THEN {limit} END), {TOP}))'
        if self.archiving:
            level = f"CASE WHEN {folder}.\"state\" = 'archived' THEN MIN(1, {level}) ELSE {level} END"
        if self.owners:
            owner = f'{folder}."{self.owner}" = {person}."{self.owner_key}"'
            level = f"CASE WHEN {owner} THEN {TOP} ELSE {level} END"
        return (
            f'(WITH RECURSIVE "mine"("id") AS ({regular}{upward}),'
            f' "line"("id") AS (SELECT {folder}."id"{outward}),'
            f' "hit"("level", "denied") AS (SELECT r."level", {effect} FROM "accessrule" r'
            f' JOIN "team" e ON e."{self.rule_team_key}" = r."{self.rule_team}"'
            f' JOIN "folder" x ON x."{self.folder_key}" = r."{self.folder}"'
            f' WHERE x."id" IN (SELECT "id" FROM "line") AND e."id" IN (SELECT "id" FROM "mine"{guest}))'
            f' SELECT {level} FROM "hit")'
        )
