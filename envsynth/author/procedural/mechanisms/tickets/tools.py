"""Write tools of a service desk."""

from __future__ import annotations

from envsynth.author.procedural.mechanism import ToolDraft
from envsynth.author.procedural.mechanisms.entities import arguments_schema, fetch_source, id_schema, insert_source
from envsynth.author.procedural.mechanisms.tickets.bindings import ABOVE, LEVELS, TIERS, Bindings


class ToolTexts(Bindings):
    """Writes the tools over one world."""

    def draft(self, name: str, description: str, entity: str | None, body: str, errors: tuple[str, ...]) -> ToolDraft:
        """A tool that takes an incident and by `entity` one more row, and gives the new progress."""
        world, taken = self.world, ["incident", *([entity] if entity else [])]
        arguments = [self.arg(key) for key in taken]
        return ToolDraft(
            name=name,
            effect="write",
            description=description,
            parameters=arguments_schema({self.arg(key): id_schema(world, key) for key in taken}),
            returns=f"id: id of the {world.word('incident')}; progress: its new progress.",
            errors=errors,
            source=(
                f"def {name}(db, *, {', '.join(arguments)}):\n"
                + "".join(fetch_source(world, key, key) for key in taken)
                + body
            ),
        )

    def state_source(self, *allowed: str) -> str:
        """Tool source that refuses an incident in another state."""
        return (
            f"    if incident['progress'] not in {allowed}:\n"
            "        raise Refusal('conflict', 'its progress is ' + incident['progress'])\n"
        )

    def move_source(self, progress: str, queue: str = "") -> str:
        """Tool source that sets the state, and by `queue` (an expression) the queue, and returns."""
        cells = f'"progress" = ?, "{self.queue}" = ?' if queue else '"progress" = ?'
        statement = f'UPDATE "incident" SET {cells} WHERE "id" = ?'
        values = f"{progress!r}, {queue}, incident['id']" if queue else f"{progress!r}, incident['id']"
        return (
            f"    db.execute({statement!r}, ({values}))\n"
            f"    return {{'id': incident['id'], 'progress': {progress!r}}}\n"
        )

    def end_source(self) -> str:
        """Tool source that ends what is current for the incident."""
        statement = f'UPDATE "dispatch" SET "standing" = \'ended\' WHERE "{self.case}" = ? AND "standing" = \'current\''
        return f"    db.execute({statement!r}, (incident['id'],))\n"

    def assign_draft(self) -> ToolDraft:
        """The tool that assigns; it does not look for the least loaded agent."""
        world = self.world
        assignee, incident, queue = world.word("assignee"), world.word("incident"), world.word("queue")
        skilled = self.skills and self.strict
        held = f'SELECT 1 FROM "dispatch" WHERE "{self.case}" = ? AND "{self.agent}" = ? AND "standing" = \'current\''
        query = (
            f'SELECT {self.load_sql("a")} + {self.weight_sql("i")} AS "load",'
            f' {self.grade_sql("a") if skilled else "0"} AS "grade",'
            f' {self.need_sql("i") if skilled else "0"} AS "need",'
            f' EXISTS (SELECT 1 FROM "queue" z WHERE z."{self.desk_key}" = a."{self.desk}"'
            f' AND z."{self.queue_key}" = i."{self.queue}") AS "fits"'
            ' FROM "assignee" a, "incident" i WHERE a."id" = ? AND i."id" = ?'
        )
        skill = "    if found['grade'] < found['need']:\n        raise Refusal('conflict', 'the skill is too low')\n"
        cells = {
            self.case: "incident['id']",
            self.agent: f"assignee[{self.agent_key!r}]",
            "since": repr(self.today),
            "standing": "'current'",
        }
        return self.draft(
            self.assign_tool,
            f"Assign a {incident} to a {assignee} of its {queue} that does not handle it yet: makes a "
            f"{world.word('dispatch')}; those that were current end.",
            "assignee",
            self.state_source(*self.open)
            + f"    if db.execute({held!r}, (incident['id'], assignee[{self.agent_key!r}])).fetchone():\n"
            f"        raise Refusal('conflict', {f'the {assignee} handles it already'!r})\n"
            f"    found = db.execute({query!r}, (assignee['id'], incident['id'])).fetchone()\n"
            "    if not found['fits']:\n"
            f"        raise Refusal('invalid', {f'the {assignee} belongs to another {queue}'!r})\n"
            f"{skill if skilled else ''}"
            "    if found['load'] > assignee['limit']:\n"
            "        raise Refusal('conflict', 'the workload limit would be exceeded')\n"
            + self.end_source()
            + insert_source(world, "dispatch", cells)
            + self.move_source("assigned"),
            ("not_found", "invalid", "conflict"),
        )

    def escalate_draft(self) -> ToolDraft:
        """The tool that passes an incident on to the next level."""
        world = self.world
        incident, queue = world.word("incident"), world.word("queue")
        level = f'SELECT "level" FROM "queue" WHERE "{self.queue_key}" = ?'
        left = f'SELECT {self.left_sql("i")} AS "hours" FROM "incident" i WHERE i."id" = ?'
        return self.draft(
            self.escalate_tool,
            f"Move a {incident} to a {queue} of the next support level; its current {world.plural('dispatch')} end.",
            "queue",
            self.state_source(*self.open)
            + f"    here = db.execute({level!r}, (incident[{self.queue!r}],)).fetchone()\n"
            f"    if queue['level'] != {ABOVE}.get(here['level']):\n"
            "        raise Refusal('invalid', 'not of the next support level')\n"
            f"    if db.execute({left!r}, (incident['id'],)).fetchone()['hours'] > {self.alarm}:\n"
            "        raise Refusal('conflict', 'too much time remains')\n"
            + self.end_source()
            + self.move_source("triaged", f"queue[{self.queue_key!r}]"),
            ("not_found", "invalid", "conflict"),
        )

    def resolve_draft(self) -> ToolDraft:
        """The tool that resolves."""
        incident = self.world.word("incident")
        return self.draft(
            self.resolve_tool,
            f"Resolve a {incident}; its current {self.world.plural('dispatch')} end.",
            None,
            self.state_source(*self.held) + self.end_source() + self.move_source("resolved"),
            ("not_found", "conflict"),
        )

    def transfer_draft(self) -> ToolDraft:
        """The tool that moves an incident to another queue."""
        world = self.world
        column, key = self.queue, self.queue_key
        fresh = "'new' if incident['progress'] == 'new' else " if "new" in self.unfinished else ""
        statement = f'UPDATE "incident" SET "progress" = ?, "{column}" = ? WHERE "id" = ?'
        return self.draft(
            self.transfer_tool,
            f"Move a {world.word('incident')} to another {world.word('queue')}; its current "
            f"{world.plural('dispatch')} end.",
            "queue",
            self.state_source(*self.unfinished) + f"    if incident[{column!r}] == queue[{key!r}]:\n"
            "        raise Refusal('invalid', 'it is there already')\n"
            f"    progress = {fresh}'triaged'\n"
            f"    db.execute({statement!r}, (progress, queue[{key!r}], incident['id']))\n"
            + self.end_source()
            + "    return {'id': incident['id'], 'progress': progress}\n",
            ("not_found", "invalid", "conflict"),
        )

    def triage_draft(self) -> ToolDraft:
        """The tool that triages; by rule it takes any queue."""
        world = self.world
        query = f'SELECT {self.level_sql("i")} AS "level" FROM "incident" i WHERE i."id" = ?'
        level = (
            f"    priority = db.execute({query!r}, (incident['id'],)).fetchone()['level']\n"
            f"    if queue['level'] != {LEVELS}.get(priority, {TIERS[0]!r}):\n"
            "        raise Refusal('invalid', 'not of the support level of its priority')\n"
        )
        return self.draft(
            self.triage_tool,
            f"Put a {world.word('incident')} whose progress is new or triaged into a {world.word('queue')}.",
            "queue",
            self.state_source("new", "triaged")
            + f"    if incident['progress'] == 'triaged' and incident[{self.queue!r}] == queue[{self.queue_key!r}]:\n"
            "        raise Refusal('conflict', 'it is there already')\n"
            + (level if self.strict else "")
            + self.move_source("triaged", f"queue[{self.queue_key!r}]"),
            ("not_found", "invalid", "conflict") if self.strict else ("not_found", "conflict"),
        )
