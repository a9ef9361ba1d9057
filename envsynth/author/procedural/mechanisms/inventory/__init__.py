"""Stock in lots that expire: what is available where, and reserving the earliest-expiring lots first.

Dynamics: a lot is usable or not (expiry with a margin, quarantine), reservations eat into it, a place may keep a safety
stock, and requests may be rounded up to whole packs. The tool that reserves checks only that a lot still has enough; the
order of lots, their usability, the safety stock and the packs are rules that an actor has to follow by itself.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from datetime import date, timedelta
from typing import Any

from envsynth.author.procedural.mechanism import Action, Col, Composed, Derived, ToolDraft
from envsynth.author.procedural.mechanisms.entities import (
    ID,
    ITEM,
    PERSON_AT_SITE,
    SITE,
    fill_items,
    fill_people,
    fill_sites,
    skewed,
)
from envsynth.author.procedural.mechanisms.inventory.actions import ActionTexts
from envsynth.author.procedural.mechanisms.inventory.derived import DerivedTexts
from envsynth.author.procedural.mechanisms.inventory.tools import ToolTexts


class Inventory:
    """Lots of goods at places, reserved for persons."""

    name = "inventory"
    ports: Mapping[str, str] = {"actor": "person", "location": "site", "good": "item"}

    def options(self, rng: random.Random) -> dict[str, Any]:
        """Draw the rules: quarantine, shelf margin (days), safety stock, pack size (units), releases."""
        return {
            "quarantine": rng.random() < 0.5,
            "shelf_days": rng.choice([0, 7, 14]),
            "safety": rng.random() < 0.5,
            "pack": rng.choice([1, 1, 4, 6]),
            "releases": rng.random() < 0.5,
        }

    def tables(self, rules: Mapping[str, Any]) -> dict[str, tuple[Col, ...]]:
        """Places, persons, goods, lots and reservations."""
        safety = Col(name="safety", kind="num", label="safety stock", unit="units")
        lot_state = Col(name="condition", kind="enum", label="condition", values=("ok", "quarantine"))
        held_state = Col(name="phase", kind="enum", label="phase", values=("held", "released"))
        quantity = Col(name="quantity", kind="num", label="quantity", unit="units")
        return {
            "site": (*SITE, safety) if rules["safety"] else SITE,
            "person": PERSON_AT_SITE,
            "item": ITEM,
            "lot": (
                ID,
                Col(name="item", kind="fk", label="{item}", ref="item"),
                Col(name="site", kind="fk", label="{site}", ref="site"),
                quantity,
                Col(name="expiry", kind="date", label="expiry day"),
                *((lot_state,) if rules["quarantine"] else ()),
            ),
            "reservation": (
                ID,
                Col(name="lot", kind="fk", label="reserved {lot}", ref="lot"),
                Col(name="person", kind="fk", label="holder", ref="person"),
                quantity,
                *((held_state,) if rules["releases"] else ()),
            ),
        }

    def generate(self, world: Composed, rng: random.Random) -> None:
        """Fill lots around today's date and reservations that never exceed their lot."""
        fill_sites(world, rng)
        fill_people(world, rng)
        fill_items(world, rng)
        today = date.fromisoformat(world.now[:10])

        def lot(_: int) -> dict[str, Any]:
            return {
                "item": skewed(rng, world.rows["item"], 0.12),
                "site": rng.choice(world.rows["site"]),
                "quantity": rng.randint(3, 40),
                "expiry": (today + timedelta(days=rng.randint(-14, 60))).isoformat(),
                "condition": "quarantine" if rng.random() < 0.15 else "ok",
            }

        world.fill(rng, "lot", rng.randint(80, 120), lot)
        left = {row["id"]: int(row["quantity"]) for row in world.rows["lot"]}

        def reservation(_: int) -> dict[str, Any]:
            row = rng.choice([row for row in world.rows["lot"] if left[row["id"]] > 0])
            quantity = rng.randint(1, left[row["id"]])
            released = world.rules["releases"] and rng.random() < 0.25
            if not released:
                left[row["id"]] -= quantity
            return {
                "lot": row,
                "person": skewed(rng, world.rows["person"], 0.1),
                "quantity": quantity,
                "phase": "released" if released else "held",
            }

        world.fill(rng, "reservation", rng.randint(36, 56), reservation)

    def derived(self, world: Composed) -> list[Derived]:
        """Unreserved quantity, available stock, usable stock, and what a person holds."""
        texts = DerivedTexts(world)
        return [texts.free_qty(), texts.available(), texts.stock(), texts.held()]

    def actions(self, world: Composed) -> list[Action]:
        """Reserve earliest-expiring first; receive a lot; by rule, release a reservation."""
        texts = ActionTexts(world)
        found = [texts.reserve(), texts.receive()]
        return [*found, texts.release()] if texts.releases else found

    def tools(self, world: Composed) -> list[ToolDraft]:
        """Write tools of the actions."""
        texts = ToolTexts(world)
        found = [texts.reserve_draft(), texts.receive_draft()]
        return [*found, texts.release_draft()] if texts.releases else found

    def policy(self, world: Composed) -> list[str]:
        """Nothing beyond the sentences of derived attributes and actions."""
        del world
        return []


MECHANISM = Inventory()
