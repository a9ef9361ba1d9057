"""Of a database that began with a held image only what has changed travels; the host makes whole images of it."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envsynth.errors import SandboxError
from envsynth.sandbox import Failure, Jail, Worker
from envsynth.sandbox.channel import ChannelError
from envsynth.sandbox.held import HeldImages
from envsynth.sandbox.jailed.databases import Template, open_database
from envsynth.sandbox.jailed.pages import PAGE, changed_pages, with_pages
from envsynth.sandbox.requests import call, drop_image, hold_image, image_of, open_held, open_image
from envsynth.sandbox.result import success

SOURCE = """
def run(db, *statements, **named):
    for statement in named.get("statements", statements):
        db.execute(statement)

def say(text):
    print(text)
"""
FILL = [
    "CREATE TABLE t (id INTEGER PRIMARY KEY, name TEXT, n INTEGER)",
    "CREATE INDEX i ON t (n)",
    "WITH RECURSIVE c (x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c WHERE x < 600) "
    "INSERT INTO t SELECT x, 'the name of row ' || x, x % 7 FROM c",
]
CHANGES = {
    "nothing": [],
    "a read": ["SELECT count(*) FROM t"],
    "an update": ["UPDATE t SET name = 'a' WHERE id = 77"],
    "an update to the same": ["UPDATE t SET name = name"],
    "an update and its opposite": ["UPDATE t SET n = n + 1", "UPDATE t SET n = n - 1"],
    "rows": ["INSERT INTO t SELECT id + 600, name, n FROM t", "DELETE FROM t WHERE id < 9"],
    "fewer pages": ["DELETE FROM t"],
    "a table": ["CREATE TABLE more (x)"],
    "a table, dropped": ["DROP TABLE t"],
    "an index, dropped": ["DROP INDEX i"],
    "a column": ["ALTER TABLE t ADD COLUMN more TEXT"],
    "numbers of the header": ["PRAGMA user_version = 7", "PRAGMA application_id = 9"],
    "statistics": ["ANALYZE"],
    "something temporary": ["CREATE TEMP TABLE passing (x)", "INSERT INTO passing VALUES (1)"],
}


@pytest.fixture
def worker(jail: Jail):
    with jail.worker("tools") as made:
        assert made.load(SOURCE).ok
        yield made


@pytest.fixture(scope="module")
def image(jail: Jail) -> bytes:
    with jail.worker("tools") as made:
        assert made.load(SOURCE).ok
        results = made.run([open_image("m", b""), call("run", {"statements": FILL}, "m"), image_of("m")])
        assert results[-1].ok
        return results[-1].blob


@pytest.mark.parametrize("how", CHANGES)
@pytest.mark.parametrize("together", [False, True])
def test_an_image_is_the_same_whether_whole_or_by_its_changes(
    worker: Worker, image: bytes, how: str, together: bool
) -> None:
    worker.run([hold_image("k", image), open_held("n", "k"), open_held("m", "k")])
    for _ in range(2):  # the second time the connection is used again, or not, as the change demands
        done = worker.run([call("run", {"statements": CHANGES[how]}, "m"), image_of("m")])
        assert [result.ok for result in done] == [True, True]
        by_changes = worker.run([image_of("m", "k")] * 3 if together else [image_of("m", "k")])
        assert {result.blob for result in by_changes} == {done[1].blob}
        assert {result.value for result in by_changes} == {None}
        if how in ("nothing", "a read", "something temporary"):
            assert by_changes[0].blob is image
        again = worker.run([image_of("n", "k"), open_held("m", "k"), image_of("m", "k")])
        assert again[0].blob is image
        assert again[2].blob is image


def test_only_what_has_changed_travels(worker: Worker, image: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(image) > 6 * PAGE
    worker.run([hold_image("k", image), open_held("m", "k")])
    sizes: list[int] = []
    receive = worker._channel.receive

    def counted(deadline: float) -> tuple[bytes, bytes | memoryview]:
        text, blob = receive(deadline)
        sizes.append(len(blob))
        return text, blob

    monkeypatch.setattr(worker._channel, "receive", counted)
    worker.run([image_of("m", "k")])
    worker.run([call("run", {"statements": CHANGES["an update"]}, "m")])
    worker.run([image_of("m", "k")])
    worker.run([image_of("m")])
    assert sizes[0] == 0
    assert sizes[2] <= 2 * PAGE  # the row's, and the header's when SQLite counts there
    assert sizes[3] == len(image)


def test_what_is_not_held_comes_whole(worker: Worker, image: bytes) -> None:
    other = worker.run([open_image("o", image), call("run", {"statements": CHANGES["rows"]}, "o"), image_of("o")])[
        2
    ].blob
    assert worker.run([image_of("o", "none")])[0].blob == other
    worker.run([hold_image("k", image), open_held("m", "k")])
    assert worker.run([image_of("o", "k")])[0].blob == other
    # The name means another image now than the one that the database began with.
    assert worker.run([hold_image("k", other), image_of("m", "k")])[1].blob == image
    found = worker.run([open_held("m", "k"), image_of("m", "k"), drop_image("k"), image_of("m", "k")])
    assert [found[1].blob, found[3].blob] == [other, other]
    assert not worker._held._images  # nor is it kept here


def test_an_image_that_cannot_be_held_is_no_base(worker: Worker, image: bytes) -> None:
    worker.run([hold_image("k", image), open_held("m", "k"), call("run", {"statements": CHANGES["rows"]}, "m")])
    whole = worker.run([image_of("m")])[0].blob
    failed = worker.run([hold_image("k", b"no database" * 500)])[0]
    assert failed.status is Failure.TOOL_ERROR
    assert worker.run([image_of("m", "k")])[0].blob == whole


def test_what_could_not_be_sent_is_not_held(worker: Worker, image: bytes) -> None:
    worker.run([hold_image("k", image), open_held("m", "k")])
    with pytest.raises(SandboxError, match="plain JSON"):
        worker.run([hold_image("k", b"x"), call("say", {"text": {1, 2}})])
    assert worker.run([image_of("m", "k")])[0].blob == image


def test_images_fit_when_a_reply_is_cut(jail: Jail, image: bytes) -> None:
    """A worker answers only the first requests when its time is half used; the rest are asked again."""
    with jail.worker("tools") as worker:
        worker.load("import time\ndef nap():\n    time.sleep(0.6)\n" + SOURCE)
        requests = [hold_image("k", image), open_held("a", "k"), open_held("b", "k")]
        requests += [call("run", {"statements": CHANGES["rows"]}, "b"), image_of("a", "k"), call("nap", {})]
        results = worker.run([*requests, image_of("b", "k"), image_of("b")])
        assert results[4].blob is image
        assert results[6].blob == results[7].blob != image


images = st.binary(max_size=3 * PAGE + 9) | st.integers(0, 3 * PAGE + 9).map(bytes)


@given(images, images, st.lists(st.integers(0, 3 * PAGE), max_size=4))
def test_pages_make_the_image(base: bytes, other: bytes, spots: list[int]) -> None:
    touched = bytearray(base)
    for spot in spots:
        touched[spot : spot + 1] = b"?"
    for image in (other, bytes(touched)):
        numbers, pages = changed_pages(base, image)
        assert with_pages(base, len(image), numbers, pages) == image
        assert len(pages) <= PAGE * len(numbers)


@given(images, st.integers(-9, 1 << 70), st.lists(st.integers(-3, 1 << 70) | st.integers(-1, 5), max_size=5), images)
def test_forged_pages_are_refused_or_make_no_more_than_came(
    base: bytes, size: int, numbers: list[int], pages: bytes
) -> None:
    try:
        made = with_pages(base, size, numbers, pages)
    except ValueError:
        return
    assert len(made) == size <= len(base) + len(pages)
    assert len(pages) <= PAGE * len(numbers)


FORGED = [
    5,
    "x",
    [],
    [1],
    [None, []],
    [True, []],
    [1.0, []],
    ["1", []],
    [8, [0], 1],
    [8, 0],
    [8, ["0"]],
    [8, [True]],
    {},
]
FORGED += [
    [2, [0], 1],
    [-1, []],
    [9, []],
    [1 << 63, []],
    [7, []],
    [8, [0]],
    [8, [1]],
    [8, [-1]],
    [8, [0, 0]],
    [8, [1 << 63]],
]


@pytest.mark.parametrize("told", [*FORGED, [8, []]])
def test_forged_changes_end_the_conversation(told: object) -> None:
    held = HeldImages()
    held.note([hold_image("k", b"12345678"), image_of("m", "k")])
    results = [success(None, "", b""), success(json.loads(json.dumps(told)), "", b"ab")]
    with pytest.raises(ChannelError) as caught:
        held.completed(results, 0)
    assert caught.value.failure is Failure.PROTOCOL_VIOLATION


def test_a_lying_worker_is_killed(worker: Worker, image: bytes) -> None:
    worker.run([hold_image("k", image)])
    worker.load("import gc\nfor found in gc.get_objects():\n    if type(found).__name__ == 'Session':\n"
                "        found._operations['image'] = lambda *_: (b'[9,[3]]', b'')\n")  # fmt: skip
    result = worker.run([image_of("m", "k")])[0]
    assert result.status is Failure.PROTOCOL_VIOLATION
    assert not worker.alive


def test_a_template_knows_databases_of_any_schema_number() -> None:
    first = open_database(1 << 20, lambda: False)
    first.execute("CREATE TABLE t (x)")
    image = first.serialize()
    template = Template(image, 1 << 20)
    for fillings in (1, 3, 2):  # each counts the number up
        db = open_database(1 << 20, lambda: False)
        for _ in range(fillings):
            template.fill(db)
        assert template.changes(db) == (len(image), [], b"")
        assert template.serialize(db) == image
        db.execute("INSERT INTO t VALUES (1)")
        size, numbers, pages = template.changes(db)
        assert numbers
        assert with_pages(image, size, numbers, pages) == template.serialize(db)
