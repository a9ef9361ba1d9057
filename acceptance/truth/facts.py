"""Derived attributes by brute force, each as its policy entry says it; nothing is clever."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from acceptance.truth.rules import Rules
from acceptance.truth.world import Handle, NotCoveredError, Row, Value, World

IN_ORDER = "none"
"""What stands for the rule that a row in order breaks."""


class Facts:
    """Attributes of rows, stored or derived.

    Args:
        world: The rows.
        rules: What the policy says.
    """

    def __init__(self, world: World, rules: Rules) -> None:
        self.world = world
        self.rules = rules
        self._derived: dict[tuple[str, str], tuple[str, Callable[..., Value]]] = {
            ("resource", "booked"): ("booked", self.booked),
            ("resource", "free"): ("free", self.free),
            ("resource", "charge"): ("charge", self.charge),
            ("person", "booked_time"): ("booked_time", self.booked_time),
            ("leg", "seats_left"): ("seats", self.seats_left),
            ("site", "arrival"): ("arrival", self.arrival),
            ("site", "fare"): ("fare", self.fare),
            ("attraction", "visit"): ("visit", self.visit),
            ("attraction", "outing"): ("outing", self.outing),
            ("fund", "free_budget"): ("free_budget", self.free_budget),
            ("fund", "attainable"): ("attainable", self.attainable),
            ("claim", "full_cost"): ("full_cost", self.full_cost),
            ("claim", "grantable"): ("grantable", self.grantable),
            ("person", "awarded"): ("awarded", self.awarded),
            ("booking", "amiss_booking"): (
                "order_booking",
                lambda booking: self.broken_by_booking(booking) != IN_ORDER,
            ),
            ("booking", "broken_rule_booking"): ("rule_booking", self.broken_by_booking),
            ("claim", "amiss_claim"): ("order_claim", lambda claim: self.broken_by_claim(claim) != IN_ORDER),
            ("claim", "broken_rule_claim"): ("rule_claim", self.broken_by_claim),
        }
        self._known: dict[tuple[str, Handle, tuple[Value, ...]], Value] = {}
        self._sorted: dict[tuple[str, ...], dict[tuple[Value, ...], list[tuple[Handle, Row]]]] = {}
        self._routes: dict[tuple[Handle, Handle], list[tuple[Handle, ...]]] = {}

    def value(self, handle: Handle, key: str, arguments: tuple[Value, ...] = ()) -> Value:
        """The value of an attribute of a row.

        Raises:
            NotCoveredError: it is neither stored nor explained by the policy.
        """
        if self.world.has(handle.entity, key):
            return self.world[handle][key]
        known = (key, handle, arguments)
        if known not in self._known:
            if (handle.entity, key) not in self._derived:
                raise NotCoveredError(f"no rule for {handle.entity}.{key}")
            entry, work_out = self._derived[handle.entity, key]
            self.rules.need(entry)
            self._known[known] = work_out(handle, *arguments)
        return self._known[known]

    def all(self, entity: str, **wanted: Value) -> list[tuple[Handle, Row]]:
        """Rows whose stored attributes have these values; tables are sorted by such attributes once."""
        keys = (entity, *wanted)
        if keys not in self._sorted:
            found = self._sorted[keys] = {}
            for handle in self.world.handles(entity):
                row = self.world[handle]
                found.setdefault(tuple(row[key] for key in wanted), []).append((handle, row))
        return self._sorted[keys].get(tuple(wanted.values()), [])

    # --------------------------------------------------------------------------------------------------- booking

    def counted(self, **wanted: Value) -> list[Row]:
        """Bookings that count."""
        self.rules.need("counts")
        counting = self.rules.states("counting")
        return [row for _, row in self.all("booking", **wanted) if row["status"] in counting]

    def booked(self, resource: Handle, day: str) -> int:
        """Booked hours of a resource on a day."""
        return sum(row["end"] - row["start"] for row in self.counted(resource=resource, day=day))

    def booked_time(self, person: Handle, day: str) -> int:
        """Booked time of a person on a day."""
        return sum(row["end"] - row["start"] for row in self.counted(person=person, day=day))

    def free(self, resource: Handle, day: str, start: int, end: int) -> bool:
        """Whether a resource is free for a span."""
        self.rules.need("hours")
        if not (self.rules.number("opens") <= start < end <= self.rules.number("closes")):
            return False
        if self.rules.text("closed") and self.all("closure", resource=resource, day=day):
            return False
        before, after = self.rules.number("gap", 0), self.rules.number("gap_after", 0)
        taken = self.counted(resource=resource, day=day)
        return all(row["end"] + before <= start or row["start"] >= end + after for row in taken)

    def charge(self, resource: Handle, start: int, end: int) -> int:
        """What a span of a resource costs."""
        evening = self.rules.number("evening", 24)
        rate = self.world[resource]["rate"]
        return sum(2 * rate if hour >= evening else rate for hour in range(start, end))

    def broken_by_booking(self, booking: Handle) -> str:
        """Name of the first rule of order that a booking breaks."""
        self.rules.need("counts", "order_booking")
        row = self.world[booking]
        if row["status"] not in self.rules.states("counting"):
            return IN_ORDER
        hours = set(range(row["start"], row["end"]))
        larger = [
            o for o in self.counted(resource=row["resource"], day=row["day"]) if o["headcount"] > row["headcount"]
        ]
        if any(hours & set(range(o["start"], o["end"])) for o in larger):
            return "overlap"
        if row["headcount"] > self.world[row["resource"]]["capacity"]:
            return "crowd"
        shut = self.rules.text("shut") and self.all("closure", resource=row["resource"], day=row["day"])
        return "closed" if shut else IN_ORDER

    # ------------------------------------------------------------------------------------------------- itinerary

    def holds(self, ticket: Row) -> bool:
        """Whether a ticket is not refunded."""
        return not self.world.has("ticket", "validity") or ticket["validity"] != "refunded"

    def seats_left(self, leg: Handle) -> int:
        """Free seats of a leg."""
        refunds = bool(self.rules.text("refunds"))
        taken = sum(1 for _, row in self.all("ticket", leg=leg) if not refunds or self.holds(row))
        left = self.world[leg]["seats"] - taken
        return max(0, left - self.rules.number("kept", 0)) if self.rules.text("kept") else left

    def routes(self, origin: Handle, destination: Handle) -> list[tuple[Handle, ...]]:
        """All chains of legs from one site to another."""
        self.rules.need("route", "seats")
        found = self._routes.get((origin, destination))
        if found is None:
            found = [chain for chain in self._chains(origin, ()) if self.world[chain[-1]]["destination"] == destination]
            self._routes[origin, destination] = found
        return found

    def _chains(self, at: Handle, so_far: tuple[Handle, ...]) -> Iterator[tuple[Handle, ...]]:
        if len(so_far) == self.rules.number("chain"):
            return
        ready = self.world[so_far[-1]]["arrives"] + self.rules.number("change") if so_far else -1
        for leg, row in self.all("leg", origin=at):
            if row["departs"] >= ready and self.value(leg, "seats_left") > 0:
                yield (*so_far, leg)
                yield from self._chains(row["destination"], (*so_far, leg))

    def arrival(self, site: Handle, origin: Handle, hour: int) -> int:
        """Earliest arrival at a site from another."""
        if site == origin:
            return hour
        ends = [
            self.world[chain[-1]]["arrives"]
            for chain in self.routes(origin, site)
            if self.world[chain[0]]["departs"] >= hour
        ]
        return min(ends, default=self.rules.number("never"))

    def price(self, chain: tuple[Handle, ...]) -> int:
        """What a route costs."""
        return sum(self.world[leg]["fare"] + self.rules.number("fee", 0) for leg in chain)

    def fare(self, site: Handle, origin: Handle) -> int:
        """Route fare to a site from another."""
        if site == origin:
            return 0
        return min(map(self.price, self.routes(origin, site)), default=self.rules.number("no_fare"))

    def visit(self, attraction: Handle, origin: Handle, hour: int) -> bool:
        """Whether an attraction is open long enough on arrival."""
        row = self.world[attraction]
        begins = max(self.value(row["site"], "arrival", (origin, hour)), row["opens"])
        return row["closes"] - begins >= self.rules.number("stay")

    def outing(self, attraction: Handle, origin: Handle) -> int:
        """Outing cost of an attraction from a site."""
        row = self.world[attraction]
        return row["price"] + self.value(row["site"], "fare", (origin,))

    # ------------------------------------------------------------------------------------------------ allocation

    def full_cost(self, claim: Handle) -> int:
        """Amount with overhead."""
        amount = self.world[claim]["amount"]
        return amount + -(-amount * self.rules.number("overhead") // 100)

    def _cost(self, claim: Handle, said: str) -> int:
        return self.value(claim, "full_cost") if said.startswith("full cost") else self.world[claim]["amount"]

    def free_budget(self, fund: Handle) -> int:
        """Free budget of a fund."""
        budget = self.world[fund]["budget"]
        if self.rules.text("shares"):
            stage = self.rules.text("stage")
            budget += sum(
                row["amount"] for _, row in self.all("share", fund=fund) if not stage or row["stage"] == stage
            )
        budget -= -(-budget * self.rules.number("reserve", 0) // 100)
        taken = self.rules.text("taken")
        return budget - sum(self._cost(claim, taken) for claim, _ in self.all("claim", fund=fund, state="granted"))

    def exclude(self, one: Handle, other: Handle) -> bool:
        """Whether two claims exclude one another."""
        self.rules.need("exclude")
        if one == other:
            return False
        if self.rules.text("topic"):
            return self.world[one]["topic"] == self.world[other]["topic"]
        pair = {one, other}
        return any({row["first"], row["second"]} == pair for _, row in self.all("clash"))

    def keeps_quotas(self, fund: Handle, extra: tuple[Handle, ...]) -> bool:
        """Whether every quota of a fund would be kept with some claims granted besides."""
        for _, quota in self.all("quota", fund=fund):
            counted = [claim for claim, _ in self.all("claim", fund=fund, track=quota["track"], state="granted")]
            counted += [claim for claim in extra if self.world[claim]["track"] == quota["track"]]
            if not counted:
                continue
            in_number = "number" in self.rules.text("quota")
            if (len(counted) if in_number else sum(self.world[claim]["amount"] for claim in counted)) > quota["most"]:
                return False
        return True

    def grantable(self, claim: Handle) -> bool:
        """Whether a claim is grantable."""
        row = self.world[claim]
        fund = self.world[row["fund"]]
        rules = self.rules
        if row["state"] != rules.text("ready") or (rules.text("phase") and fund["phase"] != rules.text("phase")):
            return False
        if rules.text("bar") and row["merit"] < fund["bar"]:
            return False
        if self._cost(claim, rules.text("asked")) > self.value(row["fund"], "free_budget"):
            return False
        granted = [other for other, _ in self.all("claim", state="granted")]
        if any(self.exclude(claim, other) for other in granted):
            return False
        if rules.text("quota") and not self.keeps_track(claim):
            return False
        mine = sum(self.world[other]["person"] == row["person"] for other in granted)
        return mine < rules.number("most", mine + 1)

    def keeps_track(self, claim: Handle) -> bool:
        """Whether a claim and the granted ones of its fund and track are within the ceiling."""
        row = self.world[claim]
        counted = [claim, *(o for o, _ in self.all("claim", fund=row["fund"], track=row["track"], state="granted"))]
        amount = len(counted) if "number" in self.rules.text("quota") else sum(self.world[o]["amount"] for o in counted)
        return all(amount <= quota["most"] for _, quota in self.all("quota", fund=row["fund"], track=row["track"]))

    def together(self, fund: Handle) -> Iterator[tuple[Handle, ...]]:
        """Every set of claims of a fund that can be granted together, the empty one included.

        Raises:
            NotCoveredError: there are too many sets.
        """
        self.rules.need("together", "grantable")
        claims = [claim for claim, _ in self.all("claim", fund=fund) if self.value(claim, "grantable")]
        if len(claims) > 20:
            raise NotCoveredError(f"{len(claims)} grantable claims of one fund are too many to enumerate")
        free = self.value(fund, "free_budget")
        yield from self._sets(claims, (), free)

    def _sets(self, left: list[Handle], chosen: tuple[Handle, ...], free: int) -> Iterator[tuple[Handle, ...]]:
        yield chosen
        for place, claim in enumerate(left):
            cost = self._cost(claim, self.rules.text("spent"))
            more = (*chosen, claim)
            if cost <= free and not any(self.exclude(claim, o) for o in chosen) and self._kept(more):
                yield from self._sets(left[place + 1 :], more, free - cost)

    def _kept(self, extra: tuple[Handle, ...]) -> bool:
        rules, newest = self.rules, self.world[extra[-1]]
        if rules.text("all_quotas") and not self.keeps_quotas(newest["fund"], extra):
            return False
        if not (rules.text("all_persons") or rules.text("persons_only")):
            return True
        mine = len(self.all("claim", person=newest["person"], state="granted"))
        mine += sum(self.world[other]["person"] == newest["person"] for other in extra)
        return mine <= rules.number("most", mine)

    def best_sets(self, fund: Handle) -> list[tuple[Handle, ...]]:
        """The sets that can be granted together and are worth most."""
        worth = {chosen: sum(self.world[claim]["merit"] for claim in chosen) for chosen in self.together(fund)}
        most = max(worth.values())
        return [chosen for chosen in worth if worth[chosen] == most]

    def attainable(self, fund: Handle) -> int:
        """Attainable merit of a fund."""
        return sum(self.world[claim]["merit"] for claim in self.best_sets(fund)[0])

    def broken_by_claim(self, claim: Handle) -> str:
        """Name of the first rule of order that a claim breaks."""
        self.rules.need("order_claim")
        row = self.world[claim]
        if row["state"] != "granted":
            return IN_ORDER
        granted = [(other, o) for other, o in self.all("claim", state="granted") if other != claim]
        if any(o["merit"] > row["merit"] and self.exclude(claim, other) for other, o in granted):
            return "exclusion"
        mine = [o["merit"] for _, o in granted if o["fund"] == row["fund"]]
        red = self.value(row["fund"], "free_budget") < 0
        return "overspent" if red and all(merit > row["merit"] for merit in mine) else IN_ORDER

    def awarded(self, person: Handle) -> int:
        """Awarded money of a person."""
        return sum(row["amount"] for _, row in self.all("claim", person=person, state="granted"))
