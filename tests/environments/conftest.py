from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from envsynth.environments import ToolEnv, make_env
from envsynth.sandbox import Jail
from envsynth.spec import EnvironmentSpec, TaskVersion

BUY = """
def buy(db, item, count):
    rows = list(db.execute("SELECT stock FROM items WHERE name = ?", (item,)))
    if not rows:
        raise Refusal("not_found", "there is no such item")
    db.execute("UPDATE items SET stock = stock - ? WHERE name = ?", (count, item))
    db.execute("INSERT INTO orders (item, count) VALUES (?, ?)", (item, count))
    if rows[0]["stock"] < count:
        raise Refusal("conflict", "not enough in stock")
    return {"bought": count}
"""

STOCK = """
SEEN = []

def stock(db, item):
    SEEN.append(item)
    rows = list(db.execute("SELECT * FROM items WHERE name = ?", (item,)))
    if not rows:
        raise Refusal("not_found", "there is no such item")
    return {"stock": rows[0]["stock"], "asked": len(SEEN)}
"""

MISBEHAVE = """
import os
import sys
import time

def misbehave(db, how):
    db.execute("DELETE FROM orders")
    db.execute("UPDATE items SET stock = 0")
    if how == "raise":
        raise ValueError("a defect")
    if how == "spin":
        while True:
            pass
    if how == "stubborn":
        while True:
            try:
                while True:
                    pass
            except BaseException:
                pass
    if how == "exit":
        os._exit(3)
    if how == "flood":
        return "x" * 200_000
    if how == "object":
        return object()
    if how == "deep":
        sys.setrecursionlimit(3000)
        value = how
        for _ in range(1000):
            value = [value]
        return value
    if how == "dangle":
        db.execute("INSERT INTO orders (item, count) VALUES ('no such item', 1)")
    return how
"""


def _schema(**properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _tool(name: str, source: str, effect: str, **properties: Any) -> dict[str, Any]:
    return {
        "name": name,
        "effect": effect,
        "description": f"{name} something.",
        "parameters": _schema(**properties),
        "returns": "an object",
        "errors": ["not_found"],
        "source": source,
    }


WORLD: dict[str, Any] = {
    "tables": [
        {
            "name": "items",
            "columns": [
                {"name": "name", "type": "TEXT"},
                {"name": "stock", "type": "INTEGER"},
                {"name": "note", "type": "TEXT", "nullable": True},
            ],
            "primary_key": ["name"],
        },
        {
            "name": "orders",
            "columns": [
                {"name": "id", "type": "INTEGER"},
                {"name": "item", "type": "TEXT", "references": "items.name"},
                {"name": "count", "type": "INTEGER"},
            ],
            "primary_key": ["id"],
            "checks": ["count > 0"],
        },
    ],
    "rows": {"items": [["thé", 7, None], ["nut", 3, "salted"]], "orders": [[1, "nut", 2]]},
    "now": "2025-01-01",
}

TEXT = {"type": "string"}
PROVENANCE = {"author": "test/1", "category": "a small shop", "seed": "0"}


def spec_data(**changes: Any) -> dict[str, Any]:
    return {
        "slug": "small-shop",
        "title": "A small shop",
        "world": WORLD,
        "tools": [
            _tool("stock", STOCK, "read", item=TEXT),
            _tool("buy", BUY, "write", item=TEXT, count={"type": "integer", "minimum": 1}),
            _tool("misbehave", MISBEHAVE, "write", how=TEXT),
        ],
        "policy": ["Buy no more than needed."],
        "provenance": PROVENANCE,
        **changes,
    }


def task_data(environment: str, **changes: Any) -> dict[str, Any]:
    bought = (
        "[e for e in diff if e['table'] == 'orders' and e['op'] == 'insert' "
        "and e['new']['item'] == 'thé' and e['new']['count'] == 2] and "
        "[e for e in diff if e['table'] == 'orders' or e['old']['name'] == 'thé']"
    )
    return {
        "environment": environment,
        "kind": "act",
        "prompt": "Buy two thé and say how many are left.",
        "answer_schema": _schema(left={"type": "integer"}),
        "max_turns": 6,
        "solution": "def solve(call):\n    call('buy', item='thé', count=2)\n    return {'left': 5}\n",
        "verifier": {
            "form": "atoms",
            "definitions": "",
            "atoms": [
                {"id": "left", "kind": "answer", "quote": "left", "expression": "answer['left'] == 5"},
                {"id": "bought", "kind": "state", "quote": "Buy two", "expression": bought},
            ],
        },
        "oracle": {
            "answer": {"left": 5},
            "changes": [
                {"op": "insert", "table": "orders", "row": {"item": "thé", "count": 2}},
                {"op": "update", "table": "items", "row": {"name": "thé", "stock": 5}},
            ],
        },
        "provenance": PROVENANCE,
        **changes,
    }


@pytest.fixture(scope="session")
def jail() -> Iterator[Jail]:
    with Jail() as made:
        yield made


@pytest.fixture(scope="session")
def make_spec() -> Callable[..., EnvironmentSpec]:
    def make(**changes: Any) -> EnvironmentSpec:
        return EnvironmentSpec.parse(spec_data(**changes))

    return make


@pytest.fixture(scope="session")
def make_task() -> Callable[..., TaskVersion]:
    def make(spec: EnvironmentSpec, **changes: Any) -> TaskVersion:
        return TaskVersion.parse(task_data(spec.hash, **changes))

    return make


@pytest.fixture
def spec(make_spec: Callable[..., EnvironmentSpec]) -> EnvironmentSpec:
    return make_spec()


@pytest.fixture
def task(spec: EnvironmentSpec, make_task: Callable[..., TaskVersion]) -> TaskVersion:
    return make_task(spec)


@pytest.fixture
def env(jail: Jail, spec: EnvironmentSpec, task: TaskVersion) -> Iterator[ToolEnv]:
    made = make_env(spec, task, jail=jail, render_mode="ansi")
    yield made
    made.close()


@pytest.fixture(scope="session")
def tool_entry() -> Callable[..., dict[str, Any]]:
    return _tool
