"""What the texts of a service desk have in common: column names and rules bound to one world, and shared pieces.

Working hours are counted in three ways on purpose: SQL walks the days and cuts each at its ends, the planner numbers the
days since a fixed one, the goals list every working hour backwards from now.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from datetime import date, timedelta
from typing import Any

from envsynth.author.procedural.ir import Type
from envsynth.author.procedural.mechanism import Composed
from envsynth.author.procedural.mechanisms.entities import id_argument

HOURS = Type("num", "h")
MINUTES = Type("num", "min")
PRIORITY = Type("str", "priority")
PRIORITIES = ("urgent", "high", "normal", "low")
"""Words for the priorities 1 to 4; words, because neither their sum nor one row with the largest means anything."""
SEVERITIES = ("minor", "major", "critical")
REACHES = ("single", "team", "company")
OCCASIONS = ("festival", "stocktaking", "outing")
WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
MATRICES: Mapping[str, Mapping[str, tuple[int, int, int]]] = {
    "even": {"minor": (4, 4, 3), "major": (4, 3, 2), "critical": (3, 2, 1)},
    "severity": {"minor": (4, 4, 3), "major": (3, 2, 2), "critical": (2, 1, 1)},
    "reach": {"minor": (4, 3, 2), "major": (4, 3, 1), "critical": (3, 2, 1)},
}
"""Priority by matrix and severity, one for each reach."""
FREE_DAYS: Mapping[str, tuple[int, ...]] = {"daily": (), "no sunday": (6,), "weekdays": (5, 6)}
"""Weekdays (Monday is 0) that are not worked."""
EXTRA = {"minor": 0, "major": 15, "critical": 40}
"""Minutes on top of the effort, by severity."""
STEP = 20
"""Minutes on top of the effort, for each priority level above the lowest."""
SKILLS = {1: 3, 2: 2}
"""Number in `GRADES` of the lowest skill by priority; 1 for the others."""
GRADES = ("junior", "senior", "expert")
"""Skills, lowest first."""
LEVELS = {1: "third", 2: "second"}
"""Support level that an incident is triaged to, by priority; the first for the others."""
TIERS = ("first", "second", "third")
"""Support levels, lowest first."""
ABOVE = dict(itertools.pairwise(TIERS))
"""Next support level."""


def stages(rules: Mapping[str, Any]) -> tuple[str, ...]:
    """States that an incident can have under these rules, in order."""
    return (
        *(("new",) if rules["desk_triage"] else ()),
        *("triaged", "assigned"),
        *(("waiting",) if rules["desk_waiting"] != "none" else ()),
        "resolved",
        *(("closed",) if rules["desk_closing"] else ()),
    )


def by_priority(values: Mapping[int, str], rest: str) -> str:
    """Words for what depends on the priority: "third if its priority is urgent, second if its priority is high, first otherwise"."""
    listed = ", ".join(f"{value} if its priority is {PRIORITIES[level - 1]}" for level, value in values.items())
    return f"{listed}, {rest} otherwise"


class Bindings:
    """The texts over one composed world: column names, nouns and rules are bound here."""

    def __init__(self, world: Composed) -> None:
        self.world = world
        self.queue, self.queue_key = world.fk("incident", "queue")
        self.desk, self.desk_key = world.fk("assignee", "queue")
        self.case, _ = world.fk("dispatch", "incident")
        self.agent, self.agent_key = world.fk("dispatch", "assignee")
        rules = world.rules
        self.opens, self.closes, self.hour = rules["desk_opens"], rules["desk_closes"], rules["desk_hour"]
        self.free_days = FREE_DAYS[rules["desk_week"]]
        self.holidays, self.skills, self.strict = rules["desk_holidays"], rules["desk_skills"], rules["desk_strict"]
        self.matrix = MATRICES[rules["desk_matrix"]]
        self.today = world.now[:10]
        self.aging = int(rules["desk_aging"])
        self.aged = (date.fromisoformat(self.today) - timedelta(days=self.aging)).isoformat()
        self.targets = [int(hours) for hours in rules["desk_targets"]]
        self.waits, self.stops = rules["desk_waiting"] != "none", rules["desk_waiting"] == "stops"
        self.held = ("assigned", "waiting") if self.waits else ("assigned",)
        self.open = ("triaged", *self.held)
        self.unfinished = (*(("new",) if rules["desk_triage"] else ()), *self.open)
        self.idle = not self.waits or rules["desk_idle"]
        self.weight, self.alarm = rules["desk_weight"], int(rules["desk_alarm"])
        incident = world.slug("incident")
        self.assign_tool, self.escalate_tool = f"assign_{incident}", f"escalate_{incident}"
        self.transfer_tool = f"move_{incident}"
        self.resolve_tool, self.triage_tool = f"resolve_{incident}", f"triage_{incident}"

    def arg(self, entity: str) -> str:
        """Name of the tool argument that takes an id."""
        return id_argument(self.world, entity)

    # SQL --------------------------------------------------------------------------------------------------------

    def level_sql(self, case: str) -> str:
        """SQL of the priority of an incident as a number."""
        cells = "".join(
            f" WHEN '{severity} {reach}' THEN {level}"
            for severity, levels in self.matrix.items()
            for reach, level in zip(REACHES, levels, strict=True)
        )
        level = f'CASE {case}."severity" || \' \' || {case}."reach"{cells} END'
        return f"MAX(1, {level} - ({case}.\"opened\" <= '{self.aged}'))" if self.aging else f"({level})"

    def priority_sql(self, case: str) -> str:
        """SQL of the priority of an incident in words."""
        words = " ".join(f"WHEN {level} THEN '{word}'" for level, word in enumerate(PRIORITIES, 1))
        return f"(CASE {self.level_sql(case)} {words} END)"

    def worked_sql(self, case: str) -> str:
        """SQL of the working hours since an incident was opened."""
        free = ", ".join(f"'{(day + 1) % 7}'" for day in self.free_days)
        week = f' AND strftime(\'%w\', "span"."day") NOT IN ({free})' if free else ""
        shut = ' AND NOT EXISTS (SELECT 1 FROM "holiday" o WHERE o."day" = "span"."day")' if self.holidays else ""
        last = f'CASE WHEN "span"."day" = \'{self.today}\' THEN {self.hour} ELSE 24 END'
        first = f'CASE WHEN "span"."day" = {case}."opened" THEN {case}."hour" ELSE 0 END'
        return (
            f'(WITH RECURSIVE "span"("day") AS (SELECT {case}."opened" UNION ALL'
            f' SELECT date("span"."day", \'+1 day\') FROM "span" WHERE "span"."day" < \'{self.today}\')'
            f" SELECT COALESCE(SUM(MAX(0, MIN({self.closes}, {last}) - MAX({self.opens}, {first}))), 0)"
            f' FROM "span" WHERE 1{week}{shut})'
        )

    def left_sql(self, case: str) -> str:
        """SQL of the remaining time of an incident."""
        target = " ".join(f"WHEN {level} THEN {hours}" for level, hours in enumerate(self.targets, 1))
        waited = f' + {case}."waited"' if self.stops else ""
        return f"(CASE {self.level_sql(case)} {target} END - {self.worked_sql(case)}{waited})"

    def weight_sql(self, case: str) -> str:
        """SQL of the workload of an incident."""
        effort = f'{case}."effort"'
        if self.weight == "severity":
            cells = " ".join(f"WHEN '{severity}' THEN {minutes}" for severity, minutes in EXTRA.items())
            return f'({effort} + CASE {case}."severity" {cells} END)'
        return f"({effort} + (4 - {self.level_sql(case)}) * {STEP})" if self.weight == "priority" else effort

    def load_sql(self, agent: str) -> str:
        """SQL of the load of an agent."""
        idle = "" if self.idle else " AND y.\"progress\" <> 'waiting'"
        return (
            f'(SELECT COALESCE(SUM({self.weight_sql("y")}), 0) FROM "dispatch" x JOIN "incident" y'
            f' ON y."id" = x."{self.case}" WHERE x."{self.agent}" = {agent}."{self.agent_key}"'
            f" AND x.\"standing\" = 'current'{idle})"
        )

    def need_sql(self, case: str) -> str:
        """SQL of the number of the lowest skill that an incident needs."""
        cells = " ".join(f"WHEN {level} THEN {skill}" for level, skill in SKILLS.items())
        return f"(CASE {self.level_sql(case)} {cells} ELSE 1 END)"

    def grade_sql(self, agent: str) -> str:
        """SQL of the number of an agent's skill."""
        cells = " ".join(f"WHEN '{word}' THEN {number}" for number, word in enumerate(GRADES, 1))
        return f'(CASE {agent}."skill" {cells} END)'

    def suited_sql(self, agent: str, case: str) -> str:
        """SQL condition that an agent can take an incident; both are aliases."""
        # The queue's own key decides, because agents and incidents may name their queue in different ways.
        skill = f" AND {self.grade_sql(agent)} >= {self.need_sql(case)}" if self.skills else ""
        return (
            f'(EXISTS (SELECT 1 FROM "queue" z WHERE z."{self.desk_key}" = {agent}."{self.desk}"'
            f' AND z."{self.queue_key}" = {case}."{self.queue}"){skill}'
            f' AND {self.load_sql(agent)} + {self.weight_sql(case)} <= {agent}."limit")'
        )

    # planner ----------------------------------------------------------------------------------------------------

    def plan_level(self) -> str:
        """Planner source of `desk_level`, the priority as a number; without the rules severity alone decides."""
        rows = {severity: list(levels) for severity, levels in self.matrix.items()}
        aged = f"    if row['opened'] <= '{self.aged}':\n        level = max(1, level - 1)\n" if self.aging else ""
        return (
            "def desk_level(row):\n"
            "    if not POLICY:\n"
            "        return {'minor': 4, 'major': 3, 'critical': 1}[row['severity']]\n"
            f"    level = {rows}[row['severity']][{list(REACHES)}.index(row['reach'])]\n"
            f"{aged}"
            "    return level\n"
        )

    def plan_priority(self) -> str:
        """Planner source of `d_priority`."""
        return (
            self.plan_level() + f"def d_priority(row):\n    return {dict(enumerate(PRIORITIES, 1))}[desk_level(row)]\n"
        )

    def plan_left(self) -> str:
        """Planner source of `d_hours_left`; without the rules the clock on the wall counts."""
        free = f"number % 7 in {tuple((day + 1) % 7 for day in self.free_days)}"
        shut = "    closed = [desk_day(h['day']) for h in rows('holiday', {})]\n" if self.holidays else ""
        tests = [*([free] if self.free_days else []), *(["number in closed"] if self.holidays else [])]
        skip = f"        if {' or '.join(tests)}:\n            continue\n" if tests else ""
        waited = " + (row['waited'] if POLICY else 0)" if self.stops else ""
        return (
            self.plan_level() + "def desk_day(day):\n"
            "    year, month, rest = int(day[:4]), int(day[5:7]), int(day[8:])\n"
            "    if month < 3:\n"
            "        year, month = year - 1, month + 12\n"
            "    leaps = year // 4 - year // 100 + year // 400\n"
            "    return 365 * year + leaps + (153 * month - 457) // 5 + rest - 306\n"
            "def desk_worked(row):\n"
            f"    first, last = desk_day(row['opened']), desk_day('{self.today}')\n"
            "    if not POLICY:\n"
            f"        return (last - first) * 24 + {self.hour} - row['hour']\n"
            f"{shut}"
            "    hours = 0\n"
            "    for number in range(first, last + 1):\n"
            f"{skip}"
            f"        start = max({self.opens}, row['hour']) if number == first else {self.opens}\n"
            f"        end = min({self.closes}, {self.hour}) if number == last else {self.closes}\n"
            "        hours += max(0, end - start)\n"
            "    return hours\n"
            "def d_hours_left(row):\n"
            f"    return {self.targets}[desk_level(row) - 1] - desk_worked(row){waited}\n"
        )

    def plan_weight(self) -> str:
        """Planner source of `desk_workload`."""
        if self.weight == "severity":
            return f"def desk_workload(row):\n    return row['effort'] + {EXTRA}[row['severity']]\n"
        if self.weight == "priority":
            more = f"{[STEP * (4 - level) for level in range(1, 5)]}[desk_level(row) - 1]"
            return self.plan_level() + f"def desk_workload(row):\n    return row['effort'] + {more}\n"
        return "def desk_workload(row):\n    return row['effort']\n"

    def plan_load(self) -> str:
        """Planner source of `d_load`; without the rules the efforts of all that was ever handled."""
        idle = "" if self.idle else " if c['progress'] != 'waiting'"
        return (
            self.plan_weight() + "def d_load(row):\n"
            f"    mine = rows('dispatch', {{{self.agent!r}: row[{self.agent_key!r}]}})\n"
            "    minutes = 0\n"
            "    for x in mine:\n"
            f"        found = rows('incident', {{'id': x[{self.case!r}]}})\n"
            "        if not POLICY:\n"
            "            minutes += sum([c['effort'] for c in found])\n"
            "        elif x['standing'] == 'current':\n"
            f"            minutes += sum([desk_workload(c) for c in found{idle}])\n"
            "    return minutes\n"
        )

    def plan_suited(self) -> str:
        """Planner source of `d_suited`; without the rules anyone is suited who handles less than the limit."""
        skill = (
            f"    if {list(GRADES)}.index(row['skill']) + 1 < {SKILLS}.get(desk_level(incident), 1):\n"
            "        return False\n"
        )
        return (
            self.plan_level() + self.plan_load() + "def d_suited(row, incident):\n"
            "    if not POLICY:\n"
            "        return d_load(row) < row['limit']\n"
            f"    for q in rows('queue', {{{self.queue_key!r}: incident[{self.queue!r}]}}):\n"
            f"        if q[{self.desk_key!r}] != row[{self.desk!r}]:\n"
            "            return False\n"
            f"{skill if self.skills else ''}"
            "    return d_load(row) + desk_workload(incident) <= row['limit']\n"
        )

    # goals ------------------------------------------------------------------------------------------------------

    def goal_level(self) -> str:
        """Goal source of `level_of_incident`: which pairs belong to each level."""
        pairs: dict[int, list[tuple[str, str]]] = {1: [], 2: [], 3: [], 4: []}
        for severity, levels in self.matrix.items():
            for reach, level in zip(REACHES, levels, strict=True):
                pairs[level].append((severity, reach))
        lines = "".join(
            f"    if pair in {found}:\n        level = {level}\n" for level, found in pairs.items() if found
        )
        late = f"    if level > 1 and not row['opened'] > '{self.aged}':\n        level -= 1\n" if self.aging else ""
        return (
            "def level_of_incident(row):\n"
            "    level, pair = 0, (row['severity'], row['reach'])\n"
            f"{lines}"
            f"{late}"
            "    return level\n"
        )

    def goal_priority(self) -> str:
        """Goal source of `g_priority`."""
        return (
            self.goal_level() + "def g_priority(db, row):\n"
            f"    return {' '.join(PRIORITIES)!r}.split()[level_of_incident(row) - 1]\n"
        )

    def goal_left(self) -> str:
        """Goal source of `g_hours_left`."""
        year, month, day = (int(part) for part in self.today.split("-"))
        weekday = date.fromisoformat(self.today).weekday()
        shut = "    shut = {h['day'] for h in db['holiday']}\n" if self.holidays else "    shut = set()\n"
        waited = "row['waited']" if self.stops else "0"
        return (
            self.goal_level() + "@once\n"
            "def desk_hours():\n"
            f"{shut}"
            "    found = []\n"
            "    earliest = min(c['opened'] for c in db['incident'])\n"
            f"    year, month, rest, weekday, end = {year}, {month}, {day}, {weekday}, {min(self.hour, self.closes)}\n"
            "    day = f'{year:04d}-{month:02d}-{rest:02d}'\n"
            "    while day >= earliest:\n"
            f"        if weekday not in {list(self.free_days)} and day not in shut:\n"
            f"            found += [(day, hour) for hour in range({self.opens}, end)]\n"
            f"        rest, weekday, end = rest - 1, (weekday + 6) % 7, {self.closes}\n"
            "        if rest == 0:\n"
            "            year, month = (year, month - 1) if month > 1 else (year - 1, 12)\n"
            "            leap = year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)\n"
            "            rest = 30 if month in (4, 6, 9, 11) else 28 + leap if month == 2 else 31\n"
            "        day = f'{year:04d}-{month:02d}-{rest:02d}'\n"
            "    return found\n"
            "@once\n"
            "def desk_hours_since(day, hour):\n"
            "    return sum(1 for slot in desk_hours() if not slot < (day, hour))\n"
            "def g_hours_left(db, row):\n"
            f"    allowed = {waited}\n"
            f"    for level, hours in {list(enumerate(self.targets, 1))}:\n"
            "        if level == level_of_incident(row):\n"
            "            allowed += hours\n"
            "    return allowed - desk_hours_since(row['opened'], row['hour'])\n"
        )

    def goal_weight(self) -> str:
        """Goal source of `workload_of_incident`."""
        if self.weight == "severity":
            return (
                "def workload_of_incident(row):\n"
                "    if row['severity'] == 'minor':\n"
                "        return row['effort']\n"
                f"    more = {EXTRA['critical']} if row['severity'] == 'critical' else {EXTRA['major']}\n"
                "    return more + row['effort']\n"
            )
        if self.weight == "priority":
            return (
                self.goal_level() + "def workload_of_incident(row):\n"
                "    minutes = row['effort']\n"
                "    for level in range(level_of_incident(row), 4):\n"
                f"        minutes += {STEP}\n"
                "    return minutes\n"
            )
        return "def workload_of_incident(row):\n    return row['effort']\n"

    def goal_load(self) -> str:
        """Goal source of `g_load`."""
        idle = "" if self.idle else " if c['progress'] != 'waiting'"
        return (
            self.goal_weight() + "@once\n"
            "def loads_of_agents():\n"
            f"    weights = {{c['id']: workload_of_incident(c) for c in db['incident']{idle}}}\n"
            "    loads = {}\n"
            "    for x in db['dispatch']:\n"
            "        if x['standing'] != 'ended':\n"
            f"            key = x[{self.agent!r}]\n"
            f"            loads[key] = loads.get(key, 0) + weights.get(x[{self.case!r}], 0)\n"
            "    return loads\n"
            "def g_load(db, row):\n"
            f"    return loads_of_agents().get(row[{self.agent_key!r}], 0)\n"
        )

    def goal_suited(self) -> str:
        """Goal source of `g_suited`."""
        skill = ""
        if self.skills:
            skill = (
                "    level = level_of_incident(incident)\n"
                "    if row['skill'] == 'junior' and level < 3 or row['skill'] == 'senior' and level == 1:\n"
                "        return False\n"
            )
        return (
            self.goal_level() + self.goal_load() + "@once\n"
            "def desks_of_queues():\n"
            f"    return {{q[{self.queue_key!r}]: q[{self.desk_key!r}] for q in db['queue']}}\n"
            "def g_suited(db, row, incident):\n"
            f"    if desks_of_queues()[incident[{self.queue!r}]] != row[{self.desk!r}]:\n"
            "        return False\n"
            f"{skill}"
            "    return not row['limit'] - g_load(db, row) < workload_of_incident(incident)\n"
        )

    def goal_ended(self) -> str:
        """Goal source of `ended_dispatches`: the entries that end all that is current for an incident, or None."""
        return (
            "@once\n"
            "def current_dispatches():\n"
            "    found = {}\n"
            "    for x in db['dispatch']:\n"
            "        if x['standing'] == 'current':\n"
            f"            found.setdefault(x[{self.case!r}], []).append(x['id'])\n"
            "    return found\n"
            "def ended_dispatches(diff, incident):\n"
            "    wanted = current_dispatches().get(incident['id'], [])\n"
            "    found = []\n"
            "    for entry in diff:\n"
            "        if entry['op'] == 'update' and entry['table'] == 'dispatch' and entry['old']['id'] in wanted:\n"
            "            if entry['new'] == {**entry['old'], 'standing': 'ended'}:\n"
            "                found.append(entry)\n"
            "    return found if len(found) == len(wanted) else None\n"
        )
