"""H13: ask for an action on every row that fits, instead of on one."""

from __future__ import annotations

from envsynth.author.procedural.ir import ForEach, Named, Ref, Task, swap, without_dead_lets
from envsynth.author.procedural.operators.edit import Edit, is_request
from envsynth.author.procedural.oracle import OracleResult
from envsynth.author.procedural.sampling import Sampler
from envsynth.errors import Rejected

DRAWS = 24
"""Draws of the conditions that say which rows."""
MEMBERS = range(2, 7)
"""Rows that the action is done on."""


def add_horizon(sampler: Sampler, task: Task, result: OracleResult) -> Edit:
    """H13: turn an action on one row into the same action on each row that meets conditions, that row among them.

    Args:
        sampler: Draws over the parent's world and overlay.
        task: The parent's program.
        result: The parent's oracle result.

    Returns:
        The proposal.

    Raises:
        Rejected: no action on exactly one row, or no conditions that a few rows meet.
    """
    acts = [step for step in task.steps if is_request(step) and len(step.args) == 1]
    sites = [act for act in acts if isinstance(act.args[0][1], (Named, Ref))]
    if not sites:
        raise Rejected("no_site", "no action takes exactly one row")
    act = sampler.rng.choice(sites)
    entity = next(type_.detail for _, type_ in sampler.world.actions[act.op].params)
    operand = act.args[0][1]
    target = sampler.row(operand)["id"] if isinstance(operand, Named) else _bound(result, operand)
    for _ in range(DRAWS):
        atoms = (sampler.atom(entity, target),)
        if sampler.rng.random() < 0.5:
            atoms = (*atoms, sampler.atom(entity, target))
        if (
            len({atom.attr.name for atom in atoms}) < len(atoms)
            or len(sampler.oracle.ids(entity, atoms)) not in MEMBERS
        ):
            continue
        child = without_dead_lets(swap(task, act, ForEach(entity, atoms, act.op)))
        if len(child.steps) < len(task.steps):
            raise Rejected("uncoupled", "what the task had found would not be needed any more")
        return Edit(child, sampler.overlay, {"action": act.op, "rows": len(sampler.oracle.ids(entity, atoms))})
    raise Rejected("no_set", f"no conditions that {MEMBERS.start} to {MEMBERS.stop - 1} rows meet")


def _bound(result: OracleResult, operand: object) -> int | str:
    value = result.bindings[operand.var] if isinstance(operand, Ref) else None
    if value is None or isinstance(value, list):
        raise Rejected("no_row", "the action is on a set")
    return value
