"""Probes: outcomes with the verdict that they must get, derived by the oracle from mutated programs.

A constraint mutant is what a solver would do that ignores, negates or shifts one condition: a witness that meets all
conditions but one. The gates hold the verifier to refuse every one of them, and to accept every alternative.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from pydantic import JsonValue

from envsynth.author.procedural.disorder import wrong_repairs
from envsynth.author.procedural.ir import (
    Act,
    Atom,
    Choose,
    Con,
    Const,
    ForEach,
    GroupBy,
    If,
    IRTypeError,
    Let,
    Named,
    Of,
    Operand,
    Reach,
    Ref,
    Task,
    lets,
    swap,
    walk,
    without_dead_lets,
)
from envsynth.author.procedural.oracle import Change, OracleResult, Reject
from envsynth.author.procedural.sampling import Sampler
from envsynth.author.procedural.sites import Filtered, chosen_lets, filtered_lets, with_atoms, with_node
from envsynth.spec import Outcome, ProbeCase, RowChange

NEGATION = {">=": "<", "<": ">=", "<=": ">", ">": "<=", "==": "!=", "!=": "=="}
BOUNDARY = {">=": ">", ">": ">=", "<=": "<", "<": "<="}
MAX_ALTERNATIVES = 8
"""Other valid choices that are kept per task."""


@dataclass
class ProbeSet:
    """Probes of one task, with the mutants that could not become probes."""

    cases: list[ProbeCase] = field(default_factory=list[ProbeCase])
    """Mutants to refuse and alternatives to accept."""
    equivalent: int = 0
    """Mutated programs with the same outcome: they prove nothing."""
    no_witness: int = 0
    """Mutated programs without a well-defined outcome."""


def to_outcome(answer: dict[str, Any], changes: Sequence[Change]) -> Outcome:
    """Turn an oracle result into a record."""
    return Outcome(
        answer=answer,
        changes=tuple(
            RowChange.parse({"op": change.op, "table": change.table, "row": change.cells}) for change in changes
        ),
    )


def make_probes(sampler: Sampler, task: Task, result: OracleResult, rng: random.Random) -> ProbeSet:
    """Derive all probes of a task.

    Args:
        sampler: Holds the oracle over the task's world and overlay.
        task: The program.
        result: Its oracle result.
        rng: Source of the choice among alternatives.

    Returns:
        The probes with the counts of mutants that gave none.
    """
    found = ProbeSet()
    seen: dict[str, None] = {to_outcome(result.answer, result.changes).to_json(): None}
    for name, variant, keep in _variants(sampler, task, result):
        try:
            other = sampler.oracle.run(without_dead_lets(variant))
        except (Reject, IRTypeError):
            found.no_witness += 1
            continue
        outcome = keep(other)
        if outcome is None:
            found.no_witness += 1
        elif (key := outcome.to_json()) in seen:
            found.equivalent += 1
        else:
            seen[key] = None
            found.cases.append(ProbeCase(name=name, accept=False, outcome=outcome))
    sampler.oracle.run(task)
    found.cases += _decisions(task, result)
    found.cases += _alternatives(sampler, task, result, rng)
    return found


_Keep = Callable[[OracleResult], Outcome | None]


def _variants(sampler: Sampler, task: Task, result: OracleResult) -> Iterator[tuple[str, Task, _Keep]]:
    def plain(other: OracleResult) -> Outcome | None:
        return to_outcome(other.answer, other.changes)

    for let, node in filtered_lets(task):
        keep = _choice_keeper(sampler, task, result, let, node) if isinstance(node, Choose) else plain
        for index in range(len(node.atoms)):
            for label, atoms in _atom_variants(node.atoms, index):
                yield f"constraint/{label}/{let.var}.{index}", with_atoms(task, let, node, atoms), keep
        if isinstance(node, Choose):
            yield from _con_variants(sampler, task, result, let, node, keep)
        yield from _group_variants(task, let, node, keep)
    for index, step in enumerate(task.steps):
        if isinstance(step, If):
            flipped = replace(step, op=NEGATION[step.op])
            yield f"constraint/branch/step{index}", swap(task, step, flipped), plain
        if isinstance(step, ForEach):
            for place in range(len(step.atoms)):
                atoms = step.atoms[:place] + step.atoms[place + 1 :]
                yield f"constraint/drop/step{index}.{place}", swap(task, step, replace(step, atoms=atoms)), plain
    yield from _argument_variants(sampler, task, plain)
    yield from _repair_variants(sampler, task, result)


def _repair_variants(sampler: Sampler, task: Task, result: OracleResult) -> Iterator[tuple[str, Task, _Keep]]:
    """Repair another row than the one that is out of order, or name another rule than it breaks."""
    for name, variant, told in wrong_repairs(sampler, task, result):
        yield name, variant, lambda other, told=told: _told(other, told)


def _told(other: OracleResult, told: Mapping[str, str]) -> Outcome | None:
    """The outcome with other words in some fields; none where two actions would touch one row, which no state can show."""
    return None if other.write_overlap else to_outcome({**other.answer, **told}, other.changes)


def _atom_variants(atoms: tuple[Atom, ...], index: int) -> Iterator[tuple[str, tuple[Atom, ...]]]:
    atom = atoms[index]
    before, after = atoms[:index], atoms[index + 1 :]
    yield "drop", before + after
    if atom.op in NEGATION:
        yield "negate", (*before, replace(atom, op=NEGATION[atom.op]), *after)
    if atom.op in BOUNDARY:
        yield "boundary", (*before, replace(atom, op=BOUNDARY[atom.op]), *after)


def _group_variants(task: Task, let: Let, node: Filtered, keep: _Keep) -> Iterator[tuple[str, Task, _Keep]]:
    if not isinstance(node, GroupBy):
        return
    opposite = replace(node, dir="min" if node.dir == "max" else "max")
    yield f"constraint/direction/{let.var}", with_node(task, let, opposite), keep
    if node.attr is not None:
        yield f"constraint/measure/{let.var}", with_node(task, let, replace(node, agg="count", attr=None)), keep


def _con_variants(
    sampler: Sampler, task: Task, result: OracleResult, let: Let, node: Choose, keep: _Keep
) -> Iterator[tuple[str, Task, _Keep]]:
    if node.or_none:
        yield from _none_variants(sampler, task, result, let, node, keep)
    for index, con in enumerate(node.cons):
        before, after = node.cons[:index], node.cons[index + 1 :]
        if node.or_none and con in node.bounds:
            dropped = _without_totals(with_node(task, let, replace(node, cons=(*before, *after), or_none=False)))
        else:
            dropped = with_node(task, let, replace(node, cons=(*before, *after)))
        yield f"constraint/drop/{let.var}.set{index}", dropped, keep
        if con.op in NEGATION:
            flipped: tuple[Con, ...] = (*before, replace(con, op=NEGATION[con.op]), *after)
            yield f"constraint/negate/{let.var}.set{index}", with_node(task, let, replace(node, cons=flipped)), keep
    if node.goal is not None:
        opposite = ("min" if node.goal[0] == "max" else "max", node.goal[1])
        yield f"constraint/goal/{let.var}", with_node(task, let, replace(node, goal=opposite)), keep


def _none_variants(
    sampler: Sampler, task: Task, result: OracleResult, let: Let, node: Choose, keep: _Keep
) -> Iterator[tuple[str, Task, _Keep]]:
    """Move the bound to the nearest total and just beyond it: there is a set where there was none, or the other way."""
    (bound,) = node.bounds
    upward = bound.op in (">", ">=")
    others = tuple(con for con in node.cons if con is not bound)
    relaxed = replace(node, cons=others, goal=("max" if upward else "min", bound.attr), or_none=False)
    sampler.oracle.recall(task, result)  # the last run was of a variant, in which variables may be missing
    _, info = sampler.oracle.resolve(relaxed)
    type_ = sampler.world.attr_type(node.entity, bound.attr.name)
    if info is None or info.best is None or type_ is None:
        return
    for label, op in (("reached", ">=" if upward else "<="), ("none", ">" if upward else "<")):
        moved = replace(bound, op=op, value=Const(info.best, type_.kind, type_.detail))
        cons = tuple(moved if con is bound else con for con in node.cons)
        yield f"constraint/{label}/{let.var}", with_node(task, let, replace(node, cons=cons)), keep


def _without_totals(task: Task) -> Task:
    """The program without totals of sets that may be empty."""
    reached = [let.var for let in lets(task, Reach)]
    steps = tuple(step for step in task.steps if not isinstance(step, Let) or step.var not in reached)
    return Task(
        steps, tuple((name, operand) for name, operand in task.report if getattr(operand, "var", "") not in reached)
    )


def _choice_keeper(sampler: Sampler, task: Task, result: OracleResult, let: Let, node: Choose) -> _Keep:
    """Keep a chosen set only when the original task does not accept it as well."""
    valid = dict.fromkeys(_unordered(item) for item in result.info[let.var].optimal)

    def keep(other: OracleResult) -> Outcome | None:
        if other.infeasible:
            return to_outcome(other.answer, other.changes)
        wrong = next((item for item in other.info[let.var].optimal if _unordered(item) not in valid), None)
        if wrong is None:
            return None
        sampler.oracle.recall(task, result)
        return to_outcome(_answer_with(sampler, task, result, let.var, node.entity, wrong), result.changes)

    return keep


def _unordered(chosen: Sequence[int | str]) -> tuple[str, ...]:
    return tuple(sorted(map(str, chosen)))


def _answer_with(
    sampler: Sampler, task: Task, result: OracleResult, var: str, entity: str, ids: Sequence[int | str]
) -> dict[str, JsonValue]:
    """The task's answer with another chosen set in the fields that report it, and its total."""
    answer: dict[str, JsonValue] = dict(result.answer)
    reached = [step.var for step in lets(task, Reach) if isinstance(step.node, Reach) and step.node.src.var == var]
    bounds = [con for let, node in chosen_lets(task) if let.var == var for con in node.bounds]
    for name, operand in task.report:
        if isinstance(operand, Ref) and operand.var in reached:
            answer[name] = sum(sampler.numbers(entity, ids, bounds[0].attr).values())
        if isinstance(operand, Of) and operand.var == var:
            answer[name] = [sampler.oracle.value(entity, row_id, operand.attr) for row_id in ids]
    return answer


def _argument_variants(sampler: Sampler, task: Task, keep: _Keep) -> Iterator[tuple[str, Task, _Keep]]:
    """Change one argument of each action to another row or another number: the wrong target."""
    acts = [node for node in walk(task) if isinstance(node, Act)]
    for number, act in enumerate(acts):
        for place, (name, operand) in enumerate(act.args):
            other = _other_operand(sampler, operand)
            if other is not None:
                args = (*act.args[:place], (name, other), *act.args[place + 1 :])
                yield f"argument/{act.op}{number}.{name}", swap(task, act, replace(act, args=args)), keep


def _other_operand(sampler: Sampler, operand: Operand) -> Named | Const | None:
    if isinstance(operand, Const) and isinstance(operand.value, int):
        return replace(operand, value=operand.value + 1)
    if isinstance(operand, Named):
        others = [row for row in sampler.rows(operand.entity) if row[operand.by] != operand.value]
        return sampler.named(operand.entity, others[len(others) // 2]) if others else None
    return None


def _decisions(task: Task, result: OracleResult) -> Iterator[ProbeCase]:
    """Say the other word: `done` without trying, `denied` after doing it, `denied` instead of doing it."""
    for name, operand in task.report:
        if not isinstance(operand, Ref) or operand.var not in result.decisions:
            continue
        allowed = result.decisions[operand.var]
        answer = {**result.answer, name: "denied" if allowed else "done"}
        yield ProbeCase(name=f"decision/word/{name}", accept=False, outcome=to_outcome(answer, result.changes))
        if result.changes:
            yield ProbeCase(name=f"decision/idle/{name}", accept=False, outcome=to_outcome(answer, ()))
            yield ProbeCase(name=f"decision/untried/{name}", accept=False, outcome=to_outcome(result.answer, ()))


def _alternatives(sampler: Sampler, task: Task, result: OracleResult, rng: random.Random) -> Iterator[ProbeCase]:
    for let, node in chosen_lets(task):
        optimal = result.info[let.var].optimal
        for number, chosen in enumerate(rng.sample(optimal, min(MAX_ALTERNATIVES, len(optimal)))):
            ids = list(chosen)
            rng.shuffle(ids)
            answer = _answer_with(sampler, task, result, let.var, node.entity, ids)
            yield ProbeCase(name=f"choice/{let.var}.{number}", accept=True, outcome=to_outcome(answer, result.changes))
    if len(result.changes) > 1:
        reversed_ = to_outcome(result.answer, list(reversed(result.changes)))
        yield ProbeCase(name="order of changes", accept=True, outcome=reversed_)
