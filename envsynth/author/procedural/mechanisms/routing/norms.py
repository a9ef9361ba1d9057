"""What order means among shipments: whatever is booked has bookings, and none of them is for a barred day."""

from __future__ import annotations

import random

from envsynth.author.procedural.mechanism import Breach, Composed, Norm, Row
from envsynth.author.procedural.mechanisms.planting import Planting
from envsynth.author.procedural.mechanisms.routing.bindings import Bindings

STATES = ("booked", "underway")
"""States in which a shipment has bookings."""


class NormTexts(Bindings):
    """Writes the norm over one world."""

    def __init__(self, world: Composed) -> None:
        super().__init__(world)
        self.shipment, self.bookings = world.word("shipment"), world.plural("consignment")
        self.repair = f"call the {self.shipment} back"

    def norm(self) -> Norm:
        """All rules of a shipment."""
        return Norm(entity="shipment", breaches=(self.unbooked(), *([self.barred_day()] if self.barred else [])))

    def mine_sql(self) -> str:
        """SQL condition that the booking `k` is a live one of the row."""
        return f'k."{self.cargo}" = {{t}}."{self.cargo_key}"{self.live_sql("k")}'

    def plan_mine(self) -> str:
        """Planner source of `slots_of`: the live bookings of a shipment."""
        live = " if not POLICY or k['status'] == 'live'" if self.trace else ""
        return (
            "def slots_of(shipment):\n"
            f"    return [k for k in rows('consignment', {{{self.cargo!r}: shipment[{self.cargo_key!r}]}}){live}]\n"
        )

    def unbooked(self) -> Breach:
        """A shipment that is said to be booked, and is not."""
        live = " that is not recalled" if self.trace else ""
        states = ", ".join(f"'{state}'" for state in STATES)
        return Breach(
            name="unbooked",
            rule=f"its state is booked or underway and it has no {self.world.word('consignment')}{live}",
            sql=(
                f'({{t}}."state" IN ({states}) AND NOT EXISTS (SELECT 1 FROM "consignment" k WHERE {self.mine_sql()}))'
            ),
            plan=(
                self.plan_mine() + "def p_shipment_unbooked(row):\n"
                f"    return row['state'] in {STATES} and (not CHECKS or not slots_of(row))\n"
            ),
            goal=(
                "@once\n"
                "def cargo_with_slots():\n"
                f"    return {{k[{self.cargo!r}] for k in db['consignment']{self._live_goal()}}}\n"
                "def v_shipment_unbooked(db, row):\n"
                f"    return row['state'] in {list(STATES)} and row[{self.cargo_key!r}] not in cargo_with_slots()\n"
            ),
            repair=self.repair,
            action="call_back",
            parameter="shipment",
            plant=self.plant_unbooked,
        )

    def _live_goal(self) -> str:
        return " if k['status'] != 'recalled'" if self.trace else ""

    def barred_day(self) -> Breach:
        """A shipment with a booking for a day on which its lane, or the start of it, is barred."""
        word = self.world.word
        live = " that is not recalled" if self.trace else ""
        whose = word("lane") if self.barred == "lane" else f"start of its {word('lane')}"
        on_lane = f'e."{self.bar}" = l."{self.bar_key}"'
        on_site = (
            f'e."{self.bar}" = (SELECT s."{self.bar_key}" FROM "site" s WHERE s."{self.start_key}" = l."{self.start}")'
        )
        place = "lane"
        if self.barred == "site":
            place = f"named('site', {self.start_key!r}, lane[{self.start!r}])"
        return Breach(
            name="barred",
            rule=(
                f"its state is booked or underway and it has a {word('consignment')}{live} for a day on which the {whose} "
                f"has a {word('embargo')}"
            ),
            sql=(
                f"({{t}}.\"state\" IN ('booked', 'underway') AND EXISTS (SELECT 1 FROM \"consignment\" k"
                f' JOIN "lane" l ON l."{self.lane_key}" = k."{self.lane}" JOIN "embargo" e ON e."day" = k."day"'
                f" AND {on_lane if self.barred == 'lane' else on_site} WHERE {self.mine_sql()}))"
            ),
            plan=(
                self.plan_mine() + "def p_shipment_barred(row):\n"
                f"    if row['state'] not in {STATES}:\n"
                "        return False\n"
                "    for k in slots_of(row):\n"
                f"        lane = named('lane', {self.lane_key!r}, k[{self.lane!r}])\n"
                f"        shut = rows('embargo', {{{self.bar!r}: {place}[{self.bar_key!r}]}})\n"
                "        if [e for e in shut if not CHECKS or e['day'] == k['day']]:\n"
                "            return True\n"
                "    return False\n"
            ),
            goal=self.barred_goal(),
            repair=self.repair,
            action="call_back",
            parameter="shipment",
            plant=self.plant_barred,
        )

    def barred_goal(self) -> str:
        """Goal source of `v_shipment_barred`."""
        keys = f"{{l[{self.lane_key!r}]: l[{self.bar_key!r}] for l in db['lane']}}"
        if self.barred == "site":
            sites = f"{{s[{self.start_key!r}]: s[{self.bar_key!r}] for s in db['site']}}"
            keys = f"{{l[{self.lane_key!r}]: {sites}[l[{self.start!r}]] for l in db['lane']}}"
        return (
            "@once\n"
            "def cargo_on_barred_days():\n"
            f"    keys = {keys}\n"
            f"    shut = {{(e[{self.bar!r}], e['day']) for e in db['embargo']}}\n"
            f"    slots = [k for k in db['consignment']{self._live_goal()}]\n"
            f"    return {{k[{self.cargo!r}] for k in slots if (keys[k[{self.lane!r}]], k['day']) in shut}}\n"
            "def v_shipment_barred(db, row):\n"
            f"    return row[{self.cargo_key!r}] in cargo_on_barred_days() and row['state'] in {list(STATES)}\n"
        )

    # ------------------------------------------------------------------------------------------------------ planting

    def slot(self, planting: Planting, cargo: Row, lane: Row, day: str, status: str) -> None:
        """Book a shipment on a lane."""
        link = {self.cargo: cargo[self.cargo_key], self.lane: lane[self.lane_key]}
        traced = {"status": status} if self.trace else {}
        like = planting.rng.choice(self.world.rows["consignment"])
        planting.add("consignment", like, day=day, position=1, **link, **traced)

    def plant_unbooked(self, rng: random.Random) -> list[tuple[str, Row]]:
        """A booked shipment without a booking; near misses: a waiting one without, a booked one with one."""
        planting = Planting(self.world, rng)
        base = planting.pick([row for row in self.world.rows["shipment"] if row["state"] in STATES], "booked shipment")
        lane, day = rng.choice(self.world.rows["lane"]), self.days[-1]
        lost = planting.add("shipment", base)
        if self.trace:
            self.slot(planting, lost, lane, day, "recalled")
        planting.add_early("shipment", base, state="waiting")
        return planting.rows

    def plant_barred(self, rng: random.Random) -> list[tuple[str, Row]]:
        """A shipment booked on a barred day; near misses: one recalled on that day, one that waits."""
        planting = Planting(self.world, rng)
        ahead = [row for row in self.world.rows["embargo"] if str(row["day"]) >= self.days[self.notice]]
        shut = planting.pick(ahead, "barred day ahead")
        keys = (
            {site[self.start_key]: site[self.bar_key] for site in self.world.rows["site"]}
            if self.barred == "site"
            else {}
        )
        lanes = [
            lane
            for lane in self.world.rows["lane"]
            if (lane[self.bar_key] if self.barred == "lane" else keys[lane[self.start]]) == shut[self.bar]
        ]
        lane, day = planting.pick(lanes, "lane with a barred day"), str(shut["day"])
        base = planting.pick([row for row in self.world.rows["shipment"] if row["state"] in STATES], "booked shipment")
        self.slot(
            planting, planting.add("shipment", base, weight=rng.randint(3, 20), state="booked"), lane, day, "live"
        )
        near = planting.add_early("shipment", base, state="waiting")
        if self.trace:
            self.slot(planting, near, lane, day, "recalled")
        return planting.rows
