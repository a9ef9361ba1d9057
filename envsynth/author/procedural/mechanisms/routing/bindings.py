"""What the texts of a freight world have in common: column names and rules of one world, and shared pieces.

The three searches differ on purpose: SQL joins all departures that a shipment can use, the planner extends chains lane by
lane, the goals keep what hours and charges can be had at each place.
"""

from __future__ import annotations

from datetime import date, timedelta

from envsynth.author.procedural.ir import Type
from envsynth.author.procedural.mechanism import Composed
from envsynth.author.procedural.mechanisms.entities import id_argument
from envsynth.author.procedural.mechanisms.routing.network import DAYS

DAY = Type("date")
HOURS, CREDITS, KILOGRAMS = Type("num", "h"), Type("num", "credits"), Type("num", "kg")

NEVER = 999
"""Earliest arrival, in hours, where there is no chain."""
NO_COST = 9999
"""Freight cost, in credits, where no chain is in time."""


class Bindings:
    """The texts over one composed world: column names, nouns and rules are bound here."""

    def __init__(self, world: Composed) -> None:
        self.world = world
        self.start, self.start_key = world.fk("lane", "origin")
        self.end, self.end_key = world.fk("lane", "destination")
        self.origin, self.origin_key = world.fk("shipment", "origin")
        self.target, self.target_key = world.fk("shipment", "destination")
        self.sender, self.sender_key = world.fk("shipment", "sender")
        self.cargo, self.cargo_key = world.fk("consignment", "shipment")
        self.lane, self.lane_key = world.fk("consignment", "lane")
        rules = world.rules
        self.barred = "" if rules["freight_embargo"] == "none" else str(rules["freight_embargo"])
        self.bar, self.bar_key = world.fk("embargo", self.barred) if self.barred else ("", "")
        self.most, self.handling = int(rules["freight_most"]), int(rules["freight_handling"])
        self.step, self.bundle = int(rules["freight_step"]), int(rules["freight_bundle"])
        self.hazmat, self.rolls, self.trace = rules["freight_hazmat"], rules["freight_rolls"], rules["freight_trace"]
        self.holds, self.strict, self.notice = (
            rules["freight_holds"],
            rules["freight_strict"],
            int(rules["freight_notice"]),
        )
        today = date.fromisoformat(world.now[:10])
        self.days = [(today + timedelta(days=number)).isoformat() for number in range(DAYS)]
        self.book_tool = f"book_{world.slug('lane')}"
        self.call_back_tool = f"call_back_{world.slug('shipment')}"
        self.horizon = 24 * DAYS
        self.defer_tool = f"defer_{world.slug('shipment')}"
        self.release_tool = f"release_{world.slug('shipment')}"

    def arg(self, entity: str) -> str:
        """Name of the tool argument that takes an id."""
        return id_argument(self.world, entity)

    # SQL --------------------------------------------------------------------------------------------------------

    def live_sql(self, row: str) -> str:
        """SQL condition, to be appended, that a booking was not called back."""
        return f" AND {row}.\"status\" = 'live'" if self.trace else ""

    def along_sql(self, found: str, where: str = "") -> str:
        """SQL over the other shipments that go with the departure `d`; not worked out where nothing goes."""
        return (
            f'CASE WHEN d."kg" = 0 THEN 0 ELSE (SELECT {found} FROM "consignment" k JOIN "shipment" s'
            f' ON s."{self.cargo_key}" = k."{self.cargo}" WHERE k."{self.lane}" = d."link" AND k."day" = d."date"'
            f' AND s."id" <> "me"."id"{self.live_sql("k")}{where}) END'
        )

    def charge_sql(self) -> str:
        """SQL of what the departure `d` charges the shipment `me`."""
        full = f'd."cost" * (("me"."weight" + {self.step - 1}) / {self.step})' if self.step else 'd."cost"'
        if not self.bundle:
            return full
        same = self.along_sql("COUNT(*) > 0", f' AND s."{self.sender}" = "me"."sender"')
        return f"{full} - ({same}) * ({full} * {self.bundle} / 100)"

    def departures_sql(self, shipment: str, state: str = "") -> str:
        """SQL of common tables: `me` is the shipment with that id (in that state); `run` is each departure that it can use.

        A departure serves those that are ready by `leaves` and were not ready by `after`. What does not depend on the
        shipment stands in tables of its own, which SQLite works out once for all shipments.
        """
        days = ", ".join(f"({number}, '{day}')" for number, day in enumerate(self.days))
        shut = ""
        if self.barred:
            row = "l" if self.barred == "lane" else "a"
            shut = (
                f' WHERE NOT EXISTS (SELECT 1 FROM "embargo" e WHERE e."{self.bar}" = {row}."{self.bar_key}"'
                ' AND e."day" = c."date")'
            )
        fits = f'"me"."weight" + {self.along_sql("COALESCE(SUM(s.weight), 0)")} <= d."capacity"'
        after = 'd."leaves" - 24'
        if self.rolls:
            after = 'COALESCE(LAG(d."leaves") OVER (PARTITION BY d."lane" ORDER BY d."leaves"), -1)'
        if self.hazmat:
            fits = f'(d."accepts" = \'all\' OR "me"."goods" = \'plain\') AND {fits}'
        accepts, goods = (', l."accepts"', ', s."goods"') if self.hazmat else ("", "")
        known = f" AND s.\"state\" = '{state}'" if state else ""
        return (
            f'"calendar"("n", "date") AS (VALUES {days}),'
            f' "load" AS MATERIALIZED (SELECT k."{self.lane}" AS "lane", k."day", SUM(s."weight") AS "kg"'
            f' FROM "consignment" k JOIN "shipment" s ON s."{self.cargo_key}" = k."{self.cargo}"{self.live_sql("k")}'
            " GROUP BY 1, 2),"
            f' "departure" AS MATERIALIZED (SELECT l."id" AS "lane", l."{self.lane_key}" AS "link", c."date",'
            f' a."id" AS "from", b."id" AS "to", c."n" * 24 + l."cutoff" AS "leaves",'
            f' c."n" * 24 + l."cutoff" + l."transit" AS "arrives", l."cost", l."capacity"{accepts},'
            f' COALESCE(o."kg", 0) AS "kg" FROM "lane" l JOIN "site" a ON a."{self.start_key}" = l."{self.start}"'
            f' JOIN "site" b ON b."{self.end_key}" = l."{self.end}" CROSS JOIN "calendar" c'
            f' LEFT JOIN "load" o ON o."lane" = l."{self.lane_key}" AND o."day" = c."date"{shut}),'
            f' "me" AS MATERIALIZED (SELECT s."id", s."{self.cargo_key}" AS "link", s."{self.sender}" AS "sender",'
            f' s."weight", s."ready", s."deadline", a."id" AS "from", b."id" AS "to"{goods} FROM "shipment" s'
            f' JOIN "site" a ON a."{self.origin_key}" = s."{self.origin}"'
            f' JOIN "site" b ON b."{self.target_key}" = s."{self.target}" WHERE s."id" = {shipment}{known}),'
            ' "run" AS MATERIALIZED (SELECT row_number() OVER (ORDER BY d."lane", d."leaves") AS "run",'
            f' d."link", d."date", d."from", d."to", d."leaves", d."arrives", {after} AS "after",'
            f' {self.charge_sql()} AS "charge" FROM "me" CROSS JOIN "departure" d WHERE {fits})'
        )

    def chains_sql(self) -> str:
        """SQL of the joins that give every chain: departures `r1`, `r2` ... (null after the last) of the shipment `me`.

        A recursion would work out the departures anew at each step; chains are short, so the steps are written out.
        """
        text = '"me" JOIN "run" r1 ON r1."from" = "me"."from" AND "me"."ready" <= r1."leaves" AND "me"."ready" > r1."after"'
        for number in range(2, self.most + 1):
            ready = f'r{number - 1}."arrives" + {self.handling}'
            text += (
                f' LEFT JOIN "run" r{number} ON r{number}."from" = r{number - 1}."to" AND r{number - 1}."to" <> "me"."to"'
                f' AND {ready} <= r{number}."leaves" AND {ready} > r{number}."after"'
            )
        ends = ", ".join(f'r{number}."to"' for number in range(1, self.most + 1))
        return f'{text} WHERE "me"."from" <> "me"."to" AND "me"."to" IN ({ends})'

    def last_sql(self) -> str:
        """SQL of the arrival of a chain: that of its last departure."""
        arrivals = ", ".join(f'r{number}."arrives"' for number in range(self.most, 0, -1))
        return f"COALESCE({arrivals})"

    def paid_sql(self) -> str:
        """SQL of the charges of a chain, added up."""
        return " + ".join(f'COALESCE(r{number}."charge", 0)' for number in range(1, self.most + 1))

    def arrival_sql(self, shipment: str) -> str:
        """SQL of the earliest arrival of the shipment with this id."""
        return (
            f"(WITH {self.departures_sql(shipment)}"
            f" SELECT COALESCE(MIN({self.last_sql()}), {NEVER}) FROM {self.chains_sql()})"
        )

    def cost_sql(self, shipment: str) -> str:
        """SQL of the lowest charge of a chain in time of the shipment with this id."""
        return (
            f"(WITH {self.departures_sql(shipment)} SELECT COALESCE(MIN({self.paid_sql()}), {NO_COST})"
            f' FROM {self.chains_sql()} AND {self.last_sql()} <= "me"."deadline")'
        )

    # planner ----------------------------------------------------------------------------------------------------

    def plan_loads(self) -> str:
        """Planner source of `freight_loads`: what goes by each lane and day, without one shipment."""
        live = " if k['status'] == 'live'" if self.trace else ""
        return (
            "def freight_loads(without):\n"
            f"    cargo = {{s[{self.cargo_key!r}]: s for s in rows('shipment', {{}})}}\n"
            "    loads = {}\n"
            f"    for k in [k for k in rows('consignment', {{}}){live}]:\n"
            f"        if k[{self.cargo!r}] != without:\n"
            f"            slot = (k[{self.lane!r}], k['day'])\n"
            f"            loads[slot] = loads.get(slot, []) + [cargo[k[{self.cargo!r}]]]\n"
            "    return loads\n"
        )

    def plan_charge(self) -> str:
        """Planner source of `freight_charge`: what a lane charges, given what else goes along."""
        units = f" * -(-row['weight'] // {self.step})" if self.step else ""
        bundle = (
            f"    if POLICY and [s for s in along if s[{self.sender!r}] == row[{self.sender!r}]]:\n"
            f"        charge = charge - charge * {self.bundle} // 100\n"
        )
        return (
            "def freight_charge(lane, row, along):\n"
            f"    charge = lane['cost']{units}\n"
            f"{bundle if self.bundle else ''}"
            "    return charge\n"
        )

    def plan_day(self) -> str:
        """Planner source of `freight_day`: number of the day on which a shipment leaves by a lane, None for never."""
        place = "start" if self.barred == "site" else f"lane[{self.bar_key!r}]"
        stop = f" and ({place}, day) not in barred" if self.barred else ""
        waits = "" if self.rolls else "        return None\n"
        hazmat = "    if POLICY and row['goods'] == 'hazardous' and lane['accepts'] == 'plain':\n        return None\n"
        return (
            "def freight_day(lane, start, row, ready, loads, barred):\n"
            f"{hazmat if self.hazmat else ''}"
            f"    for number, day in enumerate({self.days!r}):\n"
            "        if 24 * number + lane['cutoff'] < ready:\n"
            "            continue\n"
            f"        along = loads.get((lane[{self.lane_key!r}], day), [])\n"
            "        used = sum([s['weight'] for s in along])\n"
            f"        if not POLICY or (used + row['weight'] <= lane['capacity']{stop}):\n"
            "            return number\n"
            f"{waits}"
            "    return None\n"
        )

    def plan_id(self, value: str, key: str) -> str:
        """Planner expression of the id of the place that a relation stores."""
        return value if key == "id" else f"ids[{value}]"

    def plan_chains(self) -> str:
        """Planner source of `freight_chains`: all chains, or with greed only those of the fewest lanes."""
        keys = (self.start_key, self.end_key, self.origin_key, self.target_key)
        ids = "    ids = {s['name']: s['id'] for s in rows('site', {})}\n" if "name" in keys else ""
        start, end = self.plan_id(f"l[{self.start!r}]", self.start_key), self.plan_id(f"l[{self.end!r}]", self.end_key)
        origin = self.plan_id(f"row[{self.origin!r}]", self.origin_key)
        target = self.plan_id(f"row[{self.target!r}]", self.target_key)
        barred = "[]"
        if self.barred:
            barred = f"[(e[{self.bar!r}], e['day']) for e in rows('embargo', {{}})]"
        # A place is barred by what the barred day stores; departures know places by what lanes store.
        where = "place"
        if self.barred == "site" and self.bar_key == "name":
            ids = "    ids = {s['name']: s['id'] for s in rows('site', {})}\n"
            barred = f"[(ids[e[{self.bar!r}]], e['day']) for e in rows('embargo', {{}})]"
        return (
            self.plan_loads() + self.plan_charge() + self.plan_day() + "def freight_chains(row):\n"
            f"{ids}"
            "    leaving = {}\n"
            "    for l in rows('lane', {}):\n"
            f"        leaving[{start}] = leaving.get({start}, []) + [(l, {end})]\n"
            f"    loads = freight_loads(row[{self.cargo_key!r}]) if POLICY else {{}}\n"
            f"    barred = {barred} if POLICY else []\n"
            f"    days, wait = {self.days!r}, {self.handling} if POLICY else 0\n"
            f"    found, todo = [], [([], {origin}, row['ready'])]\n"
            "    while todo:\n"
            "        chain, place, ready = todo.pop()\n"
            f"        if place == {target}:\n"
            "            found = found + ([chain] if chain else [])\n"
            f"        elif len(chain) < {self.most}:\n"
            "            for l, end in leaving.get(place, []):\n"
            f"                number = freight_day(l, {where}, row, ready, loads, barred)\n"
            "                if number is not None:\n"
            "                    arrives = 24 * number + l['cutoff'] + l['transit']\n"
            f"                    along = loads.get((l[{self.lane_key!r}], days[number]), [])\n"
            "                    leg = {'lane': l, 'day': days[number], 'arrives': arrives}\n"
            "                    leg['charge'] = freight_charge(l, row, along)\n"
            "                    todo.append((chain + [leg], end, arrives + wait))\n"
            "    if GREEDY and found:\n"
            "        fewest = min([len(chain) for chain in found])\n"
            "        found = [chain for chain in found if len(chain) == fewest]\n"
            "    return found\n"
            "def chain_charge(chain):\n"
            "    return sum([leg['charge'] for leg in chain])\n"
            "def chains_in_time(row):\n"
            "    return [chain for chain in freight_chains(row) if chain[-1]['arrives'] <= row['deadline']]\n"
        )

    def plan_arrival(self) -> str:
        """Planner source of `d_freight_arrival`."""
        return (
            self.plan_chains() + "def d_freight_arrival(row):\n"
            "    ends = [chain[-1]['arrives'] for chain in freight_chains(row)]\n"
            f"    return min(ends) if ends else {NEVER}\n"
        )

    # goals ------------------------------------------------------------------------------------------------------

    def goal_aboard(self) -> str:
        """Goal source of `freight_aboard`: (shipment, sender, weight) by lane and day."""
        recalled = "        if k['status'] == 'recalled':\n            continue\n" if self.trace else ""
        return (
            "@once\n"
            "def freight_aboard():\n"
            f"    facts = {{s[{self.cargo_key!r}]: (s['id'], s[{self.sender!r}], s['weight']) for s in db['shipment']}}\n"
            "    aboard = {}\n"
            "    for k in db['consignment']:\n"
            f"{recalled}"
            f"        aboard.setdefault((k[{self.lane!r}], k['day']), []).append(facts[k[{self.cargo!r}]])\n"
            "    return aboard\n"
        )

    def goal_departures(self) -> str:
        """Goal source of `departures_for`: by lane, (from, to, cut-off, {day: (leaves, arrives, charge)})."""
        skip = ""
        if self.hazmat:
            skip += "        if cargo['goods'] != 'plain' and lane['accepts'] != 'all':\n            continue\n"
        bars = f"{{(e[{self.bar!r}], e['day']) for e in db['embargo']}}" if self.barred else "set()"
        row = "lane" if self.barred == "lane" else "here"
        shut = f" or ({row}[{self.bar_key!r}], day) in bars" if self.barred else ""
        units = f"((cargo['weight'] - 1) // {self.step} + 1)" if self.step else "1"
        bundle = ""
        if self.bundle:
            bundle = (
                f"            if any(sender == cargo[{self.sender!r}] for _, sender, _ in others):\n"
                f"                charge -= charge * {self.bundle} // 100\n"
            )
        return (
            self.goal_aboard() + "@once\n"
            "def departures_for(shipment):\n"
            "    (cargo,) = [s for s in db['shipment'] if s['id'] == shipment]\n"
            f"    starts = {{s[{self.start_key!r}]: s for s in db['site']}}\n"
            f"    ends = {{s[{self.end_key!r}]: s['id'] for s in db['site']}}\n"
            f"    aboard, bars, found = freight_aboard(), {bars}, {{}}\n"
            "    for lane in db['lane']:\n"
            f"{skip}"
            f"        here, runs = starts[lane[{self.start!r}]], {{}}\n"
            f"        for number, day in enumerate({tuple(self.days)}):\n"
            f"            load = aboard.get((lane[{self.lane_key!r}], day), [])\n"
            "            others = [one for one in load if one[0] != shipment]\n"
            "            room = lane['capacity'] - sum(weight for _, _, weight in others)\n"
            f"            if cargo['weight'] > room{shut}:\n"
            "                continue\n"
            f"            charge = {units} * lane['cost']\n"
            f"{bundle}"
            "            leaves = lane['cutoff'] + 24 * number\n"
            "            runs[day] = leaves, leaves + lane['transit'], charge\n"
            f"        found[lane[{self.lane_key!r}]] = here['id'], ends[lane[{self.end!r}]], lane['cutoff'], runs\n"
            "    return found\n"
        )

    def goal_boarding(self) -> str:
        """Goal source of `boarding`: (day, arrives, charge) of the departure that one takes who is ready then."""
        if self.rolls:
            leaves = "    later = sorted((run[0], day) for day, run in runs.items() if run[0] >= ready)\n"
            leaves += "    days = [day for _, day in later[:1]]\n"
        else:
            leaves = "    first = cutoff if ready <= cutoff else cutoff - (cutoff - ready) // 24 * 24\n"
            leaves += "    days = [day for day, run in runs.items() if run[0] == first]\n"
        return f"def boarding(cutoff, runs, ready):\n{leaves}    return [(day, *runs[day][1:]) for day in days]\n"

    def goal_ends(self) -> str:
        """Goal source of `freight_ends`: ids of the origin and the destination of a shipment."""
        return (
            "@once\n"
            "def freight_ends(shipment):\n"
            "    (cargo,) = [s for s in db['shipment'] if s['id'] == shipment]\n"
            f"    (start,) = [s['id'] for s in db['site'] if s[{self.origin_key!r}] == cargo[{self.origin!r}]]\n"
            f"    (end,) = [s['id'] for s in db['site'] if s[{self.target_key!r}] == cargo[{self.target!r}]]\n"
            "    return start, end\n"
        )

    def goal_ways(self) -> str:
        """Goal source of `freight_ways`: every (arrival, charge) that a shipment can have at its destination."""
        return (
            self.goal_departures() + self.goal_boarding() + self.goal_ends() + "@once\n"
            "def freight_ways(shipment):\n"
            "    (cargo,) = [s for s in db['shipment'] if s['id'] == shipment]\n"
            "    start, end = freight_ends(shipment)\n"
            "    lanes = departures_for(shipment)\n"
            "    labels, reached = {(start, cargo['ready'], 0)}, set()\n"
            f"    for _ in range({self.most}):\n"
            "        fresh = set()\n"
            "        for place, ready, paid in labels:\n"
            "            for here, there, cutoff, runs in lanes.values():\n"
            "                if here != place or place == end:\n"
            "                    continue\n"
            "                for _, arrives, charge in boarding(cutoff, runs, ready):\n"
            "                    if there == end:\n"
            "                        reached.add((arrives, paid + charge))\n"
            f"                    fresh.add((there, arrives + {self.handling}, paid + charge))\n"
            "        labels = fresh\n"
            "    return sorted(reached)\n"
        )

    def goal_arrival(self) -> str:
        """Goal source of `g_freight_arrival`."""
        return (
            self.goal_ways() + "def g_freight_arrival(db, row):\n"
            f"    return min([arrives for arrives, _ in freight_ways(row['id'])], default={NEVER})\n"
        )

    def goal_cost(self) -> str:
        """Goal source of `g_freight_cost`."""
        return (
            self.goal_ways() + "def g_freight_cost(db, row):\n"
            "    charges = [charge for arrives, charge in freight_ways(row['id']) if arrives <= row['deadline']]\n"
            f"    return min(charges, default={NO_COST})\n"
        )

    # sentences --------------------------------------------------------------------------------------------------

    def live_words(self) -> str:
        """Which bookings count, as a clause; empty when all do."""
        return f"; recalled {self.world.plural('consignment')} do not count" if self.trace else ""

    def clock_policy(self) -> str:
        """How hours are counted."""
        return (
            f"The ready time, the deadline and the earliest arrival of a {self.world.word('shipment')} are in hours "
            f"counted from the midnight with which {self.days[0]} begins: 30 hours is 6 o'clock on {self.days[1]}."
        )

    def day_policy(self) -> str:
        """When a lane leaves, and with whom."""
        word, plural = self.world.word, self.world.plural
        lane, shipment = word("lane"), word("shipment")
        limits = [f"the free capacity, without its own {plural('consignment')}, is at least its weight"]
        if self.barred == "lane":
            limits.append(f"no {word('embargo')} bars the {lane}")
        if self.barred == "site":
            limits.append(f"no {word('embargo')} bars the {word('site')} where the {lane} starts")
        late = f"The first such day on which {' and '.join(limits)} is taken."
        if not self.rolls:
            late = f"Only the first such day will do, and only if on it {' and '.join(limits)}."
        hazmat = f" Hazardous goods go only by a {lane} whose accepted goods are all." if self.hazmat else ""
        return (
            f"A {lane} leaves every day from {self.days[0]} to {self.days[-1]} at its cut-off hour and arrives after its "
            f"transit time. A {shipment} can leave on a day if it is ready by the cut-off hour of that day, or just then. "
            f"{late}{hazmat}"
        )

    def chain_policy(self) -> str:
        """What a chain is."""
        word, plural = self.world.word, self.world.plural
        handling = ""
        if self.handling:
            handling = f" On the way it is ready again {self.handling} hours after an arrival."
        return (
            f"A chain takes a {word('shipment')} from its origin, where it is ready at its ready time, by at most "
            f"{self.most} {plural('lane')} to its destination; each {word('lane')} starts where the one before ended, and "
            f"the chain ends when it first comes to the destination.{handling}"
        )

    def charge_policy(self) -> str:
        """What a chain costs."""
        word, plural = self.world.word, self.world.plural
        each = f" for every started {self.step} kg of weight" if self.step else ", whatever the weight"
        bundle = ""
        if self.bundle:
            bundle = (
                f" If a {word('consignment')} of another {word('shipment')} of the same sender goes by that "
                f"{word('lane')} on that day, {self.bundle} percent of this, rounded down, is taken off{self.live_words()}."
            )
        return (
            f"Each {word('lane')} of a chain is charged at its basic cost{each}.{bundle} The charges of the "
            f"{plural('lane')} are added up."
        )
