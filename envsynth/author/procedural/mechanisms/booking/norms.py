"""What order means among bookings: none of them collides with a larger one, is too large, or falls on a closed day."""

from __future__ import annotations

import random

from envsynth.author.procedural.mechanism import Breach, Norm, Row
from envsynth.author.procedural.mechanisms.booking.bindings import Bindings
from envsynth.author.procedural.mechanisms.planting import Planting
from envsynth.errors import Rejected


class NormTexts(Bindings):
    """Writes the norm over one world."""

    def norm(self) -> Norm:
        """All rules of a booking."""
        breaches = [self.overlap(), self.crowd(), *([self.closed()] if self.closure else [])]
        return Norm(entity="booking", breaches=tuple(breaches))

    def breach(self, **fields: object) -> Breach:
        """A rule whose breach is mended by cancelling."""
        return Breach(repair=f"cancel the {self.world.word('booking')}", action="cancel", parameter="booking", **fields)  # type: ignore[arg-type]

    def overlap(self) -> Breach:
        """Of two bookings that collide, the one for fewer people."""
        booking, place = self.world.word("booking"), self.world.word("resource")
        return self.breach(
            name="overlap",
            rule=(
                f"it counts, and another {booking} that counts, of the same {place} and day and for more people, has an hour "
                "in common with it"
            ),
            sql=(
                f'({self.counts_sql("{t}")} AND EXISTS (SELECT 1 FROM "booking" o WHERE o."{self.place}" ='
                f' {{t}}."{self.place}" AND o."day" = {{t}}."day" AND {self.counts_sql("o")}'
                ' AND o."headcount" > {t}."headcount" AND o."start" < {t}."end" AND o."end" > {t}."start"))'
            ),
            plan=(
                "def p_booking_overlap(row):\n"
                f"    if POLICY and row['status'] not in {self.counting}:\n"
                "        return False\n"
                f"    for o in rows('booking', {{{self.place!r}: row[{self.place!r}], 'day': row['day']}}):\n"
                "        if o['id'] == row['id']:\n"
                "            continue\n"
                "        if not CHECKS:\n"
                "            return True\n"
                f"        if POLICY and o['status'] not in {self.counting}:\n"
                "            continue\n"
                "        if o['headcount'] > row['headcount'] and o['start'] < row['end'] and o['end'] > row['start']:\n"
                "            return True\n"
                "    return False\n"
            ),
            goal=(
                "@once\n"
                "def rivals_of_bookings():\n"
                "    slots = {}\n"
                "    for b in db['booking']:\n"
                f"        if b['status'] in {list(self.counting)}:\n"
                f"            slots.setdefault((b[{self.place!r}], b['day']), []).append(b)\n"
                "    lost = set()\n"
                "    for found in slots.values():\n"
                "        for b in found:\n"
                "            mine = set(range(b['start'], b['end']))\n"
                "            others = [o for o in found if o['headcount'] > b['headcount']]\n"
                "            if any(mine.intersection(range(o['start'], o['end'])) for o in others):\n"
                "                lost.add(b['id'])\n"
                "    return lost\n"
                "def v_booking_overlap(db, row):\n"
                "    return row['id'] in rivals_of_bookings()\n"
            ),
            plant=self.plant_overlap,
        )

    def crowd(self) -> Breach:
        """A booking for more people than its place takes."""
        place = self.world.word("resource")
        return self.breach(
            name="crowd",
            rule=f"it counts and its headcount is more than the capacity of its {place}",
            sql=(
                f'({self.counts_sql("{t}")} AND {{t}}."headcount" > (SELECT r."capacity" FROM "resource" r'
                f' WHERE r."{self.place_key}" = {{t}}."{self.place}"))'
            ),
            plan=(
                "def p_booking_crowd(row):\n"
                f"    if POLICY and row['status'] not in {self.counting}:\n"
                "        return False\n"
                f"    place = named('resource', {self.place_key!r}, row[{self.place!r}])\n"
                "    return row['headcount'] > place['capacity'] - (not CHECKS)\n"
            ),
            goal=(
                "@once\n"
                "def room_of_places():\n"
                f"    return {{r[{self.place_key!r}]: r['capacity'] for r in db['resource']}}\n"
                "def v_booking_crowd(db, row):\n"
                f"    counts = row['status'] in {list(self.counting)}\n"
                f"    return counts and room_of_places()[row[{self.place!r}]] < row['headcount']\n"
            ),
            plant=self.plant_crowd,
        )

    def closed(self) -> Breach:
        """A booking on a day on which its place is closed."""
        place, closure = self.world.word("resource"), self.world.word("closure")
        return self.breach(
            name="closed",
            rule=f"it counts and its {place} has a {closure} on its day",
            sql=(
                f'({self.counts_sql("{t}")} AND EXISTS (SELECT 1 FROM "closure" c JOIN "resource" r'
                f' ON r."{self.closure_key}" = c."{self.closure}" WHERE r."{self.place_key}" = {{t}}."{self.place}"'
                ' AND c."day" = {t}."day"))'
            ),
            plan=(
                "def p_booking_closed(row):\n"
                f"    if POLICY and row['status'] not in {self.counting}:\n"
                "        return False\n"
                f"    place = named('resource', {self.place_key!r}, row[{self.place!r}])\n"
                f"    shut = [c['day'] for c in rows('closure', {{{self.closure!r}: place[{self.closure_key!r}]}})]\n"
                "    return row['day'] in shut if CHECKS else len(shut) > 0\n"
            ),
            goal=(
                "@once\n"
                "def shut_slots():\n"
                f"    keys = {{r[{self.closure_key!r}]: r[{self.place_key!r}] for r in db['resource']}}\n"
                f"    return {{(keys[c[{self.closure!r}]], c['day']) for c in db['closure']}}\n"
                "def v_booking_closed(db, row):\n"
                f"    return (row[{self.place!r}], row['day']) in shut_slots() and row['status'] in {list(self.counting)}\n"
            ),
            plant=self.plant_closed,
        )

    # ------------------------------------------------------------------------------------------------------ planting

    def counted(self) -> list[Row]:
        """Bookings that count."""
        return [row for row in self.world.rows["booking"] if row["status"] in self.counting]

    def quiet(self, planting: Planting) -> Row:
        """A booking of a place and day that has no other: it is copied where a copy must not collide."""
        slots = [(row[self.place], row["day"]) for row in self.world.rows["booking"]]
        found = [row for row in self.counted() if slots.count((row[self.place], row["day"])) == 1]
        return planting.pick(found, "day with a single booking")

    def capacity(self, row: Row) -> int:
        """How many people the place of a booking takes."""
        return next(int(r["capacity"]) for r in self.world.rows["resource"] if r[self.place_key] == row[self.place])

    def plant_overlap(self, rng: random.Random) -> list[tuple[str, Row]]:
        """A smaller booking in the hours of another; near misses: a cancelled one there, one that ends as the other begins."""
        planting = Planting(self.world, rng)
        other = planting.pick(
            [row for row in self.counted() if int(row["headcount"]) > 1], "booking for several people"
        )
        people = rng.randint(1, int(other["headcount"]) - 1)
        holder = rng.choice(self.world.rows["person"])[self.person_key]
        planting.add("booking", other, headcount=people, **{self.person: holder})
        planting.add_early("booking", other, status="cancelled", headcount=max(1, people - 1))
        before = int(other["start"]) - self.gap
        opens = int(self.rules["opens"])
        taken = [
            row
            for row in self.counted()
            if (row[self.place], row["day"]) == (other[self.place], other["day"])
            and int(row["start"]) < before + self.gap
            and int(row["end"]) + self.gap > before - 1
        ]
        if before - 1 >= opens and not taken:
            planting.add_early("booking", other, headcount=people, start=before - 1, end=before)
        return planting.rows

    def plant_crowd(self, rng: random.Random) -> list[tuple[str, Row]]:
        """One person too many; near misses: just as many as there is room for, and a cancelled one for more."""
        planting = Planting(self.world, rng)
        base = self.quiet(planting)
        room = self.capacity(base)
        day_after = self.free_day(base)
        planting.add("booking", base, headcount=room + rng.randint(1, 3), day=day_after[0])
        planting.add_early("booking", base, headcount=room, day=day_after[1])
        planting.add_early("booking", base, headcount=room + 2, status="cancelled")
        return planting.rows

    def free_day(self, row: Row) -> list[str]:
        """Days of the calendar on which the place of a booking has neither bookings nor a closure.

        Raises:
            Rejected: `no_site` when there are fewer than two.
        """
        days = sorted({str(other["day"]) for other in self.world.rows["booking"]})
        busy = {str(other["day"]) for other in self.world.rows["booking"] if other[self.place] == row[self.place]}
        if self.closure:
            keys = {r[self.closure_key] for r in self.world.rows["resource"] if r[self.place_key] == row[self.place]}
            busy |= {str(c["day"]) for c in self.world.rows["closure"] if c[self.closure] in keys}
        free = [day for day in days if day not in busy]
        if len(free) < 2:
            raise Rejected("no_site", "no two free days of one place")
        return free

    def plant_closed(self, rng: random.Random) -> list[tuple[str, Row]]:
        """A booking on a closed day; near misses: a cancelled one on it, and one of the place on another day."""
        planting = Planting(self.world, rng)
        shut = planting.pick(self.world.rows["closure"], "closure")
        place = next(r for r in self.world.rows["resource"] if r[self.closure_key] == shut[self.closure])
        base = planting.pick(self.counted(), "booking")
        people = rng.randint(1, int(place["capacity"]))
        cells = {self.place: place[self.place_key], "day": shut["day"], "headcount": people}
        planting.add("booking", base, **cells)
        planting.add_early("booking", base, **{**cells, "status": "cancelled"})
        return planting.rows
