"""Programmes with published conditions: who may enter, who waits, who is denied, and what it pays.

Dynamics: conditions on the latest standing are joined by and or by or, waivers override single conditions, bans override
waivers, places run out, and a person may be in so many programmes at once. Unless the rules are strict, the tool that
enrols does not judge who is eligible; it never judges who is next on a waiting list.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

from envsynth.author.procedural.mechanism import Action, Col, Composed, Derived, Norm, ToolDraft
from envsynth.author.procedural.mechanisms.eligibility.actions import ActionTexts
from envsynth.author.procedural.mechanisms.eligibility.bindings import conditions, states
from envsynth.author.procedural.mechanisms.eligibility.derived import DerivedTexts
from envsynth.author.procedural.mechanisms.eligibility.norms import NormTexts
from envsynth.author.procedural.mechanisms.eligibility.roster import Roster
from envsynth.author.procedural.mechanisms.eligibility.tools import ToolTexts
from envsynth.author.procedural.mechanisms.entities import ID, NAME, PERSON, fill_people


class Eligibility:
    """Programmes that persons enter when they meet conditions or have a waiver, and no ban."""

    name = "eligibility"
    ports: Mapping[str, str] = {"actor": "person"}

    def options(self, rng: random.Random) -> dict[str, Any]:
        """Draw the rules.

        `programme_combine`: whether both the score and the seniority condition are needed, any of the two, or what each
        programme says. `programme_residence`: whether some programmes are for local residents. `programme_waivers`:
        none, for one programme, or for every programme. `waiver_dated`: whether waivers end on a day.
        `programme_bans`: none, from one programme, or from every programme. `standing_history`: whether a person has
        several standings, of which the latest counts. `enrolment_waitlist`: whether one can wait for a place.
        `enrolment_denials`: none, open (a denied person may come back) or final. `enrolment_most`: most current
        enrolments of a person, 0 for any. `enrolment_strict`: whether the tools judge eligibility.
        `benefit_ceiling`: most credits that a person draws, 0 for any. `benefit_while_eligible`: whether only
        programmes pay for which the person is eligible still.
        """
        waivers, bans = rng.choice(
            [("one", "none"), ("one", "one"), ("one", "every"), ("every", "none"), ("every", "one"), ("none", "every")]
        )
        return {
            "programme_combine": rng.choice(["both", "any", "each"]),
            "programme_residence": rng.random() < 0.5,
            "programme_waivers": waivers,
            "waiver_dated": waivers != "none" and rng.random() < 0.5,
            "programme_bans": bans,
            "standing_history": rng.random() < 0.5,
            "enrolment_waitlist": rng.random() < 0.6,
            "enrolment_denials": rng.choice(["none", "open", "final"]),
            "enrolment_most": rng.choice([0, 5, 6]),
            "enrolment_strict": rng.random() < 0.5,
            "benefit_ceiling": rng.choice([0, 240, 300]),
            "benefit_while_eligible": rng.random() < 0.5,
        }

    def tables(self, rules: Mapping[str, Any]) -> dict[str, tuple[Col, ...]]:
        """Persons, programmes, standings, enrolments and, by rule, waivers and bans."""
        person = Col(name="person", kind="fk", label="{person}", ref="person")
        programme = Col(name="programme", kind="fk", label="{programme}", ref="programme")
        until = Col(name="until", kind="date", label="last day")
        scope = Col(name="scope", kind="enum", label="scope", values=("open", "local"))
        combine = Col(name="combine", kind="enum", label="combination", values=("both", "any"))
        day = Col(name="day", kind="date", label="day")
        home = Col(name="residence", kind="enum", label="residence", values=("local", "regional", "foreign"))
        tables: dict[str, tuple[Col, ...]] = {
            "person": PERSON,
            "programme": (
                ID,
                NAME,
                Col(name="places", kind="num", label="place count", unit="people"),
                Col(name="minimum_score", kind="num", label="minimum score", unit="points"),
                Col(name="minimum_seniority", kind="num", label="minimum seniority", unit="years"),
                *((combine,) if rules["programme_combine"] == "each" else ()),
                *((scope,) if rules["programme_residence"] else ()),
                Col(name="benefit", kind="num", label="benefit", unit="credits"),
                Col(name="hours", kind="num", label="weekly effort", unit="h", optional=True),
                Col(name="coordinator", kind="fk", label="coordinator", ref="person"),
            ),
            "standing": (
                ID,
                person,
                *((day,) if rules["standing_history"] else ()),
                Col(name="score", kind="num", label="score", unit="points"),
                Col(name="seniority", kind="num", label="seniority", unit="years"),
                *((home,) if rules["programme_residence"] else ()),
            ),
        }
        if rules["programme_waivers"] != "none":
            tables["waiver"] = (
                ID,
                person,
                *((programme,) if rules["programme_waivers"] == "one" else ()),
                Col(name="waives", kind="enum", label="waived condition", values=conditions(rules)),
                *((until,) if rules["waiver_dated"] else ()),
            )
        if rules["programme_bans"] != "none":
            tables["ban"] = (ID, person, *((programme,) if rules["programme_bans"] == "one" else ()), until)
        tables["enrolment"] = (
            ID,
            Col(name="person", kind="fk", label="participant", ref="person"),
            programme,
            Col(name="day", kind="date", label="entry day"),
            Col(name="state", kind="enum", label="state", values=states(rules)),
        )
        return tables

    def generate(self, world: Composed, rng: random.Random) -> None:
        """Fill programmes, standings, exceptions and enrolments that keep every rule."""
        fill_people(world, rng)
        Roster(world, rng).fill()

    def derived(self, world: Composed) -> list[Derived]:
        """Eligibility and drawn benefit of a person, free places of a programme, lapsed enrolments."""
        texts = DerivedTexts(world)
        return [texts.eligible(), texts.places_left(), texts.benefit(), texts.lapsed()]

    def actions(self, world: Composed) -> list[Action]:
        """Enrol and end; by rule, admit from the waiting list and deny."""
        texts = ActionTexts(world)
        found = [texts.enrol(), texts.end()]
        found += [texts.admit()] if texts.waitlist else []
        return [*found, texts.deny()] if texts.denials else found

    def norms(self, world: Composed) -> list[Norm]:
        """Nobody is in a programme twice, and no programme has more than its places."""
        return [NormTexts(world).norm()]

    def tools(self, world: Composed) -> list[ToolDraft]:
        """Write tools of the actions."""
        texts = ToolTexts(world)
        found = [texts.enrol_draft(), texts.end_draft()]
        found += [texts.admit_draft()] if texts.waitlist else []
        return [*found, texts.deny_draft()] if texts.denials else found

    def policy(self, world: Composed) -> list[str]:
        """Nothing beyond the sentences of derived attributes and actions."""
        del world
        return []


MECHANISM = Eligibility()
