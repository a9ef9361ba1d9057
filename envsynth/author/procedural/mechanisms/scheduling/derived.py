"""Derived attributes of a scheduling world, each with its sentence and three texts."""

from __future__ import annotations

from envsynth.author.procedural.mechanism import Derived
from envsynth.author.procedural.mechanisms.scheduling.bindings import DAY, DAYS, JOB
from envsynth.author.procedural.mechanisms.scheduling.checks import GoalTexts
from envsynth.author.procedural.mechanisms.scheduling.plans import PlanTexts


class DerivedTexts(PlanTexts, GoalTexts):
    """Writes the derived attributes over one world."""

    def ready_policy(self) -> str:
        """What a ready day is."""
        world, job = self.world, self.world.word("job")
        kick = f" nor before the kick-off day of its {world.word('scheme')}" if self.kickoffs else ""
        before = world.word("precedence")
        lag = f", with at least as many days in between as the lag of that {before}" if self.lags else ""
        return (
            f"The ready day of a {job}, whatever its state, is the first working day that lies not before {self.today}"
            f"{kick} and after the expected end of every {job} that a {before} puts before it{lag}; "
            f"cancelled {world.plural('job')} hold nothing up."
        )

    def ready_day(self) -> Derived:
        """First day on which a job could start by what comes before it."""
        return Derived(
            entity="job",
            name="ready_day",
            label="ready day",
            type=DAY,
            sql=self.ready_sql('{t}."id"'),
            plan=self.plan_ready(),
            goal=self.goal_ready(),
            policy=self.ready_policy(),
        )

    def completion(self) -> Derived:
        """Expected end of the last job of a project."""
        world, scheme = self.world, self.world.word("scheme")
        seed = (
            f'SELECT j."id" FROM "job" j WHERE j."{self.scheme}" = {{t}}."{self.scheme_key}"'
            " AND j.\"state\" <> 'cancelled'"
        )
        ends = self.text_sql('MAX("flow"."n") + j."duration" - 1')
        return Derived(
            entity="scheme",
            name="completion",
            label="completion day",
            type=DAY,
            sql=(
                f"(WITH RECURSIVE {self.flow_sql(seed)} SELECT COALESCE(MAX(\"ends\"), '{self.today}') FROM"
                f' (SELECT COALESCE(f."end", {ends}) AS "ends" FROM "flow" JOIN "job" j ON j."id" = "flow"."job"'
                f' LEFT JOIN "fixed" f ON f."job" = j."id" WHERE j."id" IN ({seed}) GROUP BY j."id"))'
            ),
            plan=self.plan_completion(),
            goal=self.goal_completion(),
            policy=(
                f"The completion day of a {scheme} is the latest expected end of its {world.plural('job')} that are not "
                f"cancelled, or {self.today} if it has none."
            ),
        )

    def start_policy(self) -> str:
        """What an earliest start is."""
        world, job, machine = self.world, self.world.word("job"), self.world.word("machine")
        slot = world.word("sched_slot")
        closed = "no closed day may lie in between" if self.unbroken else "closed days in between prolong it"
        gap = "1 full day" if self.gap == 1 else f"{self.gap} full days"
        apart = f"; at least {gap} must lie between two {world.plural('job')} on a {machine}" if self.gap else ""
        return (
            f"The earliest start for a {job} on a {machine} is the first day, not before the ready day of the {job}, from "
            f"which it fits there: it takes as many open days of the {machine} as its duration, its first and its last "
            f"day among them, and {closed}; no other {job} may have the {machine} on any day from its first to its last, "
            f"where a {job} has the {machine} from the first day of its {slot} there to its expected end{apart}."
        )

    def earliest_start(self) -> Derived:
        """First day on which a machine can take a job."""
        return Derived(
            entity="machine",
            name="earliest_start",
            label="earliest start for {0}",
            params=(JOB,),
            type=DAY,
            sql=self.fit_sql("{t}", "{0}", "a"),
            plan=self.plan_start(),
            goal=self.goal_start(),
            policy=self.start_policy(),
        )

    def busy_days(self) -> Derived:
        """Open days of a machine on which a job has it."""
        world, machine, slot = self.world, self.world.word("machine"), self.world.word("sched_slot")
        return Derived(
            entity="machine",
            name="busy_days",
            label="busy days from {0} to {1}",
            params=(DAY, DAY),
            type=DAYS,
            sql=(
                f'(WITH RECURSIVE "taken" AS MATERIALIZED ({self.taken_sql("{t}")}),'
                f' "shut" AS MATERIALIZED ({self.shut_sql("{t}")}),'
                ' "day"("at") AS (SELECT MAX({0}, t."first") FROM "taken" t'
                ' WHERE MAX({0}, t."first") <= MIN({1}, t."last")'
                ' UNION SELECT date("day"."at", \'+1 day\') FROM "day" WHERE EXISTS (SELECT 1 FROM "taken" t'
                ' WHERE t."first" <= "day"."at" AND "day"."at" < MIN({1}, t."last")))'
                f' SELECT COUNT(*) FROM "day" WHERE {self.open_sql()})'
            ),
            plan=self.plan_busy(),
            goal=self.goal_busy(),
            policy=(
                f"The busy days of a {machine} from one day to another are its open days in that period, both ends "
                f"included, on which a {world.word('job')} has it, from the first day of its {slot} there to its expected "
                f"end; each day counts once, and cancelled {world.plural('job')} do not count."
            ),
        )
