"""How many tool calls a task leaves its actor, where they are limited: set once its solution has been played."""

from __future__ import annotations

import math
import random

from envsynth.errors import Rejected
from envsynth.gates import Case
from envsynth.gates.delivery_gates import LEAST_ROOM, WASTEFUL
from envsynth.spec import TaskVersion

MOST_ROOM = 2
"""The limit is at most so many times the solution's calls."""
FEWEST_CALLS = 5
"""A solution that makes fewer leaves nothing to waste: one call more or less would decide."""


def fitted(case: Case) -> TaskVersion:
    """Fit the limit of a task's tool calls to its solution, so that no solver that wastes calls gets by with them.

    The limit is drawn from 1.3 to 2 times the solution's calls, below those of every wasteful solver.

    Args:
        case: The task; its calls are limited somehow.

    Returns:
        The task with that limit; the task as it is when its solution fails, which gates will tell.

    Raises:
        Rejected: `nonbinding` where a wasteful solver makes no more calls than a limit must leave, or fails without one.
    """
    task = case.task
    wasteful = [skill for skill in WASTEFUL if skill in task.ablations]
    played = case.without_limit(["", *wasteful])
    if played[""].verdict.status != "pass":
        return task
    calls = played[""].calls
    if calls < FEWEST_CALLS:
        raise Rejected("nonbinding", f"the solution makes {calls} tool calls: there is nothing to waste")
    least, most = math.ceil(LEAST_ROOM * calls), MOST_ROOM * calls
    for skill in wasteful:
        verdict, made = played[skill]
        if verdict.status != "pass":
            raise Rejected("nonbinding", f"{skill} fails without a limit as well")
        most = min(most, made - 1)
        if least > most:
            raise Rejected("nonbinding", f"{skill} makes {made} tool calls, the solution {calls}")
    limit = random.Random(f"limit/{task.provenance.seed}").randint(least, most)
    return task.model_copy(update={"delivery": task.delivery.model_copy(update={"max_calls": limit})})
