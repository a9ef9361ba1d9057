"""Requests that people decide: who may decide what, how many approvals are still missing, and when a request lapses.

Dynamics: tiers of the amount fix the level and the number of signatures that a request needs, posts give levels,
delegations lend them for a time, nobody decides what is their own, and a request that waits too long lapses without any
row saying so. The tool that records decisions always refuses the requester and a second approval by the same person;
only a strict one looks at levels.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

from envsynth.author.procedural.mechanism import Action, Col, Composed, Derived, ToolDraft
from envsynth.author.procedural.mechanisms.approval.actions import ActionTexts
from envsynth.author.procedural.mechanisms.approval.bindings import KINDS, stages, verdicts
from envsynth.author.procedural.mechanisms.approval.derived import DerivedTexts
from envsynth.author.procedural.mechanisms.approval.desk import Desk
from envsynth.author.procedural.mechanisms.approval.tools import ToolTexts
from envsynth.author.procedural.mechanisms.entities import ID, PERSON, fill_people


class Approval:
    """Requests of persons, decided by persons whose posts give them the level."""

    name = "approval"
    ports: Mapping[str, str] = {"actor": "person"}

    def options(self, rng: random.Random) -> dict[str, Any]:
        """Draw the rules.

        `drafts`: whether requests are drafts before they are submitted. `petty`: amount up to which a submitted draft
        is approved at once, 0 for none. `delegations`: whether levels can be lent. `lent_loss`: points that are lost by
        lending. `terms`: whether posts end on a day. `many_posts`: whether a person may hold several. `lapse`: whether
        a request lapses by days since it was filed ("days") or on a day of its own ("due"). `lapse_days`: those days.
        `stale_days`: days after which an approval no longer counts, 0 for never. `abstentions`: whether deciders may
        abstain. `contract_level`: whether contracts need a higher level. `base_level`: level that every request
        needs. `limit_low`, `limit_mid`, `limit_high`: amounts from which more is needed; `from_limit`: whether an amount at a limit needs that level already.
        `double_from`: amount from which two signatures are needed. `closing`: whether an approved request has to be
        closed by the actor. `strict_desk`: whether the tools look at levels and signatures.
        """
        drafts, delegations = rng.choice([(True, True), (True, True), (True, False), (False, True)])
        low, mid, high = rng.choice([(150, 450, 1200), (200, 500, 1500), (250, 600, 1000)])
        return {
            "drafts": drafts,
            "petty": rng.choice([0, 60, 90]),
            "delegations": delegations,
            "lent_loss": rng.choice([0, 5, 10]),
            "terms": rng.random() < 0.5,
            "many_posts": rng.random() < 0.5,
            "lapse": rng.choice(["days", "due"]),
            "lapse_days": rng.choice([10, 14, 21]),
            "stale_days": rng.choice([0, 5, 7]),
            "abstentions": rng.random() < 0.5,
            "contract_level": rng.random() < 0.5,
            "base_level": rng.choice([10, 15, 20]),
            "limit_low": low,
            "limit_mid": mid,
            "limit_high": high,
            "from_limit": rng.random() < 0.5,
            "double_from": rng.choice([300, 400, 700]),
            "closing": rng.random() < 0.5,
            "strict_desk": rng.random() < 0.5,
        }

    def tables(self, rules: Mapping[str, Any]) -> dict[str, tuple[Col, ...]]:
        """Persons, posts, requests, decisions and, by rule, delegations."""
        until = Col(name="until", kind="date", label="last day")
        due = Col(name="due", kind="date", label="due day")
        tables: dict[str, tuple[Col, ...]] = {
            "person": PERSON,
            "post": (
                ID,
                Col(name="holder", kind="fk", label="holder", ref="person"),
                Col(name="level", kind="num", label="level", unit="points"),
                *((until,) if rules["terms"] else ()),
            ),
            "request": (
                ID,
                Col(name="requester", kind="fk", label="requester", ref="person"),
                Col(name="amount", kind="num", label="amount", unit="credits"),
                Col(name="kind", kind="enum", label="kind", values=KINDS, optional=not rules["contract_level"]),
                Col(name="day", kind="date", label="filing day"),
                *((due,) if rules["lapse"] == "due" else ()),
                Col(name="stage", kind="enum", label="stage", values=stages(rules)),
            ),
            "decision": (
                ID,
                Col(name="request", kind="fk", label="decided {request}", ref="request"),
                Col(name="decider", kind="fk", label="decider", ref="person"),
                Col(name="verdict", kind="enum", label="verdict", values=verdicts(rules)),
                Col(name="day", kind="date", label="decision day"),
            ),
        }
        if rules["delegations"]:
            tables["delegation"] = (
                ID,
                Col(name="giver", kind="fk", label="giver", ref="person"),
                Col(name="taker", kind="fk", label="taker", ref="person"),
                until,
            )
        return tables

    def generate(self, world: Composed, rng: random.Random) -> None:
        """Fill posts, delegations, and requests with decisions that keep every rule."""
        fill_people(world, rng)
        Desk(world, rng).fill()

    def derived(self, world: Composed) -> list[Derived]:
        """Needed level and missing approvals of a request; level of a person, and what they may decide."""
        texts = DerivedTexts(world)
        return [texts.needed_level(), texts.shortfall(), texts.signing_level(), texts.may_decide()]

    def actions(self, world: Composed) -> list[Action]:
        """Get a request approved; by rule, submit a draft and delegate a level."""
        texts = ActionTexts(world)
        found = [texts.clear()]
        if texts.drafts:
            found.append(texts.submit())
        if texts.delegations:
            found.append(texts.delegate())
        return found

    def tools(self, world: Composed) -> list[ToolDraft]:
        """Write tools: record a decision; by rule, close, submit and delegate."""
        texts = ToolTexts(world)
        found = [texts.decide_draft()]
        if texts.closing:
            found.append(texts.close_draft())
        if texts.drafts:
            found.append(texts.submit_draft())
        if texts.delegations:
            found.append(texts.delegate_draft())
        return found

    def policy(self, world: Composed) -> list[str]:
        """When a request is open, which approvals count, and what a rejection does."""
        texts = DerivedTexts(world)
        return [texts.open_policy(), texts.approval_policy()]


MECHANISM = Approval()
