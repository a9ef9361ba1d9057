"""Write tools of a freight world."""

from __future__ import annotations

from envsynth.author.procedural.mechanism import ToolDraft
from envsynth.author.procedural.mechanisms.entities import (
    arguments_schema,
    count_schema,
    fetch_source,
    id_schema,
    insert_source,
)
from envsynth.author.procedural.mechanisms.routing.bindings import Bindings


class ToolTexts(Bindings):
    """Writes the tools over one world."""

    def book_draft(self) -> ToolDraft:
        """The tool that books the next lane; it knows nothing of hours, handling, deadlines and prices."""
        world, shipment, lane = self.world, self.arg("shipment"), self.arg("lane")
        cells = {
            self.cargo: f"cargo[{self.cargo_key!r}]",
            self.lane: f"lane[{self.lane_key!r}]",
            "day": "day",
            "position": "len(legs) + 1",
            **({"status": "'live'"} if self.trace else {}),
        }
        day = {"type": "string", "pattern": r"^\d{4}-\d{2}-\d{2}$", "description": "day of departure, YYYY-MM-DD"}
        return ToolDraft(
            name=self.book_tool,
            effect="write",
            description=(
                f"Book the next {world.word('lane')} of a {world.word('shipment')} on a day: makes a "
                f"{world.word('consignment')}. The state becomes underway, or booked once the destination is reached."
            ),
            parameters=arguments_schema(
                {shipment: id_schema(world, "shipment"), lane: id_schema(world, "lane"), "day": day}
            ),
            returns=f"id: id of the new {world.word('consignment')}; state: new state of the {world.word('shipment')}.",
            errors=("not_found", "invalid", "conflict"),
            source=(
                f"def {self.book_tool}(db, *, {shipment}, {lane}, day):\n"
                + fetch_source(world, "shipment", "cargo")
                + fetch_source(world, "lane", "lane")
                + self.place_source()
                + self.checks_source()
                + insert_source(world, "consignment", cells)
                + self.state_source()
            ),
        )

    def place_source(self) -> str:
        """Tool source that binds `legs`, `here`, `start`, `end` and `target` (ids of places)."""
        live = " AND \"status\" = 'live'" if self.trace else ""
        legs = (
            f'SELECT k."day", b."id" AS "end" FROM "consignment" k JOIN "lane" l ON l."{self.lane_key}" = k."{self.lane}"'
            f' JOIN "site" b ON b."{self.end_key}" = l."{self.end}" WHERE k."{self.cargo}" = ?{live}'
            ' ORDER BY k."position"'
        )

        def place(key: str) -> str:
            return f'SELECT "id" FROM "site" WHERE "{key}" = ?'

        def find(key: str, value: str) -> str:
            return f"db.execute({place(key)!r}, ({value},)).fetchone()['id']"

        return (
            "    if cargo['state'] not in ('waiting', 'underway'):\n"
            "        raise Refusal('conflict', 'it is ' + cargo['state'])\n"
            f"    legs = db.execute({legs!r}, (cargo[{self.cargo_key!r}],)).fetchall()\n"
            f"    here = legs[-1]['end'] if legs else {find(self.origin_key, f'cargo[{self.origin!r}]')}\n"
            f"    target = {find(self.target_key, f'cargo[{self.target!r}]')}\n"
            f"    start = {find(self.start_key, f'lane[{self.start!r}]')}\n"
            f"    end = {find(self.end_key, f'lane[{self.end!r}]')}\n"
        )

    def checks_source(self) -> str:
        """Tool source that refuses what cannot be booked."""
        live = " AND \"status\" = 'live'" if self.trace else ""
        load = (
            f'SELECT COALESCE(SUM(s."weight"), 0) AS "kg" FROM "consignment" k JOIN "shipment" s'
            f' ON s."{self.cargo_key}" = k."{self.cargo}" WHERE k."{self.lane}" = ? AND k."day" = ?{live}'
        )
        source = (
            "    if start != here:\n"
            "        raise Refusal('invalid', 'it does not start where the goods are then')\n"
            f"    if day not in {self.days!r}:\n"
            "        raise Refusal('invalid', 'it does not leave on that day')\n"
            "    if legs and day < legs[-1]['day']:\n"
            "        raise Refusal('invalid', 'that day is before the one booked last')\n"
            f"    if len(legs) == {self.most}:\n"
            f"        raise Refusal('conflict', 'already {self.most} booked')\n"
        )
        if self.strict and self.hazmat:
            source += (
                "    if cargo['goods'] == 'hazardous' and lane['accepts'] == 'plain':\n"
                "        raise Refusal('invalid', 'it does not accept hazardous goods')\n"
            )
        if self.strict and self.barred:
            shut = f'SELECT 1 AS "hit" FROM "embargo" WHERE "{self.bar}" = ? AND "day" = ?'
            value = f"lane[{self.bar_key!r}]"
            if self.barred == "site":
                shut = (
                    f'SELECT 1 AS "hit" FROM "embargo" e JOIN "site" a ON a."{self.bar_key}" = e."{self.bar}"'
                    ' WHERE a."id" = ? AND e."day" = ?'
                )
                value = "start"
            source += (
                f"    if db.execute({shut!r}, ({value}, day)).fetchone() is not None:\n"
                "        raise Refusal('conflict', 'barred on that day')\n"
            )
        return source + (
            f"    used = db.execute({load!r}, (lane[{self.lane_key!r}], day)).fetchone()['kg']\n"
            "    if used + cargo['weight'] > lane['capacity']:\n"
            "        raise Refusal('conflict', 'only ' + str(lane['capacity'] - used) + ' kg are free on that day')\n"
        )

    def state_source(self) -> str:
        """Tool source that moves the shipment on and returns."""
        statement = 'UPDATE "shipment" SET "state" = ? WHERE "id" = ?'
        return (
            "    state = 'booked' if end == target else 'underway'\n"
            f"    db.execute({statement!r}, (state, cargo['id']))\n"
            "    return {'id': new_id, 'state': state}\n"
        )

    def call_back_draft(self) -> ToolDraft:
        """The tool that takes back all bookings of a shipment."""
        world, shipment = self.world, self.arg("shipment")
        state = 'UPDATE "shipment" SET "state" = ? WHERE "id" = ?'
        live = " AND \"status\" = 'live'" if self.trace else ""
        end = f'DELETE FROM "consignment" WHERE "{self.cargo}" = ?'
        if self.trace:
            end = f'UPDATE "consignment" SET "status" = \'recalled\' WHERE "{self.cargo}" = ?{live}'
        soon = ""
        if self.notice:
            early = f'SELECT 1 AS "hit" FROM "consignment" WHERE "{self.cargo}" = ? AND "day" < ?{live}'
            soon = (
                f"    early = (cargo[{self.cargo_key!r}], {self.days[self.notice]!r})\n"
                f"    if db.execute({early!r}, early).fetchone() is not None:\n"
                "        raise Refusal('conflict', 'too late: it leaves too soon')\n"
            )
        return ToolDraft(
            name=self.call_back_tool,
            effect="write",
            description=f"Call back a {world.word('shipment')}: ends all of its {world.plural('consignment')}.",
            parameters=arguments_schema({shipment: id_schema(world, "shipment")}),
            returns=f"id: id of the {world.word('shipment')}; state: its new state.",
            errors=("not_found", "conflict"),
            source=(
                f"def {self.call_back_tool}(db, *, {shipment}):\n"
                + fetch_source(world, "shipment", "cargo")
                + "    if cargo['state'] not in ('booked', 'underway'):\n"
                "        raise Refusal('conflict', 'it is ' + cargo['state'])\n"
                f"{soon}"
                f"    db.execute({end!r}, (cargo[{self.cargo_key!r}],))\n"
                f"    db.execute({state!r}, ('waiting', cargo['id']))\n"
                "    return {'id': cargo['id'], 'state': 'waiting'}\n"
            ),
        )

    def defer_draft(self) -> ToolDraft:
        """The tool that moves an open shipment to later hours."""
        world, shipment = self.world, self.arg("shipment")
        statement = 'UPDATE "shipment" SET "ready" = ?, "deadline" = ? WHERE "id" = ?'
        return ToolDraft(
            name=self.defer_tool,
            effect="write",
            description=f"Defer a {world.word('shipment')}: adds hours to its ready time and its deadline.",
            parameters=arguments_schema(
                {shipment: id_schema(world, "shipment"), "hours": count_schema("hours to add")}
            ),
            returns=f"id: id of the {world.word('shipment')}; ready, deadline: its new hours.",
            errors=("not_found", "invalid", "conflict"),
            source=(
                f"def {self.defer_tool}(db, *, {shipment}, hours):\n"
                + fetch_source(world, "shipment", "cargo")
                + "    if cargo['state'] not in ('held', 'waiting'):\n"
                "        raise Refusal('conflict', 'it is ' + cargo['state'])\n"
                "    ready, deadline = cargo['ready'] + hours, cargo['deadline'] + hours\n"
                f"    if ready > {self.horizon}:\n"
                f"        raise Refusal('invalid', 'it would be ready later than {self.horizon} hours')\n"
                f"    db.execute({statement!r}, (ready, deadline, cargo['id']))\n"
                "    return {'id': cargo['id'], 'ready': ready, 'deadline': deadline}\n"
            ),
        )

    def release_draft(self) -> ToolDraft:
        """The tool that releases a held shipment."""
        world, shipment = self.world, self.arg("shipment")
        statement = 'UPDATE "shipment" SET "state" = ? WHERE "id" = ?'
        return ToolDraft(
            name=self.release_tool,
            effect="write",
            description=f"Release a held {world.word('shipment')}.",
            parameters=arguments_schema({shipment: id_schema(world, "shipment")}),
            returns=f"id: id of the {world.word('shipment')}; state: its new state.",
            errors=("not_found", "conflict"),
            source=(
                f"def {self.release_tool}(db, *, {shipment}):\n"
                + fetch_source(world, "shipment", "cargo")
                + "    if cargo['state'] != 'held':\n"
                "        raise Refusal('conflict', 'it is not held')\n"
                f"    db.execute({statement!r}, ('waiting', cargo['id']))\n"
                "    return {'id': cargo['id'], 'state': 'waiting'}\n"
            ),
        )
