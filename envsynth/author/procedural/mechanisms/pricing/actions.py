"""Actions of a price world: order, withdraw; each with its three texts."""

from __future__ import annotations

from envsynth.author.procedural.ir import Type
from envsynth.author.procedural.mechanism import Action
from envsynth.author.procedural.mechanisms.pricing.bindings import UNITS, Bindings


class ActionTexts(Bindings):
    """Writes the actions over one world."""

    def order(self) -> Action:
        """Order at the best price; any set of vouchers with that price will do."""
        coupon, coupons = self.world.word("coupon"), self.world.plural("coupon")
        stage_sql = ", 'stage', 'open'" if self.withdrawals else ""
        stage_goal = " and new['stage'] == 'open'" if self.withdrawals else ""
        return Action(
            name="order",
            phrase=f"order {{quantity}} of {{item}} for {{person}} at the {coupon} price",
            params=(
                ("quantity", UNITS),
                ("item", Type("row", "item")),
                ("person", Type("row", "person")),
            ),
            oracle_sql=(
                f"SELECT 'insert', 'order', json_object('{self.item}', i.\"{self.item_key}\","
                f" '{self.person}', p.\"{self.person_key}\", 'quantity', {{quantity}},"
                f" 'amount', {self.best_sql('i', '{quantity}')}{stage_sql})"
                ' FROM "item" i, "person" p WHERE i."id" = {item} AND p."id" = {person} AND {quantity} > 0'
            ),
            plan=(
                self.plan_best() + "def a_order(quantity, item, person):\n"
                "    chosen = best_coupons(item, quantity)\n"
                f"    write({self.order_tool!r}, {self.arg('item')}=item['id'], {self.arg('person')}=person['id'],"
                f" quantity=quantity, {self.coupons_argument}=[c['id'] for c in chosen])\n"
            ),
            goal=(
                self.goal_best() + "def s_order(db, diff, quantity, item, person):\n"
                "    price = g_best_price(db, item, quantity)\n"
                "    for entry in diff:\n"
                "        new = entry['new']\n"
                "        if entry['op'] != 'insert' or entry['table'] != 'order':\n"
                "            continue\n"
                f"        if new[{self.item!r}] == item[{self.item_key!r}] and"
                f" new[{self.person!r}] == person[{self.person_key!r}]:\n"
                f"            if new['quantity'] == quantity and new['amount'] == price{stage_goal}:\n"
                "                return [entry]\n"
                "    return None\n"
            ),
            tables=("order",),
            policy=(f"To order at the {coupon} price, use a set of {coupons} that gives it; every such set will do."),
        )

    def withdraw(self) -> Action:
        """Withdraw an order."""
        order = self.world.word("order")
        return Action(
            name="withdraw",
            phrase="withdraw {order}",
            params=(("order", Type("row", "order")),),
            oracle_sql=(
                "SELECT 'update', 'order', json_object('id', o.\"id\", 'stage', 'withdrawn')"
                ' FROM "order" o WHERE o."id" = {order} AND o."stage" = \'open\''
            ),
            plan=(f"def a_withdraw(order):\n    write({self.withdraw_tool!r}, {self.arg('order')}=order['id'])\n"),
            goal=(
                "def s_withdraw(db, diff, order):\n"
                "    for entry in diff:\n"
                "        if entry['op'] == 'update' and entry['table'] == 'order':\n"
                "            if entry['new'] == {**order, 'stage': 'withdrawn'}:\n"
                "                return [entry]\n"
                "    return None\n"
            ),
            tables=("order",),
            policy=f"A withdrawn {order} cannot be withdrawn again.",
        )
