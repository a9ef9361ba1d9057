"""Actions of a scheduling world: assign, begin, finish, call off; each with its three texts."""

from __future__ import annotations

from envsynth.author.procedural.mechanism import Action
from envsynth.author.procedural.mechanisms.scheduling.bindings import JOB, MACHINE
from envsynth.author.procedural.mechanisms.scheduling.derived import DerivedTexts


class ActionTexts(DerivedTexts):
    """Writes the actions over one world."""

    def suits_plan(self) -> str:
        """Planner expression of the machines that can do `job`."""
        return "rows('machine', {'kind': job['kind']})" if self.kinds else "rows('machine', {})"

    def goal_claim(self) -> str:
        """Goal source of `placed`: the entry and the state with which a job was put on some machine of those given."""
        return (
            self.goal_start() + "def placed(diff, job, machines):\n"
            f"    slots = [s for s in db['sched_slot'] if s[{self.job!r}] == job[{self.job_key!r}]]\n"
            "    if job['state'] not in ('planned', 'assigned') or job['id'] in held_up():\n"
            "        return None\n"
            "    spans, claimed = {}, []\n"
            "    for m in machines:\n"
            f"        spans[m[{self.machine_key!r}]] = [all_days()[day] for day in span_on(m['id'], job['id'])]\n"
            "    for entry in diff:\n"
            "        old, new = entry['old'], entry['new']\n"
            f"        if entry['table'] == 'sched_slot' and new[{self.job!r}] == job[{self.job_key!r}]:\n"
            f"            if spans.get(new[{self.machine!r}]) != [new['first'], new['last']]:\n"
            "                return None\n"
            "            if (old['id'] if old else None) != (slots[0]['id'] if slots else None):\n"
            "                return None\n"
            "            claimed.append(entry)\n"
            "        elif entry['table'] == 'job' and old == job and new == {**job, 'state': 'assigned'}:\n"
            "            claimed.append(entry)\n"
            "    wanted = ['job', 'sched_slot'] if job['state'] == 'planned' else ['sched_slot']\n"
            "    return claimed if sorted([entry['table'] for entry in claimed]) == wanted else None\n"
            "@once\n"
            "def held_up():\n"
            "    begun = spans_of_jobs()\n"
            f"    begun = {{j[{self.after_key!r}] for j in db['job'] if j['id'] in begun}}\n"
            f"    fixed = {{p[{self.before!r}] for p in db['precedence'] if p[{self.after!r}] in begun}}\n"
            f"    return [j['id'] for j in db['job'] if j[{self.before_key!r}] in fixed]\n"
        )

    def movable_sql(self, job: str) -> str:
        """Condition that a job can be scheduled: it has not begun, and what comes after it has no entry."""
        return (
            f"{job}.\"state\" IN ('planned', 'assigned') AND NOT EXISTS (SELECT 1 FROM \"precedence\" xp"
            f' JOIN "job" xa ON xa."{self.after_key}" = xp."{self.after}"'
            f' JOIN "sched_slot" xt ON xt."{self.job}" = xa."{self.job_key}"'
            f' WHERE xp."{self.before}" = {job}."{self.before_key}" AND xa."state" <> \'cancelled\')'
        )

    def assign_sql(self, options: str, moved: str) -> str:
        """Oracle: entry and state of a job on one machine.

        Args:
            options: SELECT of id of job and id of machine, one row at most.
            moved: Condition on the entry `xs` that the job has, under which it changes.
        """
        cells = f'\'{self.machine}\', xm."{self.machine_key}", \'first\', "spot"."first", \'last\', "spot"."last"'
        spot = (
            ' FROM "spot" JOIN "job" xj ON xj."id" = "spot"."job" JOIN "machine" xm ON xm."id" = "spot"."machine"'
            f' LEFT JOIN "sched_slot" xs ON xs."{self.job}" = xj."{self.job_key}"'
        )
        return (
            f'WITH "chosen"("job", "machine") AS MATERIALIZED ({options}), "spot" AS MATERIALIZED'
            f' (SELECT "chosen".*, {self.fit_sql("ym", "chosen.job", "a")} AS "first",'
            f' {self.fit_sql("ym", "chosen.job", "z")} AS "last"'
            ' FROM "chosen" JOIN "machine" ym ON ym."id" = "chosen"."machine")'
            # One pass for both tables: the arms of a union would each work the days out again.
            " SELECT CASE WHEN \"part\" AND xs.\"id\" IS NULL THEN 'insert' ELSE 'update' END,"
            " CASE WHEN \"part\" THEN 'sched_slot' ELSE 'job' END, CASE WHEN NOT \"part\""
            " THEN json_object('id', xj.\"id\", 'state', 'assigned') WHEN xs.\"id\" IS NULL"
            f" THEN json_object('{self.job}', xj.\"{self.job_key}\", {cells}) ELSE json_object('id', xs.\"id\", {cells}) END"
            f'{spot}, (SELECT 1 AS "part" UNION ALL SELECT 0)'
            f' WHERE CASE WHEN "part" THEN xs."id" IS NULL OR {moved} ELSE xj."state" = \'planned\' END'
        )

    def assign(self) -> Action:
        """Put a job on a given machine, as early as possible."""
        suits = "    if machine['kind'] != job['kind']:\n        return None\n" if self.kinds else ""
        return Action(
            name="assign_job",
            phrase="schedule {job} on {machine} as early as possible",
            params=(("job", JOB), ("machine", MACHINE)),
            oracle_sql=self.assign_sql(
                'SELECT oj."id", om."id" FROM "job" oj, "machine" om WHERE oj."id" = {job} AND om."id" = {machine}'
                f" AND {self.movable_sql('oj')} AND {self.suits_sql('om', 'oj')}",
                f'xs."{self.machine}" <> xm."{self.machine_key}"'
                ' OR xs."first" <> "spot"."first" OR xs."last" <> "spot"."last"',
            ),
            plan=(
                self.plan_start() + "def a_assign_job(job, machine):\n"
                f"    write({self.assign_tool!r}, {self.arg('job')}=job['id'], {self.arg('machine')}=machine['id'],"
                " first_day=d_earliest_start(machine, job))\n"
            ),
            goal=(
                self.goal_claim() + "def s_assign_job(db, diff, job, machine):\n"
                f"{suits}"
                "    return placed(diff, job, [machine])\n"
            ),
            tables=("sched_slot", "job"),
            policy=self.assign_policy(),
        )

    def assign_policy(self) -> str:
        """What assigning does."""
        world, job, machine = self.world, self.world.word("job"), self.world.word("machine")
        suits = f" The {machine} must be of the kind of the {job}." if self.kinds else ""
        slot = world.word("sched_slot")
        return (
            f"Only a {job} whose state is planned or assigned can be scheduled, and only while no {job} that a "
            f"{world.word('precedence')} puts after it has a {slot} (cancelled ones aside). As early as possible means: "
            f"from its earliest start on that {machine}. It gets a {slot} from its first to its last day there, or the one "
            f"that it has is changed, and its state becomes assigned.{suits}"
        )

    def place(self) -> Action:
        """Put a job on any machine on which it starts earliest."""
        job, machine = self.world.word("job"), self.world.word("machine")
        mine = " if m['kind'] == job['kind']" if self.kinds else ""
        return Action(
            name="place_job",
            phrase=f"schedule {{job}} on any {machine} where it starts earliest",
            params=(("job", JOB),),
            oracle_sql=self.assign_sql(
                'SELECT oj."id", om."id" FROM "job" oj, "machine" om WHERE oj."id" = {job}'
                f" AND {self.movable_sql('oj')} AND {self.suits_sql('om', 'oj')}"
                f' ORDER BY {self.fit_sql("om", "oj.id", "a")}, om."id" LIMIT 1',
                'xs."first" > "spot"."first"',
            ),
            plan=(
                self.plan_start() + "def a_place_job(job):\n"
                f"    machines = {self.suits_plan()}\n"
                "    machine = machines[0]\n"
                "    if not GREEDY:\n"
                "        machine = min(machines, key=lambda m: d_earliest_start(m, job))\n"
                f"    write({self.assign_tool!r}, {self.arg('job')}=job['id'], {self.arg('machine')}=machine['id'],"
                " first_day=d_earliest_start(machine, job))\n"
            ),
            goal=(
                self.goal_claim() + "def s_place_job(db, diff, job):\n"
                f"    machines = [m for m in db['machine']{mine}]\n"
                "    starts = [g_earliest_start(db, m, job) for m in machines]\n"
                "    best = min(starts)\n"
                f"    if [s for s in db['sched_slot'] if s[{self.job!r}] == job[{self.job_key!r}] and s['first'] == best]:\n"
                "        return None\n"
                "    return placed(diff, job, [m for m, start in zip(machines, starts) if start == best])\n"
            ),
            tables=("sched_slot", "job"),
            policy=(
                f"To schedule a {job} where it starts earliest, compare its earliest start on all "
                f"{self.world.plural('machine')}{' of its kind' if self.kinds else ''}; any of those with the first day "
                f"will do. A {job} whose {self.world.word('sched_slot')} begins on that day already stays where it is."
            ),
        )

    def plan_next(self) -> str:
        """Planner source of `on_machine`: entries and jobs in a state on a machine."""
        return (
            "def on_machine(machine, state):\n"
            f"    owner = {{j[{self.job_key!r}]: j for j in rows('job', {{}})}}\n"
            f"    slots = rows('sched_slot', {{{self.machine!r}: machine[{self.machine_key!r}]}})\n"
            f"    return [(s, owner[s[{self.job!r}]]) for s in slots if owner[s[{self.job!r}]]['state'] == state]\n"
        )

    def goal_next(self) -> str:
        """Goal source of `first_on`: entry and job in a state on a machine, of several the one that starts first."""
        return (
            "def first_on(machine, state):\n"
            "    found = []\n"
            "    for job in db['job']:\n"
            "        for s in db['sched_slot'] if job['state'] == state else ():\n"
            f"            if (s[{self.job!r}], s[{self.machine!r}]) =="
            f" (job[{self.job_key!r}], machine[{self.machine_key!r}]):\n"
            "                found.append((s, job))\n"
            "    earliest = [pair for pair in found if all(pair[0]['first'] <= s['first'] for s, _ in found)]\n"
            "    return earliest[0] if len(earliest) == 1 else (None, None)\n"
        )

    def next_sql(self, state: str) -> str:
        """Common table `next`: job and entry in a state on {machine}, of several the one that starts first."""
        return (
            '"next" AS MATERIALIZED (SELECT xj."id" AS "job", xs."id" AS "slot", xs."first", xs."last", xj."duration",'
            ' xm."id" AS "machine" FROM "machine" xm'
            f' JOIN "sched_slot" xs ON xs."{self.machine}" = xm."{self.machine_key}"'
            f' JOIN "job" xj ON xj."{self.job_key}" = xs."{self.job}"'
            f' WHERE xm."id" = {{machine}} AND xj."state" = \'{state}\' ORDER BY xs."first" LIMIT 1)'
        )

    def start(self) -> Action:
        """Begin the next job of a machine today."""
        now = f"'{self.today}'"
        return Action(
            name="begin_next",
            phrase="begin what is next on {machine}",
            params=(("machine", MACHINE),),
            oracle_sql=(
                f'WITH {self.next_sql("assigned")}, "spot" AS MATERIALIZED (SELECT "next".*,'
                f' {self.fit_sql("ym", "next.job", "a")} AS "begins", {self.fit_sql("ym", "next.job", "z")} AS "ends"'
                ' FROM "next" JOIN "machine" ym ON ym."id" = "next"."machine")'
                " SELECT 'update', CASE WHEN \"part\" THEN 'sched_slot' ELSE 'job' END, CASE WHEN \"part\""
                f" THEN json_object('id', \"slot\", 'first', {now}, 'last', \"ends\")"
                " ELSE json_object('id', \"job\", 'state', 'running') END"
                ' FROM "spot", (SELECT 1 AS "part" UNION ALL SELECT 0) WHERE "begins" = '
                f'{now} AND (NOT "part" OR "first" <> {now} OR "last" <> "ends")'
            ),
            plan=(
                self.plan_next() + "def a_begin_next(machine):\n"
                "    waiting = on_machine(machine, 'assigned')\n"
                "    if POLICY:\n"
                "        waiting = sorted(waiting, key=lambda pair: pair[0]['first'])\n"
                f"    write({self.start_tool!r}, {self.arg('job')}=waiting[0][1]['id'])\n"
            ),
            goal=(
                self.goal_start() + self.goal_next() + "def s_begin_next(db, diff, machine):\n"
                "    slot, job = first_on(machine, 'assigned')\n"
                "    if job is None:\n"
                "        return None\n"
                "    first, last = [all_days()[day] for day in span_on(machine['id'], job['id'])]\n"
                f"    if first != {self.today!r}:\n"
                "        return None\n"
                "    wanted = [('job', {**job, 'state': 'running'})]\n"
                "    moved = {**slot, 'first': first, 'last': last}\n"
                "    if moved != slot:\n"
                "        wanted.append(('sched_slot', moved))\n"
                "    claimed = [e for e in diff if e['op'] == 'update' and (e['table'], e['new']) in wanted]\n"
                "    return claimed if len(claimed) == len(wanted) else None\n"
            ),
            tables=("sched_slot", "job"),
            policy=self.begin_policy(),
        )

    def begin_policy(self) -> str:
        """What is next, when it can begin, and what that does."""
        job, slot, machine = (self.world.word(name) for name in ("job", "sched_slot", "machine"))
        return (
            f"What is next on a {machine} is the assigned {job} whose {slot} there has the earliest first day. It "
            f"can begin on {self.today} if that is its earliest start there, even if its {slot} begins later. Its state "
            f"becomes running, and its {slot} then lasts from {self.today} for its duration in open days."
        )

    def finish(self) -> Action:
        """Finish the running job of a machine today."""
        long, now = self.inspect_from, f"'{self.today}'"
        state_sql = f"CASE WHEN \"duration\" >= {long} THEN 'inspection' ELSE 'done' END" if long else "'done'"
        state_plan = f", state='inspection' if POLICY and job['duration'] >= {long} else 'done'" if long else ""
        state_goal = f"('done', 'inspection')[job['duration'] >= {long}]" if long else "'done'"
        return Action(
            name="finish_running",
            phrase="finish what runs on {machine}",
            params=(("machine", MACHINE),),
            oracle_sql=(
                f"WITH {self.next_sql('running')}"
                f" SELECT 'update', 'job', json_object('id', \"job\", 'state', {state_sql}) FROM \"next\""
                f" UNION ALL SELECT 'update', 'sched_slot', json_object('id', \"slot\", 'last', {now})"
                f' FROM "next" WHERE "last" <> {now}'
            ),
            plan=(
                self.plan_next() + "def a_finish_running(machine):\n"
                "    job = on_machine(machine, 'running')[0][1]\n"
                f"    write({self.finish_tool!r}, {self.arg('job')}=job['id']{state_plan})\n"
            ),
            goal=(
                self.goal_next() + "def s_finish_running(db, diff, machine):\n"
                "    slot, job = first_on(machine, 'running')\n"
                "    if job is None:\n"
                "        return None\n"
                f"    claimed, ended, over = [], False, slot['last'] == {self.today!r}\n"
                "    for entry in diff:\n"
                "        old, new = entry['old'], entry['new']\n"
                "        if entry['table'] == 'job' and old == job:\n"
                f"            ended = new == {{**job, 'state': {state_goal}}}\n"
                "            claimed.append(entry)\n"
                "        elif entry['table'] == 'sched_slot' and old == slot:\n"
                f"            over = new == {{**slot, 'last': {self.today!r}}}\n"
                "            claimed.append(entry)\n"
                "    return claimed if ended and over else None\n"
            ),
            tables=("sched_slot", "job"),
            policy=self.finish_policy(),
        )

    def finish_policy(self) -> str:
        """What finishing does."""
        job, slot, machine = (self.world.word(name) for name in ("job", "sched_slot", "machine"))
        state = (
            f"inspection if its duration is {self.inspect_from} days or more, else done"
            if self.inspect_from
            else "done"
        )
        return (
            f"What runs on a {machine} is the running {job} that has a {slot} there; to finish it makes "
            f"{self.today} the last day of that {slot}, and its state becomes {state}."
        )

    def call_off(self) -> Action:
        """Call off a job that has not begun."""
        job = self.world.word("job")
        return Action(
            name="cancel_job",
            phrase="call {job} off",
            params=(("job", JOB),),
            oracle_sql=(
                "SELECT 'update', 'job', json_object('id', xj.\"id\", 'state', 'cancelled') FROM \"job\" xj"
                " WHERE xj.\"id\" = {job} AND xj.\"state\" IN ('planned', 'assigned')"
            ),
            plan=f"def a_cancel_job(job):\n    write({self.cancel_tool!r}, {self.arg('job')}=job['id'])\n",
            goal=(
                "def s_cancel_job(db, diff, job):\n"
                "    if job['state'] not in ('planned', 'assigned'):\n"
                "        return None\n"
                "    for entry in diff:\n"
                "        if entry['table'] == 'job' and entry['new'] == {**job, 'state': 'cancelled'}:\n"
                "            return [entry]\n"
                "    return None\n"
            ),
            tables=("job",),
            policy=(
                f"A {job} whose state is planned or assigned can be called off; its state becomes cancelled, and its "
                f"{self.world.word('sched_slot')}, if it has one, stays in the list."
            ),
        )
