"""H8: ask for the best choice instead of any."""

from __future__ import annotations

from dataclasses import replace

from envsynth.author.procedural.ir import Task
from envsynth.author.procedural.operators.edit import Edit
from envsynth.author.procedural.oracle import OracleResult
from envsynth.author.procedural.sampling import Sampler
from envsynth.author.procedural.sites import chosen_lets, with_node
from envsynth.errors import Rejected


def add_goal(sampler: Sampler, task: Task, result: OracleResult) -> Edit:
    """H8: turn "any feasible choice" into "the best feasible choice", against the direction of the set condition.

    Args:
        sampler: Draws over the parent's world and overlay.
        task: The parent's program.
        result: The parent's oracle result.

    Returns:
        The proposal.

    Raises:
        Rejected: no choice without a goal, or no further numeric attribute.
    """
    found = next(((let, node) for let, node in chosen_lets(task) if node.goal is None), None)
    if found is None or result.infeasible:
        raise Rejected("no_site", "no choice without a goal, or none that some set meets")
    let, node = found
    used = [con.attr.name for con in node.cons]
    names = [name for name in sampler.additive(node.entity) if name not in used]
    if not names:
        raise Rejected("no_attribute", f"{node.entity} has no further number")
    bound = next((con.op for con in node.cons if con.kind == "sum"), "<=")
    attr = sampler.attr(node.entity, sampler.rng.choice(names))
    direction = "max" if bound in ("<=", "<") else "min"
    child = with_node(task, let, replace(node, goal=(direction, attr)))
    return Edit(child, sampler.overlay, {"var": let.var, "attribute": attr.name, "direction": direction})
