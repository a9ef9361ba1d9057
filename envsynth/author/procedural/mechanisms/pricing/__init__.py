"""Goods with price breaks and vouchers: what an order costs, and which vouchers make it cheapest.

Dynamics: the largest reached price break applies, vouchers need a minimum cost and may expire, they exclude one another
by group or by count, and they never take off more than a cap. The tool that places orders checks groups, minimum and
count; unless the rules are strict it also takes an expired voucher, and it never looks for the best set.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from datetime import date, timedelta
from typing import Any

from envsynth.author.procedural.mechanism import Action, Col, Composed, Derived, ToolDraft
from envsynth.author.procedural.mechanisms.entities import (
    ID,
    NAME,
    PERSON,
    PRICED_ITEM,
    fill_items,
    fill_people,
    skewed,
)
from envsynth.author.procedural.mechanisms.pricing.actions import ActionTexts
from envsynth.author.procedural.mechanisms.pricing.derived import DerivedTexts
from envsynth.author.procedural.mechanisms.pricing.tools import ToolTexts

REDUCTIONS = {5: 3, 10: 7, 20: 12, 40: 20}
"""Reduction in percent by minimum quantity in units."""


class Pricing:
    """Priced goods, ordered by persons with vouchers."""

    name = "pricing"
    ports: Mapping[str, str] = {"actor": "person", "good": "item"}

    def options(self, rng: random.Random) -> dict[str, Any]:
        """Draw the rules.

        `groups`: one voucher per stacking group. `most`: most vouchers per order, 0 for any. `cap`: percent of the cost
        that vouchers take off at most. `round_up`: whether a cost is rounded up. `flat_first`: whether flat vouchers
        come off before the percentages. `dated`: whether vouchers end on a day. `strict`: whether the tool refuses
        ended ones. `withdrawals`: whether orders can be withdrawn.
        """
        groups, most = rng.choice([(True, 0), (True, 0), (True, 2), (False, 2), (False, 3)])
        return {
            "groups": groups,
            "most": most,
            "cap": rng.choice([25, 30, 40]),
            "round_up": rng.random() < 0.5,
            "flat_first": rng.random() < 0.5,
            "dated": rng.random() < 0.5,
            "strict": rng.random() < 0.5,
            "withdrawals": rng.random() < 0.5,
        }

    def tables(self, rules: Mapping[str, Any]) -> dict[str, tuple[Col, ...]]:
        """Persons, goods, price breaks, vouchers and orders."""
        group = Col(name="stack", kind="enum", label="stacking group", values=("A", "B", "C"))
        until = Col(name="until", kind="date", label="last day")
        stage = Col(name="stage", kind="enum", label="stage", values=("open", "withdrawn"))
        return {
            "person": PERSON,
            "item": PRICED_ITEM,
            "pricebreak": (
                ID,
                Col(name="item", kind="fk", label="reduced {item}", ref="item"),
                Col(name="minimum", kind="num", label="minimum quantity", unit="units"),
                Col(name="reduction", kind="num", label="reduction", unit="percent"),
            ),
            "coupon": (
                ID,
                NAME,
                Col(name="kind", kind="enum", label="kind", values=("percent", "flat")),
                Col(name="value", kind="num", label="value", unit="worth"),
                Col(name="minimum", kind="num", label="minimum cost", unit="credits"),
                *((group,) if rules["groups"] else ()),
                *((until,) if rules["dated"] else ()),
            ),
            "order": (
                ID,
                Col(name="item", kind="fk", label="ordered {item}", ref="item"),
                Col(name="person", kind="fk", label="buyer", ref="person"),
                Col(name="quantity", kind="num", label="quantity", unit="units"),
                Col(name="amount", kind="num", label="amount", unit="credits"),
                *((stage,) if rules["withdrawals"] else ()),
            ),
        }

    def generate(self, world: Composed, rng: random.Random) -> None:
        """Fill price breaks (one per good and step), at most eight vouchers, and past orders."""
        fill_people(world, rng)
        fill_items(world, rng)
        items = world.rows["item"]
        steps = [(row, minimum) for row in items for minimum in REDUCTIONS]
        chosen = rng.sample(steps, rng.randint(len(steps) * 2 // 5, len(steps) * 3 // 5))

        def pricebreak(index: int) -> dict[str, Any]:
            row, minimum = chosen[index]
            return {"item": row, "minimum": minimum, "reduction": REDUCTIONS[minimum]}

        world.fill(rng, "pricebreak", len(chosen), pricebreak)
        today = date.fromisoformat(world.now[:10])

        def coupon(index: int) -> dict[str, Any]:
            kind = "percent" if index % 2 else "flat"
            return {
                "kind": kind,
                "value": rng.randint(3, 15) if kind == "percent" else rng.randint(5, 60),
                "minimum": rng.choice([0, 50, 100, 200, 400]),
                "stack": "ABC"[index % 3],
                "until": (today + timedelta(days=rng.choice([-9, -3, 0, 5, 20, 40]))).isoformat(),
            }

        world.fill(rng, "coupon", rng.randint(6, 8), coupon)

        def order(_: int) -> dict[str, Any]:
            row, quantity = rng.choice(items), rng.randint(1, 30)
            return {
                "item": row,
                "person": skewed(rng, world.rows["person"], 0.1),
                "quantity": quantity,
                "amount": int(row["price"]) * quantity * rng.randint(70, 100) // 100,
                "stage": "withdrawn" if rng.random() < 0.2 else "open",
            }

        world.fill(rng, "order", rng.randint(40, 70), order)

    def derived(self, world: Composed) -> list[Derived]:
        """Cost and best price of a good; by rule, what a person has spent."""
        texts = DerivedTexts(world)
        found = [texts.cost(), texts.best_price()]
        return [*found, texts.spent()] if texts.withdrawals else found

    def actions(self, world: Composed) -> list[Action]:
        """Order at the best price; by rule, withdraw an order."""
        texts = ActionTexts(world)
        found = [texts.order()]
        return [*found, texts.withdraw()] if texts.withdrawals else found

    def tools(self, world: Composed) -> list[ToolDraft]:
        """Write tools of the actions."""
        texts = ToolTexts(world)
        found = [texts.order_draft()]
        return [*found, texts.withdraw_draft()] if texts.withdrawals else found

    def policy(self, world: Composed) -> list[str]:
        """What a voucher is worth."""
        return [
            f"The value of a {world.word('coupon')} of the kind percent is a percentage; that of one of the kind flat "
            "is in credits."
        ]


MECHANISM = Pricing()
