"""Derived attributes of a price world, each with its three texts."""

from __future__ import annotations

from envsynth.author.procedural.mechanism import Derived
from envsynth.author.procedural.mechanisms.pricing.bindings import CREDITS, UNITS, Bindings


class DerivedTexts(Bindings):
    """Writes the derived attributes over one world."""

    def cost(self) -> Derived:
        """Cost of a quantity, before vouchers."""
        return Derived(
            entity="item",
            name="cost",
            label="cost for {0}",
            params=(UNITS,),
            type=CREDITS,
            sql=self.cost_sql("{t}", "{0}"),
            plan=self.plan_cost(),
            goal=self.goal_cost(),
            policy=self.cost_policy(),
        )

    def best_price(self) -> Derived:
        """Price of a quantity with the best set of vouchers."""
        return Derived(
            entity="item",
            name="best_price",
            label=f"{self.world.word('coupon')} price for {{0}}",
            params=(UNITS,),
            type=CREDITS,
            sql=self.best_sql("{t}", "{0}"),
            plan=(
                self.plan_best() + "def d_best_price(row, quantity):\n"
                "    return price_with(d_cost(row, quantity), best_coupons(row, quantity))\n"
            ),
            goal=self.goal_best(),
            policy=self.best_policy(),
        )

    def spent(self) -> Derived:
        """Amounts of the orders of a person."""
        person, orders = self.world.word("person"), self.world.plural("order")
        return Derived(
            entity="person",
            name="spent",
            label="spending",
            type=CREDITS,
            sql=(
                f'(SELECT COALESCE(SUM(o."amount"), 0) FROM "order" o'
                f' WHERE o."{self.person}" = {{t}}."{self.person_key}" AND o."stage" = \'open\')'
            ),
            plan=(
                "def d_spent(row):\n"
                f"    mine = rows('order', {{{self.person!r}: row[{self.person_key!r}]}})\n"
                "    return sum([o['amount'] for o in mine if not POLICY or o['stage'] == 'open'])\n"
            ),
            goal=(
                "@once\n"
                "def credits_of_persons():\n"
                "    credits = {}\n"
                "    for o in db['order']:\n"
                "        if o['stage'] != 'withdrawn':\n"
                f"            credits[o[{self.person!r}]] = credits.get(o[{self.person!r}], 0) + o['amount']\n"
                "    return credits\n"
                "def g_spent(db, row):\n"
                f"    return credits_of_persons().get(row[{self.person_key!r}], 0)\n"
            ),
            policy=(f"The spending of a {person} is the sum of the amounts of all open {orders} of that {person}."),
        )
