"""Write tools of a telemetry world."""

from __future__ import annotations

from envsynth.author.procedural.mechanism import ToolDraft
from envsynth.author.procedural.mechanisms.entities import (
    arguments_schema,
    fetch_source,
    id_schema,
    insert_source,
)
from envsynth.author.procedural.mechanisms.telemetry.bindings import Bindings


class ToolTexts(Bindings):
    """Writes the tools over one world."""

    def acknowledge_draft(self) -> ToolDraft:
        """The tool that acknowledges one alarm."""
        world, alarm, person = self.world, self.arg("alarm"), self.arg("person")
        word = world.word("alarm")
        owner = f', "{self.owner}" = ?' if self.assigned else ""
        statement = f'UPDATE "alarm" SET "state" = ?{owner} WHERE "id" = ?'
        cell = f", person[{self.owner_key!r}]" if self.assigned else ""
        return ToolDraft(
            name=self.acknowledge_tool,
            effect="write",
            description=(
                f"Acknowledge one {word}"
                + (f" and make a {world.word('person')} its assignee." if self.assigned else ".")
            ),
            parameters=arguments_schema(
                {
                    alarm: id_schema(world, "alarm"),
                    **({person: id_schema(world, "person")} if self.assigned else {}),
                }
            ),
            returns=f"id: id of the {word}; state: its new state.",
            errors=("not_found", "conflict"),
            source=(
                f"def {self.acknowledge_tool}(db, *, {alarm}{f', {person}' if self.assigned else ''}):\n"
                + fetch_source(world, "alarm", "alarm")
                + (fetch_source(world, "person", "person") if self.assigned else "")
                + f"    if alarm['state'] not in {self.open_states!r}:\n"
                "        raise Refusal('conflict', 'it is ' + alarm['state'] + ' already')\n"
                f"    db.execute({statement!r}, ('acknowledged'{cell}, alarm['id']))\n"
                "    return {'id': alarm['id'], 'state': 'acknowledged'}\n"
            ),
        )

    def clear_draft(self) -> ToolDraft:
        """The tool that clears one alarm."""
        world, alarm = self.world, self.arg("alarm")
        statement = 'UPDATE "alarm" SET "state" = ? WHERE "id" = ?'
        return ToolDraft(
            name=self.clear_tool,
            effect="write",
            description=f"Clear one {world.word('alarm')}.",
            parameters=arguments_schema({alarm: id_schema(world, "alarm")}),
            returns=f"id: id of the {world.word('alarm')}; state: its new state.",
            errors=("not_found", "conflict"),
            source=(
                f"def {self.clear_tool}(db, *, {alarm}):\n"
                + fetch_source(world, "alarm", "alarm")
                + f"    if alarm['state'] not in {self.clearable!r}:\n"
                "        raise Refusal('conflict', 'it is ' + alarm['state'])\n"
                f"    db.execute({statement!r}, ('cleared', alarm['id']))\n"
                "    return {'id': alarm['id'], 'state': 'cleared'}\n"
            ),
        )

    def limit_draft(self) -> ToolDraft:
        """The tool that sets a high limit."""
        world, sensor = self.world, self.arg("sensor")
        gap = 2 * self.margin
        low = (
            f"    if high <= sensor['low'] + {gap}:\n"
            f"        raise Refusal('invalid', 'it must lie more than {gap} degrees above the low limit')\n"
        )
        step = (
            f"    if not -{self.step} <= high - sensor['high'] <= {self.step}:\n"
            f"        raise Refusal('conflict', 'it cannot be moved by more than {self.step} degrees')\n"
        )
        statement = 'UPDATE "sensor" SET "high" = ? WHERE "id" = ?'
        return ToolDraft(
            name=self.limit_tool,
            effect="write",
            description=f"Set the high limit of a {world.word('sensor')}.",
            parameters=arguments_schema(
                {
                    sensor: id_schema(world, "sensor"),
                    "high": {"type": "integer", "description": "new high limit, in degrees"},
                }
            ),
            returns=f"id: id of the {world.word('sensor')}; high: its new high limit.",
            errors=("not_found", "invalid", "conflict"),
            source=(
                f"def {self.limit_tool}(db, *, {sensor}, high):\n"
                + fetch_source(world, "sensor", "sensor")
                + "    if high < 1:\n"
                "        raise Refusal('invalid', 'a limit is at least 1 degree')\n"
                "    if high == sensor['high']:\n"
                "        raise Refusal('conflict', 'this is the limit already')\n"
                f"{low if self.low else ''}{step if self.step else ''}"
                f"    db.execute({statement!r}, (high, sensor['id']))\n"
                "    return {'id': sensor['id'], 'high': high}\n"
            ),
        )

    def maintain_draft(self) -> ToolDraft:
        """The tool that plans maintenance."""
        world, sensor, service = self.world, self.arg("sensor"), self.world.word("maintenance")
        clock = "o'clock, on the 24-hour clock"
        hours = {
            "start": {"type": "integer", "minimum": 0, "maximum": 24, "description": f"first hour, {clock}"},
            "end": {"type": "integer", "minimum": 0, "maximum": 24, "description": f"hour at which it ends, {clock}"},
        }
        span = ("start", "end") if self.hourly else ()
        return ToolDraft(
            name=self.maintain_tool,
            effect="write",
            description=f"Plan a {service} for a {world.word('sensor')}.",
            parameters=arguments_schema(
                {
                    sensor: id_schema(world, "sensor"),
                    "day": {
                        "type": "string",
                        "pattern": r"^\d{4}-\d{2}-\d{2}$",
                        "description": "day, YYYY-MM-DD",
                    },
                    **(hours if self.hourly else {}),
                }
            ),
            returns=f"id: id of the new {service}.",
            errors=("not_found", "invalid", "conflict"),
            source=(
                f"def {self.maintain_tool}(db, *, {', '.join([sensor, 'day', *span])}):\n"
                + fetch_source(world, "sensor", "sensor")
                + self.calendar_source()
                + insert_source(
                    world,
                    "maintenance",
                    {self.shut: f"sensor[{self.shut_key!r}]", "day": "day", **{name: name for name in span}},
                )
                + "    return {'id': new_id}\n"
            ),
        )

    def calendar_source(self) -> str:
        """Tool source that refuses what cannot be planned."""
        twice = f'SELECT 1 AS "hit" FROM "maintenance" WHERE "{self.shut}" = ? AND "day" = ?'
        beside = (
            f'SELECT COUNT(*) AS "planned" FROM "maintenance" WHERE "day" = ? AND "{self.shut}" IN'
            f' (SELECT "{self.shut_key}" FROM "sensor" WHERE "{self.site}" = ?)'
        )
        source = f"    if day < {self.today!r}:\n        raise Refusal('invalid', 'that day is over')\n"
        if self.hourly:
            source += "    if start >= end:\n        raise Refusal('invalid', 'it must end after it starts')\n"
        source += (
            f"    if db.execute({twice!r}, (sensor[{self.shut_key!r}], day)).fetchone() is not None:\n"
            "        raise Refusal('conflict', 'there is one on that day already')\n"
        )
        if self.site_cap:
            full = f"no more than {self.site_cap} a day at one {self.world.word('site')}"
            source += (
                f"    planned = db.execute({beside!r}, (day, sensor[{self.site!r}])).fetchone()['planned']\n"
                f"    if planned >= {self.site_cap}:\n"
                f"        raise Refusal('conflict', {full!r})\n"
            )
        return source
