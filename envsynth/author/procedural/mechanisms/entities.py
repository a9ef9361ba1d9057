"""Entities that several mechanisms share (site, person, item), their rows, and pieces of write tools.

Mechanisms that are joined unify these entities: the columns are united and the first generator fills the rows, so every
generator here gives all cells that any mechanism may have asked for.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

from envsynth.author.procedural.mechanism import Col, Composed

ID = Col(name="id", kind="id", label="id")
NAME = Col(name="name", kind="name", label="name")
REGIONS = ("North", "South", "East", "West")
TIERS = ("Basic", "Silver", "Gold")
CATEGORIES = ("Alpha", "Beta", "Gamma", "Delta")

SITE = (
    ID,
    NAME,
    Col(name="region", kind="enum", label="region", values=REGIONS, liftable=True),
    Col(name="staff", kind="num", label="staff count", unit="people", optional=True),
)
"""Columns of a place."""

PERSON = (
    ID,
    NAME,
    Col(name="tier", kind="enum", label="tier", values=TIERS, liftable=True),
    Col(name="credit", kind="num", label="credit limit", unit="credits", optional=True),
)
"""Columns of a person, for worlds that may lack places."""

PERSON_AT_SITE = (*PERSON, Col(name="site", kind="fk", label="home {site}", ref="site", optional=True))
"""Columns of a person who may have a home place."""

ITEM = (
    ID,
    NAME,
    Col(name="category", kind="enum", label="category", values=CATEGORIES, liftable=True),
    Col(name="weight", kind="num", label="weight", unit="kg", optional=True),
)
"""Columns of a good."""

PRICED_ITEM = (*ITEM, Col(name="price", kind="num", label="list price", unit="credits"))
"""Columns of a good that is sold."""


def fill_sites(world: Composed, rng: random.Random, low: int = 5, high: int = 8) -> None:
    """Fill the places, between `low` and `high` of them, unless a joined mechanism has done so."""
    if world.rows["site"]:
        return

    def make(_: int) -> dict[str, Any]:
        return {"region": rng.choice(REGIONS), "staff": rng.randint(3, 60), "safety": rng.randint(0, 9)}

    world.fill(rng, "site", rng.randint(low, high), make)


def fill_people(world: Composed, rng: random.Random) -> None:
    """Fill the persons, and the places that they live at if the world has those, unless they exist."""
    if world.rows["person"]:
        return
    homes = world.has("person", "site")
    if homes:
        fill_sites(world, rng)

    def make(_: int) -> dict[str, Any]:
        cells: dict[str, Any] = {"tier": rng.choice(TIERS), "credit": rng.randint(10, 90) * 10}
        if homes:
            cells["site"] = rng.choice(world.rows["site"])
        return cells

    world.fill(rng, "person", rng.randint(22, 40), make)


def fill_items(world: Composed, rng: random.Random) -> None:
    """Fill the goods, with log-normal list prices, unless they exist."""
    if world.rows["item"]:
        return

    def make(_: int) -> dict[str, Any]:
        return {
            "category": rng.choice(CATEGORIES),
            "weight": rng.randint(1, 40),
            "price": max(4, int(rng.lognormvariate(3.6, 0.6))),
        }

    world.fill(rng, "item", rng.randint(14, 24), make)


def skewed(rng: random.Random, rows: list[Any], rate: float) -> Any:
    """Choose a row with exponentially falling popularity: early rows are drawn often, late ones rarely."""
    return rows[min(int(rng.expovariate(rate)), len(rows) - 1)]


def id_schema(world: Composed, entity: str) -> dict[str, Any]:
    """JSON Schema of a tool argument that holds the id of a row."""
    kind = "integer" if world.style.ids == "int" else "string"
    return {"type": kind, "description": f"id of the {world.word(entity)}"}


def count_schema(description: str, minimum: int = 1) -> dict[str, Any]:
    """JSON Schema of a tool argument that holds a whole number of at least `minimum`."""
    return {"type": "integer", "minimum": minimum, "description": description}


def arguments_schema(properties: Mapping[str, Any], optional: tuple[str, ...] = ()) -> dict[str, Any]:
    """JSON Schema of the arguments of a tool: nothing unknown; everything required but `optional`."""
    return {
        "type": "object",
        "properties": dict(properties),
        "required": [name for name in properties if name not in optional],
        "additionalProperties": False,
    }


def id_argument(world: Composed, entity: str) -> str:
    """Name of the tool argument that takes the id of a row of this entity ("meeting_room_id")."""
    return f"{world.slug(entity)}_id"


def fetch_source(world: Composed, entity: str, variable: str, argument: str | None = None) -> str:
    """Tool source that binds `variable` to the row whose id is in `argument`, or refuses with `not_found`.

    Args:
        world: The composed world.
        entity: Whose row.
        variable: Name to bind.
        argument: Python expression of the id; by default the entity's id argument.

    Returns:
        Lines indented by four spaces.
    """
    argument = argument or id_argument(world, entity)
    query = f'SELECT * FROM "{entity}" WHERE "id" = ?'
    message = f"no {world.word(entity)} has id "
    return (
        f"    {variable} = db.execute({query!r}, ({argument},)).fetchone()\n"
        f"    if {variable} is None:\n"
        f"        raise Refusal('not_found', {message!r} + str({argument}))\n"
    )


def insert_source(world: Composed, entity: str, cells: Mapping[str, str]) -> str:
    """Tool source that inserts a row under a new id and binds `new_id`.

    A new integer id is the largest plus one; a new code takes the largest number of any code plus one.

    Args:
        world: The composed world.
        entity: Table to insert into.
        cells: Physical column (all but the id) to Python expression of its value.

    Returns:
        Lines indented by four spaces.
    """
    if world.style.ids == "int":
        query = f'SELECT COALESCE(MAX("id"), 0) + 1 AS "next" FROM "{entity}"'
        new_id = f"db.execute({query!r}).fetchone()['next']"
    else:
        number = 'CAST(substr("id", instr("id", \'-\') + 1) AS INTEGER)'
        query = f'SELECT COALESCE(MAX({number}), 1000) + 1 AS "next" FROM "{entity}"'
        prefix = "".join(part[0] for part in world.slug(entity).split("_") if part).upper() + "-"
        new_id = f"{prefix!r} + str(db.execute({query!r}).fetchone()['next'])"
    columns = ", ".join(f'"{column}"' for column in ("id", *cells))
    marks = ", ".join("?" for _ in range(len(cells) + 1))
    statement = f'INSERT INTO "{entity}" ({columns}) VALUES ({marks})'
    return f"    new_id = {new_id}\n    db.execute({statement!r}, (new_id, {', '.join(cells.values())},))\n"
