"""Write tools of an itinerary world."""

from __future__ import annotations

from envsynth.author.procedural.mechanism import ToolDraft
from envsynth.author.procedural.mechanisms.entities import (
    arguments_schema,
    fetch_source,
    id_schema,
    insert_source,
)
from envsynth.author.procedural.mechanisms.itinerary.bindings import Bindings


class ToolTexts(Bindings):
    """Writes the tools over one world."""

    def buy_draft(self) -> ToolDraft:
        """The tool that sells one seat; it knows nothing of routes and kept seats."""
        world, leg, person = self.world, self.arg("leg"), self.arg("person")
        live = " AND \"validity\" = 'valid'" if self.refunds else ""
        query = f'SELECT "{self.person}" AS "holder" FROM "ticket" WHERE "{self.leg}" = ?{live}'
        cells = {
            self.leg: f"leg[{self.leg_key!r}]",
            self.person: f"person[{self.person_key!r}]",
            **({"validity": "'valid'"} if self.refunds else {}),
        }
        return ToolDraft(
            name=self.buy_tool,
            effect="write",
            description=(f"Buy a {world.word('ticket')} for one {world.word('leg')} for a {world.word('person')}."),
            parameters=arguments_schema({leg: id_schema(world, "leg"), person: id_schema(world, "person")}),
            returns=f"id: id of the new {world.word('ticket')}.",
            errors=("not_found", "conflict"),
            source=(
                f"def {self.buy_tool}(db, *, {leg}, {person}):\n"
                + fetch_source(world, "leg", "leg")
                + fetch_source(world, "person", "person")
                + f"    holders = [row['holder'] for row in db.execute({query!r}, (leg[{self.leg_key!r}],))]\n"
                f"    if person[{self.person_key!r}] in holders:\n"
                "        raise Refusal('conflict', 'bought already')\n"
                "    if len(holders) >= leg['seats']:\n"
                "        raise Refusal('conflict', 'sold out')\n"
                + insert_source(world, "ticket", cells)
                + "    return {'id': new_id}\n"
            ),
        )

    def refund_draft(self) -> ToolDraft:
        """The tool that refunds a ticket."""
        world, ticket = self.world, self.arg("ticket")
        statement = 'UPDATE "ticket" SET "validity" = ? WHERE "id" = ?'
        return ToolDraft(
            name=self.refund_tool,
            effect="write",
            description=f"Refund a {world.word('ticket')}; its seat becomes free.",
            parameters=arguments_schema({ticket: id_schema(world, "ticket")}),
            returns=f"id: id of the {world.word('ticket')}; validity: its new validity.",
            errors=("not_found", "conflict"),
            source=(
                f"def {self.refund_tool}(db, *, {ticket}):\n"
                + fetch_source(world, "ticket", "target")
                + "    if target['validity'] != 'valid':\n"
                "        raise Refusal('conflict', 'already refunded')\n"
                f"    db.execute({statement!r}, ('refunded', target['id']))\n"
                "    return {'id': target['id'], 'validity': 'refunded'}\n"
            ),
        )
