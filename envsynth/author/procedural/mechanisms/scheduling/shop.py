"""Rows of a scheduling world: projects, jobs with what comes before them, closed days, and entries that keep every rule."""

from __future__ import annotations

import random
from datetime import date, timedelta
from typing import Any

from envsynth.author.procedural.mechanism import Composed, Row
from envsynth.author.procedural.mechanisms.entities import skewed
from envsynth.author.procedural.mechanisms.scheduling.bindings import KINDS, REASONS

Span = tuple[date, date]


class Shop:
    """Fills machines, closed days and projects, then runs each project along its jobs until today and a little on."""

    def __init__(self, world: Composed, rng: random.Random) -> None:
        self.world, self.rng, self.rules = world, rng, world.rules
        self.today = date.fromisoformat(world.now[:10])
        self.shut: dict[tuple[int | str, date], None] = {}
        self.held: dict[int | str, list[Span]] = {}
        self.slots: list[dict[str, Any]] = []
        self.links: list[dict[str, Any]] = []

    def day(self, ahead: int) -> date:
        """The day so many days after today."""
        return self.today + timedelta(days=ahead)

    def fill(self) -> None:
        """Append all rows."""
        world, rng = self.world, self.rng

        def machine(index: int) -> dict[str, Any]:
            return {
                "site": rng.choice(world.rows["site"]),
                "kind": KINDS[index] if index < len(KINDS) else skewed(rng, list(KINDS), 0.9),
                "rate": max(20, int(rng.lognormvariate(5, 0.6))),
                "age": rng.randint(40, 900),
            }

        world.fill(rng, "machine", rng.randint(14, 20), machine)
        if self.rules["closed_by"] != "none":
            self.closures()
        self.projects()
        for entity, rows in (("precedence", self.links), ("sched_slot", self.slots)):
            rng.shuffle(rows)
            self.append(entity, rows)

    def append(self, entity: str, rows: list[dict[str, Any]]) -> None:
        """Append rows that are known already."""

        def row(index: int) -> dict[str, Any]:
            return rows[index]

        self.world.fill(self.rng, entity, len(rows), row)

    def closures(self) -> None:
        """Append different closed days of machines or places, most of them still to come."""
        rng, owner = self.rng, self.rules["closed_by"]
        owners = self.world.rows[owner]
        pairs = {
            (row["id"], ahead): row
            for row in owners
            for ahead in rng.sample(range(-24, 36), 4 if owner == "machine" else 7)
        }
        # Many are near, where most jobs are about to start.
        for row in owners:
            pairs.update({(row["id"], ahead): row for ahead in rng.sample(range(12), 2)})
        pairs = {key: row for key, row in pairs.items() if key[1] or rng.random() < 0.3}
        chosen = rng.sample(list(pairs), min(len(pairs), 90))

        def closure(index: int) -> dict[str, Any]:
            key = chosen[index]
            return {owner: pairs[key], "day": self.day(key[1]).isoformat(), "reason": rng.choice(REASONS)}

        self.world.fill(rng, "sched_closure", len(chosen), closure)
        for machine in self.world.rows["machine"]:
            place = machine
            if owner == "site":
                column, key = self.world.fk("machine", "site")
                place = next(row for row in owners if row[key] == machine[column])
            for owner_id, ahead in chosen:
                if owner_id == place["id"]:
                    self.shut[machine["id"], self.day(ahead)] = None

    # projects ---------------------------------------------------------------------------------------------------

    def projects(self) -> None:
        """Append projects of skewed sizes, then their jobs."""
        world, rng = self.world, self.rng
        count = rng.randint(14, 18)
        begins = [self.day(rng.randint(-30, 6)) for _ in range(count)]

        def scheme(index: int) -> dict[str, Any]:
            return {
                "lead": skewed(rng, world.rows["person"], 0.12),
                "kickoff": begins[index].isoformat(),
                "budget": int(rng.lognormvariate(8, 0.7)),
            }

        world.fill(rng, "scheme", count, scheme)
        sizes = [max(2, round(11 / (index + 1) ** 0.55) + rng.randint(-1, 1)) for index in range(count)]
        places = [index for index in range(count) for _ in range(sizes[index])]
        longest = 4 if self.rules["unbroken_jobs"] else 7
        kinds = [rng.choice(KINDS) for _ in places]
        lengths = [rng.randint(2, longest) for _ in places]

        # States come from running the projects, which needs no rows of jobs; their rows come after it.
        plans: list[tuple[str, dict[str, Any] | None]] = []
        links: list[tuple[int, int, int]] = []
        for index in range(count):
            own = [number for number, place in enumerate(places) if place == index]
            links += self.run(own, begins[index], kinds, lengths, plans)

        def job(number: int) -> dict[str, Any]:
            return {
                "scheme": world.rows["scheme"][places[number]],
                "kind": kinds[number],
                "duration": lengths[number],
                "cost": lengths[number] * max(15, int(rng.lognormvariate(4, 0.6))) + rng.randint(0, 40),
                "state": plans[number][0],
            }

        world.fill(rng, "job", len(places), job)
        jobs = world.rows["job"]
        self.links = [{"before": jobs[one], "after": jobs[two], "lag": lag} for one, two, lag in links]
        self.slots = [{**slot, "job": jobs[number]} for number, (_, slot) in enumerate(plans) if slot]

    def run(
        self,
        own: list[int],
        begin: date,
        kinds: list[str],
        lengths: list[int],
        plans: list[tuple[str, dict[str, Any] | None]],
    ) -> list[tuple[int, int, int]]:
        """Run one project: append state and entry of each job to `plans`.

        Returns:
            Links of its jobs: earlier job, later job, lag.
        """
        rng = self.rng
        links: list[tuple[int, int, int]] = []
        ends: dict[int, date | None] = {}
        for place, number in enumerate(own):
            earlier = rng.sample(own[max(0, place - 4) : place], min(place, rng.choice([0, 0, 1, 1, 1, 2])))
            lags = [rng.choice([0, 0, 1, 2, 3]) if self.rules["job_lags"] else 0 for _ in earlier]
            links += [(one, number, lag) for one, lag in zip(earlier, lags, strict=True)]
            ready: date | None = begin if self.rules["kickoffs"] else begin + timedelta(days=-3)
            for one, lag in zip(earlier, lags, strict=True):
                if plans[one][0] == "cancelled":
                    continue
                end = ends[one]
                ready = None if end is None or ready is None else max(ready, end + timedelta(days=1 + lag))
            state, slot = self.plan(kinds[number], lengths[number], ready)
            under_way = any(plans[one][0] not in ("done", "cancelled") for one in earlier)
            if under_way and state not in ("planned", "assigned", "cancelled"):
                state, slot = "planned", None
            if state != "cancelled" and slot is not None:
                self.take(slot, state)
            ends[number] = self.end(slot, state) if slot else None
            plans.append((state, slot))
        return links

    def plan(self, kind: str, days: int, ready: date | None) -> tuple[str, dict[str, Any] | None]:
        """Draw state and entry of a job that can begin on `ready`, None while that is open."""
        rng = self.rng
        cancelled = rng.random() < 0.12
        if ready is None:
            return ("cancelled" if cancelled else "planned"), None
        machines = self.world.rows["machine"]
        if self.rules["machine_kinds"]:
            machines = [row for row in machines if row["kind"] == kind]
        machine = skewed(rng, machines, 0.07)
        span = self.fit(machine, days, ready + timedelta(days=rng.choice([0, 0, 0, 1, 4])))
        if span[0] <= self.today and rng.random() < 0.4:  # it could have begun, or can today, but is put off
            span = self.fit(machine, days, self.day(rng.randint(1, 6)))
        slot = {"machine": machine, "first": span[0].isoformat(), "last": span[1].isoformat()}
        if cancelled:
            return "cancelled", slot if rng.random() < 0.9 else None
        if span[0] > self.today:
            return ("assigned", slot) if rng.random() < 0.55 else ("planned", None)
        if span[1] >= self.today:
            return "running", slot
        late = (self.today - span[1]).days < 13 and self.free(machine, (span[0], self.today))
        if late and rng.random() < 0.7:
            inspected = self.rules["inspect_from"] and days >= self.rules["inspect_from"] and rng.random() < 0.4
            return ("inspection" if inspected else "running"), slot
        return "done", slot

    def end(self, slot: dict[str, Any], state: str) -> date:
        """Expected end of a job with an entry."""
        last = date.fromisoformat(slot["last"])
        return last if state == "done" else max(last, self.today)

    def take(self, slot: dict[str, Any], state: str) -> None:
        """Note that a job has a machine from its first day to its expected end."""
        span = date.fromisoformat(slot["first"]), self.end(slot, state)
        self.held.setdefault(slot["machine"]["id"], []).append(span)

    # machines ---------------------------------------------------------------------------------------------------

    def open(self, machine: Row, day: date) -> bool:
        """Whether a machine is open."""
        return (self.rules["work_weekends"] or day.weekday() < 5) and (machine["id"], day) not in self.shut

    def free(self, machine: Row, span: Span) -> bool:
        """Whether no job has a machine in a span, nor close to it."""
        gap = timedelta(days=self.rules["changeover"])
        held = self.held.get(machine["id"], [])
        return all(span[1] + gap < first or last + gap < span[0] for first, last in held)

    def fit(self, machine: Row, days: int, ready: date) -> Span:
        """Find the first span from `ready` on in which a job fits."""
        day = ready
        while True:
            if self.open(machine, day):
                last, left = day, days - 1
                while left:
                    last += timedelta(days=1)
                    left -= self.open(machine, last)
                whole = not self.rules["unbroken_jobs"] or (last - day).days == days - 1
                if whole and self.free(machine, (day, last)):
                    return day, last
            day += timedelta(days=1)
