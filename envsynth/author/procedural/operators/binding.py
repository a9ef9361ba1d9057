"""Binding tests: does an edit do what its operator is for? The relational oracle answers, on the whole task."""

from __future__ import annotations

from collections.abc import Callable

from envsynth.author.procedural.ir import Attr, Choose, Task
from envsynth.author.procedural.operators.edit import has
from envsynth.author.procedural.oracle import LetInfo, OracleResult, Reject
from envsynth.author.procedural.sampling import Sampler
from envsynth.author.procedural.sites import chosen_lets, filtered_lets, with_atoms
from envsynth.author.procedural.unruled import same_outcome, unruled

GROWTH = 1.1
"""By which factor the feasible sets must grow when a condition on a choice is dropped."""
_INVARIANT = ("aggregate", "conceal", "group", "faults", "ask", "budget", "withhold")
"""Operators that leave the outcome as it is."""


def binding_failure(name: str, parent: OracleResult, child: OracleResult, sampler: Sampler, task: Task) -> str | None:
    """Ask the oracle whether an edit does what its operator is for.

    `constraint` is covered for all operators by `nonbinding_atom`: every condition, not only the new one, must change
    the task's outcome when it is dropped.

    Args:
        name: The operator.
        parent: Oracle result of the parent.
        child: Oracle result of the child.
        sampler: Draws over the child's world and overlay.
        task: The child's program.

    Returns:
        Why the edit does not bind, or None.
    """
    return (
        _set_failure(name, parent, child)
        or _edit_failure(name, parent, child, sampler, task)
        or (_rule_failure(parent, child, sampler, task) if name == "policy" else None)
    )


def _set_failure(name: str, parent: OracleResult, child: OracleResult) -> str | None:
    """Whether there is a set to choose may change by the operator that is for it alone."""
    if name == "infeasible":
        return None if child.infeasible else "some set still meets all conditions"
    return None if child.infeasible == parent.infeasible else "whether a set exists has changed"


def _edit_failure(name: str, parent: OracleResult, child: OracleResult, sampler: Sampler, task: Task) -> str | None:
    same = (child.answer, child.changes) == (parent.answer, parent.changes)
    if name == "hop" and not same and not has(task, Choose):
        return "the description denotes another row"
    if name == "distractors" and not same and not has(task, Choose):
        return "a distractor changed the outcome"
    if name in _INVARIANT and not same and not has(task, Choose):
        return "the new description means something else"
    if name in ("side_effect", "horizon") and len(child.changes) <= len(parent.changes):
        return "the action changes nothing more"
    if name == "optimise":
        return _goal_failure(sampler, task, child)
    return None


def _goal_failure(sampler: Sampler, task: Task, child: OracleResult) -> str | None:
    """A goal binds when taking the k extreme rows is not optimal: the condition on the set matters."""
    for let, node in chosen_lets(task):
        if node.goal is not None and _extremes(sampler, child.info[let.var], node, node.goal) in _sets(child, let.var):
            return "taking the extreme rows one by one is already optimal"
    return None


def _rule_failure(parent: OracleResult, child: OracleResult, sampler: Sampler, task: Task) -> str | None:
    """A rule binds when it changes what is right, and who knows no rules gets something else."""
    if (child.answer, child.changes) == (parent.answer, parent.changes):
        return "the rule changes nothing"
    return "who ignores the rule is right" if same_outcome(task, child, unruled(sampler, task)) else None


def _extremes(sampler: Sampler, info: LetInfo, node: Choose, goal: tuple[str, Attr]) -> list[str]:
    direction, attr = goal
    value = sampler.numbers(node.entity, info.ids, attr)
    ranked = sorted(info.ids, key=lambda row_id: value.get(row_id, 0), reverse=direction == "max")
    return sorted(map(str, ranked[: node.k]))


def _sets(child: OracleResult, var: str) -> list[list[str]]:
    return [sorted(map(str, chosen)) for chosen in child.info[var].optimal]


def nonbinding_atom(task: Task, result: OracleResult, run: Callable[[Task], OracleResult]) -> str | None:
    """Find a condition that can be dropped without changing what the task asks for.

    For a choice, dropping must grow the feasible sets by a tenth or move the optimum (where no set is feasible, the nearest
    total); for all others, dropping must change the answer or the changes of the whole task, or so much about a choice that depends on it.

    Args:
        task: The program.
        result: Its oracle result.
        run: Runs the oracle on a variant.

    Returns:
        The variable and attribute, or None when every condition binds.
    """
    for let, node in filtered_lets(task):
        for index, atom in enumerate(node.atoms):
            variant = with_atoms(task, let, node, node.atoms[:index] + node.atoms[index + 1 :])
            try:
                without = run(variant)
            except Reject as reason:
                if reason.code in ("tie", "search_cap"):
                    continue
                return f"{let.var}: {atom.attr.name} ({reason.code} without it)"
            if isinstance(node, Choose):
                binds = _moves(result.info[let.var], without.info[let.var])
            else:
                binds = differs(task, result, without)
            if not binds:
                return f"{let.var}: {atom.attr.name}"
    return None


def differs(task: Task, result: OracleResult, without: OracleResult) -> bool:
    """Whether two outcomes of one task differ: in the answer, the changes, or what a choice allows."""
    if (without.answer, without.changes) != (result.answer, result.changes):
        return True
    pairs = [(result.info[let.var], without.info[let.var]) for let, _ in chosen_lets(task)]
    return any(_moves(old, new) or _moves(new, old) for old, new in pairs)


def _moves(before: LetInfo, after: LetInfo) -> bool:
    grows = after.feasible > before.feasible and after.feasible >= GROWTH * before.feasible
    return grows or after.best != before.best
