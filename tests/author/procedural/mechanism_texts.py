"""Runs the three texts of a composed world side by side: SQL, planner source over plain rows, goal source; and tools."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from typing import Any

import pytest

from envsynth.author.procedural.compose import Composition, compose, connect
from envsynth.author.procedural.interface import draw_style
from envsynth.author.procedural.lexicon import load_pack

FLAGS = {"POLICY": True, "GREEDY": False, "FIRST": False, "CHECKS": True}


class Refusal(Exception):
    """What a tool raises to refuse."""

    def __init__(self, code, message):
        super().__init__(code, message)
        self.code = code


def make_world(mechanisms, seed, **rules) -> Composition:
    rng = random.Random(f"{mechanisms[0].name}/{seed}")
    return compose(mechanisms, load_pack("general"), rng, draw_style(rng), rules)


def as_dict(cursor, values):
    return {column[0]: value for column, value in zip(cursor.description, values, strict=True)}


class Play:
    """A database that tools are called on."""

    def __init__(self, world):
        self.world = world
        self.database = connect(world)
        self.database.row_factory = as_dict
        self.scope: dict[str, Any] = {"Refusal": Refusal}
        for tool in world.tools:
            exec(tool.source, self.scope)

    def call(self, tool, **arguments):
        """Call a tool with arguments that its schema knows and requires."""
        draft = next(draft for draft in self.world.tools if draft.name == tool)
        assert set(arguments) <= set(draft.parameters["properties"])
        assert set(draft.parameters["required"]) <= set(arguments)
        return self.scope[tool](self.database, **arguments)

    def rows(self):
        return {entity: self.database.execute(f'SELECT * FROM "{entity}"').fetchall() for entity in self.world.tables}

    def diff(self):
        """Row changes as the verifier kernel lists them."""
        entries = []
        for entity, rows in self.rows().items():
            old = {row["id"]: row for row in self.world.rows[entity]}
            for new in rows:
                if new["id"] not in old:
                    entries.append(entry("insert", entity, None, new))
                elif new != old[new["id"]]:
                    entries.append(entry("update", entity, old[new["id"]], new))
        return entries


def entry(op, table, old, new):
    changed = [column for column in new if new[column] != old[column]] if old else []
    return {"op": op, "table": table, "old": old, "new": new, "changed": changed}


def plan_scope(world, call=None, rows=None, **flags):
    """Planner texts over plain rows: what they compute, apart from how rows are read."""
    rows = rows or world.rows
    scope = {
        **FLAGS,
        **flags,
        "named": lambda entity, by, value: next(row for row in rows[entity] if row[by] == value),
        "rows": lambda entity, equal: [
            row for row in rows[entity] if all(row[column] == value for column, value in equal.items())
        ],
        "write": call,
    }
    for item in [*world.derived.values(), *world.actions.values()]:
        exec(item.plan, scope)
    return scope


def goal_scope(world):
    scope: dict[str, Any] = {"once": lambda function: function, "db": world.rows}
    for item in [*world.derived.values(), *world.actions.values()]:
        exec(item.goal, scope)
    return scope


def literal(value):
    return repr(value["id"] if isinstance(value, dict) else value)


def sql_value(database, derived, row, arguments):
    text = derived.sql.replace("{t}", "t")
    for index, value in enumerate(arguments):
        text = text.replace(f"{{{index}}}", literal(value))
    found = database.execute(f'SELECT {text} FROM "{derived.entity}" t WHERE t."id" = ?', [row["id"]]).fetchone()
    return found[0]


def oracle_changes(world, action, arguments):
    text = action.oracle_sql
    for (name, _), value in zip(action.params, arguments, strict=True):
        text = text.replace(f"{{{name}}}", literal(value))
    return [(op, table, json.loads(cells)) for op, table, cells in connect(world).execute(text).fetchall()]


def oracle_diff(world, changes):
    """The oracle's changes as diff entries."""
    entries = []
    for index, (op, table, cells) in enumerate(changes):
        if op == "insert":
            entries.append(entry(op, table, None, {"id": f"new {index}", **cells}))
        else:
            (old,) = [row for row in world.rows[table] if row["id"] == cells["id"]]
            entries.append(entry(op, table, old, {**old, **cells}))
    return entries


@dataclass
class Agreement:
    """How often the three texts were asked, and how often a flag changed the value."""

    asked: int = 0
    by_flag: int = 0


def compare(world, name, draw, rng, count=40, **flag):
    """Assert that the three texts of a derived attribute agree; count where a flag changes the planner's value."""
    derived = next(item for item in world.derived.values() if item.name == name)
    database, plan, goal = connect(world), plan_scope(world), goal_scope(world)
    naive = plan_scope(world, **(flag or {"POLICY": False}))
    seen = Agreement()
    for _ in range(count):
        row = rng.choice(world.rows[derived.entity])
        arguments = [draw(type_) for type_ in derived.params]
        by_sql = sql_value(database, derived, row, arguments)
        by_plan = plan[f"d_{name}"](row, *arguments)
        by_goal = goal[f"g_{name}"](world.rows, row, *arguments)
        assert by_sql == by_plan == by_goal, (name, row, arguments)
        if derived.type.kind == "num":
            assert type(by_sql) is type(by_plan) is type(by_goal) is int
        seen.asked += 1
        seen.by_flag += by_plan != naive[f"d_{name}"](row, *arguments)
    return seen


def write_tool(world, start):
    (found,) = [tool for tool in world.tools if tool.effect == "write" and tool.name.startswith(start)]
    return found.name


def argument(world, entity):
    return f"{world.slug(entity)}_id"


def missing(world):
    """An id that no row has."""
    return "NO-1" if world.style.ids == "code" else 1


def refused(call, tool, **arguments):
    """The code that a tool refuses with; the test fails when it accepts."""
    with pytest.raises(Refusal) as caught:
        call(tool, **arguments)
    return caught.value.code
