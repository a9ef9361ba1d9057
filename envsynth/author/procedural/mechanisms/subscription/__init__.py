"""Plans that persons subscribe to: billing months of real length, pauses, changes of plan, charges and refunds.

Dynamics: every subscription has an anchor day, and a month without that day is billed on its last one, so billing months
have 28 to 31 days. What a change of plan costs, what is refunded and when a pause ends follow from those real days; paused
days cost nothing. A charge that stays open beyond its grace period makes a subscription overdue, which blocks changes. By
rule the tools do this arithmetic, or leave it to the actor.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

from envsynth.author.procedural.mechanism import Action, Col, Composed, Derived, ToolDraft
from envsynth.author.procedural.mechanisms.entities import ID, NAME, PERSON, fill_people
from envsynth.author.procedural.mechanisms.subscription.actions import ActionTexts
from envsynth.author.procedural.mechanisms.subscription.bindings import charge_kinds, contract_states
from envsynth.author.procedural.mechanisms.subscription.derived import DerivedTexts
from envsynth.author.procedural.mechanisms.subscription.subscribers import Subscribers
from envsynth.author.procedural.mechanisms.subscription.tools import ToolTexts


class Subscription:
    """Subscriptions of persons to plans, with charges by the month."""

    name = "subscription"
    ports: Mapping[str, str] = {"actor": "person"}

    def options(self, rng: random.Random) -> dict[str, Any]:
        """Draw the rules.

        `sub_pauses`: whether subscriptions can be paused. `sub_pause_from`: whether a pause begins "today" or on the next
        billing day ("billing"). `sub_trials`: whether there are free trials. `sub_anchor`: whether a subscription stores
        its "start", which gives the anchor day, or its "first_bill", which may be yet to come. `sub_round`: how shares are
        rounded.
        `sub_day_counts`: whether the day of a change counts among the days that are left. `sub_grace_by`: whether the
        grace period is the same for "all" or stored by "tariff". `sub_grace`: days of the former. `sub_split`: whether a
        change of plan rounds the old and the new share one by one. `sub_refund_rows`: whether a refund is a charge row of
        its own or a column. `sub_quoted`: whether the tools work out amounts and days, or the actor. `sub_dated`: whether
        an upgrade has a day of effect of its own, or is of today.
        """
        return {
            "sub_pauses": rng.random() < 0.65,
            "sub_pause_from": rng.choice(["today", "billing"]),
            "sub_trials": rng.random() < 0.5,
            "sub_anchor": rng.choice(["start", "first_bill"]),
            "sub_round": rng.choice(["down", "up", "half"]),
            "sub_day_counts": rng.random() < 0.5,
            "sub_grace_by": rng.choice(["all", "tariff"]),
            "sub_grace": rng.choice([3, 5, 7, 10]),
            "sub_split": rng.random() < 0.5,
            "sub_refund_rows": rng.random() < 0.5,
            "sub_quoted": rng.random() < 0.4,
            "sub_dated": rng.random() < 0.4,
        }

    def tables(self, rules: Mapping[str, Any]) -> dict[str, tuple[Col, ...]]:
        """Persons, plans, subscriptions, charges and, by rule, pauses."""
        contract = Col(name="contract", kind="fk", label="{contract}", ref="contract")
        longest = Col(name="longest_pause", kind="num", label="longest pause", unit="months")
        grace = Col(name="grace", kind="num", label="grace period", unit="days")
        start = Col(name="start", kind="date", label="start day")
        first_bill = Col(name="first_bill", kind="date", label="first billing day")
        given_back = Col(name="given_back", kind="num", label="refunded amount", unit="credits")
        audience = Col(
            name="audience", kind="enum", label="audience", values=("private", "business", "student"), optional=True
        )
        tables: dict[str, tuple[Col, ...]] = {
            "person": PERSON,
            "tariff": (
                ID,
                NAME,
                Col(name="price", kind="num", label="monthly price", unit="credits"),
                Col(name="refundable", kind="num", label="refund limit", unit="days"),
                *((longest,) if rules["sub_pauses"] else ()),
                *((grace,) if rules["sub_grace_by"] == "tariff" else ()),
                audience,
                Col(name="seats", kind="num", label="seat count", unit="people", optional=True),
            ),
            "contract": (
                ID,
                Col(name="holder", kind="fk", label="holder", ref="person"),
                Col(name="tariff", kind="fk", label="{tariff}", ref="tariff"),
                first_bill if rules["sub_anchor"] == "first_bill" else start,
                Col(name="until", kind="date", label="last day"),
                Col(name="contract_state", kind="enum", label="state", values=contract_states(rules)),
            ),
        }
        if rules["sub_pauses"]:
            tables["freeze"] = (
                ID,
                contract,
                Col(name="start", kind="date", label="first day"),
                Col(name="until", kind="date", label="last day"),
            )
        tables["charge"] = (
            ID,
            contract,
            Col(name="day", kind="date", label="day"),
            Col(name="amount", kind="num", label="amount", unit="credits"),
            Col(name="charge_kind", kind="enum", label="kind", values=charge_kinds(rules)),
            Col(name="charge_state", kind="enum", label="state", values=("open", "paid", "refunded")),
            *(() if rules["sub_refund_rows"] else (given_back,)),
        )
        return tables

    def generate(self, world: Composed, rng: random.Random) -> None:
        """Fill plans, subscriptions, pauses and charges that keep every rule."""
        fill_people(world, rng)
        Subscribers(world, rng).fill()

    def derived(self, world: Composed) -> list[Derived]:
        """Next billing day, unused value and lateness of a subscription; what a person owes too long."""
        texts = DerivedTexts(world)
        return [texts.next_bill(), texts.unused_value(), texts.overdue(), texts.arrears()]

    def actions(self, world: Composed) -> list[Action]:
        """Upgrade, refund, collect, suspend, terminate; by rule, pause."""
        texts = ActionTexts(world)
        found = [texts.upgrade(), texts.refund(), texts.collect(), texts.suspend(), texts.terminate()]
        return [*found, texts.pause()] if texts.pauses else found

    def tools(self, world: Composed) -> list[ToolDraft]:
        """Write tools of the actions."""
        texts = ToolTexts(world)
        found = [texts.upgrade_draft(), texts.refund_draft(), texts.collect_draft()]
        found += [texts.suspend_draft(), texts.terminate_draft()]
        return [*found, texts.pause_draft()] if texts.pauses else found

    def policy(self, world: Composed) -> list[str]:
        """What billing days and days left are."""
        texts = DerivedTexts(world)
        return [texts.calendar_policy(), texts.left_policy()]


MECHANISM = Subscription()
