"""Write tools of a world of contacts."""

from __future__ import annotations

from envsynth.author.procedural.mechanism import ToolDraft
from envsynth.author.procedural.mechanisms.entities import arguments_schema, fetch_source, id_schema
from envsynth.author.procedural.mechanisms.identity.bindings import SOURCES, Bindings


def _update(column: str) -> str:
    return f'UPDATE "contact" SET "{column}" = ? WHERE "id" = ?'


class ToolTexts(Bindings):
    """Writes the tools over one world."""

    def merge_draft(self) -> ToolDraft:
        """The tool that merges one contact into another; it does not judge whether they are one party."""
        world, contact = self.world, self.arg("contact")
        word = world.word("contact")
        moved = [("alias", self.alias, self.alias_key)]
        moved += [("message", self.message, self.message_key)] if self.moves else []
        moves = ""
        for table, column, key in moved:
            statement = f'UPDATE "{table}" SET "{column}" = ? WHERE "{column}" = ?'
            moves += f"    db.execute({statement!r}, (survivor[{key!r}], gone[{key!r}]))\n"
        things = " and ".join(world.plural(table) for table, _, _ in moved)
        survivor = {**id_schema(world, "contact"), "description": f"id of the {word} that survives"}
        return ToolDraft(
            name=self.merge_tool,
            effect="write",
            description=f"Merge a {word} into another one, to which its {things} move.",
            parameters=arguments_schema({contact: id_schema(world, "contact"), "survivor_id": survivor}),
            returns=f"id: id of the merged {word}; state: its new state.",
            errors=("not_found", "conflict", "invalid"),
            source=(
                f"def {self.merge_tool}(db, *, {contact}, survivor_id):\n"
                + fetch_source(world, "contact", "gone")
                + fetch_source(world, "contact", "survivor", "survivor_id")
                + "    if gone['id'] == survivor['id']:\n"
                "        raise Refusal('invalid', 'it cannot be merged into itself')\n"
                "    if gone['state'] != 'live' or survivor['state'] != 'live':\n"
                "        raise Refusal('conflict', 'both must be live')\n"
                f"    db.execute({_update('state')!r}, ('merged', gone['id']))\n"
                f"{moves}"
                "    return {'id': gone['id'], 'state': 'merged'}\n"
            ),
        )

    def relabel_draft(self) -> ToolDraft:
        """The tool that changes the source."""
        world, contact = self.world, self.arg("contact")
        word = world.word("contact")
        source = {"type": "string", "enum": list(SOURCES), "description": "its new source"}
        return ToolDraft(
            name=self.relabel_tool,
            effect="write",
            description=f"Change the source of a live {word}.",
            parameters=arguments_schema({contact: id_schema(world, "contact"), "source": source}),
            returns=f"id: id of the {word}; source: its new source.",
            errors=("not_found", "conflict", "invalid"),
            source=(
                f"def {self.relabel_tool}(db, *, {contact}, source):\n"
                + fetch_source(world, "contact", "target")
                + "    if target['state'] != 'live':\n"
                "        raise Refusal('conflict', 'it is merged')\n"
                "    if target['source'] == source:\n"
                "        raise Refusal('invalid', 'it has this source already')\n"
                f"    db.execute({_update('source')!r}, (source, target['id']))\n"
                "    return {'id': target['id'], 'source': source}\n"
            ),
        )
