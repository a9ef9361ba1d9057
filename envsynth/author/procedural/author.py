"""The procedural author: category sentence -> environments, root tasks, and proposals of harder children.

It proposes; it never judges. Whether a task is sound is the gates' business, whether a child is harder the ladder's.
Everything is a function of category, seed and index, so an environment can be composed again from its provenance.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

from pydantic import JsonValue

from envsynth.author.procedural.compose import Composition, compose, signature, to_world
from envsynth.author.procedural.disorder import disordered_root, rule_names, wants_disorder
from envsynth.author.procedural.docs import public_docs
from envsynth.author.procedural.goals import compile_goals
from envsynth.author.procedural.ir import (
    Budget,
    Caution,
    IRTypeError,
    Of,
    Ref,
    Task,
    check,
    digest,
    from_json,
    kind_of,
    to_json,
    without_dead_lets,
)
from envsynth.author.procedural.mechanism import Row, ToolDraft
from envsynth.author.procedural.mechanisms import MECHANISMS
from envsynth.author.procedural.operators import OPERATORS, Edit, binding_failure, delivered, nonbinding_atom
from envsynth.author.procedural.operators.withhold import without_tools
from envsynth.author.procedural.oracle import OracleResult, Reject, certificates
from envsynth.author.procedural.planner import CARELESS, SKILLS, applicable_skills, compile_plan
from envsynth.author.procedural.probes import make_probes, to_outcome
from envsynth.author.procedural.reading import Reading, choose_mechanisms, read_category
from envsynth.author.procedural.render import REGISTERS, Register, facts, sentences
from envsynth.author.procedural.sampling import ROOT_KINDS, Overlay, Sampler
from envsynth.author.procedural.screen import refuse_guessable, refuse_poor, refuse_told
from envsynth.author.procedural.sites import chosen_lets
from envsynth.delivery import AS_IT_IS
from envsynth.errors import AuthorError, Rejected, SpecError
from envsynth.spec import (
    EnvironmentSpec,
    Lineage,
    OverlayRow,
    Provenance,
    TaskVersion,
    Tool,
    slugify,
)

AUTHOR = "procedural/4"
"""Name and version of this author; a change of what it makes from the same seed raises the version."""
SCREEN_TURNS = 400
"""Turn limit of a candidate until the gold run tells how many it needs."""
SNAPSHOT_RULE = "Descriptions and conditions in a request are about the state before the first change that it asks for."
"""Policy sentence of every environment: the task program's snapshot semantics, in public words."""
ALL_ROWS_RULE = (
    "A request with conditions covers everything that meets them, also what a rule leaves out of a value that the rule "
    "defines."
)
"""Policy sentence of every environment: sets of rows are what the conditions say, in public words."""
_STOP_WORDS = ("a", "an", "and", "at", "by", "for", "from", "in", "of", "on", "or", "the", "to", "with")


@dataclass(frozen=True)
class Draft:
    """A composed environment with its record."""

    composition: Composition
    """Where tasks are drawn."""
    environment: EnvironmentSpec
    """The record."""
    docs: dict[str, Any]
    """Public words of its prompts."""


@dataclass(frozen=True)
class Voice:
    """How the prompts of a lineage read; children keep their root's voice."""

    register: Register
    """Register."""
    variant: int
    """Paraphrase number."""


class ProceduralAuthor:
    """Composes environments and tasks for one category.

    Args:
        category: The category sentence.
        seed: Seed of everything; equal seeds give equal hashes.
    """

    name = AUTHOR

    def __init__(self, category: str, seed: str | int) -> None:
        if not category.strip():
            raise AuthorError("the category is empty: give a sentence such as 'planning a travel itinerary'")
        self.category = category.strip()
        self.seed = str(seed)
        self.reading: Reading = read_category(self.category)
        self._known: tuple[TaskVersion, Composition, Task, OracleResult] | None = None

    # -------------------------------------------------------------------------------------------------- environment

    def draft(self, index: int) -> Draft:
        """Compose the environment of an index.

        Args:
            index: Which one, from 0.

        Returns:
            The draft, not yet checked by any gate.

        Raises:
            AuthorError: the mechanisms do not compose (a defect, with the seed that shows it).
        """
        stream = f"{self.seed}/{self.category}/{index}"
        rng = random.Random(f"environment/{stream}")
        names = choose_mechanisms(self.reading, rng)
        composition = compose([MECHANISMS[name] for name in names], self.reading.pack, rng)
        docs = public_docs(composition)
        provenance = Provenance(
            author=AUTHOR,
            category=self.category,
            seed=stream,
            details={
                "index": index,
                "mechanisms": list(names),
                "signature": signature(composition),
                "pack": self.reading.pack.name,
            },
        )
        world = to_world(composition)
        spec = EnvironmentSpec(
            slug=self._slug(stream),
            title=f"{self.category}: {' + '.join(names)}",
            world=world,
            tools=tuple(Tool.parse(_tool(draft)) for draft in composition.tools),
            policy=(*composition.policy, SNAPSHOT_RULE, ALL_ROWS_RULE),
            error_style=composition.style.error_style,
            public_docs=docs,
            provenance=provenance,
        )
        return Draft(composition, spec, docs)

    def _slug(self, stream: str) -> str:
        words = [word for word in slugify(self.category, 60).split("-") if word not in _STOP_WORDS]
        mark = f"{random.Random(f'slug/{stream}').getrandbits(32):08x}"
        return f"{slugify(' '.join(words), 40)}-{mark}"

    @classmethod
    def again(cls, environment: EnvironmentSpec) -> tuple[ProceduralAuthor, Draft]:
        """Compose an environment again from its provenance, to harden its tasks further.

        Args:
            environment: An environment that this author made.

        Returns:
            The author and the draft.

        Raises:
            SpecError: another author or another version made it, so it cannot be composed again.
        """
        source = environment.provenance
        index = source.details.get("index")
        if source.author != AUTHOR or not isinstance(index, int):
            raise SpecError(
                f"environment {environment.slug} is by {source.author!r}, not {AUTHOR!r}: it cannot be composed again"
            )
        author = cls(source.category, source.seed.removesuffix(f"/{source.category}/{index}"))
        draft = author.draft(index)
        if draft.environment.hash != environment.hash:
            raise SpecError(
                f"environment {environment.slug} composes to another hash: it was made by another build of {AUTHOR}"
            )
        return author, draft

    # -------------------------------------------------------------------------------------------------------- tasks

    def root(self, draft: Draft, number: int, attempt: int) -> TaskVersion:
        """Propose a root task.

        Args:
            draft: The environment.
            number: Which lineage of the environment, from 0; it decides the kind that is tried.
            attempt: Which try, from 0.

        Returns:
            A candidate without probes.

        Raises:
            Rejected: the draw does not become a task; try the next attempt.
        """
        stream = f"{draft.environment.provenance.seed}/{number}"
        rng = random.Random(f"root/{stream}/{attempt}")
        start = random.Random(f"kind/{stream}").randrange(len(ROOT_KINDS))
        kind = ROOT_KINDS[(start + attempt // 12) % len(ROOT_KINDS)]
        voice_rng = random.Random(f"voice/{stream}")
        voice = Voice(voice_rng.choice(REGISTERS), voice_rng.randrange(3))
        if wants_disorder(draft.composition, stream, attempt):
            task, overlay = disordered_root(draft.composition, rng)
            edit = Edit(task, overlay, {"kind": "diagnose"})
        else:
            edit = Edit(_drawn(Sampler(draft.composition, (), rng), kind), (), {"kind": kind})
        return self._assemble(draft, edit, Lineage(), voice, f"{stream}/{attempt}", None)

    def operators(self, task: TaskVersion) -> list[str]:
        """Names of the operators that have a site in a task; never the one that made it.

        A third of the choices never get a goal, a third of the lineages may ask a user, and another third may have a limit
        of calls: nearly every lineage would end with these otherwise, as nearly every task has a site for them.
        """
        program, voice = _program(task), _voice(task)
        kept = {"optimise"} if task.kind == "plan" and voice.variant == 0 else set[str]()
        fate = random.Random(f"delivery/{task.environment}/{voice.register}/{voice.variant}").randrange(3)
        kept |= {"ask", "budget"} - {("ask", "budget", "")[fate]}
        found = [name for name, item in OPERATORS.items() if item.applicable(program)]
        return [name for name in found if name != task.lineage.operator and name not in kept]

    def propose(
        self, draft: Draft, parent: TaskVersion, operator: str, attempt: int, needed: frozenset[str] = frozenset()
    ) -> TaskVersion:
        """Propose a child of a task by one operator.

        Args:
            draft: The environment.
            parent: The version to harden.
            operator: Name of the operator.
            attempt: Which try, from 0.
            needed: Skills that the parent needs already, so that the operator aims at others.

        Returns:
            A candidate without probes.

        Raises:
            Rejected: the edit does not become a task, or does not bind.
        """
        stream = f"{parent.hash}/{operator}/{attempt}"
        sampler = Sampler(draft.composition, _overlay(parent), random.Random(f"operator/{stream}"), needed)
        program, before = self._parent(sampler, parent)
        try:
            edit = OPERATORS[operator].apply(sampler, program, before)
        except Reject as reason:
            raise Rejected(reason.code, str(reason)) from reason
        if edit.faults is None:
            edit = replace(edit, faults=parent.faults)
        edit = replace(edit, delivery=delivered(parent.delivery, edit.delivery))
        lineage = Lineage(parent=parent.hash, operator=operator, params=edit.params, depth=parent.lineage.depth + 1)
        return self._assemble(draft, edit, lineage, _voice(parent), stream, before)

    def _parent(self, sampler: Sampler, parent: TaskVersion) -> tuple[Task, OracleResult]:
        """The program of a parent and its outcome, worked out once for all proposals in a row."""
        if self._known is None or self._known[0] is not parent or self._known[1] is not sampler.world:
            program = _program(parent)
            self._known = (parent, sampler.world, program, _run(sampler, program))
        _, _, program, result = self._known
        sampler.oracle.recall(program, result)
        return program, result

    def careless(self) -> list[dict[str, JsonValue]]:
        """What careless solvers overwrite in the solution of any task of this author."""
        return [dict(names) for names in CARELESS]

    def complete(self, draft: Draft, task: TaskVersion, gold_calls: int) -> TaskVersion:
        """Finish an accepted candidate: probes, and a turn limit that leaves room for exploring.

        Args:
            draft: The environment.
            task: The candidate.
            gold_calls: Tool calls of its gold run.

        Returns:
            The task version as it is stored.
        """
        sampler = Sampler(draft.composition, _overlay(task), random.Random(f"probes/{task.provenance.seed}"))
        program = _program(task)
        result = _run(sampler, program)
        found = make_probes(sampler, program, result, sampler.rng)
        details = {
            **task.provenance.details,
            "equivalent_mutants": found.equivalent,
            "mutants_without_witness": found.no_witness,
        }
        return task.model_copy(
            update={
                "probes": tuple(found.cases),
                "max_turns": max(20, math.ceil(((task.delivery.max_calls or gold_calls) + 1) / 0.6)),
                "provenance": task.provenance.model_copy(update={"details": details}),
            }
        )

    def prose(self, program: Task, docs: Mapping[str, Any], voice: Voice) -> tuple[str, dict[str, str]]:
        """Write a task as a prompt.

        Args:
            program: The program.
            docs: Public docs of its world.
            voice: How it reads.

        Returns:
            The prompt, and the sentence of each step by its key, as `render.sentences` has them.

        Raises:
            SpecError: the docs lack something that the program uses.
        """
        written = sentences(program, docs, voice.register, voice.variant)
        return " ".join(text for _, text in written), dict(written)

    def _assemble(
        self, draft: Draft, edit: Edit, lineage: Lineage, voice: Voice, stream: str, before: OracleResult | None
    ) -> TaskVersion:
        world, program = draft.composition, edit.task
        try:
            check(program, world)
        except IRTypeError as error:
            raise Rejected("type", str(error)) from error
        sampler = Sampler(world, edit.overlay, random.Random(f"screen/{stream}"))
        result = _run(sampler, program)
        if before is None and result.infeasible:
            raise Rejected("infeasible", "a root has an answer set; twins without one are made from it")
        refuse_poor(sampler, program, result)
        if before is not None:
            why = binding_failure(str(lineage.operator), before, result, sampler, program)
            if why:
                raise Rejected("nonbinding", why)
        if why := nonbinding_atom(program, result, lambda variant: _run_less(sampler, program, variant)):
            raise Rejected("nonbinding", why)
        kind, schema = (
            "infeasible" if result.infeasible else kind_of(program),
            answer_schema(program, result, rule_names(world)),
        )
        if kind in ("read", "infeasible", "service") and not result.changes:
            refuse_guessable(result.answer, draft.environment.world, schema)
        delivery = edit.delivery or AS_IT_IS
        for marker, holds in ((Caution(), bool(edit.faults)), (Budget(), delivery.max_calls is not None)):
            if (marker in program.steps) != holds:
                raise AuthorError(f"{lineage.operator}: a prompt has a {type(marker).__name__} exactly where it holds")
        prompt, quotes = self.prose(program, draft.docs, voice)
        solution, user = compile_plan(without_tools(world, delivery.withheld), program), facts(program, draft.docs)
        refuse_told(user, prompt, solution)
        return TaskVersion(
            environment=draft.environment.hash,
            kind=kind,
            prompt=prompt,
            answer_schema=schema,
            max_turns=SCREEN_TURNS,
            overlay=tuple(OverlayRow(table=entity, row=dict(row)) for entity, row in edit.overlay),
            faults=edit.faults or (),
            delivery=delivery.model_copy(update={"user": user}),
            solution=solution,
            ablations={skill: dict(SKILLS[skill]) for skill in applicable_skills(world, program)},
            verifier=compile_goals(world, program, certificates(result), quotes=quotes),
            oracle=to_outcome(result.answer, result.changes),
            ir=to_json(program),
            lineage=lineage,
            provenance=Provenance(
                author=self.name,
                category=self.category,
                seed=stream,
                details={"register": voice.register, "variant": voice.variant, "program": digest(program)},
            ),
        )


def answer_schema(
    program: Task, result: OracleResult, listed: Mapping[str, Sequence[str]] | None = None
) -> dict[str, Any]:
    """Make the JSON Schema of the final answer from the program's report.

    Args:
        program: The program.
        result: Its outcome.
        listed: Attributes whose words the schema lists, because the policy does.
    """
    chosen = {let.var: node for let, node in chosen_lets(program)}
    fields: dict[str, Any] = {}
    for name, operand in program.report:
        value = result.answer[name]
        if isinstance(value, list) and isinstance(operand, (Ref, Of)):
            node = chosen[operand.var]
            found = cast("list[int | str]", value) or _unchosen(operand, result)
            count = {"minItems": 0 if node.or_none else node.k, "maxItems": node.k}
            fields[name] = {"type": "array", "items": _scalar_schema(found[0]), **count, "uniqueItems": True}
        elif isinstance(operand, Ref) and operand.var in result.decisions:
            fields[name] = {"type": "string", "enum": ["done", "denied"]}
        else:
            words = (listed or {}).get(operand.attr.name) if isinstance(operand, Of) else None
            fields[name] = _scalar_schema(result.answer[name]) | ({"enum": [*words]} if words else {})
    return {"type": "object", "properties": fields, "required": list(fields), "additionalProperties": False}


def _unchosen(operand: Ref | Of, result: OracleResult) -> list[int | str]:
    """What names of rows look like where no set was chosen.

    Raises:
        AuthorError: the field is neither a name nor an id.
    """
    name = operand.attr.name if isinstance(operand, Of) else "id"
    if name == "name":
        return [""]
    if name == "id":
        return [*result.info[operand.var].nearest]
    raise AuthorError(f"a set that may be empty is reported by name or id, not by {name}")


def _scalar_schema(value: object) -> dict[str, Any]:
    return {"type": "integer" if isinstance(value, int) else "string"}


def _tool(draft: ToolDraft) -> dict[str, Any]:
    return {
        "name": draft.name,
        "effect": draft.effect,
        "description": draft.description,
        "parameters": dict(draft.parameters),
        "returns": draft.returns,
        "errors": tuple(draft.errors),
        "source": draft.source,
    }


def _program(task: TaskVersion) -> Task:
    program = from_json(task.ir)
    if not isinstance(program, Task):
        raise SpecError(
            f"task {task.hash[:12]} has no task program: only the procedural author's tasks can be hardened"
        )
    return program


def _overlay(task: TaskVersion) -> Overlay:
    return tuple((row.table, cast("Row", dict(row.row))) for row in task.overlay)  # the author's own rows hold no NULL


def _voice(task: TaskVersion) -> Voice:
    details = task.provenance.details
    register, variant = details.get("register"), details.get("variant")
    tones: dict[object, Register] = {tone: tone for tone in REGISTERS}
    return Voice(tones.get(register, REGISTERS[0]), variant if isinstance(variant, int) else 0)


def _drawn(sampler: Sampler, kind: str) -> Task:
    try:
        return sampler.root(kind)
    except Reject as reason:
        raise Rejected(reason.code, str(reason)) from reason


def _run_less(sampler: Sampler, program: Task, variant: Task) -> OracleResult:
    """Run a program that lost a condition: it has no other types than before."""
    return sampler.oracle.run(without_dead_lets(variant), types=sampler.oracle.checked(program))


def _run(sampler: Sampler, program: Task) -> OracleResult:
    try:
        return sampler.oracle.run(program)
    except Reject as reason:
        raise Rejected(reason.code, str(reason)) from reason
