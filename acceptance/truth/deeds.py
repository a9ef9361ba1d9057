"""Actions: which row changes carry one out, as the policy says it; several when any of them will do."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from dataclasses import dataclass, field

from acceptance.truth.facts import Facts
from acceptance.truth.world import Handle, NotCoveredError, Value, World


class ImpossibleError(Exception):
    """The policy does not allow an action in this state, so nothing carries it out."""


class UndecidedError(ImpossibleError):
    """An action that seems senseless, though the policy does not say that it is refused."""


@dataclass(frozen=True)
class Change:
    """One changed row: an update of `row`, or a new row of `entity` when `row` is None."""

    entity: str
    row: Handle | None
    cells: tuple[tuple[str, Value], ...]


Deed = tuple[Change, ...]
"""All changes of one way to carry something out."""


@dataclass
class Deeds:
    """Carries out actions in one state.

    Args:
        facts: The state.
        heedless: Carry out what the policy forbids as well, as a careless player would.
    """

    facts: Facts
    heedless: bool = False
    _ways: dict[str, Callable[..., list[Deed]]] = field(init=False)

    def __post_init__(self) -> None:
        self._ways = {
            "book": self._book,
            "cancel": self._cancel,
            "hand_over": self._hand_over,
            "buy": self._buy,
            "refund": self._refund,
            "grant_claim": self._grant,
            "distribute_fund": self._distribute,
            "revoke_claim": self._revoke,
            "shortlist_claim": self._shortlist,
            "mend_booking": self._mend_booking,
            "mend_claim": self._mend_claim,
        }

    def ways(self, action: str, arguments: dict[str, Value]) -> list[Deed]:
        """Every way to carry out an action.

        Args:
            action: Its public key.
            arguments: By parameter.

        Returns:
            The ways, each with all its changes.

        Raises:
            ImpossibleError: the policy does not allow it, or does not tell (`UndecidedError`).
            NotCoveredError: the action is another mechanism's.
        """
        if action not in self._ways:
            raise NotCoveredError(f"no rule for the action {action}")
        return self._ways[action](**arguments)

    def _allow(self, allowed: bool, why: str) -> None:
        if not allowed and not self.heedless:
            raise ImpossibleError(why)

    def _make_sense(self, sensible: bool, why: str) -> None:
        if not sensible and not self.heedless:
            raise UndecidedError(why)

    def _book(self, resource: Handle, person: Handle, day: str, start: int, end: int, headcount: int) -> list[Deed]:
        facts, rules = self.facts, self.facts.rules
        rules.need("book")
        self._allow(facts.value(resource, "free", (day, start, end)), "not free")
        self._allow(headcount <= facts.world[resource]["capacity"], "more than its capacity")
        self._allow(end - start <= rules.number("longest", 24), "too long")
        self._allow(
            facts.value(person, "booked_time", (day,)) + end - start <= rules.number("daily", 24),
            "over the daily limit",
        )
        # where the policy does not tell, the tool takes no status and a new one counts as any small one does: active
        status = "tentative" if headcount > rules.number("party", headcount) else "active"
        cells = {
            "resource": resource, "person": person, "day": day, "start": start, "end": end, "headcount": headcount,
            "status": status,
        }  # fmt: skip
        return [(Change("booking", None, tuple(cells.items())),)]

    def _cancel(self, booking: Handle) -> list[Deed]:
        self.facts.rules.need("cancelled")
        self._allow(self.facts.world[booking]["status"] != "cancelled", "cancelled already")
        return [(Change("booking", booking, (("status", "cancelled"),)),)]

    def _hand_over(self, booking: Handle, person: Handle) -> list[Deed]:
        facts, rules = self.facts, self.facts.rules
        rules.need("hand_over", "cancelled")
        row = facts.world[booking]
        self._allow(row["status"] != "cancelled", "a cancelled one is not handed over")
        time = facts.value(person, "booked_time", (row["day"],)) + row["end"] - row["start"]
        self._make_sense(row["person"] != person, "a handover to its holder")
        self._allow(time <= rules.number("handed", 24), "over the daily limit")
        return [(Change("booking", booking, (("person", person),)),)]

    def _mend_booking(self, booking: Handle) -> list[Deed]:
        self.facts.rules.need("mend_booking")
        self._allow(self.facts.value(booking, "amiss_booking"), "in order")
        return self._cancel(booking)

    def _mend_claim(self, claim: Handle) -> list[Deed]:
        self.facts.rules.need("mend_claim")
        self._allow(self.facts.value(claim, "amiss_claim"), "in order")
        return self._revoke(claim)

    def _buy(self, person: Handle, origin: Handle, destination: Handle) -> list[Deed]:
        facts, rules = self.facts, self.facts.rules
        rules.need("buy", "fare")
        self._make_sense(origin != destination, "a journey to where it begins")
        routes = facts.routes(origin, destination)
        least = min(map(facts.price, routes), default=0)
        spare = bool(rules.text("released"))
        held = {row["leg"] for _, row in facts.all("ticket", person=person) if not spare or facts.holds(row)}
        fine = [
            chain for chain in routes if facts.price(chain) == least and (self.heedless or not held.intersection(chain))
        ]
        self._allow(bool(fine), "no cheapest route without a ticket held already")
        valid = (("validity", "valid"),) if facts.world.has("ticket", "validity") else ()
        return [
            tuple(Change("ticket", None, (("leg", leg), ("person", person), *valid)) for leg in chain) for chain in fine
        ]

    def _refund(self, ticket: Handle) -> list[Deed]:
        self.facts.rules.need("refund")
        self._allow(self.facts.holds(self.facts.world[ticket]), "refunded already")
        return [(Change("ticket", ticket, (("validity", "refunded"),)),)]

    def _state(self, claim: Handle, state: str) -> Change:
        return Change("claim", claim, (("state", state),))

    def _with_refusals(self, claims: tuple[Handle, ...]) -> Deed:
        facts = self.facts
        down: list[Handle] = []
        if facts.rules.text("also_down"):
            facts.rules.need("turn_down")
            states = facts.rules.states("also_down")
            others = [other for other, row in facts.all("claim") if row["state"] in states and other not in claims]
            down = [other for other in others if any(facts.exclude(claim, other) for claim in claims)]
        return (
            *(self._state(claim, "granted") for claim in claims),
            *(self._state(other, "refused") for other in down),
        )

    def _grant(self, claim: Handle) -> list[Deed]:
        self.facts.rules.need("grant")
        self._allow(self.facts.value(claim, "grantable"), "not grantable")
        return [self._with_refusals((claim,))]

    def _distribute(self, fund: Handle) -> list[Deed]:
        self.facts.rules.need("distribute", "attainable", "grant")
        sets = self.facts.best_sets(fund)
        self._make_sense(all(sets), "a distribution of nothing")
        return [self._with_refusals(chosen) for chosen in sets]

    def _revoke(self, claim: Handle) -> list[Deed]:
        self.facts.rules.need("revoke")
        row = self.facts.world[claim]
        since = self.facts.rules.text("since")
        self._allow(row["state"] == "granted" and row["filed"] >= since, "not to be revoked")
        return [(self._state(claim, "revoked"),)]

    def _shortlist(self, claim: Handle) -> list[Deed]:
        facts, rules = self.facts, self.facts.rules
        rules.need("shortlist")
        row = facts.world[claim]
        fund = facts.world[row["fund"]]
        self._allow(row["state"] == "open", "not open")
        self._allow(not rules.text("listed_bar") or row["merit"] >= fund["bar"], "below the minimum merit")
        listed = len(facts.all("claim", fund=row["fund"], state="shortlisted"))
        self._allow(listed <= rules.number("listed"), "too many are shortlisted")
        return [(self._state(claim, "shortlisted"),)]


def after(world: World, deed: Deed) -> World:
    """The world once changes are made; the given one stays."""
    changed = copy(world)
    changed.rows = {entity: [*rows] for entity, rows in world.rows.items()}
    for change in deed:
        rows = changed.rows[change.entity]
        if change.row is None:
            rows.append(dict(change.cells))
        else:
            rows[change.row.index] = rows[change.row.index] | dict(change.cells)
    return changed
