"""Derived attributes of an itinerary world, each with its three texts."""

from __future__ import annotations

from envsynth.author.procedural.ir import Type
from envsynth.author.procedural.mechanism import Derived
from envsynth.author.procedural.mechanisms.itinerary.bindings import (
    CREDITS,
    HOUR,
    NEVER,
    PEOPLE,
    SITE,
    Bindings,
)


class DerivedTexts(Bindings):
    """Writes the derived attributes over one world."""

    def seats_left(self) -> Derived:
        """Free seats of a connection."""
        return Derived(
            entity="leg",
            name="seats_left",
            label="free seats",
            type=PEOPLE,
            sql=self.seats_sql("{t}"),
            plan=self.plan_seats(),
            goal=self.goal_seats(),
            policy=self.seats_policy(),
        )

    def arrival(self) -> Derived:
        """Earliest arrival at a place."""
        site = self.world.word("site")
        return Derived(
            entity="site",
            name="arrival",
            label="arrival time from {0} leaving at or after {1}",
            params=(SITE, HOUR),
            type=HOUR,
            sql=self.arrival_sql('{t}."id"', "{0}", "{1}"),
            plan=self.plan_arrival(),
            goal=self.goal_arrival(),
            policy=(
                f"The arrival time at a {site} from another, leaving at or after an hour, is the earliest arrival of any "
                f"route whose first departure is not before that hour. Without a route it counts as {NEVER} o'clock; from "
                f"a {site} to itself it is that hour."
            ),
        )

    def fare(self) -> Derived:
        """Cheapest fare to a place."""
        return Derived(
            entity="site",
            name="fare",
            label="route fare from {0}",
            params=(SITE,),
            type=CREDITS,
            sql=self.fare_sql('{t}."id"', "{0}"),
            plan=self.plan_fare(),
            goal=self.goal_fare(),
            policy=self.fare_policy(),
        )

    def visit(self) -> Derived:
        """Whether an attraction can be visited on arrival."""
        column, key = self.world.fk("attraction", "site")
        word, site = self.world.word("attraction"), self.world.word("site")
        place = f'(SELECT s."id" FROM "site" s WHERE s."{key}" = {{t}}."{column}")'
        arrival = self.arrival_sql(place, "{0}", "{1}")
        hours = f"{self.hours} hour{'s' if self.hours > 1 else ''}"
        return Derived(
            entity="attraction",
            name="visit",
            label="open long enough on arrival from {0} leaving at or after {1}",
            params=(SITE, HOUR),
            type=Type("bool"),
            sql=f'(MAX({{t}}."opens", {arrival}) + {self.hours} <= {{t}}."closes")',
            plan=(
                self.plan_arrival() + "def d_visit(row, origin, start):\n"
                f"    place = rows('site', {{{key!r}: row[{column!r}]}})[0]\n"
                "    begins = max(row['opens'], d_arrival(place, origin, start))\n"
                f"    return begins + ({self.hours} if POLICY else 0) <= row['closes']\n"
            ),
            goal=(
                self.goal_arrival() + "def g_visit(db, row, origin, start):\n"
                f"    (place,) = [s for s in db['site'] if s[{key!r}] == row[{column!r}]]\n"
                "    arrived = g_arrival(db, place, origin, start)\n"
                f"    return row['closes'] - row['opens'] >= {self.hours} and row['closes'] - arrived >= {self.hours}\n"
            ),
            policy=(
                f"A {word} is open long enough on arrival if there {'is' if self.hours == 1 else 'are'} at least {hours} "
                f"left until its closing hour, counted from the arrival time at its {site} or from its opening hour, whichever is later."
            ),
        )

    def outing(self) -> Derived:
        """Route fare and entry of an attraction."""
        column, key = self.world.fk("attraction", "site")
        word, site = self.world.word("attraction"), self.world.word("site")
        place = f'(SELECT s."id" FROM "site" s WHERE s."{key}" = {{t}}."{column}")'
        return Derived(
            entity="attraction",
            name="outing",
            label="outing cost from {0}",
            params=(SITE,),
            type=CREDITS,
            sql=f'({{t}}."price" + {self.fare_sql(place, "{0}")})',
            plan=(
                self.plan_fare() + "def d_outing(row, origin):\n"
                f"    place = rows('site', {{{key!r}: row[{column!r}]}})[0]\n"
                "    return row['price'] + d_fare(place, origin)\n"
            ),
            goal=(
                self.goal_fare() + "def g_outing(db, row, origin):\n"
                f"    (place,) = [s for s in db['site'] if s[{key!r}] == row[{column!r}]]\n"
                "    return g_fare(db, place, origin) + row['price']\n"
            ),
            policy=(
                f"The outing cost of a {word} from a {site} is its entry price plus the route fare from there to its "
                f"{site}."
            ),
        )
