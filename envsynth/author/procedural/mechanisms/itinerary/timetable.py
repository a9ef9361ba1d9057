"""Rows of an itinerary world: a map, a timetable of one repeating day, tickets, attractions."""

from __future__ import annotations

import random
from typing import Any

from envsynth.author.procedural.mechanism import Composed, Row
from envsynth.author.procedural.mechanisms.entities import fill_people, fill_sites, skewed

MODES = ("Rail", "Coach", "Ferry")
FIRST_HOUR, LAST_HOUR = 5, 23
MOST_TICKETS = 130


class Timetable:
    """Fills the rows of one world.

    Args:
        world: The composed world; places and persons are filled unless a joined mechanism has done so.
        rng: Source of all choices.
    """

    def __init__(self, world: Composed, rng: random.Random) -> None:
        self.world, self.rng = world, rng
        self.sold: list[tuple[Row, int]] = []

    def fill(self) -> None:
        """Fill everything."""
        fill_sites(self.world, self.rng, 6, 9)
        fill_people(self.world, self.rng)
        self.fill_legs()
        self.fill_tickets()
        if self.world.rules["visit"]:
            self.fill_attractions()

    def fill_legs(self) -> None:
        """Fill connections: long ones take longer and cost more than in proportion, so that changing can pay."""
        rng, sites = self.rng, self.world.rows["site"]
        places = [(rng.randint(0, 9), rng.randint(0, 9)) for _ in sites]

        def distance(pair: tuple[int, int]) -> int:
            (x, y), (u, v) = places[pair[0]], places[pair[1]]
            return abs(x - u) + abs(y - v)

        pairs = [(a, b) for a in range(len(sites)) for b in range(len(sites)) if a != b]
        near = [1 / (2 + distance(pair)) for pair in pairs]
        # Every place has a way in and a way out: a ring in random order comes first, then random pairs.
        ring = rng.sample(range(len(sites)), len(sites))
        chosen = [(ring[i - 1], ring[i]) for i in range(len(ring))]
        chosen += rng.choices(pairs, near, k=rng.randint(70, 92) - len(chosen))
        seats: list[int] = []

        def leg(index: int) -> dict[str, Any]:
            start, end = chosen[index]
            far = distance(chosen[index])
            hours = 1 + far // 7 + rng.randint(0, 1)
            departs = rng.randint(FIRST_HOUR, LAST_HOUR - hours)
            seats.append(rng.choice([3, 4, 5, 6, 9]))
            return {
                "origin": sites[start],
                "destination": sites[end],
                "departs": departs,
                "arrives": departs + hours,
                "fare": 5 + 2 * far + far * far // 2 + rng.randint(0, 18),
                "seats": seats[-1],
                "mode": rng.choice(MODES),
            }

        self.world.fill(rng, "leg", len(chosen), leg)
        self.sold = list(zip(self.world.rows["leg"], seats, strict=True))

    def fill_tickets(self) -> None:
        """Fill tickets: about every seventh connection is sold out, nobody has two valid ones for a connection."""
        rng, people = self.rng, self.world.rows["person"]
        refunds = self.world.rules["refunds"]
        wanted: list[tuple[Row, Row, str]] = []
        for row, seats in self.sold:
            full = rng.random() < 0.15
            count = seats if full else min(seats - 1, int(rng.expovariate(1.6)))
            holders: list[Row] = []
            while len(holders) < count:
                person = skewed(rng, people, 0.08)
                if person not in holders:
                    holders.append(person)
            wanted += [(row, person, "valid") for person in holders]
            if refunds and rng.random() < 0.15:
                wanted.append((row, rng.choice(people), "refunded"))
        rng.shuffle(wanted)
        del wanted[MOST_TICKETS:]

        def ticket(index: int) -> dict[str, Any]:
            row, person, validity = wanted[index]
            return {"leg": row, "person": person, "validity": validity}

        self.world.fill(rng, "ticket", len(wanted), ticket)

    def fill_attractions(self) -> None:
        """Fill attractions of all places."""
        rng = self.rng

        def attraction(_: int) -> dict[str, Any]:
            opens = rng.randint(7, 15)
            return {
                "site": rng.choice(self.world.rows["site"]),
                "price": rng.randint(2, 30) * 2,
                "rating": rng.randint(1, 9),
                "opens": opens,
                "closes": min(22, opens + rng.randint(3, 9)),
            }

        self.world.fill(rng, "attraction", rng.randint(20, 30), attraction)
