"""Rows of a booking world: closures and bookings of the next days that keep every rule."""

from __future__ import annotations

import random
from datetime import date, timedelta
from typing import Any

from envsynth.author.procedural.mechanism import Composed, Row
from envsynth.author.procedural.mechanisms.booking.bindings import REASONS, statuses
from envsynth.author.procedural.mechanisms.entities import skewed


class Calendar:
    """Fills closures and bookings: bookings that count never collide, fall on a closure or exceed a cap."""

    def __init__(self, world: Composed, rng: random.Random) -> None:
        self.world, self.rng, self.rules = world, rng, world.rules
        today = date.fromisoformat(world.now[:10])
        self.days = [(today + timedelta(days=ahead)).isoformat() for ahead in range(1, 7)]
        self.closed: dict[tuple[int | str, str], None] = {}
        self.taken: dict[tuple[int | str, str], list[tuple[int, int]]] = {}
        self.load: dict[tuple[int | str, str], int] = {}

    def fill(self) -> None:
        """Append closures (by rule) and bookings to the world."""
        places = self.world.rows["resource"]
        if self.rules["closures"]:
            pairs = [(place, day) for place in places for day in self.days]
            chosen = self.rng.sample(pairs, len(places))
            self.closed = {(place["id"], day): None for place, day in chosen}

            def closure(i: int) -> dict[str, Any]:
                place, day = chosen[i]
                return {"resource": place, "day": day, "reason": self.rng.choice(REASONS)}

            self.world.fill(self.rng, "closure", len(chosen), closure)

        def booking(_: int) -> dict[str, Any]:
            return self.booking()

        self.world.fill(self.rng, "booking", self.rng.randint(90, 130), booking)

    def booking(self) -> dict[str, Any]:
        """Draw one booking that keeps every rule."""
        rng, rules = self.rng, self.rules
        while True:
            place = skewed(rng, self.world.rows["resource"], 0.09)
            person = skewed(rng, self.world.rows["person"], 0.06)
            day = rng.choice(self.days)
            start = rng.randint(rules["opens"], rules["closes"] - 2)
            end = min(rules["closes"], start + rng.randint(1, 4))
            status = rng.choices(statuses(rules), [7, 2, 2] if rules["tentative"] != "none" else [17, 3])[0]
            counts = status == "active" or (status == "tentative" and rules["tentative"] == "blocks")
            if not counts or self.fits(place, person, day, (start, end)):
                break
        if counts:
            self.taken.setdefault((place["id"], day), []).append((start, end))
            self.load[person["id"], day] = self.load.get((person["id"], day), 0) + end - start
        headcount = rng.randint(1, int(place["capacity"]))
        return {
            "resource": place,
            "person": person,
            "day": day,
            "start": start,
            "end": end,
            "headcount": headcount,
            "status": status,
        }

    def fits(self, place: Row, person: Row, day: str, span: tuple[int, int]) -> bool:
        """Whether a booking that counts may be added."""
        gap, cap = self.rules["buffer"], self.rules["day_hours"]
        if (place["id"], day) in self.closed:
            return False
        if cap and self.load.get((person["id"], day), 0) + span[1] - span[0] > cap:
            return False
        others = self.taken.get((place["id"], day), [])
        return all(span[1] + gap <= start or end + gap <= span[0] for start, end in others)
