"""Places that are booked by the hour: what is free when, what it is charged at, and who holds how much.

Dynamics: bookings block their place (with a gap around them, by status), closures block whole days, late hours may cost
double, a person may hold only so many hours a day. The tool refuses what is not free; which bookings count, the gap and
the status of a new booking are rules that an actor has to read.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

from envsynth.author.procedural.mechanism import Action, Col, Composed, Derived, Norm, ToolDraft
from envsynth.author.procedural.mechanisms.booking.actions import ActionTexts
from envsynth.author.procedural.mechanisms.booking.bindings import REASONS, statuses
from envsynth.author.procedural.mechanisms.booking.calendar import Calendar
from envsynth.author.procedural.mechanisms.booking.derived import DerivedTexts
from envsynth.author.procedural.mechanisms.booking.norms import NormTexts
from envsynth.author.procedural.mechanisms.booking.tools import ToolTexts
from envsynth.author.procedural.mechanisms.entities import (
    ID,
    NAME,
    PERSON_AT_SITE,
    SITE,
    fill_people,
    fill_sites,
)


class Booking:
    """Places at sites, booked by persons for hours of a day."""

    name = "booking"
    ports: Mapping[str, str] = {"actor": "person", "location": "site", "asset": "resource"}

    def options(self, rng: random.Random) -> dict[str, Any]:
        """Draw the rules.

        `buffer`: free hours needed around a booking. `opens`, `closes`: opening hours. `tentative`: whether that status
        exists ("none"), and whether such bookings block ("blocks") or not ("open"). `large_group`: headcount above which
        a new booking is tentative. `longest`: most hours of a booking, 0 for any. `day_hours`: most hours that a person
        may hold on a day, 0 for any. `closures`: whether places close on days. `peak`: hour from which hours are charged
        double, 0 for none.
        """
        return {
            "buffer": rng.choice([0, 1, 1]),
            "opens": rng.choice([7, 8]),
            "closes": rng.choice([18, 19, 20]),
            "tentative": rng.choice(["none", "blocks", "open"]),
            "large_group": rng.choice([4, 6, 8]),
            "longest": rng.choice([0, 5, 6]),
            "day_hours": rng.choice([0, 8]),
            "closures": rng.random() < 0.5,
            "peak": rng.choice([0, 14, 16]),
        }

    def tables(self, rules: Mapping[str, Any]) -> dict[str, tuple[Col, ...]]:
        """Sites, persons, places, bookings and, by rule, closures."""
        tables: dict[str, tuple[Col, ...]] = {
            "site": SITE,
            "person": PERSON_AT_SITE,
            "resource": (
                ID,
                NAME,
                Col(name="site", kind="fk", label="{site}", ref="site"),
                Col(name="capacity", kind="num", label="capacity", unit="people"),
                Col(name="rate", kind="num", label="hourly rate", unit="credits"),
                Col(name="grade", kind="num", label="quality grade", unit="points", optional=True),
                Col(name="keeper", kind="fk", label="keeper", ref="person", optional=True),
            ),
            "booking": (
                ID,
                Col(name="resource", kind="fk", label="{resource}", ref="resource"),
                Col(name="person", kind="fk", label="holder", ref="person"),
                Col(name="day", kind="date", label="day"),
                Col(name="start", kind="num", label="start hour", unit="oclock"),
                Col(name="end", kind="num", label="end hour", unit="oclock"),
                Col(name="headcount", kind="num", label="headcount", unit="people"),
                Col(name="status", kind="enum", label="status", values=statuses(rules)),
            ),
        }
        if rules["closures"]:
            tables["closure"] = (
                ID,
                Col(name="resource", kind="fk", label="closed {resource}", ref="resource"),
                Col(name="day", kind="date", label="day"),
                Col(name="reason", kind="enum", label="reason", values=REASONS, optional=True),
            )
        return tables

    def generate(self, world: Composed, rng: random.Random) -> None:
        """Fill places, closures, and bookings of the next days that keep every rule."""
        fill_sites(world, rng)
        fill_people(world, rng)

        def place(_: int) -> dict[str, Any]:
            return {
                "site": rng.choice(world.rows["site"]),
                "capacity": rng.choice([2, 4, 6, 8, 10, 12, 16, 20, 30]),
                "rate": max(5, int(rng.lognormvariate(3.4, 0.5))),
                "grade": rng.randint(1, 9),
                "keeper": rng.choice(world.rows["person"]),
            }

        world.fill(rng, "resource", rng.randint(18, 28), place)
        Calendar(world, rng).fill()

    def derived(self, world: Composed) -> list[Derived]:
        """Booked hours, freedom and charge of a place; hours held by a person."""
        texts = DerivedTexts(world)
        return [texts.booked(), texts.free(), texts.charge(), texts.held()]

    def actions(self, world: Composed) -> list[Action]:
        """Book, cancel, hand over."""
        texts = ActionTexts(world)
        return [texts.book(), texts.cancel(), texts.hand_over()]

    def norms(self, world: Composed) -> list[Norm]:
        """Bookings collide with no larger one, are not too large, and fall on no closed day."""
        return [NormTexts(world).norm()]

    def tools(self, world: Composed) -> list[ToolDraft]:
        """Write tools of the actions."""
        texts = ToolTexts(world)
        return [texts.book_draft(), texts.cancel_draft(), texts.hand_over_draft()]

    def policy(self, world: Composed) -> list[str]:
        """Opening hours, and which bookings count."""
        texts, rules = DerivedTexts(world), world.rules
        return [
            f"Opening hours are from {rules['opens']} to {rules['closes']} o'clock, every day; hours are on the 24-hour "
            "clock.",
            texts.counting_policy(),
        ]


MECHANISM = Booking()
