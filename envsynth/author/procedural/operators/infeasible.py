"""Infeasible twin: tighten the bound of a choice until no set meets it; one number is all that differs."""

from __future__ import annotations

from dataclasses import replace

from pydantic import JsonValue

from envsynth.author.procedural.ir import Act, Con, Const, ForEach, Task
from envsynth.author.procedural.operators.edit import Edit, has
from envsynth.author.procedural.oracle import OracleResult
from envsynth.author.procedural.sampling import Sampler
from envsynth.author.procedural.sites import chosen_lets, with_node
from envsynth.errors import Rejected

MARGIN = 20
"""The bound misses the nearest total by at most its twentieth part: it does not look impossible."""


def make_infeasible(sampler: Sampler, task: Task, result: OracleResult) -> Edit:
    """Tighten the bound of a choice just beyond the nearest total that its other conditions allow.

    Args:
        sampler: Draws over the parent's world and overlay.
        task: The parent's program.
        result: The parent's oracle result.

    Returns:
        The proposal.

    Raises:
        Rejected: no choice that says what to answer without a set, one that has none already, a bound that is worked out,
            or a task that writes.
        Reject: the oracle cannot search the sets without the bound.
    """
    found = next(((let, node) for let, node in chosen_lets(task) if node.or_none), None)
    if found is None or result.infeasible or has(task, Act, ForEach):
        raise Rejected("no_site", "no choice that may be empty, or none that some set meets, or a task that writes")
    let, node = found
    (bound,) = node.bounds
    if not isinstance(bound.value, Const) or not isinstance(bound.value.value, int):
        raise Rejected("no_site", "the bound is not a number of the task")
    upward = bound.op in (">", ">=")
    others = tuple(con for con in node.cons if con is not bound)
    _, info = sampler.oracle.resolve(
        replace(node, cons=others, goal=("max" if upward else "min", bound.attr), or_none=False)
    )
    nearest = info.best if info is not None else None
    if nearest is None:
        raise Rejected("no_bound", "no total without the bound")
    margin = sampler.rng.randint(1, max(1, abs(nearest) // MARGIN)) - (bound.op in ("<", ">"))
    value = nearest + margin if upward else nearest - margin
    if value <= 0:
        raise Rejected("no_bound", f"no total can be {bound.op} {value}, which anybody sees")
    tight = Con("sum", bound.attr, bound.op, replace(bound.value, value=value))
    cons = tuple(tight if con is bound else con for con in node.cons)
    params: dict[str, JsonValue] = {"var": let.var, "bound": value, "was": bound.value.value, "nearest": nearest}
    return Edit(with_node(task, let, replace(node, cons=cons)), sampler.overlay, params)
