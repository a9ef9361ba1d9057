"""What the texts of a booking world have in common: column names and rules bound to one world, and SQL pieces."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from envsynth.author.procedural.ir import Type
from envsynth.author.procedural.mechanism import Composed

DAY = Type("date")
HOUR = Type("num", "oclock")
PEOPLE = Type("num", "people")
REASONS = ("cleaning", "repair", "inspection")


def statuses(rules: Mapping[str, Any]) -> tuple[str, ...]:
    """Statuses that a booking can have under these rules."""
    return ("active", "cancelled") if rules["tentative"] == "none" else ("active", "tentative", "cancelled")


class Bindings:
    """The texts over one composed world: column names, nouns and rules are bound here."""

    def __init__(self, world: Composed) -> None:
        self.world, self.rules = world, world.rules
        self.place, self.place_key = world.fk("booking", "resource")
        self.person, self.person_key = world.fk("booking", "person")
        self.gap = int(world.rules["buffer"])
        self.peak = int(world.rules["peak"])
        self.counting = ("active", "tentative") if world.rules["tentative"] == "blocks" else ("active",)
        self.closure, self.closure_key = world.fk("closure", "resource") if world.rules["closures"] else ("", "")
        self.book_tool = f"book_{world.slug('resource')}"
        self.cancel_tool = f"cancel_{world.slug('booking')}"
        self.hand_over_tool = f"hand_over_{world.slug('booking')}"

    def counts_sql(self, alias: str) -> str:
        """Whether a booking counts."""
        listed = ", ".join(f"'{status}'" for status in self.counting)
        return f'{alias}."status" IN ({listed})'

    def free_sql(self, place: str, day: str, start: str, end: str) -> str:
        """Whether a place is free in a span."""
        closed = (
            f' AND NOT EXISTS (SELECT 1 FROM "closure" c WHERE c."{self.closure}" = {place}."{self.closure_key}"'
            f' AND c."day" = {day})'
        )
        return (
            f"({start} >= {self.rules['opens']} AND {start} < {end} AND {end} <= {self.rules['closes']}"
            f' AND NOT EXISTS (SELECT 1 FROM "booking" b WHERE b."{self.place}" = {place}."{self.place_key}"'
            f' AND b."day" = {day} AND {self.counts_sql("b")}'
            f' AND b."start" < {end} + {self.gap} AND b."end" + {self.gap} > {start})'
            f"{closed if self.closure else ''})"
        )

    def load_sql(self, person: str, day: str) -> str:
        """Hours of a day that a person holds in bookings that count."""
        return (
            f'(SELECT COALESCE(SUM(b."end" - b."start"), 0) FROM "booking" b'
            f' WHERE b."{self.person}" = {person}."{self.person_key}" AND b."day" = {day} AND {self.counts_sql("b")})'
        )
