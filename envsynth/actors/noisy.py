"""A solver that errs now and then: the stored solution, with mistakes in some of its calls."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from pydantic import JsonValue

from envsynth.actors.random_play import remember
from envsynth.actors.slots import call_move
from envsynth.actors.solution import OracleActor
from envsynth.errors import SpecError
from envsynth.sandbox import Jail
from envsynth.spec import TaskVersion
from envsynth.trajectory import Episode, Move


@dataclass
class _Noise:
    """One episode's mistakes."""

    rng: random.Random
    types: Mapping[str, Mapping[str, Any]]
    """Schemas of arguments by tool."""
    seen: dict[str, list[JsonValue]] = field(default_factory=dict[str, list[JsonValue]])
    started: bool = False
    drops: bool = False
    """Whether the rows of the next reply are overlooked."""


def noise_share(text: str) -> float:
    """Read the chance of a mistake from an actor's name.

    Args:
        text: What follows `noisy:`.

    Returns:
        The chance, 0 to 1.

    Raises:
        SpecError: it is no number from 0 to 1.
    """
    try:
        share = float(text)
    except ValueError:
        share = math.nan
    if not 0.0 <= share <= 1.0:
        raise SpecError(f"the chance of a mistake is a number from 0 to 1, got {text!r}")
    return share


class NoisyActor(OracleActor):
    """Plays the solution, and errs in each call with a fixed chance.

    A mistake is a wrong argument (a value that this episode has shown, another one of an enumeration, a number beside the
    right one), or a reply whose rows are overlooked. A solution of n calls in which every mistake matters passes with a
    chance of (1 - share)^n. Equal names play equal episodes for equal task and seed, in any slot.

    Args:
        tasks: Private tasks by hash.
        share: Chance of a mistake in each call, as text; it is part of the actor's name.
        jail: Where solution workers are forked; this process's shared jail when None.

    Raises:
        SpecError: the share is no number from 0 to 1.
    """

    def __init__(self, tasks: Mapping[str, TaskVersion], share: str, jail: Jail | None = None) -> None:
        self._share = noise_share(share)
        super().__init__(tasks, jail, name=f"noisy:{share}")
        self._noises: dict[int, _Noise] = {}

    def begin(self, slot: int, episode: Episode) -> None:
        """Fork a worker, load the solution, seed the mistakes."""
        super().begin(slot, episode)
        functions = [cast("dict[str, Any]", tool["function"]) for tool in episode.tools]
        types = {str(item["name"]): item["parameters"].get("properties", {}) for item in functions}
        rng = random.Random(f"noisy/{self._share!r}/{episode.task}/{episode.seed}")
        self._noises[slot] = _Noise(rng, types)

    def move(self, slot: int, episode: Episode, observation: str) -> Move:
        """Run the solution until it calls a tool or returns; spoil what it is told, or its call."""
        noise = self._noises[slot]
        if noise.started:
            remember(json.loads(observation), "", noise.seen)
            observation = _without_rows(observation) if noise.drops else observation
        noise.started, noise.drops = True, False
        move = super().move(slot, episode, observation)
        if move.stop:
            return move
        action = cast("dict[str, Any]", json.loads(move.text))
        if "tool" not in action or noise.rng.random() >= self._share:
            return move
        if noise.rng.random() < 0.5:
            wrong = _wrong(noise, action["tool"], action["arguments"])
            if wrong is not None:
                return call_move(action["tool"], wrong)
        noise.drops = True
        return move

    def close(self) -> None:
        """End all solution workers."""
        self._noises.clear()
        super().close()


def _wrong(noise: _Noise, tool: str, arguments: dict[str, JsonValue]) -> dict[str, JsonValue] | None:
    """The arguments with one of them wrong; None when there is no other value for any."""
    names = sorted(arguments)
    noise.rng.shuffle(names)
    for name in names:
        others = _others(noise, noise.types.get(tool, {}).get(name, {}), name, arguments[name])
        if others:
            return {**arguments, name: noise.rng.choice(others)}
    return None


def _others(noise: _Noise, schema: Mapping[str, Any], name: str, right: JsonValue) -> list[JsonValue]:
    """Values that somebody could take for the right one: of the same key, else of the same type."""
    options = schema.get("enum")
    if isinstance(options, list):
        return [value for value in cast("list[JsonValue]", options) if value != right]
    if isinstance(right, bool):
        return [not right]
    for pool in (noise.seen.get(name, []), [value for values in noise.seen.values() for value in values]):
        found = [value for value in dict.fromkeys(pool) if type(value) is type(right) and value != right]
        if found:
            return found
    return [right - 1, right + 1] if isinstance(right, int) else []


def _without_rows(observation: str) -> str:
    """The observation as if every list of rows in it were empty."""
    shown = json.loads(observation)
    result = shown.get("result")
    if isinstance(result, list):
        shown["result"] = []
    elif isinstance(result, dict):
        parts = cast("dict[str, JsonValue]", result)
        shown["result"] = {key: [] if isinstance(value, list) else value for key, value in parts.items()}
    return json.dumps(shown)
