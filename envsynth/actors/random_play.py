"""An actor that calls random tools with random arguments of the right types."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from pydantic import JsonValue

from envsynth.actors.slots import SlotActor, answer_move, call_move
from envsynth.actors.values import random_value
from envsynth.trajectory import Episode, Move

_MAX_SEEN = 200
"""Scalars remembered under one key."""


class RandomPlay:
    """What a random player has seen, and what it does next.

    Args:
        rng: Source of all draws.
    """

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self._seen: dict[str, list[JsonValue]] = {}

    def see(self, observation: str) -> None:
        """Remember the scalars of an observation of a call."""
        remember(json.loads(observation), "", self._seen)

    def call(self, tools: Sequence[dict[str, JsonValue]]) -> tuple[str, dict[str, JsonValue]]:
        """Draw a call of one of some tools, documented as `tool_docs` does.

        Args:
            tools: At least one.

        Returns:
            Its name, and arguments of the right types.
        """
        function = cast("dict[str, Any]", self.rng.choice(tools)["function"])
        arguments = random_value(function["parameters"], self.rng, self._seen)
        return function["name"], cast("dict[str, JsonValue]", arguments)

    def answer(self, schema: Mapping[str, JsonValue]) -> JsonValue:
        """Draw an answer of the right type."""
        return random_value(schema, self.rng, self._seen)


@dataclass
class _Play:
    random: RandomPlay
    left: int
    started: bool = False


class RandomActor(SlotActor):
    """Makes some random calls, then gives a random answer of the right type.

    Arguments and answers are partly values that observations showed before, under the same key if possible: so it does
    reach into the world, and a verifier that lets such play pass is broken. Equal seeds play equal episodes, in any slot.

    Args:
        seed: Joined with task and seed of each episode.
        max_calls: Most calls before the answer (count, >= 0).

    Raises:
        ValueError: max_calls < 0.
    """

    def __init__(self, seed: int = 0, max_calls: int = 8) -> None:
        if max_calls < 0:
            raise ValueError(f"max_calls must be >= 0, got {max_calls}")
        super().__init__("random")
        self._seed = seed
        self._max_calls = max_calls
        self._plays: dict[int, _Play] = {}

    def begin(self, slot: int, episode: Episode) -> None:
        """Seed the episode."""
        rng = random.Random(f"random-actor/{self._seed}/{episode.task}/{episode.seed}")
        self._plays[slot] = _Play(RandomPlay(rng), rng.randint(0, self._max_calls))

    def move(self, slot: int, episode: Episode, observation: str) -> Move:
        """Call or answer."""
        play = self._plays[slot]
        if play.started:
            play.random.see(observation)
        play.started = True
        if play.left == 0 or not episode.tools:
            return answer_move(play.random.answer(episode.answer_schema))
        play.left -= 1
        return call_move(*play.random.call(episode.tools))

    def close(self) -> None:
        """Forget all episodes."""
        super().close()
        self._plays.clear()


def remember(value: JsonValue, key: str, seen: dict[str, list[JsonValue]]) -> None:
    """Keep the scalars of a value by the key that they stand under.

    Args:
        value: Decoded JSON.
        key: Key that the value itself stands under.
        seen: What was kept before; grows.
    """
    if isinstance(value, dict):
        for name, item in value.items():
            remember(item, name, seen)
    elif isinstance(value, list):
        for item in value:
            remember(item, key, seen)
    elif value is not None and len(kept := seen.setdefault(key, [])) < _MAX_SEEN:
        kept.append(value)
