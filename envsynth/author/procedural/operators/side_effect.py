"""H4: demand an action on what was found."""

from __future__ import annotations

from envsynth.author.procedural.ir import Act, Ref, Task, check, walk
from envsynth.author.procedural.operators.edit import Edit, mended_rows
from envsynth.author.procedural.oracle import OracleResult
from envsynth.author.procedural.sampling import Sampler
from envsynth.errors import Rejected

MAX_ACTS = 2
"""Actions in one task."""
ACT_SKILLS = frozenset({"never_writes", "ignores_policy", "fuzzy_name", "no_pagination"})
"""Skills that an action can make necessary."""


def add_side_effect(sampler: Sampler, task: Task, result: OracleResult) -> Edit:
    """H4: demand an action on something that the task has found; an action unrelated to the parent is refused.

    Args:
        sampler: Draws over the parent's world and overlay.
        task: The parent's program.
        result: The parent's oracle result.

    Returns:
        The proposal.

    Raises:
        Rejected: `no_skill` when it would add none; `uncoupled` when no bound row is a parameter of an action.
    """
    if sampler.needed >= ACT_SKILLS:
        raise Rejected("no_skill", "an action would need no new skill")
    types = check(task, sampler.world)
    mended = mended_rows(task)
    bound = [
        (var, type_.detail)
        for var, type_ in types.items()
        if type_.kind == "row" and var not in mended and sampler.takes(type_.detail)
    ]
    if not bound:
        raise Rejected("uncoupled", "no bound row is a parameter of an action")
    sampler.rng.shuffle(bound)
    # Rows that no action touches yet come first: a second change of the same row is refused as ambiguous.
    acts = [step for step in task.steps if isinstance(step, Act)]
    touched = [node.var for act in acts for node in walk(act) if isinstance(node, Ref)]
    bound.sort(key=lambda pair: pair[0] in touched)
    act = sampler.act(bound)
    return Edit(Task((*task.steps, act), task.report), sampler.overlay, {"action": act.op})
