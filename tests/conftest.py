"""A tiny shop, written by hand: one table, one read tool, one write tool, two sound tasks and some broken ones."""

from __future__ import annotations

import fcntl
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from envsynth.pipeline import synthesize
from envsynth.sandbox import Jail
from envsynth.spec import (
    Column,
    EnvironmentSpec,
    GoalAtom,
    Outcome,
    Provenance,
    RowChange,
    Table,
    TaskVersion,
    Tool,
    Verifier,
    World,
)
from envsynth.store import Store, TaskQuery
from envsynth.suite import freeze

# How long an example takes says how busy the machine is, nothing about the code.
settings.register_profile("envsynth", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("envsynth")

LIST_ITEMS = """
def list_items(db, page=1):
    if page < 1 or page > 2:
        raise Refusal("bad_page", "pages are 1 and 2")
    rows = db.execute("SELECT id, name, qty, price FROM items ORDER BY id LIMIT 2 OFFSET ?", (2 * (page - 1),)).fetchall()
    return {"items": rows, "pages": 2}
"""

SET_QTY = """
def set_qty(db, item_id, qty):
    changed = db.execute("UPDATE items SET qty = ? WHERE id = ?", (qty, item_id)).rowcount
    if changed == 0:
        raise Refusal("not_found", "no such item")
    return {"item_id": item_id, "qty": qty}
"""

VALUE_SOLUTION = """
PAGES = True

def solve(call):
    found, page = [], 1
    while True:
        reply = call("list_items", page=page)
        found += reply["items"]
        if not PAGES or page == reply["pages"]:
            break
        page += 1
    try:
        call("list_items", page=3)
    except CallError as error:
        assert error.args[0]["code"] == "bad_page"
    return {"value": sum(item["qty"] * item["price"] for item in found)}
"""

RESTOCK_SOLUTION = """
def solve(call):
    for page in (1, 2):
        for item in call("list_items", page=page)["items"]:
            if item["name"] == "nut":
                call("set_qty", item_id=item["id"], qty=42)
                return {"item_id": item["id"], "before": item["qty"]}
"""


def parameters(**properties: dict[str, Any]) -> dict[str, Any]:
    required = [name for name, schema in properties.items() if "default" not in schema]
    return {
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": False,
    }


def make_shop(slug: str = "tiny-shop", **changes: Any) -> EnvironmentSpec:
    names = ("id", "qty", "price")
    columns = [Column(name=name, type="INTEGER") for name in names]
    columns.insert(1, Column(name="name", type="TEXT", unique=True))
    values: dict[str, Any] = {
        "slug": slug,
        "title": "A tiny shop",
        "world": World(
            tables=(Table(name="items", columns=tuple(columns), primary_key=("id",)),),
            rows={"items": ((1, "bolt", 5, 31), (2, "nut", 9, 17), (3, "gear", 4, 113), (4, "m\u00f6bius", 2, 7))},
            now="2025-03-01",
        ),
        "tools": (
            Tool(
                name="list_items",
                effect="read",
                description="List the items.",
                parameters=parameters(page={"type": "integer", "default": 1}),
                source=LIST_ITEMS,
            ),
            Tool(
                name="set_qty",
                effect="write",
                description="Set the stock of an item.",
                parameters=parameters(item_id={"type": "integer"}, qty={"type": "integer"}),
                source=SET_QTY,
            ),
        ),
        "provenance": Provenance(author="hand", category="a shop", seed="0"),
    }
    return EnvironmentSpec(**(values | changes))


def make_task(spec: EnvironmentSpec, **changes: Any) -> TaskVersion:
    atom = GoalAtom(id="value", kind="answer", quote="value of the stock", expression='answer.get("value") == 774')
    values: dict[str, Any] = {
        "environment": spec.hash,
        "kind": "read",
        "prompt": "What is the value of the whole stock, in cents?",
        "answer_schema": parameters(value={"type": "integer"}),
        "max_turns": 6,
        "solution": VALUE_SOLUTION,
        "ablations": {"no_pagination": {"PAGES": False}},
        "verifier": Verifier(form="atoms", atoms=(atom,)),
        "oracle": Outcome(answer={"value": 774}),
        "provenance": Provenance(author="hand", category="a shop", seed="0"),
    }
    return TaskVersion(**(values | changes))


def make_restock(spec: EnvironmentSpec) -> TaskVersion:
    answer = GoalAtom(
        id="before",
        kind="answer",
        quote="how many there were",
        expression='(answer.get("item_id"), answer.get("before")) == (2, 9)',
    )
    state = GoalAtom(
        id="restocked",
        kind="state",
        quote="set the stock of nuts to 42",
        expression='[d for d in diff if d["op"] == "update" and d["changed"] == ["qty"] '
        'and d["old"]["name"] == "nut" and d["new"]["qty"] == 42]',
    )
    change = RowChange(op="update", table="items", row={"id": 2, "qty": 42})
    return make_task(
        spec,
        kind="act",
        prompt="Set the stock of nuts to 42. Answer with its id and how many there were.",
        answer_schema=parameters(item_id={"type": "integer"}, before={"type": "integer"}),
        solution=RESTOCK_SOLUTION,
        ablations={},
        verifier=Verifier(form="atoms", atoms=(answer, state)),
        oracle=Outcome(answer={"item_id": 2, "before": 9}, changes=(change,)),
    )


def make_broken(spec: EnvironmentSpec) -> TaskVersion:
    atom = GoalAtom(id="broken", kind="answer", quote="value", expression="1 / 0 == 1")
    return make_task(spec, verifier=Verifier(form="atoms", atoms=(atom,)))


@pytest.fixture(scope="session")
def jail() -> Iterator[Jail]:
    with Jail() as jail:
        yield jail


@pytest.fixture(scope="session")
def shop() -> EnvironmentSpec:
    return make_shop()


@pytest.fixture(scope="session")
def value_task(shop: EnvironmentSpec) -> TaskVersion:
    return make_task(shop)


@pytest.fixture(scope="session")
def restock_task(shop: EnvironmentSpec) -> TaskVersion:
    return make_restock(shop)


@pytest.fixture(scope="session")
def broken_task(shop: EnvironmentSpec) -> TaskVersion:
    """A task whose verifier raises."""
    return make_broken(shop)


@pytest.fixture(scope="session")
def shop_factory() -> Callable[..., EnvironmentSpec]:
    return make_shop


@pytest.fixture(scope="session")
def task_factory() -> Callable[..., TaskVersion]:
    return make_task


@pytest.fixture(scope="session")
def made_store(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """A store with one synthesized environment and a suite `first`, made once for all workers of xdist; copy it."""
    folder = tmp_path_factory.getbasetemp()
    folder = folder if worker_id == "master" else folder.parent
    path = folder / "made.db"
    with (folder / "made.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            with Store.open(folder / "making.db") as store:
                synthesize("booking laboratory equipment", count=1, seed=6, lineages=1, steps=1, store=store)
                freeze(store, "first", TaskQuery(status="passed"), "all tasks")
            (folder / "making.db").rename(path)
    return path


@pytest.fixture
def store_path(made_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the made store, which is the default store of the test."""
    path = tmp_path / "envsynth.db"
    shutil.copy(made_store, path)
    monkeypatch.setenv("ENVSYNTH_STORE", str(path))
    monkeypatch.setenv("COLUMNS", "80")
    return path
