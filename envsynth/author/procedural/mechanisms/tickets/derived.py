"""Derived attributes of a service desk, each with its sentence and three texts."""

from __future__ import annotations

from datetime import date

from envsynth.author.procedural.ir import Type
from envsynth.author.procedural.mechanism import Derived
from envsynth.author.procedural.mechanisms.tickets.bindings import (
    EXTRA,
    GRADES,
    HOURS,
    MINUTES,
    PRIORITIES,
    PRIORITY,
    REACHES,
    SKILLS,
    STEP,
    WEEKDAYS,
    Bindings,
    by_priority,
)


class DerivedTexts(Bindings):
    """Writes the derived attributes over one world."""

    def clock_policy(self) -> str:
        """When work is done, and what the hour is."""
        free = [f"{WEEKDAYS[day]}s" for day in self.free_days]
        if self.holidays:
            free.append(f"the days listed as {self.world.plural('holiday')}")
        listed = f"{', '.join(free[:-1])} and {free[-1]}" if len(free) > 1 else "".join(free)
        return (
            f"Working hours are from {self.opens} to {self.closes} o'clock on every day"
            f"{f' but {listed}' if free else ''}. It is now {self.hour} o'clock on {self.today}, a "
            f"{WEEKDAYS[date.fromisoformat(self.today).weekday()]}."
        )

    def workload_policy(self) -> str:
        """How long an incident takes."""
        incident = self.world.word("incident")
        if self.weight == "severity":
            listed = ", ".join(
                f"{minutes} minutes if its severity is {severity}" for severity, minutes in EXTRA.items()
            )
            return f"The workload of a {incident} is its estimated effort plus {listed}."
        if self.weight == "priority":
            listed = ", ".join(
                f"{STEP * (4 - level)} minutes if its priority is {PRIORITIES[level - 1]}" for level in range(1, 5)
            )
            return f"The workload of a {incident} is its estimated effort plus {listed}."
        return f"The workload of a {incident} is its estimated effort."

    def priority(self) -> Derived:
        """Priority of an incident."""
        incident = self.world.word("incident")
        parts = [
            f"if its severity is {severity}, "
            + ", ".join(
                f"{PRIORITIES[level - 1]} for the reach {reach}" for reach, level in zip(REACHES, levels, strict=True)
            )
            for severity, levels in self.matrix.items()
        ]
        aged = (
            f" A {incident} opened {self.aging} or more calendar days ago (on or before {self.aged}) is one step more "
            f"urgent, but never more than {PRIORITIES[0]}."
            if self.aging
            else ""
        )
        return Derived(
            entity="incident",
            name="priority",
            label="priority",
            type=PRIORITY,
            sql=self.priority_sql("{t}"),
            plan=self.plan_priority(),
            goal=self.goal_priority(),
            policy=(
                f"The priority of a {incident} (from the most to the least urgent: {', '.join(PRIORITIES)}) is: "
                f"{'; '.join(parts)}.{aged}"
            ),
        )

    def hours_left(self) -> Derived:
        """Working hours until an incident is due."""
        incident = self.world.word("incident")
        targets = ", ".join(
            f"{hours} hours if its priority is {word}" for word, hours in zip(PRIORITIES, self.targets, strict=True)
        )
        waits = (
            " Its waiting time does not count as worked."
            if self.stops
            else " Its waiting time counts like any other."
            if self.waits
            else ""
        )
        return Derived(
            entity="incident",
            name="hours_left",
            label="remaining time",
            type=HOURS,
            sql=self.left_sql("{t}"),
            plan=self.plan_left(),
            goal=self.goal_left(),
            policy=(
                f"The remaining time of a {incident} is its target less the working hours from its opening hour on its "
                f"opening day until now, whatever its progress; it is negative once the target is exceeded. The target "
                f"is {targets}.{waits}"
            ),
        )

    def load(self) -> Derived:
        """Minutes of work that an agent has."""
        word, plural = self.world.word, self.world.plural
        idle = "" if self.idle else f"; {plural('incident')} whose progress is waiting do not count"
        return Derived(
            entity="assignee",
            name="load",
            label="current load",
            type=MINUTES,
            sql=self.load_sql("{t}"),
            plan=self.plan_load(),
            goal=self.goal_load(),
            policy=(
                f"The current load of a {word('assignee')} is the sum of the workloads of the {plural('incident')} of all "
                f"its {plural('dispatch')} whose standing is current{idle}."
            ),
        )

    def suited(self) -> Derived:
        """Whether an agent can take an incident."""
        word = self.world.word
        needed = {level: " or ".join(GRADES[number - 1 :]) for level, number in SKILLS.items()}
        skill = f", its skill is high enough ({by_priority(needed, 'any')})" if self.skills else ""
        return Derived(
            entity="assignee",
            name="suited",
            label="suited to {0}",
            params=(Type("row", "incident"),),
            type=Type("bool"),
            sql=(f'EXISTS (SELECT 1 FROM "incident" i WHERE i."id" = {{0}} AND {self.suited_sql("{t}", "i")})'),
            plan=self.plan_suited(),
            goal=self.goal_suited(),
            policy=(
                f"A {word('assignee')} is suited to a {word('incident')} if both belong to the same {word('queue')}{skill}, "
                f"and its current load plus the workload of the {word('incident')} is at most its workload limit."
            ),
        )
