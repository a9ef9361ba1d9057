"""Rows of a service desk: queues, agents, closed days, and incidents whose handling keeps every rule."""

from __future__ import annotations

import random
from datetime import date, timedelta
from typing import Any

from envsynth.author.procedural.mechanism import Composed, Row
from envsynth.author.procedural.mechanisms.entities import fill_people, fill_sites, skewed
from envsynth.author.procedural.mechanisms.tickets.bindings import (
    EXTRA,
    FREE_DAYS,
    GRADES,
    MATRICES,
    REACHES,
    SEVERITIES,
    SKILLS,
    STEP,
    TIERS,
    stages,
)

SHARES = {"new": 4, "triaged": 6, "assigned": 9, "waiting": 4, "resolved": 1, "closed": 1}
"""How often each state occurs."""


class Backlog:
    """Fills the desk: nobody handles more than the limit, lacks the skill, or works in another queue."""

    def __init__(self, world: Composed, rng: random.Random) -> None:
        self.world, self.rng, self.rules = world, rng, world.rules
        self.today = date.fromisoformat(world.now[:10])
        self.shut: list[date] = []
        self.loads: dict[int | str, int] = {}
        self.history: list[tuple[int, Row, date, str]] = []
        """Index of the incident, its agent, first day and standing."""

    def fill(self) -> None:
        """Append all rows to the world."""
        world, rng = self.world, self.rng
        if self.rules["desk_sites"]:
            fill_sites(world, rng)
        fill_people(world, rng)

        capacities = rng.sample(range(20, 100), 10)

        def queue(index: int) -> dict[str, Any]:
            cells: dict[str, Any] = {"level": TIERS[(0, 1, 0, 1, 2)[index % 5]], "capacity": capacities[index]}
            return {**cells, "site": rng.choice(world.rows["site"])} if self.rules["desk_sites"] else cells

        world.fill(rng, "queue", 10, queue)
        queues = world.rows["queue"]
        # Where the largest of a level is wanted, two are right now and then.
        tied = rng.choice(TIERS)
        first, second, *_ = sorted(
            (row for row in queues if row["level"] == tied), key=lambda row: -int(row["capacity"])
        )
        second["capacity"] = first["capacity"]
        desks: list[Row] = []

        def assignee(index: int) -> dict[str, Any]:
            desks.append(queues[index % len(queues)] if index < 2 * len(queues) else rng.choice(queues))
            return {"queue": desks[-1], "limit": rng.randint(40, 160) * 5, "skill": rng.choice([*GRADES, GRADES[1]])}

        world.fill(rng, "assignee", rng.randint(28, 36), assignee)
        if self.rules["desk_holidays"]:
            near = [self.today + timedelta(days=ahead) for ahead in (*range(-14, 0), *range(1, 8))]
            self.shut = sorted(rng.sample(near, rng.randint(5, 7)))
            world.fill(rng, "holiday", len(self.shut), self.holiday)
        self.agents = list(zip(world.rows["assignee"], desks, strict=True))
        world.fill(rng, "incident", rng.randint(90, 120), self.incident)

        def dispatch(index: int) -> dict[str, Any]:
            number, agent, since, standing = self.history[index]
            return {
                "incident": world.rows["incident"][number],
                "assignee": agent,
                "since": since.isoformat(),
                "standing": standing,
            }

        rng.shuffle(self.history)
        world.fill(rng, "dispatch", len(self.history), dispatch)

    def holiday(self, index: int) -> dict[str, Any]:
        """One closed day."""
        return {"day": self.shut[index].isoformat()}

    def incident(self, index: int) -> dict[str, Any]:
        """Draw one incident, and note who handles it; nobody able to means that it is only triaged."""
        rng, rules, queues = self.rng, self.rules, self.world.rows["queue"]
        # Early and late days and hours are rare, so that the first and the last are often just one.
        ago = int(rng.triangular(0, 19, 3))
        opened = self.today - timedelta(days=ago)
        hour = int(rng.triangular(6, 21, 11)) if ago else rng.randint(6, rules["desk_hour"] - 1)
        severity = rng.choices(SEVERITIES, [4, 4, 3])[0]
        reach = rng.choices(REACHES, [4, 3, 2])[0]
        known = stages(rules)
        progress = rng.choices(known, [SHARES[stage] for stage in known])[0]
        queue = skewed(rng, queues, 0.12)
        priority = MATRICES[rules["desk_matrix"]][severity][REACHES.index(reach)]
        if rules["desk_aging"] and ago >= rules["desk_aging"]:
            priority = max(1, priority - 1)
        effort = min(240, max(5, int(rng.lognormvariate(4.0, 0.7))))
        more = {"plain": 0, "severity": EXTRA[severity], "priority": STEP * (4 - priority)}
        weight = effort + more[rules["desk_weight"]]
        colleagues = [agent for agent, desk in self.agents if desk is queue]
        since = opened + timedelta(days=rng.randint(0, ago))
        if progress in ("assigned", "waiting"):
            able = [agent for agent in colleagues if self.able(agent, priority, weight)]
            if able:
                agent = skewed(rng, able, 0.5)
                self.loads[agent["id"]] = self.loads.get(agent["id"], 0) + weight
                self.history.append((index, agent, since, "current"))
            else:
                progress = "triaged"
        if progress in ("resolved", "closed") or (progress == "triaged" and rng.random() < 0.3):
            self.history.append((index, rng.choice(colleagues), since, "ended"))
        cells = {
            "severity": severity,
            "reach": reach,
            "effort": effort,
            "opened": opened.isoformat(),
            "hour": hour,
            "progress": progress,
        }
        waited = rng.randint(0, self.worked(opened, hour)) if rng.random() < 0.6 or progress == "waiting" else 0
        return {"reporter": skewed(rng, self.world.rows["person"], 0.08), "queue": queue, "waited": waited, **cells}

    def able(self, agent: Row, priority: int, weight: int) -> bool:
        """Whether an agent has skill and time for one more incident."""
        if self.rules["desk_skills"] and GRADES.index(str(agent["skill"])) + 1 < SKILLS.get(priority, 1):
            return False
        return self.loads.get(agent["id"], 0) + weight <= int(agent["limit"])

    def worked(self, opened: date, hour: int) -> int:
        """Working hours since then, which bound what an incident can have waited."""
        hours = 0
        for ago in range((self.today - opened).days + 1):
            day = self.today - timedelta(days=ago)
            if day.weekday() not in FREE_DAYS[self.rules["desk_week"]] and day not in self.shut:
                start = hour if day == opened else 0
                end = self.rules["desk_hour"] if day == self.today else 24
                hours += max(0, min(end, self.rules["desk_closes"]) - max(start, self.rules["desk_opens"]))
        return hours
