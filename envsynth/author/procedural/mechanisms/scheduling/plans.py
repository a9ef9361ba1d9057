"""Planner source of a scheduling world: walks from day to day and from job to job."""

from __future__ import annotations

from envsynth.author.procedural.mechanisms.scheduling.bindings import Bindings


class PlanTexts(Bindings):
    """Writes what the planner knows over one world."""

    def plan_days(self) -> str:
        """Planner source of day arithmetic; who ignores the rules works every day."""
        week = (
            "    return True\n"
            if self.weekends
            else (
                "    if not POLICY:\n"
                "        return True\n"
                "    year, month, number = [int(part) for part in day.split('-')]\n"
                "    year -= month < 3\n"
                "    shift = [0, 3, 2, 5, 0, 3, 5, 1, 4, 6, 2, 4][month - 1]\n"
                "    return 0 < (year + year // 4 - year // 100 + year // 400 + shift + number) % 7 < 6\n"
            )
        )
        return (
            "def day_after(day, count):\n"
            "    year, month, number = [int(part) for part in day.split('-')]\n"
            "    number += count\n"
            "    while True:\n"
            "        leap = year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)\n"
            "        length = [31, 28 + leap, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31][month - 1]\n"
            "        if number <= length:\n"
            "            return '%04d-%02d-%02d' % (year, month, number)\n"
            "        number -= length\n"
            "        year, month = (year, month + 1) if month < 12 else (year + 1, 1)\n"
            "def is_workday(day):\n"
            f"{week}"
        )

    def plan_board(self) -> str:
        """Planner source of `work_board`: jobs, what comes before each, and expected ends that entries give."""
        lag = "(p['lag'] if POLICY else 0)" if self.lags else "0"
        kick = (
            f"    begins = {{k[{self.scheme_key!r}]: k['kickoff'] for k in rows('scheme', {{}})}}\n"
            if self.kickoffs
            else "    begins = {}\n"
        )
        return (
            "def slot_end(slot, job):\n"
            f"    return slot['last'] if not POLICY or job['state'] == 'done' else max(slot['last'], {self.today!r})\n"
            "def work_board():\n"
            "    jobs = rows('job', {})\n"
            "    ends, earlier = {}, {}\n"
            f"    owner = {{j[{self.job_key!r}]: j for j in jobs}}\n"
            "    for s in rows('sched_slot', {}):\n"
            f"        job = owner[s[{self.job!r}]]\n"
            "        if job['state'] != 'cancelled' or not POLICY:\n"
            "            ends[job['id']] = slot_end(s, job)\n"
            f"    first = {{j[{self.before_key!r}]: j for j in jobs}}\n"
            f"    then = {{j[{self.after_key!r}]: j for j in jobs}}\n"
            "    for p in rows('precedence', {}):\n"
            f"        one, other = first[p[{self.before!r}]], then[p[{self.after!r}]]\n"
            "        if one['state'] != 'cancelled' or not POLICY:\n"
            f"            earlier[other['id']] = earlier.get(other['id'], []) + [(one, {lag})]\n"
            f"{kick}"
            "    return {'jobs': jobs, 'ends': ends, 'earlier': earlier, 'begins': begins, 'known': {}}\n"
        )

    def plan_ready(self) -> str:
        """Planner source of `d_ready_day`."""
        kick = (
            f"    if POLICY:\n        day = max(day, board['begins'][job[{self.scheme!r}]])\n" if self.kickoffs else ""
        )
        return (
            self.plan_days() + self.plan_board() + "def ready_on(board, job):\n"
            "    if job['id'] in board['known']:\n"
            "        return board['known'][job['id']]\n"
            f"    day = {self.today!r}\n"
            f"{kick}"
            "    for one, lag in board['earlier'].get(job['id'], []):\n"
            "        day = max(day, day_after(ends_on(board, one), lag + 1))\n"
            "    while not is_workday(day):\n"
            "        day = day_after(day, 1)\n"
            "    board['known'][job['id']] = day\n"
            "    return day\n"
            "def ends_on(board, job):\n"
            "    if job['id'] in board['ends']:\n"
            "        return board['ends'][job['id']]\n"
            "    day, left = ready_on(board, job), job['duration'] - 1\n"
            "    while left:\n"
            "        day = day_after(day, 1)\n"
            "        left -= is_workday(day)\n"
            "    return day\n"
            "def d_ready_day(row):\n"
            "    return ready_on(work_board(), row)\n"
        )

    def plan_completion(self) -> str:
        """Planner source of `d_completion`."""
        return (
            self.plan_ready() + "def d_completion(row):\n"
            "    board = work_board()\n"
            f"    mine = [j for j in board['jobs'] if j[{self.scheme!r}] == row[{self.scheme_key!r}]]\n"
            "    mine = [j for j in mine if j['state'] != 'cancelled' or not POLICY]\n"
            f"    return max([ends_on(board, j) for j in mine], default={self.today!r})\n"
        )

    def plan_diary(self) -> str:
        """Planner source of `closed_days` and `held_spans` of a machine."""
        if not self.closing:
            shut = "    return []\n"
        elif self.by_site:
            shut = (
                f"    site = rows('site', {{{self.site_key!r}: row[{self.site!r}]}})[0]\n"
                f"    return [c['day'] for c in rows('sched_closure', {{{self.closed!r}: site[{self.closed_key!r}]}})]\n"
            )
        else:
            shut = (
                f"    return [c['day'] for c in rows('sched_closure', {{{self.closed!r}: row[{self.closed_key!r}]}})]\n"
            )
        return (
            "def closed_days(row):\n"
            f"{shut}"
            "def held_spans(row):\n"
            f"    owner = {{j[{self.job_key!r}]: j for j in rows('job', {{}})}}\n"
            "    spans = []\n"
            f"    for s in rows('sched_slot', {{{self.machine!r}: row[{self.machine_key!r}]}}):\n"
            f"        job = owner[s[{self.job!r}]]\n"
            "        if job['state'] != 'cancelled' or not POLICY:\n"
            "            spans.append((job['id'], s['first'], slot_end(s, job)))\n"
            "    return spans\n"
        )

    def plan_start(self) -> str:
        """Planner source of `d_earliest_start`; who ignores the rules looks at what must come before and nothing else."""
        broken = "        if not is_open:\n            return None\n" if self.unbroken else ""
        return (
            self.plan_ready() + self.plan_diary() + "def last_day(day, duration, shut):\n"
            "    if not is_workday(day) or day in shut:\n"
            "        return None\n"
            "    left = duration - 1\n"
            "    while left:\n"
            "        day = day_after(day, 1)\n"
            "        is_open = is_workday(day) and day not in shut\n"
            f"{broken}"
            "        left -= is_open\n"
            "    return day\n"
            "def d_earliest_start(row, job):\n"
            "    day = d_ready_day(job)\n"
            "    if not POLICY:\n"
            "        return day\n"
            "    shut = closed_days(row)\n"
            "    held = [(a, b) for other, a, b in held_spans(row) if other != job['id']]\n"
            "    while True:\n"
            "        end = last_day(day, job['duration'], shut)\n"
            f"        if end and not [1 for a, b in held if a <= day_after(end, {self.gap})"
            f" and day_after(b, {self.gap}) >= day]:\n"
            "            return day\n"
            "        day = day_after(day, 1)\n"
        )

    def plan_busy(self) -> str:
        """Planner source of `d_busy_days`."""
        return (
            self.plan_days() + self.plan_board() + self.plan_diary() + "def d_busy_days(row, start, end):\n"
            "    shut = closed_days(row) if POLICY else []\n"
            "    busy = []\n"
            "    for _, day, last in held_spans(row):\n"
            "        day = max(day, start)\n"
            "        while day <= min(last, end):\n"
            "            if is_workday(day) and day not in shut and day not in busy:\n"
            "                busy.append(day)\n"
            "            day = day_after(day, 1)\n"
            "    return len(busy)\n"
        )
