"""What order means among incidents: whatever is assigned is handled, and by one agent only."""

from __future__ import annotations

import random

from envsynth.author.procedural.mechanism import Breach, Composed, Norm, Row
from envsynth.author.procedural.mechanisms.planting import Planting
from envsynth.author.procedural.mechanisms.tickets.bindings import Bindings


class NormTexts(Bindings):
    """Writes the norm over one world."""

    def __init__(self, world: Composed) -> None:
        super().__init__(world)
        word = world.word
        self.incident, self.record = word("incident"), word("dispatch")
        self.repair = f"assign the {self.incident} to the least loaded suited {word('assignee')} not handling it yet"

    def norm(self) -> Norm:
        """All rules of an incident."""
        return Norm(entity="incident", breaches=(self.orphan(), self.shared()))

    def current_sql(self) -> str:
        """SQL of how many agents handle the row."""
        return f'(SELECT COUNT(*) FROM "dispatch" h WHERE h."{self.case}" = {{t}}."id" AND h."standing" = \'current\')'

    def plan_current(self) -> str:
        """Planner source of `handling`: the current records of an incident."""
        return (
            "def handling(incident):\n"
            f"    found = rows('dispatch', {{{self.case!r}: incident['id']}})\n"
            "    return [x for x in found if not POLICY or x['standing'] == 'current']\n"
        )

    def goal_current(self) -> str:
        """Goal source of `hands_on`: how many agents handle each incident."""
        return (
            "@once\n"
            "def hands_on():\n"
            "    hands = {}\n"
            "    for x in db['dispatch']:\n"
            "        if x['standing'] != 'ended':\n"
            f"            hands[x[{self.case!r}]] = hands.get(x[{self.case!r}], 0) + 1\n"
            "    return hands\n"
        )

    def orphan(self) -> Breach:
        """An incident that is said to be assigned, and that nobody handles."""
        listed = ", ".join(f"'{stage}'" for stage in self.held)
        return Breach(
            name="orphan",
            rule=f"its progress is {' or '.join(self.held)} and it has no {self.record} whose standing is current",
            sql=f'({{t}}."progress" IN ({listed}) AND {self.current_sql()} = 0)',
            plan=(
                self.plan_current() + "def p_incident_orphan(row):\n"
                f"    return row['progress'] in {self.held} and (not CHECKS or not handling(row))\n"
            ),
            goal=(
                self.goal_current() + "def v_incident_orphan(db, row):\n"
                f"    return row['progress'] in {list(self.held)} and row['id'] not in hands_on()\n"
            ),
            repair=self.repair,
            action="assign_incident",
            parameter="incident",
            plant=self.plant_orphan,
        )

    def shared(self) -> Breach:
        """An incident that more than one agent handles."""
        return Breach(
            name="shared",
            rule=f"it has more than one {self.record} whose standing is current",
            sql=f"({self.current_sql()} > 1)",
            plan=(
                self.plan_current() + "def p_incident_shared(row):\n"
                "    return len(handling(row)) > (1 if CHECKS else 0)\n"
            ),
            goal=(
                self.goal_current() + "def v_incident_shared(db, row):\n    return hands_on().get(row['id'], 0) >= 2\n"
            ),
            repair=self.repair,
            action="assign_incident",
            parameter="incident",
            plant=self.plant_shared,
        )

    # ------------------------------------------------------------------------------------------------------ planting

    def assigned(self, planting: Planting) -> Row:
        """An incident that somebody handles."""
        return planting.pick(
            [r for r in self.world.rows["incident"] if r["progress"] == "assigned"], "assigned incident"
        )

    def handled(self, planting: Planting, incident: Row, standing: str) -> None:
        """Add a record of an agent of the incident's queue."""
        desks = {q[self.desk_key] for q in self.world.rows["queue"] if q[self.queue_key] == incident[self.queue]}
        agent = planting.pick([a for a in self.world.rows["assignee"] if a[self.desk] in desks], "agent of the queue")
        like = planting.rng.choice(self.world.rows["dispatch"])
        cells = {self.case: incident["id"], self.agent: agent[self.agent_key], "since": self.today}
        planting.add("dispatch", like, standing=standing, **cells)

    def plant_orphan(self, rng: random.Random) -> list[tuple[str, Row]]:
        """An assigned incident with ended records only; near misses: a triaged one like it, and one that is handled."""
        planting = Planting(self.world, rng)
        base = self.assigned(planting)
        self.handled(planting, planting.add("incident", base, effort=rng.randint(5, 20)), "ended")
        self.handled(planting, planting.add_early("incident", base, progress="triaged", effort=5), "ended")
        return planting.rows

    def plant_shared(self, rng: random.Random) -> list[tuple[str, Row]]:
        """An incident that two handle; near misses: one that one handles and another did before."""
        planting = Planting(self.world, rng)
        base = self.assigned(planting)
        for early, standings in ((False, ("current", "current")), (True, ("current", "ended"))):
            found = (planting.add_early if early else planting.add)("incident", base, effort=rng.randint(5, 20))
            for standing in standings:
                self.handled(planting, found, standing)
        return planting.rows
