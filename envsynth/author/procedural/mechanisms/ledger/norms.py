"""What order means among transfers: each has the fee that the rules say, and none waits that has no reason to."""

from __future__ import annotations

import random

from envsynth.author.procedural.mechanism import Breach, Composed, Norm, Row
from envsynth.author.procedural.mechanisms.ledger.bindings import Bindings
from envsynth.author.procedural.mechanisms.planting import Planting


class NormTexts(Bindings):
    """Writes the norm over one world."""

    def __init__(self, world: Composed) -> None:
        super().__init__(world)
        self.transfer = world.word("transfer")

    def norm(self) -> Norm:
        """All rules of a transfer."""
        return Norm(entity="transfer", breaches=(*([self.fee()] if self.fees else []), self.idle()))

    def fee(self) -> Breach:
        """A transfer with another fee than its amount and its source give."""
        account = self.world.word("account")
        amount = '{t}."amount"'
        return Breach(
            name="fee",
            rule=f"its state is not reversed and its fee is not the fee for its amount sent from its source {account}",
            sql=(
                f'({{t}}."transfer_state" <> \'reversed\' AND {{t}}."fee" <> (SELECT {self.fee_sql("a", amount)}'
                f' FROM "account" a WHERE a."{self.source_key}" = {{t}}."{self.source}"))'
            ),
            plan=(
                self.plan_fee() + "def p_transfer_fee(row):\n"
                "    if POLICY and row['transfer_state'] == 'reversed':\n"
                "        return False\n"
                "    if not CHECKS:\n"
                f"        return row['fee'] != row['amount'] * {self.fees} // 1000\n"
                f"    source = named('account', {self.source_key!r}, row[{self.source!r}])\n"
                "    return row['fee'] != d_sending_fee(source, row['amount'])\n"
            ),
            goal=(
                self.goal_fee() + "@once\n"
                "def senders():\n"
                f"    return {{a[{self.source_key!r}]: a for a in db['account']}}\n"
                "def v_transfer_fee(db, row):\n"
                f"    right = g_sending_fee(db, senders()[row[{self.source!r}]], row['amount'])\n"
                "    return right != row['fee'] and row['transfer_state'] in ('pending', 'posted')\n"
            ),
            repair=f"reverse the {self.transfer}",
            action="reverse_transfer",
            parameter="transfer",
            plant=self.plant_fee,
        )

    def idle(self) -> Breach:
        """A transfer that waits although its amount is small enough."""
        return Breach(
            name="idle",
            rule=f"its state is pending although its amount is not more than {self.wait_above} credits",
            sql=f'({{t}}."transfer_state" = \'pending\' AND {{t}}."amount" <= {self.wait_above})',
            plan=(
                "def p_transfer_idle(row):\n"
                f"    small = not CHECKS or not POLICY or row['amount'] <= {self.wait_above}\n"
                "    return small and row['transfer_state'] == 'pending'\n"
            ),
            goal=(
                "def v_transfer_idle(db, row):\n"
                f"    return row['transfer_state'] == 'pending' and not row['amount'] > {self.wait_above}\n"
            ),
            repair=f"settle the {self.transfer}",
            action="settle_transfer",
            parameter="transfer",
            plant=self.plant_idle,
        )

    # ------------------------------------------------------------------------------------------------------ planting

    def right_fee(self, row: Row, amount: int) -> int:
        """Fee of an amount sent from the source of a transfer."""
        source = next(a for a in self.world.rows["account"] if a[self.source_key] == row[self.source])
        share = amount * self.rates[str(source["account_type"])]
        return max(self.fee_floor, -(-share // 1000) if self.fee_up else share // 1000)

    def plant_fee(self, rng: random.Random) -> list[tuple[str, Row]]:
        """A posted transfer of today whose fee is off; near misses: a reversed one with that fee, one with the right fee."""
        planting = Planting(self.world, rng)
        posted = [row for row in self.world.rows["transfer"] if row["transfer_state"] == "posted"]
        base = planting.pick(posted, "posted transfer")
        amount = rng.randint(5, min(60, self.wait_above))
        right = self.right_fee(base, amount)
        wrong = right + rng.choice([1, 2, -1]) if right else 1
        cells = {"amount": amount, "day": self.today}
        planting.add("transfer", base, **cells, fee=wrong)
        planting.add_early("transfer", base, **cells, fee=wrong, transfer_state="reversed")
        planting.add_early("transfer", base, **cells, fee=right)
        return planting.rows

    def plant_idle(self, rng: random.Random) -> list[tuple[str, Row]]:
        """A pending transfer at or below the limit; near misses: a pending one just above, a posted one at it."""
        planting = Planting(self.world, rng)
        money = "balance" if self.stored else "opening"
        users = [row for row in self.world.rows["account"] if row["account_type"] != "house"]
        richest = max(users, key=lambda row: int(row[money]))
        others = [row for row in self.world.rows["transfer"] if row[self.target] != richest[self.target_key]]
        base = {**planting.pick(others, "transfer"), self.source: richest[self.source_key]}
        for state, amount, early in (
            ("pending", self.wait_above - rng.choice([0, 1, rng.randint(2, 90)]), False),
            ("pending", self.wait_above + 1, True),
            ("posted", self.wait_above, True),
        ):
            fee = {"fee": self.right_fee(base, amount)} if self.fees else {}
            cells = {"amount": amount, "transfer_state": state, "day": self.today, **fee}
            (planting.add_early if early else planting.add)("transfer", base, **cells)
        return planting.rows
