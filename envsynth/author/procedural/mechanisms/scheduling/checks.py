"""Goal source of a scheduling world: days are positions in one list, and links are relaxed until nothing moves."""

from __future__ import annotations

from envsynth.author.procedural.mechanisms.scheduling.bindings import Bindings


class GoalTexts(Bindings):
    """Writes what the goals know over one world."""

    def goal_days(self) -> str:
        """Goal source of the calendar; position 0 is a Wednesday."""
        works = "True" if self.weekends else "(position + 2) % 7 < 5"
        return (
            "@once\n"
            "def all_days():\n"
            "    days = []\n"
            "    for year, february in ((2031, 28), (2032, 29)):\n"
            "        for month, length in enumerate((31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)):\n"
            "            days += [f'{year}-{month + 1:02d}-{number + 1:02d}' for number in range(length)]\n"
            "    return days\n"
            "@once\n"
            "def positions():\n"
            "    return {day: position for position, day in enumerate(all_days())}\n"
            "def worked(position):\n"
            f"    return {works}\n"
        )

    def goal_ends(self) -> str:
        """Goal source of `spans_of_jobs`: the first day and the expected end of each job that has an entry."""
        return (
            self.goal_days() + "@once\n"
            "def spans_of_jobs():\n"
            "    spans, place = {}, positions()\n"
            "    for job in db['job']:\n"
            "        if job['state'] == 'cancelled':\n"
            "            continue\n"
            f"        mine = [s for s in db['sched_slot'] if s[{self.job!r}] == job[{self.job_key!r}]]\n"
            "        lasts = [place[s['last']] for s in mine]\n"
            "        if lasts and job['state'] != 'done':\n"
            f"            lasts.append(place[{self.today!r}])\n"
            "        if mine:\n"
            "            spans[job['id']] = (min([place[s['first']] for s in mine]), max(lasts))\n"
            "    return spans\n"
        )

    def goal_forecast(self) -> str:
        """Goal source of `forecast`: ready position and expected end of each job."""
        lag = "p['lag']" if self.lags else "0"
        kick = (
            f"    begins = {{k[{self.scheme_key!r}]: place[k['kickoff']] for k in db['scheme']}}\n"
            f"    ready = {{j['id']: max(today, begins[j[{self.scheme!r}]]) for j in db['job']}}\n"
            if self.kickoffs
            else "    ready = {j['id']: today for j in db['job']}\n"
        )
        return (
            self.goal_ends() + "@once\n"
            "def forecast():\n"
            "    place, spans = positions(), spans_of_jobs()\n"
            f"    today = place[{self.today!r}]\n"
            f"{kick}"
            f"    sources = {{j[{self.before_key!r}]: j for j in db['job'] if j['state'] != 'cancelled'}}\n"
            f"    targets = {{j[{self.after_key!r}]: j['id'] for j in db['job']}}\n"
            "    links = []\n"
            "    for p in db['precedence']:\n"
            f"        if p[{self.before!r}] in sources:\n"
            f"            links.append((sources[p[{self.before!r}]], targets[p[{self.after!r}]], {lag}))\n"
            "    def opened(position):\n"
            "        return position if worked(position) else opened(position + 1)\n"
            "    def ended(job):\n"
            "        if job['id'] in spans:\n"
            "            return spans[job['id']][1]\n"
            "        position = opened(ready[job['id']])\n"
            "        for _ in range(job['duration'] - 1):\n"
            "            position = opened(position + 1)\n"
            "        return position\n"
            "    moved = True\n"
            "    while moved:\n"
            "        moved = False\n"
            "        for source, target, lag in links:\n"
            "            if ended(source) + lag >= ready[target]:\n"
            "                ready[target], moved = ended(source) + lag + 1, True\n"
            "    return {j['id']: (opened(ready[j['id']]), ended(j)) for j in db['job']}\n"
        )

    def goal_ready(self) -> str:
        """Goal source of `g_ready_day`."""
        return self.goal_forecast() + "def g_ready_day(db, row):\n    return all_days()[forecast()[row['id']][0]]\n"

    def goal_completion(self) -> str:
        """Goal source of `g_completion`."""
        return (
            self.goal_forecast() + "@once\n"
            "def completions():\n"
            "    latest, known, days = {}, forecast(), all_days()\n"
            "    for job in db['job']:\n"
            "        if job['state'] != 'cancelled':\n"
            f"            key = job[{self.scheme!r}]\n"
            "            latest[key] = max(latest.get(key, 0), known[job['id']][1])\n"
            "    return {key: days[position] for key, position in latest.items()}\n"
            "def g_completion(db, row):\n"
            f"    return completions().get(row[{self.scheme_key!r}], {self.today!r})\n"
        )

    def goal_machines(self) -> str:
        """Goal source of `open_days` and `held_of` of a machine."""
        if not self.closing:
            shut = "        shut = ()\n"
        elif self.by_site:
            shut = (
                f"        (here,) = [l for l in db['site'] if l[{self.site_key!r}] == machine[{self.site!r}]]\n"
                f"        shut = {{c['day'] for c in db['sched_closure'] if c[{self.closed!r}] == here[{self.closed_key!r}]}}\n"
            )
        else:
            shut = (
                "        shut = {c['day'] for c in db['sched_closure']"
                f" if c[{self.closed!r}] == machine[{self.closed_key!r}]}}\n"
            )
        return (
            self.goal_ends() + "@once\n"
            "def open_days():\n"
            "    found = {}\n"
            "    days = [(n, day) for n, day in enumerate(all_days()) if worked(n)]\n"
            "    for machine in db['machine']:\n"
            f"{shut}"
            "        found[machine['id']] = [n for n, day in days if day not in shut]\n"
            "    return found\n"
            "@once\n"
            "def held_of(machine_id):\n"
            f"    (key,) = [m[{self.machine_key!r}] for m in db['machine'] if m['id'] == machine_id]\n"
            f"    mine = {{s[{self.job!r}] for s in db['sched_slot'] if s[{self.machine!r}] == key}}\n"
            f"    jobs = [j['id'] for j in db['job'] if j[{self.job_key!r}] in mine]\n"
            "    spans = spans_of_jobs()\n"
            "    return {job: spans[job] for job in jobs if job in spans}\n"
        )

    def goal_start(self) -> str:
        """Goal source of `g_earliest_start`: the first day at which a job fits of those that something holds back.

        A job that fits from a day, but from no earlier one, is held back by its ready day, by a closed day just before,
        or by a job that ends just before; no other days need to be tried.
        """
        whole = " or end - day >= duration" if self.unbroken else ""
        return (
            self.goal_forecast() + self.goal_machines() + "@once\n"
            "def span_on(machine_id, job_id):\n"
            "    (duration,) = [j['duration'] for j in db['job'] if j['id'] == job_id]\n"
            "    ready, days = forecast()[job_id][0], open_days()[machine_id]\n"
            "    held = [span for job, span in held_of(machine_id).items() if job != job_id]\n"
            f"    frees = {{ready, *(last + {self.gap} + 1 for _, last in held)}}\n"
            "    fitting = []\n"
            "    for index, day in enumerate(days[:len(days) - duration]):\n"
            "        end = days[index + duration - 1]\n"
            "        gone = set(range(days[index - 1] + 1 if index else 0, day + 1))\n"
            f"        if day < ready or (gone == {{day}} and day not in frees){whole}:\n"
            "            continue\n"
            f"        if all(end + {self.gap} < first or last + {self.gap} < day for first, last in held):\n"
            "            fitting.append((day, end))\n"
            "    return min(fitting)\n"
            "def g_earliest_start(db, row, job):\n"
            "    return all_days()[span_on(row['id'], job['id'])[0]]\n"
        )

    def goal_busy(self) -> str:
        """Goal source of `g_busy_days`."""
        return (
            self.goal_machines() + "@once\n"
            "def busy_of_machines():\n"
            "    busy, texts = {}, all_days()\n"
            "    for machine, days in open_days().items():\n"
            "        held = held_of(machine).values()\n"
            "        taken = [n for n in days if any(first <= n <= last for first, last in held)]\n"
            "        busy[machine] = [texts[n] for n in taken]\n"
            "    return busy\n"
            "def g_busy_days(db, row, start, end):\n"
            "    return sum(1 for day in busy_of_machines()[row['id']] if start <= day and day <= end)\n"
        )
