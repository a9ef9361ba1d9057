"""A service desk: how urgent an incident is, how many working hours it has left, and who can take it.

Dynamics: severity and reach give a priority by a published matrix, age may raise it, the priority sets a target in
working hours, closed days and by rule waiting time do not count, agents have a queue, a skill and a workload limit. The
tools refuse wrong states and overloads; which agent or queue is the right one is a rule that an actor has to follow.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

from envsynth.author.procedural.mechanism import Action, Col, Composed, Derived, Norm, ToolDraft
from envsynth.author.procedural.mechanisms.entities import ID, NAME, PERSON, PERSON_AT_SITE, SITE
from envsynth.author.procedural.mechanisms.tickets.actions import ActionTexts
from envsynth.author.procedural.mechanisms.tickets.backlog import Backlog
from envsynth.author.procedural.mechanisms.tickets.bindings import GRADES, OCCASIONS, REACHES, SEVERITIES, TIERS, stages
from envsynth.author.procedural.mechanisms.tickets.derived import DerivedTexts
from envsynth.author.procedural.mechanisms.tickets.norms import NormTexts
from envsynth.author.procedural.mechanisms.tickets.tools import ToolTexts


class Tickets:
    """Incidents that persons report, in queues whose agents handle them against a clock."""

    name = "tickets"
    ports: Mapping[str, str] = {"actor": "person", "location": "site"}

    def options(self, rng: random.Random) -> dict[str, Any]:
        """Draw the rules.

        `desk_opens`, `desk_closes`: working hours. `desk_hour`: the hour that it is now. `desk_week`: days that are
        worked ("daily", "no sunday", "weekdays"). `desk_holidays`: whether there are closed days. `desk_matrix`: which
        priority matrix. `desk_aging`: calendar days after which an incident is one step more urgent, 0 for never.
        `desk_targets`: hours by priority. `desk_waiting`: whether incidents can wait ("none"), and whether the clock
        "stops" or "runs" then. `desk_idle`: whether waiting incidents burden their agent. `desk_weight`: how long
        an incident takes beside its effort ("plain", "severity", "priority"). `desk_skills`: whether agents have skill levels.
        `desk_strict`: whether the tools check skills and levels. `desk_triage`: whether incidents start untriaged.
        `desk_closing`: whether resolved ones get closed. `desk_alarm`: hours left at which one may be escalated.
        `desk_sites`: whether queues are at places.
        """
        return {
            "desk_opens": rng.choice([8, 9]),
            "desk_closes": rng.choice([16, 17, 18]),
            "desk_hour": rng.choice([10, 11, 13, 15]),
            "desk_week": rng.choice(["daily", "no sunday", "weekdays"]),
            "desk_holidays": rng.random() < 0.5,
            "desk_matrix": rng.choice(["even", "severity", "reach"]),
            "desk_aging": rng.choice([0, 5, 7]),
            "desk_targets": rng.choice([[4, 12, 30, 60], [6, 18, 36, 72], [8, 16, 40, 80]]),
            "desk_waiting": rng.choice(["none", "stops", "runs"]),
            "desk_idle": rng.random() < 0.5,
            "desk_weight": rng.choice(["plain", "severity", "priority"]),
            "desk_skills": rng.random() < 0.6,
            "desk_strict": rng.random() < 0.5,
            "desk_triage": rng.random() < 0.5,
            "desk_closing": rng.random() < 0.5,
            "desk_alarm": rng.choice([24, 36, 48]),
            "desk_sites": rng.random() < 0.5,
        }

    def tables(self, rules: Mapping[str, Any]) -> dict[str, tuple[Col, ...]]:
        """Persons, queues, agents, incidents and who handles them; by rule, places and closed days."""
        site = Col(name="site", kind="fk", label="{site}", ref="site")
        skill = Col(name="skill", kind="enum", label="skill", values=GRADES)
        waited = Col(name="waited", kind="num", label="waiting time", unit="h")
        tables: dict[str, tuple[Col, ...]] = {"site": SITE} if rules["desk_sites"] else {}
        tables |= {
            "person": PERSON_AT_SITE if rules["desk_sites"] else PERSON,
            "queue": (
                ID,
                NAME,
                Col(name="level", kind="enum", label="support level", values=TIERS),
                Col(name="capacity", kind="num", label="capacity", unit="points"),
                *((site,) if rules["desk_sites"] else ()),
            ),
            "assignee": (
                ID,
                NAME,
                Col(name="queue", kind="fk", label="{queue}", ref="queue"),
                Col(name="limit", kind="num", label="workload limit", unit="min"),
                *((skill,) if rules["desk_skills"] else ()),
            ),
            "incident": (
                ID,
                Col(name="reporter", kind="fk", label="reporter", ref="person"),
                Col(name="queue", kind="fk", label="{queue}", ref="queue"),
                Col(name="severity", kind="enum", label="severity", values=SEVERITIES),
                Col(name="reach", kind="enum", label="reach", values=REACHES),
                Col(name="effort", kind="num", label="estimated effort", unit="min"),
                Col(name="opened", kind="date", label="opening day"),
                Col(name="hour", kind="num", label="opening hour", unit="oclock"),
                *((waited,) if rules["desk_waiting"] != "none" else ()),
                Col(name="progress", kind="enum", label="progress", values=stages(rules)),
            ),
            "dispatch": (
                ID,
                Col(name="incident", kind="fk", label="handled {incident}", ref="incident"),
                Col(name="assignee", kind="fk", label="{assignee}", ref="assignee"),
                Col(name="since", kind="date", label="first day"),
                Col(name="standing", kind="enum", label="standing", values=("current", "ended")),
            ),
        }
        if rules["desk_holidays"]:
            tables["holiday"] = (
                ID,
                Col(name="day", kind="date", label="day"),
                Col(name="occasion", kind="enum", label="occasion", values=OCCASIONS, optional=True),
            )
        return tables

    def generate(self, world: Composed, rng: random.Random) -> None:
        """Fill queues, agents, closed days, and incidents whose handling keeps every rule."""
        Backlog(world, rng).fill()

    def derived(self, world: Composed) -> list[Derived]:
        """Priority and remaining time of an incident; load of an agent, and whether it can take an incident."""
        texts = DerivedTexts(world)
        return [texts.priority(), texts.hours_left(), texts.load(), texts.suited()]

    def actions(self, world: Composed) -> list[Action]:
        """Assign, escalate, resolve, move; by rule, triage."""
        texts = ActionTexts(world)
        found = [texts.assign(), texts.escalate(), texts.resolve(), texts.transfer()]
        return [*found, texts.triage()] if world.rules["desk_triage"] else found

    def norms(self, world: Composed) -> list[Norm]:
        """Whatever is assigned is handled, by one agent."""
        return [NormTexts(world).norm()]

    def tools(self, world: Composed) -> list[ToolDraft]:
        """Write tools of the actions."""
        texts = ToolTexts(world)
        found = [texts.assign_draft(), texts.escalate_draft(), texts.resolve_draft(), texts.transfer_draft()]
        return [*found, texts.triage_draft()] if world.rules["desk_triage"] else found

    def policy(self, world: Composed) -> list[str]:
        """What the hour is, when work is done, and how long an incident takes."""
        texts = DerivedTexts(world)
        return [texts.clock_policy(), texts.workload_policy()]


MECHANISM = Tickets()
