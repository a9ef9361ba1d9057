"""Contacts with duplicates: which of them are one party, who survives, and what becomes of the others.

Dynamics: contacts of one party share at least two keys (columns and aliases, compared by published rules), directly or
through others; a party has one survivor, into which the rest are merged. The tools do not judge who is whose twin, so
whoever goes by equal names merges strangers.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

from envsynth.author.procedural.mechanism import Action, Col, Composed, Derived, ToolDraft
from envsynth.author.procedural.mechanisms.entities import ID, PERSON, PERSON_AT_SITE, SITE, fill_people, fill_sites
from envsynth.author.procedural.mechanisms.identity.actions import ActionTexts
from envsynth.author.procedural.mechanisms.identity.bindings import SOURCES, alias_kinds
from envsynth.author.procedural.mechanisms.identity.derived import DerivedTexts
from envsynth.author.procedural.mechanisms.identity.directory import Directory
from envsynth.author.procedural.mechanisms.identity.tools import ToolTexts


class Identity:
    """Contacts that persons own, some of them several times the same party."""

    name = "identity"
    ports: Mapping[str, str] = {"actor": "person", "location": "site"}

    def options(self, rng: random.Random) -> dict[str, Any]:
        """Draw the rules.

        `party_transitive`: whether chains of twins are one party. `keys_by_case`: whether capital letters matter.
        `phone_prefix`: whether +49- equals 0-. `alias_badges`: whether aliases of kind badge exist, and whether they
        count. `contact_messages`: whether messages exist. `messages_move`: whether they move at a merger.
        `survivor_active`: whether the most active contact survives, not the oldest. `activity_days`: how far back
        activity reaches. `contact_sites`: whether contacts have a place.
        """
        return {
            "party_transitive": rng.random() < 0.5,
            "keys_by_case": rng.random() < 0.4,
            "phone_prefix": rng.random() < 0.5,
            "alias_badges": rng.choice(["none", "count", "ignored"]),
            "contact_messages": rng.random() < 0.6,
            "messages_move": rng.random() < 0.5,
            "survivor_active": rng.random() < 0.5,
            "activity_days": rng.choice([20, 30, 45]),
            "contact_sites": rng.random() < 0.5,
        }

    def tables(self, rules: Mapping[str, Any]) -> dict[str, tuple[Col, ...]]:
        """Persons, contacts, aliases and, by rule, places and messages."""
        contact = Col(name="contact", kind="fk", label="{contact}", ref="contact")
        tables: dict[str, tuple[Col, ...]] = {"site": SITE} if rules["contact_sites"] else {}
        tables["person"] = PERSON_AT_SITE if rules["contact_sites"] else PERSON
        tables["contact"] = (
            ID,
            Col(name="called", kind="text", label="full name"),
            Col(name="phone", kind="text", label="phone"),
            Col(name="mail", kind="text", label="mail"),
            *((Col(name="site", kind="fk", label="{site}", ref="site"),) if rules["contact_sites"] else ()),
            Col(name="owner", kind="fk", label="owner", ref="person"),
            Col(name="source", kind="enum", label="source", values=SOURCES),
            Col(name="since", kind="date", label="first day"),
            Col(name="visits", kind="num", label="visit count", unit="units"),
            Col(name="worth", kind="num", label="yearly worth", unit="credits"),
            Col(name="state", kind="enum", label="state", values=("live", "merged")),
        )
        tables["alias"] = (
            ID,
            contact,
            Col(name="kind", kind="enum", label="kind", values=alias_kinds(rules)),
            Col(name="value", kind="text", label="value"),
        )
        if rules["contact_messages"]:
            tables["message"] = (
                ID,
                contact,
                Col(name="day", kind="date", label="day"),
                Col(name="kind", kind="enum", label="kind", values=("call", "letter", "notice")),
                Col(name="length", kind="num", label="length", unit="min"),
            )
        return tables

    def generate(self, world: Composed, rng: random.Random) -> None:
        """Fill parties of one to four contacts with near misses between them."""
        if world.rules["contact_sites"]:
            fill_sites(world, rng)
        fill_people(world, rng)
        Directory(world, rng).fill()

    def derived(self, world: Composed) -> list[Derived]:
        """Shared keys, twins and, by rule, activity of a contact; parties of a person."""
        texts = DerivedTexts(world)
        found = [texts.shared_keys()]
        found += [texts.activity()] if texts.messages else []
        return [*found, texts.twins(), texts.parties()]

    def actions(self, world: Composed) -> list[Action]:
        """Merge with all twins, relabel after the survivor."""
        texts = ActionTexts(world)
        return [texts.merge(), texts.relabel()]

    def tools(self, world: Composed) -> list[ToolDraft]:
        """Write tools of the actions."""
        texts = ToolTexts(world)
        return [texts.merge_draft(), texts.relabel_draft()]

    def policy(self, world: Composed) -> list[str]:
        """Nothing beyond the sentences of derived attributes and actions."""
        del world
        return []


MECHANISM = Identity()
