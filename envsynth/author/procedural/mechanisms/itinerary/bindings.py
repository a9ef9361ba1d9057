"""What the texts of an itinerary world have in common: column names and rules of one world, and shared pieces.

The three searches differ on purpose: SQL grows all chains of connections, the planner extends routes depth first, the
goals scan the connections once in order of departure.
"""

from __future__ import annotations

from envsynth.author.procedural.ir import Type
from envsynth.author.procedural.mechanism import Composed
from envsynth.author.procedural.mechanisms.entities import id_argument

HOUR = Type("num", "oclock")
CREDITS = Type("num", "credits")
PEOPLE = Type("num", "people")
SITE = Type("row", "site")

NEVER = 99
"""Arrival time, in hours, where there is no route."""
NO_FARE = 9999
"""Route fare, in credits, where there is no route."""


class Bindings:
    """The texts over one composed world: column names, nouns and rules are bound here."""

    def __init__(self, world: Composed) -> None:
        self.world = world
        self.origin, self.origin_key = world.fk("leg", "origin")
        self.destination, self.destination_key = world.fk("leg", "destination")
        self.leg, self.leg_key = world.fk("ticket", "leg")
        self.person, self.person_key = world.fk("ticket", "person")
        rules = world.rules
        self.transfer, self.max_legs = int(rules["transfer"]), int(rules["max_legs"])
        self.kept, self.fee, self.hours = (
            int(rules["kept_seats"]),
            int(rules["fee"]),
            int(rules["visit"]),
        )
        self.refunds = rules["refunds"]
        self.buy_tool = f"buy_{world.slug('ticket')}"
        self.refund_tool = f"refund_{world.slug('ticket')}"

    def arg(self, entity: str) -> str:
        """Name of the tool argument that takes an id."""
        return id_argument(self.world, entity)

    # SQL --------------------------------------------------------------------------------------------------------

    def seats_sql(self, leg: str) -> str:
        """SQL of the seats that are still sold."""
        live = " AND k.\"validity\" = 'valid'" if self.refunds else ""
        return (
            f'MAX(0, {leg}."seats" - {self.kept} - (SELECT COUNT(*) FROM "ticket" k'
            f' WHERE k."{self.leg}" = {leg}."{self.leg_key}"{live}))'
        )

    def open_sql(self) -> str:
        """SQL of a common table `open` of the connections that still have seats, with ids of their places."""
        return (
            '"open" AS MATERIALIZED (SELECT l."id" AS "leg", a."id" AS "from", b."id" AS "to", l."departs",'
            f' l."arrives", l."fare" + {self.fee} AS "fare", l."{self.leg_key}" AS "link" FROM "leg" l'
            f' JOIN "site" a ON a."{self.origin_key}" = l."{self.origin}"'
            f' JOIN "site" b ON b."{self.destination_key}" = l."{self.destination}"'
            f" WHERE {self.seats_sql('l')} > 0)"
        )

    def step_sql(self) -> str:
        """SQL of the join that extends a chain `way` by one connection."""
        return (
            f'"way" JOIN "open" o ON o."from" = "way"."at" AND o."departs" >= "way"."ready"'
            f' WHERE "way"."legs" < {self.max_legs}'
        )

    def arrival_sql(self, place: str, origin: str, start: str) -> str:
        """SQL of the earliest arrival; `place` and `origin` are ids."""
        return (
            f"(WITH RECURSIVE {self.open_sql()},"
            f' "way"("at", "ready", "legs") AS (SELECT {origin}, {start}, 0 UNION'
            f' SELECT o."to", o."arrives" + {self.transfer}, "way"."legs" + 1 FROM {self.step_sql()})'
            f" SELECT CASE WHEN {place} = {origin} THEN {start} ELSE"
            f' COALESCE(MIN("ready") - {self.transfer}, {NEVER}) END'
            f' FROM "way" WHERE "at" = {place} AND "legs" > 0)'
        )

    def fare_sql(self, place: str, origin: str) -> str:
        """SQL of the cheapest fare; `place` and `origin` are ids."""
        return (
            f"(WITH RECURSIVE {self.open_sql()},"
            f' "way"("at", "ready", "legs", "fare") AS (SELECT {origin}, 0, 0, 0 UNION'
            f' SELECT o."to", o."arrives" + {self.transfer}, "way"."legs" + 1, "way"."fare" + o."fare"'
            f" FROM {self.step_sql()})"
            f' SELECT COALESCE(MIN("fare"), {NO_FARE}) FROM "way" WHERE "at" = {place})'
        )

    # planner ----------------------------------------------------------------------------------------------------

    def plan_seats(self) -> str:
        """Planner source of `d_seats_left`."""
        live = " if t['validity'] == 'valid'" if self.refunds else ""
        return (
            "def d_seats_left(row):\n"
            "    if not POLICY:\n"
            "        return row['seats']\n"
            f"    sold = [t for t in rows('ticket', {{{self.leg!r}: row[{self.leg_key!r}]}}){live}]\n"
            f"    return max(0, row['seats'] - {self.kept} - len(sold))\n"
        )

    def plan_routes(self) -> str:
        """Planner source of `routes_between`: all routes, or with greed only those of the fewest connections."""
        live = " if t['validity'] == 'valid'" if self.refunds else ""
        named = self.origin_key != "id" or self.destination_key != "id"
        ids = "    ids = {s['name']: s['id'] for s in rows('site', {})}\n" if named else ""
        start = f"l[{self.origin!r}]" if self.origin_key == "id" else f"ids[l[{self.origin!r}]]"
        end = f"l[{self.destination!r}]" if self.destination_key == "id" else f"ids[l[{self.destination!r}]]"
        fee = f" + ({self.fee} if POLICY else 0)" if self.fee else ""
        return (
            "def open_legs():\n"
            "    legs = rows('leg', {})\n"
            "    if not POLICY:\n"
            "        return legs\n"
            "    sold = {}\n"
            f"    for key in [t[{self.leg!r}] for t in rows('ticket', {{}}){live}]:\n"
            "        sold[key] = sold.get(key, 0) + 1\n"
            f"    return [l for l in legs if l['seats'] - sold.get(l[{self.leg_key!r}], 0) > {self.kept}]\n"
            "def routes_between(origin, destination, start):\n"
            f"{ids}"
            "    leaving = {}\n"
            "    for l in open_legs():\n"
            f"        leaving[{start}] = leaving.get({start}, []) + [(l, {end})]\n"
            f"    wait = {self.transfer} if POLICY else 0\n"
            "    found, todo = [], [([], origin['id'], start)]\n"
            "    while todo:\n"
            "        route, place, ready = todo.pop()\n"
            "        if route and place == destination['id']:\n"
            "            found.append(route)\n"
            f"        elif len(route) < {self.max_legs}:\n"
            "            for l, end in leaving.get(place, []):\n"
            "                if l['departs'] >= ready:\n"
            "                    todo.append((route + [l], end, l['arrives'] + wait))\n"
            "    if GREEDY and found:\n"
            "        fewest = min([len(route) for route in found])\n"
            "        found = [route for route in found if len(route) == fewest]\n"
            "    return found\n"
            "def route_fare(route):\n"
            f"    return sum([l['fare']{fee} for l in route])\n"
        )

    def plan_fare(self) -> str:
        """Planner source of `d_fare`."""
        return (
            self.plan_routes() + "def d_fare(row, origin):\n"
            "    if row['id'] == origin['id']:\n"
            "        return 0\n"
            "    fares = [route_fare(route) for route in routes_between(origin, row, 0)]\n"
            f"    return min(fares) if fares else {NO_FARE}\n"
        )

    def plan_arrival(self) -> str:
        """Planner source of `d_arrival`."""
        return (
            self.plan_routes() + "def d_arrival(row, origin, start):\n"
            "    if row['id'] == origin['id']:\n"
            "        return start\n"
            "    ends = [route[-1]['arrives'] for route in routes_between(origin, row, start)]\n"
            f"    return min(ends) if ends else {NEVER}\n"
        )

    # goals ------------------------------------------------------------------------------------------------------

    def goal_seats(self) -> str:
        """Goal source of `g_seats_left`."""
        refunded = "        if t['validity'] == 'refunded':\n            continue\n" if self.refunds else ""
        return (
            "@once\n"
            "def tickets_of_legs():\n"
            "    sold = {}\n"
            "    for t in db['ticket']:\n"
            f"{refunded}"
            f"        sold[t[{self.leg!r}]] = sold.get(t[{self.leg!r}], 0) + 1\n"
            "    return sold\n"
            "def g_seats_left(db, row):\n"
            f"    left = row['seats'] - {self.kept} - tickets_of_legs().get(row[{self.leg_key!r}], 0)\n"
            "    return left if left > 0 else 0\n"
        )

    def goal_legs(self) -> str:
        """Goal source of `open_legs`: (from, to, departure, arrival, price) of connections with free seats, by key."""
        return (
            self.goal_seats() + "@once\n"
            "def open_legs():\n"
            f"    starts = {{s[{self.origin_key!r}]: s['id'] for s in db['site']}}\n"
            f"    ends = {{s[{self.destination_key!r}]: s['id'] for s in db['site']}}\n"
            "    legs = {}\n"
            "    for leg in sorted(db['leg'], key=lambda leg: leg['departs']):\n"
            "        if g_seats_left(db, leg) > 0:\n"
            f"            here, there = starts[leg[{self.origin!r}]], ends[leg[{self.destination!r}]]\n"
            f"            hours, price = (leg['departs'], leg['arrives']), leg['fare'] + {self.fee}\n"
            f"            legs[leg[{self.leg_key!r}]] = (here, there, *hours, price)\n"
            "    return legs\n"
        )

    def goal_scan(self) -> str:
        """Goal source of `labels_from`: for each place, what (arrival, connections, fare) can be had there."""
        return (
            self.goal_legs() + "def labels_from(origin, start):\n"
            "    labels = {s['id']: set() for s in db['site']}\n"
            "    for here, there, departs, arrives, price in open_legs().values():\n"
            "        if here == origin and departs >= start:\n"
            "            labels[there].add((arrives, 1, price))\n"
            "        for arrived, legs, paid in list(labels[here]):\n"
            f"            if legs < {self.max_legs} and departs - arrived >= {self.transfer}:\n"
            "                labels[there].add((arrives, legs + 1, paid + price))\n"
            "    return labels\n"
        )

    def goal_fare(self) -> str:
        """Goal source of `g_fare`."""
        return (
            self.goal_scan() + "@once\n"
            "def fares_from(origin):\n"
            "    labels = labels_from(origin, 0).items()\n"
            f"    return {{place: min([paid for _, _, paid in found], default={NO_FARE}) for place, found in labels}}\n"
            "def g_fare(db, row, origin):\n"
            "    return 0 if row['id'] == origin['id'] else fares_from(origin['id'])[row['id']]\n"
        )

    def goal_arrival(self) -> str:
        """Goal source of `g_arrival`."""
        return (
            self.goal_scan() + "@once\n"
            "def arrivals_from(origin, start):\n"
            "    labels = labels_from(origin, start).items()\n"
            f"    return {{place: min([hour for hour, _, _ in found], default={NEVER}) for place, found in labels}}\n"
            "def g_arrival(db, row, origin, start):\n"
            "    return start if row['id'] == origin['id'] else arrivals_from(origin['id'], start)[row['id']]\n"
        )

    # sentences --------------------------------------------------------------------------------------------------

    def route_policy(self) -> str:
        """What a route is."""
        leg, legs, site = self.world.word("leg"), self.world.plural("leg"), self.world.word("site")
        return (
            f"A route is a chain of at most {self.max_legs} {legs} of one day, each with free seats; each starts at the "
            f"{site} where the one before ended, at least {self.transfer} hour{'s' if self.transfer > 1 else ''} after "
            f"its arrival. Every {leg} runs every day, within the day."
        )

    def seats_policy(self) -> str:
        """What free seats are."""
        leg, tickets = self.world.word("leg"), self.world.plural("ticket")
        kept = f", less {self.kept} that is kept back, but never below 0" if self.kept else ""
        live = f"; refunded {tickets} do not count" if self.refunds else ""
        return f"The free seats of a {leg} are its seat count less its {tickets}{kept}{live}."

    def fare_policy(self) -> str:
        """What route fare is."""
        site, leg = self.world.word("site"), self.world.word("leg")
        fee = f" plus a fee of {self.fee} credits per {leg}" if self.fee else ""
        return (
            f"The route fare from one {site} to another is that of the cheapest route, at any hour: its basic fares added "
            f"up{fee}. Without a route it counts as {NO_FARE} credits; from a {site} to itself it is 0."
        )
