"""Write tools of a world of funds."""

from __future__ import annotations

from envsynth.author.procedural.mechanism import ToolDraft
from envsynth.author.procedural.mechanisms.allocation.bindings import SHORTLIST, Bindings
from envsynth.author.procedural.mechanisms.entities import arguments_schema, fetch_source, id_schema

_REFUSE = "raise Refusal('conflict', "


class ToolTexts(Bindings):
    """Writes the tools over one world."""

    def draft(self, name: str, what: str, state: str, checks: str) -> ToolDraft:
        """A tool that moves one request into a state after some checks."""
        world, argument = self.world, self.arg("claim")
        statement = 'UPDATE "claim" SET "state" = ? WHERE "id" = ?'
        return ToolDraft(
            name=name,
            effect="write",
            description=f"{what} a {world.word('claim')}.",
            parameters=arguments_schema({argument: id_schema(world, "claim")}),
            returns=f"id: id of the {world.word('claim')}; state: its new state.",
            errors=("not_found", "conflict"),
            source=(
                f"def {name}(db, *, {argument}):\n"
                + fetch_source(world, "claim", "claim")
                + checks
                + f"    db.execute({statement!r}, ({state!r}, claim['id']))\n"
                f"    return {{'id': claim['id'], 'state': {state!r}}}\n"
            ),
        )

    def state_source(self, wanted: tuple[str, ...]) -> str:
        """Tool source that refuses a request in another state."""
        return f"    if claim['state'] not in {wanted!r}:\n        {_REFUSE}'its state is ' + claim['state'])\n"

    def fund_source(self) -> str:
        """Tool source that binds the fund of the request."""
        query = f'SELECT * FROM "fund" WHERE "{self.fund_key}" = ?'
        return f"    fund = db.execute({query!r}, (claim[{self.fund!r}],)).fetchone()\n"

    def bar_source(self) -> str:
        """Tool source that refuses too little merit."""
        if not self.bar:
            return ""
        return f"    if claim['merit'] < fund['bar']:\n        {_REFUSE}'its merit is too low')\n"

    def budget_source(self) -> str:
        """Tool source that refuses what costs more than is free."""
        query = f'SELECT "amount" FROM "claim" WHERE "{self.fund}" = ? AND "state" = ?'
        source = "    money = fund['budget']\n"
        if self.shares != "none":
            stage, value = (' AND "stage" = ?', ", 'paid'") if self.shares == "paid" else ("", "")
            paid = f'SELECT COALESCE(SUM("amount"), 0) AS "paid" FROM "share" WHERE "{self.paid}" = ?{stage}'
            source += f"    money += db.execute({paid!r}, (fund[{self.paid_key!r}]{value},)).fetchone()['paid']\n"
        if self.reserve:
            source += f"    money -= (money * {self.reserve} + 99) // 100\n"
        return source + (
            f"    granted = db.execute({query!r}, (claim[{self.fund!r}], 'granted')).fetchall()\n"
            "    for amount in [claim['amount']] + [row['amount'] for row in granted]:\n"
            f"        money -= amount + (amount * {self.overhead} + 99) // 100\n"
            "    if money < 0:\n"
            f"        {_REFUSE}'the free budget is too small')\n"
        )

    def exclusion_source(self) -> str:
        """Tool source that refuses what a granted request excludes."""
        if self.topics:
            query = f'SELECT 1 AS "one" FROM "claim" WHERE "{self.topic}" = ? AND "state" = ? AND "id" <> ?'
            found = f"db.execute({query!r}, (claim[{self.topic!r}], 'granted', claim['id'])).fetchone()"
            return f"    if {found} is not None:\n        {_REFUSE}'a granted one excludes it')\n"
        source = ""
        for mine, mine_key, theirs, theirs_key in (
            (self.first, self.first_key, self.second, self.second_key),
            (self.second, self.second_key, self.first, self.first_key),
        ):
            query = (
                f'SELECT 1 AS "one" FROM "clash" x JOIN "claim" o ON o."{theirs_key}" = x."{theirs}"'
                f' WHERE x."{mine}" = ? AND o."state" = ?'
            )
            source += (
                f"    if db.execute({query!r}, (claim[{mine_key!r}], 'granted')).fetchone() is not None:\n"
                f"        {_REFUSE}'a granted one excludes it')\n"
            )
        return source

    def limit_source(self) -> str:
        """Tool source that refuses what would break a quota or the limit per person."""
        source = ""
        if self.quota != "none":
            used, own = ('COALESCE(SUM("amount"), 0)', "claim['amount']") if self.quota == "sum" else ("COUNT(*)", "1")
            quota = f'SELECT "most" FROM "quota" WHERE "{self.limited}" = ? AND "track" = ?'
            query = f'SELECT {used} AS "used" FROM "claim" WHERE "{self.fund}" = ? AND "track" = ? AND "state" = ?'
            source += (
                f"    limits = db.execute({quota!r}, (fund[{self.limited_key!r}], claim['track'])).fetchall()\n"
                f"    used = db.execute({query!r}, (claim[{self.fund!r}], claim['track'], 'granted')).fetchone()['used']\n"
                f"    if any(used + {own} > row['most'] for row in limits):\n"
                f"        {_REFUSE}'the limit of its track is reached')\n"
            )
        if self.holder:
            query = f'SELECT COUNT(*) AS "held" FROM "claim" WHERE "{self.person}" = ? AND "state" = ?'
            source += (
                f"    held = db.execute({query!r}, (claim[{self.person!r}], 'granted')).fetchone()['held']\n"
                f"    if held >= {self.holder}:\n"
                f"        {_REFUSE}'its applicant holds too many grants')\n"
            )
        return source

    def grant_draft(self) -> ToolDraft:
        """The tool that grants; only a strict one looks at all rules."""
        checks = self.state_source((self.ready,)) + self.fund_source()
        if self.phases:
            checks += f"    if fund['phase'] != 'open':\n        {_REFUSE}'it is closed')\n"
        checks += self.budget_source()
        if self.strict:
            checks += self.bar_source() + self.exclusion_source() + self.limit_source()
        return self.draft(self.grant_tool, "Grant", "granted", checks)

    def revoke_draft(self) -> ToolDraft:
        """The tool that revokes."""
        checks = self.state_source(("granted",))
        if self.grace:
            checks += (
                f"    if claim['filed'] < {self.revocable_from!r}:\n        {_REFUSE}'it was filed too long ago')\n"
            )
        return self.draft(self.revoke_tool, "Revoke", "revoked", checks)

    def turn_down_draft(self) -> ToolDraft:
        """The tool that turns down."""
        return self.draft(self.turn_down_tool, "Turn down", "refused", self.state_source(self.undecided))

    def shortlist_draft(self) -> ToolDraft:
        """The tool that shortlists."""
        query = f'SELECT COUNT(*) AS "listed" FROM "claim" WHERE "{self.fund}" = ? AND "state" = ?'
        checks = (
            self.state_source(("open",))
            + self.fund_source()
            + self.bar_source()
            + f"    listed = db.execute({query!r}, (claim[{self.fund!r}], 'shortlisted')).fetchone()['listed']\n"
            f"    if listed >= {SHORTLIST}:\n"
            f"        {_REFUSE}'the shortlist is full')\n"
        )
        return self.draft(self.shortlist_tool, "Shortlist", "shortlisted", checks)
