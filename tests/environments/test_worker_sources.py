"""The two modules that run inside tools workers, called here directly; the jail runs them in every other test."""

from __future__ import annotations

import sqlite3

import pytest

from envsynth.environments import builder, dispatch


class Refused(Exception):
    def __init__(self, code, message=""):
        super().__init__(code, message)
        self.code = code


@pytest.fixture
def db():
    made = sqlite3.connect(":memory:", isolation_level=None)
    made.row_factory = lambda cursor, row: {c[0]: v for c, v in zip(cursor.description, row, strict=True)}
    yield made
    made.close()


@pytest.fixture
def tools(monkeypatch):
    monkeypatch.setattr(dispatch, "Refusal", Refused, raising=False)
    monkeypatch.setattr(dispatch, "_codes", {})
    monkeypatch.setattr(dispatch, "_worlds", {"w": {}, "v": {}})
    monkeypatch.setattr(dispatch, "_draws", {})
    monkeypatch.setattr(dispatch, "_random_tools", set())
    return dispatch


TABLES = [["a", "CREATE TABLE a (id INTEGER PRIMARY KEY)"], ["b", "CREATE TABLE b (x REFERENCES a (id))"]]


def test_builder_names_the_first_failure(db):
    assert builder.create_tables(db, [*TABLES, ["c", "CREATE TABLE c ("]])["table"] == "c"
    sql = "INSERT INTO a VALUES (?)"
    assert builder.insert_rows(db, "a", sql, [[1], [2]], 0) is None
    assert builder.insert_rows(db, "a", sql, [[3], [1]], 10)["row"] == 11


def test_builder_finds_dangling_references(db):
    builder.create_tables(db, TABLES)
    assert builder.check_references(db) is None
    db.execute("INSERT INTO a VALUES (1)")
    builder.insert_rows(db, "b", "INSERT INTO b VALUES (?)", [[1], [7]], 0)
    assert builder.check_references(db) == {
        "table": "b",
        "row": 1,
        "message": "references a row of 'a' that does not exist",
    }


def test_builder_reports_references_to_columns_that_are_no_key(db):
    builder.create_tables(db, [["p", "CREATE TABLE p (n)"], ["c", "CREATE TABLE c (x REFERENCES p (n))"]])
    builder.insert_rows(db, "c", "INSERT INTO c VALUES (?)", [[1]], 0)
    assert "mismatch" in builder.check_references(db)["message"]


def taken(tools, **sources):
    """Compile tools' sources the way the sandbox does, and hand them over."""
    tools.take_tools({f"tool {name}": compile(text, f"<tool {name}>", "exec") for name, text in sources.items()})


COUNTING = "seen = []\n\ndef {0}(db, step):\n    seen.append(step)\n    return [len(seen), __name__]\n"


def test_dispatch_gives_each_tool_a_namespace_and_renews_it(db, tools):
    taken(tools, one=COUNTING.format("one"), two=COUNTING.format("two"))
    assert tools.run_tool(db, "w", "one", {"step": 1}) == [1, "tool_one"]
    assert tools.run_tool(db, "w", "one", {"step": 1}) == [2, "tool_one"]
    assert tools.run_tool(db, "w", "two", {"step": 1}) == [1, "tool_two"]
    assert tools.fresh_tools("w") > 0
    assert tools.run_tool(db, "w", "one", {"step": 1}) == [1, "tool_one"]


def test_worlds_of_one_worker_share_no_namespace(db, tools):
    taken(tools, one=COUNTING.format("one"))
    assert tools.run_tool(db, "w", "one", {"step": 1})[0] == 1
    assert tools.run_tool(db, "v", "one", {"step": 1})[0] == 1
    tools.drop_tools("v")
    with pytest.raises(KeyError):
        tools.run_tool(db, "v", "one", {"step": 1})


@pytest.mark.parametrize("source", ["from random import random", "import random"])
def test_chance_is_the_episodes_own(db, tools, source):
    draw = "random()" if "from" in source else "random.random()"
    taken(tools, draw=f"{source}\n\ndef draw(db):\n    return {draw}\n")
    alone = [tools.run_tool(db, "w", "draw", {}) for _ in range(3)]
    assert len(set(alone)) == 3
    tools.fresh_tools("w")
    mixed = [[tools.run_tool(db, world, "draw", {}) for world in ("w", "v")] for _ in range(3)]
    assert mixed == [[number, number] for number in alone]


@pytest.mark.parametrize(("source", "said"), [("x = 1\n", "defines no function"), ("1 / 0\n", "ZeroDivisionError")])
def test_dispatch_names_a_tool_that_does_not_load(tools, source, said):
    with pytest.raises(ImportError, match=f"tool 'bad' does not load: .*{said}"):
        taken(tools, bad=source)
