from __future__ import annotations

import contextlib
import sqlite3

import pytest

from envsynth.sandbox import Failure, Jail, Worker


@pytest.mark.parametrize(
    "then",
    [
        "raise ValueError",
        "raise Refusal('conflict', '')",
        "while True: pass",
        "bytearray(1 << 40)",
        "open('/etc/hostname')",
        "db.execute('INSERT INTO items (n) VALUES (-1)')",
        "db.commit(); raise ValueError",
        "db.__enter__(); db.__exit__(None, None, None); raise ValueError",
        "db.executescript('INSERT INTO items (n) VALUES (1); INSERT INTO items (n) VALUES (-1);')",
        "db.execute('COMMIT')",
        "db.execute('ROLLBACK')",
        "db.execute('BEGIN')",
        "db.execute(\"ATTACH ':memory:' AS other\")",
        "db.close(); raise ValueError",
    ],
)
def test_failed_call_leaves_no_trace(worker: Worker, then: str) -> None:
    worker.call("insert", {"name": "ann", "n": 1}, databases=("main",))
    before = worker.image().blob
    result = worker.call("insert_then", {"name": "bob", "then": then}, databases=("main",))
    assert not result.ok
    assert worker.alive
    assert [row["name"] for row in worker.call("rows", databases=("main",)).value] == ["ann"]
    assert worker.image().blob == before


def test_bad_result_rolls_back(worker: Worker) -> None:
    assert worker.load("def odd(db): insert(db, 'x', 1); return object()").ok
    assert worker.call("odd", databases=("main",)).status is Failure.BAD_RESULT
    assert worker.call("rows", databases=("main",)).value == []


def test_usual_transaction_idioms_work_within_a_call(worker: Worker) -> None:
    assert worker.load(
        """
def idioms(db):
    with db: insert(db, "a", 1)
    insert(db, "b", 1); db.commit()
    insert(db, "lost", 1); db.rollback()
    try:
        with db: insert(db, "lost too", 1); insert(db, "c", -1)
    except Exception: pass
    db.executescript("INSERT INTO items (name, n) VALUES ('d;d', 1); -- a comment;\\nINSERT INTO items (name, n) VALUES ('e', 2)")
    db.close()
"""
    ).ok
    assert worker.call("idioms", databases=("main",)).ok
    assert [row["name"] for row in worker.call("rows", databases=("main",)).value] == ["a", "b", "d;d", "e"]


def test_image_goes_to_another_worker(jail: Jail, worker: Worker) -> None:
    worker.call("insert", {"name": "ann", "n": 1}, databases=("main",))
    image = worker.image()
    assert image.blob.startswith(b"SQLite format 3\0")
    with jail.worker("verifier") as verifier:
        assert verifier.open(image.blob, "after").ok
        assert verifier.open(b"", "before").ok
        assert verifier.load(
            "def both(a, b): return [len(x.execute('SELECT * FROM sqlite_master').fetchall()) for x in (a, b)]"
        ).ok
        assert verifier.call("both", databases=("before", "after")).value == [0, 1]


def test_open_again_replaces_everything(worker: Worker) -> None:
    empty = worker.image().blob
    worker.call("insert", {"name": "ann", "n": 1}, databases=("main",))
    assert worker.open(empty).ok
    assert worker.call("rows", databases=("main",)).value == []


def test_image_in_wal_mode_can_be_opened(worker: Worker, tmp_path) -> None:
    path = tmp_path / "wal.db"
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("CREATE TABLE items (id INTEGER PRIMARY KEY, name TEXT)")
        db.execute("INSERT INTO items VALUES (7, 'wal')")
        db.commit()
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    assert path.read_bytes()[18:20] == b"\x02\x02"
    assert worker.open(path.read_bytes()).ok
    assert worker.call("rows", databases=("main",)).value == [{"id": 7, "name": "wal"}]


@pytest.mark.parametrize("image", [b"not a database", b"SQLite format 3\0" + b"\xff" * 4080])
def test_image_that_is_no_database_is_an_error(worker: Worker, image: bytes) -> None:
    result = worker.open(image)
    assert result.status is Failure.TOOL_ERROR
    assert result.error_type.endswith("Error")


def test_unknown_database_is_an_error(worker: Worker) -> None:
    assert worker.image("other").error_type == "LookupError"
    assert worker.call("rows", databases=("other",)).error_type == "LookupError"


def test_authorizer_of_the_code_cannot_keep_a_failed_call(worker: Worker) -> None:
    source = """
def lock(db):
    db.execute("INSERT INTO notes VALUES ('kept?')")
    db.set_authorizer(lambda *a: 1)
    raise ValueError("after all")

def count(db):
    return db.execute("SELECT count(*) AS n FROM notes").fetchone()["n"]
"""
    worker.load(source + "def make(db):\n    db.execute('CREATE TABLE notes (x)')\n")
    worker.open(b"")
    assert worker.call("make", databases=("main",)).ok
    result = worker.call("lock", databases=("main",))
    assert (result.status, result.message) == (Failure.TOOL_ERROR, "after all (line 5 of module)")
    assert worker.call("count", databases=("main",)).value == 0
