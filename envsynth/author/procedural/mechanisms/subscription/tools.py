"""Write tools of a subscription world."""

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
from envsynth.author.procedural.mechanisms.subscription.bindings import Bindings


def day_schema(description: str) -> dict[str, Any]:
    """JSON Schema of a tool argument that holds a day."""
    return {"type": "string", "pattern": r"^\d{4}-\d{2}-\d{2}$", "description": f"{description}, YYYY-MM-DD"}


class ToolTexts(Bindings):
    """Writes the tools over one world."""

    # pieces -----------------------------------------------------------------------------------------------------

    def calendar_source(self) -> str:
        """Tool source that defines `edges`: the billing month of `contract` that holds a day, and later billing days."""
        return (
            "    from calendar import monthrange\n"
            "    from datetime import date, timedelta\n"
            "    def edges(day, count):\n"
            f"        anchor, months = date.fromisoformat(contract[{self.anchor!r}]).day, day.year * 12 + day.month - 1\n"
            "        found = []\n"
            "        for month in range(months - 1, months + count + 2):\n"
            "            year, number = month // 12, month % 12 + 1\n"
            "            found.append(date(year, number, min(anchor, monthrange(year, number)[1])))\n"
            "        start = max(other for other in found if other <= day)\n"
            "        return found[found.index(start):]\n"
        )

    def given_day_source(self, name: str) -> str:
        """Tool source that binds `<name>_date`, or refuses text that is no day."""
        return (
            "    try:\n"
            f"        {name}_date = date.fromisoformat({name})\n"
            "    except ValueError:\n"
            f"        raise Refusal('invalid', {name} + ' is no day')\n"
        )

    def tariff_source(self) -> str:
        """Tool source that binds `old` to the plan of `contract`."""
        query = f'SELECT * FROM "tariff" WHERE "{self.tariff_key}" = ?'
        return f"    old = db.execute({query!r}, (contract[{self.tariff!r}],)).fetchone()\n"

    def state_source(self, row: str, column: str, states: tuple[str, ...]) -> str:
        """Tool source that refuses a row in another state."""
        return (
            f"    if {row}[{column!r}] not in {states!r}:\n"
            f"        raise Refusal('conflict', 'its state is ' + {row}[{column!r}])\n"
        )

    def late_source(self) -> str:
        """Tool source that binds `late`: whether `contract` is overdue; needs `old` where plans have a grace period."""
        grace = "old['grace']" if self.own_grace else str(self.grace)
        query = f'SELECT "day" FROM "charge" WHERE "{self.charged}" = ? AND "charge_state" = \'open\''
        return (
            "    from datetime import date, timedelta\n"
            f"    limit = (date.fromisoformat({self.today!r}) - timedelta(days={grace})).isoformat()\n"
            f"    unpaid = db.execute({query!r}, (contract[{self.charged_key!r}],)).fetchall()\n"
            "    late = any(charge['day'] < limit for charge in unpaid)\n"
        )

    def not_late_source(self) -> str:
        """Tool source that refuses an overdue subscription."""
        return self.late_source() + "    if late:\n        raise Refusal('conflict', 'it is overdue')\n"

    def share_source(self, name: str, amount: str, days: str) -> str:
        """Tool source that binds a share of an amount; needs `whole`."""
        extra = {"down": "0", "up": "whole - 1", "half": "whole // 2"}[self.rounding]
        return f"    {name} = ({amount} * {days} + {extra}) // whole\n"

    @property
    def quote(self) -> dict[str, Any]:
        """Argument for the amount, where the actor works it out."""
        return {} if self.quoted else {"amount": count_schema("amount in credits", 0)}

    # tools ------------------------------------------------------------------------------------------------------

    def upgrade_draft(self) -> ToolDraft:
        """The tool that moves a subscription to a dearer plan."""
        world, contract, tariff = self.world, self.arg("contract"), self.arg("tariff")
        word, charge = world.word("contract"), world.word("charge")
        properties = {
            contract: id_schema(world, "contract"),
            tariff: id_schema(world, "tariff"),
            **({"effective_day": day_schema("day from which the new price counts")} if self.dated else {}),
            **self.quote,
        }
        cells = {
            self.charged: f"contract[{self.charged_key!r}]",
            "day": "effective_day",
            "amount": "amount",
            "charge_kind": "'change'",
            "charge_state": "'open'",
            **({} if self.refund_rows else {"given_back": "0"}),
        }
        statement = f'UPDATE "contract" SET "{self.tariff}" = ?, "contract_state" = ? WHERE "id" = ?'
        return ToolDraft(
            name=self.upgrade_tool,
            effect="write",
            description=(
                f"Move a {word} to a {world.word('tariff')} with a higher monthly price, and add a {charge} for the rest of "
                f"the billing month{' (its amount is worked out)' if self.quoted else ' with the amount given'}."
            ),
            parameters=arguments_schema(properties),
            returns=f"id: id of the new {charge}; amount: its amount in credits.",
            errors=("not_found", "invalid", "conflict"),
            source=(
                f"def {self.upgrade_tool}(db, *, {', '.join(properties)}):\n"
                + fetch_source(world, "contract", "contract")
                + fetch_source(world, "tariff", "new")
                + self.tariff_source()
                + self.state_source("contract", "contract_state", self.movable)
                + self.not_late_source()
                + self.effect_source()
                + "    if new['price'] <= old['price']:\n"
                "        raise Refusal('invalid', 'its monthly price is not higher')\n"
                + (self.upgrade_amount_source() if self.quoted else "")
                + f"    db.execute({statement!r}, (new[{self.tariff_key!r}], 'active', contract['id']))\n"
                + insert_source(world, "charge", cells)
                + "    return {'id': new_id, 'amount': amount}\n"
            ),
        )

    def effect_source(self) -> str:
        """Tool source that binds `effective_day` and its date, or refuses a day that cannot be."""
        if not self.dated:
            return f"    effective_day = {self.today!r}\n    effective_day_date = date.fromisoformat(effective_day)\n"
        word = self.world.word("contract")
        return (
            self.given_day_source("effective_day")
            + f"    if not {self.today!r} <= effective_day <= contract['until']:\n"
            f"        raise Refusal('invalid', {f'the day is past, or after the last day of the {word}'!r})\n"
        )

    def upgrade_amount_source(self) -> str:
        """Tool source that binds `amount` to what an upgrade costs."""
        source = self.calendar_source() + (
            "    start, end = edges(effective_day_date, 1)[:2]\n"
            "    whole = (end - start).days\n"
            f"    days = (end - effective_day_date).days - {self.skip}\n"
        )
        if self.pauses:
            query = f'SELECT "start", "until" FROM "freeze" WHERE "{self.frozen}" = ?'
            source += (
                f"    first = effective_day_date + timedelta(days={self.skip})\n"
                f"    for pause in db.execute({query!r}, (contract[{self.frozen_key!r}],)).fetchall():\n"
                "        begin = max(first, date.fromisoformat(pause['start']))\n"
                "        stop = min(end - timedelta(days=1), date.fromisoformat(pause['until']))\n"
                "        days -= max(0, (stop - begin).days + 1)\n"
            )
        source += "    price = old['price']\n"
        if self.trials:
            source += "    if contract['contract_state'] == 'trial':\n        price = 0\n"
        if not self.split:
            return source + self.share_source("amount", "(new['price'] - price)", "days")
        return (
            source
            + self.share_source("amount", "new['price']", "days")
            + self.share_source("saved", "price", "days")
            + "    amount -= saved\n"
        )

    def refund_draft(self) -> ToolDraft:
        """The tool that refunds days of a monthly charge."""
        world, charge = self.world, self.arg("charge")
        word, contract = world.word("charge"), world.word("contract")
        properties = {charge: id_schema(world, "charge"), "days": count_schema("days to refund"), **self.quote}
        query = f'SELECT * FROM "contract" WHERE "{self.charged_key}" = ?'
        if self.quoted:
            amount = (
                self.calendar_source()
                + "    start, end = edges(date.fromisoformat(charge['day']), 1)[:2]\n    whole = (end - start).days\n"
                + self.share_source("amount", "charge['amount']", "days")
            )
        else:
            amount = (
                "    if amount > charge['amount']:\n"
                f"        raise Refusal('invalid', {f'that is more than the {word} itself'!r})\n"
            )
        if self.refund_rows:
            cells = {
                self.charged: f"charge[{self.charged!r}]",
                "day": repr(self.today),
                "amount": "amount",
                "charge_kind": "'refund'",
                "charge_state": "'paid'",
            }
            statement = 'UPDATE "charge" SET "charge_state" = ? WHERE "id" = ?'
            write = f"    db.execute({statement!r}, ('refunded', charge['id']))\n" + insert_source(
                world, "charge", cells
            )
        else:
            statement = 'UPDATE "charge" SET "charge_state" = ?, "given_back" = ? WHERE "id" = ?'
            write = f"    db.execute({statement!r}, ('refunded', amount, charge['id']))\n    new_id = charge['id']\n"
        return ToolDraft(
            name=self.refund_tool,
            effect="write",
            description=(
                f"Refund some days of a monthly {word} of a {contract}"
                f"{' (the amount is worked out)' if self.quoted else ' with the amount given'}."
            ),
            parameters=arguments_schema(properties),
            returns=(
                f"id: id of the {f'new {word} of the kind refund' if self.refund_rows else word}; amount: what is refunded, in "
                "credits."
            ),
            errors=("not_found", "invalid", "conflict"),
            source=(
                f"def {self.refund_tool}(db, *, {', '.join(properties)}):\n"
                + fetch_source(world, "charge", "charge")
                + "    if charge['charge_kind'] != 'monthly':\n"
                "        raise Refusal('conflict', 'its kind is ' + charge['charge_kind'])\n"
                + self.state_source("charge", "charge_state", ("paid",))
                + f"    contract = db.execute({query!r}, (charge[{self.charged!r}],)).fetchone()\n"
                + self.tariff_source()
                + "    if days > old['refundable']:\n"
                "        raise Refusal('invalid', 'that is more than the refund limit')\n"
                + amount
                + write
                + "    return {'id': new_id, 'amount': amount}\n"
            ),
        )

    def collect_draft(self) -> ToolDraft:
        """The tool that collects an open charge."""
        world, charge = self.world, self.arg("charge")
        statement = 'UPDATE "charge" SET "charge_state" = ? WHERE "id" = ?'
        return ToolDraft(
            name=self.collect_tool,
            effect="write",
            description=f"Collect an open {world.word('charge')}.",
            parameters=arguments_schema({charge: id_schema(world, "charge")}),
            returns=f"id: id of the {world.word('charge')}; charge_state: its new state.",
            errors=("not_found", "conflict"),
            source=(
                f"def {self.collect_tool}(db, *, {charge}):\n"
                + fetch_source(world, "charge", "charge")
                + self.state_source("charge", "charge_state", ("open",))
                + f"    db.execute({statement!r}, ('paid', charge['id']))\n"
                "    return {'id': charge['id'], 'charge_state': 'paid'}\n"
            ),
        )

    def suspend_draft(self) -> ToolDraft:
        """The tool that suspends an overdue subscription."""
        world, contract = self.world, self.arg("contract")
        statement = 'UPDATE "contract" SET "contract_state" = ? WHERE "id" = ?'
        return ToolDraft(
            name=self.suspend_tool,
            effect="write",
            description=f"Suspend an overdue {world.word('contract')}.",
            parameters=arguments_schema({contract: id_schema(world, "contract")}),
            returns=f"id: id of the {world.word('contract')}; contract_state: its new state.",
            errors=("not_found", "conflict"),
            source=(
                f"def {self.suspend_tool}(db, *, {contract}):\n"
                + fetch_source(world, "contract", "contract")
                + self.state_source("contract", "contract_state", self.served)
                + (self.tariff_source() if self.own_grace else "")
                + self.late_source()
                + "    if not late:\n"
                "        raise Refusal('conflict', 'it is not overdue')\n"
                f"    db.execute({statement!r}, ('suspended', contract['id']))\n"
                "    return {'id': contract['id'], 'contract_state': 'suspended'}\n"
            ),
        )

    def terminate_draft(self) -> ToolDraft:
        """The tool that ends a subscription."""
        world, contract = self.world, self.arg("contract")
        statement = 'UPDATE "contract" SET "contract_state" = ?, "until" = ? WHERE "id" = ?'
        return ToolDraft(
            name=self.terminate_tool,
            effect="write",
            description=f"Terminate a {world.word('contract')} as of today, overdue or not.",
            parameters=arguments_schema({contract: id_schema(world, "contract")}),
            returns=f"id: id of the {world.word('contract')}; contract_state: its new state.",
            errors=("not_found", "conflict"),
            source=(
                f"def {self.terminate_tool}(db, *, {contract}):\n"
                + fetch_source(world, "contract", "contract")
                + self.state_source("contract", "contract_state", self.running)
                + f"    db.execute({statement!r}, ('ended', {self.today!r}, contract['id']))\n"
                "    return {'id': contract['id'], 'contract_state': 'ended'}\n"
            ),
        )

    def pause_draft(self) -> ToolDraft:
        """The tool that pauses a subscription."""
        world, contract, freeze = self.world, self.arg("contract"), self.world.word("freeze")
        properties = {contract: id_schema(world, "contract")}
        if self.quoted:
            properties["months"] = count_schema("billing months to pause")
        else:
            properties |= {"first_day": day_schema("first day"), "last_day": day_schema("last day")}
        query = f'SELECT 1 AS "hit" FROM "freeze" WHERE "{self.frozen}" = ? AND "until" >= ?'
        cells = {self.frozen: f"contract[{self.frozen_key!r}]", "start": "first_day", "until": "last_day"}
        statement = 'UPDATE "contract" SET "contract_state" = ? WHERE "id" = ?'
        return ToolDraft(
            name=self.pause_tool,
            effect="write",
            description=(
                f"Pause a {world.word('contract')}: adds a {freeze}"
                f"{' (its days are worked out)' if self.quoted else ' from one day to another'}."
            ),
            parameters=arguments_schema(properties),
            returns=f"id: id of the new {freeze}; first_day, last_day: when it begins and ends.",
            errors=("not_found", "invalid", "conflict"),
            source=(
                f"def {self.pause_tool}(db, *, {', '.join(properties)}):\n"
                + fetch_source(world, "contract", "contract")
                + self.tariff_source()
                + self.state_source("contract", "contract_state", ("active",))
                + self.not_late_source()
                + f"    if db.execute({query!r}, (contract[{self.frozen_key!r}], {self.today!r})).fetchone() is not None:\n"
                f"        raise Refusal('conflict', {f'a {freeze} of it is not over yet'!r})\n"
                + (self.pause_span_source() if self.quoted else self.pause_check_source())
                + insert_source(world, "freeze", cells)
                + f"    if first_day == {self.today!r}:\n"
                f"        db.execute({statement!r}, ('paused', contract['id']))\n"
                "    return {'id': new_id, 'first_day': first_day, 'last_day': last_day}\n"
            ),
        )

    def pause_span_source(self) -> str:
        """Tool source that binds first and last day of a pause of so many months."""
        today = f"date.fromisoformat({self.today!r})"
        span = (
            f"    first_day, last = {self.today!r}, edges({today}, months)[months] - timedelta(days=1)\n"
            if self.at_once
            else f"    bills = edges({today}, months + 1)\n"
            "    first_day, last = bills[1].isoformat(), bills[months + 1] - timedelta(days=1)\n"
        )
        return (
            "    if months > old['longest_pause']:\n"
            "        raise Refusal('invalid', 'that is longer than the longest pause')\n"
            + self.calendar_source()
            + span
            + "    last_day = last.isoformat()\n"
        )

    def pause_check_source(self) -> str:
        """Tool source that refuses impossible days; that they fit the billing days is up to the actor."""
        return (
            self.given_day_source("first_day")
            + self.given_day_source("last_day")
            + f"    if not {self.today!r} <= first_day <= last_day:\n"
            "        raise Refusal('invalid', 'the first day is past, or after the last one')\n"
            "    if (last_day_date - first_day_date).days >= 31 * old['longest_pause']:\n"
            "        raise Refusal('invalid', 'that is longer than the longest pause')\n"
        )
