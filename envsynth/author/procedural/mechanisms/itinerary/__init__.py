"""Timetabled connections between places: when and for how much one gets where, and buying the cheapest route.

Dynamics: a route is a chain of connections with time to change between them, seats sell out and some may be kept back,
a fee may come on top of each fare. The tool that sells a seat refuses a full connection and a second ticket of the same
person; time to change, kept seats, the length of a route and its price are rules that an actor has to follow by itself.
Attractions with opening hours make plans over several places possible.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

from envsynth.author.procedural.mechanism import Action, Col, Composed, Derived, ToolDraft
from envsynth.author.procedural.mechanisms.entities import ID, NAME, PERSON_AT_SITE, SITE
from envsynth.author.procedural.mechanisms.itinerary.actions import ActionTexts
from envsynth.author.procedural.mechanisms.itinerary.derived import DerivedTexts
from envsynth.author.procedural.mechanisms.itinerary.timetable import MODES, Timetable
from envsynth.author.procedural.mechanisms.itinerary.tools import ToolTexts


class Itinerary:
    """Connections and attractions of places, travelled by persons."""

    name = "itinerary"
    ports: Mapping[str, str] = {"actor": "person", "location": "site"}

    def options(self, rng: random.Random) -> dict[str, Any]:
        """Draw the rules.

        `transfer`: hours needed to change. `max_legs`: most connections of a route. `kept_seats`: seats that are never
        sold to the public. `fee`: credits on top of each fare. `refunds`: whether tickets can be refunded. `visit`:
        hours that a visit takes; 0 for a world without attractions.
        """
        return {
            "transfer": rng.choice([1, 1, 2]),
            "max_legs": rng.choice([2, 3, 3]),
            "kept_seats": rng.choice([0, 0, 1]),
            "fee": rng.choice([0, 0, 8]),
            "refunds": rng.random() < 0.5,
            "visit": rng.choice([0, 1, 2, 2]),
        }

    def tables(self, rules: Mapping[str, Any]) -> dict[str, tuple[Col, ...]]:
        """Places, persons, connections, tickets and, by rule, attractions."""
        validity = Col(name="validity", kind="enum", label="validity", values=("valid", "refunded"))
        tables: dict[str, tuple[Col, ...]] = {
            "site": SITE,
            "person": PERSON_AT_SITE,
            "leg": (
                ID,
                Col(name="origin", kind="fk", label="origin", ref="site"),
                Col(name="destination", kind="fk", label="destination", ref="site"),
                Col(name="departs", kind="num", label="departure time", unit="oclock"),
                Col(name="arrives", kind="num", label="arrival time", unit="oclock"),
                Col(name="fare", kind="num", label="basic fare", unit="credits"),
                Col(name="seats", kind="num", label="seat count", unit="people"),
                Col(
                    name="mode",
                    kind="enum",
                    label="mode",
                    values=MODES,
                    optional=True,
                    liftable=True,
                ),
            ),
            "ticket": (
                ID,
                Col(name="leg", kind="fk", label="booked {leg}", ref="leg"),
                Col(name="person", kind="fk", label="passenger", ref="person"),
                *((validity,) if rules["refunds"] else ()),
            ),
        }
        if rules["visit"]:
            tables["attraction"] = (
                ID,
                NAME,
                Col(name="site", kind="fk", label="{site}", ref="site"),
                Col(name="price", kind="num", label="entry price", unit="credits"),
                Col(name="rating", kind="num", label="rating", unit="points"),
                Col(name="opens", kind="num", label="opening hour", unit="oclock"),
                Col(name="closes", kind="num", label="closing hour", unit="oclock"),
            )
        return tables

    def generate(self, world: Composed, rng: random.Random) -> None:
        """Fill a timetable on a map of places, tickets within the seats, and attractions."""
        Timetable(world, rng).fill()

    def derived(self, world: Composed) -> list[Derived]:
        """Free seats of a connection, arrival time and fare of a place, reach and cost of an attraction."""
        texts = DerivedTexts(world)
        found = [texts.seats_left(), texts.arrival(), texts.fare()]
        return [*found, texts.visit(), texts.outing()] if texts.hours else found

    def actions(self, world: Composed) -> list[Action]:
        """Buy the cheapest route; by rule, refund a ticket."""
        texts = ActionTexts(world)
        found = [texts.buy()]
        return [*found, texts.refund()] if texts.refunds else found

    def tools(self, world: Composed) -> list[ToolDraft]:
        """Write tools of the actions."""
        texts = ToolTexts(world)
        found = [texts.buy_draft()]
        return [*found, texts.refund_draft()] if texts.refunds else found

    def policy(self, world: Composed) -> list[str]:
        """What a route is."""
        return [DerivedTexts(world).route_policy()]


MECHANISM = Itinerary()
