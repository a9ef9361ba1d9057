"""Write tools of a price world."""

from __future__ import annotations

from envsynth.author.procedural.mechanism import ToolDraft
from envsynth.author.procedural.mechanisms.entities import (
    arguments_schema,
    count_schema,
    fetch_source,
    id_schema,
    insert_source,
)
from envsynth.author.procedural.mechanisms.pricing.bindings import Bindings


class ToolTexts(Bindings):
    """Writes the tools over one world."""

    def order_draft(self) -> ToolDraft:
        """The tool that places an order with given vouchers."""
        world, item, person = self.world, self.arg("item"), self.arg("person")
        coupons = {
            "type": "array",
            "items": {"type": "integer" if world.style.ids == "int" else "string"},
            "maxItems": 20,
            "description": f"ids of the {world.plural('coupon')} to use, possibly none",
        }
        cells = {
            self.item: f"item[{self.item_key!r}]",
            self.person: f"person[{self.person_key!r}]",
            "quantity": "quantity",
            "amount": "amount",
            **({"stage": "'open'"} if self.withdrawals else {}),
        }
        return ToolDraft(
            name=self.order_tool,
            effect="write",
            description=(
                f"Place a {world.word('order')} for a {world.word('person')}. The amount follows from the list price, "
                f"the {world.plural('pricebreak')} and the {world.plural('coupon')} given."
            ),
            parameters=arguments_schema(
                {
                    item: id_schema(world, "item"),
                    person: id_schema(world, "person"),
                    "quantity": count_schema("units to order"),
                    self.coupons_argument: coupons,
                }
            ),
            returns=f"id: id of the new {world.word('order')}; amount: what it costs, in credits.",
            errors=("not_found", "conflict"),
            source=(
                f"def {self.order_tool}(db, *, {item}, {person}, quantity, {self.coupons_argument}):\n"
                + fetch_source(world, "item", "item")
                + fetch_source(world, "person", "person")
                + self.cost_source()
                + self.coupons_source()
                + self.amount_source()
                + insert_source(world, "order", cells)
                + "    return {'id': new_id, 'amount': amount}\n"
            ),
        )

    def cost_source(self) -> str:
        """Tool source that binds `cost`."""
        query = (
            f'SELECT COALESCE(MAX("reduction"), 0) AS "reduction" FROM "pricebreak"'
            f' WHERE "{self.break_item}" = ? AND "minimum" <= ?'
        )
        extra = " + 99" if self.round_up else ""
        return (
            f"    reached = db.execute({query!r}, (item[{self.break_key!r}], quantity)).fetchone()['reduction']\n"
            f"    cost = (item['price'] * quantity * (100 - reached){extra}) // 100\n"
        )

    def coupons_source(self) -> str:
        """Tool source that checks the vouchers and binds `percent` and `flat`."""
        world, word = self.world, self.world.word("coupon")
        refuse = "            raise Refusal('conflict', "
        source = (
            "    percent, flat, used = 0, 0, []\n"
            f"    for coupon_id in {self.coupons_argument}:\n"
            + "".join(f"    {line}\n" for line in fetch_source(world, "coupon", "coupon", "coupon_id").splitlines())
            + f"        if coupon[{self.mark!r}] in used:\n"
            f"{refuse}{f'this {word} cannot be combined with another one given'!r})\n"
            "        if coupon['minimum'] > cost:\n"
            f"{refuse}{f'the minimum cost of a {word} is not reached'!r})\n"
        )
        if self.dated and self.strict:
            source += f"        if coupon['until'] < {self.today!r}:\n{refuse}{f'a {word} has ended'!r})\n"
        if self.most:
            source += f"        if len(used) == {self.most}:\n{refuse}{f'more than {self.most} given'!r})\n"
        return source + (
            f"        used.append(coupon[{self.mark!r}])\n"
            "        if coupon['kind'] == 'percent':\n"
            "            percent += coupon['value']\n"
            "        else:\n"
            "            flat += coupon['value']\n"
        )

    def amount_source(self) -> str:
        """Tool source that binds `amount`."""
        if self.flat_first:
            rest = "    amount = max(0, cost - flat)\n    amount = amount - amount * percent // 100\n"
        else:
            rest = "    amount = cost - cost * percent // 100 - flat\n"
        return f"{rest}    amount = max(amount, cost * {self.kept} // 100)\n"

    def withdraw_draft(self) -> ToolDraft:
        """The tool that withdraws an order."""
        world, order = self.world, self.arg("order")
        statement = 'UPDATE "order" SET "stage" = ? WHERE "id" = ?'
        return ToolDraft(
            name=self.withdraw_tool,
            effect="write",
            description=f"Withdraw a {world.word('order')}.",
            parameters=arguments_schema({order: id_schema(world, "order")}),
            returns=f"id: id of the {world.word('order')}; stage: its new stage.",
            errors=("not_found", "conflict"),
            source=(
                f"def {self.withdraw_tool}(db, *, {order}):\n"
                + fetch_source(world, "order", "target")
                + "    if target['stage'] != 'open':\n"
                "        raise Refusal('conflict', 'already withdrawn')\n"
                f"    db.execute({statement!r}, ('withdrawn', target['id']))\n"
                "    return {'id': target['id'], 'stage': 'withdrawn'}\n"
            ),
        )
