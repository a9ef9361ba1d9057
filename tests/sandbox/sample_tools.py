"""Source that the worker tests load, and a worker with it and an empty table."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from envsynth.sandbox import Jail, Worker

SOURCE = """
import json, random

seen = []

def echo(**arguments): return arguments
def add(a, b): return a + b
def fail(kind): raise {"key": KeyError, "value": ValueError, "exit": SystemExit, "stop": KeyboardInterrupt}[kind]("no")
def refuse(code): raise Refusal(code, "not this time")
def forever():
    while True: pass
def stubborn():
    while True:
        try: sum(range(100000))
        except BaseException: pass
def eat(mb): return len(bytearray(mb << 20))
def shout(n): print("x" * n); return n
def give(what): return eval(what)
def remember(x): seen.append(x); return seen
def dice(): return [random.randrange(1000) for _ in range(5)]
def words(): return list({"ab", "cd", "ef", "gh", "ij"})

def create(db):
    db.execute("CREATE TABLE items (id INTEGER PRIMARY KEY, name TEXT, n INTEGER CHECK (n >= 0))")
def insert(db, name, n): db.execute("INSERT INTO items (name, n) VALUES (?, ?)", (name, n)); return rows(db)
def rows(db): return db.execute("SELECT * FROM items ORDER BY id").fetchall()
def insert_then(db, name, then):
    db.execute("INSERT INTO items (name, n) VALUES (?, 1)", (name,))
    exec(then)
"""


@contextlib.contextmanager
def tools(jail: Jail, source: str = SOURCE, seed: int = 0) -> Iterator[Worker]:
    with jail.worker("tools", seed) as worker:
        assert worker.load(source, "source").ok
        assert worker.open(b"").ok
        assert worker.call("create", databases=("main",)).ok
        yield worker
