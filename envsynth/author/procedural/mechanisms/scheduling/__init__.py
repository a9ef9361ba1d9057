"""Jobs of projects on machines: when a job can start at the earliest, and when its project will be complete.

Dynamics: a job waits for those that come before it, by their actual or expected ends; a machine holds one job at a time,
stands still on closed days and may need time to change over. The tools refuse a machine that is closed or taken; that a
job must not start before its ready day, and that it should not start later than needed, are rules that an actor has to
read, unless the tools are strict about the former.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

from envsynth.author.procedural.mechanism import Action, Col, Composed, Derived, ToolDraft
from envsynth.author.procedural.mechanisms.entities import (
    ID,
    NAME,
    PERSON_AT_SITE,
    SITE,
    fill_people,
    fill_sites,
)
from envsynth.author.procedural.mechanisms.scheduling.actions import ActionTexts
from envsynth.author.procedural.mechanisms.scheduling.bindings import KINDS, REASONS, states
from envsynth.author.procedural.mechanisms.scheduling.derived import DerivedTexts
from envsynth.author.procedural.mechanisms.scheduling.shop import Shop
from envsynth.author.procedural.mechanisms.scheduling.tools import ToolTexts


class Scheduling:
    """Jobs of projects that persons lead, on machines at places."""

    name = "scheduling"
    ports: Mapping[str, str] = {"actor": "person", "location": "site"}

    def options(self, rng: random.Random) -> dict[str, Any]:
        """Draw the rules.

        `work_weekends`: whether every day is a working day. `closed_by`: what closed days belong to ("machine", "site"),
        or that there are none. `machine_kinds`: whether a job needs a machine of its kind. `job_lags`: whether days must
        pass between two jobs. `kickoffs`: whether projects have a day before which nothing starts. `changeover`: full
        days that must lie between two jobs on a machine. `unbroken_jobs`: whether closed days may not interrupt a job.
        `inspect_from`: duration from which a finished job goes to inspection, 0 for never. `job_cancels`: whether jobs
        can be called off. `free_choice`: whether actors choose machines. `strict_plan`: whether the tools look at what
        comes before a job.
        """
        weekends, closed_by = rng.choice(
            [(False, "machine"), (False, "site"), (True, "machine"), (True, "site"), (False, "none")]
        )
        return {
            "work_weekends": weekends,
            "closed_by": closed_by,
            "machine_kinds": rng.random() < 0.5,
            "job_lags": rng.random() < 0.5,
            "kickoffs": rng.random() < 0.5,
            "changeover": rng.choice([0, 0, 1, 2]),
            "unbroken_jobs": rng.random() < 0.4,
            "inspect_from": rng.choice([0, 3, 4]),
            "job_cancels": rng.random() < 0.5,
            "free_choice": rng.random() < 0.5,
            "strict_plan": rng.random() < 0.4,
        }

    def tables(self, rules: Mapping[str, Any]) -> dict[str, tuple[Col, ...]]:
        """Sites, persons, machines, projects, jobs, what comes before what, entries and, by rule, closed days."""
        kind = (Col(name="kind", kind="enum", label="kind", values=KINDS),) if rules["machine_kinds"] else ()
        lag = (Col(name="lag", kind="num", label="lag", unit="days"),) if rules["job_lags"] else ()
        kickoff = (Col(name="kickoff", kind="date", label="kick-off day"),) if rules["kickoffs"] else ()
        tables: dict[str, tuple[Col, ...]] = {
            "site": SITE,
            "person": PERSON_AT_SITE,
            "machine": (
                ID,
                NAME,
                Col(name="site", kind="fk", label="{site}", ref="site", optional=rules["closed_by"] != "site"),
                *kind,
                Col(name="rate", kind="num", label="daily rate", unit="credits"),
                Col(name="age", kind="num", label="operating hours", unit="h", optional=True),
            ),
            "scheme": (
                ID,
                NAME,
                Col(name="lead", kind="fk", label="lead", ref="person"),
                *kickoff,
                Col(name="budget", kind="num", label="budget", unit="credits"),
            ),
            "job": (
                ID,
                NAME,
                Col(name="scheme", kind="fk", label="{scheme}", ref="scheme"),
                *kind,
                Col(name="duration", kind="num", label="duration", unit="days"),
                Col(name="cost", kind="num", label="cost estimate", unit="credits"),
                Col(name="state", kind="enum", label="state", values=states(rules)),
            ),
            "precedence": (
                ID,
                Col(name="before", kind="fk", label="earlier {job}", ref="job"),
                Col(name="after", kind="fk", label="later {job}", ref="job"),
                *lag,
            ),
            "sched_slot": (
                ID,
                Col(name="job", kind="fk", label="assigned {job}", ref="job"),
                Col(name="machine", kind="fk", label="used {machine}", ref="machine"),
                Col(name="first", kind="date", label="first day"),
                Col(name="last", kind="date", label="last day"),
            ),
        }
        if rules["closed_by"] != "none":
            owner = rules["closed_by"]
            tables["sched_closure"] = (
                ID,
                Col(name=owner, kind="fk", label=f"closed {{{owner}}}", ref=owner),
                Col(name="day", kind="date", label="day"),
                Col(name="reason", kind="enum", label="reason", values=REASONS, optional=True),
            )
        return tables

    def generate(self, world: Composed, rng: random.Random) -> None:
        """Fill machines, closed days, and projects with jobs and entries that keep every rule."""
        fill_sites(world, rng)
        fill_people(world, rng)
        Shop(world, rng).fill()

    def derived(self, world: Composed) -> list[Derived]:
        """Ready day of a job, completion of a project, earliest start and busy days of a machine."""
        texts = DerivedTexts(world)
        return [texts.ready_day(), texts.completion(), texts.earliest_start(), texts.busy_days()]

    def actions(self, world: Composed) -> list[Action]:
        """Schedule a job on a given machine or, by rule, on the best one; begin and finish it; by rule, call it off."""
        texts = ActionTexts(world)
        found = [texts.assign(), texts.start(), texts.finish()]
        if texts.choice:
            found.append(texts.place())
        if texts.cancels:
            found.append(texts.call_off())
        return found

    def tools(self, world: Composed) -> list[ToolDraft]:
        """Write tools of the actions."""
        texts = ToolTexts(world)
        found = [texts.assign_draft(), texts.start_draft(), texts.finish_draft()]
        return [*found, texts.cancel_draft()] if texts.cancels else found

    def policy(self, world: Composed) -> list[str]:
        """Which days are worked, and when a job is expected to end."""
        texts = DerivedTexts(world)
        return [texts.calendar_policy(), texts.end_policy()]


MECHANISM = Scheduling()
