"""Other people's text environments through the same door: any Gymnasium environment whose actions and observations are texts.

`rollout` plays what the house makes: an environment that names its task and ends with a verdict. `TextEnv` says the same of
a foreign environment, without inventing a world for it: a task is a seed of its reset, the verdict's score is its return.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, field
from typing import Any, Protocol, SupportsFloat, cast

from envsynth.delivery import AS_IT_IS, Delivery
from envsynth.environments import ToolEnv
from envsynth.errors import EnvironmentVoid, SpecError
from envsynth.rollout import Playable
from envsynth.spec import EnvironmentSpec, TaskVersion
from envsynth.trajectory import CheckResult, Verdict, void_verdict


class TextGym(Protocol):
    """What is needed of a foreign environment; `gymnasium.Env` has it."""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        """Start an episode."""
        ...

    def step(self, action: str) -> tuple[str, SupportsFloat, bool, bool, dict[str, Any]]:
        """Play one turn."""
        ...

    def close(self) -> None:
        """Release what it holds."""
        ...


@dataclass(frozen=True)
class _Home:
    """What `rollout` reads of an environment version: there are no tools."""

    hash: str
    tools: tuple[()] = ()


@dataclass(frozen=True)
class _Task:
    """What `rollout` reads of a task version: any text is an answer."""

    hash: str
    environment: str
    answer_schema: dict[str, Any] = field(default_factory=dict)
    delivery: Delivery = AS_IT_IS


class TextEnv:
    """Plays a foreign environment as one of the house's.

    Args:
        env: The environment; closed with this one.
        name: Its name; equal names mean equal environments.
        max_turns: Turns until truncation (count, >= 1).
        pass_at: Return from which an episode counts as passed.

    Raises:
        SpecError: max_turns < 1.
    """

    def __init__(self, env: TextGym, *, name: str, max_turns: int = 16, pass_at: float = 1.0) -> None:
        if max_turns < 1:
            raise SpecError(f"max_turns must be at least 1, not {max_turns}")
        self._env, self._name, self._max_turns, self._pass_at = env, name, max_turns, pass_at
        self._home = _Home(_digest(name))
        self._task = _Task(_digest(f"{name}/0"), self._home.hash)
        self._seeds: dict[str, int] = {}
        self._turn, self._return = 0, 0.0

    def tasks(self, count: int) -> list[str]:
        """Return the hashes of so many tasks: the resets with the seeds 0, 1, ...

        Args:
            count: How many.

        Returns:
            Hashes; this environment plays these and no others.
        """
        found = [_digest(f"{self._name}/{seed}") for seed in range(count)]
        self._seeds |= {task: seed for seed, task in enumerate(found)}
        return found

    @property
    def environment(self) -> EnvironmentSpec:
        """What stands in for an environment version: a name and no tools."""
        return cast("EnvironmentSpec", self._home)

    @property
    def task(self) -> TaskVersion:
        """What stands in for a task version: a hash and no schema."""
        return cast("TaskVersion", self._task)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        """Start an episode of `options["task"]`.

        Args:
            seed: Not used: the task is the seed, and equal tasks must be equal for all members of a group.
            options: `{"task": hash}`.

        Returns:
            The first observation and its info.

        Raises:
            SpecError: `tasks` gave out no such hash.
        """
        wanted = str((options or {}).get("task"))
        if wanted not in self._seeds:
            raise SpecError(f"no task {wanted!r} in {self._name!r}: call tasks() first")
        self._task = _Task(wanted, self._home.hash)
        self._turn, self._return = 0, 0.0
        text, _ = self._env.reset(seed=self._seeds[wanted])
        return str(text), self._info()

    def step(self, action: str) -> tuple[str, SupportsFloat, bool, bool, dict[str, Any]]:
        """Play one turn; the last one brings the verdict.

        Args:
            action: Any text.

        Returns:
            Observation, reward, terminated, truncated, info, in Gymnasium's sense.
        """
        text, reward, terminated, truncated, _ = self._env.step(action)
        self._turn += 1
        self._return += float(reward)
        truncated = bool(truncated) or (not terminated and self._turn >= self._max_turns)
        info = self._info()
        if terminated or truncated:
            info["verdict"] = self._verdict().model_dump(mode="json")
        return str(text), float(reward), bool(terminated), truncated, info

    def final_image(self) -> bytes:
        """Refuse: a foreign environment has no database.

        Raises:
            EnvironmentVoid: always.
        """
        raise EnvironmentVoid(f"{self._name!r} is no environment of this house: it has no image")

    def close(self) -> None:
        """Close the environment."""
        self._env.close()

    def _verdict(self) -> Verdict:
        if not math.isfinite(self._return):
            return void_verdict(f"the return is {self._return}")
        passed = self._return >= self._pass_at
        check = CheckResult(id="return", ok=passed, reason="" if passed else f"below {self._pass_at:g}")
        return Verdict(status="pass" if passed else "fail", score=self._return, checks=(check,))

    def _info(self) -> dict[str, Any]:
        return {
            "task": self._task.hash,
            "environment": self._home.hash,
            "turn": self._turn,
            "call": None,
            "error": None,
        }


def playable(env: Any, *, name: str | None = None, max_turns: int = 16) -> Playable:
    """Make a slot of what `gymnasium.make` returned.

    Args:
        env: An environment, wrapped or not.
        name: Name of a foreign one; its class's by default.
        max_turns: Turns of a foreign one until truncation.

    Returns:
        The house's own environment without its wrappers, or a `TextEnv` around a foreign one.
    """
    inner = getattr(env, "unwrapped", env)
    if isinstance(inner, ToolEnv):
        return inner
    return TextEnv(env, name=name or type(inner).__name__, max_turns=max_turns)


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
