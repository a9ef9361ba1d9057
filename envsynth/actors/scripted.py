"""Actors that call no tool. Whatever they are given, they must score 0: each is a gate's question to a verifier."""

from __future__ import annotations

from pydantic import JsonValue

from envsynth.actors.slots import SlotActor, answer_move
from envsynth.actors.values import echo_value, zero_value
from envsynth.trajectory import Episode, Move


class IdleActor(SlotActor):
    """Answers `{}` at once."""

    def __init__(self) -> None:
        super().__init__("idle")

    def move(self, slot: int, episode: Episode, observation: str) -> Move:
        """Answer nothing."""
        return answer_move({})


class EmptyActor(SlotActor):
    """Answers at once with the emptiest value of the answer's type: zeros, empty texts and lists."""

    def __init__(self) -> None:
        super().__init__("empty")

    def move(self, slot: int, episode: Episode, observation: str) -> Move:
        """Answer the typed zero."""
        return answer_move(zero_value(episode.answer_schema))


class EchoActor(SlotActor):
    """Answers at once with the prompt: every string is its text, every number the first number in it."""

    def __init__(self) -> None:
        super().__init__("echo")

    def move(self, slot: int, episode: Episode, observation: str) -> Move:
        """Answer the prompt."""
        return answer_move(echo_value(episode.answer_schema, episode.prompt))


class ConstantActor(SlotActor):
    """Answers at once with what it was given, in every task.

    Args:
        answer: The answer.
    """

    def __init__(self, answer: dict[str, JsonValue]) -> None:
        super().__init__("constant")
        self._answer = answer

    def move(self, slot: int, episode: Episode, observation: str) -> Move:
        """Answer the constant."""
        return answer_move(self._answer)
