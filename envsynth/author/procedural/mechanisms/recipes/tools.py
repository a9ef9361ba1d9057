"""Write tools of a recipe world."""

from __future__ import annotations

from envsynth.author.procedural.mechanism import ToolDraft
from envsynth.author.procedural.mechanisms.entities import (
    arguments_schema,
    count_schema,
    fetch_source,
    id_schema,
    insert_source,
)
from envsynth.author.procedural.mechanisms.recipes.bindings import Bindings


class ToolTexts(Bindings):
    """Writes the tools over one world."""

    def checks_source(self) -> str:
        """Tool source that refuses sizes that a recipe cannot have."""
        source = ""
        if self.runs:
            source += (
                "    if portions % recipe['portions']:\n"
                "        raise Refusal('invalid', 'whole runs only: the yield is ' + str(recipe['portions']))\n"
            )
        if self.most:
            source += (
                f"    if portions > {self.most} * recipe['portions']:\n"
                f"        raise Refusal('conflict', 'no more than {self.most} times the yield')\n"
            )
        return source

    def sizes_schema(self) -> dict[str, object]:
        """JSON Schema of the arguments for size and cost."""
        return {
            "portions": count_schema("size, in portions"),
            "expense": count_schema("planned expense, in credits", 0),
        }

    def plan_draft(self) -> ToolDraft:
        """The tool that enters a batch."""
        world, recipe, person = self.world, self.arg("recipe"), self.arg("person")
        cells = {
            self.made: f"recipe[{self.made_key!r}]",
            self.maker: f"person[{self.maker_key!r}]",
            "portions": "portions",
            "expense": "expense",
            **({"progress": "'planned'"} if self.states else {}),
        }
        return ToolDraft(
            name=self.plan_tool,
            effect="write",
            description=f"Enter a {world.word('batch')} of a {world.word('recipe')}, with the expense that you plan.",
            parameters=arguments_schema(
                {recipe: id_schema(world, "recipe"), person: id_schema(world, "person"), **self.sizes_schema()}
            ),
            returns=f"id: id of the new {world.word('batch')}.",
            errors=("not_found", "invalid", "conflict"),
            source=(
                f"def {self.plan_tool}(db, *, {recipe}, {person}, portions, expense):\n"
                + fetch_source(world, "recipe", "recipe")
                + fetch_source(world, "person", "person")
                + "    if portions < 1:\n"
                "        raise Refusal('invalid', 'at least one portion')\n"
                + self.checks_source()
                + insert_source(world, "batch", cells)
                + "    return {'id': new_id}\n"
            ),
        )

    def resize_draft(self) -> ToolDraft:
        """The tool that changes the size of a batch."""
        world, batch = self.world, self.arg("batch")
        statement = 'UPDATE "batch" SET "portions" = ?, "expense" = ? WHERE "id" = ?'
        query = f'SELECT * FROM "recipe" WHERE "{self.made_key}" = ?'
        planned = (
            "    if batch['progress'] != 'planned':\n"
            "        raise Refusal('conflict', 'it is ' + batch['progress'] + ', not planned')\n"
        )
        return ToolDraft(
            name=self.resize_tool,
            effect="write",
            description=f"Change the size of a {world.word('batch')} and the expense that you plan for it.",
            parameters=arguments_schema({batch: id_schema(world, "batch"), **self.sizes_schema()}),
            returns=f"id: id of the {world.word('batch')}; portions: its new size.",
            errors=("not_found", "invalid", "conflict"),
            source=(
                f"def {self.resize_tool}(db, *, {batch}, portions, expense):\n"
                + fetch_source(world, "batch", "batch")
                + (planned if self.states else "")
                + f"    recipe = db.execute({query!r}, (batch[{self.made!r}],)).fetchone()\n"
                "    if portions < 1:\n"
                "        raise Refusal('invalid', 'at least one portion')\n"
                "    if portions == batch['portions']:\n"
                "        raise Refusal('conflict', 'this is its size already')\n"
                + self.checks_source()
                + f"    db.execute({statement!r}, (portions, expense, batch['id']))\n"
                "    return {'id': batch['id'], 'portions': portions}\n"
            ),
        )

    def start_draft(self) -> ToolDraft:
        """The tool that starts a batch."""
        world, batch = self.world, self.arg("batch")
        statement = 'UPDATE "batch" SET "progress" = ? WHERE "id" = ?'
        return ToolDraft(
            name=self.start_tool,
            effect="write",
            description=f"Start a planned {world.word('batch')}.",
            parameters=arguments_schema({batch: id_schema(world, "batch")}),
            returns=f"id: id of the {world.word('batch')}; progress: its new progress.",
            errors=("not_found", "conflict"),
            source=(
                f"def {self.start_tool}(db, *, {batch}):\n"
                + fetch_source(world, "batch", "batch")
                + "    if batch['progress'] != 'planned':\n"
                "        raise Refusal('conflict', 'it is ' + batch['progress'] + ', not planned')\n"
                f"    db.execute({statement!r}, ('running', batch['id']))\n"
                "    return {'id': batch['id'], 'progress': 'running'}\n"
            ),
        )

    def swap_draft(self) -> ToolDraft:
        """The tool that enters another good in a line."""
        world, line, item = self.world, self.arg("component"), self.arg("item")
        statement = f'UPDATE "component" SET "{self.item}" = ?, "quantity" = ? WHERE "id" = ?'
        listed = f'SELECT 1 AS "hit" FROM "substitute" WHERE "{self.old}" = ? AND "{self.new}" = ?'
        known = f'SELECT * FROM "item" WHERE "{self.item_key}" = ?'
        return ToolDraft(
            name=self.swap_tool,
            effect="write",
            description=(
                f"Enter a stand-in and its quantity in a {world.word('component')}; takes only what a "
                f"{world.word('substitute')} lists."
            ),
            parameters=arguments_schema(
                {
                    line: id_schema(world, "component"),
                    item: id_schema(world, "item"),
                    "quantity": count_schema("new quantity, in the measure of the line"),
                }
            ),
            returns=f"id: id of the {world.word('component')}; quantity: its new quantity.",
            errors=("not_found", "invalid", "conflict"),
            source=(
                f"def {self.swap_tool}(db, *, {line}, {item}, quantity):\n"
                + fetch_source(world, "component", "line")
                + fetch_source(world, "item", "item")
                + "    if quantity < 1:\n"
                "        raise Refusal('invalid', 'the quantity is at least 1')\n"
                f"    old = db.execute({known!r}, (line[{self.item!r}],)).fetchone()\n"
                f"    pair = (old[{self.old_key!r}], item[{self.new_key!r}])\n"
                f"    if db.execute({listed!r}, pair).fetchone() is None:\n"
                "        raise Refusal('conflict', 'it does not stand in for what the line takes')\n"
                f"    db.execute({statement!r}, (item[{self.item_key!r}], quantity, line['id']))\n"
                "    return {'id': line['id'], 'quantity': quantity}\n"
            ),
        )
