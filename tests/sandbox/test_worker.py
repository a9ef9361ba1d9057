from __future__ import annotations

import os
import pickle
import signal
import sys
import time

import pytest

from envsynth.errors import SandboxError, SpecError
from envsynth.sandbox import CallResult, Failure, Jail, Limits, Worker
from tests.sandbox.sample_tools import tools

# ------------------------------------------------------------------------------------------------ values


@pytest.mark.parametrize(
    "value",
    [None, True, 0, -(2**63), 2**64 - 1, 1.5, -0.0, "", "zürich 🦊\u2028\x00", [], {}, [[{"a": [None]}]], "1" * 40],
)
def test_call_gives_back_what_was_sent(worker: Worker, value: object) -> None:
    result = worker.call("echo", {"x": value})
    assert result == CallResult(status=Failure.OK, value={"x": value})
    assert type(result.value["x"]) is type(value)


@pytest.mark.parametrize(
    "expression",
    ["float('nan')", "float('inf')", "object()", "b'x'", "2**64", "[-2**63-1]", "'\\ud800'", "{1, 2}", "{(1, 2): 3}",
     "(lambda x: (x.append(x), x)[1])([])", "__import__('functools').reduce(lambda x, _: [x], range(201), 0)",
     "__import__('functools').reduce(lambda x, _: {'k': x}, range(201), 0)",
     "__import__('functools').reduce(lambda x, _: [x], range(3000), 0)"],
)  # fmt: skip
def test_value_without_json_form_is_a_bad_result(worker: Worker, expression: str) -> None:
    result = worker.call("give", {"what": expression})
    assert result.status is Failure.BAD_RESULT, result
    assert "not plain JSON" in result.message
    assert worker.alive
    assert worker.call("add", {"a": 1, "b": 2}).value == 3


@pytest.mark.parametrize(
    "expression",
    [
        "__import__('functools').reduce(lambda x, _: [x], range(200), 0)",
        "[{'a': [1]}] * 1000",
        "'[' * 1000",
        r"""['\\"[', '\\\\'] * 500""",
    ],
)
def test_value_that_is_merely_long_is_fine(worker: Worker, expression: str) -> None:
    assert worker.call("give", {"what": expression}).value == eval(expression)


def test_repr_of_a_result_is_never_called(worker: Worker) -> None:
    assert worker.load("class Trap:\n    def __repr__(self):\n        while True: pass\ndef trap(): return Trap()").ok
    assert worker.call("trap").status is Failure.BAD_RESULT


@pytest.mark.parametrize("value", [object(), 2**64, "\ud800", {1: 2}, b"x"])
def test_arguments_without_json_form_are_refused_before_sending(worker: Worker, value: object) -> None:
    result = worker.call("echo", {"x": value})
    assert result.status is Failure.BAD_RESULT
    assert worker.call("add", {"a": 1, "b": 2}).value == 3


def test_rows_are_plain_dicts(worker: Worker) -> None:
    assert worker.call("insert", {"name": "ann", "n": 3}, databases=("main",)).value == [
        {"id": 1, "name": "ann", "n": 3}
    ]
    assert worker.load("def kind(db): return type(db.execute('SELECT 1 AS x').fetchone()).__name__").ok
    assert worker.call("kind", databases=("main",)).value == "dict"


# ------------------------------------------------------------------------------------------------ failures


@pytest.mark.parametrize(
    ("kind", "name"),
    [("key", "KeyError"), ("value", "ValueError"), ("exit", "SystemExit"), ("stop", "KeyboardInterrupt")],
)
def test_exception_is_a_tool_error_with_type_and_place(worker: Worker, kind: str, name: str) -> None:
    result = worker.call("fail", {"kind": kind})
    assert (result.status, result.error_type, result.code) == (Failure.TOOL_ERROR, name, "")
    assert result.message.endswith("of source)")
    assert worker.alive


def test_refusal_carries_code_and_message(worker: Worker) -> None:
    assert worker.call("refuse", {"code": "not_found"}) == CallResult(
        status=Failure.TOOL_ERROR, error_type="Refusal", code="not_found", message="not this time"
    )


def test_unknown_function_is_a_tool_error(worker: Worker) -> None:
    result = worker.call("nobody")
    assert (result.status, result.error_type) == (Failure.TOOL_ERROR, "NameError")
    assert "'nobody'" in result.message


def test_source_that_does_not_compile_names_the_line(jail: Jail) -> None:
    with jail.worker("tools") as worker:
        result = worker.load("x = 1\ndef f(:\n", "mine")
        assert (result.status, result.error_type) == (Failure.TOOL_ERROR, "SyntaxError")
        assert "mine" in result.message
        assert "line 2" in result.message


@pytest.mark.parametrize(
    "expression",
    ["open('/etc/hostname').read()", "__import__('numpy')", "__import__('os').fork()", "__import__('os').listdir('/')"],
)
def test_what_the_jail_refuses_is_a_policy_violation(worker: Worker, expression: str) -> None:
    result = worker.call("give", {"what": expression})
    assert result.status is Failure.POLICY_VIOLATION, result
    assert worker.alive


def test_permission_error_of_the_code_itself_is_a_tool_error(worker: Worker) -> None:
    assert worker.load("def deny(): raise PermissionError('members only')").ok
    result = worker.call("deny")
    assert (result.status, result.error_type) == (Failure.TOOL_ERROR, "PermissionError")


def test_long_and_broken_error_texts_are_cut(worker: Worker) -> None:
    assert worker.load(
        "class Bad(Exception):\n    def __str__(self): raise RuntimeError\n"
        "def bad(): raise Bad\ndef long(): raise ValueError('x' * 10**6)\ndef odd(): raise ValueError('\\ud800')"
    ).ok
    assert "could not be made" in worker.call("bad").message
    assert len(worker.call("long").message) <= 500
    assert worker.call("odd").message.startswith("\\ud800")


# ------------------------------------------------------------------------------------------------ time and memory


def test_soft_timeout_leaves_the_worker_alive(worker: Worker) -> None:
    started = time.monotonic()
    result = worker.call("forever")
    assert result.status is Failure.SOFT_TIMEOUT
    assert 0.25 < time.monotonic() - started < 0.9
    assert worker.call("add", {"a": 1, "b": 2}).value == 3


def test_hard_timeout_kills_the_worker(worker: Worker) -> None:
    started = time.monotonic()
    assert worker.call("stubborn").status is Failure.HARD_TIMEOUT
    assert 0.9 < time.monotonic() - started < 2
    assert not worker.alive
    with pytest.raises(SandboxError, match="dead"):
        worker.call("add", {"a": 1, "b": 2})


def test_limits_of_one_call(worker: Worker) -> None:
    started = time.monotonic()
    assert worker.call("forever", limits=Limits(soft_s=0.05)).status is Failure.SOFT_TIMEOUT
    assert time.monotonic() - started < 0.25


def test_endless_statement_is_a_soft_timeout(worker: Worker) -> None:
    endless = "WITH RECURSIVE r(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM r) SELECT count(*) FROM r"
    assert worker.load(f"def endless(db): return db.execute({endless!r}).fetchone()").ok
    result = worker.call("endless", databases=("main",))
    assert result.status is Failure.SOFT_TIMEOUT, result
    assert worker.call("rows", databases=("main",)).value == []


def test_endless_source_is_a_soft_timeout(jail: Jail) -> None:
    with jail.worker("verifier") as worker:
        assert worker.load("while True: pass").status is Failure.SOFT_TIMEOUT
        assert worker.load("x = 1").ok


def test_processor_seconds_are_limited() -> None:
    with Jail(Limits(soft_s=20, hard_s=20, cpu_s=1)) as jail, tools(jail) as worker:
        result = worker.call("stubborn")
    assert result.status is Failure.HARD_TIMEOUT, result
    assert "processor seconds" in result.message


def test_memory_limit_is_an_error_within(worker: Worker) -> None:
    assert worker.call("eat", {"mb": 32}).value == 32 << 20
    assert worker.call("eat", {"mb": 512}).status is Failure.MEMORY
    assert worker.call("add", {"a": 1, "b": 2}).value == 3


def test_memory_error_while_encoding(worker: Worker) -> None:
    assert worker.load("def big(): return ['x' * 1000] * 10**6").ok
    assert worker.call("big", limits=Limits(soft_s=5, hard_s=10)).status is Failure.MEMORY
    assert worker.alive


def test_death_by_signal_is_a_crash() -> None:
    with Jail(extra_modules=("ctypes",)) as jail, tools(jail) as worker:
        result = worker.call("give", {"what": "__import__('ctypes').string_at(0)"})
        assert result.status is Failure.CRASH
        assert "signal 11" in result.message
        assert not worker.alive


def test_worker_that_ends_itself_is_a_crash(worker: Worker) -> None:
    result = worker.call("give", {"what": "__import__('os')._exit(5)"})
    assert result.status is Failure.CRASH
    assert "exit code 5" in result.message
    assert not worker.alive


# ------------------------------------------------------------------------------------------------ output


def test_output_is_captured_per_call(worker: Worker) -> None:
    assert worker.call("shout", {"n": 3}) == CallResult(status=Failure.OK, value=3, stdout="xxx\n")
    assert worker.call("add", {"a": 1, "b": 2}).stdout == ""


def test_output_is_capped(worker: Worker) -> None:
    assert worker.call("shout", {"n": 200_000}).stdout == "x" * 65536


def test_output_of_a_failing_call_is_kept(worker: Worker) -> None:
    assert worker.load("import sys\ndef noisy(): print('a\\ud800é', file=sys.stderr); raise ValueError").ok
    assert worker.call("noisy").stdout == "a\\ud800é\n"


def test_large_result_is_refused(worker: Worker) -> None:
    assert len(worker.call("give", {"what": "'x' * 1000000"}).value) == 1_000_000
    result = worker.call("give", {"what": "'x' * 2000000"})
    assert result.status is Failure.OUTPUT_LIMIT
    assert worker.alive


def test_large_database_is_refused(worker: Worker) -> None:
    assert worker.load(
        "def fill(db, n):\n    for _ in range(n): db.execute('INSERT INTO items (name) VALUES (?)', ('x' * 10**6,))"
    ).ok
    assert worker.call("fill", {"n": 5}, databases=("main",)).ok
    full = worker.call("fill", {"n": 5}, databases=("main",))
    assert full.error_type == "OperationalError", full
    assert "full" in full.message


# ------------------------------------------------------------------------------------------------ workers


def test_namespaces_are_fresh(jail: Jail) -> None:
    with tools(jail) as first, tools(jail) as second:
        first.call("remember", {"x": 1})
        first.load("import json\njson.loads = None\nimport builtins\nbuiltins.sorted = None")
        assert second.call("remember", {"x": 2}).value == [2]
        assert second.call("give", {"what": "[json.loads('1'), sorted([2, 1])]"}).value == [1, [1, 2]]


def test_load_shares_one_namespace(worker: Worker) -> None:
    assert worker.load("def add(a, b): return 'new'").ok
    assert worker.call("add", {"a": 1, "b": 2}).value == "new"
    assert worker.call("remember", {"x": 1}).ok


def test_random_follows_the_seed_and_sets_their_order(jail: Jail) -> None:
    with tools(jail, seed=1) as a, tools(jail, seed=1) as b, tools(jail, seed=2) as c:
        assert a.call("dice").value == b.call("dice").value != c.call("dice").value
    with Jail() as other, tools(jail) as a, tools(other) as b:
        assert a.call("words").value == b.call("words").value


def test_usual_modules_are_there(worker: Worker) -> None:
    source = """
from __future__ import annotations
import dataclasses, enum, datetime, zoneinfo, decimal, re, collections, statistics, uuid, logging, pathlib, threading

@dataclasses.dataclass
class Point:
    x: int
    y: list[int] = dataclasses.field(default_factory=list)

class Color(enum.Enum):
    RED = "red"

def usual():
    noon = datetime.datetime(2024, 7, 1, 12, tzinfo=zoneinfo.ZoneInfo("Europe/Berlin"))
    when = datetime.datetime.strptime("2024-03-01", "%Y-%m-%d")
    return [dataclasses.asdict(Point(1)), Color("red").name, noon.utcoffset().total_seconds(), when.month, str(uuid.UUID(int=1))]
"""
    assert worker.load(source).ok
    result = worker.call("usual")
    assert result.value == [{"x": 1, "y": []}, "RED", 7200.0, 3, "00000000-0000-0000-0000-000000000001"], result


def test_usual_encodings_are_there(worker: Worker) -> None:
    names = [
        "ascii",
        "cp1252",
        "latin-1",
        "utf-7",
        "utf-8-sig",
        "utf-16",
        "utf-16-be",
        "utf-16-le",
        "utf-32-be",
        "utf-32-le",
        "unicode_escape",
        "iso8859-15",
    ]
    found = worker.call("give", {"what": f"[bytes('a b', name).hex() for name in {names}]"})
    assert found.value == [bytes("a b", name).hex() for name in names], found


# ------------------------------------------------------------------------------------------------ objects


def test_worker_cannot_be_pickled(worker: Worker) -> None:
    with pytest.raises(TypeError, match="cannot be pickled"):
        pickle.dumps(worker)


def test_close_is_idempotent_and_final(jail: Jail) -> None:
    worker = jail.worker("tools")
    worker.close()
    worker.close()
    assert not worker.alive
    with pytest.raises(SandboxError, match="closed"):
        worker.load("x = 1")


def test_interrupted_host_ends_the_worker(jail: Jail) -> None:
    with tools(jail) as worker:

        def interrupt(*_: object) -> None:
            raise KeyboardInterrupt

        before = signal.signal(signal.SIGALRM, interrupt)
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.1)
            with pytest.raises(KeyboardInterrupt):
                worker.call("forever")
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
        assert not worker.alive


def test_worker_of_another_process_is_refused(jail: Jail) -> None:
    with tools(jail) as worker:
        child = os.fork()
        if child == 0:
            try:
                worker.call("add", {"a": 1, "b": 2})
            except SandboxError as error:
                os._exit(0 if "another process" in str(error) else 2)
            finally:
                os._exit(1)
        assert os.waitpid(child, 0)[1] == 0
        assert worker.call("add", {"a": 1, "b": 2}).value == 3


@pytest.mark.parametrize(
    "wrong", [{"soft_s": 0}, {"hard_s": -1.0}, {"memory_mb": 0}, {"frame_bytes": 100}, {"stdout_bytes": -1}]
)
def test_limits_must_make_sense(wrong: dict[str, float]) -> None:
    with pytest.raises(SpecError, match=next(iter(wrong))):
        Limits(**wrong)


def test_python_of_the_jail_is_this_python(worker: Worker) -> None:
    found = worker.call("give", {"what": "list(__import__('sys').version_info[:3])"}).value
    assert found == list(sys.version_info[:3])
