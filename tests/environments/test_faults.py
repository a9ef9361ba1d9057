"""Calls that fail by the schedule of a task: the same in every way of playing, and no tool knows of it."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from envsynth.actors import RandomPlay
from envsynth.delivery import Fault
from envsynth.environments import ToolVectorEnv, make_env
from envsynth.environments.faults import FAULT_ERRORS, FaultClock
from envsynth.environments.tools import Call
from envsynth.gates import Case, Rehearsal
from envsynth.gates.walks import play_single_calls, play_walks
from envsynth.sandbox import shared_jail
from tests.conftest import make_shop
from tests.conftest import make_task as make_value_task

LOST = {"tool": "buy", "call": 1, "kind": "timeout_after"}
LATE = {"tool": "buy", "call": 1, "kind": "timeout_before"}
AWAY = {"tool": "buy", "call": 1, "kind": "unavailable"}


def call(tool, **arguments):
    return json.dumps({"tool": tool, "arguments": arguments})


BUY = call("buy", item="nut", count=1)
STOCK = call("stock", item="nut")


def orders(image):
    db = sqlite3.connect(":memory:")
    try:
        db.deserialize(image)
        return db.execute("SELECT COUNT(*) FROM orders").fetchone()[0]
    finally:
        db.close()


def played(env, actions, task=0):
    """Observations, error codes and final state of an episode."""
    env.reset(seed=1, options={"task": task})
    steps = [env.step(action) for action in actions]
    return [step[0] for step in steps], [step[4]["error"] for step in steps], env.final_image()


@pytest.mark.parametrize(("fault", "made"), [(LOST, 2), (LATE, 1), (AWAY, 1)])
def test_a_fault_is_an_error_that_does_not_tell_whether_the_tool_has_run(jail, spec, make_task, fault, made):
    with make_env(spec, make_task(spec, faults=[fault], max_turns=20), jail=jail) as env:
        (text,), (error,), image = played(env, [BUY])
        code, message = FAULT_ERRORS[fault["kind"]]
        assert json.loads(text) == {"error": {"code": code, "message": message}}
        assert error == code
        assert orders(image) == made
        _, errors, image = played(env, [BUY, BUY])  # counted anew in each episode
        assert errors == [code, None]
        assert orders(image) == made + 1
    assert FAULT_ERRORS["timeout_before"] == FAULT_ERRORS["timeout_after"]


@pytest.mark.parametrize(
    ("style", "shown"), [("code", [408, 503]), ("terse", [{"code": "timeout"}, {"code": "unavailable"}])]
)
def test_errors_are_told_in_the_style_of_the_environment(jail, make_spec, make_task, style, shown):
    spec = make_spec(error_style=style)
    faults = [LATE, {**AWAY, "call": 2}]
    with make_env(spec, make_task(spec, faults=faults, max_turns=20), jail=jail) as env:
        texts, _, _ = played(env, [BUY, BUY])
    assert [json.loads(text)["error"] for text in texts] == shown


def test_calls_that_a_tool_does_not_take_are_not_counted_and_refused_ones_are(jail, spec, make_task):
    faults = [{"tool": "buy", "call": 3, "kind": "unavailable", "calls": 2}]
    refused = call("buy", item="no such item", count=1)
    wrong, unknown = call("buy", item="nut"), call("bye", item="nut")
    actions = [wrong, unknown, BUY, STOCK, refused, wrong, BUY, BUY, BUY]
    with make_env(spec, make_task(spec, faults=faults, max_turns=20), jail=jail) as env:
        _, errors, _ = played(env, actions)
    assert errors == ["invalid", "unknown_tool", None, None, "not_found", "invalid", "unavailable", "unavailable", None]


def test_a_refusal_is_lost_with_the_reply_and_a_defect_is_not(jail, spec, make_task):
    faults = [LOST, {"tool": "misbehave", "call": 1, "kind": "timeout_after"}]
    with make_env(spec, make_task(spec, faults=faults, max_turns=20), jail=jail) as env:
        _, errors, image = played(env, [call("buy", item="nut", count=900)])
        assert errors == ["timeout"]
        assert orders(image) == 1
        env.reset(seed=1)
        text, _, _, _, info = env.step(call("misbehave", how="raise"))
    assert json.loads(text)["error"]["code"] == info["error"] == "timeout"
    assert "a defect" in info["tool_defect"]


def test_a_faulted_call_is_a_turn_and_the_last_one_ends_the_episode(jail, spec, make_task):
    with make_env(spec, make_task(spec, faults=[LOST], max_turns=1), jail=jail) as env:
        env.reset(seed=1)
        _, reward, terminated, truncated, info = env.step(BUY)
        assert (reward, terminated, truncated, info["turn"]) == (0.0, False, True, 1)
        assert orders(env.final_image()) == 2


def test_tasks_of_one_environment_have_their_own_schedules(jail, spec, make_task):
    tasks = [make_task(spec, max_turns=20), make_task(spec, faults=[AWAY], max_turns=20)]
    with make_env(spec, tasks, jail=jail) as env:
        assert [played(env, [BUY], task)[1] for task in (0, 1, 0)] == [[None], ["unavailable"], [None]]


def _apart(faults):
    """Whether no call fails in two ways."""
    fated = [(item["tool"], item["call"] + more) for item in faults for more in range(item["calls"])]
    return len(fated) == len(set(fated))


SCHEDULES = st.lists(
    st.builds(
        dict,
        tool=st.sampled_from(("set_qty", "list_items")),
        call=st.integers(1, 5),
        kind=st.sampled_from(tuple(FAULT_ERRORS)),
        calls=st.integers(1, 2),
    ),
    max_size=4,
).filter(_apart)
CALLS = st.lists(
    st.one_of(
        st.builds(lambda page: ("list_items", {"page": page}), st.integers(1, 3)),
        st.builds(lambda item, qty: ("set_qty", {"item_id": item, "qty": qty}), st.integers(1, 5), st.integers(0, 9)),
        st.just(("set_qty", {"item_id": 1})),
    ),
    max_size=9,
)
SHOP = make_shop()


LOST_QTY = [{"tool": "set_qty", "call": 1, "kind": "timeout_after", "calls": 1}]
SET, REFUSED = ("set_qty", {"item_id": 1, "qty": 7}), ("set_qty", {"item_id": 5, "qty": 7})


@settings(max_examples=25)
@example([(LOST_QTY, [SET, ("list_items", {"page": 1})]), (LOST_QTY, [REFUSED, SET])])
@given(st.lists(st.tuples(SCHEDULES, CALLS), min_size=1, max_size=3))
def test_alone_side_by_side_and_in_a_rehearsal_the_same_calls_fail(slots):
    """Each slot of a vector has its own schedule; a rehearsal plays the same calls as a solution."""
    jail = shared_jail()
    tasks = [
        make_value_task(SHOP, faults=faults, max_turns=400, solution=_solution(calls), ablations={})
        for faults, calls in slots
    ]
    texts = [[call(tool, **given) for tool, given in calls] for _, calls in slots]
    alone = []
    for task, actions in zip(tasks, texts, strict=True):
        with make_env(SHOP, task, jail=jail) as env:
            lines, _, image = played(env, actions)
            alone.append((lines, image))
    envs = ToolVectorEnv([make_env(SHOP, task, jail=jail) for task in tasks])
    try:
        envs.reset(seed=1)
        seen = [[] for _ in tasks]
        for turn in range(max(map(len, texts))):
            moves = [actions[turn] if turn < len(actions) else "idle" for actions in texts]
            for slot, text in enumerate(envs.step(moves)[0]):
                seen[slot] += [text] if turn < len(texts[slot]) else []
        assert alone == [(lines, env.final_image()) for lines, env in zip(seen, envs.envs, strict=True)]
    finally:
        envs.close()
    with Rehearsal(SHOP, jail) as rehearsal:
        for task, (faults, calls), (lines, image) in zip(tasks, slots, alone, strict=True):
            told = [json.loads(line) for line in lines]
            assert [item.get("error", {}).get("code") for item in told] == _expected(faults, calls, told)
            with Case(SHOP, task, jail) as case:
                (ended,) = rehearsal.endings(task, case.image, [{}], 400)
            if ("set_qty", {"item_id": 1}) in calls:
                assert ended is None  # a schema refuses it: ended properly
            else:
                assert ended is not None
                assert ended.ending == (image, {"told": told})


def _solution(calls):
    return f"""
def solve(call):
    told = []
    for tool, given in {calls!r}:
        try:
            told.append({{"result": call(tool, **given)}})
        except CallError as error:
            told.append({{"error": error.payload}})
    return {{"told": told}}
"""


def _expected(faults, calls, told):
    """Codes that calls end in, by counting; how a call without a fault ends is taken from what was told."""
    fated = {
        (item["tool"], item["call"] + more): FAULT_ERRORS[item["kind"]][0]
        for item in faults
        for more in range(item["calls"])
    }
    counts, found = Counter(), []
    for (tool, arguments), item in zip(calls, told, strict=True):
        taken = tool != "set_qty" or "qty" in arguments
        counts[tool] += taken
        own = item.get("error", {}).get("code")
        assert own in (None, "bad_page", "not_found", "invalid") or (tool, counts[tool]) in fated
        found.append(fated.get((tool, counts[tool]), own) if taken else "invalid")
    return found


def test_walks_and_single_calls_meet_the_schedule(jail, spec, make_task, monkeypatch):
    seen = []
    monkeypatch.setattr(RandomPlay, "see", lambda self, text: seen.append(text))
    faults = [{"tool": name, "call": 1, "kind": "unavailable", "calls": 8} for name in ("buy", "stock", "misbehave")]
    calls = [Call("stock", {"item": "nut"}), Call("stock", {"item": "thé"})]
    for task, fails in ((make_task(spec), False), (make_task(spec, faults=faults), True)):
        seen.clear()
        with Case(spec, task, jail) as case:
            play_walks(case, range(12))
            assert any('"unavailable"' in text for text in seen) == fails
            assert [result is None for result in play_single_calls(case, calls)] == [fails, fails]


def test_the_clock_counts_only_where_something_fails():
    clock = FaultClock([Fault(tool="a", call=2, kind="unavailable", calls=2).model_dump()])
    assert [clock.next_call(tool) for tool in "abaaba"] == [None, None, "unavailable", "unavailable", None, None]
    assert FaultClock([]).next_call("a") is None
