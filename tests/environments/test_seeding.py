"""The generator of an environment is made when somebody asks for it, and is the one that Gymnasium would have made."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest
from gymnasium.utils import seeding

from envsynth.environments import make_env
from envsynth.errors import EnvironmentVoid


class Plain(gymnasium.Env):
    """Draws as Gymnasium's own seeding has it."""

    def __init__(self, tasks: int) -> None:
        self.tasks = tasks

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return int(self.np_random.integers(self.tasks)), {}


@pytest.fixture
def envs(jail, spec, make_task, request):
    tasks = [make_task(spec, prompt=f"Task number {number}: buy two of thé.") for number in range(request.param)]
    env = make_env(spec, tasks, jail=jail)
    yield env, Plain(request.param), [task.hash for task in tasks]
    env.close()


@pytest.mark.parametrize("envs", [1, 3], indirect=True)
def test_tasks_and_numbers_are_those_of_an_eager_generator(envs):
    env, plain, hashes = envs
    for seed in (7, None, None, 8, 8, None, 0, 2**70):
        drawn, _ = plain.reset(seed=seed)
        assert env.reset(seed=seed)[1]["task"] == hashes[drawn]
        assert env.np_random_seed == plain.np_random_seed
        if seed in (None, 8):
            assert env.np_random.integers(1 << 40) == plain.np_random.integers(1 << 40)
            assert env.np_random.bit_generator.state == plain.np_random.bit_generator.state


@pytest.mark.parametrize("envs", [1, 3], indirect=True)
def test_a_generator_of_ones_own_is_used_until_the_next_seed(envs):
    env, plain, hashes = envs
    for each in (env, plain):
        each.reset(seed=1)
        each.np_random, _ = seeding.np_random(99)
    assert env.np_random_seed == plain.np_random_seed == -1
    assert [env.reset()[1]["task"] for _ in range(4)] == [hashes[plain.reset()[0]] for _ in range(4)]
    assert env.np_random.bit_generator.state == plain.np_random.bit_generator.state
    assert env.reset(seed=5)[1]["task"] == hashes[plain.reset(seed=5)[0]]
    assert env.np_random_seed == 5
    assert env.np_random.bit_generator.state == plain.np_random.bit_generator.state


@pytest.mark.parametrize("envs", [1], indirect=True)
def test_without_a_seed_there_is_a_generator_all_the_same(envs):
    env, _, _ = envs
    env.reset()
    assert isinstance(env.np_random, np.random.Generator)
    assert env.np_random_seed > 0


@pytest.mark.parametrize("envs", [1], indirect=True)
@pytest.mark.parametrize("seed", [-1, "1", 1.0, np.int64(3)])
def test_seeds_that_gymnasium_refuses_are_refused(envs, seed):
    env, plain, _ = envs
    with pytest.raises(gymnasium.error.Error) as ours:
        env.reset(seed=seed)
    with pytest.raises(gymnasium.error.Error) as theirs:
        plain.reset(seed=seed)
    assert str(ours.value) == str(theirs.value)


@pytest.mark.parametrize("envs", [1], indirect=True)
def test_no_generator_is_made_where_nothing_is_drawn(envs, monkeypatch):
    def refused(*_):
        raise EnvironmentVoid("a generator was made")

    env, _, _ = envs
    with monkeypatch.context() as patched:
        patched.setattr(seeding, "np_random", refused)
        env.reset(seed=3)
        assert env.np_random_seed == 3
        with pytest.raises(EnvironmentVoid, match="made"):
            env.np_random.random()
    assert env.np_random.bit_generator.state == seeding.np_random(3)[0].bit_generator.state
