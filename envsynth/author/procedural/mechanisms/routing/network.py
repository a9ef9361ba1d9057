"""Rows of a freight world: lanes on a map, barred days, shipments, and bookings on chains that keep every rule."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Any

from envsynth.author.procedural.mechanism import Composed, Row
from envsynth.author.procedural.mechanisms.entities import fill_people, fill_sites, skewed

HAULAGE = ("Road", "Rail", "Barge")
REASONS = ("strike", "flood", "roadworks")
DAYS = 7
"""Days on which lanes leave, from today."""
MOST_BOOKINGS = 80


@dataclass
class Lane:
    """One lane, by numbers of places."""

    start: int
    end: int
    cutoff: int
    transit: int
    cost: int
    capacity: int
    accepts: str
    taken: dict[int, int] = field(default_factory=dict[int, int])
    """Booked kilograms by day."""


@dataclass
class Freight:
    """One shipment, by numbers of places, with its bookings (lane, day, status)."""

    sender: Row
    start: int
    end: int
    weight: int
    goods: str
    ready: int
    state: str
    deadline: int = 0
    booked: list[tuple[int, int, str]] = field(default_factory=list[tuple[int, int, str]])


class Network:
    """Fills the rows of one world.

    Args:
        world: The composed world; places and persons are filled unless a joined mechanism has done so.
        rng: Source of all choices.
    """

    def __init__(self, world: Composed, rng: random.Random) -> None:
        self.world, self.rng, self.rules = world, rng, world.rules
        self.lanes: list[Lane] = []
        self.barred: list[tuple[int, int]] = []
        self.cargo: list[Freight] = []

    def fill(self) -> None:
        """Fill everything."""
        fill_sites(self.world, self.rng, 6, 8)
        fill_people(self.world, self.rng)
        self.draw_lanes()
        self.draw_barred()
        self.draw_cargo()
        self.write()

    def day(self, number: int) -> str:
        """Date of the n-th day from today."""
        return (date.fromisoformat(self.world.now[:10]) + timedelta(days=number)).isoformat()

    # ------------------------------------------------------------------------------------------------------ drawing

    def draw_lanes(self) -> None:
        """Draw lanes: long ones cost more than in proportion, so that a change of lanes can pay."""
        rng, count = self.rng, len(self.world.rows["site"])
        places = [(rng.randint(0, 8), rng.randint(0, 8)) for _ in range(count)]
        far = [[abs(x - u) + abs(y - v) for u, v in places] for x, y in places]
        pairs = [(a, b) for a in range(count) for b in range(count) if a != b]
        near = [1 / (2 + far[a][b]) for a, b in pairs]
        # Every place has a way in and a way out: a ring in random order comes first, then random pairs.
        ring = rng.sample(range(count), count)
        chosen = [(ring[i - 1], ring[i]) for i in range(count)]
        chosen += rng.choices(pairs, near, k=rng.randint(34, 44) - count)
        for start, end in chosen:
            away = far[start][end]
            self.lanes.append(
                Lane(
                    start=start,
                    end=end,
                    cutoff=rng.randint(5, 21),
                    transit=3 + 2 * away + rng.randint(0, 6),
                    cost=5 + 2 * away + away * away + rng.randint(0, 12),
                    capacity=rng.choice([60, 80, 80, 90, 100, 120]),
                    accepts="plain" if rng.random() < 0.4 else "all",
                )
            )

    def draw_barred(self) -> None:
        """Draw barred days, mostly early ones: (lane or place, day)."""
        kind = self.rules["freight_embargo"]
        if kind == "none":
            return
        targets = range(len(self.lanes if kind == "lane" else self.world.rows["site"]))
        pairs = [(target, day) for target in targets for day in range(DAYS)]
        weights = [(DAYS - day) * self.rng.random() for _, day in pairs]
        ranked = sorted(range(len(pairs)), key=lambda index: -weights[index])
        self.barred = [pairs[index] for index in ranked[: self.rng.randint(*((40, 55) if kind == "lane" else (9, 13)))]]
        self.rng.shuffle(self.barred)

    def draw_cargo(self) -> None:
        """Draw shipments and book those that shall be booked, one after the other, within the room that is left."""
        rng, people = self.rng, self.world.rows["person"]
        popular = rng.sample(range(len(self.world.rows["site"])), len(self.world.rows["site"]))
        states = ["waiting"] * 11 + ["booked"] * 9 + ["underway"] * 1 + ["held"] * 3 * self.rules["freight_holds"]
        for _ in range(rng.randint(36, 46)):
            start = skewed(rng, popular, 0.4)
            self.cargo.append(
                Freight(
                    sender=skewed(rng, people, 0.18),
                    start=start,
                    end=rng.choice([place for place in popular if place != start]),
                    weight=min(75, max(3, int(rng.lognormvariate(3.1, 0.7)))),
                    goods="hazardous" if rng.random() < 0.25 else "plain",
                    ready=rng.randint(0, 50),
                    state=rng.choice(states),
                )
            )
        for freight in self.cargo:
            if freight.state in ("booked", "underway"):
                self.book(freight)
        for freight in self.cargo:
            if freight.state in ("waiting", "held"):
                for _ in range(3):
                    if not self.chains(freight):  # most goods can go where they shall go
                        freight.end = rng.choice([place for place in popular if place != freight.start])
                self.leave_open(freight)

    def book(self, freight: Freight) -> None:
        """Book one of the earlier chains, or all of it but the last lane; a shipment without a chain waits."""
        chains = sorted(self.chains(freight), key=lambda chain: chain[-1][2])
        if freight.state == "underway":
            chains = [chain for chain in chains if len(chain) > 1]
        if not chains or sum(len(other.booked) for other in self.cargo) > MOST_BOOKINGS:
            freight.state = "waiting"
            return
        chain: list[tuple[int, int, int]] = skewed(self.rng, chains, 0.5)
        freight.deadline = chain[-1][2] + self.rng.choice([0, 3, 8, 20, 40])
        for lane, day, _ in chain[: len(chain) - (freight.state == "underway")]:
            used = self.lanes[lane]
            used.taken[day] = used.taken.get(day, 0) + freight.weight
            freight.booked.append((lane, day, "live"))

    def leave_open(self, freight: Freight) -> None:
        """Give a deadline near the earliest arrival, now and then one too early; by rule, recalled bookings."""
        chains = self.chains(freight)
        first = min([chain[-1][2] for chain in chains], default=freight.ready + 48)
        freight.deadline = first + self.rng.choice([-6, -1, 0, 4, 16, 24, 36, 48, 60, 72])
        if self.rules["freight_trace"] and chains and self.rng.random() < 0.35:
            freight.booked = [(lane, day, "recalled") for lane, day, _ in self.rng.choice(chains)]

    def chains(self, freight: Freight) -> list[list[tuple[int, int, int]]]:
        """All chains of (lane, day, arrival) that keep the rules, whatever the deadline."""
        found: list[list[tuple[int, int, int]]] = []

        def extend(chain: list[tuple[int, int, int]], place: int, ready: int) -> None:
            if place == freight.end:
                found.append(chain)
                return
            if len(chain) == self.rules["freight_most"]:
                return
            for number, lane in enumerate(self.lanes):
                day = self.first_day(number, freight, ready) if lane.start == place else None
                if day is not None:
                    arrival = 24 * day + lane.cutoff + lane.transit
                    extend([*chain, (number, day, arrival)], lane.end, arrival + self.rules["freight_handling"])

        extend([], freight.start, freight.ready)
        return found

    def first_day(self, number: int, freight: Freight, ready: int) -> int | None:
        """Number of the day on which a shipment leaves by a lane, if it can."""
        lane, barred = self.lanes[number], self.rules["freight_embargo"]
        if self.rules["freight_hazmat"] and freight.goods == "hazardous" and lane.accepts == "plain":
            return None
        for day in range(DAYS):
            if 24 * day + lane.cutoff >= ready:
                shut = ((number if barred == "lane" else lane.start), day) in self.barred
                if not shut and lane.taken.get(day, 0) + freight.weight <= lane.capacity:
                    return day
                if not self.rules["freight_rolls"]:
                    return None
        return None

    # ------------------------------------------------------------------------------------------------------ writing

    def write(self) -> None:
        """Write what was drawn as rows."""
        world, rng, sites = self.world, self.rng, self.world.rows["site"]

        def lane(index: int) -> dict[str, Any]:
            one = self.lanes[index]
            return {
                "origin": sites[one.start],
                "destination": sites[one.end],
                "haulage": rng.choice(HAULAGE),
                **{name: getattr(one, name) for name in ("cutoff", "transit", "cost", "capacity", "accepts")},
            }

        def shipment(index: int) -> dict[str, Any]:
            one = self.cargo[index]
            return {
                "origin": sites[one.start],
                "destination": sites[one.end],
                **{name: getattr(one, name) for name in ("sender", "weight", "goods", "ready", "deadline", "state")},
            }

        world.fill(rng, "lane", len(self.lanes), lane)
        world.fill(rng, "shipment", len(self.cargo), shipment)
        lanes, shipments = world.rows["lane"], world.rows["shipment"]
        booked = [
            (shipments[index], lanes[number], day, place, status)
            for index, one in enumerate(self.cargo)
            for place, (number, day, status) in enumerate(one.booked, start=1)
        ]

        def consignment(index: int) -> dict[str, Any]:
            cargo, used, day, place, status = booked[index]
            return {"shipment": cargo, "lane": used, "day": self.day(day), "position": place, "status": status}

        rng.shuffle(booked)
        world.fill(rng, "consignment", len(booked), consignment)
        if self.barred:
            kind = self.rules["freight_embargo"]

            def embargo(index: int) -> dict[str, Any]:
                target, day = self.barred[index]
                return {kind: world.rows[kind][target], "day": self.day(day), "reason": rng.choice(REASONS)}

            world.fill(rng, "embargo", len(self.barred), embargo)
