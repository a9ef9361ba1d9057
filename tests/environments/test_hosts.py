"""Where worlds live: sharing, replacement, and that episodes in one process do not see each other."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from envsynth.environments import ToolVectorEnv, make_env
from envsynth.environments import hosts as hosts_module
from envsynth.environments.hosts import WorldHosts
from envsynth.environments.making import vector_of
from envsynth.errors import EnvironmentVoid

STOCK = json.dumps({"tool": "stock", "arguments": {"item": "nut"}})
BUY = json.dumps({"tool": "buy", "arguments": {"item": "thé", "count": 2}})
EXIT = json.dumps({"tool": "misbehave", "arguments": {"how": "exit"}})
RIGHT = json.dumps({"answer": {"left": 5}})


def slots(jail, spec, task, count, **options):
    hosts = WorldHosts(jail, spec, **options)
    return hosts, [make_env(spec, task, jail=jail, hosts=hosts) for _ in range(count)]


def test_worlds_share_a_process_but_no_state(jail, spec, task):
    hosts, envs = slots(jail, spec, task, 3, share=8)
    for env in envs:
        env.reset(seed=1)
    assert len(hosts._hosts) == 1
    first = [json.loads(envs[0].step(STOCK)[0])["result"]["asked"] for _ in range(3)]
    assert first == [1, 2, 3]
    assert json.loads(envs[1].step(STOCK)[0])["result"]["asked"] == 1
    envs[0].step(BUY)
    assert [env.step(RIGHT)[1] for env in envs] == [1.0, 0.0, 0.0]
    for env in envs:
        env.close()
    assert hosts._hosts == []


def test_dead_process_voids_its_worlds_and_is_replaced(jail, spec, task):
    _, envs = slots(jail, spec, task, 2, share=8)
    for env in envs:
        env.reset(seed=1)
    _, reward, _, truncated, info = envs[0].step(EXIT)
    assert (math.isnan(reward), truncated, info["verdict"]["cause"]) == (True, True, "crash")
    _, reward, _, truncated, info = envs[1].step(STOCK)
    assert (math.isnan(reward), truncated) == (True, True)
    for env in envs:
        env.reset(seed=1)
        assert json.loads(env.step(STOCK)[0])["result"]["stock"] == 3
        env.close()


def test_fork_takes_a_fresh_process_for_each_episode(jail, spec, task):
    hosts, [env] = slots(jail, spec, task, 1, reset="fork", share=8)
    seen = []
    for _ in range(3):
        env.reset(seed=1)
        seen.append(hosts._hosts[0].worker)
        assert json.loads(env.step(STOCK)[0])["result"]["asked"] == 1
    assert len({id(worker) for worker in seen}) == 3
    assert [worker.alive for worker in seen] == [False, False, True]
    env.close()


@pytest.mark.parametrize("most", [128 << 10, 0])
def test_fresh_processes_begin_with_the_image_of_their_task(jail, spec, make_task, monkeypatch, most):
    """Also where there are more images than pools, and where images are too large to be sent ahead."""
    monkeypatch.setattr(hosts_module, "READY_BYTES", most)
    names = ["tea", "rice", "salt", "oil", "soap", "wax"]
    assert len(names) > hosts_module.READY_IMAGES
    tasks = [make_task(spec, overlay=[{"table": "items", "row": {"name": n, "stock": 1, "note": None}}]) for n in names]
    env = make_env(spec, tasks, jail=jail, reset_mode="fork", max_turns=20)
    for _ in range(3):
        for number, name in enumerate(names):
            env.reset(options={"task": number})
            stock = {other: json.loads(env.step(STOCK.replace("nut", other))[0]) for other in names}
            assert [other for other in names if "result" in stock[other]] == [name], stock
            assert json.loads(env.step(BUY)[0])["result"]
            assert env.final_image() != env.initial_image()
    env.close()


def test_tired_process_gets_no_new_episode(jail, spec, task, monkeypatch):
    hosts, envs = slots(jail, spec, task, 2, share=8)
    for env in envs:
        env.reset(seed=1)
    old = hosts._hosts[0]
    old.used_s = 0.9 * jail.limits.cpu_s
    envs[0].reset(seed=1)
    assert len(hosts._hosts) == 2
    assert json.loads(envs[1].step(STOCK)[0])["result"]["stock"] == 3  # its episode goes on where it was
    envs[1].reset(seed=1)
    assert old not in hosts._hosts
    assert not old.worker.alive
    for env in envs:
        env.close()


def test_large_worlds_share_with_fewer(jail, spec, task, monkeypatch):
    monkeypatch.setattr(hosts_module, "WORLDS_BYTES", 40_000)
    hosts, envs = slots(jail, spec, task, 4, share=8)
    for env in envs:
        env.reset(seed=1)
    sizes = [sum(host.worlds.values()) for host in hosts._hosts]
    assert len(sizes) > 1
    assert all(size <= 40_000 or len(host.worlds) == 1 for size, host in zip(sizes, hosts._hosts, strict=True))
    for env in envs:
        env.close()


def test_held_images_are_dropped_when_there_are_many(jail, spec, task, make_task, monkeypatch):
    monkeypatch.setattr(hosts_module, "HELD_BYTES", 40_000)
    tasks = [make_task(spec, prompt=f"Buy two thé and say how many are left, {number}.") for number in range(5)]
    hosts = WorldHosts(jail, spec, share=8)
    env = make_env(spec, tasks, jail=jail, hosts=hosts)
    for number in [0, 1, 2, 3, 4, 0, 4]:
        env.reset(options={"task": number})
        env.step(BUY)
        assert env.step(RIGHT)[1] == 1.0
        assert sum(hosts._hosts[0].held.values()) <= 40_000
    env.close()


@pytest.mark.parametrize("mode", ["reload", "fork"])
def test_vector_environments_take_the_mode(jail, spec, task, mode):
    envs = vector_of(3, spec, [task], jail=jail, reset_mode=mode)
    assert isinstance(envs, ToolVectorEnv)
    envs.reset(seed=1)
    envs.step([BUY] * 3)
    assert list(envs.step([RIGHT] * 3)[1]) == [1.0] * 3
    envs.close()


def test_one_killer_voids_its_neighbours_once_and_all_play_on(jail, spec, task):
    envs = vector_of(4, spec, [task], jail=jail)
    envs.reset(seed=1)
    envs.step([BUY] * 4)
    _, rewards, _, truncations, _ = envs.step([RIGHT, EXIT, RIGHT, STOCK])
    assert np.isnan(rewards).all()
    assert list(truncations) == [True] * 4
    envs.step([STOCK] * 4)
    envs.step([BUY] * 4)
    assert list(envs.step([RIGHT] * 4)[1]) == [1.0] * 4
    envs.close()


def test_tools_that_do_not_load_are_named(jail, make_spec, make_task, tool_entry):
    spec = make_spec(
        tools=[tool_entry("one", "def one(db):\n    return 1\n", "read"), tool_entry("two", "x = (\n", "read")]
    )
    env = make_env(spec, make_task(spec), jail=jail)
    with pytest.raises(EnvironmentVoid, match="tool 'two' does not load: SyntaxError"):
        env.reset(seed=1)


SLY = """
import sys

def sly(db):
    frame = sys._getframe()
    while "frames" not in frame.f_globals:
        frame = frame.f_back
    frames = frame.f_globals["frames"]
    honest = frames._encode
    frames._encode = lambda value: honest(value).replace(":", " :  ")
    return {"a": 1}
"""


def test_observation_is_compact_whatever_the_worker_writes(jail, make_spec, make_task, tool_entry):
    spec = make_spec(tools=[tool_entry("sly", SLY, "read")])
    env = make_env(spec, make_task(spec), jail=jail)
    env.reset(seed=1)
    action = json.dumps({"tool": "sly", "arguments": {}})
    assert [env.step(action)[0] for _ in range(2)] == ['{"result":{"a":1}}'] * 2
    env.close()
