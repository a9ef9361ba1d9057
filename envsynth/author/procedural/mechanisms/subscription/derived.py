"""Derived attributes of a subscription world, each with its sentence and three texts."""

from __future__ import annotations

from envsynth.author.procedural.ir import Type
from envsynth.author.procedural.mechanism import Derived
from envsynth.author.procedural.mechanisms.subscription.bindings import CREDITS, DAY, Bindings


class DerivedTexts(Bindings):
    """Writes the derived attributes over one world."""

    def next_bill(self) -> Derived:
        """First billing day after a day."""
        contract = self.world.word("contract")
        return Derived(
            entity="contract",
            name="next_bill",
            label="next billing day after {0}",
            params=(DAY,),
            type=DAY,
            sql=self.bill_sql("{t}", "{0}"),
            plan=self.plan_calendar() + "def d_next_bill(row, day):\n    return billing_after(row, day, 1)\n",
            goal=(
                self.goal_calendar() + "def g_next_bill(db, row, day):\n"
                f"    return day_called(bills_around(row[{self.anchor!r}], day, 1)[1])\n"
            ),
            policy=(f"The next billing day of a {contract} after a day is the first one later than that day."),
        )

    def unused_value(self) -> Derived:
        """Share of the monthly price for the days that are left on a day."""
        contract, tariff = self.world.word("contract"), self.world.word("tariff")
        idle = ", ".join(repr(state) for state in self.idle)
        share = self.rounded_share_sql('g."price"', '"span"."days"', '"span"."whole"')
        return Derived(
            entity="contract",
            name="unused_value",
            label="unused value on {0}",
            params=(DAY,),
            type=CREDITS,
            sql=(
                f'(CASE WHEN {{t}}."contract_state" IN ({idle}) THEN 0 ELSE (WITH "span" AS MATERIALIZED'
                f' (SELECT {self.left_sql("{t}", "{0}")} AS "days", {self.length_sql("{t}", "{0}")} AS "whole")'
                f' SELECT {share} FROM "span", "tariff" g WHERE g."{self.tariff_key}" = {{t}}."{self.tariff}") END)'
            ),
            plan=(
                self.plan_tariff() + self.plan_share() + "def d_unused_value(row, day):\n"
                f"    if POLICY and row['contract_state'] in {self.idle!r}:\n"
                "        return 0\n"
                "    return month_share(tariff_of(row)['price'], days_to_pay(row, day), row, day)\n"
            ),
            goal=(
                self.goal_share() + self.goal_tariffs() + "def g_unused_value(db, row, day):\n"
                f"    if any(row['contract_state'] == state for state in {self.idle!r}):\n"
                "        return 0\n"
                f"    price = tariffs_by_key()[row[{self.tariff!r}]]['price']\n"
                "    return share_of_month(price, paid_days(row, day), row, day)\n"
            ),
            policy=(
                f"The unused value of a {contract} on a day is the monthly price of its {tariff} times "
                f"the days left on that day, divided by all days of the billing month that holds it, {self.rounded_words}. "
                f"It is 0 for a {contract} whose state is {' or '.join(self.idle)}."
            ),
        )

    def grace_words(self) -> str:
        """How long the grace period is."""
        if self.own_grace:
            return f"the grace period of the {self.world.word('tariff')} of its {self.world.word('contract')}"
        return f"{self.grace} days"

    def overdue(self) -> Derived:
        """Whether a charge of a subscription is open beyond the grace period."""
        contract, charge = self.world.word("contract"), self.world.word("charge")
        return Derived(
            entity="contract",
            name="overdue",
            label="overdue",
            type=Type("bool"),
            sql=self.overdue_sql("{t}"),
            plan=self.plan_late() + "def d_overdue(row):\n    return len(late_charges(row)) > 0\n",
            goal=(
                self.goal_late() + f"def g_overdue(db, row):\n    return row[{self.charged_key!r}] in owed_too_long()\n"
            ),
            policy=(
                f"A {charge} is late if its state is open and today, {self.today}, is more than {self.grace_words()} after "
                f"its day. A {contract} is overdue if at least one of its {self.world.plural('charge')} is late."
            ),
        )

    def arrears(self) -> Derived:
        """What a person owes beyond the grace period."""
        person, contracts = self.world.word("person"), self.world.plural("contract")
        return Derived(
            entity="person",
            name="arrears",
            label="overdue debt",
            type=CREDITS,
            sql=(
                '(SELECT COALESCE(SUM(h."amount"), 0) FROM "contract" c, "charge" h'
                f' WHERE c."{self.holder}" = {{t}}."{self.holder_key}" AND {self.late_sql("c", "h")})'
            ),
            plan=(
                self.plan_late() + "def d_arrears(row):\n"
                f"    held = rows('contract', {{{self.holder!r}: row[{self.holder_key!r}]}})\n"
                "    return sum([charge['amount'] for contract in held for charge in late_charges(contract)])\n"
            ),
            goal=(
                self.goal_late() + "@once\n"
                "def arrears_of_holders():\n"
                "    owed, sums = owed_too_long(), {}\n"
                "    for c in db['contract']:\n"
                f"        more = owed.get(c[{self.charged_key!r}], 0)\n"
                f"        sums[c[{self.holder!r}]] = sums.get(c[{self.holder!r}], 0) + more\n"
                "    return sums\n"
                "def g_arrears(db, row):\n"
                f"    return arrears_of_holders().get(row[{self.holder_key!r}], 0)\n"
            ),
            policy=(
                f"The overdue debt of a {person} is the sum of the amounts of all late {self.world.plural('charge')} of the "
                f"{contracts} that the {person} holds."
            ),
        )
