from __future__ import annotations

import time

import pytest

from envsynth.errors import SandboxError
from envsynth.sandbox import Ask, CallResult, Failure, Jail, Worker

SOLUTION = """
def solve(call):
    total = 0
    for name in ("a", "b"):
        try: total += call("price", name=name)
        except CallError as error: total += error.payload["code"]
    return total
def spin_between():
    for _ in range(100):
        call("wait")
        for _ in range(10**6): pass
def ask_badly(what): call(*what)
def big(): call("x", text="y" * 3000000)
def solve_it(): return solve(call)
"""


@pytest.fixture
def solution(jail: Jail):
    with jail.worker("solution") as worker:
        assert worker.load(SOLUTION).ok
        yield worker


def test_solution_asks_and_goes_on(solution: Worker) -> None:
    step = solution.begin("solve_it")
    assert step == Ask(tool="price", arguments={"name": "a"})
    step = solution.reply(3)
    assert step == Ask(tool="price", arguments={"name": "b"})
    assert solution.reply_error({"code": 40}) == CallResult(status=Failure.OK, value=43)


def test_waiting_for_the_host_is_not_counted(solution: Worker) -> None:
    assert isinstance(solution.begin("solve_it"), Ask)
    time.sleep(1.2)  # longer than both limits
    assert isinstance(solution.reply(1), Ask)
    assert solution.reply(2).value == 3


def test_time_between_questions_adds_up(solution: Worker) -> None:
    step = solution.begin("spin_between")
    asked = 0
    while isinstance(step, Ask):
        asked += 1
        step = solution.reply(None)
    assert step.status is Failure.SOFT_TIMEOUT
    assert 1 <= asked < 100


def test_order_of_questions_is_enforced(solution: Worker) -> None:
    with pytest.raises(SandboxError, match="nothing was asked"):
        solution.reply(1)
    assert isinstance(solution.begin("solve_it"), Ask)
    with pytest.raises(SandboxError, match="waits for the answer"):
        solution.call("solve_it")
    with pytest.raises(SandboxError, match="not plain JSON"):
        solution.reply(object())
    assert isinstance(solution.reply(1), Ask)


@pytest.mark.parametrize("what", [[3], [], [None]])
def test_wrong_use_of_call_is_an_error_of_the_solution(solution: Worker, what: list[object]) -> None:
    result = solution.begin("ask_badly", {"what": what})
    assert isinstance(result, CallResult)
    assert result.error_type == "TypeError"


def test_large_question_is_an_error_of_the_solution(solution: Worker) -> None:
    result = solution.begin("big")
    assert isinstance(result, CallResult)
    assert result.error_type == "ValueError"


def test_call_outside_of_begin_is_refused(solution: Worker) -> None:
    assert solution.call("solve_it").error_type == "RuntimeError"
    assert solution.load("call('x')").error_type == "RuntimeError"


def test_solution_has_no_database(solution: Worker) -> None:
    with pytest.raises(SandboxError, match="no database"):
        solution.open(b"")


def test_tools_cannot_ask(worker: Worker) -> None:
    assert worker.call("give", {"what": "call"}).error_type == "NameError"


def test_death_while_asked_is_reported(solution: Worker) -> None:
    assert solution.load("def leave():\n    call('x')\n    import os\n    os._exit(3)").ok
    assert isinstance(solution.begin("leave"), Ask)
    result = solution.reply(None)
    assert isinstance(result, CallResult)
    assert result.status is Failure.CRASH
