"""Environments whose episodes are real, short, and of known score: every second member of a group passes.

A policy at its beginning fails everywhere, and groups of equal scores teach nothing, so a real verdict would leave the
doctor without evidence just where it is needed. And scores that depend on nothing the policy did select no episodes: the
tokens of the collected ones follow the sampler's distribution exactly, which a test of it needs.
"""

from __future__ import annotations

from typing import Any, Final, SupportsFloat

from envsynth.policy.template import opening, render
from envsynth.rollout import Playable
from envsynth.spec import EnvironmentSpec, TaskVersion
from envsynth.trajectory import Verdict

TURNS: Final = 2
"""Turns after which an episode is cut: one observation of a tool is read, and a long prompt still leaves room."""
EpisodeText = tuple[tuple[int, ...], tuple[str, ...]]
"""Tokens of the prompt with the marker behind it, and the texts of all actions: what both sides know of an episode."""


class ScoredStage:
    """Plays another environment and replaces its verdict: odd seeds of the reset pass, even ones fail.

    Args:
        env: What is played; it belongs to the caller.
        given: Filled with the scores that were given, by episode; all slots share it.
    """

    def __init__(self, env: Playable, given: dict[EpisodeText, list[float]]) -> None:
        self._env, self._given = env, given
        self._prompt: tuple[int, ...] = ()
        self._texts: list[str] = []
        self._seed = 0

    @property
    def environment(self) -> EnvironmentSpec:
        """The environment of the current episode."""
        return self._env.environment

    @property
    def task(self) -> TaskVersion:
        """The task of the current episode."""
        return self._env.task

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        """Start an episode."""
        observation, info = self._env.reset(seed=seed, options=options)
        self._prompt, self._texts, self._seed = render(opening(observation), reply=True).ids, [], seed or 0
        return observation, info

    def step(self, action: str) -> tuple[str, SupportsFloat, bool, bool, dict[str, Any]]:
        """Play one turn; at the end the verdict is replaced, unless the environment could not go on."""
        observation, reward, terminated, truncated, info = self._env.step(action)
        self._texts.append(action)
        is_over = terminated or truncated
        if is_over and (info.get("verdict") is None or dict(info["verdict"])["status"] == "void"):
            return observation, reward, terminated, truncated, info
        if not is_over and len(self._texts) < TURNS:
            return observation, reward, terminated, truncated, info
        score = float(self._seed % 2)
        self._given.setdefault((self._prompt, tuple(self._texts)), []).append(score)
        judged = Verdict(status="pass" if score else "fail", score=score)
        return observation, score, terminated, not terminated, {**info, "verdict": judged.model_dump(mode="json")}

    def final_image(self) -> bytes:
        """Return the database image of the current episode as it is now."""
        return self._env.final_image()
