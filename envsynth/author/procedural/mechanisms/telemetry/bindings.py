"""What the texts of a telemetry world have in common: column names and rules bound to one world, and shared pieces."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from envsynth.author.procedural.ir import Type
from envsynth.author.procedural.mechanism import Composed
from envsynth.author.procedural.mechanisms.entities import id_argument

DAY = Type("date")
HOUR = Type("num", "oclock")
DEGREES = Type("num", "degrees")
MEDIA = ("Air", "Water", "Oil", "Soil")
QUALITIES = ("good", "suspect")


def states(rules: Mapping[str, Any]) -> tuple[str, ...]:
    """States that an alarm can have under these rules."""
    return ("raised", *(("escalated",) if rules["alarm_escalation"] else ()), "acknowledged", "cleared")


class Bindings:
    """The texts over one composed world: column names, nouns and rules are bound here."""

    def __init__(self, world: Composed) -> None:
        self.world, rules = world, world.rules
        self.site, self.site_key = world.fk("sensor", "site")
        self.link, self.link_key = world.fk("reading", "sensor")
        self.alarmed, self.alarmed_key = world.fk("alarm", "sensor")
        self.assigned = bool(rules["alarm_assigned"])
        owner = ("alarm", "assignee") if self.assigned else ("sensor", "keeper")
        self.owner, self.owner_key = world.fk(*owner)
        self.maintained = rules["alarm_maintenance"] != "none"
        self.hourly = rules["alarm_maintenance"] == "hours"
        self.shut, self.shut_key = world.fk("maintenance", "sensor") if self.maintained else ("", "")
        self.site_cap = int(rules["alarm_site_cap"])
        self.window, self.margin = int(rules["alarm_window"]), int(rules["alarm_margin"])
        self.chained, self.low = bool(rules["alarm_chained"]), bool(rules["alarm_low"])
        self.since, self.quality = bool(rules["alarm_since"]), bool(rules["alarm_quality"])
        self.escalation, self.group = bool(rules["alarm_escalation"]), bool(rules["alarm_group"])
        self.step = int(rules["alarm_step"])
        self.open_states = ("raised", "escalated") if self.escalation else ("raised",)
        self.clearable = ("raised", "acknowledged")
        self.open_words = " or ".join(self.open_states)
        self.today = world.now[:10]
        self.acknowledge_tool = f"acknowledge_{world.slug('alarm')}"
        self.clear_tool = f"clear_{world.slug('alarm')}"
        self.limit_tool = f"set_{world.slug('sensor')}_limit"
        self.maintain_tool = f"plan_{world.slug('maintenance')}" if self.maintained else ""

    def arg(self, entity: str) -> str:
        """Name of the tool argument that takes an id."""
        return id_argument(self.world, entity)

    # SQL --------------------------------------------------------------------------------------------------------

    def open_sql(self, alarm: str) -> str:
        """Whether an alarm still waits for somebody."""
        return f'{alarm}."state" IN ({", ".join(repr(state) for state in self.open_states)})'

    def serviced_sql(self, sensor: str, event: str) -> str:
        """Whether a sensor was in maintenance at the day and hour of an event."""
        hours = f' AND m."start" <= {event}."hour" AND {event}."hour" < m."end"' if self.hourly else ""
        return (
            f'EXISTS (SELECT 1 FROM "maintenance" m WHERE m."{self.shut}" = {sensor}."{self.shut_key}"'
            f' AND m."day" = {event}."day"{hours})'
        )

    def seen_sql(self, sensor: str) -> str:
        """SELECT of day, hour and calibrated value of the measurements of a sensor that count."""
        offset = f'{sensor}."offset"' + (f' * (r."day" >= {sensor}."since")' if self.since else "")
        good = " AND r.\"quality\" = 'good'" if self.quality else ""
        working = f" AND NOT {self.serviced_sql(sensor, 'r')}" if self.maintained else ""
        return (
            f'SELECT r."day", r."hour", r."value" + {offset} AS "level" FROM "reading" r'
            f' WHERE r."{self.link}" = {sensor}."{self.link_key}"{good}{working}'
        )

    def beyond_sql(self, sensor: str, level: str) -> str:
        """Whether a calibrated value is out of range."""
        below = f' OR {level} < {sensor}."low"' if self.low else ""
        return f'({level} > {sensor}."high"{below})'

    def episodes_sql(self, sensor: str, day: str) -> str:
        """SQL of the number of episodes of a sensor on a day."""
        seen = f'"seen" AS MATERIALIZED ({self.seen_sql(sensor)} AND r."day" = {day})'
        level, first, later, previous = '"level"', 'p."first"', 'o."hour"', 'p."hour"'
        hours = f'SELECT DISTINCT "hour" FROM "seen" WHERE {self.beyond_sql(sensor, level)}'
        if self.chained:
            later, previous = 'x."hour"', 'x."before"'
            back = self.back_sql(sensor, previous, later)
            return (
                f'(WITH {seen}, "out"("hour", "before") AS'
                f' (SELECT "hour", LAG("hour") OVER (ORDER BY "hour") FROM ({hours}))'
                ' SELECT COUNT(*) FROM "out" x WHERE x."before" IS NULL'
                f' OR (x."hour" - x."before" > {self.window}{back}))'
            )
        fresh = f"({later} - {first} > {self.window}{self.back_sql(sensor, previous, later)})"
        return (
            f'(WITH RECURSIVE {seen}, "out"("n", "hour") AS MATERIALIZED'
            f' (SELECT row_number() OVER (ORDER BY "hour"), "hour" FROM ({hours})),'
            ' "pass"("n", "hour", "first", "episodes") AS (SELECT "n", "hour", "hour", 1 FROM "out" WHERE "n" = 1'
            f' UNION ALL SELECT o."n", o."hour", CASE WHEN {fresh} THEN o."hour" ELSE p."first" END,'
            f' p."episodes" + {fresh} FROM "pass" p JOIN "out" o ON o."n" = p."n" + 1)'
            ' SELECT COALESCE(MAX("episodes"), 0) FROM "pass")'
        )

    def back_sql(self, sensor: str, after: str, before: str) -> str:
        """Condition that a value came back well inside the limits between two hours; empty without a margin."""
        if not self.margin:
            return ""
        above = f' AND s."level" >= {sensor}."low" + {self.margin}' if self.low else ""
        return (
            f' AND EXISTS (SELECT 1 FROM "seen" s WHERE s."hour" > {after} AND s."hour" < {before}'
            f' AND s."level" <= {sensor}."high" - {self.margin}{above})'
        )

    # planner ----------------------------------------------------------------------------------------------------

    def plan_serviced(self) -> str:
        """Planner source of `in_maintenance`: whether a sensor was in maintenance at the time of an event."""
        if not self.maintained:
            return ""
        hours = " and m['start'] <= event['hour'] < m['end']" if self.hourly else ""
        return (
            "def in_maintenance(sensor, event):\n"
            f"    planned = rows('maintenance', {{{self.shut!r}: sensor[{self.shut_key!r}]}})\n"
            f"    return len([m for m in planned if m['day'] == event['day']{hours}]) > 0\n"
        )

    def plan_seen(self) -> str:
        """Planner source of the (day, hour, value) of the measurements of a sensor that count."""
        tests = ["r['quality'] == 'good'"] if self.quality else []
        tests += ["not in_maintenance(row, r)"] if self.maintained else []
        kept = f"    found = [r for r in found if {' and '.join(tests)}]\n" if tests else ""
        since = " if r['day'] >= row['since'] else 0" if self.since else ""
        below = " or level < row['low']" if self.low else ""
        return (
            self.plan_serviced() + "def counted_values(row):\n"
            f"    found = rows('reading', {{{self.link!r}: row[{self.link_key!r}]}})\n"
            "    if not POLICY:\n"
            "        return [(r['day'], r['hour'], r['value']) for r in found]\n"
            f"{kept}"
            f"    return [(r['day'], r['hour'], r['value'] + (row['offset']{since})) for r in found]\n"
            "def beyond_limits(row, level):\n"
            f"    return level > row['high']{below}\n"
        )

    # goals ------------------------------------------------------------------------------------------------------

    def goal_serviced(self) -> str:
        """Goal source of `idle_times`: when sensors were in maintenance, by the key that maintenance refers to."""
        if not self.maintained:
            return ""
        idle = (
            "        for hour in range(m['start'], m['end']):\n"
            f"            idle.add((m[{self.shut!r}], m['day'], hour))\n"
            if self.hourly
            else f"        idle.add((m[{self.shut!r}], m['day']))\n"
        )
        return f"@once\ndef idle_times():\n    idle = set()\n    for m in db['maintenance']:\n{idle}    return idle\n"

    def idle_test(self, sensor: str, event: str) -> str:
        """Goal expression: whether a sensor was in maintenance at the time of an event."""
        hour = f", {event}['hour']" if self.hourly else ""
        return f"({sensor}[{self.shut_key!r}], {event}['day']{hour}) in idle_times()"

    def goal_levels(self) -> str:
        """Goal source of `levels_by_sensor`: sensor id to (day, hour, calibrated value) of what counts."""
        late = " * int(not r['day'] < sensor['since'])" if self.since else ""
        skips: list[str] = []
        if self.quality:
            skips.append("r['quality'] == 'suspect'")
        if self.maintained:
            skips.append(self.idle_test("sensor", "r"))
        skipped = f"        if {' or '.join(skips)}:\n            continue\n" if skips else ""
        return (
            self.goal_serviced() + "@once\n"
            "def levels_by_sensor():\n"
            f"    sensors = {{s[{self.link_key!r}]: s for s in db['sensor']}}\n"
            "    levels = {}\n"
            "    for r in db['reading']:\n"
            f"        sensor = sensors[r[{self.link!r}]]\n"
            f"{skipped}"
            f"        level = sensor['offset']{late} + r['value']\n"
            "        levels.setdefault(sensor['id'], []).append((r['day'], r['hour'], level))\n"
            "    return levels\n"
        )

    def within_test(self, margin: int = 0) -> str:
        """Goal expression: whether `level` lies at least a margin within the limits of `row`."""
        top = f"row['high'] - {margin}" if margin else "row['high']"
        bottom = (f"row['low'] + {margin} <= " if margin else "row['low'] <= ") if self.low else ""
        return f"{bottom}level <= {top}"
