"""What the texts of a ledger world have in common: column names and rules bound to one world, and shared pieces."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, timedelta
from typing import Any

from envsynth.author.procedural.ir import Type
from envsynth.author.procedural.mechanism import Composed
from envsynth.author.procedural.mechanisms.entities import id_argument

CREDITS = Type("num", "credits")
DAY = Type("date")
ACCOUNT = Type("row", "account")
TRANSFER_STATES = ("pending", "posted", "reversed")
HOLD_STATES = ("active", "released")
OPEN_TYPES = ("current", "savings", "business")
"""Types of account that persons use; the house account only takes fees."""


def account_types(rules: Mapping[str, Any]) -> tuple[str, ...]:
    """Types of account under these rules: a house account exists where there are fees to take."""
    return (*OPEN_TYPES, "house") if rules["fee_rate"] else OPEN_TYPES


def fee_rates(rules: Mapping[str, Any]) -> dict[str, int]:
    """Fee in thousandths of the amount, by type of account."""
    rate = int(rules["fee_rate"])
    return {"current": rate, "savings": 3 * rate, "business": 2 * rate}


def send_limits(rules: Mapping[str, Any]) -> dict[str, int]:
    """Most credits that an account may send on a day, by type of account."""
    limit = int(rules["send_limit"])
    return {"current": limit, "savings": limit // 2, "business": 2 * limit}


class Bindings:
    """The texts over one composed world: column names, nouns and rules are bound here."""

    def __init__(self, world: Composed) -> None:
        self.world, rules = world, world.rules
        self.owner, self.owner_key = world.fk("account", "owner")
        self.source, self.source_key = world.fk("transfer", "source")
        self.target, self.target_key = world.fk("transfer", "target")
        self.holds, self.stored, self.overdraft = rules["with_holds"], rules["stored_balance"], rules["overdrafts"]
        self.held, self.held_key = world.fk("hold", "account") if self.holds else ("", "")
        self.blocks = rules["pending_money"] == "blocks"
        self.wait_above, self.hold_step = int(rules["wait_above"]), int(rules["hold_step"])
        self.fees, self.fee_floor, self.fee_up = int(rules["fee_rate"]), int(rules["fee_floor"]), rules["fee_up"]
        self.rates, self.limits = fee_rates(rules), send_limits(rules)
        self.limited, self.pay_from = bool(rules["send_limit"]), rules["pay_from"]
        self.guarded, self.by_tool, self.undo_any = (
            rules["checks_available"],
            rules["booked_by_tool"],
            rules["reversible"] == "any",
        )
        self.today = world.now[:10]
        self.undo_days = int(rules["reversible_days"])
        self.undo_from = (date.fromisoformat(self.today) - timedelta(days=self.undo_days)).isoformat()
        self.transfer_tool = f"make_{world.slug('transfer')}"
        self.settle_tool = f"settle_{world.slug('transfer')}"
        self.reverse_tool = f"reverse_{world.slug('transfer')}"
        self.place_tool = f"place_{world.slug('hold')}" if self.holds else ""
        self.release_tool = f"release_{world.slug('hold')}" if self.holds else ""
        self.source_argument = f"source_{self.arg('account')}"
        self.target_argument = f"target_{self.arg('account')}"

    def arg(self, entity: str) -> str:
        """Name of the tool argument that takes an id."""
        return id_argument(self.world, entity)

    # SQL --------------------------------------------------------------------------------------------------------

    def cost_sql(self, transfer: str) -> str:
        """SQL of what a transfer takes from its source."""
        return f'({transfer}."amount" + {transfer}."fee")' if self.fees else f'{transfer}."amount"'

    def balance_sql(self, account: str) -> str:
        """SQL of the balance of an account."""
        if self.stored:
            return f'{account}."balance"'
        taken = (
            f' + CASE WHEN {account}."account_type" = \'house\' THEN (SELECT COALESCE(SUM(x."fee"), 0)'
            ' FROM "transfer" x WHERE x."transfer_state" = \'posted\') ELSE 0 END'
        )
        return (
            f'({account}."opening" + (SELECT COALESCE(SUM(x."amount"), 0) FROM "transfer" x'
            f' WHERE x."{self.target}" = {account}."{self.target_key}" AND x."transfer_state" = \'posted\')'
            f' - (SELECT COALESCE(SUM({self.cost_sql("x")}), 0) FROM "transfer" x'
            f' WHERE x."{self.source}" = {account}."{self.source_key}" AND x."transfer_state" = \'posted\')'
            f"{taken if self.fees else ''})"
        )

    def available_sql(self, account: str) -> str:
        """SQL of what an account has available."""
        parts = self.balance_sql(account)
        if self.overdraft:
            parts += f' + {account}."overdraft"'
        if self.blocks:
            parts += (
                f' - (SELECT COALESCE(SUM({self.cost_sql("x")}), 0) FROM "transfer" x'
                f' WHERE x."{self.source}" = {account}."{self.source_key}" AND x."transfer_state" = \'pending\')'
            )
        if self.holds:
            parts += (
                f' - (SELECT COALESCE(SUM(h."amount"), 0) FROM "hold" h WHERE h."{self.held}" ='
                f' {account}."{self.held_key}" AND h."hold_state" = \'active\' AND h."until" >= \'{self.today}\')'
            )
        return f"({parts})"

    def fee_sql(self, account: str, amount: str) -> str:
        """SQL of the fee of an amount."""
        if not self.fees:
            return "0"
        cases = " ".join(f"WHEN '{name}' THEN {rate}" for name, rate in self.rates.items())
        rate = f'CASE {account}."account_type" {cases} END'
        fee = f"MAX({self.fee_floor}, ({amount} * ({rate}) + {999 if self.fee_up else 0}) / 1000)"
        return f"(CASE WHEN {account}.\"account_type\" = 'house' THEN 0 ELSE {fee} END)"

    def sent_sql(self, account: str, day: str) -> str:
        """SQL of what an account has sent on a day."""
        return (
            f'(SELECT COALESCE(SUM({self.cost_sql("x")}), 0) FROM "transfer" x'
            f' WHERE x."{self.source}" = {account}."{self.source_key}" AND x."day" = {day}'
            " AND x.\"transfer_state\" <> 'reversed')"
        )

    def able_sql(self, account: str, amount: str) -> str:
        """SQL of whether an account can send an amount today."""
        cost = f"{amount} + {self.fee_sql(account, amount)}"
        parts = f"{amount} > 0 AND {self.available_sql(account)} >= {cost}"
        if self.fees:
            parts += f" AND {account}.\"account_type\" <> 'house'"
        if self.limited:
            cases = " ".join(f"WHEN '{name}' THEN {limit}" for name, limit in self.limits.items())
            today = f"'{self.today}'"
            parts += f' AND {self.sent_sql(account, today)} + {cost} <= CASE {account}."account_type" {cases} END'
        return f"({parts})"

    # planner ----------------------------------------------------------------------------------------------------

    def plan_balance(self) -> str:
        """Planner source of `account_money`."""
        if self.stored:
            return "def account_money(row):\n    return row['balance']\n"
        taken = (
            "    if row['account_type'] == 'house':\n"
            "        value += sum([x['fee'] for x in rows('transfer', {}) if x['transfer_state'] == 'posted'])\n"
        )
        return (
            "def account_money(row):\n"
            f"    came = rows('transfer', {{{self.target!r}: row[{self.target_key!r}]}})\n"
            f"    went = rows('transfer', {{{self.source!r}: row[{self.source_key!r}]}})\n"
            "    if POLICY:\n"
            "        came = [x for x in came if x['transfer_state'] == 'posted']\n"
            "        went = [x for x in went if x['transfer_state'] == 'posted']\n"
            "    value = row['opening'] + sum([x['amount'] for x in came])\n"
            f"    value -= sum([x['amount']{self.plus_fee} for x in went])\n"
            f"{taken if self.fees else ''}"
            "    return value\n"
        )

    @property
    def plus_fee(self) -> str:
        """Python that adds the fee of a transfer `x` to its amount."""
        return " + x['fee']" if self.fees else ""

    def plan_available(self) -> str:
        """Planner source of `d_available_balance`; the shortcut takes the balance for it."""
        waiting = (
            f"    sending = rows('transfer', {{{self.source!r}: row[{self.source_key!r}]}})\n"
            f"    value -= sum([x['amount']{self.plus_fee} for x in sending if x['transfer_state'] == 'pending'])\n"
        )
        held = (
            f"    for h in rows('hold', {{{self.held!r}: row[{self.held_key!r}]}}):\n"
            f"        if h['hold_state'] == 'active' and h['until'] >= {self.today!r}:\n"
            "            value -= h['amount']\n"
        )
        return (
            self.plan_balance() + "def d_available_balance(row):\n"
            "    value = account_money(row)\n"
            "    if not POLICY:\n"
            "        return value\n"
            f"{'    value += row[' + repr('overdraft') + ']' + chr(10) if self.overdraft else ''}"
            f"{waiting if self.blocks else ''}"
            f"{held if self.holds else ''}"
            "    return value\n"
        )

    def plan_fee(self) -> str:
        """Planner source of `d_sending_fee`."""
        if not self.fees:
            return ""
        share = (
            "-(-amount * rates[row['account_type']] // 1000)"
            if self.fee_up
            else ("amount * rates[row['account_type']] // 1000")
        )
        return (
            "def d_sending_fee(row, amount):\n"
            f"    rates = {self.rates}\n"
            "    if not POLICY or row['account_type'] == 'house':\n"
            "        return 0\n"
            f"    return max({self.fee_floor}, {share})\n"
        )

    def plan_sent(self) -> str:
        """Planner source of `d_outflow`."""
        return (
            "def d_outflow(row, day):\n"
            f"    sending = [x for x in rows('transfer', {{{self.source!r}: row[{self.source_key!r}]}}) if x['day'] == day]\n"
            "    if not POLICY:\n"
            "        return sum([x['amount'] for x in sending])\n"
            f"    return sum([x['amount']{self.plus_fee} for x in sending if x['transfer_state'] in ('pending', 'posted')])\n"
        )

    def plan_able(self) -> str:
        """Planner source of `d_able_to_send`."""
        limit = (
            f"    limits = {self.limits}\n"
            f"    if d_outflow(row, {self.today!r}) + cost > limits[row['account_type']]:\n"
            "        return False\n"
        )
        house = "    if row['account_type'] == 'house':\n        return False\n" if self.fees else ""
        return (
            self.plan_available()
            + self.plan_fee()
            + (self.plan_sent() if self.limited else "")
            + "def d_able_to_send(row, amount):\n"
            "    if amount < 1:\n"
            "        return False\n"
            "    if not POLICY:\n"
            "        return account_money(row) >= amount\n"
            f"{house}"
            f"    cost = amount{' + d_sending_fee(row, amount)' if self.fees else ''}\n"
            f"{limit if self.limited else ''}"
            "    return d_available_balance(row) >= cost\n"
        )

    # goals ------------------------------------------------------------------------------------------------------

    def goal_balance(self) -> str:
        """Goal source of `money_on`: one pass over the transfers, each entered on both of its sides."""
        if self.stored:
            return "def money_on(account):\n    return account['balance']\n"
        return (
            "@once\n"
            "def entries_of_accounts():\n"
            "    given, taken, fees = {}, {}, 0\n"
            "    for move in db['transfer']:\n"
            "        if move['transfer_state'] in ('pending', 'reversed'):\n"
            "            continue\n"
            f"        giver, taker = move[{self.source!r}], move[{self.target!r}]\n"
            "        taken[taker] = taken.get(taker, 0) + move['amount']\n"
            f"        given[giver] = given.get(giver, 0) + move['amount']{self.goal_fee_of('move')}\n"
            f"{'        fees += move[' + repr('fee') + ']' + chr(10) if self.fees else ''}"
            "    return given, taken, fees\n"
            "def money_on(account):\n"
            "    given, taken, fees = entries_of_accounts()\n"
            f"    money = account['opening'] - given.get(account[{self.source_key!r}], 0)\n"
            f"    money += taken.get(account[{self.target_key!r}], 0)\n"
            f"{self.goal_house()}"
            "    return money\n"
        )

    def goal_house(self) -> str:
        """Goal lines that give the house account its fees."""
        return "    if account['account_type'] == 'house':\n        money += fees\n" if self.fees else ""

    def goal_fee_of(self, transfer: str) -> str:
        """Goal text that adds the fee of a transfer."""
        return f" + {transfer}['fee']" if self.fees else ""

    def goal_available(self) -> str:
        """Goal source of `g_available_balance`."""
        lines = ""
        helpers = self.goal_balance()
        if self.blocks:
            helpers += (
                "@once\n"
                "def waiting_on_accounts():\n"
                "    waiting = {}\n"
                "    for move in db['transfer']:\n"
                "        if move['transfer_state'] == 'pending':\n"
                f"            waiting.setdefault(move[{self.source!r}], []).append(move['amount']{self.goal_fee_of('move')})\n"
                "    return waiting\n"
            )
            lines += f"    bound += sum(waiting_on_accounts().get(row[{self.source_key!r}], []))\n"
        if self.holds:
            helpers += (
                "@once\n"
                "def held_on_accounts():\n"
                "    held = {}\n"
                "    for hold in db['hold']:\n"
                f"        if hold['hold_state'] == 'released' or hold['until'] < '{self.today}':\n"
                "            continue\n"
                f"        held[hold[{self.held!r}]] = held.get(hold[{self.held!r}], 0) + hold['amount']\n"
                "    return held\n"
            )
            lines += f"    bound += held_on_accounts().get(row[{self.held_key!r}], 0)\n"
        more = "row['overdraft'] + " if self.overdraft else ""
        return f"{helpers}def g_available_balance(db, row):\n    bound = 0\n{lines}    return {more}money_on(row) - bound\n"

    def goal_fee(self) -> str:
        """Goal source of `g_sending_fee`."""
        if not self.fees:
            return ""
        rest = "    if thousandths % 1000:\n        whole += 1\n" if self.fee_up else ""
        return (
            "def g_sending_fee(db, row, amount):\n"
            "    if row['account_type'] == 'house':\n"
            "        return 0\n"
            f"    per_thousand = {list(self.rates.values())}[{list(self.rates)}.index(row['account_type'])]\n"
            "    thousandths = per_thousand * amount\n"
            "    whole = thousandths // 1000\n"
            f"{rest}"
            f"    return whole if whole > {self.fee_floor} else {self.fee_floor}\n"
        )

    def goal_sent(self) -> str:
        """Goal source of `g_outflow`."""
        return (
            "@once\n"
            "def sent_by_day():\n"
            "    sent = {}\n"
            "    for move in db['transfer']:\n"
            "        if move['transfer_state'] != 'reversed':\n"
            f"            slot = move[{self.source!r}], move['day']\n"
            f"            sent[slot] = sent.get(slot, 0) + move['amount']{self.goal_fee_of('move')}\n"
            "    return sent\n"
            "def g_outflow(db, row, day):\n"
            f"    return sent_by_day().get((row[{self.source_key!r}], day), 0)\n"
        )

    def goal_able(self) -> str:
        """Goal source of `g_able_to_send`."""
        limit = (
            f"    most = {list(self.limits.items())}\n"
            f"    left = [limit for name, limit in most if name == row['account_type']][0] - g_outflow(db, row, '{self.today}')\n"
            "    if left < whole:\n"
            "        return False\n"
        )
        house = "    if row['account_type'] == 'house':\n        return False\n" if self.fees else ""
        return (
            self.goal_available()
            + self.goal_fee()
            + (self.goal_sent() if self.limited else "")
            + "def g_able_to_send(db, row, amount):\n"
            f"{house}"
            f"    whole = amount{' + g_sending_fee(db, row, amount)' if self.fees else ''}\n"
            f"{limit if self.limited else ''}"
            "    return amount >= 1 and not whole > g_available_balance(db, row)\n"
        )
