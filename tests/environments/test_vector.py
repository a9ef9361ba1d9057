from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from gymnasium.error import ResetNeeded
from gymnasium.vector import AutoresetMode, VectorEnv

from envsynth.environments import ToolVectorEnv, make_env
from envsynth.environments.spaces import Facts
from envsynth.errors import EnvironmentVoid, SpecError

STOCK = json.dumps({"tool": "stock", "arguments": {"item": "nut"}})
ANSWER = json.dumps({"answer": {"left": 5}})
EXIT = json.dumps({"tool": "misbehave", "arguments": {"how": "exit"}})


@pytest.fixture
def make_slots(jail, make_spec, make_task):
    made = []

    def make(mode=AutoresetMode.NEXT_STEP, n=2):
        specs = [make_spec(title=f"Shop {number}") for number in range(n)]
        envs = ToolVectorEnv(
            [make_env(spec, make_task(spec), jail=jail, render_mode="ansi") for spec in specs],
            autoreset_mode=mode,
        )
        made.append(envs)
        return envs

    yield make
    for envs in made:
        envs.close()


def test_next_step_resets_an_ended_slot_and_ignores_its_action(make_slots):
    envs = make_slots()
    texts, infos = envs.reset(seed=1)
    assert len(set(infos["environment"])) == 2
    _, _, terminations, _, infos = envs.step([ANSWER, STOCK])
    assert list(terminations) == [True, False]
    assert list(infos["_final_state"]) == [True, False]
    texts, rewards, terminations, _, infos = envs.step([ANSWER, STOCK])
    assert texts[0].startswith("# Task")
    assert not terminations.any()
    assert list(infos["turn"]) == [0, 2]
    assert list(rewards) == [0.0, 0.0]


def test_same_step_returns_the_new_observation_and_the_final_one(make_slots):
    envs = make_slots(AutoresetMode.SAME_STEP)
    envs.reset(seed=1)
    texts, _, terminations, _, infos = envs.step([ANSWER, STOCK])
    assert texts[0].startswith("# Task")
    assert list(terminations) == [True, False]
    assert infos["final_obs"][0] == '{"result":"answer received"}'
    assert infos["final_info"]["verdict"][0]["status"] == "fail"
    assert not envs.step([STOCK, STOCK])[2].any()


def test_disabled_needs_a_masked_reset(make_slots):
    envs = make_slots("Disabled")
    envs.reset(seed=1)
    envs.step([ANSWER, STOCK])
    with pytest.raises(ResetNeeded):
        envs.step([STOCK, STOCK])
    texts, infos = envs.reset(options={"reset_mask": np.array([True, False])})
    assert texts[1] == ""
    assert list(infos["_turn"]) == [True, False]
    envs.step([STOCK, STOCK])
    with pytest.raises(SpecError, match="reset_mask"):
        envs.reset(options={"reset_mask": [1, 0, 1]})


def test_void_slot_is_nan_and_plays_again(make_slots):
    envs = make_slots()
    envs.reset(seed=1)
    _, rewards, terminations, truncations, infos = envs.step([EXIT, STOCK])
    assert np.isnan(rewards[0])
    assert rewards[1] == 0.0
    assert (list(terminations), list(truncations)) == ([False, False], [True, False])
    assert list(infos["_void"]) == [True, False]
    envs.step([STOCK, STOCK])
    assert list(envs.step([STOCK, STOCK])[4]["error"]) == [None, None]


def test_failed_autoreset_voids_one_slot_only(make_slots, monkeypatch):
    envs = make_slots()
    envs.reset(seed=1)
    envs.step([ANSWER, STOCK])

    def broken(**_):
        raise EnvironmentVoid("no worker")

    with monkeypatch.context() as patch:
        patch.setattr(envs.envs[0], "play_reset", broken)
        texts, rewards, _, truncations, infos = envs.step([STOCK, STOCK])
    assert np.isnan(rewards[0])
    assert list(truncations) == [True, False]
    assert infos["void"][0] == "no worker"
    assert json.loads(texts[0]) == {"error": {"code": "void"}}
    assert envs.step([STOCK, STOCK])[0][0].startswith("# Task")


def test_seeds(make_slots):
    envs = make_slots()
    envs.reset(seed=[1, None])
    with pytest.raises(SpecError, match="seeds"):
        envs.reset(seed=[1])
    with pytest.raises(SpecError, match="actions"):
        envs.step([STOCK])
    with pytest.raises(SpecError, match="slot"):
        ToolVectorEnv([])


def test_render_gives_each_transcript(make_slots):
    envs = make_slots()
    envs.reset(seed=1)
    envs.step([STOCK, "x"])
    assert "stock" in envs.render()[0]


INFOS = [
    {"task": "a", "turn": 1, "call": Facts({"tool": "x"}), "error": None},
    {"task": "b", "turn": 2, "call": None, "error": "invalid", "void": "no worker"},
    {
        "final_obs": "text",
        "final_info": {"turn": 7, "verdict": Facts({"score": 1.0})},
        "task": "c",
        "share": 0.5,
        "on": True,
    },
    {},
    {"turn": 5, "final_obs": "more", "final_info": {"turn": 8}, "array": np.ones(2)},
    {"task": "d", "turn": 9, "call": None, "error": "timeout"},
]


@pytest.mark.parametrize(
    "order", [[0, 1, 2, 3, 4], [4, 2, 0, 1, 3], [3, 3, 3, 3, 3], [1, 1, 0, 0, 2], [0, 0, 5], [5, 0], [4, 4], [2, 2]]
)
def test_infos_are_merged_as_gymnasium_does(make_slots, order):
    envs = make_slots()
    envs.num_envs = len(order)
    infos = [INFOS[number] for number in order]
    expected: dict[str, Any] = {}
    for slot, info in enumerate(infos):
        expected = VectorEnv._add_info(envs, expected, info, slot)
    found = envs.merged(range(len(order)), infos)
    assert list(found) == list(expected)
    check_equal(found, expected)
    envs.num_envs = len(envs.envs)


def check_equal(found, expected):
    for key, value in expected.items():
        if isinstance(value, dict):
            check_equal(found[key], value)
        else:
            assert found[key].dtype == value.dtype, key
            assert found[key].tolist() == value.tolist(), key
