"""Actions of a ledger world: transfer, pay, settle, reverse, place and release holds; each with its three texts."""

from __future__ import annotations

from envsynth.author.procedural.ir import Type
from envsynth.author.procedural.mechanism import Action
from envsynth.author.procedural.mechanisms.ledger.bindings import ACCOUNT, CREDITS, DAY, Bindings

TRANSFER = Type("row", "transfer")


class ActionTexts(Bindings):
    """Writes the actions over one world."""

    # making transfers -------------------------------------------------------------------------------------------

    def insert_sql(self, chosen: str) -> str:
        """Oracle: the changes that one new transfer makes; `chosen` selects its accounts a and b from `FROM` on."""
        fee = self.fee_sql("a", "{amount}")
        fee_cell = ', \'fee\', "go"."fee"' if self.fees else ""
        text = (
            f'WITH "go" AS MATERIALIZED (SELECT a."id" AS "giver", b."id" AS "taker", a."{self.source_key}" AS "from",'
            f' b."{self.target_key}" AS "to", {fee} AS "fee", {{amount}} > {self.wait_above} AS "waits" {chosen})'
            f" SELECT 'insert', 'transfer', json_object('{self.source}', \"go\".\"from\", '{self.target}', \"go\".\"to\","
            f" 'amount', {{amount}}{fee_cell}, 'day', '{self.today}', 'transfer_state',"
            ' CASE WHEN "go"."waits" THEN \'pending\' ELSE \'posted\' END) FROM "go"'
        )
        return text + self.entries_sql("{amount}", '"go"."fee"', ' AND NOT "go"."waits"', "1")

    def entries_sql(self, amount: str, fee: str, condition: str, sign: str) -> str:
        """Oracle: the changes of stored balances, after `go` is defined; empty where balances are not stored."""
        if not self.stored:
            return ""
        sides = [("giver", f"({sign}) * (0 - {amount} - {fee})"), ("taker", f"({sign}) * {amount}")]
        text = "".join(
            f" UNION ALL SELECT 'update', 'account', json_object('id', z.\"id\", 'balance', z.\"balance\" + {delta})"
            f' FROM "go", "account" z WHERE z."id" = "go"."{side}"{condition}'
            for side, delta in sides
        )
        if self.fees:
            text += (
                " UNION ALL SELECT 'update', 'account', json_object('id', z.\"id\", 'balance',"
                f' z."balance" + {sign} * {fee}) FROM "go", "account" z WHERE z."account_type" = \'house\''
                f" AND {fee} > 0{condition}"
            )
        return text

    def plan_send(self) -> str:
        """Planner source that makes one transfer."""
        cells = ""
        if not self.by_tool:
            cells = f", state='pending' if POLICY and amount > {self.wait_above} else 'posted'"
            cells += ", fee=d_sending_fee(source, amount)" if self.fees else ""
        return (
            self.plan_fee() + "def send_money(source, target, amount):\n"
            f"    write({self.transfer_tool!r}, {self.source_argument}=source['id'], {self.target_argument}=target['id'],"
            f" amount=amount{cells})\n"
        )

    def goal_entered(self) -> str:
        """Goal source of `both_sides`: the claimed changes of both sides, None when a side lacks its entry."""
        if not self.stored:
            return "def both_sides(diff, entry, giver, taker, amount, fee):\n    return [entry]\n"
        house = (
            "    wanted += [(a, fee) for a in db['account'] if a['account_type'] == 'house' and fee]\n"
            if self.fees
            else ""
        )
        return (
            "def both_sides(diff, entry, giver, taker, amount, fee):\n"
            "    claimed = [entry]\n"
            "    wanted = [(giver, -amount - fee), (taker, amount)]\n"
            f"{house}"
            "    for account, plus in wanted:\n"
            "        after = {**account, 'balance': account['balance'] + plus}\n"
            "        found = [e for e in diff if e['op'] == 'update' and e['table'] == 'account' and e['new'] == after]\n"
            "        if not found:\n"
            "            return None\n"
            "        claimed.append(found[0])\n"
            "    return claimed\n"
        )

    def goal_sending(self) -> str:
        """Goal source of `sending_of`: whether a diff entry is the right new transfer, and what it claims."""
        fee = "g_sending_fee(db, source, amount)" if self.fees else "0"
        fee_test = "    if new['fee'] != fee:\n        return None\n" if self.fees else ""
        return (
            self.goal_able() + self.goal_entered() + "def sending_of(diff, entry, source, target, amount):\n"
            "    new = entry['new']\n"
            f"    fee = {fee}\n"
            f"    if [new[{self.source!r}], new[{self.target!r}]] != [source[{self.source_key!r}],"
            f" target[{self.target_key!r}]]:\n"
            "        return None\n"
            f"    if new['amount'] != amount or new['day'] != '{self.today}' or source['id'] == target['id']:\n"
            "        return None\n"
            f"{fee_test}"
            f"    late = amount > {self.wait_above}\n"
            "    if new['transfer_state'] != ['posted', 'pending'][late] or not g_able_to_send(db, source, amount):\n"
            "        return None\n"
            "    return [entry] if late else both_sides(diff, entry, source, target, amount, fee)\n"
        )

    def house_sql(self, account: str) -> str:
        """SQL condition that an account is not the house account."""
        return f" AND {account}.\"account_type\" <> 'house'" if self.fees else ""

    @property
    def house_goal(self) -> str:
        """Goal lines that refuse the house account as target."""
        return "    if target['account_type'] == 'house':\n        return None\n" if self.fees else ""

    def transfer(self) -> Action:
        """Transfer between two given accounts."""
        word, account = self.world.word("transfer"), self.world.word("account")
        house = f" No {word} goes to the house {account}." if self.fees else ""
        return Action(
            name="transfer_money",
            phrase="transfer {amount} from {source} to {target}",
            params=(("amount", CREDITS), ("source", ACCOUNT), ("target", ACCOUNT)),
            oracle_sql=self.insert_sql(
                'FROM "account" a, "account" b WHERE a."id" = {source} AND b."id" = {target} AND a."id" <> b."id"'
                f"{self.house_sql('b')} AND {self.able_sql('a', '{amount}')}"
            ),
            plan=(
                self.plan_send()
                + "def a_transfer_money(amount, source, target):\n    send_money(source, target, amount)\n"
            ),
            goal=(
                self.goal_sending() + "def s_transfer_money(db, diff, amount, source, target):\n"
                f"{self.house_goal}"
                "    for entry in diff:\n"
                "        if entry['op'] == 'insert' and entry['table'] == 'transfer':\n"
                "            found = sending_of(diff, entry, source, target, amount)\n"
                "            if found:\n"
                "                return found\n"
                "    return None\n"
            ),
            tables=("transfer", "account") if self.stored else ("transfer",),
            policy=f"The source of a {self.world.word('transfer')} has to be a {account} that can send the amount, and its target has to be another one.{house}",
        )

    def pay_policy(self) -> str:
        """Which account pays."""
        word, account = self.world.word, self.world.word("account")
        which = {
            "fee": "with the lowest fee for it",
            "most": "with the largest available balance",
            "least": "with the smallest available balance",
        }[self.pay_from]
        return (
            f"To pay an amount for a {word('person')} into a target {account}, make one {word('transfer')} of that amount. "
            f"It comes from the {account} {which} among those that the {word('person')} owns, that can send the "
            f"amount, and that are not the target; if several share that value, any of them will do."
        )

    def pay_goal(self) -> str:
        """Goal source of `s_pay_for`: from any account that no other one is better than by the rules."""
        better = {
            "fee": "g_sending_fee(db, other, amount) < g_sending_fee(db, source, amount)",
            "most": "g_available_balance(db, other) > g_available_balance(db, source)",
            "least": "g_available_balance(db, other) < g_available_balance(db, source)",
        }[self.pay_from]
        return (
            self.goal_sending() + "@once\n"
            "def accounts_of_owners():\n"
            "    found = {}\n"
            "    for account in db['account']:\n"
            f"        found.setdefault(account[{self.owner!r}], []).append(account)\n"
            "    return found\n"
            "def s_pay_for(db, diff, amount, person, target):\n"
            f"{self.house_goal}"
            f"    mine = accounts_of_owners().get(person[{self.owner_key!r}], [])\n"
            "    others = [a for a in mine if a['id'] != target['id'] and g_able_to_send(db, a, amount)]\n"
            "    for entry in diff:\n"
            "        if entry['op'] != 'insert' or entry['table'] != 'transfer':\n"
            "            continue\n"
            "        for source in others:\n"
            f"            if not any({better} for other in others):\n"
            "                found = sending_of(diff, entry, source, target, amount)\n"
            "                if found:\n"
            "                    return found\n"
            "    return None\n"
        )

    def pay(self) -> Action:
        """Pay for a person, from the account that the rules choose."""
        order_sql = {
            "fee": f"{self.fee_sql('c', '{amount}')}",
            "most": f"-{self.available_sql('c')}",
            "least": self.available_sql("c"),
        }[self.pay_from]
        key, way = {
            "fee": ("d_sending_fee(account, amount)", "min"),
            "most": ("d_available_balance(account)", "max"),
            "least": ("d_available_balance(account)", "min"),
        }[self.pay_from]
        house_plan = (
            "    if target['account_type'] == 'house':\n        raise RuntimeError('nothing goes there')\n"
            if self.fees
            else ""
        )
        return Action(
            name="pay_for",
            phrase="pay {amount} for {person} into {target}",
            params=(("amount", CREDITS), ("person", Type("row", "person")), ("target", ACCOUNT)),
            oracle_sql=self.insert_sql(
                f'FROM "account" a, "account" b WHERE b."id" = {{target}}{self.house_sql("b")} AND a."id" ='
                f' (SELECT c."id" FROM "account" c JOIN "person" p ON p."{self.owner_key}" = c."{self.owner}"'
                f' WHERE p."id" = {{person}} AND c."id" <> {{target}} AND {self.able_sql("c", "{amount}")}'
                f' ORDER BY {order_sql}, c."id" LIMIT 1)'
            ),
            plan=(
                self.plan_able() + self.plan_send() + "def a_pay_for(amount, person, target):\n"
                f"{house_plan}"
                f"    mine = rows('account', {{{self.owner!r}: person[{self.owner_key!r}]}})\n"
                "    able = [account for account in mine if account['id'] != target['id'] and d_able_to_send(account, amount)]\n"
                "    if not able:\n"
                "        raise RuntimeError('no account is able to pay')\n"
                f"    send_money({way}(able, key=lambda account: {key}), target, amount)\n"
            ),
            goal=self.pay_goal(),
            tables=("transfer", "account") if self.stored else ("transfer",),
            policy=self.pay_policy(),
        )

    # changing transfers -----------------------------------------------------------------------------------------

    def turn_sql(self, state: str, condition: str, sign: str, moving: str) -> str:
        """Oracle: the changes when a transfer takes another state."""
        fee = 'x."fee"' if self.fees else "0"
        return (
            f'WITH "go" AS MATERIALIZED (SELECT x."id" AS "id", a."id" AS "giver", b."id" AS "taker",'
            f' x."amount" AS "amount", {fee} AS "fee", x."transfer_state" AS "state"'
            f' FROM "transfer" x JOIN "account" a ON a."{self.source_key}" = x."{self.source}"'
            f' JOIN "account" b ON b."{self.target_key}" = x."{self.target}" WHERE x."id" = {{transfer}} AND {condition})'
            f" SELECT 'update', 'transfer', json_object('id', \"go\".\"id\", 'transfer_state', '{state}') FROM \"go\""
            + self.entries_sql('"go"."amount"', '"go"."fee"', moving, sign)
        )

    def goal_turned(self) -> str:
        """Goal source of `turned_transfer`: the claimed changes when a transfer takes another state."""
        return (
            self.goal_entered() + "@once\n"
            "def accounts_by_side():\n"
            f"    givers = {{a[{self.source_key!r}]: a for a in db['account']}}\n"
            f"    return givers, {{a[{self.target_key!r}]: a for a in db['account']}}\n"
            "def turned_transfer(diff, transfer, state, sign):\n"
            "    givers, takers = accounts_by_side()\n"
            f"    giver, taker = givers[transfer[{self.source!r}]], takers[transfer[{self.target!r}]]\n"
            "    for entry in diff:\n"
            "        if entry['op'] == 'update' and entry['table'] == 'transfer':\n"
            "            if entry['new'] == {**transfer, 'transfer_state': state}:\n"
            "                if not sign:\n"
            "                    return [entry]\n"
            f"                fee = {'transfer[' + repr('fee') + ']' if self.fees else '0'}\n"
            "                return both_sides(diff, entry, giver, taker, sign * transfer['amount'], sign * fee)\n"
            "    return None\n"
        )

    def settle(self) -> Action:
        """Post a pending transfer."""
        word, account = self.world.word("transfer"), self.world.word("account")
        need = "0" if self.blocks else self.cost_sql("x")
        need_goal = "0" if self.blocks else f"transfer['amount']{self.goal_fee_of('transfer')}"
        needed = (
            f"the available balance of its source {account} is not negative"
            if self.blocks
            else f"the available balance of its source {account} is at least its amount"
            f"{' plus its fee' if self.fees else ''}"
        )
        return Action(
            name="settle_transfer",
            phrase="settle {transfer}",
            params=(("transfer", TRANSFER),),
            oracle_sql=self.turn_sql(
                "posted", f"x.\"transfer_state\" = 'pending' AND {self.available_sql('a')} >= {need}", "1", ""
            ),
            plan=(
                f"def a_settle_transfer(transfer):\n    write({self.settle_tool!r}, {self.arg('transfer')}=transfer['id'])\n"
            ),
            goal=(
                self.goal_available() + self.goal_turned() + "def s_settle_transfer(db, diff, transfer):\n"
                f"    giver = accounts_by_side()[0][transfer[{self.source!r}]]\n"
                f"    if transfer['transfer_state'] != 'pending' or g_available_balance(db, giver) < {need_goal}:\n"
                "        return None\n"
                "    return turned_transfer(diff, transfer, 'posted', 1)\n"
            ),
            tables=("transfer", "account") if self.stored else ("transfer",),
            policy=f"To settle a pending {word} makes it posted; this is allowed only if {needed}.",
        )

    def reverse(self) -> Action:
        """Reverse a transfer."""
        word, account = self.world.word("transfer"), self.world.word("account")
        recent = f" AND x.\"day\" >= '{self.undo_from}'" if self.undo_days else ""
        held = f'x."transfer_state" = \'posted\' AND {self.available_sql("b")} >= x."amount"'
        waits = " OR x.\"transfer_state\" = 'pending'" if self.undo_any else ""
        old = f" or transfer['day'] < '{self.undo_from}'" if self.undo_days else ""
        pending_goal = (
            "    if transfer['transfer_state'] == 'pending':\n        return turned_transfer(diff, transfer, 'reversed', 0)\n"
            if self.undo_any
            else ""
        )
        either = (
            f"a posted or pending {word}" if self.undo_any else f"a posted {word}; a pending one cannot be reversed"
        )
        age = f" Its day must be {self.undo_from} or later." if self.undo_days else ""
        fee = ", fee included" if self.fees else ""
        return Action(
            name="reverse_transfer",
            phrase="reverse {transfer}",
            params=(("transfer", TRANSFER),),
            oracle_sql=self.turn_sql("reversed", f"(({held}){waits}){recent}", "-1", ' AND "go"."state" = \'posted\''),
            plan=(
                f"def a_reverse_transfer(transfer):\n    write({self.reverse_tool!r}, {self.arg('transfer')}=transfer['id'])\n"
            ),
            goal=(
                self.goal_available() + self.goal_turned() + "def s_reverse_transfer(db, diff, transfer):\n"
                f"    if transfer['transfer_state'] == 'reversed'{old}:\n"
                "        return None\n"
                f"{pending_goal}"
                f"    taker = accounts_by_side()[1][transfer[{self.target!r}]]\n"
                "    if transfer['transfer_state'] != 'posted' or transfer['amount'] > g_available_balance(db, taker):\n"
                "        return None\n"
                "    return turned_transfer(diff, transfer, 'reversed', -1)\n"
            ),
            tables=("transfer", "account") if self.stored else ("transfer",),
            policy=(
                f"To reverse is to undo {either}. A posted {word} can be reversed only if the available balance of its "
                f"target {account} is at least its amount; all that it moved goes back{fee}.{age}"
            ),
        )

    # holds ------------------------------------------------------------------------------------------------------

    def place_hold(self) -> Action:
        """Place a hold."""
        hold, account, step = self.world.word("hold"), self.world.word("account"), self.hold_step
        whole = f"(({{amount}} + {step - 1}) / {step} * {step})"
        rounded = f"    if POLICY:\n        amount = -(-amount // {step}) * {step}\n" if step > 1 else ""
        goal_rounded = f"    while amount % {step}:\n        amount += 1\n" if step > 1 else ""
        multiple = (
            f" A {hold} is a multiple of {step} credits: a requested amount is rounded up to the next multiple."
            if step > 1
            else ""
        )
        return Action(
            name="place_hold",
            phrase="set aside {amount} on {account} until {day}",
            params=(("amount", CREDITS), ("account", ACCOUNT), ("day", DAY)),
            oracle_sql=(
                f"SELECT 'insert', 'hold', json_object('{self.held}', a.\"{self.held_key}\", 'amount', {whole},"
                " 'until', {day}, 'hold_state', 'active') FROM \"account\" a"
                f" WHERE a.\"id\" = {{account}} AND {{amount}} > 0 AND {{day}} >= '{self.today}'"
                f"{self.house_sql('a')} AND {self.available_sql('a')} >= {whole}"
            ),
            plan=(
                "def a_place_hold(amount, account, day):\n"
                f"{rounded}"
                f"    write({self.place_tool!r}, {self.arg('account')}=account['id'], amount=amount, until=day)\n"
            ),
            goal=(
                self.goal_available() + "def s_place_hold(db, diff, amount, account, day):\n"
                f"{goal_rounded}"
                "    if amount > g_available_balance(db, account):\n"
                "        return None\n"
                f"    wanted = [account[{self.held_key!r}], amount, day, 'active']\n"
                "    for entry in diff:\n"
                "        if entry['op'] == 'insert' and entry['table'] == 'hold':\n"
                f"            cells = [{self.held!r}, 'amount', 'until', 'hold_state']\n"
                "            if [entry['new'][cell] for cell in cells] == wanted:\n"
                "                return [entry]\n"
                "    return None\n"
            ),
            tables=("hold",),
            policy=(
                f"To set aside an amount on a {account} until a day, which may be today, makes an active {hold} with that "
                f"last day; it may not exceed the available balance.{multiple}"
                + (f" The house {account} takes no {hold}." if self.fees else "")
            ),
        )

    def release_hold(self) -> Action:
        """Release a live hold."""
        hold = self.world.word("hold")
        return Action(
            name="release_hold",
            phrase="lift {hold}",
            params=(("hold", Type("row", "hold")),),
            oracle_sql=(
                "SELECT 'update', 'hold', json_object('id', h.\"id\", 'hold_state', 'released') FROM \"hold\" h"
                f' WHERE h."id" = {{hold}} AND h."hold_state" = \'active\' AND h."until" >= \'{self.today}\''
            ),
            plan=f"def a_release_hold(hold):\n    write({self.release_tool!r}, {self.arg('hold')}=hold['id'])\n",
            goal=(
                "def s_release_hold(db, diff, hold):\n"
                "    for entry in diff:\n"
                "        if entry['op'] == 'update' and entry['table'] == 'hold':\n"
                "            if entry['new'] == {**hold, 'hold_state': 'released'}:\n"
                "                return [entry]\n"
                "    return None\n"
            ),
            tables=("hold",),
            policy=f"To lift a {hold} makes it released; only a live {hold} can be lifted, so none whose last day is over.",
        )
