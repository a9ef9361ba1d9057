"""What the hand-made specs share: closed schemas, tables, paged list tools, and SQL on rows for the oracles."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any

from envsynth.record import Scalar
from envsynth.spec import Column, EnvironmentSpec, Provenance, RowChange, Table, TaskVersion, Tool, World

PROVENANCE = Provenance(author="hand/1", category="planted defects", seed="1")
Pair = tuple[EnvironmentSpec, TaskVersion]

_LIST = """
def {name}(db, page=1):
    found = list(db.execute("SELECT * FROM {table} ORDER BY rowid"))
    pages = max(1, -(-len(found) // 8))
    if not 1 <= page <= pages:
        raise Refusal("bad_page", f"pages are 1 to {{pages}}")
    return {{"{table}": found[8 * page - 8 : 8 * page], "pages": pages}}
"""

READ_ALL = """
PAGES = True


def read_all(call, table):
    found, page = [], 1
    while True:
        reply = call("list_" + table, page=page)
        found += reply[table]
        if not PAGES or page == reply["pages"]:
            return found
        page += 1
"""
"""What every solution begins with."""


def closed(**properties: Mapping[str, Any]) -> dict[str, Any]:
    """A closed object; keys with a default are optional."""
    required = [name for name, schema in properties.items() if "default" not in schema]
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def text_list(count: int) -> dict[str, Any]:
    """A list of as many texts."""
    return {"type": "array", "items": {"type": "string"}, "minItems": count, "maxItems": count}


def table(name: str, columns: str, checks: Sequence[str] = ()) -> Table:
    """A table from a line such as "code! supplier>suppliers.code units:i": `!` key, `>` reference, `:i` whole number."""
    made: list[Column] = []
    key: list[str] = []
    for word in columns.split():
        plain, _, reference = word.partition(">")
        bare, _, kind = plain.partition(":")
        key += [bare.rstrip("!")] if bare.endswith("!") else []
        kind = "INTEGER" if kind == "i" else "TEXT"
        made.append(Column(name=bare.rstrip("!"), type=kind, references=reference or None))
    return Table(name=name, columns=tuple(made), primary_key=tuple(key), checks=tuple(checks))


def list_tool(name: str, what: str) -> Tool:
    """A paged list of a table, all columns."""
    page = closed(page={"type": "integer", "minimum": 1, "default": 1})
    return Tool(
        name=f"list_{name}",
        effect="read",
        description=f"List the {what}, 8 on a page.",
        parameters=page,
        returns="the rows of the page, and how many pages there are",
        errors=("bad_page",),
        source=_LIST.format(name=f"list_{name}", table=name).lstrip(),
    )


def world_of(tables: Sequence[Table], rows: Mapping[str, Sequence[Sequence[Scalar]]]) -> World:
    """A world from plain lists."""
    return World(
        tables=tuple(tables), rows={name: tuple(map(tuple, found)) for name, found in rows.items()}, now="2031-05-01"
    )


def spec_of(slug: str, title: str, world: World, tools: Sequence[Tool], policy: Sequence[str] = ()) -> EnvironmentSpec:
    """An environment version."""
    return EnvironmentSpec(
        slug=slug, title=title, world=world, tools=tuple(tools), policy=tuple(policy), provenance=PROVENANCE
    )


def task_of(spec: EnvironmentSpec, **fields: Any) -> TaskVersion:
    """A task of an environment; the solution gets the shared reader."""
    solution = READ_ALL.lstrip() + fields.pop("solution")
    fields.setdefault("max_turns", 60)
    return TaskVersion(environment=spec.hash, provenance=PROVENANCE, solution=solution, **fields)


def query(world: World, sql: str, *arguments: Scalar) -> list[tuple[Any, ...]]:
    """Ask the initial rows: the oracles' own way to the answer."""
    db = sqlite3.connect(":memory:")
    try:
        for item in world.tables:
            names = ", ".join(column.name for column in item.columns)
            db.execute(f"CREATE TABLE {item.name} ({names})")
            holes = ", ".join("?" * len(item.columns))
            db.executemany(f"INSERT INTO {item.name} VALUES ({holes})", world.rows.get(item.name, ()))
        return db.execute(sql, arguments).fetchall()
    finally:
        db.close()


def update(name: str, **row: Scalar) -> RowChange:
    """A row that changes."""
    return RowChange(op="update", table=name, row=row)


def insert(name: str, **row: Scalar) -> RowChange:
    """A row that is added."""
    return RowChange(op="insert", table=name, row=row)
