"""Actors that play the solution stored with a task: whole, or with one skill taken away. It runs in the sandbox only."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from pydantic import JsonValue

from envsynth.actors.slots import SlotActor, answer_move, call_move
from envsynth.errors import SandboxError, SpecError
from envsynth.sandbox import Ask, CallResult, Failure, Jail, Limits, Source, Worker, shared_jail
from envsynth.spec import TaskVersion
from envsynth.trajectory import Episode, Move

SOLUTION_LIMITS = Limits(soft_s=10.0, hard_s=20.0)
"""What a whole solution may use; the time that tools take is not counted."""

# The contract of a solution is `solve(call)`; workers start a function by name.
_START = "def envsynth_start():\n    return solve(call)\n"


@dataclass
class _Play:
    """The solution of one slot: its worker, or why there is none."""

    worker: Worker | None
    problem: Move | None = None
    started: bool = False


class OracleActor(SlotActor):
    """Plays the task's own solution.

    A solution that crashes, returns no object or runs out of time makes the actor stop, and the episode fails. A sandbox
    that cannot run it makes the episode void.

    Args:
        tasks: Private tasks by hash.
        jail: Where solution workers are forked; this process's shared jail when None.
    """

    def __init__(self, tasks: Mapping[str, TaskVersion], jail: Jail | None = None, *, name: str = "oracle") -> None:
        super().__init__(name)
        self._tasks = tasks
        self._jail = jail
        self._plays: dict[int, _Play] = {}

    def overrides(self, task: TaskVersion) -> dict[str, JsonValue]:
        """Return the module-level names of the solution that are overwritten; the whole solution keeps all."""
        return {}

    def begin(self, slot: int, episode: Episode) -> None:
        """Fork a worker and load the solution.

        Raises:
            SpecError: the actor was not given this task, or its solution lacks the ablated skill.
        """
        self._drop(slot)
        task = self._tasks.get(episode.task)
        if task is None:
            raise SpecError(f"actor {self.name!r} was not given task {episode.task}: pass all tasks to it")
        names = "".join(f"{name} = {value!r}\n" for name, value in self.overrides(task).items())
        try:
            jail = shared_jail() if self._jail is None else self._jail
            worker = jail.worker("solution", sources=(Source(name="solution", text=task.solution),))
        except SandboxError as error:
            self._plays[slot] = _Play(None, _unstarted(error))
            return
        play = self._plays[slot] = _Play(worker)
        try:
            loaded = worker.load(names + _START, "ablation")
        except SandboxError as error:
            play.problem = _broken(f"the ablation could not be loaded: {error}", error.failure)
            return
        if not loaded.ok:
            play.problem = _stopped("the ablation does not load", loaded)

    def move(self, slot: int, episode: Episode, observation: str) -> Move:
        """Run the solution until it calls a tool or returns."""
        play = self._plays[slot]
        if play.problem is not None or play.worker is None:
            return play.problem or _broken("no solution worker")
        try:
            step = self._advance(play, play.worker, observation)
        except SandboxError as error:
            return _broken(f"the solution worker failed: {error}", error.failure)
        if isinstance(step, Ask):
            return call_move(step.tool, step.arguments)
        self._drop(slot)
        if not step.ok:
            return _stopped("the solution failed", step)
        if not isinstance(step.value, dict):
            kind = type(step.value).__name__
            return Move("", stop=True, failure=f"the solution returned {kind}, not an object")
        return answer_move(step.value)

    def _advance(self, play: _Play, worker: Worker, observation: str) -> Ask | CallResult:
        if not play.started:
            play.started = True
            return worker.begin("envsynth_start", limits=SOLUTION_LIMITS)
        shown = cast("dict[str, Any]", json.loads(observation))
        if "error" in shown:
            return worker.reply_error(shown["error"])
        return worker.reply(shown["result"])

    def _drop(self, slot: int) -> None:
        play = self._plays.pop(slot, None)
        if play is not None and play.worker is not None:
            play.worker.close()

    def close(self) -> None:
        """End all solution workers."""
        for slot in list(self._plays):
            self._drop(slot)
        super().close()


class AblatedActor(OracleActor):
    """Plays the solution without one skill: the names that `task.ablations[skill]` lists are overwritten.

    A task without that ablation does not call for the skill, and is played whole.

    Args:
        tasks: Private tasks by hash.
        skill: The skill that is taken away.
        jail: Where solution workers are forked; this process's shared jail when None.
    """

    def __init__(self, tasks: Mapping[str, TaskVersion], skill: str, jail: Jail | None = None) -> None:
        super().__init__(tasks, jail, name=f"ablated:{skill}")
        self._skill = skill

    def overrides(self, task: TaskVersion) -> dict[str, JsonValue]:
        """Return the names that the ablation overwrites."""
        return task.ablations.get(self._skill, {})


def _broken(why: str, cause: str | None = None) -> Move:
    return Move("", stop=True, failure=why, void=True, cause=cause)


def _unstarted(error: SandboxError) -> Move:
    """Tell a solution that does not load, which is its own fault, from a sandbox that is down."""
    if not error.failure or error.failure == Failure.SANDBOX_UNAVAILABLE.value:
        return _broken(f"no solution worker: {error}", error.failure)
    return Move("", stop=True, failure=f"the solution does not load: {error}")


def _stopped(what: str, result: CallResult) -> Move:
    parts = [result.status.value, result.error_type, result.message[:300]]
    why = f"{what}: {': '.join(part for part in parts if part)}"
    void = result.status is Failure.SANDBOX_UNAVAILABLE
    return Move("", stop=True, failure=why, void=void, cause=result.status.value if void else None)
