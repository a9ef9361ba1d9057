"""Teams with access to folders: who may do what where, by inheritance, denial, expiry and ownership.

Dynamics: a rule on a team binds the teams below it, a rule on a folder binds the folders below it, denials win, ended
memberships give nothing, guests inherit nothing. No row says what a person may do; it follows from the closure of all of
them. The tools know one membership, one rule or one folder at a time.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

from envsynth.author.procedural.mechanism import Action, Col, Composed, Derived, ToolDraft
from envsynth.author.procedural.mechanisms.entities import ID, NAME, PERSON, fill_people
from envsynth.author.procedural.mechanisms.permissions.actions import ActionTexts
from envsynth.author.procedural.mechanisms.permissions.derived import DerivedTexts
from envsynth.author.procedural.mechanisms.permissions.directory import Directory
from envsynth.author.procedural.mechanisms.permissions.tools import ToolTexts


class Permissions:
    """Persons in teams, teams with access rules on folders."""

    name = "permissions"
    ports: Mapping[str, str] = {"actor": "person"}

    def options(self, rng: random.Random) -> dict[str, Any]:
        """Draw the rules.

        `team_tree`, `folder_tree`: whether teams and folders lie below one another. `membership_ends`: whether
        memberships have a last day, or a state. `guests`: whether there are guest memberships, which are not inherited.
        `one_team`: whether a person has one current membership at most.
        `denials`: whether rules may deny. `deny_all`: whether a denial takes everything, or only its level and those
        above. `owners`: whether folders have an owner, who may do everything. `archiving`: whether folders can be
        archived, which leaves reading only.
        """
        team_tree, folder_tree = rng.choice([(True, True), (True, True), (True, False), (False, True)])
        return {
            "team_tree": team_tree,
            "folder_tree": folder_tree,
            "membership_ends": rng.random() < 0.5,
            "guests": team_tree and rng.random() < 0.6,
            "one_team": rng.random() < 0.3,
            "denials": rng.random() < 0.75,
            "deny_all": rng.random() < 0.5,
            "owners": rng.random() < 0.5,
            "archiving": rng.random() < 0.5,
        }

    def tables(self, rules: Mapping[str, Any]) -> dict[str, tuple[Col, ...]]:
        """Persons, teams, memberships, folders and access rules."""
        ends = (
            Col(name="until", kind="date", label="last day")
            if rules["membership_ends"]
            else Col(name="state", kind="enum", label="state", values=("current", "ended"))
        )
        standing = Col(name="standing", kind="enum", label="standing", values=("regular", "guest"))
        state = Col(name="state", kind="enum", label="state", values=("active", "archived"))
        effect = Col(name="effect", kind="enum", label="effect", values=("allow", "deny"))
        above = Col(name="parent", kind="fk", label="parent {team}", ref="team")
        return {
            "person": PERSON,
            "team": (ID, NAME, *((above,) if rules["team_tree"] else ())),
            "membership": (
                ID,
                Col(name="person", kind="fk", label="{person}", ref="person"),
                Col(name="team", kind="fk", label="{team}", ref="team"),
                *((standing,) if rules["guests"] else ()),
                ends,
            ),
            "folder": (
                ID,
                NAME,
                *(
                    (Col(name="parent", kind="fk", label="parent {folder}", ref="folder"),)
                    if rules["folder_tree"]
                    else ()
                ),
                *((Col(name="owner", kind="fk", label="owner", ref="person"),) if rules["owners"] else ()),
                Col(name="volume", kind="num", label="volume", unit="MB"),
                *((state,) if rules["archiving"] else ()),
            ),
            "accessrule": (
                ID,
                Col(name="team", kind="fk", label="{team}", ref="team"),
                Col(name="folder", kind="fk", label="{folder}", ref="folder"),
                Col(name="level", kind="num", label="level", unit="level"),
                *((effect,) if rules["denials"] else ()),
            ),
        }

    def generate(self, world: Composed, rng: random.Random) -> None:
        """Fill trees of teams and folders, memberships and rules."""
        fill_people(world, rng)
        Directory(world, rng).fill()

    def derived(self, world: Composed) -> list[Derived]:
        """Headcount of a team, access level and readers of a folder, and what a person may read."""
        texts = DerivedTexts(world)
        return [texts.headcount(), texts.access_level(), texts.readers(), texts.may_read()]

    def actions(self, world: Composed) -> list[Action]:
        """Grant access, move a membership, offboard a person."""
        texts = ActionTexts(world)
        return [texts.grant(), texts.move(), texts.offboard()]

    def tools(self, world: Composed) -> list[ToolDraft]:
        """Write tools: grant, end and add a membership; by rule, reassign a folder."""
        texts = ToolTexts(world)
        found = [texts.grant_draft(), texts.end_draft(), texts.add_draft()]
        return [*found, texts.reassign_draft()] if texts.owners else found

    def policy(self, world: Composed) -> list[str]:
        """How the trees hang together, and which memberships are current."""
        return DerivedTexts(world).tree_policies()


MECHANISM = Permissions()
