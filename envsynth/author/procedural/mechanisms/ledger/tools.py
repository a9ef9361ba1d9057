"""Write tools of a ledger world."""

from __future__ import annotations

from typing import Any

from envsynth.author.procedural.mechanism import ToolDraft
from envsynth.author.procedural.mechanisms.entities import (
    arguments_schema,
    count_schema,
    fetch_source,
    id_schema,
    insert_source,
)
from envsynth.author.procedural.mechanisms.ledger.bindings import Bindings


class ToolTexts(Bindings):
    """Writes the tools over one world."""

    # pieces -----------------------------------------------------------------------------------------------------

    def spare_source(self, account: str, *, whole: bool) -> str:
        """Tool source that binds `spare` to the balance of an account row plus overdraft; `whole`: what is available."""
        cost = '"amount" + "fee"' if self.fees else '"amount"'
        lost = (
            f'SELECT COALESCE(SUM({cost}), 0) AS "n" FROM "transfer" WHERE "{self.source}" = ? AND "transfer_state" = ?'
        )
        lines = [f"spare = {account}[{'balance' if self.stored else 'opening'!r}]"]
        if self.overdraft:
            lines.append(f"spare += {account}['overdraft']")
        if not self.stored:
            gained = (
                f'SELECT COALESCE(SUM("amount"), 0) AS "n" FROM "transfer" WHERE "{self.target}" = ?'
                " AND \"transfer_state\" = 'posted'"
            )
            lines.append(f"spare += db.execute({gained!r}, ({account}[{self.target_key!r}],)).fetchone()['n']")
            lines.append(f"spare -= db.execute({lost!r}, ({account}[{self.source_key!r}], 'posted')).fetchone()['n']")
        if whole and self.blocks:
            lines.append(f"spare -= db.execute({lost!r}, ({account}[{self.source_key!r}], 'pending')).fetchone()['n']")
        if whole and self.holds:
            held = (
                f'SELECT COALESCE(SUM("amount"), 0) AS "n" FROM "hold" WHERE "{self.held}" = ?'
                ' AND "hold_state" = \'active\' AND "until" >= ?'
            )
            lines.append(
                f"spare -= db.execute({held!r}, ({account}[{self.held_key!r}], {self.today!r})).fetchone()['n']"
            )
        return "".join(f"    {line}\n" for line in lines)

    def fee_source(self) -> str:
        """Tool source that binds `fee`, when the tool works it out."""
        if not self.fees or not self.by_tool:
            return ""
        share = f"(amount * {self.rates}[source['account_type']]{' + 999' if self.fee_up else ''}) // 1000"
        return f"    fee = max({self.fee_floor}, {share})\n"

    def limit_source(self) -> str:
        """Tool source that refuses more than the daily limit; empty where the tool does not check it."""
        if not self.limited or not self.guarded:
            return ""
        query = (
            f'SELECT COALESCE(SUM({self.fee_column}), 0) AS "n" FROM "transfer" WHERE "{self.source}" = ?'
            ' AND "day" = ? AND "transfer_state" <> \'reversed\''
        )
        return (
            f"    sent = db.execute({query!r}, (source[{self.source_key!r}], {self.today!r})).fetchone()['n']\n"
            f"    if sent + cost > {self.limits}[source['account_type']]:\n"
            "        raise Refusal('conflict', 'the daily limit would be exceeded')\n"
        )

    @property
    def fee_column(self) -> str:
        """SQL of what a transfer takes from its source."""
        return '"amount" + "fee"' if self.fees else '"amount"'

    def book_source(self, sign: str, amount: str, fee: str) -> str:
        """Tool source that changes stored balances of `source`, `target` and the house; empty where none are stored."""
        if not self.stored:
            return ""
        add = 'UPDATE "account" SET "balance" = "balance" + ? WHERE "id" = ?'
        house = 'UPDATE "account" SET "balance" = "balance" + ? WHERE "account_type" = \'house\''
        text = (
            f"        db.execute({add!r}, ({sign}1 * -({amount} + {fee}), source['id']))\n"
            f"        db.execute({add!r}, ({sign}1 * {amount}, target['id']))\n"
        )
        return text + (f"        db.execute({house!r}, ({sign}1 * {fee},))\n" if self.fees else "")

    def sides_source(self) -> str:
        """Tool source that binds `source` and `target` to the accounts of `move`."""
        text = ""
        for side, column, key in (
            ("source", self.source, self.source_key),
            ("target", self.target, self.target_key),
        ):
            query = f'SELECT * FROM "account" WHERE "{key}" = ?'
            text += f"    {side} = db.execute({query!r}, (move[{column!r}],)).fetchone()\n"
        return text

    def turn_source(self, state: str) -> str:
        """Tool source that gives `move` another state."""
        statement = 'UPDATE "transfer" SET "transfer_state" = ? WHERE "id" = ?'
        return (
            f"    db.execute({statement!r}, ({state!r}, move['id']))\n"
            f"    return {{'id': move['id'], 'transfer_state': {state!r}}}\n"
        )

    # tools ------------------------------------------------------------------------------------------------------

    def transfer_draft(self) -> ToolDraft:
        """The tool that makes a transfer."""
        world, word, account = self.world, self.world.word("transfer"), self.world.word("account")
        given: dict[str, Any] = {}
        if not self.by_tool:
            if self.fees:
                given["fee"] = count_schema("fee in credits", 0)
            given["state"] = {
                "type": "string",
                "enum": ["pending", "posted"],
                "description": "state to enter it with",
            }
        lacks = "its available balance" if self.guarded else "its balance"
        return ToolDraft(
            name=self.transfer_tool,
            effect="write",
            description=(
                f"Make a {word} of today from one {account} to another; refused where the source lacks the money"
                f" ({lacks}{' or daily limit' if self.guarded and self.limited else ''})."
            ),
            parameters=arguments_schema(
                {
                    self.source_argument: {
                        **id_schema(world, "account"),
                        "description": f"id of the {account} that sends",
                    },
                    self.target_argument: {
                        **id_schema(world, "account"),
                        "description": f"id of the {account} that receives",
                    },
                    "amount": count_schema("amount in credits"),
                    **given,
                }
            ),
            returns=f"id: id of the new {word}; {'fee: its fee; ' if self.fees else ''}transfer_state: its state.",
            errors=("not_found", "invalid", "conflict"),
            source=self.transfer_source([self.source_argument, self.target_argument, "amount", *given]),
        )

    def transfer_source(self, names: list[str]) -> str:
        """Source of the tool that makes a transfer, with these arguments."""
        world, word, account = self.world, self.world.word("transfer"), self.world.word("account")
        cells = {
            self.source: f"source[{self.source_key!r}]",
            self.target: f"target[{self.target_key!r}]",
            "amount": "amount",
            **({"fee": "fee"} if self.fees else {}),
            "day": repr(self.today),
            "transfer_state": "state",
        }
        state = f"    state = 'pending' if amount > {self.wait_above} else 'posted'\n" if self.by_tool else ""
        house = (
            "    if 'house' in (source['account_type'], target['account_type']):\n"
            f"        raise Refusal('invalid', {f'the house {account} neither sends nor gets a {word}'!r})\n"
            if self.fees
            else ""
        )
        return (
            f"def {self.transfer_tool}(db, *, {', '.join(names)}):\n"
            + fetch_source(world, "account", "source", self.source_argument)
            + fetch_source(world, "account", "target", self.target_argument)
            + "    if source['id'] == target['id']:\n"
            f"        raise Refusal('invalid', 'source and target are the same')\n"
            f"{house}"
            + self.fee_source()
            + f"    cost = amount{' + fee' if self.fees else ''}\n"
            + self.spare_source("source", whole=self.guarded)
            + "    if spare < cost:\n"
            "        raise Refusal('conflict', 'the source does not have that much')\n"
            + self.limit_source()
            + state
            + insert_source(world, "transfer", cells)
            + ("    if state == 'posted':\n" if self.stored else "")
            + self.book_source("", "amount", "fee" if self.fees else "0")
            + f"    return {{'id': new_id, {chr(39) + 'fee' + chr(39) + ': fee, ' if self.fees else ''}"
            "'transfer_state': state}\n"
        )

    def settle_draft(self) -> ToolDraft:
        """The tool that posts a pending transfer."""
        world, transfer = self.world, self.arg("transfer")
        fee = "move['fee']" if self.fees else "0"
        need = "0" if self.blocks else f"move['amount'] + {fee}"
        return ToolDraft(
            name=self.settle_tool,
            effect="write",
            description=f"Post a pending {world.word('transfer')}.",
            parameters=arguments_schema({transfer: id_schema(world, "transfer")}),
            returns=f"id: id of the {world.word('transfer')}; transfer_state: its new state.",
            errors=("not_found", "conflict"),
            source=(
                f"def {self.settle_tool}(db, *, {transfer}):\n"
                + fetch_source(world, "transfer", "move")
                + "    if move['transfer_state'] != 'pending':\n"
                "        raise Refusal('conflict', 'it is not pending')\n"
                + self.sides_source()
                + self.spare_source("source", whole=True)
                + f"    if spare < {need}:\n"
                "        raise Refusal('conflict', 'the source does not have that much')\n"
                + ("    if True:\n" if self.stored else "")
                + self.book_source("", "move['amount']", fee)
                + self.turn_source("posted")
            ),
        )

    def reverse_draft(self) -> ToolDraft:
        """The tool that reverses a transfer."""
        world, transfer = self.world, self.arg("transfer")
        fee = "move['fee']" if self.fees else "0"
        states = ("posted", "pending") if self.undo_any else ("posted",)
        old = (
            f"    if move['day'] < {self.undo_from!r}:\n"
            "        raise Refusal('conflict', 'it is too old to be reversed')\n"
            if self.undo_days
            else ""
        )
        return ToolDraft(
            name=self.reverse_tool,
            effect="write",
            description=f"Reverse a {world.word('transfer')}.",
            parameters=arguments_schema({transfer: id_schema(world, "transfer")}),
            returns=f"id: id of the {world.word('transfer')}; transfer_state: its new state.",
            errors=("not_found", "conflict"),
            source=(
                f"def {self.reverse_tool}(db, *, {transfer}):\n"
                + fetch_source(world, "transfer", "move")
                + f"    if move['transfer_state'] not in {states}:\n"
                "        raise Refusal('conflict', 'its state is ' + move['transfer_state'])\n"
                + old
                + self.sides_source()
                + self.spare_source("target", whole=True)
                + "    if move['transfer_state'] == 'posted' and spare < move['amount']:\n"
                "        raise Refusal('conflict', 'the target does not have that much any more')\n"
                + ("    if move['transfer_state'] == 'posted':\n" if self.stored else "")
                + self.book_source("-", "move['amount']", fee)
                + self.turn_source("reversed")
            ),
        )

    def place_draft(self) -> ToolDraft:
        """The tool that places a hold."""
        world, hold, account = self.world, self.world.word("hold"), self.arg("account")
        house = (
            "    if account['account_type'] == 'house':\n"
            f"        raise Refusal('invalid', {f'the house account takes no {hold}'!r})\n"
            if self.fees
            else ""
        )
        cells = {
            self.held: f"account[{self.held_key!r}]",
            "amount": "amount",
            "until": "until",
            "hold_state": "'active'",
        }
        return ToolDraft(
            name=self.place_tool,
            effect="write",
            description=f"Place a {hold} on a {world.word('account')}: sets money aside until a day.",
            parameters=arguments_schema(
                {
                    account: id_schema(world, "account"),
                    "amount": count_schema("amount in credits"),
                    "until": {
                        "type": "string",
                        "pattern": r"^\d{4}-\d{2}-\d{2}$",
                        "description": "last day, YYYY-MM-DD",
                    },
                }
            ),
            returns=f"id: id of the new {hold}.",
            errors=("not_found", "invalid", "conflict"),
            source=(
                f"def {self.place_tool}(db, *, {account}, amount, until):\n"
                + fetch_source(world, "account", "account")
                + house
                + f"    if until < {self.today!r}:\n"
                "        raise Refusal('invalid', 'the last day is over')\n"
                + self.spare_source("account", whole=self.guarded)
                + "    if spare < amount:\n"
                "        raise Refusal('conflict', 'there is not that much to set aside')\n"
                + insert_source(world, "hold", cells)
                + "    return {'id': new_id}\n"
            ),
        )

    def release_draft(self) -> ToolDraft:
        """The tool that releases a hold."""
        world, hold = self.world, self.arg("hold")
        statement = 'UPDATE "hold" SET "hold_state" = ? WHERE "id" = ?'
        return ToolDraft(
            name=self.release_tool,
            effect="write",
            description=f"Release a live {world.word('hold')}.",
            parameters=arguments_schema({hold: id_schema(world, "hold")}),
            returns=f"id: id of the {world.word('hold')}; hold_state: its new state.",
            errors=("not_found", "conflict"),
            source=(
                f"def {self.release_tool}(db, *, {hold}):\n"
                + fetch_source(world, "hold", "hold")
                + "    if hold['hold_state'] != 'active':\n"
                "        raise Refusal('conflict', 'already released')\n"
                f"    if hold['until'] < {self.today!r}:\n"
                "        raise Refusal('conflict', 'its last day is over')\n"
                f"    db.execute({statement!r}, ('released', hold['id']))\n"
                "    return {'id': hold['id'], 'hold_state': 'released'}\n"
            ),
        )
