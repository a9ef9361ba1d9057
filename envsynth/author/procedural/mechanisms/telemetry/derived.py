"""Derived attributes of a telemetry world, each with its sentence and three texts."""

from __future__ import annotations

from envsynth.author.procedural.ir import Type
from envsynth.author.procedural.mechanism import Derived
from envsynth.author.procedural.mechanisms.telemetry.bindings import DAY, DEGREES, Bindings


class DerivedTexts(Bindings):
    """Writes the derived attributes over one world."""

    def counting_policy(self) -> str:
        """Which measurements count."""
        reading, sensor = self.world.word("reading"), self.world.word("sensor")
        idle: list[str] = []
        if self.quality:
            idle.append("if its quality is suspect")
        if self.maintained:
            hours = ", from its start hour up to but not including its end hour" if self.hourly else ", at any hour"
            idle.append(f"while its {sensor} is in maintenance")
            service = self.world.word("maintenance")
            return (
                f"A {reading} does not count {' or '.join(idle)}. A {sensor} is in maintenance on the day of each "
                f"{service} that it has{hours}."
            )
        return f"A {reading} does not count {idle[0]}." if idle else f"Every {reading} counts."

    def judging_policy(self) -> str:
        """What a calibrated value is, and when it is out of range."""
        reading, sensor = self.world.word("reading"), self.world.word("sensor")
        since = (
            f" if the day of the {reading} is the calibration day of the {sensor} or a later one; before that day it is "
            "the value alone"
            if self.since
            else ""
        )
        low = " or below the low limit" if self.low else ""
        return (
            f"The calibrated value of a {reading} is its value plus the calibration offset of its {sensor}{since}. It is "
            f"out of range if it lies above the high limit{low} of the {sensor}; a value equal to a limit is in range."
        )

    def episodes_policy(self) -> str:
        """What episodes are."""
        reading, sensor = self.world.word("reading"), self.world.word("sensor")
        readings = self.world.plural("reading")
        mark = "the one before it" if self.chained else "the first one of that episode"
        low = f" and no less than the low limit plus {self.margin}" if self.low else ""
        back = (
            f", or if no {reading} that counts in an hour between it and the one before it has a calibrated value of at "
            f"most the high limit minus {self.margin} degrees{low}"
            if self.margin
            else ""
        )
        return (
            f"The episode count of a {sensor} on a day is found from its {readings} of that day that count and whose "
            "calibrated value is out of range, in the order of their hours: the first one starts an episode; each later "
            f"one belongs to the same episode if its hour is at most {self.window} hours after that of {mark}{back}; "
            "otherwise it starts the next episode."
        )

    def episodes(self) -> Derived:
        """Number of episodes of a sensor on a day."""
        low = f"row['low'] + {self.margin} <= level and " if self.low else ""
        calm = f"        elif [level for level in levels if {low}level <= row['high'] - {self.margin}]:\n"
        calm += "            calm = True\n"
        move = "            mark = hour\n" if self.chained else ""
        start = "                mark = hour\n" if not self.chained else ""
        ready = " and calm" if self.margin else ""
        settled = f"    inside = [h for d, h, level in mine if d == day and {self.within_test(self.margin)}]\n"
        between = " and any(before < h < hour for h in inside)" if self.margin else ""
        mark = "before" if self.chained else "starts[-1]"
        return Derived(
            entity="sensor",
            name="episodes",
            label="episode count on {0}",
            params=(DAY,),
            type=Type("num", "episodes"),
            sql=self.episodes_sql("{t}", "{0}"),
            plan=(
                self.plan_seen() + "def d_episodes(row, day):\n"
                "    by_hour = {}\n"
                "    for when, hour, level in counted_values(row):\n"
                "        if when == day:\n"
                "            by_hour[hour] = by_hour.get(hour, []) + [level]\n"
                "    if not POLICY:\n"
                "        return sum([len([v for v in found if beyond_limits(row, v)]) for found in by_hour.values()])\n"
                "    episodes, mark, calm = 0, 0, True\n"
                "    for hour in sorted(by_hour):\n"
                "        levels = by_hour[hour]\n"
                "        if [level for level in levels if beyond_limits(row, level)]:\n"
                f"            if episodes == 0 or (hour - mark > {self.window}{ready}):\n"
                "                episodes += 1\n"
                f"{start}{move}"
                "            calm = False\n"
                f"{calm if self.margin else ''}"
                "    return episodes\n"
            ),
            goal=(
                self.goal_levels() + "def g_episodes(db, row, day):\n"
                "    mine = levels_by_sensor().get(row['id'], [])\n"
                f"    outside = {{h for d, h, level in mine if d == day and not {self.within_test()}}}\n"
                f"{settled if self.margin else ''}"
                "    starts = []\n"
                "    for hour in sorted(outside):\n"
                "        before = max((h for h in outside if h < hour), default=None)\n"
                f"        if before is None or (hour - {mark} > {self.window}{between}):\n"
                "            starts.append(hour)\n"
                "    return len(starts)\n"
            ),
            policy=self.episodes_policy(),
        )

    def out_of_range(self) -> Derived:
        """Whether a sensor was out of range on a day."""
        sensor, reading = self.world.word("sensor"), self.world.word("reading")
        level = '"seen"."level"'
        return Derived(
            entity="sensor",
            name="out_of_range",
            label="out of range on {0}",
            params=(DAY,),
            type=Type("bool"),
            sql=(
                f'EXISTS (SELECT 1 FROM ({self.seen_sql("{t}")}) AS "seen"'
                f' WHERE "seen"."day" = {{0}} AND {self.beyond_sql("{t}", level)})'
            ),
            plan=(
                self.plan_seen() + "def d_out_of_range(row, day):\n"
                "    found = [level for when, hour, level in counted_values(row) if when == day]\n"
                "    return len([level for level in found if beyond_limits(row, level)]) > 0\n"
            ),
            goal=(
                self.goal_levels() + "def g_out_of_range(db, row, day):\n"
                "    levels = [level for d, _, level in levels_by_sensor().get(row['id'], []) if d == day]\n"
                f"    return not all({self.within_test()} for level in levels)\n"
            ),
            policy=(
                f"A {sensor} is out of range on a day if at least one {reading} of it on that day counts and has a "
                "calibrated value out of range."
            ),
        )

    def peak(self) -> Derived:
        """Highest calibrated value of a sensor."""
        sensor, readings = self.world.word("sensor"), self.world.plural("reading")
        return Derived(
            entity="sensor",
            name="peak",
            label="peak",
            type=DEGREES,
            sql=f'(SELECT COALESCE(MAX("seen"."level"), 0) FROM ({self.seen_sql("{t}")}) AS "seen")',
            plan=(
                self.plan_seen() + "def d_peak(row):\n"
                "    found = [level for day, hour, level in counted_values(row)]\n"
                "    return max(found) if found else 0\n"
            ),
            goal=(
                self.goal_levels() + "def g_peak(db, row):\n"
                "    levels = sorted(level for _, _, level in levels_by_sensor().get(row['id'], []))\n"
                "    return levels[-1] if levels else 0\n"
            ),
            policy=(
                f"The peak of a {sensor} is the largest calibrated value among all of its {readings} that count, on any "
                "day; 0 if none counts."
            ),
        )

    def load_policy(self) -> str:
        """What a person's load is."""
        word, alarms, sensor = self.world.word, self.world.plural("alarm"), self.world.word("sensor")
        person = word("person")
        whose = f"of which that {person} is the assignee"
        if not self.assigned:
            whose = f"of the {self.world.plural('sensor')} whose keeper that {person} is"
        twice = "; the level of an escalated one counts twice" if self.escalation else ""
        idle = f", unless its {sensor} was in maintenance at its day and hour" if self.maintained else ""
        return (
            f"The open load of a {person} is the sum of the levels of all open {alarms} {whose}{twice}. A "
            f"{word('alarm')} is open if its state is {self.open_words}{idle}."
        )

    def load(self) -> Derived:
        """Levels of the alarms that a person has to act on."""
        return Derived(
            entity="person",
            name="open_load",
            label="open load",
            type=Type("num", "points"),
            sql=self.load_sql("{t}"),
            plan=self.load_plan(),
            goal=self.load_goal(),
            policy=self.load_policy(),
        )

    def load_sql(self, person: str) -> str:
        """SQL of the load of a person."""
        owner = f'a."{self.owner}"' if self.assigned else f'q."{self.owner}"'
        twice = " * (1 + (a.\"state\" = 'escalated'))" if self.escalation else ""
        idle = f" AND NOT {self.serviced_sql('q', 'a')}" if self.maintained else ""
        return (
            f'(SELECT COALESCE(SUM(a."level"{twice}), 0) FROM "alarm" a'
            f' JOIN "sensor" q ON q."{self.alarmed_key}" = a."{self.alarmed}"'
            f' WHERE {owner} = {person}."{self.owner_key}" AND {self.open_sql("a")}{idle})'
        )

    def load_plan(self) -> str:
        """Planner source of `d_open_load`."""
        owned = (
            f"    mine = rows('alarm', {{{self.owner!r}: row[{self.owner_key!r}]}})\n"
            if self.assigned
            else f"    mine = []\n    for s in rows('sensor', {{{self.owner!r}: row[{self.owner_key!r}]}}):\n"
            f"        mine = mine + rows('alarm', {{{self.alarmed!r}: s[{self.alarmed_key!r}]}})\n"
        )
        idle = (
            f"        sensor = rows('sensor', {{{self.alarmed_key!r}: a[{self.alarmed!r}]}})[0]\n"
            "        if in_maintenance(sensor, a):\n            continue\n"
        )
        twice = "        if a['state'] == 'escalated':\n            load += a['level']\n" if self.escalation else ""
        return (
            self.plan_serviced() + "def d_open_load(row):\n"
            f"{owned}"
            "    if not POLICY:\n"
            "        return sum([a['level'] for a in mine])\n"
            "    load = 0\n"
            f"    for a in [a for a in mine if a['state'] in {list(self.open_states)}]:\n"
            f"{idle if self.maintained else ''}"
            "        load += a['level']\n"
            f"{twice}"
            "    return load\n"
        )

    def load_goal(self) -> str:
        """Goal source of `g_open_load`."""
        owner = f"a[{self.owner!r}]" if self.assigned else f"sensor[{self.owner!r}]"
        idle = f"        if {self.idle_test('sensor', 'a')}:\n            continue\n"
        weights = "{'raised': 1, 'escalated': 2}" if self.escalation else "{'raised': 1}"
        return (
            self.goal_serviced() + "@once\n"
            "def open_loads():\n"
            f"    sensors = {{s[{self.alarmed_key!r}]: s for s in db['sensor']}}\n"
            "    loads = {}\n"
            "    for a in db['alarm']:\n"
            f"        sensor, weight = sensors[a[{self.alarmed!r}]], {weights}.get(a['state'], 0)\n"
            f"{idle if self.maintained else ''}"
            f"        loads[{owner}] = loads.get({owner}, 0) + weight * a['level']\n"
            "    return loads\n"
            "def g_open_load(db, row):\n"
            f"    return open_loads().get(row[{self.owner_key!r}], 0)\n"
        )
