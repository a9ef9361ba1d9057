"""Sensors, what they measured, and the alarms that came of it: episodes out of range, peaks, and who has to act.

Dynamics: a measurement is calibrated before it is judged, some do not count (maintenance, doubtful quality), and nearby
ones out of range are one episode (a window, and by rule a return well inside the limits). Alarms go from raised to
acknowledged to cleared. Tools enforce states, limits and the calendar; which measurements count, what an episode is and
which alarms belong together are rules that an actor has to follow by itself.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

from envsynth.author.procedural.mechanism import Action, Col, Composed, Derived, ToolDraft
from envsynth.author.procedural.mechanisms.entities import ID, NAME, PERSON_AT_SITE, SITE, fill_people, fill_sites
from envsynth.author.procedural.mechanisms.telemetry.actions import ActionTexts
from envsynth.author.procedural.mechanisms.telemetry.bindings import MEDIA, QUALITIES, states
from envsynth.author.procedural.mechanisms.telemetry.derived import DerivedTexts
from envsynth.author.procedural.mechanisms.telemetry.stream import Stream
from envsynth.author.procedural.mechanisms.telemetry.tools import ToolTexts


class Telemetry:
    """Sensors at sites, kept by persons, with measurements and alarms."""

    name = "telemetry"
    ports: Mapping[str, str] = {"actor": "person", "location": "site"}

    def options(self, rng: random.Random) -> dict[str, Any]:
        """Draw the rules.

        `alarm_window`: hours within which measurements out of range are one episode. `alarm_chained`: whether these are
        counted from the measurement before or from the first of the episode. `alarm_margin`: degrees that a value must
        have come back inside the limits before another episode can start, 0 for none. `alarm_low`: whether there is a
        low limit. `alarm_since`: whether a calibration holds from a day on. `alarm_quality`: whether measurements can be
        suspect. `alarm_maintenance`: whether sensors are maintained for days, hours, or never ("none").
        `alarm_site_cap`: most sensors of a site in maintenance on a day, 0 for any. `alarm_assigned`: whether alarms
        have an assignee instead of the keeper of their sensor. `alarm_escalation`: whether alarms can be escalated.
        `alarm_group`: whether alarms of an hour or so are acknowledged together. `alarm_step`: most degrees that a limit
        is moved at once, 0 for any.
        """
        return {
            "alarm_window": rng.choice([2, 3, 4]),
            "alarm_chained": rng.random() < 0.5,
            "alarm_margin": rng.choice([0, 2, 3]),
            "alarm_low": rng.random() < 0.5,
            "alarm_since": rng.random() < 0.5,
            "alarm_quality": rng.random() < 0.5,
            "alarm_maintenance": rng.choice(["none", "day", "hours"]),
            "alarm_site_cap": rng.choice([0, 1, 2]),
            "alarm_assigned": rng.random() < 0.5,
            "alarm_escalation": rng.random() < 0.5,
            "alarm_group": rng.random() < 0.5,
            "alarm_step": rng.choice([0, 20, 30]),
        }

    def tables(self, rules: Mapping[str, Any]) -> dict[str, tuple[Col, ...]]:
        """Sites, persons, sensors, measurements, alarms and, by rule, maintenance."""
        low = Col(name="low", kind="num", label="low limit", unit="degrees")
        since = Col(name="since", kind="date", label="calibration day")
        quality = Col(name="quality", kind="enum", label="quality", values=QUALITIES)
        assignee = Col(name="assignee", kind="fk", label="assignee", ref="person")
        assigned = bool(rules["alarm_assigned"])
        tables: dict[str, tuple[Col, ...]] = {
            "site": SITE,
            "person": PERSON_AT_SITE,
            "sensor": (
                ID,
                NAME,
                Col(name="site", kind="fk", label="{site}", ref="site"),
                Col(name="keeper", kind="fk", label="keeper", ref="person", optional=assigned),
                Col(name="medium", kind="enum", label="medium", values=MEDIA, optional=True, liftable=True),
                Col(name="high", kind="num", label="high limit", unit="degrees"),
                *((low,) if rules["alarm_low"] else ()),
                Col(name="offset", kind="num", label="calibration offset", unit="degrees"),
                *((since,) if rules["alarm_since"] else ()),
            ),
            "reading": (
                ID,
                Col(name="sensor", kind="fk", label="{sensor}", ref="sensor"),
                Col(name="day", kind="date", label="day"),
                Col(name="hour", kind="num", label="hour", unit="oclock"),
                Col(name="value", kind="num", label="value", unit="degrees"),
                *((quality,) if rules["alarm_quality"] else ()),
            ),
            "alarm": (
                ID,
                Col(name="sensor", kind="fk", label="{sensor}", ref="sensor"),
                *((assignee,) if assigned else ()),
                Col(name="day", kind="date", label="day"),
                Col(name="hour", kind="num", label="hour", unit="oclock"),
                Col(name="level", kind="num", label="level", unit="points"),
                Col(name="state", kind="enum", label="state", values=states(rules)),
            ),
        }
        if rules["alarm_maintenance"] != "none":
            hours = (
                Col(name="start", kind="num", label="start hour", unit="oclock"),
                Col(name="end", kind="num", label="end hour", unit="oclock"),
            )
            tables["maintenance"] = (
                ID,
                Col(name="sensor", kind="fk", label="{sensor}", ref="sensor"),
                Col(name="day", kind="date", label="day"),
                *(hours if rules["alarm_maintenance"] == "hours" else ()),
            )
        return tables

    def generate(self, world: Composed, rng: random.Random) -> None:
        """Fill sensors, maintenance, bursts of measurements around the limits, and alarms at some of them."""
        fill_sites(world, rng)
        fill_people(world, rng)
        Stream(world, rng).fill()

    def derived(self, world: Composed) -> list[Derived]:
        """Episodes, range and peak of a sensor; alarm load of a person."""
        texts = DerivedTexts(world)
        return [texts.episodes(), texts.out_of_range(), texts.peak(), texts.load()]

    def actions(self, world: Composed) -> list[Action]:
        """Acknowledge, clear, set a limit and, by rule, plan maintenance."""
        texts = ActionTexts(world)
        found = [texts.acknowledge(), texts.clear(), texts.set_limit()]
        return [*found, texts.maintain()] if texts.maintained else found

    def tools(self, world: Composed) -> list[ToolDraft]:
        """Write tools of the actions."""
        texts = ToolTexts(world)
        found = [texts.acknowledge_draft(), texts.clear_draft(), texts.limit_draft()]
        return [*found, texts.maintain_draft()] if texts.maintained else found

    def policy(self, world: Composed) -> list[str]:
        """Which measurements count, and how they are judged."""
        texts = DerivedTexts(world)
        return [texts.counting_policy(), texts.judging_policy()]


MECHANISM = Telemetry()
