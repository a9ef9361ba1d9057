"""Root tasks of the class `diagnose`: a disorder is planted, and has to be found, named and repaired.

The mechanism draws rows that make exactly one row of the world break one of its published rules, with near misses beside
it. They belong to the task, as distractor rows do; the environment stays as it is. The oracle confirms that one row is
out of order with them, and none without.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

from envsynth.author.procedural.compose import Composition
from envsynth.author.procedural.ir import MEND, Act, Atom, Attr, Const, Let, Of, Only, Operand, Ref, Step, Task, To
from envsynth.author.procedural.mechanism import Norm
from envsynth.author.procedural.norms import AMISS, KEPT, RULE
from envsynth.author.procedural.oracle import OracleResult
from envsynth.author.procedural.sampling import Overlay, Sampler
from envsynth.errors import Rejected

SHARE = 1 / 8
"""Share of the lineages of an environment with a norm that begin with a disorder."""
RELATED = 0.8
"""Share of the tasks that ask, besides, about a row to which the one out of order is related."""
SUSPECTS = 4
"""Rows of the environment that are repaired wrongly, besides those of the task."""
TRIES = 24
"""Attempts at a disorder before another kind of root is tried."""


def wants_disorder(world: Composition, stream: str, attempt: int) -> bool:
    """Whether an attempt at a root task plants a disorder.

    Args:
        world: The composed world.
        stream: Seed of the lineage.
        attempt: Which try, from 0.
    """
    return bool(world.norms) and attempt < TRIES and random.Random(f"disorder/{stream}").random() < SHARE


def disordered_root(world: Composition, rng: random.Random) -> tuple[Task, Overlay]:
    """Plant a disorder and draw a task that asks to repair it.

    Args:
        world: The composed world.
        rng: Source of all choices.

    Returns:
        The program, not yet checked by any gate, and the rows that it adds to the world.

    Raises:
        Rejected: the world has no norm, no row can break the rule that was drawn, or the rows break none or another one
            than they should.
    """
    if not world.norms:
        raise Rejected("no_norm", "no mechanism of this world says what order is")
    norm = rng.choice(world.norms)
    breach = rng.choice(norm.breaches)
    overlay: Overlay = tuple(breach.plant(rng))
    sampler = Sampler(world, overlay, rng)
    broken = broken_rules(sampler, norm)
    if list(broken.values()) != [breach.name]:
        raise Rejected("no_disorder", f"rows that should break {breach.name} once break {list(broken.values())}")
    if broken_rules(Sampler(world, (), rng), norm):
        raise Rejected("no_order", f"{norm.entity} rows are out of order before anything is planted")
    return _request(sampler, norm), overlay


def rule_names(world: Composition) -> dict[str, tuple[str, ...]]:
    """What may be told of each norm, by the attribute that says which rule a row breaks: the rules, and that it is none."""
    return {f"{RULE}{norm.entity}": (*(breach.name for breach in norm.breaches), KEPT) for norm in world.norms}


def broken_rules(sampler: Sampler, norm: Norm) -> dict[int | str, str]:
    """The rows that are out of order, each with the rule that it breaks."""
    found = sampler.oracle.ids(norm.entity, (Atom(Attr(f"{AMISS}{norm.entity}"), "is", None),))
    return {key: str(sampler.oracle.value(norm.entity, key, Attr(f"{RULE}{norm.entity}"))) for key in found}


def wrong_repairs(sampler: Sampler, task: Task, result: OracleResult) -> Iterator[tuple[str, Task, dict[str, str]]]:
    """Programs that take another row for the one that is out of order, or another rule for the one that it breaks.

    Args:
        sampler: Over the world and overlay of the task.
        task: The program.
        result: Its outcome.

    Yields:
        Name, program, and what is told in fields of the answer instead of what the program reports.
    """
    for index, step in enumerate(task.steps):
        norm = next(
            (norm for norm in sampler.world.norms if isinstance(step, Act) and step.op == f"{MEND}{norm.entity}"), None
        )
        if norm is None or not isinstance(step, Act) or not isinstance(step.args[0][1], Ref):
            continue
        var = step.args[0][1].var
        fields = [name for name, operand in task.report if operand == Of(var, Attr(f"{RULE}{norm.entity}"))]
        told = str(result.answer[fields[0]]) if fields else KEPT
        for breach in norm.breaches:
            if fields and breach.name != told:
                yield f"rule/{breach.name}", task, dict.fromkeys(fields, breach.name)
        breach = next((breach for breach in norm.breaches if breach.name == told), norm.breaches[0])
        if breach.arguments:
            continue
        action = Act(breach.action, ((breach.parameter, Ref(var)),))
        for key in _suspects(sampler, norm.entity, result.bindings[var]):
            node = Only(norm.entity, (Atom(Attr("id"), "==", Const(key, "str", "id")),))
            steps = [Let(var, node) if isinstance(other, Let) and other.var == var else other for other in task.steps]
            steps[index] = action
            yield f"repair/{norm.entity} {key}", Task(tuple(steps), task.report), dict.fromkeys(fields, told)


def _suspects(sampler: Sampler, entity: str, culprit: object) -> list[int | str]:
    """Rows that somebody may take for the one that is out of order: planted near misses, and a few others."""
    planted = [row["id"] for name, row in sampler.overlay if name == entity and row["id"] != culprit]
    stored = [row["id"] for row in sampler.world.rows[entity]]
    return [*planted, *sampler.rng.sample(stored, min(SUSPECTS, len(stored)))]


def _request(sampler: Sampler, norm: Norm) -> Task:
    """Find the row that is out of order, put it in order, and report the row, the rule and one more fact."""
    entity = norm.entity
    found = Let("X1", Only(entity, (Atom(Attr(f"{AMISS}{entity}"), "is", None),)))
    rule = f"{sampler.world.slug(entity)}_broken_rule", Of("X1", Attr(f"{RULE}{entity}"))
    steps: list[Step] = [found]
    fact: tuple[str, Operand]
    related = [name for owner, name, _ in sampler.relations() if owner == entity]
    if related and sampler.rng.random() < RELATED:
        relation = sampler.rng.choice(related)
        target = sampler.world.col(entity, relation).ref
        steps.append(Let("X2", To(Ref("X1"), relation)))
        fact = sampler.report_fact(target, "X2", "name")
    else:
        fact = sampler.report_fact(entity, "X1", "name")
    steps.append(Act(f"{MEND}{entity}", ((entity, Ref("X1")),)))
    return Task(tuple(steps), (sampler.report_row(entity, "X1"), rule, fact))
