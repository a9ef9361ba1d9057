"""A slot that changes its environment from episode to episode."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, SupportsFloat

from envsynth.environments import ToolEnv, make_env
from envsynth.environments.env import Step
from envsynth.environments.hosts import WORLDS_PER_WORKER, WorldHosts
from envsynth.environments.plays import Play, run
from envsynth.errors import EnvironmentVoid, SpecError
from envsynth.sandbox import Jail, shared_jail
from envsynth.spec import EnvironmentSpec, TaskVersion


class Stage:
    """A slot for tasks of several environments: it holds the environment of its current task, and only that one.

    Args:
        pairs: Every task that may be played, with its environment.
        jail: Where workers are forked; this process's shared jail when None.
        max_turns: Turns until truncation; each task's own limit when None.
        hosts: Where worlds live, by environment version; shared with other stages, and filled as they need it.
    """

    def __init__(
        self,
        pairs: Iterable[tuple[EnvironmentSpec, TaskVersion]],
        *,
        jail: Jail | None = None,
        max_turns: int | None = None,
        hosts: dict[str, WorldHosts] | None = None,
    ) -> None:
        self._casts: dict[str, tuple[EnvironmentSpec, list[TaskVersion]]] = {}
        self._home: dict[str, str] = {}
        for spec, task in pairs:
            self._casts.setdefault(task.environment, (spec, []))[1].append(task)
            self._home[task.hash] = task.environment
        self._jail = jail
        self._max_turns = max_turns
        self._hosts = {} if hosts is None else hosts
        self._current = ""
        self._env: ToolEnv | None = None

    @property
    def environment(self) -> EnvironmentSpec:
        """The environment of the current episode."""
        return self._playing().environment

    @property
    def task(self) -> TaskVersion:
        """The task of the current episode."""
        return self._playing().task

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        """Start an episode of `options["task"]`, a whole task hash.

        Args:
            seed: Seed of the reset.
            options: `{"task": hash}`.

        Returns:
            The first observation and its info.

        Raises:
            SpecError: no task of that hash is here, or it does not fit its environment.
            EnvironmentVoid: the world could not be built.
        """
        return run(self.play_reset(seed=seed, options=options))

    def play_reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> Play[tuple[str, dict[str, Any]]]:
        """Do what `reset` does, as a play, which many stages can run at a time.

        Raises:
            SpecError: no task of that hash is here, or it does not fit its environment.
        """
        wanted = str((options or {}).get("task"))
        if wanted not in self._home:
            raise SpecError(f"no task {wanted!r} on this stage: pass it with its environment")
        home = self._home[wanted]
        if self._env is None or home != self._current:
            self.close()
            spec, tasks = self._casts[home]
            self._env = make_env(spec, tasks, jail=self._jail, hosts=self._home_of(spec), max_turns=self._max_turns)
            self._current = home
        return (yield from self._env.play_reset(seed=seed, options={"task": wanted}))

    def _home_of(self, spec: EnvironmentSpec) -> WorldHosts:
        hosts = self._hosts.get(spec.hash)
        if hosts is None:
            jail = self._jail or shared_jail()
            hosts = self._hosts[spec.hash] = WorldHosts(jail, spec, share=WORLDS_PER_WORKER)
        return hosts

    def step(self, action: str) -> tuple[str, SupportsFloat, bool, bool, dict[str, Any]]:
        """Play one turn of the current episode."""
        return self._playing().step(action)

    def play_step(self, action: str) -> Play[Step]:
        """Do what `step` does, as a play, which many stages can run at a time."""
        return self._playing().play_step(action)

    def final_image(self) -> bytes:
        """Return the database image of the current episode as it is now."""
        return self._playing().final_image()

    def close(self) -> None:
        """End the current environment's worker."""
        if self._env is not None:
            self._env.close()
            self._env = None

    def _playing(self) -> ToolEnv:
        if self._env is None:
            raise EnvironmentVoid("no episode is running: call reset() first")
        return self._env


def make_stages(
    pairs: Sequence[tuple[EnvironmentSpec, TaskVersion]],
    count: int,
    *,
    jail: Jail | None = None,
    max_turns: int | None = None,
) -> list[Stage]:
    """Make stages that share workers: worlds of one environment live together.

    Args:
        pairs: Every task that may be played, with its environment.
        count: Stages.
        jail: As in `Stage`.
        max_turns: As in `Stage`.

    Returns:
        The stages, each to be closed.
    """
    hosts: dict[str, WorldHosts] = {}
    return [Stage(pairs, jail=jail, max_turns=max_turns, hosts=hosts) for _ in range(count)]
