"""Actions of a subscription world: upgrade, refund, collect, suspend, terminate; each with its three texts."""

from __future__ import annotations

from envsynth.author.procedural.ir import Type
from envsynth.author.procedural.mechanism import Action
from envsynth.author.procedural.mechanisms.subscription.bindings import CONTRACT, DAY
from envsynth.author.procedural.mechanisms.subscription.pauses import PauseTexts

CHARGE = Type("row", "charge")


class ActionTexts(PauseTexts):
    """Writes the actions over one world."""

    def upgrade(self) -> Action:
        """Move a subscription to a dearer plan, and charge the difference for the days that are left."""
        return Action(
            name="upgrade_contract",
            phrase="upgrade {contract} to {tariff}" + (" with effect from {day}" if self.dated else ""),
            params=(
                ("contract", CONTRACT),
                ("tariff", Type("row", "tariff")),
                *((("day", DAY),) if self.dated else ()),
            ),
            oracle_sql=self.upgrade_sql(),
            plan=self.upgrade_plan(),
            goal=self.upgrade_goal(),
            tables=("contract", "charge"),
            policy=self.upgrade_policy(),
        )

    def upgrade_policy(self) -> str:
        """Who may be upgraded, and what it costs."""
        word = self.world.word
        contract, tariff, charge = word("contract"), word("tariff"), word("charge")
        day = "on that day" if self.dated else "today"
        if self.split:
            amount = (
                f"the monthly price of the new {tariff} times the days left {day}, divided by all days of the billing "
                f"month that holds it, {self.rounded_words}, less the same of the old monthly price, rounded likewise"
            )
        else:
            amount = (
                f"the new monthly price less the old one, times the days left {day}, divided by all days of the billing "
                f"month that holds it, {self.rounded_words}"
            )
        trial = (
            f" A {contract} whose state is trial becomes active, and its old monthly price counts as 0 here."
            if self.trials
            else ""
        )
        limit, effect = "", f"today, {self.today}"
        if self.dated:
            limit = (
                f", and only with effect from a day between today, {self.today}, and the last day of the {contract}, both "
                "included"
            )
            effect = "the day of effect"
        return (
            f"Only a {contract} whose state is {' or '.join(self.movable)} and that is not overdue can be upgraded, only to a {tariff} "
            f"with a higher monthly price than its own{limit}. It has the new {tariff} at once, and an open {charge} of the kind "
            f"change is added for it, whose day is {effect}, even if its amount is 0. The amount is {amount}.{trial}"
        )

    def upgrade_sql(self) -> str:
        """Oracle of an upgrade."""
        old = 'CASE WHEN c."contract_state" = \'trial\' THEN 0 ELSE o."price" END' if self.trials else 'o."price"'
        states = ", ".join(repr(state) for state in self.movable)
        days, whole = '"go"."days"', '"go"."whole"'
        day, between = f"'{self.today}'", ""
        if self.dated:
            day, between = "{day}", f" AND {{day}} BETWEEN '{self.today}' AND c.\"until\""
        if self.split:
            shares = [self.rounded_share_sql(price, days, whole) for price in ('"go"."new"', '"go"."old"')]
            amount = " - ".join(shares)
        else:
            amount = self.rounded_share_sql('("go"."new" - "go"."old")', days, whole)
        back = "" if self.refund_rows else ", 'given_back', 0"
        return (
            f'WITH "go" AS MATERIALIZED (SELECT c."id" AS "id", c."{self.charged_key}" AS "me", g."{self.tariff_key}" AS'
            f' "to", g."price" AS "new", {old} AS "old", {self.left_sql("c", day)} AS "days",'
            f' {self.length_sql("c", day)} AS "whole" FROM "contract" c, "tariff" g JOIN "tariff" o'
            f' ON o."{self.tariff_key}" = c."{self.tariff}" WHERE c."id" = {{contract}} AND g."id" = {{tariff}}'
            f' AND c."contract_state" IN ({states}) AND g."price" > o."price"{between}'
            f" AND NOT {self.overdue_sql('c')})"
            f" SELECT 'update', 'contract', json_object('id', \"go\".\"id\", '{self.tariff}', \"go\".\"to\","
            " 'contract_state', 'active') FROM \"go\" UNION ALL"
            f" SELECT 'insert', 'charge', json_object('{self.charged}', \"go\".\"me\", 'day', {day}, 'amount', {amount},"
            f" 'charge_kind', 'change', 'charge_state', 'open'{back}) FROM \"go\""
        )

    def upgrade_plan(self) -> str:
        """Planner of an upgrade."""
        head = f"def a_upgrade_contract(contract, tariff{', day' if self.dated else ''}):\n"
        call = (
            f"    write({self.upgrade_tool!r}, {self.arg('contract')}=contract['id'], {self.arg('tariff')}=tariff['id']"
            f"{', effective_day=day' if self.dated else ''}"
        )
        if self.quoted:
            return f"{head}{call})\n"
        amount = (
            "month_share(tariff['price'], days, contract, day) - month_share(old, days, contract, day)"
            if self.split
            else "month_share(tariff['price'] - old, days, contract, day)"
        )
        today = "" if self.dated else f"    day = {self.today!r}\n"
        trial = "    if contract['contract_state'] == 'trial':\n        old = 0\n" if self.trials else ""
        return (
            f"{self.plan_tariff()}{self.plan_share()}{head}{today}"
            "    old, days = tariff_of(contract)['price'], days_to_pay(contract, day)\n"
            f"{trial}"
            f"    amount = {amount}\n"
            f"{call}, amount=amount)\n"
        )

    def upgrade_goal(self) -> str:
        """Goal of an upgrade: the subscription has the plan, and a new charge asks for what the rest of the month costs."""
        trial = " if contract['contract_state'] != 'trial' else 0" if self.trials else ""
        cost = (
            "share_of_month(tariff['price'], days, contract, day) - share_of_month(before, days, contract, day)"
            if self.split
            else "share_of_month(tariff['price'] - before, days, contract, day)"
        )
        back = "" if self.refund_rows else ", 'given_back': 0"
        day, late, today = "", "", f"    day = {self.today!r}\n"
        if self.dated:
            day, late, today = ", day", f" or not {self.today!r} <= day <= contract['until']", ""
        return (
            self.goal_share()
            + self.goal_tariffs()
            + self.goal_late()
            + f"def upgrade_allowed(contract, tariff{day}):\n"
            f"    if contract['contract_state'] not in {self.movable!r}{late}:\n"
            "        return False\n"
            f"    if contract[{self.charged_key!r}] in owed_too_long():\n"
            "        return False\n"
            f"    return tariff['price'] > tariffs_by_key()[contract[{self.tariff!r}]]['price']\n"
            f"def s_upgrade_contract(db, diff, contract, tariff{day}):\n"
            f"    if not upgrade_allowed(contract, tariff{day}):\n"
            "        return None\n"
            f"{today}"
            f"    before = tariffs_by_key()[contract[{self.tariff!r}]]['price']{trial}\n"
            "    days = paid_days(contract, day)\n"
            f"    moved = {{**contract, {self.tariff!r}: tariff[{self.tariff_key!r}], 'contract_state': 'active'}}\n"
            f"    asked = {{{self.charged!r}: contract[{self.charged_key!r}], 'day': day, 'amount': {cost},\n"
            f"             'charge_kind': 'change', 'charge_state': 'open'{back}}}\n"
            "    updates = [e for e in diff if e['op'] == 'update' and e['table'] == 'contract' and e['new'] == moved]\n"
            "    inserts = [e for e in diff if e['op'] == 'insert' and e['table'] == 'charge'\n"
            "               and {**e['new'], **asked} == e['new']]\n"
            "    return [updates[0], inserts[0]] if updates and inserts else None\n"
        )

    # refunds ----------------------------------------------------------------------------------------------------

    def refund(self) -> Action:
        """Refund some days of a monthly charge."""
        word = self.world.word
        contract, charge, tariff = word("contract"), word("charge"), word("tariff")
        how = (
            f"The {charge} becomes refunded, and a paid {charge} of the kind refund is added for the same {contract}, "
            f"whose day is today, {self.today}, and whose amount is what is refunded."
            if self.refund_rows
            else f"The {charge} becomes refunded, and its refunded amount is what is refunded."
        )
        return Action(
            name="refund_days",
            phrase="refund {days} of {charge}",
            params=(("days", Type("num", "days")), ("charge", CHARGE)),
            oracle_sql=self.refund_sql(),
            plan=self.refund_plan(),
            goal=self.refund_goal(),
            tables=("charge",),
            policy=(
                f"Only a paid {charge} of the kind monthly can be refunded, and at most as many days as the refund limit "
                f"of the {tariff} that its {contract} has now. What is refunded for a number of days is the amount of the "
                f"{charge} times that number, divided by all days of the billing month that begins on its day, "
                f"{self.rounded_words}. {how}"
            ),
        )

    def refund_sql(self) -> str:
        """Oracle of a refund."""
        share = self.rounded_share_sql('"go"."amount"', "{days}", '"go"."whole"')
        whole = self.length_sql("c", 'h."day"')
        text = (
            f'WITH "go" AS MATERIALIZED (SELECT h."id" AS "id", c."{self.charged_key}" AS "me", h."amount" AS "amount",'
            f' {whole} AS "whole" FROM "charge" h JOIN "contract" c'
            f' ON c."{self.charged_key}" = h."{self.charged}" JOIN "tariff" g ON g."{self.tariff_key}" = c."{self.tariff}"'
            ' WHERE h."id" = {charge} AND h."charge_kind" = \'monthly\' AND h."charge_state" = \'paid\''
            ' AND {days} BETWEEN 1 AND g."refundable")'
            " SELECT 'update', 'charge', json_object('id', \"go\".\"id\", 'charge_state', 'refunded'"
        )
        if not self.refund_rows:
            return f"{text}, 'given_back', {share}) FROM \"go\""
        return (
            f"{text}) FROM \"go\" UNION ALL SELECT 'insert', 'charge', json_object('{self.charged}', \"go\".\"me\","
            f" 'day', '{self.today}', 'amount', {share}, 'charge_kind', 'refund', 'charge_state', 'paid') FROM \"go\""
        )

    def refund_plan(self) -> str:
        """Planner of a refund."""
        call = f"    write({self.refund_tool!r}, {self.arg('charge')}=charge['id'], days=days"
        if self.quoted:
            return f"def a_refund_days(days, charge):\n{call})\n"
        return (
            self.plan_share() + "def a_refund_days(days, charge):\n"
            f"    contract = named('contract', {self.charged_key!r}, charge[{self.charged!r}])\n"
            "    amount = month_share(charge['amount'], days, contract, charge['day'])\n"
            f"{call}, amount=amount)\n"
        )

    def refund_goal(self) -> str:
        """Goal of a refund: the charge is refunded by its share, once."""
        source = (
            self.goal_share() + self.goal_tariffs() + "@once\n"
            "def contracts_by_key():\n"
            f"    return {{c[{self.charged_key!r}]: c for c in db['contract']}}\n"
            "def s_refund_days(db, diff, days, charge):\n"
            f"    contract = contracts_by_key()[charge[{self.charged!r}]]\n"
            f"    limit = tariffs_by_key()[contract[{self.tariff!r}]]['refundable']\n"
            "    if [charge['charge_kind'], charge['charge_state']] != ['monthly', 'paid'] or not 0 < days <= limit:\n"
            "        return None\n"
            "    back = share_of_month(charge['amount'], days, contract, charge['day'])\n"
        )
        if not self.refund_rows:
            return source + (
                "    after = {**charge, 'charge_state': 'refunded', 'given_back': back}\n"
                "    for e in diff:\n"
                "        if e['op'] == 'update' and e['table'] == 'charge' and e['new'] == after:\n"
                "            return [e]\n"
                "    return None\n"
            )
        return source + (
            "    after = {**charge, 'charge_state': 'refunded'}\n"
            f"    paid = {{{self.charged!r}: charge[{self.charged!r}], 'day': {self.today!r}, 'amount': back,\n"
            "            'charge_kind': 'refund', 'charge_state': 'paid'}\n"
            "    mine = [e for e in diff if e['table'] == 'charge']\n"
            "    updates = [e for e in mine if e['op'] == 'update' and e['new'] == after]\n"
            "    inserts = [e for e in mine if e['op'] == 'insert' and {**e['new'], **paid} == e['new']]\n"
            "    return [updates[0], inserts[0]] if updates and inserts else None\n"
        )

    # states -----------------------------------------------------------------------------------------------------

    def collect(self) -> Action:
        """Collect an open charge."""
        charge = self.world.word("charge")
        return Action(
            name="collect_charge",
            phrase="collect {charge}",
            params=(("charge", CHARGE),),
            oracle_sql=(
                "SELECT 'update', 'charge', json_object('id', h.\"id\", 'charge_state', 'paid')"
                ' FROM "charge" h WHERE h."id" = {charge} AND h."charge_state" = \'open\''
            ),
            plan=(
                f"def a_collect_charge(charge):\n    write({self.collect_tool!r}, {self.arg('charge')}=charge['id'])\n"
            ),
            goal=(
                "def s_collect_charge(db, diff, charge):\n"
                "    if charge['charge_state'] != 'open':\n"
                "        return None\n"
                "    for e in diff:\n"
                "        if e['op'] == 'update' and e['table'] == 'charge':\n"
                "            if e['new'] == {**charge, 'charge_state': 'paid'}:\n"
                "                return [e]\n"
                "    return None\n"
            ),
            tables=("charge",),
            policy=f"Only an open {charge} can be collected; it becomes paid.",
        )

    def suspend(self) -> Action:
        """Suspend an overdue subscription."""
        contract, states = self.world.word("contract"), ", ".join(repr(state) for state in self.served)
        return Action(
            name="suspend_contract",
            phrase="suspend {contract}",
            params=(("contract", CONTRACT),),
            oracle_sql=(
                "SELECT 'update', 'contract', json_object('id', c.\"id\", 'contract_state', 'suspended')"
                f' FROM "contract" c WHERE c."id" = {{contract}} AND c."contract_state" IN ({states})'
                f" AND {self.overdue_sql('c')}"
            ),
            plan=(
                "def a_suspend_contract(contract):\n"
                f"    write({self.suspend_tool!r}, {self.arg('contract')}=contract['id'])\n"
            ),
            goal=(
                self.goal_late() + "def s_suspend_contract(db, diff, contract):\n"
                f"    if contract['contract_state'] not in {self.served!r}:\n"
                "        return None\n"
                f"    if contract[{self.charged_key!r}] not in owed_too_long():\n"
                "        return None\n"
                "    for e in diff:\n"
                "        if e['op'] == 'update' and e['table'] == 'contract':\n"
                "            if e['new'] == {**contract, 'contract_state': 'suspended'}:\n"
                "                return [e]\n"
                "    return None\n"
            ),
            tables=("contract",),
            policy=f"Only an overdue {contract} whose state is {' or '.join(self.served)} can be suspended; it becomes suspended.",
        )

    def terminate(self) -> Action:
        """End a subscription, overdue or not."""
        word, states = self.world.word, ", ".join(repr(state) for state in self.running)
        contract = word("contract")
        listed = f"{', '.join(self.running[:-1])} or {self.running[-1]}"
        return Action(
            name="terminate_contract",
            phrase="terminate {contract}",
            params=(("contract", CONTRACT),),
            oracle_sql=(
                f"SELECT 'update', 'contract', json_object('id', c.\"id\", 'contract_state', 'ended', 'until', '{self.today}')"
                f' FROM "contract" c WHERE c."id" = {{contract}} AND c."contract_state" IN ({states})'
            ),
            plan=(
                "def a_terminate_contract(contract):\n"
                f"    write({self.terminate_tool!r}, {self.arg('contract')}=contract['id'])\n"
            ),
            goal=(
                "def s_terminate_contract(db, diff, contract):\n"
                "    if contract['contract_state'] == 'ended':\n"
                "        return None\n"
                "    for e in diff:\n"
                "        if e['op'] == 'update' and e['table'] == 'contract':\n"
                f"            if e['new'] == {{**contract, 'contract_state': 'ended', 'until': {self.today!r}}}:\n"
                "                return [e]\n"
                "    return None\n"
            ),
            tables=("contract",),
            policy=(
                f"Only a {contract} whose state is {listed} can be terminated; it becomes ended, and its last "
                f"day becomes today, {self.today}. Its {self.world.plural('charge')} stay as they are."
            ),
        )

    # pauses -----------------------------------------------------------------------------------------------------
