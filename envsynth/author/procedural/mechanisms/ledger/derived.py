"""Derived attributes of a ledger world, each with its sentence and three texts."""

from __future__ import annotations

from envsynth.author.procedural.ir import Type
from envsynth.author.procedural.mechanism import Derived
from envsynth.author.procedural.mechanisms.ledger.bindings import CREDITS, DAY, Bindings


def listed(parts: list[str]) -> str:
    """Write a list in words: "a, b and c"."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


class DerivedTexts(Bindings):
    """Writes the derived attributes over one world."""

    # sentences --------------------------------------------------------------------------------------------------

    def moving_policy(self) -> str:
        """What a transfer moves."""
        word, transfer, account = self.world.word, self.world.word("transfer"), self.world.word("account")
        fee = f" and its fee, which goes to the {account} of the type house," if self.fees else ""
        kept = f" The balance that a {account} shows holds all of this already." if self.stored else ""
        return (
            f"A {transfer} whose state is posted has taken its amount{fee} from its source {account} and given the amount to its "
            f"target {account}; a {word('transfer')} whose state is pending or reversed moves nothing.{kept}"
        )

    def waiting_policy(self) -> str:
        """Which new transfers wait."""
        transfer = self.world.word("transfer")
        return (
            f"A new {transfer} has today as its day; it is entered as pending if its amount is more than "
            f"{self.wait_above} credits, else as posted."
        )

    def balance_policy(self) -> str:
        """What balance means."""
        account, transfers = self.world.word("account"), self.world.plural("transfer")
        fee = " and fees" if self.fees else ""
        house = f" The {account} of the type house also gets the fees of all posted {transfers}." if self.fees else ""
        return (
            f"The balance of a {account} is its opening balance, plus the amounts of the posted {transfers} to it, less the "
            f"amounts{fee} of the posted {transfers} from it.{house}"
        )

    def available_policy(self) -> str:
        """What available means."""
        account, transfers = self.world.word("account"), self.world.plural("transfer")
        taken: list[str] = []
        if self.blocks:
            taken.append(f"the amounts{' and fees' if self.fees else ''} of the pending {transfers} from it")
        if self.holds:
            taken.append(f"the amounts of its live {self.world.plural('hold')}")
        over = " plus its overdraft limit," if self.overdraft else ""
        live = (
            f" A {self.world.word('hold')} is live if its state is active and its last day is today or later."
            if self.holds
            else ""
        )
        idle = "" if self.blocks else f" Pending {transfers} do not reduce it."
        return (
            f"The available balance of a {account} is its balance,{over} less {' and less '.join(taken)}; it may be "
            f"negative.{idle}{live}"
        )

    def fee_policy(self) -> str:
        """What a fee is."""
        account = self.world.word("account")
        rates = [f"{rate} for a {name} {account}" for name, rate in self.rates.items()]
        least = f", but at least {self.fee_floor} credit{'s' if self.fee_floor > 1 else ''}" if self.fee_floor else ""
        return (
            f"The fee for an amount sent from a {account} is a share of the amount in thousandths ({listed(rates)}), "
            f"rounded {'up' if self.fee_up else 'down'} to whole credits{least}; the house {account} pays no fee."
        )

    def sent_policy(self) -> str:
        """What sent means."""
        account, transfers = self.world.word("account"), self.world.plural("transfer")
        fee = " with their fees" if self.fees else ""
        return (
            f"The outflow of a {account} on a day is the sum of the amounts{fee} of the {transfers} of that day from "
            "it that are posted or pending."
        )

    def able_policy(self) -> str:
        """Which account can send."""
        account = self.world.word("account")
        cost = "the amount plus its fee" if self.fees else "the amount"
        text = f"A {account} can send an amount of at least 1 credit if {cost} is at most its available balance"
        if self.limited:
            limits = [f"{limit} credits for a {name} {account}" for name, limit in self.limits.items()]
            text += f", and its outflow of today plus {cost} is at most its daily limit ({listed(limits)})"
        return f"{text}.{f' The house {account} can send nothing.' if self.fees else ''}"

    def wealth_policy(self) -> str:
        """What wealth means."""
        person, accounts = self.world.word("person"), self.world.plural("account")
        return (
            f"The wealth of a {person} is the sum of the available balances of all {accounts} that the {person} owns."
        )

    # attributes -------------------------------------------------------------------------------------------------

    def balance(self) -> Derived:
        """Balance that follows from the transfers."""
        return Derived(
            entity="account",
            name="balance",
            label="balance",
            type=CREDITS,
            sql=self.balance_sql("{t}"),
            plan=self.plan_balance() + "def d_balance(row):\n    return account_money(row)\n",
            goal=self.goal_balance() + "def g_balance(db, row):\n    return money_on(row)\n",
            policy=self.balance_policy(),
        )

    def available(self) -> Derived:
        """What can be spent."""
        return Derived(
            entity="account",
            name="available_balance",
            label="available balance",
            type=CREDITS,
            sql=self.available_sql("{t}"),
            plan=self.plan_available(),
            goal=self.goal_available(),
            policy=self.available_policy(),
        )

    def fee(self) -> Derived:
        """Fee for an amount."""
        return Derived(
            entity="account",
            name="sending_fee",
            label="fee for {0}",
            params=(CREDITS,),
            type=CREDITS,
            sql=self.fee_sql("{t}", "{0}"),
            plan=self.plan_fee(),
            goal=self.goal_fee(),
            policy=self.fee_policy(),
        )

    def sent(self) -> Derived:
        """What left an account on a day."""
        return Derived(
            entity="account",
            name="outflow",
            label="outflow on {0}",
            params=(DAY,),
            type=CREDITS,
            sql=self.sent_sql("{t}", "{0}"),
            plan=self.plan_sent(),
            goal=self.goal_sent(),
            policy=self.sent_policy(),
        )

    def able(self) -> Derived:
        """Whether an account can send an amount today."""
        return Derived(
            entity="account",
            name="able_to_send",
            label="able to send {0}",
            params=(CREDITS,),
            type=Type("bool"),
            sql=self.able_sql("{t}", "{0}"),
            plan=self.plan_able(),
            goal=self.goal_able(),
            policy=self.able_policy(),
        )

    def wealth(self) -> Derived:
        """What a person owns."""
        return Derived(
            entity="person",
            name="wealth",
            label="wealth",
            type=CREDITS,
            sql=(
                f'(SELECT COALESCE(SUM({self.available_sql("w")}), 0) FROM "account" w'
                f' WHERE w."{self.owner}" = {{t}}."{self.owner_key}")'
            ),
            plan=(
                self.plan_available() + "def d_wealth(row):\n"
                f"    mine = rows('account', {{{self.owner!r}: row[{self.owner_key!r}]}})\n"
                "    return sum([d_available_balance(account) for account in mine])\n"
            ),
            goal=(
                self.goal_available() + "@once\n"
                "def wealth_of_owners():\n"
                "    wealth = {}\n"
                "    for account in db['account']:\n"
                f"        owner = account[{self.owner!r}]\n"
                "        wealth[owner] = wealth.get(owner, 0) + g_available_balance(db, account)\n"
                "    return wealth\n"
                "def g_wealth(db, row):\n"
                f"    return wealth_of_owners().get(row[{self.owner_key!r}], 0)\n"
            ),
            policy=self.wealth_policy(),
        )
