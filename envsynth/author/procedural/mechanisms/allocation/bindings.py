"""What the texts of a world of funds have in common: column names and rules of one world, and SQL pieces."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, timedelta
from typing import Any

from envsynth.author.procedural.ir import Type
from envsynth.author.procedural.mechanism import Composed
from envsynth.author.procedural.mechanisms.entities import id_argument

CREDITS = Type("num", "credits")
POINTS = Type("num", "points")
TRACKS = ("core", "growth", "pilot", "relief")
SHORTLIST = 9
"""Most shortlisted requests of a fund."""


def states(rules: Mapping[str, Any]) -> tuple[str, ...]:
    """States that a request can have under these rules."""
    return ("open", *(("shortlisted",) if rules["alloc_stages"] else ()), "granted", "refused", "revoked")


class Bindings:
    """The texts over one composed world: column names, nouns and rules are bound here."""

    def __init__(self, world: Composed) -> None:
        self.world, rules = world, world.rules
        self.stages, self.strict = bool(rules["alloc_stages"]), bool(rules["alloc_strict"])
        self.ready = "shortlisted" if self.stages else "open"
        self.undecided = ("open", "shortlisted") if self.stages else ("open",)
        self.overhead, self.reserve = int(rules["alloc_overhead"]), int(rules["alloc_reserve"])
        self.shares, self.quota = str(rules["alloc_shares"]), str(rules["alloc_quota"])
        self.topics, self.phases, self.bar = rules["alloc_topics"], rules["alloc_phases"], rules["alloc_bar"]
        self.holder, self.displace = int(rules["alloc_holder"]), bool(rules["alloc_displace"])
        self.grace = int(rules["alloc_grace"])
        self.revocable_from = (date.fromisoformat(world.now[:10]) - timedelta(days=self.grace)).isoformat()
        none = ("", "")
        self.fund, self.fund_key = world.fk("claim", "fund")
        self.person, self.person_key = world.fk("claim", "person")
        self.topic = world.fk("claim", "topic")[0] if self.topics else ""
        self.first, self.first_key = none if self.topics else world.fk("clash", "first")
        self.second, self.second_key = none if self.topics else world.fk("clash", "second")
        self.limited, self.limited_key = world.fk("quota", "fund") if self.quota != "none" else none
        self.paid, self.paid_key = world.fk("share", "fund") if self.shares != "none" else none
        slug = world.slug("claim")
        self.grant_tool, self.revoke_tool = f"grant_{slug}", f"revoke_{slug}"
        self.turn_down_tool, self.shortlist_tool = f"turn_down_{slug}", f"shortlist_{slug}"
        self.cost_words = "full cost" if self.overhead else "amount"

    def arg(self, entity: str) -> str:
        """Name of the tool argument that takes an id."""
        return id_argument(self.world, entity)

    # SQL --------------------------------------------------------------------------------------------------------

    def cost_sql(self, claim: str) -> str:
        """SQL of what a request costs its fund."""
        if not self.overhead:
            return f'{claim}."amount"'
        return f'({claim}."amount" + ({claim}."amount" * {self.overhead} + 99) / 100)'

    def room_sql(self, fund: str) -> str:
        """SQL of the free budget of a fund."""
        money = f'{fund}."budget"'
        if self.shares != "none":
            stage = " AND z.\"stage\" = 'paid'" if self.shares == "paid" else ""
            money = (
                f'({money} + (SELECT COALESCE(SUM(z."amount"), 0) FROM "share" z'
                f' WHERE z."{self.paid}" = {fund}."{self.paid_key}"{stage}))'
            )
        kept = f" - ({money} * {self.reserve} + 99) / 100" if self.reserve else ""
        return (
            f'({money}{kept} - (SELECT COALESCE(SUM({self.cost_sql("k")}), 0) FROM "claim" k'
            f' WHERE k."{self.fund}" = {fund}."{self.fund_key}" AND k."state" = \'granted\'))'
        )

    def excludes_sql(self, one: str, other: str) -> str:
        """SQL condition that two requests exclude one another."""
        if self.topics:
            return f'({one}."{self.topic}" = {other}."{self.topic}" AND {one}."id" <> {other}."id")'
        ways = " OR ".join(
            f'(x."{self.first}" = {left}."{self.first_key}" AND x."{self.second}" = {right}."{self.second_key}")'
            for left, right in ((one, other), (other, one))
        )
        return f'EXISTS (SELECT 1 FROM "clash" x WHERE {ways})'

    def quota_room_sql(self, claim: str, fund: str) -> str:
        """SQL of what the quotas of a fund leave for the track of a request; NULL without a quota."""
        used = 'SUM(h."amount")' if self.quota == "sum" else "COUNT(*)"
        return (
            f'((SELECT MIN(q."most") FROM "quota" q WHERE q."{self.limited}" = {fund}."{self.limited_key}"'
            f' AND q."track" = {claim}."track") - (SELECT COALESCE({used}, 0) FROM "claim" h'
            f' WHERE h."state" = \'granted\' AND h."{self.fund}" = {claim}."{self.fund}"'
            f' AND h."track" = {claim}."track"))'
        )

    def holder_room_sql(self, claim: str) -> str:
        """SQL of how many more grants the applicant of a request may hold."""
        return (
            f'({self.holder} - (SELECT COUNT(*) FROM "claim" h WHERE h."state" = \'granted\''
            f' AND h."{self.person}" = {claim}."{self.person}"))'
        )

    def weight_sql(self, claim: str) -> str:
        """SQL of what a request takes off a quota."""
        return f'{claim}."amount"' if self.quota == "sum" else "1"

    def grantable_sql(self, claim: str) -> str:
        """SQL condition that a request can be granted, taken by itself."""
        parts = [f'g."{self.fund_key}" = {claim}."{self.fund}"', f"{self.cost_sql(claim)} <= {self.room_sql('g')}"]
        if self.phases:
            parts.append("g.\"phase\" = 'open'")
        if self.bar:
            parts.append(f'{claim}."merit" >= g."bar"')
        if self.quota != "none":
            parts.append(f"{self.weight_sql(claim)} <= COALESCE({self.quota_room_sql(claim, 'g')}, 1000000000)")
        holder = f" AND {self.holder_room_sql(claim)} >= 1" if self.holder else ""
        return (
            f'({claim}."state" = \'{self.ready}\' AND EXISTS (SELECT 1 FROM "fund" g WHERE {" AND ".join(parts)})'
            f' AND NOT EXISTS (SELECT 1 FROM "claim" o WHERE o."state" = \'granted\' AND {self.excludes_sql(claim, "o")})'
            f"{holder})"
        )

    def sets_sql(self, fund: str, table: str = "") -> str:
        """Common table expressions "sets" and "able": all sets of a fund that can be granted together.

        Requests that can be granted are numbered by powers of two, so that a set is one number; a set takes them in
        ascending order. What the recursion must know of them travels along as JSON, because SQLite would work out a table
        anew in each of its steps.

        Args:
            fund: Alias of the fund's row.
            table: Table that the alias stands for, unless an outer query knows it.
        """
        facts = ['y."bit"', 'y."price"', 'y."merit"', self.mask_sql(self.excludes_sql("y", "w"))]
        limits: list[str] = []
        columns = ""

        def limit(name: str, room: str, weight: str, column: str) -> None:
            nonlocal columns
            columns += f', {room} AS "{name}_room"'
            place = len(facts)
            facts.extend([f'y."{name}_room"', weight, self.mask_sql(f'y."{column}" = w."{column}"')])
            used = (
                f'(SELECT COALESCE(SUM({_fact("b", place + 1)}), 0) FROM json_each(s."pack") b'
                f' WHERE {_fact("b", 0)} & s."mask" & {_fact("a", place + 2)})'
            )
            limits.append(f" AND {_fact('a', place + 1)} + {used} <= COALESCE({_fact('a', place)}, 1000000000)")

        if self.quota != "none":
            limit("track", self.quota_room_sql("c", fund), self.weight_sql("y"), "track")
        if self.holder:
            limit("person", self.holder_room_sql("c"), "1", self.person)
        return (
            f'"ready" AS MATERIALIZED (SELECT c.*, {self.cost_sql("c")} AS "price",'
            f' 1 << (row_number() OVER (ORDER BY c."id") - 1) AS "bit"{columns} FROM "claim" c{f", {table} {fund}" if table else ""}'
            f' WHERE c."{self.fund}" = {fund}."{self.fund_key}" AND {self.grantable_sql("c")}),'
            f' "able"("id", "bit", "facts") AS MATERIALIZED (SELECT y."id", y."bit", json_array({", ".join(facts)})'
            ' FROM "ready" y), "sets"("top", "mask", "free", "merit", "pack") AS ('
            f'SELECT 0, 0, {self.room_sql(fund)}, 0, (SELECT json_group_array(json("facts")) FROM "able")'
            f"{f' FROM {table} {fund}' if table else ''}"
            f' UNION ALL SELECT {_fact("a", 0)}, s."mask" | {_fact("a", 0)}, s."free" - {_fact("a", 1)},'
            f' s."merit" + {_fact("a", 2)}, s."pack" FROM "sets" s, json_each(s."pack") a'
            f' WHERE {_fact("a", 0)} > s."top" AND {_fact("a", 1)} <= s."free" AND s."mask" & {_fact("a", 3)} = 0'
            f"{''.join(limits)})"
        )

    def mask_sql(self, condition: str) -> str:
        """SQL of the bits of all ready requests `w` that meet a condition."""
        return f'(SELECT COALESCE(SUM(w."bit"), 0) FROM "ready" w WHERE {condition})'


def _fact(alias: str, place: int) -> str:
    """SQL of a fact about a request, from an element of the pack."""
    return f"json_extract({alias}.\"value\", '$[{place}]')"
