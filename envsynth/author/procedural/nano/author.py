"""The nano author: worlds and tasks of one or two calls, by the same program, backends, gates and store as the full tier."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from envsynth.author.procedural.author import Draft, ProceduralAuthor, Voice
from envsynth.author.procedural.compose import signature, to_world
from envsynth.author.procedural.docs import public_docs
from envsynth.author.procedural.ir import Act, Const, Task, from_json, swap, walk
from envsynth.author.procedural.nano.tasks import KINDS
from envsynth.author.procedural.nano.traces import Trace, gold_trace
from envsynth.author.procedural.nano.world import nano_world
from envsynth.author.procedural.operators import Edit
from envsynth.author.procedural.oracle import Reject
from envsynth.author.procedural.probes import to_outcome
from envsynth.author.procedural.sampling import Sampler
from envsynth.errors import AuthorError, Rejected
from envsynth.spec import EnvironmentSpec, Lineage, ProbeCase, Provenance, TaskVersion, Tool

NANO_AUTHOR = "procedural-nano/1"
"""Name and version of this author; a change of what it makes from the same seed raises the version."""
MAX_TURNS = 6
"""Turns of a nano task: two calls, room for a mistake or two, and the answer."""
NANO_CATEGORY = "small tables with invented words"
"""Category of nano worlds that nobody asked for in words."""
ATTEMPTS = 20
"""Draws of one task before its world is given up; a draw is refused when its answer stands in the prompt by chance."""


class NanoAuthor(ProceduralAuthor):
    """Composes nano worlds and their tasks.

    Args:
        category: Recorded, and part of the seed; names are invented, whatever it says.
        seed: Seed of everything; equal seeds give equal hashes.
        held_out: Whether nouns and fields come from the held-out list.
    """

    name = NANO_AUTHOR

    def __init__(self, category: str, seed: str | int, *, held_out: bool = False) -> None:
        super().__init__(category, seed)
        self.held_out = held_out

    def draft(self, index: int) -> Draft:
        """Compose the world of an index.

        Args:
            index: Which one, from 0.

        Returns:
            The draft.

        Raises:
            AuthorError: the words are ambiguous (a defect, with the seed that shows it).
        """
        stream = f"nano/{'held-out' if self.held_out else 'train'}/{self.seed}/{self.category}/{index}"
        composition = nano_world(random.Random(f"environment/{stream}"), held_out=self.held_out)
        docs = public_docs(composition)
        details: dict[str, Any] = {"index": index, "tier": "nano", "signature": signature(composition)}
        if self.held_out:
            details["held_out"] = True
        spec = EnvironmentSpec(
            slug=f"nano-{random.Random(f'slug/{stream}').getrandbits(48):012x}",
            title=f"{self.category}: nano",
            world=to_world(composition),
            tools=tuple(
                Tool(
                    name=tool.name,
                    effect=tool.effect,
                    description=tool.description,
                    parameters=dict(tool.parameters),
                    errors=tool.errors,
                    source=tool.source,
                )
                for tool in composition.tools
            ),
            error_style=composition.style.error_style,
            public_docs=docs,
            provenance=Provenance(author=NANO_AUTHOR, category=self.category, seed=stream, details=details),
        )
        return Draft(composition, spec, docs)

    def root(self, draft: Draft, number: int, attempt: int) -> TaskVersion:
        """Propose a task; its kind follows from the number, so that all kinds come in turn.

        Args:
            draft: The world.
            number: Which task of the world, from 0.
            attempt: Which try, from 0.

        Returns:
            A candidate without probes.

        Raises:
            Rejected: the draw does not become a task; try the next attempt.
        """
        stream = f"{draft.environment.provenance.seed}/{number}/{attempt}"
        rng = random.Random(f"root/{stream}")
        start = random.Random(f"kind/{draft.environment.provenance.seed}").randrange(len(KINDS))
        kind = list(KINDS)[(start + number) % len(KINDS)]
        voice = Voice("terse", rng.randrange(3))
        edit = Edit(KINDS[kind](draft.composition, rng), (), {"kind": kind})
        return self._assemble(draft, edit, Lineage(), voice, stream, None)

    def operators(self, task: TaskVersion) -> list[str]:
        """None: nano tasks stay small."""
        return []

    def complete(self, draft: Draft, task: TaskVersion, gold_calls: int) -> TaskVersion:
        """Finish an accepted candidate: probes, among them wrong targets and values of writes, and the turn limit.

        Args:
            draft: The world.
            task: The candidate.
            gold_calls: Tool calls of its gold run.

        Returns:
            The task version as it is stored.
        """
        finished = super().complete(draft, task, gold_calls)
        sampler = Sampler(draft.composition, (), random.Random(f"probes/{task.provenance.seed}"))
        return finished.model_copy(
            update={"max_turns": MAX_TURNS, "probes": (*finished.probes, *_wrong_arguments(sampler, task))}
        )


def _wrong_arguments(sampler: Sampler, task: TaskVersion) -> Iterator[ProbeCase]:
    """The outcomes of a write with another row, or another value, than the one asked for."""
    program: Task = from_json(task.ir)
    for act in [node for node in walk(program) if isinstance(node, Act)]:
        entity = sampler.world.actions[act.op].tables[0]
        for place, (name, operand) in enumerate(act.args):
            if not isinstance(operand, Const):
                continue
            column = "name" if name == "name" else operand.unit
            others = [row[column] for row in sampler.rows(entity) if row[column] != operand.value]
            other = replace(operand, value=sampler.rng.choice(others))
            args = (*act.args[:place], (name, other), *act.args[place + 1 :])
            try:
                result = sampler.oracle.run(swap(program, act, replace(act, args=args)))
            except Reject:
                continue  # the row has that value already: no change, which gate VF304 covers
            outcome = to_outcome(result.answer, result.changes)
            yield ProbeCase(name=f"argument/{act.op}.{name}", accept=False, outcome=outcome)


@dataclass(frozen=True)
class NanoTask:
    """A task for training, proven by the oracle; its gates have not run."""

    environment: EnvironmentSpec
    """Its world."""
    task: TaskVersion
    """The task."""
    kind: str
    """Which of `KINDS`."""
    trace: Trace
    """The planner's episode."""


def nano_tasks(
    count: int,
    seed: str | int,
    *,
    held_out: bool = False,
    category: str = NANO_CATEGORY,
    per_world: int = len(KINDS),
) -> Iterator[NanoTask]:
    """Make distinct tasks fast, for training: each is type-checked, proven by the oracle and screened.

    What the gates add (play in the sandbox, mutants, re-parse) is left out; `synthesize` runs them all on the same
    tasks. The record is the one that `synthesize` stores, but for its probes.

    Args:
        count: How many.
        seed: Equal seeds give equal hashes.
        held_out: Whether nouns and fields come from the held-out list.
        category: As for `NanoAuthor`.
        per_world: Tasks of one world.

    Yields:
        The tasks, world by world.

    Raises:
        AuthorError: a world gave no task.
        ValueError: `count` or `per_world` is below 1.
    """
    if count < 1 or per_world < 1:
        raise ValueError(f"count and per_world must be at least 1, got {count} and {per_world}")
    author = NanoAuthor(category, seed, held_out=held_out)
    for index in range(-(-count // per_world)):
        draft = author.draft(index)
        for number in range(min(per_world, count - index * per_world)):
            yield _screened(author, draft, number)


def _screened(author: NanoAuthor, draft: Draft, number: int) -> NanoTask:
    refusals: list[str] = []
    for attempt in range(ATTEMPTS):
        try:
            task = author.root(draft, number, attempt)
        except Rejected as reason:
            refusals.append(str(reason))
            continue
        task = task.model_copy(update={"max_turns": MAX_TURNS})
        return NanoTask(draft.environment, task, _kind(task), gold_trace(draft.composition, task))
    raise AuthorError(f"no task number {number} in world {draft.environment.slug}: {refusals[-3:]}")


def _kind(task: TaskVersion) -> str:
    """The kind of a nano task, by the shape of its program."""
    program: Task = from_json(task.ir)
    acts = any(isinstance(step, Act) for step in program.steps)
    if acts:
        return "copy" if len(program.steps) == 2 else "write"
    if len(program.steps) == 2:
        return "hop"
    return "search" if program.report[0][0] == "name" else "read"
