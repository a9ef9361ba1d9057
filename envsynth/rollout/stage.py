"""A slot that changes its environment from episode to episode."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, SupportsFloat

from envsynth.environments import ToolEnv, make_env
from envsynth.errors import EnvironmentVoid, SpecError
from envsynth.sandbox import Jail
from envsynth.spec import EnvironmentSpec, TaskVersion


class Stage:
    """A slot for tasks of several environments: it holds the environment of its current task, and only that one.

    Args:
        pairs: Every task that may be played, with its environment.
        jail: Where workers are forked; this process's shared jail when None.
        max_turns: Turns until truncation; each task's own limit when None.
    """

    def __init__(
        self,
        pairs: Iterable[tuple[EnvironmentSpec, TaskVersion]],
        *,
        jail: Jail | None = None,
        max_turns: int | None = None,
    ) -> None:
        self._casts: dict[str, tuple[EnvironmentSpec, list[TaskVersion]]] = {}
        self._home: dict[str, str] = {}
        for spec, task in pairs:
            self._casts.setdefault(task.environment, (spec, []))[1].append(task)
            self._home[task.hash] = task.environment
        self._jail = jail
        self._max_turns = max_turns
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
        wanted = str((options or {}).get("task"))
        if wanted not in self._home:
            raise SpecError(f"no task {wanted!r} on this stage: pass it with its environment")
        home = self._home[wanted]
        if self._env is None or home != self._current:
            self.close()
            spec, tasks = self._casts[home]
            self._env = make_env(spec, tasks, jail=self._jail, max_turns=self._max_turns)
            self._current = home
        return self._env.reset(seed=seed, options={"task": wanted})

    def step(self, action: str) -> tuple[str, SupportsFloat, bool, bool, dict[str, Any]]:
        """Play one turn of the current episode."""
        return self._playing().step(action)

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
