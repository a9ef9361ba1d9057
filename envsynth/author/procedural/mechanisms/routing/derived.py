"""Derived attributes of a freight world, each with its three texts."""

from __future__ import annotations

from envsynth.author.procedural.ir import Type
from envsynth.author.procedural.mechanism import Derived
from envsynth.author.procedural.mechanisms.routing.bindings import (
    CREDITS,
    DAY,
    HOURS,
    KILOGRAMS,
    NEVER,
    NO_COST,
    Bindings,
)


class DerivedTexts(Bindings):
    """Writes the derived attributes over one world."""

    def lane_room(self) -> Derived:
        """Free capacity of a lane on a day."""
        lane, shipments = self.world.word("lane"), self.world.plural("shipment")
        return Derived(
            entity="lane",
            name="lane_room",
            label="free capacity on {0}",
            params=(DAY,),
            type=KILOGRAMS,
            sql=(
                f'({{t}}."capacity" - (SELECT COALESCE(SUM(s."weight"), 0) FROM "consignment" k JOIN "shipment" s'
                f' ON s."{self.cargo_key}" = k."{self.cargo}" WHERE k."{self.lane}" = {{t}}."{self.lane_key}"'
                f' AND k."day" = {{0}}{self.live_sql("k")}))'
            ),
            plan=(
                self.plan_loads() + "def d_lane_room(row, day):\n"
                "    loads = freight_loads(None) if POLICY else {}\n"
                f"    return row['capacity'] - sum([s['weight'] for s in loads.get((row[{self.lane_key!r}], day), [])])\n"
            ),
            goal=(
                self.goal_aboard() + "def g_lane_room(db, row, day):\n"
                "    left = row['capacity']\n"
                f"    for _, _, weight in freight_aboard().get((row[{self.lane_key!r}], day), []):\n"
                "        left -= weight\n"
                "    return left\n"
            ),
            policy=(
                f"The free capacity of a {lane} on a day is its capacity less the weights of all {shipments} with a "
                f"{self.world.word('consignment')} for that {lane} on that day{self.live_words()}."
            ),
        )

    def arrival(self) -> Derived:
        """Earliest arrival of a shipment."""
        shipment = self.world.word("shipment")
        return Derived(
            entity="shipment",
            name="freight_arrival",
            label="earliest arrival",
            type=HOURS,
            sql=self.arrival_sql('{t}."id"'),
            plan=self.plan_arrival(),
            goal=self.goal_arrival(),
            policy=(
                f"The earliest arrival of a {shipment} is the earliest hour at which any chain brings it to its "
                f"destination, whatever its deadline; without a chain it counts as {NEVER} hours."
            ),
        )

    def cost(self) -> Derived:
        """Cost of the cheapest chain in time."""
        shipment = self.world.word("shipment")
        return Derived(
            entity="shipment",
            name="freight_cost",
            label="freight cost",
            type=CREDITS,
            sql=self.cost_sql('{t}."id"'),
            plan=(
                self.plan_chains() + "def d_freight_cost(row):\n"
                "    charges = [chain_charge(chain) for chain in chains_in_time(row)]\n"
                f"    return min(charges) if charges else {NO_COST}\n"
            ),
            goal=self.goal_cost(),
            policy=(
                f"The freight cost of a {shipment} is the lowest cost of a chain that arrives at or before its deadline; "
                f"without one it counts as {NO_COST} credits. Like the earliest arrival, it is worked out alike for a "
                f"{shipment} in any state."
            ),
        )

    def timely(self) -> Derived:
        """Whether some chain is in time."""
        return Derived(
            entity="shipment",
            name="freight_timely",
            label="deliverable in time",
            type=Type("bool"),
            sql=f'({self.arrival_sql("{t}.id")} <= {{t}}."deadline")',
            plan=(
                self.plan_arrival() + "def d_freight_timely(row):\n"
                "    return d_freight_arrival(row) <= row['deadline']\n"
            ),
            goal=(
                self.goal_ways() + "def g_freight_timely(db, row):\n"
                "    return any(row['deadline'] - arrives >= 0 for arrives, _ in freight_ways(row['id']))\n"
            ),
            policy=(
                f"A {self.world.word('shipment')} is deliverable in time if its earliest arrival is at or before its "
                "deadline."
            ),
        )
