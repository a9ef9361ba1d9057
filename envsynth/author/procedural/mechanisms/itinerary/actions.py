"""Actions of an itinerary world: buy a route, refund a ticket; each with its three texts."""

from __future__ import annotations

from envsynth.author.procedural.ir import Type
from envsynth.author.procedural.mechanism import Action
from envsynth.author.procedural.mechanisms.itinerary.bindings import SITE, Bindings


class ActionTexts(Bindings):
    """Writes the actions over one world."""

    def buy(self) -> Action:
        """Buy the tickets of a cheapest route; any such route will do."""
        ticket, tickets = self.world.word("ticket"), self.world.plural("ticket")
        leg, person = self.world.word("leg"), self.world.word("person")
        live = f" A refunded {ticket} does not count as held." if self.refunds else ""
        return Action(
            name="buy",
            phrase=f"buy {tickets} for {{person}} from {{origin}} to {{destination}} by the cheapest route",
            params=(("person", Type("row", "person")), ("origin", SITE), ("destination", SITE)),
            oracle_sql=self.buy_sql(),
            plan=self.buy_plan(),
            goal=self.buy_goal(),
            tables=("ticket",),
            policy=(
                f"To buy {tickets} by the cheapest route, buy one {ticket} for each {leg} of a route with the route fare; "
                f"every such route will do that has no {leg} for which the {person} holds a {ticket} already.{live}"
            ),
        )

    def buy_sql(self) -> str:
        """Oracle: the tickets of one cheapest route none of whose connections the person has yet."""
        live = " AND k.\"validity\" = 'valid'" if self.refunds else ""
        state = ", 'validity', 'valid'" if self.refunds else ""
        return (
            f'WITH RECURSIVE {self.open_sql()}, "who" AS (SELECT p."{self.person_key}" AS "link" FROM "person" p'
            ' WHERE p."id" = {person}),'
            f' "mine" AS MATERIALIZED (SELECT k."{self.leg}" AS "link" FROM "ticket" k, "who"'
            f' WHERE k."{self.person}" = "who"."link"{live}),'
            ' "way"("at", "ready", "legs", "fare", "route", "held") AS ('
            "SELECT {origin}, 0, 0, 0, '[]', 0 UNION ALL"
            f' SELECT o."to", o."arrives" + {self.transfer}, "way"."legs" + 1, "way"."fare" + o."fare",'
            ' json_insert("way"."route", \'$[#]\', o."leg"),'
            ' "way"."held" + (o."link" IN (SELECT "link" FROM "mine"))'
            f" FROM {self.step_sql()}),"
            ' "best" AS (SELECT "route" FROM "way" WHERE "at" = {destination} AND "legs" > 0 AND "held" = 0'
            ' AND {origin} <> {destination} AND "fare" = (SELECT MIN("fare") FROM "way" WHERE "at" = {destination})'
            ' ORDER BY "legs", "route" LIMIT 1)'
            f" SELECT 'insert', 'ticket', json_object('{self.leg}', o.\"link\", '{self.person}', \"who\".\"link\"{state})"
            ' FROM "best", json_each("best"."route") e, "open" o, "who" WHERE o."leg" = e."value" ORDER BY e."key"'
        )

    def buy_plan(self) -> str:
        """Planner source of `a_buy`."""
        live = " if t['validity'] == 'valid'" if self.refunds else ""
        return (
            self.plan_routes() + "def a_buy(person, origin, destination):\n"
            "    if origin['id'] == destination['id']:\n"
            "        raise RuntimeError('nowhere to go')\n"
            "    routes = routes_between(origin, destination, 0)\n"
            "    lowest = min([route_fare(route) for route in routes])\n"
            f"    mine = rows('ticket', {{{self.person!r}: person[{self.person_key!r}]}})\n"
            f"    mine = [t[{self.leg!r}] for t in mine{live}]\n"
            "    for route in routes:\n"
            f"        held = [l for l in route if l[{self.leg_key!r}] in mine]\n"
            "        if route_fare(route) == lowest and not held:\n"
            "            for l in route:\n"
            f"                write({self.buy_tool!r}, {self.arg('leg')}=l['id'], {self.arg('person')}=person['id'])\n"
            "            return\n"
            "    raise RuntimeError('every cheapest route has a part that is held already')\n"
        )

    def buy_goal(self) -> str:
        """Goal source of `s_buy`: the new tickets hold a route with the lowest fare, each connection once."""
        live = "            if new['validity'] != 'valid':\n                continue\n" if self.refunds else ""
        return (
            self.goal_fare() + "def s_buy(db, diff, person, origin, destination):\n"
            "    if origin['id'] == destination['id']:\n"
            "        return None\n"
            "    best = g_fare(db, destination, origin)\n"
            "    legs = open_legs()\n"
            "    bought = []\n"
            "    for entry in diff:\n"
            "        new = entry['new']\n"
            "        if entry['op'] == 'insert' and entry['table'] == 'ticket':\n"
            f"{live}"
            f"            if new[{self.person!r}] == person[{self.person_key!r}] and new[{self.leg!r}] in legs:\n"
            f"                bought.append((legs[new[{self.leg!r}]], entry))\n"
            "    def complete(place, ready, paid, chosen):\n"
            "        if place == destination['id'] and paid == best and chosen:\n"
            "            return chosen\n"
            f"        if len(chosen) == {self.max_legs}:\n"
            "            return None\n"
            "        for (here, there, departs, arrives, price), entry in bought:\n"
            "            if here == place and departs >= ready:\n"
            f"                found = complete(there, arrives + {self.transfer}, paid + price, chosen + [entry])\n"
            "                if found:\n"
            "                    return found\n"
            "        return None\n"
            "    return complete(origin['id'], 0, 0, [])\n"
        )

    def refund(self) -> Action:
        """Refund a ticket."""
        ticket = self.world.word("ticket")
        return Action(
            name="refund",
            phrase="refund {ticket}",
            params=(("ticket", Type("row", "ticket")),),
            oracle_sql=(
                "SELECT 'update', 'ticket', json_object('id', k.\"id\", 'validity', 'refunded')"
                ' FROM "ticket" k WHERE k."id" = {ticket} AND k."validity" = \'valid\''
            ),
            plan=(f"def a_refund(ticket):\n    write({self.refund_tool!r}, {self.arg('ticket')}=ticket['id'])\n"),
            goal=(
                "def s_refund(db, diff, ticket):\n"
                "    for entry in diff:\n"
                "        if entry['op'] == 'update' and entry['table'] == 'ticket':\n"
                "            if entry['new'] == {**ticket, 'validity': 'refunded'}:\n"
                "                return [entry]\n"
                "    return None\n"
            ),
            tables=("ticket",),
            policy=f"A refunded {ticket} cannot be refunded again.",
        )
