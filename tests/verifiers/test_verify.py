from __future__ import annotations

import sqlite3
import sys

import pytest

from envsynth.errors import SandboxError
from envsynth.sandbox import Jail, Worker
from envsynth.spec import Outcome, TaskVersion
from envsynth.verifiers import Bench, judge, verify, verify_all

ATOMS = {
    "form": "atoms",
    "definitions": "def added():\n    return [e for e in diff if e['op'] == 'insert']\n",
    "atoms": [
        {"id": "n", "kind": "answer", "quote": "how many", "expression": "answer['n'] == len(db['t'])"},
        {"id": "s", "kind": "state", "quote": "add one", "expression": "added()"},
    ],
}
SCRIPT = "CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT NOT NULL) STRICT; INSERT INTO t VALUES (1, 'a');"
ADD = {"op": "insert", "table": "t", "row": {"v": "b"}}


def image(more=""):
    db = sqlite3.connect(":memory:")
    db.executescript(SCRIPT + more)
    found = db.serialize()
    db.close()
    return found


def task_of(verifier=ATOMS, **changes):
    return TaskVersion.parse(
        {
            "environment": "0" * 32,
            "kind": "act",
            "prompt": "Say how many, and add one.",
            "answer_schema": {
                "type": "object",
                "properties": {"n": {"type": "integer"}},
                "required": ["n"],
                "additionalProperties": False,
            },
            "max_turns": 5,
            "solution": "def solve(call):\n    return {'n': 1}\n",
            "verifier": verifier,
            "oracle": {"answer": {"n": 1}, "changes": [ADD]},
            "provenance": {"author": "test/1", "category": "rows", "seed": "0"},
            **changes,
        }
    )


def outcome(n, *changes):
    return Outcome.parse({"answer": {"n": n}, "changes": list(changes)})


@pytest.fixture(scope="module")
def jail():
    with Jail() as made:
        yield made


ADDED = image("INSERT INTO t VALUES (2, 'b');")


def test_right_outcome_passes_and_every_check_is_listed(jail):
    verdict = verify(jail, task_of(), image(), ADDED, {"n": 1})
    assert (verdict.status, verdict.score) == ("pass", 1.0)
    assert [check.id for check in verdict.checks] == ["answer.schema", "n", "s", "frame"]
    assert verdict.checks[1].quote == "how many"


@pytest.mark.parametrize(
    ("after", "answer", "failed"),
    [
        (ADDED, {"n": 2}, ("n",)),
        (image(), {"n": 1}, ("s",)),
        (image("UPDATE t SET v = 'z'; INSERT INTO t VALUES (2, 'b');"), {"n": 1}, ("frame",)),
        (image("CREATE TABLE u (x); INSERT INTO t VALUES (2, 'b');"), {"n": 1}, ("frame",)),
        (ADDED, {"n": True}, ("answer.schema",)),
        (ADDED, {"n": 1.0}, ("answer.schema",)),
        (ADDED, {"n": float("nan")}, ("answer.schema",)),
        (ADDED, {"n": 10**400}, ("answer.schema",)),
        (ADDED, {"n": 1, "m": 1}, ("answer.schema",)),
        (ADDED, {"\uff4e": 1}, ("answer.schema",)),
        (ADDED, {}, ("answer.schema",)),
        (ADDED, None, ("answer.schema",)),
    ],
)
def test_wrong_outcome_fails_with_its_check(jail, after, answer, failed):
    verdict = verify(jail, task_of(), image(), after, answer)
    assert (verdict.status, verdict.score) == ("fail", 0.0)
    assert verdict.failed == failed


def program(body):
    return {"form": "program", "program": f"def verify(answer, before, after, diff):\n    {body}\n"}


@pytest.mark.parametrize(
    "verifier",
    [
        program("while True: pass"),
        program("import os; os._exit(0)"),
        program("return {'ok': True, 'reasons': [object()]}"),
        program("return ''.join(['x' * 10**6] * 400)"),
        program("raise SystemExit"),
        program("open('/etc/passwd')"),
        program("return {'ok': float('nan')}"),
    ],
    ids=["spins", "exits", "odd-reasons", "memory", "system-exit", "file", "nan"],
)
def test_broken_verifier_is_void_for_verify_and_judge(jail, verifier, monkeypatch):
    # The function `verify` hides its module behind the package attribute of the same name.
    monkeypatch.setattr(sys.modules["envsynth.verifiers.verify"], "VERIFIER_LIMITS", jail.limits)
    task = task_of(verifier)
    verdicts = [verify(jail, task, image(), ADDED, {"n": 1}), *judge(jail, task, image(), [outcome(1, ADD)])]
    for verdict in verdicts:
        assert (verdict.status, verdict.score) == ("void", None)
        assert verdict.failure


def test_forged_reply_of_the_worker_is_void(jail):
    forging = {
        "form": "atoms",
        "definitions": (
            "import sys\n"
            "sys.modules['untrusted'].verify_images.__code__ = "
            "(lambda a, b, task, answer: {'checks': [['frame', True, '']], 'broken': None}).__code__\n"
        ),
        "atoms": ATOMS["atoms"],
    }
    # The first request still runs the old code; a forged list of checks would not match the task's in any case.
    verdict = verify(jail, task_of(forging), image(), ADDED, {"n": 2})
    assert verdict.status != "pass"


@pytest.mark.parametrize("broken", [b"no database" * 999, image()[:700]])
def test_damaged_image_is_void(jail, broken):
    assert verify(jail, task_of(), image(), broken, {"n": 1}).status == "void"
    assert verify(jail, task_of(), broken, image(), {"n": 1}).status == "void"


def test_malformed_answer_schema_is_void(jail):
    verdict = verify(jail, task_of(answer_schema={"type": "objekt"}), image(), ADDED, {"n": 1})
    assert verdict.status == "void"
    assert "answer_schema" in (verdict.failure or "")


def test_closed_jail_is_void_not_zero():
    made = Jail()
    made.close()
    assert verify(made, task_of(), image(), ADDED, {"n": 1}).status == "void"
    assert judge(made, task_of(), image(), [outcome(1, ADD)])[0].status == "void"
    with pytest.raises(SandboxError):
        made.worker("verifier")


def test_judge_gives_one_verdict_per_outcome_in_order(jail):
    outcomes = [
        outcome(1, ADD),
        outcome(2, ADD),
        outcome(1),
        outcome(1, ADD, {"op": "delete", "table": "t", "row": {"id": 1}}),
        outcome(1, {"op": "update", "table": "t", "row": {"id": 9, "v": "z"}}),
        Outcome(answer={"n": "1"}),
        *[outcome(1, ADD)] * 40,
    ]
    verdicts = judge(jail, task_of(), image(), outcomes)
    assert [verdict.failed for verdict in verdicts[:4]] == [(), ("n",), ("s",), ("frame",)]
    assert verdicts[4].status == "void"
    assert "no row" in (verdicts[4].failure or "")
    assert verdicts[5].failed == ("answer.schema",)
    assert [verdict.status for verdict in verdicts[6:]] == ["pass"] * 40
    assert judge(jail, task_of(), image(), []) == []


def test_judge_voids_only_the_outcome_that_breaks_the_worker(jail):
    verifier = program("import os; answer['n'] == 7 and os._exit(1); return {'ok': True}")
    verdicts = judge(jail, task_of(verifier), image(), [outcome(1), outcome(7), outcome(2)])
    assert [verdict.status for verdict in verdicts] == ["pass", "void", "pass"]


def test_outcomes_of_a_batch_do_not_see_each_other(jail):
    verifier = {
        "form": "atoms",
        "definitions": "seen = globals().setdefault('seen', [])\nseen.append(1)\ndb['t'].append({'id': 5})\n",
        "atoms": [{"id": "a", "kind": "answer", "quote": "", "expression": "len(seen) == 1 and len(db['t']) == 2"}],
    }
    verdicts = judge(jail, task_of(verifier), image(), [outcome(1)] * 3)
    assert [verdict.status for verdict in verdicts] == ["pass"] * 3


def test_verify_and_judge_agree(jail):
    for n, changes, after in [(1, [ADD], ADDED), (3, [ADD], ADDED), (1, [], image())]:
        left = verify(jail, task_of(), image(), after, {"n": n})
        assert left == judge(jail, task_of(), image(), [outcome(n, *changes)])[0]


def test_reasons_hold_no_expected_values(jail):
    secret = 918_273
    verifier = {
        "form": "atoms",
        "definitions": f"WANTED = {secret}\n",
        "atoms": [{"id": "a", "kind": "answer", "quote": "", "expression": f"answer['n'] == WANTED == {secret}"}],
    }
    verdict = verify(jail, task_of(verifier), image(), image(), {"n": 1})
    assert verdict.status == "fail"
    assert str(secret) not in verdict.to_json()


# ------------------------------------------------------------------------------------------------------------ on a bench

ROWS_ONCE = {
    "form": "atoms",
    "definitions": "@once\ndef size():\n    return len(db['t'])\n",
    "atoms": [{"id": "n", "kind": "answer", "quote": "", "expression": "answer['n'] == size()"}],
}
"""A verifier that remembers what it has read of the initial rows."""


def test_a_bench_judges_each_task_by_its_own_initial_rows(jail):
    worlds = {1: image(), 2: ADDED, 3: image("INSERT INTO t VALUES (2, 'b'), (3, 'c');")}
    bench = Bench(jail)
    try:
        for size in (1, 2, 1, 3, 2):
            endings = [(worlds[size], {"n": answer}) for answer in worlds]
            found = verify_all(jail, task_of(ROWS_ONCE), worlds[size], endings, bench)
            assert [verdict.status == "pass" for verdict in found] == [answer == size for answer in worlds]
            outcomes = judge(jail, task_of(ROWS_ONCE), worlds[size], [outcome(answer) for answer in worlds], bench)
            assert [verdict.status == "pass" for verdict in outcomes] == [answer == size for answer in worlds]
    finally:
        bench.close()


def test_a_bench_opens_an_initial_database_once(jail, monkeypatch):
    opened = []
    run = Worker.run

    def noted(self, requests, *rest):
        opened.append([item["image"] for item in requests if item["op"] == "open" and item["name"] == "before"])
        return run(self, requests, *rest)

    monkeypatch.setattr(Worker, "run", noted)
    bench, first, other = Bench(jail), image(), ADDED
    try:
        for before in (first, first, other, other, first):
            assert judge(jail, task_of(ROWS_ONCE), before, [outcome(1 if before == first else 2)], bench)[0].score == 1
        bench._worker.close()
        assert judge(jail, task_of(ROWS_ONCE), first, [outcome(1)], bench)[0].score == 1
    finally:
        bench.close()
    assert opened == [[first], [], [other], [], [first], [first]]


def test_a_bench_keeps_definitions_of_tasks_apart(jail):
    other = {**ROWS_ONCE, "definitions": "@once\ndef size():\n    return 10 + len(db['t'])\n"}
    bench = Bench(jail)
    try:
        for definitions, right in ((ROWS_ONCE, 1), (other, 11)) * 2:
            found = verify_all(jail, task_of(definitions), image(), [(image(), {"n": n}) for n in (1, 11)], bench)
            assert [verdict.status == "pass" for verdict in found] == [right == 1, right == 11]
    finally:
        bench.close()


def test_more_tasks_than_are_remembered(jail):
    bench = Bench(jail)
    try:
        for number in (*range(7), *range(7)):
            verifier = {**ROWS_ONCE, "definitions": f"@once\ndef size():\n    return {number} + len(db['t'])\n"}
            found = verify_all(jail, task_of(verifier), image(), [(image(), {"n": number + 1})], bench)
            assert [verdict.status for verdict in found] == ["pass"]
    finally:
        bench.close()


def test_equal_endings_are_judged_once_on_a_bench_alone(jail, monkeypatch):
    asked = []
    run = Worker.run

    def counted(self, requests, *rest):
        asked.append(
            [len(item["arguments"]["answers"]) for item in requests if item.get("function") == "verify_images"]
        )
        return run(self, requests, *rest)

    monkeypatch.setattr(Worker, "run", counted)
    endings = [(image(), {"n": 1}), (ADDED, {"n": 1}), (image(), {"n": 2}), (image(), {"n": 1}), (image(), {"n": True})]
    bench = Bench(jail)
    try:
        on_bench = verify_all(jail, task_of(ROWS_ONCE), image(), endings, bench)
    finally:
        bench.close()
    alone = verify_all(jail, task_of(ROWS_ONCE), image(), endings)
    assert asked == [[3], [4]], "one answer does not meet the schema"
    assert [verdict.status for verdict in on_bench] == [verdict.status for verdict in alone]
    assert [verdict.failed for verdict in on_bench] == [verdict.failed for verdict in alone]
    assert [verdict.status for verdict in alone] == ["pass", "fail", "fail", "pass", "fail"]
