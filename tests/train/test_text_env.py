"""Somebody's environment plays through the house's loop; the house's own is taken as it is."""

from __future__ import annotations

import gymnasium
import pytest

from envsynth.environments import ToolEnv
from envsynth.errors import EnvironmentVoid, SpecError
from envsynth.rollout import EpisodeRequest, rollout
from envsynth.train.text_env import TextEnv, playable
from envsynth.trajectory import Episode, Move, StopReason
from tests.train.conftest import Bandit


class Arm:
    name = "arm"

    def __init__(self, text: str) -> None:
        self.text, self.seen = text, []

    def start(self, slot: int, episode: Episode) -> None:
        self.seen.append(episode.prompt)

    def act(self, slots, observations):
        return [Move(self.text) for _ in slots]

    def close(self) -> None:
        pass


class Endless(gymnasium.Env):
    def reset(self, *, seed=None, options=None):
        return "go on", {}

    def step(self, action):
        return "more", 0.25, False, False, {}


def test_rollout_plays_a_foreign_environment():
    env = playable(Bandit(), name="bandit")
    tasks = env.tasks(3)
    for text, reward, status in (("b", 1.0, "pass"), ("a", 0.0, "fail")):
        actor = Arm(text)
        found = rollout([env], actor, [EpisodeRequest(task, 0) for task in tasks])
        assert [item.reward for item in found] == [reward] * 3
        assert {item.verdict.status for item in found} == {status}
        assert {item.stop for item in found} == {StopReason.ANSWERED}
        assert actor.seen == ["arm 0 ?", "arm 1 ?", "arm 2 ?"]
        assert [item.task for item in found] == tasks


def test_a_return_that_is_no_number_is_void():
    env = playable(Bandit(broken=(0,)), name="bandit")
    (found,) = rollout([env], Arm("b"), [EpisodeRequest(env.tasks(1)[0], 0)])
    assert found.void
    assert found.reward is None


def test_an_endless_episode_is_truncated_and_its_rewards_add_up():
    env = playable(Endless(), max_turns=3)
    (found,) = rollout([env], Arm("x"), [EpisodeRequest(env.tasks(1)[0], 0)])
    assert found.stop is StopReason.MAX_TURNS
    assert len(found.turns) == 3
    assert found.reward == 0.75


def test_playable_unwraps_the_houses_own_environments():
    made = gymnasium.make("envsynth/counter-v1") if "envsynth/counter-v1" in gymnasium.registry else None
    names = [name for name in gymnasium.registry if name.startswith("envsynth/")]
    made = made or gymnasium.make(names[0])
    try:
        assert type(made) is not ToolEnv
        assert playable(made) is made.unwrapped
        assert isinstance(playable(made), ToolEnv)
    finally:
        made.close()


def test_text_env_refuses_what_it_cannot_do():
    env = TextEnv(Bandit(), name="bandit")
    with pytest.raises(SpecError, match="call tasks"):
        env.reset(options={"task": "0" * 32})
    with pytest.raises(EnvironmentVoid, match="no image"):
        env.final_image()
    with pytest.raises(SpecError, match="max_turns"):
        TextEnv(Bandit(), name="bandit", max_turns=0)
    env.close()
