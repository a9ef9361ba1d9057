"""Our own vector environment: many slots, several environment versions if wanted, one jail, no process per slot.

Each slot's tools run in a worker of the shared jail already, so Gymnasium's process per slot would only add a hop.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium.error import ResetNeeded
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from envsynth.environments.env import Step, ToolEnv
from envsynth.environments.plays import Play, reset_of, run_all, step_of
from envsynth.environments.spaces import Facts
from envsynth.environments.tools import compact_json
from envsynth.errors import EnvironmentVoid, SpecError

Batch = tuple[tuple[str, ...], NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]]
"""Observations, rewards [n], terminations [n], truncations [n], infos in Gymnasium's vector form."""


_NUMBERS = (int, float, bool)
_SINGLE = {str, int, float, bool, type(None)}
_TOGETHER = {*_SINGLE, Facts}
"""Types of values that are merged without Gymnasium's own function."""


class ToolVectorEnv(VectorEnv[tuple[str, ...], Sequence[str], NDArray[Any]]):
    """Step several `ToolEnv`s together; Gymnasium's vector protocol with all three autoreset modes.

    A slot whose reset fails does not stop the others: it reports NaN, truncated, with `infos["void"]`, and is reset again
    at the next step (mode `NEXT_STEP`).
    """

    def __init__(
        self,
        envs: Sequence[ToolEnv],
        *,
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
    ) -> None:
        """Take the slots over; closing this closes them.

        Args:
            envs: One environment per slot, with any specs and tasks.
            autoreset_mode: When ended slots are reset: next step, same step, or never.

        Raises:
            SpecError: there is no slot.
        """
        super().__init__()
        if not envs:
            raise SpecError("a vector environment needs at least one slot")
        self.envs = tuple(envs)
        self.num_envs = len(self.envs)
        self.autoreset_mode = AutoresetMode(autoreset_mode)
        self.metadata = {**self.envs[0].metadata, "autoreset_mode": self.autoreset_mode}
        self.render_mode = self.envs[0].render_mode
        self.single_observation_space = self.envs[0].observation_space
        self.single_action_space = self.envs[0].action_space
        self.observation_space = batch_space(self.envs[0].observation_space, self.num_envs)
        self.action_space = batch_space(self.envs[0].action_space, self.num_envs)
        self._ended = np.zeros(self.num_envs, dtype=np.bool_)

    def reset(
        self,
        *,
        seed: int | Sequence[int | None] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[tuple[str, ...], dict[str, Any]]:
        """Reset all slots, or those of `options["reset_mask"]`.

        Args:
            seed: One seed per slot, or a first seed that counts up, or None.
            options: Passed to every slot; `reset_mask` (bool [n]) leaves the other slots as they are and returns the
                empty text for them.

        Returns:
            Observations and infos.

        Raises:
            EnvironmentVoid: the world of a slot could not be built.
            SpecError: as many seeds as slots are needed.
        """
        seeds = self._seeds(seed)
        rest = dict(options or {})
        mask = np.asarray(rest.pop("reset_mask", np.ones(self.num_envs, dtype=np.bool_)))
        if mask.shape != (self.num_envs,) or mask.dtype != np.bool_:
            raise SpecError(f"reset_mask must be a bool array of {self.num_envs}, not {mask!r}")
        texts = [""] * self.num_envs
        slots = [slot for slot in range(self.num_envs) if mask[slot]]
        started = run_all([reset_of(self.envs[slot], seed=seeds[slot], options=rest or None) for slot in slots])
        for slot, (text, _) in zip(slots, started, strict=True):
            texts[slot] = text
            self._ended[slot] = False
        return tuple(texts), self.merged(slots, [info for _, info in started])

    def merged(self, slots: Sequence[int], infos: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Merge the infos of slots as Gymnasium does; several times faster when all slots have the same keys.

        Args:
            slots: Their numbers, ascending.
            infos: The infos of these slots.

        Returns:
            For each key an array with the slots' values, and under `_key` which slots have one.
        """
        keys = list(infos[0]) if infos else []
        if len(infos) == self.num_envs and all(list(info) == keys for info in infos):
            return self._merged_alike(keys, infos)
        found: dict[str, Any] = {}
        for slot, info in zip(slots, infos, strict=True):
            found = self._add_info(found, info, slot)
        return found

    def _merged_alike(self, keys: list[str], infos: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Merge infos of all slots that have the same keys, as nearly all steps do."""
        found: dict[str, Any] = {}
        for key, values in zip(keys, zip(*(info.values() for info in infos), strict=True), strict=True):
            kinds = set(map(type, values))
            if key == "final_obs" or not kinds <= _TOGETHER:
                for slot, value in enumerate(values):
                    found = self._add_info(found, {key: value}, slot)
                continue
            kind: Any = values[0].__class__
            array: NDArray[Any] = np.empty(self.num_envs, dtype=kind if kind in _NUMBERS else object)
            if kinds <= _SINGLE:
                array[:] = values
            else:  # a mapping has a length, and NumPy would look into it
                for slot, value in enumerate(values):
                    array[slot] = value
            found[key], found[f"_{key}"] = array, np.ones(self.num_envs, dtype=np.bool_)
        return found

    def _seeds(self, seed: int | Sequence[int | None] | None) -> list[int | None]:
        if seed is None:
            return [None] * self.num_envs
        if isinstance(seed, int):
            return [seed + slot for slot in range(self.num_envs)]
        if len(seed) != self.num_envs:
            raise SpecError(f"{len(seed)} seeds for {self.num_envs} slots")
        return list(seed)

    def step(self, actions: Sequence[str]) -> Batch:
        """Play one turn in every slot; in mode `NEXT_STEP` an ended slot is reset and its action ignored.

        Args:
            actions: One text per slot.

        Returns:
            Observations, rewards, terminations, truncations, infos.

        Raises:
            ResetNeeded: autoreset is disabled and a slot has ended.
            SpecError: as many actions as slots are needed.
        """
        if len(actions) != self.num_envs:
            raise SpecError(f"{len(actions)} actions for {self.num_envs} slots")
        if self.autoreset_mode is AutoresetMode.DISABLED and self._ended.any():
            raise ResetNeeded("a slot has ended: reset it with options={'reset_mask': ...}")
        again = self.autoreset_mode is AutoresetMode.SAME_STEP
        steps = run_all(
            [
                self._play(slot, action) if ended or again else step_of(self.envs[slot], action)
                for slot, (action, ended) in enumerate(zip(actions, self._ended.tolist(), strict=True))
            ]
        )
        texts, given, ended, cut, infos = zip(*steps, strict=True)
        rewards = np.array(given, dtype=np.float64)
        terminations, truncations = np.array(ended, dtype=np.bool_), np.array(cut, dtype=np.bool_)
        self._ended = np.logical_or(terminations, truncations)
        if self.autoreset_mode is AutoresetMode.SAME_STEP:
            self._ended[:] = False
        return texts, rewards, terminations, truncations, self.merged(range(self.num_envs), infos)

    def _play(self, slot: int, action: str) -> Play[Step]:
        env = self.envs[slot]
        if self._ended[slot]:
            return (yield from self._again(env))
        text, reward, terminated, truncated, info = yield from step_of(env, action)
        if self.autoreset_mode is not AutoresetMode.SAME_STEP or not (terminated or truncated):
            return text, reward, terminated, truncated, info
        ended = {"final_obs": text, "final_info": info}
        text, _, _, void, info = yield from self._again(env)
        return text, reward, terminated, truncated or void, {**ended, **info}

    def _again(self, env: ToolEnv) -> Play[Step]:
        try:
            text, info = yield from reset_of(env)
        except EnvironmentVoid as void:
            text = compact_json({"error": {"code": "void"}})
            return text, float("nan"), False, True, {"void": str(void)}
        return text, 0.0, False, False, info

    def render(self) -> tuple[str | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Return each slot's transcript."""
        return tuple(env.render() for env in self.envs)

    def close_extras(self, **kwargs: Any) -> None:
        """Close all slots."""
        for env in self.envs:
            env.close()
