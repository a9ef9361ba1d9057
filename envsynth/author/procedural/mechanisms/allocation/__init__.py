"""Funds with a budget and requests for money: what can be granted, what together, and which set is worth most.

Dynamics: a grant takes its cost (with overhead) off a budget of which a reserve stays free, requests exclude one another
in pairs or by topic, quotas limit what one track may take, and a person may hold only so many grants. The tool that grants
looks at state and budget; unless the rules are strict it neither sees exclusions nor quotas, and it never looks for the
best set.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

from envsynth.author.procedural.mechanism import Action, Col, Composed, Derived, Norm, ToolDraft
from envsynth.author.procedural.mechanisms.allocation.actions import ActionTexts
from envsynth.author.procedural.mechanisms.allocation.bindings import TRACKS, states
from envsynth.author.procedural.mechanisms.allocation.derived import DerivedTexts
from envsynth.author.procedural.mechanisms.allocation.norms import NormTexts
from envsynth.author.procedural.mechanisms.allocation.season import Season
from envsynth.author.procedural.mechanisms.allocation.tools import ToolTexts
from envsynth.author.procedural.mechanisms.entities import ID, NAME, PERSON


class Allocation:
    """Funds, requests of persons for money from them, and what keeps requests apart."""

    name = "allocation"
    ports: Mapping[str, str] = {"actor": "person"}

    def options(self, rng: random.Random) -> dict[str, Any]:
        """Draw the rules; all begin with `alloc_`.

        `stages`: whether only shortlisted requests are granted. `overhead`: percent that a grant costs on top. `reserve`:
        percent of the money of a fund that stays free. `shares`: whether persons pay into funds ("none"), and whether
        only what is paid counts ("paid") or all ("all"). `quota`: what quotas limit by track ("none", "count", "sum").
        `topics`: whether requests exclude one another by topic (1-n) instead of in pairs (n-m). `phases`: whether funds
        may be closed. `bar`: whether funds ask for a minimum merit. `holder`: most granted requests of a person, 0 for
        any. `displace`: whether who grants has to turn down what it excludes. `grace`: days after filing in which a grant
        can be revoked, 0 for any. `strict`: whether the tool looks at all rules.
        """
        return {
            "alloc_stages": rng.random() < 0.5,
            "alloc_overhead": rng.choice([0, 5, 12]),
            "alloc_reserve": rng.choice([0, 10]),
            "alloc_shares": rng.choice(["none", "paid", "all"]),
            "alloc_quota": rng.choice(["none", "count", "sum"]),
            "alloc_topics": rng.random() < 0.5,
            "alloc_phases": rng.random() < 0.5,
            "alloc_bar": rng.random() < 0.5,
            "alloc_holder": rng.choice([0, 2, 3]),
            "alloc_displace": rng.random() < 0.5,
            "alloc_grace": rng.choice([0, 30, 45]),
            "alloc_strict": rng.random() < 0.5,
        }

    def tables(self, rules: Mapping[str, Any]) -> dict[str, tuple[Col, ...]]:
        """Persons, funds, requests, exclusions and, by rule, quotas and shares."""
        phase = Col(name="phase", kind="enum", label="phase", values=("open", "closed"))
        bar = Col(name="bar", kind="num", label="minimum merit", unit="points")
        track = Col(name="track", kind="enum", label="track", values=TRACKS, optional=rules["alloc_quota"] == "none")
        topic = Col(name="topic", kind="fk", label="{topic}", ref="topic")
        tables: dict[str, tuple[Col, ...]] = {
            "person": PERSON,
            "fund": (
                ID,
                NAME,
                Col(name="budget", kind="num", label="budget", unit="credits"),
                *((phase,) if rules["alloc_phases"] else ()),
                *((bar,) if rules["alloc_bar"] else ()),
                Col(name="trustee", kind="fk", label="trustee", ref="person", optional=True),
            ),
            "claim": (
                ID,
                NAME,
                Col(name="fund", kind="fk", label="{fund}", ref="fund"),
                Col(name="person", kind="fk", label="applicant", ref="person"),
                Col(name="amount", kind="num", label="amount", unit="credits"),
                Col(name="merit", kind="num", label="merit", unit="points"),
                track,
                *((topic,) if rules["alloc_topics"] else ()),
                Col(name="filed", kind="date", label="filing day"),
                Col(name="state", kind="enum", label="state", values=states(rules)),
            ),
        }
        if rules["alloc_topics"]:
            tables["topic"] = (ID, NAME)
        else:
            tables["clash"] = (
                ID,
                Col(name="first", kind="fk", label="first {claim}", ref="claim"),
                Col(name="second", kind="fk", label="second {claim}", ref="claim"),
            )
        if rules["alloc_quota"] != "none":
            unit = "credits" if rules["alloc_quota"] == "sum" else ""
            tables["quota"] = (
                ID,
                Col(name="fund", kind="fk", label="limited {fund}", ref="fund"),
                Col(name="track", kind="enum", label="track", values=TRACKS),
                Col(name="most", kind="num", label="ceiling", unit=unit),
            )
        if rules["alloc_shares"] != "none":
            stage = Col(name="stage", kind="enum", label="stage", values=("paid", "pledged"))
            tables["share"] = (
                ID,
                Col(name="fund", kind="fk", label="{fund}", ref="fund"),
                Col(name="giver", kind="fk", label="giver", ref="person"),
                Col(name="amount", kind="num", label="amount", unit="credits"),
                *((stage,) if rules["alloc_shares"] == "paid" else ()),
            )
        return tables

    def generate(self, world: Composed, rng: random.Random) -> None:
        """Fill funds, requests and what keeps them apart; what is granted keeps every rule."""
        Season(world, rng).fill()

    def derived(self, world: Composed) -> list[Derived]:
        """Free budget and attainable merit of a fund, what can be granted, what a person got; by rule, the full cost."""
        texts = DerivedTexts(world)
        found = [texts.free_budget(), texts.grantable(), texts.attainable(), texts.awarded()]
        return [texts.full_cost(), *found] if texts.overhead else found

    def actions(self, world: Composed) -> list[Action]:
        """Grant, distribute, revoke; by rule, shortlist."""
        texts = ActionTexts(world)
        found = [texts.grant(), texts.distribute(), texts.revoke()]
        return [*found, texts.shortlist()] if texts.stages else found

    def norms(self, world: Composed) -> list[Norm]:
        """Of two granted requests that exclude one another one breaks a rule, and of those of an overspent fund."""
        return [NormTexts(world).norm()]

    def tools(self, world: Composed) -> list[ToolDraft]:
        """Write tools of the actions, and one that turns requests down: a duty of who grants, by rule."""
        texts = ToolTexts(world)
        found = [texts.grant_draft(), texts.revoke_draft(), texts.turn_down_draft()]
        return [*found, texts.shortlist_draft()] if texts.stages else found

    def policy(self, world: Composed) -> list[str]:
        """What excludes what, which requests can go together, and what can be turned down."""
        texts = DerivedTexts(world)
        return [texts.exclusion_policy(), texts.together_policy(), texts.turn_down_policy()]


MECHANISM = Allocation()
