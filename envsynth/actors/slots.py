"""What most actors share: the episode of each slot, one move at a time, and the texts of moves."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

from pydantic import JsonValue

from envsynth.trajectory import Episode, Move


def action_text(action: Mapping[str, JsonValue]) -> str:
    """Return the compact JSON text of an action."""
    return json.dumps(action, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def call_move(tool: str, arguments: Mapping[str, JsonValue], thinking: str | None = None) -> Move:
    """Return the move that calls a tool."""
    return Move(action_text({"tool": tool, "arguments": dict(arguments)}), thinking)


def answer_move(answer: JsonValue, thinking: str | None = None) -> Move:
    """Return the move that gives the final answer."""
    return Move(action_text({"answer": answer}), thinking)


class SlotActor(ABC):
    """An actor that decides slot by slot; subclasses implement `move`, and `begin` when they keep state.

    Args:
        name: Who it is, as trajectories record it.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._episodes: dict[int, Episode] = {}

    @property
    def name(self) -> str:
        """Who it is, as trajectories record it."""
        return self._name

    def start(self, slot: int, episode: Episode) -> None:
        """Begin an episode in a slot.

        Args:
            slot: The slot.
            episode: What an actor may know of it.
        """
        self._episodes[slot] = episode
        self.begin(slot, episode)

    def act(self, slots: Sequence[int], observations: Sequence[str]) -> list[Move]:
        """Return one move for each slot.

        Args:
            slots: Slots with an episode under way.
            observations: What each of them shows.

        Returns:
            The moves, in the order of `slots`.
        """
        return [self.move(slot, self._episodes[slot], text) for slot, text in zip(slots, observations, strict=True)]

    def begin(self, slot: int, episode: Episode) -> None:  # noqa: B027 - nothing to do is the usual case
        """Prepare an episode."""

    @abstractmethod
    def move(self, slot: int, episode: Episode, observation: str) -> Move:
        """Return the next move of one slot."""

    def close(self) -> None:
        """Release what the actor holds."""
        self._episodes.clear()
