"""Versioned packages with requirements: which release fits where, what is outdated, upgrades, roll-backs, withdrawals.

Dynamics: a release can be installed in a place when its state and age allow it and the versions pinned there meet its
requirements; so the newest release is often not the one to install, and each new pin shifts what fits. The tool that
pins looks at the state of a release and, unless the checks are strict, at nothing else.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

from envsynth.author.procedural.mechanism import Action, Col, Composed, Derived, ToolDraft
from envsynth.author.procedural.mechanisms.config.actions import ActionTexts
from envsynth.author.procedural.mechanisms.config.bindings import CHANNELS, place_entity, states
from envsynth.author.procedural.mechanisms.config.catalogue import Catalogue
from envsynth.author.procedural.mechanisms.config.derived import DerivedTexts
from envsynth.author.procedural.mechanisms.config.tools import ToolTexts
from envsynth.author.procedural.mechanisms.entities import ID, NAME, PERSON, SITE, fill_people, fill_sites


class Config:
    """Packages in versions, pinned in deployments or at sites."""

    name = "config"
    ports: Mapping[str, str] = {"actor": "person", "location": "site"}

    def options(self, rng: random.Random) -> dict[str, Any]:
        """Draw the rules.

        `fleet`: whether pins belong to deployments, which stand at sites, or to sites themselves. `ceilings`: whether
        requirements have a maximum version. `deep_needs`: whether what is pinned for a requirement must have its own
        requirements met. `soft_needs`: whether some requirements are recommended only. `mutual_needs`: whether a new
        version must suit the pins that require its package. `candidates`: whether releases are candidates before they
        are published. `release_age`: days that a release must be old, 0 for any. `pin_history`: whether former pins
        are kept. `strict_pins`: whether the tool that pins refuses unmet requirements.
        """
        return {
            "fleet": rng.random() < 0.6,
            "ceilings": rng.random() < 0.6,
            "deep_needs": rng.random() < 0.5,
            "soft_needs": rng.random() < 0.5,
            "mutual_needs": rng.random() < 0.5,
            "candidates": rng.random() < 0.5,
            "release_age": rng.choice([0, 0, 7, 14]),
            "pin_history": rng.random() < 0.5,
            "strict_pins": rng.random() < 0.5,
        }

    def tables(self, rules: Mapping[str, Any]) -> dict[str, tuple[Col, ...]]:
        """Persons, sites, packages, releases, requirements, pins and, by rule, deployments."""
        place = place_entity(rules)
        maximum = Col(name="maximum", kind="num", label="maximum version", unit="version")
        strength = Col(name="strength", kind="enum", label="strength", values=("required", "recommended"))
        standing = Col(name="standing", kind="enum", label="standing", values=("current", "former"))
        deployment = (
            ID,
            NAME,
            Col(name="site", kind="fk", label="{site}", ref="site"),
            Col(name="machines", kind="num", label="machine count", unit="machines", optional=True),
        )
        return {
            "site": SITE,
            "person": PERSON,
            "package": (
                ID,
                NAME,
                Col(name="owner", kind="fk", label="owner", ref="person"),
                Col(name="channel", kind="enum", label="channel", values=CHANNELS, optional=not rules["candidates"]),
                Col(name="users", kind="num", label="user count", unit="people", optional=True),
            ),
            "release": (
                ID,
                Col(name="package", kind="fk", label="{package}", ref="package"),
                Col(name="number", kind="num", label="version", unit="version"),
                Col(name="day", kind="date", label="{release} day"),
                Col(name="state", kind="enum", label="state", values=states(rules)),
                Col(name="size", kind="num", label="size", unit="megabytes", optional=True),
            ),
            "requirement": (
                ID,
                Col(name="release", kind="fk", label="{release}", ref="release"),
                Col(name="needed", kind="fk", label="needed {package}", ref="package"),
                Col(name="minimum", kind="num", label="minimum version", unit="version"),
                *((maximum,) if rules["ceilings"] else ()),
                *((strength,) if rules["soft_needs"] else ()),
            ),
            **({"deployment": deployment} if rules["fleet"] else {}),
            "pin": (
                ID,
                Col(name=place, kind="fk", label=f"{{{place}}}", ref=place),
                Col(name="package", kind="fk", label="{package}", ref="package"),
                Col(name="version", kind="num", label="version", unit="version"),
                Col(name="day", kind="date", label="{pin} day"),
                *((standing,) if rules["pin_history"] else ()),
            ),
        }

    def generate(self, world: Composed, rng: random.Random) -> None:
        """Fill packages in four layers, each of which requires lower ones only, and pins that mostly fit together."""
        fill_sites(world, rng)
        fill_people(world, rng)
        Catalogue(world, rng).fill()

    def derived(self, world: Composed) -> list[Derived]:
        """What fits where, how far a package can go, what is unmet and what is outdated."""
        texts = DerivedTexts(world)
        return [texts.unmet_needs(), texts.installable(), texts.latest_version(), texts.outdated_pins()]

    def actions(self, world: Composed) -> list[Action]:
        """Upgrade, roll back, advance, withdraw."""
        texts = ActionTexts(world)
        return [texts.upgrade(), texts.roll_back(), texts.advance(), texts.withdraw()]

    def tools(self, world: Composed) -> list[ToolDraft]:
        """Write tools of the actions: upgrades and roll-backs both pin a version."""
        texts = ToolTexts(world)
        return [texts.pin_draft(), texts.advance_draft(), texts.withdraw_draft()]

    def policy(self, world: Composed) -> list[str]:
        """Which pins count, and what a requirement asks for."""
        texts = DerivedTexts(world)
        return [texts.pins_policy(), texts.needs_policy()]


MECHANISM = Config()
