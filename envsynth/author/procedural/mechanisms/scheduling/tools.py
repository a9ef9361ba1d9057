"""Write tools of a scheduling world."""

from __future__ import annotations

from envsynth.author.procedural.mechanism import ToolDraft
from envsynth.author.procedural.mechanisms.entities import (
    arguments_schema,
    fetch_source,
    id_schema,
    insert_source,
)
from envsynth.author.procedural.mechanisms.scheduling.bindings import LATEST, Bindings

FIRST_DAY = {"type": "string", "pattern": r"^\d{4}-\d{2}-\d{2}$", "description": "first day, YYYY-MM-DD"}
"""JSON Schema of the day on which a job is to start."""


class ToolTexts(Bindings):
    """Writes the tools over one world."""

    def span_source(self) -> str:
        """Tool source that binds `last` to the last day of `job` on `machine` from `first`, or refuses."""
        given = ["day"]
        week = "0" if self.weekends else "strftime('%w', ?) IN ('0', '6')"
        if not self.weekends:
            given.insert(0, "day")
        shut = "0"
        if self.closing:
            place = f'"sched_closure" c WHERE c."{self.closed}"'
            if self.by_site:
                place = (
                    f'"sched_closure" c JOIN "site" l ON l."{self.closed_key}" = c."{self.closed}"'
                    f' WHERE l."{self.site_key}"'
                )
            shut = f'EXISTS (SELECT 1 FROM {place} = ? AND c."day" = ?)'
            given = [f"machine[{(self.site if self.by_site else self.closed_key)!r}]", "day", *given]
        query = f'SELECT {shut} OR {week} AS "closed", date(?, \'+1 day\') AS "next"'
        broken = (
            "        if found['closed'] and done:\n"
            "            raise Refusal('conflict', 'a closed day lies in between')\n"
            if self.unbroken
            else ""
        )
        return (
            "    day, last, done = first, first, 0\n"
            "    while done < job['duration']:\n"
            f"        found = db.execute({query!r}, ({', '.join(given)},)).fetchone()\n"
            "        if found['closed'] and not done:\n"
            "            raise Refusal('conflict', 'closed on ' + day)\n"
            f"{broken}"
            "        if not found['closed']:\n"
            "            last, done = day, done + 1\n"
            "        day = found['next']\n"
        )

    def clash_source(self) -> str:
        """Tool source that refuses when another job has the machine between `first` and `last`."""
        query = (
            f"SELECT 1 FROM ({self.held_query()}) t WHERE t.\"first\" <= date(?, '{self.gap} days')"
            f" AND date(t.\"last\", '{self.gap} days') >= ?"
        )
        taken = f"the {self.world.word('machine')} is taken then"
        return (
            f"    held = (machine[{self.machine_key!r}], job['id'], last, first)\n"
            f"    if db.execute({query!r}, held).fetchone() is not None:\n"
            f"        raise Refusal('conflict', {taken!r})\n"
        )

    def held_query(self) -> str:
        """SELECT of first day and expected end of what other jobs hold of a machine."""
        return (
            f'SELECT s."first", {self.end_sql("s", "j")} AS "last" FROM "sched_slot" s'
            f' JOIN "job" j ON j."{self.job_key}" = s."{self.job}"'
            f' WHERE s."{self.machine}" = ? AND j."id" <> ? AND j."state" <> \'cancelled\''
        )

    def earlier_source(self, *, done: bool) -> str:
        """Tool source that refuses when what must come before `job` ends too late for `first`.

        Args:
            done: Whether it must be done; else what has no entry yet is not looked at.
        """
        lag = 'p."lag"' if self.lags else "0"
        late = f"date({self.end_sql('s', 'a')}, (1 + {lag}) || ' days') > ?"
        query = (
            f'SELECT 1 FROM "precedence" p JOIN "job" a ON a."{self.before_key}" = p."{self.before}"'
            f' LEFT JOIN "sched_slot" s ON s."{self.job}" = a."{self.job_key}"'
            f' WHERE p."{self.after}" = ? AND a."state" <> \'cancelled\''
            + (f" AND (a.\"state\" <> 'done' OR {late})" if done else f" AND {late}")
        )
        source = (
            f"    if db.execute({query!r}, (job[{self.after_key!r}], first)).fetchone() is not None:\n"
            "        raise Refusal('conflict', 'what comes before it is not over by then')\n"
        )
        if self.kickoffs:
            kick = f'SELECT "kickoff" FROM "scheme" WHERE "{self.scheme_key}" = ?'
            source += (
                f"    if db.execute({kick!r}, (job[{self.scheme!r}],)).fetchone()['kickoff'] > first:\n"
                "        raise Refusal('conflict', 'that is before the kick-off day')\n"
            )
        return source

    def later_source(self) -> str:
        """Tool source that refuses when a job that comes after `job` has an entry."""
        query = (
            f'SELECT 1 FROM "precedence" p JOIN "job" a ON a."{self.after_key}" = p."{self.after}"'
            f' JOIN "sched_slot" s ON s."{self.job}" = a."{self.job_key}"'
            f' WHERE p."{self.before}" = ? AND a."state" <> \'cancelled\''
        )
        return (
            f"    if db.execute({query!r}, (job[{self.before_key!r}],)).fetchone() is not None:\n"
            "        raise Refusal('conflict', 'what comes after it is scheduled already')\n"
        )

    def assign_draft(self) -> ToolDraft:
        """The tool that puts a job on a machine."""
        world, job, machine = self.world, self.arg("job"), self.arg("machine")
        suits = (
            "    if machine['kind'] != job['kind']:\n"
            "        raise Refusal('invalid', 'it is not of the kind ' + job['kind'])\n"
            if self.kinds
            else ""
        )
        cells = {
            self.job: f"job[{self.job_key!r}]",
            self.machine: f"machine[{self.machine_key!r}]",
            "first": "first",
            "last": "last",
        }
        statement = 'UPDATE "job" SET "state" = ? WHERE "id" = ?'
        mine = f'SELECT * FROM "sched_slot" WHERE "{self.job}" = ?'
        move = f'UPDATE "sched_slot" SET "{self.machine}" = ?, "first" = ?, "last" = ? WHERE "id" = ?'
        return ToolDraft(
            name=self.assign_tool,
            effect="write",
            description=(
                f"Assign a {world.word('job')} to a {world.word('machine')} from a day on: makes its "
                f"{world.word('sched_slot')}, or moves it; the last day follows from the duration and the open days."
            ),
            parameters=arguments_schema(
                {
                    job: id_schema(world, "job"),
                    machine: id_schema(world, "machine"),
                    "first_day": FIRST_DAY,
                }
            ),
            returns=f"id: id of its {world.word('sched_slot')}; last: its last day.",
            errors=("not_found", "invalid", "conflict"),
            source=(
                f"def {self.assign_tool}(db, *, {job}, {machine}, first_day):\n"
                + fetch_source(world, "job", "job", job)
                + fetch_source(world, "machine", "machine", machine)
                + "    if job['state'] not in ('planned', 'assigned'):\n"
                "        raise Refusal('conflict', 'it is ' + job['state'])\n"
                + self.later_source()
                + suits
                + "    first = db.execute('SELECT date(?) AS \"day\"', (first_day,)).fetchone()['day']\n"
                f"    if first != first_day or not {self.today!r} <= first <= {LATEST!r}:\n"
                f"        raise Refusal('invalid', 'the first day must be a day from {self.today} to {LATEST}')\n"
                + (self.earlier_source(done=False) if self.strict else "")
                + self.span_source()
                + self.clash_source()
                + f"    slot = db.execute({mine!r}, (job[{self.job_key!r}],)).fetchone()\n"
                "    if slot is None:\n"
                + "".join(f"    {line}\n" for line in insert_source(world, "sched_slot", cells).splitlines())
                + "    else:\n"
                "        new_id = slot['id']\n"
                f"        db.execute({move!r}, (machine[{self.machine_key!r}], first, last, new_id))\n"
                f"    db.execute({statement!r}, ('assigned', job['id']))\n"
                "    return {'id': new_id, 'last': last}\n"
            ),
        )

    def slot_source(self) -> str:
        """Tool source that binds `slot` to the entry of `job`, or refuses."""
        query = f'SELECT * FROM "sched_slot" WHERE "{self.job}" = ?'
        bare = f"it has no {self.world.word('sched_slot')}"
        return (
            f"    slot = db.execute({query!r}, (job[{self.job_key!r}],)).fetchone()\n"
            "    if slot is None:\n"
            f"        raise Refusal('conflict', {bare!r})\n"
        )

    def start_draft(self) -> ToolDraft:
        """The tool that begins a job."""
        world, job = self.world, self.arg("job")
        machine = f'SELECT * FROM "machine" WHERE "{self.machine_key}" = ?'
        state = 'UPDATE "job" SET "state" = ? WHERE "id" = ?'
        span = 'UPDATE "sched_slot" SET "first" = ?, "last" = ? WHERE "id" = ?'
        return ToolDraft(
            name=self.start_tool,
            effect="write",
            description=(
                f"Begin a {world.word('job')} today: its {world.word('sched_slot')} moves so that it starts today."
            ),
            parameters=arguments_schema({job: id_schema(world, "job")}),
            returns=f"id: id of the {world.word('job')}; last: its new last day.",
            errors=("not_found", "conflict"),
            source=(
                f"def {self.start_tool}(db, *, {job}):\n"
                + fetch_source(world, "job", "job", job)
                + "    if job['state'] != 'assigned':\n"
                "        raise Refusal('conflict', 'it is ' + job['state'])\n"
                + self.slot_source()
                + f"    machine = db.execute({machine!r}, (slot[{self.machine!r}],)).fetchone()\n"
                f"    first = {self.today!r}\n"
                + self.earlier_source(done=True)
                + self.span_source()
                + self.clash_source()
                + f"    db.execute({state!r}, ('running', job['id']))\n"
                f"    db.execute({span!r}, (first, last, slot['id']))\n"
                "    return {'id': job['id'], 'last': last}\n"
            ),
        )

    def finish_draft(self) -> ToolDraft:
        """The tool that finishes a job."""
        world, job, long = self.world, self.arg("job"), self.inspect_from
        state = {"type": "string", "enum": ["inspection", "done"], "description": "state to leave it in"}
        check = (
            f"    if (state == 'inspection') != (job['duration'] >= {long}):\n"
            "        raise Refusal('invalid', 'that is not the state for its duration')\n"
            if long and self.strict
            else ""
        )
        update = 'UPDATE "job" SET "state" = ? WHERE "id" = ?'
        span = 'UPDATE "sched_slot" SET "last" = ? WHERE "id" = ?'
        value = "state" if long else "'done'"
        return ToolDraft(
            name=self.finish_tool,
            effect="write",
            description=f"Finish a {world.word('job')} today.",
            parameters=arguments_schema({job: id_schema(world, "job"), **({"state": state} if long else {})}),
            returns=f"id: id of the {world.word('job')}; state: its new state.",
            errors=("not_found", "conflict", *(("invalid",) if check else ())),
            source=(
                f"def {self.finish_tool}(db, *, {job}{', state' if long else ''}):\n"
                + fetch_source(world, "job", "job", job)
                + "    if job['state'] != 'running':\n"
                "        raise Refusal('conflict', 'it is ' + job['state'])\n"
                f"{check}" + self.slot_source() + f"    db.execute({update!r}, ({value}, job['id']))\n"
                f"    db.execute({span!r}, ({self.today!r}, slot['id']))\n"
                f"    return {{'id': job['id'], 'state': {value}}}\n"
            ),
        )

    def cancel_draft(self) -> ToolDraft:
        """The tool that calls a job off."""
        world, job = self.world, self.arg("job")
        statement = 'UPDATE "job" SET "state" = ? WHERE "id" = ?'
        return ToolDraft(
            name=self.cancel_tool,
            effect="write",
            description=f"Call off a {world.word('job')} that has not begun.",
            parameters=arguments_schema({job: id_schema(world, "job")}),
            returns=f"id: id of the {world.word('job')}; state: its new state.",
            errors=("not_found", "conflict"),
            source=(
                f"def {self.cancel_tool}(db, *, {job}):\n"
                + fetch_source(world, "job", "job", job)
                + "    if job['state'] not in ('planned', 'assigned'):\n"
                "        raise Refusal('conflict', 'it is ' + job['state'])\n"
                f"    db.execute({statement!r}, ('cancelled', job['id']))\n"
                "    return {'id': job['id'], 'state': 'cancelled'}\n"
            ),
        )
