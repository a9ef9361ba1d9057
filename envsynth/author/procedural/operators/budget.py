"""H14: limit tool calls to little more than the solution makes, so that who reads twice, or everything, has none left."""

from __future__ import annotations

from envsynth.author.procedural.ir import Budget, Task
from envsynth.author.procedural.operators.edit import Edit, has
from envsynth.author.procedural.oracle import OracleResult
from envsynth.author.procedural.sampling import Sampler
from envsynth.delivery import Delivery
from envsynth.errors import Rejected

BUDGET_SKILLS = frozenset({"spendthrift", "brute_force"})
"""Skills that a limit is for."""
UNTIL_PLAYED = 400
"""Limit of a candidate until its solution has been played; how many calls that makes, no program tells."""


def add_budget(sampler: Sampler, task: Task, result: OracleResult) -> Edit:
    """H14: limit tool calls; the outcome stays. The limit itself is set once the solution has been played.

    Args:
        sampler: Draws over the parent's world and overlay.
        task: The parent's program.
        result: The parent's oracle result.

    Returns:
        The proposal, with a limit that limits nothing yet.

    Raises:
        Rejected: `no_site` where calls are limited already; `no_skill` where thrift is needed already.
    """
    del result
    if has(task, Budget):
        raise Rejected("no_site", "tool calls are limited already")
    if sampler.needed >= BUDGET_SKILLS:
        raise Rejected("no_skill", "the parent needs thrift already")
    return Edit(
        Task((*task.steps, Budget()), task.report), sampler.overlay, {}, delivery=Delivery(max_calls=UNTIL_PLAYED)
    )
