"""The loop itself."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import JsonValue

from envsynth.environments import tool_docs
from envsynth.environments.actions import parse_action
from envsynth.environments.env import Step
from envsynth.environments.plays import Play, reset_of, run_all, step_of
from envsynth.environments.world import image_hash
from envsynth.errors import EnvironmentVoid, SpecError
from envsynth.record import content_hash
from envsynth.rollout.protocols import Actor, EpisodeRequest, Playable
from envsynth.trajectory import (
    CheckResult,
    Episode,
    Move,
    StopReason,
    ToolCall,
    Trajectory,
    Turn,
    Verdict,
    void_verdict,
)

LOOK_AHEAD = 256
"""Episodes at the front of the queue among which a slot looks for one of its task."""


def rollout(
    envs: Sequence[Playable],
    actor: Actor,
    episodes: Sequence[EpisodeRequest],
    on_done: Callable[[Trajectory], None] | None = None,
    *,
    retries: int = 1,
) -> list[Trajectory]:
    """Play episodes, as many at a time as there are environments.

    A slot takes another episode as soon as its last one ended: one of the same task if it is near the front of the
    queue, which saves a new world, else the next. Every environment must know every task asked for; use
    `Stage` for tasks of several environments. Neither environments nor actor are closed: they belong to the caller.

    On Ctrl-C, episodes under way are dropped, `on_done` gets every finished one that it has not seen (one whose call was
    itself interrupted comes twice), and KeyboardInterrupt goes on to the caller. So who must not lose finished episodes
    keeps them in `on_done`.

    Args:
        envs: One environment per slot; slot numbers are positions in this list.
        actor: Who plays.
        episodes: What to play.
        on_done: Called for each episode as it ends, in order of completion.
        retries: How often a void episode is played again before it is recorded as void (count, >= 0).

    Returns:
        Trajectories in the order of `episodes`.

    Raises:
        SpecError: an environment does not know a task.
        ValueError: there is no environment, `retries` < 0, or the actor returned another number of moves than asked.
        KeyboardInterrupt: as said above.
    """
    if (episodes and not envs) or retries < 0:
        raise ValueError(f"rollout needs an environment and retries >= 0, got {len(envs)} and {retries}")
    loop = _Loop(envs, actor, episodes, on_done, retries)
    try:
        return loop.run()
    except KeyboardInterrupt:
        loop.deliver()
        raise


@dataclass
class _Running:
    """An episode under way."""

    index: int
    attempt: int
    episode: Episode
    observation: str
    turns: list[Turn] = field(default_factory=list[Turn])


class _Loop:
    def __init__(
        self,
        envs: Sequence[Playable],
        actor: Actor,
        episodes: Sequence[EpisodeRequest],
        on_done: Callable[[Trajectory], None] | None,
        retries: int,
    ) -> None:
        self._envs = envs
        self._actor = actor
        self._requests = episodes
        self._on_done = on_done
        self._retries = retries
        self._queue = deque((index, 0) for index in range(len(episodes)))
        self._running: dict[int, _Running] = {}
        self._last: dict[int, str] = {}
        self._results: dict[int, Trajectory] = {}
        self._undelivered: deque[Trajectory] = deque()

    def run(self) -> list[Trajectory]:
        while len(self._results) < len(self._requests):
            self._fill()
            self._turn()
        return [self._results[index] for index in range(len(self._requests))]

    def deliver(self) -> None:
        while self._undelivered:
            if self._on_done is not None:
                self._on_done(self._undelivered[0])
            self._undelivered.popleft()

    def _fill(self) -> None:
        """Start an episode in every free slot; what they ask of workers travels together."""
        while self._queue and len(self._running) < len(self._envs):
            free = [slot for slot in range(len(self._envs)) if slot not in self._running]
            chosen = [(slot, *self._next(slot)) for slot in free[: len(self._queue)]]
            begun = run_all([self._begin(slot, index) for slot, index, _ in chosen])
            for (slot, index, attempt), first in zip(chosen, begun, strict=True):
                self._start(slot, index, attempt, first)

    def _next(self, slot: int) -> tuple[int, int]:
        """Take an episode from the queue for a slot; looking far ahead would cost more than it saves."""
        last = self._last.get(slot)
        for place, (index, attempt) in enumerate(itertools.islice(self._queue, LOOK_AHEAD)):
            if self._requests[index].task == last:
                del self._queue[place]
                return index, attempt
        index, attempt = self._queue.popleft()
        self._last[slot] = self._requests[index].task
        return index, attempt

    def _begin(self, slot: int, index: int) -> Play[tuple[str, dict[str, Any]] | EnvironmentVoid]:
        env, request = self._envs[slot], self._requests[index]
        try:
            return (yield from reset_of(env, seed=request.seed, options={"task": request.task}))
        except EnvironmentVoid as void:
            return void

    def _start(self, slot: int, index: int, attempt: int, first: tuple[str, dict[str, Any]] | EnvironmentVoid) -> None:
        env, request = self._envs[slot], self._requests[index]
        if isinstance(first, EnvironmentVoid):
            # There is no first observation, and whose environment it would have been only the task knows.
            episode = Episode(
                environment=env.task.environment,
                task=request.task,
                seed=request.seed,
                prompt="",
                tools=(),
                answer_schema={},
            )
            verdict = void_verdict(str(first), first.failure)
            self._finish(_Running(index, attempt, episode, ""), StopReason.VOID, verdict)
            return
        prompt, info = first
        episode = Episode(
            environment=str(info["environment"]),
            task=str(info["task"]),
            seed=request.seed,
            prompt=prompt,
            tools=tuple(tool_docs(env.environment, env.task.delivery)),
            answer_schema=env.task.answer_schema,
        )
        self._running[slot] = _Running(index, attempt, episode, prompt)
        self._actor.start(slot, episode)

    def _turn(self) -> None:
        slots = list(self._running)
        if not slots:
            return
        moves = self._actor.act(slots, [self._running[slot].observation for slot in slots])
        if len(moves) != len(slots):
            raise ValueError(f"actor {self._actor.name!r} gave {len(moves)} moves for {len(slots)} slots")
        played = [slot for slot, move in zip(slots, moves, strict=True) if not move.stop]
        texts = {slot: _whole(move.text) for slot, move in zip(slots, moves, strict=True) if not move.stop}
        steps = dict(zip(played, run_all([step_of(self._envs[slot], texts[slot]) for slot in played]), strict=True))
        for slot, move in zip(slots, moves, strict=True):
            if move.stop:
                self._stop(slot, move)
            else:
                self._turned(slot, move, texts[slot], steps[slot])

    def _stop(self, slot: int, move: Move) -> None:
        running, env = self._running.pop(slot), self._envs[slot]
        why = move.failure or "the actor stopped without an answer"
        if move.void:
            self._finish(running, StopReason.VOID, void_verdict(f"the actor's infrastructure: {why}", move.cause))
            return
        check = CheckResult(id="actor.stopped", ok=False, reason=why)
        verdict = Verdict(status="fail", score=0.0, checks=(check,))
        self._finish(running, StopReason.ACTOR_STOPPED, verdict, None, _state(env))

    def _turned(self, slot: int, move: Move, text: str, step: Step) -> None:
        running = self._running[slot]
        observation, _, terminated, truncated, info = step
        running.observation = _whole(observation)
        running.turns.append(_turn_record(move, text, running.observation, info))
        if terminated or truncated:
            del self._running[slot]
            verdict = _verdict(info)
            stop = StopReason.ANSWERED if terminated else StopReason.MAX_TURNS
            answer = parse_action(text).answer
            if verdict.status == "void":
                stop = StopReason.VOID
            answer = answer if _recordable(answer) else None
            self._finish(running, stop, verdict, answer, info.get("final_state"))

    def _finish(
        self,
        running: _Running,
        stop: StopReason,
        verdict: Verdict,
        answer: dict[str, JsonValue] | None = None,
        final_state: str | None = None,
    ) -> None:
        if verdict.status == "void" and running.attempt < self._retries:
            self._queue.appendleft((running.index, running.attempt + 1))
            return
        trajectory = Trajectory(
            environment=running.episode.environment,
            task=running.episode.task,
            actor=self._actor.name,
            seed=running.episode.seed,
            prompt=running.episode.prompt,
            turns=tuple(running.turns),
            answer=answer,
            stop=stop,
            verdict=verdict,
            final_state=final_state,
        )
        self._undelivered.append(trajectory)
        self._results[running.index] = trajectory
        self.deliver()


def _whole(text: str) -> str:
    """Replace halves of surrogate pairs, which models can emit and no file or hash accepts."""
    return text.encode("utf-8", "replace").decode()


def _recordable(value: JsonValue) -> bool:
    """Whether a parsed value is JSON that can be stored; `1e999` parses to infinity, which is not."""
    try:
        content_hash(value)
    except SpecError:
        return False
    return True


def _turn_record(move: Move, text: str, observation: str, info: Mapping[str, Any]) -> Turn:
    call = info.get("call")
    return Turn(
        action=text,
        call=ToolCall.parse(dict(call)) if call is not None and _recordable(dict(call)) else None,
        observation=observation,
        error=info.get("error"),
        thinking=move.thinking,
        action_tokens=move.tokens,
        action_logprobs=move.logprobs,
    )


def _verdict(info: Mapping[str, Any]) -> Verdict:
    found = info.get("verdict")
    if found is None:
        return void_verdict(str(info.get("void") or "the environment ended the episode without a verdict"))
    return Verdict.parse(dict(found))


def _state(env: Playable) -> str | None:
    try:
        image = env.final_image()
    except EnvironmentVoid:  # the actor's stop decides the episode; its last state is a courtesy
        return None
    return image_hash(image)
