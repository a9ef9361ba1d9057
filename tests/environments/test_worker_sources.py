"""The two modules that run inside tools workers, called here directly; the jail runs them in every other test."""

from __future__ import annotations

import sqlite3

import pytest

from envsynth.environments import builder, dispatch


class Refused(Exception):
    def __init__(self, code, message=""):
        super().__init__(code, message)
        self.code = code


class Database(sqlite3.Connection):
    def begin_call(self):
        self.execute("SAVEPOINT call_scope")

    def end_call(self):
        self.execute("RELEASE call_scope")


@pytest.fixture
def db():
    made = sqlite3.connect(":memory:", isolation_level=None, factory=Database)
    made.row_factory = lambda cursor, row: {c[0]: v for c, v in zip(cursor.description, row, strict=True)}
    made.begin_call()
    yield made
    made.close()


@pytest.fixture
def tools(monkeypatch):
    monkeypatch.setattr(dispatch, "Refusal", Refused, raising=False)
    monkeypatch.setattr(dispatch, "_codes", {})
    monkeypatch.setattr(dispatch, "_tools", {})
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


def test_dispatch_gives_each_tool_a_namespace_and_renews_it(db, tools):
    counting = "seen = []\n\ndef {0}(db, step):\n    seen.append(step)\n    return [len(seen), __name__]\n"
    for name in ("one", "two"):
        tools.add_tool(name, counting.format(name))
    assert tools.run_tool(db, "one", {"step": 1}, 100) == [1, "tool_one"]
    assert tools.run_tool(db, "one", {"step": 1}, 100) == [2, "tool_one"]
    assert tools.run_tool(db, "two", {"step": 1}, 100) == [1, "tool_two"]
    tools.fresh_tools(db)
    assert tools.run_tool(db, "one", {"step": 1}, 100) == [1, "tool_one"]
    assert db.execute("PRAGMA foreign_keys").fetchone() == {"foreign_keys": 1}


def test_dispatch_refuses_large_and_odd_results(db, tools):
    tools.add_tool("long", "def long(db):\n    return 'x' * 50\n")
    tools.add_tool("odd", "def odd(db):\n    return float('nan')\n")
    with pytest.raises(Refused) as caught:
        tools.run_tool(db, "long", {}, 20)
    assert caught.value.code == "too_large"
    with pytest.raises(ValueError, match="JSON"):
        tools.run_tool(db, "odd", {}, 20)
    with pytest.raises(TypeError, match="defines no function"):
        tools.add_tool("none", "x = 1\n")
