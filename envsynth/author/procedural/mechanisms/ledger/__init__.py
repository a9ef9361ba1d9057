"""Accounts of persons with double entry: what is really available, what a payment costs, and which account pays.

Dynamics: every posted transfer takes from one account what it gives to another (its fee goes to the house account), large
transfers wait as pending, holds block money until their last day, and accounts have daily limits and fees by type. The
balance is stored or follows from the transfers. By rule the tools check only the balance: what is available, the fee and
the state of a new transfer are then left to the actor.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

from envsynth.author.procedural.mechanism import Action, Col, Composed, Derived, Norm, ToolDraft
from envsynth.author.procedural.mechanisms.entities import ID, NAME, PERSON, fill_people
from envsynth.author.procedural.mechanisms.ledger.actions import ActionTexts
from envsynth.author.procedural.mechanisms.ledger.bindings import HOLD_STATES, TRANSFER_STATES, account_types
from envsynth.author.procedural.mechanisms.ledger.books import Books
from envsynth.author.procedural.mechanisms.ledger.derived import DerivedTexts
from envsynth.author.procedural.mechanisms.ledger.norms import NormTexts
from envsynth.author.procedural.mechanisms.ledger.tools import ToolTexts


class Ledger:
    """Accounts of persons, transfers between them, and holds."""

    name = "ledger"
    ports: Mapping[str, str] = {"actor": "person"}

    def options(self, rng: random.Random) -> dict[str, Any]:
        """Draw the rules.

        `stored_balance`: whether an account stores its balance; else it stores what it opened with. `with_holds`: whether
        there are holds. `pending_money`: whether pending transfers block money ("blocks") or not ("open"). `wait_above`:
        amount above which a new transfer is pending. `overdrafts`: whether accounts have an overdraft limit. `fee_rate`:
        fee in thousandths of the amount for a current account, 0 for no fees at all. `fee_floor`: lowest fee.
        `fee_up`: whether fees are rounded up. `send_limit`: most credits a day that a current account may send, 0 for
        any. `pay_from`: which account pays: by "fee", the one with the "most" or the one with the "least" available.
        `checks_available`: whether tools check what is available and the daily limit. `booked_by_tool`: whether tools work out
        fee and state. `reversible`: whether "posted" or "any" transfers can be reversed. `reversible_days`: for how many days, 0 for
        ever. `hold_step`: credits of which a hold is a multiple.
        """
        holds, pending = rng.choice([(True, "blocks"), (True, "blocks"), (True, "open"), (False, "blocks")])
        fee_rate = rng.choice([0, 5, 10, 20])
        return {
            "stored_balance": rng.random() < 0.4,
            "with_holds": holds,
            "pending_money": pending,
            "wait_above": rng.choice([150, 200, 300]),
            "overdrafts": rng.random() < 0.5,
            "fee_rate": fee_rate,
            "fee_floor": rng.choice([0, 1, 3]),
            "fee_up": rng.random() < 0.5,
            "send_limit": rng.choice([0, 300, 400]),
            "pay_from": rng.choice(["fee", "most", "least"] if fee_rate else ["most", "least"]),
            "checks_available": rng.random() < 0.5,
            "booked_by_tool": rng.random() < 0.5,
            "reversible": rng.choice(["posted", "any"]),
            "reversible_days": rng.choice([0, 2, 3]),
            "hold_step": rng.choice([1, 10, 25]),
        }

    def tables(self, rules: Mapping[str, Any]) -> dict[str, tuple[Col, ...]]:
        """Persons, accounts, transfers and, by rule, holds."""
        overdraft = Col(name="overdraft", kind="num", label="overdraft limit", unit="credits")
        fee = Col(name="fee", kind="num", label="fee", unit="credits")
        money = (
            Col(name="balance", kind="num", label="balance", unit="credits")
            if rules["stored_balance"]
            else Col(name="opening", kind="num", label="opening balance", unit="credits")
        )
        tables: dict[str, tuple[Col, ...]] = {
            "person": PERSON,
            "account": (
                ID,
                NAME,
                Col(name="owner", kind="fk", label="owner", ref="person"),
                Col(name="account_type", kind="enum", label="type", values=account_types(rules)),
                money,
                *((overdraft,) if rules["overdrafts"] else ()),
                Col(name="opened", kind="date", label="opening day", optional=True),
            ),
            "transfer": (
                ID,
                Col(name="source", kind="fk", label="source {account}", ref="account"),
                Col(name="target", kind="fk", label="target {account}", ref="account"),
                Col(name="amount", kind="num", label="amount", unit="credits"),
                *((fee,) if rules["fee_rate"] else ()),
                Col(name="day", kind="date", label="day"),
                Col(name="transfer_state", kind="enum", label="state", values=TRANSFER_STATES),
            ),
        }
        if rules["with_holds"]:
            tables["hold"] = (
                ID,
                Col(name="account", kind="fk", label="{account}", ref="account"),
                Col(name="amount", kind="num", label="amount", unit="credits"),
                Col(name="until", kind="date", label="last day"),
                Col(name="hold_state", kind="enum", label="state", values=HOLD_STATES),
            )
        return tables

    def generate(self, world: Composed, rng: random.Random) -> None:
        """Fill accounts, transfers and holds such that no account ever spends more than it has available."""
        fill_people(world, rng)
        Books(world, rng).fill()

    def derived(self, world: Composed) -> list[Derived]:
        """What an account has available, has sent, can send and at which fee; what a person owns."""
        texts = DerivedTexts(world)
        found = [texts.available(), texts.sent(), texts.able(), texts.wealth()]
        if texts.fees:
            found.insert(1, texts.fee())
        return found if texts.stored else [texts.balance(), *found]

    def actions(self, world: Composed) -> list[Action]:
        """Transfer, pay, settle, reverse; by rule, place and release holds."""
        texts = ActionTexts(world)
        found = [texts.transfer(), texts.pay(), texts.settle(), texts.reverse()]
        return [*found, texts.place_hold(), texts.release_hold()] if texts.holds else found

    def norms(self, world: Composed) -> list[Norm]:
        """Transfers have the fee that the rules say, and none waits without a reason."""
        return [NormTexts(world).norm()]

    def tools(self, world: Composed) -> list[ToolDraft]:
        """Write tools of the actions."""
        texts = ToolTexts(world)
        found = [texts.transfer_draft(), texts.settle_draft(), texts.reverse_draft()]
        return [*found, texts.place_draft(), texts.release_draft()] if texts.holds else found

    def policy(self, world: Composed) -> list[str]:
        """What transfers move, and when they wait."""
        texts = DerivedTexts(world)
        return [texts.moving_policy(), texts.waiting_policy()]


MECHANISM = Ledger()
