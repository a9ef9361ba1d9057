"""Traces to imitate: the planner's episodes, some of them with a mistake that the environment points out.

A solution never errs, so a policy that imitates solutions alone has never seen an error and does not know what to do after
its own first mistake. A share of the traces therefore begins a call wrongly, reads the environment's real answer, and then
goes on right. The wrong call is read and never imitated.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from envsynth.author.procedural.composition import Composition
from envsynth.author.procedural.nano import NanoAuthor, nano_tasks, retry_traces
from envsynth.author.procedural.nano.author import NANO_CATEGORY
from envsynth.environments.actions import first_observation
from envsynth.errors import SpecError
from envsynth.executors import run_all
from envsynth.policy.template import episode_messages, render
from envsynth.policy.tokens import INNER_IDS
from envsynth.trajectory import Turn

CHUNK = 250
"""Tasks that one process draws at a time."""
CONTEXT, ACTION, MISTAKE, ECHO = 0, 1, 2, 3
"""What a token of a lesson is: read; imitated; another's mistake, which is read and never predicted; or read and part of a
word that stood earlier. Echoes are practice in copying, of which actions alone hold too little for a small budget."""


@dataclass(frozen=True)
class Lesson:
    """One sequence to imitate."""

    ids: tuple[int, ...]
    """Token ids."""
    marks: tuple[int, ...]
    """CONTEXT, ACTION, MISTAKE or ECHO for each token."""

    def __len__(self) -> int:
        """Number of tokens."""
        return len(self.ids)


def lesson_of(prompt: str, turns: Sequence[Turn], mistakes: Sequence[int] = ()) -> Lesson:
    """Turn an episode into a lesson.

    Args:
        prompt: The first observation.
        turns: Its turns; an action that got an error is a mistake.
        mistakes: Indices of further turns that are not to be imitated: a search for a misspelled value is no error.

    Returns:
        The lesson.

    Raises:
        SpecError: there is no turn.
    """
    if not turns:
        raise SpecError("an episode without a turn teaches nothing: leave it out")
    messages = episode_messages(prompt, turns)
    rendered = render(messages)
    echoes = echo_positions(rendered.ids)
    marks = [
        ACTION if own else ECHO if position in echoes else CONTEXT for position, own in enumerate(rendered.sampled)
    ]
    wrong = [turn.error is not None or index in mistakes for index, turn in enumerate(turns)]
    position, own_turns = 0, iter(wrong)
    for message in messages:
        end = position + 1 + len(message.tokens)
        if message.role == "assistant" and next(own_turns):
            marks[position + 1 : end] = [MISTAKE] * (end - position - 1)
        position = end
    if position != len(rendered):
        raise SpecError("an episode with reasoning before a later request cannot be one lesson: split it")
    return Lesson(rendered.ids, tuple(marks))


def echo_positions(ids: Sequence[int]) -> set[int]:
    """Find the tokens of spelled words that stood earlier in the sequence.

    Args:
        ids: Token ids.

    Returns:
        Positions of all tokens of each word that came before. The first one is often a choice among words, and still it
        is one of theirs: without it a policy learns to go on words and not to begin them (measured).
    """
    seen: set[tuple[int, ...]] = set()
    found: set[int] = set()
    start = 0
    while start < len(ids):
        end = start + 1
        while end < len(ids) and ids[end] in INNER_IDS:
            end += 1
        word = tuple(ids[start:end])
        if len(word) > 1:
            if word in seen:
                found |= set(range(start, end))
            seen.add(word)
        start = end
    return found


def lessons_hash(lessons: Iterable[Lesson]) -> str:
    """Return the BLAKE2b-128 of lessons, for checkpoints."""
    digest = hashlib.blake2b(digest_size=16)
    for item in lessons:
        digest.update(json.dumps([item.ids, item.marks]).encode())
    return digest.hexdigest()


def nano_lessons(count: int, seed: str | int, *, mistakes: float = 0.15, max_tokens: int) -> list[Lesson]:
    """Make lessons of the nano tier: the planner's episodes, a share of them with one mistake put right.

    Args:
        count: How many tasks are drawn.
        seed: Equal seeds give equal lessons.
        mistakes: Share of lessons with a mistake, in [0, 1].
        max_tokens: Longest lesson (tokens); longer ones are left out.

    Returns:
        The lessons, in the order of the tasks.
    """
    author = NanoAuthor(NANO_CATEGORY, seed)
    chance = random.Random(f"{seed}/mistakes")
    worlds: dict[str, Composition] = {}
    found: list[Lesson] = []
    for item in nano_tasks(count, seed):
        trace = item.trace
        if chance.random() < mistakes:
            if item.environment.slug not in worlds:
                index = item.environment.provenance.details["index"]
                worlds = {item.environment.slug: author.draft(int(str(index))).composition}
            (trace,) = retry_traces(worlds[item.environment.slug], trace, chance)
        found.append(lesson_of(first_observation(item.environment, item.task), trace.turns, trace.mistakes))
    return [item for item in found if len(item) <= max_tokens]


@dataclass(frozen=True)
class LessonMaker:
    """Makes one chunk of lessons, in whichever process: the chunk's seed decides everything."""

    mistakes: float
    """Share of lessons with a mistake, in [0, 1]."""
    max_tokens: int
    """Longest lesson (tokens)."""

    def __call__(self, chunk: tuple[str, int]) -> list[Lesson]:
        """Make the lessons of a chunk.

        Args:
            chunk: Seed, and how many tasks.

        Returns:
            The lessons.
        """
        seed, count = chunk
        return nano_lessons(count, seed, mistakes=self.mistakes, max_tokens=self.max_tokens)


def many_lessons(
    count: int,
    seed: int,
    *,
    max_tokens: int,
    mistakes: float = 0.15,
    workers: int = 1,
    on_chunk: Callable[[int], None] | None = None,
) -> list[Lesson]:
    """Make many lessons of the nano tier, in several processes; their number changes nothing.

    Args:
        count: How many tasks are drawn.
        seed: Equal seeds give equal lessons.
        max_tokens: Longest lesson (tokens).
        mistakes: Share of lessons with a mistake, in [0, 1].
        workers: Processes.
        on_chunk: Told how many tasks a finished chunk had.

    Returns:
        The lessons, in an order that follows from the seed.
    """
    sizes = [min(CHUNK, count - start) for start in range(0, count, CHUNK)]
    chunks = [(f"{seed}/lessons/{index}", size) for index, size in enumerate(sizes)]

    def told(index: int, lessons: list[Lesson]) -> None:
        if on_chunk is not None:
            on_chunk(sizes[index])

    found = run_all(LessonMaker(mistakes, max_tokens), chunks, workers=min(workers, len(chunks)), on_result=told)
    return [lesson for part in found for lesson in part]
