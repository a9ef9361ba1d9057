"""Derived attributes of a booking world, each with its sentence and three texts."""

from __future__ import annotations

from envsynth.author.procedural.ir import Type
from envsynth.author.procedural.mechanism import Derived
from envsynth.author.procedural.mechanisms.booking.bindings import DAY, HOUR, Bindings, statuses


class DerivedTexts(Bindings):
    """Writes the derived attributes over one world."""

    def counting_policy(self) -> str:
        """Which bookings count."""
        booking = self.world.word("booking")
        idle = [status for status in statuses(self.rules) if status not in self.counting]
        return (
            f"A {booking} counts if its status is {' or '.join(self.counting)}; {' and '.join(idle)} "
            f"{self.world.plural('booking')} do not count."
        )

    def booked_policy(self) -> str:
        """Definition of booked hours."""
        place, bookings = self.world.word("resource"), self.world.plural("booking")
        return (
            f"The booked hours of a {place} on a day are the sum of the lengths, from start hour to end hour, of its {bookings} "
            "of that day that count."
        )

    def free_policy(self) -> str:
        """Definition of freedom."""
        word, plural = self.world.word, self.world.plural
        closed = f", the {word('resource')} has no {word('closure')} on that day" if self.closure else ""
        hours = "1 hour" if self.gap == 1 else f"{self.gap} hours"
        gap = (
            f"every one of its {plural('booking')} of that day that counts ends at least {hours} before the span starts "
            f"or starts at least {hours} after the span ends"
            if self.gap
            else f"none of its {plural('booking')} of that day that count overlaps the span; one may start in the hour "
            "in which another ends"
        )
        return (
            f"A {word('resource')} is free on a day from one hour to another if that span lies within the opening hours "
            f"and ends after it starts{closed}, and {gap}."
        )

    def charge_policy(self) -> str:
        """Definition of the charge."""
        late = f"; each hour that begins at {self.peak} o'clock or later is charged double" if self.peak else ""
        return (
            f"The charge of a {self.world.word('resource')} from one hour to another is its hourly rate for each hour of "
            f"the span{late}. A span that does not end after it starts is charged 0."
        )

    def held_policy(self) -> str:
        """Definition of booked time."""
        person = self.world.word("person")
        return (
            f"The booked time of a {person} on a day is the sum of the lengths in hours of the {self.world.plural('booking')} "
            f"of that day that the {person} holds and that count."
        )

    def booked(self) -> Derived:
        """Booked hours of a place on a day."""
        link = f"{{{self.place!r}: row[{self.place_key!r}]}}"
        return Derived(
            entity="resource",
            name="booked",
            label="booked hours on {0}",
            params=(DAY,),
            type=Type("num", "h"),
            sql=(
                f'(SELECT COALESCE(SUM(b."end" - b."start"), 0) FROM "booking" b'
                f' WHERE b."{self.place}" = {{t}}."{self.place_key}" AND b."day" = {{0}} AND {self.counts_sql("b")})'
            ),
            plan=(
                "def d_booked(row, day):\n"
                f"    found = [b for b in rows('booking', {link}) if b['day'] == day]\n"
                f"    return sum([b['end'] - b['start'] for b in found if not POLICY or b['status'] in {self.counting}])\n"
            ),
            goal=self.goal_hours("booked", self.place, self.place_key),
            policy=self.booked_policy(),
        )

    def goal_hours(self, name: str, column: str, key: str) -> str:
        """Goal text that adds up hours of the bookings that count of a row."""
        idle = tuple(status for status in statuses(self.rules) if status not in self.counting)
        return (
            "@once\n"
            f"def hours_{name}():\n"
            "    hours = {}\n"
            "    for b in db['booking']:\n"
            f"        if b['status'] not in {idle}:\n"
            f"            slot = b[{column!r}], b['day']\n"
            "            hours[slot] = hours.get(slot, 0) + b['end'] - b['start']\n"
            "    return hours\n"
            f"def g_{name}(db, row, day):\n"
            f"    return hours_{name}().get((row[{key!r}], day), 0)\n"
        )

    def free(self) -> Derived:
        """Whether a place is free in a span of a day."""
        opens, closes = self.rules["opens"], self.rules["closes"]
        closed = (
            f"    if POLICY and [c for c in rows('closure', {{{self.closure!r}: row[{self.closure_key!r}]}}) "
            "if c['day'] == day]:\n        return False\n"
        )
        shut_days = f"@once\ndef shut_days():\n    return {{(c[{self.closure!r}], c['day']) for c in db['closure']}}\n"
        shut = f"    if (row[{self.closure_key!r}], day) in shut_days():\n        return False\n"
        return Derived(
            entity="resource",
            name="free",
            label="free on {0} from {1} to {2}",
            params=(DAY, HOUR, HOUR),
            type=Type("bool"),
            sql=self.free_sql("{t}", "{0}", "{1}", "{2}"),
            plan=(
                "def d_free(row, day, start, end):\n"
                f"    if start >= end or start < {opens} or end > {closes}:\n"
                "        return False\n"
                f"{closed if self.closure else ''}"
                f"    gap = {self.gap} if POLICY else 0\n"
                f"    for b in rows('booking', {{{self.place!r}: row[{self.place_key!r}]}}):\n"
                f"        if b['day'] != day or (POLICY and b['status'] not in {self.counting}):\n"
                "            continue\n"
                "        if b['start'] < end + gap and b['end'] + gap > start:\n"
                "            return False\n"
                "    return True\n"
            ),
            goal=(
                f"{shut_days if self.closure else ''}"
                "@once\n"
                "def blocked_hours():\n"
                "    blocked = {}\n"
                "    for b in db['booking']:\n"
                f"        if b['status'] in {list(self.counting)}:\n"
                f"            hours = blocked.setdefault((b[{self.place!r}], b['day']), set())\n"
                f"            hours.update(range(b['start'] - {self.gap}, b['end'] + {self.gap}))\n"
                "    return blocked\n"
                "def g_free(db, row, day, start, end):\n"
                f"{shut if self.closure else ''}"
                "    wanted = set(range(start, end))\n"
                f"    if not wanted or not wanted <= set(range({opens}, {closes})):\n"
                "        return False\n"
                f"    return wanted.isdisjoint(blocked_hours().get((row[{self.place_key!r}], day), ()))\n"
            ),
            policy=self.free_policy(),
        )

    def charge(self) -> Derived:
        """What a span costs at a place."""
        extra_sql = f" + MAX({{1}} - MAX({{0}}, {self.peak}), 0)" if self.peak else ""
        extra_plan = f"    if POLICY:\n        hours += max(0, end - max(start, {self.peak}))\n" if self.peak else ""
        weight = f"2 if hour >= {self.peak} else 1" if self.peak else "1"
        return Derived(
            entity="resource",
            name="charge",
            label="charge from {0} to {1}",
            params=(HOUR, HOUR),
            type=Type("num", "credits"),
            sql=f'({{t}}."rate" * (MAX({{1}} - {{0}}, 0){extra_sql}))',
            plan=(
                "def d_charge(row, start, end):\n"
                "    hours = max(0, end - start)\n"
                f"{extra_plan}"
                "    return row['rate'] * hours\n"
            ),
            goal=(
                "def g_charge(db, row, start, end):\n"
                f"    return sum(row['rate'] * ({weight}) for hour in range(start, end))\n"
            ),
            policy=self.charge_policy(),
        )

    def held(self) -> Derived:
        """Hours of a day that a person holds."""
        link = f"{{{self.person!r}: row[{self.person_key!r}]}}"
        return Derived(
            entity="person",
            name="booked_time",
            label="booked time on {0}",
            params=(DAY,),
            type=Type("num", "h"),
            sql=self.load_sql("{t}", "{0}"),
            plan=(
                "def d_booked_time(row, day):\n"
                "    hours = 0\n"
                f"    for b in rows('booking', {link}):\n"
                f"        if b['day'] == day and (not POLICY or b['status'] in {self.counting}):\n"
                "            hours += b['end'] - b['start']\n"
                "    return hours\n"
            ),
            goal=self.goal_hours("booked_time", self.person, self.person_key),
            policy=self.held_policy(),
        )
