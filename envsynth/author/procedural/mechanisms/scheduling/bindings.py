"""What the texts of a scheduling world have in common: column names and rules bound to one world, and SQL pieces.

The three calculations differ on purpose. SQL counts working days by a formula, lets days flow along every path to a job
and looks ahead from each open day of a machine. The planner walks from day to day and asks for predecessors recursively. The
goals relax all links until nothing moves, and try only those days at which a job can be stopped from starting earlier.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from envsynth.author.procedural.ir import Type
from envsynth.author.procedural.mechanism import Composed
from envsynth.author.procedural.mechanisms.entities import id_argument

DAY = Type("date")
DAYS = Type("num", "days")
JOB = Type("row", "job")
MACHINE = Type("row", "machine")
KINDS = ("heavy", "precision")
REASONS = ("overhaul", "audit", "holiday")
MONDAY = "2024-01-01"
"""A Monday before all rows: working days are counted from it."""
LATEST = "2032-12-31"
"""Last day on which anything may start."""


def states(rules: Mapping[str, Any]) -> tuple[str, ...]:
    """States that a job can have under these rules, in the order in which it passes them."""
    inspection = ("inspection",) if rules["inspect_from"] else ()
    return ("planned", "assigned", "running", *inspection, "done", "cancelled")


class Bindings:
    """The texts over one composed world: column names, nouns and rules are bound here."""

    def __init__(self, world: Composed) -> None:
        self.world, rules = world, world.rules
        self.scheme, self.scheme_key = world.fk("job", "scheme")
        self.before, self.before_key = world.fk("precedence", "before")
        self.after, self.after_key = world.fk("precedence", "after")
        self.job, self.job_key = world.fk("sched_slot", "job")
        self.machine, self.machine_key = world.fk("sched_slot", "machine")
        self.by_site = rules["closed_by"] == "site"
        self.site, self.site_key = world.fk("machine", "site") if self.by_site else ("", "")
        self.closing = rules["closed_by"] != "none"
        self.closed, self.closed_key = world.fk("sched_closure", rules["closed_by"]) if self.closing else ("", "")
        self.weekends = bool(rules["work_weekends"])
        self.lags, self.kickoffs = bool(rules["job_lags"]), bool(rules["kickoffs"])
        self.kinds, self.unbroken = bool(rules["machine_kinds"]), bool(rules["unbroken_jobs"])
        self.gap, self.inspect_from = int(rules["changeover"]), int(rules["inspect_from"])
        self.cancels, self.choice = bool(rules["job_cancels"]), bool(rules["free_choice"])
        self.strict = bool(rules["strict_plan"])
        self.today = world.now[:10]
        slug = world.slug("job")
        self.assign_tool, self.start_tool = f"assign_{slug}", f"start_{slug}"
        self.finish_tool, self.cancel_tool = f"finish_{slug}", f"call_off_{slug}"

    def arg(self, entity: str) -> str:
        """Name of the tool argument that takes an id."""
        return id_argument(self.world, entity)

    # SQL --------------------------------------------------------------------------------------------------------

    def number_sql(self, day: str) -> str:
        """Days since the Monday that is counted from."""
        return f"CAST(julianday({day}) - julianday('{MONDAY}') AS INTEGER)"

    def index_sql(self, number: str) -> str:
        """Working days before a day number, which is the index of the first working day from there on."""
        return f"({number})" if self.weekends else f"(5 * (({number}) / 7) + MIN(({number}) % 7, 5))"

    def back_sql(self, index: str) -> str:
        """Day number of a working day."""
        return f"({index})" if self.weekends else f"(7 * (({index}) / 5) + ({index}) % 5)"

    def text_sql(self, index: str) -> str:
        """Date of a working day."""
        return f"date('{MONDAY}', {self.back_sql(index)} || ' days')"

    def end_sql(self, slot: str, job: str) -> str:
        """Expected end of a job that has an entry."""
        return f'CASE WHEN {job}."state" = \'done\' THEN {slot}."last" ELSE MAX({slot}."last", \'{self.today}\') END'

    def flow_sql(self, seed: str) -> str:
        """Common tables up to `flow`: for the jobs of `seed` and all before them, indexes that the ready day reaches.

        The largest index of a job is that of its ready day, because a later start never ends earlier.
        """
        lag = 'p."lag"' if self.lags else "0"
        base = f"MAX('{self.today}', k.\"kickoff\")" if self.kickoffs else f"'{self.today}'"
        ended, passed = self.number_sql('f."end"'), self.back_sql('"flow"."n" + e."days" - 1')
        return (
            f'"edge" AS MATERIALIZED (SELECT a."id" AS "from", b."id" AS "to", a."duration" AS "days", {lag} AS "lag"'
            f' FROM "precedence" p JOIN "job" a ON a."{self.before_key}" = p."{self.before}"'
            f' JOIN "job" b ON b."{self.after_key}" = p."{self.after}" WHERE a."state" <> \'cancelled\'),'
            f' "fixed" AS MATERIALIZED (SELECT j."id" AS "job", MAX({self.end_sql("s", "j")}) AS "end" FROM "job" j'
            f' JOIN "sched_slot" s ON s."{self.job}" = j."{self.job_key}" WHERE j."state" <> \'cancelled\''
            ' GROUP BY j."id"),'
            f' "up"("id") AS ({seed} UNION SELECT e."from" FROM "up" JOIN "edge" e ON e."to" = "up"."id"),'
            f' "flow"("job", "n") AS (SELECT j."id", {self.index_sql(self.number_sql(base))} FROM "up"'
            ' JOIN "job" j ON j."id" = "up"."id"'
            f' JOIN "scheme" k ON k."{self.scheme_key}" = j."{self.scheme}"'
            f' UNION SELECT e."to", {self.index_sql(ended + " + 1 + e.lag")} FROM "up"'
            ' JOIN "edge" e ON e."to" = "up"."id" JOIN "fixed" f ON f."job" = e."from"'
            f' UNION SELECT e."to", {self.index_sql(passed + " + 1 + e.lag")} FROM "flow"'
            ' JOIN "edge" e ON e."from" = "flow"."job" WHERE "flow"."job" NOT IN (SELECT "job" FROM "fixed")'
            ' AND e."to" IN (SELECT "id" FROM "up"))'
        )

    def ready_sql(self, job: str) -> str:
        """Ready day of the job with this id."""
        return (
            f"(WITH RECURSIVE {self.flow_sql(f'SELECT {job}')}"
            f' SELECT {self.text_sql("MAX(n)")} FROM "flow" WHERE "flow"."job" = {job})'
        )

    def taken_sql(self, machine: str, gap: int = 0) -> str:
        """SELECT of first day, expected end and job of the entries of a machine that count, wider by a gap."""
        first, last = 's."first"', self.end_sql("s", "j")
        if gap:
            first, last = f"date({first}, '-{gap} days')", f"date({last}, '{gap} days')"
        return (
            f'SELECT {first} AS "first", {last} AS "last", j."id" AS "job" FROM "sched_slot" s'
            f' JOIN "job" j ON j."{self.job_key}" = s."{self.job}"'
            f' WHERE s."{self.machine}" = {machine}."{self.machine_key}" AND j."state" <> \'cancelled\''
        )

    def shut_sql(self, machine: str) -> str:
        """SELECT of the days on which a machine is closed by a row."""
        if not self.closing:
            return "SELECT '' AS \"day\" WHERE 0"
        if not self.by_site:
            return f'SELECT c."day" FROM "sched_closure" c WHERE c."{self.closed}" = {machine}."{self.closed_key}"'
        return (
            f'SELECT c."day" FROM "sched_closure" c JOIN "site" l ON l."{self.closed_key}" = c."{self.closed}"'
            f' WHERE l."{self.site_key}" = {machine}."{self.site}"'
        )

    def open_sql(self) -> str:
        """Condition on `at` of `day`: the machine whose closed days are `shut` is open."""
        week = "" if self.weekends else " AND strftime('%w', \"at\") BETWEEN '1' AND '5'"
        return f'"at" NOT IN (SELECT "day" FROM "shut"){week}'

    def fit_sql(self, machine: str, job: str, wanted: str) -> str:
        """Earliest start (`a`) or end (`z`) of the job with this id on a machine, as far as other jobs let it."""
        whole = ' AND julianday("open"."z") - julianday("open"."a") = "want"."days" - 1' if self.unbroken else ""
        return (
            f'(WITH RECURSIVE "want" AS MATERIALIZED (SELECT q."duration" AS "days", {self.ready_sql(job)} AS "ready"'
            f' FROM "job" q WHERE q."id" = {job}),'
            f' "taken" AS MATERIALIZED ({self.taken_sql(machine, self.gap)} AND j."id" <> {job}),'
            f' "shut" AS MATERIALIZED ({self.shut_sql(machine)}),'
            ' "limit" AS MATERIALIZED (SELECT date(MAX("ready", COALESCE((SELECT MAX("last") FROM "taken"), \'\'),'
            ' COALESCE((SELECT MAX("day") FROM "shut"), \'\')), (2 * "days" + 9) || \' days\') AS "until"'
            ' FROM "want"),'
            ' "day"("at") AS (SELECT "ready" FROM "want" UNION ALL SELECT date("day"."at", \'+1 day\')'
            ' FROM "day", "limit" WHERE "day"."at" < "limit"."until"),'
            ' "open"("a", "z") AS (SELECT "at", LEAD("at", (SELECT "days" FROM "want") - 1) OVER (ORDER BY "at")'
            f' FROM "day" WHERE {self.open_sql()})'
            f' SELECT "open"."{wanted}" FROM "want", "open" WHERE "open"."z" IS NOT NULL AND NOT EXISTS'
            ' (SELECT 1 FROM "taken" t WHERE t."first" <= "open"."z" AND t."last" >= "open"."a")'
            f'{whole} ORDER BY "open"."a" LIMIT 1)'
        )

    def suits_sql(self, machine: str, job: str) -> str:
        """Condition that a machine can do a job."""
        return f'{machine}."kind" = {job}."kind"' if self.kinds else "1"

    # sentences --------------------------------------------------------------------------------------------------

    def calendar_policy(self) -> str:
        """Which days are worked."""
        machine = self.world.word("machine")
        owner = f"its {self.world.word('site')}" if self.by_site else "it"
        shut = f" unless {owner} has a {self.world.word('sched_closure')} on that day" if self.closing else ""
        days = "Every day is a working day" if self.weekends else "Working days are Monday to Friday"
        return f"{days}; {self.today} is a Friday. A {machine} is open on every working day{shut}."

    def end_policy(self) -> str:
        """When a job is expected to end."""
        job, slot = self.world.word("job"), self.world.word("sched_slot")
        return (
            f"The expected end of a {job} that has a {slot} is the last day of that {slot}, or {self.today} if that is "
            f"later and the {job} is not done. A {job} without a {slot} is expected to take as many working days as its "
            f"duration, of which its ready day is the first. A cancelled {job} has no expected end, and its {slot} does "
            "not count."
        )
