"""Nano worlds: two tables, one relation, three or four tools with coined verbs.

Rows of `near` point to rows of `far`. Each table is read by one tool, which takes values to look for and never lists a
whole table; a writing tool changes fields of the row with a name. Tables are long enough that a value drawn from a column is right less than once in 64
tries (gate VF308); tools give only the rows that were asked for, so the length costs an episode nothing.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from envsynth.author.procedural.compose import Composition
from envsynth.author.procedural.ir import Type
from envsynth.author.procedural.lexicon import Pack
from envsynth.author.procedural.mechanism import Action, Col, EntityAccess, InterfaceStyle, Row, ToolDraft
from envsynth.author.procedural.nano.names import Namer, values
from envsynth.environments.compact import STANDARD_DAY

NEAR, FAR = "near", "far"
"""Keys of the two entities; actors read their nouns."""
RELATION = "relation"
"""Logical name of the relation from `near` to `far`."""
FIELDS = 2
"""Fields of a table, besides name and relation."""
ROWS = (66, 72)
"""Fewest and most rows of a table: more than 64, for gate VF308."""
P_SECOND_WRITER = 0.5
"""Chance that `far` can be written as well: a fourth tool."""

STYLE = InterfaceStyle(
    page_size=ROWS[1],
    paging="none",
    projection="full",
    filters="relations+enums",
    lookup="id",
    error_style="terse",
    ids="int",
    result_key="rows",
    verb="coined",
)
"""Interface of every nano world: no pages, whole rows, short errors."""


def nano_world(rng: random.Random, *, held_out: bool = False) -> Composition:
    """Compose a nano world.

    Args:
        rng: Source of all choices.
        held_out: Whether nouns and fields come from the held-out lists.

    Returns:
        The world, with rows, tools and actions.
    """
    namer = Namer(rng, held_out=held_out)
    words = {FAR: namer.noun(), NEAR: namer.noun()}
    fields = {entity: [namer.field() for _ in range(FIELDS)] for entity in (FAR, NEAR)}
    writable = [NEAR, FAR] if rng.random() < P_SECOND_WRITER else [NEAR]
    tables = {entity: _columns(entity, fields[entity], words) for entity in (FAR, NEAR)}
    world = Composition(
        mechanisms=("nano",),
        pack=Pack(name="nano", title="nano", keywords=(), nouns={}, names={}, values={}, weights={}),
        style=STYLE,
        words=words,
        tables=tables,
        rules={"writers": len(writable)},
        rows=_rows(rng, tables),
        now=STANDARD_DAY,
    )
    readers = {entity: _reader(world, entity, namer.verb()) for entity in (NEAR, FAR)}
    writers = {entity: _writer(world, entity, fields[entity], namer.verb()) for entity in writable}
    world.tools = [*readers.values(), *writers.values()]
    rng.shuffle(world.tools)
    world.access = {
        entity: EntityAccess(
            list_tool=tool.name,
            filters=tuple(tool.parameters["properties"]),
            columns=tuple(_shown(tables[entity])),
            get_tool=None,
            find_tool=None,
        )
        for entity, tool in readers.items()
    }
    for entity, tool in writers.items():
        for number, field in enumerate(fields[entity]):
            action = _action(world, entity, f"set_{entity}_{number}", field, tool.name)
            world.actions[action.name] = action
    return world


def _columns(entity: str, fields: Sequence[str], words: dict[str, tuple[str, str]]) -> tuple[Col, ...]:
    keys = (
        Col(name="id", kind="id", label="id", column="id"),
        Col(name="name", kind="name", label="name", column="name"),
    )
    own = tuple(Col(name=field, kind="text", label=field, column=field) for field in fields)
    noun = words[FAR][0]
    relation = Col(name=RELATION, kind="fk", label=noun, ref=FAR, refkey="name", column=noun)
    return (*keys, *own, *((relation,) if entity == NEAR else ()))


def _rows(rng: random.Random, tables: dict[str, tuple[Col, ...]]) -> dict[str, list[Row]]:
    """Rows whose names and fields are all different, so that each value says where it stands."""
    counts = {entity: rng.randint(*ROWS) for entity in (FAR, NEAR)}
    drawn = iter(values(rng, sum(counts.values()) * (FIELDS + 1)))
    found: dict[str, list[Row]] = {}
    for place, entity in enumerate((FAR, NEAR)):
        found[entity] = [
            {"id": 2000 * place + 10 * (index + 1), "name": next(drawn)}
            | {col.column: next(drawn) for col in tables[entity] if col.kind == "text"}
            for index in range(counts[entity])
        ]
    for row in found[NEAR]:
        row[tables[NEAR][-1].column] = rng.choice(found[FAR])["name"]
    return found


def _shown(cols: Sequence[Col]) -> list[str]:
    return [col.column for col in cols if col.kind != "id"]


# --------------------------------------------------------------------------------------------------------------- tools


def _schema(properties: dict[str, Any], required: Sequence[str]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": [*required], "additionalProperties": False}


def _reader(world: Composition, entity: str, verb: str) -> ToolDraft:
    keys = [col.column for col in world.tables[entity] if col.kind in ("name", "text")]
    select = ", ".join(f'"{column}"' for column in _shown(world.tables[entity]))
    query = f'SELECT {select} FROM "{entity}" WHERE '
    arguments = ", ".join(f"{key}=None" for key in keys)
    pairs = "".join(f"({key!r}, {key}), " for key in keys)
    return ToolDraft(
        name=verb,
        effect="read",
        description=f"Find {world.word(entity)}",
        parameters=_schema({key: {"type": "string"} for key in keys}, ()),
        returns="",
        errors=(),
        source=(
            f"def {verb}(db, *, {arguments}):\n"
            f"    _given = [_pair for _pair in ({pairs}) if _pair[1] is not None]\n"
            "    if not _given:\n"
            "        return []\n"
            "    _where = ' AND '.join('\"' + _key + '\" = ?' for _key, _ in _given)\n"
            f"    _query = {query!r} + _where + ' ORDER BY \"id\"'\n"
            "    return db.execute(_query, [_value for _, _value in _given]).fetchall()\n"
        ),
    )


def _writer(world: Composition, entity: str, fields: Sequence[str], verb: str) -> ToolDraft:
    """A tool that sets the given fields of the row with a name, and tells whether there was such a row."""
    arguments = ", ".join(f"{field}=None" for field in fields)
    pairs = "".join(f"({field!r}, {field}), " for field in fields)
    return ToolDraft(
        name=verb,
        effect="write",
        description=f"Set {world.word(entity)}",
        parameters=_schema({key: {"type": "string"} for key in ("name", *fields)}, ("name",)),
        returns="",
        errors=(),
        source=(
            f"def {verb}(db, *, name, {arguments}):\n"
            f"    _given = [_pair for _pair in ({pairs}) if _pair[1] is not None]\n"
            "    if not _given:\n"
            "        return False\n"
            "    _changes = ', '.join('\"' + _key + '\" = ?' for _key, _ in _given)\n"
            f"    _query = 'UPDATE \"{entity}\" SET ' + _changes + ' WHERE \"name\" = ?'\n"
            "    return db.execute(_query, [*(_value for _, _value in _given), name]).rowcount == 1\n"
        ),
    )


def _action(world: Composition, entity: str, op: str, field: str, verb: str) -> Action:
    """The action that sets a field; its row is called by name, so that writing takes one call."""
    return Action(
        name=op,
        phrase=f"set {field} of {world.word(entity)} {{name}} to {{value}}",
        params=(("name", Type("str", "name")), ("value", Type("str", field))),
        oracle_sql=(
            f"SELECT 'update', '{entity}', json_object('id', t.\"id\", '{field}', {{value}})"
            f' FROM "{entity}" t WHERE t."name" = {{name}}'
        ),
        plan=f"def a_{op}(name, value):\n    write({verb!r}, name=name, {field}=value)\n",
        goal=(
            f"def s_{op}(db, diff, name, value):\n"
            "    for entry in diff:\n"
            f"        if entry['op'] == 'update' and entry['table'] == {entity!r} and entry['old']['name'] == name:\n"
            f"            if entry['new'] == {{**entry['old'], {field!r}: value}}:\n"
            "                return [entry]\n"
            "    return None\n"
        ),
        tables=(entity,),
    )
