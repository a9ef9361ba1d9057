"""Short ways into the loop: one episode, and groups of episodes of the same task."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from envsynth.environments import make_env
from envsynth.rollout.loop import rollout
from envsynth.rollout.protocols import Actor, EpisodeRequest, Playable
from envsynth.sandbox import Jail
from envsynth.spec import EnvironmentSpec, TaskVersion
from envsynth.trajectory import Group, Trajectory


def play(
    spec: EnvironmentSpec,
    task: TaskVersion,
    actor: Actor,
    seed: int = 0,
    jail: Jail | None = None,
    *,
    max_turns: int | None = None,
) -> Trajectory:
    """Play one episode.

    Args:
        spec: The environment version.
        task: One of its tasks.
        actor: Who plays; it is not closed.
        seed: Seed of the reset.
        jail: Where workers are forked; this process's shared jail when None.
        max_turns: Turns until truncation; the task's own limit when None.

    Returns:
        The trajectory; void after one retry when infrastructure failed.

    Raises:
        SpecError: the task belongs to another environment, or a schema is malformed.
    """
    env = make_env(spec, task, jail=jail, max_turns=max_turns)
    try:
        return rollout([env], actor, [EpisodeRequest(task.hash, seed)])[0]
    finally:
        env.close()


def groups(
    envs: Sequence[Playable],
    actor: Actor,
    tasks: Sequence[str],
    n: int,
    *,
    seed: int = 0,
    on_done: Callable[[Trajectory], None] | None = None,
    retries: int = 1,
) -> list[Group]:
    """Play each task several times, with the seeds `seed`, `seed + 1`, ...

    Args:
        envs: One environment per slot.
        actor: Who plays.
        tasks: Task hashes.
        n: Episodes of each task (count, >= 1).
        seed: First seed.
        on_done: As in `rollout`.
        retries: As in `rollout`.

    Returns:
        One group per task, in order; void members are in it, and leave through `Group.scored`.

    Raises:
        ValueError: n < 1.
    """
    if n < 1:
        raise ValueError(f"a group needs at least one episode, got n={n}")
    wanted = [EpisodeRequest(task, seed + i) for task in tasks for i in range(n)]
    played = rollout(envs, actor, wanted, on_done, retries=retries)
    return [
        Group(task=task, actor=actor.name, trajectories=tuple(played[i * n : (i + 1) * n]))
        for i, task in enumerate(tasks)
    ]
