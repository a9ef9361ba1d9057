"""What the episode loop needs from actors and from environments."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, SupportsFloat

from envsynth.spec import EnvironmentSpec, TaskVersion
from envsynth.trajectory import Episode, Move


class Actor(Protocol):
    """Anyone who plays. One actor serves many slots; a slot plays one episode at a time."""

    @property
    def name(self) -> str:
        """Who it is, as trajectories record it."""
        ...

    def start(self, slot: int, episode: Episode) -> None:
        """Begin an episode in a slot; whatever the slot played before is over, finished or not."""
        ...

    def act(self, slots: Sequence[int], observations: Sequence[str]) -> Sequence[Move]:
        """Return one move for each of these slots; the first observation of an episode is its prompt."""
        ...

    def close(self) -> None:
        """Release what the actor holds."""
        ...


class Playable(Protocol):
    """What a slot needs: a `ToolEnv`, or a `Stage` that holds one."""

    @property
    def environment(self) -> EnvironmentSpec:
        """The environment of the current episode."""
        ...

    @property
    def task(self) -> TaskVersion:
        """The task of the current episode."""
        ...

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        """Start an episode."""
        ...

    def step(self, action: str) -> tuple[str, SupportsFloat, bool, bool, dict[str, Any]]:
        """Play one turn."""
        ...

    def final_image(self) -> bytes:
        """Return the database image as it is now."""
        ...


@dataclass(frozen=True)
class EpisodeRequest:
    """An episode to be played."""

    task: str
    """Task version (hash)."""
    seed: int = 0
    """Seed of the reset (>= 0)."""
