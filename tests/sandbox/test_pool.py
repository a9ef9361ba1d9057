"""Warm workers: fresh each time, loaded with their family's code, replaced when they died."""

from __future__ import annotations

import os
import signal
import time

import pytest

from envsynth.errors import SandboxError
from envsynth.sandbox import Family, Jail, Limits, Source
from envsynth.sandbox.requests import call

COUNT = "seen = []\n\ndef count():\n    seen.append(1)\n    return [len(seen), sorted(PARTS)]\n"
FAMILY = Family("tools", (Source(name="later", text="1 / 0\n", part=True), Source(name="count", text=COUNT)))


def test_ready_workers_are_loaded_and_never_used_before(jail: Jail) -> None:
    for _ in range(6):
        with jail.ready_worker(FAMILY, idle=3) as worker:
            assert worker.role == "tools"
            assert [worker.call("count").value for _ in range(2)] == [[1, ["later"]], [2, ["later"]]]


def test_pool_grows_when_somebody_had_to_wait(jail: Jail) -> None:
    family = Family("tools", (Source(name="grows", text="def one():\n    return 1\n"),))
    pool = jail._pool(family, 4)
    held = [jail.ready_worker(family, 4) for _ in range(5)]
    assert 0 < len(pool) <= 4
    assert [worker.call("one").value for worker in held] == [1] * 5
    for worker in held:
        worker.close()


def test_worker_that_died_while_idle_is_passed_over(jail: Jail) -> None:
    family = Family("tools", (Source(name="idle", text="def one():\n    return 1\n"),))
    jail.fill(family, 3)
    pool = jail._pool(family, 3)
    pool._idle[0].await_start()
    pool._idle[0]._process.kill()
    pool._idle[1].close()
    while pool._idle[0].running:
        time.sleep(0.001)
    with jail.ready_worker(family) as worker:
        assert worker.call("one").value == 1


@pytest.mark.parametrize(
    ("text", "failure", "said"),
    [
        ("def broken(:\n", "tool_error", "SyntaxError"),
        ("import os\nos.listdir('/')\n", "policy_violation", "not available in the sandbox"),
        ("1 / 0\n", "tool_error", "division"),
        ("while True:\n    pass\n", "soft_timeout", "soft time limit"),
        ("import os\nos._exit(5)\n", "crash", "exit code 5"),
    ],
)
def test_family_that_does_not_load_says_why(jail: Jail, text: str, failure: str, said: str) -> None:
    with pytest.raises(SandboxError, match=said) as caught:
        jail.ready_worker(Family("tools", (Source(name="bad", text=text),)))
    assert caught.value.failure == failure


MADE = """
def fill(db, size):
    db.execute("CREATE TABLE a (id INTEGER PRIMARY KEY, text TEXT)")
    db.execute("CREATE TABLE b (a INTEGER REFERENCES a (id))")
    db.execute("INSERT INTO a VALUES (1, ?)", ("x" * size,))

def look(db):
    return db.execute("SELECT id, length(text) AS n FROM a").fetchall()

def dangle(db):
    db.execute("INSERT INTO b VALUES (7)")
"""


def test_ready_workers_have_their_family_s_database_open_with_foreign_keys(jail: Jail) -> None:
    sources = (Source(name="made", text=MADE),)
    images: list[bytes] = []
    for size in (10, 150_000):
        with jail.ready_worker(Family("tools", sources)) as worker:
            worker.open(b"")
            assert worker.call("fill", {"size": size}, databases=("main",)).ok
            images.append(worker.image().blob)
    for image, size in zip(images, (10, 150_000), strict=True):
        for _ in range(3):
            with jail.ready_worker(Family("tools", sources, image), idle=2) as worker:
                assert worker.call("look", databases=("main",)).value == [{"id": 1, "n": size}]
                assert "FOREIGN KEY" in worker.call("dangle", databases=("main",)).message
    assert len({Family("tools", sources, image).key for image in (b"", *images)}) == 3


def test_a_family_whose_database_does_not_open_says_so(jail: Jail) -> None:
    with pytest.raises(SandboxError, match="not a database"):
        jail.ready_worker(Family("tools", (Source(name="made", text=MADE),), b"SQLite format 4" + b"x" * 5_000))


def test_a_part_is_compiled_but_not_run(jail: Jail) -> None:
    with pytest.raises(SandboxError, match="SyntaxError"):
        jail.ready_worker(Family("tools", (Source(name="p", text="def (", part=True),)))


def test_compiling_runs_nothing_and_is_done_once(jail: Jail) -> None:
    sources = (Source(name="c", text="import os\nos._exit(9)\n"),)
    assert jail.compiled(sources) is jail.compiled(sources)
    with jail.worker("tools") as worker:
        assert worker.load_code(jail.compiled(sources)).status.value == "crash"


def test_families_differ_by_role_name_text_and_kind() -> None:
    one = Source(name="a", text="x")
    families = [
        Family("tools", (one,)),
        Family("verifier", (one,)),
        Family("tools", (Source(name="b", text="x"),)),
        Family("tools", (Source(name="a", text="y"),)),
        Family("tools", (Source(name="a", text="x", part=True),)),
        Family("tools", (Source(name="ax", text=""),)),
        Family("tools"),
    ]
    assert len({family.key for family in families}) == len(families)
    assert Family("tools", (Source(name="a", text="x"),)).key == families[0].key


def test_zygote_that_died_is_replaced() -> None:
    with Jail(Limits(soft_s=0.5, hard_s=1.0)) as jail:
        old = jail.worker("tools")
        os.kill(jail._zygote.pid, signal.SIGKILL)
        deadline = time.monotonic() + 5
        # The kernel ends the workers of a dead zygote, a moment later.
        while (jail._zygote.alive or old.running) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert old.call("x").status.value == "sandbox_unavailable"
        with jail.worker("tools") as new:
            assert new.load("x = 1").ok
        assert jail.layers["seccomp"]


def test_old_zygote_retires_and_ends_when_its_last_worker_does() -> None:
    with Jail(forks_per_zygote=2) as jail:
        held = [jail.worker("tools") for _ in range(5)]
        zygotes = {id(worker._process._zygote) for worker in held}
        assert len(zygotes) == 3
        assert len(jail._retired) == 2
        assert all(worker.load("x = 1").ok for worker in held)
        first = jail._retired[0]
        for worker in held[:2]:
            worker.close()
        assert not first.alive
        assert held[2].load("x = 1").ok


def test_number_of_living_workers_is_capped() -> None:
    with Jail(max_workers=2) as jail:
        held = [jail.worker("tools") for _ in range(2)]
        with pytest.raises(SandboxError, match="at most 2"):
            jail.worker("tools")
        held[0].close()
        jail.worker("tools").close()


def test_closing_the_jail_closes_its_pools() -> None:
    with Jail() as jail:
        jail.fill(FAMILY, 2)
    with pytest.raises(SandboxError, match="closed"):
        jail.ready_worker(FAMILY)


def test_random_is_seeded_alike_in_ready_workers(jail: Jail) -> None:
    family = Family("tools", (Source(name="r", text="import random\ndef draw():\n    return random.random()\n"),))
    drawn = []
    for _ in range(3):
        with jail.ready_worker(family) as worker:
            drawn.append(worker.run([call("draw", {})])[0].value)
    assert len(set(drawn)) == 1
