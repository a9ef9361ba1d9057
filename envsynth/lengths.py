"""How long episodes are: tokens that a policy reads in compact text, and characters of the JSON form, by tier.

Length is what training pays for: the nano tier fits in 256 tokens, full environments need thousands.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from envsynth.actors import OracleActor
from envsynth.author.procedural.author import AUTHOR
from envsynth.author.procedural.nano import NANO_AUTHOR
from envsynth.environments import make_env
from envsynth.errors import EnvironmentVoid
from envsynth.policy.template import episode_messages, render
from envsynth.rollout import EpisodeRequest, rollout
from envsynth.sandbox import Jail, shared_jail
from envsynth.spec import EnvironmentSpec, TaskVersion
from envsynth.store import Store, TaskQuery
from envsynth.trajectory import Turn

TIERS = {NANO_AUTHOR: "nano", AUTHOR: "full"}
"""Tier by author; environments of anyone else count as `other`."""


@dataclass(frozen=True)
class Spread:
    """How lengths are distributed."""

    median: int
    """Half of the episodes are at most as long."""
    p90: int
    """Nine in ten are at most as long."""
    max: int
    """The longest."""


@dataclass(frozen=True)
class TierLengths:
    """Lengths of the episodes of one tier."""

    tier: str
    """`nano`, `full` or `other`."""
    n: int
    """Episodes measured."""
    tokens: Spread
    """In tokens of the policy, everything included."""
    characters: Spread
    """In characters of first observation, actions and observations, as JSON."""


def token_length(first_observation: str, turns: Sequence[Turn]) -> int:
    """Tokens of an episode as a policy sees it.

    Args:
        first_observation: The text that `reset` gave.
        turns: Its turns.

    Returns:
        Number of tokens.
    """
    return len(render(episode_messages(first_observation, turns)))


def character_length(first_observation: str, turns: Sequence[Turn]) -> int:
    """Characters of an episode in its JSON form, without what came back after the last turn.

    Args:
        first_observation: The text that `reset` gave.
        turns: Its turns.

    Returns:
        Number of characters.
    """
    said = sum(len(turn.action) for turn in turns)
    return len(first_observation) + said + sum(len(turn.observation) for turn in turns[:-1])


def spread(lengths: Sequence[int]) -> Spread:
    """Summarise lengths; each figure is one of them (nearest rank).

    Args:
        lengths: At least one.

    Returns:
        Median, ninth decile and maximum.

    Raises:
        ValueError: there is none.
    """
    if not lengths:
        raise ValueError("no length to summarise: measure at least one episode")
    ordered = sorted(lengths)

    def rank(tenths: int) -> int:
        return ordered[-(-len(ordered) * tenths // 10) - 1]

    return Spread(rank(5), rank(9), ordered[-1])


def solution_lengths(spec: EnvironmentSpec, task: TaskVersion, jail: Jail) -> tuple[int, int]:
    """Play the solution of a task and measure its episode.

    Args:
        spec: The environment.
        task: The task.
        jail: Where tools and solution run.

    Returns:
        Tokens and characters.

    Raises:
        EnvironmentVoid: the episode has no judgement, so its length says nothing.
    """
    env = make_env(spec, task, jail=jail)
    actor = OracleActor({task.hash: task}, jail)
    try:
        run = rollout([env], actor, [EpisodeRequest(task.hash, 0)])[0]
    finally:
        actor.close()
        env.close()
    if run.void:
        raise EnvironmentVoid(f"the solution of task {task.hash[:12]} has no judgement: {run.verdict.failure}")
    return token_length(run.prompt, run.turns), character_length(run.prompt, run.turns)


def stored_lengths(store: Store, *, limit: int, jail: Jail | None = None) -> list[TierLengths]:
    """Measure the episodes of the solutions of stored tasks.

    Args:
        store: Where they are.
        limit: Tasks per tier at most, spread evenly over those that there are.
        jail: Where tools and solutions run; the process's own when None.

    Returns:
        One entry per tier that the store has tasks of, shortest tier first.

    Raises:
        EnvironmentVoid: a solution's episode has no judgement.
    """
    environments = {entry.hash: store.environment(entry.hash) for entry in store.environment_entries()}
    by_tier: dict[str, list[str]] = {}
    for entry in store.task_entries(TaskQuery()):
        author = environments[entry.environment].provenance.author
        by_tier.setdefault(TIERS.get(author, "other"), []).append(entry.hash)
    found: list[TierLengths] = []
    for tier, hashes in by_tier.items():
        measured = list(_measured(store, environments, _spread_over(hashes, limit), jail or shared_jail()))
        tokens, characters = spread([pair[0] for pair in measured]), spread([pair[1] for pair in measured])
        found.append(TierLengths(tier, len(measured), tokens, characters))
    return sorted(found, key=lambda item: item.tokens.median)


def _spread_over(hashes: Sequence[str], limit: int) -> list[str]:
    if len(hashes) <= limit:
        return list(hashes)
    return [hashes[index * len(hashes) // limit] for index in range(limit)]


def _measured(
    store: Store, environments: dict[str, EnvironmentSpec], hashes: Sequence[str], jail: Jail
) -> Iterator[tuple[int, int]]:
    for digest in hashes:
        task = store.task(digest)
        yield solution_lengths(environments[task.environment], task, jail)
