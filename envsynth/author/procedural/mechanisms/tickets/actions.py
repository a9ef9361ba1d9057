"""Actions of a service desk: assign, escalate, resolve, triage; each with its three texts."""

from __future__ import annotations

from envsynth.author.procedural.ir import Type
from envsynth.author.procedural.mechanism import Action
from envsynth.author.procedural.mechanisms.tickets.bindings import ABOVE, LEVELS, TIERS, Bindings, by_priority

INCIDENT = (("incident", Type("row", "incident")),)


class ActionTexts(Bindings):
    """Writes the actions over one world."""

    def words(self, stages: tuple[str, ...]) -> str:
        """States as words: "triaged, assigned or waiting"."""
        return " or ".join(filter(None, (", ".join(stages[:-1]), stages[-1])))

    def ended_sql(self, condition: str) -> str:
        """SELECT of the changes that end what is current for the incident `i`."""
        return (
            " SELECT 'update', 'dispatch', json_object('id', x.\"id\", 'standing', 'ended')"
            f' FROM "dispatch" x, "case" i WHERE x."{self.case}" = i."id" AND x."standing" = \'current\'{condition}'
        )

    def assign(self) -> Action:
        """Assign, or assign anew, to a suited agent with the lowest load; any such agent will do."""
        word, plural = self.world.word, self.world.plural
        assignee, ended = word("assignee"), self.ended_sql(' AND i."taker" IS NOT NULL')
        holds = (
            f'SELECT 1 FROM "dispatch" x WHERE x."{self.case}" = i."id" AND x."{self.agent}" = a."{self.agent_key}"'
            " AND x.\"standing\" = 'current'"
        )
        return Action(
            name="assign_incident",
            phrase=f"assign {{incident}} to the least loaded suited {assignee} not handling it yet",
            params=INCIDENT,
            oracle_sql=(
                f'WITH "case" AS (SELECT i.*, (SELECT a."{self.agent_key}" FROM "assignee" a'
                f" WHERE {self.suited_sql('a', 'i')} AND NOT EXISTS ({holds})"
                f' ORDER BY {self.load_sql("a")}, a."id" LIMIT 1) AS "taker"'
                f' FROM "incident" i WHERE i."id" = {{incident}} AND i."progress" IN {self.open})'
                " SELECT 'update', 'incident', json_object('id', \"id\", 'progress', 'assigned')"
                ' FROM "case" WHERE "taker" IS NOT NULL AND "progress" <> \'assigned\' UNION ALL'
                f"{ended} UNION ALL"
                f" SELECT 'insert', 'dispatch', json_object('{self.case}', \"id\", '{self.agent}', \"taker\","
                f" 'since', '{self.today}', 'standing', 'current') FROM \"case\" WHERE \"taker\" IS NOT NULL"
            ),
            plan=(
                self.plan_suited() + "def a_assign_incident(incident):\n"
                f"    mine = rows('dispatch', {{{self.case!r}: incident['id']}})\n"
                f"    busy = [x[{self.agent!r}] for x in mine if x['standing'] == 'current']\n"
                f"    free = [a for a in rows('assignee', {{}}) if a[{self.agent_key!r}] not in busy]\n"
                "    able = [a for a in free if d_suited(a, incident)]\n"
                "    if not able:\n"
                "        raise RuntimeError('nobody is suited')\n"
                "    taker = able[0] if GREEDY else min(able, key=lambda a: (d_load(a), a['id']))\n"
                f"    write({self.assign_tool!r}, {self.arg('incident')}=incident['id'],"
                f" {self.arg('assignee')}=taker['id'])\n"
            ),
            goal=self.assign_goal(),
            tables=("incident", "dispatch"),
            policy=(
                f"A {word('incident')} whose progress is {self.words(self.open)} is assigned to a suited {assignee} that does "
                f"not handle it yet (none of its {plural('dispatch')} whose standing is current is of that {assignee}), with the "
                f"lowest current load among those (any one if several share it): its "
                f"current {plural('dispatch')} end, it gets a new current {word('dispatch')} from {self.today} on, and its "
                f"progress becomes assigned."
            ),
        )

    def assign_goal(self) -> str:
        """Goal of `assign`: an agent whose load nobody suited goes below, whoever that is."""
        return (
            self.goal_suited() + self.goal_ended() + "@once\n"
            "def best_takers(key):\n"
            "    incident = [c for c in db['incident'] if c['id'] == key][0]\n"
            f"    had = [x[{self.agent!r}] for x in db['dispatch'] if x['id'] in current_dispatches().get(key, [])]\n"
            "    loads = [(g_load(db, a), a) for a in db['assignee'] if g_suited(db, a, incident)]\n"
            f"    loads = [(n, a[{self.agent_key!r}]) for n, a in loads if a[{self.agent_key!r}] not in had]\n"
            "    return [a for n, a in loads if not any(m < n for m, _ in loads)]\n"
            "def s_assign_incident(db, diff, incident):\n"
            f"    if incident['progress'] not in {self.open}:\n"
            "        return None\n"
            "    moved, taken, ended = [], [], ended_dispatches(diff, incident)\n"
            "    for entry in diff:\n"
            "        new = entry['new']\n"
            "        if entry['op'] == 'update' and entry['table'] == 'incident':\n"
            "            if new == {**incident, 'progress': 'assigned'}:\n"
            "                moved.append(entry)\n"
            "        elif entry['op'] == 'insert' and entry['table'] == 'dispatch':\n"
            f"            if new[{self.case!r}] == incident['id'] and new[{self.agent!r}] in"
            " best_takers(incident['id']):\n"
            f"                if new['standing'] == 'current' and new['since'] == '{self.today}':\n"
            "                    taken.append(entry)\n"
            "    if ended is None or len(taken) != 1 or len(moved) != (incident['progress'] != 'assigned'):\n"
            "        return None\n"
            "    return moved + taken + ended\n"
        )

    def escalate(self) -> Action:
        """Pass on to a queue of the next level with the largest capacity; any such queue will do."""
        word, plural = self.world.word, self.world.plural
        ended = self.ended_sql(' AND i."next" IS NOT NULL')
        above = " ".join(f"WHEN '{level}' THEN '{higher}'" for level, higher in ABOVE.items())
        hours = "1 hour" if self.alarm == 1 else f"{self.alarm} hours"
        return Action(
            name="escalate_incident",
            phrase="escalate {incident}",
            params=INCIDENT,
            oracle_sql=(
                f'WITH "case" AS (SELECT i.*, (SELECT q."{self.queue_key}" FROM "queue" q JOIN "queue" h'
                f' ON h."{self.queue_key}" = i."{self.queue}" WHERE q."level" = CASE h."level" {above} END'
                ' ORDER BY q."capacity" DESC, q."id" LIMIT 1) AS "next" FROM "incident" i'
                f' WHERE i."id" = {{incident}} AND i."progress" IN {self.open}'
                f" AND {self.left_sql('i')} <= {self.alarm})"
                f" SELECT 'update', 'incident', json_object('id', \"id\", '{self.queue}', \"next\","
                " 'progress', 'triaged') FROM \"case\" WHERE \"next\" IS NOT NULL UNION ALL"
                f"{ended}"
            ),
            plan=(
                "def a_escalate_incident(incident):\n"
                f"    here = rows('queue', {{{self.queue_key!r}: incident[{self.queue!r}]}})[0]\n"
                f"    above = [q for q in rows('queue', {{}}) if q['level'] == {ABOVE}.get(here['level'])]\n"
                "    if not above:\n"
                "        raise RuntimeError('there is no higher level')\n"
                "    target = max(above, key=lambda q: q['capacity']) if POLICY else above[0]\n"
                f"    write({self.escalate_tool!r}, {self.arg('incident')}=incident['id'],"
                f" {self.arg('queue')}=target['id'])\n"
            ),
            goal=(
                self.goal_left() + self.goal_ended() + "def s_escalate_incident(db, diff, incident):\n"
                f"    queues = {{q[{self.queue_key!r}]: (q['level'], q['capacity']) for q in db['queue']}}\n"
                f"    here = queues[incident[{self.queue!r}]][0]\n"
                f"    level = {TIERS[1]!r} if here == {TIERS[0]!r} else {TIERS[2]!r}\n"
                "    room = [capacity for other, capacity in queues.values() if other == level != here]\n"
                f"    if not room or incident['progress'] not in {self.open}:\n"
                "        return None\n"
                "    moved, ended = [], ended_dispatches(diff, incident)\n"
                "    for entry in diff:\n"
                "        new = entry['new']\n"
                "        if entry['op'] == 'update' and entry['table'] == 'incident':\n"
                f"            goes = {{{self.queue!r}: new[{self.queue!r}], 'progress': 'triaged'}}\n"
                f"            if new == {{**incident, **goes}} and queues.get(new[{self.queue!r}]) == (level, max(room)):\n"
                "                moved.append(entry)\n"
                f"    if len(moved) != 1 or ended is None or g_hours_left(db, incident) > {self.alarm}:\n"
                "        return None\n"
                "    return moved + ended\n"
            ),
            tables=("incident", "dispatch"),
            policy=(
                f"A {word('incident')} whose progress is {self.words(self.open)} may be escalated if its remaining time is at most "
                f"{hours} and the support level of its {word('queue')} is not {TIERS[-1]}. It moves to a {word('queue')} of the "
                f"next support level with the largest capacity (any one if several share it), its progress "
                f"becomes triaged again, and its current {plural('dispatch')} end."
            ),
        )

    def resolve(self) -> Action:
        """Resolve what somebody handles."""
        listed = ", ".join(f"'{stage}'" for stage in self.held)
        word, plural = self.world.word, self.world.plural
        return Action(
            name="resolve_incident",
            phrase="resolve {incident}",
            params=INCIDENT,
            oracle_sql=(
                'WITH "case" AS (SELECT i.* FROM "incident" i WHERE i."id" = {incident}'
                f' AND i."progress" IN ({listed}))'
                " SELECT 'update', 'incident', json_object('id', \"id\", 'progress', 'resolved')"
                f' FROM "case" UNION ALL{self.ended_sql("")}'
            ),
            plan=(
                "def a_resolve_incident(incident):\n"
                f"    write({self.resolve_tool!r}, {self.arg('incident')}=incident['id'])\n"
            ),
            goal=(
                self.goal_ended() + "def s_resolve_incident(db, diff, incident):\n"
                "    ended = ended_dispatches(diff, incident)\n"
                f"    if ended is None or incident['progress'] not in {list(self.held)}:\n"
                "        return None\n"
                "    for entry in diff:\n"
                "        if entry['op'] == 'update' and entry['table'] == 'incident':\n"
                "            if entry['new'] == {**incident, 'progress': 'resolved'}:\n"
                "                return [entry, *ended]\n"
                "    return None\n"
            ),
            tables=("incident", "dispatch"),
            policy=(
                f"Only a {word('incident')} whose progress is {self.words(self.held)} can be resolved; its current {plural('dispatch')} end "
                "with it."
            ),
        )

    def transfer(self) -> Action:
        """Move what is not finished to another queue."""
        word, plural = self.world.word, self.world.plural
        listed = ", ".join(f"'{stage}'" for stage in self.unfinished)
        ended = self.ended_sql("")
        fresh = "new" in self.unfinished
        state_sql = "CASE \"progress\" WHEN 'new' THEN 'new' ELSE 'triaged' END" if fresh else "'triaged'"
        state_goal = "'new' if incident['progress'] == 'new' else 'triaged'" if fresh else "'triaged'"
        return Action(
            name="transfer_incident",
            phrase="move {incident} over to {queue}",
            params=(*INCIDENT, ("queue", Type("row", "queue"))),
            oracle_sql=(
                f'WITH "case" AS (SELECT i.*, q."{self.queue_key}" AS "next" FROM "incident" i, "queue" q'
                f' WHERE i."id" = {{incident}} AND q."id" = {{queue}} AND i."{self.queue}" <> q."{self.queue_key}"'
                f' AND i."progress" IN ({listed}))'
                f" SELECT 'update', 'incident', json_object('id', \"id\", '{self.queue}', \"next\","
                f" 'progress', {state_sql}) FROM \"case\" UNION ALL{ended}"
            ),
            plan=(
                "def a_transfer_incident(incident, queue):\n"
                f"    write({self.transfer_tool!r}, {self.arg('incident')}=incident['id'],"
                f" {self.arg('queue')}=queue['id'])\n"
            ),
            goal=(
                self.goal_ended() + "def s_transfer_incident(db, diff, incident, queue):\n"
                f"    want = {{**incident, {self.queue!r}: queue[{self.queue_key!r}]}}\n"
                f"    want['progress'] = {state_goal}\n"
                "    ended = ended_dispatches(diff, incident)\n"
                f"    if ended is None or incident['progress'] not in {list(self.unfinished)}:\n"
                "        return None\n"
                f"    if incident[{self.queue!r}] == want[{self.queue!r}]:\n"
                "        return None\n"
                "    for entry in diff:\n"
                "        if entry['op'] == 'update' and entry['table'] == 'incident' and entry['new'] == want:\n"
                "            return [entry, *ended]\n"
                "    return None\n"
            ),
            tables=("incident", "dispatch"),
            policy=(
                f"A {word('incident')} whose progress is {self.words(self.unfinished)} can be moved to any other "
                f"{word('queue')}; its current {plural('dispatch')} end, and its progress becomes triaged again"
                f"{' unless it is new, which it stays' if fresh else ''}."
            ),
        )

    def triage(self) -> Action:
        """Put an incident into a queue of the level of its priority; any with the largest capacity will do."""
        word = self.world.word
        levels = " ".join(f"WHEN {priority} THEN '{level}'" for priority, level in LEVELS.items())
        return Action(
            name="triage_incident",
            phrase="triage {incident}",
            params=INCIDENT,
            oracle_sql=(
                f'WITH "case" AS (SELECT i.*, CASE {self.level_sql("i")} {levels} ELSE \'{TIERS[0]}\' END AS "level"'
                ' FROM "incident" i WHERE i."id" = {incident} AND i."progress" IN (\'new\', \'triaged\')),'
                ' "best" AS (SELECT q.* FROM "queue" q, "case" i WHERE q."level" = i."level" AND q."capacity" ='
                ' (SELECT MAX(z."capacity") FROM "queue" z WHERE z."level" = i."level"))'
                f" SELECT 'update', 'incident', json_object('id', i.\"id\", '{self.queue}', q.\"{self.queue_key}\","
                " 'progress', 'triaged') FROM \"case\" i, \"best\" q WHERE i.\"progress\" = 'new' OR"
                f' i."{self.queue}" NOT IN (SELECT z."{self.queue_key}" FROM "best" z) ORDER BY q."id" LIMIT 1'
            ),
            plan=(
                self.plan_level() + "def a_triage_incident(incident):\n"
                f"    level = {LEVELS}.get(desk_level(incident), {TIERS[0]!r})\n"
                "    there = [q for q in rows('queue', {}) if q['level'] == level]\n"
                "    largest = max([q['capacity'] for q in there])\n"
                "    best = [q for q in there if q['capacity'] == largest or not POLICY]\n"
                f"    if incident['progress'] == 'triaged' and incident[{self.queue!r}] in"
                f" [q[{self.queue_key!r}] for q in best]:\n"
                "        raise RuntimeError('it is there already')\n"
                f"    write({self.triage_tool!r}, {self.arg('incident')}=incident['id'],"
                f" {self.arg('queue')}=best[0]['id'])\n"
            ),
            goal=(
                self.goal_level() + "def s_triage_incident(db, diff, incident):\n"
                f"    level = {[*reversed(TIERS), TIERS[0]]}[level_of_incident(incident) - 1]\n"
                "    room = max(q['capacity'] for q in db['queue'] if q['level'] == level)\n"
                f"    right = [q[{self.queue_key!r}] for q in db['queue'] if (q['level'], q['capacity']) == (level, room)]\n"
                "    done = incident['progress'] == 'triaged'\n"
                f"    if done and incident[{self.queue!r}] in right or not done and incident['progress'] != 'new':\n"
                "        return None\n"
                "    for entry in diff:\n"
                "        new = entry['new']\n"
                "        if entry['op'] == 'update' and entry['table'] == 'incident':\n"
                f"            goes = {{{self.queue!r}: new[{self.queue!r}], 'progress': 'triaged'}}\n"
                f"            if new == {{**incident, **goes}} and new[{self.queue!r}] in right:\n"
                "                return [entry]\n"
                "    return None\n"
            ),
            tables=("incident",),
            policy=(
                f"A {word('incident')} whose progress is new or triaged is triaged into a {word('queue')} with the largest "
                f"capacity (any one if several share it) among those of its support level, which is "
                f"{by_priority(LEVELS, TIERS[0])}; its progress becomes triaged. One that is triaged and in such a "
                f"{word('queue')} already cannot be triaged again."
            ),
        )
