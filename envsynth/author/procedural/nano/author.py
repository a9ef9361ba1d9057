"""The nano author: worlds and tasks of one or two calls, by the same program, backends, gates and store as the full tier."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from envsynth.author.procedural.author import Draft, ProceduralAuthor, Voice
from envsynth.author.procedural.compose import Composition, signature, to_world
from envsynth.author.procedural.docs import public_docs
from envsynth.author.procedural.ir import Act, Attr, Const, Let, Of, Only, Task, check, digest, from_json, swap
from envsynth.author.procedural.nano.prose import LANGUAGE, write
from envsynth.author.procedural.nano.tasks import KINDS
from envsynth.author.procedural.nano.traces import Trace, gold_trace
from envsynth.author.procedural.nano.world import nano_world
from envsynth.author.procedural.operators import Edit
from envsynth.author.procedural.oracle import Reject
from envsynth.author.procedural.probes import to_outcome
from envsynth.author.procedural.sampling import Sampler
from envsynth.errors import AuthorError, Rejected
from envsynth.spec import EnvironmentSpec, Lineage, ProbeCase, Provenance, TaskVersion, Tool

NANO_AUTHOR = "procedural-nano/2"
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
        docs = {**public_docs(composition), "language": LANGUAGE}
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
        # As a store gives it back, so that an actor reads the same text of a fresh record and a stored one.
        return Draft(composition, EnvironmentSpec.from_json(spec.to_json()), docs)

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
        voice = Voice("terse", 0)
        edit = Edit(KINDS[kind](draft.composition, rng), (), {"kind": kind})
        task = self._assemble(draft, edit, Lineage(), voice, stream, None)
        return TaskVersion.from_json(task.to_json())

    def prose(self, program: Task, docs: Mapping[str, Any], voice: Voice) -> tuple[str, dict[str, str]]:
        """Write a task in the brief language, whatever the voice: one sentence, which every step quotes.

        Args:
            program: The program.
            docs: Public docs of its world.
            voice: Unused.

        Returns:
            The prompt, and the same for each step.

        Raises:
            SpecError: the program is of another tier.
        """
        del voice
        sentence = write(program, docs)
        keys = [step.var if isinstance(step, Let) else f"step{index}" for index, step in enumerate(program.steps)]
        return sentence, dict.fromkeys((*keys, "report"), sentence)

    def operators(self, task: TaskVersion) -> list[str]:
        """None: nano tasks stay small."""
        return []

    def complete(self, draft: Draft, task: TaskVersion, gold_calls: int) -> TaskVersion:
        """Finish an accepted candidate: probes of near misses, and the turn limit.

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
            update={"max_turns": MAX_TURNS, "probes": (*finished.probes, *_near_misses(sampler, task))}
        )


def _near_misses(sampler: Sampler, task: TaskVersion) -> Iterator[ProbeCase]:
    """The outcomes of another row, another value or another field than the one asked for."""
    program: Task = from_json(task.ir)
    seen = [(task.oracle.answer, task.oracle.changes)]
    for name, variant in _variants(sampler, program):
        try:
            result = sampler.oracle.run(variant)
        except Reject:
            continue  # no outcome: the row has that value already, or no row has it
        outcome = to_outcome(result.answer, result.changes)
        if (outcome.answer, outcome.changes) not in seen:
            seen.append((outcome.answer, outcome.changes))
            yield ProbeCase(name=name, accept=False, outcome=outcome)


def _variants(sampler: Sampler, program: Task) -> Iterator[tuple[str, Task]]:
    for index, step in enumerate(program.steps):
        if isinstance(step, Act):
            entity = sampler.world.actions[step.op].tables[0]
            for place, (name, operand) in enumerate(step.args):
                if isinstance(operand, Const):
                    args = (*step.args[:place], (name, _other(sampler, entity, operand)), *step.args[place + 1 :])
                    yield f"argument/step{index}.{name}", swap(program, step, replace(step, args=args))
        elif isinstance(step, Let) and isinstance(step.node, Only):
            for atom in step.node.atoms:
                if isinstance(atom.value, Const):
                    value = _other(sampler, step.node.entity, atom.value)
                    yield f"constraint/value/{step.var}", swap(program, atom, replace(atom, value=value))
    types = check(program, sampler.world)
    for place, (field, operand) in enumerate(program.report):
        if isinstance(operand, Of):
            others = [name for name in _columns(sampler, types[operand.var].detail) if name != operand.attr.name]
            wrong = replace(operand, attr=Attr(sampler.rng.choice(others)))
            report = (*program.report[:place], (field, wrong), *program.report[place + 1 :])
            yield f"answer/other field/{field}", replace(program, report=report)


def _columns(sampler: Sampler, entity: str) -> list[str]:
    return [col.name for col in sampler.world.tables[entity] if col.kind in ("name", "text")]


def _other(sampler: Sampler, entity: str, operand: Const) -> Const:
    """Another value of the same column; a logical name is a physical one in nano worlds."""
    values = [row[operand.unit] for row in sampler.rows(entity) if row[operand.unit] != operand.value]
    return replace(operand, value=sampler.rng.choice(values))


@dataclass(frozen=True)
class NanoTask:
    """A task for training, proven by the oracle; no gate has run, so it is not `checked`."""

    environment: EnvironmentSpec
    """Its world."""
    task: TaskVersion
    """The task."""
    composition: Composition
    """The world as the author has it, for more traces."""
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
    tasks, and adds probes to the record.

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
        programs: dict[str, None] = {}
        for number in range(min(per_world, count - index * per_world)):
            yield _screened(author, draft, number, programs)


def _screened(author: NanoAuthor, draft: Draft, number: int, programs: dict[str, None]) -> NanoTask:
    refusals: list[str] = []
    for attempt in range(ATTEMPTS):
        try:
            task = author.root(draft, number, attempt)
        except Rejected as reason:
            refusals.append(str(reason))
            continue
        program = digest(from_json(task.ir))
        if program in programs:
            refusals.append("drawn before")
            continue
        programs[program] = None
        task = task.model_copy(update={"max_turns": MAX_TURNS})
        return NanoTask(
            draft.environment, task, draft.composition, nano_kind(task), gold_trace(draft.composition, task)
        )
    raise AuthorError(f"no task number {number} in world {draft.environment.slug}: {refusals[-3:]}")


def nano_kind(task: TaskVersion) -> str:
    """The kind of a nano task, told by the shape of its program.

    Args:
        task: A nano task.

    Returns:
        One of `KINDS`.
    """
    program: Task = from_json(task.ir)
    if any(isinstance(step, Act) for step in program.steps):
        return "copy" if len(program.steps) == 2 else "write"
    if len(program.steps) == 2:
        return "hop"
    return "search" if program.report[0][0] == "name" else "read"
