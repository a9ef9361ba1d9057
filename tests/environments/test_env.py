from __future__ import annotations

import json
from typing import Any

import gymnasium
import pytest
from gymnasium.error import ResetNeeded
from gymnasium.utils.env_checker import check_env
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from envsynth.environments import make_env
from envsynth.errors import EnvironmentVoid, SpecError
from envsynth.trajectory import ToolCall, Verdict


def act(env, tool, **arguments):
    return env.step(json.dumps({"tool": tool, "arguments": arguments}))


def answer(env, **fields):
    return env.step(json.dumps({"answer": fields}))


def plain(value):
    return json.loads(json.dumps(value, default=dict))


def test_first_observation_has_public_half_only(env, task):
    text, info = env.reset(seed=3)
    assert task.prompt in text
    assert "Buy no more than needed." in text
    assert '"name":"buy"' in text
    assert "2025-01-01" in text
    assert task.solution not in text
    assert info["task"] == task.hash
    assert info["turn"] == 0
    assert info["call"] is None


def test_right_episode_terminates_with_reward_one(env):
    env.reset(seed=0)
    text, reward, terminated, truncated, info = act(env, "buy", item="thé", count=2)
    assert json.loads(text) == {"result": {"bought": 2}}
    assert (reward, terminated, truncated) == (0.0, False, False)
    assert ToolCall.parse(info["call"]) == ToolCall(tool="buy", arguments={"item": "thé", "count": 2})
    _, reward, terminated, truncated, info = answer(env, left=5)
    assert (reward, terminated, truncated) == (1.0, True, False)
    assert Verdict.parse(info["verdict"]).status == "pass"
    assert len(info["final_state"]) == 32
    assert env.final_image()


def test_wrong_answer_terminates_with_reward_zero(env):
    env.reset(seed=0)
    act(env, "buy", item="thé", count=2)
    _, reward, terminated, _, info = answer(env, left=4)
    assert (reward, terminated) == (0.0, True)
    assert Verdict.parse(info["verdict"]).failed == ("left",)


def test_idle_answer_fails_on_state(env):
    env.reset(seed=0)
    _, reward, _, _, info = answer(env, left=5)
    assert reward == 0.0
    assert Verdict.parse(info["verdict"]).failed == ("bought",)


def test_extra_write_fails_frame(env):
    env.reset(seed=0)
    act(env, "buy", item="thé", count=2)
    act(env, "buy", item="nut", count=1)
    _, reward, _, _, info = answer(env, left=5)
    assert reward == 0.0
    assert "frame" in Verdict.parse(info["verdict"]).failed or "bought" in Verdict.parse(info["verdict"]).failed


def test_answer_of_wrong_type_fails_on_schema(env):
    env.reset(seed=0)
    _, reward, terminated, _, info = answer(env, left=5.0)
    assert (reward, terminated) == (0.0, True)
    assert Verdict.parse(info["verdict"]).failed == ("answer.schema",)


@pytest.mark.parametrize(
    ("call", "code"),
    [
        ({"tool": "nothing", "arguments": {}}, "unknown_tool"),
        ({"tool": "stock", "arguments": {}}, "invalid"),
        ({"tool": "stock", "arguments": {"item": "nut", "more": 1}}, "invalid"),
        ({"tool": "buy", "arguments": {"item": "nut", "count": True}}, "invalid"),
        ({"tool": "buy", "arguments": {"item": "nut", "count": 1.0}}, "invalid"),
        ({"tool": "buy", "arguments": {"item": "nut", "count": 0}}, "invalid"),
        ({"tool": "stock", "arguments": {"item": "gold"}}, "not_found"),
        ({"tool": "buy", "arguments": {"item": "nut", "count": 9}}, "conflict"),
        ({"tool": "misbehave", "arguments": {"how": "raise"}}, "internal"),
        ({"tool": "misbehave", "arguments": {"how": "object"}}, "internal"),
        ({"tool": "misbehave", "arguments": {"how": "deep"}}, "internal"),
        ({"tool": "misbehave", "arguments": {"how": "dangle"}}, "internal"),
        ({"tool": "misbehave", "arguments": {"how": "flood"}}, "too_large"),
        ({"tool": "misbehave", "arguments": {"how": "spin"}}, "timeout"),
    ],
    ids=lambda value: value if isinstance(value, str) else json.dumps(value)[:50],
)
def test_failing_call_is_an_observation_and_leaves_no_trace(env, call, code):
    env.reset(seed=0)
    before = env.final_image()
    text, reward, terminated, truncated, info = env.step(json.dumps(call))
    assert json.loads(text)["error"]["code"] == code
    assert info["error"] == code
    assert (reward, terminated, truncated) == (0.0, False, False)
    assert ("tool_defect" in info) == (code == "internal")
    act(env, "buy", item="thé", count=2)
    assert answer(env, left=5)[1] == 1.0
    assert env.initial_image() == before


@pytest.mark.parametrize("how", ["stubborn", "exit"])
def test_dead_tools_worker_is_void_and_the_next_reset_plays(env, how):
    env.reset(seed=0)
    _, reward, terminated, truncated, info = act(env, "misbehave", how=how)
    assert reward != reward
    assert (terminated, truncated) == (False, True)
    assert "misbehave" in info["void"]
    assert Verdict.parse(info["verdict"]).status == "void"
    with pytest.raises(EnvironmentVoid):
        env.final_image()
    env.reset(seed=0)
    act(env, "buy", item="thé", count=2)
    assert answer(env, left=5)[1] == 1.0


@pytest.mark.parametrize(
    "verifier",
    [
        {"form": "program", "program": "def verify(answer, before, after, diff):\n    return 1 / 0\n"},
        {"form": "program", "program": "def verify(answer, before, after, diff):\n    return True\n"},
        {"form": "program", "program": "def check():\n    pass\n"},
        {"form": "atoms", "definitions": "def (:", "atoms": []},
        {
            "form": "atoms",
            "atoms": [{"id": "a", "kind": "answer", "quote": "", "expression": "answer['right']"}],
        },
        {
            "form": "atoms",
            "atoms": [{"id": "a", "kind": "state", "quote": "", "expression": "[{'op': 'invented'}]"}],
        },
    ],
    ids=["raises", "no-dict", "no-function", "no-syntax", "key-error", "invented-entry"],
)
def test_broken_verifier_is_void_never_zero(jail, spec, make_task, verifier):
    env = make_env(spec, make_task(spec, verifier=verifier), jail=jail)
    env.reset(seed=0)
    _, reward, terminated, truncated, info = answer(env, left=5)
    assert reward != reward
    assert (terminated, truncated) == (False, True)
    assert info["void"].startswith("broken verifier")
    assert "final_state" not in info
    env.close()


@pytest.mark.parametrize(
    ("world", "named"),
    [
        ({"checks": ["no such column > 0"]}, "orders"),
        ({"checks": ["count > 100"]}, "row 0"),
        ({"checks": ["count >"]}, "orders"),
    ],
)
def test_wrong_sql_is_a_void_reset_that_names_the_table(jail, make_spec, make_task, world, named):
    tables = [dict(table) for table in make_spec().model_dump()["world"]["tables"]]
    tables[1].update(world)
    spec = make_spec(world={**make_spec().model_dump(mode="json")["world"], "tables": tables})
    env = make_env(spec, make_task(spec), jail=jail)
    with pytest.raises(EnvironmentVoid, match=named):
        env.reset(seed=0)


def test_tool_that_does_not_load_is_a_void_reset(jail, make_spec, make_task, tool_entry):
    spec = make_spec(tools=[tool_entry("stock", "def other(db):\n    pass\n", "read")])
    env = make_env(spec, make_task(spec), jail=jail)
    with pytest.raises(EnvironmentVoid, match="stock"):
        env.reset(seed=0)


def test_max_turns_truncates_with_a_failed_verdict(env):
    env.reset(seed=0)
    for turn in range(1, 7):
        _, reward, terminated, truncated, info = act(env, "stock", item="nut")
        assert (terminated, truncated) == (False, turn == 6)
    assert reward == 0.0
    assert Verdict.parse(info["verdict"]).failed == ("answer.schema",)
    with pytest.raises(ResetNeeded):
        env.step("{}")


def test_step_before_reset_needs_a_reset(env):
    with pytest.raises(ResetNeeded):
        env.step("{}")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "hello",
        "[]",
        "NaN",
        '{"tool": "stock"',
        '{"tool": 5, "arguments": {}}',
        '{"tool": "stock", "arguments": []}',
        '{"tool": "stock", "arguments": {}, "more": 1}',
        '{"answer": 5}',
        '{"answer": {}, "tool": "stock"}',
        '{"answer": {"left": NaN}}',
        '{"answer": {"left": 1e999}}',
        '{"answer": {"left": 1, "left": 5}}',
        '{"answer": {"left": ' + "9" * 5000 + "}}",
        '{"answer": {"left": 18446744073709551616}}',
        '{"tool": "stock", "arguments": {"item": "\\ud800"}}',
        "[" * 100_000,
        '{"answer":' + '{"a":' * 50 + "1" + "}" * 51,
        " " * 300_000,
    ],
    ids=lambda text: text[:30] or "empty",
)
def test_malformed_action_is_an_observation(env, text):
    env.reset(seed=0)
    observation, reward, terminated, truncated, info = env.step(text)
    assert json.loads(observation)["error"]["code"] == "malformed"
    assert (reward, terminated, truncated, info["call"]) == (0.0, False, False, None)


@pytest.mark.parametrize(
    ("style", "expected"),
    [
        ("code", {"error": 404}),
        ("terse", {"error": {"code": "not_found"}}),
        ("verbose", {"error": {"code": "not_found", "message": "there is no such item"}}),
    ],
)
def test_error_styles(jail, make_spec, make_task, style, expected):
    spec = make_spec(error_style=style)
    env = make_env(spec, make_task(spec), jail=jail)
    env.reset(seed=0)
    text, *_, info = act(env, "stock", item="gold")
    assert json.loads(text) == expected
    assert info["error"] == "not_found"
    env.close()


def test_reset_undoes_everything_and_is_deterministic(env):
    first, info = env.reset(seed=5)
    image = env.final_image()
    act(env, "buy", item="nut", count=1)
    assert json.loads(act(env, "stock", item="nut")[0])["result"] == {"stock": 2, "asked": 1}
    assert env.reset(seed=5) == (first, info)
    assert env.final_image() == image
    # Module state of a tool does not leak from one episode into the next either.
    assert json.loads(act(env, "stock", item="nut")[0])["result"] == {"stock": 3, "asked": 1}


def test_seed_picks_among_tasks_and_options_fix_one(jail, spec, make_task):
    tasks = [make_task(spec, prompt=f"Variant {number}") for number in range(5)]
    env = make_env(spec, tasks, jail=jail)
    picked = [env.reset(seed=seed)[1]["task"] for seed in range(20)]
    assert picked == [env.reset(seed=seed)[1]["task"] for seed in range(20)]
    assert len(set(picked)) > 1
    assert env.reset(seed=0, options={"task": 3})[1]["task"] == tasks[3].hash
    assert env.reset(options={"task": tasks[4].hash[:12]})[1]["task"] == tasks[4].hash
    assert env.task == tasks[4]
    for wrong in (5, -1, "", "zz"):
        with pytest.raises(SpecError):
            env.reset(options={"task": wrong})
    env.close()


def test_task_of_another_environment_is_refused(make_spec, make_task):
    with pytest.raises(SpecError, match="belongs to environment"):
        make_env(make_spec(title="Another"), make_task(make_spec()))
    with pytest.raises(SpecError, match="no task"):
        make_env(make_spec(), [])


def test_overlay_rows_are_part_of_the_world(jail, spec, make_task):
    task = make_task(spec, overlay=[{"table": "items", "row": {"name": "tea", "stock": 1, "note": None}}])
    env = make_env(spec, task, jail=jail)
    env.reset(seed=0)
    assert json.loads(act(env, "stock", item="tea")[0])["result"]["stock"] == 1
    env.close()


def test_info_never_holds_expected_values(jail, spec, make_task):
    secret = 731_944
    task = make_task(
        spec,
        oracle={"answer": {"left": secret}, "changes": []},
        verifier={
            "form": "atoms",
            "atoms": [{"id": "left", "kind": "answer", "quote": "left", "expression": f"answer['left'] == {secret}"}],
        },
    )
    env = make_env(spec, task, jail=jail)
    seen = [env.reset(seed=0)]
    seen.append(act(env, "stock", item="nut"))
    seen.append(env.step("nonsense"))
    seen.append(answer(env, left=1))
    assert seen[-1][1] == 0.0
    assert str(secret) not in json.dumps(plain(seen))
    env.close()


def test_render_shows_the_transcript(env):
    env.reset(seed=0)
    act(env, "stock", item="nut")
    text = env.render()
    assert text is not None
    assert '> {"tool": "stock"' in text
    assert '{"result":{"stock":3,"asked":1}}' in text


def test_close_may_be_called_twice_and_reset_reopens(env):
    env.reset(seed=0)
    env.close()
    env.close()
    with pytest.raises(ResetNeeded):
        env.step("{}")
    env.reset(seed=0)
    assert act(env, "stock", item="nut")[4]["error"] is None


def test_check_env_passes(env):
    check_env(env, skip_render_check=True)


def test_environment_is_not_shadowed_by_gymnasium_spec(env, spec):
    assert env.environment == spec
    assert env.spec is None or isinstance(env.spec, gymnasium.envs.registration.EnvSpec)


TEXTS = st.one_of(
    st.text(max_size=60),
    st.from_regex(r'\{"(tool|answer)": ?("(buy|stock)"|\{\}), ?"arguments": ?\{"item": ?.{0,9}\}\}', fullmatch=True),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(["tool", "arguments", "answer", "item", "left"]), inner, max_size=3)
        ),
        max_leaves=8,
    ).map(json.dumps),
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts=st.lists(TEXTS, min_size=1, max_size=6))
def test_no_text_raises(env, texts: list[str]):
    env.reset(seed=0)
    for text in texts:
        result: Any = env.step(text)
        assert result[0] in env.observation_space
        json.loads(result[0])
        if result[2] or result[3]:
            break
