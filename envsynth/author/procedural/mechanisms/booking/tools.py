"""Write tools of a booking world."""

from __future__ import annotations

from envsynth.author.procedural.mechanism import ToolDraft
from envsynth.author.procedural.mechanisms.booking.bindings import Bindings
from envsynth.author.procedural.mechanisms.entities import (
    arguments_schema,
    count_schema,
    fetch_source,
    id_argument,
    id_schema,
    insert_source,
)


class ToolTexts(Bindings):
    """Writes the tools over one world."""

    def marks(self) -> str:
        """SQL list of the statuses that count."""
        return ", ".join(f"'{status}'" for status in self.counting)

    def load_source(self, day: str) -> str:
        """Tool source that refuses when the person's hours of a day would exceed the cap; empty without a cap."""
        cap = self.rules["day_hours"]
        if not cap:
            return ""
        query = (
            f'SELECT COALESCE(SUM("end" - "start"), 0) AS "hours" FROM "booking" WHERE "{self.person}" = ?'
            f' AND "day" = ? AND "status" IN ({self.marks()})'
        )
        return (
            f"    held = db.execute({query!r}, (person[{self.person_key!r}], {day})).fetchone()['hours']\n"
            f"    if held + end - start > {cap}:\n"
            f"        raise Refusal('conflict', 'more than {cap} hours on that day')\n"
        )

    def book_draft(self) -> ToolDraft:
        """The tool that books."""
        world, place, person = (
            self.world,
            id_argument(self.world, "resource"),
            id_argument(self.world, "person"),
        )
        mixed = self.rules["tentative"] != "none"
        status = {
            "type": "string",
            "enum": ["active", "tentative"],
            "description": "status to enter it with",
        }
        clock = "o'clock, on the 24-hour clock"
        return ToolDraft(
            name=self.book_tool,
            effect="write",
            description=f"Book a {world.word('resource')} for a {world.word('person')}: makes a {world.word('booking')}.",
            parameters=arguments_schema(
                {
                    place: id_schema(world, "resource"),
                    person: id_schema(world, "person"),
                    "day": {
                        "type": "string",
                        "pattern": r"^\d{4}-\d{2}-\d{2}$",
                        "description": "day, YYYY-MM-DD",
                    },
                    "start": {"type": "integer", "description": f"first hour, {clock}"},
                    "end": {"type": "integer", "description": f"hour at which it ends, {clock}"},
                    "headcount": count_schema("how many people come"),
                    **({"status": status} if mixed else {}),
                }
            ),
            returns=f"id: id of the new {world.word('booking')}.",
            errors=("not_found", "invalid", "conflict"),
            source=(
                f"def {self.book_tool}(db, *, {place}, {person}, day, start, end, headcount"
                f"{', status' if mixed else ''}):\n"
                + fetch_source(world, "resource", "place")
                + fetch_source(world, "person", "person")
                + self.book_checks()
                + self.load_source("day")
                + insert_source(
                    world,
                    "booking",
                    {
                        self.place: f"place[{self.place_key!r}]",
                        self.person: f"person[{self.person_key!r}]",
                        **{cell: cell for cell in ("day", "start", "end", "headcount")},
                        "status": "status" if mixed else "'active'",
                    },
                )
                + "    return {'id': new_id}\n"
            ),
        )

    def book_checks(self) -> str:
        """Tool source that refuses what cannot be booked."""
        rules = self.rules
        opens, closes, longest = rules["opens"], rules["closes"], rules["longest"]
        clash = (
            f'SELECT 1 AS "hit" FROM "booking" WHERE "{self.place}" = ? AND "day" = ?'
            f' AND "status" IN ({self.marks()}) AND "start" < ? AND "end" > ?'
        )
        shut = f'SELECT 1 AS "hit" FROM "closure" WHERE "{self.closure}" = ? AND "day" = ?'
        source = (
            f"    if not {opens} <= start < end <= {closes}:\n"
            f"        raise Refusal('invalid', 'a span must start before it ends and lie within {opens} and {closes}')\n"
            "    if headcount > place['capacity']:\n"
            "        raise Refusal('invalid', 'headcount exceeds the capacity of ' + str(place['capacity']))\n"
        )
        if longest:
            source += (
                f"    if end - start > {longest}:\n"
                f"        raise Refusal('invalid', 'at most {longest} hours can be booked at once')\n"
            )
        source += (
            f"    span = (place[{self.place_key!r}], day, end + {self.gap}, start - {self.gap})\n"
            f"    if db.execute({clash!r}, span).fetchone() is not None:\n"
            "        raise Refusal('conflict', 'not free in that span')\n"
        )
        if self.closure:
            source += (
                f"    if db.execute({shut!r}, (place[{self.closure_key!r}], day)).fetchone() is not None:\n"
                "        raise Refusal('conflict', 'closed on that day')\n"
            )
        return source

    def cancel_draft(self) -> ToolDraft:
        """The tool that cancels."""
        world, booking = self.world, id_argument(self.world, "booking")
        statement = 'UPDATE "booking" SET "status" = ? WHERE "id" = ?'
        return ToolDraft(
            name=self.cancel_tool,
            effect="write",
            description=f"Cancel a {world.word('booking')}.",
            parameters=arguments_schema({booking: id_schema(world, "booking")}),
            returns=f"id: id of the {world.word('booking')}; status: its new status.",
            errors=("not_found", "conflict"),
            source=(
                f"def {self.cancel_tool}(db, *, {booking}):\n"
                + fetch_source(world, "booking", "booking")
                + "    if booking['status'] == 'cancelled':\n"
                "        raise Refusal('conflict', 'already cancelled')\n"
                f"    db.execute({statement!r}, ('cancelled', booking['id']))\n"
                "    return {'id': booking['id'], 'status': 'cancelled'}\n"
            ),
        )

    def hand_over_draft(self) -> ToolDraft:
        """The tool that hands over."""
        world = self.world
        booking, person = id_argument(world, "booking"), id_argument(world, "person")
        statement = f'UPDATE "booking" SET "{self.person}" = ? WHERE "id" = ?'
        span = "    start, end = booking['start'], booking['end']\n" if self.rules["day_hours"] else ""
        return ToolDraft(
            name=self.hand_over_tool,
            effect="write",
            description=f"Make another {world.word('person')} the holder of a {world.word('booking')}.",
            parameters=arguments_schema({booking: id_schema(world, "booking"), person: id_schema(world, "person")}),
            returns=f"id: id of the {world.word('booking')}; {self.person}: its new holder.",
            errors=("not_found", "invalid", "conflict"),
            source=(
                f"def {self.hand_over_tool}(db, *, {booking}, {person}):\n"
                + fetch_source(world, "booking", "booking")
                + fetch_source(world, "person", "person")
                + "    if booking['status'] == 'cancelled':\n"
                "        raise Refusal('conflict', 'it is cancelled')\n"
                f"    if booking[{self.person!r}] == person[{self.person_key!r}]:\n"
                "        raise Refusal('invalid', 'this holder has it already')\n"
                f"{span}"
                + self.load_source("booking['day']")
                + f"    db.execute({statement!r}, (person[{self.person_key!r}], booking['id']))\n"
                f"    return {{'id': booking['id'], {self.person!r}: person[{self.person_key!r}]}}\n"
            ),
        )
