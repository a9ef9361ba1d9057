"""What a task takes away from its actor, or adds: the same in every way of playing, and no tool knows of it."""

from __future__ import annotations

import json

import pytest

from envsynth.environments import make_env, tool_docs
from envsynth.environments.delivery import ASK_USER, NO_CALLS
from envsynth.errors import SpecError
from envsynth.gates import Case, Rehearsal
from tests.environments.test_faults import BUY, STOCK, call, orders, played

USER = {"user": [{"topic": "budget", "says": "no more than 40"}]}
ASK = call(ASK_USER, about="budget")


def test_calls_beyond_the_limit_are_refused_and_change_nothing(jail, spec, make_task):
    with make_env(spec, make_task(spec, delivery={"max_calls": 2}, max_turns=20), jail=jail) as env:
        texts, errors, image = played(env, [STOCK, BUY, BUY, STOCK])
        assert errors == [None, None, NO_CALLS[0], NO_CALLS[0]]
        assert json.loads(texts[2]) == {"error": {"code": NO_CALLS[0], "message": NO_CALLS[1]}}
        assert orders(image) == 2
        assert "at most 2 times" in env.reset(seed=1)[0]
        assert played(env, [call("nothing"), STOCK, STOCK])[1] == ["unknown_tool", None, NO_CALLS[0]]


def test_a_withheld_tool_does_not_exist(jail, spec, make_task):
    tasks = [make_task(spec, delivery={"withheld": ["stock"]}, max_turns=20), make_task(spec, max_turns=19)]
    with make_env(spec, tasks, jail=jail) as env:
        assert played(env, [STOCK, BUY])[1] == ["unknown_tool", None]
        assert '"name":"stock"' not in env.reset(options={"task": 0})[0]
        assert '"name":"stock"' in env.reset(options={"task": 1})[0]
        assert played(env, [STOCK, BUY], task=1)[1] == [None, None]
    assert "stock" not in {doc["function"]["name"] for doc in tool_docs(spec, tasks[0].delivery)}


def test_the_user_tells_what_is_asked_and_no_more(jail, spec, make_task):
    tasks = [make_task(spec, delivery=USER, max_turns=20), make_task(spec, max_turns=19)]
    with make_env(spec, tasks, jail=jail) as env:
        texts, errors, _ = played(env, [ASK, call(ASK_USER, about="name"), call(ASK_USER)])
        assert json.loads(texts[0]) == {"result": "no more than 40"}
        assert errors == [None, "invalid", "invalid"]
        assert "no more than 40" not in env.reset(options={"task": 0})[0]
        assert played(env, [ASK], task=1)[1] == ["unknown_tool"]


@pytest.mark.parametrize(
    ("delivery", "words"), [({"withheld": ["nothing"]}, "no tool 'nothing'"), (USER, "a tool 'ask_user' of its own")]
)
def test_what_cannot_be_delivered_is_said(jail, spec, make_task, delivery, words):
    tool = spec.tools[0].model_copy(update={"name": ASK_USER})
    other = spec.model_copy(update={"tools": (*spec.tools, tool)})
    with pytest.raises(SpecError, match=words):
        make_env(other, make_task(other, delivery=delivery), jail=jail)


SOLUTION = """
WAY = "ask"


def solve(call):
    if WAY == "ask":
        return {"value": len(call("ask_user", about="budget"))}
    n = 0
    try:
        for n in range(9):
            call("stock", item="nut")
    except CallError as error:
        return {"value": n, "code": error.payload["code"]}
"""


def test_a_rehearsal_delivers_as_the_host_does(jail, spec, make_task):
    delivery = USER | {"max_calls": 3}
    task = make_task(spec, delivery=delivery, max_turns=30, solution=SOLUTION)
    with Rehearsal(spec, jail) as rehearsal:
        image = Case(spec, task, jail).image
        asked, counted = rehearsal.endings(task, image, [{}, {"WAY": "count"}], 30)
    assert asked.ending[1] == {"value": len("no more than 40")}
    assert counted.ending[1] == {"value": 3, "code": NO_CALLS[0]}


def test_a_delivery_without_anything_leaves_the_hash(spec, make_task):
    task = make_task(spec)
    assert "delivery" not in task.model_dump(mode="json")
    assert make_task(spec, delivery={"max_calls": 9}).hash != task.hash
    assert make_task(spec, delivery={}).hash == task.hash


@pytest.mark.parametrize(
    ("delivery", "words"),
    [
        ({"withheld": ["stock", "stock"]}, "withheld: 'stock' twice"),
        ({"user": [*USER["user"], {"topic": "budget", "says": "40"}]}, "user: 'budget' twice"),
    ],
)
def test_nothing_is_delivered_twice(spec, make_task, delivery, words):
    with pytest.raises(ValueError, match=words):
        make_task(spec, delivery=delivery)
