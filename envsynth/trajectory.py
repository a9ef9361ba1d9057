"""What happened in episodes, as data: tool calls, turns, trajectories, groups, verdicts.

A trajectory keeps text always and tokens when a policy played, never re-tokenised. Infrastructure failures are carried
as `void`, apart from every score: a broken verifier or reset never looks like a wrong answer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal, Self

from pydantic import Field, JsonValue, model_validator

from envsynth.record import ContentHash, Record


class StopReason(StrEnum):
    """Why an episode ended."""

    ANSWERED = "answered"
    """The actor gave its final answer: terminated."""
    MAX_TURNS = "max_turns"
    """The task's limit of turns: truncated."""
    ACTOR_STOPPED = "actor_stopped"
    """The actor gave up or its provider's limit was reached: truncated."""
    VOID = "void"
    """Infrastructure failed; there is no score."""


class ToolCall(Record):
    """One call of a tool."""

    tool: str
    """Name."""
    arguments: dict[str, JsonValue]
    """Arguments."""


@dataclass(frozen=True, kw_only=True)
class Episode:
    """What an actor may know when an episode starts: the public half, nothing that verifies it."""

    environment: str
    """Environment version (hash)."""
    task: str
    """Task version (hash)."""
    seed: int
    """Seed of the reset."""
    prompt: str
    """The first observation, exactly as the environment gave it."""
    tools: tuple[dict[str, JsonValue], ...]
    """The tools' documentation in the OpenAI function format."""
    answer_schema: dict[str, JsonValue]
    """JSON Schema of the final answer."""


@dataclass(frozen=True)
class Move:
    """What an actor does in one turn."""

    text: str
    """The action's text."""
    thinking: str | None = None
    """Reasoning text, if any."""
    tokens: tuple[int, ...] | None = None
    """Token ids as sampled, when a policy played."""
    logprobs: tuple[float, ...] | None = None
    """Log-probabilities at sampling time, one per token."""
    stop: bool = False
    """The actor ends the episode without an answer; `text` is not played."""
    failure: str | None = None
    """With `stop`: why."""
    void: bool = False
    """With `stop`: the actor's infrastructure failed (its provider, its sandbox), so the episode has no score."""
    cause: str | None = None
    """With `void`: how, a value of `envsynth.sandbox.Failure`, when the sandbox failed."""


class Turn(Record):
    """One action with the observation that it got."""

    action: str
    """The action's text, exactly as the actor gave it."""
    call: ToolCall | None = None
    """The parsed call, when it was one."""
    observation: str
    """The observation's text, exactly as the actor saw it."""
    error: str | None = None
    """Code of the error that the observation reports, if any."""
    thinking: str | None = None
    """Reasoning text of the actor, if it gave any."""
    action_tokens: tuple[int, ...] | None = None
    """Token ids as sampled, when a policy played."""
    action_logprobs: tuple[float, ...] | None = None
    """Log-probabilities at sampling time, one per action token."""


class CheckResult(Record):
    """What one check of a verifier found."""

    id: str
    """Id of the goal atom, or `frame`, or `answer.schema`."""
    ok: bool
    """Whether it was met."""
    reason: str = ""
    """Why not, without expected values."""
    quote: str = ""
    """The words that demand it."""


class Verdict(Record):
    """The judgement of one episode. `void` has no score: a broken verifier says nothing about the actor."""

    status: Literal["pass", "fail", "void"]
    """Passed, failed, or no judgement."""
    score: float | None
    """1.0, 0.0, or None when void."""
    checks: tuple[CheckResult, ...] = ()
    """Per-check reasons."""
    failure: str | None = None
    """Void only: what broke."""
    cause: str | None = None
    """Void only: how it broke, a value of `envsynth.sandbox.Failure`; None for what is no matter of the sandbox."""

    @model_validator(mode="after")
    def _void_has_no_score(self) -> Self:
        if (self.status == "void") != (self.score is None) or (self.status == "void") != (self.failure is not None):
            raise ValueError("a void verdict has a failure and no score; any other has a score and no failure")
        return self

    @property
    def failed(self) -> tuple[str, ...]:
        """Ids of the checks that were not met."""
        return tuple(check.id for check in self.checks if not check.ok)


def void_verdict(failure: str, cause: str | None = None) -> Verdict:
    """No judgement.

    Args:
        failure: What broke.
        cause: How, a value of `envsynth.sandbox.Failure`, when it broke in the sandbox.
    """
    return Verdict(status="void", score=None, failure=failure, cause=cause or None)


class Trajectory(Record):
    """The record of one episode."""

    environment: ContentHash
    """Environment version."""
    task: ContentHash
    """Task version."""
    actor: str
    """Who played."""
    seed: int
    """Seed of the reset."""
    prompt: str
    """The first observation, as the actor saw it."""
    turns: tuple[Turn, ...]
    """Actions and observations in order."""
    answer: dict[str, JsonValue] | None = None
    """The final answer, if one was given."""
    stop: StopReason
    """Why it ended."""
    verdict: Verdict
    """The judgement."""
    final_state: str | None = None
    """BLAKE2b-128 of the final database image; the store may keep the image for exact re-grading."""

    @property
    def reward(self) -> float | None:
        """1.0 or 0.0; None when void: never 0 for a failure that was not the actor's."""
        return self.verdict.score

    @property
    def void(self) -> bool:
        """Whether infrastructure failed."""
        return self.verdict.status == "void"

    @property
    def n_calls(self) -> int:
        """Tool calls made."""
        return sum(turn.call is not None for turn in self.turns)


def void_causes(trajectories: Iterable[Trajectory]) -> dict[str, int]:
    """Count void episodes by cause.

    Args:
        trajectories: Any episodes.

    Returns:
        Counts by value of `envsynth.sandbox.Failure`, in alphabetical order; `other` is what is no matter of the sandbox.
    """
    found = Counter(item.verdict.cause or "other" for item in trajectories if item.void)
    return dict(sorted(found.items()))


class Group(Record):
    """Trajectories of one task under one actor, for group-relative advantages and pass@k."""

    task: ContentHash
    """Task version."""
    actor: str
    """Who played."""
    trajectories: tuple[Trajectory, ...] = Field(min_length=1)
    """The members."""

    @property
    def scored(self) -> tuple[Trajectory, ...]:
        """Members that are not void; voided ones leave before anything is averaged."""
        return tuple(item for item in self.trajectories if not item.void)
