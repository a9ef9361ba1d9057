"""H7: make the action depend on a fact."""

from __future__ import annotations

from pydantic import JsonValue

from envsynth.author.procedural.ir import Atom, Attr, Const, If, Let, Of, Only, Pick, Task, check, swap
from envsynth.author.procedural.operators.edit import Edit, is_request, mended_rows, winner
from envsynth.author.procedural.oracle import OracleResult
from envsynth.author.procedural.sampling import COMPARE, Sampler
from envsynth.errors import Rejected

TRUE_SHARE = 0.4
"""Share of branches whose condition holds; where it fails, a solver that never tests it does the wrong thing."""


def add_branch(sampler: Sampler, task: Task, result: OracleResult) -> Edit:
    """H7: make the one action depend on a fact that only tools tell; the other branch is another coupled action.

    Args:
        sampler: Draws over the parent's world and overlay.
        task: The parent's program.
        result: The parent's oracle result.

    Returns:
        The proposal.

    Raises:
        Rejected: not exactly one action, or no bound row with a numeric attribute.
    """
    acts = [step for step in task.steps if is_request(step)]
    found = check(task, sampler.world).items()
    bound = [(var, type_.detail) for var, type_ in found if type_.kind == "row"]
    rows = [(var, entity) for var, entity in bound if sampler.attr_names(entity, ("num",))]
    if len(acts) != 1 or not rows:
        raise Rejected("no_site", "needs exactly one action and a bound row with a number")
    var, entity = sampler.rng.choice(rows)
    attr = sampler.attr(entity, sampler.rng.choice(sampler.attr_names(entity, ("num",))))
    truth = sampler.rng.random() < TRUE_SHARE
    atom = sampler.atom_on(entity, attr, winner(result, var), truth=truth)
    if atom is None or not isinstance(atom.value, Const):
        raise Rejected("no_atom", f"no threshold for {attr.name}")
    if _told(task, var, attr):
        raise Rejected("idle_condition", f"{var} is described by {attr.name} already")
    if not _varies(sampler, entity, atom, atom.value):
        raise Rejected("idle_condition", f"{attr.name} {atom.op} the threshold never varies")
    other = sampler.act([(var, entity)] if sampler.takes(entity) and var not in mended_rows(task) else [])
    if other == acts[0]:
        raise Rejected("same_branches", "both branches ask for the same action")
    then, otherwise = (acts[0], other) if truth else (other, acts[0])
    branch = If(Of(var, attr), atom.op, atom.value, (then,), (otherwise,))
    params: dict[str, JsonValue] = {"var": var, "attribute": attr.name, "holds": truth}
    return Edit(swap(task, acts[0], branch), sampler.overlay, params)


def _told(task: Task, var: str, attr: Attr) -> bool:
    """Whether the description of a variable restricts the attribute: then the prompt may give the condition away."""
    nodes = [step.node for step in task.steps if isinstance(step, Let) and step.var == var]
    return any(attr == atom.attr for node in nodes if isinstance(node, (Pick, Only)) for atom in node.atoms)


def _varies(sampler: Sampler, entity: str, atom: Atom, threshold: Const) -> bool:
    """Whether the condition is true of some row of the entity and false of another."""
    ids = [row["id"] for row in sampler.world.rows[entity]]
    values = sampler.numbers(entity, ids, atom.attr).values()
    truths = [COMPARE[atom.op](value, threshold.value) for value in values]
    return any(truths) and not all(truths)
