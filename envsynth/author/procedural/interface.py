"""Read tools of a composed world, generated from its tables by one template under an interface style."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from envsynth.author.procedural.composition import Composition, identifier
from envsynth.author.procedural.mechanism import Col, EntityAccess, InterfaceStyle, ToolDraft

BRIEF_ROWS = 30
"""A listing is brief only for tables of at most this many rows: each row costs one more call."""

_PAGING = {
    "page": (
        "page",
        {
            "type": "integer",
            "description": "page to return; the first is 1, one behind the last is empty, and one below 1 is refused with bad_page",
        },
        "next_page: number of the next page, null on the last one",
    ),
    "offset": (
        "offset",
        {
            "type": "integer",
            "description": "number of rows to skip; 0 starts at the first row, more than there are gives no rows, and a "
            "negative number is refused with bad_page",
        },
        "total: how many rows match in all pages together",
    ),
    "cursor": (
        "cursor",
        {
            "type": "string",
            "description": "next_cursor of the previous reply; leave it out for the first rows; any other text is refused "
            "with bad_page",
        },
        "next_cursor: text to pass as cursor for the next rows, null when there are no more",
    ),
}


def draw_style(rng: random.Random) -> InterfaceStyle:
    """Draw an interface style; every field is drawn independently."""
    return InterfaceStyle(
        page_size=rng.choice((5, 8, 12, 20)),
        paging=rng.choice(("page", "offset", "cursor")),
        projection=rng.choice(("full", "brief")),
        filters=rng.choice(("none", "relations", "relations+enums")),
        lookup=rng.choice(("id", "name")),
        error_style=rng.choice(("code", "terse", "verbose")),
        ids=rng.choice(("int", "code")),
        result_key=rng.choice(("items", "data", "results", "rows")),
        verb=rng.choice(("list", "search", "browse", "query")),
    )


def read_tools(composition: Composition) -> tuple[list[ToolDraft], dict[str, EntityAccess]]:
    """Generate the read tools of every entity.

    Args:
        composition: The world, with rows.

    Returns:
        The tools, and how each entity is read through them.
    """
    tools: list[ToolDraft] = []
    access: dict[str, EntityAccess] = {}
    for entity in composition.tables:
        maker = _Maker(composition, entity)
        listing = maker.listing()
        get = maker.get() if maker.brief else None
        find = maker.find() if maker.findable else None
        tools += [tool for tool in (listing, get, find) if tool is not None]
        access[entity] = EntityAccess(
            list_tool=listing.name,
            filters=tuple(col.column for col in maker.filters),
            columns=tuple(col.column for col in maker.shown),
            get_tool=get.name if get else None,
            find_tool=find.name if find else None,
        )
    return tools, access


class _Maker:
    """Read tools of one entity."""

    def __init__(self, world: Composition, entity: str) -> None:
        self.world, self.entity, self.style = world, entity, world.style
        self.cols = world.tables[entity]
        named = world.has(entity, "name")
        small = len(self.cols) > 3 and len(world.rows[entity]) <= BRIEF_ROWS
        self.brief = world.style.projection == "brief" and small and named
        self.findable = world.style.lookup == "name" and named and len(self.cols) > 2
        self.shown = tuple(col for col in self.cols if not self.brief or col.kind in ("id", "name"))
        kinds = {"none": (), "relations": ("fk",), "relations+enums": ("fk", "enum")}[world.style.filters]
        self.filters = tuple(col for col in self.cols if col.kind in kinds)

    def listing(self) -> ToolDraft:
        style, plural = self.style, self.world.plural(self.entity)
        name = f"{style.verb}_{identifier(plural)}"
        paging, schema, rest = _PAGING[style.paging]
        properties: dict[str, Any] = {
            col.column: self.schema(col, f"only {plural} with this {col.label}") for col in self.filters
        }
        properties[paging] = schema
        described = f"List {plural} ordered by id, {style.page_size} per call."
        described += f" Can be filtered by {_join([col.column for col in self.filters])}." if self.filters else ""
        described += f" Gives id and name only; {self.get_name()} gives a whole row." if self.brief else ""
        return ToolDraft(
            name=name,
            effect="read",
            description=described,
            parameters=_arguments(properties, ()),
            returns=f"{style.result_key}: list of rows, each with {self.columns(self.shown)}. {rest}.",
            errors=("bad_page",),
            source=self.listing_source(name, paging),
        )

    def listing_source(self, name: str, paging: str) -> str:
        size, style = self.style.page_size, self.style
        filters = "".join(f", {col.column}=None" for col in self.filters)
        default = {"page": "1", "offset": "0", "cursor": "''"}[paging]
        select = ", ".join(f'"{col.column}"' for col in self.shown)
        lines = [f"def {name}(db, *, {paging}={default}{filters}):"]
        if self.filters:
            pairs = "".join(f"({col.column!r}, {col.column}), " for col in self.filters)
            lines += [
                f"    given = [(column, value) for column, value in ({pairs}) if value is not None]",
                "    where = ' AND '.join('\"' + column + '\" = ?' for column, _ in given) or '1'",
                "    values = [value for _, value in given]",
            ]
        else:
            lines += ["    where, values = '1', []"]
        lines += [
            f'    total = db.execute(\'SELECT COUNT(*) AS "n" FROM "{self.entity}" WHERE \' + where, values)'
            ".fetchone()['n']"
        ]
        lines += {
            "page": [
                "    if page < 1:",
                "        raise Refusal('bad_page', 'page starts at 1, got ' + str(page))",
                f"    start = (page - 1) * {size}",
            ],
            "offset": [
                "    if offset < 0:",
                "        raise Refusal('bad_page', 'offset starts at 0, got ' + str(offset))",
                "    start = offset",
            ],
            "cursor": [
                "    if cursor and not (cursor.isascii() and cursor.isdigit() and len(cursor) < 10):",
                "        raise Refusal('bad_page', 'unknown cursor ' + repr(cursor))",
                "    start = int(cursor or '0')",
            ],
        }[paging]
        tail = {
            "page": f"'next_page': page + 1 if start + {size} < total else None",
            "offset": "'total': total",
            "cursor": f"'next_cursor': str(start + {size}) if start + {size} < total else None",
        }[paging]
        query = f"'SELECT {select} FROM \"{self.entity}\" WHERE ' + where + ' ORDER BY \"id\" LIMIT {size} OFFSET ?'"
        lines += [
            f"    query = {query}",
            # SQLite holds 64-bit integers; a position beyond the last row gives an empty page.
            "    found = db.execute(query, [*values, min(start, total)]).fetchall()",
            f"    return {{{style.result_key!r}: found, {tail}}}",
        ]
        return "\n".join(lines) + "\n"

    def get_name(self) -> str:
        return f"get_{self.world.slug(self.entity)}"

    def get(self) -> ToolDraft:
        word, name = self.world.word(self.entity), self.get_name()
        select = ", ".join(f'"{col.column}"' for col in self.cols)
        query = f'SELECT {select} FROM "{self.entity}" WHERE "id" = ?'
        return ToolDraft(
            name=name,
            effect="read",
            description=f"One {word} by id, with all columns.",
            parameters=_arguments({"id": self.schema(self.cols[0], f"id of the {word}")}, ("id",)),
            returns=f"the row, with {self.columns(self.cols)}.",
            errors=("not_found",),
            source=(
                f"def {name}(db, *, id):\n"
                f"    row = db.execute({query!r}, [id]).fetchone()\n"
                "    if row is None:\n"
                f"        raise Refusal('not_found', {f'no {word} has id '!r} + str(id))\n"
                "    return row\n"
            ),
        )

    def find(self) -> ToolDraft:
        word, key = self.world.word(self.entity), self.style.result_key
        name = f"find_{self.world.slug(self.entity)}"
        select = ", ".join(f'"{col.column}"' for col in self.cols)
        query = f'SELECT {select} FROM "{self.entity}" WHERE "name" = ? ORDER BY "id"'
        return ToolDraft(
            name=name,
            effect="read",
            description=f"Find a {word} by its exact name.",
            parameters=_arguments({"name": {"type": "string", "description": f"whole name of the {word}"}}, ("name",)),
            returns=f"{key}: list of the matching rows, each with {self.columns(self.cols)}.",
            errors=("not_found",),
            source=(
                f"def {name}(db, *, name):\n"
                f"    found = db.execute({query!r}, [name]).fetchall()\n"
                "    if not found:\n"
                f"        raise Refusal('not_found', {f'no {word} is called '!r} + repr(name))\n"
                f"    return {{{key!r}: found}}\n"
            ),
        )

    def schema(self, col: Col, description: str) -> dict[str, Any]:
        keyed = col.kind == "id" or (col.kind == "fk" and col.refkey == "id")
        kind = "integer" if col.kind == "num" or (keyed and self.style.ids == "int") else "string"
        found: dict[str, Any] = {"type": kind, "description": description}
        if col.kind == "enum":
            found["enum"] = list(col.values)
        return found

    def columns(self, cols: Sequence[Col]) -> str:
        return "; ".join(f"{col.column}: {self.world.describe(col)}" for col in cols)


def _arguments(properties: dict[str, Any], required: tuple[str, ...]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(required),
        "additionalProperties": False,
    }


def _join(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
