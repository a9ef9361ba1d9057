"""Steps of many episodes at a time: what they ask of workers travels together, what they are judged by is shared.

A *play* is a generator: it yields an `Errand` or a `Judging`, gets its outcome sent in, and returns a result. `run` plays
one, `run_all` many at a time. The code of an episode is written once and does not know which.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import JsonValue

from envsynth.errors import EnvironmentVoid, SandboxError
from envsynth.sandbox import CallResult, Jail, Limits, Worker
from envsynth.sandbox.requests import Request
from envsynth.spec import TaskVersion
from envsynth.trajectory import Verdict
from envsynth.verifiers import verify_all

T = TypeVar("T")


@dataclass(slots=True)
class Errand:
    """Requests to one worker; the outcome is the list of their results."""

    worker: Worker
    requests: list[Request]
    limits: Limits | None = None


@dataclass(slots=True)
class Judging:
    """An ended episode; the outcome is its `Verdict`."""

    jail: Jail
    task: TaskVersion
    before: bytes
    after: bytes
    answer: dict[str, JsonValue] | None


Play = Generator["Errand | Judging", Any, T]


@functools.cache
def _has_play(kind: type, name: str) -> bool:
    """Whether a class's method has a play that does the same: both are defined by the same class.

    A class that overrides `step` alone means that its `step` is called.
    """
    owners = [next((base for base in kind.__mro__ if part in vars(base)), None) for part in (name, f"play_{name}")]
    return owners[0] is owners[1] and owners[0] is not None


def step_of(env: Any, action: str) -> Play[Any]:
    """Step any environment: by its play, so that others can be stepped meanwhile, where it has one."""
    return env.play_step(action) if _has_play(env.__class__, "step") else _at_once(env.step, action)


def reset_of(env: Any, **options: Any) -> Play[Any]:
    """Reset any environment: by its play, so that others can be reset meanwhile, where it has one."""
    return env.play_reset(**options) if _has_play(env.__class__, "reset") else _at_once(env.reset, **options)


def _at_once(method: Callable[..., Any], *arguments: Any, **options: Any) -> Play[Any]:
    """Call a method when the play is played, not when it is made."""
    return method(*arguments, **options)
    yield


def run(play: Play[T]) -> T:
    """Play one alone."""
    return run_all([play])[0]


def run_all(plays: Sequence[Play[T]]) -> list[T]:
    """Play many at a time.

    Args:
        plays: What to play; an exception of one ends all.

    Returns:
        Their results, in order.
    """
    results: dict[int, T] = {}
    waiting: list[tuple[int, Errand | Judging]] = []

    def advance(index: int, outcome: Any) -> None:
        play = plays[index]
        try:
            if isinstance(outcome, EnvironmentVoid):
                waiting.append((index, play.throw(outcome)))
            else:
                waiting.append((index, play.send(outcome)))
        except StopIteration as end:
            results[index] = end.value

    try:
        for index in range(len(plays)):
            advance(index, None)
        while waiting:
            now, waiting[:] = list(waiting), []
            for index, outcome in [*_errands(now), *_judgings(now)]:
                advance(index, outcome)
    finally:
        for play in plays:
            play.close()
    return [results[index] for index in range(len(plays))]


def _errands(now: list[tuple[int, Errand | Judging]]) -> list[tuple[int, list[CallResult] | EnvironmentVoid]]:
    """Run all errands: one frame per worker, all workers at a time."""
    groups: dict[tuple[int, int], list[tuple[int, Errand]]] = {}
    for index, item in now:
        if isinstance(item, Errand):
            groups.setdefault((id(item.worker), id(item.limits)), []).append((index, item))
    outcomes: list[tuple[int, list[CallResult] | EnvironmentVoid]] = []
    posted: list[list[tuple[int, Errand]]] = []
    busy: set[int] = set()
    for (worker, _), group in groups.items():
        if worker in busy:  # other limits: a frame of its own, after this one
            outcomes += _taken(posted)
            posted.clear()
            busy.clear()
        try:
            group[0][1].worker.post([request for _, errand in group for request in errand.requests], group[0][1].limits)
        except SandboxError as error:
            void = EnvironmentVoid(f"the tools worker failed: {error}", error.failure)
            outcomes += [(index, void) for index, _ in group]
            continue
        posted.append(group)
        busy.add(worker)
    return outcomes + _taken(posted)


def _taken(posted: list[list[tuple[int, Errand]]]) -> list[tuple[int, list[CallResult] | EnvironmentVoid]]:
    outcomes: list[tuple[int, list[CallResult] | EnvironmentVoid]] = []
    for group in posted:
        found = group[0][1].worker.take()
        start = 0
        for index, errand in group:
            outcomes.append((index, found[start : start + len(errand.requests)]))
            start += len(errand.requests)
    return outcomes


def _judgings(now: list[tuple[int, Errand | Judging]]) -> list[tuple[int, Verdict]]:
    """Judge ended episodes: those of one task by one fresh verifier worker."""
    groups: dict[tuple[int, str, int], list[tuple[int, Judging]]] = {}
    for index, item in now:
        if isinstance(item, Judging):
            groups.setdefault((id(item.jail), item.task.hash, id(item.before)), []).append((index, item))
    outcomes: list[tuple[int, Verdict]] = []
    for group in groups.values():
        first = group[0][1]
        ends = [(judging.after, judging.answer) for _, judging in group]
        verdicts = verify_all(first.jail, first.task, first.before, ends)
        outcomes += [(index, verdict) for (index, _), verdict in zip(group, verdicts, strict=True)]
    return outcomes
