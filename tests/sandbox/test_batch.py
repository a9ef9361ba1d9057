"""Many requests in one frame: order, atomicity, limits, early returns, death in the middle."""

from __future__ import annotations

import time

import pytest

from envsynth.errors import SandboxError
from envsynth.sandbox import Failure, Jail, Limits, Worker
from envsynth.sandbox.requests import (
    call,
    drop_database,
    drop_image,
    hold_image,
    image_of,
    open_held,
    open_image,
)

SOURCE = """
import os, time

def add(a, b):
    return a + b

def put(db, name):
    db.execute("CREATE TABLE IF NOT EXISTS t (name TEXT)")
    db.execute("INSERT INTO t VALUES (?)", (name,))
    if name == "bad":
        raise ValueError("no such name")
    return [row["name"] for row in db.execute("SELECT name FROM t ORDER BY rowid")]

def nap(seconds):
    time.sleep(seconds)
    return seconds

def big(size):
    return "x" * size

def say(text):
    print(text)

def leave():
    os._exit(3)

def stubborn():
    while True:
        try:
            while True:
                pass
        except BaseException:
            pass
"""


@pytest.fixture
def worker(jail: Jail):
    with jail.worker("tools") as made:
        assert made.load(SOURCE).ok
        yield made


def statuses(results) -> list[str]:
    return [result.status.value for result in results]


def test_results_come_in_order_and_a_failure_stops_nothing(worker: Worker) -> None:
    requests = [call("add", {"a": n, "b": 1}) for n in range(5)]
    requests.insert(2, call("add", {"a": "x", "b": 1}))
    requests.append(call("no such function", {}))
    results = worker.run(requests)
    assert [result.value for result in results] == [1, 2, None, 3, 4, 5, None]
    assert statuses(results) == ["ok", "ok", "tool_error", "ok", "ok", "ok", "tool_error"]
    assert worker.call("add", {"a": 1, "b": 1}).value == 2


def test_no_requests_give_no_results(worker: Worker) -> None:
    assert worker.run([]) == []
    assert worker.take() == []


def test_each_call_is_all_or_nothing(worker: Worker) -> None:
    names = ["a", "bad", "b"]
    results = worker.run([open_image("m", b""), *(call("put", {"name": name}, "m") for name in names)])
    assert results[-1].value == ["a", "b"]
    assert statuses(results) == ["ok", "ok", "tool_error", "ok"]


def test_images_held_opened_taken_and_dropped(worker: Worker) -> None:
    worker.run([open_image("m", b""), call("put", {"name": "a"}, "m")])
    [first] = worker.run([image_of("m")])
    results = worker.run(
        [
            hold_image("key", first.blob),
            open_held("n", "key"),
            call("put", {"name": "b"}, "n"),
            image_of("n"),
            open_held("n", "key"),
            image_of("n"),
            image_of("m"),
        ]
    )
    assert results[2].value == ["a", "b"]
    changed, again, untouched = results[3].blob, results[5].blob, results[6].blob
    assert changed != first.blob
    assert again == untouched == first.blob
    dropped = worker.run([drop_image("key"), open_held("n", "key"), drop_database("m"), image_of("m"), drop_image("?")])
    assert statuses(dropped) == ["ok", "tool_error", "ok", "tool_error", "ok"]


def test_restored_database_has_no_trace_of_the_last_episode(jail: Jail) -> None:
    source = """
def look(db):
    return [db.execute(q).fetchone() for q in ("PRAGMA foreign_keys", "SELECT count(*) AS n FROM sqlite_master",
            "SELECT count(*) AS n FROM sqlite_temp_master", "PRAGMA max_page_count", "PRAGMA temp_store")]

def soil(db, how):
    db.execute({"table": "CREATE TABLE t (x)", "temp": "CREATE TEMP TABLE t (x)", "rows": "DELETE FROM keep",
                "drop": "DROP TABLE keep", "pages": "PRAGMA max_page_count=10"}[how])
"""
    make = "def make(db):\n    db.execute('CREATE TABLE keep (x)')\n    db.execute('INSERT INTO keep VALUES (1)')\n"
    with jail.worker("tools") as worker:
        worker.load(source + make)
        worker.open(b"")
        worker.call("make", databases=("main",))
        image = worker.image().blob
        _, _, clean = worker.run([hold_image("k", image), open_held("main", "k"), call("look", {}, "main")])
        for how in ("table", "temp", "rows", "drop", "pages"):
            soiled, _, looked, taken = worker.run(
                [call("soil", {"how": how}, "main"), open_held("main", "k"), call("look", {}, "main"), image_of("main")]
            )
            assert soiled.ok, soiled
            assert looked == clean, how
            assert taken.blob == image, how


@pytest.mark.parametrize(
    "how",
    [
        "db.row_factory = None",
        "db.text_factory = bytes",
        "db.isolation_level = 'IMMEDIATE'",
        "db.create_function('twice', 1, lambda x: 3 * x)",
        "db.create_collation('nocase', lambda a, b: (a > b) - (a < b))",
        "db.setlimit(1, 10)",
        "db.set_trace_callback(print)",
    ],
)
def test_restored_database_is_as_no_code_has_set_it(jail: Jail, how: str) -> None:
    source = """
def make(db):
    db.execute("CREATE TABLE keep (x TEXT)")
    db.execute("INSERT INTO keep VALUES ('a'), ('B')")

def look(db):
    try: known = db.execute("SELECT twice(2) AS x").fetchone()["x"]
    except Exception as error: known = str(error)
    return [repr(db.execute("SELECT * FROM keep ORDER BY x COLLATE nocase").fetchall()), known, db.isolation_level]

def soil(db):
    HOW
"""
    with jail.worker("tools") as worker:
        assert worker.load(source.replace("HOW", how)).ok
        worker.open(b"")
        worker.call("make", databases=("main",))
        image = worker.image().blob
        _, _, clean = worker.run([hold_image("k", image), open_held("main", "k"), call("look", {}, "main")])
        assert clean.value == ["[{'x': 'a'}, {'x': 'B'}]", "no such function: twice", None]
        soiled, opened, looked = worker.run(
            [call("soil", {}, "main"), open_held("main", "k"), call("look", {}, "main")]
        )
        assert soiled.ok, soiled
        assert opened.ok, opened
        assert looked == clean


def test_slow_calls_have_their_own_limits_and_come_in_several_frames(worker: Worker) -> None:
    began = time.monotonic()
    results = worker.run([call("nap", {"seconds": 0.1}) for _ in range(8)] + [call("nap", {"seconds": 5})] * 2)
    assert statuses(results) == ["ok"] * 8 + ["soft_timeout"] * 2
    assert time.monotonic() - began < 3
    assert worker.alive


def test_large_results_come_in_several_frames(worker: Worker, jail: Jail) -> None:
    half = jail.limits.frame_bytes // 2
    results = worker.run([call("big", {"size": half - 200})] * 3 + [call("big", {"size": half})])
    assert statuses(results) == ["ok"] * 3 + ["output_limit"]
    assert worker.run([call("big", {"size": 10})])[0].ok


def test_large_images_come_in_several_frames(jail: Jail) -> None:
    source = "def fill(db):\n    db.execute('CREATE TABLE t (x)')\n    db.execute('INSERT INTO t VALUES (zeroblob(3000000))')\n"
    with jail.worker("tools") as worker:
        worker.load(source)
        worker.run([open_image("m", b""), call("fill", {}, "m")])
        results = worker.run([image_of("m")] * 5)
    assert statuses(results) == ["ok"] * 5
    assert len({result.blob for result in results}) == 1
    assert len(results[0].blob) > 3_000_000


def test_output_belongs_to_its_call(worker: Worker) -> None:
    results = worker.run([call("say", {"text": "one"}), call("add", {"a": 1, "b": 1}), call("say", {"text": "two"})])
    assert [result.stdout for result in results] == ["one\n", "", "two\n"]


def test_death_ends_that_request_and_all_after_it(worker: Worker) -> None:
    results = worker.run([call("add", {"a": 1, "b": 1}), call("leave", {}), call("add", {"a": 1, "b": 1})])
    # Results go out together, so the one before the death is lost as well.
    assert statuses(results) == ["crash"] * 3
    assert not worker.alive
    with pytest.raises(SandboxError, match="dead"):
        worker.run([call("add", {"a": 1, "b": 1})])


def test_hang_is_killed_at_the_hard_limit(worker: Worker) -> None:
    began = time.monotonic()
    results = worker.run([call("stubborn", {})] * 2, Limits(soft_s=0.1, hard_s=0.4))
    assert statuses(results) == ["hard_timeout"] * 2
    assert time.monotonic() - began < 2


def test_several_workers_run_at_a_time(jail: Jail) -> None:
    workers = [jail.worker("tools") for _ in range(4)]
    for worker in workers:
        worker.load(SOURCE)
    began = time.monotonic()
    for worker in workers:
        worker.post([call("nap", {"seconds": 0.2})])
    assert [worker.take()[0].value for worker in workers] == [0.2] * 4
    assert time.monotonic() - began < 0.7
    for worker in workers:
        worker.close()


def test_worker_that_died_between_calls_fails_what_is_posted(worker: Worker) -> None:
    worker._process.kill()
    time.sleep(0.05)
    worker.post([call("add", {"a": 1, "b": 1})] * 2)
    results = worker.take()
    assert [result.status for result in results] == [Failure.MEMORY] * 2  # a kill from outside looks like that
    assert not worker.alive


def test_posted_outcomes_must_be_taken_first(worker: Worker) -> None:
    worker.post([call("add", {"a": 1, "b": 1})])
    with pytest.raises(SandboxError, match="take"):
        worker.call("add", {"a": 1, "b": 1})
    assert worker.take()[0].value == 2
    assert worker.call("add", {"a": 1, "b": 2}).value == 3


def test_what_is_no_json_is_refused_before_it_is_sent(worker: Worker) -> None:
    with pytest.raises(SandboxError) as caught:
        worker.run([call("add", {"a": object(), "b": 1})])
    assert caught.value.failure == "bad_result"
    assert worker.run([call("add", {"a": 1, "b": 1})])[0].value == 2


GROWS = """
held = []

def grow(db, size):
    held.append("x" * size)

def list_all(db, times):
    return held * times

def describe(db):
    return [{"id": 1, "kind": Kind.ONE}]

import enum

class Kind(enum.Enum):
    ONE = "one"
"""


def test_large_worker_lives_on_when_its_result_is_too_large(jail: Jail) -> None:
    with jail.worker("tools") as worker:
        assert worker.load(GROWS).ok
        worker.open(b"", "main")
        assert worker.run([call("grow", {"size": 55 << 20}, "main")])[0].ok
        patient = Limits(soft_s=20.0, hard_s=30.0)
        results = worker.run([call("list_all", {"times": 6}, "main"), call("describe", {}, "main")], patient)
        assert results[0].status in (Failure.MEMORY, Failure.OUTPUT_LIMIT)
        assert results[1].value == [{"id": 1, "kind": "one"}]
        assert worker.alive


def test_small_worker_that_repeats_itself_too_often_is_found_dead(jail: Jail) -> None:
    """What the decision in ADR 12 costs: nobody looks how often a small process lists the same text."""
    with jail.worker("tools") as worker:
        assert worker.load(GROWS).ok
        worker.open(b"", "main")
        assert worker.run([call("grow", {"size": 1 << 20}, "main")])[0].ok
        results = worker.run([call("list_all", {"times": 2_000}, "main"), call("describe", {}, "main")])
        assert [result.ok for result in results] == [False, False]
        assert results[0].status in (Failure.CRASH, Failure.MEMORY)
        assert not worker.alive
