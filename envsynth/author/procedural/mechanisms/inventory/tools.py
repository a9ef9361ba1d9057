"""Write tools of a stock world."""

from __future__ import annotations

from envsynth.author.procedural.mechanism import ToolDraft
from envsynth.author.procedural.mechanisms.entities import (
    arguments_schema,
    count_schema,
    fetch_source,
    id_schema,
    insert_source,
)
from envsynth.author.procedural.mechanisms.inventory.bindings import Bindings


class ToolTexts(Bindings):
    """Writes the tools over one world."""

    def reserve_draft(self) -> ToolDraft:
        """The tool that reserves from one lot."""
        world, lot, person = self.world, self.arg("lot"), self.arg("person")
        live = " AND \"phase\" = 'held'" if self.releases else ""
        query = f'SELECT COALESCE(SUM("quantity"), 0) AS "held" FROM "reservation" WHERE "{self.lot}" = ?{live}'
        cells = {
            self.lot: f"lot[{self.lot_key!r}]",
            self.person: f"person[{self.person_key!r}]",
            "quantity": "quantity",
            **({"phase": "'held'"} if self.releases else {}),
        }
        return ToolDraft(
            name=self.reserve_tool,
            effect="write",
            description=f"Reserve units of one {world.word('lot')} for a {world.word('person')}.",
            parameters=arguments_schema(
                {
                    lot: id_schema(world, "lot"),
                    person: id_schema(world, "person"),
                    "quantity": count_schema("units to reserve"),
                }
            ),
            returns=f"id: id of the new {world.word('reservation')}.",
            errors=("not_found", "conflict"),
            source=(
                f"def {self.reserve_tool}(db, *, {lot}, {person}, quantity):\n"
                + fetch_source(world, "lot", "lot")
                + fetch_source(world, "person", "person")
                + f"    held = db.execute({query!r}, (lot[{self.lot_key!r}],)).fetchone()['held']\n"
                "    if held + quantity > lot['quantity']:\n"
                "        raise Refusal('conflict', 'not enough unreserved units left')\n"
                + insert_source(world, "reservation", cells)
                + "    return {'id': new_id}\n"
            ),
        )

    def receive_draft(self) -> ToolDraft:
        """The tool that records a new lot."""
        world, item, site = self.world, self.arg("item"), self.arg("site")
        condition = {"condition": {"type": "string", "enum": ["ok", "quarantine"], "description": "condition to enter"}}
        cells = {
            self.item: f"item[{self.item_key!r}]",
            self.site: f"site[{self.site_key!r}]",
            "quantity": "quantity",
            "expiry": "expiry",
            **({"condition": "condition"} if self.quarantine else {}),
        }
        return ToolDraft(
            name=self.receive_tool,
            effect="write",
            description=f"Record a new {world.word('lot')} that has arrived at a {world.word('site')}.",
            parameters=arguments_schema(
                {
                    item: id_schema(world, "item"),
                    site: id_schema(world, "site"),
                    "quantity": count_schema("units received"),
                    "expiry": {
                        "type": "string",
                        "pattern": r"^\d{4}-\d{2}-\d{2}$",
                        "description": "expiry day, YYYY-MM-DD",
                    },
                    **(condition if self.quarantine else {}),
                }
            ),
            returns=f"id: id of the new {world.word('lot')}.",
            errors=("not_found", "invalid"),
            source=(
                f"def {self.receive_tool}(db, *, {item}, {site}, quantity, expiry{', condition' if self.quarantine else ''}):\n"
                + fetch_source(world, "item", "item")
                + fetch_source(world, "site", "site")
                + f"    if expiry < {world.now[:10]!r}:\n"
                "        raise Refusal('invalid', 'the expiry day lies before today')\n"
                + insert_source(world, "lot", cells)
                + "    return {'id': new_id}\n"
            ),
        )

    def release_draft(self) -> ToolDraft:
        """The tool that releases a reservation."""
        world, reservation = self.world, self.arg("reservation")
        statement = 'UPDATE "reservation" SET "phase" = ? WHERE "id" = ?'
        return ToolDraft(
            name=self.release_tool,
            effect="write",
            description=f"Release a {world.word('reservation')}; its units become unreserved again.",
            parameters=arguments_schema({reservation: id_schema(world, "reservation")}),
            returns="phase: the new phase.",
            errors=("not_found", "conflict"),
            source=(
                f"def {self.release_tool}(db, *, {reservation}):\n"
                + fetch_source(world, "reservation", "reservation")
                + "    if reservation['phase'] != 'held':\n"
                "        raise Refusal('conflict', 'already released')\n"
                f"    db.execute({statement!r}, ('released', reservation['id']))\n"
                "    return {'phase': 'released'}\n"
            ),
        )
