"""Kinds of nano task, as task programs: read, two hops, search, write, copy. No numbers are compared."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping

from envsynth.author.procedural.composition import Composition
from envsynth.author.procedural.ir import Act, Atom, Attr, Const, Let, Of, Only, Operand, Ref, Task, To
from envsynth.author.procedural.mechanism import Action, Row
from envsynth.author.procedural.nano.names import values
from envsynth.author.procedural.nano.world import FAR, NEAR, RELATION


def _called(entity: str, row: Row) -> Only:
    return Only(entity, (Atom(Attr("name"), "==", Const(row["name"], "str", "name")),))


def _fields(world: Composition, entity: str) -> list[str]:
    return [col.name for col in world.tables[entity] if col.kind == "text"]


def _read(world: Composition, rng: random.Random) -> Task:
    """Read one field of a row."""
    entity = rng.choice([NEAR, FAR])
    field = rng.choice(_fields(world, entity))
    row = rng.choice(world.rows[entity])
    return Task((Let("X1", _called(entity, row)),), ((field, Of("X1", Attr(field))),))


def _hop(world: Composition, rng: random.Random) -> Task:
    """Read one field of the row that another row points to."""
    field = rng.choice(_fields(world, FAR))
    first = Let("X1", _called(NEAR, rng.choice(world.rows[NEAR])))
    return Task((first, Let("X2", To(Ref("X1"), RELATION))), ((field, Of("X2", Attr(field))),))


def _search(world: Composition, rng: random.Random) -> Task:
    """Find the row with a value."""
    entity = rng.choice([NEAR, FAR])
    field = rng.choice(_fields(world, entity))
    value = rng.choice(world.rows[entity])[field]
    node = Only(entity, (Atom(Attr(field), "==", Const(value, "str", field)),))
    return Task((Let("X1", node),), (("name", Of("X1", Attr("name"))),))


def _action(world: Composition, rng: random.Random) -> tuple[Action, str]:
    action = rng.choice(list(world.actions.values()))
    return action, action.tables[0]


def _set(action: Action, row: Row, value: Operand) -> Act:
    return Act(action.name, (("name", Const(row["name"], "str", "name")), ("value", value)))


def _write(world: Composition, rng: random.Random) -> Task:
    """Write a given value to one field."""
    action, entity = _action(world, rng)
    field = action.params[1][1].detail
    taken = dict.fromkeys(cell for rows in world.rows.values() for row in rows for cell in row.values())
    value = next(value for value in values(rng, len(taken) + 1) if value not in taken)
    return Task((_set(action, rng.choice(world.rows[entity]), Const(value, "str", field)),), ())


def _copy(world: Composition, rng: random.Random) -> Task:
    """Copy one field from another row of the table."""
    action, entity = _action(world, rng)
    field = action.params[1][1].detail
    source, target = rng.sample(world.rows[entity], 2)
    return Task((Let("X1", _called(entity, source)), _set(action, target, Of("X1", Attr(field)))), ())


KINDS: Mapping[str, Callable[[Composition, random.Random], Task]] = {
    "read": _read,
    "hop": _hop,
    "search": _search,
    "write": _write,
    "copy": _copy,
}
"""Draws a program of each kind."""
